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


@pytest.mark.parametrize("degrees", sorted(stats.T_95))
def test_quantiles_are_those_of_the_table(degrees: int) -> None:
    """The computed quantile of every degree of freedom is the printed one."""
    assert stats.student_t_quantile(0.05, degrees) == pytest.approx(stats.T_95[degrees], abs=6e-5)


@pytest.mark.parametrize(("p", "degrees"), [(0.5, 3), (0.99, 3), (1e-6, 1), (1e-9, 4.5), (0.05, 0.7), (0.001, 5000)])
def test_quantile_turns_probability_round(p: float, degrees: float) -> None:
    """What is exceeded with probability p is exceeded with probability p, also far out and between whole degrees."""
    assert stats.student_t_p(stats.student_t_quantile(p, degrees), degrees) == pytest.approx(p, rel=1e-9)


def test_known_tails() -> None:
    """With one degree of freedom t is Cauchy's: half of it lies beyond 1, and 0 is exceeded for certain."""
    assert stats.student_t_p(1.0, 1) == pytest.approx(0.5, rel=1e-12)
    assert stats.student_t_p(0.0, 3) == 1
    # R: 2 * pt(-4.587, 10)
    assert stats.student_t_p(-4.587, 10) == pytest.approx(0.000999837, rel=1e-5)


def test_what_has_no_quantile() -> None:
    """A probability of 0 or 1, and no degree of freedom, are errors."""
    for p in (0.0, 1.0):
        with pytest.raises(ValueError, match="probability"):
            stats.student_t_quantile(p, 3)
    with pytest.raises(ValueError, match="degree of freedom"):
        stats.student_t_p(1.0, 0)


def test_scatter_of_the_logarithms() -> None:
    """Samples of 1 s and 2 s differ by log 2: a variance of (log 2)^2 / 2; one sample has none."""
    assert stats.log_variance(16, [1_000_000_000, 2_000_000_000]) == pytest.approx(math.log(2) ** 2 / 2)
    assert stats.log_variance(16, [1_000_000_000]) is None


def test_tokens_for_the_money() -> None:
    """0.36 an hour at 100 tokens/s: a million tokens for each unit of the currency; none without a price."""
    assert stats.tokens_per_unit_of_money(0.36, 100) == pytest.approx(1e6)
    assert stats.cost_per_million_tokens(0.36, 100) == pytest.approx(1)
    assert stats.tokens_per_unit_of_money(None, 100) is None
    assert stats.tokens_per_unit_of_money(0.0, 100) is None
    assert stats.tokens_per_unit_of_money(0.36, None) is None
