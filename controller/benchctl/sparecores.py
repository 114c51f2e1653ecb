"""Spare Cores' raw results: llama-bench's rows on stdout, and the log of the program that drove it on stderr.

Rows are what was measured. The log tells the rest, as far as it says so itself: scenarios that timed out, crashed or
were skipped, models that did not arrive, and where the billed time went. What neither file mentions has no record.
The rows' format is llama-bench's (:mod:`llama_bench_core.rows`); the log is that of sc-inspector's ``llm`` task as of
April 2025 (https://github.com/SpareCores/sc-images, ``benchmark-llm``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from llama_bench_core.rows import parse_row
from llama_bench_core.values import TASKS, Outcome

from benchctl.lake import STDERR, STDOUT
from benchctl.measured import BAD_LINE, FALLBACK_REASON, LARGEST_INTEGER, Measured, clean, file_name, parse_time, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llama_bench_core.rows import Row

    from benchctl.measured import Lines

LENGTHS = {"pp": (16, 128, 512, 1024, 4096, 16384), "tg": (16, 128, 512, 1024, 4096)}
"""The lengths that their program goes through, in its order: what "Skipping ... with 512+ tokens" stands for."""

SMALLEST_FIRST = (
    "SmolLM-135M.Q4_K_M.gguf",
    "qwen1_5-0_5b-chat-q4_k_m.gguf",
    "gemma-2b.Q4_K_M.gguf",
    "llama-7b.Q4_K_M.gguf",
    "phi-4-q4.gguf",
    "Llama-3.3-70B-Instruct-Q4_K_M.gguf",
)
"""The models that their program goes through, in its order."""

_LOG_LINE = re.compile(
    rb"^(\d{4}-\d\d-\d\d) (\d\d):(\d\d):(\d\d),(\d\d\d) - [A-Z]+ - "
    rb"(?:Benchmarking (prompt|text) \w+ with ([1-9]\d{0,8}) tokens|(?!Downloaded|Downloading model)([^\n]*))",
    re.MULTILINE,
)
_SKIPPING = re.compile(rb"Skipping (prompt|text) \w+ benchmarks with (\d{1,9})\+ tokens (.*?)\.?$")
_LATE = re.compile(rb"(?:Downloading )?(\S+\.gguf) (?:was not downloaded in time|\(.*would take too long)")
_TASKS = {b"prompt": "pp", b"text": "tg"}
_OUT_OF_MEMORY = re.compile(rb"out of memory|failed to allocate|unable to allocate|bad_alloc", re.IGNORECASE)
_TELLING = re.compile(rb"error|failed|assert|abort|not loaded|terminate", re.IGNORECASE)
_FAILED_DOWNLOAD = re.compile(rb"^urllib\.error\.\w+: ([^\n]{1,200})", re.MULTILINE)

Key = tuple[str, str, int]
"""Model file, task, tokens."""


class Attempt(NamedTuple):
    """One start of llama-bench, as the log tells it.

    Attributes:
        seconds: from its start to the log's next word.
        timed_out: whether it was ended by its time limit.
        offset: where its line begins in the log, bytes.
        end_offset: where the log's next line begins.
        ended: when, seconds since the year 1.
    """

    seconds: float
    timed_out: bool
    offset: int
    end_offset: int
    ended: float


@dataclass
class Log:
    """What the log of one run says.

    Attributes:
        attempts: by scenario; of one that was tried twice the last.
        skips: the shortest scenarios of a model that were not tried, with the log's reason and its line's offset.
        late: models that did not arrive in time, with the offset of the line that says so.
        first_seconds: when it begins, seconds since the year 1; nothing for an empty log.
        probing_seconds: finding out how many layers fit the GPU.
        waiting_seconds: waiting for a model to arrive.
    """

    attempts: dict[Key, Attempt] = field(default_factory=dict)
    skips: dict[Key, tuple[str, int]] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    first_seconds: float | None = None
    probing_seconds: float = 0.0
    waiting_seconds: float = 0.0


def read(
    stdout: bytes, stderr: bytes, start: datetime | None, end: datetime | None, lines: Lines
) -> tuple[tuple[Measured, ...], dict[str, float]]:
    """What one run measured, and where its time went.

    Args:
        stdout: llama-bench's rows.
        stderr: the log.
        start: when the run began.
        end: when it ended.
        lines: takes the lines that can't be read.

    Returns:
        How each scenario ended, and the seconds by cause; none where start or end is unknown.
    """
    log = read_log(stderr, lines)
    rows = dict(_rows(stdout, log, lines))
    measured = list(rows.values())
    measured += _without_row(log, rows, stderr)
    return tuple(measured), _times(log, rows, start, end)


# ── the rows ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _rows(stdout: bytes, log: Log, lines: Lines) -> Iterator[tuple[Key, Measured]]:
    """Every row; a later row of the same scenario replaces the earlier."""
    offset = 0
    for number, line in enumerate(stdout.split(b"\n"), 1):
        if line and not line.isspace():
            try:
                one = _fast(line, number, offset, log) or _slow(line.decode(), number, offset, log)
            except BAD_LINE as error:
                lines.failed(STDOUT, number, error)
            else:
                yield (one.model_file, one.task, one.tokens), one
        offset += len(line) + 1


def _fast(line: bytes, number: int, offset: int, log: Log) -> Measured | None:
    """A row of today's format, in which everything is as it should be; nothing for whatever needs a closer look."""
    try:
        fields = orjson.loads(line)
        prompt, generated, times = fields["n_prompt"], fields["n_gen"], fields["samples_ns"]
        layers, backends, file = fields["n_gpu_layers"], fields["backends"], fields["model_filename"]
        gpus, commit, at = fields["gpu_info"], fields["build_commit"], fields["test_time"]
        if not (prompt.__class__ is generated.__class__ is layers.__class__ is int):
            return None
        if not (file.__class__ is backends.__class__ is gpus.__class__ is commit.__class__ is at.__class__ is str):
            return None
        if min(prompt, generated) != 0 or not prompt + generated or not times:
            return None
        total_ns = sum(times)
        # a sum of whole numbers is one; what is 1 may be "true"
        if total_ns.__class__ is not int or min(times) < 2:
            return None
        return _measured(
            fields, "pp" if prompt else "tg", prompt + generated, tuple(times), total_ns, layers, backends, gpus,
            number, offset, log,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _slow(line: str, number: int, offset: int, log: Log) -> Measured:
    """A row of any version of llama-bench.

    Raises:
        RowError: it is none.
        ValueError: it is a row of something that we don't measure, or holds impossible values.
    """
    row: Row = parse_row(line)
    if row.task not in TASKS:
        raise ValueError(f"a row of '{row.task}', which is no scenario")
    fields = {
        **row.fields,
        "model_filename": row.model_filename,
        "test_time": row.test_time,
        "model_size": row.model_size,
        "model_n_params": row.model_n_params,
        "n_threads": row.n_threads,
        "build_number": row.build_number,
        "build_commit": row.build_commit,
    }
    return _measured(
        fields,
        row.task,
        row.tokens,
        row.samples_ns,
        sum(row.samples_ns),
        row.n_gpu_layers,
        row.backends,
        row.gpu_info,
        number,
        offset,
        log,
    )


def _measured(
    fields: Mapping[str, Any],
    task: str,
    tokens: int,
    times: tuple[int, ...],
    total_ns: int,
    layers: int,
    backends: str,
    gpu_info: str,
    number: int,
    offset: int,
    log: Log,
) -> Measured:
    file = file_name(fields["model_filename"])
    if not 0 < tokens < 2**31 or total_ns > LARGEST_INTEGER:
        raise ValueError("its tokens or times are larger than any measurement's")
    on_cuda = "CUDA" in backends
    fallback = on_cuda and layers == 0
    # in the order of the fields, because names cost a fifth of the whole import
    return Measured(
        short_name(file),
        task,
        tokens,
        file,
        "real",
        Outcome.GPU_FALLBACK if fallback else Outcome.OK,
        FALLBACK_REASON if fallback else "",
        (),  # noisy
        1,  # attempt
        None,  # evidence_seconds
        times,
        (),  # discarded
        parse_time(fields["test_time"]),
        None,  # model_sha256
        None,  # model_bytes
        whole(fields["model_size"]),
        whole(fields["model_n_params"]),
        _device(gpu_info) if on_cuda and layers else "CPU",
        whole(fields["n_threads"], 2**31 - 1),
        None,  # pinning
        layers if -(2**31) <= layers < 2**31 else None,
        None,  # gpu_layers
        None,  # layers_total
        None,  # offload_proof
        None,  # gpu_memory_bytes
        _load_seconds(log.attempts.get((file, task, tokens)), task, tokens, len(times), total_ns),
        whole(fields["build_number"], 2**31 - 1),
        clean(fields["build_commit"]) or None,
        STDOUT,
        number,
        offset,
    )


def _load_seconds(attempt: Attempt | None, task: str, tokens: int, count: int, total_ns: int) -> float | None:
    """What is left of a process when its samples and its warm-up (a whole prompt, or one token) are taken away."""
    if attempt is None or attempt.timed_out:
        return None
    samples = total_ns / 1e9
    warm_up = samples / count / (1 if task == "pp" else tokens)
    return round(max(0.0, attempt.seconds - samples - warm_up), 3)


@cache
def _device(gpu_info: str) -> str:
    """The GPUs as one reads them: ``NVIDIA L40S``, ``4x NVIDIA L4``."""
    names = [clean(one.strip()) for one in gpu_info.split(",") if one.strip()]
    if not names:
        return "GPU"
    return names[0] if len(names) == 1 else f"{len(names)}x {names[0]}"


@cache
def short_name(file: str) -> str:
    """The name of our own model with this file; the file's own without its ending where there is none."""
    from benchctl.models import load_models

    return next((one.name for one in load_models().values() if one.file == file), file.removesuffix(".gguf"))


# ── the log ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_log(text: bytes, lines: Lines) -> Log:
    """Follow the log from line to line; a line that is not the program's own is passed over."""
    log = Log()
    between = _BetweenModels(log)
    attempts, model = log.attempts, ""
    running: tuple[Key, float, int] | None = None
    days: dict[bytes, int] = {}
    for found in _LOG_LINE.finditer(text):
        day, hours, minutes, seconds, millis, task, tokens, said = found.groups()
        midnight = days.get(day)
        if midnight is None:
            try:
                midnight = days[day] = datetime.fromisoformat(day.decode()).toordinal() * 86400
            except ValueError:
                continue
        now = midnight + int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(millis) / 1000
        offset = found.start()
        if running is not None:
            # the llama-bench that was running has ended, for its driver says something
            timed_out = said is not None and b" timed out after " in said
            attempts[running[0]] = Attempt(max(0.0, now - running[1]), timed_out, running[2], offset, now)
            running = None
        if task is not None:
            if model:
                running = (model, _TASKS[task], int(tokens)), now, offset
            continue
        try:
            model = between.take(now, said, offset)
        except BAD_LINE as error:
            lines.failed(STDERR, text.count(b"\n", 0, offset) + 1, error)
    return log


class _BetweenModels:
    """Takes the lines of the log that are not the start of a llama-bench."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._model = ""
        self._since: float | None = None

    def take(self, now: float, said: bytes, offset: int) -> str:
        """Take in one line, said at ``now`` (seconds since the year 1); gives the model whose turn it is."""
        log = self._log
        if log.first_seconds is None:
            log.first_seconds = now
        word = said[:6]
        if word == b"Error:" or word == b"Error ":
            pass  # what ended is known by now
        elif word == b"Skippi":
            self._skip(said, offset)
        elif word == b"Model ":
            log.waiting_seconds += self._lap(now)
        elif word == b"Using ":
            log.probing_seconds += self._lap(now)
        elif said.startswith(b"Benchmarking model "):
            self._model, self._since = file_name(said[19:].split(b" ")[0].decode(errors="replace")), now
        elif said.startswith(b"Benchmarking failed with simplest task"):
            self._skip_larger(offset)
        else:
            late = _LATE.match(said)
            if late:
                log.waiting_seconds += self._lap(now)
                log.late[file_name(late[1].decode(errors="replace"))] = offset
        return self._model

    def _lap(self, now: float) -> float:
        """Seconds since the last step between two models; 0 where there was none."""
        lap = 0.0 if self._since is None else max(0.0, now - self._since)
        if self._since is not None:
            self._since = now
        return lap

    def _skip(self, said: bytes, offset: int) -> None:
        """Longer ones are not tried. After a time-out that goes without saying; otherwise it was a prediction."""
        if b"time constraints" in said or not self._model:
            return
        found = _SKIPPING.match(said)
        if found is None:
            return
        task = _TASKS[found[1]]
        longer = next((tokens for tokens in LENGTHS[task] if tokens > int(found[2])), None)
        if longer is not None:
            reason = f"this and longer: {clean(found[3].decode(errors='replace'))}"
            self._log.skips[self._model, task, longer] = (reason, offset)

    def _skip_larger(self, offset: int) -> None:
        """They give up on all larger models."""
        if self._model not in SMALLEST_FIRST:
            return
        reason = f"{short_name(self._model)} failed in its shortest scenario, so larger models were not tried"
        for larger in SMALLEST_FIRST[SMALLEST_FIRST.index(self._model) + 1 :]:
            for task, (shortest, *_) in LENGTHS.items():
                self._log.skips[larger, task, shortest] = (reason, offset)


def _moment(seconds: float) -> datetime:
    """The moment so many seconds after the beginning of the year 1, less its first day."""
    return datetime.fromordinal(1).replace(tzinfo=UTC) + timedelta(seconds=round(seconds - 86400, 3))


# ── what the log says of scenarios without a row ────────────────────────────────────────────────────────────────────


def _without_row(log: Log, rows: Mapping[Key, Measured], stderr: bytes) -> Iterator[Measured]:
    lines = _LineNumbers(stderr)
    for key, attempt in log.attempts.items():
        if key in rows:
            continue
        if attempt.timed_out:
            outcome, reason = Outcome.TIMEOUT, f"no row within its limit; ended after {attempt.seconds:.0f} s"
        else:
            outcome, reason = _crash(stderr[attempt.offset : attempt.end_offset])
        yield _unmeasured(
            key, outcome, reason, attempt.offset, lines, at=_moment(attempt.ended), evidence=round(attempt.seconds, 3)
        )
    for key, (reason, offset) in log.skips.items():
        if key not in rows and key not in log.attempts:
            yield _unmeasured(key, Outcome.PREDICTED_SKIP, reason, offset, lines)
    for file, offset in log.late.items():
        broken = _FAILED_DOWNLOAD.findall(stderr, 0, offset)
        outcome = Outcome.DOWNLOAD_FAILED if broken else Outcome.DOWNLOAD_TOO_SLOW
        reason = clean(broken[-1].decode(errors="replace")) if broken else "it did not arrive in time"
        for task, (shortest, *_) in LENGTHS.items():
            key = (file, task, shortest)
            if key not in rows and key not in log.attempts:
                yield _unmeasured(key, outcome, reason, offset, lines)


def _crash(said: bytes) -> tuple[Outcome, str]:
    """Why a process ended without a row: the first of its words that tells of an error, else its last one."""
    words = [line for line in said.split(b"\n")[1:] if line.strip() and not line.startswith(b"20")]
    telling = next((line for line in words if _TELLING.search(line)), words[-1] if words else b"")
    reason = clean(telling.decode(errors="replace").strip()[:200])
    outcome = Outcome.OOM if _OUT_OF_MEMORY.search(said) else Outcome.CRASH
    return outcome, reason or "llama-bench ended without a row and without a word"


def _unmeasured(
    key: Key,
    outcome: Outcome,
    reason: str,
    offset: int,
    lines: _LineNumbers,
    at: datetime | None = None,
    evidence: float | None = None,
) -> Measured:
    file, task, tokens = key
    return Measured(
        model=short_name(file),
        task=task,
        tokens=tokens,
        model_file=file,
        weights="real",
        outcome=outcome,
        reason=reason,
        evidence_seconds=evidence,
        measured_at=at,
        file=STDERR,
        line=lines.at(offset),
        offset=offset,
    )


class _LineNumbers:
    """Numbers of lines by offset, quick while the offsets ascend."""

    def __init__(self, text: bytes) -> None:
        self._text, self._offset, self._line = text, 0, 1

    def at(self, offset: int) -> int:
        """The number, from 1, of the line that begins at ``offset``."""
        if offset < self._offset:
            self._offset, self._line = 0, 1
        self._line += self._text.count(b"\n", self._offset, offset)
        self._offset = offset
        return self._line


# ── where the time went ─────────────────────────────────────────────────────────────────────────────────────────────


def _times(log: Log, rows: Mapping[Key, Measured], start: datetime | None, end: datetime | None) -> dict[str, float]:
    """Seconds by cause, adding up to the time from start to end."""
    if start is None or end is None or end < start:
        return {}
    total = (end - start).total_seconds()
    began = start.toordinal() * 86400 + (start.hour * 3600 + start.minute * 60 + start.second) + start.microsecond / 1e6
    times = {
        "image": total if log.first_seconds is None else min(total, max(0.0, log.first_seconds - began)),
        "download_wait": log.waiting_seconds,
        "probing": log.probing_seconds,
        "load": 0.0,
        "samples": 0.0,
        "timeouts": 0.0,
    }
    for key, attempt in log.attempts.items():
        one = rows.get(key)
        if one is not None:
            samples = sum(one.samples_ns) / 1e9
            times["samples"] += samples
            times["load"] += max(0.0, attempt.seconds - samples)
        elif attempt.timed_out:
            times["timeouts"] += attempt.seconds
    for key, one in rows.items():
        if key not in log.attempts:
            times["samples"] += sum(one.samples_ns) / 1e9
    known = sum(times.values())
    times["other"] = max(0.0, total - known)
    return {cause: round(seconds, 3) for cause, seconds in times.items() if seconds}
