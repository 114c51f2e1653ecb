"""What was measured and what was not, and why: per vendor, per server, per model; from recorded facts alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llama_bench_core.values import Outcome
from sqlalchemy import case, func, select

from benchctl.db.naming import find_vendor
from benchctl.db.schema import Job, JobAttempt, Measurement, Server
from benchctl.unmeasured import LastRun, Verdict, Why, telling_outcome, why_unmeasured

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.orm import Session

Row = dict[str, Any]
Key = tuple[str, str]
"""``(vendor_id, server_id)``."""

MIB_PER_GIB = 1024
SPEEDS = (str(Outcome.OK), str(Outcome.GPU_FALLBACK))
"""Outcomes with a speed on record."""

_EARLY = "0001"
"""Sorts before every time on record."""


@dataclass(frozen=True)
class Answer:
    """Rows, and sentences that belong to them."""

    rows: list[Row]
    notes: tuple[str, ...] = ()


@dataclass
class _Scenarios:
    """What is on record of the scenarios of one model on one server: how many ended how, and a sentence for each."""

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Model:
    """A model that was tried."""

    file: str
    name: str
    size_bytes: int


@dataclass(frozen=True)
class _Record:
    """All that the answers are made of."""

    servers: dict[Key, Any]
    runs: dict[Key, list[Any]]
    scenarios: dict[Key, dict[str, _Scenarios]]
    models: dict[str, _Model]
    tries: dict[tuple[str, str], list[Any]] = field(default_factory=dict)


def by_vendor(session: Session, vendor: str | None = None) -> Answer:
    """Per vendor how many servers there are, how many were measured, and why the others were not.

    Raises:
        UsageError: there is no such vendor.
    """
    record = _load(session, vendor)
    rows: dict[str, Row] = {}
    for key, server in sorted(record.servers.items()):
        row = rows.setdefault(
            key[0],
            {
                "vendor_id": key[0], "servers": 0, "tried": 0, "measured": 0, "measured_share": 0.0,
                "not_measured": 0, **{str(why): 0 for why in Why},
            },
        )  # fmt: skip
        row["servers"] += 1
        row["tried"] += bool(record.runs.get(key))
        verdict = _verdict(record, key, server)
        if verdict is None:
            row["measured"] += 1
        else:
            row["not_measured"] += 1
            row[str(verdict.why)] += 1
    for row in rows.values():
        row["measured_share"] = row["measured"] / row["servers"]
    return Answer(list(rows.values()), tuple(_notes(record)))


def by_server(
    session: Session, vendor: str | None = None, why: str | None = None, measured: bool | None = None
) -> Answer:
    """Every server with the models that it reached, or with the reason why there is no speed.

    Args:
        session: the database.
        vendor: this vendor alone.
        why: those alone that have no speed for this reason.
        measured: those alone that have, or have no speed on record.

    Raises:
        UsageError: there is no such vendor.
    """
    record = _load(session, vendor)
    rows = []
    for key, server in sorted(record.servers.items()):
        verdict = _verdict(record, key, server)
        if measured is not None and measured != (verdict is None):
            continue
        if why is not None and (verdict is None or str(verdict.why) != why):
            continue
        rows.append(_server_row(record, key, server, verdict))
    return Answer(rows, tuple(_notes(record)))


def by_model(session: Session, vendor: str | None = None) -> Answer:
    """Per model how many servers have a speed of it, and how it ended on the others whose run went through.

    A server counts once per model, whatever weights it was measured with; the most telling outcome of its scenarios
    counts where it has no speed.

    Raises:
        UsageError: there is no such vendor.
    """
    record = _load(session, vendor)
    ran = [key for key, runs in record.runs.items() if key in record.servers and any(map(_went_through, runs))]
    rows = []
    for model in sorted(record.models.values(), key=lambda one: (one.size_bytes, one.file)):
        row: Row = {
            "model": model.name, "model_file": model.file, "servers_reached": 0, "servers_run": len(ran),
            "reached_share": 0.0, "only_gpu_fallback": 0,
            **{str(outcome): 0 for outcome in Outcome if str(outcome) not in SPEEDS}, "not_recorded": 0,
        }  # fmt: skip
        for key in {*ran, *record.scenarios}:
            found = record.scenarios.get(key, {}).get(model.file)
            if found and any(found.outcomes[outcome] for outcome in SPEEDS):
                row["servers_reached"] += 1
                row["only_gpu_fallback"] += not found.outcomes[str(Outcome.OK)]
                continue
            telling = telling_outcome(found.outcomes) if found else None
            row[str(telling) if telling else "not_recorded"] += 1
        row["reached_share"] = row["servers_reached"] / len(ran) if ran else 0.0
        rows.append(row)
    return Answer(rows)


def _went_through(run: Any) -> bool:
    return bool(run.exit_code == 0 if run.exit_code is not None else run.status == "finished")


def _load(session: Session, vendor: str | None) -> _Record:
    vendor_id = find_vendor(session, vendor) if vendor else None
    servers = select(
        Server.vendor_id, Server.server_id, Server.api_reference, Server.display_name, Server.status, Server.vcpus,
        Server.memory_amount, Server.gpu_count, Server.gpu_model,
    )  # fmt: skip
    jobs = select(
        Job.vendor_id, Job.server_id, Job.sweep_id, Job.job_id, Job.status, Job.exit_code, Job.error, Job.started_at,
        Job.ended_at, Job.host,
    )  # fmt: skip
    columns = Measurement.__table__.c
    scenarios = select(
        columns.vendor_id, columns.server_id, columns.model_file, columns.outcome, func.count(),
        func.max(case((columns.outcome.in_(SPEEDS), ""), else_=columns.reason)),
    ).group_by(columns.vendor_id, columns.server_id, columns.model_file, columns.outcome)  # fmt: skip
    if vendor_id:
        servers = servers.where(Server.vendor_id == vendor_id)
        jobs = jobs.where(Job.vendor_id == vendor_id)
        scenarios = scenarios.where(columns.vendor_id == vendor_id)
    runs: dict[Key, list[Any]] = defaultdict(list)
    for run in session.execute(jobs):
        runs[run.vendor_id, run.server_id].append(run)
    for found in runs.values():
        found.sort(key=lambda run: (str(run.started_at or _EARLY), run.sweep_id))
    recorded: dict[Key, dict[str, _Scenarios]] = defaultdict(dict)
    for of_vendor, server, file, outcome, count, reason in session.execute(scenarios):
        one = recorded[of_vendor, server].setdefault(file, _Scenarios())
        one.outcomes[outcome] += count
        if reason:
            one.reasons[outcome] = reason
    return _Record(
        {(row.vendor_id, row.server_id): row for row in session.execute(servers)},
        runs,
        recorded,
        _models(session),
        _tries(session),
    )


def _tries(session: Session) -> dict[tuple[str, str], list[Any]]:
    """The tries to rent that failed, by sweep and job, in order."""
    found: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for one in session.execute(
        select(JobAttempt.sweep_id, JobAttempt.job_id, JobAttempt.refusal, JobAttempt.said).order_by(
            JobAttempt.tried_at
        )
    ):
        found[one.sweep_id, one.job_id].append(one)
    return found


def tries(session: Session, vendor: str | None = None) -> Answer:
    """Every try to rent a server that failed: where it was, why, and what the vendor said; the newest first.

    Raises:
        UsageError: there is no such vendor.
    """
    query = (
        select(
            Job.vendor_id, Job.api_reference, JobAttempt.region, JobAttempt.zone, JobAttempt.refusal, JobAttempt.said,
            JobAttempt.tried_at, JobAttempt.sweep_id, JobAttempt.job_id,
        )
        .join(Job, (Job.sweep_id == JobAttempt.sweep_id) & (Job.job_id == JobAttempt.job_id))
        .order_by(JobAttempt.tried_at.desc(), JobAttempt.sweep_id, JobAttempt.job_id)
    )  # fmt: skip
    if vendor:
        query = query.where(Job.vendor_id == find_vendor(session, vendor))
    return Answer([dict(row) for row in session.execute(query).mappings()])


def _models(session: Session) -> dict[str, _Model]:
    columns = Measurement.__table__.c
    size = func.max(func.coalesce(columns.model_tensor_bytes, columns.model_bytes, 0))
    found = session.execute(select(columns.model_file, func.min(columns.model), size).group_by(columns.model_file))
    return {file: _Model(file, name, int(tensor_bytes)) for file, name, tensor_bytes in found}


def _verdict(record: _Record, key: Key, server: Any) -> Verdict | None:
    """Why a server has no speed; nothing where it has one."""
    outcomes: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for one in record.scenarios.get(key, {}).values():
        outcomes.update(one.outcomes)
        reasons |= one.reasons
    if outcomes[str(Outcome.OK)]:
        return None
    runs = record.runs.get(key)
    last = None
    if runs:
        newest = runs[-1]
        said = [(one.refusal, one.said) for one in record.tries.get((newest.sweep_id, newest.job_id), ())]
        # facts of the machine are on record as soon as it was reached
        last = LastRun(newest.status, newest.exit_code, newest.error, said, rented=newest.host is not None)
    return why_unmeasured(
        last, outcomes, reasons, active=server.status == "ACTIVE", described=bool(server.vcpus or server.memory_amount)
    )


def _server_row(record: _Record, key: Key, server: Any, verdict: Verdict | None) -> Row:
    runs: Sequence[Any] = record.runs.get(key, ())
    reached = [
        record.models[file]
        for file, one in record.scenarios.get(key, {}).items()
        if any(one.outcomes[outcome] for outcome in SPEEDS)
    ]
    largest = max(reached, key=lambda one: (one.size_bytes, one.file), default=None)
    return {
        "vendor_id": key[0],
        "server_id": key[1],
        "api_reference": server.api_reference,
        "display_name": server.display_name,
        "status": server.status,
        "memory_gib": server.memory_amount / MIB_PER_GIB,
        "gpu_count": server.gpu_count,
        "gpu_model": server.gpu_model,
        "measured": verdict is None,
        "why": str(verdict.why) if verdict else None,
        "detail": verdict.detail if verdict else None,
        "models_reached": len(reached),
        "largest_model": largest.name if largest else None,
        "runs": len(runs),
        "tries": sum(len(record.tries.get((run.sweep_id, run.job_id), ())) for run in runs),
        "last_run_at": runs[-1].started_at if runs else None,
        "last_exit_code": runs[-1].exit_code if runs else None,
    }


def _notes(record: _Record) -> Iterable[str]:
    strangers: Mapping[Key, Any] = {key: runs for key, runs in record.runs.items() if key not in record.servers}
    if strangers:
        yield f"{len(strangers)} servers have runs and are in no table of servers; they are not counted."
