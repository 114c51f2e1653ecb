"""The catalogue on Spare Cores' real one of 2025-04-28 and 91,578 published prices; skipped where these are absent."""

from __future__ import annotations

import json
import sqlite3
import tarfile
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import corpus
import pytest
from benchctl.catalog.files import read_file
from benchctl.catalog.store import take_in
from benchctl.db.engine import open_database, reading
from benchctl.db.prices import Terms, offers
from benchctl.db.schema import Price, Region, Server, ServerPrice
from sqlalchemy import func, select

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchctl.catalog.values import Summary
    from sqlalchemy import Engine

pytestmark = pytest.mark.skipif(bool(corpus.MISSING), reason=corpus.MISSING)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Summary, float]]:
    """The corpus in an SQLite database, what the import said, and how long it took."""
    engine = open_database(f"sqlite:///{tmp_path_factory.mktemp('corpus') / 'test.db'}")
    began = time.process_time()
    summary = take_in(engine, [read_file(corpus.CATALOGUE), read_file(corpus.PRICES)], datetime(2026, 1, 1, tzinfo=UTC))
    yield engine, summary, time.process_time() - began
    engine.dispose()


def test_everything_is_taken_in_within_seconds(imported: tuple[Engine, Summary, float]) -> None:
    """2,530 servers and 91,578 prices, none set aside; regions that Spare Cores lacks are made."""
    engine, summary, seconds = imported
    assert (summary.tallies["servers"].new, summary.tallies["prices"].new) == (2530, 91578)
    assert summary.set_aside == []
    assert seconds < 30
    with reading(engine) as session:
        assert session.scalar(select(func.count()).select_from(ServerPrice)) == 91578
        by_vendor = session.execute(select(Server.vendor_id, func.count()).group_by(Server.vendor_id)).all()
        assert {row[0]: row[1] for row in by_vendor} == {
            "aws": 930,
            "azure": 1095,
            "gcp": 399,
            "hcloud": 24,
            "upcloud": 82,
        }
        made = session.execute(select(Region.vendor_id, Region.region_id).where(Region.country_id.is_(None))).all()
        assert sorted(f"{vendor}/{region}" for vendor, region in made) == [
            "aws/me-central-2", "aws/us-west-2-lax-1", "azure/austriaeast", "azure/chilecentral",
            "azure/malaysiawest", "azure/swedensouth", "upcloud/*",
        ]  # fmt: skip


def test_few_prices_are_doubted(imported: tuple[Engine, Summary, float]) -> None:
    """Five of 91,578: a real error (eight A100 for 7.69 USD in Warsaw) and four servers with a GPU of 2015."""
    engine, summary, _ = imported
    assert summary.flagged == {"gpu_priced_like_cpu": 5}
    with reading(engine) as session:
        found = session.scalars(select(Price).where(Price.flags != []))
        assert Counter((one.server_id, one.region_id) for one in found) == Counter(
            {
                ("Standard_ND96amsr_A100_v4", "polandcentral"): 1,
                ("Standard_NV6s_v2", "southcentralus"): 1,
                ("Standard_NV12s_v2", "southcentralus"): 1,
                ("Standard_NV24s_v2", "southcentralus"): 1,
                ("g3.4xlarge", "eu-west-1"): 1,
            }
        )


def test_their_price_without_the_gpu_is_flagged(imported: tuple[Engine, Summary, float], tmp_path: Path) -> None:
    """Spare Cores' 0.739 for Google's a2-highgpu-1g beside 24,037 prices of Google's; the 3.673 there is not."""
    engine, _, _ = imported
    header = "vendor_id,api_reference,region,zone,allocation,price,currency,unit,source,source_date,licence"
    file = tmp_path / "theirs.csv"
    file.write_text(
        f"{header}\ngcp,a2-highgpu-1g,us-central1,,ONDEMAND,0.739,USD,HOUR,SpareCores/sc-data,2025-05-01,CC-BY-SA-4.0\n"
    )
    with (
        closing(sqlite3.connect(tmp_path / "copy.db")) as copy,
        closing(sqlite3.connect(engine.url.database or "")) as db,
    ):
        db.backup(copy)
    copied = open_database(f"sqlite:///{tmp_path / 'copy.db'}")
    summary = take_in(copied, [read_file(file)], datetime(2026, 2, 1, tzinfo=UTC))
    assert summary.flagged == {"gpu_priced_like_cpu": 1}
    with reading(copied) as session:
        rows = session.scalars(
            select(Price).filter_by(vendor_id="gcp", server_id="1000012", region_id="1000", allocation="ONDEMAND")
        )
        assert sorted((one.price, tuple(one.flags), one.is_current) for one in rows) == [
            (0.739, ("gpu_priced_like_cpu",), False), (3.673385, (), True),
        ]  # fmt: skip
    copied.dispose()


def test_offers_are_quick(imported: tuple[Engine, Summary, float]) -> None:
    """The cheapest offer of 2,365 servers among 67,610 on-demand prices takes a fraction of a second."""
    engine, _, _ = imported
    with reading(engine) as session:
        offers(session, Terms())
        began = time.process_time()
        found = offers(session, Terms())
        assert time.process_time() - began < 0.5
    assert len(found.by_server) == 2365
    assert (
        found.notes
        == (
            "1 server has only prices that the import found doubtful, and no price here (--flagged).",
            "76 servers are priced in EUR only, and without a price here (--currency USD converts them).",
        )[-len(found.notes) :]
    )


def test_the_query_that_people_run(imported: tuple[Engine, Summary, float]) -> None:
    """Speed for the money, by a query written for Spare Cores' database, with phi-4's real speeds."""
    engine, _, _ = imported
    query = corpus.QUERIES.read_text().rpartition("-- (3)")[2].partition("\n")[2]
    with closing(sqlite3.connect(engine.url.database or "")) as db, tarfile.open(corpus.RUNS) as packed:
        ids = {
            (vendor, name): server
            for vendor, name, server in db.execute("SELECT vendor_id, api_reference, server_id FROM server")
        }
        config = json.dumps({"model": "phi-4-q4.gguf", "tokens": 512})
        db.execute("CREATE TEMP TABLE benchmark_score (vendor_id, server_id, benchmark_id, config, score)")
        for member in packed:
            if not member.name.endswith("/stdout"):
                continue
            vendor, name = member.name.split("/")[-4:-2]
            file = packed.extractfile(member)
            for line in file or ():
                if b"phi-4-q4" in line and line.startswith(b"{"):
                    row = json.loads(line)
                    if (row["n_prompt"], row["n_gen"]) == (512, 0):
                        values = (vendor, ids[vendor, name], "llm_speed:prompt_processing", config, row["avg_ts"])
                        db.execute("INSERT INTO benchmark_score VALUES (?, ?, ?, ?, ?)", values)
        found = [(row[1], round(row[-1], 1)) for row in db.execute(query)]
    assert found == [
        ("g6e.xlarge", 2504.5), ("g6e.2xlarge", 2086.4), ("g5.xlarge", 1875.8), ("g2-standard-4", 1695.6),
        ("g5.2xlarge", 1557.0), ("g6e.4xlarge", 1537.0), ("g6.xlarge", 1439.7), ("g2-standard-8", 1336.9),
        ("g6.2xlarge", 1191.9), ("g4dn.xlarge", 1174.5),
    ]  # fmt: skip
