"""The real playbook over real SSH: a real llama-bench measures synthetic weights on hosts with other Pythons."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lab.podman import podman

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(1500)  # longer than what is waited for inside, which says more

ROOT = Path(__file__).resolve().parents[2]

TINY: dict[str, Any] = {
    "name": "tiny",
    "models": ["SmolLM-135M"],
    "scenarios": {"pp": {16: 0.1}, "tg": {16: 0.1}},
    "policy": {"max_samples": 2, "noise_retries": 0},
}
"""Two scenarios that every machine passes, in a few seconds."""


def play(inventory: Path, *arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run bench.yml as a user does, from the checkout."""
    return subprocess.run(
        [
            *(str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/bench.yml", "-i", str(inventory)),
            *("-e", json.dumps(variables), *arguments),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def asked(llama_bench: Path) -> dict[str, object]:
    return {
        "llama_bench_source": str(llama_bench),
        "llama_bench_suite": TINY,
        "llama_bench_weights": "synthetic",
        "llama_bench_poll_seconds": 2,
    }


@pytest.mark.parametrize("python", ["3.9", "3.13"])
def test_the_playbook_measures_a_host_and_the_second_run_changes_nothing(
    ssh_hosts: Callable[..., Path], llama_bench: Path, python: str
) -> None:
    """On the lowest and the highest Python the first run measures, and the second finds that all is there."""
    inventory = ssh_hosts(1, python=python)
    host = next(iter(json.loads(inventory.read_text())["bench"]["hosts"]))

    first = play(inventory, **asked(llama_bench))
    assert first.returncode == 0, first.stdout + first.stderr
    journal = podman("exec", host, "sh", "-c", "cat /root/.local/share/llama_bench/state/*/journal.jsonl")
    records = [json.loads(line) for line in journal.splitlines()]
    outcomes = {(r["task"], r["tokens"]): r["outcome"] for r in records if r["kind"] == "outcome"}
    assert outcomes == {("pp", 16): "ok", ("tg", 16): "ok"}
    row = json.loads(next(r["row"] for r in records if r["kind"] == "sample" and r["row"]))
    assert (row["model_size"], row["model_n_params"]) == (103668480, 134515008)
    assert podman("exec", host, "pgrep", "-c", "llama-bench", check=False) == "0"

    second = play(inventory, **asked(llama_bench))
    assert second.returncode == 0, second.stdout + second.stderr
    assert f"{host} " in second.stdout
    assert "changed=0" in second.stdout
    assert podman("exec", host, "sh", "-c", "cat /root/.local/share/llama_bench/state/*/journal.jsonl") == journal


def test_check_mode_says_what_it_would_do_and_leaves_nothing(ssh_hosts: Callable[..., Path], llama_bench: Path) -> None:
    """With --check nothing is measured and no journal is written."""
    inventory = ssh_hosts(1)
    host = next(iter(json.loads(inventory.read_text())["bench"]["hosts"]))
    done = play(inventory, "--check", **asked(llama_bench))
    assert done.returncode == 0, done.stdout + done.stderr
    assert podman("exec", host, "find", "/root", "-name", "journal.jsonl") == ""


def test_a_sweep_measures_two_hosts_and_keeps_their_rows(
    ssh_hosts: Callable[..., Path],
    benchctl: Callable[..., subprocess.CompletedProcess[str]],
    llama_bench: Path,
    tmp_path: Path,
) -> None:
    """``benchctl sweep --vendors ssh`` ends with rows of every host in the database, marked as synthetic."""
    inventory = ssh_hosts(2)
    suite = tmp_path / "tiny.yml"
    suite.write_text(json.dumps(TINY))  # JSON is YAML
    done = benchctl(
        *("sweep", "--vendors", "ssh", "--inventory", inventory, "--suite", suite, "--weights", "synthetic"),
        *("--llama-bench", llama_bench, "--poll-seconds", "2", "--yes", "--json"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert answer["outcomes"] == {"ok": 4}
    hosts = json.loads(inventory.read_text())["bench"]["hosts"]
    rows = answer["measurements"]
    assert sorted(
        (row["server_id"], row["model"], row["task"], row["tokens"], row["outcome"]) for row in rows
    ) == sorted((host, "SmolLM-135M", task, 16, "ok") for host in hosts for task in ("pp", "tg"))
    assert {(row["vendor_id"], row["weights"]) for row in rows} == {("ssh", "synthetic")}
