"""What measuring cost, and where the hours went.

Billed is the life of each server that a job had, in its vendor's unit (:func:`benchctl.budget.billed_seconds`), up to
now where it is alive. Where no lives are on record (one's own machines, results from elsewhere, older sweeps) it is the
time between the job's start and its end, where a server existed. The price is the one at launch where that is on record
("measured"), else today's offer of the catalogue ("estimated"). Currencies are kept apart, and hours without a price
are counted as such.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from benchctl.budget import BILLED_BY_THE_HOUR, billed_seconds
from benchctl.db import queries
from benchctl.db.hosts import OWN
from benchctl.db.naming import find_vendor
from benchctl.db.prices import USD, Terms, factors, newest_rates, offers, price_at_launch
from benchctl.db.schema import Job, JobServer, JobTime, Sweep
from benchctl.ledger import ENDED
from benchctl.replan import plan_again, price_given, request_of
from benchctl.savings import CAUSES, hints
from benchctl.unmeasured import was_billed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.orm import Session

    from benchctl.db.prices import Rate
    from benchctl.request import SweepRequest

Row = dict[str, Any]

_Price = tuple[float | None, str | None, str | None]
"""Price per hour, its currency, and where it comes from."""

AT_LAUNCH = "launch"
FROM_CATALOGUE = "catalogue"
"""Where the price of a run comes from."""

BY_SERVERS = "servers"
BY_RUN = "run"
"""What a run's billed time is: the lives of its servers, or the time between its start and its end."""

NOT_RECORDED = "not_recorded"
"""Billed time that no row of ``job_time`` has: booting, giving back, the rest of a begun hour, runs without rows."""

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
    """What one run was billed at one price; one whose servers had several prices has several bills.

    Attributes:
        job: its row in ``job``, with ``source`` of its sweep.
        seconds: its servers' lives in the vendor's unit; where these are not on record, between its start and its end.
        price_per_hour: in ``currency``; nothing when no price is known.
        currency: of the price.
        basis: ``launch`` or ``catalogue``; nothing without a price.
        causes: seconds by cause, as far as they are on record; together not more than ``seconds``.
        by_servers: whether its servers' lives are on record.
    """

    job: Any
    seconds: float
    price_per_hour: float | None
    currency: str | None
    basis: str | None
    causes: Mapping[str, float] = field(default_factory=dict)
    by_servers: bool = False

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
    session: Session,
    terms: Terms,
    *,
    by: str = "vendor",
    vendor: str | None = None,
    sweep: str | None = None,
    now: datetime | None = None,
) -> Spending:
    """Hours and money of all runs, summed up by vendor, sweep or server, and by currency.

    Args:
        session: the database.
        terms: for the prices of runs that have none of their own.
        by: one of :data:`GROUPS`.
        vendor: this vendor alone.
        sweep: this sweep alone.
        now: until when servers that are alive are billed.

    Raises:
        UsageError: vendor, sweep, region or currency is unknown.
    """
    found = _bills(session, terms, vendor, sweep, now)
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


def of_sweep(
    session: Session, terms: Terms, sweep: str, vendor: str | None = None, now: datetime | None = None
) -> Spending:
    """The jobs of one sweep: what was planned (made again from its request), and what it came to.

    Where the request is not on record, as of results from elsewhere, the planned figures are empty. Servers that are
    alive are billed until ``now``.

    Raises:
        UsageError: there is no such sweep or vendor.
    """
    sweep_id = queries.find_sweep(session, sweep)
    request = request_of(session.get_one(Sweep, sweep_id).request)
    found = _bills(session, terms, vendor, sweep_id, now)
    billed: dict[str, list[Bill]] = defaultdict(list)
    for bill in found.bills:
        billed[bill.job.job_id].append(bill)
    rows = [
        _job_row(job, billed[job.job_id], request)
        for job in _jobs(session, find_vendor(session, vendor) if vendor else None, sweep_id)
    ]
    notes = list(found.notes)
    several = sum(len({bill.currency for bill in bills}) > 1 for bills in billed.values())
    if several:
        notes.append(f"{several} jobs had servers priced in several currencies: their cost is that of the last one's.")
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
            Job.outcomes, Job.started_at, Job.ended_at, Job.price_usd_per_hour, Job.launch_price_per_hour,
            Job.currency, Job.servers_rented, Job.exit_code, Job.error, Sweep.source,
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


def _bills(session: Session, terms: Terms, vendor: str | None, sweep: str | None, now: datetime | None) -> _Bills:
    vendor_id = find_vendor(session, vendor) if vendor else None
    sweep_id = queries.find_sweep(session, sweep) if sweep else None
    jobs = _jobs(session, vendor_id, sweep_id)
    if not jobs:
        return _Bills([], ())
    requests = _requests(session, {job.sweep_id for job in jobs if job.currency and _unpriced(job)})
    prices = _Prices(session, terms, requests)
    causes: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    times = select(JobTime.sweep_id, JobTime.job_id, JobTime.cause, JobTime.seconds)
    for of_sweep_id, job_id, cause, seconds in session.execute(
        times.where(JobTime.sweep_id == sweep_id) if sweep_id else times
    ):
        causes[of_sweep_id, job_id][cause] = seconds
    servers = _servers(session, sweep_id)
    now = now or datetime.now(UTC)
    bills: list[Bill] = []
    refused = open_ended = alive = 0
    for job in jobs:
        known = causes.get((job.sweep_id, job.job_id), {})
        if job.servers_rented:
            lives = servers.get((job.sweep_id, job.job_id), [])
            alive += sum(life.gone_at is None for life in lives)
            bills += _of_servers(job, lives, prices, known, now)
        elif (job.servers_rented == 0 and job.status in ENDED) or not was_billed(job.exit_code, job.error):
            refused += 1
        elif job.started_at is None or job.ended_at is None or job.servers_rented == 0:
            open_ended += 1
        else:
            seconds = (job.ended_at - job.started_at).total_seconds()
            bills.append(Bill(job, seconds, *prices.of(job), known))
    notes = []
    if refused:
        notes.append(f"{refused} runs got no server (refused, or left out by the benchmark): nothing was billed.")
    if open_ended:
        notes.append(f"{open_ended} runs have no end on record, and are not counted.")
    if alive:
        notes.append(f"{alive} servers may be alive, and are billed until now.")
    guessed = sum(not bill.by_servers and bill.job.vendor_id not in OWN for bill in bills)
    if guessed:
        notes.append(
            f"{guessed} runs are billed from their start to their end, an estimate: from when to when their servers "
            "existed is not on record."
        )
    if any(bill.basis == FROM_CATALOGUE for bill in bills):
        place = f"in {terms.region}" if terms.region else "in the cheapest region"
        notes.append(
            f"Estimated: hours at the catalogue's {terms.allocation.lower()} price {place}, because no price at launch "
            "is on record."
        )
    notes += [f"Converted with {rate}." for rate in prices.rates(bills)]
    return _Bills(bills, tuple(notes))


def _unpriced(job: Any) -> bool:
    return job.launch_price_per_hour is None and job.price_usd_per_hour is None


def _requests(session: Session, sweeps: Iterable[str]) -> dict[str, SweepRequest | None]:
    """The requests of sweeps whose price only the request has, as earlier versions left those in another currency."""
    wanted = list(sweeps)
    if not wanted:
        return {}
    found = session.execute(select(Sweep.sweep_id, Sweep.request).where(Sweep.sweep_id.in_(wanted)))
    return {sweep: request_of(stored) for sweep, stored in found}


def _servers(session: Session, sweep_id: str | None) -> dict[tuple[str, str], list[Any]]:
    """The servers of each job, the newest first."""
    query = select(
        JobServer.sweep_id, JobServer.job_id, JobServer.launched_at, JobServer.gone_at, JobServer.price_per_hour,
        JobServer.currency,
    ).order_by(JobServer.launched_at.desc())  # fmt: skip
    found: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for one in session.execute(query.where(JobServer.sweep_id == sweep_id) if sweep_id else query):
        found[one.sweep_id, one.job_id].append(one)
    return found


def _of_servers(
    job: Any, lives: Sequence[Any], prices: _Prices, causes: Mapping[str, float], now: datetime
) -> Iterator[Bill]:
    """The bills of a job, that of its newest server first: the measuring was done there."""
    seconds: dict[_Price, float] = defaultdict(float)
    for life in lives:
        existed = ((life.gone_at or now) - life.launched_at).total_seconds()
        seconds[prices.of(job, life)] += billed_seconds(job.vendor_id, existed)
    for number, (price, billed) in enumerate(seconds.items()):
        yield Bill(job, billed, *price, {} if number else _within(causes, billed), by_servers=True)


def _within(causes: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Causes that a server's life has room for: what is above it passed while there was none, as between two days."""
    left = dict(causes)
    surplus = sum(left.values()) - seconds
    for cause in ("other", "image", *left):
        if surplus > 0 and cause in left:
            cut = min(surplus, left[cause])
            left[cause] -= cut
            surplus -= cut
    return {cause: taken for cause, taken in left.items() if taken > 0}


class _Prices:
    """What runs are billed at."""

    def __init__(self, session: Session, terms: Terms, requests: Mapping[str, SweepRequest | None]) -> None:
        self._found, self._requests = offers(session, terms), requests
        self._into = terms.currency.upper() if terms.currency else None
        self._known = newest_rates(session)
        self._factors = factors(self._into, self._known) if self._into else {}
        self._used: set[str] = set()

    def of(self, job: Any, life: Any = None) -> _Price:
        """Price per hour, currency and basis of a run or of one of its servers.

        It is in the currency asked for where there is a rate; else it keeps its own.
        """
        launch = self._at_launch(job, life)
        if launch is not None:
            amount, currency = launch
            if self._into and currency != self._into and currency in self._factors:
                self._used |= {currency, self._into}
                amount, currency = amount * self._factors[currency], self._into
            return amount, currency, AT_LAUNCH
        key = (job.vendor_id, job.server_id)
        offer = self._found.by_server.get(key) or self._found.foreign.get(key)
        if offer is not None:
            return offer.price_per_hour, offer.currency, FROM_CATALOGUE
        return None, None, None

    def rates(self, bills: Iterable[Bill]) -> list[Rate]:
        """The exchange rates that these bills were converted with."""
        listed = self._found.rates if any(bill.basis == FROM_CATALOGUE for bill in bills) else ()
        used = (rate for code, rate in sorted(self._known.items()) if code in self._used - {USD})
        return list(dict.fromkeys([*listed, *used]))

    def _at_launch(self, job: Any, life: Any) -> tuple[float, str] | None:
        if life is not None and life.price_per_hour is not None and life.currency:
            return life.price_per_hour, life.currency
        own = price_at_launch(job._mapping)  # noqa: SLF001 - SQLAlchemy's name for a row as a dictionary
        given = price_given(self._requests.get(job.sweep_id))
        if own is None and given is not None and given.currency == job.currency:
            return given.per_hour, given.currency
        return own


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
        "runs": len({(bill.job.sweep_id, bill.job.job_id) for bill in bills}),
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


def _job_row(job: Any, bills: Sequence[Bill], request: SweepRequest | None) -> Row:
    """One job; of several bills the price and the currency are those of its newest server."""
    plan = plan_again(request, job.vendor_id, job.server_id, job.host) if request else None
    bill = bills[0] if bills else None
    seconds: dict[str, float] = defaultdict(float)
    for one in bills:
        for cause, taken in _causes(one).items():
            seconds[cause] += taken
    costs = [one.cost for one in bills if one.cost is not None and bill and one.currency == bill.currency]
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
        "billed_seconds": sum(one.seconds for one in bills) if bills else None,
        "billed_by": None if bill is None else BY_SERVERS if bill.by_servers else BY_RUN,
        "price_per_hour": bill.price_per_hour if bill else None,
        "price_basis": bill.basis if bill else None,
        "currency": bill.currency if bill else None,
        "expected_cost": bill.share(expected) if bill and expected is not None else None,
        "limit_cost": bill.share(limit) if bill and limit is not None else None,
        "cost": sum(costs) if costs else None,
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
    # of runs whose servers' lives are on record the bill itself reckons with it
    for vendor in sorted(BILLED_BY_THE_HOUR):
        its = [bill for bill in bills if bill.job.vendor_id == vendor and not bill.by_servers]
        if its:
            started, cost = 0, defaultdict[str, float](float)
            for bill in its:
                begun = round(billed_seconds(vendor, bill.seconds) / 3600)
                started += begun
                cost[bill.currency or ""] += (bill.price_per_hour or 0.0) * begun
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
