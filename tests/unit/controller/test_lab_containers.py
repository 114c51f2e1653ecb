"""How the lab asks podman for a server, without podman."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from benchctl.lab import containers, podman

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WANTED = containers.Wanted(
    name="benchctl-x",
    network="net",
    image="image",
    host_key="SECRET-HOST-KEY",
    authorized_keys="ssh-ed25519 AAAA",
    labels={"benchctl-sweep": "s1"},
    cpus=10_000,
    memory_mib=64,
    lifetime_seconds=90,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The calls of podman, which all go well."""
    calls: list[list[str]] = []
    monkeypatch.setenv("BENCHCTL_CACHE", str(tmp_path))
    monkeypatch.delenv("CONTAINERS_CONF", raising=False)

    def run(*words: str | Path, check: bool = True, timeout: float = 0) -> str:  # noqa: ARG001 - podman's own
        calls.append([str(word) for word in words])
        return '[{"Id": "1", "Name": "benchctl-x", "Created": "", "State": {"Status": "created"}, "Config": {}}]'

    monkeypatch.setattr(containers, "podman", run)
    return calls


def test_no_key_is_an_argument_of_a_process_and_its_file_is_for_its_owner_alone(
    asked: list[list[str]], tmp_path: Path
) -> None:
    containers.start(WANTED)
    assert "SECRET" not in repr(asked)
    assert "SECRET" not in repr(WANTED)
    key = tmp_path / "lab/keys/benchctl-x/host_key"
    assert key.read_text() == "SECRET-HOST-KEY\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    containers.remove("benchctl-x")
    assert not key.parent.exists()


def test_more_cpus_than_there_are_become_those_that_are_there(asked: list[list[str]]) -> None:
    containers.start(WANTED)
    run = asked[0]
    assert run[run.index("--cpus") + 1] == str(os.cpu_count())
    assert run[run.index("--timeout") + 1] == "90", "podman ends it by itself"
    assert "--rm" in run


def test_where_root_is_missing_the_port_is_published(asked: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    containers.start(WANTED)
    assert asked[0][asked[0].index("-p") + 1] == "127.0.0.1::22"


def test_keys_of_servers_that_ended_by_themselves_go_and_those_of_others_stay(
    asked: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "lab/keys" / name for name in ("gone", "benchctl-x", "starting")]
    for folder in folders:
        folder.mkdir(parents=True)
    for folder in folders[:2]:
        os.utime(folder, (1, 1))
    monkeypatch.setattr(containers, "podman", lambda *words: "benchctl-x\nother" if words[0] == "ps" else "")
    containers.make_network("net", {}, ["10.1.0.0/24"])
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert asked == []


def test_keys_that_somebody_else_removes_meanwhile_are_nobodys_failure(
    asked: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several sweeps share the folder: what is listed in it may be gone before its time is read."""
    keys = tmp_path / "lab/keys"
    keys.mkdir(parents=True)
    (keys / "gone").symlink_to("nowhere")  # is listed, and has no time
    monkeypatch.setattr(containers, "podman", lambda *_: "")
    assert containers.make_network("net", {}, ["10.1.0.0/24"]).name == "net"
    assert asked == []


def refusing(calls: list[list[str]], times: int, said: str) -> Callable[..., str]:
    def run(*words: str | Path, check: bool = True, timeout: float = 0) -> str:  # noqa: ARG001 - podman's own
        calls.append([str(word) for word in words])
        if words[0] == "run" and sum(call[0] == "run" for call in calls) <= times:
            raise podman.LabError("no", said=said)
        return '[{"Id": "1", "Name": "benchctl-x", "Created": "", "State": {"Status": "created"}, "Config": {}}]'

    return run


def test_where_podmans_settings_start_nothing_the_shipped_ones_are_tried_and_remembered(
    asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(podman.shutil, "which", lambda *_, **__: "/usr/bin/runc")
    said = "Error: runc: runc create failed: error setting rlimits for ready process: operation not permitted"
    monkeypatch.setattr(containers, "podman", refusing(asked, 1, said))
    containers.start(WANTED)
    assert [call[0] for call in asked] == ["run", "rm", "run", "container"]
    assert podman._environment(podman._own())["CONTAINERS_CONF"] == str(podman.SETTINGS)


def test_two_servers_that_could_not_be_started_at_the_same_time_are_both_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the first of them notes was not yet tried by the second; a call that had it is not tried again."""
    program = tmp_path / "podman"
    program.write_text("#!/bin/sh\necho 'Error: OCI runtime error: crun: cgroup' >&2\nexit 126\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("BENCHCTL_CACHE", str(tmp_path))
    monkeypatch.delenv("CONTAINERS_CONF", raising=False)
    monkeypatch.setattr(podman.shutil, "which", lambda *_, **__: "/usr/bin/runc")

    def refused() -> podman.LabError:
        with pytest.raises(podman.LabError) as caught:
            podman.podman("run", "image")
        return caught.value

    first, second = refused(), refused()
    assert podman.with_own_settings(first)
    assert podman.with_own_settings(second)
    assert not podman.with_own_settings(refused()), "nothing else is left to try"


def test_who_names_settings_has_the_last_word_and_nothing_is_left_of_what_failed(
    asked: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONTAINERS_CONF", "/mine")
    monkeypatch.setattr(containers, "podman", refusing(asked, 9, "runc: rlimits"))
    with pytest.raises(podman.LabError):
        containers.start(WANTED)
    assert [call[0] for call in asked] == ["run", "rm"]
    assert podman._environment(podman._own())["CONTAINERS_CONF"] == "/mine"
    assert not (tmp_path / "lab/keys/benchctl-x").exists()
