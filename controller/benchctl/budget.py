"""What a sweep has spent, what it has promised, and whether another server may start. Pure.

What is *committed* is what a sweep can cost at most as it stands: each live server from its launch to its expiry, and
each that is gone for as long as it existed. Nothing starts that could bring this above the budget, so that a sweep
stays within it whatever its servers do, as long as they are gone at their expiry. Prices are those at launch, in the
currency of the budget (:attr:`~benchctl.ledger.JobState.budget_per_hour`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from benchctl.db.prices import Rate
    from benchctl.ledger import JobState
    from benchctl.plan import Place, Price

WARN_AT = 0.8
"""Share of the budget, spent and promised, at which a sweep says so once."""

SECONDS_AT_LEAST: Mapping[str, int] = {"aws": 60, "gcp": 60}
"""Vendors that bill per second, but so many at least."""

BILLED_BY_THE_HOUR = frozenset({"hcloud", "hetzner", "upcloud"})
"""Vendors that bill each hour that was begun."""


@dataclass(frozen=True)
class Life:
    """One server that a job had.

    Attributes:
        launched_at: when it was asked for.
        expires_at: when it must be gone; nothing of one that is gone already.
        gone_at: when the cloud said that it is gone; nothing while it is alive.
        budget_per_hour: its price in the currency of the budget; nothing when unknown.
        price_per_hour: its price at launch, in ``currency``; nothing when unknown.
        currency: of the price.
    """

    launched_at: datetime
    expires_at: datetime | None
    gone_at: datetime | None
    budget_per_hour: float | None
    price_per_hour: float | None
    currency: str | None


def billed_seconds(vendor: str, seconds: float) -> float:
    """How long a vendor bills for a server that existed for ``seconds``."""
    if seconds <= 0:
        return 0.0
    if vendor in BILLED_BY_THE_HOUR:
        return math.ceil(seconds / 3600) * 3600.0
    return max(seconds, float(SECONDS_AT_LEAST.get(vendor, 0)))


def cost(vendor: str, per_hour: float, seconds: float) -> float:
    """What a server costs that exists for ``seconds``, in the currency of the price."""
    return per_hour * billed_seconds(vendor, seconds) / 3600


def committed(jobs: Iterable[JobState], now: datetime) -> float:
    """What the servers of these jobs can cost at most, in the currency of the budget.

    A live server that should be gone is reckoned up to now. Of a server of one's own it is the share of the budget
    that the plan has set aside for it: the most that it may measure, at its price.
    """
    return sum(_cost_of(job, now, promised=True) for job in jobs)


def spent(jobs: Iterable[JobState], now: datetime) -> float:
    """What the servers of these jobs have cost so far."""
    return sum(_cost_of(job, now, promised=False) for job in jobs)


def promise(job: JobState, per_hour: float | None = None) -> float:
    """What starting a job adds to what is committed: its price over its whole lifetime.

    Args:
        job: a job that has no live server.
        per_hour: the price where it shall start; without it that of its cheapest place. What its last server cost says
            nothing of the next: it may have stood in a dearer one.

    Raises:
        UsageError: the price is unknown.
    """
    prices = [one["budget_per_hour"] for one in job.places if one.get("budget_per_hour") is not None]
    price = per_hour if per_hour is not None else min(prices, default=job.budget_per_hour)
    if price is None:
        raise UsageError(
            f"There is a budget, and what {job.server} costs is unknown.",
            "Leave out --budget, or take in prices with 'benchctl catalog pull'.",
        )
    return cost(job.vendor, price, job.lifetime_seconds)


def may_start(
    job: JobState, jobs: Iterable[JobState], budget: float | None, now: datetime, per_hour: float | None = None
) -> bool:
    """Whether a job may start, with all others as they are.

    Args:
        job: the job.
        jobs: all jobs of the sweep, this one among them.
        budget: the most that the sweep may cost; nothing for no limit. With 0 nothing starts.
        now: the time.
        per_hour: the price where it shall start; see :func:`promise`.
    """
    if budget is None:
        return True
    if budget <= 0:
        return False
    # a cent's fraction of rounding must not keep the last server out
    return committed(jobs, now) + promise(job, per_hour) <= budget * (1 + 1e-9)


def raise_it(sweep: str) -> str:
    """What to do where the budget of a sweep is too little."""
    return f"'benchctl sweep --resume {sweep} --budget MONEY' goes on with a higher one"


def used_fraction(jobs: Iterable[JobState], budget: float | None, now: datetime) -> float:
    """Which share of the budget is spent or promised; 0 without one."""
    return committed(jobs, now) / budget if budget else 0.0


def _cost_of(job: JobState, now: datetime, *, promised: bool) -> float:
    if not job.rented:
        return cost(job.vendor, job.price_per_hour or 0.0, job.session_seconds) if promised else 0.0
    total = 0.0
    for life in lives(job):
        if life.budget_per_hour is None:
            continue
        end = life.gone_at or (max(now, life.expires_at) if promised and life.expires_at else now)
        total += cost(job.vendor, life.budget_per_hour, (end - life.launched_at).total_seconds())
    return total


def lives(job: JobState) -> Iterator[Life]:
    """Every server that the job had: the newest one, those before a sweep was resumed, and those of failed tries."""
    prices = (job.budget_per_hour, job.price_per_hour, job.currency)
    launched_at = _time(job.launched_at)
    if launched_at is not None:
        yield Life(launched_at, _time(job.expires_at), _time(job.gone_at), *prices)
    known = {launched_at}
    for one in (*job.past, *job.attempts):
        launched_at, gone_at = _time(one.get("launched_at")), _time(one.get("gone_at"))
        if launched_at is None or gone_at is None or launched_at in known:
            continue
        known.add(launched_at)
        # books of earlier versions say the price of the newest server alone
        own = (one.get("price_per_hour"), one.get("currency")) if "price_per_hour" in one else prices[1:]
        yield Life(launched_at, None, gone_at, one.get("budget_per_hour", job.budget_per_hour), *own)


def _time(text: str | None) -> datetime | None:
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def convert(price: Price, currency: str, rates: Mapping[str, Rate]) -> float:
    """A price per hour in another currency.

    Args:
        price: the price as it is listed.
        currency: into which.
        rates: what currencies are worth, see :func:`benchctl.db.prices.newest_rates`.

    Raises:
        UsageError: there is no rate for one of the two.
    """
    from benchctl.db.prices import factors, require_rate

    if price.currency == currency:
        return price.per_hour
    for one in (currency, price.currency):
        require_rate(one, rates)
    return price.per_hour * factors(currency, rates)[price.currency]


def budget_price(place: Place, currency: str | None, rates: Mapping[str, Rate]) -> float | None:
    """What a place costs per hour in the currency of the budget; nothing without a budget or a price.

    Raises:
        UsageError: there is no rate to convert it with.
    """
    return convert(place.price, currency, rates) if currency and place.price else None
