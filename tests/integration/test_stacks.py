"""Stacks through the real engine and a real plugin: made, refused, killed at any moment, destroyed."""

from __future__ import annotations

import gc
import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from benchctl.clouds import engine_process, stacks
from benchctl.clouds.stacks import StackBusyError, StackCancelledError, StackError, Stacks, StackTimeoutError
from benchctl.errors import BenchctlError
from pulumi.runtime.proto import engine_pb2
from pulumi.runtime.settings import Settings
from toy.cloud import ROOT, thing, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchctl.home import Home
    from toy.cloud import ToyCloud

STACK = "benchctl-toy-1"
HOST_KEY = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\nAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gt\n"
)


def server_and_key() -> dict[str, Any]:
    """Two things, the second of which needs the first."""
    import pulumi

    key = thing("key")
    server = thing("server", key=key.id, user_data=pulumi.Output.secret(HOST_KEY))
    return {"address": server.address, "ids": {"server": server.id, "key": key.id}, "key": pulumi.Output.secret("shh")}


def one_server() -> dict[str, Any]:
    return {"address": thing("server").address}


def controller(toy_cloud: ToyCloud, verb: str) -> subprocess.Popen[bytes]:
    """Another benchctl, that makes or destroys the stack: what a test kills."""
    program = f"""
        import json, os, sys
        from pathlib import Path
        from benchctl.home import Home
        from benchctl.clouds.stacks import Stacks
        from toy.cloud import thing
        def program():
            key = thing("key")
            return {{"address": thing("server", key=key.id).address}}
        stacks = Stacks(Home(Path({str(toy_cloud.home.state)!r}), Path({str(toy_cloud.home.cache)!r}), ""))
        more = {{"environment": {toy_cloud.login!r}, "log": Path({str(toy_cloud.log)!r})}}
        stacks.{verb}({STACK!r}, {"program, " if verb == "up" else ""}**more)
    """
    paths = os.pathsep.join(str(ROOT / name) for name in ("controller", "module_utils", "tests"))
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**toy_cloud.environment, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_a_stack_is_made_and_destroyed(toy_cloud: ToyCloud) -> None:
    """Outputs come as plain values, also later and elsewhere; events as short lines; afterwards there is nothing."""
    lines: list[str] = []
    got = toy_cloud.up(toy_cloud.stacks(), STACK, server_and_key, on_event=lines.append)
    assert got == {"address": "192.0.2.7", "ids": {"server": "id-server", "key": "id-key"}, "key": "shh"}
    assert lines == ["creating Thing key", "created Thing key", "creating Thing server", "created Thing server"]
    assert toy_cloud.things == {"key", "server"}

    later = toy_cloud.stacks()
    assert later.names() == [STACK]
    assert later.outputs(STACK) == got
    assert [(one.type, one.name, one.id, one.pending) for one in later.resources(STACK)] == [
        ("toy:index:Thing", "key", "id-key", ""),
        ("toy:index:Thing", "server", "id-server", ""),
    ]

    lines.clear()
    assert toy_cloud.destroy(later, STACK, on_event=lines.append) == []
    assert lines == ["deleting Thing server", "deleted Thing server", "deleting Thing key", "deleted Thing key"]
    assert toy_cloud.things == set()
    assert (later.names(), later.resources(STACK), later.outputs(STACK)) == ([], [], {})
    assert toy_cloud.destroy(later, STACK) == []
    assert toy_cloud.log.stat().st_mode & 0o777 == 0o600
    assert "Thing key created" in toy_cloud.log.read_text()
    assert not list(toy_cloud.home.state.rglob(f"Pulumi.{STACK}.*"))


def test_a_refusal_is_the_vendors_own_words(toy_cloud: ToyCloud) -> None:
    """What was made before stays in the state, and goes with it; threads and loops of the program are gone."""
    toy_cloud.tell("refuse", "1 error occurred:\n\t* error during placement (resource_unavailable, 63ad)\n\n")
    ours = toy_cloud.stacks()
    before = threading.active_count()
    for _ in range(2):
        with pytest.raises(StackError) as caught:
            toy_cloud.up(ours, STACK, server_and_key)
        assert caught.value.said == "error during placement (resource_unavailable, 63ad)"
        assert caught.value.problem == f"The stack {STACK} could not be made: {caught.value.said}."
        assert toy_cloud.things == {"key"}
    # each refused program would leave a dozen; the SDK's server keeps one or two until Python collects it
    wait_until(lambda: gc.collect() >= 0 and threading.active_count() <= before + 4, "threads of programs are left")
    toy_cloud.destroy(ours, STACK)
    assert toy_cloud.things == set()


def test_an_error_of_our_own_in_the_program_comes_back_as_it_is(toy_cloud: ToyCloud) -> None:
    """A sentence for the user is not buried in the engine's output."""

    def program() -> dict[str, Any]:
        raise BenchctlError("There is no such image.", "Choose another.")

    ours = toy_cloud.stacks()
    with pytest.raises(BenchctlError, match=r"^There is no such image\. Choose another\.$"):
        toy_cloud.up(ours, STACK, program)
    toy_cloud.destroy(ours, STACK)
    assert ours.names() == []


def test_an_engine_on_a_port_that_was_dead_a_moment_ago_is_reached(toy_cloud: ToyCloud) -> None:
    """What a program was told by the port of an engine that had ended is not held against the next one there."""
    toy_cloud.up(toy_cloud.stacks(), STACK, dict)
    with socket.socket() as kept:
        # it never listens, and nobody else gets the port until the server below shares it
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{kept.getsockname()[1]}"
        dead = Settings("benchctl", STACK, engine=address).engine
        with pytest.raises(grpc.RpcError, match="Connection refused"):
            dead.Log(engine_pb2.LogRequest())
        alive = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 1)])
        assert alive.add_insecure_port(address)
    alive.start()
    try:
        with pytest.raises(grpc.RpcError, match="Method not found"):
            Settings("benchctl", STACK, engine=address).engine.Log(engine_pb2.LogRequest())
    finally:
        alive.stop(0).wait()
    toy_cloud.destroy(toy_cloud.stacks(), STACK)


def test_an_engine_killed_while_it_creates(toy_cloud: ToyCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was under way is named, is not made a second time, and afterwards the stack is gone."""
    monkeypatch.setattr(stacks, "PLUGIN_SECONDS", 0.3)
    toy_cloud.tell("hold-create")
    ours = toy_cloud.stacks()
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(toy_cloud.up, ours, STACK, one_server)
        toy_cloud.wait_for("creating/server")
        toy_cloud.kill(STACK, ours, engine=True)
        with pytest.raises(StackError):
            made.result()
    assert [(one.name, one.id, one.pending) for one in ours.resources(STACK)] == [("server", "", "creating")]
    with pytest.raises(StackError, match=r"server \(creating\).*Destroy it first"):
        toy_cloud.up(ours, STACK, one_server)
    assert [one.name for one in toy_cloud.destroy(ours, STACK)] == ["server"]
    assert ours.names() == []


def test_what_a_killed_engine_left_is_destroyed_by_another_process(
    toy_cloud: ToyCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is cleared, the plugin that nobody listens to is ended, and what may live in the cloud is named."""
    monkeypatch.setattr(stacks, "PLUGIN_SECONDS", 0.3)
    toy_cloud.tell("hold-create")
    other = controller(toy_cloud, "up")
    toy_cloud.wait_for("creating/key")
    ours = toy_cloud.stacks()
    toy_cloud.kill(STACK, ours, engine=True)
    kill(other)
    assert ours.running(STACK), "the plugin went with its engine, so that this test shows nothing"
    lost = toy_cloud.destroy(ours, STACK)
    assert [(one.type, one.name, one.pending, one.inputs["name"]) for one in lost] == [
        ("toy:index:Thing", "key", "creating", "key")
    ]
    assert ours.running(STACK) == []
    assert ours.names() == []
    assert toy_cloud.things == set()


def test_a_killed_controllers_engine_writes_down_what_it_makes(toy_cloud: ToyCloud) -> None:
    """It goes on until the create under way is done, so that destroying from the state finds it."""
    toy_cloud.tell("hold-create")
    other = controller(toy_cloud, "up")
    toy_cloud.wait_for("creating/key")
    kill(other)
    ours = toy_cloud.stacks()
    with ThreadPoolExecutor(1) as pool:
        destroyed = pool.submit(toy_cloud.destroy, ours, STACK)
        toy_cloud.untell("hold-create")
        assert destroyed.result() == []
    assert toy_cloud.things == set()
    assert ours.names() == []
    assert "Thing key deleted" in toy_cloud.log.read_text(), "it was never in the state"


@pytest.mark.parametrize("victim", ["engine", "controller", "both"])
def test_killed_while_it_destroys(toy_cloud: ToyCloud, victim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Destroying again ends it, whoever was killed."""
    monkeypatch.setattr(stacks, "PLUGIN_SECONDS", 0.3)
    ours = toy_cloud.stacks()
    toy_cloud.up(ours, STACK, server_and_key)
    toy_cloud.tell("hold-delete")
    other = controller(toy_cloud, "destroy")
    toy_cloud.wait_for("deleting/server")
    if victim != "controller":
        toy_cloud.kill(STACK, ours, engine=True)
    if victim != "engine":
        kill(other)
    toy_cloud.untell("hold-delete")
    assert toy_cloud.destroy(ours, STACK) == []
    other.wait(timeout=60)
    assert toy_cloud.things == set()
    assert ours.names() == []
    assert ours.running(STACK) == []


def test_a_controller_killed_before_the_engine_made_anything(toy_cloud: ToyCloud) -> None:
    """A stack that was only begun can be made, and destroyed."""
    ours = toy_cloud.stacks()
    command = ["stack", "init", "--no-select", "--secrets-provider", "passphrase", "--stack", STACK]
    ours._ask(*command)
    for left in toy_cloud.home.state.rglob(f"Pulumi.{STACK}.yaml"):
        left.unlink()
    assert ours.names() == [STACK]
    assert toy_cloud.up(ours, STACK, one_server)["address"] == "192.0.2.7"
    toy_cloud.destroy(ours, STACK)
    assert toy_cloud.things == set()


def test_a_controller_killed_while_the_engine_makes_the_first_stack(toy_cloud: ToyCloud) -> None:
    """An engine that is at work although there is no state yet is waited for: no stack comes up afterwards."""
    engine = toy_cloud.folder / "bin" / "pulumi"
    gate = toy_cloud.folder / "go"
    engine.write_text(
        f'#!/bin/bash\nif [ "$2" = stack ]; then touch {gate}.reached; trap "" INT\n'
        f'while [ ! -e {gate} ]; do sleep 0.02; done; fi\nexec -a pulumi {toy_cloud.engine} "$@"\n'
    )
    engine.chmod(0o755)
    other = controller(toy_cloud, "up")
    toy_cloud.wait_for("go.reached")
    ours = toy_cloud.stacks()
    kill(other)
    with ThreadPoolExecutor(1) as pool:
        destroyed = pool.submit(toy_cloud.destroy, ours, STACK)
        gate.touch()
        assert destroyed.result() == []
    assert ours.running(STACK) == []
    assert ours.names() == []


def test_a_cancelled_stack_keeps_what_was_under_way(toy_cloud: ToyCloud) -> None:
    """The create under way is finished and written down; what would follow is not begun."""
    toy_cloud.tell("hold-create")
    ours = toy_cloud.stacks()

    under_way = (toy_cloud.folder / "creating/key").exists
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(toy_cloud.up, ours, STACK, server_and_key, cancelled=under_way)
        try:
            # the engine says that it has heard; only then may the create end
            wait_until(lambda: toy_cloud.log.exists() and "^C received" in toy_cloud.log.read_text(), "it was not told")
        finally:
            toy_cloud.untell("hold-create")
        with pytest.raises(StackCancelledError):
            made.result()
    assert [(one.name, one.pending) for one in ours.resources(STACK)] == [("key", "")]
    toy_cloud.destroy(ours, STACK)
    assert toy_cloud.things == set()


def test_a_create_that_never_ends_is_cut(toy_cloud: ToyCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted, told to leave it, killed: what is left can be destroyed, and what was under way is named."""
    monkeypatch.setattr(engine_process, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(engine_process, "TERMINATE_SECONDS", 0.5)
    monkeypatch.setattr(stacks, "PLUGIN_SECONDS", 0.3)
    toy_cloud.tell("hold-create")
    ours = toy_cloud.stacks()
    with pytest.raises(StackCancelledError):
        toy_cloud.up(ours, STACK, one_server, cancelled=(toy_cloud.folder / "creating/server").exists)
    assert [one.name for one in toy_cloud.destroy(ours, STACK)] == ["server"]
    assert ours.names() == []


def test_what_takes_too_long_is_interrupted(toy_cloud: ToyCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far it came by then, there is nothing left after it is destroyed."""
    monkeypatch.setattr(engine_process, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(engine_process, "TERMINATE_SECONDS", 0.5)
    monkeypatch.setattr(stacks, "PLUGIN_SECONDS", 0.3)
    toy_cloud.tell("hold-create")
    ours = toy_cloud.stacks()
    with pytest.raises(StackTimeoutError, match="could not be made in time"):
        toy_cloud.up(ours, STACK, one_server, timeout_seconds=1.5)
    toy_cloud.untell("hold-create")
    toy_cloud.destroy(ours, STACK)
    assert ours.names() == []
    assert ours.running(STACK) == []


def test_many_at_once_do_not_mix(toy_cloud: ToyCloud) -> None:
    """Seven stacks from seven threads, three engines: each gets its own outputs, and a fourth engine is never there."""
    toy_cloud.tell("hold-create")
    ours = toy_cloud.stacks(engines=3)
    numbers = range(7)
    with ThreadPoolExecutor(len(numbers)) as pool:
        made = [
            pool.submit(
                toy_cloud.up,
                ours,
                f"benchctl-{number}",
                lambda number=number: {"id": thing(f"server-{number}").id, "number": number},
            )
            for number in numbers
        ]
        wait_until(lambda: len(list((toy_cloud.folder / "creating").iterdir())) == 3, "three are under way")
        assert sum(bool(ours.running(f"benchctl-{number}")) for number in numbers) == 3
        toy_cloud.untell("hold-create")
        got = [one.result() for one in made]
    assert got == [{"id": f"id-server-{number}", "number": number} for number in numbers]
    assert ours.names() == [f"benchctl-{number}" for number in numbers]
    with ThreadPoolExecutor(len(numbers)) as pool:
        assert list(pool.map(lambda number: toy_cloud.destroy(ours, f"benchctl-{number}"), numbers)) == [[]] * 7
    assert toy_cloud.things == set()
    assert ours.names() == []


def test_a_living_controllers_stack_is_left_alone(toy_cloud: ToyCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another benchctl at work is waited for, and neither interrupted nor unlocked."""
    monkeypatch.setattr(stacks, "BUSY_SECONDS", 1.0)
    toy_cloud.tell("hold-create")
    other = controller(toy_cloud, "up")
    toy_cloud.wait_for("creating/key")
    with pytest.raises(StackBusyError):
        toy_cloud.destroy(toy_cloud.stacks(), STACK)
    toy_cloud.untell("hold-create")
    assert other.wait(timeout=60) == 0
    assert toy_cloud.things == {"key", "server"}
    toy_cloud.destroy(toy_cloud.stacks(), STACK)
    assert toy_cloud.things == set()


@pytest.mark.parametrize(
    ("host", "since", "cleared"),
    [
        (socket.gethostname(), "2026-01-01T00:00:00Z", True),
        ("another-machine", "2020-01-01T00:00:00Z", True),
        ("another-machine", "2100-01-01T00:00:00Z", False),
    ],
)
def test_locks_of_engines_that_are_no_more(toy_cloud: ToyCloud, host: str, since: str, cleared: bool) -> None:
    """Here, by the process; elsewhere, by age: a fresh lock of another machine is respected, and the mend is named."""
    ours = toy_cloud.stacks()
    toy_cloud.up(ours, STACK, one_server)
    locks = next(toy_cloud.home.state.rglob(f"locks/**/{STACK}"))
    lock = {"pid": 2**22 - 1, "username": "root", "hostname": host, "timestamp": since}
    (locks / "0b0f2e66-4c8d-4a3a-9a0e-b0b2f4a2a0d1.json").write_text(json.dumps(lock))
    if not cleared:
        with pytest.raises(StackBusyError, match=rf"'pulumi cancel --stack {STACK}'"):
            toy_cloud.destroy(ours, STACK)
        assert toy_cloud.things == {"server"}
        return
    toy_cloud.destroy(ours, STACK)
    assert toy_cloud.things == set()


def test_the_engine_gets_the_vendors_login_and_no_other(toy_cloud: ToyCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor anything else of our environment; carried plugins are found before those of PATH."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-aws-secret")
    environment = {
        **toy_cloud.environment,
        "HCLOUD_TOKEN": "planted-hcloud",
        "HTTPS_PROXY": "http://proxy.invalid:3128",
    }
    toy_cloud.up(toy_cloud.stacks(environment=environment), STACK, one_server)
    theirs = json.loads((toy_cloud.folder / "environment.json").read_text())
    assert theirs["TOY_TOKEN"] == toy_cloud.login["TOY_TOKEN"]
    assert theirs["HTTPS_PROXY"] == "http://proxy.invalid:3128"
    assert "planted" not in json.dumps(theirs)
    assert theirs["PATH"].split(os.pathsep)[0] == str(Path(sys.prefix) / "bin")
    toy_cloud.destroy(toy_cloud.stacks(), STACK)


def test_no_secret_is_written_down(toy_cloud: ToyCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token, private host key, a secret output and the passphrase are in no file, no argument and no error."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    passphrase = "planted-passphrase-91b7"  # noqa: S105 - it is to be looked for
    planted = [toy_cloud.login["TOY_TOKEN"], passphrase, "planted-output-4e", *HOST_KEY.splitlines()[1:]]
    ours = toy_cloud.stacks(
        environment={
            **toy_cloud.environment,
            "PULUMI_CONFIG_PASSPHRASE": passphrase,
            "TMPDIR": str(tmp_path / "tmp"),
        }
    )
    lines: list[str] = []
    seen: set[str] = set()
    toy_cloud.tell("hold-create")

    def program() -> dict[str, Any]:
        import pulumi

        return {**server_and_key(), "key": pulumi.Output.secret("planted-output-4e")}

    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(toy_cloud.up, ours, STACK, program, on_event=lines.append)
        toy_cloud.wait_for("creating/key")
        seen |= written(tmp_path, planted)
        arguments = list(commands())
        assert any("pulumi" in one and STACK in one for one in arguments), "the engine was not looked at"
        assert not [one for one in arguments for word in planted if word in one]
        toy_cloud.untell("hold-create")
        assert made.result()["key"] == "planted-output-4e"
    seen |= written(tmp_path, planted)
    # a plugin that repeats its login in an error
    toy_cloud.tell("refuse", f"the token {toy_cloud.login['TOY_TOKEN']} is not valid")
    with pytest.raises(StackError) as caught:
        toy_cloud.up(ours, "benchctl-toy-2", lambda: {"id": thing("server", name="second").id})
    toy_cloud.untell("refuse")
    seen |= written(tmp_path, planted)
    assert str(caught.value).endswith(f"the token {'*' * 16} is not valid.")
    toy_cloud.destroy(ours, STACK)
    toy_cloud.destroy(ours, "benchctl-toy-2")
    seen |= written(tmp_path, planted)
    assert not seen
    assert not [one for one in lines for word in planted if word in one]


def written(folder: Path, planted: list[str]) -> set[str]:
    """Which of the planted secrets stands in which file; the toy cloud's own files are the cloud, not ours."""
    found = set()
    for path in folder.rglob("*"):
        # the engine is at work: what was a file may be gone
        with suppress(FileNotFoundError):
            if path.is_file() and folder / "toy" not in path.parents:
                text = path.read_bytes()
                found |= {f"{word} in {path}" for word in planted if word.encode() in text}
    return found


def commands() -> Iterator[str]:
    """The arguments of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes().decode(errors="replace")


def test_the_passphrase_is_made_once_and_kept(toy_cloud: ToyCloud) -> None:
    """For its owner alone; many threads at first make one."""
    ours = toy_cloud.stacks()
    with ThreadPoolExecutor(8) as pool:
        made = {json.dumps(one) for one in pool.map(lambda _: ours._passphrase(), range(16))}
    assert len(made) == 1
    path = toy_cloud.home.state / "pulumi" / "passphrase"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_text()) >= 32
    assert [one.name for one in path.parent.glob("passphrase*")] == ["passphrase"]


def test_another_passphrase_is_one_sentence(toy_cloud: ToyCloud) -> None:
    """And an empty variable is none: the passphrase that was made is used."""
    empty = {**toy_cloud.environment, "PULUMI_CONFIG_PASSPHRASE": ""}
    toy_cloud.up(toy_cloud.stacks(environment=empty), STACK, server_and_key)
    other = toy_cloud.stacks(environment={**toy_cloud.environment, "PULUMI_CONFIG_PASSPHRASE": "another"})
    with pytest.raises(StackError, match=r"encrypted with another passphrase\. Set PULUMI_CONFIG_PASSPHRASE"):
        toy_cloud.destroy(other, STACK)
    toy_cloud.destroy(toy_cloud.stacks(), STACK)
    assert toy_cloud.things == set()


def test_the_option_names_the_backend_before_the_environment(toy_cloud: ToyCloud, tmp_path: Path) -> None:
    """State goes where it is said, and nowhere else; by default, below the state directory."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    environment = {**toy_cloud.environment, "PULUMI_BACKEND_URL": f"file://{tmp_path / 'a'}"}
    by_option = toy_cloud.stacks(environment=environment, backend=f"file://{tmp_path / 'b'}")
    by_environment = toy_cloud.stacks(environment=environment)
    toy_cloud.up(by_option, STACK, one_server)
    assert (by_option.names(), by_environment.names(), toy_cloud.stacks().names()) == ([STACK], [], [])
    toy_cloud.destroy(by_option, STACK)


def test_a_backends_password_is_not_shown(toy_cloud: ToyCloud) -> None:
    """Not even when the engine repeats the whole address in its complaint."""
    ours = toy_cloud.stacks(backend="azblob://user:planted-password@nowhere")
    with pytest.raises(StackError) as caught:
        toy_cloud.up(ours, STACK, one_server)
    assert "planted-password" not in f"{caught.value} {caught.value.said}"
    assert not toy_cloud.log.exists() or "planted-password" not in toy_cloud.log.read_text()


def test_without_any_stack_no_engine_is_needed(home: Home) -> None:
    """Looking for stacks, and destroying one that is not there, works on a machine without Pulumi."""
    ours = Stacks(home, environment={"PATH": "/nowhere", "HOME": "/nowhere"})
    assert (ours.names(), ours.resources(STACK), ours.outputs(STACK)) == ([], [], {})
    assert ours.destroy(STACK, environment={}, log=home.state / "log") == []


def test_a_plugin_that_is_nowhere_is_named(toy_cloud: ToyCloud) -> None:
    """With the command that fetches it."""
    (toy_cloud.folder / "bin" / "pulumi-resource-toy").unlink()
    ours = toy_cloud.stacks()
    with pytest.raises(StackError, match=re.escape("provider plugin for toy is not on this machine")) as caught:
        toy_cloud.up(ours, STACK, one_server)
    assert "pulumi plugin install resource toy" in caught.value.mend
    toy_cloud.destroy(ours, STACK)


def test_a_signal_to_the_terminal_is_not_the_engines(toy_cloud: ToyCloud) -> None:
    """Ctrl-C goes to the controller's group; the engine is in another, and is told by the controller alone."""
    toy_cloud.tell("hold-create")
    ours = toy_cloud.stacks()
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(toy_cloud.up, ours, STACK, one_server)
        toy_cloud.wait_for("creating/server")
        engine = next(one.pid for one in ours.running(STACK) if one.engine)
        assert os.getpgid(engine) != os.getpgid(0)
        os.kill(engine, 0)
        toy_cloud.untell("hold-create")
        assert made.result()["address"] == "192.0.2.7"
    toy_cloud.destroy(ours, STACK)
