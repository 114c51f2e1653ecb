"""An import: all that was read goes into the database in one transaction, or nothing does. Twice is once."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from benchctl.catalog.places import Places
from benchctl.catalog.price_history import PriceBook
from benchctl.catalog.server_types import take_snapshot
from benchctl.catalog.values import PriceList, RateList, Snapshot, Summary
from benchctl.db.engine import reading, writing
from benchctl.db.schema import CatalogSource, ExchangeRate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from benchctl.catalog.values import Delivery, ListedPrice, ListedRate


def take_in(engine: Engine, deliveries: Sequence[Delivery], now: datetime, *, whole: bool = True) -> Summary:
    """Bring what was read into the database: servers first, then prices, then rates, whatever their order.

    Args:
        engine: the database.
        deliveries: what was read.
        now: when changes are said to have been seen, with its zone.
        whole: whether the lists of prices are whole: a price that its source lists no more is then closed.

    Raises:
        DatabaseError: the database can't be written; it is then as it was.
    """
    summary = Summary()
    with writing(engine) as session:
        connection = session.connection()
        vendors: set[str] = set()
        lists: list[PriceList] = []
        for content in (one.content for one in deliveries):
            if isinstance(content, Snapshot):
                vendors |= take_snapshot(connection, content, now, summary)
                if content.prices or content.set_aside:
                    lists.append(PriceList(content.name, content.prices, content.set_aside))
            elif isinstance(content, PriceList):
                lists.append(content)
        summary.set_aside += [one for prices in lists for one in prices.set_aside]
        vendors |= _take_prices(connection, lists, vendors, now, whole, summary)
        for content in (one.content for one in deliveries):
            if isinstance(content, RateList):
                _take_rates(connection, content.rates, summary)
                summary.set_aside += content.set_aside
        _remember(connection, deliveries, now)
    return summary


def knows(engine: Engine, url: str, sha256: str) -> bool:
    """Whether just this was taken in from ``url`` the last time."""
    with reading(engine) as session:
        return session.scalar(select(CatalogSource.sha256).filter_by(url=url)) == sha256


def _take_prices(
    connection: Connection, lists: Sequence[PriceList], shown: set[str], now: datetime, whole: bool, summary: Summary
) -> set[str]:
    """One vendor after the other, so that only one's prices are in memory beside the lists."""
    by_vendor: dict[str, list[list[ListedPrice]]] = defaultdict(lambda: [[] for _ in lists])
    for i, prices in enumerate(lists):
        for one in prices.prices:
            by_vendor[one.vendor_id][i].append(one)
    flagged: Counter[str] = Counter()
    left_out = made = 0
    for vendor in sorted(shown | by_vendor.keys()):
        book = PriceBook(connection, vendor, now)
        places = Places(connection, vendor, now)
        for i, some in enumerate(by_vendor.get(vendor, ())):
            if some:
                left_out += book.take(some, lists[i].set_aside, places, whole, summary.tally("prices"))
        made += places.made_servers
        places.write()
        flagged += book.settle()
    summary.flagged = dict(sorted(flagged.items()))
    if lists:
        summary.tally("prices")
    if left_out:
        summary.notes.append(
            f"{left_out} prices were left out: their server is unknown here, or has other GPUs than the price is for."
        )
    if made:
        summary.notes.append(f"{made} servers are known by their price alone: import a Spare Cores database as well.")
    return set(by_vendor)


def _take_rates(connection: Connection, rates: Sequence[ListedRate], summary: Summary) -> None:
    tally = summary.tally("rates")
    columns = (ExchangeRate.currency, ExchangeRate.rate_date, ExchangeRate.source, ExchangeRate.usd_per_unit)
    known = {(code, day, source): value for code, day, source, value in connection.execute(select(*columns)).all()}
    for one in rates:
        key = (one.currency, one.rate_date, one.source)
        named = dict(zip(("currency", "rate_date", "source"), key, strict=True))
        if key not in known:
            tally.new += 1
            connection.execute(insert(ExchangeRate), {**named, "usd_per_unit": one.usd_per_unit})
        elif known[key] != one.usd_per_unit:
            tally.changed += 1
            connection.execute(update(ExchangeRate).filter_by(**named).values(usd_per_unit=one.usd_per_unit))
        else:
            tally.unchanged += 1
        known[key] = one.usd_per_unit


def _remember(connection: Connection, deliveries: Sequence[Delivery], now: datetime) -> None:
    known: dict[str, str] = dict(connection.execute(select(CatalogSource.url, CatalogSource.sha256)).all())
    for origin in (one.origin for one in deliveries if one.origin):
        values = {
            "kind": origin.kind,
            "etag": origin.etag,
            "sha256": origin.sha256,
            "size_bytes": origin.size_bytes,
            "imported_at": now,
        }
        if origin.url not in known:
            connection.execute(insert(CatalogSource), {"url": origin.url, **values})
        elif known[origin.url] != origin.sha256:
            connection.execute(update(CatalogSource).filter_by(url=origin.url).values(**values))
        known[origin.url] = origin.sha256
