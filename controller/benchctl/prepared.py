"""What a run becomes in the database, made without one: plain tuples, so that another process can make them.

Reading and reckoning take longer than SQLite needs to write. So while one batch is written, the next one is read by a
second process (``python -m benchctl.prepared``), which gets folders on its stdin and answers with rows on its stdout.
It ends when its stdin does, whatever killed the first process. Nothing here imports SQLAlchemy: it starts at once.
"""

from __future__ import annotations

import json
import marshal
import subprocess
import sys
from functools import cache
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from llama_bench_core.values import BENCHMARK_IDS, Outcome

from benchctl import stats
from benchctl.lake import SPARE_CORES
from benchctl.measured import parse_time
from benchctl.rawfiles import RunFiles, files_in
from benchctl.results import read_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from benchctl.measured import Measured
    from benchctl.results import Run

SHARED_COLUMNS = (
    "sweep_id", "job_id", "vendor_id", "server_id", "region", "zone", "price_usd_per_hour", "launch_price_per_hour",
    "currency", "model", "task", "tokens", "outcome", "reason", "evidence_seconds", "samples", "samples_ns",
    "tokens_per_second", "tokens_per_second_median", "tokens_per_second_stddev", "tokens_per_second_ci_low",
    "tokens_per_second_ci_high", "measured_at", "model_file", "model_tensor_bytes", "model_parameters", "device",
    "threads", "gpu_layers_asked", "load_seconds", "llama_cpp_build_number", "llama_cpp_commit", "raw_path", "raw_line",
    "raw_offset",
)  # fmt: skip
"""Columns of ``measurement`` that every run fills; those of its job come first."""

JOURNAL_COLUMNS = (
    "noisy", "attempt", "discarded", "weights", "model_sha256", "model_bytes", "pinning", "gpu_layers", "layers_total",
    "offload_proof", "gpu_memory_bytes", "driver", "image_digest",
)  # fmt: skip
"""Columns that only a journal knows; theirs are constants, which cost nothing to write."""

ROW_CONSTANTS = {"noisy": "'[]'", "attempt": "1", "discarded": "'[]'", "weights": "'real'"}
"""What the columns of :data:`JOURNAL_COLUMNS` are where there is no journal, as SQL; the others are NULL."""

SCORE_COLUMNS = ("vendor_id", "server_id", "benchmark_id", "config", "score", "note", "status", "observed_at")

_EPOCH = "1970-01-01 00:00:00.000000"


class Prepared(NamedTuple):
    """One run, ready to be written. All values are plain: text, numbers, tuples, lists and dictionaries.

    Attributes:
        origin: where its raw files came from; with ``path`` and ``fingerprint`` as in ``raw_run``.
        source: who measured.
        sweep: its sweep.
        job: its job.
        vendor: the vendor.
        server: the server, as the run calls it.
        api_reference: how the vendor's API calls it.
        facts: what was found on the machine.
        suite: of its sweep.
        weights: asked for by its sweep.
        created_at: when its sweep was asked for, ISO time.
        request: of its sweep.
        started_at: as the database keeps times.
        ended_at: as the database keeps times.
        status: of the job.
        error: why it failed.
        exit_code: of its ``meta.json``.
        replica: its number among the instances of a type.
        place: region, zone, price at launch per hour in USD and in its own currency, this currency: as far as the run
            knows them.
        outcomes: its scenarios by outcome.
        rows: of ``measurement``: ``SHARED_COLUMNS`` less the job's, and ``JOURNAL_COLUMNS`` where it has a journal.
        scores: of ``benchmark_score`` (less vendor and server), as if it were the server's only run.
        times: seconds by cause.
        damage: what was set aside: (path, line, reason).
    """

    origin: str
    path: str
    fingerprint: str
    source: str
    sweep: str
    job: str
    vendor: str
    server: str
    api_reference: str
    facts: dict[str, Any]
    suite: str | None
    weights: str | None
    created_at: str | None
    request: dict[str, Any]
    started_at: str | None
    ended_at: str | None
    status: str
    error: str | None
    exit_code: int
    replica: int
    place: tuple[str | None, str | None, float | None, float | None, str | None]
    outcomes: dict[str, int]
    rows: list[tuple[Any, ...]]
    scores: list[tuple[Any, ...]]
    times: list[tuple[str, float]]
    damage: list[tuple[str, int | None, str]]


def prepare(run: Run) -> Prepared:
    """What a run becomes in the database."""
    ours = run.meta.benchctl
    usd, price, currency = ours.get("price_usd_per_hour"), ours.get("price_per_hour"), _text(ours.get("currency"))
    if price is None and currency in (None, "USD"):
        price = usd  # as earlier versions wrote it
    outcomes: dict[str, int] = {}
    for one in run.measured:
        outcome = one.outcome._value_
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    rows, scores = _rows(run)
    return Prepared(
        origin=run.files.origin,
        path=run.files.path,
        fingerprint=run.files.fingerprint,
        source=run.source,
        sweep=run.sweep,
        job=run.job,
        vendor=run.vendor,
        server=run.server,
        api_reference=_text(ours.get("api_reference")) or run.server,
        facts=dict(run.facts),
        suite=run.suite,
        weights=_text(ours.get("weights")),
        created_at=_time(ours.get("created_at")),
        request=dict(ours["request"]) if isinstance(ours.get("request"), dict) else {},
        started_at=moment(parse_time(run.meta.start)),
        ended_at=moment(parse_time(run.meta.end)),
        status="finished" if run.status == "running" and run.meta.end else run.status,
        error=run.message or run.meta.error_msg,
        exit_code=run.meta.exit_code,
        replica=int(ours.get("replica") or 1),
        place=(
            _text(ours.get("region")),
            _text(ours.get("zone")),
            None if usd is None else float(usd),
            None if price is None else float(price),
            currency,
        ),
        outcomes=dict(sorted(outcomes.items())),
        rows=rows,
        scores=scores,
        times=list(run.times.items()),
        damage=[(str(one.path), one.line, one.reason) for one in run.damage],
    )


def moment(at: datetime | None) -> str | None:
    """A time in UTC as both databases keep it: ``2026-01-31 12:00:00.000000``; it must have the zone UTC."""
    return None if at is None else at.isoformat(" ", "microseconds")[:26]


def document(value: Any) -> str:
    """JSON as canonical text: keys in order, the very text that the ORM writes."""
    return json.dumps(_ordered(value))


@cache
def config(model_file: str, tokens: int) -> str:
    """A score's settings, as canonical text."""
    return document({"model": model_file, "tokens": tokens})


@cache
def note(sweep: str, commit: str | None, outcome: str, instances: int = 1) -> str:
    """Where a score comes from."""
    parts = [f"sweep {sweep}, llama.cpp {commit or 'of unknown build'}"]
    if instances > 1:
        parts.insert(0, f"median of {instances} instances")
    if outcome == Outcome.GPU_FALLBACK.value:
        parts.append("gpu_fallback: the GPU was not used")
    return ", ".join(parts)


def makes_score(outcome: str, source: str) -> bool:
    """Whether such a measurement makes a score; theirs do although they fell back to the CPU, because theirs did."""
    return outcome == "ok" or (outcome == "gpu_fallback" and source == SPARE_CORES)


def _rows(run: Run) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    rows, scores = [], []
    journal = run.source != SPARE_CORES
    driver, image = (
        (_driver(run.facts.get("gpus")), _text(run.meta.benchctl.get("image_digest"))) if journal else ("",) * 2
    )
    paths: dict[str, str] = {}
    for one in run.measured:
        outcome = one.outcome._value_
        figures = _figures(one.tokens, one.samples_ns) if one.samples_ns else _NO_FIGURES
        at = None if one.measured_at is None else one.measured_at.isoformat(" ", "microseconds")[:26]
        path = paths.get(one.file)
        if path is None:
            path = paths[one.file] = f"{run.files.path}/{one.file}"
        row = (
            one.model, one.task, one.tokens, outcome, one.reason, one.evidence_seconds, len(one.samples_ns), *figures,
            at, one.model_file, one.model_tensor_bytes, one.model_parameters, one.device, one.threads,
            one.gpu_layers_asked, one.load_seconds, one.llama_cpp_build_number, one.llama_cpp_commit, path, one.line,
            one.offset,
        )  # fmt: skip
        rows.append((*row, *_of_journal(one, driver, image)) if journal else row)
        if figures[1] is not None and one.weights == "real" and makes_score(outcome, run.source):
            scores.append((
                BENCHMARK_IDS[one.task], config(one.model_file, one.tokens), figures[1],
                note(run.sweep, one.llama_cpp_commit, outcome), "ACTIVE", at or _EPOCH,
            ))  # fmt: skip
    return rows, scores


_NO_FIGURES = ("[]", None, None, None, None, None)


def _figures(tokens: int, times: tuple[int, ...]) -> tuple[Any, ...]:
    """``samples_ns`` as text, and the figures of :func:`benchctl.stats.speed`."""
    return (f"[{', '.join(map(str, times))}]", *stats.figures(tokens, times))


def _of_journal(one: Measured, driver: str | None, image: str | None) -> tuple[Any, ...]:
    return (
        document(one.noisy), one.attempt, document(one.discarded), one.weights, one.model_sha256, one.model_bytes,
        one.pinning, one.gpu_layers, one.layers_total, one.offload_proof, one.gpu_memory_bytes, driver, image,
    )  # fmt: skip


def _driver(gpus: object) -> str | None:
    found = [one for one in gpus if isinstance(one, dict)] if isinstance(gpus, (list, tuple)) else []
    return next((str(one["driver"]) for one in found if one.get("driver")), None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(value: object) -> str | None:
    try:
        parse_time(value if isinstance(value, str) else None)
    except ValueError:
        return None
    return _text(value)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_ordered(one) for one in value]
    return value


# ── the second process ──────────────────────────────────────────────────────────────────────────────────────────────

AHEAD = 2
"""Batches that are on their way at once; what is asked for must fit into a pipe, or both sides would wait for ever."""


def prepared_aside(batches: Iterable[list[RunFiles]]) -> Iterator[list[Prepared]]:
    """Prepare batches of runs that lie in folders in a second process, while the caller does something else.

    Raises:
        OSError: the second process could not be started, or died.
    """
    command = [sys.executable, "-m", "benchctl.prepared"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        try:
            waiting = 0
            for batch in batches:
                _send(process.stdin, [(one.origin, one.path, one.fingerprint) for one in batch])
                waiting += 1
                if waiting >= AHEAD:
                    yield _answer(process.stdout)
                    waiting -= 1
            for _ in range(waiting):
                yield _answer(process.stdout)
        finally:
            process.kill()


def _answer(stream: IO[bytes]) -> list[Prepared]:
    answer = _receive(stream)
    if answer is None:
        raise OSError("the process that reads raw files died")
    return [Prepared(*one) for one in answer]


def _serve(asked: IO[bytes], answers: IO[bytes]) -> None:
    """Prepare what is asked for until nothing more is."""
    import gc

    gc.disable()  # nothing here makes cycles, and looking for them takes a fifth of the time
    while (batch := _receive(asked)) is not None:
        _send(answers, [tuple(prepare(read_run(files_in(origin, path, mark)))) for origin, path, mark in batch])


def _send(stream: IO[bytes], value: Any) -> None:
    content = marshal.dumps(value)
    stream.write(len(content).to_bytes(8, "big"))
    stream.write(content)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    """What the other side sent; nothing when it is gone. Read at once: marshal by itself reads byte for byte."""
    size = stream.read(8)
    content = stream.read(int.from_bytes(size, "big")) if len(size) == 8 else b""
    return marshal.loads(content) if content else None  # noqa: S302 - it comes from our own process


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
