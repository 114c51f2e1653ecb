"""What is chosen for a server at UpCloud, without UpCloud: plan, disk, image, firewall, login, and what titles say."""

from __future__ import annotations

import pytest
from benchctl.clouds.cloud import Cloud, CloudError, cloud_of
from benchctl.clouds.upcloud import (
    CLOUD,
    disk_size,
    disk_tier,
    disk_title,
    firewall_rules,
    plan,
    read_title,
    template,
)
from benchctl.clouds.upcloud_client import _labels, _time
from benchctl.refusals import Refusal
from emulation.specs import instance_spec


@pytest.mark.parametrize(
    ("kind", "spot", "expected"),
    [
        ("4xCPU-8GB", False, "4xCPU-8GB"),
        ("GPU-8xCPU-64GB-1xL40S", False, "GPU-8xCPU-64GB-1xL40S"),
        ("GPU-8xCPU-64GB-1xL40S", True, "GPU-SPOT-8xCPU-64GB-1xL40S"),
        ("GPU-SPOT-8xCPU-64GB-1xL40S", True, "GPU-SPOT-8xCPU-64GB-1xL40S"),
    ],
)
def test_plans(kind: str, spot: bool, expected: str) -> None:
    assert plan(instance_spec("upcloud", kind, "fi-hel2", spot=spot)) == expected


def test_there_is_a_spot_market_for_gpus_only() -> None:
    with pytest.raises(CloudError, match="UpCloud rents 4xCPU-8GB on demand only") as caught:
        plan(instance_spec("upcloud", "4xCPU-8GB", "de-fra1", spot=True))
    assert caught.value.refusal is Refusal.NOT_OFFERED


@pytest.mark.parametrize(
    ("kind", "tier"),
    [
        ("DEV-1xCPU-1GB-10GB", "standard"),
        ("DEV-2xCPU-16GB", "standard"),
        ("1xCPU-1GB", "maxiops"),
        ("CLOUDNATIVE-2xCPU-4GB", "maxiops"),
        ("HICPU-8xCPU-12GB", "maxiops"),
        ("GPU-8xCPU-64GB-1xL40S", "maxiops"),
    ],
)
def test_the_disk_is_of_the_kind_that_comes_with_the_plan(kind: str, tier: str) -> None:
    assert disk_tier(kind) == tier


@pytest.mark.parametrize(("wanted", "got"), [(5, 10), (75, 75), (4000, 2048)])
def test_the_disk_has_a_size_that_the_provider_takes(wanted: int, got: int) -> None:
    assert disk_size(instance_spec("upcloud", "4xCPU-8GB", "de-fra1", disk_gb=wanted)) == got


def test_images() -> None:
    assert template(instance_spec("upcloud", "x", "de-fra1")) == "Ubuntu Server 24.04 LTS (Noble Numbat)"
    debian = instance_spec("upcloud", "x", "de-fra1", image="debian-12")
    assert template(debian) == "Debian GNU/Linux 12 (Bookworm)"
    for wrong in ({"image": "windows"}, {"architecture": "arm64"}):
        with pytest.raises(CloudError) as caught:
            template(instance_spec("upcloud", "x", "de-fra1", **wrong))
        assert caught.value.refusal is Refusal.NOT_OFFERED


def test_a_disks_title_says_what_its_labels_would() -> None:
    spec = instance_spec("upcloud", "4xCPU-8GB", "de-fra1")
    title = disk_title(spec)
    assert len(title) <= 255
    assert read_title(title) == (f"{spec.name}-disk", dict(spec.labels))


def test_the_longest_labels_leave_a_title_that_upcloud_takes() -> None:
    labels = {"benchctl-sweep": "s" * 63, "benchctl-job": "j" * 63, "benchctl-expires": "1795656583"}
    spec = instance_spec("upcloud", "4xCPU-8GB", "de-fra1", name="n" * 60, labels=labels)
    assert len(disk_title(spec)) <= 255
    assert read_title(disk_title(spec))[1] == labels


@pytest.mark.parametrize(
    ("title", "name", "labels"),
    [
        ("benchctl-a-disk", "benchctl-a-disk", {}),
        ("My server OS disk", "My server OS disk", {}),
        ("", "", {}),
        ("benchctl-a-disk benchctl-sweep=s evil=1", "benchctl-a-disk", {"benchctl-sweep": "s"}),
    ],
)
def test_titles_of_others_are_left_as_they_are(title: str, name: str, labels: dict[str, str]) -> None:
    assert read_title(title) == (name, labels)


@pytest.mark.parametrize(
    ("ingress", "family", "start", "end"),
    [
        ("203.0.113.7/32", "IPv4", "203.0.113.7", "203.0.113.7"),
        ("203.0.113.9/29", "IPv4", "203.0.113.8", "203.0.113.15"),
        ("2001:db8::1/128", "IPv6", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_ssh_is_let_in_from_one_range(ingress: str, family: str, start: str, end: str) -> None:
    rules = firewall_rules(ingress)
    (login,) = [one for one in rules if one.get("destination_port_start") == "22"]
    assert (login["family"], login["source_address_start"], login["source_address_end"]) == (family, start, end)
    assert [one for one in rules if one["action"] == "accept" and "source_port_start" not in one] == [login]
    for one in rules:
        for what in ("source_address", "source_port", "destination_port"):
            assert (f"{what}_start" in one) == (f"{what}_end" in one), "ranges have both ends"
    assert rules[-1] == {"action": "drop", "direction": "in"}


def test_the_module_is_found_by_name_and_fulfils_the_protocol() -> None:
    cloud: Cloud = cloud_of("upcloud")
    assert cloud is CLOUD
    spec = instance_spec("upcloud", "4xCPU-8GB", "de-fra1")
    assert not cloud.limits_itself
    assert cloud.user(spec) == "root"
    assert cloud.shared_scope("de-fra1") is None
    assert [one.kind for one in cloud.resources(spec)] == ["server", "disk"]


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({}, "set UPCLOUD_TOKEN"),
        ({"UPCLOUD_USERNAME": "u"}, "set UPCLOUD_PASSWORD too"),
        ({"UPCLOUD_PASSWORD": "p"}, "set UPCLOUD_USERNAME too"),
        ({"UPCLOUD_USERNAME": "u", "UPCLOUD_PASSWORD": "p"}, ""),
        ({"UPCLOUD_TOKEN": "t"}, ""),
    ],
)
def test_what_is_missing_to_log_in(environment: dict[str, str], problem: str) -> None:
    said = CLOUD.login_problem(environment)
    assert problem in said
    assert bool(said) is bool(problem)


def test_labels_and_times_are_read_in_both_of_the_shapes_that_the_api_has() -> None:
    label = {"key": "benchctl-sweep", "value": "s"}
    assert _labels({"labels": {"label": [label]}}) == _labels({"labels": [label]}) == {"benchctl-sweep": "s"}
    assert _labels({}) == _labels({"labels": None}) == {}
    assert _time(1599136169) == _time("1599136169") == _time("2020-09-03T12:29:29Z") == 1599136169.0
    assert _time("soon") is None
    assert _time(None) is None
