"""How many servers exist at once, for whom, and that all of them go: the fleet, over a rental that only remembers.

The rental here is a fake; the real one is tried over emulated clouds in tests/integration.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds.rental import GaveUpError, LeakError
from benchctl.db.engine import open_database
from benchctl.fleet import RentedServers
from benchctl.ledger import GONE, READY, JobState, Ledger
from benchctl.models import load_models
from benchctl.pipeline import ended_well
from benchctl.request import SweepRequest
from benchctl.suites import load_suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchctl.home import Home

PLACE = {"region": "r", "zone": "z", "price_per_hour": 1.0, "currency": "USD", "budget_per_hour": 1.0}


class Rental:
    """Rents when it is let to; keeps count of what exists."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.alive: set[str] = set()
        self.most = 0
        self.most_of: dict[str, int] = {}
        self.go = threading.Event()
        self.go.set()
        self.go_of: dict[str, threading.Event] = {}
        self.refuse: dict[str, Exception] = {}
        self.cling: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.idle: frozenset[str] = frozenset()
        self.waiting: set[str] = set()
        self.waiting_for: dict[str, str] = {}
        self.clings_until: dict[str, threading.Event] = {}
        self.let: list[tuple[list[str], bool]] = []
        self._lock = threading.Lock()

    def held(self, job: JobState) -> bool:
        return job.job in self.waiting or self.waiting_for.get(job.job) in self.alive

    def rent(self, name: str) -> JobState:
        now = datetime.now(UTC)
        with self._lock:
            self.asked.append(name)
        job = self.ledger.job(name)
        (self.go_of.get(job.vendor) or self.go).wait(60)
        if name in self.refuse:
            raise self.refuse[name]
        with self._lock:
            self.alive.add(name)
            self.most = max(self.most, len(self.alive))
            count = sum(1 for one in self.alive if self.ledger.job(one).vendor == job.vendor)
            self.most_of[job.vendor] = max(self.most_of.get(job.vendor, 0), count)
        return self.ledger.update(
            name, stage=READY, status="running", launched_at=now.isoformat(), gone_at=None, attempt=1,
            expires_at=(now + timedelta(seconds=job.lifetime_seconds)).isoformat(), budget_per_hour=1.0,
        )  # fmt: skip

    def let_in(self, jobs: Sequence[JobState], *, look_again: bool = False) -> None:
        self.let.append(([job.job for job in jobs], look_again))
        assert self.go.wait(60)
        if "let in" in self.refuse:
            raise self.refuse["let in"]

    def give_back(self, name: str, *, stage: str = "destroying") -> JobState:  # noqa: ARG002 - as the real one
        if name in self.cling:
            raise self.cling[name]
        if name in self.clings_until:
            self.clings_until[name].wait(60)
        with self._lock:
            self.alive.discard(name)
        return self.ledger.update(name, stage=GONE, gone_at=datetime.now(UTC).isoformat())


class Bench:
    """A fleet with all that it is told."""

    def __init__(self, home: Home, jobs: list[JobState], budget: float | None = None, **request: Any) -> None:
        suite = load_suite("quick")
        models = tuple(load_models()[name] for name in suite.model_names)
        self.engine = open_database(home.database_url)
        self.ledger = Ledger.create(
            home, self.engine, SweepRequest(("gcp",), suite, models, **request), jobs, sweep="s"
        )
        self.rental = Rental(self.ledger)
        self.said: list[str] = []
        self.events: list[str] = []
        self.cancelled = threading.Event()
        self.fleet = RentedServers(
            self.ledger,
            self.rental,  # type: ignore[arg-type]
            budget=budget,
            say=self.said.append,
            warn=lambda event, _facts: self.events.append(event),
            cancelled=self.cancelled,
        )

    def run(self, status: str = "running") -> tuple[list[str], dict[str, str]]:
        """Take all jobs, and give each back as soon as it is there: :meth:`give_back_all`."""
        with self.fleet:
            self.fleet.take(self.ledger.jobs)
            return self.give_back_all(status)

    def give_back_all(self, status: str = "running") -> tuple[list[str], dict[str, str]]:
        """Give back whatever comes up, until nothing does; returns who was ready, and who failed why.

        ``status`` is what its job has come to by then.
        """
        ready: list[str] = []
        failed: dict[str, str] = {}
        while self.fleet.busy:
            self.fleet.advance()
            for job in self.fleet.ready():
                ready.append(job.job)
                self.fleet.release(self.ledger.update(job.job, status=status))
            failed |= {job.job: why for job, why in self.fleet.failed()}
            self.fleet.wait(0.05)
        return ready, failed

    def wait_until_asked(self) -> None:
        """Wait until a first server is being made."""
        deadline = time.monotonic() + 60
        while not self.rental.asked:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def made() -> Iterator[list[Bench]]:
    """What is to be closed."""
    benches: list[Bench] = []
    yield benches
    for one in benches:
        one.engine.dispose()


def jobs(vendor: str, count: int, lifetime: int = 3600) -> list[JobState]:
    return [
        JobState(job=f"{vendor}-{n}", vendor=vendor, server=f"t{n}", host=f"{vendor}-{n}", lifetime_seconds=lifetime,
                 places=(PLACE,))
        for n in range(count)
    ]  # fmt: skip


def test_no_more_exist_at_once_than_was_asked_for(home: Home, made: list[Bench]) -> None:
    """Three in all, two of one vendor; every job gets its turn, and nothing is left."""
    bench = Bench(home, jobs("gcp", 6) + jobs("hcloud", 6), concurrency=3, per_vendor=2)
    made.append(bench)
    ready, failed = bench.run()
    assert len(ready) == 12
    assert failed == {}
    assert bench.rental.most <= 3
    assert max(bench.rental.most_of.values()) <= 2
    assert bench.rental.alive == set()


def test_nothing_starts_that_could_pass_the_budget(home: Home, made: list[Bench]) -> None:
    """An hour at 1 USD each under 2.4 USD: two at once, and that 80 % is reached is told once."""
    bench = Bench(home, jobs("gcp", 4), budget=2.4, concurrency=4, per_vendor=4)
    made.append(bench)
    fleet = bench.fleet
    with fleet:
        fleet.take(bench.ledger.jobs)
        held: list[JobState] = []
        deadline = time.monotonic() + 30
        while len(held) < 2:
            assert time.monotonic() < deadline, bench.said
            fleet.advance()
            held += fleet.ready()
            fleet.wait(0.05)
        for _ in range(3):
            fleet.advance()
        assert (fleet.ready(), bench.events) == ([], ["budget-80-percent"])
        # given back after an instant they cost next to nothing, so that the others can follow
        for job in held:
            fleet.release(bench.ledger.update(job.job, status="finished"))
        ready, failed = bench.give_back_all()
    assert len(ready) == 2
    assert failed == {}
    assert bench.rental.most == 2
    assert bench.events == ["budget-80-percent"]


def test_servers_of_ones_own_and_rented_ones_share_one_budget(home: Home, made: list[Bench]) -> None:
    """Half an hour of a server of one's own at 3 USD is taken off 2.4 USD, so that no rented hour at 1 USD is left."""
    own = JobState("own", "ssh", "own", "own", price_per_hour=3.0, currency="USD", session_seconds=1800)
    bench = Bench(home, [own, *jobs("gcp", 1)], budget=2.4)
    made.append(bench)
    ready, failed = bench.run()
    assert ready == ["own"]
    assert "budget" in failed["gcp-0"]
    assert "budget-80-percent" not in bench.events


def test_a_server_of_before_is_no_second_promise(home: Home, made: list[Bench]) -> None:
    """Taken up again under the same budget: its old server goes before the new one is there."""
    now = datetime.now(UTC)
    [job] = jobs("gcp", 1)
    job = replace(
        job, stage="provisioning", launched_at=now.isoformat(), expires_at=(now + timedelta(hours=1)).isoformat(),
        budget_per_hour=1.0,
    )  # fmt: skip
    bench = Bench(home, [job], budget=1.5)
    made.append(bench)
    assert bench.run() == (["gcp-0"], {})


def test_a_job_that_goes_on_is_not_judged_by_a_dear_place_of_before(home: Home, made: list[Bench]) -> None:
    """Its server of before the resume stood where it costs 10 USD an hour; the next may stand where it costs 1."""
    now = datetime.now(UTC)
    [job] = jobs("gcp", 1)
    launched = (now - timedelta(minutes=1)).isoformat()
    job = replace(job, stage="gone", launched_at=launched, gone_at=now.isoformat(), budget_per_hour=10.0)
    bench = Bench(home, [job], budget=5.0)
    made.append(bench)
    assert bench.run() == (["gcp-0"], {})


@pytest.mark.parametrize("request_", [{"per_vendor": 1}, {"concurrency": 1}, {}])
def test_servers_of_before_go_before_anything_is_made(home: Home, made: list[Bench], request_: dict[str, int]) -> None:
    """Taken up again after a kill: what was left of each job counts against money and quotas of all until it is gone.

    Neither is a job that waits for them refused, nor does one wait for what only it would give back.
    """
    now = datetime.now(UTC)
    left = [
        replace(
            job, stage="provisioning", launched_at=now.isoformat(), expires_at=(now + timedelta(hours=1)).isoformat(),
            budget_per_hour=1.0,
        )
        for job in jobs("gcp", 2)
    ]  # fmt: skip
    bench = Bench(home, left, budget=2.2, **request_)
    made.append(bench)
    bench.rental.alive = {"gcp-0", "gcp-1"}
    bench.rental.waiting_for = {"gcp-0": "gcp-1", "gcp-1": "gcp-0"}
    ready, failed = bench.run()
    assert (sorted(ready), failed) == (["gcp-0", "gcp-1"], {})


def test_what_has_no_money_left_and_nobody_to_wait_for_is_given_up(home: Home, made: list[Bench]) -> None:
    """Its cheap places are sold out, its dear ones too dear, and no other server will turn out cheaper."""
    bench = Bench(home, jobs("gcp", 1), budget=2.0)
    made.append(bench)
    bench.rental.refuse["gcp-0"] = GaveUpError("waits until others are gone", later=True, money=True)
    ready, failed = bench.run()
    assert ready == []
    assert "--budget" in failed["gcp-0"]
    assert bench.rental.asked == ["gcp-0"]


def test_who_waits_for_a_quota_waits_for_no_strangers_end(home: Home, made: list[Bench]) -> None:
    """Its time is the rental's to say; a server of another vendor that measures for hours has nothing to do with it."""
    bench = Bench(home, jobs("gcp", 1) + jobs("hcloud", 1))
    made.append(bench)
    bench.rental.refuse["gcp-0"] = GaveUpError("waits until others are gone", later=True)
    with bench.fleet:
        bench.fleet.take(bench.ledger.jobs)
        advance_until(bench, lambda: bench.rental.alive == {"hcloud-0"} and bench.rental.asked.count("gcp-0") > 1)
        del bench.rental.refuse["gcp-0"]
        advance_until(bench, lambda: bench.rental.alive == {"gcp-0", "hcloud-0"})
        bench.give_back_all()


def test_a_vendor_that_can_start_nothing_keeps_no_engine_from_others(home: Home, made: list[Bench]) -> None:
    """It has as many servers as it may have, or waits for a quota: the engine that is kept for it would be idle."""
    bench = Bench(home, jobs("azure", 5) + jobs("gcp", 2) + jobs("hcloud", 1), concurrency=8, per_vendor=5)
    made.append(bench)
    bench.rental.go.clear()
    bench.rental.waiting = {"gcp-0", "gcp-1", "hcloud-0"}
    with bench.fleet:
        bench.fleet.take(bench.ledger.jobs)
        advance_until(bench, lambda: len(bench.rental.asked) == 4)
        bench.rental.waiting.clear()
        bench.rental.go.set()
        bench.give_back_all()


def test_what_the_budget_never_covers_is_said(home: Home, made: list[Bench]) -> None:
    """A job that is dearer than all of the budget fails with the reason; the others run."""
    bench = Bench(home, [*jobs("gcp", 1), *jobs("hcloud", 1, lifetime=36000)], budget=2.0)
    made.append(bench)
    ready, failed = bench.run()
    assert ready == ["gcp-0"]
    assert "the budget does not cover it: 'benchctl sweep --resume s --budget MONEY'" in failed["hcloud-0"]


def test_a_vendor_that_refuses_the_account_is_not_asked_again(home: Home, made: list[Bench]) -> None:
    """The other jobs of that vendor fail with its words, unasked; those of other vendors go on."""
    bench = Bench(home, jobs("gcp", 4) + jobs("hcloud", 2), concurrency=1)
    made.append(bench)
    bench.rental.refuse["gcp-0"] = GaveUpError("gcp refuses the account: forbidden", vendor_stopped=True)
    ready, failed = bench.run()
    assert ready == ["hcloud-0", "hcloud-1"]
    assert set(failed) == {"gcp-0", "gcp-1", "gcp-2", "gcp-3"}
    assert all("forbidden" in why for why in failed.values())
    assert "gcp-3" not in bench.rental.asked


def test_a_leak_is_told_and_touches_no_other_job(home: Home, made: list[Bench]) -> None:
    """The job has failed with what is left, the hook is told, the others are measured."""
    bench = Bench(home, jobs("gcp", 3))
    made.append(bench)
    bench.rental.cling["gcp-1"] = LeakError("gcp still lists server x", "Run 'benchctl reap'.", [])
    ready, _ = bench.run()
    assert len(ready) == 3
    assert set(bench.events) == {"leak"}
    job = bench.ledger.job("gcp-1")
    assert (job.status, job.alive) == ("failed", True)
    assert "still lists" in (job.error or "")
    assert bench.rental.alive == {"gcp-1"}


def test_a_leak_leaves_measured_what_was_measured(home: Home, made: list[Bench]) -> None:
    """It needs no other server to be measured once more; that the one it had may live is in its error."""
    bench = Bench(home, jobs("gcp", 1))
    made.append(bench)
    bench.rental.cling["gcp-0"] = LeakError("gcp still lists server x", "Run 'benchctl reap'.", [])
    bench.run("finished")
    job = bench.ledger.job("gcp-0")
    assert (job.status, job.alive) == ("finished", True)
    assert "still lists" in (job.error or "")
    assert not ended_well(job)


def advance_until(bench: Bench, reached: Callable[[], bool]) -> None:
    """Let the fleet do what it can until something holds."""
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline, (bench.rental.asked, bench.said)
        bench.fleet.advance()
        bench.fleet.wait(0.05)


def test_a_vendor_that_takes_long_leaves_an_engine_to_others(home: Home, made: list[Bench]) -> None:
    """Four of its servers could be made at once; one place is kept for the vendor that has none yet."""
    bench = Bench(home, jobs("azure", 6) + jobs("hcloud", 2), concurrency=8, per_vendor=8)
    made.append(bench)
    bench.rental.go_of["azure"] = slow = threading.Event()
    with bench.fleet:
        bench.fleet.take(bench.ledger.jobs)
        advance_until(bench, lambda: {"hcloud-0", "hcloud-1"} <= bench.rental.alive)
        assert sum(one.startswith("azure") for one in bench.rental.asked) == 3
        slow.set()
        bench.give_back_all()
    assert len(bench.rental.asked) == 8


def test_what_needs_no_engine_keeps_none(home: Home, made: list[Bench]) -> None:
    """Servers that boot, or wait until the vendor may be asked again, are no reason not to make others."""
    bench = Bench(home, jobs("gcp", 6), concurrency=6, per_vendor=6)
    made.append(bench)
    bench.rental.go.clear()
    with bench.fleet:
        bench.fleet.take(bench.ledger.jobs)
        advance_until(bench, lambda: len(bench.rental.asked) == 4)
        for _ in range(3):
            bench.fleet.advance()
        assert len(bench.rental.asked) == 4
        bench.rental.idle = frozenset({"gcp-0", "gcp-1"})
        advance_until(bench, lambda: len(bench.rental.asked) == 6)
        bench.rental.go.set()
        bench.give_back_all()
    assert bench.rental.alive == set()


def test_a_vendor_that_is_slow_to_destroy_keeps_no_other_alive(home: Home, made: list[Bench]) -> None:
    """However many of one vendor's servers are on their way out, another's goes at once."""
    bench = Bench(home, jobs("azure", 8) + jobs("hcloud", 1), concurrency=9, per_vendor=8)
    made.append(bench)
    gone = threading.Event()
    bench.rental.clings_until = {f"azure-{n}": gone for n in range(8)}
    with bench.fleet:
        bench.fleet.take(bench.ledger.jobs)
        ready: list[JobState] = []
        advance_until(bench, lambda: ready.extend(bench.fleet.ready()) or len(ready) == 9)
        for job in ready:
            bench.fleet.release(job)
        advance_until(bench, lambda: "hcloud-0" not in bench.rental.alive)
        assert len(bench.rental.alive) == 8
        gone.set()
        bench.give_back_all()
    assert bench.rental.alive == set()


def test_what_another_server_is_in_the_way_of_waits_for_its_end(home: Home, made: list[Bench]) -> None:
    """It is asked for once more when that one is gone, and not before; that is said once, and no job has failed."""
    bench = Bench(home, jobs("gcp", 2), concurrency=2)
    made.append(bench)
    bench.rental.refuse["gcp-1"] = GaveUpError("waits until others are gone: limit of 1", later=True, money=True)
    with bench.fleet:
        bench.fleet.take(bench.ledger.jobs)
        advance_until(bench, lambda: bench.rental.alive == {"gcp-0"} and "gcp-1: waits" in " ".join(bench.said))
        for _ in range(3):
            bench.fleet.advance()
        assert bench.rental.asked.count("gcp-1") == 1
        del bench.rental.refuse["gcp-1"]
        ready: list[JobState] = []
        advance_until(bench, lambda: ready.extend(bench.fleet.ready()) or len(ready) == 1)
        bench.fleet.release(ready[0])
        assert bench.give_back_all() == (["gcp-1"], {})
    assert sum("limit of 1" in one for one in bench.said) == 1


def test_what_the_rental_says_is_of_no_use_now_is_not_tried(home: Home, made: list[Bench]) -> None:
    """Others go before it."""
    bench = Bench(home, jobs("gcp", 3), concurrency=1)
    made.append(bench)
    bench.rental.waiting = {"gcp-0"}
    with bench.fleet:
        bench.fleet.take(bench.ledger.jobs)
        advance_until(bench, lambda: bench.rental.alive == {"gcp-1"})
        bench.rental.waiting.clear()
        ready, failed = bench.give_back_all()
    assert (ready, failed) == (["gcp-1", "gcp-0", "gcp-2"], {})


@pytest.mark.parametrize("where", ["refuse", "cling"])
def test_an_error_that_nobody_thought_of_is_one_jobs_own(home: Home, made: list[Bench], where: str) -> None:
    """A vendor's client fails in a way of its own: the other jobs go on, and their servers are given back."""
    bench = Bench(home, jobs("gcp", 3))
    made.append(bench)
    getattr(bench.rental, where)["gcp-1"] = OSError("no space left on device")
    ready, failed = bench.run()
    assert {"gcp-0", "gcp-2"} <= set(ready)
    assert bench.rental.alive <= {"gcp-1"}
    assert "unexpected OSError: no space left on device" in " ".join([*failed.values(), *bench.said])


def test_an_error_that_nobody_thought_of_keeps_no_other_server_alive(home: Home, made: list[Bench]) -> None:
    """The same at the end, with a server that is being made and one that is in use."""
    bench = Bench(home, jobs("gcp", 3), concurrency=3)
    made.append(bench)
    bench.rental.cling["gcp-0"] = bench.rental.refuse["gcp-1"] = OSError("no space left on device")
    with bench.fleet:
        bench.fleet.take(bench.ledger.jobs)
        bench.fleet.advance()
        bench.wait_until_asked()
    assert bench.rental.asked
    assert bench.rental.alive <= {"gcp-0"}
    assert "gcp-2" not in bench.rental.alive


def test_whatever_ends_the_block_everything_is_given_back(home: Home, made: list[Bench]) -> None:
    """An error in the middle: what exists, and what is just being made, is gone when the block is left."""
    bench = Bench(home, jobs("gcp", 3))
    made.append(bench)
    bench.rental.go.clear()

    def fail() -> None:
        with bench.fleet:
            bench.fleet.take(bench.ledger.jobs)
            bench.fleet.advance()
            bench.wait_until_asked()
            bench.rental.go.set()
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the one above
        fail()
    assert bench.rental.asked
    assert bench.rental.alive == set()


def test_while_servers_are_out_of_reach_the_address_is_looked_at_now_and_then(home: Home, made: list[Bench]) -> None:
    """One look is for all servers in use, the loop never waits for it, and there are never two at once."""
    own = [replace(job, lifetime_seconds=0) for job in jobs("ssh", 1)]
    made.append(bench := Bench(home, [*jobs("gcp", 3), *own]))
    bench.rental.go.clear()
    with bench.fleet:
        first, second, _, third = bench.ledger.jobs
        for job in (first, second, third):  # one's own has no firewall of ours
            bench.fleet.hold(job)
        for _ in range(3):
            bench.fleet.out_of_reach(first)
            bench.fleet.out_of_reach(second)
        bench.fleet._look_again_at = 0.0  # however long it takes
        bench.fleet.out_of_reach(first)
        bench.rental.go.set()
        assert bench.fleet._letting_in is not None
        bench.fleet._letting_in.result(60)
        assert [(sorted(names), again) for names, again in bench.rental.let] == [(["gcp-0", "gcp-1"], True)]
        bench.fleet.out_of_reach(first)
        bench.fleet._letting_in.result(60)
        assert len(bench.rental.let) == 2
        bench.fleet.out_of_reach(first)  # it was a moment ago
        bench.fleet._letting_in.result(60)
        assert len(bench.rental.let) == 2


def test_what_goes_wrong_while_the_address_is_looked_at_ends_nothing(home: Home, made: list[Bench]) -> None:
    """Before the first look at servers that stand, and in the middle: it is said, and no more."""
    made.append(bench := Bench(home, jobs("gcp", 1)))
    bench.rental.refuse["let in"] = OSError("no space left")
    with bench.fleet:
        bench.fleet.let_in(bench.ledger.jobs)
        bench.fleet.out_of_reach(bench.ledger.jobs[0])
    assert len(bench.said) == 2
    assert all("no space left" in line for line in bench.said)
