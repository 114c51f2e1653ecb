"""The emulated clouds as fixtures: what a test makes in them, the processes and containers behind it, is gone after."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0


class Emulated:
    """The world, in the hands of a test.

    Attributes:
        url: where it listens.
        environment: what a process needs to meet it: PATH with the emulated providers first, logins and endpoints of
            every vendor. Add it to a process's own environment.
    """

    def __init__(self, url: str, folder: Path, engine: Path | None = None) -> None:
        self.url, self._folder = url, folder
        self.environment: dict[str, str] = self._control("variables", url=url, folder=str(folder))
        self.environment["PATH"] = os.pathsep.join(
            (str(self._programs()), *([str(engine.parent)] if engine else []), os.environ["PATH"])
        )

    def fault(self, effect: str, **where: Any) -> None:
        """Script a fault: see ``faults.Fault``; ``fault("stock", vendor="gcp", call="create", place="us-east1-b")``."""
        self._control("fault", effect=effect, **where)

    def mend(self) -> None:
        """Forget the faults that were scripted."""
        self._control("mend")

    def down(self, vendor: str, down: bool = True) -> None:
        """The vendor's API answers with its words for an outage, to the engine and to its client, until told else."""
        self._control("down", vendor=vendor, down=down)

    def limit(self, vendor: str, servers: int) -> None:
        """The account may have so many servers at once; one more is refused in the vendor's words for a quota."""
        self._control("limit", vendor=vendor, servers=servers)

    def lag(self, vendor: str, **lag: float) -> None:
        """Lists lag behind: see ``store.Lag``."""
        self._control("lag", vendor=vendor, **lag)

    def alive(self, vendor: str = "", kind: str = "") -> list[dict[str, Any]]:
        """What exists in truth: ``{vendor, kind, id, name, data}``."""
        found: list[dict[str, Any]] = self._control("alive", vendor=vendor, kind=kind)
        return found

    def names(self, vendor: str = "", kind: str = "") -> list[str]:
        """The names of it, sorted."""
        return sorted(one["name"] for one in self.alive(vendor, kind))

    def vanish(self, vendor: str, name: str) -> bool:
        """The vendor takes the server back; says whether there was one."""
        return bool(self._control("vanish", vendor=vendor, name=name))

    def offer(self, vendor: str, server_type: str) -> None:
        """The vendor has one more server type, of any name; until the world ends. Hetzner's and UpCloud's so far."""
        self._control("offer", vendor=vendor, server_type=server_type)

    def journal(self, **matching: str) -> list[dict[str, Any]]:
        """All calls so far, oldest first: ``{vendor, call, kind, place, name, via, began, ended, said}``."""
        entries: list[dict[str, Any]] = self._control("journal")
        return [one for one in entries if all(one[key] == value for key, value in matching.items())]

    def release(self) -> None:
        """Let calls go on that the fault ``hold`` keeps."""
        self._control("release")

    def reset(self) -> None:
        """Forget everything: what exists, faults, lag, journal."""
        self._control("reset")

    def until(self, what: Any, seconds: float = 120.0) -> Any:
        """Wait until ``what()`` is true; returns it. Fails the test when it never is."""
        deadline = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < deadline, f"not within {seconds} s; the journal ends so: {self.journal()[-5:]}"
            time.sleep(0.02)
        return found

    def _control(self, name: str, /, **body: Any) -> Any:
        request = urllib.request.Request(f"{self.url}/control/{name}", json.dumps(body).encode())  # noqa: S310
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - loopback
            return json.load(answer)

    def _programs(self) -> Path:
        """A folder with the plugins' programs."""
        folder = self._folder / "bin"
        folder.mkdir(exist_ok=True)
        for vendor, package in self._control("packages").items():
            program = folder / f"pulumi-resource-{package}"
            program.write_text(
                f"#!{sys.executable}\n"
                "import sys\n"
                f"sys.path[:0] = {[str(ROOT / one) for one in ('tests', 'controller', 'module_utils')]!r}\n"
                f"sys.argv[1:1] = [{package!r}, {f'{self.url}/engine/{vendor}'!r}]\n"
                "from emulation.provider import main\n"
                "main()\n"
            )
            program.chmod(0o755)
        return folder


@contextlib.contextmanager
def emulated(cache: Path, containers: bool, engine: Path | None = None) -> Iterator[Emulated]:
    """Start the world; it ends with the block, or with this process however that ends.

    ``engine`` is the path of ``pulumi``, which is then on the PATH of those who meet it.
    """
    from lab.podman import owner

    folder = Path(tempfile.mkdtemp(prefix="emulated-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        paths = os.pathsep.join(str(ROOT / one) for one in ("tests", "controller", "module_utils"))
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "emulation.world", str(folder), str(cache)),
                *("containers" if containers else "none", owner()),
            ],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # a kill of the test's process group leaves the clouds alone
        )
        deadline = time.monotonic() + START_SECONDS
        while not (folder / "port").is_file():
            assert process.poll() is None, "the emulated clouds did not start; see standard error"
            assert time.monotonic() < deadline, "the emulated clouds did not start in time"
            time.sleep(0.02)
        yield Emulated(f"http://127.0.0.1:{(folder / 'port').read_text()}", folder, engine)
    finally:
        if process is not None:
            if process.stdin:
                process.stdin.close()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def module_world(cache: Path, pulumi_engine: Path) -> Iterator[Emulated]:
    """The emulated clouds, for fixtures that many tests of a file read; ``world`` empties them."""
    with emulated(cache, containers=False, engine=pulumi_engine) as running:
        yield running


@pytest.fixture
def world(module_world: Emulated) -> Iterator[Emulated]:
    """The emulated clouds, empty; nothing is behind their servers. One process for the tests of a file."""
    module_world.reset()
    yield module_world
    module_world.reset()


@pytest.fixture(scope="module")
def backed_module_world(cache: Path, pulumi_engine: Path) -> Iterator[Emulated]:
    """The same, with containers."""
    if os.geteuid() != 0:
        pytest.skip("the lab makes root file systems and networks, which only root may")
    if shutil.which("podman") is None:
        pytest.skip("servers are backed by containers, and podman is not installed; ./script/test installs it")
    with emulated(cache, containers=True, engine=pulumi_engine) as running:
        yield running


@pytest.fixture
def backed_world(backed_module_world: Emulated) -> Iterator[Emulated]:
    """The same, with a container with sshd behind every server."""
    backed_module_world.reset()
    yield backed_module_world
    backed_module_world.reset()
