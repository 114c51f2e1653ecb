"""What a file of a catalogue is told by its content, and what is wrong with it by one sentence."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sqlite3
from contextlib import closing
from datetime import date
from typing import TYPE_CHECKING

import pytest
from benchctl.catalog.files import read_file
from benchctl.catalog.values import PriceList, RateList, Snapshot
from benchctl.errors import UsageError
from catalog_files import HEADER, Line, write_database, write_prices, write_rates

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("pack", [None, lzma.compress, bz2.compress, gzip.compress])
def test_packed_or_not_and_whatever_its_name(tmp_path: Path, pack: Callable[[bytes], bytes] | None) -> None:
    """A database is read as SQLite file or SQL text, prices and rates as CSV, packed with xz, bz2, gzip or plain."""
    database = write_database(tmp_path / "a.db")
    with closing(sqlite3.connect(database)) as db:
        dump = "\n".join(db.iterdump())
    contents = {
        Snapshot: [database.read_bytes(), dump.encode()],
        PriceList: [write_prices(tmp_path / "p.csv", Line("n2-standard-4", 0.2)).read_bytes()],
        RateList: [write_rates(tmp_path / "r.csv", "EUR,2025-04-28,1.1388,ECB").read_bytes()],
    }
    for kind, several in contents.items():
        for content in several:
            file = tmp_path / "no-telling-name"
            file.write_bytes(pack(content) if pack else content)
            delivery = read_file(file)
            assert type(delivery.content) is kind
            assert delivery.origin is not None
            assert delivery.origin.size_bytes == file.stat().st_size


def test_a_line_of_a_list(tmp_path: Path) -> None:
    """Every column comes through, and 'hetzner' is hcloud."""
    line = Line("cx22", 0.0052, vendor="hetzner", region="fsn1", currency="eur", allocation="on-demand", licence="")
    content = read_file(write_prices(tmp_path / "p.csv", line)).content
    assert isinstance(content, PriceList)
    one = content.prices[0]
    assert (one.vendor_id, one.server, one.region, one.zone) == ("hcloud", "cx22", "fsn1", "")
    assert (one.allocation, one.price, one.currency, one.unit) == ("ONDEMAND", 0.0052, "EUR", "HOUR")
    assert (one.source, one.source_date, one.licence) == ("prices/list@abcdef1 prices.yml", date(2025, 4, 28), None)


def test_a_damaged_line_spoils_itself_only(tmp_path: Path) -> None:
    """Each is set aside with its number and its reason, and the lines after it are read."""
    damaged = [
        (Line("a", "cheap"), "the price 'cheap' is not a number above 0"),
        (Line("a", -1.0), "the price '-1.0' is not a number above 0"),
        (Line("a", "nan"), "the price 'nan' is not a number above 0"),
        (Line("", 1.0), "it names no server"),
        (Line("a", 1.0, vendor="A W S"), "'A W S' is not the identifier of a vendor"),
        (Line("a", 1.0, allocation="LEASED"), "'LEASED' is not an allocation (ONDEMAND, SPOT, RESERVED)"),
        (Line("a", 1.0, unit="FORTNIGHT"), "'FORTNIGHT' is not a unit of time (HOUR, MONTH, YEAR)"),
        (Line("a", 1.0, day="last week"), "'last week' is not a date like 2026-01-31"),
        (Line("a", 1.0, currency=""), "it has no currency"),
        (Line("a", 1.0, source=""), "it does not say where the price is from"),
        ("gcp,a,1.0", "3 fields instead of 11"),
    ]
    file = write_prices(tmp_path / "p.csv", *(line for line, _ in damaged), "", Line("n2-standard-4", 0.2))
    content = read_file(file).content
    assert isinstance(content, PriceList)
    assert [one.server for one in content.prices] == ["n2-standard-4"]
    assert [str(one) for one in content.set_aside] == [
        f"{file}, line {number}: {reason}" for number, (_, reason) in enumerate(damaged, 2)
    ]
    assert content.set_aside[0].about == ("gcp", "a")


def test_bytes_that_are_no_text_spoil_their_line_only(tmp_path: Path) -> None:
    """A byte that is no UTF-8 in one line leaves the others readable."""
    file = write_prices(tmp_path / "p.csv", Line("n2-standard-4", 0.2), Line("n2-standard-8", "XX"))
    file.write_bytes(file.read_bytes().replace(b"XX", b"\xff\xfe"))
    content = read_file(file).content
    assert isinstance(content, PriceList)
    assert (len(content.prices), len(content.set_aside)) == (1, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "is neither a Spare Cores database nor CSV"),
        (b"hello\nworld\n", "is neither a Spare Cores database nor CSV"),
        (b"server,usd\na,1\n", "has no column vendor_id, api_reference"),
        (HEADER.replace("source_date", "day").encode(), "has no column source_date"),
        (b"currency,usd_per_unit\nEUR,1.1\n", "has no column rate_date, source"),
        (lzma.compress(b"x" * 99999)[:-60], "is damaged: it can't be unpacked"),
        (bz2.compress(b"a,b\n" * 9999)[:20] + b"??", "is damaged: it can't be unpacked"),
        (gzip.compress(HEADER.encode() + b"\n" * 99999)[:-12], "is damaged: it can't be unpacked"),
        (b"SQLite format 3\x00" + bytes(4000), "can't be read as an SQLite database"),
        (b"CREATE TABLE server (a);\nINSERT INTO", "ends in the middle of a statement"),
        (b"BEGIN TRANSACTION;\nCREATE TABLE server (a);\n", "ends in the middle of a transaction"),
        (b"CREATE TABLE server (a);\nCREATE TABLE server (a);\n", "already exists"),
        (b"CREATE TABLE cars (a);\n", "is not a Spare Cores database: it has no table country"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, content: bytes, words: str) -> None:
    """One sentence says what is wrong with the whole file."""
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        read_file(file)
    assert str(file) in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    """A path without a file, and a folder, are refused."""
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError, match="There is no file"):
            read_file(path)


def test_a_damaged_database(tmp_path: Path) -> None:
    """Pages that were overwritten are noticed before anything is read from them."""
    file = write_database(tmp_path / "a.db")
    content = bytearray(file.read_bytes())
    content[4096 : 4096 * 4] = b"\xaa" * 4096 * 3
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"damaged|malformed"):
        read_file(file)


def test_a_database_without_a_column(tmp_path: Path) -> None:
    """One that lacks what every server has is named as no Spare Cores database."""
    file = write_database(tmp_path / "a.db")
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("ALTER TABLE server DROP COLUMN vcpus")
    with pytest.raises(UsageError, match="its table server has no column vcpus"):
        read_file(file)


def test_sql_text_reaches_no_other_file(tmp_path: Path) -> None:
    """A dump that attaches another database is refused, and the other one untouched."""
    victim = tmp_path / "victim.db"
    file = tmp_path / "dump.sql"
    file.write_text(f"BEGIN TRANSACTION;\nCOMMIT;\nATTACH '{victim}' AS v;\nCREATE TABLE v.t (a);\n")
    with pytest.raises(UsageError, match="not authorized"):
        read_file(file)
    assert not victim.exists()
