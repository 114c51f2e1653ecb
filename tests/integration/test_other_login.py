"""A reaper, and a sweep that is resumed, with another login than the one that rented: nothing alive is called gone."""

from __future__ import annotations

import json
import os
import random
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds import login_mark
from benchctl.clouds import rental as rentals
from benchctl.clouds.cloud import CloudError, cloud_of
from benchctl.clouds.hetzner import CLOUD
from benchctl.clouds.reaper import Patience, ReapReport, reap
from benchctl.clouds.rental import LeakError, Listing, Rental
from benchctl.clouds.spec import SHARED_JOB, Asked, resource_name
from benchctl.clouds.stacks import Stacks
from benchctl.db.engine import open_database, reading
from benchctl.db.schema import Instance
from benchctl.ledger import GONE, JobState, Ledger, jobs_of, read_book
from benchctl.refusals import Refusal
from benchctl.request import SweepRequest
from controllers import Controller
from emulation.hetzner import Hetzner
from llama_bench_core.suite import Suite
from scripted_cloud import ScriptedClient, thing
from sqlalchemy import select

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from benchctl.home import Home
    from emulation.fixtures import Emulated
    from sqlalchemy import Engine

    Run = Callable[..., subprocess.CompletedProcess[str]]

SUITE = Suite.from_dict({"name": "some", "models": ["m"], "scenarios": {"pp": {16: 2}}})
QUICK = Patience(deadline_seconds=300, pause_seconds=0.01, longest_pause_seconds=0.05, settle_seconds=0, tries=3)
THEN, NOW = {"HCLOUD_TOKEN": "of-then"}, {"HCLOUD_TOKEN": "of-now"}


@pytest.fixture
def engine(home: Home) -> Iterator[Engine]:
    engine = open_database(home.ensure().database_url)
    yield engine
    engine.dispose()


def begin(home: Home, engine: Engine, **environments: dict[str, str]) -> Ledger:
    """A sweep that nobody runs, with a server for each job, asked for with the login that is named."""
    moment = datetime.now(UTC)
    jobs = [
        JobState(
            job=name, vendor="hcloud", server=name, host=resource_name("s1", name), lifetime_seconds=3600, attempt=1,
            stage="benching", status="running", launched_at=(moment - timedelta(hours=1)).isoformat(),
            expires_at=(moment + timedelta(hours=1)).isoformat(), region="fsn1",
            login=login_mark.mark(home, CLOUD, environment, ScriptedClient()),
        )
        for name, environment in environments.items()
    ]  # fmt: skip
    book = Ledger.create(home, engine, SweepRequest(("hetzner",), SUITE, ()), jobs, sweep="s1")
    for job in jobs:
        book.asked(job.job, [Asked("server", job.host)])
    return book


def server(job: str) -> Any:
    return thing(resource_name("s1", job), "s1", job, expires_at=int(time.time()) + 3600)


def run(home: Home, engine: Engine, environment: dict[str, str], *things: Any, **options: Any) -> ReapReport:
    return reap(
        home, engine, clients={"hetzner": ScriptedClient(things)}, environment=environment, patience=QUICK, **options
    )


def jobs(home: Home) -> dict[str, JobState]:
    return {one.job: one for one in jobs_of(read_book(home, "s1"))}


def rows(engine: Engine) -> dict[str, str]:
    with reading(engine) as session:
        return {one.job_id: one.state for one in session.scalars(select(Instance))}


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_another_project_lacks_is_not_gone(home: Home, engine: Engine, dry_run: bool) -> None:
    """The list is empty and proves nothing: it is said, and the book and the table go on believing in the server."""
    begin(home, engine, cx22=THEN)
    report = run(home, engine, NOW, dry_run=dry_run)
    assert not report.clean
    assert (report.asked, report.partly) == ((), ("hetzner",))
    assert "s1 was rented with another login" in report.problems["hetzner"]
    assert "--login-changed" in report.problems["hetzner"]
    assert jobs(home)["cx22"].alive
    assert jobs(home)["cx22"].status == "running"
    assert rows(engine) == {"cx22": "asked"}


def test_what_its_own_project_lacks_is_gone_and_nobody_is_said_to_have_destroyed_it(home: Home, engine: Engine) -> None:
    """The same login lists it no longer: that much is known, and no more is said."""
    begin(home, engine, cx22=THEN)
    assert run(home, engine, THEN).clean
    job = jobs(home)["cx22"]
    assert (job.alive, job.stage, job.status) == (False, GONE, "stopped")
    assert job.error == "the vendor lists its server no longer, in the stage benching"
    assert rows(engine) == {"cx22": "gone"}


def test_what_the_reaper_destroyed_is_said_to_be_destroyed(home: Home, engine: Engine) -> None:
    begin(home, engine, cx22=THEN)
    assert run(home, engine, THEN, server("cx22")).clean
    assert jobs(home)["cx22"].error == "its server was destroyed by the reaper, in the stage benching"


def test_a_new_token_of_the_same_project_is_known_by_what_it_lists(home: Home, engine: Engine) -> None:
    """It shows one server of the sweep: the one that is missing is missing indeed."""
    begin(home, engine, cx22=THEN, cx32=THEN)
    assert run(home, engine, NOW, server("cx22")).clean
    assert {name: job.alive for name, job in jobs(home).items()} == {"cx22": False, "cx32": False}
    assert "destroyed by the reaper" in str(jobs(home)["cx22"].error)
    assert "lists its server no longer" in str(jobs(home)["cx32"].error)


def test_what_the_jobs_share_tells_the_project_too(home: Home, engine: Engine) -> None:
    begin(home, engine, cx22=THEN)
    assert run(home, engine, NOW, thing("firewall", "s1", SHARED_JOB, kind="firewall")).clean
    assert not jobs(home)["cx22"].alive


def test_of_a_sweep_in_two_projects_one_says_nothing_of_the_other(home: Home, engine: Engine) -> None:
    """It was resumed with another project's login: what this one lists is settled, the other is in doubt."""
    begin(home, engine, cx22=THEN, cx32=NOW)
    shared = thing("firewall", "s1", SHARED_JOB, kind="firewall")
    report = run(home, engine, NOW, server("cx32"), shared)
    assert {name: job.alive for name, job in jobs(home).items()} == {"cx22": True, "cx32": False}
    assert list(report.problems) == ["hetzner"]
    assert rows(engine) == {"cx22": "asked", "cx32": "gone"}


def test_who_only_asks_whether_a_server_exists_is_not_kept_by_an_api_that_is_down(home: Home, engine: Engine) -> None:
    """A sweep asks that in the middle of its looks at all servers: it hears at once that nobody knows."""
    book = begin(home, engine, cx22=THEN)
    rental = Rental(book, Stacks(home), ingress=lambda _: "", say=lambda _: None, environment=NOW)
    client = ScriptedClient([server("cx22")])
    client.find_problems = [CloudError("It is down.", refusal=Refusal.THROTTLED)]
    rental._listings["hetzner"] = Listing(client)
    with pytest.raises(LeakError, match="can't be asked"):
        rental.exists(book.job("cx22"))
    assert client.looks == 1
    assert rental.exists(book.job("cx22"))


def test_who_says_that_the_login_has_changed_is_believed(home: Home, engine: Engine) -> None:
    begin(home, engine, cx22=THEN)
    assert run(home, engine, NOW, login_changed=True).clean
    assert not jobs(home)["cx22"].alive
    assert rows(engine) == {"cx22": "gone"}


def test_a_sweep_is_not_troubled_by_anothers_project_at_its_end(home: Home, engine: Engine) -> None:
    """It reaps what is its own; the other sweep's servers are left as they are."""
    begin(home, engine, cx22=THEN)
    assert run(home, engine, NOW, sweep="s2").clean
    assert jobs(home)["cx22"].alive


def test_no_token_can_be_told_from_what_is_kept(home: Home, engine: Engine) -> None:
    """The book holds neither the token nor what anybody could compute from it; the key is its owner's alone."""
    begin(home, engine, cx22=THEN)
    marked = jobs(home)["cx22"].login
    key = home.state / "logins.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert marked == login_mark.mark(home, CLOUD, THEN, ScriptedClient())
    assert marked != login_mark.mark(home, CLOUD, NOW, ScriptedClient())
    key.unlink()
    assert marked != login_mark.mark(home, CLOUD, THEN, ScriptedClient())
    for path in home.state.rglob("*"):
        assert not path.is_file() or b"of-then" not in path.read_bytes()


# ── emulated Hetzner: real engine, SDK and client ────────────────────────────────────────────────────────────────────


def with_token(world: Emulated, token: str) -> dict[str, str]:
    from emulation.engine import engine_root

    path = os.pathsep.join((world.environment["PATH"], str(engine_root() / "bin")))
    return {**world.environment, "PATH": path, "HCLOUD_TOKEN": token}


@pytest.mark.parametrize("vendor", ["aws", "azure", "gcp", "hetzner", "upcloud"])
def test_every_vendors_login_has_a_mark_that_stays(home: Home, world: Emulated, vendor: str) -> None:
    """The same for a second client with the same login."""
    cloud = cloud_of(vendor)
    marks = {login_mark.mark(home, cloud, world.environment, cloud.client(world.environment)) for _ in range(2)}
    assert len(marks) == 1
    assert "" not in marks


def test_a_reap_with_another_projects_token_leaves_all_as_it_is(home: Home, world: Emulated, benchctl: Run) -> None:
    """Exit status 1, the sweep is named, and its servers, stacks and book are as before; a new token then does it."""
    arguments = ("reap", "--vendors", "hetzner", "--settle", "0")
    with Controller(home, with_token(world, Hetzner.TOKEN), ("hetzner",)) as controller:
        controller.until("ready")
        controller.kill()
    there = world.names()
    environment = with_token(world, Hetzner.OTHER_PROJECT)
    stacks = Stacks(home, environment={**os.environ, **environment})
    before = stacks.names()
    assert len(before) == 2

    done = benchctl(*arguments, env=environment)
    assert done.returncode == 1, done.stderr
    words = f"hetzner answered, and may hold more than it listed: {controller.sweep} was rented with another login"
    assert words in done.stderr
    assert "NOT CLEAN" in done.stdout
    assert world.names() == there
    assert stacks.names() == before
    assert all(job.alive for job in jobs_of(read_book(home, controller.sweep)))
    looked = benchctl("status", "--check", "--json", env=environment)
    assert json.loads(looked.stdout)["clouds"]["not_asked"].keys() == {"hetzner"}

    done = benchctl(*arguments, env=with_token(world, Hetzner.ROTATED))
    assert done.returncode == 0, done.stderr
    assert world.alive() == []
    assert stacks.names() == []
    assert not any(job.alive for job in jobs_of(read_book(home, controller.sweep)))


def test_a_sweep_resumed_with_another_projects_token_gives_nothing_up_for_gone(
    home: Home, engine: Engine, world: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Giving back is a leak that names the login, and the engine forgets nothing; a new token gives it back."""
    monkeypatch.setattr(rentals, "_ssh_problem", lambda _job, _key, _known: "")
    place = {"region": "fsn1", "zone": "fsn1", "price_per_hour": 0.01, "currency": "EUR", "budget_per_hour": None}
    job = JobState(
        job="cx22", vendor="hcloud", server="cx22", host="cx22", architecture="x86_64", lifetime_seconds=3600,
        places=(place,),
    )  # fmt: skip
    sweep = "20261126-0000-hetzner-ab12"
    Ledger.create(home, engine, SweepRequest(("hetzner",), SUITE, ()), [job], sweep=sweep)

    def controller(token: str) -> Rental:
        environment = {**os.environ, **with_token(world, token)}
        return Rental(
            Ledger.open(home, engine, sweep),
            Stacks(home, environment=environment),
            ingress=lambda _: "203.0.113.7/32",
            say=lambda _: None,
            environment=environment,
            draw=random.Random(7),  # noqa: S311 - waits
        )

    rented = controller(Hetzner.TOKEN).rent("cx22")
    wrong = controller(Hetzner.OTHER_PROJECT)
    with pytest.raises(LeakError, match="with another login") as caught:
        wrong.give_back("cx22")
    assert "--login-changed" in str(caught.value)
    with pytest.raises(LeakError):
        wrong.exists(rented)
    assert world.names("hetzner", "server") == [rented.host]
    stacks = Stacks(home, environment={**os.environ, **with_token(world, Hetzner.OTHER_PROJECT)})
    assert any(one.name == rented.host for one in stacks.resources(wrong.stack("cx22")))

    job = controller(Hetzner.ROTATED).give_back("cx22")
    assert (job.stage, job.alive) == (GONE, False)
    assert world.names("hetzner", "server") == []
