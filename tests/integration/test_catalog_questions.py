"""The questions behind ``catalog list``, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from benchctl.catalog.files import read_file
from benchctl.catalog.store import take_in
from benchctl.db import catalog
from benchctl.db.catalog import Wanted
from benchctl.db.engine import reading
from catalog_files import A2, KINDS, Line, cpu_lines, write_database, write_prices, write_rates

if TYPE_CHECKING:
    from pathlib import Path

    from benchctl.db.catalog import Listing
    from sqlalchemy import Engine


@pytest.fixture
def filled(engine: Engine, tmp_path: Path) -> Engine:
    """A small catalogue."""
    lines = [
        *cpu_lines(),
        Line(A2.name, 0.739),
        Line("n2-standard-2", 0.02, allocation="SPOT"),
        Line("cx22", 0.005, vendor="hetzner", region="fsn1", currency="EUR"),
        Line("m5.xlarge", 1.4, vendor="aws", region="cn-north-1", currency="CNY"),
    ]
    files = [
        write_database(tmp_path / "a.db"),
        write_prices(tmp_path / "p.csv", *lines),
        write_rates(tmp_path / "r.csv", "EUR,2025-04-28,1.25,ECB", "EUR,2025-04-27,1.2,ECB"),
    ]
    take_in(engine, [read_file(file) for file in files], datetime(2026, 1, 1, tzinfo=UTC))
    return engine


ALL = Wanted()


def ask(engine: Engine, what: str, wanted: Wanted = ALL) -> Listing:
    """One question."""
    with reading(engine) as session:
        answer: Listing = getattr(catalog, what)(session, wanted)
        return answer


def test_servers(filled: Engine) -> None:
    """All of them with their sizes; every filter alone and all of them together."""
    everything = ask(filled, "servers")
    assert (len(everything.rows), everything.total) == (len(KINDS), len(KINDS))
    assert {row["memory_gib"] for row in everything.rows} >= {4.0, 85.0}
    wanted = Wanted(
        vendor="gcp", server="A2-*", gpu="a100", min_gpu_memory_gib=39, min_memory_gib=80, min_vcpus=12, arch="X86_64",
        status="ACTIVE", region="us-central1",
    )  # fmt: skip
    assert [row["api_reference"] for row in ask(filled, "servers", wanted).rows] == ["a2-highgpu-1g"]
    assert [row["server_id"] for row in ask(filled, "servers", Wanted(server="hetzner/cx*")).rows] == ["104"]
    assert ask(filled, "servers", Wanted(server="100%")).rows == [], "a per cent sign is no pattern"


def test_a_limit_says_how_many_there_are(filled: Engine) -> None:
    """The rows are cut, the total is not."""
    found = ask(filled, "servers", Wanted(limit=2))
    assert (len(found.rows), found.total) == (2, len(KINDS))


def test_prices(filled: Engine) -> None:
    """As listed, by currency and price; doubtful ones alone; converted, with what has no rate left out and counted."""
    listed = ask(filled, "prices").rows
    assert len(listed) == 14
    assert [row["currency"] for row in listed] == sorted(row["currency"] for row in listed)
    assert [row["doubts"] for row in ask(filled, "prices", Wanted(flagged=True)).rows] == [
        ["costs no more than CPU servers of its size: the GPU seems to be left out"]
    ]
    converted = ask(filled, "prices", Wanted(currency="EUR", allocation="ONDEMAND", history=True))
    assert len(converted.rows) == 12
    assert converted.rows[0]["price"] == 0.005
    assert converted.rows[1]["price"] == pytest.approx(0.0971200 / 1.25)
    assert converted.notes == (
        "1 prices in CNY are left out: no rate for it is known.",
        "Converted with 1 EUR = 1.25 USD (ECB, 2025-04-28).",
    )
    assert ask(filled, "prices", Wanted(currency="EUR", vendor="hetzner")).notes == (), "nothing was converted"


def test_places_and_rates(filled: Engine) -> None:
    """Regions with their number of servers, zones, and rates with the newest first."""
    regions = {row["region_id"]: row["priced_servers"] for row in ask(filled, "regions").rows}
    assert regions == {"1000": 11, "1100": 0, "us-east-1": 0, "cn-north-1": 1, "4": 1}
    zones = ask(filled, "zones", Wanted(region="us-central1", status="ACTIVE")).rows
    assert [row["zone_id"] for row in zones] == ["*", "2000"]
    assert [row["usd_per_unit"] for row in ask(filled, "rates", Wanted(currency="eur")).rows] == [1.25, 1.2]
