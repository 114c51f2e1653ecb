"""Is one server faster than another, or is it noise? Pure; no more than the standard library.

Two servers were measured, each on one instance or a few. A difference between the two numbers has three causes: the
server types differ, the instances happened to differ, and the samples of one run scatter. The last is seen in the
samples, and is mostly the smallest. The second is not seen in a run at all, so it comes from elsewhere: from replicas
(several instances of one server type) or from families (server types that are the same hardware). docs/comparing.md has
the formulas and how they were checked.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from benchctl import stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Source = Literal["replicas", "family", "pool", "default"]
Verdict = Literal["A faster", "B faster", "no difference shown"]

CONFIDENCE = 0.95

PRIOR_DEGREES_OF_FREEDOM = 4
"""How many degrees of freedom the pool counts for beside a server's own replicas or family.

Families differ in how much their members scatter, and few members can agree by luck. With 4, under 5 % of the
same-hardware pairs of Spare Cores' data of April 2025 are called different in any of their scenarios; with 6 it would
be more (docs/comparing.md)."""

DEFAULT_STDDEV = {"gpu": 0.016, "cpu": 0.14}
"""Standard deviation between instances, of the logarithm of the speed, where the database has nothing to learn it from.

The pooled values over all families and scenarios of Spare Cores' data of April 2025 (docs/comparing.md)."""


LEAST_POOL_STDDEV = {"gpu": 0.016, "cpu": 0.016}
"""A pool is not believed to scatter less than this: it may by luck, where few families tell.

1.6 % is the pooled value over all GPU families and scenarios of Spare Cores' data of April 2025, whose single scenarios
range from 0.5 % to 3 % with nine families each."""

LEAST_STDDEV = 0.001
"""No two instances are taken to agree better than this, by whatever luck they did."""


@dataclass(frozen=True)
class Scatter:
    """How a group of instances that should be equal scatters, or several groups together.

    Attributes:
        sum_of_squares: squared deviations of log speeds from their group's mean.
        degrees_of_freedom: members less one, of each group.
        groups: how many groups.
        members: how many servers or instances in them.
    """

    sum_of_squares: float = 0.0
    degrees_of_freedom: int = 0
    groups: int = 0
    members: int = 0

    @classmethod
    def of(cls, log_speeds: Sequence[float]) -> Scatter:
        """Of one group; one member alone says nothing."""
        if len(log_speeds) < 2:
            return cls()
        mean = sum(log_speeds) / len(log_speeds)
        return cls(sum([(one - mean) ** 2 for one in log_speeds]), len(log_speeds) - 1, 1, len(log_speeds))

    @classmethod
    def pooled(cls, scatters: Iterable[Scatter]) -> Scatter:
        """Of several groups, each around its own mean."""
        found = list(scatters)
        return cls(
            math.fsum(one.sum_of_squares for one in found),
            sum(one.degrees_of_freedom for one in found),
            sum(one.groups for one in found),
            sum(one.members for one in found),
        )

    @property
    def variance(self) -> float | None:
        """Variance of the log speed between members; nothing without a degree of freedom."""
        return self.sum_of_squares / self.degrees_of_freedom if self.degrees_of_freedom else None


@dataclass(frozen=True)
class Between:
    """The variance between instances of one server type, and where it comes from.

    Attributes:
        variance: of the logarithm of the speed.
        degrees_of_freedom: how well it is known.
        source: ``replicas`` or ``family`` (each steadied by the pool), the ``pool`` of all replicas and families alone,
            or the ``default`` where there are none.
        own: what its own replicas or family scatter.
        pool: what all replicas and families scatter.
    """

    variance: float
    degrees_of_freedom: float
    source: Source
    own: Scatter = Scatter()
    pool: Scatter = Scatter()

    @property
    def stddev(self) -> float:
        """Standard deviation of the log speed: about the relative one."""
        return math.sqrt(self.variance)


@dataclass(frozen=True)
class Look:
    """What was measured of one server type in one scenario.

    Attributes:
        log_speed: mean over the instances of the logarithm of their speed in tokens/s.
        instances: how many were measured.
        within: the part of its variance that comes from the samples' scatter within the runs.
        within_degrees_of_freedom: how well that is known; 0 where no run has two samples.
        between: variance between instances of its type.
    """

    log_speed: float
    instances: int
    within: float
    within_degrees_of_freedom: float
    between: Between

    @classmethod
    def at(cls, runs: Sequence[tuple[float, int, Sequence[int]]], between: Between) -> Look:
        """From the runs, each as its speed in tokens/s, the tokens and the samples in ns."""
        logarithms = [math.log(speed) for speed, _, _ in runs]
        parts: list[tuple[float, int]] = []
        for _, tokens, samples_ns in runs:
            variance = stats.log_variance(tokens, samples_ns)
            if variance is not None:
                parts.append((variance / len(samples_ns) / len(runs) ** 2, len(samples_ns) - 1))
        within = math.fsum(part for part, _ in parts)
        return cls(statistics.fmean(logarithms), len(runs), within, _satterthwaite(parts), between)

    @property
    def speed(self) -> float:
        """Tokens/s; of several instances the geometric mean."""
        return math.exp(self.log_speed)

    @property
    def between_part(self) -> float:
        """The part of the variance of ``log_speed`` that comes from which instances it were."""
        return self.between.variance / self.instances

    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the server type's speed, tokens/s: what another instance may show included."""
        parts = [
            (self.between_part, self.between.degrees_of_freedom),
            (self.within, self.within_degrees_of_freedom),
        ]
        half = stats.student_t_quantile(1 - CONFIDENCE, _satterthwaite(parts)) * math.sqrt(
            self.between_part + self.within
        )
        return math.exp(self.log_speed - half), math.exp(self.log_speed + half)


@dataclass(frozen=True)
class Comparison:
    """Server type B against A in one scenario.

    Attributes:
        ratio: speed of B by speed of A.
        ratio_low: lower end of its confidence interval: with 95 % confidence all intervals of the answer hold at once.
        ratio_high: its upper end.
        p_value: how likely a ratio at least as far from 1 is between equal types, corrected for how many were compared.
        verdict: ``A faster`` or ``B faster`` where the interval leaves out 1, else ``no difference shown``.
    """

    ratio: float
    ratio_low: float
    ratio_high: float
    p_value: float
    verdict: Verdict


def between_instances(own: Scatter, pool: Scatter, source: Source, device: str) -> Between:
    """The variance between instances: a server's own, steadied by the pool, or the nearest that there is.

    ``(f s_pool^2 + d s_own^2) / (f + d)`` with ``f + d`` degrees of freedom, where ``f`` is 4, or fewer where the pool
    knows less: the moderated variance of Smyth, Stat. Appl. Genet. Mol. Biol. 3 (2004) 3.

    Args:
        own: of its replicas or its family.
        pool: of all replicas and families, ``own`` among them, on this kind of device, in this scenario.
        source: what ``own`` is of.
        device: ``cpu`` or ``gpu``.
    """
    others = pool.degrees_of_freedom - own.degrees_of_freedom
    if pool.variance is None or (others <= 0 and not own.degrees_of_freedom):
        return Between(DEFAULT_STDDEV[device] ** 2, PRIOR_DEGREES_OF_FREEDOM, "default")
    prior = min(PRIOR_DEGREES_OF_FREEDOM, max(0, others))
    degrees = prior + own.degrees_of_freedom
    pooled = max(pool.variance, LEAST_POOL_STDDEV[device] ** 2)
    variance = max((prior * pooled + own.sum_of_squares) / degrees, LEAST_STDDEV**2)
    return Between(variance, degrees, source if own.degrees_of_freedom else "pool", own, pool)


def compare(a: Look, b: Look, comparisons: int = 1) -> Comparison:
    """B against A, as one of so many ``comparisons`` in the same answer (Bonferroni).

    The standard error holds both servers' variance between instances and within their runs; its degrees of freedom are
    Welch and Satterthwaite's.

    Raises:
        ValueError: there is no comparison.
    """
    if comparisons < 1:
        raise ValueError("a comparison is at least one")
    if a.between == b.between:
        between = [(a.between_part + b.between_part, a.between.degrees_of_freedom)]
    else:
        between = [(one.between_part, one.between.degrees_of_freedom) for one in (a, b)]
    parts = [*between, *((one.within, one.within_degrees_of_freedom) for one in (a, b))]
    degrees = _satterthwaite(parts)
    error = math.sqrt(math.fsum(part for part, _ in parts))
    difference = b.log_speed - a.log_speed
    half = stats.student_t_quantile((1 - CONFIDENCE) / comparisons, degrees) * error
    p_value = min(1.0, comparisons * stats.student_t_p(difference / error, degrees))
    verdict: Verdict = "no difference shown"
    if abs(difference) > half:
        verdict = "B faster" if difference > 0 else "A faster"
    return Comparison(math.exp(difference), math.exp(difference - half), math.exp(difference + half), p_value, verdict)


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of variances, each with its own; parts of no variance or unknown ones don't count."""
    known = [(part, degrees) for part, degrees in parts if part > 0 and degrees > 0]
    if not known:
        return 0.0
    return math.fsum(part for part, _ in known) ** 2 / math.fsum(part**2 / degrees for part, degrees in known)
