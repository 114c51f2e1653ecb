"""How far a build is, for a person: one line that is drawn over on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

SECONDS_BETWEEN_LINES = 15.0
"""Where there is no terminal: often enough to see that it lives, seldom enough for a log."""


def eta_text(elapsed_seconds: float, done: int, total: int) -> str:
    """``about 2 min left``, from the steps so far; empty while too few are done to tell."""
    if done < 5 or done >= total:
        return ""
    seconds = elapsed_seconds / done * (total - done)
    return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {max(seconds, 1):.0f} s left"


class Steps:
    """Shows ``done/total`` of a build; a context manager that leaves the terminal tidy."""

    def __init__(
        self, stream: TextIO, report: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._report, self._clock = stream, report, clock
        self._live = stream.isatty()
        self._started = self._said = clock()
        self._drawn = False

    def __enter__(self) -> Self:
        self._started = self._said = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def show(self, done: int, total: int, what: str) -> None:
        """Take note of one finished step."""
        now = self._clock()
        text = f"{done}/{total} steps{eta_text(now - self._started, done, total)}"
        if self._live:
            filled = 24 * done // total
            bar = f"  [{'#' * filled}{'.' * (24 - filled)}] {text}  {what.rsplit('/', 1)[-1]}"
            self._stream.write("\r" + bar[: shutil.get_terminal_size().columns - 1] + "\x1b[K")
            self._stream.flush()
            self._drawn = True
        elif now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            self._report(f"  {text}")
