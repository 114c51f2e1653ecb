"""What is chosen for a server at AWS, without AWS: image, architecture, zone, tags, login."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds import aws_client
from benchctl.clouds.aws import (
    CLOUD,
    architecture,
    family_architecture,
    image_query,
    subnet_query,
    tags,
)
from benchctl.clouds.cloud import Cloud, CloudError, cloud_of
from benchctl.refusals import Refusal
from emulation.specs import instance_spec, shared_spec

if TYPE_CHECKING:
    from pathlib import Path

ARM = """
a1 t4g m6g m6gd m7g m7gd m8g m8gd c6g c6gd c6gn c7g c7gd c7gn c8g c8gd c8gn r6g r6gd r7g r7gd r8g r8gd x2gd x8g
i4g i7g i8g i8ge im4gn is4gen g5g hpc7g mac2 mac2-m2pro p6e-gb200
"""
X86 = """
t2 t3 t3a m4 m5 m5a m5ad m5d m5dn m5n m5zn m6a m6i m6id m6idn m6in m7a m7i m7i-flex m8a m8i c4 c5 c5a c5ad c5d c5n
c6a c6i c6id c6in c7a c7i c7i-flex r5 r5b r6a r6i r7iz x1 x1e x2idn x2iedn x2iezn z1d u-6tb1 u-18tb1 u7i-6tb
u7in-16tb i3 i3en i4i i7i i7ie d2 d3 d3en h1 f1 f2 g3 g3s g4ad g4dn g5 g6 g6e g6f gr6 gr6f p2 p3 p3dn p4d p4de p5
p5e p5en p6-b200 dl1 dl2q trn1 trn1n trn2 inf1 inf2 vt1 hpc6a hpc6id hpc7a mac1
"""


@pytest.mark.parametrize("family", ARM.split())
def test_arm_families(family: str) -> None:
    assert family_architecture(f"{family}.2xlarge") == "arm64"


@pytest.mark.parametrize("family", X86.split())
def test_x86_families(family: str) -> None:
    assert family_architecture(f"{family}.2xlarge") == "x86_64"


def test_the_families_are_those_that_aws_says() -> None:
    """Moto's recording of DescribeInstanceTypes: every family that can run Linux."""
    types = pytest.importorskip("moto.ec2.models.instance_types").INSTANCE_TYPES
    wrong = {
        name
        for name, known in types.items()
        if family_architecture(name) not in known["ProcessorInfo"]["SupportedArchitectures"]
        and not name.startswith("mac")
    }
    assert len(types) > 700
    assert wrong == set()


@pytest.mark.parametrize(
    ("said", "kind", "expected"),
    [
        ("x86_64", "m8g.large", "x86_64"),  # the catalogue is the vendor's own word
        ("I386", "t2.micro", "x86_64"),
        ("arm64", "m7i.large", "arm64"),
        ("ARM64", "a1.large", "arm64"),
        ("", "c8gn.large", "arm64"),
        ("", "g6e.xlarge", "x86_64"),
    ],
)
def test_the_catalogue_says_the_architecture_and_the_name_where_it_does_not(
    said: str, kind: str, expected: str
) -> None:
    assert architecture(instance_spec("aws", kind, "us-east-1", architecture=said)) == expected


@pytest.mark.parametrize(
    ("image", "said", "owner", "name"),
    [
        ("ubuntu-24.04", "x86_64", "099720109477", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"),
        ("ubuntu-24.04", "arm64", "099720109477", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-*"),
        ("debian-12", "x86_64", "136693071363", "debian-12-amd64-*"),
        ("debian-12", "arm64", "136693071363", "debian-12-arm64-*"),
    ],
)
def test_images(image: str, said: str, owner: str, name: str) -> None:
    found, filters = image_query(instance_spec("aws", "x", "us-east-1", image=image, architecture=said))
    assert (found, filters["name"], filters["architecture"]) == (owner, name, said)


def test_an_image_that_is_not_known_is_one_sentence() -> None:
    with pytest.raises(
        CloudError, match=r"'windows' is no boot image for AWS\. Images: ubuntu-24\.04, debian-12"
    ) as caught:
        image_query(instance_spec("aws", "m7i.large", "us-east-1", image="windows"))
    assert caught.value.refusal is Refusal.NOT_OFFERED


def test_zones_go_by_name_or_by_identifier() -> None:
    assert subnet_query("us-east-1a") == {"default-for-az": "true", "availability-zone": "us-east-1a"}
    assert subnet_query("use1-az4") == {"default-for-az": "true", "availability-zone-id": "use1-az4"}
    assert "availability-zone" in subnet_query("us-east-1-bos-1a"), "a local zone has a name, too"


def test_the_module_is_found_by_name_and_fulfils_the_protocol() -> None:
    cloud: Cloud = cloud_of("aws")
    assert cloud is CLOUD
    assert cloud.limits_itself
    spec, shared = instance_spec("aws", "m7i.large", "us-east-1"), shared_spec("aws", "us-east-1")
    assert cloud.user(spec) == "ubuntu"
    assert cloud.user(instance_spec("aws", "m7i.large", "us-east-1", image="debian-12")) == "admin"
    assert cloud.shared_scope("us-east-1") == "us-east-1"
    names = [one.name for one in (*cloud.resources(spec), *cloud.shared_resources(shared))]
    assert len(set(names)) == len(names)
    assert all(one.startswith("benchctl-") for one in names)
    assert cloud.resources(spec)[0].name == spec.name
    assert tags(spec, "benchctl-x") == {**spec.labels, "Name": "benchctl-x"}


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({}, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"),
        ({"AWS_ACCESS_KEY_ID": "AKIA"}, "set AWS_SECRET_ACCESS_KEY too"),
        ({"AWS_SECRET_ACCESS_KEY": "x"}, "set AWS_ACCESS_KEY_ID too"),
        ({"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "x"}, ""),
        ({"AWS_PROFILE": "work"}, ""),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_ROLE_ARN": "arn"}, ""),
    ],
)
def test_what_is_missing_to_log_in(tmp_path: Path, environment: dict[str, str], problem: str) -> None:
    said = CLOUD.login_problem({"HOME": str(tmp_path), **environment})
    assert problem in said
    assert bool(said) is bool(problem)


def test_a_credentials_file_is_a_login(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]\n")
    assert not CLOUD.login_problem({"HOME": str(tmp_path)})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("[default]\n")
    assert not CLOUD.login_problem({"HOME": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": str(elsewhere)})


def test_the_engine_gets_aws_own_variables_and_no_other() -> None:
    given = {"AWS_PROFILE": "work", "AWS_REGION": "eu-west-1", "HCLOUD_TOKEN": "x", "LAWS_X": "y", "PATH": "/bin"}
    assert CLOUD.engine_environment(given) == {"AWS_PROFILE": "work", "AWS_REGION": "eu-west-1"}


def test_a_profile_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    nothing = str(tmp_path / "none")
    client = aws_client.AwsClient(
        {"AWS_PROFILE": "no-such", "AWS_CONFIG_FILE": nothing, "AWS_SHARED_CREDENTIALS_FILE": nothing}, ("us-east-1",)
    )
    with pytest.raises(CloudError, match="no-such") as caught:
        client.whoami()
    assert caught.value.refusal is Refusal.ACCOUNT


def test_what_ec2_lists_is_read() -> None:
    """Rows as the API reference shows them; terminated instances and closed requests are left out."""
    when = datetime(2026, 11, 26, tzinfo=UTC)

    def instance(state: str, **more: Any) -> dict[str, Any]:
        return {"InstanceId": f"i-{state}", "State": {"Name": state}, "LaunchTime": when, **more}

    page = {"Reservations": [{"Instances": [instance("running"), instance("terminated"), instance("shutting-down")]}]}
    assert [one["id"] for one in aws_client._servers(page)] == ["i-running", "i-shutting-down"]
    requests = [{"SpotInstanceRequestId": f"sir-{one}", "State": one} for one in ("open", "active", "closed", "failed")]
    found = list(aws_client._spot_requests({"SpotInstanceRequests": requests}, {}))
    assert [one["id"] for one in found] == ["sir-open", "sir-active"]
    (disk,) = aws_client._disks(
        {"Volumes": [{"VolumeId": "vol-1", "State": "in-use", "Attachments": [{"State": "attached"}]}]}
    )
    assert disk["attached"]
    (address,) = aws_client._addresses({"Addresses": [{"PublicIp": "198.51.100.1", "AllocationId": "eipalloc-1"}]})
    assert (address["id"], address["attached"]) == ("eipalloc-1", False)
