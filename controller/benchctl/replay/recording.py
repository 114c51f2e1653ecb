"""One recorded run of Spare Cores' inspector as frozen values: what was tried, what came of it, and when.

Their driver runs one llama-bench per scenario, five repetitions each after a warm-up pass, and kills it at a limit of
its own. ``stdout`` holds the rows, ``stderr`` the driver's log with the time of every step, ``meta.json`` when the
task, the pull of its image included, began and ended.
"""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from llama_bench_core.rows import RowError, parse_row

from benchctl.errors import BenchctlError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MIB = 1024**2


class RecordingError(BenchctlError):
    """A recorded run can't be read."""


@dataclass(frozen=True)
class Tried:
    """One llama-bench process of theirs: one scenario.

    Attributes:
        file: the model's file name.
        task: ``pp`` or ``tg``.
        tokens: length.
        limit_seconds: after which they killed it.
        seconds: how long it took, from its announcement to the driver's next step.
        samples_ns: time of each repetition, nanoseconds, in recorded order; empty where there is no row.
        timed_out: whether it was killed at the limit. Neither this nor a row: it ended by itself, without one.
    """

    file: str
    task: str
    tokens: int
    limit_seconds: float
    seconds: float
    samples_ns: tuple[int, ...] = ()
    timed_out: bool = False

    @property
    def sample_seconds(self) -> float:
        """Time of all repetitions together."""
        return sum(self.samples_ns) / 1e9

    @property
    def warmup_seconds(self) -> float:
        """Their warm-up pass before the repetitions, the whole prompt or one token: taken from the mean repetition."""
        if not self.samples_ns:
            return 0.0
        mean = self.sample_seconds / len(self.samples_ns)
        return mean if self.task == "pp" else mean / self.tokens

    @property
    def load_seconds(self) -> float:
        """What is left of the process's time: its start, the load and its end. 0 where there is no row."""
        return max(0.0, self.seconds - self.sample_seconds - self.warmup_seconds) if self.samples_ns else 0.0


@dataclass(frozen=True)
class RecordedModel:
    """What was recorded of one model besides its scenarios.

    Attributes:
        file: its file name.
        bytes: size of the file; 0 when the log does not say.
        download_seconds: how long the whole download took; ``None`` where it did not end.
        bytes_per_second: speed of the download, also of one that was given up for its speed; ``None`` when unknown.
        gpu_layers: their ``-ngl``: 0 for the CPU alone, 999 for all; ``None`` where the model was never run.
        probe_seconds: their last trial of how many layers fit: one load and 640 tokens; 0 without a GPU.
    """

    file: str
    bytes: int = 0
    download_seconds: float | None = None
    bytes_per_second: float | None = None
    gpu_layers: int | None = None
    probe_seconds: float = 0.0


@dataclass(frozen=True)
class Recorded:
    """One recorded run.

    Attributes:
        vendor: the vendor, as Spare Cores names it.
        server: the vendor's own name of the server type (``api_reference``).
        exit_code: of the whole task; 0 when it went through.
        seconds: billed time, from the start of the task to its end.
        gpu: whether the GPU build was used.
        models: what was recorded of each model, by file name.
        tried: their processes, in order.
        causes: seconds by what the driver was busy with, but for the processes: ``image pull``, ``waiting for
            downloads``, ``probing layers`` and ``other``.
    """

    vendor: str
    server: str
    exit_code: int
    seconds: float
    gpu: bool = False
    models: Mapping[str, RecordedModel] = field(default_factory=dict)
    tried: tuple[Tried, ...] = ()
    causes: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``vendor/server``."""
        return f"{self.vendor}/{self.server}"

    @property
    def rows(self) -> tuple[Tried, ...]:
        """The scenarios that ended with a row."""
        return tuple(one for one in self.tried if one.samples_ns)


_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) - [A-Z]+ - (.*)")
_DOWNLOADED = re.compile(r"Downloaded model (\S+) \(([\d.]+) MB\) in ([\d.]+) sec")
_TOO_SLOW = re.compile(
    r"Downloading (\S+) \([\d.]+ MB remaining out of ([\d.]+) MB\) would take too long with ([\d.]+) MB/s"
)
_MODEL = re.compile(r"Benchmarking model (\S+) \.\.\.")
_FOUND = re.compile(r"Model (\S+) found at \S+ \(([\d.]+) GB\)")
_LAYERS = re.compile(r"Using ngl (\d+) for model (\S+)")
_TRIED = re.compile(r"Benchmarking (prompt processing|text generation) with (\d+) tokens for max (\d+) sec")
_OF_DOWNLOADS = ("Downloading model ", "Downloaded model ", "Deleted partially ")
"""What the thread of the downloads says while the driver goes on with something else."""


def read_recorded(vendor: str, server: str, meta: str, stdout: str, stderr: str) -> Recorded:
    """Read the three files of one run.

    Args:
        vendor: from the folder's name.
        server: from the folder's name.
        meta: text of ``meta.json``.
        stdout: text of ``stdout``; may be empty. Lines that are no row are left out.
        stderr: text of ``stderr``; may be empty.

    Raises:
        RecordingError: ``meta.json`` does not say when the run began and ended, or how.
    """
    about = _about(vendor, server, meta)
    began, ended = about["start"], about["end"]
    log = _Log(_samples(stdout.splitlines()))
    log.read(stderr.splitlines())
    log.close(began, ended)
    return Recorded(
        vendor=vendor,
        server=server,
        exit_code=about["exit_code"],
        seconds=(ended - began).total_seconds(),
        gpu=log.gpu,
        models={file: RecordedModel(file, **facts) for file, facts in log.models.items()},
        tried=tuple(log.tried),
        causes=log.causes,
    )


def _about(vendor: str, server: str, meta: str) -> dict[str, Any]:
    try:
        found = json.loads(meta)
        return {
            "start": datetime.fromisoformat(found["start"]).replace(tzinfo=None),
            "end": datetime.fromisoformat(found["end"] or found["start"]).replace(tzinfo=None),
            "exit_code": int(found["exit_code"]),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise RecordingError(
            f"meta.json of {vendor}/{server} does not tell start, end and exit_code ({error}).", "Leave this run out."
        ) from error


def _samples(lines: Iterable[str]) -> dict[tuple[str, str, int], tuple[int, ...]]:
    """The repetitions' times by file, task and tokens."""
    found: dict[tuple[str, str, int], tuple[int, ...]] = {}
    for line in lines:
        if not line.strip():
            continue
        try:
            row = parse_row(line)
        except RowError:
            continue
        found[row.model_filename.rpartition("/")[2], row.task, row.tokens] = row.samples_ns
    return found


class _Log:
    """The driver's log, line by line: every moment belongs to the step that the last line began."""

    def __init__(self, samples: Mapping[tuple[str, str, int], tuple[int, ...]]) -> None:
        self.gpu = False
        self.models: dict[str, dict[str, Any]] = {}
        self.tried: list[Tried] = []
        self.causes: dict[str, float] = {}
        self._samples = samples
        self._file = ""
        self._first: datetime | None = None
        self._at: datetime | None = None
        self._busy_with = "other"
        self._trying: tuple[str, int, float] | None = None
        self._probe_began: datetime | None = None

    def read(self, lines: Iterable[str]) -> None:
        """Take in all lines."""
        for at, text in _dated(lines):
            if self._first is None:
                self._first = self._at = at
            if text.startswith(_OF_DOWNLOADS):
                self._downloaded(text)
                continue
            self._until(at, timed_out=text.startswith("Error: Command"))
            self._step(at, text)

    def close(self, began: datetime, ended: datetime) -> None:
        """The time before the first line is the pull of the image, the time after the last one belongs to its step."""
        if self._first is None:
            self.causes["other"] = (ended - began).total_seconds()
            return
        self.causes["image pull"] = (self._first - began).total_seconds()
        self._until(ended)

    def _until(self, at: datetime, timed_out: bool = False) -> None:
        """The step that was under way has ended."""
        assert self._at is not None  # noqa: S101 - set by the first line
        seconds = (at - self._at).total_seconds()
        self._at = at
        if self._trying is None:
            self.causes[self._busy_with] = self.causes.get(self._busy_with, 0.0) + seconds
            return
        task, tokens, limit = self._trying
        self._trying = None
        # a row may have been printed in the moment of the kill
        samples = self._samples.get((self._file, task, tokens), ())
        self.tried.append(Tried(self._file, task, tokens, limit, seconds, samples, timed_out))

    def _step(self, at: datetime, text: str) -> None:
        """A new step begins."""
        self._busy_with = "other"
        if match := _TRIED.match(text):
            self._trying = ("pp" if match[1].startswith("prompt") else "tg", int(match[2]), float(match[3]))
        elif match := _MODEL.match(text):
            self._file, self._busy_with = match[1], "waiting for downloads"
            self._model(self._file)
        elif text.startswith("Waiting for "):
            self._busy_with = "waiting for downloads"
        elif match := _FOUND.match(text):
            model = self._model(match[1])
            model["bytes"] = model.get("bytes") or round(float(match[2]) * 1024**3)
            self._busy_with, self._probe_began = "probing layers", at
        elif text.startswith("Error testing ngl"):
            self._busy_with, self._probe_began = "probing layers", at
        elif match := _LAYERS.match(text):
            model = self._model(match[2])
            model["gpu_layers"] = int(match[1])
            if self.gpu and self._probe_began is not None:
                model["probe_seconds"] = (at - self._probe_began).total_seconds()
        elif text.startswith("Using GPU-build"):
            self.gpu = True
        elif match := _TOO_SLOW.match(text):
            self._model(match[1]).update(bytes=round(float(match[2]) * MIB), bytes_per_second=float(match[3]) * MIB)

    def _downloaded(self, text: str) -> None:
        if match := _DOWNLOADED.match(text):
            size, seconds = round(float(match[2]) * MIB), float(match[3])
            model = self._model(match[1])
            model.update(bytes=size, download_seconds=seconds, bytes_per_second=size / max(seconds, 0.01))

    def _model(self, file: str) -> dict[str, Any]:
        return self.models.setdefault(file, {})


def _dated(lines: Iterable[str]) -> Iterator[tuple[datetime, str]]:
    for line in lines:
        match = _LINE.match(line)
        if match:
            yield datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S,%f"), match[2]  # noqa: DTZ007 - the log has no zone


def typical_load_seconds(recorded: Recorded, file: str) -> tuple[float, float] | None:
    """How long loading a model took: the first time, and typically after that; ``None`` where it never gave a row."""
    # what hung after its row until it was killed says nothing of the load
    loads = [one.load_seconds for one in recorded.rows if one.file == file and not one.timed_out]
    if not loads:
        return None
    return loads[0], statistics.median(loads[1:] or loads)
