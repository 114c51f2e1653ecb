"""How quiet the machine was while something was measured, and the one place that judges it.

What is read: /proc/stat (busy and stolen time of the CPUs that this process may use), /proc/PID/stat of our own
processes, the clock and the load average. Other processes' CPU time is what is left of the busy time when ours is taken
away, so it includes the kernel's threads but neither interrupts nor stolen time.

The kernel counts in ticks (10 ms at the usual 100 Hz), so one short interval says little: over 0.1 s a single tick is
already a tenth of a core. Readings are therefore kept unrounded and *signed* (ours may be counted a tick before the
total is, then others are below zero), and :func:`judge` adds up all readings of a scenario before it compares: the
errors of single intervals cancel. A scenario measured for less than half a second altogether is not judged by CPU time.

In a container without its own view of /proc/stat the numbers are the host's. That is what is wanted, as the host's
other work takes the same cores, and narrowing to the usable CPUs leaves out the rest of a host split by a cpuset.
Steal is what the hypervisor tells the guest; a cloud that reports none is not thereby quiet, which is what the
coefficient of variation is for.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Callable, Protocol

from .host import load_average
from .tree import Tree, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .values import PolicySettings

MIN_JUDGED_SECONDS = 0.5
"""Less measured time than this can't be told from the rounding of the kernel's ticks."""

_CLOCKS_READ = 4
"""CPUs whose clock is read: each costs a file, and on big machines all of them would cost more than a read may."""


@dataclass(frozen=True)
class NoiseReading:
    """What disturbed one interval.

    Attributes:
        steal: share of the usable CPUs' time that the hypervisor gave to others, 0 to 1.
        other_cores: CPU time of processes that are not ours per time, in cores; may be slightly negative (see above).
        clock_ratio: lowest clock seen relative to the session's first; ``None`` where the clock can't be read.
        load1: load average over one minute at the end; ``None`` where it can't be read.
        seconds: length of the interval.
    """

    steal: float
    other_cores: float
    clock_ratio: float | None
    load1: float | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NoiseReading:
        """The reading that :meth:`to_dict` gave; what is missing counts as quiet."""
        return cls(
            steal=float(data.get("steal", 0.0)),
            other_cores=float(data.get("other_cores", 0.0)),
            clock_ratio=data.get("clock_ratio"),
            load1=data.get("load1"),
            seconds=float(data.get("seconds", 0.0)),
        )


class Monitor(Protocol):
    """Watches the machine during a sample."""

    def begin(self) -> None:
        """A sample starts here."""

    def end(self) -> NoiseReading:
        """It ends here; what disturbed it."""


class Undisturbed:
    """A machine of which nothing is known but the samples' times, as in a recording: every reading is quiet."""

    def begin(self) -> None:
        """Nothing is read."""

    def end(self) -> NoiseReading:
        """No time at all, of which nothing was stolen."""
        return NoiseReading(0.0, 0.0, None, None, 0.0)


@dataclass(frozen=True)
class _Ticks:
    """Counters at one moment, all in ticks but the last."""

    busy: int
    steal: int
    total: int
    ours: int
    at: float


class NoiseMonitor:
    """Watches the machine between :meth:`begin` and :meth:`end`; :meth:`observe` may be called in between.

    The clock's reference is read at the first :meth:`end` of the session, when the cores are under the benchmark's own
    load: before it they idle or load a model on one thread, at clocks that say nothing. Of several CPUs the fastest
    counts, since an idle CPU's low clock is no throttling.
    """

    def __init__(
        self,
        own_pids: Callable[[], Iterable[int]],
        read: Tree | None = None,
        clock: Callable[[], float] = time.monotonic,
        cpus: Iterable[int] | None = None,
        ticks_per_second: int | None = None,
    ) -> None:
        """Watch on behalf of some processes.

        Args:
            own_pids: our processes now: this session, llama-bench's tree, a downloader.
            read: where /proc and /sys are.
            clock: seconds, monotonic.
            cpus: logical CPUs that count; all when not given.
            ticks_per_second: of the kernel's counters; asked of the system when not given.
        """
        self._own_pids = own_pids
        self._tree = read or Tree()
        self._clock = clock
        self._cpus = frozenset(cpus) if cpus is not None else None
        self._hertz = ticks_per_second or os.sysconf("SC_CLK_TCK")
        self._reference_mhz: float | None = None
        self._lowest_mhz: float | None = None
        self._began: _Ticks | None = None

    def begin(self) -> None:
        """An interval starts here; one that was not ended is forgotten."""
        self._lowest_mhz = None
        self._began = self._read()

    def observe(self) -> None:
        """Look at the clock while the interval lasts."""
        mhz = self._clock_mhz()
        if mhz is not None:
            self._lowest_mhz = mhz if self._lowest_mhz is None else min(self._lowest_mhz, mhz)

    def end(self) -> NoiseReading:
        """The interval ends here, and the next one begins."""
        now = self._read()
        self.observe()
        before = self._began or now
        seconds = now.at - before.at
        total = now.total - before.total
        others = (now.busy - before.busy) - (now.ours - before.ours)
        if self._reference_mhz is None:
            self._reference_mhz = self._clock_mhz()
        ratio = None
        if self._reference_mhz and self._lowest_mhz is not None:
            ratio = self._lowest_mhz / self._reference_mhz
        self._began, self._lowest_mhz = now, None
        return NoiseReading(
            steal=max(now.steal - before.steal, 0) / total if total > 0 else 0.0,
            other_cores=others / self._hertz / seconds if seconds > 0 else 0.0,
            clock_ratio=ratio,
            load1=load_average(self._tree),
            seconds=seconds,
        )

    def _read(self) -> _Ticks:
        busy, steal, total = self._cpu_ticks()
        return _Ticks(
            busy, steal, total, sum(cpu_ticks(self._tree, pid) for pid in set(self._own_pids())), self._clock()
        )

    def _cpu_ticks(self) -> tuple[int, int, int]:
        """Busy (user, nice, system), stolen and all ticks of the CPUs that count; guest time is within user."""
        sums = [0] * 8
        for line in (self._tree.text("/proc/stat") or "").splitlines():
            name, *words = line.split()
            if not name.startswith("cpu"):
                break
            number = whole_number(name[3:])
            if number is None if self._cpus is None else number in self._cpus:
                for index, word in enumerate(words[:8]):
                    sums[index] += int(word)
                if self._cpus is None:
                    break
        return sums[0] + sums[1] + sums[2], sums[7], sum(sums)

    def _clock_mhz(self) -> float | None:
        """The fastest clock among a few of the CPUs, from cpufreq, else from the head of /proc/cpuinfo."""
        chosen = sorted(self._cpus) if self._cpus is not None else list(range(_CLOCKS_READ))
        step = max(len(chosen) // _CLOCKS_READ, 1)
        clocks = []
        for cpu in chosen[::step][:_CLOCKS_READ]:
            kilohertz = self._tree.number(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq")
            if kilohertz is not None:
                clocks.append(kilohertz / 1000)
        if not clocks:
            lines = (self._tree.text("/proc/cpuinfo", 8192) or "").splitlines()
            clocks = [_mhz(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
        return max(clocks, default=0.0) or None


def _mhz(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def cpu_ticks(tree: Tree, pid: int) -> int:
    """CPU time of a process and of its children that were waited for, in ticks; 0 when it is gone.

    utime, stime, cutime and cstime are fields 14 to 17 of /proc/PID/stat (man 5 proc_pid_stat), counted after the
    program's name, which may hold spaces and brackets itself.
    """
    text = tree.text(f"/proc/{pid}/stat", 4096)
    words = (text or "").rpartition(")")[2].split()
    return sum(int(word) for word in words[11:15]) if len(words) >= 15 else 0


def process_tree(pid: int, tree: Tree | None = None) -> tuple[int, ...]:
    """A process and all its living descendants, from ``/proc/PID/task/*/children`` (CONFIG_PROC_CHILDREN)."""
    tree = tree or Tree()
    found = [pid]
    for parent in found:
        for thread in tree.names(f"/proc/{parent}/task"):
            words = (tree.text(f"/proc/{parent}/task/{thread}/children") or "").split()
            found.extend(child for child in (whole_number(word) for word in words) if child and child not in found)
    return tuple(found)


def judge(cv: float | None, readings: Sequence[NoiseReading], settings: PolicySettings) -> tuple[str, ...]:
    """The limits of noise that a scenario broke: ``cv``, ``steal``, ``other_processes``, ``clock``, in this order.

    Args:
        cv: coefficient of variation of its samples (sample standard deviation by mean); ``None`` under two samples.
        readings: one per sample; steal and other processes are averaged over them by their length.
        settings: the four limits.
    """
    broken = []
    if cv is not None and cv > settings.max_cv:
        broken.append("cv")
    seconds = sum(reading.seconds for reading in readings)
    if seconds >= MIN_JUDGED_SECONDS:
        if sum(reading.steal * reading.seconds for reading in readings) / seconds > settings.max_steal:
            broken.append("steal")
        if sum(reading.other_cores * reading.seconds for reading in readings) / seconds > settings.max_other_cores:
            broken.append("other_processes")
    ratios = [reading.clock_ratio for reading in readings if reading.clock_ratio is not None]
    if ratios and min(ratios) < settings.min_clock_ratio:
        broken.append("clock")
    return tuple(broken)
