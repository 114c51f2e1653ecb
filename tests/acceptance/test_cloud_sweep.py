"""The main job over clouds: two vendors at once, real engine, SSH, Ansible and llama-bench; the clouds are emulations.

Their servers are containers, so what is measured is this machine; all that is between a command and a row in the
database is what a user has, but for the vendors' own APIs and plugins.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import catalog_files as files
import pytest
import sweeping
from benchctl.clouds import gcp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchctl.home import Home
    from emulation.fixtures import Emulated

    Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.timeout(1500)  # longer than what is waited for inside, which says more

SWEEP = (
    *("sweep", "--vendors", "gcp,hetzner", "--servers", "g2-standard-4,cx22", "--yes"),
    *("--ingress", "203.0.113.7/32", "--weights", "synthetic", "--poll-seconds", "2"),
)

SUITE = """
name: tiny
models: [SmolLM-135M]
scenarios:
  pp: {16: 0.01}
  tg: {16: 0.01}
policy: {max_samples: 2, noise_retries: 0}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Two scenarios: what is tried here is the way to them and back."""
    path = tmp_path / "tiny.yml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def paced(tmp_path: Path) -> Path:
    """A llama-bench that takes more than a minute for it: what a test does in the middle is done before the end."""
    return sweeping.write_paced_llama_bench(tmp_path / "llama-bench", {"pp16": 12.0, "tg16": 12.0})


@pytest.fixture
def catalogue(benchctl: Run, tmp_path: Path) -> None:
    """The small catalogue, with a price for both servers."""
    files.write_database(tmp_path / "catalogue.db")
    files.write_prices(
        tmp_path / "prices.csv",
        files.Line("g2-standard-4", 0.0971, zone="us-central1-a"),
        files.Line("cx22", 0.0066, vendor="hcloud", region="fsn1-dc14", currency="EUR"),
    )
    benchctl("catalog", "import", tmp_path / "catalogue.db", tmp_path / "prices.csv", check=True)


@pytest.fixture
def environment(backed_world: Emulated) -> dict[str, str]:
    """A user's environment that leads to the emulated clouds."""
    return {**os.environ, **backed_world.environment}


@pytest.fixture
def begin(
    home: Home, environment: dict[str, str], tmp_path: Path, checkout: Path
) -> Iterator[Callable[..., sweeping.Running]]:
    """Start a sweep; it is gone after the test."""
    running: list[sweeping.Running] = []

    def start(*arguments: str) -> sweeping.Running:
        running.append(sweeping.Running(home, environment, arguments, tmp_path, checkout))
        return running[-1]

    yield start
    for one in running:
        one.kill()


@pytest.fixture
def ansible(home: Home, environment: dict[str, str], checkout: Path) -> Callable[..., str]:
    """Run one of Ansible's programs in the checkout, as a user does; returns what it printed."""

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(checkout / ".venv/bin" / program), *arguments], cwd=checkout, capture_output=True, text=True,
            env={**environment, "BENCHCTL_HOME": str(home.state), "ANSIBLE_NOCOLOR": "1"}, stdin=subprocess.DEVNULL,
            timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    return run


BENCH = ("ansible-playbook", "playbooks/bench.yml", "-l", "g2-standard-4", "-e", "llama_bench_poll_seconds=1")


def hosts_of(said: str) -> list[str]:
    """The hosts that a playbook ran on, as its recap names them."""
    return re.findall(r"^(\S+) +: ok=", said.partition("PLAY RECAP")[2], re.MULTILINE)


def await_both(sweep: sweeping.Running, home: Home) -> None:
    """Wait until one vendor's server measures and the other's is there: they come up one after the other."""
    sweep.until_true(
        lambda: sweeping.standing(home).keys() == {"gcp", "hcloud"} and sweeping.measures(home, "gcp"),
        "Google's server measured and Hetzner's was there",
    )


@pytest.mark.usefixtures("catalogue")
def test_two_clouds_are_measured_and_nothing_is_left(
    benchctl: Run, begin: Callable[..., sweeping.Running], backed_world: Emulated, suite: Path, paced: Path,
    environment: dict[str, str], ansible: Callable[..., str], home: Home,
) -> None:  # fmt: skip
    """Plan, rent, prepare, measure, collect, ingest, destroy; in the middle Ansible sees, and joins, what is alive."""
    sweep = begin(*SWEEP, "--suite", str(suite), "--llama-bench", str(paced))
    await_both(sweep, home)
    # the controller stands still meanwhile, so that it gives nothing back: what it measures goes on by itself
    sweep.process.send_signal(signal.SIGSTOP)
    try:
        # in the middle of it: what is rented is an inventory, by vendor, type, region and sweep
        graph = ansible("ansible-inventory", "--graph")
        assert "@g2-standard-4:" in graph
        assert "@hetzner_cx22:" in graph
        # and a playbook waits for what the sweep measures there, and leaves the results to it
        played = ansible(*BENCH)
    finally:
        sweep.process.send_signal(signal.SIGCONT)
    assert hosts_of(played) == backed_world.names("gcp", "server")
    assert "is under way" in played
    assert "SmolLM-135M  pp16" in played
    assert "SmolLM-135M  tg16" in played
    assert sweep.wait() == 0, sweep.said()

    assert backed_world.alive() == [], sweep.said()
    found = sweeping.rows(benchctl, "SELECT vendor_id, task, tokens, outcome FROM measurement ORDER BY 1, 2")
    assert [(one["vendor_id"], one["task"], one["outcome"]) for one in found] == [
        ("gcp", "pp", "ok"), ("gcp", "tg", "ok"), ("hcloud", "pp", "ok"), ("hcloud", "tg", "ok"),
    ]  # fmt: skip
    jobs = sweeping.rows(benchctl, "SELECT job_id, vendor_id, status, stage, region, zone FROM job ORDER BY vendor_id")
    assert [(one["vendor_id"], one["status"], one["stage"]) for one in jobs] == [
        ("gcp", "finished", "gone"), ("hcloud", "finished", "gone"),
    ]  # fmt: skip
    assert jobs[0]["zone"] == "us-central1-a"
    states = sweeping.rows(benchctl, "SELECT DISTINCT state FROM instance")
    assert states == [{"state": "gone"}]
    # a second look by the reaper finds nothing, and says so
    reaped = benchctl("reap", "--vendors", "gcp,hetzner", env=environment)
    assert reaped.returncode == 0, reaped.stderr


@pytest.mark.usefixtures("catalogue")
def test_a_killed_sweep_is_reaped_and_resumed_without_losing_or_doubling_a_row(
    benchctl: Run, begin: Callable[..., sweeping.Running], backed_world: Emulated, suite: Path, paced: Path,
    environment: dict[str, str], ansible: Callable[..., str], home: Home,
) -> None:  # fmt: skip
    """Kill -9 while it measures: a playbook brings in what one type measured, the reaper empties the clouds, the same
    call goes on, and each scenario has one row.
    """  # noqa: D205
    sweep = begin(*SWEEP, "--suite", str(suite), "--llama-bench", str(paced))
    await_both(sweep, home)
    os.kill(sweep.process.pid, signal.SIGKILL)
    sweep.wait()
    assert hosts_of(ansible(*BENCH)) == backed_world.names("gcp", "server") != []
    benchctl("ingest", home.lake, check=True)
    # the other one may have begun, and ended something, before the kill
    brought = sweeping.rows(
        benchctl,
        "SELECT vendor_id, server_id, task, outcome FROM measurement WHERE vendor_id = 'gcp' ORDER BY task",
    )
    assert [tuple(one.values()) for one in brought] == [
        ("gcp", "1000204", "pp", "ok"), ("gcp", "1000204", "tg", "ok"),
    ]  # fmt: skip
    assert backed_world.names("hetzner", "server") != []
    reaped = benchctl("reap", env=environment)
    assert reaped.returncode == 0, reaped.stdout + reaped.stderr
    assert backed_world.alive() == []

    again = begin("sweep", "--resume", "last")
    assert again.wait() == 0, again.said()
    assert backed_world.alive() == []
    counted = sweeping.rows(
        benchctl,
        "SELECT vendor_id, task, count(*) AS n FROM measurement WHERE outcome = 'ok' GROUP BY 1, 2 ORDER BY 1, 2",
    )
    assert [one["n"] for one in counted] == [1, 1, 1, 1]


@pytest.mark.usefixtures("catalogue", "llama_bench")
def test_ctrl_c_gives_everything_back(
    begin: Callable[..., sweeping.Running], backed_world: Emulated, suite: Path
) -> None:
    """The user's end in the middle: what is measured is kept, the servers are destroyed, and it says how to go on."""
    sweep = begin(*SWEEP, "--suite", str(suite))
    sweep.until("is there, in")
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.wait() == 130, sweep.said()
    assert "--resume" in sweep.said()
    assert backed_world.alive() == [], sweep.said()


@pytest.mark.usefixtures("catalogue", "llama_bench")
def test_without_logins_there_is_one_sentence_per_vendor_and_nothing_else(
    benchctl: Run, world: Emulated, home: Home, cache: Path, tmp_path: Path
) -> None:
    """What to set, before anything is made. The logins alone are missing: the way to the clouds is there."""
    logins = dict.fromkeys(("HCLOUD_TOKEN", *gcp.PROJECTS, gcp.CREDENTIALS, gcp.CREDENTIALS_FILE), "")
    # nor has gcloud left one in the user's own folder
    elsewhere = {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": "", "BENCHCTL_CACHE": str(cache)}
    done = benchctl(*SWEEP, env={**world.environment, **logins, **elsewhere})
    assert done.returncode == 2
    begun, google, hetzner = done.stderr.splitlines()
    assert begun == "benchctl: Nothing was begun."
    assert re.fullmatch("gcp: no login found: set GOOGLE_APPLICATION_CREDENTIALS .* GOOGLE_PROJECT .*", google)
    assert re.fullmatch("hetzner: no login found: set HCLOUD_TOKEN to .*", hetzner)
    assert world.alive() == []
    assert world.journal() == [], "nobody is asked without a login"
    assert list(home.sweeps.iterdir()) == []
    assert not (home.state / "pulumi").exists()


@pytest.mark.usefixtures("catalogue")
def test_a_plan_needs_no_login(benchctl: Run) -> None:
    """What it would do and cost comes from the catalogue alone."""
    done = benchctl("plan", "--vendors", "gcp,hetzner", "--servers", "g2-standard-4,cx22")
    assert done.returncode == 0, done.stderr
    assert "us-central1-a" in done.stdout
    assert "EUR" in done.stdout
