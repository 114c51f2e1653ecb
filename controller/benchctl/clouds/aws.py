"""AWS: instances in a region's default VPC, with a security group and a key pair per sweep and region.

AWS ends an instance of ours by itself: the instance switches itself off when its time is over (user data), and
``instance_initiated_shutdown_behavior`` makes an end of it. Facts: the EC2 user guide and API reference, the AWS
provider that Pulumi bridges (terraform-provider-aws), and Spare Cores' sc-runner, which rents these servers too.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.clouds import boot
from benchctl.clouds.cloud import CloudError
from benchctl.clouds.spec import ARM64, X86_64, Asked
from benchctl.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchctl.clouds.cloud import Client
    from benchctl.clouds.spec import InstanceSpec, SharedSpec

CREATE_TIMEOUT = "5m"
"""The provider waits 10 minutes for an instance by default; one that is not there after five will not be worth it."""

MAX_RETRIES = 3
"""The provider's default of 25 retries InsufficientInstanceCapacity for 50 minutes, whatever the create time-out is
(hashicorp/terraform-provider-aws, issues 43193 and 49863)."""

IMAGES: Mapping[str, tuple[str, str]] = {
    "ubuntu-24.04": ("099720109477", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{arch}-server-*"),
    "debian-12": ("136693071363", "debian-12-{arch}-*"),
}
"""Owner (Canonical, Debian) and name of the images; the newest that matches is booted."""

_FAMILY = re.compile(r"(?P<letters>[a-z]+)(?P<generation>\d+)(?P<attributes>[a-z0-9-]*)")


def family_architecture(server_type: str) -> str:
    """The architecture of a type by its name: Graviton has a ``g`` among the attributes after the generation.

    ``m8g.large``, ``c7gn``, ``im4gn``, ``x2gd`` and the Grace servers (``p6e-gb200``) are ARM, and so are the two that
    were named before the rule: ``a1``, and Apple's ``mac2``. ``g4dn`` and ``g6e`` are not: their g stands first.
    """
    family = server_type.partition(".")[0]
    if family == "a1" or family.startswith("mac2"):
        return ARM64
    named = _FAMILY.fullmatch(family)
    return ARM64 if named and "g" in named["attributes"] else X86_64


def architecture(spec: InstanceSpec) -> str:
    """What the image has to be for: as the catalogue says, else by the family."""
    said = spec.architecture.lower()
    if said in (ARM64, "arm64_mac", "aarch64"):
        return ARM64
    return X86_64 if said in (X86_64, "i386", "x86_64_mac", "amd64") else family_architecture(spec.server_type)


def image_query(spec: InstanceSpec) -> tuple[str, dict[str, str]]:
    """The owner and the filters by which the image is looked up.

    Raises:
        CloudError: there is no such image here.
    """
    if spec.image not in IMAGES:
        raise CloudError(
            f"'{spec.image}' is no boot image for AWS.",
            f"Images: {', '.join(IMAGES)}.",
            refusal=Refusal.NOT_OFFERED,
        )
    owner, name = IMAGES[spec.image]
    wanted = architecture(spec)
    return owner, {
        "name": name.format(arch="arm64" if wanted == ARM64 else "amd64"),
        "architecture": wanted,
        "virtualization-type": "hvm",
        "root-device-type": "ebs",
    }


def subnet_query(zone: str) -> dict[str, str]:
    """The filters by which the default subnet of a zone is looked up: by its name (us-east-1a) or id (use1-az4)."""
    by = "availability-zone-id" if re.fullmatch(r"[a-z0-9]+-az\d+", zone) else "availability-zone"
    return {"default-for-az": "true", by: zone}


def tags(spec: InstanceSpec | SharedSpec, name: str) -> dict[str, str]:
    """Our labels, and the name as AWS's console shows it."""
    return {**spec.labels, "Name": name}


class Aws:
    """The vendor; see :class:`benchctl.clouds.cloud.Cloud`."""

    name = "aws"
    vendor_id = "aws"
    limits_itself = True
    engine_seconds = 1200.0

    def user(self, spec: InstanceSpec) -> str:
        """Who logs in: ``ubuntu``, on Debian ``admin``."""
        return boot.login_user(self.name, spec.image)

    def login_problem(self, environment: Mapping[str, str]) -> str:
        """What is missing to log in; files and variables are looked at, nothing is asked."""
        key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
        if key and secret:
            return ""
        if key or secret:
            missing = "AWS_SECRET_ACCESS_KEY" if key else "AWS_ACCESS_KEY_ID"
            return f"aws: half a login is set: set {missing} too."
        if any(environment.get(one) for one in _OTHER_LOGINS) or any(one.is_file() for one in _files(environment)):
            return ""
        return (
            "aws: no login found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for a profile of "
            "~/.aws/config ('aws configure' makes one)."
        )

    def account(self, environment: Mapping[str, str], client: Client) -> str:  # noqa: ARG002
        """The account; whose key it is does not matter."""
        return client.whoami().partition(",")[0]

    def engine_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """All of AWS's own variables: the provider reads about forty of them."""
        return {key: value for key, value in environment.items() if key.startswith("AWS_")}

    def shared_scope(self, region: str) -> str | None:
        """Keys and security groups are a region's."""
        return region

    def shared_resources(self, spec: SharedSpec) -> tuple[Asked, ...]:
        """The security group, whose rules go with it, and the key pair."""
        return (Asked("firewall", _group_name(spec.name)), Asked("key", _key_name(spec.name)))

    def shared_program(self, spec: SharedSpec) -> dict[str, Any]:
        """The security group in the region's default VPC, and the key pair."""
        from pulumi_aws import ec2, vpc

        options = self._options(spec.scope, spec.name)
        found = _looked_up(
            lambda: ec2.get_vpc(default=True, opts=self._invoke_options(options)),
            "no matching",
            f"The AWS region {spec.scope} has no default VPC. "
            f"Make one: aws ec2 create-default-vpc --region {spec.scope}",
        )
        group_name, key_name = _group_name(spec.name), _key_name(spec.name)
        group = ec2.SecurityGroup(
            group_name,
            name=group_name,
            description="SSH from the controller of a benchctl sweep",
            vpc_id=found.id,
            tags=tags(spec, group_name),
            opts=options,
        )
        # the provider wants a network's address: no bit may be set behind the mask
        ingress = ipaddress.ip_network(spec.ingress, strict=False)
        vpc.SecurityGroupIngressRule(
            f"{group_name}-in",
            security_group_id=group.id,
            ip_protocol="tcp",
            from_port=22,
            to_port=22,
            cidr_ipv4=str(ingress) if ingress.version == 4 else None,
            cidr_ipv6=str(ingress) if ingress.version == 6 else None,
            tags=tags(spec, f"{group_name}-in"),
            opts=options,
        )
        # the provider takes AWS's own allow-all rule away when it makes the group
        vpc.SecurityGroupEgressRule(
            f"{group_name}-out",
            security_group_id=group.id,
            ip_protocol="-1",
            cidr_ipv4="0.0.0.0/0",
            tags=tags(spec, f"{group_name}-out"),
            opts=options,
        )
        key = ec2.KeyPair(
            key_name, key_name=key_name, public_key=spec.ssh_public_key, tags=tags(spec, key_name), opts=options
        )
        return {"group": group.id, "key": key.key_name}

    def resources(self, spec: InstanceSpec) -> tuple[Asked, ...]:
        """The instance and its disk; its network interface comes and goes with it."""
        return (Asked("server", spec.name), Asked("disk", _disk_name(spec.name)))

    def program(self, spec: InstanceSpec, shared: Mapping[str, str]) -> dict[str, Any]:
        """One instance."""
        import pulumi
        from pulumi_aws import ec2

        options = self._options(spec.region, spec.name)
        invoke = self._invoke_options(options)
        owner, wanted = image_query(spec)
        image = _looked_up(
            lambda: ec2.get_ami(
                owners=[owner],
                most_recent=True,
                filters=[ec2.GetAmiFilterArgs(name=key, values=[value]) for key, value in wanted.items()],
                opts=invoke,
            ),
            "no results",
            f"AWS has no image {spec.image} for {wanted['architecture']} in {spec.region}.",
        )
        subnet = None
        if spec.zone:
            subnets = ec2.get_subnets(
                filters=[
                    ec2.GetSubnetsFilterArgs(name=key, values=[value]) for key, value in subnet_query(spec.zone).items()
                ],
                opts=invoke,
            )
            if not subnets.ids:
                raise pulumi.RunError(
                    f"The AWS zone {spec.zone} has no default subnet. "
                    f"Make one: aws ec2 create-default-subnet --availability-zone {spec.zone}"
                )
            subnet = min(subnets.ids)
        spot = None
        if spec.spot:
            spot = ec2.InstanceInstanceMarketOptionsArgs(
                market_type="spot",
                spot_options=ec2.InstanceInstanceMarketOptionsSpotOptionsArgs(
                    spot_instance_type="one-time", instance_interruption_behavior="terminate"
                ),
            )
        instance = ec2.Instance(
            spec.name,
            ami=image.id,
            instance_type=spec.server_type,
            subnet_id=subnet,
            vpc_security_group_ids=[shared["group"]],
            key_name=shared["key"],
            associate_public_ip_address=True,
            root_block_device=ec2.InstanceRootBlockDeviceArgs(
                volume_size=spec.disk_gb, volume_type="gp3", delete_on_termination=True
            ),
            volume_tags=tags(spec, _disk_name(spec.name)),
            instance_initiated_shutdown_behavior="terminate",
            instance_market_options=spot,
            metadata_options=ec2.InstanceMetadataOptionsArgs(http_endpoint="enabled", http_tokens="required"),
            user_data=pulumi.Output.secret(boot.user_data(spec, shut_down=True)),
            tags=tags(spec, spec.name),
            opts=pulumi.ResourceOptions.merge(
                options,
                pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create=CREATE_TIMEOUT, delete="10m")),
            ),
        )
        disk = instance.root_block_device.apply(lambda device: device.volume_id if device else "")
        return {
            "address": instance.public_ip,
            "ids": pulumi.Output.all(instance.id, disk).apply(
                lambda ids: {spec.name: ids[0], _disk_name(spec.name): ids[1]}
            ),
        }

    def client(self, environment: Mapping[str, str], regions: Sequence[str] = ()) -> Client:
        """boto3, in ``regions`` or in all that the account has enabled."""
        from benchctl.clouds.aws_client import AwsClient

        return AwsClient(environment, regions)

    def _options(self, region: str, name: str) -> Any:
        import pulumi
        from pulumi_aws import Provider

        return pulumi.ResourceOptions(provider=Provider(f"{name}-aws", region=region, max_retries=MAX_RETRIES))

    def _invoke_options(self, options: Any) -> Any:
        import pulumi

        return pulumi.InvokeOptions(provider=options.provider)


_OTHER_LOGINS = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def _files(environment: Mapping[str, str]) -> tuple[Path, ...]:
    home = Path(environment.get("HOME", "~")).expanduser() / ".aws"
    return (
        Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials"),
        Path(environment.get("AWS_CONFIG_FILE") or home / "config"),
    )


def _group_name(name: str) -> str:
    return f"{name}-ssh"


def _key_name(name: str) -> str:
    return f"{name}-key"


def _disk_name(name: str) -> str:
    return f"{name}-disk"


def _looked_up(ask: Any, unless: str, sentence: str) -> Any:
    """What a data source answers; an answer with ``unless`` in it is told as ``sentence``, without a traceback."""
    import pulumi

    try:
        return ask()
    except Exception as error:
        if unless in str(error):
            raise pulumi.RunError(sentence) from error
        raise


CLOUD = Aws()
