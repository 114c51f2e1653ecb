"""``benchctl reap`` after a kill: real engine, real SDKs, the vendors' own clients, against emulated clouds."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds.logins import VARIABLES
from benchctl.clouds.stacks import Stacks
from benchctl.db.engine import open_database
from benchctl.db.records import record
from benchctl.db.schema import Sweep
from benchctl.ledger import jobs_of, read_book
from controllers import Controller

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from benchctl.home import Home
    from emulation.fixtures import Emulated

    Run = Callable[..., subprocess.CompletedProcess[str]]

VENDORS = ("hetzner", "upcloud")
REAP = ("reap", "--vendors", ",".join(VENDORS), "--settle", "1")


@pytest.fixture
def environment(world: Emulated) -> dict[str, str]:
    from emulation.engine import engine_root

    binaries = str(engine_root() / "bin")
    return {**world.environment, "PATH": os.pathsep.join((world.environment["PATH"], binaries))}


def engines(home: Home, sweep: str) -> list[int]:
    """Processes of this machine that work for a sweep: engines and plugins, by the mark that they carry."""
    mark, found = Stacks(home).mark(f"{sweep}.").encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            marked = mark in (entry / "environ").read_bytes()
        except OSError:
            continue
        if marked and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def name_of(process: int) -> str:
    """What a process is called; nothing when it has ended in the meantime."""
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(process) / "comm").read_text().strip()
    return ""


def clean(home: Home, environment: dict[str, str], sweep: str) -> None:
    """Nothing of a sweep is left: no stack, no process, and the book knows."""
    assert Stacks(home, environment={**os.environ, **environment}).names() == []
    assert engines(home, sweep) == []
    assert not any(job.alive for job in jobs_of(read_book(home, sweep)))


def test_a_kill_in_the_middle_of_create_leaves_nothing(
    home: Home, world: Emulated, environment: dict[str, str], benchctl: Run
) -> None:
    """Controller and engines are killed while two vendors make their servers: all of it is found and destroyed."""
    world.fault("hold", call="create", kind="server", times=2)
    try:
        with Controller(home, environment, VENDORS) as controller:
            world.until(lambda: len(world.journal(call="create", kind="server")) == 2, 400)
            controller.kill()
            killed = [one for one in engines(home, controller.sweep) if name_of(one) == "pulumi"]
            for engine in killed:
                os.kill(engine, signal.SIGKILL)
            under_way = world.journal(call="create", kind="server")
    finally:
        world.release()
    assert len(killed) == len(VENDORS)
    assert [(one["vendor"], one["ended"]) for one in sorted(under_way, key=lambda one: str(one["vendor"]))] == [
        (vendor, None) for vendor in VENDORS
    ]
    done = benchctl(*REAP, env=environment)
    assert world.alive() == [], done.stderr
    assert done.returncode == 0, done.stderr
    clean(home, environment, controller.sweep)


def test_what_a_killed_controller_left_is_seen_then_destroyed(
    home: Home, world: Emulated, environment: dict[str, str], benchctl: Run
) -> None:
    """A look tells what there is and changes nothing; the reaper then works through lag, lies and failures."""
    with Controller(home, environment, VENDORS) as controller:
        controller.until("ready")
        before = world.names()
        assert benchctl(*REAP, env=environment).returncode == 0
        assert world.names() == before  # it runs, and is left alone
        controller.kill()
    seen = benchctl("status", "--check", "--json", env=environment)
    assert seen.returncode == 1
    looked = json.loads(seen.stdout)["clouds"]["found"]
    assert {(one["vendor"], one["decision"]) for one in looked} == {(one, "orphaned") for one in VENDORS}
    told = benchctl("status", env=environment, check=True).stdout
    assert "2 alive, 1.000 EUR an hour." in told
    assert benchctl(*REAP, "--grace", "1h", env=environment).returncode == 0
    assert world.names() == before

    for vendor in VENDORS:
        world.lag(vendor, lingers_for_lists=2)
        world.fault("fails", vendor=vendor, call="delete", via="api")
        world.fault("lies", vendor=vendor, call="delete", kind="server", via="api")
        world.fault("throttled", vendor=vendor, call="list", times=1)
    done = benchctl(*REAP, "--json", env=environment)
    assert world.alive() == [], done.stderr
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["found"]) >= len(before)
    clean(home, environment, controller.sweep)
    assert "Nothing is rented." in benchctl("status", env=environment, check=True).stdout


def test_a_leak_cannot_be_overlooked(
    home: Home, world: Emulated, environment: dict[str, str], benchctl: Run, tmp_path: Path
) -> None:
    """One vendor's delete lies for ever, the other's API is down: exit status 1, both said, the hook told."""
    kept = tmp_path / "told.json"
    hook = f"{sys.executable} -c \"import sys; open('{kept}', 'w').write(sys.stdin.read())\""
    with Controller(home, environment, VENDORS, hook) as controller:
        controller.until("ready")
        controller.kill()
    world.fault("lies", vendor="hetzner", call="delete", kind="server", times=10_000)
    world.down("upcloud")
    done = benchctl(*REAP, "--timeout", "4s", env=environment)
    assert done.returncode == 1
    assert "LEAK: hetzner server benchctl-job-hetzner-" in done.stderr
    assert "0.5000 EUR an hour" in done.stderr
    assert "upcloud could not be asked, and may hold something" in done.stderr
    assert "NOT CLEAN" in done.stdout
    facts: dict[str, Any] = json.loads(kept.read_text())
    assert [one["kind"] for one in facts["leaks"] if one["kind"] == "server"] == ["server"]
    assert list(facts["not_asked"]) == ["upcloud"]
    assert all(job.alive for job in jobs_of(read_book(home, controller.sweep)))

    world.down("upcloud", down=False)
    world.reset()  # the vendors' support has removed it all
    assert benchctl(*REAP, env=environment).returncode == 0
    clean(home, environment, controller.sweep)


def test_wrong_usage_is_one_sentence(benchctl: Run) -> None:
    """What is no cloud, no sweep or no time is said, with the mend, and nothing is asked."""
    for arguments, words in (
        (["--vendors", "gpc"], "There is no cloud 'gpc'. Did you mean 'gcp'?"),
        (["--vendors", "local"], "There is no cloud 'local'"),
        (["--vendors", ""], "--vendors names no cloud"),
        (["--vendors", "gcp", "--hook", "tell 'me"], "The hook can't be split into words"),
        (["--sweep", "nothing"], "There is no sweep yet"),
        (["--grace", "soon"], "'soon' is no time"),
    ):
        done = benchctl("reap", *arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_without_a_login_a_named_vendor_is_a_problem(benchctl: Run) -> None:
    """It was asked for by name, so that a reaper without its login must not end well."""
    done = benchctl("reap", "--vendors", "hcloud", "--json", env={"HCLOUD_TOKEN": ""})
    assert done.returncode == 1
    assert "HCLOUD_TOKEN" in json.loads(done.stdout)["not_asked"]["hetzner"]


NO_LOGINS = dict.fromkeys((one for ours in VARIABLES.values() for one in ours), "")


def test_a_broken_login_is_a_problem_and_none_is_told(benchctl: Run, tmp_path: Path) -> None:
    """With empty books: half a login, or a key that is not there, ends with 1; without any login the reason is told."""
    nobody = {**NO_LOGINS, "HOME": str(tmp_path), "PATH": str(tmp_path)}
    done = benchctl("reap", env=nobody, check=True)
    assert "No cloud was asked: no login of one is set; what each needs is said above." in done.stdout
    for words in ("hetzner: no login found", "upcloud: no login found", "lab: The lab's servers"):
        assert words in done.stdout

    broken = {**nobody, "UPCLOUD_USERNAME": "me", "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")}
    done = benchctl("reap", env=broken)
    assert done.returncode == 1
    assert "upcloud could not be asked, and may hold something: upcloud: half a login is set" in done.stderr
    assert "key.json can't be read" in done.stderr
    assert "hetzner: no login found" in done.stdout
    seen = benchctl("status", "--check", env=broken)
    assert "hetzner: no login found" in seen.stdout
    assert "upcloud could not be asked" in seen.stderr


def test_a_look_into_the_lab_alone_clears_no_cloud(benchctl: Run, tmp_path: Path) -> None:
    """Podman is there, and no login of any cloud: nobody may read that nothing is rented."""
    podman = tmp_path / "podman"
    podman.write_text("#!/bin/sh\n")
    podman.chmod(0o755)
    nobody = {**NO_LOGINS, "HOME": str(tmp_path), "PATH": str(tmp_path)}
    for arguments, listed in (
        (("reap",), "Nothing of ours is there (lab)."),
        (("status", "--check"), "What was asked lists nothing (lab)."),
    ):
        done = benchctl(*arguments, env=nobody, check=True)
        assert listed in done.stdout
        assert "No cloud was asked: no login of one is set; what each needs is said above." in done.stdout
        assert "hetzner: no login found" in done.stdout
    done = benchctl("reap", "--vendors", "lab", env=nobody, check=True)
    assert "No cloud" not in done.stdout


def test_vendors_are_named_as_for_a_sweep(benchctl: Run, tmp_path: Path) -> None:
    """Nicknames, and those of the database."""
    done = benchctl("reap", "--vendors", "google, hcloud", "--json", env={**NO_LOGINS, "HOME": str(tmp_path)})
    assert set(json.loads(done.stdout)["not_asked"]) == {"gcp", "hetzner"}


def test_a_book_that_cannot_be_read_is_not_empty(benchctl: Run, home: Home, tmp_path: Path) -> None:
    """Status says that it does not know, with the mend; the reaper does not end well without having asked."""
    book = home.sweeps / "s1" / "sweep.json"
    book.parent.mkdir(parents=True)
    book.write_text("{")
    engine = open_database(home.database_url)
    row = Sweep(sweep_id="s1", suite="quick", vendors=["hcloud"], status="running", created_at=datetime.now(UTC))
    record(engine, row)
    engine.dispose()
    nobody = {**NO_LOGINS, "HOME": str(tmp_path), "PATH": str(tmp_path)}
    done = benchctl("status", env=nobody, check=True)
    assert "sweep.json is damaged" in done.stderr
    assert "run 'benchctl reap'" in done.stderr
    assert "Nothing is rented." not in done.stdout
    (told,) = json.loads(benchctl("status", "last", "--json", env=nobody, check=True).stdout)
    assert "sweep.json is damaged" in told["book_problem"]
    done = benchctl("reap", env=nobody)
    assert done.returncode == 1
    assert "hetzner could not be asked, and may hold something" in done.stderr
    assert "What s1 rented is not known" in done.stderr
