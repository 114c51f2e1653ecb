"""Hetzner Cloud: one server a job; the key and the firewall are shared by a sweep.

A powered-off server is billed as a running one, and nothing ends a server by itself: only deletion does. The disk comes
with the type. A server's own primary address is made and deleted with it.

Sources: https://docs.hetzner.cloud, pulumi-hcloud and the client ``hcloud``.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from benchctl.clouds.boot import login_user, user_data
from benchctl.clouds.cloud import CloudError
from benchctl.clouds.deletion import until_gone
from benchctl.clouds.spec import LABEL_EXPIRES, LABEL_JOB, LABEL_SWEEP, Asked, Resource, expiry_of, is_ours
from benchctl.refusals import Refusal, classify

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchctl.clouds.cloud import Client, Cloud
    from benchctl.clouds.spec import InstanceSpec, SharedSpec

TOKEN = "HCLOUD_TOKEN"  # noqa: S105 - the variable's name
ENDPOINT = "HCLOUD_ENDPOINT"
"""Another address of the API (a proxy, an emulation); the vendor's Pulumi provider reads it too."""

API = "https://api.hetzner.cloud/v1"

CREATE_TIMEOUT = DELETE_TIMEOUT = "5m"
"""The provider's own is 90 minutes."""

HTTP_SECONDS = (10.0, 60.0)  # to connect, to answer
IN_USE_SECONDS = 30.0
"""How long a firewall may still count as used after its last server is gone."""

KINDS: Mapping[str, str] = {
    "server": "servers",
    "address": "primary_ips",
    "disk": "volumes",
    "firewall": "firewalls",
    "key": "ssh_keys",
    "network": "networks",
}
"""Kinds, by what the client calls the list; in the order in which they can be deleted. Nothing of ours makes a floating
address."""


class Hetzner:
    """See :class:`benchctl.clouds.cloud.Cloud`."""

    name = "hetzner"
    vendor_id = "hcloud"
    limits_itself = False
    engine_seconds = 900.0

    def user(self, spec: InstanceSpec) -> str:
        """Always root."""
        return login_user(self.name, spec.image)

    def login_problem(self, environment: Mapping[str, str]) -> str:
        """A token is all there is; it belongs to one project."""
        if environment.get(TOKEN, "").strip():
            return ""
        return (
            f"hetzner: no login found: set {TOKEN} to an API token that may read and write (made in the project's "
            "Security page)."
        )

    def account(self, environment: Mapping[str, str], client: Client) -> str:  # noqa: ARG002
        """The token: the API does not say to which project it belongs."""
        return environment.get(TOKEN, "").strip()

    def engine_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The token, and the API's address where it is another."""
        return {name: environment[name] for name in (TOKEN, ENDPOINT) if environment.get(name)}

    def shared_scope(self, region: str) -> str | None:  # noqa: ARG002
        """Keys and firewalls are good in all locations."""
        return ""

    def shared_resources(self, spec: SharedSpec) -> tuple[Asked, ...]:
        """The key (the same one can't be there twice), and the firewall."""
        return Asked("key", f"{spec.name}-key"), Asked("firewall", f"{spec.name}-firewall")

    def shared_program(self, spec: SharedSpec) -> dict[str, Any]:
        """The firewall lets SSH in and nothing else; it keeps no state of its own on what goes out."""
        import pulumi
        import pulumi_hcloud as hcloud

        options = pulumi.ResourceOptions(custom_timeouts=_timeouts())
        key = hcloud.SshKey(
            f"{spec.name}-key",
            name=f"{spec.name}-key",
            public_key=spec.ssh_public_key.strip(),
            labels=dict(spec.labels),
            opts=options,
        )
        firewall = hcloud.Firewall(
            f"{spec.name}-firewall",
            name=f"{spec.name}-firewall",
            labels=dict(spec.labels),
            rules=[hcloud.FirewallRuleArgs(direction="in", protocol="tcp", port="22", source_ips=[spec.ingress])],
            opts=options,
        )
        return {"key": key.id, "firewall": firewall.id}

    def resources(self, spec: InstanceSpec) -> tuple[Asked, ...]:
        """The server; its address and its disk are parts of it."""
        return (Asked("server", spec.name),)

    def program(self, spec: InstanceSpec, shared: Mapping[str, str]) -> dict[str, Any]:
        """By location: the argument ``datacenter`` is gone from the API."""
        import pulumi
        import pulumi_hcloud as hcloud

        server = hcloud.Server(
            spec.name,
            name=spec.name,
            server_type=spec.server_type,
            image=spec.image,
            location=spec.region,
            ssh_keys=[shared["key"]],
            firewall_ids=[int(shared["firewall"])],
            user_data=pulumi.Output.secret(user_data(spec)),
            labels=dict(spec.labels),
            opts=pulumi.ResourceOptions(custom_timeouts=_timeouts()),
        )
        return {"address": server.ipv4_address, "ids": {spec.name: server.id}}

    def client(self, environment: Mapping[str, str], regions: Sequence[str] = ()) -> Client:  # noqa: ARG002
        """One client for all locations."""
        return HetznerClient(environment.get(TOKEN, ""), environment.get(ENDPOINT) or API)


class HetznerClient:
    """See :class:`benchctl.clouds.cloud.Client`."""

    def __init__(self, token: str, endpoint: str) -> None:
        import hcloud

        self._client = hcloud.Client(
            token, api_endpoint=endpoint.rstrip("/"), application_name="benchctl", timeout=HTTP_SECONDS
        )

    def whoami(self) -> str:
        """The API names no account: that the token is taken is all that can be known."""
        with _said():
            return f"a project with {len(self._client.locations.get_all())} locations"

    def find(self) -> list[Resource]:
        """All kinds that can be labelled, by label or name.

        Lists are read whole and sorted out here: a label selector would miss what has our name and lost its label.
        """
        found: list[Resource] = []
        with _said():
            for kind, listed in KINDS.items():
                found.extend(
                    _resource(kind, one)
                    for one in getattr(self._client, listed).get_all()
                    if is_ours(one.name or "", one.labels)
                )
        return found

    def delete(self, resource: Resource) -> None:
        """A firewall is waited for: it counts as used for a moment after its server is gone."""
        until_gone(
            lambda: self._delete(resource),
            what=f"hetzner: {resource.kind} {resource.name}",
            gone=lambda error: "(not_found" in error.said,
            busy=lambda error: "(resource_in_use" in error.said,
            wait_seconds=IN_USE_SECONDS,
            poll_seconds=1.0,
        )

    def _delete(self, resource: Resource) -> bool:
        with _said():
            listed = getattr(self._client, KINDS[resource.kind])
            action = listed.delete(listed.get_by_id(int(resource.id)))
            if resource.kind == "server":
                action.wait_until_finished()
        return True


def _resource(kind: str, one: Any) -> Resource:
    labels: Mapping[str, str] = one.labels or {}
    location = getattr(one, "location", None)
    public = getattr(one, "public_net", None)
    created = getattr(one, "created", None)
    return Resource(
        vendor=CLOUD.name,
        kind=kind,
        id=str(one.id),
        name=one.name or "",
        region=location.name if location else "",
        sweep=labels.get(LABEL_SWEEP, ""),
        job=labels.get(LABEL_JOB, ""),
        expires_at=expiry_of(labels.get(LABEL_EXPIRES)),
        address=public.ipv4.ip if public and public.ipv4 else getattr(one, "ip", None) or "",
        state=getattr(one, "status", None) or "",
        created_at=created.timestamp() if created else None,
        attached=_attached(kind, one),
    )


def _attached(kind: str, one: Any) -> bool:
    if kind == "address":
        return one.assignee_id is not None
    if kind == "disk":
        return one.server is not None
    return kind == "firewall" and bool(one.applied_to)


def _timeouts() -> Any:
    import pulumi

    return pulumi.CustomTimeouts(create=CREATE_TIMEOUT, delete=DELETE_TIMEOUT)


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """Turn the client's errors into ours, with the vendor's words."""
    import hcloud
    import requests
    from hcloud.actions.domain import ActionException

    try:
        yield
    except hcloud.APIException as error:
        said = str(error)
        ours = classify(said) or (Refusal.OUTAGE if _is_outage(error.code) else None)
        mend = (
            f"Check {TOKEN}: it must be of the right project, and may read and write."
            if ours is Refusal.ACCOUNT
            else ""
        )
        raise CloudError(f"Hetzner says: {said}", mend, refusal=ours, said=said) from None
    except ActionException as error:
        raise CloudError(f"Hetzner says: {error}", refusal=classify(str(error)), said=str(error)) from None
    except requests.RequestException as error:
        said = f"{type(error).__name__}: no answer from the API"
        raise CloudError(
            "Hetzner's API can't be reached.", "Check the network.", refusal=Refusal.OUTAGE, said=said
        ) from None


def _is_outage(code: int | str) -> bool:
    if isinstance(code, int):
        return code >= 500
    return code in ("server_error", "service_error", "unavailable", "maintenance", "bad_gateway", "timeout")


CLOUD: Cloud = Hetzner()
