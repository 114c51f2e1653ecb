"""What a sweep over many servers costs the controller: memory and CPU time, for fleets of several sizes.

    python tests/benchmarks/fleet_rehearsal.py [SERVERS ...] [--measure-seconds N] [--at-once N] [--poll-seconds N]

Each fleet is one ``benchctl sweep --vendors lab``: the real engine, plugin, SSH and Ansible; the servers are containers
on this machine that play recorded runs of different speeds. Besides figures it says whether the sweep held what it
promises: every job finished, every row as it was recorded, nothing left.

What counts as the controller is the process and all that descends from it, also what has left its process group, as
the masters of SSH connections do: engines, their plugins, Ansible and its forks. Not what stands for the cloud: podman
and the containers. CPU-seconds are exact (the kernel's account of every process that ended); memory is PSS, which
counts what processes share once, looked at every second. "Per live hour" is what Ansible's looks at running
measurements take, by hour that a server measures; "per job" is all the rest: plan, engine, SSH, preparing, starting,
ingesting, destroying. Wall times are of this machine, containers included.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import resource

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("controller", "module_utils", "tests")]

from benchctl.clouds.engine_binary import find  # noqa: E402
from benchctl.clouds.lab import CLOUD  # noqa: E402
from benchctl.home import Home  # noqa: E402
from benchctl.lab import recordings  # noqa: E402
from raw_runs import write_theirs  # noqa: E402

FILE = "SmolLM-135M.Q4_K_M.gguf"
SUITE = """\
name: fleet
models: [SmolLM-135M]
scenarios:
  pp: {16: 0.001, 128: 0.001}
  tg: {16: 0.001}
policy: {max_samples: 2, noise_retries: 0}
"""
SCENARIOS = 3
MOST_MB = 1000.0
"""The most memory that the controller of a fleet of any of these sizes may take, all of its processes together."""

DEARER = 1.5
"""So many times the CPU time per job of the smallest fleet a job of the largest may take: it grows with the jobs."""

RECORDED_SECONDS = 13.0
"""How long a server of the recorded speed takes for the suite, about."""

CLOUD_PROGRAMS = ("podman", "conmon", "runc", "crun", "netavark", "iptables", "ip6tables")
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>
TICKS = os.sysconf("SC_CLK_TCK")
PODMAN = """\
#!/bin/sh
# podman, whose CPU time is noted: it is the cloud's, not the controller's
{podman} "$@"
code=$?
times >> {log}
exit $code
"""


@dataclass
class Process:
    """One process of the tree.

    Attributes:
        pid: its number.
        parent: its parent's.
        name: of its program, as the kernel keeps it.
        own: CPU-seconds of itself.
        cpu: and of its children that have ended.
    """

    pid: int
    parent: int
    name: str
    own: float
    cpu: float


@dataclass
class Seen:
    """What was seen of a sweep while it went on.

    Attributes:
        peak_mb: the most memory, of all processes of the controller together.
        parts: of that moment, by kind of process: how many, and MB.
        own_cpu: CPU-seconds of processes, by kind and number, as they were last seen; short ones are missed.
        look_cpu: CPU-seconds of each run of Ansible that looks at measurements, with its forks, as it was last seen.
        measuring_seconds: seconds that servers measured, added up.
        alive_seconds: seconds that servers were alive, added up.
        most_alive: the most servers at once.
        most_measuring: the most that measured at once.
    """

    peak_mb: float = 0.0
    parts: dict[str, tuple[int, float]] = field(default_factory=dict)
    own_cpu: dict[tuple[str, int], float] = field(default_factory=dict)
    look_cpu: dict[int, float] = field(default_factory=dict)
    measuring_seconds: float = 0.0
    alive_seconds: float = 0.0
    most_alive: int = 0
    most_measuring: int = 0


def main() -> int:
    """Measure each fleet; a table on stdout, the rest on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("servers", type=int, nargs="*", default=[10, 30, 100])
    parser.add_argument("--measure-seconds", type=float, default=240.0, help="how long a server measures, about")
    parser.add_argument("--at-once", type=int, default=0, help="servers alive at once; 0 for all")
    parser.add_argument("--poll-seconds", type=float, default=15.0)
    asked = parser.parse_args()
    # what leaves its parent becomes a child of this process, and its CPU time is told when it ends
    ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)
    print(
        "| servers | at once | peak memory | CPU-s | per job | per live hour | looks | podman CPU-s | wall |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        flush=True,
    )
    whole = True
    per_job: dict[int, float] = {}
    for count in asked.servers:
        with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
            well, per_job[count] = rehearse(Path(folder), count, asked)
            whole &= well
    problem = growth(per_job)
    if problem:
        print(problem, file=sys.stderr)
    return 0 if whole and not problem else 1


def growth(per_job: dict[int, float]) -> str:
    """What is wrong with how CPU-seconds per job grow with the fleet; empty where nothing is.

    Args:
        per_job: CPU-seconds per job, looks at measurements left out, by number of servers.
    """
    small, large = min(per_job), max(per_job)
    if per_job[large] <= DEARER * per_job[small]:
        return ""
    return (
        f"A job takes {per_job[large]:.2f} CPU-s among {large} servers and {per_job[small]:.2f} among {small}: "
        f"more than {DEARER} times as much."
    )


def rehearse(folder: Path, count: int, asked: argparse.Namespace) -> tuple[bool, float]:
    """One fleet; says whether all that it promises held, and how many CPU-seconds a job took."""
    cache = Home.at().cache
    runs = folder / "runs"
    for number in range(count):
        speed = RECORDED_SECONDS / asked.measure_seconds * (1 + 0.3 * number / count)
        write_theirs(runs, "fleet", f"n{number:03}", speed=speed, file=FILE)
    (folder / "suite.yml").write_text(SUITE)
    name = f"lab-fleet-{os.getpid()}"
    at_once = str(asked.at_once or count)
    environment = {
        **os.environ, "BENCHCTL_HOME": str(folder / "state"), "BENCHCTL_LAB": name, "NO_COLOR": "1",
        "PATH": f"{shim(folder)}:{find(cache).path.parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join((str(ROOT / "controller"), str(ROOT / "module_utils"))),
    }  # fmt: skip
    environment.pop("BENCHCTL_DB", None)
    began = time.monotonic()
    log = folder / "log"
    try:
        with log.open("w") as out:
            controller = subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchctl", "sweep", "--vendors", "lab", "--servers", "lab-n*", "--yes"),
                    *("--recorded", str(runs), "--suite", str(folder / "suite.yml"), "--concurrency", at_once),
                    *("--per-vendor", at_once, "--poll-seconds", str(asked.poll_seconds), "--max-hours", "3"),
                ],
                env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            seen, cpu, code = watch(controller.pid, folder / "state")
        except BaseException:
            controller.kill()
            raise
        wall = time.monotonic() - began
        left = [f"{one.kind} {one.name}" for one in CLOUD.client({"BENCHCTL_LAB": name}).find()]
    finally:
        for one in sorted(CLOUD.client({"BENCHCTL_LAB": name}).find(), key=lambda one: one.kind == "network"):
            CLOUD.client({}).delete(one)
        shutil.rmtree(cache / "lab" / "recordings" / recordings._mark(runs), ignore_errors=True)
    problems = wrong(folder, count, code, left, seen)
    if problems:
        print(log.read_text()[-6000:], file=sys.stderr)
    per_job = (cpu - sum(seen.look_cpu.values())) / count
    tell(count, at_once, seen, per_job, cpu, podman_cpu(folder), wall)
    for problem in problems:
        print(f"{count} servers: {problem}", file=sys.stderr)
    return not problems, per_job


def shim(folder: Path) -> Path:
    """A folder for PATH with a podman that notes its CPU time."""
    programs = folder / "bin"
    programs.mkdir()
    podman = programs / "podman"
    podman.write_text(PODMAN.format(podman=shutil.which("podman"), log=folder / "podman.times"))
    podman.chmod(0o755)
    return programs


def podman_cpu(folder: Path) -> float:
    """CPU-seconds of all calls of podman, the shell's around them included: words as ``0m0.012s``."""
    total = 0.0
    with contextlib.suppress(OSError):
        for word in (folder / "podman.times").read_text().split():
            minutes, _, seconds = word.rstrip("s").partition("m")
            total += 60 * float(minutes) + float(seconds)
    return total


def watch(controller: int, state: Path) -> tuple[Seen, float, int]:
    """Look every second until the controller has ended; returns what was seen, its CPU-seconds, and its exit status."""
    seen, names, orphans, ended = Seen(), {}, 0.0, None
    last = time.monotonic()
    while ended is None:
        time.sleep(1.0)
        tree = processes(os.getpid())
        mine = of_controller(tree)
        names.update({one.pid: one.name for one in tree})
        look(seen, mine)
        now, stages = time.monotonic(), Counter(stages_of(state))
        alive = sum(stages.values()) - stages["planned"] - stages["gone"]
        seen.alive_seconds += (now - last) * alive
        seen.measuring_seconds += (now - last) * stages["collecting"]
        last = now
        seen.most_alive = max(seen.most_alive, alive)
        seen.most_measuring = max(seen.most_measuring, stages["collecting"])
        for pid, status, usage in reaped():
            if pid == controller:
                ended = (usage, os.waitstatus_to_exitcode(status))
            elif names.get(pid, "") not in CLOUD_PROGRAMS:
                orphans += usage.ru_utime + usage.ru_stime
    usage, code = ended
    podman = podman_cpu(state.parent)
    return seen, usage.ru_utime + usage.ru_stime + orphans - podman, code


def processes(root: int) -> list[Process]:
    """All that descends from a process, without it."""
    children: dict[int, list[Process]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            head, _, rest = (entry / "stat").read_text().rpartition(")")
            fields = rest.split()
            ticks = [int(one) / TICKS for one in fields[11:15]]
            one = Process(int(entry.name), int(fields[1]), head.partition("(")[2], sum(ticks[:2]), sum(ticks))
            children[one.parent].append(one)
    found, waiting = [], [root]
    while waiting:
        for one in children[waiting.pop()]:
            found.append(one)
            waiting.append(one.pid)
    return found


def of_controller(tree: list[Process]) -> list[Process]:
    """Without podman and what it started."""
    clouds: set[int] = set()
    mine = []
    for one in tree:  # parents come before their children
        if one.name in CLOUD_PROGRAMS or one.parent in clouds:
            clouds.add(one.pid)
        else:
            mine.append(one)
    return mine


def look(seen: Seen, mine: list[Process]) -> None:
    """Add up the memory; keep it where it is the most so far."""
    parts: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    looking: set[int] = set()
    for one in mine:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{one.pid}/cmdline").read_text(errors="replace").split("\0")
            pss = next(
                int(line.split()[1]) / 1024
                for line in Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()
                if line.startswith("Pss:")
            )
            number, total = parts[kind := kind_of(words)]
            seen.own_cpu[kind, one.pid] = one.own
            if "playbooks/collect.yml" in " ".join(words):
                looking.add(one.pid)
            if one.pid in looking and one.parent not in looking:
                # forks come and go, and are counted with the process that started them
                seen.look_cpu[one.pid] = max(one.cpu, seen.look_cpu.get(one.pid, 0.0))
            parts[kind] = (number + 1, total + pss)
    whole = sum(total for _, total in parts.values())
    if whole > seen.peak_mb:
        seen.peak_mb, seen.parts = whole, dict(parts)


def kind_of(words: list[str]) -> str:
    """What a process is, by its arguments."""
    text = " ".join(words)
    for word, kind in (
        ("pulumi-resource", "plugins"), ("ansible", "Ansible"), ("ssh", "SSH"), ("-m benchctl", "controller"),
    ):  # fmt: skip
        if word in text and (kind != "Ansible" or words[0] != "ssh"):
            return kind
    return "engines" if "pulumi" in words[0] else words[0].rpartition("/")[2]


def stages_of(state: Path) -> list[str]:
    """The stages of all jobs."""
    stages: dict[str, str] = {}
    for book in state.glob("sweeps/*/sweep.json"):
        with contextlib.suppress(OSError, ValueError):
            stages |= {one["job"]: one["stage"] for one in json.loads(book.read_text())["jobs"]}
    for path in state.glob("sweeps/*/jobs/*/job.json"):
        with contextlib.suppress(OSError, ValueError):
            stages[path.parent.name] = json.loads(path.read_text())["stage"]
    return list(stages.values())


def reaped() -> list[tuple[int, int, resource.struct_rusage]]:
    """The processes that have ended since the last call."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while True:
            one = os.wait4(-1, os.WNOHANG)
            if one[0] == 0:
                break
            found.append(one)
    return found


def wrong(folder: Path, count: int, code: int, left: list[str], seen: Seen) -> list[str]:
    """What does not hold of what a sweep promises."""
    problems = [f"{one} is left" for one in left]
    if seen.peak_mb > MOST_MB:
        problems.append(f"the controller took {seen.peak_mb:.0f} MB, more than {MOST_MB:.0f}")
    if code != 0:
        problems.append(f"exit status {code}")
    with contextlib.closing(sqlite3.connect(folder / "state" / "benchctl.db")) as database:
        jobs = database.execute("SELECT status, stage, count(*) FROM job GROUP BY 1, 2").fetchall()
        if jobs != [("finished", "gone", count)]:
            problems.append(f"jobs are {jobs}")
        rows = database.execute(
            "SELECT count(*), count(DISTINCT server_id) FROM measurement WHERE outcome = 'ok' AND weights = 'rehearsal'"
        ).fetchall()
        if rows != [(count * SCENARIOS, count)]:
            problems.append(f"rows and servers are {rows}")
    return problems


def tell(count: int, at_once: str, seen: Seen, per_job: float, cpu: float, podman: float, wall: float) -> None:
    """One line of the table, and on stderr what it is made of."""
    looking = sum(seen.look_cpu.values())
    hours = seen.measuring_seconds / 3600
    print(
        f"| {count} | {at_once} | {seen.peak_mb:.0f} MB | {cpu:.0f} | {per_job:.2f} | "
        f"{looking / hours if hours else 0.0:.0f} | {len(seen.look_cpu)} | {podman:.0f} | {wall:.0f} s |",
        flush=True,
    )
    parts = ", ".join(f"{number} {kind} {total:.0f} MB" for kind, (number, total) in sorted(seen.parts.items()))
    own: dict[str, float] = defaultdict(float)
    for (kind, _), used in seen.own_cpu.items():
        own[kind] += used
    print(
        f"CPU-s, as far as they were seen: {', '.join(f'{one} {own[one]:.1f}' for one in sorted(own))}", file=sys.stderr
    )
    print(
        f"{count} servers: peak of {parts}; at most {seen.most_alive} alive, {seen.most_measuring} measuring at once; "
        f"{seen.alive_seconds / 3600:.2f} live hours, {hours:.2f} of them measuring; {looking:.1f} CPU-s of looks",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
