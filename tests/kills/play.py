"""One run of the matrix: a sweep is begun, somebody is killed, and everything that a user would do after it is done."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import catalog_files as files
from benchctl.clouds import engine_process
from benchctl.clouds.stacks import Stacks
from benchctl.home import Home
from sweeping import end_all

from kills.cases import CREATE, DESTROY, ENGINE, SLOW_SECONDS, Case
from kills.checks import Seen, outcomes_at, problems

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emulation.fixtures import Emulated

ROOT = Path(__file__).resolve().parents[2]

SUITE = """
name: tiny
models: [SmolLM-135M]
scenarios:
  pp: {16: 0.01}
  tg: {16: 0.01}
policy: {max_samples: 2, noise_retries: 0, warmup_seconds: 0}
"""

UPCLOUD = files.Kind("upcloud", "2xCPU-4GB", 2, 4, family="2xCPU")
SERVERS = {"hetzner": files.CX22.name, "upcloud": UPCLOUD.name}

STANDING = ("ready", "preparing", "benching", "collecting", "ingesting")
"""Stages at which a server is there that a sweep has to go on with when it is resumed."""

LONGEST_SECONDS = 900.0
"""How long a command may take on a busy machine before the run counts as failed."""

LOOK_SECONDS = 0.01

LEFT_SECONDS = 90.0
"""How long what a run started may take to end by itself before it counts as left."""


@dataclass
class Result:
    """What came of a run; one line of the matrix's file.

    Attributes:
        case: its name.
        hit: whether the kill came in the moment that was meant; a run that missed it counts for nothing.
        problems: what should not be, one sentence each; empty is well.
        leaks: how many things of ours were there at an end at which nothing may be.
        lost: how many rows that were expected, or that had been there, are not.
        doubled: how many rows there are too many.
        found: what else is worth knowing.
        seconds: how long it took.
        cpu_seconds: what it cost, the emulation left out.
    """

    case: str
    hit: bool = False
    problems: list[str] = field(default_factory=list)
    leaks: int = 0
    lost: int = 0
    doubled: int = 0
    found: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def line(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


def template(folder: Path) -> Path:
    """A state directory with a catalogue of one server of each vendor; runs begin with copies of it."""
    state = folder / "template"
    files.write_database(
        folder / "catalogue.db",
        (files.CX22, UPCLOUD),
        vendors=("hcloud", "upcloud"),
        regions=(*(one for one in files.REGIONS if one[0] == "hcloud"), ("upcloud", "fi-hel1", "fi-hel1", "", "[]")),
        zones=(("upcloud", "fi-hel1", "fi-hel1", "fi-hel1"),),
    )
    files.write_prices(
        folder / "prices.csv",
        files.Line(files.CX22.name, 0.0066, vendor="hcloud", region="fsn1-dc14", currency="EUR"),
        files.Line(UPCLOUD.name, 0.0387, vendor="upcloud", region="fi-hel1", zone="fi-hel1", currency="EUR"),
    )
    command = Command(Home.at(state), dict(os.environ), folder / "template.log")
    status = command.run("catalog", "import", str(folder / "catalogue.db"), str(folder / "prices.csv"))
    assert status == 0, command.said()
    return state


class Command:
    """The command line, as a user has it, in processes of its own."""

    def __init__(self, home: Home, environment: Mapping[str, str], log: Path) -> None:
        """Everything that they say is appended to ``log``."""
        self.home, self.log = home, log
        paths = os.pathsep.join((str(ROOT / "controller"), str(ROOT / "module_utils")))
        self.environment = {**environment, "PYTHONPATH": paths, "BENCHCTL_HOME": str(home.state), "NO_COLOR": "1"}
        self.environment.pop("BENCHCTL_DB", None)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Begin one."""
        with self.log.open("a") as log:
            print(f"$ benchctl {' '.join(arguments)}", file=log, flush=True)
            return subprocess.Popen(
                [sys.executable, "-m", "benchctl", *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def run(self, *arguments: str) -> int:
        """Run one to its end; returns the exit status, -9 where it did not end in time."""
        process, cpu, began = self.start(*arguments), _cpu(), time.monotonic()
        try:
            status = process.wait(LONGEST_SECONDS)
            with self.log.open("a") as log:
                print(f"[{status}, {time.monotonic() - began:.0f} s, {_cpu() - cpu:.0f} CPU-s]", file=log)
            return status
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return -signal.SIGKILL

    def said(self) -> str:
        """All that they have said."""
        return self.log.read_text() if self.log.exists() else ""


def play(case: Case, world: Emulated, state: Path, folder: Path) -> Result:
    """Run a case in an empty world, with a copy of the state directory ``state``, in the empty ``folder``.

    Everything that it started has ended when this returns; the folder is left for whoever wants to look.
    """
    began, cpu = time.monotonic(), _cpu()
    result = Result(case.name)
    shutil.copytree(state, folder / "state")
    (folder / "tiny.yml").write_text(SUITE)
    home = Home.at(folder / "state")
    command = Command(home, {**os.environ, **world.environment}, folder / "said.log")
    world.reset()
    try:
        _prepare(case, world)
        _begin_and_kill(case, command, world, result)
        if result.hit:
            _after(case, command, world, result)
    finally:
        result.problems += end_all(home, LEFT_SECONDS)
        world.reset()
    result.seconds = round(time.monotonic() - began, 1)
    result.cpu_seconds = round(_cpu() - cpu, 1)
    return result


def _prepare(case: Case, world: Emulated) -> None:
    """Make the call slow in whose middle the kill is to come."""
    if case.lag:
        world.lag(case.vendor, **dict(case.lag))
    call, kind = {
        CREATE: ("create", "server"), DESTROY: ("delete", "server"), "shared": ("create", "key"),
        "forget": ("delete", "firewall"),
    }.get(case.point, ("", ""))  # fmt: skip
    if call:
        world.fault("slow", vendor=case.vendor, call=call, kind=kind, via="engine", seconds=SLOW_SECONDS)


def _begin_and_kill(case: Case, command: Command, world: Emulated, result: Result) -> None:
    process = command.start(
        *("sweep", "--vendors", case.vendor, "--servers", SERVERS[case.vendor], "--yes", "--weights", "synthetic"),
        *("--ingress", "203.0.113.7/32", "--poll-seconds", "8", "--threads", "1"),
        *("--suite", str(command.home.state.parent / "tiny.yml")),
    )
    try:
        deadline = time.monotonic() + LONGEST_SECONDS
        moment = _moment(case, command.home, world)
        while not moment():
            if process.poll() is not None or time.monotonic() > deadline:
                result.problems.append(f"the moment never came; the sweep ended with {process.poll()}")
                return
            time.sleep(LOOK_SECONDS)
        time.sleep(case.delay_seconds)
        if case.victim == ENGINE:
            result.hit = _kill_engine(command.home)
        else:
            result.hit = process.poll() is None
            process.kill()
        if case.in_the_middle:
            result.hit &= any(one["ended"] is None for one in _calls(case, world))
        result.found["stage"] = _stage(command.home)
        if case.victim == ENGINE and result.hit:
            with contextlib.suppress(subprocess.TimeoutExpired):
                result.found["sweep"] = process.wait(LONGEST_SECONDS)
    finally:
        process.kill()
        process.wait()


def _moment(case: Case, home: Home, world: Emulated) -> Callable[[], bool]:
    """What to wait for."""
    if case.in_the_middle or case.point in ("shared", "forget"):
        return lambda: bool(_calls(case, world))
    if case.point == "begin":
        # the engine's second start: it destroys, or makes the server after what is shared
        seen: set[int] = set()

        def started() -> bool:
            seen.update(_engines(home))
            return len(seen) > case.seed and bool(_engines(home))

        return started
    return lambda: _stage(home) == case.point


def _sweep_status(home: Home) -> str:
    """How the sweep stands, as its book says."""
    [path] = home.sweeps.glob("*/sweep.json")
    return str(json.loads(path.read_text())["status"])


def _calls(case: Case, world: Emulated) -> list[dict[str, Any]]:
    """The vendor's calls in whose middle the kill is to come."""
    call = "create" if case.point in (CREATE, "shared") else "delete"
    kind = "server" if case.in_the_middle else "key" if case.point == "shared" else "firewall"
    return world.journal(vendor=case.vendor, call=call, kind=kind, via="engine")


def _stage(home: Home) -> str:
    """The stage of the job, as its book says."""
    for path in home.sweeps.glob("*/jobs/*/job.json"):
        with contextlib.suppress(OSError, ValueError):
            return str(json.loads(path.read_text())["stage"])
    return "planned" if list(home.sweeps.glob("*/sweep.json")) else ""


def _engines(home: Home) -> list[int]:
    mark = Stacks(home).mark("")
    return [one.pid for one in engine_process.running() if one.engine and one.stack.startswith(mark)]


def _kill_engine(home: Home) -> bool:
    """SIGKILL; says whether there was one."""
    engines = _engines(home)
    for pid in engines:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(engines)


def _after(case: Case, command: Command, world: Emulated, result: Result) -> None:
    """Reap and resume, or the other way round; look after each."""
    before = Seen.of(command.home)
    result.found |= {"outcomes": len(before.outcomes), "alive": len(world.alive())}
    if case.victim == ENGINE:
        if "sweep" not in result.found:
            result.problems.append("the sweep did not end after its engine was killed")
            return
        # it has to leave nothing by itself
        _nothing_alive(world, result, "after the sweep whose engine was killed")
        result.found["jobs"] = outcomes_at(command.home)
        _reap(case, command, world, result, finds_nothing=True)
        if result.found["sweep"]:
            _resume(command, result)
    else:
        if case.reap_first:
            _reap(case, command, world, result)
        _resume(command, result)
        _reap(case, command, world, result, finds_nothing=True)
        if not case.reap_first and case.point in STANDING:
            made = world.journal(vendor=case.vendor, call="create", kind="server", via="engine")
            if len(made) != 1:
                result.problems.append(f"{len(made)} servers were made, though the first was alive")
    _nothing_alive(world, result, "at the end")
    problems(command.home, before, result)


def _reap(case: Case, command: Command, world: Emulated, result: Result, *, finds_nothing: bool = False) -> None:
    # as a user has it in some; asking one vendor alone needs half of the time
    alone = finds_nothing or case.seed >= 4
    status = command.run("reap", *(("--vendors", case.vendor) if alone else ()))
    if status:
        result.problems.append(f"reap ended with {status}")
    said = command.said().rpartition("$ benchctl reap")[2]
    if finds_nothing and "Nothing of ours is there" not in said:
        result.problems.append("a reap found something after a sweep that had ended")
    _nothing_alive(world, result, "after reap")


def _resume(command: Command, result: Result) -> None:
    # the kill may come in the last moments of a sweep that has written down that it finished: that is what it says then
    finished = _sweep_status(command.home) == "finished"
    status = command.run("sweep", "--resume", "last")
    result.found["resumed"] = status
    said_so = "has finished." in command.said().rpartition("$ benchctl")[2]
    if status != (1 if finished and said_so else 0):
        result.problems.append(f"--resume ended with {status}")


def _nothing_alive(world: Emulated, result: Result, when: str) -> None:
    """What the vendors have in truth, once all their calls have ended."""
    world.until(lambda: all(one["ended"] is not None for one in world.journal()), 240)
    left = [f"{one['kind']} {one['name']}" for one in world.alive()]
    if left:
        result.leaks += len(left)
        result.problems.append(f"{when} there is still: {', '.join(left)}")


def _cpu() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
