"""Google Cloud's choices: disk, image, architecture, GPUs, scheduling, login."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from benchctl.clouds import gcp
from benchctl.clouds.boot import login_user
from benchctl.clouds.cloud import CloudError
from benchctl.errors import BenchctlError
from emulation.specs import instance_spec

if TYPE_CHECKING:
    from pathlib import Path

HYPERDISK = ("c4", "c4a", "c4d", "c4n", "n4", "n4a", "n4d", "a3", "a4", "a4x", "g4", "x4", "m4", "m4n", "h3", "h4d")
OLD = ("e2", "n1", "n2", "n2d", "t2a", "t2d", "c2", "c2d", "c3", "c3d", "m1", "m2", "m3", "z3", "g2", "a2", "f1", "g1")


@pytest.mark.parametrize("series", HYPERDISK)
def test_new_series_take_hyperdisks_alone(series: str) -> None:
    assert gcp.disk_type(f"{series}-standard-4") == "hyperdisk-balanced"


@pytest.mark.parametrize("series", OLD)
def test_older_series_take_persistent_disks(series: str) -> None:
    assert gcp.disk_type(f"{series}-highmem-2") == "pd-balanced"


@pytest.mark.parametrize(
    ("server_type", "catalogue", "ours"),
    [
        ("n2-standard-4", "x86_64", "X86_64"),
        ("t2a-standard-4", "arm64", "ARM64"),
        ("c4a-standard-4", "x86_64", "ARM64"),  # catalogues have said so
        ("n4a-standard-4", "x86_64", "ARM64"),
        ("a4x-highgpu-4g", "x86_64", "ARM64"),
        ("c4-standard-4", "x86_64", "X86_64"),
        ("z9-standard-4", "arm64", "ARM64"),  # of a series that is not known yet
    ],
)
def test_the_series_decides_the_architecture(server_type: str, catalogue: str, ours: str) -> None:
    assert gcp.architecture(instance_spec("gcp", server_type, "r", architecture=catalogue)) == ours


def test_images_are_of_the_architecture() -> None:
    spec = instance_spec("gcp", "t2a-standard-1", "r")
    assert gcp.image(spec) == "ubuntu-os-cloud/ubuntu-2404-lts-arm64"
    assert gcp.image(instance_spec("gcp", "e2-small", "r", image="debian-12")) == "debian-cloud/debian-12"
    with pytest.raises(BenchctlError, match="Google has no image 'windows'"):
        gcp.image(instance_spec("gcp", "e2-small", "r", image="windows"))


def test_only_n1_names_its_gpus() -> None:
    assert gcp.accelerators(instance_spec("gcp", "g2-standard-4", "r", gpus=1)) == ()
    assert gcp.accelerators(instance_spec("gcp", "n1-standard-8", "r")) == ()
    t4 = {"accelerator": "nvidia-tesla-t4"}
    assert gcp.accelerators(instance_spec("gcp", "n1-standard-8", "r", gpus=2, settings=t4)) == (
        ("nvidia-tesla-t4", 2),
    )
    with pytest.raises(BenchctlError, match="n1-standard-8 has GPUs only when their type is named"):
        gcp.accelerators(instance_spec("gcp", "n1-standard-8", "r", gpus=2))


@pytest.mark.parametrize("spot", [False, True])
def test_google_ends_it_when_its_time_is_over(spot: bool) -> None:
    spec = instance_spec("gcp", "g2-standard-4", "r", gpus=1, spot=spot)
    wanted = gcp.scheduling(spec, spec.expires_at - 5400)
    assert wanted["max_run_duration"] == {"seconds": 5400}
    assert wanted["instance_termination_action"] == "DELETE"
    assert (wanted["on_host_maintenance"], wanted["automatic_restart"]) == ("TERMINATE", False)
    assert wanted.get("preemptible", False) is spot
    assert wanted.get("provisioning_model", "STANDARD") == ("SPOT" if spot else "STANDARD")


def test_a_late_start_still_has_the_shortest_life_that_google_takes() -> None:
    spec = instance_spec("gcp", "g2-standard-4", "r")
    assert gcp.scheduling(spec, spec.expires_at + 100)["max_run_duration"]["seconds"] >= 30


def test_metadata_of_each_image() -> None:
    ubuntu = gcp.metadata(instance_spec("gcp", "e2-small", "r"))
    assert ubuntu["ssh-keys"].startswith("ubuntu:ssh-ed25519 ")
    assert ubuntu["user-data"].startswith("#cloud-config\n")
    assert "startup-script" not in ubuntu
    debian = gcp.metadata(instance_spec("gcp", "e2-small", "r", image="debian-12"))
    assert debian["ssh-keys"].startswith(f"{login_user('gcp', 'debian-12')}:ssh-ed25519 ")
    assert "user-data" not in debian
    assert debian["startup-script"].startswith("#!/bin/sh\n")


KEY = {"type": "service_account", "project_id": "of-the-key"}


def test_what_is_missing_to_log_in_is_one_sentence(tmp_path: Path) -> None:
    cloud = gcp.CLOUD
    assert "GOOGLE_APPLICATION_CREDENTIALS" in cloud.login_problem({})
    missing = cloud.login_problem({"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "none.json")})
    assert "can't be read" in missing
    (tmp_path / "bad.json").write_text("no json")
    assert "holds no login" in cloud.login_problem({"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "bad.json")})
    with pytest.raises(CloudError, match="no login found"):
        cloud.client({})


def test_secrets_are_in_no_sentence() -> None:
    secret = {**KEY, "private_key": "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n", "client_email": "a@b", "token_uri": "t"}
    problem = gcp.CLOUD.login_problem({"GOOGLE_CREDENTIALS": json.dumps(secret)})
    assert problem.startswith("Google's login can't be used")
    assert "c2VjcmV0" not in problem


def test_the_project_is_named_or_that_of_the_key(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text(json.dumps(KEY))
    assert gcp.project({"GOOGLE_APPLICATION_CREDENTIALS": str(file)}) == "of-the-key"
    assert gcp.project({"GOOGLE_CREDENTIALS": json.dumps(KEY)}) == "of-the-key"
    assert gcp.project({"GOOGLE_CLOUD_PROJECT": "named", "GOOGLE_CREDENTIALS": json.dumps(KEY)}) == "named"
    assert gcp.project({}) == ""


def test_the_engine_gets_the_login_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "gcloud"
    folder.mkdir(parents=True)
    (folder / "application_default_credentials.json").write_text(json.dumps({**KEY, "quota_project_id": "q"}))
    passed = gcp.CLOUD.engine_environment(
        {"HOME": str(tmp_path), "GOOGLE_CLOUD_PROJECT": "p", "HCLOUD_TOKEN": "secret"}
    )
    assert passed == {
        "GOOGLE_APPLICATION_CREDENTIALS": str(folder / "application_default_credentials.json"), "GOOGLE_PROJECT": "p"
    }  # fmt: skip


def test_a_zone_is_needed() -> None:
    with pytest.raises(BenchctlError, match="no zone was chosen"):
        gcp.CLOUD.program(instance_spec("gcp", "e2-small", "us-central1"), {"network": "n", "tag": "t"})


def test_names_are_told_before_and_differ() -> None:
    from emulation.specs import shared_spec

    shared, spec = shared_spec("gcp"), instance_spec("gcp", "e2-small", "r")
    names = [one.name for one in (*gcp.CLOUD.shared_resources(shared), *gcp.CLOUD.resources(spec))]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for name in names)
