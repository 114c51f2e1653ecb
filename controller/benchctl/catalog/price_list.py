"""Prices and exchange rates as CSV. A line that can't be read is set aside with its number and the reason."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from datetime import date
from functools import lru_cache
from math import isfinite
from sys import intern
from typing import TYPE_CHECKING

from benchctl.catalog.values import (
    VENDOR_ALIASES,
    ListedPrice,
    ListedRate,
    PriceList,
    RateList,
    SetAside,
)
from benchctl.db.prices import ALLOCATIONS, HOURS
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import TypeVar

    Item = TypeVar("Item")

PRICE_COLUMNS = (
    "vendor_id",
    "api_reference",
    "region",
    "allocation",
    "price",
    "currency",
    "unit",
    "source",
    "source_date",
)
"""Columns that a list of prices must have. It may have ``zone``, ``licence`` and ``operating_system`` besides."""

RATE_COLUMNS = ("currency", "rate_date", "usd_per_unit", "source")
"""Columns that a list of exchange rates must have."""

_VENDOR = re.compile(r"[a-z][a-z0-9_-]*")


class _UnreadableError(ValueError):
    """Why a line can't be read."""


def is_rates(header: str) -> bool:
    """Whether the first line of a CSV is that of exchange rates."""
    return "usd_per_unit" in header


def read_prices(lines: Iterable[str], name: str) -> PriceList:
    """Read a list of prices.

    Args:
        lines: the text, line by line.
        name: of the file, for messages.

    Raises:
        UsageError: it lacks a column.
    """
    prices, set_aside = _read(lines, name, PRICE_COLUMNS, _price)
    return PriceList(name, tuple(prices), tuple(set_aside))


def read_rates(lines: Iterable[str], name: str) -> RateList:
    """Read a list of exchange rates.

    Args:
        lines: the text, line by line.
        name: of the file, for messages.

    Raises:
        UsageError: it lacks a column.
    """
    rates, set_aside = _read(lines, name, RATE_COLUMNS, _rate)
    return RateList(name, tuple(rates), tuple(replace(one, is_rate=True) for one in set_aside))


def _read(
    lines: Iterable[str], name: str, columns: Sequence[str], parse: Callable[[Mapping[str, str]], Item]
) -> tuple[list[Item], list[SetAside]]:
    reader = csv.reader(lines)
    header = [column.strip() for column in next(reader, [])]
    missing = [column for column in columns if column not in header]
    if missing:
        raise UsageError(
            f"{name} has no column {', '.join(missing)}.", f"Its first line must name the columns {', '.join(columns)}."
        )
    found: list[Item] = []
    set_aside: list[SetAside] = []
    for number, fields in _numbered(reader):
        if isinstance(fields, str):
            set_aside.append(SetAside(f"{name}, line {number}", fields))
        elif len(fields) != len(header):
            what = f"{len(fields)} fields instead of {len(header)}"
            set_aside.append(SetAside(f"{name}, line {number}", what, _about(dict(zip(header, fields, strict=False)))))
        elif fields:
            values = dict(zip(header, fields, strict=True))
            try:
                found.append(parse(values))
            except _UnreadableError as error:
                set_aside.append(SetAside(f"{name}, line {number}", str(error), _about(values)))
    return found, set_aside


def _numbered(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str] | str]]:
    """Lines with their numbers; a text instead of the fields says why they can't be had."""
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, f"no line of CSV ({error})"  # type: ignore[attr-defined]
            continue
        if fields:
            yield reader.line_num, fields  # type: ignore[attr-defined]


def _about(values: Mapping[str, str]) -> tuple[str, str] | None:
    vendor, server = values.get("vendor_id", "").strip(), values.get("api_reference", "").strip()
    return (VENDOR_ALIASES.get(vendor, vendor), server) if vendor and server else None


def _price(values: Mapping[str, str]) -> ListedPrice:
    vendor = values["vendor_id"].strip()
    if not _VENDOR.fullmatch(vendor):
        raise _UnreadableError(f"'{vendor}' is not the identifier of a vendor")
    server = values["api_reference"].strip()
    if not server:
        raise _UnreadableError("it names no server")
    allocation = values["allocation"].strip().upper().replace("-", "").replace("_", "")
    if allocation not in ALLOCATIONS:
        raise _UnreadableError(f"'{values['allocation']}' is not an allocation ({', '.join(ALLOCATIONS)})")
    unit = values["unit"].strip().upper()
    if unit not in HOURS:
        raise _UnreadableError(f"'{values['unit']}' is not a unit of time ({', '.join(HOURS)})")
    currency = values["currency"].strip().upper()
    if not currency:
        raise _UnreadableError("it has no currency")
    source = values["source"].strip()
    if not source:
        raise _UnreadableError("it does not say where the price is from")
    return ListedPrice(
        # a list of 100,000 lines has some thousand different words
        vendor_id=intern(VENDOR_ALIASES.get(vendor, vendor)),
        server=intern(server),
        region=intern(values["region"].strip()),
        zone=intern(values.get("zone", "").strip()),
        allocation=intern(allocation),
        price=_positive("price", values["price"]),
        currency=intern(currency),
        unit=intern(unit),
        source=intern(source),
        source_date=_day(values["source_date"].strip()),
        licence=intern(values.get("licence", "").strip()) or None,
        operating_system=intern(values.get("operating_system", "").strip() or "Linux"),
    )


def _rate(values: Mapping[str, str]) -> ListedRate:
    currency, source = values["currency"].strip().upper(), values["source"].strip()
    if not currency:
        raise _UnreadableError("it has no currency")
    if not source:
        raise _UnreadableError("it does not say where the rate is from")
    return ListedRate(
        currency, _day(values["rate_date"].strip()), _positive("usd_per_unit", values["usd_per_unit"]), source
    )


def _positive(column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (isfinite(value) and value > 0):
        raise _UnreadableError(f"the {column} '{text}' is not a number above 0")
    return value


@lru_cache(maxsize=1024)
def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise _UnreadableError(f"'{text}' is not a date like 2026-01-31") from error
