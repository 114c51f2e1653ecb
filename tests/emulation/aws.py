"""AWS, emulated: moto keeps what exists and answers EC2's and STS's API; nobody asked AWS.

moto (https://docs.getmoto.org) takes much that EC2 refuses. What it should refuse stands in :data:`RULES` here, in
EC2's words as other people met them, or in those of terraform-provider-aws. Between the client and moto stands a proxy,
which checks the login, cuts lists into pages, lets them lag and lets the test's faults strike.
"""

from __future__ import annotations

import fnmatch
import http.client
import ipaddress
import json
import logging
import os
import re
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree

from emulation import cloudinit, faults
from emulation.faults import Call
from emulation.refusals import Refused, Rule, first
from emulation.store import PAGE, Store, Thing
from emulation.vendor import Request, Response, Vendor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REGIONS = ("us-east-1", "eu-west-1", "eu-north-1")
"""Enabled in the emulated account."""

WITHOUT_DEFAULT_VPC = "eu-north-1"
NOT_OPTED_INTO = "me-south-1"

ACCOUNT = "123456789012"  # moto's
XMLNS = "http://ec2.amazonaws.com/doc/2016-11-15/"

INSTANCE, GROUP = "aws:ec2/instance:Instance", "aws:ec2/securityGroup:SecurityGroup"
KEY = "aws:ec2/keyPair:KeyPair"
INGRESS, EGRESS = (f"aws:vpc/securityGroup{one}Rule:SecurityGroup{one}Rule" for one in ("Ingress", "Egress"))
KINDS = {INSTANCE: "server", GROUP: "firewall", KEY: "key", INGRESS: "rule", EGRESS: "rule"}

OPERATIONS = {
    INSTANCE: ("creating EC2 Instance", "RunInstances"),
    GROUP: ("creating Security Group ({name})", "CreateSecurityGroup"),
    KEY: ("importing EC2 Key Pair ({name})", "ImportKeyPair"),
    INGRESS: ("creating VPC Security Group Rule", "AuthorizeSecurityGroupIngress"),
    EGRESS: ("creating VPC Security Group Rule", "AuthorizeSecurityGroupEgress"),
}
"""How the provider introduces an error, and the API's operation: terraform-provider-aws, internal/service/ec2."""

LISTS: Mapping[str, tuple[str, str, str]] = {
    "DescribeInstances": ("server", "reservationSet", "instancesSet/item/instanceId"),
    "DescribeVolumes": ("disk", "volumeSet", "volumeId"),
    "DescribeNetworkInterfaces": ("interface", "networkInterfaceSet", "networkInterfaceId"),
    "DescribeSecurityGroups": ("firewall", "securityGroupInfo", "groupId"),
    "DescribeKeyPairs": ("key", "keySet", "keyPairId"),
    "DescribeAddresses": ("address", "addressesSet", "allocationId"),
    "DescribeSpotInstanceRequests": ("spot-request", "spotInstanceRequestSet", "spotInstanceRequestId"),
}
"""Kind, element of the list, and where the identifier is in a row."""

UNPAGED = ("DescribeKeyPairs", "DescribeAddresses")

DELETES = {
    "TerminateInstances": ("server", "InstanceId.1"),
    "DeleteVolume": ("disk", "VolumeId"),
    "DeleteNetworkInterface": ("interface", "NetworkInterfaceId"),
    "DeleteSecurityGroup": ("firewall", "GroupId"),
    "DeleteKeyPair": ("key", "KeyPairId"),
    "ReleaseAddress": ("address", "AllocationId"),
    "CancelSpotInstanceRequests": ("spot-request", "SpotInstanceRequestId.1"),
}

_NOBLE = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04"
_CANONICAL, _DEBIAN, _SOMEBODY = "099720109477", "136693071363", "000000000001"

IMAGES = tuple(
    {
        "ami_id": f"ami-{number:017x}", "name": name, "description": name, "owner_id": owner, "public": True,
        "virtualization_type": "hvm", "architecture": architecture, "state": "available", "platform": None,
        "image_type": "machine", "hypervisor": "xen", "root_device_name": "/dev/sda1", "root_device_type": "ebs",
        "sriov": "simple", "tags": {}, "creation_date": made,
    }
    for number, (owner, name, architecture, made) in enumerate(
        (
            (_CANONICAL, f"{_NOBLE}-amd64-server-20260801", "x86_64", "2026-08-01T00:00:00.000Z"),
            (_CANONICAL, f"{_NOBLE}-amd64-server-20261101", "x86_64", "2026-11-01T00:00:00.000Z"),
            (_CANONICAL, f"{_NOBLE}-arm64-server-20261101", "arm64", "2026-11-01T00:00:00.000Z"),
            (_DEBIAN, "debian-12-amd64-20261001-2252", "x86_64", "2026-10-01T00:00:00.000Z"),
            (_DEBIAN, "debian-12-arm64-20261001-2252", "arm64", "2026-10-01T00:00:00.000Z"),
            (_SOMEBODY, f"{_NOBLE}-amd64-server-29990101", "x86_64", "2026-11-20T00:00:00.000Z"),
        ),
        start=0xBE0C,
    )
)  # fmt: skip
"""The images there are; the last is one that somebody else made up to be found by its name."""

SNAPSHOT_GB = 8
VOLUME_TYPES = ("gp2", "gp3", "io1", "io2", "sc1", "st1", "standard")

_PROVIDER = "https://github.com/hashicorp/terraform-provider-aws/blob/main/internal/service/ec2"
_CODES = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html"
_MOTO = "moto/ec2/exceptions.py"


def _root(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    return inputs.get("rootBlockDevice") or {}


def _architectures(inputs: Mapping[str, Any]) -> list[str]:
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    found = INSTANCE_TYPES.get(str(inputs.get("instanceType")), {})
    return list(found.get("ProcessorInfo", {}).get("SupportedArchitectures", ()))


def _image_architecture(inputs: Mapping[str, Any]) -> str:
    return next((str(one["architecture"]) for one in IMAGES if one["ami_id"] == inputs.get("ami")), "")


def _not_in_zone(vendor: Aws, inputs: Mapping[str, Any]) -> bool:
    zone = vendor.place(INSTANCE, inputs)
    return bool(re.fullmatch(r".*\d[a-z]", zone)) and inputs.get("instanceType") not in _offered(zone)


def _offered(zone: str) -> set[str]:
    from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS

    offers = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(zone[:-1], ())
    return {one["InstanceType"] for one in offers if one["Location"] == zone}


def _zones_with(vendor: Aws, inputs: Mapping[str, Any]) -> str:
    region = vendor.region()
    return ", ".join(f"{region}{at}" for at in "abcdef" if inputs.get("instanceType") in _offered(f"{region}{at}"))


def _tags(inputs: Mapping[str, Any]) -> Mapping[str, str]:
    return inputs.get("tags") or {}


def _no_network(text: str) -> bool:
    try:
        ipaddress.IPv4Network(text)
    except ValueError:
        return True
    return False


RULES: tuple[Rule, ...] = (
    # before the API is asked, by the provider
    Rule(
        "volume-type", INSTANCE,
        lambda _, inputs: _root(inputs).get("volumeType", "gp3") not in VOLUME_TYPES,
        "expected root_block_device.0.volume_type to be one of [{types}], got {volumeType}",
        f"{_PROVIDER}/ec2_instance.go, volume_type (enum.Validate; words: validation.StringInSlice of the plugin SDK)",
        values=lambda _, inputs: {"types": " ".join(f'"{one}"' for one in VOLUME_TYPES), **_root(inputs)},
        property="rootBlockDevice",
    ),
    Rule(
        "shutdown-behaviour", INSTANCE,
        lambda _, inputs: inputs.get("instanceInitiatedShutdownBehavior", "stop") not in ("stop", "terminate"),
        'expected instance_initiated_shutdown_behavior to be one of ["stop" "terminate"], got {behaviour}',
        f"{_PROVIDER}/ec2_instance.go, instance_initiated_shutdown_behavior; words: validation.StringInSlice",
        values=lambda _, inputs: {"behaviour": inputs["instanceInitiatedShutdownBehavior"]},
        property="instanceInitiatedShutdownBehavior",
    ),
    Rule(
        "group-name-like-an-id", GROUP,
        lambda _, inputs: str(inputs.get("name")).startswith("sg-"),
        "invalid value for name (cannot begin with sg-)",
        f"{_PROVIDER}/vpc_security_group.go, name (StringDoesNotMatch)",
        property="name",
    ),
    Rule(
        "cidr-no-network", INGRESS,
        lambda _, inputs: bool(inputs.get("cidrIpv4")) and _no_network(inputs["cidrIpv4"]),
        "Attribute cidr_ipv4 value must be a valid IPv4 CIDR that represents a network address, got: {cidrIpv4}",
        "https://github.com/hashicorp/terraform-provider-aws, internal/framework/validators/cidr_test.go",
        property="cidrIpv4",
    ),
    # by the API
    Rule(
        "type-unknown", INSTANCE,
        lambda _, inputs: not _architectures(inputs),
        "Invalid value '{instanceType}' for InstanceType.",
        "public programs that quote EC2: \"(InvalidParameterValue) .. Invalid value '..' for InstanceType.\"",
        "InvalidParameterValue",
    ),
    Rule(
        "architecture", INSTANCE,
        lambda _, inputs: _image_architecture(inputs) not in ("", *_architectures(inputs)),
        "The architecture '{of_type}' of the specified instance type does not match the architecture '{of_image}' of "
        "the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again. You "
        "can use 'describe-instance-types' or 'describe-images' to discover the architecture of the instance type or "
        "AMI.",
        "public Terraform code that quotes EC2: \"creating EC2 Instance: InvalidParameterValue: The architecture ...\"",
        "InvalidParameterValue",
        values=lambda _, inputs: {
            "of_type": ",".join(_architectures(inputs)), "of_image": _image_architecture(inputs)
        },
    ),
    Rule(
        "type-not-in-zone", INSTANCE, _not_in_zone,
        "Your requested instance type ({type}) is not supported in your requested Availability Zone ({zone}). Please "
        "retry your request by not specifying an Availability Zone or choosing {others}.",
        "public programs that quote EC2; the code: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/"
        "troubleshooting-launch.html. Which zone has which type is moto's recording of AWS",
        "Unsupported",
        values=lambda vendor, inputs: {
            "type": inputs["instanceType"], "zone": vendor.place(INSTANCE, inputs),
            "others": _zones_with(vendor, inputs),
        },
    ),
    Rule(
        "disk-too-small", INSTANCE,
        lambda _, inputs: _root(inputs).get("volumeSize", SNAPSHOT_GB) < SNAPSHOT_GB,
        "Volume of size {volumeSize}GB is smaller than snapshot 'snap-0e1a6f0b4b1c', expect size >= 8GB",
        "public Terraform code that quotes EC2: \"InvalidBlockDeviceMapping: Volume of size 20GB is smaller than ...\"",
        "InvalidBlockDeviceMapping",
        values=lambda _, inputs: _root(inputs),
    ),
    Rule(
        "user-data-too-long", INSTANCE,
        lambda _, inputs: len(str(inputs.get("userData") or "").encode()) > 16384,
        "User data is limited to 16384 bytes",
        "EC2 user guide, user data; public documentation that quotes EC2: \"InvalidParameterValue: User data is ...\"",
        "InvalidParameterValue",
    ),
    Rule(
        "tag-reserved", INSTANCE,
        lambda _, inputs: any(key.startswith("aws:") for key in _tags(inputs)),
        "Tag keys starting with 'aws:' are reserved for internal use",
        "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions",
        "InvalidParameterValue",
    ),
    Rule(
        "tags-too-many", INSTANCE,
        lambda _, inputs: len(_tags(inputs)) > 50,
        "The maximum number of Tags for a resource has been reached.",
        f"{_MOTO}, TagLimitExceeded; EC2 user guide, tag restrictions: 50",
        "TagLimitExceeded",
    ),
    Rule(
        "group-not-found", INSTANCE,
        lambda vendor, inputs: any(
            vendor.store.get("firewall", one) is None for one in inputs.get("vpcSecurityGroupIds") or ()
        ),
        "The security group '{missing}' does not exist",
        f"{_MOTO}, InvalidSecurityGroupNotFoundError; {_CODES}",
        "InvalidGroup.NotFound",
        values=lambda vendor, inputs: {
            "missing": next(one for one in inputs["vpcSecurityGroupIds"] if not vendor.store.get("firewall", one))
        },
    ),
    Rule(
        "key-not-found", INSTANCE,
        lambda vendor, inputs: bool(inputs.get("keyName"))
        and all(one.name != inputs["keyName"] for one in vendor.store.alive("key")),
        "The key pair '{keyName}' does not exist",
        f"{_MOTO}, InvalidKeyPairNameError; {_CODES}",
        "InvalidKeyPair.NotFound",
    ),
    Rule(
        "key-twice", KEY,
        lambda vendor, inputs: (inputs.get("keyName"), vendor.region())
        in [(one.name, one.data["region"]) for one in vendor.store.alive("key")],
        "The keypair already exists",
        "public notes that quote the provider: \"importing EC2 Key Pair (..): .. InvalidKeyPair.Duplicate: The ..\"",
        "InvalidKeyPair.Duplicate",
    ),
    Rule(
        "key-format", KEY,
        lambda _, inputs: not re.match(r"(ssh-ed25519|ssh-rsa) [A-Za-z0-9+/=]{40,}", str(inputs.get("publicKey"))),
        "Key is not in valid OpenSSH public key format",
        f"{_MOTO}, InvalidKeyPairFormatError; {_CODES}",
        "InvalidKey.Format",
    ),
    Rule(
        "group-twice", GROUP,
        lambda vendor, inputs: (inputs.get("name"), vendor.region())
        in [(one.name, one.data["region"]) for one in vendor.store.alive("firewall")],
        "The security group '{name}' already exists for VPC '{vpcId}'",
        f"{_CODES}, InvalidGroup.Duplicate",
        "InvalidGroup.Duplicate",
    ),
    Rule(
        "group-description", GROUP,
        lambda _, inputs: not str(inputs.get("description")).isascii(),
        "Value ({description}) for parameter GroupDescription is invalid. Character sets beyond ASCII are not "
        "supported.",
        "public notes that quote the provider: \"creating Security Group (..): api error InvalidParameterValue: ..\"",
        "InvalidParameterValue",
    ),
)  # fmt: skip

IN_USE = "resource {id} has a dependent object"
"""With the code DependencyViolation: EC2's API reference, errors of DeleteSecurityGroup."""


_WORDS = {
    # recorded by Spare Cores' inspector, April 2025: tests/cases/refusals/vendors.yml
    faults.QUOTA: (
        "VcpuLimitExceeded",
        400,
        (
            "You have requested more vCPU capacity than your current vCPU limit of 0 allows for the instance bucket "
            "that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request "
            "to request an adjustment to this limit."
        ),
    ),
    # EC2 user guide, troubleshooting launch
    faults.STOCK: (
        "InsufficientInstanceCapacity",
        500,
        (
            "We currently do not have sufficient {type} capacity in the Availability Zone you requested ({zone}). Our "
            "system will be working on provisioning additional capacity."
        ),
    ),
    faults.THROTTLED: ("RequestLimitExceeded", 503, "Request limit exceeded."),  # _CODES
    faults.UNAUTHORIZED: (
        "AuthFailure",
        401,
        "AWS was not able to validate the provided access credentials",
    ),  # _CODES
    # https://github.com/aws/karpenter-provider-aws/issues/7370
    faults.DENIED: (
        "UnauthorizedOperation",
        403,
        (
            "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/u is not "
            "authorized to perform: {action} on resource: r with an explicit deny in a service control policy. "
            "Encoded authorization failure message: g4oZ"
        ),
    ),
    faults.OUTAGE: ("Unavailable", 503, "The service is unavailable. Please try again shortly."),  # _CODES
    # terraform-plugin-sdk, retry.StateChangeConf
    faults.TIMEOUT: (
        "",
        0,
        (
            "waiting for EC2 Instance (i-0) create: timeout while waiting for state to become 'running' (last state: "
            "'pending', timeout: 5m0s)"
        ),
    ),
}
_SPOT_QUOTA = ("MaxSpotInstanceCountExceeded", 400, "Max spot instance count exceeded")  # EC2 user guide


class Moto:
    """moto in this process, started when it is first needed: it takes seconds to load."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: Any = None
        self._clients: dict[str, Any] = {}
        self.address: tuple[str, int] = ("", 0)

    def started(self) -> Moto:
        """It runs."""
        with self._lock:
            if self._server is None:
                images = Path(tempfile.mkdtemp(prefix="moto-")) / "images.json"
                images.write_text(json.dumps(IMAGES))
                os.environ["MOTO_AMIS_PATH"] = str(images)  # read when moto is imported
                import moto.ec2.models
                from moto.server import ThreadedMotoServer

                assert len(moto.ec2.models.amis.AMIS) == len(IMAGES)
                images.unlink()
                images.parent.rmdir()
                logging.getLogger("werkzeug").setLevel(logging.ERROR)
                self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
                self._server.start()
                self.address = self._server.get_host_and_port()
        return self

    def client(self, region: str) -> Any:
        """EC2 in a region, as moto has it."""
        import boto3

        self.started()
        with self._lock:
            if region not in self._clients:
                self._clients[region] = boto3.client(
                    "ec2", region_name=region, endpoint_url=f"http://{self.address[0]}:{self.address[1]}",
                    aws_access_key_id="moto", aws_secret_access_key="moto",  # noqa: S106
                )  # fmt: skip
            return self._clients[region]

    def backend(self, region: str) -> Any:
        """What moto keeps of a region."""
        self.started()
        from moto.ec2.models import ec2_backends

        return ec2_backends[ACCOUNT][region]

    def reset(self) -> None:
        """Forget everything."""
        if self._server is not None:
            for region in self._clients:
                self.backend(region).reset()

    def close(self) -> None:
        """End."""
        if self._server is not None:
            self._server.stop()


class MotoStore(Store):
    """What our programs made, as far as moto still has it."""

    def __init__(self, moto: Moto) -> None:
        super().__init__()
        self._moto = moto

    def alive(self, kind: str = "") -> list[Thing]:
        return [one for one in super().alive(kind) if self._exists(one)]

    def clear(self) -> None:
        super().clear()
        self._moto.reset()

    def _exists(self, thing: Thing) -> bool:
        there = self._still_there(thing)
        if not there:
            self.remove(thing)
        return there

    def _still_there(self, thing: Thing) -> bool:
        backend = self._moto.backend(thing.data["region"])
        if thing.kind == "server":
            return any(one.id == thing.id and one.state != "terminated" for one in backend.all_instances())
        if thing.kind == "disk":
            return thing.id in backend.volumes
        if thing.kind == "interface":
            return thing.id in backend.enis
        if thing.kind == "firewall":
            return backend.get_security_group_from_id(thing.id) is not None
        if thing.kind == "key":
            return any(one.id == thing.id for one in backend.key_pairs.values())
        if thing.kind == "spot-request":
            server = self.get("server", thing.data["server"])
            return server is not None and thing.data["state"] == "active"
        return True


class Aws(Vendor):
    """See the module."""

    name = "aws"
    package = "aws"

    KEY_ID, SECRET = "AKIAEMULATED00000000", "emulated-secret"

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._moto = Moto()
        self.store = MotoStore(self._moto)
        self._pages: dict[tuple[str, ...], set[str]] = {}

    def close(self) -> None:
        self._moto.close()

    def variables(self, url: str, folder: Path) -> dict[str, str]:
        nothing = folder / "aws-no-file"
        return {
            "AWS_ACCESS_KEY_ID": self.KEY_ID, "AWS_SECRET_ACCESS_KEY": self.SECRET, "AWS_ENDPOINT_URL_EC2": url,
            "AWS_ENDPOINT_URL_STS": url, "AWS_CONFIG_FILE": str(nothing), "AWS_SHARED_CREDENTIALS_FILE": str(nothing),
        }  # fmt: skip

    # -- the engine ---------------------------------------------------------------------------------------------------

    def region(self) -> str:
        """Where the provider that calls works."""
        settings, environment = self.world.login
        return str(settings.get("region") or environment.get("AWS_REGION") or REGIONS[0])

    def calls_from(self) -> str:
        return self.region()

    def configure(self, settings: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        del settings
        if not environment.get("AWS_ACCESS_KEY_ID"):
            # https://github.com/hashicorp/aws-sdk-go-base, internal/awsconfig; terraform-provider-aws shows it so
            raise Refused("No valid credential sources found. Please see https://www.pulumi.com/registry/packages/aws/")
        # the provider asks the region's own STS, which knows no keys of an account that has not opted into the region:
        # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_enable-regions.html
        if environment["AWS_ACCESS_KEY_ID"] != self.KEY_ID or self.region() not in REGIONS:
            raise Refused(
                "validating provider credentials: retrieving caller identity from STS: operation error STS: "
                "GetCallerIdentity, https response error StatusCode: 403, RequestID: 0, api error "
                "InvalidClientTokenId: The security token included in the request is invalid."
            )

    def kind_of(self, token: str) -> str:
        return KINDS[token]

    def place(self, token: str, inputs: Mapping[str, Any]) -> str:
        region = self.region()
        if token == INSTANCE and inputs.get("subnetId"):
            for subnet in self._subnets(region):
                if subnet["SubnetId"] == inputs["subnetId"]:
                    return str(subnet["AvailabilityZone"])
        return region

    def name_of(self, token: str, inputs: Mapping[str, Any]) -> str:  # noqa: ARG002
        return str(inputs.get("keyName") or inputs.get("name") or _tags(inputs).get("Name") or "")

    def check(self, token: str, inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
        if token not in KINDS:
            return []
        refused = first(RULES, self, token, inputs, check=True)
        return [(refused.property, refused.text)] if refused else []

    def create(self, token: str, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        what, operation = OPERATIONS[token]
        introduced = f"{what.format(name=self.name_of(token, inputs))}: operation error EC2: {operation}"
        self._moto.started()  # before a rule looks a type up, which imports moto, and with it images of moto's own
        with self.store.lock:
            if refused := first(RULES, self, token, inputs, check=False):
                refused.text = f"{introduced}|{refused.text}"
                raise refused
            if token != INSTANCE:
                return self._make(token, inputs)
            made = self._launch(inputs)
        return self._booted(made, inputs)

    def _make(self, token: str, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        region = self.region()
        ec2, tagged = self._moto.client(region), _listed(_tags(inputs))
        if token == KEY:
            made = ec2.import_key_pair(
                KeyName=inputs["keyName"], PublicKeyMaterial=str(inputs["publicKey"]).encode(),
                TagSpecifications=_specification("key-pair", tagged),
            )  # fmt: skip
            self.store.add("key", made["KeyPairId"], inputs["keyName"], region=region, labels=_tags(inputs))
            return str(inputs["keyName"]), {"keyPairId": made["KeyPairId"]}
        if token == GROUP:
            made = ec2.create_security_group(
                GroupName=inputs["name"], Description=inputs["description"], VpcId=inputs["vpcId"],
                TagSpecifications=_specification("security-group", tagged),
            )  # fmt: skip
            ec2.revoke_security_group_egress(  # as the provider does
                GroupId=made["GroupId"], IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
            )
            self.store.add("firewall", made["GroupId"], inputs["name"], region=region, labels=_tags(inputs))
            return made["GroupId"], {}
        permission = {
            "IpProtocol": inputs["ipProtocol"], "FromPort": int(inputs.get("fromPort", -1)),
            "ToPort": int(inputs.get("toPort", -1)), "IpRanges": [{"CidrIp": inputs["cidrIpv4"]}],
        }  # fmt: skip
        call = ec2.authorize_security_group_ingress if token == INGRESS else ec2.authorize_security_group_egress
        rule = call(GroupId=inputs["securityGroupId"], IpPermissions=[permission])["SecurityGroupRules"][0]
        return rule["SecurityGroupRuleId"], {}

    def _launch(self, inputs: Mapping[str, Any]) -> Thing:
        region = self.region()
        ec2, root = self._moto.client(region), _root(inputs)
        subnets = self._subnets(region)
        subnet = next((one for one in subnets if one["SubnetId"] == inputs.get("subnetId")), subnets[0])
        interface = {
            "DeviceIndex": 0, "SubnetId": subnet["SubnetId"], "Groups": inputs.get("vpcSecurityGroupIds") or [],
            "AssociatePublicIpAddress": True, "DeleteOnTermination": True,
        }  # fmt: skip
        spot = (inputs.get("instanceMarketOptions") or {}).get("marketType") == "spot"
        made = ec2.run_instances(
            MinCount=1, MaxCount=1, ImageId=inputs["ami"], InstanceType=inputs["instanceType"],
            NetworkInterfaces=[interface], UserData=str(inputs.get("userData") or ""),
            InstanceInitiatedShutdownBehavior=inputs.get("instanceInitiatedShutdownBehavior", "stop"),
            BlockDeviceMappings=[{
                "DeviceName": "/dev/sda1",
                "Ebs": {
                    "VolumeSize": root.get("volumeSize", SNAPSHOT_GB), "VolumeType": root.get("volumeType", "gp2"),
                    "DeleteOnTermination": root.get("deleteOnTermination", True),
                },
            }],
            TagSpecifications=_specification("instance", _listed(_tags(inputs)))
            + _specification("volume", _listed(inputs.get("volumeTags") or {})),
            **({"KeyName": inputs["keyName"]} if inputs.get("keyName") else {}),
            **({"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {}),
        )["Instances"][0]  # fmt: skip
        where = {"region": region, "zone": subnet["AvailabilityZone"]}
        server = self.store.add(
            "server", made["InstanceId"], _tags(inputs).get("Name", ""), **where, labels=_tags(inputs),
            spot=spot, shutdown=inputs.get("instanceInitiatedShutdownBehavior", "stop"), type=inputs["instanceType"],
            image=inputs["ami"], options=inputs.get("metadataOptions"),
        )  # fmt: skip
        volume = made["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
        server.data["disk"] = volume
        self.store.add("disk", volume, (inputs.get("volumeTags") or {}).get("Name", ""), **where, gb=root)
        nic = made["NetworkInterfaces"][0]["NetworkInterfaceId"]
        self.store.add("interface", nic, f"{server.name}-interface", **where)
        if spot:
            request = f"sir-{self.store.number():08x}"
            self.store.add(
                "spot-request",
                request,
                request,
                **where,
                server=server.id,
                state="active",
                key=inputs.get("keyName", ""),
            )
        return server

    def _booted(self, server: Thing, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        image = next(one for one in IMAGES if one["ami_id"] == inputs["ami"])
        system = "debian" if str(image["name"]).startswith("debian") else "ubuntu"
        held = self._moto.backend(server.data["region"]).key_pairs.get(inputs.get("keyName"))
        keys = [held.material_public.decode()] if held else []
        user = {"debian": "admin", "ubuntu": "ubuntu"}[system]
        boot = cloudinit.interpret(str(inputs.get("userData") or ""), user, tuple(keys))
        address = self.world.backing.start(server.id, boot, system)
        instance = self._moto.backend(server.data["region"]).get_instance(server.id)
        instance.nics[0].public_ip = address
        server.data["address"] = address
        return server.id, self._state(server, inputs)

    def _state(self, server: Thing, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "publicIp": server.data["address"],
            "instanceState": "running",
            "availabilityZone": server.data["zone"],
            "rootBlockDevice": {**_root(inputs), "volumeId": server.data["disk"]},
        }

    def read(self, token: str, identifier: str, state: Mapping[str, Any]) -> dict[str, Any] | None:
        if token in (INGRESS, EGRESS):
            return {} if self.store.get("firewall", str(state.get("securityGroupId"))) else None
        if token == KEY:
            return {} if any(one.name == identifier for one in self.store.alive("key")) else None
        thing = self.store.get(KINDS[token], identifier)
        if thing is None:
            return None
        return self._state(thing, state) if token == INSTANCE else {}

    def update(
        self, token: str, identifier: str, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Whom a security group lets in is set anew; of nothing else of ours anything changes."""
        same = all(state.get(key) == value for key, value in inputs.items() if key != "cidrIpv4")
        if token != INGRESS or not same:
            return super().update(token, identifier, state, inputs)
        rule = {
            "IpProtocol": inputs["ipProtocol"], "FromPort": int(inputs["fromPort"]), "ToPort": int(inputs["toPort"]),
            "CidrIpv4": inputs["cidrIpv4"],
        }  # fmt: skip
        self._moto.client(self.region()).modify_security_group_rules(
            GroupId=inputs["securityGroupId"],
            SecurityGroupRules=[{"SecurityGroupRuleId": identifier, "SecurityGroupRule": rule}],
        )
        return {}

    def delete(self, token: str, identifier: str, state: Mapping[str, Any]) -> None:
        region = self.region()
        ec2 = self._moto.client(region)
        if token in (INGRESS, EGRESS):
            group = str(state.get("securityGroupId"))
            if self.store.get("firewall", group):
                call = ec2.revoke_security_group_ingress if token == INGRESS else ec2.revoke_security_group_egress
                call(GroupId=group, SecurityGroupRuleIds=[identifier])
        elif token == KEY:
            ec2.delete_key_pair(KeyName=identifier)
        elif thing := self.store.get(KINDS[token], identifier):
            self._remove(thing)

    def invoke(self, function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        region = self.region()
        if function == "aws:ec2/getVpc:getVpc":
            if region == WITHOUT_DEFAULT_VPC:
                raise Refused("1 error occurred:\n\t* no matching EC2 VPC found\n\n")  # ec2/vpc_data_source.go
            found = self._moto.client(region).describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])
            return {"id": found["Vpcs"][0]["VpcId"], "default": True, "arn": "", "cidrBlock": "172.31.0.0/16"}
        if function == "aws:ec2/getSubnets:getSubnets":
            return {"id": region, "ids": [one["SubnetId"] for one in self._subnets(region, _filters(arguments))]}
        if function == "aws:ec2/getAmi:getAmi":
            found = self._moto.client(region).describe_images(
                Owners=list(arguments.get("owners") or ()), Filters=_filters(arguments)
            )["Images"]
            if not found:  # ec2/ec2_ami_data_source.go
                raise Refused(
                    "1 error occurred:\n\t* Your query returned no results. Please change your search criteria and "
                    "try again.\n\n"
                )
            newest = max(found, key=lambda one: str(one["CreationDate"]))
            return {"id": newest["ImageId"], "imageId": newest["ImageId"], "name": newest["Name"]}
        return super().invoke(function, arguments)

    def _subnets(self, region: str, filters: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        wanted = filters or [{"Name": "default-for-az", "Values": ["true"]}]
        found = self._moto.client(region).describe_subnets(Filters=wanted)["Subnets"]
        return sorted(found, key=lambda one: str(one["AvailabilityZone"]))

    def engine_text(self, refused: Refused) -> str:
        if not refused.code:
            return refused.text
        introduced, found, text = refused.text.rpartition("|")
        introduced = introduced if found else "creating EC2 Instance: operation error EC2: RunInstances"
        status = f"https response error StatusCode: {refused.status}, RequestID: 00000000-0000-0000-0000-000000000000"
        return f"1 error occurred:\n\t* {introduced}, {status}, api error {refused.code}: {text}\n\n"

    # -- what both do -------------------------------------------------------------------------------------------------

    def _remove(self, thing: Thing) -> None:
        ec2 = self._moto.client(thing.data["region"])
        if thing.kind == "server":
            ec2.terminate_instances(InstanceIds=[thing.id])
            self.world.backing.remove(thing.id)
        elif thing.kind == "firewall":
            self._free(thing.data["region"], thing.id)
            ec2.delete_security_group(GroupId=thing.id)
        self.store.alive()  # what went along is forgotten

    def _free(self, region: str, group: str) -> None:
        """A security group that an interface uses is not deleted; moto would."""
        for interface in self._moto.backend(region).enis.values():
            if any(one.id == group for one in interface.group_set):
                raise Refused(IN_USE.format(id=group), "DependencyViolation", 400)

    def vanish(self, thing: Thing) -> None:
        self._remove(thing)

    def words(self, effect: str, inputs: Mapping[str, Any]) -> Refused:
        kind = inputs.get("instanceType", "t3.micro")
        zone = self.place(INSTANCE, inputs) if inputs else REGIONS[0]
        code, status, text = _WORDS[effect]
        if effect == faults.QUOTA and inputs.get("instanceMarketOptions"):
            code, status, text = _SPOT_QUOTA
        if effect == faults.DENIED:
            what, operation = OPERATIONS[INSTANCE if "instanceType" in inputs else GROUP]
            introduced = f"{what.format(name=inputs.get('name', ''))}: operation error EC2: {operation}"
            return Refused(f"{introduced}|{text.format(action=f'ec2:{operation}')}", code, status)
        return Refused(text.format(type=kind, zone=zone), code, status)

    # -- the API ------------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Response:
        scope = re.search(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/", request.headers.get("authorization", ""))
        if scope is None:
            raise Refused("Request must contain an authorization header", "MissingAuthenticationToken", 403)
        key, region, service = scope.groups()
        asked = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
        action = asked.get("Action", "")
        if service == "sts":
            if key != self.KEY_ID or region not in REGIONS:
                raise Refused("The security token included in the request is invalid.", "InvalidClientTokenId", 403)
            self.world.api(Call(self.name, "login"))
            return self._forward(request, request.body)
        if key != self.KEY_ID or region not in REGIONS:
            raise self.words(faults.UNAUTHORIZED, {})
        if action == "DescribeRegions":
            self.world.api(Call(self.name, "read", "region", region))
            rows = "".join(
                f"<item><regionName>{one}</regionName><regionEndpoint>ec2.{one}.amazonaws.com</regionEndpoint>"
                "<optInStatus>opt-in-not-required</optInStatus></item>"
                for one in REGIONS
            )
            return _xml(action, f"<regionInfo>{rows}</regionInfo>")
        if action in LISTS:
            return self._list(request, region, action, asked)
        if action in DELETES:
            return self._delete(request, region, action, asked)
        return self._forward(request, request.body)

    def _delete(self, request: Request, region: str, action: str, asked: Mapping[str, str]) -> Response:
        kind, field = DELETES[action]
        thing = self.store.get(kind, asked.get(field, ""))
        struck = self.world.api(Call(self.name, "delete", kind, region, thing.name if thing else ""))
        if struck == faults.LIES:
            return _xml(action, "<return>true</return>")
        if kind == "spot-request":
            if thing:
                thing.data["state"] = "cancelled"
            return _xml(action, "<spotInstanceRequestSet/>")
        if kind == "firewall":
            self._free(region, asked[field])
        body = request.body
        if kind == "key":  # moto knows keys by name only
            body = urlencode(
                {"Action": action, "Version": "2016-11-15", "KeyName": thing.name if thing else "-"}
            ).encode()
        answered = self._forward(request, body)
        if kind == "server" and thing:
            self.world.backing.remove(thing.id)
        self.store.alive()
        return answered

    def _list(self, request: Request, region: str, action: str, asked: dict[str, str]) -> Response:
        kind, within, identified = LISTS[action]
        by_id = any(re.fullmatch(r"\w+Ids?\.1", key) for key in asked)
        self.world.api(Call(self.name, "read" if by_id else "list", kind, region))
        if kind == "spot-request":
            return self._spot_requests(region, asked)
        token = int(asked.pop("NextToken", "0") or 0)
        asked.pop("MaxResults", None)
        keep, asked = _unknown_filter(action, asked)
        answered = self._forward(request, urlencode(asked).encode())
        if answered.status != 200 or by_id:
            return answered
        ElementTree.register_namespace("", XMLNS)
        root = ElementTree.fromstring(answered.body or b"")  # noqa: S314 - moto's own
        rows = root.find(f"{{{XMLNS}}}{within}")
        if rows is None:
            return answered
        hidden = self._hidden(kind, region, action, tuple(sorted(asked.items())), fresh=not token)
        path = "/".join(f"{{{XMLNS}}}{part}" for part in identified.split("/"))
        wanted = [row for row in rows if row.findtext(path) not in hidden and keep(row)]
        end = len(wanted) if action in UNPAGED else token + PAGE
        rows[:] = wanted[token:end]
        for old in root.findall(f"{{{XMLNS}}}nextToken"):
            root.remove(old)
        if end < len(wanted):
            ElementTree.SubElement(root, f"{{{XMLNS}}}nextToken").text = str(end)
        return Response(200, body=ElementTree.tostring(root), headers={"Content-Type": "text/xml"})

    def _hidden(self, kind: str, region: str, action: str, asked: tuple[Any, ...], *, fresh: bool) -> set[str]:
        """What exists and does not show yet. Later pages are of the same list."""
        about = (kind, region, action, *map(str, asked))
        if fresh or about not in self._pages:
            shown = {one.id for one in self.store.listed(kind, lambda one: one.data["region"] == region)}
            self._pages[about] = {one.id for one in self.store.alive(kind)} - shown
        return self._pages[about]

    def _spot_requests(self, region: str, asked: Mapping[str, str]) -> Response:
        pattern = next(
            (asked[f"Filter.{n}.Value.1"] for n in (1, 2) if asked.get(f"Filter.{n}.Name") == "launch.key-name"), ""
        )
        rows = "".join(
            f"<item><spotInstanceRequestId>{one.id}</spotInstanceRequestId><state>{one.data['state']}</state>"
            f"<type>one-time</type><instanceId>{one.data['server']}</instanceId>"
            f"<launchSpecification><keyName>{one.data['key']}</keyName></launchSpecification></item>"
            for one in self.store.listed("spot-request", lambda one: one.data["region"] == region)
            if pattern and fnmatch.fnmatch(one.data["key"], pattern)
        )
        return _xml("DescribeSpotInstanceRequests", f"<spotInstanceRequestSet>{rows}</spotInstanceRequestSet>")

    def _forward(self, request: Request, body: bytes) -> Response:
        host, port = self._moto.started().address
        connection = http.client.HTTPConnection(host, port, timeout=60)
        try:
            headers = {key: value for key, value in request.headers.items() if key not in ("host", "content-length")}
            connection.request(request.method, "/", body, headers)
            answer = connection.getresponse()
            return Response(answer.status, body=answer.read(), headers={"Content-Type": "text/xml"})
        finally:
            connection.close()

    def error(self, refused: Refused) -> Response:
        text = refused.text.rpartition("|")[2]
        said = f"<Error><Code>{refused.code}</Code><Message>{text}</Message></Error>"
        body = f"<Response><Errors>{said}</Errors><RequestID>0</RequestID></Response>"
        if refused.code == "InvalidClientTokenId":  # STS words its errors otherwise
            body = f"<ErrorResponse>{said}<RequestId>0</RequestId></ErrorResponse>"
        return Response(refused.status or 500, body=body.encode(), headers={"Content-Type": "text/xml"})


def _unknown_filter(action: str, asked: dict[str, str]) -> tuple[Callable[[Any], bool], dict[str, str]]:
    """A filter that moto does not know, taken out and turned into what it keeps of the rows."""
    if action != "DescribeNetworkInterfaces" or asked.get("Filter.1.Name") != "group-name":
        return lambda _: True, asked
    pattern = asked["Filter.1.Value.1"]
    rest = {key: value for key, value in asked.items() if not key.startswith("Filter.1.")}
    names = f"{{{XMLNS}}}groupSet/{{{XMLNS}}}item/{{{XMLNS}}}groupName"
    return lambda row: any(fnmatch.fnmatch(one.text or "", pattern) for one in row.findall(names)), rest


def _xml(action: str, inside: str) -> Response:
    body = f'<{action}Response xmlns="{XMLNS}"><requestId>0</requestId>{inside}</{action}Response>'
    return Response(200, body=body.encode(), headers={"Content-Type": "text/xml"})


def _listed(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _specification(kind: str, tags: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": tags}] if tags else []


def _filters(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"Name": one["name"], "Values": list(one["values"])} for one in arguments.get("filters") or ()]


VENDOR = Aws
