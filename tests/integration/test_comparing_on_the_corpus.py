"""``compare`` on Spare Cores' results of April 2025: equal GPUs are not called different, and other GPUs are."""

from __future__ import annotations

import json
import lzma
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.db.comparing import side_by_side
from benchctl.db.engine import open_database, reading, writing
from benchctl.db.queries import Question, find_server
from benchctl.db.ranking import Ranking, top
from benchctl.db.schema import Server, Vendor
from benchctl.ingest import ingest_tree
from benchmarks.comparison_calibration import ISSUE, calibrate, count, gpu_pairs
from corpus import CATALOGUE, MISSING, RUNS
from sqlalchemy import insert

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def add_their_servers(engine: Engine, catalogue: Path) -> None:
    """Vendors and server types of Spare Cores' database; no prices."""
    now = datetime.now(UTC)
    with closing(sqlite3.connect(catalogue)) as theirs, writing(engine) as session:
        theirs.row_factory = sqlite3.Row
        for (vendor,) in theirs.execute("SELECT DISTINCT vendor_id FROM server"):
            session.add(Vendor(vendor_id=vendor, name=vendor, observed_at=now))
        session.flush()
        columns = {column.name: column for column in Server.__table__.columns}
        rows = [_server(dict(row), columns, now) for row in theirs.execute("SELECT * FROM server")]
        session.execute(insert(Server), rows)


def _server(row: dict[str, Any], columns: dict[str, Any], now: datetime) -> dict[str, Any]:
    json_columns = ("cpu_flags", "cpus", "gpus", "storages")
    found = {key: value for key, value in row.items() if key in columns}
    return found | {key: json.loads(row[key] or "[]") for key in json_columns} | {"observed_at": now}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session on a database with all their servers and all their 2,145 runs."""
    folder = tmp_path_factory.mktemp("corpus")
    with lzma.open(CATALOGUE) as packed, (folder / "theirs.db").open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    engine = open_database(f"sqlite:///{folder / 'corpus.db'}")
    try:
        add_their_servers(engine, folder / "theirs.db")
        assert sum(1 for _ in ingest_tree(engine, RUNS)) == 2145
        with reading(engine) as session:
            yield session
    finally:
        engine.dispose()


def test_pairs_with_the_same_gpu(corpus: Session) -> None:
    """A t-test on five samples calls 24 of 61 pairs different; of those whose GPU did the work, compare calls none."""
    pairs = gpu_pairs(corpus, "aws")
    assert len(pairs) == 61
    counted = count(corpus, pairs, ISSUE)
    everything = counted.on_gpu + counted.on_cpu
    assert (everything.compared, everything.t_test) == (61, 24)
    assert counted.on_gpu.compared == 52
    assert counted.on_gpu.ours == 0, counted.apart


def test_equal_hardware_is_called_different_in_at_most_one_case_of_twenty(corpus: Session) -> None:
    """Each pair within each family is judged by the rest of the database: alone, all at once, and by pair."""
    for gpu in (True, False):
        found = calibrate(corpus, gpu)
        assert found.pairs > 50
        assert found.one_alone <= 0.05
        assert found.all_at_once <= 0.01
        assert found.any_scenario <= 0.05


def test_other_gpus_are_called_different(corpus: Session) -> None:
    """An L40S is faster than an A10G in every scenario that both have: caution is not blindness."""
    servers = [find_server(corpus, name) for name in ("aws/g6e.xlarge", "aws/g5.xlarge")]
    rows = side_by_side(corpus, [one for one in servers if one], Question()).rows
    both = [row for row in rows if row["ratio"] is not None]
    assert len(both) == 52
    assert {row["verdict"] for row in both} == {"A faster"}


def test_the_fastest_server(corpus: Session) -> None:
    """phi-4, prompts of 512 tokens: g6e.24xlarge with 4768.60 tokens/s, and 564 servers with 50 or more."""
    answer = top(corpus, Ranking("phi-4", "pp", 512, min_speed=50, fallback=True))
    assert len(answer.rows) == 564
    assert answer.rows[0]["api_reference"] == "g6e.24xlarge"
    assert answer.rows[0]["tokens_per_second"] == pytest.approx(4768.60, abs=0.005)
