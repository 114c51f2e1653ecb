"""Logins: whether there is any of a vendor, and that their files are found from every folder."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from benchctl.clouds.cloud import cloud_of
from benchctl.clouds.logins import make_absolute, some_login
from benchctl.clouds.ready import require_ready
from benchctl.errors import UsageError
from benchctl.ledger import JobState, Ledger
from benchctl.request import CLOUDS, SweepRequest
from llama_bench_core.suite import Suite

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from benchctl.home import Home

    Cli = Callable[..., subprocess.CompletedProcess[str]]

SUITE = Suite.from_dict({"name": "some", "models": ["m"], "scenarios": {"pp": {16: 2}}})


@pytest.mark.parametrize(
    ("vendor", "environment"),
    [
        ("aws", {"AWS_SECRET_ACCESS_KEY": "half"}),
        ("aws", {"AWS_SHARED_CREDENTIALS_FILE": "/no/such/file"}),
        ("gcp", {"GOOGLE_APPLICATION_CREDENTIALS": "/no/such/key.json"}),
        ("gcp", {"GOOGLE_CREDENTIALS": "{"}),
        ("gcp", {"GOOGLE_PROJECT": "mine"}),
        ("azure", {"ARM_CLIENT_ID": "half"}),
        ("azure", {"AZURE_TENANT_ID": "half"}),
        ("azure", {"ARM_USE_MSI": "true"}),
        ("hetzner", {"HCLOUD_TOKEN": " "}),
        ("upcloud", {"UPCLOUD_USERNAME": "half"}),
    ],
)
def test_half_a_login_is_one_that_is_broken(vendor: str, environment: dict[str, str]) -> None:
    """It is not enough to log in, and yet somebody meant to; none of it belongs to another vendor."""
    assert cloud_of(vendor).login_problem(environment)
    assert [name for name in CLOUDS if some_login(name, environment)] == [vendor]


@pytest.mark.parametrize(
    ("vendor", "names"),
    [
        ("aws", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]),
        ("gcp", ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_PROJECT"]),
        ("azure", ["ARM_CLIENT_ID", "ARM_CLIENT_SECRET", "ARM_TENANT_ID", "ARM_SUBSCRIPTION_ID"]),
        ("hetzner", ["HCLOUD_TOKEN"]),
        ("upcloud", ["UPCLOUD_TOKEN"]),
    ],
)
def test_without_a_login_all_is_named_that_has_to_be_set(vendor: str, names: list[str], tmp_path: Path) -> None:
    """In one form for all vendors, so that no second refusal follows on the first."""
    said = cloud_of(vendor).login_problem({"HOME": str(tmp_path)})
    assert said.startswith(f"{vendor}: no login found: set ")
    assert all(name in said for name in names)
    assert said.endswith(".")
    assert "GOOGLE_PROJECT" not in cloud_of("gcp").login_problem({"HOME": str(tmp_path), "GOOGLE_PROJECT": "mine"})


def test_what_is_missing_is_a_line_per_vendor(home: Home, tmp_path: Path) -> None:
    """Not one paragraph, in which the second vendor is easily missed."""
    with pytest.raises(UsageError) as refused:
        require_ready(home, CLOUDS[:5], {"HOME": str(tmp_path)})
    begun, *lines = str(refused.value).splitlines()
    assert begun == "Nothing was begun."
    assert [line.partition(": ")[0] for line in lines] == list(CLOUDS[:5])


def test_files_are_logins(tmp_path: Path) -> None:
    """Those of the vendors' own tools, which lie in the user's folder; not what ``az logout`` leaves."""
    environment = {"HOME": str(tmp_path)}
    assert not any(some_login(name, environment) for name in CLOUDS)
    for name, text in (
        (".aws/config", ""),
        (".config/gcloud/application_default_credentials.json", "{"),
        (".azure/azureProfile.json", '\ufeff{"subscriptions": []}'),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert [name for name in CLOUDS if some_login(name, environment)] == ["aws", "gcp"]
    (tmp_path / ".azure/azureProfile.json").write_text('{"subscriptions": [{"id": "1"}]}')
    assert some_login("azure", environment)


def test_paths_hold_good_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative ones are the user's folder's; absolute ones, and keys in the variable itself, stay as they are."""
    monkeypatch.chdir(tmp_path)
    environment = {
        "GOOGLE_APPLICATION_CREDENTIALS": "key.json",
        "AWS_CONFIG_FILE": "../config",
        "PULUMI_CONFIG_PASSPHRASE_FILE": "/etc/passphrase",
        "ARM_CLIENT_CERTIFICATE_PATH": "~/certificate.pem",
        "GOOGLE_CREDENTIALS": ' {"type": "service_account"}',
        "AWS_CA_BUNDLE": "",
        "AWS_PROFILE": "work",
    }
    monkeypatch.setenv("HOME", "/home/me")
    before = dict(environment)
    make_absolute(environment)
    assert environment == {
        **before,
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json"),
        "AWS_CONFIG_FILE": str(tmp_path.parent / "config"),
        "ARM_CLIENT_CERTIFICATE_PATH": "/home/me/certificate.pem",
    }


def test_what_a_detached_sweep_gets_is_absolute(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It runs in another folder: login, passphrase and database are those of the folder where it was asked for."""
    from benchctl import cli
    from benchctl.db.engine import open_database

    program, told = tmp_path / "python", tmp_path / "told.json"
    program.write_text(
        f"#!{sys.executable}\nimport json, os\nwith open({str(told)!r}, 'w') as file:\n"
        "    json.dump({'cwd': os.getcwd(), **os.environ}, file)\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr("benchctl.detach.sys.executable", str(program))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCHCTL_HOME", "state")
    monkeypatch.setenv("BENCHCTL_DB", "sqlite:///bench.db")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "key.json")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE_FILE", "pass")
    engine = open_database(home.database_url)
    request = SweepRequest(vendors=("gcp",), suite=SUITE, models=())
    Ledger.create(home, engine, request, [JobState("j", "gcp", "t", "h", lifetime_seconds=60)], sweep="s1")
    engine.dispose()
    with pytest.raises(SystemExit) as ended:
        cli.main(["sweep", "--resume", "s1", "--detach"])
    assert ended.value.code == 0, capfd.readouterr().err
    environment = json.loads(told.read_text())
    assert environment["cwd"] == "/"
    assert environment["GOOGLE_APPLICATION_CREDENTIALS"] == str(tmp_path / "key.json")
    assert environment["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(tmp_path / "pass")
    assert environment["BENCHCTL_DB"] == f"sqlite:///{tmp_path / 'bench.db'}"


def test_the_engine_gets_what_the_client_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchctl: Cli) -> None:
    """A key that is named by a relative path is looked for in the folder of the user, and named with it."""
    monkeypatch.chdir(tmp_path)
    done = benchctl(
        "reap", "--vendors", "gcp", "--json", env={"GOOGLE_APPLICATION_CREDENTIALS": "key.json", "GOOGLE_PROJECT": "p"}
    )
    assert done.returncode == 1
    assert f"{tmp_path / 'key.json'} can't be read" in json.loads(done.stdout)["not_asked"]["gcp"]
