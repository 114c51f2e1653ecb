"""Sweeps over clouds as a whole: budget, replicas, left to itself, two at once, hooks, and a server that won't go.

Real engine, SSH and Ansible; the clouds are emulations.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import catalog_files as files
import pytest
import sweeping
from llama_bench_core import state

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchctl.home import Home
    from emulation.fixtures import Emulated

    Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.timeout(1500)  # longer than what is waited for inside, which says more

UPCLOUD = "2xCPU-4GB"

HOOK = """
import json, os, sys
facts = json.load(sys.stdin)
with open(sys.argv[1], "a") as file:
    file.write(json.dumps([os.environ["BENCHCTL_EVENT"], facts]) + chr(10))
"""

AT_ONCE = 2
"""So many of the three servers the budget covers at a time."""


@pytest.fixture
def hook(tmp_path: Path) -> tuple[str, Callable[[], list[tuple[str, dict[str, Any]]]]]:
    """A real command that is told, and what it was told."""
    program, told = tmp_path / "hook.py", tmp_path / "told.jsonl"
    program.write_text(HOOK)

    def heard() -> list[tuple[str, dict[str, Any]]]:
        return [tuple(json.loads(line)) for line in told.read_text().splitlines()] if told.exists() else []

    return f"{sys.executable} {program} {told}", heard


@pytest.fixture
def detached(home: Home) -> Iterator[None]:
    """Sweeps that were left to themselves end with the test."""
    yield
    for lock in home.sweeps.glob("*/lock"):
        if state.is_locked(lock):
            with contextlib.suppress(ProcessLookupError, KeyError):
                os.kill(int(state.lock_holder(lock)["pid"]), signal.SIGKILL)


def write_catalogue(benchctl: Run, folder: Path) -> None:
    """Two of Hetzner's types and one of UpCloud's."""
    kinds = (
        files.Kind("hcloud", "cx22", 2, 4, family="cx", identifier="104"),
        files.Kind("hcloud", "cx32", 2, 4, family="cx", identifier="105"),
        files.Kind("upcloud", UPCLOUD, 2, 4),
    )
    files.write_database(
        folder / "catalogue.db", kinds, vendors=("hcloud", "upcloud"),
        regions=(*files.REGIONS[3:], ("upcloud", "fi-hel1", "fi-hel1", "Helsinki", "[]")),
        zones=(("upcloud", "fi-hel1", "fi-hel1", "fi-hel1"),),
    )  # fmt: skip
    files.write_prices(
        folder / "prices.csv",
        files.Line("cx22", 0.0066, vendor="hcloud", region="fsn1-dc14", currency="EUR"),
        files.Line("cx32", 0.0066, vendor="hcloud", region="fsn1-dc14", currency="EUR"),
        files.Line(UPCLOUD, 0.03, vendor="upcloud", region="fi-hel1", zone="fi-hel1", currency="EUR"),
    )
    benchctl("catalog", "import", folder / "catalogue.db", folder / "prices.csv", check=True)


def most_at_once(world: Emulated, vendor: str, part: str) -> int:
    """How many of a vendor's servers with this in their name existed at a time, by the journal."""
    changes: list[tuple[float, int]] = []
    for name in {one["name"] for one in world.journal(vendor=vendor, call="create", kind="server")}:
        if part in name:
            began = min(one["began"] for one in world.journal(vendor=vendor, call="create", name=name))
            gone = max(one["ended"] for one in world.journal(vendor=vendor, call="delete", name=name))
            changes += [(began, 1), (gone, -1)]
    count = most = 0
    for _, change in sorted(changes):
        count += change
        most = max(most, count)
    return most


@pytest.mark.usefixtures("detached")
def test_sweeps_at_the_same_time_and_a_server_that_does_not_go(
    benchctl: Run, home: Home, backed_world: Emulated, tmp_path: Path, checkout: Path,
    hook: tuple[str, Callable[[], list[tuple[str, dict[str, Any]]]]],
) -> None:  # fmt: skip
    """One left to itself with three replicas and money for two; one beside it, whose login is revoked in the middle."""
    write_catalogue(benchctl, tmp_path)
    command, heard = hook
    environment = {**backed_world.environment, "BENCHCTL_HOOK": command}
    # a long scenario is expected: two hours are committed for each server, and one is paid
    suite = sweeping.write_suite(tmp_path, "some", "{tg: {32768: 0.01}}")
    paced = sweeping.write_paced_llama_bench(tmp_path / "llama-bench", {"tg32768": 10.0})
    usual = ("--suite", str(suite), *sweeping.SYNTHETIC, "--llama-bench", str(paced), "--concurrency", "8")

    begun = benchctl(
        *("sweep", "--vendors", "hetzner", "--servers", "cx22", *usual, "--per-vendor", "8"),
        *("--replicas", "3", "--budget", "0.028EUR", "--detach"), env=environment,
    )  # fmt: skip
    assert begun.returncode == 0, begun.stderr
    first = begun.stdout.split()[-1]
    log = home.sweeps / first / "log"
    watching = sweeping.Running(home, os.environ, ("status", first, "--follow"), tmp_path, checkout)
    wanted = ("sweep", "--vendors", "hetzner,upcloud", "--servers", f"cx32,{UPCLOUD}", *usual)
    beside = sweeping.Running(home, {**os.environ, **environment}, wanted, tmp_path, checkout)
    try:
        # by now everything is rented; it is measured for long after this, and given back only then
        beside.until_true(lambda: sweeping.measures(home, "upcloud"), "UpCloud's server measured")
        backed_world.fault("unauthorized", vendor="upcloud", times=100000)
        status = beside.wait()
        said = beside.said()
        assert watching.wait() == 0, log.read_text()
    finally:
        watching.kill()
        beside.kill()

    # the one beside: measured, and it says that a server may be alive
    second = said.partition("Sweep ")[2].split()[0]
    assert status == 3, said
    assert "LEAK?" in said
    assert "Traceback" not in said
    assert [one["vendor"] for one in backed_world.alive(kind="server")] == ["upcloud"], said
    jobs = sweeping.jobs(benchctl, second)
    assert [one["stage"] for one in jobs] == ["gone", "destroying"]

    # the one that was left to itself was not touched by it, and kept to its budget
    text = log.read_text()
    rows = sweeping.jobs(benchctl, first)
    assert [(one["replica"], one["status"], one["stage"]) for one in rows] == [
        (number, "finished", "gone") for number in (1, 2, 3)
    ], text  # fmt: skip
    assert most_at_once(backed_world, "hetzner", "cx22") == AT_ONCE, text
    folder = home.lake / first / "data" / "hcloud" / "cx22"
    assert sorted(one.name for one in folder.iterdir()) == ["llm", "llm.2", "llm.3"]
    counted = "SELECT sweep_id, count(*) AS n FROM measurement WHERE outcome = 'ok' GROUP BY 1"
    both = {first: 3, second: 2}
    assert {one["sweep_id"]: one["n"] for one in sweeping.rows(benchctl, counted)} == both
    told = [(event, sweep) for event, facts in heard() for sweep in facts.get("sweeps", [facts.get("sweep")])]
    assert sorted(one for one in told if one[1] == first) == [("budget-80-percent", first), ("ended", first)]
    assert {event for event, sweep in told if sweep == second} == {"leak", "ended"}
    # nobody can be asked whether it is there: that is what is told, by the job and at the end
    leaks = [facts for event, facts in heard() if event == "leak"]
    assert [sorted(facts["not_asked"]) for facts in leaks] == [["upcloud"]] * 2, leaks
    assert [facts.get("job") for facts in leaks] == [UPCLOUD.lower(), None], leaks

    # the login works again: nothing is rented or measured anew, the server goes
    backed_world.mend()
    again = benchctl("sweep", "--resume", second, env=environment)
    assert again.returncode == 0, again.stdout + again.stderr
    assert backed_world.alive() == []
    servers = backed_world.journal(vendor="upcloud", call="create", kind="server")
    assert len(servers) == 1
    assert {one["sweep_id"]: one["n"] for one in sweeping.rows(benchctl, counted)} == both
    ended = [(one["stage"], one["status"], one["error"]) for one in sweeping.jobs(benchctl, second)]
    assert ended == [("gone", "finished", None)] * 2
    assert benchctl("sweep", "--resume", second, env=environment).returncode == 1
