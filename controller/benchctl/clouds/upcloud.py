"""UpCloud: servers with a firewall of their own. Nothing is shared by a sweep's jobs, and nothing ends by itself.

Facts: UpCloud's API reference and product pages (plans and their disks), the Terraform provider that Pulumi bridges
(UpCloudLtd/terraform-provider-upcloud), and kubespray's contribution for UpCloud (what a default of "drop" cuts off).
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from benchctl.clouds import boot
from benchctl.clouds.cloud import CloudError
from benchctl.clouds.spec import LABEL_EXPIRES, LABEL_JOB, LABEL_SWEEP, Asked
from benchctl.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchctl.clouds.cloud import Client
    from benchctl.clouds.spec import InstanceSpec, SharedSpec

TEMPLATES: Mapping[str, str] = {
    "ubuntu-24.04": "Ubuntu Server 24.04 LTS (Noble Numbat)",
    "debian-12": "Debian GNU/Linux 12 (Bookworm)",
}
"""Titles of UpCloud's public templates; the provider looks the identifier up."""

SMALLEST_DISK, LARGEST_DISK = 10, 2048
"""What the provider takes for a disk made of a template, GB."""

NAME_SERVERS = ("94.237.127.9", "94.237.40.9")
"""UpCloud's own, which its templates use: a firewall that drops cuts their answers off."""

CREATE_TIMEOUT = "15m"

_TITLE = re.compile(r"(?P<name>\S+)(?: (?P<labels>benchctl-.*))?")


def plan(spec: InstanceSpec) -> str:
    """The plan's name as the API knows it: GPU servers on the spot market have plans of their own.

    Raises:
        CloudError: there is no spot market for it.
    """
    if not spec.spot or "SPOT-" in spec.server_type:
        return spec.server_type
    if spec.server_type.startswith("GPU-"):
        return spec.server_type.replace("GPU-", "GPU-SPOT-", 1)
    raise CloudError(
        f"UpCloud rents {spec.server_type} on demand only.",
        "Leave --spot out; its spot market has GPU servers only.",
        refusal=Refusal.NOT_OFFERED,
    )


def disk_tier(server_type: str) -> str:
    """The kind of disk that comes with a plan: developer plans have the standard tier, all others MaxIOPS."""
    return "standard" if server_type.startswith("DEV-") else "maxiops"


def disk_size(spec: InstanceSpec) -> int:
    """The size of the disk, GB; the planner asks for the plan's own where that suffices: what is above it is billed."""
    return max(SMALLEST_DISK, min(LARGEST_DISK, spec.disk_gb))


def template(spec: InstanceSpec) -> str:
    """The title of the template.

    Raises:
        CloudError: there is none.
    """
    if spec.architecture.lower() not in ("x86_64", "amd64", ""):
        raise CloudError(f"UpCloud has no image for {spec.architecture}.", refusal=Refusal.NOT_OFFERED)
    if spec.image not in TEMPLATES:
        raise CloudError(
            f"'{spec.image}' is no boot image for UpCloud.",
            f"Images: {', '.join(TEMPLATES)}.",
            refusal=Refusal.NOT_OFFERED,
        )
    return TEMPLATES[spec.image]


def disk_title(spec: InstanceSpec) -> str:
    """The title of the server's disk. A disk made of a template gets no labels, so its title says what they would."""
    return f"{disk_name(spec.name)} {' '.join(f'{key}={value}' for key, value in sorted(spec.labels.items()))}".strip()


def disk_name(name: str) -> str:
    """The name of a server's disk."""
    return f"{name}-disk"


def read_title(title: str) -> tuple[str, dict[str, str]]:
    """The name and the labels that a title of :func:`disk_title` says."""
    said = _TITLE.fullmatch(title)
    if said is None:
        return title, {}
    pairs = (word.partition("=") for word in (said["labels"] or "").split())
    known = (LABEL_SWEEP, LABEL_JOB, LABEL_EXPIRES)
    return said["name"], {key: value for key, _, value in pairs if key in known}


def firewall_rules(ingress: str) -> list[dict[str, str]]:
    """The rules, in order: SSH from ``ingress``; answers of the name servers and of time servers; drop the rest.

    Ranges need a start and an end. The last rule, with no more than action and direction, is the default.
    """
    network = ipaddress.ip_network(ingress, strict=False)
    rules = [
        {
            "action": "accept",
            "direction": "in",
            "family": f"IPv{network.version}",
            "protocol": "tcp",
            "source_address_start": str(network[0]),
            "source_address_end": str(network[-1]),
            "destination_port_start": "22",
            "destination_port_end": "22",
            "comment": "SSH from the controller",
        }
    ]
    answers = {"action": "accept", "direction": "in", "family": "IPv4"}
    rules += [
        {
            **answers,
            "protocol": protocol,
            "source_address_start": server,
            "source_address_end": server,
            "source_port_start": "53",
            "source_port_end": "53",
            "comment": "answers of UpCloud's name servers",
        }
        for server in NAME_SERVERS
        for protocol in ("udp", "tcp")
    ]
    rules.append(
        {
            **answers,
            "protocol": "udp",
            "source_port_start": "123",
            "source_port_end": "123",
            "comment": "answers of time servers",
        }
    )
    rules.append({"action": "drop", "direction": "in"})
    return rules


class UpCloud:
    """The vendor; see :class:`benchctl.clouds.cloud.Cloud`."""

    name = "upcloud"
    vendor_id = "upcloud"
    limits_itself = False
    engine_seconds = 1200.0

    def user(self, spec: InstanceSpec) -> str:
        """Who logs in: root."""
        return boot.login_user(self.name, spec.image)

    def login_problem(self, environment: Mapping[str, str]) -> str:
        """What is missing to log in."""
        if environment.get("UPCLOUD_TOKEN"):
            return ""
        user, password = environment.get("UPCLOUD_USERNAME"), environment.get("UPCLOUD_PASSWORD")
        if user and password:
            return ""
        if user or password:
            return f"upcloud: half a login is set: set {'UPCLOUD_PASSWORD' if user else 'UPCLOUD_USERNAME'} too."
        return (
            "upcloud: no login found: set UPCLOUD_TOKEN (made in the control panel under People, API tokens), or "
            "UPCLOUD_USERNAME and UPCLOUD_PASSWORD."
        )

    def account(self, environment: Mapping[str, str], client: Client) -> str:  # noqa: ARG002
        """The user: the API names no account."""
        return client.whoami()

    def engine_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The login, and another address of the API where one is set."""
        return {key: value for key, value in environment.items() if key.startswith("UPCLOUD_")}

    def shared_scope(self, region: str) -> str | None:  # noqa: ARG002
        """Nothing is shared: keys and firewall rules are a server's own."""
        return None

    def shared_resources(self, spec: SharedSpec) -> tuple[Asked, ...]:  # noqa: ARG002
        """Nothing."""
        return ()

    def shared_program(self, spec: SharedSpec) -> dict[str, Any]:  # noqa: ARG002
        """Nothing."""
        return {}

    def resources(self, spec: InstanceSpec) -> tuple[Asked, ...]:
        """The server and its disk. Its address and firewall rules are the server's own, and go with it."""
        return (Asked("server", spec.name), Asked("disk", disk_name(spec.name)))

    def program(self, spec: InstanceSpec, shared: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG002
        """One server, and its firewall rules, which take hold as soon as it has started."""
        import pulumi
        import pulumi_upcloud as upcloud

        server = upcloud.Server(
            spec.name,
            hostname=spec.name,
            title=spec.name,
            zone=spec.zone or spec.region,
            plan=plan(spec),
            template=upcloud.ServerTemplateArgs(
                storage=template(spec),
                size=disk_size(spec),
                tier=disk_tier(spec.server_type),
                title=disk_title(spec),
            ),
            network_interfaces=[upcloud.ServerNetworkInterfaceArgs(type="public")],
            login=upcloud.ServerLoginArgs(
                user=self.user(spec), keys=[spec.ssh_public_key.strip()], create_password=False
            ),
            metadata=True,  # templates with cloud-init are refused without
            user_data=pulumi.Output.secret(boot.user_data(spec)),
            firewall=True,
            labels=dict(spec.labels),
            opts=pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create=CREATE_TIMEOUT)),
        )
        upcloud.ServerFirewallRules(
            f"{spec.name}-firewall",
            server_id=server.id,
            firewall_rules=[upcloud.ServerFirewallRulesFirewallRuleArgs(**one) for one in firewall_rules(spec.ingress)],
        )
        disk = server.template.apply(lambda made: made.id if made else "")
        return {
            "address": server.network_interfaces.apply(lambda made: made[0].ip_address if made else ""),
            "ids": pulumi.Output.all(server.id, disk).apply(
                lambda ids: {spec.name: ids[0], disk_name(spec.name): ids[1]}
            ),
        }

    def client(self, environment: Mapping[str, str], regions: Sequence[str] = ()) -> Client:  # noqa: ARG002
        """upcloud-api; one API for all zones."""
        from benchctl.clouds.upcloud_client import UpCloudClient

        return UpCloudClient(environment)


CLOUD = UpCloud()
