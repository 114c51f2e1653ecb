"""A recorded llama-bench in simulated time: the same protocol as the real one, for replays, rehearsals and tests.

It reads the arguments that :func:`command.arguments` makes and answers with the recorded times: no process, no waiting.
What was never recorded never ends, as a scenario that timed out in the record would not have.
"""

from __future__ import annotations

import json
import math
import signal
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .events import Event, Exited, Garbage, ProgressLine, RowLine, Tick
from .rows import Progress, RowError, parse_row

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence


@dataclass(frozen=True)
class Recording:
    """What is known of one model on one machine.

    Attributes:
        file: name of the GGUF file, without folders.
        samples_ns: by task and tokens, the times of the repetitions; taken in turn, and again from the first.
        load_seconds: from the start of a process until its first run begins.
        fields: further fields of the rows, as llama-bench prints them.
    """

    file: str
    samples_ns: Mapping[tuple[str, int], Sequence[int]]
    load_seconds: float = 1.0
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Failure:
    """Something that goes wrong.

    Attributes:
        kind: ``crash`` (SIGSEGV), ``abort`` (status 1 with ``says``), ``oom`` (killed by the kernel), ``hang``,
            ``garbage`` (a line on stdout that is no row, and on it goes), or ``end`` (status 0 before its time).
        file: of which model.
        task: of which task; empty for both.
        tokens: at the first value of this many tokens; 0 for while loading.
        times: how many processes it happens to.
        says: what stands on stderr then; or the line of garbage.
    """

    kind: str
    file: str
    task: str = ""
    tokens: int = 0
    times: int = 1_000_000
    says: str = ""


_ENDS = {
    "crash": (None, signal.SIGSEGV, 0),
    "abort": (1, None, 0),
    "oom": (None, signal.SIGKILL, 1),
    "end": (0, None, 0),
}
"""By kind of failure: exit status, signal, and processes that the kernel killed for want of memory."""


class Playback:
    """Starts recorded runs; satisfies :class:`events.Launcher`, and its clock is theirs.

    Attributes:
        started: the arguments of every process so far.
        now: the simulated time, seconds.
        tick_seconds: time between two ticks of a process.
        tick_growth: a tick takes this share of what its pass has taken so far, where that is longer: a scenario that
            never ends is then followed in some hundred steps, and a limit is noticed by so much too late.
        restart_seconds: what each process takes besides loading its model.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        failures: Sequence[Failure] = (),
        *,
        tick_seconds: float = 1.0,
        tick_growth: float = 0.0,
        restart_seconds: float = 0.0,
        now: float = 0.0,
    ) -> None:
        self.started: list[list[str]] = []
        self.now = now
        self.tick_seconds = tick_seconds
        self.tick_growth = tick_growth
        self.restart_seconds = restart_seconds
        self._recordings = {one.file: one for one in recordings}
        self._failures = list(failures)
        self._happened = [0] * len(self._failures)
        self._taken: dict[tuple[str, str, int], int] = {}

    def clock(self) -> float:
        """The simulated time, seconds."""
        return self.now

    def spend(self, seconds: float, cause: str) -> None:  # noqa: ARG002 - for those who keep accounts
        """Let simulated time pass.

        Args:
            seconds: how much.
            cause: what it is spent on: ``restart``, ``load``, ``warmup`` (llama-bench's own), ``run TASK TOKENS`` or
                ``hang``.
        """
        self.now += seconds

    def start(
        self,
        argv: Sequence[str],
        *,
        stderr_path: str = "",  # noqa: ARG002  (nothing is written)
        env: Mapping[str, str] | None = None,  # noqa: ARG002  (nothing is started)
    ) -> PlayedProcess:
        """Play the process that ``argv`` asks for; see :class:`events.Launcher`. Writes no stderr."""
        self.started.append(list(argv))
        return PlayedProcess(self, PlayedArguments.of(argv))

    def recording(self, file: str) -> Recording:
        """What is known of a model; a model never recorded loads in no time and runs for ever."""
        return self._recordings.get(file) or Recording(file, {}, 0.0)

    def load_seconds(self, file: str) -> float:
        """How long the next load of a model takes."""
        return self.recording(file).load_seconds

    def next_seconds(self, file: str, task: str, tokens: int) -> float:
        """How long the next repetition takes; infinite when none was recorded."""
        samples = self.recording(file).samples_ns.get((task, tokens), ())
        if not samples:
            return math.inf
        key = (file, task, tokens)
        index = self._taken.get(key, 0)
        self._taken[key] = index + 1
        return samples[index % len(samples)] / 1e9

    def warmup_seconds(self, file: str, task: str, tokens: int) -> float:
        """How long llama-bench's own warm-up takes: the whole prompt, or one token of generation."""
        seconds = self.next_seconds(file, task, tokens)
        return seconds if task == "pp" else seconds / tokens

    def failure(self, file: str, task: str, tokens: int) -> Failure | None:
        """What goes wrong here, if anything."""
        for index, one in enumerate(self._failures):
            fits = (one.file, one.tokens) == (file, tokens) and one.task in ("", task)
            if fits and self._happened[index] < one.times:
                self._happened[index] += 1
                return one
        return None


@dataclass(frozen=True)
class PlayedArguments:
    """What a recorded run understands of llama-bench's arguments."""

    model_path: str
    values: tuple[tuple[str, int], ...]
    repetitions: int
    warmup: bool
    progress: bool
    threads: int
    gpu_layers: int

    @classmethod
    def of(cls, argv: Sequence[str]) -> PlayedArguments:
        """Read them from ``argv``, with llama-bench's own defaults."""

        def value(flag: str, default: str) -> str:
            return argv[argv.index(flag) + 1] if flag in argv else default

        values = [
            (task, int(tokens))
            for task, flag, default in (("pp", "-p", "512"), ("tg", "-n", "128"))
            for tokens in value(flag, default).split(",")
            if int(tokens)
        ]
        return cls(
            model_path=value("-m", ""),
            values=tuple(values),
            repetitions=int(value("-r", "5")),
            warmup="--no-warmup" not in argv,
            progress="--progress" in argv,
            threads=int(value("-t", "1")),
            gpu_layers=int(value("-ngl", "0")),
        )


class PlayedProcess:
    """One recorded run; satisfies :class:`events.Process`."""

    def __init__(self, playback: Playback, asked: PlayedArguments) -> None:
        self._playback, self._asked = playback, asked
        self._file = asked.model_path.rpartition("/")[2]
        self._started_at = playback.now
        self._killed = False
        self._exit: tuple[int | None, int | None, int] = _ENDS["end"]
        self._said = ""

    @property
    def pid(self) -> int:
        """0: there is no process."""
        return 0

    @property
    def log_head(self) -> str:
        """What stands on stderr."""
        return self._said

    @property
    def log_tail(self) -> str:
        """What stands on stderr."""
        return self._said

    def __enter__(self) -> PlayedProcess:  # noqa: PYI034  (Self is not in Python 3.9)
        return self

    def __exit__(self, *details: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End it now; the next event is ``Exited``."""
        self._killed = True

    def events(self) -> Iterator[Event]:
        """Everything that happens, until and with ``Exited``, in simulated time."""
        yield Tick(self._playback.now, 0.0)
        for event in self._course():
            yield event
            if self._killed:
                self._exit = (None, signal.SIGKILL, 0)
                break
        returncode, signal_number, oom_kills = self._exit
        now = self._playback.now
        yield Exited(now, now - self._started_at, returncode, signal_number, self._killed, oom_kills)

    def _course(self) -> Iterator[Event]:
        """What happens while nobody kills it."""
        for index, (task, tokens) in enumerate(self._asked.values, start=1):
            yield from self._progress("starting", index, "")
            if index == 1:
                yield from self._pass(self._playback.restart_seconds, "restart")
                yield from self._pass(self._playback.load_seconds(self._file), "load")
                if (yield from self._fails(task, 0)):
                    return
            if self._asked.warmup:
                yield from self._progress("warmup", index, task)
                yield from self._pass(self._playback.warmup_seconds(self._file, task, tokens), "warmup")
            samples = []
            for repetition in range(1, self._asked.repetitions + 1):
                yield from self._progress("run", index, task, repetition)
                if (yield from self._fails(task, tokens)):
                    return
                seconds = self._playback.next_seconds(self._file, task, tokens)
                yield from self._pass(seconds, f"run {task} {tokens}")
                samples.append(round(seconds * 1e9))
            yield RowLine(self._playback.now, parse_row(self._row(task, tokens, samples)))

    def _progress(self, kind: str, index: int, task: str, repetition: int = 0) -> Iterator[Event]:
        """A line of ``--progress``, if it was asked for."""
        if self._asked.progress:
            repetitions = self._asked.repetitions if repetition else 0
            progress = Progress(kind, index, len(self._asked.values), task, repetition, repetitions)
            yield ProgressLine(self._playback.now, progress)

    def _pass(self, seconds: float, cause: str) -> Iterator[Event]:
        """Let time pass, with ticks; never ends for an infinite time."""
        began = self._playback.now
        while seconds > 0:
            gone = self._playback.now - began
            step = min(seconds, max(self._playback.tick_seconds, self._playback.tick_growth * gone))
            self._playback.spend(step, cause)
            seconds -= step
            yield Tick(self._playback.now, self._playback.now - self._started_at)

    def _fails(self, task: str, tokens: int) -> Generator[Event, None, bool]:
        """Play what goes wrong here; whether that was the end."""
        failure = self._playback.failure(self._file, task, tokens)
        if failure is None:
            return False
        if failure.kind == "garbage":
            text = failure.says or "Segmentation fault in a dream"
            try:
                parse_row(text)
            except RowError as error:
                yield Garbage(self._playback.now, text, error.problem)
            return False
        if failure.kind == "hang":
            yield from self._pass(math.inf, "hang")
        self._said = failure.says
        self._exit = _ENDS[failure.kind]
        return True

    def _row(self, task: str, tokens: int, samples_ns: Sequence[int]) -> str:
        """A row as llama-bench prints it."""
        speeds = [1e9 * tokens / nanoseconds for nanoseconds in samples_ns]
        fields = {
            "model_filename": self._asked.model_path,
            "n_threads": self._asked.threads,
            "n_gpu_layers": self._asked.gpu_layers,
            **self._playback.recording(self._file).fields,
            "n_prompt": tokens if task == "pp" else 0,
            "n_gen": tokens if task == "tg" else 0,
            "avg_ts": statistics.fmean(speeds),
            "stddev_ts": statistics.stdev(speeds) if len(speeds) > 1 else 0.0,
            "samples_ns": list(samples_ns),
            "samples_ts": speeds,
        }
        return json.dumps(fields)
