"""Writes runs into the database, many at a time: their servers, sweeps, jobs, measurements, and the scores of these."""

from __future__ import annotations

import statistics
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llama_bench_core.values import BENCHMARK_IDS
from sqlalchemy import select, text

from benchctl.db import bulk
from benchctl.db.hosts import find_servers
from benchctl.db.schema import Benchmark, BenchmarkScore, Job, JobTime, Measurement, RawRun, Sweep
from benchctl.lake import SPARE_CORES
from benchctl.measured import parse_time
from benchctl.prepared import (
    JOURNAL_COLUMNS,
    ROW_CONSTANTS,
    SCORE_COLUMNS,
    SHARED_COLUMNS,
    config,
    document,
    makes_score,
    moment,
    note,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from benchctl.prepared import Prepared

BENCHMARKS = {
    "pp": (
        "LLM inference speed for prompt processing",
        "prompt_processing",
        "llama-bench of llama.cpp: the speed of processing prompts of different lengths with quantised models.",
    ),
    "tg": (
        "LLM inference speed for text generation",
        "text_generation",
        "llama-bench of llama.cpp: the speed of generating texts of different lengths with quantised models.",
    ),
}
"""Name, measurement and description of the benchmark of each task."""

JOB_COLUMNS = (
    "sweep_id", "job_id", "vendor_id", "server_id", "api_reference", "replica", "stage", "status", "outcomes",
    "started_at", "ended_at", "region", "zone", "price_usd_per_hour", "launch_price_per_hour", "currency", "host",
    "exit_code", "error",
)  # fmt: skip

_BY_INGEST = "job.stage = 'ingest'"
"""Who else writes a job is the pipeline, which speaks for its own state."""

_JOB_UPSERT = bulk.upsert(
    ("sweep_id", "job_id"),
    {
        **{one: f"excluded.{one}" for one in ("vendor_id", "server_id", "outcomes", "exit_code")},
        **{
            one: f"coalesce(excluded.{one}, job.{one})"
            for one in (
                "api_reference",
                "region",
                "zone",
                "price_usd_per_hour",
                "launch_price_per_hour",
                "currency",
                "host",
            )
        },
        **{
            one: f"CASE WHEN {_BY_INGEST} THEN excluded.{one} ELSE job.{one} END"
            for one in ("status", "started_at", "ended_at", "error")
        },
    },
)

_WRITER_LOCK = 0x62656E6369
"""Key of PostgreSQL's advisory lock: two imports at once take turns, as SQLite's own lock makes them."""

Key = tuple[str, str]

Place = tuple[Any, ...]
"""Region, zone, price per hour in USD and in its own currency, this currency."""


def write(session: Session, runs: Sequence[Prepared]) -> list[str]:
    """Write runs; what the same jobs had measured before is replaced.

    Args:
        session: in a transaction that may write.
        runs: the runs; of two of the same job the later counts.

    Returns:
        The ``server_id`` of each run's server.
    """
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER_LOCK})
    servers = find_servers(session, runs)
    last = sorted({(run.sweep, run.job): position for position, run in enumerate(runs)}.values())
    pairs = [(runs[position], servers[position]) for position in last]
    chosen = [run for run, _ in pairs]
    _sweeps(session, chosen)
    known = _known_jobs(connection, chosen)
    measured_before = _measured(connection, pairs)
    bulk.insert(connection, Job, JOB_COLUMNS, [_job(run, server) for run, server in pairs], _JOB_UPSERT)
    for model in (Measurement, JobTime, RawRun):
        bulk.delete(connection, model, ("sweep_id", "job_id"), known)
    _measurements(connection, pairs, known)
    times = [(run.sweep, run.job, cause, seconds) for run in chosen for cause, seconds in run.times]
    bulk.insert(connection, JobTime, ("sweep_id", "job_id", "cause", "seconds"), times)
    _raw_runs(connection, chosen)
    _scores(session, pairs, measured_before)
    return servers


# ── sweeps and jobs ─────────────────────────────────────────────────────────────────────────────────────────────────


def _sweeps(session: Session, runs: Iterable[Prepared]) -> None:
    by_sweep: dict[str, list[Prepared]] = defaultdict(list)
    for run in runs:
        by_sweep[run.sweep].append(run)
    for members in by_sweep.values():
        _sweep(session, members)
    session.flush()


def _sweep(session: Session, runs: Sequence[Prepared]) -> None:
    """The runs' sweep, where whoever made it did not write it himself (a lake from elsewhere, a database made anew)."""
    first = runs[0]
    starts = [_stored(run.started_at) for run in runs if run.started_at]
    ends = [_stored(run.ended_at) for run in runs if run.ended_at]
    known = session.get(Sweep, first.sweep)
    if known is None:
        known = Sweep(
            sweep_id=first.sweep,
            created_at=parse_time(first.created_at) or min(starts, default=None),
            suite=first.suite,
            vendors=[],
            weights=first.weights,
            source=first.source,
            status="finished" if ends or first.source == SPARE_CORES else first.status,
            request=first.request,
            finished_at=max(ends, default=None),
        )
        session.add(known)
    vendors = sorted({*known.vendors, *(run.vendor for run in runs)})
    if vendors != known.vendors:
        known.vendors = vendors
    if ends and known.finished_at:
        known.finished_at = max(known.finished_at, *ends)
    if known.source == SPARE_CORES and starts and known.created_at:
        known.created_at = min(known.created_at, *starts)


def _stored(at: str) -> datetime:
    return datetime.fromisoformat(at).replace(tzinfo=UTC)


def _known_jobs(connection: Connection, runs: Sequence[Prepared]) -> dict[Key, Place]:
    """Those of the jobs that are there already, with the place and the price that they have."""
    query = select(
        Job.sweep_id, Job.job_id, Job.region, Job.zone, Job.price_usd_per_hour, Job.launch_price_per_hour, Job.currency
    ).where(Job.sweep_id.in_({run.sweep for run in runs}), Job.job_id.in_({run.job for run in runs}))  # fmt: skip
    wanted = {(run.sweep, run.job) for run in runs}
    return {(sweep, job): tuple(place) for sweep, job, *place in connection.execute(query) if (sweep, job) in wanted}


def _job(run: Prepared, server_id: str) -> tuple[Any, ...]:
    return (
        run.sweep, run.job, run.vendor, server_id, run.api_reference, run.replica, "ingest", run.status,
        document(run.outcomes), run.started_at, run.ended_at, *run.place,
        document(run.facts) if run.facts else None, run.exit_code, run.error,
    )  # fmt: skip


# ── measurements ────────────────────────────────────────────────────────────────────────────────────────────────────


def _measurements(connection: Connection, pairs: Iterable[tuple[Prepared, str]], known: Mapping[Key, Place]) -> None:
    rows: dict[bool, list[tuple[Any, ...]]] = {True: [], False: []}
    for run, server in pairs:
        before = known.get((run.sweep, run.job), (None,) * 5)
        place = (old if new is None else new for new, old in zip(run.place, before, strict=True))
        of_job = (run.sweep, run.job, run.vendor, server, *place)
        rows[run.source != SPARE_CORES] += [of_job + row for row in run.rows]
    nothing = {column: ROW_CONSTANTS.get(column, "NULL") for column in JOURNAL_COLUMNS}
    bulk.insert(connection, Measurement, SHARED_COLUMNS, rows[False], constants=nothing)
    bulk.insert(connection, Measurement, (*SHARED_COLUMNS, *JOURNAL_COLUMNS), rows[True])


def _raw_runs(connection: Connection, runs: Sequence[Prepared]) -> None:
    now = moment(datetime.now(UTC))
    rows = {
        (run.origin, run.path): (
            run.origin, run.path, run.fingerprint, run.sweep, run.job, now,
            document([{"path": path, "line": line, "reason": reason} for path, line, reason in run.damage]),
        )
        for run in runs
    }  # fmt: skip
    bulk.delete(connection, RawRun, ("origin", "path"), rows)
    columns = ("origin", "path", "fingerprint", "sweep_id", "job_id", "ingested_at", "damage")
    bulk.insert(connection, RawRun, columns, list(rows.values()))


# ── scores ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _benchmarks(session: Session) -> None:
    for task, (name, measurement, description) in BENCHMARKS.items():
        if session.get(Benchmark, BENCHMARK_IDS[task]) is None:
            session.add(
                Benchmark(
                    benchmark_id=BENCHMARK_IDS[task],
                    name=name,
                    description=description,
                    framework="llm_speed",
                    config_fields={"model": "Name of the model file.", "tokens": "Number of tokens of one repetition."},
                    measurement=measurement,
                    unit="tokens/second (t/s)",
                    observed_at=datetime.now(UTC),
                )
            )
    session.flush()


def _scores(session: Session, pairs: Sequence[tuple[Prepared, str]], measured_before: set[Key]) -> None:
    """Make the scores of all these servers anew; those that were never measured before have them ready."""
    connection = session.connection()
    runs_of: dict[Key, list[Prepared]] = defaultdict(list)
    for run, server in pairs:
        runs_of[run.vendor, server].append(run)
    _benchmarks(session)
    _forget_scores(connection, runs_of)
    scores: list[tuple[Any, ...]] = []
    for key, runs in runs_of.items():
        if key in measured_before or len(runs) > 1:
            scores += _scores_of(connection, *key)
        else:
            scores += [key + score for score in runs[0].scores]
    bulk.insert(connection, BenchmarkScore, SCORE_COLUMNS, scores)


def _measured(connection: Connection, pairs: Iterable[tuple[Prepared, str]]) -> set[Key]:
    """Those of the servers that have measurements already."""
    by_vendor: dict[str, set[str]] = defaultdict(set)
    for run, server in pairs:
        by_vendor[run.vendor].add(server)
    found: set[Key] = set()
    for vendor, servers in by_vendor.items():
        query = (
            select(Measurement.server_id)
            .where(Measurement.vendor_id == vendor, Measurement.server_id.in_(servers))
            .distinct()
        )
        found |= {(vendor, server) for (server,) in connection.execute(query)}
    return found


def _forget_scores(connection: Connection, servers: Iterable[Key]) -> None:
    for benchmark in BENCHMARK_IDS.values():
        keys = [(vendor, server, benchmark) for vendor, server in servers]
        bulk.delete(connection, BenchmarkScore, ("vendor_id", "server_id", "benchmark_id"), keys)


def _scores_of(connection: Connection, vendor_id: str, server_id: str) -> list[tuple[Any, ...]]:
    query = (
        select(
            Measurement.task,
            Measurement.model_file,
            Measurement.tokens,
            Measurement.sweep_id,
            Measurement.job_id,
            Measurement.outcome,
            Measurement.tokens_per_second,
            Measurement.measured_at,
            Measurement.llama_cpp_commit,
            Sweep.source,
        )
        .join(Sweep, Sweep.sweep_id == Measurement.sweep_id)
        .where(
            Measurement.vendor_id == vendor_id,
            Measurement.server_id == server_id,
            Measurement.weights == "real",
            Measurement.tokens_per_second.is_not(None),
        )
        .order_by(Measurement.sweep_id, Measurement.job_id)
    )
    by_scenario: dict[tuple[str, str, int], list[Any]] = defaultdict(list)
    for one in connection.execute(query):
        if makes_score(one.outcome, one.source):
            by_scenario[one.task, one.model_file, one.tokens].append(one)
    return [_score(vendor_id, server_id, *key, found) for key, found in by_scenario.items()]


def _score(
    vendor_id: str, server_id: str, task: str, model_file: str, tokens: int, found: Sequence[Any]
) -> tuple[Any, ...]:
    """One scenario's score: of the newest sweep that measured it, the median over its instances."""
    newest = max(found, key=lambda one: one.measured_at or datetime.fromtimestamp(0, tz=UTC))
    chosen = [one for one in found if one.sweep_id == newest.sweep_id]
    return (
        vendor_id,
        server_id,
        BENCHMARK_IDS[task],
        config(model_file, tokens),
        statistics.median(one.tokens_per_second for one in chosen),
        note(newest.sweep_id, newest.llama_cpp_commit, newest.outcome, len({one.job_id for one in chosen})),
        "ACTIVE",
        moment(newest.measured_at) or "1970-01-01 00:00:00.000000",
    )
