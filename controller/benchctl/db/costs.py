"""What measuring cost, and where the hours went.

Billed is the time between a job's start and its end, where a server existed. Its price is the one at launch where that
is on record ("measured"), else today's offer of the catalogue ("estimated"). Currencies are kept apart, and hours
without a price are counted as such.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from benchctl.db import queries
from benchctl.db.naming import find_vendor
from benchctl.db.prices import USD, Terms, offers
from benchctl.db.schema import Job, JobTime, Sweep
from benchctl.replan import plan_again, price_given, request_of
from benchctl.savings import CAUSES, hints
from benchctl.unmeasured import was_billed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.orm import Session

    from benchctl.db.prices import Offers
    from benchctl.request import SweepRequest

Row = dict[str, Any]

AT_LAUNCH = "launch"
FROM_CATALOGUE = "catalogue"
"""Where the price of a run comes from."""

STARTED_HOURS = ("hcloud", "upcloud")
"""Vendors that bill every hour that was started (their documentation, as of 2026)."""

NOT_RECORDED = "not_recorded"
"""Billed time of runs without rows in ``job_time``."""

GROUPS = {"vendor": ("vendor_id",), "sweep": ("sweep_id", "source"), "server": ("vendor_id", "server_id")}
"""What rows can be summed up by, and the keys that this gives them."""


@dataclass(frozen=True)
class Spending:
    """Rows of money and hours, and what a reader of them must know.

    Attributes:
        rows: one per group and currency.
        notes: sentences that belong to the answer.
        hints: what could be saved, the largest share first.
    """

    rows: list[Row]
    notes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bill:
    """One run that was billed.

    Attributes:
        job: its row in ``job``, with ``source`` of its sweep.
        seconds: between its start and its end.
        price_per_hour: in ``currency``; nothing when no price is known.
        currency: of the price.
        basis: ``launch`` or ``catalogue``; nothing without a price.
        causes: seconds by cause, as far as they are on record.
    """

    job: Any
    seconds: float
    price_per_hour: float | None
    currency: str | None
    basis: str | None
    causes: Mapping[str, float] = field(default_factory=dict)

    @property
    def cost(self) -> float | None:
        """What it cost, in ``currency``."""
        return None if self.price_per_hour is None else self.price_per_hour * self.seconds / 3600

    def share(self, seconds: float) -> float | None:
        """What so many of its seconds cost."""
        return None if self.price_per_hour is None else self.price_per_hour * seconds / 3600


@dataclass(frozen=True)
class _Bills:
    bills: list[Bill]
    notes: tuple[str, ...]


def spending(
    session: Session, terms: Terms, *, by: str = "vendor", vendor: str | None = None, sweep: str | None = None
) -> Spending:
    """Hours and money of all runs, summed up by vendor, sweep or server, and by currency.

    Args:
        session: the database.
        terms: for the prices of runs that have none of their own.
        by: one of :data:`GROUPS`.
        vendor: this vendor alone.
        sweep: this sweep alone.

    Raises:
        UsageError: vendor, sweep, region or currency is unknown.
    """
    found = _bills(session, terms, vendor, sweep)
    keys = GROUPS[by]
    groups: dict[tuple[Any, ...], list[Bill]] = defaultdict(list)
    for bill in found.bills:
        group = tuple(getattr(bill.job, key) for key in keys)
        groups[(*group, bill.currency or "")].append(bill)
    rows = [
        {**dict(zip(keys, group, strict=False)), "currency": group[-1] or None, **_summed(bills)}
        for group, bills in sorted(groups.items(), key=lambda item: tuple(map(str, item[0])))
    ]
    return Spending(rows, (*found.notes, *_billing_notes(found.bills)), tuple(_hints(found.bills)))


def of_sweep(session: Session, terms: Terms, sweep: str, vendor: str | None = None) -> Spending:
    """The jobs of one sweep: what was planned (made again from its request), and what it came to.

    Where the request is not on record, as of results from elsewhere, the planned figures are empty.

    Raises:
        UsageError: there is no such sweep or vendor.
    """
    sweep_id = queries.find_sweep(session, sweep)
    request = request_of(session.get_one(Sweep, sweep_id).request)
    found = _bills(session, terms, vendor, sweep_id)
    billed = {bill.job.job_id: bill for bill in found.bills}
    rows = [
        _job_row(job, billed.get(job.job_id), request)
        for job in _jobs(session, find_vendor(session, vendor) if vendor else None, sweep_id)
    ]
    notes = list(found.notes)
    if request is None:
        notes.append("What this sweep was asked for is not on record, so that nothing can be said of its plan.")
    else:
        notes.append(
            "Expected is a guess made again from the request and the machine: what was measured or downloaded before "
            "is left out of it, so that 'plan' may have said otherwise. 'At most' is without downloads."
        )
        if request.budget:
            notes.append(f"Its budget was {request.budget}.")
    return Spending(rows, (*notes, *_billing_notes(found.bills)), tuple(_hints(found.bills)))


def is_planned(session: Session, sweep: str) -> bool:
    """Whether what a sweep was asked for is on record.

    Raises:
        UsageError: there is no such sweep.
    """
    return request_of(session.get_one(Sweep, queries.find_sweep(session, sweep)).request) is not None


def _jobs(session: Session, vendor_id: str | None, sweep_id: str | None) -> Sequence[Any]:
    query = (
        select(
            Job.sweep_id, Job.job_id, Job.vendor_id, Job.server_id, Job.api_reference, Job.status, Job.stage,
            Job.outcomes, Job.started_at, Job.ended_at, Job.price_usd_per_hour, Job.currency, Job.exit_code,
            Job.error, Sweep.source,
        )
        .join(Sweep, Sweep.sweep_id == Job.sweep_id)
        .order_by(Job.sweep_id, Job.job_id)
    )  # fmt: skip
    if sweep_id:
        # the facts of a machine are large, and needed only where the plan is made again
        query = query.add_columns(Job.host).where(Job.sweep_id == sweep_id)
    if vendor_id:
        query = query.where(Job.vendor_id == vendor_id)
    return session.execute(query).all()


def _bills(session: Session, terms: Terms, vendor: str | None, sweep: str | None) -> _Bills:
    vendor_id = find_vendor(session, vendor) if vendor else None
    sweep_id = queries.find_sweep(session, sweep) if sweep else None
    jobs = _jobs(session, vendor_id, sweep_id)
    if not jobs:
        return _Bills([], ())
    requests = _requests(session, {job.sweep_id for job in jobs if job.currency and job.price_usd_per_hour is None})
    found = offers(session, terms)
    causes: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    times = select(JobTime.sweep_id, JobTime.job_id, JobTime.cause, JobTime.seconds)
    for of_sweep_id, job_id, cause, seconds in session.execute(
        times.where(JobTime.sweep_id == sweep_id) if sweep_id else times
    ):
        causes[of_sweep_id, job_id][cause] = seconds
    bills, refused, open_ended = [], 0, 0
    for job in jobs:
        if not was_billed(job.exit_code, job.error):
            refused += 1
        elif job.started_at is None or job.ended_at is None:
            open_ended += 1
        else:
            price = _price(job, requests.get(job.sweep_id), found)
            seconds = (job.ended_at - job.started_at).total_seconds()
            bills.append(Bill(job, seconds, *price, causes.get((job.sweep_id, job.job_id), {})))
    notes = []
    if refused:
        notes.append(f"{refused} runs got no server (refused, or left out by the benchmark): nothing was billed.")
    if open_ended:
        notes.append(f"{open_ended} runs have no end on record, and are not counted.")
    if any(bill.basis == FROM_CATALOGUE for bill in bills):
        place = f"in {terms.region}" if terms.region else "in the cheapest region"
        notes.append(
            f"Estimated: hours at the catalogue's {terms.allocation.lower()} price {place}, because no price at launch "
            "is on record."
        )
        notes += [f"Converted with {rate}." for rate in found.rates]
    return _Bills(bills, tuple(notes))


def _requests(session: Session, sweeps: Iterable[str]) -> dict[str, SweepRequest | None]:
    """The requests of sweeps whose price is in another currency than USD: only the request has it."""
    wanted = list(sweeps)
    if not wanted:
        return {}
    found = session.execute(select(Sweep.sweep_id, Sweep.request).where(Sweep.sweep_id.in_(wanted)))
    return {sweep: request_of(stored) for sweep, stored in found}


def _price(job: Any, request: SweepRequest | None, found: Offers) -> tuple[float | None, str | None, str | None]:
    """Price per hour, currency and basis of a run; a price in a currency that isn't asked for keeps its own."""
    if job.price_usd_per_hour is not None:
        return job.price_usd_per_hour, USD, AT_LAUNCH
    given = price_given(request)
    if given is not None and given.currency == job.currency:
        return given.per_hour, given.currency, AT_LAUNCH
    key = (job.vendor_id, job.server_id)
    offer = found.by_server.get(key) or found.foreign.get(key)
    if offer is not None:
        return offer.price_per_hour, offer.currency, FROM_CATALOGUE
    return None, None, None


def _summed(bills: Sequence[Bill]) -> Row:
    seconds: dict[str, float] = defaultdict(float)
    costs: dict[str, float] = defaultdict(float)
    for bill in bills:
        for cause, taken in _causes(bill).items():
            seconds[cause] += taken
            costs[cause] += bill.share(taken) or 0.0
    priced = bool(bills) and bills[0].price_per_hour is not None
    by_basis = {basis: [bill for bill in bills if bill.basis == basis] for basis in (AT_LAUNCH, FROM_CATALOGUE)}
    return {
        "runs": len(bills),
        "servers": len({(bill.job.vendor_id, bill.job.server_id) for bill in bills}),
        "hours": sum(bill.seconds for bill in bills) / 3600,
        "cost": sum(bill.cost or 0.0 for bill in bills) if priced else None,
        "cost_measured": sum(bill.cost or 0.0 for bill in by_basis[AT_LAUNCH]) if priced else None,
        "hours_measured": sum(bill.seconds for bill in by_basis[AT_LAUNCH]) / 3600,
        "cost_estimated": sum(bill.cost or 0.0 for bill in by_basis[FROM_CATALOGUE]) if priced else None,
        "hours_estimated": sum(bill.seconds for bill in by_basis[FROM_CATALOGUE]) / 3600,
        **{f"{cause}_hours": seconds[cause] / 3600 for cause in (*CAUSES, NOT_RECORDED)},
        **{f"{cause}_cost": costs[cause] if priced else None for cause in (*CAUSES, NOT_RECORDED)},
    }


def _causes(bill: Bill) -> dict[str, float]:
    """Seconds by cause; what is not on record is a cause of its own, so that they add up to the bill."""
    rest = bill.seconds - sum(bill.causes.values())
    known = {cause: seconds for cause, seconds in bill.causes.items() if cause in CAUSES}
    stranger = sum(bill.causes.values()) - sum(known.values())
    return {**known, NOT_RECORDED: rest + stranger}


def _job_row(job: Any, bill: Bill | None, request: SweepRequest | None) -> Row:
    plan = plan_again(request, job.vendor_id, job.server_id, job.host) if request else None
    seconds = _causes(bill) if bill else {}
    expected = plan.expected_seconds if plan else None
    limit = plan.limit_seconds if plan else None
    return {
        "sweep_id": job.sweep_id,
        "job_id": job.job_id,
        "vendor_id": job.vendor_id,
        "server_id": job.server_id,
        "api_reference": job.api_reference,
        "status": job.status,
        "scenarios": plan.scenarios if plan else None,
        "scenarios_ok": job.outcomes.get("ok", 0),
        "outcomes": job.outcomes,
        "expected_seconds": expected,
        "limit_seconds": limit,
        "billed_seconds": bill.seconds if bill else None,
        "price_per_hour": bill.price_per_hour if bill else None,
        "price_basis": bill.basis if bill else None,
        "currency": bill.currency if bill else None,
        "expected_cost": bill.share(expected) if bill and expected is not None else None,
        "limit_cost": bill.share(limit) if bill and limit is not None else None,
        "cost": bill.cost if bill else None,
        **{f"{cause}_seconds": seconds.get(cause) for cause in (*CAUSES, NOT_RECORDED)},
    }


def _billing_notes(bills: Sequence[Bill]) -> Iterator[str]:
    unpriced = [bill for bill in bills if bill.price_per_hour is None]
    if unpriced:
        hours = sum(bill.seconds for bill in unpriced) / 3600
        servers = len({(bill.job.vendor_id, bill.job.server_id) for bill in unpriced})
        yield (
            f"{len(unpriced)} runs on {servers} servers, {hours:.1f} h, have no price on these terms "
            "(--flagged counts doubtful ones)."
        )
    for vendor in STARTED_HOURS:
        its = [bill for bill in bills if bill.job.vendor_id == vendor]
        if its:
            started = sum(math.ceil(bill.seconds / 3600) for bill in its)
            cost: dict[str, float] = defaultdict(float)
            for bill in its:
                cost[bill.currency or ""] += (bill.price_per_hour or 0.0) * math.ceil(bill.seconds / 3600)
            money = [f"{amount:.2f} {currency}" for currency, amount in sorted(cost.items()) if currency]
            said = f", {' and '.join(money)}" if money else ""
            hours = sum(bill.seconds for bill in its) / 3600
            yield f"{vendor} bills every hour that was started: its {hours:.1f} h are {started} h there{said}."


def _hints(bills: Sequence[Bill]) -> Iterator[str]:
    seconds: dict[str, float] = defaultdict(float)
    costs: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for bill in bills:
        for cause, taken in bill.causes.items():
            seconds[cause] += taken
            if bill.currency:
                costs[cause][bill.currency] += bill.share(taken) or 0.0
    return hints(seconds, costs)
