"""The answers on Spare Cores' whole corpus of April 2025, against figures that were counted in its raw files."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.db import coverage
from benchctl.db.costs import spending
from benchctl.db.engine import open_database, reading
from benchctl.db.prices import Terms
from benchctl.db.recommendations import Need, recommend
from benchctl.economics import Workload
from benchctl.ingest import ingest_tree
from corpus import FOLDER as CORPUS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session on a database with all 2,145 runs, and no catalogue."""
    archives = sorted(CORPUS.glob("inspector-*.tar.xz"))
    if not archives:
        pytest.skip("BENCHCTL_TEST_CORPUS names no folder with Spare Cores' raw results")
    engine = open_database(f"sqlite:///{tmp_path_factory.mktemp('corpus') / 'corpus.db'}")
    try:
        assert sum(1 for _ in ingest_tree(engine, archives[-1])) == 2145
        with reading(engine) as session:
            yield session
    finally:
        engine.dispose()


def test_models_are_reached_by_as_many_servers_as_have_rows(corpus: Session) -> None:
    """2085, 1961, 1882, 1712, 1447 and 1228 servers of 2106; each of the others has an outcome, or none on record."""
    rows = coverage.by_model(corpus).rows
    assert [row["servers_reached"] for row in rows] == [2085, 1961, 1882, 1712, 1447, 1228]
    for row in rows:
        assert row["servers_run"] == 2106
        others = [value for key, value in row.items() if isinstance(value, int) and not key.startswith("servers_")]
        assert row["servers_reached"] + sum(others) - row["only_gpu_fallback"] == 2106


def test_every_server_without_a_row_has_its_reason(corpus: Session) -> None:
    """39 got no server: 20 quota, 4 not offered, 2 obsolete, 1 sold out, 12 too small; 21 ran without a row."""
    rows = coverage.by_server(corpus, measured=False).rows
    assert Counter(row["why"] for row in rows) == {
        "quota": 20, "memory": 12, "not_offered": 4, "deprecated": 2, "stock": 1,
        "download": 11, "crash": 10, "gpu_fallback": 9,
    }  # fmt: skip
    by_vendor = {row["vendor_id"]: row for row in coverage.by_vendor(corpus).rows}
    assert {vendor: row["quota"] for vendor, row in by_vendor.items() if row["quota"]} == {"aws": 9, "azure": 11}
    assert by_vendor["hcloud"]["stock"] == 1
    assert sum(row["measured"] for row in by_vendor.values()) == 2085 - 9


def test_hours_and_where_they_went(corpus: Session) -> None:
    """1,104.8 billed hours: 44 % time-outs, 40 % samples, 6 % loading, 6 % image, 2 % downloads."""
    answer = spending(corpus, Terms())
    assert {row["vendor_id"]: row["runs"] for row in answer.rows} == {
        "aws": 890, "azure": 822, "gcp": 299, "hcloud": 17, "upcloud": 78,
    }  # fmt: skip
    hours = sum(row["hours"] for row in answer.rows)
    assert hours == pytest.approx(1104.8, abs=0.05)
    shares = {
        cause: round(100 * sum(row[f"{cause}_hours"] for row in answer.rows) / hours)
        for cause in ("timeouts", "samples", "load", "image", "download_wait", "not_recorded")
    }
    assert shares == {
        "timeouts": 44, "samples": 40, "load": 6, "image": 6, "download_wait": 2, "not_recorded": 0,
    }  # fmt: skip


def test_servers_that_are_quick_enough(corpus: Session) -> None:
    """phi-4 has pp512 >= 50 tokens/s on 564 servers, on one of them by its CPU alone; none has a price here."""
    asked: dict[str, Any] = {"min_pp": 50.0, "at_tg": 16, "workload": Workload(512, 16)}
    assert "563 without a price" in recommend(corpus, Need("phi-4", **asked)).why_empty
    assert "564 without a price" in recommend(corpus, Need("phi-4", **asked, fallback=True)).why_empty
    too_much = recommend(corpus, Need("phi-4", min_pp=5000.0)).why_empty
    assert "pp512 4769 tokens/s (aws/g6e.24xlarge)" in too_much
