"""How fast bytes arrive, and when that is too slow."""

from __future__ import annotations

import pytest
from llama_bench_core.pace import Pace, too_slow


def test_the_speed_is_that_of_the_window() -> None:
    """An early burst is forgotten."""
    pace = Pace(window_seconds=10)
    pace.mark(0, 0)
    pace.mark(1, 1000)
    for second in range(2, 30):
        pace.mark(second, 1000 + 10 * second)
    assert pace.bytes_per_second == pytest.approx(10)
    assert pace.measured_seconds == 29


def test_one_moment_gives_no_speed() -> None:
    """There is nothing to compare it with."""
    pace = Pace()
    assert pace.bytes_per_second is None
    pace.mark(5, 100)
    assert pace.bytes_per_second is None
    assert pace.measured_seconds == 0


def test_a_download_that_begins_anew_has_no_negative_speed() -> None:
    """What was lost is no measure of the line."""
    pace = Pace()
    pace.mark(0, 0)
    pace.mark(1, 100)
    pace.mark(2, 0)
    pace.mark(3, 50)
    assert pace.bytes_per_second == pytest.approx(50)


def test_bytes_there_from_an_earlier_session_are_not_counted_as_speed() -> None:
    """Only what arrives now tells the bandwidth."""
    pace = Pace()
    pace.mark(0, 1_000_000)
    pace.mark(10, 1_000_100)
    assert pace.bytes_per_second == pytest.approx(10)


@pytest.mark.parametrize(
    ("left", "speed", "measured", "patience", "expected"),
    [
        (1000, 10.0, 60, 100, False),  # it takes just as long as it is worth
        (1001, 10.0, 60, 100, True),
        (1001, 10.0, 9, 100, False),  # too early to tell
        (0, 10.0, 60, 0, False),  # it is there
        (1000, 0.0, 60, 100, False),  # nothing comes, but it may yet
        (1000, 0.0, 100, 100, True),  # nothing came for as long as it was worth waiting for
        (1000, None, 100, 100, True),
    ],
)
def test_too_slow_compares_what_is_to_come_with_the_patience(
    left: int, speed: float | None, measured: float, patience: float, expected: bool
) -> None:
    """A sentence when it would come too late, nothing otherwise."""
    said = too_slow(
        bytes_left=left, bytes_per_second=speed, measured_seconds=measured, patience_seconds=patience, settle_seconds=10
    )
    assert bool(said) is expected
    assert "\n" not in said


def test_the_sentence_has_the_figures() -> None:
    """A person can check the judgement."""
    said = too_slow(bytes_left=40_000_000_000, bytes_per_second=2e6, measured_seconds=60, patience_seconds=600)
    assert "2.0 MB/s" in said
    assert "40.00 GB" in said
    assert "20000 s" in said
    assert "600 s" in said
