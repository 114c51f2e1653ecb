"""What to save is said for the causes that matter."""

from __future__ import annotations

from benchctl.savings import ADVICE, CAUSES, hints


def test_the_largest_cause_comes_first_and_small_ones_are_left_out() -> None:
    """Shares, hours and money in each sentence; nothing under three per cent, nothing without advice."""
    found = list(
        hints(
            {"timeouts": 3600 * 44.0, "samples": 3600 * 40.0, "image": 3600 * 1.0, "other": 3600 * 15.0},
            {"timeouts": {"USD": 12.5, "EUR": 1.0}, "samples": {"USD": 0.0}},
        )
    )
    assert [line.split(":")[0] for line in found] == ["Time-outs", "Samples"]
    assert found[0].startswith("Time-outs: 44% (44.0 h, 1.00 EUR and 12.50 USD). To save: ")
    assert found[1].startswith("Samples: 40% (40.0 h). To save: ")


def test_no_time_no_hint() -> None:
    """Nothing on record, nothing said."""
    assert list(hints({}, {})) == []
    assert list(hints({"timeouts": 0.0}, {})) == []


def test_advice_is_for_causes_that_there_are() -> None:
    """Every piece of advice belongs to a cause of the table 'job_time'."""
    assert set(ADVICE) <= set(CAUSES)
