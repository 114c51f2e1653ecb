from __future__ import annotations

import json
import math

import pytest
from benchctl import stats
from raw_runs import ROWS


def test_mean_is_llama_benchs_own() -> None:
    """The mean of the samples' speeds is what llama-bench calls avg_ts, on real rows."""
    for line in ROWS.read_text().splitlines():
        row = json.loads(line)
        speed = stats.speed(row["n_prompt"] + row["n_gen"], row["samples_ns"])
        assert speed is not None
        assert speed.mean == pytest.approx(row["avg_ts"], rel=1e-6)


def test_mean_of_speeds_is_not_tokens_over_mean_time() -> None:
    """Samples of 1 s and 3 s of 300 tokens are 200 tokens/s on average, not 150."""
    speed = stats.speed(300, [1_000_000_000, 3_000_000_000])
    assert speed is not None
    assert (speed.mean, speed.median, speed.samples) == (200, 200, 2)


def test_confidence_interval_of_five_samples() -> None:
    """Speeds 8, 9, 10, 11, 12: mean 10, deviation sqrt(2.5), t = 2.7764 (NIST's table), so 10 +- 1.9632."""
    speed = stats.speed(1, [round(1e9 / value) for value in (8, 9, 10, 11, 12)])
    assert speed is not None
    assert speed.stddev == pytest.approx(math.sqrt(2.5), rel=1e-6)
    assert speed.ci_low == pytest.approx(10 - 1.9632, abs=1e-3)
    assert speed.ci_high == pytest.approx(10 + 1.9632, abs=1e-3)


def test_one_sample_has_no_interval() -> None:
    """One sample says nothing of its spread."""
    speed = stats.speed(16, [1_000_000_000])
    assert speed is not None
    assert (speed.mean, speed.stddev, speed.ci_low, speed.ci_high) == (16, None, None, None)


def test_no_samples_no_speed() -> None:
    """Without samples there is no speed, not one of 0."""
    assert stats.speed(16, []) is None


def test_interval_never_goes_below_zero() -> None:
    """Two samples that disagree wildly don't give a negative speed."""
    speed = stats.speed(1, [10_000_000, 1_000_000_000])
    assert speed is not None
    assert speed.ci_low == 0


@pytest.mark.parametrize(("degrees", "expected"), [(1, 12.7062), (4, 2.7764), (11, 2.2281), (1000, 1.9799)])
def test_quantile(degrees: int, expected: float) -> None:
    """Between two entries the table's wider interval is taken."""
    assert stats.student_t_95(degrees) == expected


def test_quantile_needs_a_degree_of_freedom() -> None:
    """No degree of freedom is an error, not an infinite interval."""
    with pytest.raises(ValueError, match="two samples"):
        stats.student_t_95(0)


def test_price_of_a_million_tokens() -> None:
    """0.36 USD/h at 100 tokens/s is 360,000 tokens an hour: 1 USD a million."""
    assert stats.usd_per_million_tokens(0.36, 100) == pytest.approx(1.0)


@pytest.mark.parametrize(("price", "speed"), [(None, 100.0), (0.36, None), (0.36, 0.0)])
def test_price_unknown(price: float | None, speed: float | None) -> None:
    """Without a price or a speed there is no price of tokens; a price of 0 is one."""
    assert stats.usd_per_million_tokens(price, speed) is None
    assert stats.usd_per_million_tokens(0.0, 10.0) == 0
