"""The toy cloud as a test sees it."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.clouds import engine_process
from benchctl.clouds.stacks import Stacks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchctl.home import Home

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ToyCloud:
    """A folder that is a cloud, and a home whose stacks live in it.

    Attributes:
        folder: see :mod:`toy.provider`.
        home: state and cache.
        engine: the real engine.
        log: where its output goes.
    """

    folder: Path
    home: Home
    engine: Path
    log: Path

    @classmethod
    def at(cls, tmp_path: Path, home: Home, engine: Path) -> ToyCloud:
        """A new, empty one."""
        folder = tmp_path / "toy"
        for name in ("things", "creating", "deleting", "bin"):
            (folder / name).mkdir(parents=True)
        plugin = folder / "bin" / "pulumi-resource-toy"
        plugin.write_text(f"#!{sys.executable}\nimport runpy\nrunpy.run_module('toy.provider', run_name='__main__')\n")
        plugin.chmod(0o755)
        return cls(folder, home, engine, tmp_path / "engine.log")

    @property
    def login(self) -> dict[str, str]:
        """What a vendor's login is to the engine: here, where the cloud is."""
        paths = os.pathsep.join(str(ROOT / name) for name in ("controller", "module_utils", "tests"))
        return {"TOY_FOLDER": str(self.folder), "TOY_TOKEN": "toy-token-5d1f0c", "PYTHONPATH": paths}

    @property
    def environment(self) -> dict[str, str]:
        """A user's environment, with the engine and the plugin on PATH."""
        path = os.pathsep.join((str(self.folder / "bin"), str(self.engine.parent), os.environ["PATH"]))
        return {"PATH": path, "HOME": os.environ["HOME"]}

    def stacks(self, **more: Any) -> Stacks:
        """A fresh object, as a new process makes it."""
        return Stacks(self.home, **{"environment": self.environment, **more})

    def up(self, stacks: Stacks, stack: str, program: Callable[[], Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        """Make a stack of this cloud."""
        return stacks.up(stack, program, environment=self.login, log=self.log, **more)

    def destroy(self, stacks: Stacks, stack: str, **more: Any) -> list[Any]:
        """Destroy one."""
        return stacks.destroy(stack, environment=self.login, log=self.log, **more)

    @property
    def things(self) -> set[str]:
        """What exists."""
        return {path.name for path in (self.folder / "things").iterdir()}

    def tell(self, name: str, text: str = "") -> None:
        """Say how it shall behave; see :mod:`toy.provider`."""
        (self.folder / name).write_text(text)

    def untell(self, name: str) -> None:
        """Take that back."""
        (self.folder / name).unlink(missing_ok=True)

    def wait_for(self, name: str, seconds: float = 240.0) -> None:
        """Wait until a file is there, as ``creating/server``."""
        wait_until(lambda: (self.folder / name).exists(), f"{name} in {list(self.folder.rglob('*'))}", seconds)

    def kill(self, stack: str, stacks: Stacks, *, engine: bool) -> None:
        """Kill the engine, or the plugins, of a stack, and wait until they are gone."""
        victims = [one for one in stacks.running(stack) if one.engine is engine]
        assert victims, f"nothing of {stack} runs"
        for one in victims:
            os.kill(one.pid, signal.SIGKILL)
        wait_until(lambda: not any(one.engine is engine for one in stacks.running(stack)), "they live")

    def close(self) -> None:
        """End what a test that failed left running."""
        mine = self.stacks().mark("")
        for one in engine_process.running():
            if one.stack.startswith(mine):
                with suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGKILL)


def thing(called: str, **inputs: Any) -> Any:
    """A resource of the toy cloud, as a vendor's SDK makes one."""
    import pulumi

    class Thing(pulumi.CustomResource):
        """Its class."""

        @property
        @pulumi.getter
        def address(self) -> Any:
            """Given by the cloud."""
            return pulumi.get(self, "address")

    return Thing("toy:index:Thing", called, {"address": None, "name": called, **inputs})


def wait_until(met: Callable[[], bool], what: str, seconds: float = 240.0) -> None:
    """Wait for a condition, and fail when it does not come."""
    until = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < until, f"it did not happen in {seconds} s: {what}"
        time.sleep(0.02)
