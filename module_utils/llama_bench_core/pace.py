"""How fast bytes arrive, when what is to come will be there, and when that is too late. Pure."""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 15.0
"""A speed is the mean of so much of the past: long enough to smooth the end of one range and the start of the next."""

SETTLE_SECONDS = 10.0
"""No download is judged by less than this: connections start slowly."""


class Pace:
    """Bytes per second over the last moments.

    A monotonic time and a growing total go in, at whatever moments; the speed comes out.
    """

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window = window_seconds
        self._marks: deque[tuple[float, int]] = deque()
        self._began: float | None = None

    def mark(self, now: float, total_bytes: int) -> None:
        """Note that ``total_bytes`` had arrived at ``now``; fewer than before means that it began from scratch."""
        if self._marks and total_bytes < self._marks[-1][1]:
            self._marks.clear()
        if self._began is None:
            self._began = now
        self._marks.append((now, total_bytes))
        while len(self._marks) > 2 and self._marks[1][0] <= now - self._window:
            self._marks.popleft()

    @property
    def bytes_per_second(self) -> float | None:
        """The speed over the window, or ``None`` before there are two moments to compare."""
        if len(self._marks) < 2:
            return None
        (then, before), (now, after) = self._marks[0], self._marks[-1]
        return (after - before) / (now - then) if now > then else None

    @property
    def measured_seconds(self) -> float:
        """For how long this has been measured, pauses and restarts included."""
        return self._marks[-1][0] - self._began if self._marks and self._began is not None else 0.0


def too_slow(
    *,
    bytes_left: int,
    bytes_per_second: float | None,
    measured_seconds: float,
    patience_seconds: float,
    settle_seconds: float = SETTLE_SECONDS,
) -> str:
    """Judge whether a model would arrive too late to be worth waiting for.

    Args:
        bytes_left: all that has still to come before the model can be used, what stands in line before it included.
        bytes_per_second: the measured bandwidth, or ``None`` while there is none. When nothing arrives at the moment,
            that is waited out for as long as the model was worth waiting for: a server may have asked for a pause.
        measured_seconds: for how long it has been measured.
        patience_seconds: how long the model is worth waiting for, from now.
        settle_seconds: below this ``measured_seconds`` nothing is judged, because connections start slowly.

    Returns:
        A sentence with the figures if it is too slow, otherwise an empty string.
    """
    if bytes_left <= 0 or measured_seconds < settle_seconds:
        return ""
    if not bytes_per_second or bytes_per_second <= 0:
        if measured_seconds < patience_seconds:
            return ""
        return f"Nothing arrives any more after {measured_seconds:.0f} s, {bytes_left / 1e9:.2f} GB before the end."
    needed_seconds = bytes_left / bytes_per_second
    if needed_seconds <= patience_seconds:
        return ""
    return (
        f"At {bytes_per_second / 1e6:.1f} MB/s the {bytes_left / 1e9:.2f} GB to come take {needed_seconds:.0f} s, "
        f"and {max(patience_seconds, 0):.0f} s are worth waiting for."
    )
