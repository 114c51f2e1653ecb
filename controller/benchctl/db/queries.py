"""The one way to every answer, for the command line and whatever else asks. SQL stands here and in no command.

Answers are lists of plain objects whose keys are those of the tables, with units in the names. Real and synthetic
weights are never in one answer unless ``weights="all"`` asked for both; every row says which it is.
"""

from __future__ import annotations

import difflib
import statistics
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from benchctl import stats
from benchctl.db.schema import Job, Measurement, Server, Sweep
from benchctl.errors import UsageError
from benchctl.names import sweep_meant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.orm import Session

WEIGHTS = ("real", "synthetic", "all")

SYNTHETIC_NOTE = (
    "Weights: synthetic (random blocks in the real model's shapes). No real weights were measured for this question."
)
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
        weights: ``real``, ``synthetic`` or ``all``; nothing means real where there are any, else synthetic.
        outcomes: ``ok`` alone, or all.
    """

    vendor: str | None = None
    server: str | None = None
    sweep: str | None = None
    model: str | None = None
    task: str | None = None
    tokens: int | None = None
    weights: str | None = None
    all_outcomes: bool = False


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
        return f"{self.vendor}/{self.server}"


def measured_servers(session: Session) -> list[ServerName]:
    """All servers with measurements, the one measured last first."""
    newest = func.max(Measurement.measured_at)
    found = session.execute(
        select(Measurement.vendor_id, Measurement.server_id, Server.api_reference)
        .join(Server, (Server.vendor_id == Measurement.vendor_id) & (Server.server_id == Measurement.server_id))
        .group_by(Measurement.vendor_id, Measurement.server_id, Server.api_reference)
        .order_by(newest.desc())
    )
    return [ServerName(*row) for row in found]


def find_server(session: Session, name: str | None) -> ServerName | None:
    """The server that ``VENDOR/SERVER`` or ``SERVER`` means; without a name the one measured last.

    Returns:
        The server; nothing when nothing was measured anywhere.

    Raises:
        UsageError: there is none of that name, or several.
    """
    servers = measured_servers(session)
    if not servers or name is None:
        return servers[0] if servers else None
    vendor, _, server = name.rpartition("/")
    found = [
        one for one in servers if server in (one.server, one.api_reference) and (not vendor or vendor == one.vendor)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"'{name}' is several servers: {', '.join(map(str, found))}.", "Give VENDOR/SERVER.")
    elsewhere = [str(one) for one in servers if server in (one.server, one.api_reference)]
    raise _unknown("server", name, elsewhere or [str(one) if vendor else one.server for one in servers])


def find_sweep(session: Session, name: str) -> str:
    """The sweep that ``name``, or the beginning of it, means.

    Raises:
        UsageError: there is none, or several.
    """
    known = list(session.scalars(select(Sweep.sweep_id).order_by(Sweep.created_at.desc())))
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
    candidates = _load(session, question)
    chosen, notes = _by_weights(candidates, question.weights)
    newest = _newest(chosen)
    hidden = Counter(one.outcome for one, _, _ in newest if one.outcome != "ok")
    shown = [entry for entry in newest if question.all_outcomes or entry[0].outcome == "ok"]
    return Answer(
        [_row(*entry) for entry in shown], notes, {} if question.all_outcomes else dict(sorted(hidden.items()))
    )


def top(session: Session, question: Question, limit: int | None = None) -> Answer:
    """The servers ranked by speed for one model, task and length; several instances of one server give their median.

    Raises:
        UsageError: the model was never measured, or not with this task and length.
    """
    candidates = [entry for entry in _load(session, question) if entry[0].outcome == "ok"]
    chosen, notes = _by_weights(candidates, question.weights)
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for entry in _newest(chosen):
        row = _row(*entry)
        groups.setdefault((row["vendor_id"], row["server_id"], row["weights"]), []).append(row)
    rows = sorted((_ranked(rows) for rows in groups.values()), key=lambda row: -row["tokens_per_second"])
    rows = rows[:limit] if limit else rows
    return Answer([{"rank": rank, **row} for rank, row in enumerate(rows, 1)], notes)


def scenarios_of(session: Session, model: str) -> list[str]:
    """What of a model was measured ``ok``: ``pp16``, ``pp512``, ``tg16``, ..."""
    found = session.execute(
        select(Measurement.task, Measurement.tokens)
        .where(Measurement.model_file.in_(_files(session, model)), Measurement.outcome == "ok")
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
        "started_at", "ended_at", "region", "zone", "price_usd_per_hour", "currency", "error",
    )  # fmt: skip
    return {key: getattr(job, key) for key in keys}


Entry = tuple[Measurement, str, str]
"""A measurement, its server's name with the vendor's API, and its server's name to show."""


def _load(session: Session, question: Question) -> list[Entry]:
    query = select(Measurement, Server.api_reference, Server.display_name).join(
        Server, (Server.vendor_id == Measurement.vendor_id) & (Server.server_id == Measurement.server_id)
    )
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
        query = query.where(Measurement.model_file.in_(_files(session, question.model)))
    found = [(one, reference, name) for one, reference, name in session.execute(query)]
    size: dict[str, int] = {}
    for one, _, _ in found:
        size[one.model] = max(size.get(one.model, 0), one.model_tensor_bytes or one.model_bytes or 0)
    return sorted(
        found, key=lambda e: (size[e[0].model], e[0].model, e[0].task, e[0].tokens, e[0].weights, e[0].job_id)
    )


def _files(session: Session, model: str) -> list[str]:
    """The files that a model's name stands for, in the database's own words.

    Raises:
        UsageError: there is none.
    """
    known = session.execute(select(Measurement.model, Measurement.model_file).distinct()).all()
    wanted = model.lower()
    files = sorted({file for name, file in known if wanted in (name.lower(), file.lower())})
    if not files and known:
        raise _unknown("model", model, sorted({name for name, _ in known}))
    return files


def _by_weights(entries: Sequence[Entry], weights: str | None) -> tuple[list[Entry], tuple[str, ...]]:
    """Only one kind of weights, or both where that was asked for; and what to say about it."""
    if weights == "all":
        kinds = {one.weights for one, _, _ in entries}
        return list(entries), (ALL_NOTE,) if len(kinds) > 1 else ()
    by_kind = {kind: [entry for entry in entries if entry[0].weights == kind] for kind in ("real", "synthetic")}
    if weights is None:
        # real rows that only say why nothing was measured must not hide a speed
        speeds = {kind for kind, rows in by_kind.items() if any(one.tokens_per_second for one, _, _ in rows)}
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


def _newest(entries: Iterable[Entry]) -> list[Entry]:
    """Of every scenario the newest sweep that ended ``ok``, or the newest where none did."""
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        one = entry[0]
        key = (one.vendor_id, one.server_id, one.model_file, one.task, one.tokens, one.weights)
        groups.setdefault(key, []).append(entry)
    chosen = []
    for group in groups.values():
        newest = max(group, key=lambda entry: (entry[0].outcome == "ok", _age(entry[0])))[0]
        chosen += [entry for entry in group if entry[0].sweep_id == newest.sweep_id]
    return chosen


def _age(one: Measurement) -> datetime:
    return one.measured_at or datetime.fromtimestamp(0, tz=UTC)


def _row(one: Measurement, api_reference: str, display_name: str) -> Row:
    values = {column.name: getattr(one, column.name) for column in Measurement.__table__.columns}
    speed = one.tokens_per_second if one.outcome == "ok" else None
    return {
        "vendor_id": one.vendor_id,
        "server_id": one.server_id,
        "api_reference": api_reference,
        "display_name": display_name,
        **values,
        "usd_per_million_tokens": stats.usd_per_million_tokens(one.price_usd_per_hour, speed),
    }


def _ranked(rows: list[Row]) -> Row:
    """One server's place: the row in the middle, with the median speed and the number of instances."""
    speed = statistics.median(row["tokens_per_second"] for row in rows)
    middle = min(rows, key=lambda row: abs(row["tokens_per_second"] - speed))
    return {
        **middle,
        "tokens_per_second": speed,
        "instances": len({row["job_id"] for row in rows}),
        "usd_per_million_tokens": stats.usd_per_million_tokens(middle["price_usd_per_hour"], speed),
    }


def _unknown(what: str, name: str, known: list[str]) -> UsageError:
    problem = f"There is no sweep '{name}'." if what == "sweep" else f"No {what} '{name}' was measured."
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    if near:
        return UsageError(problem, f"Did you mean '{near[0]}'?")
    listed = ", ".join(dict.fromkeys(known[:6])) or "none"
    return UsageError(problem, f"There are: {listed}.")
