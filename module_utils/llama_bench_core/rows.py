"""What llama-bench prints: rows of JSON on stdout, progress on stderr.

The rows of all versions since JSON lines exist (September 2024) are read by one way: only the length, the times and
the model are needed, everything else may be absent. ``tests/cases/rows`` holds recorded rows of several versions.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from .values import CoreError


class RowError(CoreError):
    """A line that should be a row of llama-bench's is none."""


@dataclass(frozen=True)
class Row:
    """One row of llama-bench's: one test, all its repetitions.

    Attributes:
        build_commit: commit of llama.cpp it was built from, abbreviated; may be ``unknown``.
        build_number: build number of llama.cpp; 0 when unknown.
        cpu_info: name of the CPU; some ARM servers say just ``CPU``.
        gpu_info: names of the GPUs that llama-bench saw, joined by commas; not proof that one was used.
        backends: the backends that are *loaded*, joined by commas; not proof that one was used.
        model_filename: path of the GGUF file.
        model_type: description such as ``llama 7B Q4_K - Medium``.
        model_size: bytes of all tensors.
        model_n_params: number of parameters.
        n_threads: CPU threads.
        n_gpu_layers: the number of layers that was asked for; -1 and 99 or more mean all; not what was offloaded.
        n_prompt: tokens of the prompt; 0 in a test of text generation.
        n_gen: tokens generated; 0 in a test of prompt processing.
        n_depth: tokens in the cache before the test began.
        samples_ns: wall time of each repetition, in nanoseconds; never empty.
        samples_ts: tokens per second of each repetition.
        avg_ts: mean of ``samples_ts``.
        stddev_ts: standard deviation of ``samples_ts``; 0 for one sample.
        test_time: when the test began, as ``2025-04-17T14:16:27Z``; may be empty.
        raw: the line, verbatim.
        fields: all fields of the row, the unknown ones too.
    """

    build_commit: str
    build_number: int
    cpu_info: str
    gpu_info: str
    backends: str
    model_filename: str
    model_type: str
    model_size: int
    model_n_params: int
    n_threads: int
    n_gpu_layers: int
    n_prompt: int
    n_gen: int
    n_depth: int
    samples_ns: tuple[int, ...]
    samples_ts: tuple[float, ...]
    avg_ts: float
    stddev_ts: float
    test_time: str
    raw: str
    fields: dict[str, Any] = field(default_factory=dict, hash=False, compare=False, repr=False)

    @property
    def task(self) -> str:
        """``pp``, ``tg``, or ``pg`` for a prompt followed by generation (which we never ask for)."""
        if self.n_prompt and self.n_gen:
            return "pg"
        return "pp" if self.n_prompt else "tg"

    @property
    def tokens(self) -> int:
        """Tokens that were processed or generated in each repetition."""
        return self.n_prompt + self.n_gen


def parse_row(line: str) -> Row:
    """Read one line of ``-o jsonl``.

    Args:
        line: the line, with or without its newline.

    Returns:
        The row. Fields that this version of llama-bench lacks are empty, 0, or computed from those that it has.

    Raises:
        RowError: the line is no JSON object, names no test, or has no usable times.
    """
    text = line.strip()
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _no_row(text, "it is not JSON") from error
    if not isinstance(fields, dict):
        raise _no_row(text, "it is not a JSON object")

    n_prompt, n_gen = (_whole(fields.get(name), 0) for name in ("n_prompt", "n_gen"))
    tokens = n_prompt + n_gen
    if n_prompt < 0 or n_gen < 0 or not tokens:
        raise _no_row(text, "it says neither n_prompt nor n_gen")
    samples_ns = _samples_ns(fields)
    if not samples_ns or min(samples_ns) <= 0:
        raise _no_row(text, "it has no times (samples_ns)")

    samples_ts = tuple(1e9 * tokens / nanoseconds for nanoseconds in samples_ns)
    return Row(
        build_commit=_text(fields.get("build_commit")),
        build_number=_whole(fields.get("build_number"), 0),
        cpu_info=_text(fields.get("cpu_info")),
        gpu_info=_text(fields.get("gpu_info")),
        backends=_backends(fields),
        model_filename=_text(fields.get("model_filename")),
        model_type=_text(fields.get("model_type")),
        model_size=_whole(fields.get("model_size"), 0),
        model_n_params=_whole(fields.get("model_n_params"), 0),
        n_threads=_whole(fields.get("n_threads"), 0),
        n_gpu_layers=_whole(fields.get("n_gpu_layers"), 0),
        n_prompt=n_prompt,
        n_gen=n_gen,
        n_depth=_whole(fields.get("n_depth"), 0),
        samples_ns=samples_ns,
        samples_ts=samples_ts,
        avg_ts=_number(fields.get("avg_ts"), sum(samples_ts) / len(samples_ts)),
        stddev_ts=_number(fields.get("stddev_ts"), 0.0),
        test_time=_text(fields.get("test_time")),
        raw=line.rstrip("\r\n"),
        fields=fields,
    )


def _samples_ns(fields: dict[str, Any]) -> tuple[int, ...]:
    """The times of the repetitions; a version that prints the mean only counts as one repetition."""
    samples = fields.get("samples_ns")
    if samples is None and "avg_ns" in fields:
        samples = [fields["avg_ns"]]
    if not isinstance(samples, list):
        return ()
    return tuple(_whole(sample, 0) for sample in samples)


def _backends(fields: dict[str, Any]) -> str:
    """The loaded backends; until December 2024 rows had one flag per backend (``cuda``, ``vulkan``, ...) instead."""
    if "backends" in fields:
        return _text(fields["backends"])
    flags = {"cuda": "CUDA", "vulkan": "Vulkan", "kompute": "Kompute", "metal": "Metal", "sycl": "SYCL", "rpc": "RPC"}
    found = [name for flag, name in flags.items() if fields.get(flag) in (True, 1)]
    return ",".join(found) or "CPU"


def _whole(value: object, otherwise: int) -> int:
    """An integer from JSON, or from text as some versions print it; anything else gives ``otherwise``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return otherwise
    if isinstance(value, float) and not value.is_integer():
        return otherwise  # half a token, or no number at all
    try:
        return int(value)
    except (ValueError, OverflowError):
        return otherwise


def _number(value: object, otherwise: float) -> float:
    """A float from JSON, or ``otherwise``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return otherwise
    return float(value)


def _text(value: object) -> str:
    """A string from JSON; absent and null give an empty one."""
    return "" if value is None else str(value)


def _no_row(text: str, why: str) -> RowError:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return RowError(f"llama-bench printed a line that is no row: {why}: {shown!r}.")


@dataclass(frozen=True)
class Progress:
    """A line of ``--progress``.

    Attributes:
        kind: ``starting`` (before the model is loaded or a context is made), ``warmup``, ``depth`` (filling the
            cache) or ``run`` (a timed repetition begins now; it ends when the next line or its row comes).
        index: which test, from 1.
        total: number of tests of this process.
        task: ``pp`` or ``tg``; empty where the line does not say.
        repetition: which repetition, from 1; 0 where there is none.
        repetitions: number of repetitions; 0 where there are none.
    """

    kind: str
    index: int
    total: int
    task: str = ""
    repetition: int = 0
    repetitions: int = 0


_PROGRESS = re.compile(
    r"llama-bench: benchmark (?P<index>\d+)/(?P<total>\d+): "
    r"(?:(?P<starting>starting)"
    r"|warmup (?P<warmup>prompt|generation) run"
    r"|(?P<run>prompt|generation|depth) run (?P<repetition>\d+)/(?P<repetitions>\d+)(?: \(cached\))?)\s*"
)
_TASKS = {"prompt": "pp", "generation": "tg"}


def parse_progress(line: str) -> Progress | None:
    """Read one line of stderr; ``None`` where it is not one of ``--progress``."""
    found = _PROGRESS.fullmatch(line)
    if found is None:
        return None
    index, total = int(found["index"]), int(found["total"])
    if found["starting"]:
        return Progress("starting", index, total)
    if found["warmup"]:
        return Progress("warmup", index, total, _TASKS[found["warmup"]])
    kind, task = ("depth", "") if found["run"] == "depth" else ("run", _TASKS[found["run"]])
    return Progress(kind, index, total, task, int(found["repetition"]), int(found["repetitions"]))
