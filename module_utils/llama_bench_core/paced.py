"""A llama-bench that plays a recording in scaled time, followed by a clock that runs at the same pace.

A rehearsal's llama-bench says in ``--version`` how many recorded seconds pass in one (:attr:`command.Binary.pace`). All
limits are in recorded seconds, so the times of its events are stretched by the same factor. A limit is then noticed by
so much later as the pace is faster: a tick is a fifth of a second of real time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .events import Exited, Tick

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .events import Event, Launcher, Process


class PacedLauncher:
    """Starts what another launcher starts, and tells its times in played seconds; satisfies ``events.Launcher``."""

    def __init__(self, launcher: Launcher, pace: float) -> None:
        self._launcher, self._pace = launcher, pace

    def start(self, argv: Sequence[str], *, stderr_path: str, env: Mapping[str, str]) -> PacedProcess:
        """Start it."""
        return PacedProcess(self._launcher.start(argv, stderr_path=stderr_path, env=env), self._pace)


class PacedProcess:
    """A process whose events come in played time; satisfies ``events.Process``."""

    def __init__(self, process: Process, pace: float) -> None:
        self._process, self._pace = process, pace

    @property
    def pid(self) -> int:
        """As it is."""
        return self._process.pid

    @property
    def log_head(self) -> str:
        """As it is."""
        return self._process.log_head

    @property
    def log_tail(self) -> str:
        """As it is."""
        return self._process.log_tail

    def __enter__(self) -> PacedProcess:  # noqa: PYI034  (Self is not in Python 3.9)
        """Enter the real one."""
        self._process.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        """Leave the real one."""
        self._process.__exit__(*details)

    def kill(self) -> None:
        """Kill the real one."""
        self._process.kill()

    def events(self) -> Iterator[Event]:
        """Its events, stretched."""
        for event in self._process.events():
            if isinstance(event, (Tick, Exited)):
                yield replace(event, at=event.at * self._pace, elapsed=event.elapsed * self._pace)
            else:
                yield replace(event, at=event.at * self._pace)
