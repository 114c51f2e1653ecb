"""The wheel, in an empty environment outside the checkout, is a whole benchctl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return next(folder.glob("benchctl-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs programs of an environment that holds the wheel and its dependencies alone, in a folder of their own."""
    folder = tmp_path_factory.mktemp("installed")
    uv = [str(Path(sys.executable).with_name("uv"))]
    if not Path(uv[0]).is_file():
        uv = ["uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(folder / "venv")], check=True)
    subprocess.run([*uv, "pip", "install", "-q", "--python", str(folder / "venv/bin/python"), str(wheel)], check=True)
    (folder / "elsewhere").mkdir()

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Neither the checkout's packages nor its environment's programs may help out.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
        environment |= {"PATH": "/usr/bin:/bin", "BENCHCTL_HOME": str(folder / "state")}
        return subprocess.run(
            [str(folder / "venv/bin" / program), *arguments],
            cwd=folder / "elsewhere",
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return run


def test_the_wheel_carries_what_ansible_needs_once(wheel: Path) -> None:
    """Playbooks, role, modules, suites and migrations are in it; compiled files and doubles through links are not."""
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "benchctl/_content/playbooks/bench.yml",
        "benchctl/_content/roles/llama_bench/tasks/main.yml",
        "benchctl/_content/roles/llama_bench/files/suites/quick.yml",
        "benchctl/_content/library/llama_bench.py",
        "benchctl/_content/module_utils/llama_bench_core/policy.py",
        "benchctl/_content/ansible.cfg",
        "benchctl/_content/inventories/live/benchctl.yml",
        "benchctl/_content/inventories/plugins/benchctl.py",
        "benchctl/engine/recipe/CMakeLists.txt",
        "llama_bench_core/policy.py",
    ):
        assert names.count(name) == 1, name
    assert not [name for name in names if "__pycache__" in name or name.startswith("benchctl/_content/playbooks/roles")]
    assert {name.rpartition(".")[2] for name in names if "/library/" in name} == {"py"}, "all there would be a module"


def test_it_finds_its_content_from_any_folder(installed: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The carried models are listed by the installed command."""
    done = installed("benchctl", "models", "list", "--json", "--query", "[0].name")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == '"SmolLM-135M"'


def test_its_playbooks_know_what_is_rented(
    installed: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The carried inventory reads the books of the state directory that the command is given."""
    job = {
        "job": "cx22",
        "vendor": "hcloud",
        "server": "cx22",
        "host": "benchctl-cx22-1",
        "stage": "benching",
        "lifetime_seconds": 3600,
        "launched_at": "2026-11-26T11:30:00+00:00",
        "architecture": "x86_64",
        "address": "192.0.2.7",
        "user": "root",
        "host_key": "ssh-ed25519 AAAA",
    }
    folder = tmp_path / "sweeps" / "20261126-1130-hetzner-ab12"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps({"status": "running", "request": {}, "jobs": [job]}))
    benchctl = ("benchctl", "--state-dir", str(tmp_path))
    done = installed(*benchctl, "playbook", "site", "-l", "cx22", "--list-hosts")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("      benchctl-cx22-1\n") == 2
    assert done.stderr == ""
    assert "--benchctl-cx22-1" in installed(*benchctl, "inventory", "--graph").stdout
    alone = installed(*benchctl, "playbook", "site", "--list-hosts")
    assert alone.stdout.count("      localhost\n") == 2
    assert "benchctl-cx22-1" not in alone.stdout


def test_its_ansible_is_found_although_it_is_not_on_the_path(
    installed: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """As under pipx and uv tool, only benchctl itself is on PATH; the carried playbook is still understood."""
    done = installed("benchctl", "playbook", "bench", "--syntax-check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "playbook:" in done.stdout


def test_it_can_fetch_the_source_of_llama_bench(installed: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Pip is there, with which a build fetches llama.cpp's source."""
    done = installed("python", "-m", "pip", "--version")
    assert done.returncode == 0, done.stderr
