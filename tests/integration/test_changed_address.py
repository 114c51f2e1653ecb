"""A controller whose address changes: whom the firewalls of emulated clouds let in, by the real engine and SDKs."""

from __future__ import annotations

import io
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds import boot, ingress
from benchctl.clouds import rental as rentals
from benchctl.clouds.cloud import vendor_id
from benchctl.clouds.rental import Rental
from benchctl.clouds.stacks import Stacks
from benchctl.db.engine import open_database
from benchctl.fleet import RentedServers
from benchctl.ledger import GONE, READY, JobState, Ledger
from benchctl.poller import PollResult
from benchctl.request import SweepRequest
from benchctl.view import PlainView
from benchctl.watch import Watcher
from llama_bench_core.state import Increment
from llama_bench_core.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from benchctl.home import Home
    from benchctl.poller import Target
    from emulation.fixtures import Emulated
    from sqlalchemy import Engine

SUITE = Suite.from_dict({"name": "some", "models": ["m"], "scenarios": {"pp": {16: 2}}})
OLD, NEW = "203.0.113.7/32", "198.51.100.23/32"
VENDORS = {
    "hetzner": ("cx22", ("fsn1", "nbg1", "hel1")),
    "aws": ("t3.micro", ("us-east-1a", "us-east-1b", "us-east-1c")),
    "gcp": ("g2-standard-4", ("us-central1-a", "us-central1-b", "us-east1-b")),
}
"""A type of each vendor whose sweep has one firewall, and where it is rented."""

OWN = {
    "azure": ("Standard_D4as_v5", ("westeurope-1", "westeurope-2", "westeurope-3")),
    "upcloud": ("1xCPU-2GB", ("fi-hel1", "fi-hel2", "de-fra1")),
}
"""The same of those whose servers have a firewall each."""

REGION: dict[str, Callable[[str], str]] = {
    "hetzner": lambda zone: zone,
    "aws": lambda zone: zone[:-1],
    "gcp": lambda zone: zone.rpartition("-")[0],
    "azure": lambda zone: zone.rpartition("-")[0],
    "upcloud": lambda zone: zone,
}


class Bench:
    """A sweep of two jobs, taken up by one controller after the other."""

    def __init__(self, home: Home, engine: Engine, world: Emulated, vendor: str) -> None:
        self.home, self.engine, self.world, self.vendor = home, engine, world, vendor
        self.sweep = f"20261126-0000-{vendor}-ab12"
        self.said: list[str] = []
        server, zones = (VENDORS | OWN)[vendor]
        places = tuple(
            {
                "region": REGION[vendor](zone),
                "zone": zone.rpartition("-")[2] if vendor == "azure" else zone,
                "price_per_hour": 0.01,
                "currency": "EUR",
            }
            for zone in zones
        )
        jobs = [
            JobState(
                job=name, vendor=vendor_id(vendor), server=server, host=name, architecture="x86_64",
                lifetime_seconds=3600, places=places, gpus=int(vendor == "gcp"),
            )
            for name in ("first", "second")
        ]  # fmt: skip
        Ledger.create(home, engine, SweepRequest((vendor,), SUITE, ()), jobs, sweep=self.sweep)

    def controller(self, address: Callable[[str], str]) -> Rental:
        """One that begins, or resumes, the sweep."""
        environment = {**os.environ, **self.world.environment}
        return Rental(
            Ledger.open(self.home, self.engine, self.sweep),
            Stacks(self.home, environment=environment),
            ingress=address,
            say=self.said.append,
            environment=environment,
            draw=random.Random(7),  # noqa: S311 - waits
        )

    def let_in(self) -> list[str]:
        """Whom the one firewall lets in."""
        if self.vendor == "upcloud":
            (server,) = self.world.alive("upcloud", "server")
            ssh = server["data"]["firewall_rules"][0]
            assert ssh["sourceAddressStart"] == ssh["sourceAddressEnd"]
            return [f"{ssh['sourceAddressStart']}/32"]
        (firewall,) = self.world.alive(self.vendor, "firewall")
        if self.vendor == "aws":
            return self._let_in_by_aws(firewall["id"])
        data: dict[str, Any] = firewall["data"]
        if self.vendor == "azure":
            return [rule["sourceAddressPrefix"] for rule in data["securityRules"]]
        if "ranges" in data:
            return list(data["ranges"])
        return [address for rule in data["rules"] for address in rule["sourceIps"]]

    def _let_in_by_aws(self, group: str) -> list[str]:
        import boto3

        environment = self.world.environment
        client = boto3.client(
            "ec2", "us-east-1",
            endpoint_url=environment["AWS_ENDPOINT_URL_EC2"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
        rules = client.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])
        return [one["CidrIpv4"] for one in rules["SecurityGroupRules"] if not one["IsEgress"]]

    def identifiers(self) -> set[str]:
        """Of all that the jobs share."""
        return {one["id"] for one in self.world.alive(self.vendor) if one["kind"] in ("key", "firewall", "network")}

    def changes(self) -> list[str]:
        """What the vendor was asked for since the world began, looking left out."""
        return [f"{one['call']} {one['kind']}" for one in self.world.journal(via="engine") if one["call"] in CHANGES]


CHANGES = ("create", "update", "delete")


def benches(request: pytest.FixtureRequest, home: Home, world: Emulated) -> Iterator[Bench]:
    engine = open_database(home.ensure().database_url)
    yield Bench(home, engine, world, request.param)
    engine.dispose()


bench = pytest.fixture(params=VENDORS)(benches)
own_bench = pytest.fixture(params=OWN)(benches)
any_bench = pytest.fixture(params=[*VENDORS, *OWN])(benches)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds, not minutes; and nothing is behind the servers that could answer SSH."""
    monkeypatch.setattr(rentals, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(rentals, "SSH_SECONDS", 0.0)
    monkeypatch.setattr(rentals, "_ssh_problem", lambda _job, _key, _known: "")


def test_who_resumes_from_another_address_is_let_in(bench: Bench) -> None:
    """The firewall that stands lets in the new address and the old one no longer; all else is as it was."""
    assert bench.controller(lambda _: OLD).rent("first").stage == READY
    before = bench.identifiers()
    assert bench.let_in() == [OLD]
    resumed = bench.controller(lambda _: NEW)
    assert resumed.rent("second").stage == READY
    assert bench.let_in() == [NEW]
    assert bench.identifiers() == before
    assert any(f"lets in {NEW} from now on" in line for line in bench.said)
    assert len(bench.world.names(bench.vendor, "server")) == 2


def test_who_resumes_from_the_same_address_changes_nothing(bench: Bench) -> None:
    """What stands is used as it is: the vendor is asked for no change."""
    bench.controller(lambda _: OLD).rent("first")
    bench.controller(lambda _: OLD).rent("second")
    assert bench.world.journal(call="update") == []
    assert bench.let_in() == [OLD]


def test_a_server_that_stands_lets_in_who_resumes_from_another_address(
    any_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its firewall alone is changed, the sweep's or its own, also by a benchctl that would make it otherwise; once."""
    bench = any_bench
    job = bench.controller(lambda _: OLD).rent("first")
    before, made = bench.world.alive(bench.vendor, "server"), bench.changes()
    assert bench.let_in() == [OLD]
    bench.controller(lambda _: OLD).let_in([job])
    assert bench.changes() == made
    resumed = bench.controller(lambda _: NEW)
    monkeypatch.setattr(boot, "user_data", lambda _spec: "as another version writes it")
    resumed.let_in([job])
    resumed.let_in([job])
    assert bench.let_in() == [NEW], bench.said
    assert not {"server", "key", "network"}.intersection(line.split()[1] for line in bench.changes()[len(made) :])
    assert [one["id"] for one in bench.world.alive(bench.vendor, "server")] == [one["id"] for one in before]
    assert [line for line in bench.said if "address has changed" in line] == [bench.said[-1]]
    assert resumed.give_back("first").stage == GONE


def test_a_server_that_is_gone_is_not_made_anew_to_let_somebody_in(own_bench: Bench) -> None:
    """Who looks too late, when all was destroyed, makes nothing."""
    bench = own_bench
    controller = bench.controller(lambda _: OLD)
    job = controller.rent("first")
    controller.give_back("first")
    bench.controller(lambda _: NEW).let_in([job])
    controller._ingress = lambda _: NEW
    controller.let_in([job])
    assert bench.world.alive(bench.vendor) == []
    assert Stacks(bench.home, environment=controller._environment).names() == []


def test_an_address_that_changes_in_the_middle_is_said_and_the_next_try_lets_it_in(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never answers: the address is asked for again, and the next server answers to the new one."""
    address = [OLD]
    monkeypatch.setattr(ingress, "_asked", lambda: address[0])
    monkeypatch.setattr(
        rentals, "_ssh_problem",
        lambda _job, _key, _known: "" if bench.let_in() == address else "Connection timed out",
    )  # fmt: skip
    ingress._own.cache_clear()
    try:
        controller = bench.controller(ingress.ingress_for(""))
        assert controller.rent("first").attempts == ()
        address[0] = NEW
        job = controller.rent("second")
    finally:
        ingress._own.cache_clear()
    assert job.stage == READY
    assert bench.let_in() == [NEW]
    (tried,) = job.attempts
    assert tried["refusal"] == "timeout"
    assert f"the firewall lets in {OLD}, and it is {NEW} now" in tried["said"]
    assert len(bench.world.names(bench.vendor, "server")) == 2


@pytest.mark.parametrize("any_bench", ["hetzner", "upcloud"], indirect=True)
def test_an_address_that_changes_while_it_is_measured_is_let_in_and_the_watch_goes_on(
    any_bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server out of reach for the new address answers again, the same one: nothing is made, nothing given up."""
    bench, address = any_bench, [OLD]
    monkeypatch.setattr(ingress, "_asked", lambda: address[0])
    ingress._own.cache_clear()
    try:
        rental = bench.controller(ingress.ingress_for(""))
        job = rental.rent("first")
        made = [one["id"] for one in bench.world.alive(bench.vendor, "server")]
        fleet = RentedServers(
            rental._ledger, rental, budget=None, say=bench.said.append, warn=lambda _event, _facts: None,
            cancelled=threading.Event(),
        )  # fmt: skip
        fleet.hold(job)
        watcher = Watcher(
            LetIn(bench, address), PlainView(io.StringIO()), lost=fleet.lost, out_of_reach=fleet.out_of_reach,
            restart=lambda _: pytest.fail("it never died"), diagnose=lambda _: pytest.fail("it never died"),
            keep_progress=lambda _job, _progress: None,
        )  # fmt: skip
        watcher.add(job, tmp_path / "lake", "/state", just_started=False)
        assert watcher.look() == []
        address[0] = NEW
        deadline, ended = time.monotonic() + 300, []
        with fleet:
            while not ended:
                ended = watcher.look()
                assert time.monotonic() < deadline, bench.said
                time.sleep(0.1)
            assert bench.let_in() == [NEW]
            assert [one["id"] for one in bench.world.alive(bench.vendor, "server")] == made
    finally:
        ingress._own.cache_clear()
    assert [one.status for one in ended] == ["finished"]
    assert [line for line in bench.said if "address has changed" in line] == [bench.said[1]]
    assert bench.world.alive(bench.vendor, "server") == []


class LetIn:
    """A server that answers whom its firewall lets in: it measures, and has ended when it is out of reach for once."""

    interval_seconds = 0.1

    def __init__(self, bench: Bench, address: list[str]) -> None:
        self._bench, self._address, self._missed = bench, address, False

    def poll(self, targets: Sequence[Target]) -> Mapping[str, PollResult]:
        if self._bench.let_in() != self._address:
            self._missed = True
            return {one.job: PollResult(None, "Connection timed out") for one in targets}
        status = "finished" if self._missed else "running"
        return {one.job: PollResult(Increment(not self._missed, status, "", {}, "", 0, "", 0)) for one in targets}


def test_nobody_who_says_the_address_again_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known is kept; and where an address was given, nobody is asked."""
    answers = ["203.0.113.7/32"]
    monkeypatch.setattr(ingress, "SERVICES", ())
    ingress._own.cache_clear()
    ingress.look_again()  # never asked before: nothing to look at
    with monkeypatch.context() as patched:
        patched.setattr(ingress, "_asked", answers.pop)
        assert ingress.ingress_for("")("hetzner") == OLD
    try:
        ingress.look_again()
        assert ingress.ingress_for("")("hetzner") == OLD
    finally:
        ingress._own.cache_clear()
