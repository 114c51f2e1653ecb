"""The role host_facts, run by the real ansible-playbook on this machine, and its module on old and new Pythons."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from llama_bench_core.host import HostFacts

ROOT = Path(__file__).parents[2]
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"

PLAYBOOK = """
- name: Find out what this machine is
  hosts: all
  gather_facts: false
  roles:
    - role: host_facts
      host_facts_paths: {paths}
  tasks:
    - name: Write it down
      ansible.builtin.copy:
        content: "{{{{ {{'server': host_facts_server, 'threads': host_facts_threads}} | to_json }}}}"
        dest: {path}/facts.json
        mode: "0600"
      check_mode: false
      changed_when: false
"""


def interpreter(version: str) -> Path:
    """A Python of another version, or a skip that says that it is not here."""
    found = sorted(PYENV.glob(f"{version}.*/bin/python"))
    if not found:
        pytest.skip(f"no Python {version} under {PYENV}")
    return found[0]


def play(folder: Path, *options: str, python: str | Path = sys.executable, paths: str = "") -> tuple[int, str]:
    """Run the role with real Ansible; its exit status and what it printed."""
    playbook = folder / "play.yml"
    playbook.write_text(PLAYBOOK.format(path=folder, paths=paths or f"[{folder}]"))
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", "target,", "-c", "local"),
            *("-e", json.dumps({"ansible_python_interpreter": str(python)})),
            *options,
            str(playbook),
        ],
        cwd=ROOT,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "minimal",
            "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
            "ANSIBLE_REMOTE_TEMP": str(folder / "remote"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_check_then_run_then_run_again(tmp_path):
    """Check mode, run and second run all change nothing, and set the same facts about this machine."""
    seen = []
    for options in (["--check"], [], []):
        status, output = play(tmp_path, *options)
        assert status == 0, output
        assert "CHANGED" not in output
        seen.append(json.loads((tmp_path / "facts.json").read_text()))
    first = seen[0]
    assert first["server"]["logical_cpus"] == len(os.sched_getaffinity(0))
    assert 1 <= first["threads"] <= first["server"]["physical_cores"]
    assert first["server"]["disks"][0]["total_bytes"] > 0
    for name in ("cpu_model", "cores", "memory_bytes", "kernel", "os", "gpus"):
        assert len({json.dumps(facts["server"][name]) for facts in seen}) == 1, name


@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_the_lowest_and_the_highest_python_of_targets(version, tmp_path):
    """The module runs on the oldest and the newest Python that targets may have, with the same answer."""
    status, output = play(tmp_path, python=interpreter(version))
    assert status == 0, output
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["server"]["python"].startswith(f"{version}.")
    assert facts["server"]["logical_cpus"] == len(os.sched_getaffinity(0))


def test_a_python_that_is_too_old_is_refused_with_a_sentence(tmp_path):
    """Python 3.8 is the last that Ansible still reaches and we do not."""
    status, output = play(tmp_path, python=interpreter("3.8"))
    assert status != 0
    assert "a measurement needs Linux and Python 3.9 or newer" in " ".join(output.split())
    assert not (tmp_path / "facts.json").exists()


def test_a_setting_of_the_wrong_type_is_refused(tmp_path):
    """The role's argument specification is checked before anything runs."""
    status, output = play(tmp_path, paths="{a: 1}")
    assert status != 0
    assert "host_facts_paths" in output
    assert "cannot be converted to a list" in output or "unable to convert to list" in output


def test_the_module_documents_every_fact_that_it_returns():
    """ansible-doc lists each field of the facts under ``host``."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-doc")), "-t", "module", "-j", "llama_bench_host_info"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    documented = json.loads(done.stdout)["llama_bench_host_info"]["return"]["host"]["contains"]
    assert set(documented) == set(HostFacts.__dataclass_fields__)
