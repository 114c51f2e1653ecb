"""Run llama-bench as a process group that never outlives us, and tell what it prints as events.

No threads: one selector watches stdout, stderr and the process itself, so nothing is read that nobody asked for, and a
program that floods its stdout fills a pipe and not the memory. The group is killed with SIGKILL at once: llama-bench
has nothing to save, its rows are flushed as they are printed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from .endings import oom_kill_count
from .events import Event, Exited, Garbage, ProgressLine, RowLine, Tick
from .leftovers import TOKEN_VARIABLE, RunningNote, boot_id, start_ticks, write_note
from .programs import has_ended, kill_group, pipe_of
from .rows import RowError, parse_progress, parse_row
from .values import CoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LINE_LIMIT = 1 << 20
"""Bytes of a line after which the rest of it is thrown away; a row has about 1.5 KiB and 20 bytes per repetition."""

LOG_HEAD_BYTES = 1 << 20
LOG_TAIL_BYTES = 1 << 16
STDERR_FILE_BYTES = 1 << 26
"""What is kept of one process's stderr: its beginning and its end in memory, at most 64 MiB in the file."""

DRAIN_SECONDS = 1.0
"""How long to read on after the end of the process, should something outside its group hold its pipes open."""

REAP_SECONDS = 30.0
"""How long a killed process may take to be gone; one that a GPU driver holds in the kernel can take longer."""

_GUARD = """
import os, sys
try:
    import ctypes, signal
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
except Exception:
    pass
if os.getppid() != int(sys.argv[1]):
    os._exit(125)
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
except Exception:
    pass
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.stderr.write("can't run %s: %s\\n" % (sys.argv[2], error.strerror))
    os._exit(126)
"""
"""Becomes llama-bench, after it asked the kernel to be killed when its parent dies (PR_SET_PDEATHSIG, prctl 1), to
write no core file of many gigabytes, and to be the first that is killed when memory runs out. A program of its own
and not a ``preexec_fn``, which may deadlock in a process with threads; the parent's id is compared after the request,
so that a parent that died in between is noticed."""


class RunnerError(CoreError):
    """llama-bench can't be started, or can't be ended."""


@dataclass(frozen=True)
class Runner:
    """Starts llama-bench for real.

    Attributes:
        state_file: where the note of the running process is kept; empty for none. Written before the first event,
            removed after the end; :func:`leftovers.reap_leftover` uses it.
        tick_seconds: longest time between two events.
        clock: the monotonic clock.
        stderr_limit_bytes: how much of one process's stderr the file gets.
    """

    state_file: str = ""
    tick_seconds: float = 0.2
    clock: Callable[[], float] = time.monotonic
    stderr_limit_bytes: int = STDERR_FILE_BYTES

    def start(self, argv: Sequence[str], *, stderr_path: str, env: Mapping[str, str]) -> LlamaBenchProcess:
        """Start it; see :class:`events.Launcher`.

        Start it from the main thread: the kernel kills it when the *thread* that started it ends.

        Raises:
            RunnerError: it can't be started, or its note or its stderr can't be written.
        """
        return LlamaBenchProcess(
            argv,
            stderr_path=stderr_path,
            env=env,
            tick_seconds=self.tick_seconds,
            state_file=self.state_file,
            clock=self.clock,
            stderr_limit_bytes=self.stderr_limit_bytes,
        )


class LlamaBenchProcess:
    """One running llama-bench; a context manager that leaves nothing alive. Satisfies :class:`events.Process`."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stderr_path: str,
        env: Mapping[str, str],
        tick_seconds: float = 0.2,
        state_file: str = "",
        clock: Callable[[], float] = time.monotonic,
        stderr_limit_bytes: int = STDERR_FILE_BYTES,
    ) -> None:
        self._clock, self._tick_seconds, self._state_file = clock, tick_seconds, state_file
        self._stderr_limit_bytes = stderr_limit_bytes
        self._killed = self._reaped = False
        self._stdout, self._stderr = _Lines(), _Lines()
        self._log = _Log()
        token = secrets.token_hex(16)
        guard = [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), *argv]
        self._oom_kills_before = oom_kill_count()
        self._started_at = clock()
        with contextlib.ExitStack() as undo:
            try:
                self._stderr_file = undo.enter_context(Path(stderr_path).open("ab", buffering=0))
                self._process = subprocess.Popen(
                    guard,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    env={**env, TOKEN_VARIABLE: token},
                )
                undo.callback(self._end)
                if state_file:
                    note = RunningNote(self.pid, start_ticks(self.pid) or 0, boot_id(), token)
                    write_note(state_file, note)
            except OSError as error:
                raise RunnerError(
                    f"llama-bench can't be started: {error.strerror or error}: {error.filename or argv[0]}.",
                    "Check the binary and that the state folder can be written.",
                ) from error
            undo.pop_all()

    @property
    def pid(self) -> int:
        """Its process id, which is the id of its group and session too."""
        return self._process.pid

    @property
    def log_head(self) -> str:
        """The first part of stderr, at most 1 MiB: with ``-v`` the load log stands here."""
        return self._log.head.decode("utf-8", "replace")

    @property
    def log_tail(self) -> str:
        """The last part of stderr, at most 64 KiB: the message of a crash stands here."""
        return self._log.tail.decode("utf-8", "replace")

    def __enter__(self) -> LlamaBenchProcess:  # noqa: PYI034  (Self is not in Python 3.9)
        return self

    def __exit__(self, *details: object) -> None:
        self._end()

    def kill(self) -> None:
        """End the whole group now (SIGKILL); what it had printed comes from :meth:`events` before ``Exited``."""
        if not self._reaped:
            self._killed = self._killed or not has_ended(self.pid)
            kill_group(self.pid)

    def events(self) -> Iterator[Event]:
        """Everything that happens, until and with ``Exited``; a ``Tick`` at least every ``tick_seconds``.

        Raises:
            RunnerError: the process was killed and is still not gone after half a minute.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(pipe_of(self._process.stdout), selectors.EVENT_READ, self._read_stdout)
            selector.register(pipe_of(self._process.stderr), selectors.EVENT_READ, self._read_stderr)
            next_tick = self._clock() + self._tick_seconds
            ended_at: float | None = None
            yield Tick(self._started_at, 0.0)
            while True:
                ready = selector.select(0 if ended_at is not None else max(0.0, min(next_tick - self._clock(), 0.05)))
                for key, _ in ready:
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    yield from key.data(data)
                now = self._clock()
                if ended_at is None and has_ended(self.pid):
                    # While its corpse is there its id can't be taken by another, so this kills its own group only.
                    kill_group(self.pid)
                    ended_at = now
                elif ended_at is not None and (not selector.get_map() or not ready or now > ended_at + DRAIN_SECONDS):
                    break
                if now >= next_tick:
                    next_tick = now + self._tick_seconds
                    yield Tick(now, now - self._started_at)
        yield from self._read_stdout(b"")
        yield from self._read_stderr(b"")
        yield self._exited()

    def _read_stdout(self, data: bytes) -> Iterator[Event]:
        for line in self._stdout.feed(data):
            if not line.strip():
                continue
            try:
                yield RowLine(self._clock(), parse_row(line))
            except RowError as error:
                yield Garbage(self._clock(), line[:200], error.problem)

    def _read_stderr(self, data: bytes) -> Iterator[Event]:
        room = self._stderr_limit_bytes - self._log.seen
        if data and room > 0:
            try:
                self._stderr_file.write(data[:room])
            except OSError:
                # A full disk: the journal, which is the truth, says so itself; the log in memory goes on.
                self._stderr_limit_bytes = 0
        self._log.add(data)
        for line in self._stderr.feed(data):
            progress = parse_progress(line)
            if progress is not None:
                yield ProgressLine(self._clock(), progress)

    def _exited(self) -> Exited:
        self._end()
        now, returncode = self._clock(), self._process.returncode
        return Exited(
            now,
            now - self._started_at,
            returncode if returncode >= 0 else None,
            -returncode if returncode < 0 else None,
            self._killed,
            max(0, oom_kill_count() - self._oom_kills_before),
        )

    def _end(self) -> None:
        """Kill the group, reap the process, close the files, remove the note; harmless when done before."""
        if self._reaped:
            return
        self.kill()
        try:
            self._process.wait(REAP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise RunnerError(
                f"llama-bench (process {self.pid}) was killed and is still there: the kernel holds it.",
                "A GPU driver or a disk that hangs is the usual cause; restart the machine.",
            ) from error
        self._reaped = True
        for file in (self._process.stdout, self._process.stderr, self._stderr_file):
            pipe_of(file).close()
        if self._state_file:
            Path(self._state_file).unlink(missing_ok=True)


class _Lines:
    """Cuts bytes into lines; what exceeds :data:`LINE_LIMIT` of a line is thrown away."""

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[str]:
        """The lines that ``data`` completes; the end of the stream (no data) completes the last one."""
        if not data:
            last, self._partial = bytes(self._partial), bytearray()
            return [last.decode("utf-8", "replace")] if last else []
        *whole, rest = data.split(b"\n")
        lines = []
        for piece in whole:
            self._add(piece)
            lines.append(self._partial.decode("utf-8", "replace"))
            self._partial = bytearray()
        self._add(rest)
        return lines

    def _add(self, piece: bytes) -> None:
        self._partial += piece[: max(0, LINE_LIMIT - len(self._partial))]


class _Log:
    """The beginning and the end of a stream."""

    def __init__(self) -> None:
        self.head, self.tail, self.seen = bytearray(), bytearray(), 0

    def add(self, data: bytes) -> None:
        self.seen += len(data)
        self.head += data[: max(0, LOG_HEAD_BYTES - len(self.head))]
        self.tail += data
        if len(self.tail) > 2 * LOG_TAIL_BYTES:
            del self.tail[:-LOG_TAIL_BYTES]
