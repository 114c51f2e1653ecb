"""The reaper against a cloud that lags, lies and fails, with real books, locks and tables.

The vendor's API is a fake of the same protocol (``scripted_cloud``); the emulated clouds have tests of their own.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds.cloud import PartialListError
from benchctl.clouds.reaper import Outcome, Patience, ReapReport, reap
from benchctl.clouds.spec import SHARED_JOB, Asked, resource_name
from benchctl.db.engine import open_database, reading
from benchctl.db.schema import Instance
from benchctl.ledger import JobState, Ledger, jobs_of, read_book
from benchctl.refusals import Refusal
from benchctl.request import SweepRequest
from llama_bench_core import state
from llama_bench_core.suite import Suite
from scripted_cloud import ScriptedClient, refused, thing
from sqlalchemy import select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchctl.home import Home
    from sqlalchemy import Engine

SUITE = Suite.from_dict({"name": "some", "models": ["m"], "scenarios": {"pp": {16: 2}}})
QUICK = Patience(deadline_seconds=300, pause_seconds=0.01, longest_pause_seconds=0.05, settle_seconds=0, tries=3)
"""For a cloud that answers at once."""
SLOW = Patience(deadline_seconds=30, pause_seconds=0.01, longest_pause_seconds=60, settle_seconds=0)
"""For one that does not do all that is asked; with twice the longest pause for its thread to come to the end."""


@pytest.fixture
def engine(home: Home) -> Iterator[Engine]:
    engine = open_database(home.ensure().database_url)
    yield engine
    engine.dispose()


def iso(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="milliseconds")


def rented(name: str = "cx22", **changes: Any) -> JobState:
    plain: dict[str, Any] = {
        "job": name, "vendor": "hcloud", "server": name, "host": name, "lifetime_seconds": 3600, "attempt": 1,
        "stage": "benching", "status": "running", "launched_at": iso(-0.1), "expires_at": iso(1),
        "price_per_hour": 0.5, "currency": "EUR", "region": "fsn1", **changes,
    }  # fmt: skip
    return JobState(**plain)


def begin(home: Home, engine: Engine, *jobs: JobState, hook: str = "", name: str = "s1") -> Ledger:
    """A sweep whose book is written, and whose servers were asked for; nobody runs it."""
    request = SweepRequest(vendors=("hetzner",), suite=SUITE, models=(), hook=hook)
    book = Ledger.create(home, engine, request, jobs or (rented(),), sweep=name)
    for job in book.jobs:
        book.asked(job.job, [Asked("server", resource_name(name, job.job))])
    return book


def server(job: str = "cx22", sweep: str = "s1", **more: Any) -> Any:
    more = {"expires_at": int(time.time()) + 3600, "region": "fsn1", **more}
    return thing(more.pop("name", resource_name(sweep, job)), sweep, job, **more)


def rows(engine: Engine) -> dict[str, str]:
    with reading(engine) as session:
        return {one.instance_id: one.state for one in session.scalars(select(Instance))}


def run(home: Home, engine: Engine | None, client: ScriptedClient, **options: Any) -> ReapReport:
    options = {"environment": {}, "patience": QUICK, **options}
    return reap(home, engine, clients={"hetzner": client}, **options)


def leaping(over: Callable[[], bool]) -> Callable[[], float]:
    """A clock by which ``SLOW``'s time is over as soon as something is true: how long that takes does not matter."""
    return lambda: time.time() + (SLOW.deadline_seconds + 1 if over() else 0)


def test_an_orphan_is_destroyed_and_noted(home: Home, engine: Engine) -> None:
    """Its controller is gone: the server is destroyed; file and tables say so, and the job can be resumed."""
    begin(home, engine)
    client = ScriptedClient([server()])
    told: list[str] = []
    report = run(home, engine, client, report=told.append)
    assert [one.verdict.resource.name for one in report.destroyed] == [resource_name("s1", "cx22")]
    assert report.clean
    assert client.things == {}
    assert client.looks == 3  # one that shows it, two that don't
    (job,) = jobs_of(read_book(home, "s1"))
    assert (job.stage, job.status, job.alive) == ("gone", "stopped", False)
    assert rows(engine) == {resource_name("s1", "cx22"): "gone"}
    assert "nobody runs its sweep" in told[0]


def test_nothing_to_do_is_one_look(home: Home, engine: Engine) -> None:
    """Where neither books nor cloud hold anything, one list is enough."""
    client = ScriptedClient()
    assert run(home, engine, client).clean
    assert client.calls == [("find", "")]


def test_a_look_changes_nothing(home: Home, engine: Engine) -> None:
    """--dry-run: the cloud, the book and the tables stay as they are."""
    begin(home, engine)
    before = (home.sweeps / "s1" / "sweep.json").read_text()
    client = ScriptedClient([server()])
    report = run(home, engine, client, dry_run=True)
    assert [one.outcome for one in report.findings] == [Outcome.WOULD]
    assert not report.clean
    assert client.deleted == []
    assert (home.sweeps / "s1" / "sweep.json").read_text() == before
    assert set(rows(engine).values()) == {"asked"}
    assert not (home.sweeps / "s1" / "lock").exists()


def test_a_sweep_that_wrote_just_now_has_its_grace(home: Home, engine: Engine) -> None:
    """What it noted of a job is a sign of life, however old its book is."""
    book = begin(home, engine)
    hour_ago = time.time() - 3600
    os.utime(book.folder / "sweep.json", (hour_ago, hour_ago))
    book.update("cx22", stage="collecting")
    client = ScriptedClient([server()])
    (kept,) = run(home, engine, client, grace_seconds=1800).findings
    assert "only since" in kept.verdict.reason
    assert client.deleted == []
    os.utime(book.job_folder("cx22") / "job.json", (hour_ago, hour_ago))
    assert len(run(home, engine, client, grace_seconds=1800).destroyed) == 1


def test_what_a_reaper_notes_is_no_sign_of_life(home: Home, engine: Engine) -> None:
    """Else each server that it returns would give the others of a dead sweep another grace."""
    book = begin(home, engine, rented(), rented("cx32"))
    hour_ago = time.time() - 3600
    os.utime(book.folder / "sweep.json", (hour_ago, hour_ago))
    client = ScriptedClient([server(expires_at=int(time.time()) - 5), server("cx32")])
    assert [one.verdict.job for one in run(home, engine, client, grace_seconds=7200).destroyed] == ["cx22"]
    assert not jobs_of(read_book(home, "s1"))[0].alive
    assert [one.verdict.job for one in run(home, engine, client, grace_seconds=1800).destroyed] == ["cx32"]


def test_servers_go_before_what_they_hold(home: Home, engine: Engine) -> None:
    """Server, disk, address, firewall, subnet, network; and what hangs on a server is not asked for before it.

    A request for a server goes before all of them: it could start it again.
    """
    begin(home, engine)
    kinds = ["network", "firewall", "address", "subnet", "key", "disk", "spot-request"]
    things = [server(kind=kind, id=kind, name=kind) for kind in kinds]
    client = ScriptedClient([*things, server(kind="disk", id="boot", name="boot", attached=True), server()])
    client.needs = {"firewall": resource_name("s1", "cx22"), "network": "subnet"}
    run(home, engine, client)
    order = [one if one in ("boot", *kinds) else "server" for one in client.deleted]
    assert order[:2] == ["spot-request", "server"]
    assert order.index("disk") < order.index("firewall") < order.index("subnet") < order.index("network")
    assert client.calls.index(("delete", "disk")) > client.calls.index(("find", ""), 2)  # not before the next list
    assert client.things == {}


def test_lists_that_lag_are_waited_for(home: Home, engine: Engine) -> None:
    """What is deleted stays listed for a while, and what was made late shows late: both are gone at the end."""
    begin(home, engine, rented("cx22"), rented("cx32"))
    client = ScriptedClient([server("cx22")])
    client.lag[resource_name("s1", "cx22")] = 3
    client.late = [(4, server("cx32"))]
    # "asked" without an answer, a moment ago: a killed engine's provider may go on creating it
    report = run(home, engine, client, patience=replace(QUICK, settle_seconds=600))
    assert len(report.destroyed) == 2
    assert client.things == {}
    assert report.clean


def test_what_may_come_yet_is_not_called_gone(home: Home, engine: Engine) -> None:
    """When the time ends before that of a late server, the ledger goes on believing in it, and a note says so."""
    begin(home, engine)
    report = run(home, engine, ScriptedClient(), patience=replace(SLOW, deadline_seconds=0.2, settle_seconds=600))
    assert set(rows(engine).values()) == {"asked"}
    assert jobs_of(read_book(home, "s1"))[0].alive
    assert any("may be listed yet" in note for note in report.notes)


def test_a_delete_that_lies_is_found_out(home: Home, engine: Engine) -> None:
    """The API says that it is deleted and lists it: it is deleted again."""
    begin(home, engine)
    client = ScriptedClient([server()])
    client.lies[resource_name("s1", "cx22")] = 3
    assert run(home, engine, client).clean
    assert client.deleted == [resource_name("s1", "cx22")] * 4


def test_a_delete_that_fails_is_tried_again(home: Home, engine: Engine) -> None:
    """Throttled, locked, down: with a growing pause, until it works; another thing's failure keeps nothing alive."""
    begin(home, engine, rented("cx22"), rented("cx32"))
    client = ScriptedClient([server("cx22"), server("cx32")])
    client.delete_problems[resource_name("s1", "cx22")] = [
        refused("rate_limit_exceeded", Refusal.THROTTLED), refused("locked"), ValueError("odd"),  # type: ignore[list-item]
    ]  # fmt: skip
    assert run(home, engine, client).clean
    assert client.deleted.count(resource_name("s1", "cx22")) == 4
    assert client.deleted.count(resource_name("s1", "cx32")) == 1


def test_a_delete_that_hangs_holds_up_nothing(home: Home, engine: Engine) -> None:
    """It is left to itself, the list is looked at again, and the others go; what it was to delete is a leak."""
    begin(home, engine, rented("cx22"), rented("cx32"))
    client = ScriptedClient([server("cx22"), server("cx32"), server(kind="disk", name="disk")])
    client.hangs = {resource_name("s1", "cx22"): threading.Event()}
    others = {resource_name("s1", "cx32"), "disk"}

    def listed_without_them() -> bool:
        """Whether it was looked at again after the others had gone."""
        calls = list(client.calls)
        last = max((number for number, call in enumerate(calls) if call == ("find", "")), default=0)
        return others <= {name for _, name in calls[:last]}

    try:
        report = run(
            home, engine, client, patience=replace(SLOW, delete_seconds=0.1), clock=leaping(listed_without_them)
        )
    finally:
        client.hangs.popitem()[1].set()
    assert [one.verdict.job for one in report.leaks] == ["cx22"]
    assert report.leaks[0].problem == "its deletion has not ended in time"
    assert len(report.destroyed) == 2


def test_what_a_server_holds_waits_for_it(home: Home, engine: Engine) -> None:
    """While a server will not go, its disk is not asked to, for a few rounds: some clients would wait for minutes."""
    begin(home, engine)
    client = ScriptedClient([server(), server(kind="disk", name="disk")])
    client.delete_problems[resource_name("s1", "cx22")] = [refused("503"), refused("503")]
    run(home, engine, client)
    assert client.deleted == [*[resource_name("s1", "cx22")] * 3, "disk"]


def test_what_is_left_is_a_leak(home: Home, engine: Engine) -> None:
    """After the deadline: said with the vendor's words and the price; the ledger does not call it gone."""
    begin(home, engine)
    client = ScriptedClient([server()])
    client.delete_problems[resource_name("s1", "cx22")] = [refused("locked (locked)")] * 10_000  # type: ignore[assignment]
    report = run(home, engine, client, patience=SLOW, clock=leaping(lambda: len(client.deleted) > 2))
    assert not report.clean
    (leak,) = report.leaks
    assert (leak.problem, leak.verdict.price_per_hour) == ("locked (locked)", 0.5)
    assert jobs_of(read_book(home, "s1"))[0].alive
    assert rows(engine) == {resource_name("s1", "cx22"): "alive"}


def test_the_sweeps_hook_is_told_of_its_leak(home: Home, engine: Engine, tmp_path: Path) -> None:
    """The hook that the sweep was begun with gets the leak; a sweep without one tells nobody."""
    said = tmp_path / "told"
    hook = f"{sys.executable} -c \"import sys; open('{said}', 'a').write(sys.stdin.read())\""
    begin(home, engine, hook=hook)
    client = ScriptedClient([server(), server("x", "stranger")])
    client.lies = {resource_name("s1", "cx22"): 10_000, resource_name("stranger", "x"): 10_000}
    run(home, engine, client, everything=True, patience=SLOW, clock=leaping(lambda: len(client.deleted) > 4))
    facts = json.loads(said.read_text())
    assert facts["event"] == "leak"
    assert [one["job"] for one in facts["leaks"]] == ["cx22"]


def test_a_sweep_that_runs_is_left_alone(home: Home, engine: Engine) -> None:
    """Another process holds its lock: neither its servers nor its book are touched."""
    begin(home, engine)
    before = (home.sweeps / "s1" / "sweep.json").read_text()
    client = ScriptedClient([server()])
    with another_process(home.sweeps / "s1" / "lock"):
        report = run(home, engine, client, everything=True)
    assert [one.outcome for one in report.findings] == [Outcome.KEPT]
    assert client.deleted == []
    assert (home.sweeps / "s1" / "sweep.json").read_text() == before
    assert set(rows(engine).values()) == {"asked"}


def test_an_orphan_cannot_be_resumed_meanwhile(home: Home, engine: Engine) -> None:
    """While the reaper destroys an orphan it holds its lock."""
    begin(home, engine)
    client = ScriptedClient([server()])
    held = []
    client.before_find = lambda: held.append(state.is_locked(home.sweeps / "s1" / "lock"))
    run(home, engine, client)
    assert held
    assert all(held)
    assert not state.is_locked(home.sweeps / "s1" / "lock")


def test_the_sweep_that_calls_keeps_what_it_uses(home: Home, engine: Engine) -> None:
    """With its open ledger: live jobs' servers stay, what ended jobs left goes, and it is the one that is written."""
    book = begin(home, engine, rented("a"), rented("b"), rented("c"))
    book.update("a", status="failed", stage="benching")
    client = ScriptedClient([server("a"), server("b"), thing("fw", "s1", SHARED_JOB, kind="firewall")])
    with state.locked(book.folder / "lock", {"sweep": "s1"}):
        report = run(home, engine, client, own=book)
        assert [one.verdict.job for one in report.destroyed] == ["a"]
        assert not book.job("a").alive
        assert book.job("b").alive
        # its server is not listed, whatever the book believed
        assert (book.job("c").alive, book.job("c").status) == (False, "stopped")
        for name in ("b", "c"):
            book.update(name, status="finished", stage="gone", gone_at=iso(0))
        report = run(home, engine, client, own=book)
    assert sorted(one.verdict.job for one in report.destroyed) == ["b", SHARED_JOB]
    assert client.things == {}


def test_strangers_go_only_when_asked_for(home: Home, engine: Engine) -> None:
    """A sweep that this ledger does not know: kept, destroyed with everything, or when its time is over."""
    client = ScriptedClient([server("x", "other"), server("y", "late", expires_at=int(time.time()) - 5)])
    report = run(home, engine, client)
    assert [one.verdict.sweep for one in report.destroyed] == ["late"]
    assert report.clean
    assert [one.verdict.sweep for one in run(home, engine, client, everything=True).destroyed] == ["other"]


def test_one_vendors_failure_stops_no_other(home: Home, engine: Engine) -> None:
    """No login, a bug, an API that is down or hangs: said for each; the others are cleaned."""
    begin(home, engine)
    down, wrong, broken, hangs = (ScriptedClient() for _ in range(4))
    down.find_problems = [refused("503", Refusal.OUTAGE)] * 99
    wrong.find_problems = [refused("unauthorized", Refusal.ACCOUNT)] * 99
    released, hangs_asked = threading.Event(), threading.Event()

    def bug() -> None:
        raise KeyError("state")

    broken.before_find = bug

    def hang() -> None:
        hangs_asked.set()
        released.wait(60)

    hangs.before_find = hang
    works = ScriptedClient([server()])
    clients = {"aws": down, "gcp": wrong, "azure": broken, "upcloud": hangs, "hetzner": works}
    answered = {f"reap-{vendor}" for vendor in clients if clients[vendor] is not hangs}
    leaps = itertools.count()

    def clock() -> float:
        """Runs away once all but the one that hangs have ended: how long they take does not matter."""
        alone = hangs_asked.is_set() and not answered & {one.name for one in threading.enumerate()}
        return time.time() + (10 * next(leaps) if alone else 0)

    patience = Patience(30, 0.01, 0.05, settle_seconds=0, tries=4)
    try:
        report = reap(home, engine, clients=clients, environment={}, patience=patience, clock=clock)
    finally:
        released.set()
    assert set(report.problems) == {"aws", "gcp", "azure", "upcloud"}
    assert not report.clean
    assert "KeyError" in report.problems["azure"]
    assert "did not answer" in report.problems["upcloud"]
    assert (down.looks, wrong.looks) == (4, 1)  # a login does not get better by asking
    assert works.things == {}


def test_a_list_that_fails_after_a_delete_proves_nothing(home: Home, engine: Engine) -> None:
    """What can't be looked for again counts as left, and the ledger goes on believing in it."""
    begin(home, engine)
    client = ScriptedClient([server()])

    def later() -> None:
        if client.deleted:
            client.find_problems = [refused("503", Refusal.OUTAGE)]

    client.before_find = later
    report = run(home, engine, client)
    assert [one.outcome for one in report.findings] == [Outcome.LEFT]
    assert jobs_of(read_book(home, "s1"))[0].alive


def without(region: str, refusal: Refusal, client: ScriptedClient) -> Callable[[], None]:
    """What a client does of which one region does not answer."""

    def list_the_others() -> None:
        client.calls.append(("find", ""))
        found = [one for one in client.things.values() if one.region != region]
        raise PartialListError(found, {region: refused(f"no list of {region}", refusal)}, answered=True)

    return list_the_others


def test_a_region_that_is_down_keeps_no_other_from_being_cleaned(home: Home, engine: Engine) -> None:
    """What the others list is destroyed; what may be in it is believed in still, and nothing is called clean."""
    begin(home, engine, rented(), rented("cx32", region="nbg1"))
    client = ScriptedClient([server(), server("cx32", region="nbg1")])
    client.before_find = without("nbg1", Refusal.OUTAGE, client)
    report = run(home, engine, client)
    assert client.deleted == [resource_name("s1", "cx22")]
    assert [one.verdict.resource.name for one in report.destroyed] == client.deleted
    assert "nbg1" in report.problems["hetzner"]
    assert not report.clean
    assert rows(engine) == {resource_name("s1", "cx22"): "gone", resource_name("s1", "cx32"): "asked"}
    assert {job.job: job.alive for job in jobs_of(read_book(home, "s1"))} == {"cx22": False, "cx32": True}


def test_a_region_that_answers_again_is_cleaned(home: Home, engine: Engine) -> None:
    """It is asked as often as a vendor is that is down."""
    begin(home, engine, rented(region="nbg1"))
    client = ScriptedClient([server(region="nbg1")])
    down = without("nbg1", Refusal.OUTAGE, client)
    client.before_find = lambda: down() if client.looks < 2 else None
    report = run(home, engine, client)
    assert report.clean
    assert client.things == {}


def test_what_a_region_had_that_went_down_is_left(home: Home, engine: Engine) -> None:
    """A list without it proves nothing."""
    begin(home, engine)
    client = ScriptedClient([server()])
    down = without("fsn1", Refusal.OUTAGE, client)
    client.before_find = lambda: down() if client.deleted else None
    report = run(home, engine, client, patience=SLOW, clock=leaping(lambda: bool(client.deleted)))
    assert [one.outcome for one in report.findings] == [Outcome.LEFT]
    assert jobs_of(read_book(home, "s1"))[0].alive


@pytest.mark.parametrize("ours", [False, True])
def test_a_region_that_may_not_be_asked_matters_where_something_of_ours_may_be(
    home: Home, engine: Engine, ours: bool
) -> None:
    """An organisation denies its accounts regions: nothing can be there, unless the books say so."""
    begin(home, engine, *([rented(region="nbg1")] if ours else [rented()]))
    client = ScriptedClient([] if ours else [server()])
    client.before_find = without("nbg1", Refusal.NOT_OFFERED, client)
    report = run(home, engine, client)
    assert client.things == {}
    assert report.clean is not ours
    assert jobs_of(read_book(home, "s1"))[0].alive is ours
    assert any("nbg1" in one for one in (report.problems.values() if ours else report.notes))


def test_vendors_without_login(home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that holds nothing by the books is skipped, one that may hold something is a problem."""
    import benchctl.clouds.reaper as reaper

    class Cloud:
        def __init__(self, name: str) -> None:
            self.name = name

        def login_problem(self, environment: dict[str, str]) -> str:  # noqa: ARG002
            return f"Set {self.name.upper()}_TOKEN."

    monkeypatch.setattr(reaper, "cloud_of", Cloud)
    begin(home, engine)
    report = reap(home, engine, environment={}, patience=QUICK)
    assert dict(report.problems) == {"hetzner": "Set HETZNER_TOKEN."}
    assert set(report.skipped) == {"aws", "gcp", "azure", "upcloud", "lab"}
    named = reap(home, engine, environment={}, patience=QUICK, vendors=["gcp"])
    assert set(named.problems) == {"gcp"}


def test_a_client_that_is_not_installed_is_told(home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a login something may be there, and the extra that lacks is named; without a login it is skipped."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "botocore", None)
    environment = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "PATH": ""}
    report = reap(home, engine, environment=environment, patience=QUICK)
    assert set(report.problems) == {"aws"}
    assert "'.[aws]'" in report.problems["aws"]
    assert reap(home, engine, environment={"PATH": ""}, patience=QUICK).clean


def test_without_a_database_the_books_are_enough(home: Home, engine: Engine) -> None:
    """The names can be computed from the books alone."""
    begin(home, engine)
    client = ScriptedClient([thing(f"{resource_name('s1', 'cx22')}-disk", kind="disk"), server()])
    assert len(run(home, None, client).destroyed) == 2


def test_many_things_of_many_sweeps(home: Home, engine: Engine) -> None:
    """A hundred servers, of which a third fail or lie at first: all gone, each noted once."""
    names = [f"j{number}" for number in range(100)]
    begin(home, engine, *(rented(name) for name in names))
    client = ScriptedClient([thing(resource_name("s1", n), "s1", n, expires_at=int(time.time()) + 99) for n in names])
    for number, name in enumerate(names):
        if number % 3 == 0:
            client.lies[resource_name("s1", name)] = 1
        if number % 7 == 0:
            client.delete_problems[resource_name("s1", name)] = [refused("conflict")]
    report = run(home, engine, client)
    assert len(report.destroyed) == 100
    assert report.clean
    assert set(rows(engine).values()) == {"gone"}
    assert not any(job.alive for job in jobs_of(read_book(home, "s1")))


def test_engines_and_stacks_have_one_time_together(home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ending engines took is not there any more for removing stacks."""
    import benchctl.clouds.reaper as reaper

    class States:
        def names(self) -> list[str]:
            return ["s1.cx22"]

        def running(self, stack: str) -> bool:  # noqa: ARG002
            time.sleep(0.05)
            return False

        def destroy(self, stack: str, **_: object) -> None: ...

    begin(home, engine)
    given: list[float] = []
    each = reaper._each

    def noted(items: Any, work: Any, at_once: int, seconds: float) -> Any:
        given.append(seconds)
        return each(items, work, at_once, seconds)

    monkeypatch.setattr(reaper, "_each", noted)
    report = run(home, engine, ScriptedClient(), stacks=lambda _backend: States())
    assert report.stacks == ("s1.cx22",)
    assert given[0] == reaper.STACK_SECONDS
    assert given[-1] <= reaper.STACK_SECONDS - 0.05


@pytest.fixture
def command(home: Home, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command line, in this process; Hetzner is the client that is given, and no other vendor is there."""
    import benchctl.clouds.reaper as reaper
    from benchctl.cli import cli
    from click.testing import CliRunner

    monkeypatch.setenv("BENCHCTL_HOME", str(home.state))
    monkeypatch.delenv("BENCHCTL_DB", raising=False)

    def run_it(client: ScriptedClient, *arguments: str) -> Any:
        monkeypatch.setattr(reaper, "_choose", lambda *_: ({"hetzner": client}, {}, {}))
        return CliRunner().invoke(cli, arguments)

    return run_it


def test_what_may_be_somebody_elses_is_asked_for(home: Home, engine: Engine, command: Callable[..., Any]) -> None:
    """With --all, things of unknown sweeps are destroyed only after a yes; the table says what became of them."""
    begin(home, engine)
    client = ScriptedClient([server("x", "other")])
    refused_ = command(client, "reap", "--all")
    assert "nobody is there to say yes" in str(refused_.exception)
    assert client.deleted == []
    looked = command(client, "reap", "--dry-run")
    assert "--all destroys it" in looked.output
    done = command(client, "reap", "--all", "--yes", "--settle", "0")
    assert done.exit_code == 0
    assert "1 destroyed." in done.output
    assert client.things == {}


def test_a_look_ends_well_only_where_nothing_would_be_destroyed(
    home: Home, engine: Engine, command: Callable[..., Any]
) -> None:
    """--dry-run, and status --check: 1 for an orphan, 0 for what is somebody else's or not there."""
    begin(home, engine)
    for client, options, status in (
        (ScriptedClient([server()]), [], 1),
        (ScriptedClient([server("x", "other")]), [], 0),
        (ScriptedClient([server("x", "other")]), ["--all"], 1),
        (ScriptedClient(), [], 0),
    ):
        looked = command(client, "reap", "--dry-run", *options)
        assert looked.exit_code == status, looked.output
        assert client.deleted == []
        assert ("1 would be destroyed." in looked.output) == bool(status)
        assert "docs/teardown.md" not in looked.output
        if not options:
            checked = command(client, "status", "--check", "--json")
            assert checked.exit_code == status
            assert json.loads(checked.stdout)["clouds"]["clean"] is not bool(status)


def test_a_vendor_that_answered_is_not_said_to_be_out_of_reach(
    home: Home, engine: Engine, command: Callable[..., Any]
) -> None:
    """One region is down, or all of the vendor: each in its own words, from reap as from status --check."""
    begin(home, engine, rented(region="nbg1"))
    partial, down = ScriptedClient(), ScriptedClient()
    partial.before_find = without("nbg1", Refusal.OUTAGE, partial)
    down.find_problems = [refused("unauthorized", Refusal.ACCOUNT) for _ in range(4)]
    for client, words in (
        (partial, "hetzner answered, and may hold more than it listed: nbg1 did not say all that is there: "),
        (down, "hetzner could not be asked, and may hold something: The vendor said: unauthorized"),
    ):
        for arguments in (("reap", "--dry-run"), ("status", "--check")):
            done = command(client, *arguments)
            assert words in done.stderr
            assert done.exit_code == 1
            assert "(hetzner)" not in done.stdout


def test_a_sweep_in_another_process_is_followed(home: Home, engine: Engine) -> None:
    """With --follow, status goes on while a sweep runs elsewhere, shows its stages, and ends with it."""
    book = begin(home, engine, rented("cx22", gone_at=iso(0)))
    environment = {**os.environ, "BENCHCTL_HOME": str(home.state), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("BENCHCTL_DB", None)
    with another_process(book.folder / "lock"):
        follower = subprocess.Popen(
            [sys.executable, "-m", "benchctl", "status", "s1", "--follow"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        try:
            assert follower.stderr is not None
            assert "hcloud/cx22: benching" in follower.stderr.readline()
            book.update("cx22", stage="collecting")
            assert "hcloud/cx22: collecting" in follower.stderr.readline()
            book.update("cx22", stage="gone", status="finished")
            book.close("finished")
            out, _ = follower.communicate(timeout=60)
        finally:
            follower.kill()
            follower.wait()
    assert follower.returncode == 0
    assert "finished" in out


@pytest.mark.parametrize(
    ("status", "jobs", "expected"),
    [
        ("finished", {"status": "finished", "gone_at": iso(0)}, 0),
        ("failed", {"status": "failed", "gone_at": iso(0)}, 3),
        ("failed", {"status": "finished"}, 3),  # its server may be alive
        ("failed", {"status": "waiting", "launched_at": None}, 1),  # it broke off
        ("failed", {"status": "finished", "gone_at": iso(0)}, 1),
        ("stopped", {"status": "stopped", "gone_at": iso(0)}, 130),
        ("", {"status": "running"}, 1),  # its controller died
    ],
)
def test_who_follows_a_sweep_ends_as_it_did(
    home: Home, engine: Engine, command: Callable[..., Any], status: str, jobs: dict[str, Any], expected: int
) -> None:
    """Also one that has ended already; without --follow, status itself went well."""
    book = begin(home, engine, rented(**jobs))
    if status:
        book.close(status)
    client = ScriptedClient()
    assert command(client, "status", "s1", "--follow").exit_code == expected
    assert command(client, "status", "--follow").exit_code == 0, "nothing runs that could be followed"
    assert command(client, "status", "s1").exit_code == 0


class another_process:  # noqa: N801 - reads as a sentence
    """A process of its own that holds a lock, until the block ends."""

    def __init__(self, lock: Path) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        program = (
            "import sys, pathlib\nfrom llama_bench_core import state\n"
            "with state.locked(pathlib.Path(sys.argv[1]), {'sweep': 's1'}):\n"
            "    print('held', flush=True)\n    sys.stdin.read()\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, str(self._lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"held\n"

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)
