"""Pulumi's real engine against the emulated clouds: what the tests of the vendors' programs run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.home import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchctl.clouds.spec import InstanceSpec

    from emulation.fixtures import Emulated

PROJECT = "benchctl"
PASSPHRASE = "of-the-tests"  # noqa: S105


def engine_root() -> Path:
    """Where the engine is installed: the folder above its ``bin``."""
    from benchctl.clouds.engine_binary import find

    return find(Home.at().cache).path.parent.parent


@dataclass
class Engine:
    """Stacks in a folder of their own.

    Attributes:
        world: what they are made in.
        folder: of the state.
        login: the vendor's variables; by default the world's.
    """

    world: Emulated
    folder: Path
    login: Mapping[str, str] | None = None

    def stack(self, name: str, program: Callable[[], Mapping[str, Any]] = dict) -> Any:
        """A stack of the real engine; its program exports what it returns."""
        import pulumi
        from pulumi import automation

        def run() -> None:
            for key, value in program().items():
                pulumi.export(key, value)

        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        (self.folder / "home").mkdir(exist_ok=True)
        login = self.world.environment if self.login is None else {"PATH": self.world.environment["PATH"], **self.login}
        return automation.create_or_select_stack(
            name,
            project_name=PROJECT,
            program=run,
            opts=automation.LocalWorkspaceOptions(
                pulumi_command=automation.PulumiCommand(str(engine_root())),
                pulumi_home=str(self.folder / "home"),
                work_dir=str(self.folder),
                project_settings=automation.ProjectSettings(
                    PROJECT, "python", backend=automation.ProjectBackend(f"file://{self.folder / 'state'}")
                ),
                env_vars={
                    **login,
                    "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
                    "PULUMI_SKIP_UPDATE_CHECK": "1",
                    "PULUMI_AUTOMATION_API_SKIP_VERSION_CHECK": "1",
                },
            ),
        )

    def up(self, name: str, program: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Make it; returns the outputs."""
        return {key: one.value for key, one in self.stack(name, program).up(on_output=lambda _: None).outputs.items()}

    def refused(self, name: str, program: Callable[[], Mapping[str, Any]]) -> str:
        """Make it, which must fail, and go on with what can be made; returns what the engine says."""
        from pulumi import automation

        with pytest.raises(automation.CommandError) as caught:
            self.stack(name, program).up(on_output=lambda _: None, continue_on_error=True)
        return str(caught.value)

    def destroy(self, name: str) -> None:
        """Destroy what it made, and forget the stack."""
        stack = self.stack(name)
        stack.destroy(on_output=lambda _: None)
        stack.workspace.remove_stack(name)


def in_the_clear(folder: Path, secret: str) -> list[str]:
    """The files below ``folder`` that hold a secret, or one of its longer lines, as it is."""
    whole = secret.splitlines()
    lines = [line for line in whole if len(whole) == 1 or (len(line) > 20 and "PRIVATE KEY" not in line)]
    assert lines, "there is no secret to be looked for"
    return [
        str(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(line.encode() in path.read_bytes() for line in lines)
    ]


def nothing_written_holds(folder: Path, spec: InstanceSpec, token: str) -> None:
    """Neither the state nor a log in a folder has the server's host key, or the login, in the clear."""
    assert in_the_clear(folder, spec.name), "no state or log was looked at"
    assert in_the_clear(folder, spec.host_key.private) == in_the_clear(folder, token) == []


def said_about(output: str, name: str) -> str:
    """The engine's diagnostics of one resource."""
    blocks = output.replace("Diagnostics:", "\n\n").split("\n\n")
    return "\n".join(block for block in blocks if f" ({name}):" in block)


def killed_in_create(world: Emulated, folder: Path, vendor: str, spec: InstanceSpec) -> None:
    """Let an engine in a process of its own make a server, kill it (SIGKILL) while the vendor is at it, and let the
    vendor finish.
    """  # noqa: D205
    world.fault("hold", vendor=vendor, call="create", kind="server")
    child = multiprocessing.get_context("spawn").Process(target=_up, args=(world, folder, vendor, spec))
    child.start()
    try:
        world.until(lambda: world.journal(vendor=vendor, call="create", kind="server"), 240)
        engines = _children(child.pid or 0, "pulumi")
        assert engines, "no engine runs"
        for engine in engines:
            os.kill(engine, signal.SIGKILL)
        child.join(120)
        assert child.exitcode, "it did not notice that its engine was killed"
    finally:
        world.release()
        child.kill()
        child.join()
    world.until(lambda: all(one["ended"] for one in world.journal(vendor=vendor, call="create")), 120)


def _up(world: Emulated, folder: Path, vendor: str, spec: InstanceSpec) -> None:
    from benchctl.clouds.cloud import cloud_of

    from emulation.specs import shared_spec

    cloud, engine = cloud_of(vendor), Engine(world, folder)
    scope = cloud.shared_scope(spec.region)
    shared: dict[str, Any] = {}
    if scope is not None:
        shared = engine.up("shared", lambda: cloud.shared_program(shared_spec(vendor, scope)))
    engine.up("job", lambda: cloud.program(spec, shared))


def _children(parent: int, name: str) -> list[int]:
    """Processes of this name below ``parent``, at any depth."""
    found, below = [], [parent]
    processes = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            head, _, rest = stat.rpartition(")")
            processes[int(entry.name)] = (int(rest.split()[1]), head.partition("(")[2])
    while below:
        one = below.pop()
        for process, (above, called) in processes.items():
            if above == one:
                below.append(process)
                if called == name:
                    found.append(process)
    return found


def starts_a_server_and_waits(cache: Path, folder: Path, containers: bool, told: Any) -> None:
    """A test in a process of its own, to be killed: tells its owner's mark and the world's address when all is up."""
    from benchctl.clouds.cloud import cloud_of
    from lab.podman import owner

    from emulation.fixtures import emulated
    from emulation.specs import instance_spec, shared_spec

    cloud = cloud_of("hetzner")
    with emulated(cache, containers=containers) as world:
        engine = Engine(world, folder)
        shared = engine.up("shared", lambda: cloud.shared_program(shared_spec("hetzner")))
        engine.up("job", lambda: cloud.program(instance_spec("hetzner", "cx22", "fsn1"), shared))
        told.send((owner(), world.url))
        time.sleep(600)
