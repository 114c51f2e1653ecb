"""The prices of one vendor and their history: what a new list does to what is known.

A price is known by its key: vendor, region, zone, server, allocation and source. A source is the same when nothing but
the revision in its name differs (``owner/repository@1a2b3c4 path``). A price that changes is closed and a new row
opened; one that its source lists no more is closed. ``is_current`` marks, of the open rows of several sources, the
newest that no check doubts, or the newest at all; ``server_price`` is made from these.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, insert, literal, select, update

from benchctl.catalog.checks import Priced, doubts
from benchctl.db.columns import CanonicalJson
from benchctl.db.prices import HOURS
from benchctl.db.schema import Server, metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from benchctl.catalog.places import Places
    from benchctl.catalog.values import ListedPrice, SetAside, Tally

    Key = tuple[str, str, str, str, str]

_REVISION = re.compile(r"@[0-9a-f]{6,40}(?![0-9a-z])")
_KEY = ("region_id", "zone_id", "server_id", "allocation", "source", "since")
_VALUES = (
    "price", "currency", "unit", "operating_system", "source_date", "licence", "flags", "is_current",
)  # fmt: skip
_MIB_PER_GIB = 1024


@lru_cache(maxsize=4096)
def identity(source: str) -> str:
    """What a source is called whatever its revision."""
    return _REVISION.sub("", source)


@dataclass(slots=True)
class _Open:
    """An open row of ``price``; ``row_source`` is that of its row in the database, ``None`` when it has none yet."""

    region_id: str
    zone_id: str
    server_id: str
    allocation: str
    source: str
    since: datetime
    price: float
    currency: str
    unit: str
    operating_system: str
    source_date: date | None
    licence: str | None
    flags: tuple[str, ...]
    is_current: bool
    row_source: str | None
    touched: bool = False

    @property
    def key(self) -> Key:
        return (self.region_id, self.zone_id, self.server_id, self.allocation, identity(self.source))

    @property
    def day(self) -> date:
        return self.source_date or date.min


class PriceBook:
    """All open prices of one vendor, in hand while an import changes them.

    Args:
        connection: in a transaction.
        vendor_id: the vendor.
        now: when changes are said to have been seen.
    """

    def __init__(self, connection: Connection, vendor_id: str, now: datetime) -> None:
        self._connection = connection
        self._vendor = vendor_id
        self._now = now
        self._table = metadata.tables["price"]
        self._closed: list[_Open] = []
        columns = [self._table.c[name] for name in (*_KEY, *_VALUES)]
        rows = connection.execute(
            select(*columns).where(self._table.c.vendor_id == vendor_id, self._table.c.until.is_(None))
        )
        self._open: dict[Key, _Open] = {}
        for row in rows.mappings():
            values: dict[str, Any] = {**row, "flags": tuple(row["flags"]), "row_source": row["source"]}
            one = _Open(**values)
            self._open[one.key] = one

    def take(
        self, prices: Sequence[ListedPrice], set_aside: Iterable[SetAside], places: Places, whole: bool, tally: Tally
    ) -> int:
        """Take in a list of prices of this vendor.

        Args:
            prices: the list.
            set_aside: what of the list could not be read; the prices of these servers are not taken for gone.
            places: names to identifiers.
            whole: whether a price is gone that the list lacks, of the sources that are in the list.
            tally: is told what was done.

        Returns:
            How many prices were left out, because they are for other GPUs than the server has, or for an unknown
            machine of one's own.
        """
        listed, left_out = self._listed(prices, places)
        newest_listed = _newest((identity(one.source), one.source_date or date.min) for one in listed.values())
        newest_known = _newest((identity(one.source), one.day) for one in self._open.values())
        for key, price in listed.items():
            older_list = newest_listed[key[-1]] < newest_known.get(key[-1], date.min)
            self._take_one(key, price, older_list, tally)
        if whole:
            kept = {
                places.known_server(one.about[1]) for one in set_aside if one.about and one.about[0] == self._vendor
            }
            for key in [
                key
                for key, one in self._open.items()
                if key not in listed
                and key[-1] in newest_listed
                and newest_listed[key[-1]] >= newest_known.get(key[-1], date.min)
                and one.server_id not in kept
            ]:
                self._close(key)
                tally.closed += 1
        return left_out

    def _listed(self, prices: Sequence[ListedPrice], places: Places) -> tuple[dict[Key, ListedPrice], int]:
        """The list by key; of several lines of one key the newest, and of one day the last."""
        found: dict[Key, ListedPrice] = {}
        left_out = 0
        for one in prices:
            server = places.server(one.server) if one.gpu_count is None else places.known_server(one.server)
            if server is None or (one.gpu_count is not None and places.gpus.get(server) != one.gpu_count):
                left_out += 1
                continue
            region = places.region(one.region)
            key = (region, places.zone(region, one.zone), server, one.allocation, identity(one.source))
            other = found.get(key)
            if other is None or (one.source_date or date.min) >= (other.source_date or date.min):
                found[key] = one
        return found, left_out

    def _take_one(self, key: Key, price: ListedPrice, older_list: bool, tally: Tally) -> None:
        known = self._open.get(key)
        day = price.source_date or date.min
        if (known is None and older_list) or (known is not None and day < known.day):
            tally.older += 1
            return
        if known is not None and (known.price, known.currency, known.unit, known.operating_system) == (
            price.price,
            price.currency,
            price.unit,
            price.operating_system,
        ):
            tally.unchanged += 1
            if (known.source, known.source_date, known.licence) != (price.source, price.source_date, price.licence):
                # seen again, at a later day or in a later revision
                known.source, known.source_date, known.licence = price.source, price.source_date, price.licence
                known.touched = True
            return
        if known is None:
            tally.new += 1
        else:
            tally.changed += 1
            self._close(key)
        self._open[key] = _Open(
            *key[:4],
            price.source,
            self._now,
            price.price,
            price.currency,
            price.unit,
            price.operating_system,
            price.source_date,
            price.licence,
            flags=(),
            is_current=False,
            row_source=None,
        )

    def _close(self, key: Key) -> None:
        gone = self._open.pop(key)
        if gone.row_source is not None:
            self._closed.append(gone)

    def settle(self) -> Counter[str]:
        """Judge all open prices, choose the current ones, and write what is new.

        Returns:
            The number of open prices that each check flags.
        """
        entries = list(self._open.values())
        for one, flags in zip(entries, doubts(self._priced(entries)), strict=True):
            if one.flags != flags:
                one.flags, one.touched = flags, True
        by_place: dict[tuple[str, ...], list[_Open]] = defaultdict(list)
        for one in entries:
            by_place[one.key[:4]].append(one)
        for rivals in by_place.values():
            best = max(rivals, key=lambda one: (not one.flags, one.day, one.source))
            for one in rivals:
                if one.is_current != (one is best):
                    one.is_current, one.touched = one is best, True
        self._write(entries)
        return Counter(flag for one in entries for flag in one.flags)

    def _priced(self, entries: Sequence[_Open]) -> list[Priced]:
        servers = {
            row.server_id: row
            for row in self._connection.execute(
                select(
                    Server.server_id,
                    Server.family,
                    Server.vcpus,
                    Server.memory_amount,
                    Server.gpu_count,
                    Server.gpu_memory_total,
                ).filter_by(vendor_id=self._vendor)
            )
        }
        found = []
        for one in entries:
            server = servers[one.server_id]
            gpu_memory = server.gpu_memory_total / _MIB_PER_GIB if server.gpu_memory_total else None
            found.append(
                Priced(
                    one.server_id,
                    server.family,
                    one.region_id,
                    one.allocation,
                    one.price / HOURS[one.unit],
                    one.currency,
                    server.vcpus,
                    server.memory_amount / _MIB_PER_GIB,
                    server.gpu_count,
                    gpu_memory,
                    identity(one.source),
                )
            )
        return found

    def _write(self, entries: Sequence[_Open]) -> None:
        fresh = [one for one in entries if one.row_source is None]
        touched = [one for one in entries if one.row_source is not None and one.touched]
        if not (fresh or touched or self._closed):
            return
        table, execute = self._table, self._connection.execute
        of_row = [
            table.c.vendor_id == self._vendor,
            *(table.c[name] == bindparam(f"key_{name}") for name in _KEY),
        ]
        if self._closed:
            execute(
                update(table).where(*of_row).values(until=self._now, is_current=False),
                [_key_of_row(one) for one in self._closed],
            )
        if touched:
            changing = ("source", "source_date", "licence", "flags", "is_current")
            execute(
                update(table).where(*of_row).values({name: bindparam(f"new_{name}") for name in changing}),
                [_key_of_row(one) | {f"new_{name}": getattr(one, name) for name in changing} for one in touched],
            )
        if fresh:
            columns = (*_KEY, *_VALUES)
            execute(
                insert(table),
                [{"vendor_id": self._vendor, **{name: getattr(one, name) for name in columns}} for one in fresh],
            )
        self._rebuild_server_price()

    def _rebuild_server_price(self) -> None:
        """Spare Cores' table of this vendor, anew from the current prices."""
        price, target = self._table, metadata.tables["server_price"]
        self._connection.execute(delete(target).where(target.c.vendor_id == self._vendor))
        same = (
            "vendor_id", "region_id", "zone_id", "server_id", "operating_system", "allocation", "unit", "price",
            "currency",
        )  # fmt: skip
        self._connection.execute(
            insert(target).from_select(
                [*same, "price_upfront", "price_tiered", "status", "observed_at"],
                select(
                    *(price.c[name] for name in same),
                    literal(0.0),
                    literal([], CanonicalJson),
                    literal("ACTIVE"),
                    price.c.since,
                ).where(price.c.vendor_id == self._vendor, price.c.is_current, price.c.until.is_(None)),
            )
        )


def _key_of_row(one: _Open) -> dict[str, Any]:
    return {f"key_{name}": getattr(one, name) for name in _KEY} | {"key_source": one.row_source}


def _newest(dated: Iterable[tuple[str, date]]) -> dict[str, date]:
    newest: dict[str, date] = {}
    for source, day in dated:
        newest[source] = max(day, newest.get(source, day))
    return newest
