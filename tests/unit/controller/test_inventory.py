"""What is alive as an inventory: who is in it, in which groups, by which host key, and what stays text."""

from __future__ import annotations

import json
import shlex
import stat
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.inventory import REMOTE_HOME as DEFAULT_HOME
from benchctl.inventory import (
    Live,
    as_data,
    group_name,
    groups_of,
    host_variables,
    inventory_of,
    read_live,
    variables_of,
    zone_group,
)
from benchctl.ledger import FILE, JobState
from benchctl.models import load_models
from benchctl.pipeline import REMOTE_HOME, Sweep
from benchctl.request import SweepRequest
from llama_bench_core.suite import Suite

if TYPE_CHECKING:
    from benchctl.home import Home

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
SWEEP = "20261126-1130-gcp-hetzner-ab12"
REQUEST: dict[str, Any] = {
    "suite": {"name": "tiny", "models": ["SmolLM-135M"], "scenarios": {"pp": {"16": 1}}},
    "models": [{"name": "SmolLM-135M", "file": "SmolLM-135M.Q4_K_M.gguf"}],
    "weights": "synthetic",
    "connections": 3,
    "device": "cpu",
    "threads": 2,
}

L4 = JobState(
    job="gcp-g2-standard-4",
    vendor="gcp",
    server="g2-standard-4",
    host="benchctl-gcp-g2-standard-4-0a1b2c3d",
    stage="collecting",
    status="running",
    price_per_hour=0.71,
    currency="USD",
    session_seconds=1800,
    architecture="x86_64",
    gpus=1,
    region="us-central1",
    zone="us-central1-a",
    lifetime_seconds=7200,
    launched_at="2026-11-26T11:30:00.000+00:00",
    expires_at="2026-11-26T13:30:00.000+00:00",
    address="192.0.2.10",
    user="ubuntu",
    host_key="ssh-ed25519 AAAAC3Nz",
)
CX22 = replace(
    L4,
    job="hcloud-cx22",
    vendor="hcloud",
    server="cx22",
    host="benchctl-hcloud-cx22-11223344",
    gpus=0,
    region="fsn1",
    zone="fsn1-dc14",
    address="192.0.2.11",
    port=2222,
    user="root",
    price_per_hour=0.006,
    currency="EUR",
)


def write_book(home: Home, jobs: list[JobState], sweep: str = SWEEP, **request: Any) -> None:
    folder = home.sweeps / sweep
    folder.mkdir(parents=True)
    book = {
        "sweep": sweep,
        "created_at": "2026-11-26T11:30:00.000+00:00",
        "status": "running",
        "request": {**REQUEST, **request},
        "jobs": [asdict(one) for one in jobs],
    }
    (folder / FILE).write_text(json.dumps(book))


def members(groups: dict[str, Any], name: str) -> set[str]:
    group = groups[name]
    return set(group.hosts).union(*(members(groups, child) for child in group.children))


def test_what_is_alive_is_in_it_and_nothing_else(home: Home) -> None:
    """Planned, starting, refused, ended, expired and one's own servers are not in the inventory."""
    others = {
        "planned": {"stage": "planned", "launched_at": None, "address": "", "host_key": ""},
        "starting": {"stage": "provisioning", "address": "", "host_key": ""},
        "booting": {"stage": "provisioning"},
        "ending": {"stage": "destroying"},
        "gone": {"stage": "gone", "gone_at": "2026-11-26T11:50:00.000+00:00"},
        "expired": {"expires_at": "2026-11-26T11:59:59.000+00:00"},
        "own": {"lifetime_seconds": 0},
    }
    jobs = [L4, *(replace(L4, job=name, host=f"host-{name}", **changes) for name, changes in others.items()), CX22]
    write_book(home, jobs)
    assert [one.job.host for one in read_live(home, NOW).servers] == [L4.host, CX22.host]


def test_a_failed_job_whose_server_stands_is_in_it(home: Home) -> None:
    """What costs money can be reached, whatever became of its job."""
    write_book(home, [replace(L4, status="failed", error="the disk is full")])
    assert [one.job.host for one in read_live(home, NOW).servers] == [L4.host]


def test_no_sweep_and_a_damaged_book(home: Home) -> None:
    """Without sweeps the inventory is empty; a damaged book is named, and hides nothing of the others."""
    assert read_live(home, NOW).servers == ()
    assert set(groups_of(())) == {"bench", "rented"}
    write_book(home, [L4])
    broken = home.sweeps / "20261126-1200-gcp-ffff"
    broken.mkdir()
    (broken / FILE).write_text('{"jobs": [{"job": 1}]}')
    (home.sweeps / "20261126-1201-gcp-eeee").mkdir()
    (home.sweeps / "20261126-1201-gcp-eeee" / FILE).write_text("{")
    alive = read_live(home, NOW)
    assert [one.job.host for one in alive.servers] == [L4.host]
    assert len(alive.problems) == 2
    assert all("damaged" in problem for problem in alive.problems)


def test_the_groups_are_what_a_person_would_call_the_servers() -> None:
    """Vendor (by both names), type, VENDOR_TYPE, region, zone, architecture, cpu or gpu, sweep."""
    groups = groups_of([Live(SWEEP, L4), Live(SWEEP, CX22)], {SWEEP: {"llama_bench_weights": "synthetic"}})
    both, l4, cx22 = {L4.host, CX22.host}, {L4.host}, {CX22.host}
    expected = {
        **dict.fromkeys(("bench", "rented", "x86_64", SWEEP), both),
        **dict.fromkeys(("gcp", "g2-standard-4", "gcp_g2-standard-4", "us-central1", "us-central1-a", "gpu"), l4),
        **dict.fromkeys(("hetzner", "hcloud", "cx22", "hetzner_cx22", "fsn1", "fsn1-dc14", "cpu"), cx22),
    }
    assert {name: members(groups, name) for name in groups} == expected
    assert groups[SWEEP].variables == {"llama_bench_weights": "synthetic"}


@pytest.mark.parametrize(
    ("region", "zone", "name"),
    [
        ("us-central1", "us-central1-a", "us-central1-a"),
        ("westeurope", "1", "westeurope-1"),
        ("de-fra1", "de-fra1", ""),
        ("fsn1", "", ""),
    ],
)
def test_zones_have_groups_that_tell_their_region(region: str, zone: str, name: str) -> None:
    """Azure's zones are called 1, 2 and 3 in every region."""
    assert zone_group(region, zone) == name


@pytest.mark.parametrize(
    "name", ["all", "ungrouped", "bench", "gpu", "localhost", L4.host, "us-central1", "gcp", SWEEP]
)
def test_a_type_that_is_called_as_something_else_makes_no_group_of_that_name(name: str) -> None:
    """``-l NAME`` then never names more than was meant; VENDOR_TYPE names the type."""
    odd = replace(CX22, server=name)
    groups = groups_of([Live(SWEEP, L4), Live(SWEEP, odd)])
    assert members(groups, f"hetzner_{name}") == {odd.host}
    if name in groups:
        assert members(groups, name) == members(groups_of([Live(SWEEP, L4), Live(SWEEP, CX22)]), name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("g2-standard-4", "g2-standard-4"),
        ("Standard_D4s_v5", "Standard_D4s_v5"),
        ("m7g.large", "m7g.large"),
        ("{{ 7*7 }}", "___7_7___"),
        ("$(id)", "__id_"),
        ("a:b,c&d!e", "a_b_c_d_e"),
        ("-i evil", "_i_evil"),
        ("~.*", "_._"),
        ("", "_"),
    ],
)
def test_group_names_hold_nothing_that_patterns_or_templates_use(text: str, name: str) -> None:
    """Names as vendors spell them stay; what a catalogue could smuggle in does not."""
    assert group_name(text) == name


def test_variables_say_how_the_server_is_reached_and_what_it_is(tmp_path: Path) -> None:
    """The sweep's key by its path, the server's own host key and nothing else, and what it costs."""
    found = variables_of(tmp_path, SWEEP, L4)
    assert (found["ansible_host"], found["ansible_port"], found["ansible_user"]) == ("192.0.2.10", 22, "ubuntu")
    assert found["ansible_become"] is True
    assert found["ansible_ssh_private_key_file"] == f"{tmp_path}/sweeps/{SWEEP}/keys/id_ed25519"
    assert found["benchctl_price"] == "0.71USD/h"
    assert found["benchctl_expires_at"] == L4.expires_at
    assert found["llama_bench_state_dir"] == f"~/.local/share/llama_bench/state/{SWEEP}"
    assert found["llama_bench_session_seconds"] == 1800
    options = shlex.split(found["ansible_ssh_common_args"])
    assert f'UserKnownHostsFile="{tmp_path}/sweeps/{SWEEP}/keys/{L4.host}.known_hosts"' in options
    assert {"StrictHostKeyChecking=yes", "IdentitiesOnly=yes", "GlobalKnownHostsFile=/dev/null"} <= set(options)
    assert "ansible_become" not in variables_of(tmp_path, SWEEP, CX22)


def test_a_new_server_at_an_old_address_shares_no_connection(tmp_path: Path) -> None:
    """The socket of the old one's connection may be open still."""
    new = replace(L4, host_key="ssh-ed25519 AAAAnew")
    paths = [variables_of(tmp_path, SWEEP, one)["ansible_control_path"] for one in (L4, new)]
    assert paths[0] != paths[1]
    assert all(len(path) < 40 for path in paths)


def test_the_host_key_is_written_before_ansible_needs_it(tmp_path: Path) -> None:
    """In a folder of the user's own, with the port where it is not 22."""
    host_variables(tmp_path, SWEEP, L4)
    host_variables(tmp_path, SWEEP, CX22)
    folder = tmp_path / "sweeps" / SWEEP / "keys"
    assert (folder / f"{L4.host}.known_hosts").read_text() == "192.0.2.10 ssh-ed25519 AAAAC3Nz\n"
    assert (folder / f"{CX22.host}.known_hosts").read_text() == "[192.0.2.11]:2222 ssh-ed25519 AAAAC3Nz\n"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_names_from_a_catalogue_are_data(tmp_path: Path) -> None:
    """What looks like a template is marked, wherever it stands; other texts are as they are."""
    odd = replace(L4, server="{{ 7*7 }}", region="{% raw %}", zone="$(id)")
    found = host_variables(tmp_path, SWEEP, odd)
    assert found["benchctl_server"] == {"__ansible_unsafe": "{{ 7*7 }}"}
    assert found["benchctl_region"] == {"__ansible_unsafe": "{% raw %}"}
    assert found["benchctl_zone"] == "$(id)"
    assert as_data({"a": ["{{ b }}", 1, None]}) == {"a": [{"__ansible_unsafe": "{{ b }}"}, 1, None]}
    listed = inventory_of([Live(SWEEP, odd, variables_of(tmp_path, SWEEP, odd))])
    assert not any("{" in name for name in listed)


def test_the_sweep_says_what_is_measured(home: Home) -> None:
    """Suite, models, weights and the rest are what the sweep was asked for, and the results go to its lake."""
    write_book(home, [L4])
    variables = read_live(home, NOW).sweeps[SWEEP]
    assert variables == {
        "llama_bench_suite": REQUEST["suite"],
        "llama_bench_models": REQUEST["models"],
        "llama_bench_weights": "synthetic",
        "llama_bench_connections": 3,
        "llama_bench_device": "cpu",
        "llama_bench_threads": 2,
        "llama_bench_lake": str(home.lake),
    }


def test_a_playbook_alone_gets_what_the_sweep_hands_to_ansible(home: Home) -> None:
    """Value for value: suite, models, weights, device, threads, connections, mirror, limits and the state folder."""
    request = SweepRequest(
        vendors=("gcp",),
        suite=Suite.from_dict({"name": "tiny", "models": ["SmolLM-135M"], "scenarios": {"pp": {16: 1}}}),
        models=(load_models()["SmolLM-135M"],),
        weights="synthetic",
        threads=3,
        mirror="https://mirror.example/models",
        llama_bench="/opt/llama-bench",
    )
    sweep = SimpleNamespace(
        request=request,
        ledger=SimpleNamespace(sweep=SWEEP),
        home=home,
        _local=False,
        _llama_bench=Path("/opt/llama-bench"),
        _state_dir=lambda job: Sweep._state_dir(sweep, job),
        _folder=lambda job: home.lake / job.job,
        _spent_seconds=lambda _job: 0.0,
    )
    write_book(home, [L4], **json.loads(json.dumps(request.to_dict())))
    alive = read_live(home, NOW)
    found = json.loads(json.dumps({**alive.sweeps[SWEEP], **alive.servers[0].variables}))
    handed = {**Sweep._variables(sweep), **Sweep._host_variables(sweep, L4)}
    handed["llama_bench_state_dir"] = handed["llama_bench_state_dir"].replace(REMOTE_HOME, DEFAULT_HOME)
    for own in ("llama_bench_wait", "llama_bench_async_job", "llama_bench_journal"):  # of the sweep's own doings
        del handed[own]
    assert json.loads(json.dumps(handed)) == {key: found.get(key) for key in handed}


def test_no_secret_is_in_the_inventory(home: Home) -> None:
    """A mirror's password and a hook's address stay in the book; a mirror without a password is passed on."""
    write_book(home, [L4], mirror="https://me:hunter2@mirror.example/", hook="https://hooks.example/t0ken")
    other = "20261126-1131-gcp-cd34"
    write_book(home, [replace(L4, host="benchctl-other")], sweep=other, mirror="https://mirror.example/models")
    alive = read_live(home, NOW)
    listed = json.dumps(inventory_of(alive.servers, alive.sweeps))
    assert "hunter2" not in listed
    assert "t0ken" not in listed
    assert alive.sweeps[other]["llama_bench_mirror"] == "https://mirror.example/models"
