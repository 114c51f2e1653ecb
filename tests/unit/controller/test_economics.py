"""Time and money of a workload, against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
from benchctl.economics import Basis, Workload, economics, speed_at


def test_between_two_lengths_both_axes_are_logarithmic() -> None:
    """Speeds 100 at 16 and 400 at 256: at 64, half way in powers of two, it is the geometric mean, 200."""
    reading = speed_at({16: 100.0, 256: 400.0}, 64)
    assert reading is not None
    assert reading.tokens_per_second == pytest.approx(200)
    assert reading.basis is Basis.INTERPOLATED


def test_a_power_law_is_met_exactly() -> None:
    """Where speed is a power of the length, interpolation is no approximation."""
    measured = {n: 7.0 * n**0.3 for n in (16, 128, 512, 4096)}
    for tokens in (17, 100, 300, 2000, 4095):
        reading = speed_at(measured, tokens)
        assert reading is not None
        assert reading.tokens_per_second == pytest.approx(7.0 * tokens**0.3, rel=1e-9)


def test_at_a_measured_length_it_is_the_measurement() -> None:
    """Nothing is computed where something was measured."""
    reading = speed_at({16: 1.0, 128: 3.0, 512: 2.0}, 128)
    assert reading is not None
    assert (reading.tokens_per_second, reading.basis, reading.nearest_tokens) == (3.0, Basis.MEASURED, 128)


@pytest.mark.parametrize(("tokens", "nearest", "speed"), [(8, 16, 1.0), (513, 512, 2.0), (100_000, 512, 2.0)])
def test_nothing_is_extrapolated(tokens: int, nearest: int, speed: float) -> None:
    """Beyond the measured lengths the nearest speed stands in, and says so."""
    reading = speed_at({16: 1.0, 512: 2.0}, tokens)
    assert reading is not None
    assert (reading.tokens_per_second, reading.basis, reading.nearest_tokens) == (speed, Basis.BEYOND, nearest)


def test_no_speed_is_no_reading() -> None:
    """What was not measured has no speed."""
    assert speed_at({}, 16) is None


def test_a_workload_by_hand() -> None:
    """1000 tokens in at 500/s and 200 out at 20/s, for 1.80 an hour and half of the time: 3600 requests a day."""
    money = economics(Workload(1000, 200, 10_000, 0.5), 500.0, 20.0, 1.80)
    assert money.time_to_first_token_seconds == pytest.approx(2)
    assert money.request_seconds == pytest.approx(12)
    assert money.requests_per_day_per_server == pytest.approx(86400 * 0.5 / 12)  # 3600
    assert money.servers == 3
    assert money.busy_share == pytest.approx(10_000 * 12 / (86400 * 3))
    assert money.cost_per_month_per_server == pytest.approx(1.80 * 730)  # 1314
    assert money.cost_per_month == pytest.approx(3942)
    assert money.cost_per_million_tokens_in == pytest.approx(2.0)  # 1.80 / (500 * 3600) * 1e6 / 0.5
    assert money.cost_per_million_tokens_out == pytest.approx(50.0)
    assert money.cost_per_million_tokens == pytest.approx(10.0)  # 100 tokens/s over the whole request
    assert money.cost_per_million_tokens_as_used == pytest.approx(3942 / (10_000 * 1200 * 730 / 24) * 1e6)


def test_the_blended_cost_is_the_mean_of_both_in_the_workloads_proportion() -> None:
    """In and out, weighted with their tokens, give the blended figure."""
    money = economics(Workload(300, 700, None, 0.8), 123.0, 45.0, 0.9)
    assert money.cost_per_million_tokens_in is not None
    assert money.cost_per_million_tokens_out is not None
    mean = 0.3 * money.cost_per_million_tokens_in + 0.7 * money.cost_per_million_tokens_out
    assert money.cost_per_million_tokens == pytest.approx(mean)


def test_a_load_that_fits_exactly_needs_no_further_server() -> None:
    """Rounding must not buy a server."""
    one = economics(Workload(100, 100), 100.0, 10.0, 1.0).requests_per_day_per_server
    for servers in (1, 2, 3, 7):
        assert economics(Workload(100, 100, one * servers), 100.0, 10.0, 1.0).servers == servers
    assert economics(Workload(100, 100, one * 1.01), 100.0, 10.0, 1.0).servers == 2
    assert economics(Workload(100, 100, 0.001), 100.0, 10.0, 1.0).servers == 1


def test_without_a_price_there_is_time_and_no_money() -> None:
    """An unknown price makes no cost, and no cost is not zero."""
    money = economics(Workload(100, 100, 10), 100.0, 10.0, None)
    assert money.servers == 1
    assert math.isclose(money.request_seconds, 11)
    assert money.cost_per_month is None
    assert money.cost_per_million_tokens is None
    assert money.cost_per_million_tokens_as_used is None
