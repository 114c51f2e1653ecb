"""A controller whose address changes: whom the firewalls of emulated clouds let in, by the real engine and SDKs."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds import ingress
from benchctl.clouds import rental as rentals
from benchctl.clouds.cloud import vendor_id
from benchctl.clouds.rental import Rental
from benchctl.clouds.stacks import Stacks
from benchctl.db.engine import open_database
from benchctl.ledger import READY, JobState, Ledger
from benchctl.request import SweepRequest
from llama_bench_core.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchctl.home import Home
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

REGION: dict[str, Callable[[str], str]] = {
    "hetzner": lambda zone: zone,
    "aws": lambda zone: zone[:-1],
    "gcp": lambda zone: zone.rpartition("-")[0],
}


class Bench:
    """A sweep of two jobs, taken up by one controller after the other."""

    def __init__(self, home: Home, engine: Engine, world: Emulated, vendor: str) -> None:
        self.home, self.engine, self.world, self.vendor = home, engine, world, vendor
        self.sweep = f"20261126-0000-{vendor}-ab12"
        self.said: list[str] = []
        server, zones = VENDORS[vendor]
        places = tuple(
            {"region": REGION[vendor](zone), "zone": zone, "price_per_hour": 0.01, "currency": "EUR"} for zone in zones
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
        (firewall,) = self.world.alive(self.vendor, "firewall")
        if self.vendor == "aws":
            return self._let_in_by_aws(firewall["id"])
        data: dict[str, Any] = firewall["data"]
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


@pytest.fixture(params=VENDORS)
def bench(request: pytest.FixtureRequest, home: Home, world: Emulated) -> Iterator[Bench]:
    engine = open_database(home.ensure().database_url)
    yield Bench(home, engine, world, request.param)
    engine.dispose()


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
