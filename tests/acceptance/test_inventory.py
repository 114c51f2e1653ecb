"""Real Ansible over real SSH on servers that a hand-written book declares alive."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.inventory import host_variables
from benchctl.ledger import FILE, JobState
from benchctl.models import load_models
from lab.podman import podman
from llama_bench_core import state
from llama_bench_core.suite import model_to_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchctl.home import Home
    from lab.hosts import Host, Lab

pytestmark = pytest.mark.timeout(1500)  # longer than what is waited for inside, which says more

ROOT = Path(__file__).resolve().parents[2]
SWEEP = "20261126-1130-gcp-hetzner-ab12"
ODD = "{{ 7*7 }}$(id)"
"""A server type as only a damaged catalogue has it."""

TINY: dict[str, Any] = {
    "name": "tiny",
    "models": ["SmolLM-135M"],
    "scenarios": {"pp": {16: 0.01}, "tg": {16: 0.01}},
    "policy": {"max_samples": 2, "noise_retries": 0},
}


@dataclass
class Rented:
    """Two hosts that a sweep's book calls rented.

    Attributes:
        home: whose book it is.
        hosts: the hosts by the job's name.
        jobs: the jobs as the book has them.
    """

    home: Home
    hosts: dict[str, Host]
    jobs: dict[str, JobState]

    def write(self, llama_bench: str = "", **changes: Any) -> None:
        """Write the book, with ``changes`` to all of its jobs."""
        book = {
            "sweep": SWEEP,
            "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "status": "running",
            "request": {
                "suite": TINY,
                "models": [model_to_dict(load_models()["SmolLM-135M"])],
                "weights": "synthetic",
                "llama_bench": llama_bench,
                "hook": "https://hooks.example/t0ken",
            },
            "jobs": [{**asdict(one), **changes} for one in self.jobs.values()],
        }
        folder = self.home.sweeps / SWEEP
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps(book))

    def ansible(self, program: str, *arguments: str, check: bool = True, **options: Any) -> str:
        """Run one of Ansible's programs from the checkout, as a user does; returns all that it printed."""
        done = subprocess.run(self.command(program, *arguments), timeout=300, check=False, **self.options(), **options)
        said = f"{done.stdout}{done.stderr}"
        assert not check or done.returncode == 0, said
        return said

    @staticmethod
    def command(program: str, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name(program)), *arguments]

    def options(self) -> dict[str, Any]:
        environment = {
            **os.environ,
            "BENCHCTL_HOME": str(self.home.state),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        }
        return {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "stdin": subprocess.DEVNULL}


@pytest.fixture(scope="module")
def hosts(ssh_lab: Lab) -> dict[str, Host]:
    return {"gcp-g2-standard-4": ssh_lab.start(), "hcloud-odd": ssh_lab.start()}


@pytest.fixture
def rented(ssh_lab: Lab, hosts: dict[str, Host], home: Home) -> Rented:
    """One server of a type that is spelled with hyphens, and one whose type and zone a catalogue has garbled."""
    keys = home.sweeps / SWEEP / "keys"
    keys.mkdir(parents=True, mode=0o700)
    shutil.copy(ssh_lab.folder / "key", keys / "id_ed25519")
    now = datetime.now(UTC)
    jobs = {}
    for name, host in hosts.items():
        public = (ssh_lab.folder / f"{host.name}.host_key.pub").read_text().split()
        gcp = name.startswith("gcp")
        jobs[name] = JobState(
            job=name,
            vendor="gcp" if gcp else "hcloud",
            server="g2-standard-4" if gcp else ODD,
            host=f"benchctl-{name}",
            price_per_hour=0.71,
            currency="USD",
            stage="benching",
            status="running",
            architecture="x86_64",
            gpus=int(gcp),
            region="us-central1" if gcp else "fsn1",
            zone="us-central1-a" if gcp else "{% zone",
            lifetime_seconds=7200,
            launched_at=now.isoformat(),
            expires_at=(now + timedelta(hours=2)).isoformat(),
            address=host.address,
            user="root",
            host_key=" ".join(public[:2]),
        )
    made = Rented(home, hosts, jobs)
    made.write()
    return made


def test_the_graph_shows_what_is_alive(rented: Rented) -> None:
    """``ansible-inventory --graph`` shows vendors, types, regions and sweeps, and no warning."""
    graph = rented.ansible("ansible-inventory", "--graph")
    for line in (
        "  |  |--@rented:",
        "  |--@gcp:",
        "  |  |--@gcp_g2-standard-4:",
        "  |--@g2-standard-4:",
        "  |--@hcloud:",
        "  |  |--@hetzner:",
        "  |--@us-central1:",
        "  |  |--@us-central1-a:",
        "  |--@gpu:",
        "  |--@cpu:",
        "  |--@x86_64:",
        f"  |--@{SWEEP}:",
    ):
        assert f"{line}\n" in graph
    assert "WARN" not in graph
    rented.write(gone_at=datetime.now(UTC).isoformat())
    assert "benchctl-gcp" not in rented.ansible("ansible-inventory", "--graph")


def test_without_sweeps_it_is_empty_and_silent(rented: Rented) -> None:
    """Nothing is alive, and nothing is warned of."""
    shutil.rmtree(rented.home.sweeps)
    assert rented.ansible("ansible-inventory", "-i", "inventories/live", "--graph").splitlines() == [
        "@all:",
        "  |--@ungrouped:",
        "  |--@bench:",
        "  |  |--@rented:",
    ]
    said = rented.ansible("ansible-playbook", "playbooks/bench.yml", "-l", "g2-standard-4", check=False)
    assert "no hosts to target" in said
    assert "PLAY [" not in said


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("", ["localhost"]),
        ("g2-standard-4", ["benchctl-gcp-g2-standard-4"]),
        ("gcp:&g2-standard-4", ["benchctl-gcp-g2-standard-4"]),
        ("hetzner:&g2-standard-4", []),
        ("hetzner:g2-standard-4", ["benchctl-gcp-g2-standard-4", "benchctl-hcloud-odd"]),
        ("rented:!gcp", ["benchctl-hcloud-odd"]),
    ],
)
def test_a_limit_names_what_is_measured(rented: Rented, limit: str, expected: list[str]) -> None:
    """Without one a playbook means this machine, whatever is rented at the time."""
    said = rented.ansible(
        "ansible-playbook",
        "playbooks/site.yml",
        "--list-hosts",
        *(["-l", limit] if limit else []),
        check=bool(expected),
    )
    assert sorted({line.strip() for line in said.splitlines() if line.startswith("      ")}) == expected


def test_names_of_a_catalogue_stay_text(rented: Rented, tmp_path: Path) -> None:
    """A type called ``{{ 7*7 }}$(id)`` is that text in every task, from the plugin and from the command."""
    script = tmp_path / "live"
    paths = f"{ROOT / 'controller'}:{ROOT / 'module_utils'}"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={paths} exec {sys.executable} -m benchctl inventory "$@"\n')
    script.chmod(0o755)
    odd = rented.jobs["hcloud-odd"]
    handed = tmp_path / "handed.json"  # as a sweep hands its servers to Ansible
    handed.write_text(json.dumps({"hetzner": {"hosts": {odd.host: host_variables(rented.home.state, SWEEP, odd)}}}))
    message = "msg=<{{ benchctl_server }}|{{ benchctl_zone }}|{{ group_names | sort | join(' ') }}>"
    for source in ("inventories/live", str(script), str(handed)):
        said = rented.ansible("ansible", "-i", source, "hetzner", "-m", "ansible.builtin.debug", "-a", message)
        assert f"<{ODD}|{{% zone|" in said, said
        assert " ___7_7_____id_ " in said or source == str(handed)
        assert "<49" not in said


def test_another_host_key_is_refused(rented: Rented, ssh_lab: Lab) -> None:
    """Somebody else's server at the address gets no login, and is not measured."""
    other = " ".join((ssh_lab.folder / "key.pub").read_text().split()[:2])
    rented.write(host_key=other)
    said = rented.ansible("ansible", "-i", "inventories/live", "gcp", "-m", "ansible.builtin.ping", check=False)
    assert "UNREACHABLE" in said
    assert "Host key verification failed" in said


def test_the_list_holds_no_secret(rented: Rented, benchctl: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Keys are named by their path; what else the book knows stays in it."""
    listed = benchctl("inventory", check=True).stdout
    private = (rented.home.sweeps / SWEEP / "keys" / "id_ed25519").read_text()
    assert "t0ken" not in listed
    assert private.splitlines()[1] not in listed
    one = json.loads(benchctl("inventory", "--host", "benchctl-gcp-g2-standard-4", check=True).stdout)
    assert one["ansible_ssh_private_key_file"].endswith(f"{SWEEP}/keys/id_ed25519")
    assert one["llama_bench_suite"]["name"] == "tiny"
    missing = benchctl("inventory", "--host", "nobody")
    assert missing.returncode == 2
    assert "No server 'nobody' is alive" in missing.stderr


@pytest.fixture
def sweep_under_way(rented: Rented) -> Iterator[Callable[[], None]]:
    """Hold the sweep's lock, as its controller does; call it to let go."""
    lock = state.locked(rented.home.sweeps / SWEEP / "lock", {"sweep": SWEEP})
    lock.__enter__()
    held = [lock]

    def end() -> None:
        while held:
            held.pop().__exit__(None, None, None)

    yield end
    end()


def test_a_playbook_measures_as_the_sweep_would(
    rented: Rented,
    sweep_under_way: Callable[[], None],
    llama_bench: Path,
    benchctl: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """It waits for what the sweep measures, leaves the collecting to it, and alone does the same as the sweep."""
    rented.write(llama_bench=str(llama_bench))
    bench = ("ansible-playbook", "playbooks/bench.yml", "-l", "g2-standard-4", "-e", "llama_bench_poll_seconds=2")
    rented.ansible(*bench, "-e", json.dumps({"llama_bench_wait": False}))  # as the sweep starts it

    said = rented.ansible(*bench)
    assert f"The sweep {SWEEP} is under way" in said
    assert "SmolLM-135M  pp16" in said
    folder = rented.home.lake / SWEEP / "data" / "gcp" / "g2-standard-4" / "llm"
    assert not folder.exists()
    journal = _journal(rented.hosts["gcp-g2-standard-4"])
    records = [json.loads(line) for line in journal.splitlines()]
    assert [one["kind"] for one in records].count("session") == 1
    assert (records[0]["sweep"], records[0]["job"]) == (SWEEP, "gcp-g2-standard-4")

    sweep_under_way()
    assert "changed=1" in rented.ansible(*bench)
    assert "changed=0" in rented.ansible(*bench)
    assert (folder / "journal.jsonl").read_text() == f"{journal}\n"
    assert _journal(rented.hosts["hcloud-odd"]) == ""

    benchctl("ingest", rented.home.lake, check=True)
    rows = json.loads(benchctl("show", "--sweep", SWEEP, "--json", check=True).stdout)
    assert [(one["vendor_id"], one["server_id"], one["task"], one["outcome"]) for one in rows] == [
        ("gcp", "g2-standard-4", "pp", "ok"),
        ("gcp", "g2-standard-4", "tg", "ok"),
    ]
    assert {(one["region"], one["zone"], one["price_usd_per_hour"]) for one in rows} == {
        ("us-central1", "us-central1-a", 0.71)
    }


def test_a_playbook_measures_ones_own_server(
    ssh_lab: Lab,
    rented: Rented,
    llama_bench: Path,
    benchctl: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """With an inventory of one's own and a lake the results are ingestable; what is rented is not touched."""
    host = rented.hosts["hcloud-odd"]
    inventory = ssh_lab.inventory([host])
    lake = tmp_path / "mine"
    asked = {
        "llama_bench_source": str(llama_bench),
        "llama_bench_suite": TINY,
        "llama_bench_weights": "synthetic",
        "llama_bench_poll_seconds": 2,
        "llama_bench_lake": str(lake),
        "benchctl_price": "0.35USD/h",
    }
    said = rented.ansible("ansible-playbook", "playbooks/site.yml", "-i", str(inventory), "-e", json.dumps(asked))
    assert "benchctl-gcp" not in said
    benchctl("ingest", lake, check=True)
    rows = json.loads(benchctl("show", "--sweep", "ansible-tiny", "--json", check=True).stdout)
    assert {(one["vendor_id"], one["server_id"], one["outcome"], one["price_usd_per_hour"]) for one in rows} == {
        ("ssh", host.name, "ok", 0.35)
    }
    assert len(rows) == 2


def _journal(host: Host) -> str:
    """What this sweep has on a host."""
    return podman(
        "exec", host.name, "sh", "-c", f"cat /root/.local/share/llama_bench/state/{SWEEP}/journal.jsonl", check=False
    )
