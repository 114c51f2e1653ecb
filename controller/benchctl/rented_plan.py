"""What renting adds to a plan: how long a server may live, what that can cost, in which order, within a budget. Pure.

A rented server's *lifetime* is the time after which the cloud, or the reaper, ends it whatever happens: it is what the
budget reckons with, so that it must be neither too short (a good measurement is cut) nor too long (few may run at
once). It is made of

- an allowance for making, booting and preparing it (:data:`PREPARE_SECONDS`),
- the session: the most that measuring may take, which the module on the server keeps itself. That is the sum of the
  scenarios' own limits, or three times what is expected where that is less, because the expectation is a guess good to
  a factor of three; a quarter of an hour at least, because small guesses are the least certain,
- an allowance for fetching the results and destroying it (:data:`END_SECONDS`),

and never more than ``--max-hours``.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict, deque
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from benchctl import budget as money

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchctl.ledger import JobState
    from benchctl.plan import JobPlan, Price

PREPARE_SECONDS = 20 * 60
"""From asking for a server to the start of measuring, at most: creating (5 min), first boot and SSH (7), packages."""

PREPARE_SECONDS_OF: Mapping[str, int] = {"azure": 40 * 60}
"""Vendors where that differs: Azure takes up to half an hour to create some. The lab's containers are there in a
moment, but a hundred of them are prepared on the cores of this machine."""

END_SECONDS = 10 * 60
"""From the end of measuring to the proof that it is gone."""

USUAL_SECONDS = 8 * 60
"""What making, preparing and destroying take when all goes well, which the expected cost contains."""

BETWEEN_SECONDS = 60
"""What lies between the scenarios, and is in no limit of theirs."""

EXPECTED_TIMES = 3.0
SESSION_AT_LEAST = 15 * 60

DOWNLOAD_AT_WORST = 5e6
"""Bytes per second of a slow network, for servers whose time can't be expected."""

DISK_GB = 75
"""Size of the boot disk that is asked for, GB, unless the models need more."""

DISK_BESIDE_GB = 20
"""What the system, swap and raw results need beside the models, GB."""


def lived(job: JobPlan, max_hours: float, disk_gb: int) -> JobPlan:
    """The job with its session, lifetime and disk; left out where ``max_hours`` leave no time to measure.

    Args:
        job: a job of a rented server that has been planned otherwise.
        max_hours: how long a rented server may exist at most.
        disk_gb: size of the disk as it was asked for; 0 for what the models need.
    """
    if not job.runs:
        return job
    allowances = PREPARE_SECONDS_OF.get(job.server.vendor, PREPARE_SECONDS) + END_SECONDS
    session = session_of(job)
    most = max_hours * 3600 - allowances
    if most < min(SESSION_AT_LEAST, session):
        return replace(
            job,
            left_out=f"{max_hours:g} hours leave no time to measure: making and returning it may take "
            f"{allowances / 60:.0f} minutes",
        )
    seconds = math.ceil(min(session, most))
    return replace(
        job,
        session_seconds=seconds,
        lifetime_seconds=seconds + allowances,
        disk_gb=disk_gb or disk_needed(job.fetch_bytes, job.server.own_disk_gb),
    )


def session_of(job: JobPlan) -> float:
    """The most that measuring may take, seconds, before any budget."""
    session = sum(one.limit_seconds for one in job.models if not one.left_out)
    session += job.fetch_bytes / DOWNLOAD_AT_WORST + BETWEEN_SECONDS
    if job.expected_seconds is not None:
        session = min(session, max(EXPECTED_TIMES * job.expected_seconds, SESSION_AT_LEAST))
    return session


def session_left(job: JobState, now: datetime, *, spent_seconds: float = 0.0) -> int:
    """The most that the measurement of a live server may take, all its starts together, seconds; 0 for no limit.

    Less than was planned where making and preparing the server took longer than was allowed for: its expiry stands.

    Args:
        job: a job with a server.
        now: the time.
        spent_seconds: what earlier starts have taken; the module counts them in.
    """
    if not job.expires_at:
        return job.session_seconds
    left = (datetime.fromisoformat(job.expires_at) - now).total_seconds() - END_SECONDS
    most = max(1, int(spent_seconds + left))
    return min(job.session_seconds, most) if job.session_seconds else most


def disk_needed(model_bytes: int, own_gb: int = 0) -> int:
    """Size of a boot disk that holds the models, GB.

    Args:
        model_bytes: size of the models.
        own_gb: size of the disk that the type's price has in it; no more is asked for than it takes.
    """
    least = math.ceil(model_bytes / 1e9) + DISK_BESIDE_GB
    return max(own_gb or DISK_GB, least)


def expected_cost(job: JobPlan, price: Price | None = None) -> float | None:
    """What a job should cost, in the currency of the price; nothing without a price or an expectation.

    Args:
        job: the job.
        price: at this price; at that of its cheapest place without it.
    """
    price = price or job.server.price
    if price is None or not job.runs:
        return None
    return money.cost(job.server.vendor, price.per_hour, _usual_seconds(job))


def committed_cost(job: JobPlan) -> float | None:
    """What a job costs where it is planned, its cheapest place, if its server lives to its end.

    In the currency of its price; nothing without one. Of a server of one's own it is the most that it can cost.
    """
    return _whole_cost(job, job.server.price)


def dearest_cost(job: JobPlan) -> float | None:
    """The same where it is dearest among its places, which are tried one after the other where a server is sold out.

    It is what the job's last server can cost at most. Tries that failed before it may have cost something, too.
    """
    price = job.server.price
    if price is None:
        return None
    listed = [one.price.per_hour for one in job.server.places if one.price and one.price.currency == price.currency]
    return _whole_cost(job, replace(price, per_hour=max(listed, default=price.per_hour)))


def _whole_cost(job: JobPlan, price: Price | None) -> float | None:
    if price is None or not job.runs:
        return None
    if not job.server.rented:
        return price.cost(job.session_seconds or job.limit_seconds)
    return money.cost(job.server.vendor, price.per_hour, job.lifetime_seconds)


def of_budget(jobs: Sequence[JobPlan], currency: str) -> tuple[float, float, dict[str, float]]:
    """What jobs should cost and what is committed for them at their planned places, in the currency of the budget.

    Returns:
        Expected, committed, and what one of each other currency counts as.
    """
    expected, committed, rates = 0.0, 0.0, {}
    for job in jobs:
        price = job.server.price
        if not job.runs or price is None:
            continue
        place = job.server.places[0] if job.server.places else None
        per_hour = place.budget_per_hour if place and place.budget_per_hour is not None else price.per_hour
        if price.currency != currency and price.per_hour:
            rates[price.currency] = per_hour / price.per_hour
        counted = replace(price, per_hour=per_hour)
        expected += expected_cost(job, counted) or 0.0
        committed += _whole_cost(job, counted) or 0.0
    return expected, committed, rates


def whole_seconds(jobs: Sequence[JobPlan], concurrency: int, per_vendor: int) -> float:
    """How long the jobs take together as they are expected to, started in order as soon as there is room.

    Servers of one's own are all measured at once, and beside the rented ones.

    Args:
        jobs: jobs that run.
        concurrency: how many rented servers may exist at once.
        per_vendor: how many of one vendor.
    """
    ends, end = [_usual_seconds(job) for job in jobs if not job.server.rented], 0.0
    waiting: dict[str, deque[tuple[int, float]]] = defaultdict(deque)
    for turn, job in enumerate(jobs):
        if job.server.rented:
            waiting[job.server.vendor].append((turn, _usual_seconds(job)))
    alive: list[tuple[float, str]] = []
    there: Counter[str] = Counter()
    while any(waiting.values()):
        room = [(queue[0], vendor) for vendor, queue in waiting.items() if queue and there[vendor] < per_vendor]
        if not room or len(alive) >= concurrency:
            end, gone = heapq.heappop(alive)
            there[gone] -= 1
            continue
        (_, seconds), vendor = min(room)
        waiting[vendor].popleft()
        there[vendor] += 1
        heapq.heappush(alive, (end + seconds, vendor))
        ends.append(end + seconds)
    return max(ends, default=0.0)


def _usual_seconds(job: JobPlan) -> float:
    seconds = job.limit_seconds if job.expected_seconds is None else job.expected_seconds
    return seconds + (USUAL_SECONDS if job.server.rented else 0)


def in_order(jobs: Sequence[JobPlan]) -> tuple[JobPlan, ...]:
    """Jobs by how cheap their information is, the vendors taking turns; what is left out comes last.

    Of each vendor that job comes first whose outcomes are expected to cost least, so that a sweep that ends early has
    learnt the most; one vendor's many cheap servers do not keep the others waiting.
    """
    queues: dict[str, list[JobPlan]] = defaultdict(list)
    for job in jobs:
        if job.runs:
            queues[job.server.vendor].append(job)
    for queue in queues.values():
        queue.sort(key=_cost_per_outcome)
    turns = [(turn, vendor, job) for vendor, queue in queues.items() for turn, job in enumerate(queue)]
    turns.sort(key=lambda one: (one[0], one[1]))
    return (*(job for _, _, job in turns), *(job for job in jobs if not job.runs))


def _cost_per_outcome(job: JobPlan) -> tuple[bool, int, float, str]:
    """Second instances of a type tell less than the first one of another."""
    cost = expected_cost(job)
    return cost is None, job.server.replica, (cost or 0.0) / max(1, job.scenarios), job.job


def within(jobs: Sequence[JobPlan], amount: float, currency: str) -> tuple[JobPlan, ...]:
    """The jobs that a budget pays for, in order: what it does not is left out, and the reason says by how much.

    Left out are jobs that could never start, because what they can cost at most is more than the whole budget, and
    those that are expected to come when it is used up. While the sweep runs nothing starts that could pass the budget
    (:func:`benchctl.budget.may_start`).

    Args:
        jobs: the jobs.
        amount: the most that they may cost, what servers of one's own get already taken off.
        currency: the budget's.
    """
    chosen: list[JobPlan] = []
    spent = 0.0
    for job in jobs:
        if not job.runs:
            chosen.append(job)
            continue
        per_hour = job.server.places[0].budget_per_hour if job.server.places else None
        if per_hour is None:
            chosen.append(replace(job, left_out="there is a budget, and what it costs is unknown"))
            continue
        most = money.cost(job.server.vendor, per_hour, job.lifetime_seconds)
        expected = min(most, money.cost(job.server.vendor, per_hour, _usual_seconds(job)))
        if most > amount:
            reason = f"could cost {most:.4g} {currency}, and the budget has {amount:.4g} for it"
        elif spent + expected > amount:
            reason = f"would cost about {expected:.4g} {currency}, {amount - spent:.4g} are left of the budget"
        else:
            spent += expected
            chosen.append(job)
            continue
        chosen.append(replace(job, left_out=reason))
    return tuple(chosen)
