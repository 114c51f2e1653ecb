"""What ``benchctl doctor`` says of a machine, and where a llama-bench is looked for."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
from benchctl import doctor
from benchctl.clouds import ready
from benchctl.doctor import State
from benchctl.extras import extra_mend
from benchctl.llama_bench_binary import EngineError, Origin, resolve
from benchctl.request import CLOUDS
from llama_bench_core.command import NotLlamaBenchError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from benchctl.home import Home

    Cli = Callable[..., subprocess.CompletedProcess[str]]

NO_NETWORK = {"https_proxy": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1", "no_proxy": "", "NO_PROXY": ""}
"""A proxy that is not there: nothing outside can be reached."""


def programs(folder: Path, *names: str) -> str:
    """A PATH with links to some of this machine's programs and nothing else."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found, f"{name} is not on this machine"
        (folder / name).symlink_to(found)
    return str(folder)


def of(answer: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], dict[str, str]]:
    return {(row["vendor"], row["check"]): row for row in json.loads(answer.stdout)}


def test_a_machine_with_a_llama_bench_is_ready(benchctl: Cli, tmp_path: Path, llama_bench: Path) -> None:
    """A llama-bench on PATH is found, named with its build, and makes the exit status 0; no compiler is asked for."""
    path = programs(tmp_path / "bin", "sh")
    (tmp_path / "bin/llama-bench").symlink_to(llama_bench)
    answer = benchctl("doctor", "--json", env={"PATH": path, "BENCHCTL_CACHE": str(tmp_path / "empty")})
    assert answer.returncode == 0, answer.stderr
    found = of(answer)
    assert found["local", "llama-bench"]["state"] == "ok"
    assert "found on PATH" in found["local", "llama-bench"]["found"]
    assert ("local", "compiler") not in found


def test_a_machine_without_llama_bench_and_compiler_is_not_ready_and_learns_why(benchctl: Cli, tmp_path: Path) -> None:
    """Exit status 1, and the command that mends it, in the table and in the JSON."""
    environment = {"PATH": programs(tmp_path / "bin", "sh"), "BENCHCTL_CACHE": str(tmp_path / "empty")}
    answer = benchctl("doctor", env=environment)
    assert answer.returncode == 1
    assert "apt-get install g++" in answer.stdout
    assert "Ready for: nothing yet." in answer.stdout
    row = of(benchctl("doctor", "--json", env=environment))["local", "compiler"]
    assert (row["state"], row["packages"]) == ("missing", ["g++"])


def test_what_is_named_llama_bench_but_is_none_is_passed_over(benchctl: Cli, tmp_path: Path) -> None:
    """A stranger's program of that name on PATH is reported with the reason, not used."""
    path = programs(tmp_path / "bin", "sh", "c++")
    (tmp_path / "bin/llama-bench").symlink_to(str(shutil.which("ls")))
    answer = benchctl("doctor", "--json", env={"PATH": path, "BENCHCTL_CACHE": str(tmp_path / "empty")})
    row = of(answer)["local", "llama-bench"]
    assert row["state"] == "warning"
    assert "is not a llama-bench" in row["found"]


def test_fix_without_a_compiler_prints_what_is_left_to_do(benchctl: Cli, tmp_path: Path) -> None:
    """It installs nothing behind the user's back, and does not try a build that can't work."""
    environment = {"PATH": programs(tmp_path / "bin", "sh"), "BENCHCTL_CACHE": str(tmp_path / "empty"), **NO_NETWORK}
    answer = benchctl("doctor", "--fix", env=environment)
    assert answer.returncode == 1
    assert "Left to do: " in answer.stdout
    assert "apt-get install cmake g++ ninja-build openssh-client" in answer.stdout


def test_fix_without_a_network_says_so_and_leaves_the_rest_ready(
    benchctl: Cli, tmp_path: Path, llama_bench: Path
) -> None:
    """Pulumi's engine can't be fetched: one sentence, no traceback, and what needs no engine is ready all the same."""
    path = programs(tmp_path / "bin", "sh")
    (tmp_path / "bin/llama-bench").symlink_to(llama_bench)
    environment = {"PATH": path, "BENCHCTL_CACHE": str(tmp_path / "empty"), "HOME": str(tmp_path), **NO_NETWORK}
    answer = benchctl("doctor", "--fix", env=environment)
    assert answer.returncode == 0, answer.stderr
    assert "Pulumi's installer could not be fetched" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "Left to do: install Pulumi's engine, https://www.pulumi.com/docs/install/" in answer.stdout


def test_the_engine_and_the_plugins_are_looked_for(home: Home, tmp_path: Path) -> None:
    """An engine that is too old is named with its version; a plugin is found where the engine keeps it, and on PATH."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "pulumi").write_text("#!/bin/sh\necho v3.100.0\n")
    (bin_ / "pulumi-resource-hcloud").write_text("#!/bin/sh\n")
    for program in bin_.iterdir():
        program.chmod(0o755)
    kept = tmp_path / "pulumi-home" / "plugins" / f"resource-azure-native-v{metadata.version('pulumi-azure-native')}"
    kept.mkdir(parents=True)
    environment = {"PATH": str(bin_), "HOME": str(tmp_path), "PULUMI_HOME": str(tmp_path / "pulumi-home")}
    found = {(f.vendor, f.check): f for f in doctor.examine(home, environment)}
    assert found["aws", "pulumi"].state is State.MISSING
    assert "is version 3.100.0; 3.181.0 or newer" in found["aws", "pulumi"].found
    assert "doctor --fix" in found["aws", "pulumi"].mend
    assert found["hetzner", "plugin"].found == str(bin_ / "pulumi-resource-hcloud")
    assert found["azure", "plugin"].found == str(kept)
    assert found["aws", "plugin"].state is State.WARNING
    assert f"pulumi plugin install resource aws v{metadata.version('pulumi-aws')}" in found["aws", "plugin"].mend
    assert found["lab", "plugin"].state is State.OK
    assert found["lab", "login"].state is State.MISSING
    assert "podman" in found["lab", "login"].mend


def test_a_vendor_whose_packages_are_not_installed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Provider and client are told apart, and the extra that brings both is named."""
    monkeypatch.setattr(ready, "there", lambda name: name != "boto3")
    found = {f.check: f for f in doctor.examine(home, {}) if f.vendor == "aws"}
    assert found["sdk"].state is State.OK
    assert found["client"].found == "boto3 is not installed"
    assert "pip install '.[aws]' (in benchctl's checkout)" in found["client"].mend


@pytest.mark.parametrize(("receipt", "way"), [("uv-receipt.toml", "uv tool"), ("pipx_metadata.json", "pipx")])
def test_an_extra_comes_the_way_benchctl_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receipt: str, way: str
) -> None:
    """From the checkout, and never by a name that anybody could register."""
    (tmp_path / receipt).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    said = extra_mend("gcp")
    assert f"{way} install" in said
    assert "'.[gcp]'" in said
    assert "benchctl[" not in said


def test_credentials_are_looked_for_and_never_shown(home: Home) -> None:
    """A set of variables that makes a login counts; half a set does not; no value is in any finding."""
    half = {"UPCLOUD_USERNAME": "someone", "HCLOUD_TOKEN": "s3cret-token"}
    found = {(f.vendor, f.check): f for f in doctor.examine(home, half)}
    assert found["hetzner", "login"].state is State.OK
    assert found["upcloud", "login"].state is State.MISSING
    whole = doctor.examine(home, {**half, "UPCLOUD_PASSWORD": "s3cret-word"})
    assert next(f for f in whole if (f.vendor, f.check) == ("upcloud", "login")).state is State.OK
    assert "s3cret" not in repr(whole)


@pytest.mark.parametrize("vendor", ["local", "ssh", *CLOUDS])
def test_every_vendor_has_findings_and_every_lack_its_mend(home: Home, vendor: str) -> None:
    """Nothing is reported missing without a word on how to mend it."""
    findings = [finding for finding in doctor.examine(home, {}) if finding.vendor == vendor]
    assert findings
    assert all(finding.mend for finding in findings if finding.state is State.MISSING)


def test_the_named_llama_bench_is_the_only_one_tried(home: Home, llama_bench: Path) -> None:
    """--llama-bench PATH wins over everything; when it is none, that is an error and not a reason to look elsewhere."""
    found = resolve(home, llama_bench, report=print)
    assert (found.origin, found.path) == (Origin.EXPLICIT, llama_bench)
    with pytest.raises(NotLlamaBenchError, match="is not a llama-bench"):
        resolve(home, str(shutil.which("ls")), report=print)
    with pytest.raises(NotLlamaBenchError, match="is not there"):
        resolve(home, "/nowhere/llama-bench", report=print)


def test_without_leave_to_build_the_error_says_how_to_get_one(home: Home) -> None:
    """Nothing is fetched or built where the caller only wants what is there."""
    if shutil.which("llama-bench"):
        pytest.skip("this machine has a llama-bench on PATH, which would be taken")
    with pytest.raises(EngineError, match="no llama-bench on this machine yet") as caught:
        resolve(home, report=print, allow_build=False)
    assert "doctor --fix" in caught.value.mend
    assert list(home.cache.iterdir()) == []
