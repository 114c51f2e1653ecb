"""From the lake into the database. Doing it twice is doing it once.

One run is one transaction: its measurements replace those of the same job, and the scores of the server that it
touches are made anew from all measurements. So a run may be ingested while it is still going on, and again at its end.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llama_bench_core.values import BENCHMARK_IDS, Outcome
from sqlalchemy import delete, select

from benchctl import stats
from benchctl.db.columns import Config
from benchctl.db.engine import writing
from benchctl.db.hosts import refresh_server
from benchctl.db.schema import Benchmark, BenchmarkScore, Job, Measurement, Sweep
from benchctl.errors import UsageError
from benchctl.results import Run, parse_time, read_run, run_folders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from benchctl.results import Damage, Measured

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


@dataclass(frozen=True)
class IngestSummary:
    """What came of one run.

    Attributes:
        folder: of its raw files.
        sweep: its sweep.
        job: its job.
        vendor: the vendor.
        server: the server's identifier in the database.
        measurements: rows that the database now holds of it.
        outcomes: these by outcome.
        damage: what was set aside.
    """

    folder: Path
    sweep: str
    job: str
    vendor: str
    server: str
    measurements: int
    outcomes: dict[str, int]
    damage: tuple[Damage, ...]


def ingest_tree(engine: Engine, path: Path) -> Iterator[IngestSummary]:
    """Ingest every run at or below ``path``, one after the other.

    Raises:
        UsageError: there is nothing to ingest.
        DatabaseError: the database can't be written.
    """
    if not path.exists():
        raise UsageError(f"There is no {path}.", "Give the folder of a run, of a sweep, or the lake.")
    folders = list(run_folders(path if path.is_dir() else path.parent))
    if not folders:
        raise UsageError(
            f"There are no raw results at or below {path}.", "They are folders VENDOR/SERVER/llm with a meta.json."
        )
    for folder in folders:
        yield ingest_run(engine, folder)


def ingest_run(engine: Engine, folder: Path) -> IngestSummary:
    """Bring one run into the database, in one transaction.

    Args:
        engine: the database.
        folder: holds the run's raw files, e.g. ``LAKE/SWEEP/data/local/SERVER/llm``.

    Raises:
        DatabaseError: the database can't be written.
    """
    run = read_run(folder)
    outcomes = dict(sorted(Counter(str(one.outcome) for one in run.measured).items()))
    with writing(engine) as session:
        server_id = refresh_server(session, run)
        _sweep(session, run)
        job = _job(session, run, server_id, outcomes)
        session.flush()
        session.execute(delete(Measurement).filter_by(sweep_id=run.sweep, job_id=run.job))
        session.add_all(_measurement(run, job, one) for one in run.measured)
        session.flush()
        rebuild_scores(session, run.vendor, server_id)
    return IngestSummary(folder, run.sweep, run.job, run.vendor, server_id, len(run.measured), outcomes, run.damage)


def rebuild_scores(session: Session, vendor_id: str, server_id: str) -> None:
    """Make the ``llm_speed`` scores of one server anew from its measurements.

    Of each model file, task and length the newest sweep counts that ended ``ok`` with real weights; where it measured
    several instances, their median.
    """
    _benchmarks(session)
    session.execute(
        delete(BenchmarkScore).where(
            BenchmarkScore.vendor_id == vendor_id,
            BenchmarkScore.server_id == server_id,
            BenchmarkScore.benchmark_id.in_(BENCHMARK_IDS.values()),
        )
    )
    good = session.scalars(
        select(Measurement)
        .where(
            Measurement.vendor_id == vendor_id,
            Measurement.server_id == server_id,
            Measurement.outcome == str(Outcome.OK),
            Measurement.weights == "real",
            Measurement.tokens_per_second.is_not(None),
        )
        .order_by(Measurement.sweep_id, Measurement.job_id)
    )
    by_scenario: dict[tuple[str, str, int], list[Measurement]] = {}
    for one in good:
        by_scenario.setdefault((one.task, one.model_file, one.tokens), []).append(one)
    session.add_all(_score(*key, candidates) for key, candidates in by_scenario.items())


def _score(task: str, model_file: str, tokens: int, candidates: list[Measurement]) -> BenchmarkScore:
    newest = max(candidates, key=_age)
    chosen = [one for one in candidates if one.sweep_id == newest.sweep_id]
    jobs = len({one.job_id for one in chosen})
    source = f"sweep {newest.sweep_id}, llama.cpp {newest.llama_cpp_commit or 'of unknown build'}"
    return BenchmarkScore(
        vendor_id=newest.vendor_id,
        server_id=newest.server_id,
        benchmark_id=BENCHMARK_IDS[task],
        config=Config({"model": model_file, "tokens": tokens}),
        score=statistics.median(one.tokens_per_second or 0.0 for one in chosen),
        note=f"median of {jobs} instances, {source}" if jobs > 1 else source,
        observed_at=_age(newest),
    )


def _age(one: Measurement) -> datetime:
    return one.measured_at or datetime.fromtimestamp(0, tz=UTC)


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


def _sweep(session: Session, run: Run) -> None:
    """The run's sweep, where whoever made it did not write it himself (a lake from elsewhere, a database made anew)."""
    began, ended = parse_time(run.meta.start), parse_time(run.meta.end)
    known = session.get(Sweep, run.sweep)
    ours = run.meta.benchctl
    if known is None:
        created = ours.get("created_at")
        known = Sweep(
            sweep_id=run.sweep,
            created_at=parse_time(created) if isinstance(created, str) else began,
            suite=run.suite,
            vendors=[],
            weights=ours.get("weights"),
            status="finished" if ended else run.status,
            request=ours.get("request") or {},
            finished_at=ended,
        )
        session.add(known)
    if run.vendor not in known.vendors:
        known.vendors = sorted({*known.vendors, run.vendor})
    if ended and known.finished_at and ended > known.finished_at:
        known.finished_at = ended
    session.flush()


def _job(session: Session, run: Run, server_id: str, outcomes: dict[str, int]) -> Job:
    ours = run.meta.benchctl
    job = session.get(Job, (run.sweep, run.job))
    if job is None:
        job = Job(
            sweep_id=run.sweep,
            job_id=run.job,
            status=run.status,
            stage="ingest",
            replica=int(ours.get("replica") or 1),
            started_at=parse_time(run.meta.start),
            ended_at=parse_time(run.meta.end),
            error=run.message or run.meta.error_msg,
        )
        session.add(job)
    job.vendor_id, job.server_id, job.outcomes = run.vendor, server_id, outcomes
    job.api_reference = ours.get("api_reference") or job.api_reference or run.server
    job.region = ours.get("region") or job.region
    job.zone = ours.get("zone") or job.zone
    price = ours.get("price_usd_per_hour")
    job.price_usd_per_hour = job.price_usd_per_hour if price is None else float(price)
    job.currency = ours.get("currency") or job.currency
    job.host = dict(run.facts) or job.host
    return job


def _measurement(run: Run, job: Job, one: Measured) -> Measurement:
    values: dict[str, Any] = asdict(one)
    file, line = values.pop("file"), values.pop("line")
    values["outcome"] = str(one.outcome)
    speed = stats.speed(one.tokens, one.samples_ns)
    return Measurement(
        **values,
        sweep_id=job.sweep_id,
        job_id=job.job_id,
        vendor_id=job.vendor_id,
        server_id=job.server_id,
        samples=len(one.samples_ns),
        tokens_per_second=speed.mean if speed else None,
        tokens_per_second_median=speed.median if speed else None,
        tokens_per_second_stddev=speed.stddev if speed else None,
        tokens_per_second_ci_low=speed.ci_low if speed else None,
        tokens_per_second_ci_high=speed.ci_high if speed else None,
        driver=_driver(run.facts.get("gpus")),
        image_digest=run.meta.benchctl.get("image_digest"),
        region=job.region,
        zone=job.zone,
        price_usd_per_hour=job.price_usd_per_hour,
        currency=job.currency,
        raw_path=_raw_path(run.folder, file),
        raw_line=line,
    )


def _driver(gpus: Iterable[dict[str, Any]] | None) -> str | None:
    return next((str(gpu["driver"]) for gpu in gpus or () if gpu.get("driver")), None)


def _raw_path(folder: Path, file: str) -> str:
    """``SWEEP/data/VENDOR/SERVER/llm/FILE``: a lake may be moved."""
    return "/".join([*folder.absolute().parts[-5:], file])
