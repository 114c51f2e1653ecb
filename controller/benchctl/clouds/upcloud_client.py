"""UpCloud's own client: servers, disks and addresses of ours, and how they are deleted.

Sources: UpCloud's API reference (1.3) and upcloud-api, whose raw requests are used where it has no call of its own
(pages, and stopping a server by the hard way).
"""

from __future__ import annotations

import random
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from benchctl.clouds.cloud import CloudError
from benchctl.clouds.deletion import until_gone
from benchctl.clouds.spec import LABEL_EXPIRES, LABEL_JOB, LABEL_SWEEP, Resource, expiry_of, is_ours
from benchctl.clouds.upcloud import read_title
from benchctl.refusals import Refusal, classify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PAGE = 100
"""The most that a page holds."""

WAIT_SECONDS = 600.0
POLL_SECONDS = 3.0
ATTEMPTS = 5
REQUEST_SECONDS = 60

_GONE = frozenset({"SERVER_NOT_FOUND", "STORAGE_NOT_FOUND", "IP_ADDRESS_NOT_FOUND"})
_BUSY = frozenset({"SERVER_STATE_ILLEGAL", "STORAGE_STATE_ILLEGAL", "STORAGE_ATTACHED", "STORAGE_IN_USE"})
"""What is refused now and will be taken when the server has stopped, or what holds the disk is gone."""


class UpCloudClient:
    """The vendor's own client; see :class:`benchctl.clouds.cloud.Client`.

    Args:
        environment: where the login is looked for; UPCLOUD_DEBUG_API_BASE_URL, which UpCloud's Go programs (and so
            Pulumi's plugin) read too, names another address of the API (a proxy, an emulation).
        wait_seconds: how long a deletion may take.
        poll_seconds: how often the API is asked in the meantime.
    """

    def __init__(
        self, environment: Mapping[str, str], *, wait_seconds: float = WAIT_SECONDS, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._environment = dict(environment)
        self._wait, self._poll = wait_seconds, poll_seconds
        self._manager: Any = None

    def whoami(self) -> str:
        """The account's user."""
        return f"user {self._ask('GET', '/account')['account']['username']}"

    def find(self) -> list[Resource]:
        """Servers, disks and addresses of ours: by label, and by title, because template disks get no label."""
        servers = [
            self._server(row)
            for row in self._rows("/server", "servers", "server", "uuid")
            if is_ours(row.get("title", ""), _labels(row))
        ]
        disks = [
            self._disk(row)
            for row in self._rows("/storage/private", "storages", "storage", "uuid")
            if is_ours(row.get("title", ""), _labels(row))
        ]
        ours = {one.id: one for one in servers}
        addresses = [
            _address(row, ours[row["server"]])
            for row in self._rows("/ip_address", "ip_addresses", "ip_address", "address")
            if row.get("server") in ours and row.get("access") == "public"
        ]
        return [*servers, *disks, *addresses]

    def delete(self, resource: Resource) -> None:
        """Delete it and wait until the API does not know it any more.

        Raises:
            CloudError: it is refused, or not gone in time.
        """
        removed: Callable[[str], bool] | None = {
            "server": self._delete_server,
            "disk": self._delete_disk,
            "address": self._release,
        }.get(resource.kind)
        if removed is None:
            raise CloudError(f"upcloud: what is a {resource.kind}? {resource.id} was not deleted.")
        until_gone(
            lambda: removed(resource.id),
            what=f"upcloud: {resource.kind} {resource.id}",
            gone=lambda error: _code(error) in _GONE,
            busy=lambda error: _code(error) in _BUSY,
            wait_seconds=self._wait,
            poll_seconds=self._poll,
        )

    # --- how it is deleted: each says whether it is gone

    def _delete_server(self, identifier: str) -> bool:
        state = self._ask("GET", f"/server/{identifier}")["server"]["state"]
        if state == "started":
            # the disk goes too, so the operating system need not be asked to close its files
            self._ask("POST", f"/server/{identifier}/stop", {"stop_server": {"stop_type": "hard"}})
        elif state in ("stopped", "error"):
            # upcloud-api's default leaves the disk
            self._ask("DELETE", f"/server/{identifier}?storages=1&backups=delete")
        return False

    def _delete_disk(self, identifier: str) -> bool:
        state = self._ask("GET", f"/storage/{identifier}")["storage"]["state"]
        if state in ("online", "error"):
            self._ask("DELETE", f"/storage/{identifier}?backups=delete")
        return False

    def _release(self, address: str) -> bool:
        self._ask("DELETE", f"/ip_address/{address}")
        return False

    # --- what is listed

    def _rows(self, path: str, several: str, one: str, identifier: str) -> Iterator[Mapping[str, Any]]:
        """All pages: until one holds nothing new, because a page may hold less than was asked for."""
        seen: set[str] = set()
        while True:
            rows = self._ask("GET", path, params={"limit": PAGE, "offset": len(seen)})[several][one]
            fresh = [row for row in rows if row[identifier] not in seen]
            yield from fresh
            seen.update(row[identifier] for row in fresh)
            if not fresh:
                return

    def _server(self, row: Mapping[str, Any]) -> Resource:
        """One server; the list lacks its addresses, and what it lacks is asked for."""
        try:
            row = {**row, **self._ask("GET", f"/server/{row['uuid']}")["server"]}
        except UpCloudError as error:
            if error.code not in _GONE:
                raise
        return _resource("server", row["uuid"], row["title"], _labels(row), row, address=_public(row))

    def _disk(self, row: Mapping[str, Any]) -> Resource:
        try:
            row = {**row, **self._ask("GET", f"/storage/{row['uuid']}")["storage"]}
        except UpCloudError as error:
            if error.code not in _GONE:
                raise
        name, said = read_title(row["title"])
        held = bool(row.get("servers", {}).get("server"))
        return _resource("disk", row["uuid"], name, {**said, **_labels(row)}, row, attached=held)

    # --- calls

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, params: Mapping[str, Any] | None = None
    ) -> Any:
        """One request; throttling and outages are tried again with back-off and jitter.

        Raises:
            UpCloudError: the API says no.
            CloudError: it can't be reached.
        """
        import requests
        from upcloud_api.errors import UpCloudAPIError

        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._logged_in().api.api_request(method, path, body=body, params=params)
            except UpCloudAPIError as error:
                refused = UpCloudError(method, path, str(error.error_code or ""), str(error.error_message or ""))
                if refused.refusal not in (Refusal.THROTTLED, Refusal.OUTAGE) or attempt == ATTEMPTS:
                    raise refused from error
            except (requests.RequestException, ValueError) as error:  # no answer, or one that is no JSON
                if attempt == ATTEMPTS:
                    raise CloudError(
                        f"upcloud: the API can't be reached: {error}.", refusal=Refusal.OUTAGE, said=str(error)
                    ) from error
            time.sleep(min(self._poll, 0.25 * 2**attempt) * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        raise AssertionError("the last attempt returns or raises")

    def _logged_in(self) -> Any:
        from upcloud_api import CloudManager
        from upcloud_api.errors import UpCloudClientError

        if self._manager is None:
            given = self._environment
            token = given.get("UPCLOUD_TOKEN")
            try:
                self._manager = CloudManager(
                    username=None if token else given.get("UPCLOUD_USERNAME"),
                    password=None if token else given.get("UPCLOUD_PASSWORD"),
                    token=token or None,
                    timeout=REQUEST_SECONDS,
                )
            except UpCloudClientError as error:
                raise CloudError(
                    "upcloud: no login found.",
                    "Set UPCLOUD_TOKEN, or UPCLOUD_USERNAME and UPCLOUD_PASSWORD.",
                    refusal=Refusal.ACCOUNT,
                ) from error
            if given.get("UPCLOUD_DEBUG_API_BASE_URL"):
                self._manager.api.api_root = f"{given['UPCLOUD_DEBUG_API_BASE_URL'].rstrip('/')}/1.3"
        return self._manager


class UpCloudError(CloudError):
    """The API said no.

    Attributes:
        code: as the API calls it, e.g. ``SERVER_STATE_ILLEGAL``.
    """

    def __init__(self, method: str, path: str, code: str, message: str) -> None:
        said = f"{message} (type={code})"
        super().__init__(f"upcloud: {method} {path}: {said}", refusal=classify(said), said=said)
        self.code = code


def _code(error: CloudError) -> str:
    return error.code if isinstance(error, UpCloudError) else ""


def _labels(row: Mapping[str, Any]) -> dict[str, str]:
    """Labels, as servers have them (a list in an object) and as storages have them (a list)."""
    labels = row.get("labels") or []
    rows = labels.get("label", []) if isinstance(labels, dict) else labels
    return {one["key"]: one["value"] for one in rows}


def _public(row: Mapping[str, Any]) -> str:
    for one in row.get("ip_addresses", {}).get("ip_address", ()):
        if one.get("access") == "public" and one.get("family") == "IPv4":
            return str(one["address"])
    return ""


def _address(row: Mapping[str, Any], server: Resource) -> Resource:
    return Resource(
        vendor="upcloud",
        kind="address",
        id=row["address"],
        name=f"{server.name}-address",
        region=server.region,
        zone=server.zone,
        sweep=server.sweep,
        job=server.job,
        expires_at=server.expires_at,
        address=row["address"],
        attached=True,
    )


def _resource(
    kind: str,
    identifier: str,
    name: str,
    labels: Mapping[str, str],
    row: Mapping[str, Any],
    *,
    address: str = "",
    attached: bool = False,
) -> Resource:
    zone = row.get("zone") or ""
    return Resource(
        vendor="upcloud",
        kind=kind,
        id=identifier,
        name=name,
        region=zone,
        zone=zone,
        sweep=labels.get(LABEL_SWEEP, ""),
        job=labels.get(LABEL_JOB, ""),
        expires_at=expiry_of(labels.get(LABEL_EXPIRES)),
        address=address,
        state=row.get("state") or "",
        created_at=_time(row.get("created")),
        attached=attached,
    )


def _time(value: Any) -> float | None:
    """Seconds since 1970 of what the API gives as such (servers) or as a date (storages)."""
    if value is None or isinstance(value, int | float):
        return value
    try:
        return float(value) if str(value).isdigit() else datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return None
