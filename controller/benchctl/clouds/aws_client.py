"""AWS's own client: what EC2 lists of ours, region by region, and how it is deleted.

Sources: EC2's API reference (filters, states, error codes) and boto3.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from benchctl.clouds.cloud import ClosedRegionError, CloudError, PartialListError
from benchctl.clouds.deletion import until_gone
from benchctl.clouds.faults import fault_of
from benchctl.clouds.spec import LABEL_EXPIRES, LABEL_JOB, LABEL_SWEEP, PREFIX, Resource, expiry_of
from benchctl.refusals import Refusal, classify, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

SPOT_REQUEST = "spot-request"
"""A kind of AWS alone; it goes before its server (:data:`benchctl.clouds.spec.FIRST`), which it could start again."""

HOME_REGION = "us-east-1"
"""Where STS and the list of regions are asked when no region is set: no account has to opt into it."""

ENABLED_REGIONS = (HOME_REGION, "eu-west-1", "eu-central-1", "us-west-2", "ap-southeast-1")
"""Where the list of regions is asked, one after the other, when an organisation denies its account some of them."""

_OTHER_PARTITIONS = ("cn-", "us-gov-", "us-iso")
"""What the regions begin with whose logins :data:`HOME_REGION` does not know."""

REGIONS_AT_ONCE = 8

WAIT_SECONDS = 600.0
"""How long a deletion may take; boto3's own waiter for terminated instances gives up after as long."""

POLL_SECONDS = 5.0
ATTEMPTS = 6

_GONE = ".NotFound"
_BUSY = frozenset(
    {
        "DependencyViolation",
        "VolumeInUse",
        "IncorrectState",
        "InvalidNetworkInterface.InUse",
        "InvalidIPAddress.InUse",
        "InvalidGroup.InUse",
        "IncorrectInstanceState",
        "RequestLimitExceeded",
    }
)
"""What is refused now and will be taken when what holds it has gone."""


class AwsClient:
    """The vendor's own client; see :class:`benchctl.clouds.cloud.Client`.

    Args:
        environment: where the login is looked for; AWS_ENDPOINT_URL_EC2, AWS_ENDPOINT_URL_STS and AWS_ENDPOINT_URL
            name another address of the API (a proxy, an emulation).
        regions: where to look; none for all that the account has enabled.
        wait_seconds: how long a deletion may take.
        poll_seconds: how often the API is asked in the meantime.
        attempts: how often a call that is throttled, or meets an outage, is tried.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        regions: Sequence[str] = (),
        *,
        wait_seconds: float = WAIT_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        attempts: int = ATTEMPTS,
    ) -> None:
        self._environment, self._given = dict(environment), tuple(dict.fromkeys(regions))
        self._wait, self._poll, self._attempts = wait_seconds, poll_seconds, attempts
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str], Any] = {}
        self._session: Any = None
        self._account = ""

    def whoami(self) -> str:
        """The account, and the user or role."""
        said = self._call("sts", self._home(), "get_caller_identity")
        self._account = f"account {said['Account']}, {said['Arn']}"
        return self._account

    def find(self) -> list[Resource]:
        """Everything of ours in the regions, by label, by name, and by our security group or key.

        Raises:
            PartialListError: some regions did not answer, or the account's organisation denies them to it.
            CloudError: none answered.
        """
        regions = self._regions()
        for region in regions:  # sessions of boto3 are not for threads, their clients are
            self._client("ec2", region)
        found: list[Resource] = []
        missing: dict[str, CloudError] = {}
        with ThreadPoolExecutor(max_workers=REGIONS_AT_ONCE) as pool:
            for region, listed in zip(regions, pool.map(self._find_in, regions), strict=True):
                if isinstance(listed, CloudError):
                    missing[region] = listed
                else:
                    found += listed
        if not missing:
            return found
        answered = len(missing) < len(regions)
        if not answered and not any(isinstance(one, ClosedRegionError) for one in missing.values()):
            raise missing[regions[0]]
        raise PartialListError(found, missing, answered=answered)

    def delete(self, resource: Resource) -> None:
        """Delete it and wait until EC2 says that it is gone.

        Raises:
            CloudError: it is refused, or not gone in time.
        """
        removed = {
            "server": self._terminate,
            SPOT_REQUEST: self._cancel,
            "disk": self._delete_disk,
            "interface": self._delete_interface,
            "address": self._release,
            "firewall": self._delete_group,
            "key": self._delete_key,
        }.get(resource.kind)
        if removed is None:
            raise CloudError(f"aws: what is a {resource.kind}? {resource.id} was not deleted.")
        until_gone(
            lambda: removed(resource),
            what=f"aws: {resource.kind} {resource.id} in {resource.region}",
            gone=lambda error: _code(error).endswith(_GONE),
            busy=lambda error: _code(error) in _BUSY,
            wait_seconds=self._wait,
            poll_seconds=self._poll,
        )

    # --- what is listed

    def _find_in(self, region: str) -> list[Resource] | CloudError:
        """What is there, or why it can't be said."""
        try:
            servers = list(self._unique(region, "server", _servers, "describe_instances", ("tag:Name",)))
            keys = list(self._unique(region, "key", _keys, "describe_key_pairs", ("key-name",)))
            holders = {**{one.name: one for one in keys}, **{one.id: one for one in servers}}
            return [
                *servers,
                *self._unique(
                    region,
                    SPOT_REQUEST,
                    lambda page: _spot_requests(page, holders),
                    "describe_spot_instance_requests",
                    ("launch.key-name",),
                ),
                *self._unique(region, "disk", _disks, "describe_volumes", ("tag:Name",)),
                *self._unique(region, "interface", _interfaces, "describe_network_interfaces", ("group-name",)),
                *self._unique(region, "address", _addresses, "describe_addresses", ("tag:Name",)),
                *self._unique(region, "firewall", _groups, "describe_security_groups", ("group-name",)),
                *keys,
            ]
        except CloudError as error:
            fault = fault_of("aws", error.said)
            if not fault.doubtful or not self._login_works():
                return error
            # good keys get AuthFailure, too, in a region that the account has not opted into: nothing of ours is there
            if _code(error) == "AuthFailure":
                return []
            return ClosedRegionError(error.problem, said=error.said)

    def _unique(
        self,
        region: str,
        kind: str,
        read: Callable[[Mapping[str, Any]], Iterable[dict[str, Any]]],
        operation: str,
        names: Sequence[str],
    ) -> Iterator[Resource]:
        """What any of the filters lists, once: filters of one call would all have to match."""
        seen: set[str] = set()
        for filters in ({"tag-key": LABEL_SWEEP}, *({name: f"{PREFIX}*"} for name in names)):
            asked = [{"Name": key, "Values": [value]} for key, value in filters.items()]
            for page in self._pages(region, operation, asked):
                for row in read(page):
                    if row["id"] in seen:
                        continue
                    seen.add(row["id"])
                    yield _resource(region, kind, row)

    def _pages(self, region: str, operation: str, filters: list[dict[str, Any]]) -> Iterator[Mapping[str, Any]]:
        more: dict[str, str] = {}
        while True:
            page = self._call("ec2", region, operation, Filters=filters, **more)
            yield page
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}

    # --- how it is deleted: each says whether it is gone

    def _terminate(self, resource: Resource) -> bool:
        state = self._server_state(resource)
        if state in ("", "terminated"):
            return True
        if state != "shutting-down":
            self._call("ec2", resource.region, "terminate_instances", InstanceIds=[resource.id])
        return False

    def _server_state(self, resource: Resource) -> str:
        page = self._call("ec2", resource.region, "describe_instances", InstanceIds=[resource.id])
        return next((row["state"] for row in _servers(page, everything=True)), "")

    def _cancel(self, resource: Resource) -> bool:
        self._call("ec2", resource.region, "cancel_spot_instance_requests", SpotInstanceRequestIds=[resource.id])
        return True

    def _delete_disk(self, resource: Resource) -> bool:
        page = self._call("ec2", resource.region, "describe_volumes", VolumeIds=[resource.id])
        if not page["Volumes"]:
            return True
        if page["Volumes"][0]["State"] != "deleting":
            self._call("ec2", resource.region, "delete_volume", VolumeId=resource.id)
        return False

    def _delete_interface(self, resource: Resource) -> bool:
        self._call("ec2", resource.region, "delete_network_interface", NetworkInterfaceId=resource.id)
        return False

    def _release(self, resource: Resource) -> bool:
        self._call("ec2", resource.region, "release_address", AllocationId=resource.id)
        return True

    def _delete_group(self, resource: Resource) -> bool:
        self._call("ec2", resource.region, "delete_security_group", GroupId=resource.id)
        return True

    def _delete_key(self, resource: Resource) -> bool:
        # succeeds for a key that is not there
        self._call("ec2", resource.region, "delete_key_pair", KeyPairId=resource.id)
        return True

    # --- calls

    def _regions(self) -> tuple[str, ...]:
        if self._given:
            return self._given
        errors: list[CloudError] = []
        for region in dict.fromkeys((self._home(), *ENABLED_REGIONS)):
            try:
                said = self._call("ec2", region, "describe_regions", AllRegions=False)
            except CloudError as error:
                errors.append(error)
                if not fault_of("aws", error.said).doubtful:
                    break
            else:
                return tuple(sorted(row["RegionName"] for row in said["Regions"]))
        raise errors[0]

    def _home(self) -> str:
        named = self._environment.get("AWS_REGION") or self._environment.get("AWS_DEFAULT_REGION")
        elsewhere = self._given and all(one.startswith(_OTHER_PARTITIONS) for one in self._given)
        return named or (self._given[0] if elsewhere else HOME_REGION)

    def _login_works(self) -> bool:
        with self._lock:
            known = bool(self._account)
        if known:
            return True
        try:
            return bool(self.whoami())
        except CloudError:
            return False

    def _client(self, service: str, region: str) -> Any:
        from botocore.config import Config

        with self._lock:
            if (service, region) not in self._clients:
                url = self._environment.get(f"AWS_ENDPOINT_URL_{service.upper()}") or self._environment.get(
                    "AWS_ENDPOINT_URL"
                )
                self._clients[service, region] = self._logged_in().client(
                    service,
                    region_name=region,
                    endpoint_url=url or None,
                    # throttling and outages are tried again with back-off and jitter, by AWS's own rules
                    config=Config(
                        retries={"mode": "standard", "max_attempts": self._attempts},
                        connect_timeout=10,
                        read_timeout=60,
                    ),
                )
            return self._clients[service, region]

    def _logged_in(self) -> Any:
        """A session whose login is that of ``environment``, which need not be this process's own."""
        import boto3
        import botocore.session

        if self._session is None:
            base, given = botocore.session.Session(), self._environment
            for variable, setting in (
                ("AWS_CONFIG_FILE", "config_file"),
                ("AWS_SHARED_CREDENTIALS_FILE", "credentials_file"),
            ):
                if given.get(variable):
                    base.set_config_variable(setting, given[variable])
            if given.get("AWS_ACCESS_KEY_ID") and given.get("AWS_SECRET_ACCESS_KEY"):
                self._session = boto3.Session(
                    aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
                    aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
                    aws_session_token=given.get("AWS_SESSION_TOKEN") or None,
                    botocore_session=base,
                )
            else:
                profile = given.get("AWS_PROFILE") or given.get("AWS_DEFAULT_PROFILE")
                self._session = boto3.Session(profile_name=profile or None, botocore_session=base)
        return self._session

    def _call(self, service: str, region: str, operation: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ProfileNotFound

        try:
            return getattr(self._client(service, region), operation)(**arguments)
        except ClientError as error:
            raise _refused(region, operation, error.response.get("Error", {})) from error
        except (NoCredentialsError, ProfileNotFound) as error:
            raise CloudError(
                f"aws: {error}.",
                "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
                refusal=Refusal.ACCOUNT,
            ) from error
        except BotoCoreError as error:
            raise CloudError(
                f"aws: the API in {region} can't be reached: {error}.", refusal=Refusal.OUTAGE, said=str(error)
            ) from error


class AwsError(CloudError):
    """EC2 or STS said no.

    Attributes:
        code: as the API calls it, e.g. ``DependencyViolation``.
    """

    def __init__(self, problem: str, *, code: str, refusal: Refusal | None, said: str) -> None:
        super().__init__(problem, refusal=refusal, said=said)
        self.code = code


def _refused(region: str, operation: str, error: Mapping[str, str]) -> AwsError:
    code = error.get("Code", "")
    said = f"api error {code}: {error.get('Message', '')}"
    return AwsError(f"aws: {operation} in {region}: {shortened(said)}", code=code, refusal=classify(said), said=said)


def _code(error: CloudError) -> str:
    return error.code if isinstance(error, AwsError) else ""


def _resource(region: str, kind: str, row: Mapping[str, Any]) -> Resource:
    tags: Mapping[str, str] = row.get("tags", {})
    return Resource(
        vendor="aws",
        kind=kind,
        id=row["id"],
        name=row.get("name") or tags.get("Name", ""),
        region=region,
        zone=row.get("zone") or "",
        sweep=tags.get(LABEL_SWEEP, ""),
        job=tags.get(LABEL_JOB, ""),
        expires_at=expiry_of(tags.get(LABEL_EXPIRES)),
        address=row.get("address") or "",
        state=row.get("state") or "",
        created_at=row["created"].timestamp() if row.get("created") else None,
        attached=bool(row.get("attached")),
    )


def _tags(row: Mapping[str, Any], key: str = "Tags") -> dict[str, str]:
    return {one["Key"]: one["Value"] for one in row.get(key, ())}


def _servers(page: Mapping[str, Any], *, everything: bool = False) -> Iterator[dict[str, Any]]:
    for reservation in page["Reservations"]:
        for one in reservation["Instances"]:
            # a terminated instance stays listed for an hour, and loses its tags in the meantime
            if everything or one["State"]["Name"] != "terminated":
                yield {
                    "id": one["InstanceId"],
                    "tags": _tags(one),
                    "zone": one.get("Placement", {}).get("AvailabilityZone"),
                    "address": one.get("PublicIpAddress"),
                    "state": one["State"]["Name"],
                    "created": one.get("LaunchTime"),
                }


def _spot_requests(page: Mapping[str, Any], holders: Mapping[str, Resource]) -> Iterator[dict[str, Any]]:
    """The provider does not tag them: they are of the sweep and job of their server, or of their key.

    Args:
        page: what the API lists.
        holders: servers of ours by their id, keys by their name.
    """
    for one in page["SpotInstanceRequests"]:
        if one.get("State") in ("open", "active"):
            identifier, key = one["SpotInstanceRequestId"], one.get("LaunchSpecification", {}).get("KeyName", "")
            holder = holders.get(one.get("InstanceId", "")) or holders.get(key)
            named = holder.name if holder else key if key.startswith(PREFIX) else ""
            yield {
                "id": identifier,
                "tags": {**(_labels(holder) if holder else {}), **_tags(one)},
                "name": _tags(one).get("Name") or (f"{named}-{identifier}" if named else identifier),
                "state": one["State"],
                "created": one.get("CreateTime"),
            }


def _labels(one: Resource) -> dict[str, str]:
    known = {LABEL_SWEEP: one.sweep, LABEL_JOB: one.job, LABEL_EXPIRES: str(one.expires_at or "")}
    return {key: value for key, value in known.items() if value}


def _disks(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for one in page["Volumes"]:
        if one["State"] != "deleted":
            yield {
                "id": one["VolumeId"],
                "tags": _tags(one),
                "zone": one.get("AvailabilityZone"),
                "state": one["State"],
                "created": one.get("CreateTime"),
                "attached": any(held.get("State") != "detached" for held in one.get("Attachments", ())),
            }


def _interfaces(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for one in page["NetworkInterfaces"]:
        group = next((held["GroupName"] for held in one.get("Groups", ()) if held["GroupName"].startswith(PREFIX)), "")
        yield {
            "id": one["NetworkInterfaceId"],
            "tags": _tags(one, "TagSet"),
            "name": _tags(one, "TagSet").get("Name") or f"{group or PREFIX.strip('-')}-{one['NetworkInterfaceId']}",
            "zone": one.get("AvailabilityZone"),
            "state": one.get("Status"),
            "attached": bool(one.get("Attachment", {}).get("InstanceId")),
        }


def _addresses(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for one in page["Addresses"]:
        yield {
            "id": one.get("AllocationId", one["PublicIp"]),
            "tags": _tags(one),
            "address": one["PublicIp"],
            "attached": bool(one.get("AssociationId")),
        }


def _groups(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for one in page["SecurityGroups"]:
        yield {"id": one["GroupId"], "tags": _tags(one), "name": one["GroupName"]}


def _keys(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for one in page["KeyPairs"]:
        yield {
            "id": one["KeyPairId"],
            "tags": _tags(one),
            "name": one["KeyName"],
            "created": one.get("CreateTime"),
        }
