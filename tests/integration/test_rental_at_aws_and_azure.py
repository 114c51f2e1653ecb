"""The product's own way at an emulated AWS and Azure: ledger, engine, client, SSH, reaper. Servers are containers.

The vendors' programs and clients have their tests of their own; here the engine gets its login as a sweep gives it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds import rental as rentals
from benchctl.clouds.cloud import cloud_of
from benchctl.clouds.reaper import Patience, reap
from benchctl.clouds.rental import Rental
from benchctl.clouds.stacks import Stacks
from benchctl.db.engine import open_database, reading
from benchctl.db.schema import Instance
from benchctl.ledger import GONE, READY, JobState, Ledger
from benchctl.models import load_models
from benchctl.request import SweepRequest
from benchctl.suites import load_suite
from sqlalchemy import select

if TYPE_CHECKING:
    from pathlib import Path

    from benchctl.home import Home
    from emulation.fixtures import Emulated

PATIENCE = Patience(pause_seconds=0.2, settle_seconds=1.0)

SHARED = {"aws": ["firewall", "key"], "azure": []}
"""What a sweep's jobs share there, and what is left when their servers are gone."""


@pytest.mark.parametrize(
    ("vendor", "server", "region", "zone"),
    [("aws", "m7i.large", "us-east-1", "us-east-1b"), ("azure", "Standard_D4as_v5", "westeurope", "2")],
    ids=["aws", "azure"],
)
def test_a_server_is_rented_let_in_and_given_back_and_the_reaper_finds_nothing(
    home: Home, backed_world: Emulated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    vendor: str, server: str, region: str, zone: str,
) -> None:  # fmt: skip
    """The login that the engine is given suffices, the sweep's key logs in, and nothing outlives the sweep."""
    monkeypatch.setattr(rentals, "LOOK_SECONDS", 0.2)
    environment = {**os.environ, **backed_world.environment, "HOME": str(tmp_path)}
    suite = load_suite("quick")
    request = SweepRequest((vendor,), suite, tuple(load_models()[name] for name in suite.model_names))
    place: dict[str, Any] = {"region": region, "zone": zone, "price_per_hour": 0.1, "currency": "USD"}
    job = JobState(
        job="one", vendor=vendor, server=server, host="one", architecture="x86_64", lifetime_seconds=3600,
        places=(place,),
    )  # fmt: skip
    engine = open_database(home.database_url)
    try:
        ledger = Ledger.create(home, engine, request, [job], sweep=f"20261126-0000-{vendor}-ab12")
        stacks = Stacks(home, environment=environment)
        rental = Rental(ledger, stacks, ingress=lambda _: "203.0.113.7/32", say=lambda _: None, environment=environment)
        job = rental.rent("one")
        assert (job.stage, job.region, job.zone, job.user) == (READY, region, zone, "ubuntu"), job.attempts
        assert backed_world.names(vendor, "server") == [job.host]
        listed = cloud_of(vendor).client(environment, (region,)).find()
        (found,) = (one for one in listed if one.kind == "server")
        assert (found.sweep, found.job, found.address) == (ledger.sweep, "one", job.address)

        job = rental.give_back("one")
        assert (job.stage, job.alive) == (GONE, False)
        assert sorted(one["kind"] for one in backed_world.alive(vendor)) == SHARED[vendor]
        ledger.update("one", status="finished")
        asked: dict[str, Any] = {"vendors": [vendor], "environment": environment, "patience": PATIENCE}
        own = reap(home, engine, sweep=ledger.sweep, own=ledger, **asked)
        assert own.clean, own
        assert backed_world.alive(vendor) == []
        assert stacks.names() == []
        with reading(engine) as session:
            states = {one.kind: one.state for one in session.scalars(select(Instance))}
        assert states["server"] == "gone"
        assert set(states.values()) == {"gone"}

        later = reap(home, engine, everything=True, **asked)
        assert (later.asked, later.findings, later.problems) == ((vendor,), (), {})
    finally:
        engine.dispose()
