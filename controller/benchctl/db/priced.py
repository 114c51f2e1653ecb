"""A measured speed with a price: what a million tokens cost, and which price was taken.

There are two. A row has the price at which its server was rented when it was measured (``price_usd_per_hour``), and the
catalogue has an offer on the terms that were asked for. Each answer says which one it took.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchctl import stats
from benchctl.db.prices import USD, Terms, offers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy.orm import Session

    from benchctl.db.prices import Offer

    Row = dict[str, Any]

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
    """

    terms: Terms
    offers: Mapping[tuple[str, str], Offer]
    notes: tuple[str, ...]
    launch_first: bool = False

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
        """The price at launch, where it fits the terms: on demand, in this region, in US dollars."""
        price, terms = row["price_usd_per_hour"], self.terms
        fits = (
            terms.allocation == Terms.allocation
            and terms.region in (None, row["region"])
            and (terms.currency or USD).upper() == USD
        )
        if price is None or not fits:
            return None
        launched = {"price_per_hour": price, "price_currency": USD, "price_region": row["region"]}
        return {**_of_offer(None), **launched, "price_source": AT_LAUNCH}


def pricing(
    session: Session, terms: Terms, servers: Iterable[tuple[str, str]] | None = None, *, launch_first: bool = False
) -> Pricing:
    """Prices on these terms, of some servers (vendor_id, server_id) or of all.

    Raises:
        UsageError: the region is unknown, or there is no rate for the currency asked for.
    """
    found = offers(session, terms, servers)
    return Pricing(terms, found.by_server, found.notes, launch_first)


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
