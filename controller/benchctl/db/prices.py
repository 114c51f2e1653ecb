"""What servers cost: of each the cheapest current price that fits the terms, in one currency, with where it comes from.

Currencies are never mixed. A price in another currency than the one asked for is converted with a dated rate of the
table ``exchange_rate``, which the offer carries; where there is none, the server has no offer, and a note says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, func, or_, select

from benchctl.db.schema import ExchangeRate, Price, Region
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import date

    from sqlalchemy.orm import Session

USD = "USD"
ALLOCATIONS = ("ONDEMAND", "SPOT", "RESERVED")


HOURS = {"HOUR": 1.0, "MONTH": 730.0, "YEAR": 8760.0}
"""Hours in each unit of time that a price may be for, as clouds count them: a month has 730."""


@dataclass(frozen=True)
class Terms:
    """On what terms a server is to be rented.

    Attributes:
        allocation: ``ONDEMAND``, ``SPOT`` or ``RESERVED``; never mixed.
        region: identifier or API name of a region; nothing for the cheapest one anywhere.
        currency: ISO 4217 code in which the answer is. Without it the answer is in USD, and nothing is converted.
        flagged: whether prices that an import found doubtful count too.
    """

    allocation: str = "ONDEMAND"
    region: str | None = None
    currency: str | None = None
    flagged: bool = False


@dataclass(frozen=True)
class Rate:
    """A dated exchange rate.

    Attributes:
        currency: ISO 4217 code.
        usd_per_unit: US dollars for one unit of it.
        rate_date: the day of the rate.
        source: who says so.
    """

    currency: str
    usd_per_unit: float
    rate_date: date
    source: str

    def __str__(self) -> str:
        return f"1 {self.currency} = {self.usd_per_unit:g} USD ({self.source}, {self.rate_date.isoformat()})"


@dataclass(frozen=True)
class Offer:
    """What one server costs.

    Attributes:
        vendor_id: the vendor.
        server_id: the server type.
        price_per_hour: in ``currency``.
        currency: ISO 4217 code of the answer.
        allocation: as asked for.
        region_id: where it is that cheap; ``*`` where the source names no region.
        region: the region's name with the vendor's API.
        zone_id: the zone; ``*`` for any.
        source: where the price was read.
        source_date: of which day it is.
        flags: doubts that the import had.
        listed_price: the price as the vendor lists it, per hour.
        listed_currency: its currency.
    """

    vendor_id: str
    server_id: str
    price_per_hour: float
    currency: str
    allocation: str
    region_id: str
    region: str
    zone_id: str
    source: str
    source_date: date | None
    flags: tuple[str, ...]
    listed_price: float
    listed_currency: str


@dataclass(frozen=True)
class Offers:
    """The cheapest offer of each server, and what a reader of them must know.

    Attributes:
        by_server: by (vendor_id, server_id).
        rates: the exchange rates that were used.
        notes: sentences that belong to every answer with these prices.
        foreign: of servers that have no offer because of their currency: the cheapest one as it is listed.
    """

    by_server: Mapping[tuple[str, str], Offer]
    rates: tuple[Rate, ...] = ()
    notes: tuple[str, ...] = ()
    foreign: Mapping[tuple[str, str], Offer] = field(default_factory=dict)


def offers(session: Session, terms: Terms, servers: Iterable[tuple[str, str]] | None = None) -> Offers:
    """The cheapest current hourly price of every server on these terms.

    Args:
        session: the database.
        terms: what is asked for.
        servers: these alone, by (vendor_id, server_id); notes are of them, and a few are found much faster than all.

    Raises:
        UsageError: the region is unknown, or there is no rate for the currency asked for.
    """
    asked = None if servers is None else set(servers)
    into = (terms.currency or USD).upper()
    rates = newest_rates(session)
    if terms.currency:
        require_rate(into, rates)
    # without a currency asked for, nothing is converted: prices in others are left out, and a note says so
    convert = factors(into, rates) if terms.currency else {into: 1.0}
    best: dict[tuple[str, str], Offer] = {}
    foreign: dict[tuple[str, str], Offer] = {}
    doubtful: set[tuple[str, str]] = set()
    for vendor, server, currency, price, region_id, region, zone, source, source_date, flags in _cheapest(
        session, terms, asked
    ):
        key = (vendor, server)
        if asked is not None and key not in asked:
            continue
        if flags and not terms.flagged:
            doubtful.add(key)
            continue
        factor = convert.get(currency)
        found = Offer(
            vendor, server, price * (factor or 1.0), into if factor else currency, terms.allocation, region_id, region,
            zone, source, source_date, tuple(flags), price, currency,
        )  # fmt: skip
        kept = best if factor else foreign
        # amounts are compared within one currency alone: of two foreign ones the first in the alphabet stays
        if key not in kept or _order(found) < _order(kept[key]):
            kept[key] = found
    foreign = {key: one for key, one in foreign.items() if key not in best}
    # both rates of a conversion between two foreign currencies
    used = {code for one in best.values() if one.listed_currency != into for code in (one.listed_currency, into)}
    shown = tuple(rates[code] for code in sorted(used - {USD}))
    return Offers(best, shown, tuple(_notes(terms, into, best, doubtful, foreign, shown)), foreign)


def _order(offer: Offer) -> tuple[str, float]:
    return offer.currency, offer.price_per_hour


def regions_meant(session: Session, name: str) -> list[tuple[str, str]]:
    """The regions of all vendors that ``name`` means: an identifier, the API's name, or another name of it.

    Returns:
        Vendor and identifier of each.

    Raises:
        UsageError: there is none.
    """
    found: list[tuple[str, str]] = []
    known: dict[str, None] = {}
    for vendor, region_id, api_reference, own, aliases in session.execute(
        select(Region.vendor_id, Region.region_id, Region.api_reference, Region.name, Region.aliases)
    ):
        names = {region_id, api_reference, own, *aliases}
        known |= dict.fromkeys((api_reference, *aliases))
        if name.lower() in {one.lower() for one in names}:
            found.append((vendor, region_id))
    if not found:
        import difflib

        near = difflib.get_close_matches(name.lower(), known, n=1)
        mend = f"Did you mean '{near[0]}'?" if near else "'benchctl catalog list regions' shows them."
        raise UsageError(f"There is no region '{name}' in the catalogue.", mend)
    return found


def _cheapest(session: Session, terms: Terms, asked: Collection[tuple[str, str]] | None) -> Iterable[Any]:
    """Of every server the cheapest price in each currency, doubtful ones apart, the first region of several.

    The cheapest price is looked for first, and its row after that: on 70,000 prices half the time of ranking them.
    """
    wanted = [Price.is_current, Price.until.is_(None), Price.allocation == terms.allocation]
    if terms.region:
        regions = regions_meant(session, terms.region)
        wanted.append(or_(*(and_(Price.vendor_id == vendor, Price.region_id == region) for vendor, region in regions)))
    if asked is not None:
        wanted += [Price.vendor_id.in_({one for one, _ in asked}), Price.server_id.in_({one for _, one in asked})]
    hours = case(*((Price.unit == unit, hours) for unit, hours in HOURS.items()))
    hourly = Price.price / hours
    sure = Price.flags == []
    least = (
        select(Price.vendor_id, Price.server_id, Price.currency, sure.label("sure"), func.min(hourly).label("per_hour"))
        .where(*wanted)
        .group_by(Price.vendor_id, Price.server_id, Price.currency, sure)
        .subquery()
    )
    return session.execute(
        select(
            Price.vendor_id,
            Price.server_id,
            Price.currency,
            hourly,
            Price.region_id,
            func.coalesce(Region.api_reference, Price.region_id),
            Price.zone_id,
            Price.source,
            Price.source_date,
            Price.flags,
        )
        .join(
            least,
            (Price.vendor_id == least.c.vendor_id)
            & (Price.server_id == least.c.server_id)
            & (Price.currency == least.c.currency)
            & (sure == least.c.sure)
            & (hourly == least.c.per_hour),
        )
        .outerjoin(Region, (Region.vendor_id == Price.vendor_id) & (Region.region_id == Price.region_id))
        .where(*wanted)
        .order_by(Price.vendor_id, Price.server_id, Price.region_id, Price.zone_id)
    )


def _notes(
    terms: Terms,
    into: str,
    best: Mapping[tuple[str, str], Offer],
    flagged: Iterable[tuple[str, str]],
    foreign: Mapping[tuple[str, str], Offer],
    rates: Iterable[Rate],
) -> Iterable[str]:
    hidden = sum(1 for key in flagged if key not in best)
    if hidden:
        have = "1 server has" if hidden == 1 else f"{hidden} servers have"
        yield f"{have} only prices that the import found doubtful, and no price here (--flagged)."
    other = Counter(one.currency for one in foreign.values())
    for currency, count in sorted(other.items()):
        mend = f"--currency {into} converts them" if not terms.currency else "no rate for it is known"
        are = "1 server is" if count == 1 else f"{count} servers are"
        yield f"{are} priced in {currency} only, and without a price here ({mend})."
    for rate in rates:
        yield f"Converted with {rate}."


def newest_rates(session: Session) -> dict[str, Rate]:
    """Of every currency the newest rate; of several sources of one day the last by name."""
    found: dict[str, Rate] = {}
    for one in session.scalars(select(ExchangeRate).order_by(ExchangeRate.rate_date, ExchangeRate.source)):
        found[one.currency] = Rate(one.currency, one.usd_per_unit, one.rate_date, one.source)
    return found


def require_rate(currency: str, rates: Mapping[str, Rate]) -> None:
    """Make sure that money can be converted into ``currency``.

    Raises:
        UsageError: there is no rate for it.
    """
    if currency != USD and currency not in rates:
        known = f"There are rates for: {', '.join(sorted(rates))}. " if rates else ""
        raise UsageError(
            f"There is no exchange rate for {currency}.",
            f"{known}Import rates with 'benchctl catalog import --rates FILE'.",
        )


def price_at_launch(row: Mapping[str, Any]) -> tuple[float, str] | None:
    """What a server cost per hour when a job or a measurement got it, and in which currency; nothing when unknown.

    Args:
        row: with the columns ``launch_price_per_hour``, ``currency`` and ``price_usd_per_hour``, as far as it has them.
    """
    price, currency = row.get("launch_price_per_hour"), row.get("currency")
    if price is not None and currency:
        return price, currency
    usd = row.get("price_usd_per_hour")
    return None if usd is None else (usd, USD)


def factors(into: str, rates: Mapping[str, Rate]) -> dict[str, float]:
    """What to multiply a price in each currency with, to have it in ``into``."""
    usd_per_unit = {code: rate.usd_per_unit for code, rate in rates.items()} | {USD: 1.0}
    return {code: value / usd_per_unit[into] for code, value in usd_per_unit.items()}
