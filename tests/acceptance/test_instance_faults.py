"""What befalls rented servers in the middle of a measurement: each ends in words, alone, and with its server destroyed.

Real engine, SSH, Ansible and llama-bench; the cloud is an emulation whose servers are containers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import sweeping
from lab.podman import podman

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchctl.home import Home
    from emulation.fixtures import Emulated

    Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.timeout(1500)  # longer than what is waited for inside, which says more

TYPES = {
    "cx22": "untouched",
    "cx32": "cut off its network",
    "cx42": "out of reach by SSH for a while",
    "cx52": "rebooted",
    "cpx11": "taken back by the vendor",
    "cpx21": "its disk fills up",
}

WORDS = {
    "cx32": "out of reach for",
    "cpx11": "the server is gone: the vendor lists it no longer",
    "cpx21": "No space left on device",
}
"""What the error of a job says that did not get over it."""

HOME = "/root/.local/share/llama_bench"
"""Where everything of ours lies on an instance."""

DISK_MIB = 220
"""Size of the small disk: llama-bench, the model of 99 MiB, and a little."""


class Instance:
    """The container behind an emulated server, in the hands of what befalls it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def behind(cls, address: str) -> Instance | None:
        """The one with this address, if it runs."""
        for line in podman("ps", "--format", "{{.Names}}").split():
            if line.endswith(f"-{address.rpartition('.')[2]}") and "-emulation-" in line:
                found = json.loads(podman("container", "inspect", line, check=False) or "[]")
                networks = found[0]["NetworkSettings"]["Networks"] if found else {}
                if any(one.get("IPAddress") == address for one in networks.values()):
                    return cls(line)
        return None

    def inside(self, namespaces: str, *command: str) -> str:
        """Run a program of this machine in some of its namespaces: it has no tools of its own for what befalls it."""
        number = podman("container", "inspect", "--format", "{{.State.Pid}}", self.name).strip()
        done = subprocess.run(
            ["nsenter", "-t", number, namespaces, "--", *command], capture_output=True, text=True, check=True
        )
        return done.stdout


@pytest.fixture
def environment(backed_world: Emulated) -> dict[str, str]:
    """A user's environment that leads to the emulated clouds."""
    return {**os.environ, **backed_world.environment}


@pytest.fixture
def begin(
    home: Home, environment: dict[str, str], tmp_path: Path, checkout: Path
) -> Iterator[Callable[..., sweeping.Running]]:
    """Start a sweep; it is gone after the test."""
    running: list[sweeping.Running] = []

    def start(*arguments: str, **more: str) -> sweeping.Running:
        running.append(sweeping.Running(home, {**environment, **more}, arguments, tmp_path, checkout))
        return running[-1]

    yield start
    for one in running:
        one.kill()


def address_of(world: Emulated, server: str) -> str:
    """The address of the server of a type; empty while it has none."""
    found = [one for one in world.alive("hetzner", "server") if one["data"].get("type") == server]
    return str(found[0]["data"]["address"]) if found else ""


def instance_of(world: Emulated, server: str) -> Instance | None:
    """The instance of a type, if it is there."""
    address = address_of(world, server)
    return Instance.behind(address) if address else None


def has_an_outcome(instance: Instance) -> bool:
    """Whether the first scenario has ended on an instance: there is something to lose, and something to do."""
    said = podman("exec", instance.name, "sh", "-c", f"cat {HOME}/state/*/journal.jsonl", check=False) or ""
    # but for the last line, which may be half written
    return any(json.loads(line).get("kind") == "outcome" for line in said.splitlines()[:-1])


def test_what_befalls_one_instance_ends_in_words_and_touches_no_other(
    benchctl: Run, begin: Callable[..., sweeping.Running], backed_world: Emulated, tmp_path: Path
) -> None:
    """Network cut, SSH drop, reboot, server taken back, full disk: one explicit outcome each, and nothing alive."""
    sweeping.hetzner_catalogue(benchctl, tmp_path, *TYPES)
    suite = sweeping.write_suite(tmp_path, "some", "{pp: {16: 0.01}, tg: {16: 0.01, 128: 0.01}}")
    paced = sweeping.write_paced_llama_bench(tmp_path / "llama-bench", {"pp16": 0.2, "tg16": 0.5, "tg128": 30.0})
    made = {"call": "create", "kind": "server", "via": "engine"}
    backed_world.fault("hold", name="benchctl-cpx21", **made)
    sweep = begin(
        *("sweep", "--vendors", "hetzner", "--servers", ",".join(TYPES), "--suite", str(suite)), *sweeping.SYNTHETIC,
        *("--concurrency", "6", "--per-vendor", "6", "--patience", "90", "--llama-bench", str(paced)),
    )  # fmt: skip
    # the controller, which would put something there first, stands still until the small server has its small disk
    sweep.until_true(
        lambda: any("cpx21" in one["name"] for one in backed_world.journal(**made)), "the small server was asked for"
    )
    sweep.process.send_signal(signal.SIGSTOP)
    try:
        # again and again: a call that was noted just now is not held yet
        small = backed_world.until(lambda: backed_world.release() or instance_of(backed_world, "cpx21"), 400)
        small.inside("-m", "mkdir", "-p", HOME)
        small.inside("-m", "mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "small", HOME)
    finally:
        sweep.process.send_signal(signal.SIGCONT)
    instances: dict[str, Instance] = {}
    to_do = {server: "befall" for server in TYPES if server != "cx22"}
    deadline = time.monotonic() + 900
    while to_do:
        # each as soon as it has begun: they come up one after the other, and patience with one ends meanwhile
        for server, what in sorted(to_do.items()):
            if what == "mend":
                if "cx42: out of reach" in sweep.said():
                    instances[server].inside("-n", "iptables", "-F", "INPUT")
                    del to_do[server]
            elif server not in instances:
                if there := instance_of(backed_world, server):
                    instances[server] = there
            elif has_an_outcome(instances[server]):
                befall(backed_world, server, instances[server])
                del to_do[server]
                if server == "cx42":
                    to_do[server] = "mend"
                break  # it took its time: what is first in the order is looked at anew
        assert sweep.process.poll() is None, sweep.said()
        assert time.monotonic() < deadline, f"{to_do} did not come about\n{sweep.said()}"
        time.sleep(0.2)
    status = sweep.wait()
    said = sweep.said()
    assert status == 3, said
    assert backed_world.alive() == [], said

    jobs = {one["server_id"]: one for one in sweeping.rows(benchctl, "SELECT * FROM job")}
    ended = {one["api_reference"]: one for one in jobs.values()}
    assert {name: one["status"] for name, one in ended.items()} == {
        "cx22": "finished", "cx42": "finished", "cx52": "finished",
        "cx32": "failed", "cpx11": "failed", "cpx21": "failed",
    }, said  # fmt: skip
    # in words that a person understands, each another
    for name, words in WORDS.items():
        assert words in ended[name]["error"], ended[name]["error"]
        assert f"{name}: {ended[name]['error']}"[:60] in said
    assert "cx52: the measurement died; it is started again." in said
    assert "3 of 6 jobs did not end well" in said
    assert "Traceback" not in said
    # every job went on to its end, and every server was given back
    assert {one["stage"] for one in jobs.values()} == {"gone"}
    assert sweeping.rows(benchctl, "SELECT DISTINCT state FROM instance") == [{"state": "gone"}]
    # what was not hit, and what could go on, is complete, and nothing is there twice
    counted = sweeping.rows(
        benchctl,
        "SELECT j.api_reference AS server, count(*) AS n, count(DISTINCT task || tokens) AS kinds FROM measurement m "
        "JOIN job j ON j.sweep_id = m.sweep_id AND j.job_id = m.job_id WHERE m.outcome = 'ok' GROUP BY 1",
    )
    found = {one["server"]: (one["n"], one["kinds"]) for one in counted}
    assert {name: found[name] for name in ("cx22", "cx42", "cx52")} == dict.fromkeys(("cx22", "cx42", "cx52"), (3, 3))
    assert all(n == kinds < 3 for name, (n, kinds) in found.items() if name in WORDS), found


def await_outcome(world: Emulated, server: str, sweep: sweeping.Running) -> Instance:
    """The instance of a type, as soon as the first scenario has ended on it."""
    deadline = time.monotonic() + 400
    while not ((instance := instance_of(world, server)) and has_an_outcome(instance)):
        assert sweep.process.poll() is None, sweep.said()
        assert time.monotonic() < deadline, sweep.said()
        time.sleep(0.2)
    return instance


def test_a_resumed_sweep_keeps_a_live_server_that_is_silent_and_replaces_one_that_is_gone(
    benchctl: Run, begin: Callable[..., sweeping.Running], backed_world: Emulated, tmp_path: Path
) -> None:
    """Kill -9, and the server is taken back: another is made. Kill -9, and its network is cut a while: none is made."""
    sweeping.hetzner_catalogue(benchctl, tmp_path, "cx42")
    suite = sweeping.write_suite(tmp_path, "some", "{pp: {16: 0.01}, tg: {16: 0.01, 128: 0.01}}")
    paced = sweeping.write_paced_llama_bench(tmp_path / "llama-bench", {"pp16": 0.2, "tg16": 0.5, "tg128": 30.0})
    options = ("--vendors", "hetzner", "--servers", "cx42", "--suite", str(suite), "--llama-bench", str(paced))
    sweep = begin("sweep", *options, *sweeping.SYNTHETIC)
    await_outcome(backed_world, "cx42", sweep)
    sweep.process.kill()
    sweep.wait()
    (first,) = backed_world.names("hetzner", "server")
    assert backed_world.vanish("hetzner", first)

    sweep = begin("sweep", "--resume", "last")
    second = await_outcome(backed_world, "cx42", sweep)
    sweep.process.kill()
    sweep.wait()
    befall(backed_world, "cx42", second)

    sweep = begin("sweep", "--resume", "last")
    sweep.until("cx42: out of reach")
    second.inside("-n", "iptables", "-F", "INPUT")
    assert sweep.wait() == 0, sweep.said()
    made = backed_world.journal(vendor="hetzner", call="create", kind="server")
    assert [one["name"] == first for one in made] == [True, False], sweep.said()
    assert backed_world.alive() == [], sweep.said()
    counted = sweeping.rows(benchctl, "SELECT task, tokens, count(*) AS n FROM measurement GROUP BY 1, 2 ORDER BY 1, 2")
    assert [tuple(one.values()) for one in counted] == [("pp", 16, 1), ("tg", 16, 1), ("tg", 128, 1)]


def befall(world: Emulated, server: str, instance: Instance) -> None:
    """What :data:`TYPES` says."""
    if server == "cx32":
        instance.inside("-n", "ip", "link", "set", "eth0", "down")
    elif server == "cx42":
        instance.inside("-n", "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "DROP")
    elif server == "cx52":
        podman("restart", "-t", "0", instance.name)
    elif server == "cpx11":
        [name] = [one for one in world.names("hetzner", "server") if server in one]
        assert world.vanish("hetzner", name)
    elif server == "cpx21":
        podman("exec", instance.name, "dd", "if=/dev/zero", f"of={HOME}/filler", "bs=64k", check=False)
