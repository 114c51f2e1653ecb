"""One job's server at an emulated Hetzner, by the real engine, SDK and client, and where it says so real SSH."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.budget import committed, lives
from benchctl.clouds import engine_process
from benchctl.clouds import rental as rentals
from benchctl.clouds.cloud import cloud_of, vendor_id
from benchctl.clouds.reaper import reap
from benchctl.clouds.rental import GaveUpError, LeakError, Rental
from benchctl.clouds.stacks import Stacks
from benchctl.db import costs
from benchctl.db.engine import open_database, reading
from benchctl.db.prices import Terms
from benchctl.db.schema import Instance
from benchctl.fleet import RentedServers
from benchctl.ledger import GONE, PROVISIONING, READY, JobState, Ledger
from benchctl.living import account
from benchctl.models import load_models
from benchctl.request import SweepRequest
from benchctl.suites import load_suite
from emulation.aws import NOT_OPTED_INTO
from sqlalchemy import select

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchctl.home import Home
    from emulation.fixtures import Emulated

SWEEP = "20261126-0000-hetzner-ab12"


def place(zone: str, price: float = 0.01) -> dict[str, Any]:
    region = zone.rstrip("abc") if zone.count("-") == 2 else zone  # as AWS calls its zones
    return {"region": region, "zone": zone, "price_per_hour": price, "currency": "EUR", "budget_per_hour": price}


def a_job(server: str, vendor: str = "hetzner") -> JobState:
    """A job of one server type, without a place yet."""
    return JobState(
        job=server, vendor=vendor_id(vendor), server=server, host=server, architecture="x86_64", lifetime_seconds=3600
    )


class Bench:
    """A rental with all that it says."""

    def __init__(
        self,
        home: Home,
        world: Emulated,
        *zones: str,
        vendor: str = "hetzner",
        server: str = "cx22",
        budget: float | None = None,
        others: Sequence[JobState] = (),
    ) -> None:
        suite = load_suite("quick")
        self.vendor = vendor
        request = SweepRequest((vendor,), suite, tuple(load_models()[name] for name in suite.model_names))
        job = replace(a_job(server, vendor), places=tuple(place(zone) for zone in zones))
        self.world, self.home = world, home
        self.engine = open_database(home.database_url)
        self.ledger = Ledger.create(home, self.engine, request, [job, *others], sweep=SWEEP)
        self.said: list[str] = []
        self.cancelled = threading.Event()
        self.environment = environment = {**os.environ, **world.environment}
        self.stacks = Stacks(home, environment=environment)
        self.rental = Rental(
            self.ledger,
            self.stacks,
            ingress=lambda _vendor: "203.0.113.7/32",
            say=self.said.append,
            budget=budget,
            cancelled=self.cancelled,
            environment=environment,
            draw=random.Random(7),  # noqa: S311 - waits
        )

    def reap(self) -> None:
        """What a sweep does at its end: what its jobs shared goes too."""
        for job in self.ledger.jobs:
            self.ledger.update(job.job, status="finished")
        found = reap(
            self.home, self.engine, sweep=SWEEP, own=self.ledger, vendors=[self.vendor], environment=self.environment
        )
        assert found.clean, found.problems

    def rows(self) -> dict[str, str]:
        """What the database says of every resource that was asked for."""
        with reading(self.engine) as session:
            return {one.instance_id: one.state for one in session.scalars(select(Instance))}


@pytest.fixture
def no_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing behind the servers of these tests that could answer SSH."""
    monkeypatch.setattr(rentals, "_ssh_problem", lambda _job, _key, _known: "")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks in quick succession."""
    monkeypatch.setattr(rentals, "LOOK_SECONDS", 0.2)


@pytest.fixture
def bench(home: Home, world: Emulated) -> Iterator[Bench]:
    made = Bench(home, world, "fsn1", "nbg1", "hel1")
    yield made
    made.engine.dispose()


@pytest.mark.usefixtures("no_ssh", "quick")
def test_what_is_rented_is_written_down_and_surely_given_back(bench: Bench) -> None:
    """Asked, alive, gone: in the ledger, in the table, and in the cloud; the shared things go last."""
    job = bench.rental.rent("cx22")
    assert (job.stage, job.region, job.price_per_hour, job.currency) == (READY, "fsn1", 0.01, "EUR")
    assert (job.user, job.host_key.split()[0]) == ("root", "ssh-ed25519")
    assert job.alive
    assert bench.world.names("hetzner", "server") == [job.host]
    assert set(bench.rows().values()) == {"alive"}
    server = bench.world.alive("hetzner", "server")[0]["data"]
    assert server["labels"]["benchctl-job"] == "cx22"
    assert server["labels"]["benchctl-sweep"] == SWEEP

    job = bench.rental.give_back("cx22")
    assert (job.stage, job.alive) == (GONE, False)
    assert bench.world.names("hetzner", "server") == []
    (first,) = bench.rental.rent("cx22").past
    assert (first["launched_at"], first["gone_at"]) == (job.launched_at, job.gone_at)
    assert (first["price_per_hour"], first["currency"]) == (0.01, "EUR")
    bench.rental.give_back("cx22")
    bench.reap()
    assert bench.world.alive("hetzner") == []
    assert set(bench.rows().values()) == {"gone"}
    # once more is nothing more
    assert bench.rental.give_back("cx22").stage == GONE


@pytest.mark.usefixtures("no_ssh", "quick")
def test_a_list_from_before_it_was_made_does_not_say_that_a_server_is_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a list is good enough to say that it is there, and no more."""
    monkeypatch.setattr(rentals, "EXISTS_SECONDS", 600.0)
    assert bench.rental.listing(cloud_of("hetzner")).fresh() == []
    job = bench.rental.rent("cx22")
    assert bench.rental.exists(job)
    bench.rental.give_back("cx22")
    assert not bench.rental.exists(job)
    bench.reap()


@pytest.mark.usefixtures("no_ssh", "quick")
def test_sold_out_there_means_the_next_place(bench: Bench) -> None:
    """Two places have none; the third has; what the vendor said is kept, and nothing of the tries is left."""
    bench.world.fault("stock", vendor="hetzner", call="create", kind="server", place="fsn1")
    bench.world.fault("after", vendor="hetzner", call="create", kind="server", place="nbg1")
    bench.world.lag("hetzner", appears_after_lists=1)
    job = bench.rental.rent("cx22")
    assert job.region == "hel1"
    assert (job.attempts[0]["region"], job.attempts[0]["refusal"]) == ("fsn1", "stock")
    assert len(job.attempts) == 2
    assert "resource_unavailable" in job.attempts[0]["said"]
    assert (job.attempts[0]["price_per_hour"], job.attempts[0]["currency"]) == (0.01, "EUR")
    # also the server that was made although the create failed, and that the list shows late
    assert bench.world.names("hetzner", "server") == [job.host]
    # what is billed are the servers that were made, by the table as by the sweep's own book
    now = datetime.now(UTC)
    with reading(bench.engine) as session:
        (billed,) = costs.spending(session, Terms(), sweep=SWEEP, now=now).rows
    assert {billed["currency"]: billed["cost"]} == pytest.approx(account(SWEEP, bench.ledger.jobs, {}, now)["spent"])
    assert billed["hours"] == len(list(lives(job)))


@pytest.mark.usefixtures("no_ssh", "quick")
def test_a_type_that_is_retired_in_one_place_is_rented_in_the_next(bench: Bench) -> None:
    """Hetzner retires its types location by location; elsewhere they are sold on."""
    bench.ledger.update("cx22", server="cpx31")
    job = bench.rental.rent("cx22")
    assert (job.stage, job.region) == (READY, "nbg1")
    assert [(one["region"], one["refusal"]) for one in job.attempts] == [("fsn1", "not_offered")]
    bench.rental.give_back("cx22")
    bench.reap()
    assert bench.world.alive("hetzner") == []


@pytest.mark.usefixtures("no_ssh", "quick")
def test_nowhere_to_be_had_leaves_nothing(bench: Bench) -> None:
    """All places are sold out: the reason sums it up, and the cloud holds only what the sweep's jobs share."""
    bench.world.fault("stock", vendor="hetzner", call="create", kind="server", times=99)
    with pytest.raises(GaveUpError, match="3 tries in 3 regions") as caught:
        bench.rental.rent("cx22")
    # nothing was made, so that nothing of the budget is used
    assert [one["launched_at"] for one in bench.ledger.job("cx22").attempts] == [None, None, None]
    assert not caught.value.vendor_stopped
    assert not bench.ledger.job("cx22").alive
    assert bench.ledger.job("cx22").stage == PROVISIONING
    assert bench.world.names("hetzner", "server") == []


class KillsTheEngine(threading.Thread):
    """SIGKILL for it, like the kernel when memory runs out, while the vendor makes a thing of this kind; once.

    Attributes:
        killed: the engines' process numbers.
    """

    def __init__(self, bench: Bench, kind: str) -> None:
        super().__init__()
        self.killed: list[int] = []
        self._bench, self._kind = bench, kind
        bench.world.fault("hold", vendor="hetzner", call="create", kind=kind)
        self.start()

    def run(self) -> None:
        """The vendor finishes what it is at only after the kill."""
        try:
            self._bench.world.until(self._under_way, 300)
            mark = Stacks(self._bench.home).mark("")
            for one in engine_process.running():
                if one.engine and one.stack.startswith(mark):
                    os.kill(one.pid, signal.SIGKILL)
                    self.killed.append(one.pid)
        finally:
            self._bench.world.release()

    def _under_way(self) -> bool:
        calls = self._bench.world.journal(vendor="hetzner", call="create", kind=self._kind, via="engine")
        return any(one["ended"] is None for one in calls)


@pytest.mark.usefixtures("no_ssh", "quick")
@pytest.mark.parametrize("kind", ["server", "key"])
def test_a_killed_engine_says_nothing_of_the_place_and_is_started_again(bench: Bench, kind: str) -> None:
    """The vendor goes on and makes what nobody writes down; that is found, and the same place is asked again."""
    bench.world.lag("hetzner", appears_after_seconds=8.0 if kind == "server" else 2.0)
    killer = KillsTheEngine(bench, kind)
    job = bench.rental.rent("cx22")
    killer.join()
    assert killer.killed, "the engine was not killed in the middle"
    assert job.region == "fsn1"
    assert [one["said"] for one in job.attempts] == (
        ["Pulumi's engine was ended by signal 9."] if kind == "server" else []
    )
    # one of each, though the vendor had made what the engine was killed over
    assert bench.world.names("hetzner", "server") == [job.host]
    assert len(bench.world.names("hetzner", "key")) == len(bench.world.names("hetzner", "firewall")) == 1
    bench.rental.give_back("cx22")
    bench.reap()
    assert bench.world.alive("hetzner") == []


@pytest.mark.usefixtures("no_ssh", "quick")
def test_money_that_another_job_took_meanwhile_is_not_spent_twice(home: Home, world: Emulated) -> None:
    """Throttled, it waits; by then another server is promised what is left of the budget: it gives up, unmade."""
    other = JobState(job="cx32", vendor="hcloud", server="cx32", host="cx32", lifetime_seconds=3600)
    bench = Bench(home, world, "fsn1", budget=0.015, others=[other])
    world.fault("throttled", vendor="hetzner", call="create", kind="server", times=1)
    try:
        with ThreadPoolExecutor(1) as pool:
            renting = pool.submit(bench.rental.rent, "cx22")
            world.until(lambda: world.journal(vendor="hetzner", call="create", kind="server"))
            now = datetime.now(UTC)
            bench.ledger.update(
                "cx32", launched_at=now.isoformat(), expires_at=(now + timedelta(hours=1)).isoformat(),
                budget_per_hour=0.01,
            )  # fmt: skip
            with pytest.raises(GaveUpError, match="budget") as caught:
                renting.result()
            # there may be some left when the other is gone
            assert caught.value.later
        assert world.names("hetzner", "server") == []
        assert committed(bench.ledger.jobs, datetime.now(UTC)) <= 0.015
    finally:
        bench.engine.dispose()


@pytest.mark.usefixtures("no_ssh", "quick")
def test_servers_that_use_a_quota_up_themselves_follow_each_other(home: Home, world: Emulated) -> None:
    """The account may have one server, and three are asked for at once: all are had, one after the other."""
    others = [replace(a_job(name), places=(place("nbg1"),)) for name in ("cx32", "cx42")]
    bench = Bench(home, world, "fsn1", "nbg1", others=others)
    world.limit("hetzner", servers=1)
    fleet = RentedServers(
        bench.ledger, bench.rental, budget=None, say=bench.said.append, warn=lambda *_: None, cancelled=bench.cancelled
    )
    had, failed, most = [], [], 0
    try:
        with fleet:
            fleet.take(bench.ledger.jobs)
            until = time.monotonic() + 300
            while fleet.busy:
                assert time.monotonic() < until, bench.said
                fleet.advance()
                failed += fleet.failed()
                most = max(most, len(world.names("hetzner", "server")))
                for job in fleet.ready():
                    # the first stays until both others have been refused because of it
                    world.until(lambda: sum(bool(one.attempts) for one in bench.ledger.jobs) == 2)
                    had.append(job.job)
                    fleet.release(job)
                fleet.wait(0.2)
        assert (sorted(had), failed, most) == (["cx22", "cx32", "cx42"], [], 1)
        assert world.names("hetzner", "server") == []
        # what the vendor said is kept, and is no reason to ask for less: nothing was barred for good
        refused = {one["refusal"] for job in bench.ledger.jobs for one in job.attempts}
        assert refused == {"quota"}
        assert sum("server limit exceeded" in one and "waits until" in one for one in bench.said) == 2
    finally:
        bench.engine.dispose()


@pytest.mark.usefixtures("no_ssh", "quick")
def test_a_quota_that_nobody_of_ours_uses_up_is_believed_at_once(bench: Bench) -> None:
    """The account may have none at all: no waiting."""
    bench.world.limit("hetzner", servers=0)
    with pytest.raises(GaveUpError, match="server limit exceeded") as caught:
        bench.rental.rent("cx22")
    assert not caught.value.later
    with pytest.raises(GaveUpError, match=r"server limit exceeded"):
        bench.rental.rent("cx22")
    assert len(bench.world.journal(vendor="hetzner", call="create", kind="server")) == 1


@pytest.mark.usefixtures("no_ssh", "quick")
@pytest.mark.parametrize("effect", ["throttled", "unauthorized"])
def test_a_server_that_was_never_made_is_not_reckoned(bench: Bench, effect: str) -> None:
    """Throttled, or not let in, before anything was made: a vendor that bills begun hours bills none."""
    bench.world.fault(effect, vendor="hetzner", call="create", kind="server", times=1)
    with contextlib.suppress(GaveUpError):
        bench.rental.rent("cx22")
        bench.rental.give_back("cx22")
    (tried,) = bench.ledger.job("cx22").attempts
    assert (tried["refusal"], tried["launched_at"]) == ({"unauthorized": "account"}.get(effect, effect), None)


@pytest.mark.usefixtures("no_ssh", "quick")
def test_a_server_whose_maker_was_throttled_afterwards_is_reckoned(bench: Bench) -> None:
    """It was there, and is billed, whatever the engine was told of it then."""
    bench.world.fault("after-throttled", vendor="hetzner", call="create", kind="server", times=1)
    bench.rental.rent("cx22")
    (tried,) = bench.ledger.job("cx22").attempts
    assert tried["refusal"] == "throttled"
    assert tried["launched_at"]
    now = datetime.now(UTC)
    assert committed(bench.ledger.jobs, now) == pytest.approx(0.02)
    bench.rental.give_back("cx22")


@pytest.mark.usefixtures("no_ssh", "quick")
def test_a_login_that_is_refused_stops_the_vendor(bench: Bench) -> None:
    """No second place is tried with a token that the vendor does not know."""
    bench.world.fault("unauthorized", vendor="hetzner", call="create", times=99)
    with pytest.raises(GaveUpError, match="unauthorized") as caught:
        bench.rental.rent("cx22")
    assert caught.value.vendor_stopped


@pytest.fixture
def aws(home: Home, world: Emulated) -> Iterator[Bench]:
    """A sweep at AWS whose cheapest place is in a region that the account has not opted into."""
    made = Bench(home, world, f"{NOT_OPTED_INTO}a", "eu-west-1a", "us-east-1b", vendor="aws", server="m7i.large")
    yield made
    made.engine.dispose()


@pytest.mark.usefixtures("no_ssh", "quick")
@pytest.mark.parametrize("effect", ["denied", "outage"])
def test_a_region_that_is_closed_to_the_account_is_left_for_the_next(aws: Bench, effect: str) -> None:
    """Neither one that is not opted into nor one that the organisation denies stops AWS; nothing is called a leak.

    What is in the third is given back, though a list of everything can't be had, for whatever reason.
    """
    if effect == "denied":
        aws.world.fault("denied", vendor="aws", place="eu-west-1", times=1000)
    else:
        aws.world.fault("denied", vendor="aws", place="eu-west-1", via="engine", times=1000)
    job = aws.rental.rent("m7i.large")
    assert [(one["region"], one["refusal"]) for one in job.attempts] == [
        (NOT_OPTED_INTO, "not_offered"),
        ("eu-west-1", "not_offered"),
    ]
    assert (job.stage, job.region) == (READY, "us-east-1")
    if effect == "outage":
        aws.world.fault("outage", vendor="aws", place="eu-west-1", via="api", times=1000)
    assert aws.rental.exists(job)
    assert aws.rental.give_back("m7i.large").stage == GONE
    assert aws.world.names("aws", "server") == []
    if effect == "outage":
        aws.world.mend()
    aws.reap()
    assert aws.world.alive("aws") == []
    assert set(aws.rows().values()) <= {"gone", "refused"}
    assert aws.stacks.names() == []


@pytest.mark.usefixtures("no_ssh", "quick")
def test_what_lies_about_being_gone_is_a_leak(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendor says that it deleted the server, and lists it still: an error names it, and the book says alive."""
    monkeypatch.setattr(rentals, "PROOF_SECONDS", 4.0)
    job = bench.rental.rent("cx22")
    bench.world.fault("lies", vendor="hetzner", call="delete", kind="server", times=99)
    with pytest.raises(LeakError, match=job.host) as caught:
        bench.rental.give_back("cx22")
    assert [one.name for one in caught.value.left] == [job.host]
    assert bench.ledger.job("cx22").alive
    assert bench.rows()[job.host] == "alive"


@pytest.mark.usefixtures("no_ssh", "quick")
def test_a_server_that_does_not_go_is_not_waited_for(
    home: Home, world: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It uses a quota up, and nobody knows until when: who needs its place gives up, and the sweep can end."""
    monkeypatch.setattr(rentals, "PROOF_SECONDS", 4.0)
    bench = Bench(home, world, "fsn1", others=[replace(a_job("cx32"), places=(place("fsn1"),))])
    try:
        bench.rental.rent("cx22")
        world.fault("lies", vendor="hetzner", call="delete", kind="server", times=99)
        with pytest.raises(LeakError):
            bench.rental.give_back("cx22")
        world.limit("hetzner", servers=1)
        with pytest.raises(GaveUpError, match="server limit exceeded") as caught:
            bench.rental.rent("cx32")
        assert not caught.value.later
        world.mend()
        bench.rental.give_back("cx22")
    finally:
        bench.engine.dispose()


@pytest.mark.usefixtures("no_ssh", "quick")
def test_a_delete_that_fails_is_tried_again(bench: Bench) -> None:
    """The engine's delete fails again and again, and the list lags: gone all the same, by the vendor's client."""
    bench.rental.rent("cx22")
    bench.world.fault("fails", vendor="hetzner", call="delete", kind="server", via="engine", times=99)
    bench.world.lag("hetzner", lingers_for_lists=2)

    assert bench.rental.give_back("cx22").stage == GONE
    assert bench.world.names("hetzner", "server") == []


@pytest.mark.usefixtures("no_ssh", "quick")
def test_the_users_end_in_the_middle_of_a_create_leaves_nothing(bench: Bench) -> None:
    """The engine is ended while the vendor still makes the server: it is found and removed."""
    bench.world.fault("hold", vendor="hetzner", call="create", kind="server")
    log = bench.ledger.job_folder("cx22") / "engine.log"
    failed: list[BaseException] = []

    def rent() -> None:
        try:
            bench.rental.rent("cx22")
        except BaseException as error:  # noqa: BLE001 - looked at below
            failed.append(error)

    thread = threading.Thread(target=rent)
    thread.start()
    try:
        bench.world.until(lambda: bench.world.journal(vendor="hetzner", call="create", kind="server"), 300)
        bench.cancelled.set()
        # the engine says that it has heard; only then may the create end
        bench.world.until(lambda: "^C received" in log.read_text(), 300)
    finally:
        bench.world.release()
        thread.join(240)
    assert isinstance(failed[0], GaveUpError)
    assert failed[0].cancelled
    assert bench.world.names("hetzner", "server") == []
    assert not bench.ledger.job("cx22").alive


@pytest.mark.usefixtures("quick")
def test_a_server_is_ready_when_it_lets_us_in_by_the_key_that_was_made_for_it(
    home: Home, backed_world: Emulated
) -> None:
    """A container with sshd behind the server: its host key is the one of the book, and the sweep's key logs in."""
    bench = Bench(home, backed_world, "fsn1")
    try:
        job = bench.rental.rent("cx22")
        assert job.stage == READY
        assert job.address
        assert bench.rental.give_back("cx22").stage == GONE
        bench.reap()
        assert backed_world.alive("hetzner") == []
    finally:
        bench.engine.dispose()
