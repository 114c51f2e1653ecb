"""A Spare Cores database as it is published: an SQLite file, or the SQL text that makes one."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, Date, DateTime, Float, Integer

from benchctl.catalog.values import ListedPrice, SetAside, Snapshot
from benchctl.db.columns import CanonicalJson, Utc
from benchctl.db.hosts import OWN
from benchctl.db.prices import ALLOCATIONS, HOURS
from benchctl.db.schema import Country, Region, Server, Vendor, Zone
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Table

TABLES = ("country", "vendor", "region", "zone", "server")
"""What is read, in an order in which each can be written."""

SOURCE = "SpareCores/sc-data"
LICENCE = "CC-BY-SA-4.0"
"""Where the prices of their own table are from, https://github.com/SpareCores/sc-data."""

MEND = "Get it anew, e.g. with 'benchctl catalog pull'."

_MODELS = {"country": Country, "vendor": Vendor, "region": Region, "zone": Zone, "server": Server}
_ATTACHING = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}


def read_snapshot(path: Path, name: str) -> Snapshot:
    """Read what it says of servers, places and prices.

    Args:
        path: the SQLite file.
        name: how messages call it.

    Raises:
        UsageError: it is damaged, or not a Spare Cores database.
    """
    with _sentences(name), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        db.row_factory = sqlite3.Row
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise UsageError(f"{name} is damaged.", MEND)
        tables = {row["name"] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        missing = [table for table in TABLES if table not in tables]
        if missing:
            raise UsageError(
                f"{name} is not a Spare Cores database: it has no table {', '.join(missing)}.",
                "Give their sc-data-all.db, or a CSV of prices.",
            )
        rows = {table: tuple(_rows(db, table, name)) for table in TABLES}
        prices, set_aside = _prices(db, name) if "server_price" in tables else ((), ())
    as_of: dict[str, datetime] = {}
    for server in rows["server"]:
        vendor, seen = server["vendor_id"], server["observed_at"]
        as_of[vendor] = max(seen, as_of.get(vendor, seen))
    return Snapshot(name, rows, as_of, prices, set_aside)


def restore(statements: Iterable[str], path: Path, name: str) -> None:
    """Make the SQLite file ``path`` from the SQL text of a dump.

    Raises:
        UsageError: the text is not a dump that can be restored.
    """
    with _sentences(name), closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        # the text comes from the network: it may fill this file and reach no other
        db.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action in _ATTACHING else sqlite3.SQLITE_OK)
        pending: list[str] = []
        for line in statements:
            pending.append(line)
            if line.rstrip().endswith(";") and sqlite3.complete_statement("".join(pending)):
                db.execute("".join(pending))
                pending = []
        if "".join(pending).strip():
            raise UsageError(f"{name} ends in the middle of a statement.", MEND)
        if db.in_transaction:
            raise UsageError(f"{name} ends in the middle of a transaction.", MEND)


@contextmanager
def _sentences(name: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise UsageError(f"{name} can't be read as an SQLite database: {error}.", MEND) from error


def _rows(db: sqlite3.Connection, name: str, file: str) -> Iterator[dict[str, Any]]:
    """The rows of one table, with the columns that ours has too; machines of one's own are none of a catalogue's."""
    table: Table = _MODELS[name].metadata.tables[name]
    theirs = {row["name"] for row in db.execute(f"PRAGMA table_info({name})")}
    common = [column for column in table.columns if column.name in theirs]
    lacking = [
        column.name for column in table.columns if not column.nullable and not column.default and column not in common
    ]
    if lacking:
        raise UsageError(
            f"{file} is not a Spare Cores database: its table {name} has no column {', '.join(lacking)}.",
            "Give their sc-data-all.db, or a CSV of prices.",
        )
    read = {column.name: _reader(column.type) for column in common}
    for row in db.execute(f"SELECT {', '.join(read)} FROM {name}"):  # noqa: S608 - names of our own columns
        try:
            values = {key: None if row[key] is None else convert(row[key]) for key, convert in read.items()}
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"{file} is damaged: its table {name} holds a value that can't be: {error}.", MEND
            ) from error
        if values.get("vendor_id") not in OWN:
            yield values


def _reader(kind: Any) -> Any:
    """What makes a value of SQLite one of ours."""
    if isinstance(kind, CanonicalJson):
        return json.loads
    if isinstance(kind, (Utc, DateTime)):
        return _moment
    if isinstance(kind, Date):  # pragma: no cover - none of these tables has one
        return lambda text: datetime.fromisoformat(text).date()
    if isinstance(kind, Boolean):
        return bool
    if isinstance(kind, Float):
        return float
    if isinstance(kind, Integer):
        return int
    return str


def _moment(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _prices(db: sqlite3.Connection, name: str) -> tuple[tuple[ListedPrice, ...], tuple[SetAside, ...]]:
    prices, set_aside = [], []
    for row in db.execute("SELECT * FROM server_price WHERE status = 'ACTIVE'"):
        try:
            prices.append(_price(row))
        except (ValueError, TypeError) as error:
            where = f"{name}, price of {row['vendor_id']}/{row['server_id']} in {row['region_id']}"
            set_aside.append(SetAside(where, str(error), (str(row["vendor_id"]), str(row["server_id"]))))
    return tuple(prices), tuple(set_aside)


def _price(row: Mapping[str, Any]) -> ListedPrice:
    price, allocation, unit = float(row["price"]), str(row["allocation"]), str(row["unit"])
    if not 0 < price < float("inf"):
        raise ValueError(f"the price {price} is not a number above 0")
    if allocation not in ALLOCATIONS or unit not in HOURS:
        raise ValueError(f"nobody knows a price {allocation} per {unit}")
    return ListedPrice(
        vendor_id=str(row["vendor_id"]),
        server=str(row["server_id"]),
        region=str(row["region_id"]),
        zone=str(row["zone_id"]),
        allocation=allocation,
        price=price,
        currency=str(row["currency"]).upper(),
        unit=unit,
        source=SOURCE,
        source_date=_moment(row["observed_at"]).date(),
        licence=LICENCE,
        operating_system=str(row["operating_system"] or "Linux"),
    )
