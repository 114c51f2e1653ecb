"""The seam to Ansible, with the real Ansible: what comes back, what is refused, and what must not reach the disk."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from benchctl import playbook
from benchctl.errors import PlaybookError
from benchctl.playbook import AnsiblePlaybook, ansible_environment, require_ansible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOCALHOST = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}


def inventory(**hosts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [{"bench": {"hosts": hosts}}]


@pytest.fixture
def content(tmp_path: Path, checkout: Path) -> Path:
    """Carried content with playbooks of the test's own."""
    folder = tmp_path / "content"
    (folder / "playbooks").mkdir(parents=True)
    for name in ("library", "module_utils", "roles", "ansible.cfg"):
        (folder / name).symlink_to(checkout / name)
    return folder


def write(content: Path, name: str, *tasks: dict[str, Any]) -> None:
    play = [{"hosts": "bench", "gather_facts": False, "tasks": list(tasks)}]
    (content / "playbooks" / f"{name}.yml").write_text(json.dumps(play))


def files_with(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_results_come_back_by_host_and_module(tmp_path: Path) -> None:
    """The carried poller runs on two hosts, each with its own variables, and answers for each."""
    runs = AnsiblePlaybook(tmp_path / "runs")
    hosts = {name: {**LOCALHOST, "llama_bench_state_dir": str(tmp_path / name)} for name in ("one", "two", "three")}
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "journal.jsonl").write_text('{"kind":"end","status":"finished","message":""}\n')
    done = runs.run("collect", inventory=inventory(**hosts), limit=["one", "two"])
    assert done.rc == 0
    assert set(done.hosts) == {"one", "two"}
    one, two = done.of("one", "llama_bench_info"), done.of("two", "llama_bench_info")
    assert one is not None
    assert one["status"] == "finished"
    assert one["journal_offset"] == (tmp_path / "one" / "journal.jsonl").stat().st_size
    assert two is not None
    assert two["status"] == "absent"
    assert done.of("two", "ping") is None


def test_large_answers_come_back_whole(tmp_path: Path) -> None:
    """A full megabyte of journal is not dropped on its way through ansible-runner's callback."""
    (tmp_path / "journal.jsonl").write_text(('{"kind":"process","text":"' + "x" * 970 + '"}\n') * 1040)
    done = AnsiblePlaybook(tmp_path / "runs").run(
        "collect", inventory=inventory(one=LOCALHOST), extra_vars={"llama_bench_state_dir": str(tmp_path)}
    )
    answer = done.of("one", "llama_bench_info")
    assert answer is not None
    assert len(answer["journal"]) == (tmp_path / "journal.jsonl").stat().st_size


def test_failures_and_unreachable_hosts_are_sentences(tmp_path: Path, content: Path) -> None:
    """A host that fails, and one that can't be reached, don't spoil the one that works."""
    write(
        content,
        "mixed",
        {"ansible.builtin.ping": {}},
        {"ansible.builtin.fail": {"msg": "the disk is full"}, "when": "bad | default(false)"},
    )
    done = AnsiblePlaybook(tmp_path / "runs", content).run(
        "mixed",
        inventory=inventory(
            good=LOCALHOST,
            bad={**LOCALHOST, "bad": True},
            gone={"ansible_host": "127.0.0.1", "ansible_port": 1},
        ),
    )
    assert done.rc != 0
    assert "the disk is full" in done.failures["bad"]
    assert done.unreachable["gone"].startswith("gone can't be reached: ")
    assert "good" not in {**done.failures, **done.unreachable}


def test_ansible_that_ends_without_a_word_is_an_error(tmp_path: Path, content: Path) -> None:
    """A playbook that is none gives one sentence with what Ansible printed, and where the rest is."""
    (content / "playbooks" / "broken.yml").write_text("- hosts: bench\n  tasks: [{no_such_module_anywhere: {}}]\n")
    with pytest.raises(PlaybookError, match="no_such_module_anywhere") as caught:
        AnsiblePlaybook(tmp_path / "runs", content).run("broken", inventory=inventory(one=LOCALHOST))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "runs") in caught.value.mend


def test_secrets_of_the_environment_reach_no_file_and_no_task(
    tmp_path: Path, content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cloud keys planted in the shell are neither in what is written nor in what a task sees."""
    for name in ("AWS_SECRET_ACCESS_KEY", "HCLOUD_TOKEN", "ANSIBLE_VAULT_PASSWORD", "MY_OWN"):
        monkeypatch.setenv(name, f"planted-{name}")
    monkeypatch.setenv("https_proxy", "http://user:planted-proxy@proxy.example:3128")
    write(content, "env", {"ansible.builtin.command": "env"})
    done = AnsiblePlaybook(tmp_path / "runs", content).run("env", inventory=inventory(one=LOCALHOST))
    answer = done.of("one", "command")
    assert answer is not None
    assert "PATH=" in answer["stdout"]
    assert "planted" not in answer["stdout"]
    assert not files_with(tmp_path / "runs", "planted")


def test_what_is_written_is_its_owners_alone_and_does_not_pile_up(tmp_path: Path, content: Path) -> None:
    """Variables are private files; of many runs of one kind only the latest stay, and their events not at all."""
    write(content, "again", {"ansible.builtin.debug": {"msg": "{{ word }}"}})
    runs = AnsiblePlaybook(tmp_path / "runs", content)
    for _ in range(4):
        runs.run("again", inventory=inventory(one=LOCALHOST), extra_vars={"word": "private-word"})
    artifacts = list((tmp_path / "runs" / "again" / "artifacts").iterdir())
    assert len(artifacts) <= 2
    assert not list((tmp_path / "runs").rglob("job_events/*"))
    for path in files_with(tmp_path / "runs", "private-word"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (tmp_path / "runs" / "again").stat().st_mode & 0o077 == 0


@pytest.fixture
def no_strays(tmp_path: Path) -> Iterator[None]:
    """A task that hangs outlives the Ansible that is killed; not this test."""
    yield
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(tmp_path).encode() in (entry / "environ").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)


@pytest.mark.usefixtures("no_strays")
def test_a_run_can_be_cancelled(tmp_path: Path, content: Path) -> None:
    """A run that hangs in a task ends soon after the wish, and says that it was cancelled."""
    started = tmp_path / "started"
    write(content, "hang", {"ansible.builtin.shell": f"touch {started}; sleep 600"})
    wished: list[float] = []

    def cancelled() -> bool:
        if started.exists():
            wished.append(time.monotonic())
        return bool(wished)

    done = AnsiblePlaybook(tmp_path / "runs", content).run(
        "hang", inventory=inventory(one=LOCALHOST), cancelled=cancelled
    )
    assert done.cancelled
    assert time.monotonic() - wished[0] < 60


def test_events_are_told(tmp_path: Path, content: Path) -> None:
    """Whoever wants to hear them gets the events as they happen."""
    write(content, "told", {"ansible.builtin.debug": {"msg": "x"}})
    heard: list[str] = []
    AnsiblePlaybook(tmp_path / "runs", content).run(
        "told", inventory=inventory(one=LOCALHOST), on_event=lambda event: heard.append(str(event["event"]))
    )
    assert "runner_on_ok" in heard


def test_ansible_is_found_without_path(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pipx ansible-playbook is not on PATH but beside this Python; where it is nowhere, one sentence says so."""
    monkeypatch.setenv("PATH", str(tmp_path))
    environment = ansible_environment(checkout)
    assert Path(require_ansible(environment)).name == "ansible-playbook"
    with pytest.raises(PlaybookError, match="ansible-playbook is neither"):
        require_ansible({"PATH": str(tmp_path)})


def test_host_keys_are_checked(checkout: Path) -> None:
    """ansible-runner would turn the check off; ours leaves it on, and no package folder is on the module path."""
    environment = ansible_environment(checkout)
    assert environment["ANSIBLE_HOST_KEY_CHECKING"] == "True"
    assert "site-packages" not in environment["ANSIBLE_MODULE_UTILS"]


def test_many_hosts_share_few_forks(tmp_path: Path, content: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more hosts at once than there are forks, so that a large fleet needs no more memory; all of them are done."""
    monkeypatch.setattr(playbook, "FORKS", 2)
    (tmp_path / "here").mkdir()
    write(
        content,
        "count",
        {
            "ansible.builtin.shell": f"cd {tmp_path}/here && touch $$ && ls | wc -l && sleep 0.3 && rm $$",
            "changed_when": False,
        },
    )
    done = AnsiblePlaybook(tmp_path / "runs", content).run(
        "count", inventory=inventory(**{f"h{number}": LOCALHOST for number in range(5)})
    )
    at_once = [int(one.result["stdout"]) for results in done.hosts.values() for one in results]
    assert len(at_once) == 5
    assert max(at_once) <= 2
