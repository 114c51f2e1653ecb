"""A measured speed with a price: what a million tokens cost, and which price was taken.

There are two. A row has the price at which its server was rented when it was measured, in the vendor's currency, and
the catalogue has an offer on the terms that were asked for. Each answer says which one it took.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from benchctl import stats
from benchctl.db.prices import USD, Terms, factors, newest_rates, offers, price_at_launch
from benchctl.db.schema import Job

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy.orm import Session

    from benchctl.db.prices import Offer, Offers

    Row = dict[str, Any]

PRICE_COLUMNS = ("launch_price_per_hour", "currency", "price_usd_per_hour", "region")
"""What of a row its price at launch comes from."""

AT_LAUNCH = "at launch"
"""``price_source`` of a price that a job was launched with."""


@dataclass(frozen=True)
class Pricing:
    """Prices for the rows of one answer.

    Attributes:
        terms: what was asked for.
        offers: the cheapest offer of each server, by (vendor_id, server_id).
        notes: sentences that belong to every answer with these prices.
        launch_first: take the price at launch where a row has one; else the offer where there is one.
        factors: what a price at launch in each currency is multiplied with; one in another is not taken.
    """

    terms: Terms
    offers: Mapping[tuple[str, str], Offer]
    notes: tuple[str, ...]
    launch_first: bool = False
    factors: Mapping[str, float] = field(default_factory=lambda: {USD: 1.0})

    def of(self, row: Mapping[str, Any]) -> Row:
        """The row with its price: ``price_per_hour`` and what goes with it, and what tokens cost at it.

        All is nothing where there is no price. ``usd_per_million_tokens`` is there for prices in US dollars alone.
        """
        offer = self.offers.get((row["vendor_id"], row["server_id"]))
        launched = self._at_launch(row)
        price = launched if launched and (self.launch_first or offer is None) else _of_offer(offer)
        speed = row["tokens_per_second"]
        cost = stats.cost_per_million_tokens(price["price_per_hour"], speed)
        return {
            **row,
            **price,
            "cost_per_million_tokens": cost,
            "tokens_per_currency_unit": stats.tokens_per_unit_of_money(price["price_per_hour"], speed),
            "usd_per_million_tokens": cost if price["price_currency"] == USD else None,
        }

    def _at_launch(self, row: Mapping[str, Any]) -> Row | None:
        """The price at launch, where it fits the terms: on demand, in this region, in a currency that is known.

        Where no currency is asked for, nothing is converted: it keeps its own where it comes first (each row stands
        for itself), and is left out elsewhere (rows are compared).
        """
        price, terms = price_at_launch(row), self.terms
        if price is None or terms.allocation != Terms.allocation or terms.region not in (None, row["region"]):
            return None
        amount, currency = price
        if terms.currency or not self.launch_first:
            if currency not in self.factors:
                return None
            amount, currency = amount * self.factors[currency], (terms.currency or USD).upper()
        launched = {"price_per_hour": amount, "price_currency": currency, "price_region": row["region"]}
        return {**_of_offer(None), **launched, "price_source": AT_LAUNCH}


def pricing(
    session: Session, terms: Terms, servers: Iterable[tuple[str, str]] | None = None, *, launch_first: bool = False
) -> Pricing:
    """Prices on these terms, of some servers (vendor_id, server_id) or of all.

    Raises:
        UsageError: the region is unknown, or there is no rate for the currency asked for.
    """
    asked = None if servers is None else set(servers)
    found = offers(session, terms, asked)
    into = (terms.currency or USD).upper()
    rates = newest_rates(session)
    known = factors(into, rates) if terms.currency else {into: 1.0}
    notes = list(found.notes)
    if terms.currency or not launch_first:
        foreign = _foreign(session, found, into, asked, launch_first=launch_first)
        converted = {code for currency in foreign if currency in known for code in (currency, into)} - {USD}
        told = (f"Converted with {rates[code]}." for code in sorted(converted))
        notes += [note for note in told if note not in notes]
        notes += [_left_out(foreign[one], one, into, terms) for one in sorted(foreign) if one not in known]
    return Pricing(terms, found.by_server, tuple(notes), launch_first, known)


def _foreign(
    session: Session, found: Offers, into: str, asked: set[tuple[str, str]] | None, *, launch_first: bool
) -> Counter[str]:
    """Servers whose price is one at launch in another currency, by this; what a note says of already is not in it."""
    query = (
        select(Job.vendor_id, Job.server_id, Job.currency)
        .where(Job.launch_price_per_hour.is_not(None), Job.currency != into)
        .distinct()
    )
    return Counter(
        str(currency)
        for vendor, server, currency in session.execute(query)
        if (asked is None or (vendor, server) in asked)
        and (launch_first or (vendor, server) not in found.by_server)
        and (vendor, server) not in found.foreign
    )


def _left_out(count: int, currency: str, into: str, terms: Terms) -> str:
    mend = f"--currency {into} converts them" if not terms.currency else "no rate for it is known"
    were = "1 server was" if count == 1 else f"{count} servers were"
    return f"{were} rented at a price in {currency}, and without a price here ({mend})."


def _of_offer(offer: Offer | None) -> Row:
    return {
        "price_per_hour": offer.price_per_hour if offer else None,
        "price_currency": offer.currency if offer else None,
        "price_allocation": offer.allocation if offer else None,
        "price_region": offer.region if offer else None,
        "price_source": offer.source if offer else None,
        "price_source_date": offer.source_date if offer else None,
        "price_flags": list(offer.flags) if offer else [],
    }
