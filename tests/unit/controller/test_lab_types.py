"""The lab's server types, and how they come into the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchctl.db.engine import open_database, reading
from benchctl.db.schema import Price, Server
from benchctl.lab.catalogue import ensure_catalogue
from benchctl.lab.types import plain_types, size_of
from raw_runs import write_theirs
from sqlalchemy import func, select

if TYPE_CHECKING:
    from pathlib import Path

    from benchctl.home import Home


def test_there_are_types_enough_for_a_fleet_and_each_name_tells_its_size() -> None:
    types = plain_types()
    assert len(types) == 120
    assert all(size_of(name) == size for name, size in types.items())
    assert types["lab-b4-16"].vcpus == 4
    assert types["lab-b4-16"].memory_mib == 16 * 1024
    assert all(size.usd_per_hour > 0 for size in types.values())


@pytest.mark.parametrize("name", ["lab-m7i.large", "lab-z1-1", "lab-a1-", "cx22", "lab-a1-1x"])
def test_other_names_tell_no_size(name: str) -> None:
    assert size_of(name) is None


def test_the_catalogue_says_that_it_is_a_rehearsal_and_doing_it_twice_changes_nothing(
    home: Home, tmp_path: Path
) -> None:
    write_theirs(tmp_path / "runs", "aws", "m7i.large")
    engine = open_database(home.database_url)
    for _ in range(2):
        ensure_catalogue(engine, home.cache, str(tmp_path / "runs"))
        with reading(engine) as session:
            servers = session.scalars(select(Server).filter_by(vendor_id="lab", status="ACTIVE")).all()
            prices = session.scalars(select(Price).filter_by(vendor_id="lab", until=None)).all()
            count = session.scalar(select(func.count()).select_from(Price))
        assert len(servers) == len(prices) == count == 121
        assert all("rehearsal" in str(one.description) for one in servers)
        assert {one.source for one in prices} == {"benchctl rehearsal (made up)"}
        played = next(one for one in servers if one.api_reference == "lab-m7i.large")
        assert "plays what was recorded on aws/m7i.large" in str(played.description)
    ensure_catalogue(engine, home.cache)
    with reading(engine) as session:
        still = session.scalars(select(Server.api_reference).filter_by(vendor_id="lab", status="ACTIVE")).all()
    assert "lab-m7i.large" in still, "a rehearsal without recordings does not close what was recorded"
    engine.dispose()
