"""What servers cost: of each the cheapest current price that fits the terms, in one currency, with where it comes from.

Currencies are never mixed. A price in another currency than the one asked for is converted with a dated rate of the
table ``exchange_rate``, which the offer carries; where there is none, the server has no offer, and a note says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import func, or_, select

from benchctl.db.schema import ExchangeRate, Price, Region
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date

    from sqlalchemy.orm import Session

USD = "USD"
ALLOCATIONS = ("ONDEMAND", "SPOT", "RESERVED")


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


def offers(session: Session, terms: Terms) -> Offers:
    """The cheapest current hourly price of every server on these terms.

    Raises:
        UsageError: the region is unknown, or there is no rate for the currency asked for.
    """
    into = (terms.currency or USD).upper()
    rates = _newest_rates(session)
    if terms.currency and into != USD and into not in rates:
        raise UsageError(
            f"There is no exchange rate for {into}.", "Import rates with 'benchctl catalog import --rates FILE'."
        )
    query = (
        select(
            Price.vendor_id,
            Price.server_id,
            Price.currency,
            Price.price,
            Price.region_id,
            func.coalesce(Region.api_reference, Price.region_id),
            Price.zone_id,
            Price.source,
            Price.source_date,
            Price.flags,
        )
        .outerjoin(Region, (Region.vendor_id == Price.vendor_id) & (Region.region_id == Price.region_id))
        .where(Price.is_current, Price.until.is_(None), Price.unit == "HOUR", Price.allocation == terms.allocation)
    )
    if terms.region:
        _require_region(session, terms.region)
        query = query.where(or_(Region.region_id == terms.region, Region.api_reference == terms.region))
    ranked = query.add_columns(
        func.row_number()
        .over(
            partition_by=(Price.vendor_id, Price.server_id, Price.currency, Price.flags),
            order_by=(Price.price, Price.region_id, Price.zone_id),
        )
        .label("place")
    ).subquery()
    best: dict[tuple[str, str], Offer] = {}
    used: dict[str, Rate] = {}
    flagged: set[tuple[str, str]] = set()
    foreign: dict[tuple[str, str], Offer] = {}
    for vendor, server, currency, price, region_id, region, zone, source, source_date, flags, _ in session.execute(
        select(ranked).where(ranked.c.place == 1)
    ):
        key = (vendor, server)
        if flags and not terms.flagged:
            flagged.add(key)
            continue
        factor = _factor(currency, into, rates if terms.currency else {})
        found = Offer(
            vendor, server, price * (factor or 1.0), into if factor else currency, terms.allocation, region_id, region,
            zone, source, source_date, tuple(flags), price, currency,
        )  # fmt: skip
        kept = best if factor else foreign
        # amounts are compared within one currency alone: of two foreign ones the first in the alphabet stays
        if key not in kept or _order(found) < _order(kept[key]):
            kept[key] = found
    for one in best.values():
        for code in {one.listed_currency, into} - {USD}:
            if one.listed_currency != into:
                used[code] = rates[code]
    foreign = {key: one for key, one in foreign.items() if key not in best}
    return Offers(
        best, tuple(used.values()), tuple(_notes(terms, into, best, flagged, foreign, used.values())), foreign
    )


def _order(offer: Offer) -> tuple[str, float]:
    return offer.currency, offer.price_per_hour


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
        yield f"{hidden} servers have only prices that the import found doubtful, and are left unpriced (--flagged)."
    other = Counter(one.currency for one in foreign.values())
    for currency, count in sorted(other.items()):
        mend = f"--currency {into} converts them" if not terms.currency else "no rate for it is known"
        yield f"{count} servers are priced in {currency} only, and are left unpriced here ({mend})."
    for rate in rates:
        yield f"Converted with {rate}."


def _newest_rates(session: Session) -> dict[str, Rate]:
    found: dict[str, Rate] = {}
    for one in session.scalars(select(ExchangeRate).order_by(ExchangeRate.rate_date, ExchangeRate.source)):
        found[one.currency] = Rate(one.currency, one.usd_per_unit, one.rate_date, one.source)
    return found


def _factor(currency: str, into: str, rates: Mapping[str, Rate]) -> float | None:
    """What to multiply a price with; nothing when it can't be converted."""
    if currency == into:
        return 1.0
    value = {code: rate.usd_per_unit for code, rate in rates.items()} | ({USD: 1.0} if rates else {})
    if currency not in value or into not in value:
        return None
    return value[currency] / value[into]


def _require_region(session: Session, region: str) -> None:
    known = session.scalars(
        select(Region.region_id).where(or_(Region.region_id == region, Region.api_reference == region)).limit(1)
    ).first()
    if known is None:
        import difflib

        names = list(session.scalars(select(Region.api_reference).distinct()))
        near = difflib.get_close_matches(region, names, n=1)
        mend = f"Did you mean '{near[0]}'?" if near else "'benchctl catalog list regions' shows them."
        raise UsageError(f"There is no region '{region}' in the catalogue.", mend)
