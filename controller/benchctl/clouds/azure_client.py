"""Azure's own client: what looks at the subscription, and does not believe our state.

``azure-mgmt-resource`` and ``azure-mgmt-compute``; ``azure-mgmt-network`` would cost 180 MB of memory for one list, so
addresses are listed through the former's pipeline. What the Resource Manager lists of resources is a copy that may lag;
groups, VMs and disks are asked of those who make them.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchctl.clouds.azure_login import credential_of, endpoints_of
from benchctl.clouds.cloud import CloudError
from benchctl.clouds.spec import LABEL_EXPIRES, LABEL_JOB, LABEL_SWEEP, Resource, expiry_of, is_ours
from benchctl.refusals import Refusal, classify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from azure.core.polling import LROPoller
    from azure.mgmt.compute.models import VirtualMachine

    from benchctl.clouds.azure_login import Login

VENDOR = "azure"

DELETE_SECONDS = 1800.0
"""The most that a deletion may take; a group with a VM in it takes some minutes."""

GONE_SECONDS = 60.0
"""How long what was deleted may still be listed."""

POLL_SECONDS = 5.0
"""Between two questions whether an operation is done, where the answer does not say."""

RETRIES = 3
CONNECT_SECONDS, READ_SECONDS = 20.0, 120.0

FORCED = "Microsoft.Compute/virtualMachines"
"""What a deleted group need not shut down first."""

KINDS: Mapping[str, str] = {
    "microsoft.compute/virtualmachines": "server",
    "microsoft.compute/disks": "disk",
    "microsoft.compute/sshpublickeys": "key",
    "microsoft.network/publicipaddresses": "address",
    "microsoft.network/networkinterfaces": "interface",
    "microsoft.network/networksecuritygroups": "firewall",
    "microsoft.network/virtualnetworks": "network",
}
"""Our words by Azure's types, in small letters: Azure is not strict about capitals."""

_API = {"network": "2024-05-01", "compute": "2024-07-01", "subscription": "2022-12-01"}
"""Versions of the API, for what is not called through a client of its own."""

_CODES: Mapping[str, Refusal] = {
    "InvalidAuthenticationToken": Refusal.ACCOUNT,
    "ExpiredAuthenticationToken": Refusal.ACCOUNT,
    "SubscriptionNotFound": Refusal.ACCOUNT,
    "ReadOnlyDisabledSubscription": Refusal.ACCOUNT,
}


class AzureClient:
    """See :class:`benchctl.clouds.cloud.Client`.

    Args:
        login: who logs in.
        delete_seconds: see :data:`DELETE_SECONDS`.
        gone_seconds: see :data:`GONE_SECONDS`.
    """

    def __init__(
        self, login: Login, *, delete_seconds: float = DELETE_SECONDS, gone_seconds: float = GONE_SECONDS
    ) -> None:
        from azure.mgmt.compute import ComputeManagementClient
        from azure.mgmt.resource.resources import ResourceManagementClient

        self._subscription = login.subscription
        self._delete_seconds, self._gone_seconds = delete_seconds, gone_seconds
        endpoints = endpoints_of(login)
        options: dict[str, Any] = {
            "base_url": endpoints.manager,
            "credential_scopes": [endpoints.scope],
            "connection_verify": login.authorities or True,
            "connection_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retry_total": RETRIES,
            "polling_interval": POLL_SECONDS,
        }
        with _told("log in"):
            credential = credential_of(login, endpoints)
            self._resources = ResourceManagementClient(credential, login.subscription, **options)
            self._compute = ComputeManagementClient(credential, login.subscription, **options)

    def whoami(self) -> str:
        """The subscription; reading it proves the login."""
        with _told("read the subscription"):
            told = self._get(f"/subscriptions/{self._subscription}?api-version={_API['subscription']}")
        state = str(told.get("state", ""))
        if state in ("Disabled", "Deleted", "Expired"):
            raise CloudError(
                f"The subscription {self._subscription} at Azure is {state.lower()}.",
                "Enable it in the Azure portal, or set ARM_SUBSCRIPTION_ID to another.",
                refusal=Refusal.ACCOUNT,
            )
        return f"subscription {told.get('displayName') or ''} ({self._subscription})".replace("  ", " ")

    def find(self) -> list[Resource]:
        """Our groups, what lies in them, and what lies elsewhere under our labels or our names.

        VMs are listed whatever they do: a stopped one is billed. Subnets are not: they are parts of their networks.
        """
        with _told("list the subscription's resources"):
            found = {one.id.lower(): one for one in self._groups()}
            groups = {one.name.lower(): one for one in found.values()}
            for row in self._resources.resources.list(expand="createdTime,provisioningState"):
                self._note(found, groups, _resource(row, _seconds(row.created_time), row.provisioning_state))
            for disk in self._compute.disks.list():
                self._note(found, groups, _resource(disk, _seconds(disk.time_created), disk.disk_state))
            machines = list(self._compute.virtual_machines.list_all())
            for machine in machines:
                self._note(found, groups, _resource(machine, _seconds(machine.time_created), ""))
            if any(one.kind == "server" for one in found.values()):
                self._look_closer(found, machines)
        return list(found.values())

    def delete(self, resource: Resource) -> None:
        """Delete it and wait; a group goes with all that is in it, and is asked for again afterwards."""
        group, name = _place(resource.id)
        with _told(f"delete {resource.name}"):
            if resource.kind == "group":
                groups = self._resources.resource_groups
                self._delete(
                    lambda: groups.begin_delete(name, force_deletion_types=FORCED),
                    lambda: not groups.check_existence(name),
                    resource,
                )
            elif resource.kind == "server":
                machines = self._compute.virtual_machines
                self._delete(
                    lambda: machines.begin_delete(group, name, force_deletion=True),
                    lambda: _gone(lambda: machines.get(group, name)),
                    resource,
                )
            elif resource.kind == "disk":
                disks = self._compute.disks
                self._delete(
                    lambda: disks.begin_delete(group, name), lambda: _gone(lambda: disks.get(group, name)), resource
                )
            else:
                rest, version = self._resources.resources, _version(resource.id)
                self._delete(
                    lambda: rest.begin_delete_by_id(resource.id, api_version=version),
                    lambda: _gone(lambda: rest.get_by_id(resource.id, api_version=version)),
                    resource,
                )

    # -- looking ------------------------------------------------------------------------------------------------------

    def _groups(self) -> Iterator[Resource]:
        for row in self._resources.resource_groups.list():
            if is_ours(row.name or "", _tags(row)):
                yield replace(
                    _resource(row, None, ""),
                    kind="group",
                    attached=False,
                    state=_said(row.properties, "provisioning_state"),
                )

    @staticmethod
    def _note(found: dict[str, Resource], groups: Mapping[str, Resource], one: Resource) -> None:
        """Add one resource, if it is of a kind of ours and ours; what is in a group of ours belongs to it."""
        holder = groups.get(_place(one.id)[0].lower())
        if not one.kind or not (holder or is_ours(one.name, {LABEL_SWEEP: one.sweep} if one.sweep else None)):
            return
        if holder:
            one = replace(
                one,
                # the Resource Manager's copy spells groups as it likes
                id=holder.id + one.id[len(holder.id) :],
                sweep=one.sweep or holder.sweep,
                job=one.job or holder.job,
                expires_at=one.expires_at if one.expires_at is not None else holder.expires_at,
                # the group takes it along; a server is looked at by itself, because it is what costs
                attached=one.kind != "server",
            )
        before = found.get(one.id.lower())
        if before:
            one = replace(one, created_at=one.created_at or before.created_at, state=one.state or before.state)
        found[one.id.lower()] = one

    def _look_closer(self, found: dict[str, Resource], machines: Iterable[VirtualMachine]) -> None:
        """What servers do at the moment, and where they are reached."""
        powers = {
            (one.id or "").lower(): _power(one)
            for one in self._compute.virtual_machines.list_all(status_only="true")
            if _power(one)
        }
        addresses: dict[str, str] = {}
        path = f"/subscriptions/{self._subscription}/providers/Microsoft.Network/publicIPAddresses"
        for row in self._pages(f"{path}?api-version={_API['network']}"):
            properties = row.get("properties") or {}
            # .../networkInterfaces/NAME/ipConfigurations/first
            holder = str((properties.get("ipConfiguration") or {}).get("id", "")).lower().partition("/ipconfig")[0]
            if holder:
                addresses[holder] = str(properties.get("ipAddress") or "")
        for machine in machines:
            server = found.get((machine.id or "").lower())
            if server is None:
                continue
            profile = machine.network_profile
            interfaces = [(one.id or "").lower() for one in (profile.network_interfaces or [])] if profile else []
            found[server.id.lower()] = replace(
                server,
                state=powers.get(server.id.lower()) or (machine.provisioning_state or "").lower() or server.state,
                address=next((addresses[one] for one in interfaces if addresses.get(one)), ""),
            )

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        while path:
            page = self._get(path)
            yield from page.get("value") or []
            path = page.get("nextLink") or ""

    def _get(self, path: str) -> dict[str, Any]:
        from azure.core.rest import HttpRequest

        url = path if path.startswith("https://") else f"{{endpoint}}{path}"
        response = self._resources.send_request(HttpRequest("GET", url))
        response.raise_for_status()
        return dict(response.json())

    # -- deleting -----------------------------------------------------------------------------------------------------

    def _delete(self, begin: Callable[[], LROPoller[None]], gone: Callable[[], bool], resource: Resource) -> None:
        """Run a deletion to its end, wait until the thing is no longer there, and believe nothing else."""
        deadline = time.monotonic() + (self._gone_seconds if self._finish(begin, resource) else self._delete_seconds)
        while not gone():
            if time.monotonic() > deadline:
                raise CloudError(
                    f"Azure said that {resource.name} was deleted, and still has it.",
                    "Look again with 'benchctl reap'; else delete it in the Azure portal.",
                )
            time.sleep(min(2.0, self._gone_seconds))

    def _finish(self, begin: Callable[[], LROPoller[None]], resource: Resource) -> bool:
        """Run an operation to its end; what is gone already is no error.

        Returns:
            Whether it has ended; not where somebody else is deleting the group at this moment.
        """
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

        try:
            poller = begin()
            poller.wait(self._delete_seconds)  # raises nothing when the time is over
            if not poller.done():
                raise CloudError(
                    f"Azure has not deleted {resource.name} in {self._delete_seconds:.0f} s.",
                    "It may still be at it; look again with 'benchctl reap'.",
                    refusal=Refusal.TIMEOUT,
                )
        except ResourceNotFoundError:
            return True
        except HttpResponseError as error:
            if _code(error) != "ResourceGroupBeingDeleted":
                raise
            return False
        return True


def _gone(get: Callable[[], object]) -> bool:
    """Whether Azure says of a thing that it is not there."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        get()
    except ResourceNotFoundError:
        return True
    return False


def _resource(row: Any, created_at: float | None, state: str | None) -> Resource:
    """A row of any list, as ours; the kind is empty for types that we never make."""
    tags = _tags(row)
    identifier = str(row.id or "")
    zones = getattr(row, "zones", None) or [""]
    return Resource(
        vendor=VENDOR,
        kind=KINDS.get(str(row.type or "").lower(), ""),
        id=identifier,
        name=str(row.name or ""),
        region=str(row.location or ""),
        zone=str(zones[0]),
        sweep=tags.get(LABEL_SWEEP, ""),
        job=tags.get(LABEL_JOB, ""),
        expires_at=expiry_of(tags.get(LABEL_EXPIRES)),
        state=(state or "").lower(),
        created_at=created_at,
        attached=bool(getattr(row, "managed_by", None)),
    )


def _tags(row: Any) -> dict[str, str]:
    """Names of tags are the same in capitals and small letters, and come back as somebody once wrote them."""
    return {name.lower(): value for name, value in (row.tags or {}).items()}


def _place(identifier: str) -> tuple[str, str]:
    """The resource group in an identifier, and the last name in it."""
    parts = identifier.strip("/").split("/")
    lower = [part.lower() for part in parts]
    group = parts[lower.index("resourcegroups") + 1] if "resourcegroups" in lower[:-1] else ""
    return group, parts[-1]


def _version(identifier: str) -> str:
    return _API["compute" if "/microsoft.compute/" in identifier.lower() else "network"]


def _power(machine: VirtualMachine) -> str:
    """``running``, ``stopped``, ``deallocated``, ...: of the statuses that a VM has, the one that says so."""
    view = machine.instance_view
    codes = [one.code or "" for one in (view.statuses or [])] if view else []
    return next((code.partition("/")[2] for code in codes if code.startswith("PowerState/")), "")


def _said(holder: Any, name: str) -> str:
    return str(getattr(holder, name, None) or "").lower()


def _seconds(when: datetime | None) -> float | None:
    return when.timestamp() if when else None


def _code(error: Any) -> str:
    """The code of a refusal, the innermost where there are several."""
    inner = getattr(error, "error", None)
    code = str(getattr(inner, "code", "") or "")
    for one in getattr(inner, "details", None) or []:
        code = str(getattr(one, "code", "") or code)
    return code


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn whatever Azure's clients raise into our own error, with Azure's words."""
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    try:
        yield
    except ClientAuthenticationError as error:
        # also: no way to log in worked; the words tell what each of them said
        raise CloudError(
            f"Azure does not let us {what}: {_words(error)}",
            "Check ARM_CLIENT_ID, ARM_CLIENT_SECRET, ARM_TENANT_ID and ARM_SUBSCRIPTION_ID, or run 'az login'.",
            refusal=Refusal.ACCOUNT,
            said=_words(error),
        ) from error
    except HttpResponseError as error:
        words = _words(error)
        raise CloudError(f"Azure did not {what}: {words}", refusal=_refusal(error, words), said=words) from error
    except AzureError as error:
        raise CloudError(
            f"Azure can't be asked to {what}: {_words(error)}", refusal=Refusal.OUTAGE, said=_words(error)
        ) from error


def _words(error: Exception) -> str:
    """Azure's code and words in one line."""
    code, inner = _code(error), getattr(error, "error", None)
    message = str(getattr(inner, "message", "") or getattr(error, "message", "") or error)
    text = " ".join(message.split())
    return f"{code}: {text}" if code and code not in text else text


def _refusal(error: Any, words: str) -> Refusal | None:
    status = getattr(error, "status_code", None) or 0
    if _code(error) in _CODES:
        return _CODES[_code(error)]
    if status in (401, 403):
        return Refusal.ACCOUNT
    if status == 429:
        return Refusal.THROTTLED
    return classify(words) or (Refusal.OUTAGE if status >= 500 else None)
