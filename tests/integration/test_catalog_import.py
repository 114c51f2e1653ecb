"""What an import does to the database, on SQLite and on PostgreSQL: twice is once, and nothing is ever deleted."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.catalog.files import read_file
from benchctl.catalog.store import take_in
from benchctl.catalog.values import Delivery, ListedPrice, PriceList
from benchctl.db.engine import reading
from benchctl.db.schema import (
    BenchmarkScore,
    CatalogSource,
    ExchangeRate,
    Job,
    Measurement,
    Price,
    Region,
    Server,
    ServerHistory,
    ServerPrice,
    Vendor,
    Zone,
    metadata,
)
from benchctl.errors import DatabaseError
from benchctl.ingest import ingest_run
from catalog_files import (
    A2,
    CX22,
    DAY,
    KINDS,
    N2,
    SEEN,
    Kind,
    Line,
    cpu_lines,
    write_database,
    write_prices,
    write_rates,
)
from raw_runs import RawRun, write_theirs
from sqlalchemy import func, select, text

if TYPE_CHECKING:
    from pathlib import Path

    from benchctl.catalog.values import Summary
    from sqlalchemy import Engine

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=7)
MUCH_LATER = NOW + timedelta(days=14)
NEXT = DAY + timedelta(days=30)


def take(engine: Engine, *files: Path, now: datetime = NOW, whole: bool = True) -> Summary:
    """Import files in one call."""
    return take_in(engine, [read_file(file) for file in files], now, whole=whole)


def counts(summary: Summary, what: str) -> tuple[int, int, int, int, int]:
    """New, changed, closed, unchanged, older."""
    one = summary.tallies[what]
    return one.new, one.changed, one.closed, one.unchanged, one.older


def dump(engine: Engine) -> dict[str, list[Any]]:
    """All rows of all tables."""
    with engine.connect() as connection:
        return {name: sorted(map(repr, connection.execute(select(table)))) for name, table in metadata.tables.items()}


def history(engine: Engine, server: str, **keys: str) -> list[tuple[float, datetime, datetime | None, bool]]:
    """All prices that a server ever had, with since, until and whether it is the current one."""
    with reading(engine) as session:
        found = session.scalars(select(Price).filter_by(server_id=server, **keys).order_by(Price.since, Price.price))
        return [(one.price, one.since, one.until, one.is_current) for one in found]


def current(engine: Engine) -> dict[tuple[str, str, str], float]:
    """Spare Cores' price table, by server, region and allocation; that it is what ``is_current`` says is checked."""
    with reading(engine) as session:
        theirs = {
            (one.server_id, one.region_id, one.allocation): (one.price, one.currency, one.zone_id)
            for one in session.scalars(select(ServerPrice))
        }
        ours = {
            (one.server_id, one.region_id, one.allocation): (one.price, one.currency, one.zone_id)
            for one in session.scalars(select(Price).where(Price.is_current, Price.until.is_(None)))
        }
    assert theirs == ours
    return {key: price for key, (price, _, _) in theirs.items()}


def test_servers_places_and_prices(engine: Engine, tmp_path: Path) -> None:
    """All of a first import is new, and stands in Spare Cores' tables under Spare Cores' identifiers."""
    prices = write_prices(
        tmp_path / "p.csv",
        *cpu_lines(),
        Line(A2.name, 3.673),
        Line("cx22", 0.0052, vendor="hcloud", region="fsn1", currency="EUR"),
    )
    summary = take(engine, prices, write_database(tmp_path / "a.db"))
    assert counts(summary, "servers") == (len(KINDS), 0, 0, 0, 0)
    assert counts(summary, "regions") == (4, 0, 0, 0, 0)
    assert counts(summary, "prices") == (12, 0, 0, 0, 0)
    assert (summary.flagged, summary.notes, summary.set_aside) == ({}, [], [])
    assert current(engine)["1000012", "1000", "ONDEMAND"] == 3.673
    with reading(engine) as session:
        server = session.get(Server, ("gcp", "1000012"))
        assert server is not None
        assert (server.api_reference, server.gpu_model, server.memory_amount) == ("a2-highgpu-1g", "A100", 85 * 1024)
        assert (server.observed_at, server.cpu_flags, server.gpus) == (SEEN, ["avx2"], [])
        price = session.scalars(select(Price).filter_by(server_id="104")).one()
        assert (price.region_id, price.zone_id, price.currency, price.source_date) == ("4", "*", "EUR", DAY)
        assert (price.source, price.licence, price.unit) == ("prices/list@abcdef1 prices.yml", "Apache-2.0", "HOUR")
        assert session.scalars(select(func.count()).select_from(CatalogSource)).one() == 2


def test_twice_is_once(engine: Engine, tmp_path: Path) -> None:
    """The same files imported again, a week later and in the other order, change not one row of any table."""
    files = [
        write_database(tmp_path / "a.db"),
        write_prices(tmp_path / "p.csv", *cpu_lines(), Line(A2.name, 0.739), Line("new-type", 1.0, region="moon")),
        write_rates(tmp_path / "r.csv", "EUR,2025-04-28,1.1388,ECB"),
    ]
    assert not take(engine, *files).changed_nothing
    before = dump(engine)
    for some in (files, files[::-1], files[1:2], files[:1]):
        assert take(engine, *some, now=LATER).changed_nothing
        assert dump(engine) == before


def test_the_order_of_imports_does_not_matter(engine: Engine, tmp_path: Path) -> None:
    """Results, then prices, then the catalogue end as the other way round: with Spare Cores' identifiers everywhere."""
    write_theirs(tmp_path / "lake", "hcloud", "cx22")
    ingest_run(engine, tmp_path / "lake/data/hcloud/cx22/llm")
    prices = write_prices(
        tmp_path / "p.csv", *cpu_lines(), Line(A2.name, 3.673, zone="us-central1-a"),
        Line("cx22", 0.0052, vendor="hcloud", region="fsn1", currency="EUR"),
    )  # fmt: skip
    summary = take(engine, prices)
    assert summary.notes == ["11 servers are known by their price alone: import a Spare Cores database as well."]
    assert ("a2-highgpu-1g", "us-central1", "ONDEMAND") in current(engine)
    take(engine, write_database(tmp_path / "a.db"), now=LATER)
    assert current(engine)["1000012", "1000", "ONDEMAND"] == 3.673
    assert current(engine)["104", "4", "ONDEMAND"] == 0.0052
    with reading(engine) as session:
        assert session.get(Server, ("hcloud", "cx22")) is None
        for model in (Measurement, BenchmarkScore, Job):
            assert set(session.scalars(select(model.server_id))) == {"104"}, model
        assert session.scalars(select(Server.vcpus).filter_by(server_id="104")).one() == CX22.vcpus
        assert session.scalars(select(Server.server_id).filter_by(vcpus=0)).all() == []
        assert session.scalars(select(Region.region_id).filter_by(vendor_id="gcp")).all() == ["1000", "1100"]
        assert session.scalars(select(Price.zone_id).filter_by(server_id="1000012")).one() == "2000"
    before = dump(engine)
    ingest_run(engine, tmp_path / "lake/data/hcloud/cx22/llm")
    assert take(engine, prices, now=MUCH_LATER).changed_nothing
    assert dump(engine)["price"] == before["price"]
    assert dump(engine)["server"] == before["server"]


def test_a_catalogue_fills_a_server_known_by_its_results(engine: Engine, tmp_path: Path) -> None:
    """Its values replace the makeshift ones; what it does not tell, and the run found out, stays."""
    ingest_run(engine, RawRun(vendor="aws", server="m5.xlarge").write(tmp_path / "lake"))
    with reading(engine) as session:
        found = session.get(Server, ("aws", "m5.xlarge"))
        assert found is not None
        assert found.memory_amount == 8192
        cpu = found.cpu_model
        assert cpu
    take(engine, write_database(tmp_path / "a.db"))
    with reading(engine) as session:
        found = session.get(Server, ("aws", "m5.xlarge"))
        assert found is not None
        assert (found.memory_amount, found.family, found.cpu_model, found.description) == (16384, "m5", cpu, None)


def test_own_machines_are_left_alone(engine: Engine, tmp_path: Path) -> None:
    """A catalogue does not touch the machine on the desk, and a price for one that nobody knows makes none."""
    ingest_run(engine, RawRun().write(tmp_path / "lake"))
    before = dump(engine)["server"]
    known = Line("desk", 0.046, vendor="local", region="")
    summary = take(engine, write_prices(tmp_path / "p.csv", known, Line("other", 1.0, vendor="ssh", region="")))
    assert counts(summary, "prices")[0] == 1
    assert "1 prices were left out" in summary.notes[0]
    assert dump(engine)["server"] == before
    assert current(engine) == {("desk", "*", "ONDEMAND"): 0.046}


def test_a_price_that_changes_is_closed_and_a_new_one_opened(engine: Engine, tmp_path: Path) -> None:
    """A newer list of the same source, under another revision, closes what changed and what vanished."""
    database = write_database(tmp_path / "a.db")
    take(
        engine,
        database,
        write_prices(tmp_path / "p.csv", Line("m5.xlarge", 0.2, vendor="aws", region="us-east-1"), *cpu_lines()),
    )
    newer = [Line("n2-standard-2", 0.1, source="prices/list@9876543 prices.yml", day=NEXT)]
    newer += [Line(kind.name, 1.0, source="prices/list@9876543 prices.yml", day=NEXT) for kind in N2[2:3]]
    same = cpu_lines()[1]
    newer.append(Line(same.server, same.price, source="prices/list@9876543 prices.yml", day=NEXT))
    summary = take(engine, write_prices(tmp_path / "q.csv", *newer), now=LATER)
    assert counts(summary, "prices") == (0, 2, 7, 1, 0)
    assert history(engine, "202") == [(0.09712, NOW, LATER, False), (0.1, LATER, None, True)]
    assert history(engine, "2016") == [(cpu_lines()[3].price, NOW, LATER, False)]
    assert history(engine, "204") == [(same.price, NOW, None, True)], "seen again: the same price, since the first day"
    assert history(engine, "m5.xlarge")[0][2] is None, "a vendor that is not in the list is not judged by it"
    with reading(engine) as session:
        kept = session.scalars(select(Price).filter_by(server_id="204")).one()
        assert (kept.source, kept.source_date) == ("prices/list@9876543 prices.yml", NEXT)
    assert set(current(engine)) == {
        ("202", "1000", "ONDEMAND"), ("204", "1000", "ONDEMAND"), ("208", "1000", "ONDEMAND"),
        ("m5.xlarge", "us-east-1", "ONDEMAND"),
    }  # fmt: skip


def test_a_price_that_comes_back_has_two_spans(engine: Engine, tmp_path: Path) -> None:
    """Gone for a week and there again: both spans are in the history."""
    database = write_database(tmp_path / "a.db")
    both = [Line("n2-standard-2", 0.1), Line("n2-standard-4", 0.2)]
    take(engine, database, write_prices(tmp_path / "p.csv", *both))
    take(engine, write_prices(tmp_path / "p.csv", Line("n2-standard-4", 0.2, day=NEXT)), now=LATER)
    assert ("202", "1000", "ONDEMAND") not in current(engine)
    both = [Line("n2-standard-2", 0.1, day=NEXT), Line("n2-standard-4", 0.2, day=NEXT)]
    take(engine, write_prices(tmp_path / "p.csv", *both), now=MUCH_LATER)
    assert history(engine, "202") == [(0.1, NOW, LATER, False), (0.1, MUCH_LATER, None, True)]


def test_an_older_list_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    """What is known is newer than the list: neither its prices nor its gaps count."""
    database = write_database(tmp_path / "a.db")
    take(engine, database, write_prices(tmp_path / "p.csv", Line("n2-standard-2", 0.1), Line("n2-standard-4", 0.2)))
    before = dump(engine)["price"]
    old = [Line("n2-standard-2", 0.3, day=date(2024, 1, 1)), Line("n2-standard-8", 0.4, day=date(2024, 1, 1))]
    summary = take(engine, write_prices(tmp_path / "q.csv", *old), now=LATER)
    assert counts(summary, "prices") == (0, 0, 0, 0, 2)
    assert dump(engine)["price"] == before


def test_a_partial_list_closes_nothing(engine: Engine, tmp_path: Path) -> None:
    """With --partial what the list lacks stays open; so do the prices of a server whose line was damaged."""
    database = write_database(tmp_path / "a.db")
    take(engine, database, write_prices(tmp_path / "p.csv", Line("n2-standard-2", 0.1), Line("n2-standard-4", 0.2)))
    summary = take(engine, write_prices(tmp_path / "q.csv", Line("n2-standard-2", 0.3)), now=LATER, whole=False)
    assert counts(summary, "prices") == (0, 1, 0, 0, 0)
    damaged = write_prices(tmp_path / "q.csv", Line("n2-standard-2", 0.3), Line("n2-standard-4", "cheap"))
    summary = take(engine, damaged, now=MUCH_LATER)
    assert counts(summary, "prices") == (0, 0, 0, 1, 0)
    assert [one.reason for one in summary.set_aside] == ["the price 'cheap' is not a number above 0"]
    assert history(engine, "204")[-1][2] is None


def test_of_several_sources_the_newest_counts(engine: Engine, tmp_path: Path) -> None:
    """All are kept, the newest is the current one, and when it is closed the other one is again."""
    old, new = Line("n2-standard-2", 0.1, source="old list"), Line("n2-standard-2", 0.12, source="new list", day=NEXT)
    take(engine, write_database(tmp_path / "a.db"), write_prices(tmp_path / "p.csv", old, new))
    assert [(price, is_current) for price, *_, is_current in history(engine, "202")] == [(0.1, False), (0.12, True)]
    assert current(engine)["202", "1000", "ONDEMAND"] == 0.12
    take(engine, write_prices(tmp_path / "q.csv", Line("n2-standard-4", 0.2, source="new list", day=NEXT)), now=LATER)
    assert current(engine)["202", "1000", "ONDEMAND"] == 0.1


def test_a_doubtful_price_is_kept_and_gives_way(engine: Engine, tmp_path: Path) -> None:
    """Google's A2 without its GPU is flagged; an older price of another source that contains it is the current one."""
    database = write_database(tmp_path / "a.db")
    wrong = Line(A2.name, 0.739, source="without the GPU", day=NEXT)
    summary = take(engine, database, write_prices(tmp_path / "p.csv", *cpu_lines(), wrong))
    assert summary.flagged == {"gpu_priced_like_cpu": 1}
    assert current(engine)["1000012", "1000", "ONDEMAND"] == 0.739
    summary = take(engine, write_prices(tmp_path / "q.csv", Line(A2.name, 3.673, source="with it")), now=LATER)
    assert summary.flagged == {"gpu_priced_like_cpu": 1}
    assert current(engine)["1000012", "1000", "ONDEMAND"] == 3.673
    with reading(engine) as session:
        flags = dict(session.execute(select(Price.source, Price.flags).filter_by(server_id="1000012")).all())
        assert flags == {"without the GPU": ["gpu_priced_like_cpu"], "with it": []}


def test_every_check_marks_its_price(engine: Engine, tmp_path: Path) -> None:
    """One wrong price of each kind among right ones: four flags on four prices."""
    wrong = [
        Line(A2.name, 0.739),
        Line("n2-standard-2", 0.5, allocation="SPOT"),
        Line("n2-standard-8", 0.4, currency="XYZ"),
        Line("n2-standard-4", 1.95, source="ten times"),
    ]
    summary = take(
        engine,
        write_database(tmp_path / "a.db"),
        write_prices(tmp_path / "p.csv", *cpu_lines()[:1], *cpu_lines()[4:], *wrong),
    )
    assert summary.flagged == {
        "gpu_priced_like_cpu": 1, "off_family": 1, "spot_above_ondemand": 1, "unknown_currency": 1,
    }  # fmt: skip


def test_flags_follow_what_is_known(engine: Engine, tmp_path: Path) -> None:
    """A price is judged anew when the catalogue tells what its server is, and when the on-demand price appears."""
    lines = [*cpu_lines(), Line(A2.name, 0.739)]
    assert take(engine, write_prices(tmp_path / "p.csv", *lines)).flagged == {}
    assert take(engine, write_database(tmp_path / "a.db"), now=LATER).flagged == {"gpu_priced_like_cpu": 1}
    lines[-1] = Line(A2.name, 3.673, day=NEXT)
    assert take(engine, write_prices(tmp_path / "p.csv", *lines), now=MUCH_LATER).flagged == {}


def test_regions_and_zones_that_the_catalogue_lacks(engine: Engine, tmp_path: Path) -> None:
    """No price is dropped: a new region and a new zone are made, and '*' stands where the source names none."""
    lines = [
        Line("n2-standard-2", 0.1, region="moon-east1"),
        Line("n2-standard-2", 0.1, region=""),
        Line("n2-standard-2", 0.1, zone="us-central1-z"),
        Line("n2-standard-2", 0.1, zone="us-central1-a"),
        Line("n2-standard-2", 0.1, region="1100"),
    ]
    summary = take(engine, write_database(tmp_path / "a.db"), write_prices(tmp_path / "p.csv", *lines))
    assert counts(summary, "prices")[0] == 5
    with reading(engine) as session:
        places = {(region, zone) for region, zone in session.execute(select(Price.region_id, Price.zone_id)).all()}
        assert places == {("moon-east1", "*"), ("*", "*"), ("1000", "us-central1-z"), ("1000", "2000"), ("1100", "*")}
        assert session.get(Zone, ("gcp", "moon-east1", "*")) is not None


def test_a_vendor_that_nobody_knows_yet(engine: Engine, tmp_path: Path) -> None:
    """A list may bring a vendor of its own."""
    take(engine, write_prices(tmp_path / "p.csv", Line("b3-8", 0.05, vendor="ovh", region="GRA")))
    with reading(engine) as session:
        assert session.get(Vendor, "ovh") is not None
    assert current(engine) == {("b3-8", "GRA", "ONDEMAND"): 0.05}


def test_a_server_that_vanishes_is_closed_not_deleted(engine: Engine, tmp_path: Path) -> None:
    """A newer database without it makes it INACTIVE; its row, its price and its past stay; it may come back."""
    prices = write_prices(tmp_path / "p.csv", Line("n2-standard-2", 0.1))
    take(engine, write_database(tmp_path / "a.db"), prices)
    newer = write_database(
        tmp_path / "b.db", tuple(k for k in KINDS if k.name != "n2-standard-2"), SEEN + timedelta(days=30)
    )
    summary = take(engine, newer, now=LATER)
    assert counts(summary, "servers") == (0, 0, 1, len(KINDS) - 1, 0)
    with reading(engine) as session:
        gone = session.get(Server, ("gcp", "202"))
        assert gone is not None
        assert gone.status == "INACTIVE"
        past = session.scalars(select(ServerHistory).filter_by(server_id="202")).one()
        assert (past.since, past.until, past.status, past.facts["vcpus"]) == (NOW, LATER, "ACTIVE", 2)
    assert len(history(engine, "202")) == 1
    summary = take(engine, write_database(tmp_path / "c.db", seen=SEEN + timedelta(days=60)), now=MUCH_LATER)
    assert counts(summary, "servers")[0] == 1
    with reading(engine) as session:
        back = session.get(Server, ("gcp", "202"))
        assert back is not None
        assert back.status == "ACTIVE"


def test_a_server_that_changes_keeps_its_past(engine: Engine, tmp_path: Path) -> None:
    """Other facts close the row of the history and open one; a status that ends counts as closed."""
    take(engine, write_database(tmp_path / "a.db"))
    changed = [
        Kind("gcp", "n2-standard-2", 2, 16, family="n2", identifier="202") if k.name == "n2-standard-2" else k
        for k in KINDS
    ]
    changed = [
        Kind("gcp", "n2-standard-4", 4, 16, family="n2", identifier="204", status="INACTIVE")
        if k.name == "n2-standard-4"
        else k
        for k in changed
    ]
    summary = take(engine, write_database(tmp_path / "b.db", tuple(changed), SEEN + timedelta(days=1)), now=LATER)
    assert counts(summary, "servers") == (0, 1, 1, len(KINDS) - 2, 0)
    with reading(engine) as session:
        spans = session.scalars(select(ServerHistory).filter_by(server_id="202").order_by(ServerHistory.since)).all()
        assert [(one.facts["memory_amount"], one.until) for one in spans] == [(8192, LATER), (16384, None)]
        now = session.get(Server, ("gcp", "202"))
        assert now is not None
        assert now.memory_amount == 16384


def test_an_older_database_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    """What it lacks is not gone, and the summary says why nothing was done."""
    take(engine, write_database(tmp_path / "a.db"))
    before = dump(engine)
    older = write_database(tmp_path / "b.db", KINDS[:3], SEEN - timedelta(days=30))
    summary = take(engine, older, now=LATER)
    assert summary.changed_nothing
    assert "its servers are left as they are" in summary.notes[0]
    assert {**dump(engine), "catalog_source": []} == {**before, "catalog_source": []}


def test_prices_of_a_spare_cores_database(engine: Engine, tmp_path: Path) -> None:
    """Their own price table comes with date, currency and licence; a database without prices closes none."""
    rows = (("gcp", "1000", "2000", "202", "ONDEMAND", 0.097, "USD"), ("gcp", "1000", "2000", "204", "SPOT", -1, "USD"))
    summary = take(engine, write_database(tmp_path / "a.db", prices=rows))
    assert counts(summary, "prices") == (1, 0, 0, 0, 0)
    assert len(summary.set_aside) == 1
    with reading(engine) as session:
        one = session.scalars(select(Price)).one()
        assert (one.source, one.licence, one.source_date, one.zone_id) == (
            "SpareCores/sc-data",
            "CC-BY-SA-4.0",
            DAY,
            "2000",
        )
    take(engine, write_database(tmp_path / "b.db", seen=SEEN + timedelta(days=1)), now=LATER)
    assert history(engine, "202")[0][2] is None


def test_a_price_for_other_gpus_is_left_out(engine: Engine, tmp_path: Path) -> None:
    """An N1 with a T4 has the name of the N1: a price that says how many GPUs it contains fits only its server."""
    take(engine, write_database(tmp_path / "a.db"))
    feed = [
        ListedPrice("gcp", name, "us-central1", "", "ONDEMAND", 3.0, "USD", "HOUR", "feed", DAY, None, gpu_count=1)
        for name in ("n2-standard-2", A2.name, "unknown-type")
    ]
    summary = take_in(engine, [Delivery(PriceList("feed", tuple(feed)))], LATER)
    assert current(engine) == {("1000012", "1000", "ONDEMAND"): 3.0}
    assert summary.notes[0].startswith("2 prices were left out")


def test_rates(engine: Engine, tmp_path: Path) -> None:
    """Rates are kept by day and source; a corrected one replaces its own, a damaged line is set aside."""
    file = write_rates(
        tmp_path / "r.csv", "EUR,2025-04-28,1.1388,ECB", "EUR,2025-04-29,1.1373,ECB", "CNY,2025-04-28,-1,ECB"
    )
    summary = take(engine, file)
    assert counts(summary, "rates") == (2, 0, 0, 0, 0)
    assert str(summary.set_aside[0]).endswith("line 4: the usd_per_unit '-1' is not a number above 0")
    assert counts(take(engine, write_rates(tmp_path / "r.csv", "EUR,2025-04-28,1.2,ECB")), "rates") == (0, 1, 0, 0, 0)
    with reading(engine) as session:
        assert sorted(session.scalars(select(ExchangeRate.usd_per_unit))) == [1.1373, 1.2]


def test_all_or_nothing(engine: Engine, tmp_path: Path) -> None:
    """When writing fails in the middle the database is as it was before."""
    database, prices = write_database(tmp_path / "a.db"), write_prices(tmp_path / "p.csv", *cpu_lines())
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE catalog_source"))
    with pytest.raises(DatabaseError):
        take(engine, database, prices)
    with reading(engine) as session:
        assert session.scalars(select(func.count()).select_from(Price)).one() == 0
        assert session.scalars(select(func.count()).select_from(Server)).one() == 0
