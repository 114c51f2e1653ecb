"""What lists say of a server: its price from a CSV file, its memory from a catalogue in Spare Cores' format."""

from __future__ import annotations

import csv
import lzma
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.errors import UsageError
from benchctl.replay.recording import MIB
from benchctl.replay.world import Hardware

if TYPE_CHECKING:
    from typing import TextIO

    from benchctl.replay.report import Prices

_PRICE_COLUMNS = ("vendor_id", "api_reference", "allocation", "price", "currency", "unit")


def read_prices(path: Path) -> Prices:
    """On-demand price per hour of every server, in its cheapest region, in the currency as listed.

    Where a server is listed in several currencies, the one with most entries counts: amounts of different currencies
    are not compared.

    Args:
        path: a CSV file with the columns vendor_id, api_reference, allocation, price, currency and unit; ``.xz`` too.

    Raises:
        UsageError: it is not there, or not such a file.
    """
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    try:
        with lzma.open(path, "rt") if path.suffix == ".xz" else path.open() as stream:
            _read_prices(stream, path, found)
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise UsageError(f"The prices in {path} can't be read: {error}.", "Give a CSV file, or one as .xz.") from error
    prices = {}
    for key, listed in found.items():
        currency = max(sorted(listed), key=lambda name: len(listed[name]))
        prices[key] = min(listed[currency]), currency
    return prices


def _read_prices(stream: TextIO, path: Path, found: dict[tuple[str, str], dict[str, list[float]]]) -> None:
    rows = csv.DictReader(stream)
    missing = [name for name in _PRICE_COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise UsageError(
            f"{path} has no column {', '.join(missing)}.", f"It needs {', '.join(_PRICE_COLUMNS)}, with a header."
        )
    for line, row in enumerate(rows, start=2):
        if row["allocation"] != "ONDEMAND" or row["unit"] != "HOUR":
            continue
        try:
            price = float(row["price"])
        except (TypeError, ValueError) as error:
            raise UsageError(f"{path}, line {line}: {row['price']!r} is not a price.", "Correct it.") from error
        key = (row["vendor_id"], row["api_reference"])
        found.setdefault(key, {}).setdefault(row["currency"], []).append(price)


def read_hardware(path: Path) -> dict[tuple[str, str], Hardware]:
    """Memory of every server and of its GPUs, by vendor and ``api_reference``.

    Args:
        path: an SQLite file with Spare Cores' table ``server``; ``.xz`` too.

    Raises:
        UsageError: it is not there, or not such a file.
    """
    if not path.is_file():
        raise UsageError(f"There is no {path}.", "Give Spare Cores' catalogue, an SQLite file.")
    try:
        if path.suffix != ".xz":
            return _read_servers(path)
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "catalogue.db"
            with lzma.open(path) as packed, plain.open("wb") as target:
                shutil.copyfileobj(packed, target)
            return _read_servers(plain)
    except (OSError, lzma.LZMAError, sqlite3.Error) as error:
        raise UsageError(
            f"The catalogue {path} can't be read: {error}.", "Give an SQLite file with Spare Cores' table 'server'."
        ) from error


def _read_servers(path: Path) -> dict[tuple[str, str], Hardware]:
    query = "select vendor_id, api_reference, memory_amount, gpu_memory_total from server"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        return {
            (vendor, server): Hardware((memory or 0) * MIB, (gpu or 0) * MIB)
            for vendor, server, memory, gpu in database.execute(query)
        }
