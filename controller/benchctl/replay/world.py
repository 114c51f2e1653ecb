"""A recorded machine behind the protocols of the real one: processes, downloads and clock, all in simulated time.

Nothing here decides anything. What the session asks for takes as long as it took in the recording, and nothing is told
before it would have been seen: a sample's time is drawn when the sample begins, a load's when the process starts, a
download's bytes arrive with the clock.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_bench_core import blueprint, command, pace, placement, synthetic
from llama_bench_core.delivery import Supplied, SupplyFailure
from llama_bench_core.gguf import Header
from llama_bench_core.gpu import GPU
from llama_bench_core.host import HostFacts
from llama_bench_core.measure import Place
from llama_bench_core.playback import Failure, Playback, Recording
from llama_bench_core.values import Outcome, Verdict

from benchctl.replay.recording import typical_load_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_bench_core.measure import Bench
    from llama_bench_core.programs import Run
    from llama_bench_core.state import History
    from llama_bench_core.values import Model

    from benchctl.replay.recording import Recorded, RecordedModel

TICK_SECONDS = 0.2
"""As the real runner's."""

TICK_GROWTH = 0.02
"""A cut comes up to this share of a sample's time too late, where the real runner's is a fifth of a second."""

KNOWN_FLAGS = ("-m", "-p", "-n", "-r", "-o", "-t", "-ngl", "-fa", "-b", "-ub", "-sm", "-v", "--no-warmup", "--progress")

BINARY = command.Binary("llama-bench", "", 0, "", frozenset(KNOWN_FLAGS), "", defaults={"-ngl": "-1"})
"""A llama-bench of today: it can leave the warm-up out and announce its runs."""

UNKNOWN_MEMORY_BYTES = 1 << 50
"""Where nobody says how much memory a server has, every model fits."""


@dataclass(frozen=True)
class Assumptions:
    """What the recording does not say, or what is to be taken for different.

    Attributes:
        load_factor: on every load's time.
        restart_seconds: what a process of llama-bench's costs besides its load; the recorded loads hold its start and
            its end already, so this is caution.
        pull_factor: on the pull of the image.
        least_bytes_per_second: downloads are at least so fast; 0 for as recorded.
        downloads_first: downloads begin with the pull of the image, not after it.
        warmups: whether first samples are discarded, as the real runner does.
    """

    load_factor: float = 1.0
    restart_seconds: float = 0.2
    pull_factor: float = 1.0
    least_bytes_per_second: float = 0.0
    downloads_first: bool = False
    warmups: bool = True


@dataclass(frozen=True)
class Hardware:
    """What a catalogue says of a server.

    Attributes:
        memory_bytes: RAM; 0 when unknown.
        gpu_memory_bytes: memory of all GPUs together; 0 when unknown.
    """

    memory_bytes: int = 0
    gpu_memory_bytes: int = 0


class Machine(Playback):
    """Plays the processes of one recorded run, and keeps the account of the time.

    Attributes:
        spent: seconds by cause, as :meth:`Playback.spend` is told them.
        predicted: seconds spent on scenarios that were never recorded, by (file, task, tokens).
        models: smallest first.
        history: what the session has learned so far; set once its journal is there.
        placing: whether the time now is that of a probe.
    """

    def __init__(self, recorded: Recorded, models: Sequence[Model], assumed: Assumptions) -> None:
        self._tried = {(one.file, one.task, one.tokens): one for one in recorded.tried}
        self.models = sorted(models, key=lambda model: model.size_bytes)
        self._names = {model.file: model.name for model in models}
        self._loads = _Loads(recorded, self.models, assumed.load_factor)
        super().__init__(
            [Recording(model.file, {}) for model in models],
            _failures(recorded),
            tick_seconds=TICK_SECONDS,
            tick_growth=TICK_GROWTH,
            restart_seconds=assumed.restart_seconds,
        )
        self.spent: dict[str, float] = defaultdict(float)
        self.predicted: dict[tuple[str, str, int], float] = {}
        self.history: History | None = None
        self.placing = False
        self._file = ""

    def spend(self, seconds: float, cause: str) -> None:
        """Let time pass and note on what."""
        super().spend(seconds, cause)
        self.spent["probing" if self.placing else cause] += seconds
        if cause.startswith("run ") and not self.placing:
            _, task, tokens = cause.split()
            key = (self._file, task, int(tokens))
            if key not in self._tried:
                self.predicted[key] = self.predicted.get(key, 0.0) + seconds

    def load_seconds(self, file: str) -> float:
        """The first load as the first was recorded, later ones as they typically were."""
        return self._loads.next_seconds(file)

    def next_seconds(self, file: str, task: str, tokens: int) -> float:
        """The recorded repetition whose turn it is: the k-th sample that counts takes the k-th recorded time.

        A sample that is discarded takes as long as the one that follows it. After the fifth it begins anew with the
        first. A scenario that timed out never ends; one that was never tried takes its predicted time.
        """
        self._file = file
        one = self._tried.get((file, task, tokens))
        if one is None:
            speed = self._predicted_speed(file, task, tokens)
            return tokens / speed if speed else math.inf
        if not one.samples_ns:
            return math.inf
        assert self.history is not None  # noqa: S101 - set before the session starts
        taken = len(self.history.samples.get((self._names[file], task, tokens), ()))
        return one.samples_ns[taken % len(one.samples_ns)] / 1e9

    def warmup_seconds(self, file: str, task: str, tokens: int) -> float:
        """As the recorded repetitions; without them one token at the predicted speed, or a prompt without end."""
        seconds = self.next_seconds(file, task, tokens)
        if task == "tg" and math.isinf(seconds):
            speed = self._predicted_speed(file, task, tokens)
            return 1 / speed if speed else math.inf
        return seconds if task == "pp" else seconds / tokens

    def _predicted_speed(self, file: str, task: str, tokens: int) -> float | None:
        """Tokens per second of a scenario that was never recorded.

        The speed at the next shorter recorded length, else at the next longer one (the probe's single token is one of
        generation); for a model without a row, that of the next smaller one in proportion to the bytes.
        """
        wanted = "tg" if tokens == 1 else task
        for position in range(self._position(file), -1, -1):
            model = self.models[position]
            known = {
                one.tokens: one.tokens * len(one.samples_ns) / one.sample_seconds
                for (name, of, _), one in self._tried.items()
                if (name, of) == (model.file, wanted) and one.samples_ns
            }
            if known:
                nearest = max((t for t in known if t <= tokens), default=min(known))
                return known[nearest] * model.size_bytes / self.models[self._position(file)].size_bytes
        return None

    def _position(self, file: str) -> int:
        return next(index for index, model in enumerate(self.models) if model.file == file)


class _Loads:
    """How long each load of each model takes."""

    def __init__(self, recorded: Recorded, models: Sequence[Model], factor: float) -> None:
        self._factor = factor
        self._count: Counter[str] = Counter()
        self._seconds: dict[str, tuple[float, float]] = {}
        known: tuple[float, float, int] | None = None
        for model in models:
            found = typical_load_seconds(recorded, model.file) or _crashed_load(recorded, model.file)
            if found is None and known is not None:
                share = model.size_bytes / known[2]
                found = known[0] * share, known[1] * share
            self._seconds[model.file] = found or (1.0, 1.0)
            if found is not None:
                known = (*found, model.size_bytes)
            probe = recorded.models[model.file].probe_seconds if model.file in recorded.models else 0.0
            if probe:  # with a GPU their probing loaded the model first
                self._seconds[model.file] = max(probe, self._seconds[model.file][0]), self._seconds[model.file][1]

    def next_seconds(self, file: str) -> float:
        first, later = self._seconds[file]
        self._count[file] += 1
        return self._factor * (first if self._count[file] == 1 else later)


def _crashed_load(recorded: Recorded, file: str) -> tuple[float, float] | None:
    """A model that never gave a row, and whose processes ended by themselves: they took as long as that."""
    seconds = [one.seconds for one in recorded.tried if one.file == file and not one.timed_out]
    return (seconds[0], statistics.median(seconds)) if seconds else None


def _failures(recorded: Recorded) -> list[Failure]:
    """What ended by itself without a row ends so again: while loading where the model never gave one."""
    found = []
    for file in {one.file for one in recorded.tried}:
        tried = [one for one in recorded.tried if one.file == file]
        if all(not one.samples_ns and not one.timed_out for one in tried):
            found.append(Failure("abort", file))
        else:
            found += [
                Failure("abort", file, one.task, one.tokens)
                for one in tried
                if not one.samples_ns and not one.timed_out
            ]
    return found


@dataclass
class _Order:
    """One download: what has still to come, and how fast it does."""

    model: Model
    size: int
    bytes_per_second: float
    arrived: float = 0.0
    began: float | None = None
    result: Supplied | SupplyFailure | None = None

    @property
    def left(self) -> float:
        return 0.0 if self.result is not None else self.size - self.arrived


class Downloads:
    """Brings the models on the machine's clock, one after the other, smallest first; as :class:`supply.Supply` does.

    Each comes at the speed of its own recorded download; where none was recorded, at the median of the server's.
    Whether it comes too late is judged by the real rule (:func:`pace.too_slow`).
    """

    def __init__(self, recorded: Recorded, machine: Machine, models: Sequence[Model], assumed: Assumptions) -> None:
        self._machine = machine
        speeds = [one.bytes_per_second for one in recorded.models.values() if one.bytes_per_second]
        usual = statistics.median(speeds) if speeds else 0.0
        self._orders = {}
        for model in sorted(models, key=lambda one: one.size_bytes):
            known = recorded.models.get(model.file)
            speed = (known.bytes_per_second if known else None) or usual
            size = (known.bytes if known else 0) or model.size_bytes
            self._orders[model.name] = _Order(model, size, max(speed, assumed.least_bytes_per_second))
        self._at = machine.now
        self._measured = 0.0
        if assumed.downloads_first:
            self._at -= recorded.causes.get("image pull", 0.0) * assumed.pull_factor

    def start(self) -> None:
        """Begin."""
        self._advance()

    def wait(self, name: str, timeout: float | None = None) -> Supplied | SupplyFailure | None:
        """Let the clock run until the model is there, or the time is over."""
        self._advance()
        order = self._orders[name]
        if order.result is None:
            self._machine.spend(min(self._seconds_until(name), timeout or math.inf), "waiting")
            self._advance()
        return order.result

    def status(self) -> dict[str, dict[str, Any]]:
        """Nobody looks."""
        return {}

    def judge(self, name: str, patience_seconds: float) -> str:
        """Why a model will come too late, by the real rule; empty if it will not."""
        self._advance()
        if self._orders[name].result is not None:
            return ""
        coming = self._coming
        return pace.too_slow(
            bytes_left=round(self._left_until(name)),
            bytes_per_second=coming.bytes_per_second if coming else None,
            measured_seconds=self._measured,
            patience_seconds=patience_seconds,
        )

    def abandon(self, name: str, reason: str, outcome: Outcome = Outcome.DOWNLOAD_TOO_SLOW) -> None:
        """Give up a model that will not be used; the next one begins at once."""
        self._advance()
        if self._orders[name].result is None:
            self._orders[name].result = SupplyFailure(outcome, reason)

    def stop(self) -> None:
        """Nothing is under way."""

    @property
    def _coming(self) -> _Order | None:
        return next((one for one in self._orders.values() if one.result is None), None)

    def _left_until(self, name: str) -> float:
        left = 0.0
        for order in self._orders.values():
            left += order.left
            if order.model.name == name:
                break
        return left

    def _seconds_until(self, name: str) -> float:
        seconds = 0.0
        for order in self._orders.values():
            if order.left:
                seconds += order.left / order.bytes_per_second if order.bytes_per_second else math.inf
            if order.model.name == name:
                break
        return seconds + 1e-6

    def _advance(self) -> None:
        """Let arrive what has arrived by now."""
        while self._at < self._machine.now:
            order = self._coming
            if order is None:
                self._at = self._machine.now
                return
            if order.began is None:
                order.began = self._at
            gone = self._machine.now - self._at
            needed = order.left / order.bytes_per_second if order.bytes_per_second else math.inf
            step = min(gone, needed)
            order.arrived += step * order.bytes_per_second
            self._measured += step
            self._at += step
            if step < needed:
                self._at = self._machine.now
                return
            order.result = Supplied(f"/models/{order.model.file}", order.size, "", self._at - order.began, "real")


@dataclass(frozen=True)
class Placing:
    """Puts models where the recording had them, and pays for the proof as the real placement does.

    Attributes:
        machine: pays.
        models: what was recorded, by file name.
    """

    machine: Machine
    models: Mapping[str, RecordedModel] = field(default_factory=dict)

    def __call__(  # noqa: D102 - as placement.place
        self, bench: Bench, model: Model, path: str, header: Header, facts: HostFacts, device: str, run: Run
    ) -> Place | Verdict:
        known = self.models.get(model.file)
        layers = known.gpu_layers if known and known.gpu_layers is not None else 999
        if not facts.gpus or device == "cpu":
            return Place(path, 0, {})
        self.machine.placing = True
        _, _, failed = placement.probe(bench, model, path, layers, run)
        self.machine.placing = False
        if failed is not None:
            return failed
        return Place(path, command.ALL_LAYERS if layers >= header.layers else layers, {})


@cache
def header_of(model: Model) -> Header:
    """What the model's file says of itself, from its shape: no file is there to be read."""
    plan = blueprint.draw(model.shape or {})
    _, tensors, _ = synthetic.header_of(model)
    metadata = {key: value for key, _, value in plan.metadata}
    return Header(Path(model.file), 3, metadata, {}, tensors, plan.alignment, 0, model.size_bytes)


def facts_of(recorded: Recorded, hardware: Hardware) -> HostFacts:
    """What the session may know of the machine: its memory, and whether it has a GPU."""
    memory = hardware.memory_bytes or UNKNOWN_MEMORY_BYTES
    size = hardware.gpu_memory_bytes
    gpus = (GPU(0, "GPU", size, size, "", ""),) if recorded.gpu else ()
    return HostFacts(
        cpu_model="", architecture="", logical_cpus=1, physical_cores=1, cores=((0,),), smt=False, cpu_quota=None,
        numa_nodes=(), memory_bytes=memory, memory_available_bytes=memory, swap_bytes=0, governor="", clock_mhz=None,
        clock_max_mhz=None, turbo="", hypervisor="", machine="", container="", kernel="", os="", python="", gpus=gpus,
        transparent_hugepages="", load1=None, disks=(),
    )  # fmt: skip
