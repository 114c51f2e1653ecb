"""The lab itself: the ground that the tests over SSH stand on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab.podman import LABEL, podman, remove_stale

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.hosts import Lab


ROOT = Path(__file__).resolve().parents[2]


def ansible(inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("ansible")
    return subprocess.run(
        [str(program), "all", "-i", str(inventory), *arguments],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("python", ["3.9", "3.13"])
def test_a_host_answers_ansible_with_the_python_that_was_asked_for(ssh_hosts: Callable[..., Path], python: str) -> None:
    """Over real SSH, with strict host key checking, the host runs the interpreter of its Debian release."""
    done = ansible(ssh_hosts(1, python=python), "-m", "command", "-a", "/usr/bin/python3 --version")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Python {python}." in done.stdout


def test_a_host_with_another_key_is_refused(ssh_lab: Lab, tmp_path: Path) -> None:
    """There is no trust on first use: where the known key is another's, nothing is run."""
    host, other = ssh_lab.start(), ssh_lab.start()
    inventory = json.loads(ssh_lab.inventory([host]).read_text())
    swapped = inventory["bench"]["hosts"][host.name]
    lines = (ssh_lab.folder / "known_hosts").read_text().splitlines()
    key = next(line.split(" ", 1)[1] for line in lines if line.startswith(f"{other.address} "))
    (tmp_path / "known_hosts").write_text(f"{host.address} {key}\n")
    swapped["ansible_ssh_common_args"] = swapped["ansible_ssh_common_args"].replace(
        str(ssh_lab.folder / "known_hosts"), str(tmp_path / "known_hosts")
    )
    (tmp_path / "hosts.yml").write_text(json.dumps(inventory))
    done = ansible(tmp_path / "hosts.yml", "-m", "ping")
    assert done.returncode == 4
    assert "Host key verification failed" in done.stdout


def test_what_a_killed_run_left_is_removed_and_what_lives_is_not(ssh_lab: Lab) -> None:
    """A container whose owner is gone is removed at the next start; the containers of living owners stay."""
    living = ssh_lab.start()
    image = podman("inspect", "--format", "{{.ImageName}}", living.name)
    # it is not started: tests beside this one, which remove what is stale too, could come in between
    orphan = podman("create", "--label", f"{LABEL}=1-0", "--network", "none", image, "sleep", "600")
    remove_stale()
    names = podman("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}}")
    assert orphan not in names
    assert living.name in names
