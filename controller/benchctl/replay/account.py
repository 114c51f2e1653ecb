"""Where the recorded hours went, by cause. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchctl.replay.recording import Recorded

CAUSES = (
    "image pull",
    "waiting for downloads",
    "probing layers",
    "load",
    "warm-up",
    "samples",
    "scenarios without a row",
    "never recorded",
    "other",
)
"""What hours are spent on, theirs and ours, in this order.

``scenarios without a row`` are runs that ended without a score: time-outs, cut samples, crashes. ``never recorded`` is
time that ours spends on scenarios that theirs never tried, as predicted. ``other`` is what the log has no step for.
"""


def theirs(recorded: Recorded) -> Mapping[str, float]:
    """Seconds by cause of a recorded run; they add up to its billed time."""
    seconds = dict.fromkeys(CAUSES, 0.0)
    for cause, spent in recorded.causes.items():
        seconds[cause] += spent
    for one in recorded.tried:
        if not one.samples_ns:
            seconds["scenarios without a row"] += one.seconds
            continue
        seconds["samples"] += one.sample_seconds
        seconds["warm-up"] += one.warmup_seconds
        seconds["load"] += one.load_seconds
    # a row's times exceed its process's by the rounding of the log, or not at all
    seconds["other"] += recorded.seconds - sum(seconds.values())
    return seconds
