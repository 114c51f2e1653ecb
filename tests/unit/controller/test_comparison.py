from __future__ import annotations

import math
import random
from statistics import fmean

import pytest
from benchctl.comparison import (
    DEFAULT_STDDEV,
    LEAST_STDDEV,
    Between,
    Look,
    Scatter,
    between_instances,
    compare,
)

CERTAIN = Between(1e-8, 10_000, "pool")
"""Instances that hardly differ, which is well known."""


def run(speed: float, spread: float = 0.0, samples: int = 5) -> tuple[float, int, list[int]]:
    """A run of 128 tokens at this speed, its samples spread evenly."""
    steps = [spread * (2 * place / (samples - 1) - 1) if samples > 1 else 0.0 for place in range(samples)]
    return speed, 128, [round(128e9 / (speed * (1 + step))) for step in steps]


def test_scatter_of_one_group_and_of_several() -> None:
    """Groups of 2 and 3 around their own means: squares 0.5 and 2, degrees of freedom 1 and 2."""
    two, three = Scatter.of([1.0, 2.0]), Scatter.of([1.0, 2.0, 3.0])
    assert (two.variance, three.variance) == (0.5, 1.0)
    both = Scatter.pooled([two, three, Scatter.of([7.0])])
    assert (both.sum_of_squares, both.degrees_of_freedom, both.groups, both.members) == (2.5, 3, 2, 5)
    assert Scatter.of([7.0]).variance is None


def test_a_familys_own_scatter_is_steadied_by_the_pool() -> None:
    """Pool 0.01 with 4 degrees of freedom and own 0.0001 with 4: the middle, with 8."""
    own = Scatter(0.0004, 4, 1, 5)
    pool = Scatter(1.0, 100, 30, 130)
    between = between_instances(own, pool, "family", "cpu")
    assert between.variance == pytest.approx((4 * 0.01 + 0.0004) / 8)
    assert (between.degrees_of_freedom, between.source) == (8, "family")


def test_where_the_variance_comes_from() -> None:
    """Own replicas or family first, then the pool, then the value that stands in; each answer says which."""
    nothing, pool = Scatter(), Scatter(1.0, 100, 30, 130)
    assert between_instances(nothing, pool, "family", "cpu").source == "pool"
    default = between_instances(nothing, nothing, "family", "gpu")
    assert (default.source, default.stddev) == ("default", pytest.approx(DEFAULT_STDDEV["gpu"]))
    replicas = Scatter.of([1.0, 1.02, 0.98])
    alone = between_instances(replicas, replicas, "replicas", "cpu")
    assert (alone.source, alone.degrees_of_freedom) == ("replicas", 2)
    assert alone.variance == pytest.approx(replicas.variance)


def test_instances_that_agree_by_luck() -> None:
    """Replicas of exactly the same speed leave a variance, however small: nothing is certain."""
    same = Scatter.of([1.0, 1.0, 1.0])
    assert between_instances(same, same, "replicas", "cpu").stddev == LEAST_STDDEV


def test_no_verdict_on_the_spread_within_a_run_alone() -> None:
    """Two runs whose samples don't overlap by far: no difference where instances vary by 2 %, one where they don't."""
    fast, slow = run(103, 0.001), run(100, 0.001)
    vary = Between(0.02**2, 20, "family")
    assert compare(Look.at([slow], vary), Look.at([fast], vary)).verdict == "no difference shown"
    assert compare(Look.at([slow], CERTAIN), Look.at([fast], CERTAIN)).verdict == "B faster"
    assert compare(Look.at([fast], CERTAIN), Look.at([slow], CERTAIN)).verdict == "A faster"


def test_the_interval_by_hand() -> None:
    """Instances vary by 2 %, known with 20 degrees of freedom: log ratio +- 2.0860 * sqrt(2) * 0.02."""
    vary = Between(0.02**2, 20, "family")
    found = compare(Look.at([run(100)], vary), Look.at([run(110)], vary))
    half = 2.0860 * math.sqrt(2) * 0.02
    assert found.ratio == pytest.approx(1.1)
    assert found.ratio_low == pytest.approx(1.1 * math.exp(-half), rel=1e-5)
    assert found.ratio_high == pytest.approx(1.1 * math.exp(half), rel=1e-5)
    assert found.verdict == "B faster"
    assert found.p_value == pytest.approx(0.0031, abs=1e-4)


def test_more_comparisons_need_more_evidence() -> None:
    """What one comparison shows, the same among fifty does not: its interval is wider and its p fifty times larger."""
    vary = Between(0.02**2, 20, "family")
    a, b = Look.at([run(100)], vary), Look.at([run(110)], vary)
    one, fifty = compare(a, b), compare(a, b, 50)
    assert fifty.verdict == "no difference shown"
    assert fifty.ratio_low < 1 < one.ratio_low
    assert fifty.p_value == pytest.approx(50 * one.p_value)
    with pytest.raises(ValueError, match="at least one"):
        compare(a, b, 0)


def test_noise_within_a_run_counts_too() -> None:
    """A run whose samples scatter by tens of percent knows its mean badly, and so does the comparison."""
    calm, wild = Look.at([run(100)], CERTAIN), Look.at([run(130, 0.5)], CERTAIN)
    assert wild.within > 0.01
    assert compare(calm, wild).verdict == "no difference shown"


def test_replicas_know_the_mean_better() -> None:
    """Four instances halve the standard error between instances; their speed is the geometric mean."""
    vary = Between(0.04**2, 20, "replicas")
    one, four = Look.at([run(100)], vary), Look.at([run(speed) for speed in (50, 100, 100, 200)], vary)
    assert four.between_part == pytest.approx(one.between_part / 4)
    assert four.speed == pytest.approx(100)
    low, high = one.interval()
    assert low == pytest.approx(100 * math.exp(-2.0860 * 0.04), rel=1e-4)
    assert high == pytest.approx(100 * math.exp(2.0860 * 0.04), rel=1e-4)


def test_one_sample_is_a_look_too() -> None:
    """A run with one sample has no scatter within; the variance between instances still makes an interval."""
    look = Look.at([run(100, samples=1)], Between(0.02**2, 20, "pool"))
    assert (look.within, look.within_degrees_of_freedom) == (0, 0)
    assert compare(look, look).verdict == "no difference shown"


@pytest.mark.parametrize("comparisons", [1, 20])
def test_equal_hardware_is_rarely_called_different(comparisons: int) -> None:
    """Simulated families of four with normal scatter between instances: the share of false verdicts keeps its level."""
    chance = random.Random(1)  # noqa: S311 - a simulation that is the same each time
    false = []
    for _ in range(400):
        families = [[chance.gauss(5, 0.03) for _ in range(4)] for _ in range(6)]
        pool = Scatter.pooled(map(Scatter.of, families))
        between = between_instances(Scatter.of(families[0]), pool, "family", "cpu")
        newcomers = [Look.at([run(math.exp(chance.gauss(5, 0.03)), 0.002)], between) for _ in range(2)]
        false.append(compare(*newcomers, comparisons).verdict != "no difference shown")
    assert fmean(false) <= 0.05 / comparisons + 0.02
