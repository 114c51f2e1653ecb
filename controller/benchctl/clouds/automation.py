"""Pulumi's Automation API, with fewer calls of the engine and without this process's environment.

Imports Pulumi's SDK, so :mod:`benchctl.clouds.stacks` imports it when a stack is worked on. The SDK's own
``PulumiCommand`` hands the engine everything that this process has in its environment, the logins of all vendors
included; and ``Stack.up`` starts the engine five times where two do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi import automation
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from semver import VersionInfo

from benchctl.clouds import engine_process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchctl.clouds.engine_binary import PulumiEngine
    from benchctl.clouds.engine_process import Ended

PROJECT = "benchctl"
"""All stacks are of one project."""

EVENTFUL = ("up", "destroy", "refresh")
"""Commands that take long, are logged, and tell events."""


def fitting(engine: PulumiEngine) -> str:
    """Why the SDK would refuse the engine; empty when it takes it."""
    from pulumi.automation._minimum_version import _MINIMUM_VERSION

    wanted = (_MINIMUM_VERSION.major, _MINIMUM_VERSION.minor, _MINIMUM_VERSION.patch)
    if engine.version[0] != wanted[0] or engine.version < wanted:
        return f"Pulumi's Python SDK wants an engine of version {_MINIMUM_VERSION} or newer, but {engine.describe()}."
    return ""


# gRPC keeps one pool of connections for the whole process, by address: where an engine listens on a port at which an
# earlier one was gone a moment ago, the program would be told "Connection refused" without a try (it fails so in
# tests/integration/test_stacks.py without this). With a pool of its own each program asks its own engine.
_GRPC_CHANNEL_OPTIONS.append(("grpc.use_local_subchannel_pool", 1))

# A program whose engine was killed ends in errors of gRPC, which without a handler are printed over the live view; what
# went wrong is in our own error and in the job's log.
logging.getLogger("grpc").addHandler(logging.NullHandler())


class Command(automation.PulumiCommand):
    """The engine as the SDK starts it, in an environment of our making; one object per piece of work.

    Attributes:
        ended: how the newest run ended.
    """

    ended: Ended | None = None

    def __init__(
        self,
        engine: PulumiEngine,
        environment: Mapping[str, str],
        *,
        log: Path | None,
        on_event: Callable[[Mapping[str, Any]], None],
        timeout_seconds: float,
        cancelled: Callable[[], bool],
        hidden: Sequence[str] = (),
    ) -> None:
        # not the SDK's constructor, which starts the engine to ask for its version
        self.command = str(engine.path)
        self.version = VersionInfo(*engine.version)
        self._environment, self._log, self._on_event = dict(environment), log, on_event
        self._timeout_seconds, self._cancelled, self._hidden = timeout_seconds, cancelled, hidden

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,  # noqa: ARG002 - the SDK's signature; the log has it all
        on_error: Callable[[str], Any] | None = None,  # noqa: ARG002
    ) -> automation.CommandResult:
        """Run the engine once; raises the SDK's ``CommandError`` when it says no."""
        from pulumi.automation.errors import create_command_error

        eventful = args[0] in EVENTFUL
        command = [self.command, "--non-interactive", *args]
        if args[0] == "destroy":
            # the SDK's own "remove" is one more run of the engine
            command.append("--remove")
        self.ended = engine_process.run(
            command,
            folder=Path(cwd),
            environment={**self._environment, **additional_env},
            log=self._log if eventful else None,
            on_event=self._on_event,
            timeout_seconds=self._timeout_seconds,
            cancelled=self._cancelled,
            hidden=self._hidden,
        )
        # the SDK tells its errors apart by either stream; a log has both
        stderr = self.ended.stderr or (self.ended.stdout if eventful else "")
        result = automation.CommandResult(self.ended.stdout, stderr, self.ended.code)
        if self.ended.code != 0:
            raise create_command_error(result)
        return result


class Stack(automation.Stack):
    """A stack that is not asked again what it has just told."""

    def __init__(self, name: str, workspace: automation.Workspace) -> None:
        # not the SDK's constructor, which starts the engine to select the stack; every command names it
        self.name, self.workspace = name, workspace

    def outputs(self) -> automation.OutputMap:
        """Nothing: the program hands its outputs on itself."""
        return {}

    def info(self, show_secrets: bool = True) -> automation.UpdateSummary | None:  # noqa: ARG002
        """A summary without content: the log and the events have it."""
        return automation.UpdateSummary(
            kind="", start_time=datetime.now(UTC), message="", environment={}, config={}, result=""
        )


class Workspace(automation.LocalWorkspace):
    """The project's folder, whose settings are written once."""

    def __init__(self, command: Command, folder: Path, program: Callable[[], Any] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = folder / "Pulumi.yaml"
        if not settings.exists():
            draft = settings.with_name(f"Pulumi.yaml.{os.getpid()}-{id(self)}")
            draft.write_text(f"name: {PROJECT}\nruntime: python\n")
            draft.replace(settings)
        super().__init__(work_dir=str(folder), pulumi_command=command, program=program)


def end_program(loops: list[asyncio.AbstractEventLoop], patience_seconds: float = 30.0) -> None:
    """End what a program left when the engine refused: the SDK leaves its event loop with tasks and threads that wait.

    Without it every refused stack keeps a dozen threads, and Python complains on stderr when it collects them.

    Args:
        loops: in which the program ran; closed afterwards.
        patience_seconds: how long the SDK's own end of the program is waited for.
    """
    until = time.monotonic() + patience_seconds
    for loop in loops:
        while not loop.is_closed() and time.monotonic() < until:
            if loop.is_running():
                time.sleep(0.02)
                continue
            # the SDK's thread may still be at it for a moment, which is a RuntimeError here
            with suppress(RuntimeError):
                tasks = asyncio.all_tasks(loop)
                for task in tasks:
                    task.cancel()
                loop.run_until_complete(_ended(tasks))
                loop.close()


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
