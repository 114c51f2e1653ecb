"""What disturbs a measurement, and the one place that judges it.

Other processes are provoked for real. Stolen time and a falling clock can't be provoked at will, so they are read from
recorded texts of /proc and /sys.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from llama_bench_core.noise import NoiseMonitor, NoiseReading, cpu_ticks, judge, process_tree
from llama_bench_core.tree import Tree
from llama_bench_core.values import PolicySettings

SETTINGS = PolicySettings()
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
QUIET = NoiseReading(steal=0.0, other_cores=0.0, clock_ratio=1.0, load1=0.5, seconds=2.0)


def reading(**kwargs) -> NoiseReading:
    return NoiseReading(**{**QUIET.to_dict(), **kwargs})


@contextmanager
def busy_process(seconds: float = 120.0):
    """A process that takes a core of its own until it is ended."""
    code = f"import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"
    process = subprocess.Popen([sys.executable, "-S", "-E", "-c", code])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Held(Tree):
    """This machine at one moment: until :meth:`look_again` whoever reads a file finds the same in it."""

    texts: dict = field(default_factory=dict)
    at: list = field(default_factory=lambda: [time.monotonic()])

    def look_again(self) -> None:
        """Another moment begins."""
        self.texts.clear()
        self.at[0] = time.monotonic()

    def clock(self) -> float:
        """When the moment began."""
        return self.at[0]

    def text(self, name, limit=1 << 20):
        if name not in self.texts:
            self.texts[name] = super().text(name, limit)
        return self.texts[name]

    def monitor(self, own_pids) -> NoiseMonitor:
        return NoiseMonitor(own_pids, read=self, clock=self.clock)


def seconds_used(process: subprocess.Popen, before: int) -> float:
    """CPU time of a process since it had used so many ticks."""
    return (cpu_ticks(Tree(), process.pid) - before) / TICKS_PER_SECOND


def test_another_process_at_work_is_noise():
    """A busy process that is not ours shows with about the core that it takes, and is flagged."""
    held = Held()
    with busy_process() as process:
        monitor = held.monitor(lambda: [os.getpid()])
        while cpu_ticks(Tree(), process.pid) < 5:  # past the start of its interpreter
            time.sleep(0.05)
        deadline = time.monotonic() + 100
        used = passed = 0.0
        # An interval in which the machine stood still, or was overrun, says nothing: then comes another one.
        while used <= 0.2 * passed:
            assert time.monotonic() < deadline
            held.look_again()
            began = held.clock()
            monitor.begin()
            before = cpu_ticks(Tree(), process.pid)
            time.sleep(1.0)
            held.look_again()
            used, passed = seconds_used(process, before), held.clock() - began
        result = monitor.end()
    assert result.other_cores > 0.5 * used / result.seconds > SETTINGS.max_other_cores
    assert "other_processes" in judge(None, [result], SETTINGS)


def test_our_own_child_at_work_is_not_noise():
    """The same busy process counted as ours lowers what others are seen to use by the CPU time that it took."""
    held = Held()
    with busy_process() as process:
        own = held.monitor(lambda: [os.getpid(), process.pid])
        all_others = held.monitor(lambda: [os.getpid()])
        held.look_again()
        own.begin()
        all_others.begin()
        before, began = cpu_ticks(held, process.pid), held.clock()
        while seconds_used(process, before) < 0.5:
            assert time.monotonic() - began < 100
            time.sleep(0.1)
        held.look_again()
        without, counted = own.end(), all_others.end()
        used = (cpu_ticks(held, process.pid) - before) / TICKS_PER_SECOND
    assert used > 0.1
    # Both look at the same moments of the same machine, so whatever else runs on it cancels out.
    assert counted.other_cores - without.other_cores == pytest.approx(used / counted.seconds, abs=0.02)


def test_a_child_that_ended_stays_ours():
    """CPU time of a child that was waited for is not lost when it leaves the process tree."""
    held = Held()
    monitor = held.monitor(lambda: process_tree(os.getpid()))
    alone = held.monitor(list)
    before = cpu_ticks(held, os.getpid())
    monitor.begin()
    alone.begin()
    subprocess.run([sys.executable, "-S", "-E", "-c", "sum(range(20_000_000))"], check=True)
    held.look_again()
    own, others = monitor.end(), alone.end()
    used = (cpu_ticks(held, os.getpid()) - before) / TICKS_PER_SECOND
    assert used > 0.1
    assert (others.other_cores - own.other_cores) * own.seconds == pytest.approx(used, abs=0.05)


def test_the_process_tree_holds_grandchildren():
    """A child's child belongs to the tree, a stranger does not."""
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    grandchild = None
    try:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        tree = process_tree(os.getpid())
        assert {os.getpid(), child.pid, grandchild} <= set(tree)
        assert os.getppid() not in tree
    finally:
        if grandchild:
            os.kill(grandchild, 9)
        child.kill()
        child.communicate()


STAT = """cpu  {user} 0 {system} {idle} 0 0 0 {steal} 0 0
cpu0 {user} 0 {system} {idle} 0 0 0 {steal} 0 0
cpu1 0 0 0 9000 0 0 0 0 0 0
intr 525075 0 0
"""


class Recorded:
    """A folder with /proc and /sys texts that a test changes, and a clock that it moves."""

    def __init__(self, folder, **monitor) -> None:
        self.folder, self.now = folder, 0.0
        (folder / "proc" / "77").mkdir(parents=True)
        (folder / "proc/loadavg").write_text("0.75 0.61 0.73 4/109 9801\n")
        self.stat()
        self.own(0)
        self.monitor = NoiseMonitor(
            own_pids=lambda: [77], read=Tree(str(folder)), clock=lambda: self.now, ticks_per_second=100, **monitor
        )

    def stat(self, user=1000, system=100, idle=5000, steal=10) -> None:
        (self.folder / "proc/stat").write_text(STAT.format(user=user, system=system, idle=idle, steal=steal))

    def own(self, ticks) -> None:
        fields = " ".join(["0"] * 10)
        (self.folder / "proc/77/stat").write_text(f"77 (a b) c) R {fields} {ticks} 0 0 0 20 0 1 0 1385\n")

    def clock_mhz(self, mhz, cpu=0) -> None:
        place = self.folder / f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
        place.mkdir(parents=True, exist_ok=True)
        (place / "scaling_cur_freq").write_text(f"{round(mhz * 1000)}\n")


def test_stolen_time_is_a_share_of_all_cpu_time(tmp_path):
    """Three stolen ticks of a hundred are 3 %, and flagged."""
    recorded = Recorded(tmp_path)
    recorded.monitor.begin()
    recorded.now = 1.0
    recorded.stat(user=1050, idle=5047, steal=13)
    recorded.own(50)
    result = recorded.monitor.end()
    assert result == NoiseReading(steal=0.03, other_cores=0.0, clock_ratio=None, load1=0.75, seconds=1.0)
    assert judge(None, [result], SETTINGS) == ("steal",)


def test_what_is_not_ours_is_others(tmp_path):
    """Busy ticks of the machine less ours are other processes' cores; a program's odd name does not mislead."""
    recorded = Recorded(tmp_path)
    recorded.monitor.begin()
    recorded.now = 2.0
    recorded.stat(user=1150, system=120, idle=5230)
    recorded.own(140)
    assert recorded.monitor.end().other_cores == pytest.approx(0.15)


def test_only_the_usable_cpus_count(tmp_path):
    """Confined to CPU 1, what happens on CPU 0 is no noise."""
    recorded = Recorded(tmp_path, cpus=[1])
    recorded.monitor.begin()
    recorded.now = 2.0
    recorded.stat(user=1150, system=120, idle=5230, steal=40)
    result = recorded.monitor.end()
    assert (result.steal, result.other_cores) == (0.0, 0.0)


def test_a_clock_that_falls_is_noise(tmp_path):
    """The first interval's end is the reference; a dip seen in between counts though the clock recovers."""
    recorded = Recorded(tmp_path)
    recorded.clock_mhz(3000.0)
    recorded.monitor.begin()
    recorded.now = 1.0
    assert recorded.monitor.end().clock_ratio == 1.0
    recorded.clock_mhz(2400.0)
    recorded.monitor.observe()
    recorded.clock_mhz(3000.0)
    recorded.now = 2.0
    result = recorded.monitor.end()
    assert result.clock_ratio == 0.8
    assert judge(None, [result], SETTINGS) == ("clock",)


def test_an_idle_cpus_low_clock_is_no_throttling(tmp_path):
    """The fastest of the CPUs counts."""
    recorded = Recorded(tmp_path, cpus=[0, 1])
    recorded.clock_mhz(3000.0)
    recorded.clock_mhz(3000.0, cpu=1)
    recorded.monitor.begin()
    recorded.monitor.end()
    recorded.clock_mhz(800.0, cpu=1)
    assert recorded.monitor.end().clock_ratio == 1.0


def test_the_clock_comes_from_cpuinfo_where_cpufreq_is_hidden(tmp_path):
    """As in most guests; a machine that shows no clock at all gives no ratio."""
    recorded = Recorded(tmp_path)
    recorded.monitor.begin()
    assert recorded.monitor.end().clock_ratio is None
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\ncpu MHz\t\t: 2596.138\n")
    recorded.monitor.begin()
    assert recorded.monitor.end().clock_ratio == 1.0


def test_samples_that_disagree_are_noise():
    """A coefficient of variation over 3 % is flagged, 3 % itself is not, and none is not."""
    assert judge(0.031, [QUIET], SETTINGS) == ("cv",)
    assert judge(0.03, [QUIET], SETTINGS) == ()
    assert judge(None, [], SETTINGS) == ()


@pytest.mark.parametrize(
    ("kwargs", "flag"),
    [
        ({"steal": 0.011}, "steal"),
        ({"other_cores": 0.051}, "other_processes"),
        ({"clock_ratio": 0.89}, "clock"),
    ],
)
def test_each_limit_is_flagged_beyond_and_not_at_it(kwargs, flag):
    """The limits of the settings are the largest values that pass."""
    at = {"steal": 0.01, "other_cores": 0.05, "clock_ratio": 0.9}
    assert judge(None, [reading(**kwargs)], SETTINGS) == (flag,)
    assert judge(None, [reading(**{name: at[name] for name in kwargs})], SETTINGS) == ()
    loose = PolicySettings(max_steal=0.5, max_other_cores=0.5, min_clock_ratio=0.5)
    assert judge(None, [reading(**kwargs)], loose) == ()


def test_several_limits_are_named_in_one_order():
    """All four, in the order in which they are documented."""
    worst = reading(steal=0.5, other_cores=3.0, clock_ratio=0.4)
    assert judge(0.2, [worst], SETTINGS) == ("cv", "steal", "other_processes", "clock")


def test_short_readings_are_added_up_before_they_are_judged():
    """One tick too many in an interval of 20 ms cancels with one too few in the next."""
    jitter = [reading(other_cores=0.5 * (-1) ** index, seconds=0.02) for index in range(50)]
    assert judge(None, jitter, SETTINGS) == ()
    assert judge(None, [reading(other_cores=0.5, seconds=0.02)] * 50, SETTINGS) == ("other_processes",)


def test_less_than_half_a_second_is_not_judged_by_ticks():
    """A tick of 10 ms in 40 ms would be a quarter of a core; the samples' spread is still judged."""
    assert judge(0.5, [reading(other_cores=0.25, steal=0.2, seconds=0.04)] * 5, SETTINGS) == ("cv",)


def test_a_reading_survives_the_journal_and_one_without_length_is_quiet():
    """Written and read back it is the same; a record of an older version misses fields."""
    assert NoiseReading.from_dict(QUIET.to_dict()) == QUIET
    assert NoiseReading.from_dict({"steal": 0.5}).seconds == 0.0


def test_a_process_that_is_gone_has_no_ticks(tmp_path):
    """Its file has vanished between listing and reading."""
    assert cpu_ticks(Tree(str(tmp_path)), 1234) == 0


def test_a_reading_is_cheap():
    """Less than a millisecond, in the middle of fifty, so that it may be taken five times a second."""
    monitor = NoiseMonitor(own_pids=lambda: process_tree(os.getpid()))
    monitor.begin()
    times = []
    for _ in range(50):
        began = time.thread_time()
        monitor.end()
        times.append(time.thread_time() - began)
    assert sorted(times)[25] < 0.001
