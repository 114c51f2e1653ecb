"""The few statistics of a measurement, and what a speed costs. Pure; no more than the standard library.

A measurement has two to five samples. Their interval says how well *this run* knows its own mean; it says nothing of
how far another instance of the same server type would lie from it.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

T_95: dict[int, float] = {
    1: 12.7062,
    2: 4.3027,
    3: 3.1824,
    4: 2.7764,
    5: 2.5706,
    6: 2.4469,
    7: 2.3646,
    8: 2.3060,
    9: 2.2622,
    10: 2.2281,
    15: 2.1314,
    20: 2.0860,
    30: 2.0423,
    60: 2.0003,
    120: 1.9799,
}
"""Quantiles of Student's t for a two-sided 95 % interval (0.975), by degrees of freedom.

NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, https://www.itl.nist.gov/div898/handbook/eda/section3/eda3672.htm,
and with four digits in any table of the distribution.
"""


class Speed(NamedTuple):
    """What the samples of one scenario say.

    Attributes:
        samples: their number.
        mean: mean of the samples' speeds, tokens/s. llama-bench's ``avg_ts`` and Spare Cores' score are this very mean:
            of speeds, not tokens over mean time (which is the harmonic mean, and a little lower).
        median: median of the speeds, tokens/s.
        stddev: sample standard deviation (n - 1) of the speeds, tokens/s; nothing for one sample.
        ci_low: lower end of the 95 % confidence interval of the mean, tokens/s, not below 0; nothing for one sample.
        ci_high: its upper end.
    """

    samples: int
    mean: float
    median: float
    stddev: float | None
    ci_low: float | None
    ci_high: float | None


def tokens_per_second(tokens: int, nanoseconds: int) -> float:
    """The speed of one sample."""
    return tokens * 1e9 / nanoseconds


def speed(tokens: int, samples_ns: Sequence[int]) -> Speed | None:
    """Sum up the samples of one scenario; nothing when there are none."""
    return Speed(len(samples_ns), *figures(tokens, samples_ns)) if samples_ns else None


def figures(tokens: int, samples_ns: Sequence[int]) -> tuple[float, float, float | None, float | None, float | None]:
    """Mean, median, standard deviation and 95 % interval of the speeds of at least one sample, as in :class:`Speed`.

    The standard library's ``stdev`` reckons in fractions: twenty times as long, for digits that nobody sees.
    """
    count = len(samples_ns)
    work = tokens * 1e9
    speeds = sorted([work / nanoseconds for nanoseconds in samples_ns])
    mean = sum(speeds) / count
    middle = count // 2
    median = speeds[middle] if count % 2 else (speeds[middle - 1] + speeds[middle]) / 2
    if count == 1:
        return mean, median, None, None, None
    squares = 0.0
    for one in speeds:
        squares += (one - mean) * (one - mean)
    stddev = math.sqrt(squares / (count - 1))
    half = (T_95.get(count - 1) or student_t_95(count - 1)) * stddev / math.sqrt(count)
    return mean, median, stddev, max(0.0, mean - half), mean + half


def student_t_95(degrees_of_freedom: int) -> float:
    """Quantile for a two-sided 95 % interval; between the table's entries the next smaller one, which is the safe side.

    Raises:
        ValueError: there is no interval without a degree of freedom.
    """
    if degrees_of_freedom < 1:
        raise ValueError("a confidence interval needs at least two samples")
    return T_95.get(degrees_of_freedom) or T_95[max(known for known in T_95 if known <= degrees_of_freedom)]


def log_variance(tokens: int, samples_ns: Sequence[int]) -> float | None:
    """Sample variance (n - 1) of the logarithms of the samples' speeds; nothing for fewer than two samples."""
    if len(samples_ns) < 2:
        return None
    return statistics.variance(math.log(tokens_per_second(tokens, nanoseconds)) for nanoseconds in samples_ns)


def student_t_p(t: float, degrees_of_freedom: float) -> float:
    """How likely Student's t is at least this far from 0 on either side; degrees of freedom need not be whole.

    By the regularised incomplete beta function: ``I(x; n/2, 1/2)`` with ``x = n / (n + t^2)``
    (https://dlmf.nist.gov/8.17).

    Raises:
        ValueError: there is no degree of freedom.
    """
    n = degrees_of_freedom
    if n <= 0:
        raise ValueError("Student's t needs a degree of freedom")
    return _incomplete_beta(n / 2, 0.5, n / (n + t * t))


def student_t_quantile(p: float, degrees_of_freedom: float) -> float:
    """The t that Student's t exceeds on either side with probability ``p``: :func:`student_t_p` turned round.

    Raises:
        ValueError: ``p`` is not between 0 and 1.
    """
    if not 0 < p < 1:
        raise ValueError(f"a probability lies between 0 and 1, not at {p}")
    n = degrees_of_freedom
    scale = math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2)) / math.sqrt(n * math.pi)
    t = 2.0
    for _ in range(100):
        # Newton's way on log p over log t, which is nearly a straight line far out
        tail = student_t_p(t, n)
        slope = 2 * scale * (1 + t * t / n) ** (-(n + 1) / 2) * t / tail
        step = math.log(tail / p) / slope
        t *= math.exp(max(-2.0, min(2.0, step)))
        if abs(step) < 1e-12:
            break
    return t


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (https://dlmf.nist.gov/8.17#v)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on this side only
        return 1 - _incomplete_beta(b, a, 1 - x)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    # Lentz's way of evaluating it from the front
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    fraction = d
    for m in range(1, 500):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + numerator * d) or tiny)
            c = (1 + numerator / c) or tiny
            fraction *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return math.exp(logarithm) * fraction / a


def cost_per_million_tokens(price_per_hour: float | None, speed_tokens_per_second: float | None) -> float | None:
    """What a million tokens cost at this speed, one request at a time, in the price's currency; none if unknown.

    ``price/h / (tokens/s * 3600 s/h) * 1e6``.
    """
    if price_per_hour is None or not speed_tokens_per_second:
        return None
    return price_per_hour / (speed_tokens_per_second * 3600) * 1e6


def tokens_per_unit_of_money(price_per_hour: float | None, speed_tokens_per_second: float | None) -> float | None:
    """How many tokens one unit of the price's currency buys, one request at a time; none if price or speed is unknown.

    ``tokens/s * 3600 s/h / (price/h)``.
    """
    if not price_per_hour or not speed_tokens_per_second:
        return None
    return speed_tokens_per_second * 3600 / price_per_hour


def usd_per_million_tokens(price_usd_per_hour: float | None, speed_tokens_per_second: float | None) -> float | None:
    """:func:`cost_per_million_tokens` of a price in US dollars."""
    return cost_per_million_tokens(price_usd_per_hour, speed_tokens_per_second)
