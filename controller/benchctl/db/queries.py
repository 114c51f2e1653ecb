"""The one way to every answer, for the command line and whatever else asks. SQL stands here and in no command.

Answers are lists of plain objects whose keys are those of the tables, with units in the names. Real and synthetic
weights are never in one answer unless ``weights="all"`` asked for both; every row says which it is.
"""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, or_, select, tuple_

from benchctl import stats
from benchctl.db.naming import NICKNAMES, find_model
from benchctl.db.schema import Job, Measurement, RawRun, Server, Sweep
from benchctl.errors import UsageError
from benchctl.names import LAST, sweep_meant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

WEIGHTS = ("real", "synthetic", "rehearsal", "all")
"""What may be asked for; ``all`` is real and synthetic, for a rehearsal measures nothing."""

OK = "ok"
FALLBACK = "gpu_fallback"
"""A GPU was to do the work and the CPU did it: there is a speed, and it is not the one that was asked for."""

SYNTHETIC_NOTE = (
    "Weights: synthetic (random blocks in the real model's shapes). No real weights were measured for this question."
)
REHEARSAL_NOTE = "A rehearsal: measured on containers, or played from recordings; no measurement of a server."
ALL_NOTE = "Weights: real and synthetic rows in one list; the column 'weights' says which is which."

Row = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """What measurements are asked for; nothing means all.

    Attributes:
        vendor: identifier of the vendor.
        server: ``server_id``.
        sweep: identifier of the sweep.
        model: the model's short name, or the name of its file.
        task: ``pp`` or ``tg``.
        tokens: the length.
        weights: ``real``, ``synthetic``, ``rehearsal`` or ``all`` (the first two);
            nothing means real where there are any, else synthetic.
        all_outcomes: every scenario, also those that ended without a score.
        fallback: also what ran on the CPU instead of the GPU (``gpu_fallback``).
    """

    vendor: str | None = None
    server: str | None = None
    sweep: str | None = None
    model: str | None = None
    task: str | None = None
    tokens: int | None = None
    weights: str | None = None
    all_outcomes: bool = False
    fallback: bool = False

    def shows(self, outcome: str) -> bool:
        """Whether rows that ended so are part of the answer."""
        return self.all_outcomes or outcome == OK or (self.fallback and outcome == FALLBACK)


@dataclass(frozen=True)
class Answer:
    """Rows, and what a reader of them must know.

    Attributes:
        rows: the objects.
        notes: sentences that belong to the answer.
        hidden: rows that ended otherwise than ``ok`` and were left out, by outcome.
    """

    rows: list[Row]
    notes: tuple[str, ...] = ()
    hidden: dict[str, int] | None = None


@dataclass(frozen=True)
class ServerName:
    """A server that was measured."""

    vendor: str
    server: str
    api_reference: str

    def __str__(self) -> str:
        return f"{self.vendor}/{self.api_reference}"


def measured_servers(session: Session) -> list[ServerName]:
    """All servers with measurements, the one measured last first."""
    newest = (
        select(Measurement.vendor_id, Measurement.server_id, func.max(Measurement.measured_at).label("newest"))
        .group_by(Measurement.vendor_id, Measurement.server_id)
        .subquery()
    )
    found = session.execute(
        select(Server.vendor_id, Server.server_id, Server.api_reference)
        .join(newest, (Server.vendor_id == newest.c.vendor_id) & (Server.server_id == newest.c.server_id))
        .order_by(newest.c.newest.desc().nulls_last(), Server.vendor_id, Server.api_reference)
    )
    return [ServerName(*row) for row in found]


def anything_measured(session: Session) -> bool:
    """Whether there is any measurement at all."""
    return session.execute(select(Measurement.sweep_id).limit(1)).first() is not None


def server_names(session: Session, beginning: str) -> list[str]:
    """Names of measured servers that begin so, as a shell completes them: ``aws/g6.xlarge``, or ``g6.xlarge``."""
    vendor, slash, server = beginning.rpartition("/")
    query = select(Server.vendor_id, Server.api_reference).where(_was_measured())
    if slash:
        query = query.where(
            Server.vendor_id == NICKNAMES.get(vendor.lower(), vendor.lower()),
            Server.api_reference.istartswith(server, autoescape=True),
        )
        return sorted(f"{vendor}/{name}" for _, name in session.execute(query))
    query = query.where(
        or_(
            Server.vendor_id.istartswith(beginning, autoescape=True),
            Server.api_reference.istartswith(beginning, autoescape=True),
        )
    )
    lowered = beginning.lower()
    found = list(session.execute(query))
    by_vendor = sorted(f"{vendor}/{name}" for vendor, name in found if vendor.startswith(lowered))
    return by_vendor + sorted({name for _, name in found if name.lower().startswith(lowered)})


def model_names(session: Session, beginning: str) -> list[str]:
    """Names of measured models that begin so."""
    found = session.scalars(
        select(Measurement.model).where(Measurement.model.istartswith(beginning, autoescape=True)).distinct()
    )
    return sorted(found)


def find_server(session: Session, name: str | None) -> ServerName | None:
    """The server that ``VENDOR/SERVER`` or ``SERVER`` means; without a name the one measured last.

    ``SERVER`` is the identifier or the vendor's own name for it, in any case.

    Returns:
        The server; nothing when nothing was measured anywhere.

    Raises:
        UsageError: there is none of that name, or several.
    """
    columns = select(Server.vendor_id, Server.server_id, Server.api_reference)
    if name is None:
        newest = session.execute(
            select(Measurement.vendor_id, Measurement.server_id)
            .order_by(Measurement.measured_at.desc().nulls_last(), Measurement.vendor_id, Measurement.server_id)
            .limit(1)
        ).first()
        if newest is None:
            return None
        row = session.execute(columns.where(Server.vendor_id == newest[0], Server.server_id == newest[1])).one()
        return ServerName(*row)
    if not anything_measured(session):
        return None
    vendor, _, server = name.rpartition("/")
    vendor = NICKNAMES.get(vendor.lower(), vendor.lower())
    named = columns.where(
        or_(func.lower(Server.server_id) == server.lower(), func.lower(Server.api_reference) == server.lower())
    ).order_by(Server.vendor_id, Server.server_id)
    elsewhere = [ServerName(*row) for row in session.execute(named.where(_was_measured()))]
    found = [one for one in elsewhere if not vendor or one.vendor == vendor]
    exact = [one for one in found if server in (one.server, one.api_reference)]
    found = exact or found
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"'{name}' is several servers: {', '.join(map(str, found))}.", "Give VENDOR/SERVER.")
    if not elsewhere:
        listed = [ServerName(*row) for row in session.execute(named) if not vendor or row[0] == vendor]
        if listed:
            raise UsageError(
                f"{listed[0]} is in the catalogue, but no measurement of it is in the database.",
                "'benchctl coverage' says what was measured, and what not and why.",
            )
    servers = elsewhere or measured_servers(session)
    raise _unknown("server", name, [str(one) if vendor or elsewhere else one.api_reference for one in servers])


def _was_measured() -> Any:
    """Condition on ``server``: there is a measurement of it."""
    return (
        select(Measurement.sweep_id)
        .where(Measurement.vendor_id == Server.vendor_id, Measurement.server_id == Server.server_id)
        .exists()
    )


def find_sweep(session: Session, name: str) -> str:
    """The sweep that ``name``, the beginning of it, or ``last`` means.

    Raises:
        UsageError: there is none, or several.
    """
    known = list(session.scalars(select(Sweep.sweep_id).order_by(Sweep.created_at.desc())))
    if name == LAST and known:
        return known[0]
    meant = sweep_meant(name, known)
    if meant is not None:
        return meant
    raise _unknown("sweep", name, known)


def measurements(session: Session, question: Question) -> Answer:
    """What is known of each scenario that the question covers: the newest of each server, model, task and length.

    Of several sweeps of the same scenario the newest that ended ``ok`` counts, or the newest at all where none did;
    with ``question.sweep`` that sweep alone. Several instances in one sweep are several rows.

    Raises:
        UsageError: the model was never measured.
    """
    query = _asked(session, _rows(), question)
    found = _in_order(session.execute(query).mappings())
    weights = question.weights
    if question.sweep and weights in (None, "all") and all(row["weights"] == "rehearsal" for row in found):
        weights = "rehearsal"  # who names a rehearsal asks for it
    chosen, notes = by_weights(found, weights)
    rows = newest(chosen)
    hidden = Counter(row["outcome"] for row in rows if not question.shows(row["outcome"]))
    shown = [row for row in rows if question.shows(row["outcome"])]
    return Answer(shown, notes, dict(sorted(hidden.items())))


def rows_of_servers(session: Session, servers: Sequence[tuple[str, str]], question: Question) -> list[Row]:
    """All measurements of some servers (vendor_id, server_id) that the question covers, of every sweep and outcome.

    Raises:
        UsageError: the model was never measured.
    """
    query = _asked(session, _rows(), question)
    query = query.where(
        or_(*((Measurement.vendor_id == vendor) & (Measurement.server_id == server) for vendor, server in servers))
    )
    return _in_order(session.execute(query).mappings())


def rows_of(session: Session, keys: Iterable[tuple[str, str, str, str, int]]) -> dict[tuple[Any, ...], Row]:
    """The whole rows with these primary keys, by key: ``(sweep_id, job_id, model, task, tokens)``."""
    key = (Measurement.sweep_id, Measurement.job_id, Measurement.model, Measurement.task, Measurement.tokens)
    found = session.execute(_rows().where(tuple_(*key).in_(list(keys)))).mappings()
    return {tuple(row[column.key] for column in key): _row(row) for row in found}


def with_sources(session: Session, rows: Sequence[Row]) -> list[Row]:
    """The rows with where their raw file is: ``raw_origin``, the lake, folder or archive, and ``raw_file`` in it.

    Both are nothing for rows whose raw run the database does not know.
    """
    jobs = {(row["sweep_id"], row["job_id"]) for row in rows}
    found = session.execute(
        select(RawRun.sweep_id, RawRun.job_id, RawRun.origin, RawRun.path)
        .where(RawRun.sweep_id.in_({sweep for sweep, _ in jobs}), RawRun.job_id.in_({job for _, job in jobs}))
        .order_by(RawRun.ingested_at)
    )
    runs = {(sweep, job): (origin, path) for sweep, job, origin, path in found}
    answer = []
    for row in rows:
        origin, path = runs.get((row["sweep_id"], row["job_id"]), (None, None))
        file = None if path is None else "/".join(filter(None, (path, row["raw_path"].rpartition("/")[2])))
        answer.append({**row, "raw_origin": origin, "raw_file": file})
    return answer


def scenarios_of(session: Session, model: str) -> list[str]:
    """What of a model was measured ``ok``: ``pp16``, ``pp512``, ``tg16``, ..."""
    found = session.execute(
        select(Measurement.task, Measurement.tokens)
        .where(Measurement.model_file.in_(files_of(session, model)), Measurement.outcome == OK)
        .distinct()
        .order_by(Measurement.task, Measurement.tokens)
    )
    return [f"{task}{tokens}" for task, tokens in found]


def sweeps(session: Session, sweep: str | None = None, limit: int | None = None) -> list[Row]:
    """Sweeps, the newest first, with the number of their jobs by status and of their scenarios by outcome."""
    query = select(Sweep).order_by(Sweep.created_at.desc(), Sweep.sweep_id.desc()).limit(limit)
    found = list(session.scalars(query.where(Sweep.sweep_id == sweep) if sweep else query))
    all_jobs: dict[str, list[Job]] = {one.sweep_id: [] for one in found}
    for job in session.scalars(select(Job).where(Job.sweep_id.in_(all_jobs)).order_by(Job.job_id)):
        all_jobs[job.sweep_id].append(job)
    return [_sweep_row(one, all_jobs[one.sweep_id]) for one in found]


def _sweep_row(sweep: Sweep, its_jobs: Sequence[Job]) -> Row:
    outcomes: Counter[str] = Counter()
    for job in its_jobs:
        outcomes.update(job.outcomes)
    return {
        "sweep_id": sweep.sweep_id,
        "created_at": sweep.created_at,
        "finished_at": sweep.finished_at,
        "status": sweep.status,
        "suite": sweep.suite,
        "vendors": sweep.vendors,
        "weights": sweep.weights,
        "error": sweep.error,
        "outcomes": dict(sorted(outcomes.items())),
        "jobs": [_job_row(job) for job in its_jobs],
    }


def _job_row(job: Job) -> Row:
    keys = (
        "sweep_id", "job_id", "vendor_id", "server_id", "api_reference", "replica", "stage", "status", "outcomes",
        "started_at", "ended_at", "region", "zone", "price_usd_per_hour", "launch_price_per_hour", "currency", "error",
    )  # fmt: skip
    return {key: getattr(job, key) for key in keys}


def files_of(session: Session, model: str) -> tuple[str, ...]:
    """The files that a model's name stands for; none where nothing was measured at all.

    Raises:
        UsageError: this model was never measured.
    """
    found = find_model(session, model)
    return found.files if found else ()


def by_weights(rows: Sequence[Row], weights: str | None) -> tuple[list[Row], tuple[str, ...]]:
    """Only one kind of weights, or both where that was asked for; and what to say about it."""
    if weights == "rehearsal":
        played = [row for row in rows if row["weights"] == weights]
        return played, (REHEARSAL_NOTE,) if played else ()
    by_kind = {kind: [row for row in rows if row["weights"] == kind] for kind in ("real", "synthetic")}
    if weights == "all":
        both = [row for row in rows if row["weights"] in by_kind]
        return both, (ALL_NOTE,) if all(by_kind.values()) else ()
    rehearsed = len(rows) - sum(map(len, by_kind.values()))
    chosen, notes = _by_weights(by_kind, weights)
    if rehearsed and weights is None:
        notes = (*notes, f"Left out, because rehearsed: {rehearsed} (--weights rehearsal shows them).")
    return chosen, notes


def _by_weights(by_kind: Mapping[str, list[Row]], weights: str | None) -> tuple[list[Row], tuple[str, ...]]:
    """Real or synthetic ones."""
    if weights is None:
        # real rows that only say why nothing was measured must not hide a speed
        speeds = {kind for kind, of_kind in by_kind.items() if any(row["tokens_per_second"] for row in of_kind)}
        synthetic = "real" not in speeds and ("synthetic" in speeds or not by_kind["real"])
        weights = "synthetic" if synthetic else "real"
        if weights == "synthetic" and by_kind["synthetic"]:
            return by_kind["synthetic"], (SYNTHETIC_NOTE,)
        left_out = len(by_kind["synthetic"])
        note = f"Left out, because measured with synthetic weights: {left_out} (--weights synthetic shows them)."
        return by_kind["real"], (note,) if left_out else ()
    if weights == "synthetic" and by_kind["synthetic"]:
        return by_kind["synthetic"], ("Weights: synthetic (random blocks in the real model's shapes).",)
    return by_kind[weights], ()


def newest(rows: Iterable[Row]) -> list[Row]:
    """Of every scenario the newest sweep that ended ``ok``, or the newest where none did."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("vendor_id", "server_id", "model_file", "task", "tokens", "weights"))
        groups.setdefault(key, []).append(row)
    chosen = []
    for group in groups.values():
        best = max(group, key=lambda row: (row["outcome"] == OK, _age(row))) if len(group) > 1 else group[0]
        chosen += [row for row in group if row["sweep_id"] == best["sweep_id"]]
    return chosen


def _age(row: Row) -> datetime:
    at = row["measured_at"]
    return at if isinstance(at, datetime) else datetime.fromtimestamp(0, tz=UTC)


def _rows() -> Select[Any]:
    """Measurements whole, with the names of their servers: plain rows, which read ten times as fast as objects."""
    return select(Server.api_reference, Server.display_name, *Measurement.__table__.columns).join(
        Server, (Server.vendor_id == Measurement.vendor_id) & (Server.server_id == Measurement.server_id)
    )


def _asked(session: Session, query: Select[Any], question: Question) -> Select[Any]:
    wanted = {
        Measurement.vendor_id: question.vendor,
        Measurement.server_id: question.server,
        Measurement.sweep_id: question.sweep,
        Measurement.task: question.task,
        Measurement.tokens: question.tokens,
    }
    for column, value in wanted.items():
        if value is not None:
            query = query.where(column == value)
    if question.model is not None:
        query = query.where(Measurement.model_file.in_(files_of(session, question.model)))
    return query


def _in_order(found: Iterable[Mapping[Any, Any]]) -> list[Row]:
    """Rows by size of the model, then model, task, length, weights and job."""
    rows = [_row(one) for one in found]
    size: dict[str, int] = {}
    for row in rows:
        bytes_known = row["model_tensor_bytes"] or row["model_bytes"] or 0
        size[row["model"]] = max(size.get(row["model"], 0), bytes_known)
    keys = ("model", "task", "tokens", "weights", "job_id")
    return sorted(rows, key=lambda row: (size[row["model"]], *(row[key] for key in keys)))


def _row(found: Mapping[Any, Any]) -> Row:
    names = {key: found[key] for key in ("vendor_id", "server_id", "api_reference", "display_name")}
    row = {**names, **found}
    speed = row["tokens_per_second"] if row["outcome"] in (OK, FALLBACK) else None
    row["usd_per_million_tokens"] = stats.usd_per_million_tokens(row["price_usd_per_hour"], speed)
    return row


def _unknown(what: str, name: str, known: list[str]) -> UsageError:
    problem = f"There is no sweep '{name}'." if what == "sweep" else f"No {what} '{name}' was measured."
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    if near:
        return UsageError(problem, f"Did you mean '{near[0]}'?")
    listed = ", ".join(dict.fromkeys(known[:6])) or "none"
    return UsageError(problem, f"There are: {listed}.")
