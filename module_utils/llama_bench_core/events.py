"""What a running llama-bench tells, as typed events; and the protocol that a real, recorded or scripted run follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Union

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .rows import Progress, Row


@dataclass(frozen=True)
class RowLine:
    """A row on stdout; ``at`` is a reading of the monotonic clock in seconds, as in all events."""

    at: float
    row: Row


@dataclass(frozen=True)
class Garbage:
    """A line on stdout that is no row.

    Attributes:
        at: seconds of the monotonic clock.
        text: the beginning of the line.
        problem: why it is no row, one sentence.
    """

    at: float
    text: str
    problem: str


@dataclass(frozen=True)
class ProgressLine:
    """A line of ``--progress`` on stderr."""

    at: float
    progress: Progress


@dataclass(frozen=True)
class Tick:
    """Time has passed: the first event, and then at least one every ``tick_seconds``, so that limits can be judged.

    Attributes:
        at: seconds of the monotonic clock.
        elapsed: seconds since the process was started.
    """

    at: float
    elapsed: float


@dataclass(frozen=True)
class Exited:
    """The process is gone, with its whole group; always the last event.

    Attributes:
        at: seconds of the monotonic clock.
        elapsed: seconds since the process was started.
        returncode: its exit status, or ``None`` when a signal ended it.
        signal: the signal that ended it, or ``None``.
        killed: we ended it ourselves (:meth:`Process.kill`).
        oom_kills: processes that the kernel killed for want of memory while it ran, on the whole machine.
    """

    at: float
    elapsed: float
    returncode: int | None
    signal: int | None
    killed: bool = False
    oom_kills: int = 0


Event = Union[RowLine, Garbage, ProgressLine, Tick, Exited]


class Process(Protocol):
    """One run of llama-bench, real or recorded. Use it as a context manager: leaving the block kills it."""

    @property
    def pid(self) -> int:
        """Its process id, and the id of its group; 0 for one that is no real process."""

    @property
    def log_head(self) -> str:
        """The first part of stderr: with ``-v`` the load log stands here."""

    @property
    def log_tail(self) -> str:
        """The last part of stderr: the message of a crash stands here."""

    def __enter__(self) -> Process:  # noqa: PYI034  (Self is not in Python 3.9)
        """Give the started process."""

    def __exit__(self, *details: object) -> None:
        """Kill and reap what is still alive."""

    def events(self) -> Iterator[Event]:
        """Everything that happens, until and with :class:`Exited`."""

    def kill(self) -> None:
        """End the whole process group now. :meth:`events` then gives what was printed before, and ``Exited``."""


class Launcher(Protocol):
    """What starts llama-bench: :class:`runner.Runner` for real, :class:`playback.Playback` from recorded times."""

    def start(self, argv: Sequence[str], *, stderr_path: str, env: Mapping[str, str]) -> Process:
        """Start it.

        Args:
            argv: the binary and its arguments, as :func:`command.arguments` makes them.
            stderr_path: file to which its stderr is appended.
            env: its whole environment, as :func:`command.environment` makes it.

        Raises:
            runner.RunnerError: it can't be started.
        """
