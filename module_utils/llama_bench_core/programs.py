"""Run a short program in a process group of its own, with a time limit; and what is needed to end any such group."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal as signals
import subprocess
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Callable

from .command import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

OUTPUT_LIMIT = 1 << 20
"""Bytes of a short program's output that are kept of each stream, and about 64 KiB more."""


@dataclass(frozen=True)
class Finished:
    """A short program that has ended.

    Attributes:
        returncode: its exit status; negative: the signal that ended it.
        stdout: what it printed, at most 1 MiB.
        stderr: likewise.
    """

    returncode: int
    stdout: str
    stderr: str


Run = Callable[["Sequence[str]", float], Finished]
"""``run(argv, timeout_seconds)``: the capability to run a short program. Raises OSError when it can't be started, and
TimeoutError when it was still running (and was killed with its group)."""


def run(argv: Sequence[str], timeout_seconds: float) -> Finished:
    """Run a short program to its end; its input is empty and its environment :func:`command.environment`'s.

    Raises:
        OSError: it can't be started.
        TimeoutError: it did not end in time; it and its group were killed.
    """
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=environment(os.environ),
    )
    kept: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
    deadline = time.monotonic() + timeout_seconds
    try:
        with selectors.DefaultSelector() as selector:
            for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
                selector.register(pipe_of(pipe), selectors.EVENT_READ, name)
            while selector.get_map():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{argv[0]} did not end within {timeout_seconds:g} s")
                for key, _ in selector.select(min(left, 0.1)):
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif len(kept[key.data]) < OUTPUT_LIMIT:
                        kept[key.data] += data
                if has_ended(process.pid) and not selector.select(0):
                    break
        while not has_ended(process.pid):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{argv[0]} did not end within {timeout_seconds:g} s")
            time.sleep(0.01)
    finally:
        kill_group(process.pid)
        returncode = process.wait()
        for pipe in (process.stdout, process.stderr):
            pipe_of(pipe).close()
    texts = {name: data.decode("utf-8", "replace") for name, data in kept.items()}
    return Finished(returncode, texts["stdout"], texts["stderr"])


def has_ended(pid: int) -> bool:
    """Whether a child has ended; it is left as a corpse, so that its id stays its own."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def kill_group(pgid: int) -> None:
    """Kill all that is left of the group of a child that has not been reaped."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signals.SIGKILL)


def pipe_of(pipe: IO[bytes] | None) -> IO[bytes]:
    """The pipe that a process was started with."""
    if pipe is None:  # pragma: no cover  (we always ask for pipes)
        raise AssertionError("the process was started without this pipe")
    return pipe
