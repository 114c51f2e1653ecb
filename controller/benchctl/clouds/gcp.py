"""Google Cloud: one instance a job; one network with its firewall is shared by a sweep.

The instance ends itself: Google deletes it when its time is over. The network is of the auto mode, so that one of it
serves all regions (the quota ``NETWORKS`` is small), and its subnets go with it. The network ``default`` is left alone:
it lets everybody in by SSH.

Sources: https://cloud.google.com/compute/docs, pulumi-gcp and google-cloud-compute.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.clouds.boot import login_user, startup_script, user_data
from benchctl.clouds.cloud import CloudError, PartialListError
from benchctl.clouds.spec import (
    ARM64,
    LABEL_EXPIRES,
    LABEL_JOB,
    LABEL_SWEEP,
    LABELS,
    PREFIX,
    Asked,
    Resource,
    expiry_of,
    is_ours,
)
from benchctl.errors import BenchctlError
from benchctl.refusals import Refusal, classify

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from benchctl.clouds.cloud import Client, Cloud
    from benchctl.clouds.spec import InstanceSpec, SharedSpec

PROJECTS = ("GOOGLE_PROJECT", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT")
"""Variables that name the project, in the order in which the vendor's Pulumi provider reads them."""

CREDENTIALS, CREDENTIALS_FILE = "GOOGLE_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS"
ENDPOINT = "GOOGLE_COMPUTE_CUSTOM_ENDPOINT"
"""Another address of the API, ending in ``/compute/v1/`` (a proxy, an emulation); the provider reads it too."""

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
HOST = "compute.googleapis.com"

CREATE_TIMEOUT, DELETE_TIMEOUT = "10m", "10m"
DELETE_SECONDS = 600.0
HTTP_SECONDS = 60.0
RETRY_SECONDS = 15.0
"""How long a call is repeated that the API answers with 503; the SDK's own is ten minutes."""

HYPERDISK, PERSISTENT = "hyperdisk-balanced", "pd-balanced"
_HYPERDISK_FAMILIES = ("a3", "h3")
"""Families below the fourth generation that take the new disks; from the fourth on (c4, n4, a4, g4, x4, m4, h4d and
their variants) there is nothing else. Disk types by machine series: https://cloud.google.com/compute/docs/disks."""

_ARM_FAMILIES = ("t2a", "c4a", "n4a", "a4x")
"""All that Google sells with ARM processors; the family decides, because catalogues have been wrong about it."""

IMAGES: Mapping[str, Mapping[str, str]] = {
    "ubuntu-24.04": {
        "X86_64": "ubuntu-os-cloud/ubuntu-2404-lts-amd64",
        "ARM64": "ubuntu-os-cloud/ubuntu-2404-lts-arm64",
    },
    "debian-12": {"X86_64": "debian-cloud/debian-12", "ARM64": "debian-cloud/debian-12-arm64"},
}
"""Image family by image and architecture."""

ACCELERATOR = "accelerator"
"""Key of ``InstanceSpec.settings``: the type of GPU that an N1 machine gets, as Google calls it."""

_SINGULAR = {"Instances": "Instance", "Disks": "Disk", "Addresses": "Address"}

KINDS = ("server", "disk", "address", "firewall", "network")
"""In the order in which they can be deleted."""


def family(server_type: str) -> str:
    """The machine series: ``c4a`` of ``c4a-standard-4``."""
    return server_type.partition("-")[0]


def disk_type(server_type: str) -> str:
    """The type of boot disk that a machine type takes."""
    series = family(server_type)
    generation = re.match(r"[a-z]+(\d+)", series)
    newest = generation is not None and int(generation[1]) >= 4
    return HYPERDISK if newest or series in _HYPERDISK_FAMILIES else PERSISTENT


def architecture(spec: InstanceSpec) -> str:
    """The architecture in Google's words."""
    return "ARM64" if family(spec.server_type) in _ARM_FAMILIES or spec.architecture == ARM64 else "X86_64"


def image(spec: InstanceSpec) -> str:
    """The boot image: Google's newest of a family.

    Raises:
        BenchctlError: there is none for it.
    """
    try:
        return IMAGES[spec.image][architecture(spec)]
    except KeyError:
        raise BenchctlError(f"Google has no image '{spec.image}'.", f"Images: {', '.join(IMAGES)}.") from None


def accelerators(spec: InstanceSpec) -> tuple[tuple[str, int], ...]:
    """GPUs that are asked for by themselves: of N1 alone, all other machine types with GPUs contain them.

    Raises:
        BenchctlError: N1 with GPUs, and nothing says of which type.
    """
    if spec.gpus == 0 or family(spec.server_type) != "n1":
        return ()
    kind = str(spec.settings.get(ACCELERATOR, ""))
    if not kind:
        raise BenchctlError(
            f"{spec.server_type} has GPUs only when their type is named, and the catalogue names none.",
            "Choose a type with built-in GPUs (g2, a2, a3, ...).",
        )
    return ((kind, spec.gpus),)


def scheduling(spec: InstanceSpec, now: float) -> dict[str, Any]:
    """How it is run, and that Google deletes it when its time is over.

    Maintenance ends it on every type, not on those with GPUs alone, which know nothing else: a live migration in the
    middle of a measurement would be a wrong number. Nothing restarts it: a restarted server has lost its job.
    """
    wanted: dict[str, Any] = {
        "on_host_maintenance": "TERMINATE",
        "automatic_restart": False,
        "instance_termination_action": "DELETE",
        "max_run_duration": {"seconds": spec.lifetime_seconds(now)},
    }
    if spec.spot:
        wanted |= {"provisioning_model": "SPOT", "preemptible": True}
    return wanted


def metadata(spec: InstanceSpec) -> dict[str, str]:
    """What the instance reads: who may log in, and what it does at its first boot. The host key is in it."""
    user = login_user("gcp", spec.image)
    told = {
        "ssh-keys": f"{user}:{spec.ssh_public_key.strip()}",
        "block-project-ssh-keys": "true",
        "enable-oslogin": "false",  # where a project turns it on, keys of metadata are not looked at
    }
    if spec.image.startswith("debian"):  # no cloud-init in Google's image
        return told | {"startup-script": startup_script(spec)}
    return told | {"user-data": user_data(spec, google=True)}


class Gcp:
    """See :class:`benchctl.clouds.cloud.Cloud`."""

    name = "gcp"
    vendor_id = "gcp"
    limits_itself = True
    engine_seconds = 1200.0

    def user(self, spec: InstanceSpec) -> str:
        """The distribution's usual name; the guest agent makes any."""
        return login_user(self.name, spec.image)

    def login_problem(self, environment: Mapping[str, str]) -> str:
        """A key of a service account or gcloud's login, and a project."""
        try:
            found = _credentials(environment)
        except BenchctlError as error:
            return f"{error.problem} {error.mend}".strip()
        if found is None:
            besides = "" if project(environment) else f"; and set {PROJECTS[0]} to the project"
            return (
                f"gcp: no login found: set {CREDENTIALS_FILE} to the key file of a service account, or run "
                f"'gcloud auth application-default login'{besides}."
            )
        if not project(environment):
            return f"gcp: half a login is set: set {PROJECTS[0]} too."
        return ""

    def account(self, environment: Mapping[str, str], client: Client) -> str:  # noqa: ARG002
        """The project."""
        return project(environment)

    def engine_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The login, the project under the provider's own name, and the API's address where it is another."""
        names = (CREDENTIALS, CREDENTIALS_FILE, ENDPOINT)
        passed = {name: environment[name] for name in names if environment.get(name)}
        if CREDENTIALS not in passed and CREDENTIALS_FILE not in passed and (file := _gcloud_file(environment)):
            passed[CREDENTIALS_FILE] = str(file)
        if found := project(environment):
            passed[PROJECTS[0]] = found
        return passed

    def shared_scope(self, region: str) -> str | None:  # noqa: ARG002
        """One network for all regions."""
        return ""

    def shared_resources(self, spec: SharedSpec) -> tuple[Asked, ...]:
        """Neither can be labelled: the name says whose they are."""
        return Asked("network", f"{spec.name}-network"), Asked("firewall", f"{spec.name}-firewall")

    def shared_program(self, spec: SharedSpec) -> dict[str, Any]:
        """A network, and one rule: SSH from the controller, to instances with our tag."""
        import pulumi
        from pulumi_gcp import compute

        options = pulumi.ResourceOptions(custom_timeouts=_timeouts())
        about = " ".join(f"{label}={spec.labels[label]}" for label in LABELS)
        network = compute.Network(
            f"{spec.name}-network",
            name=f"{spec.name}-network",
            auto_create_subnetworks=True,
            description=about,
            opts=options,
        )
        compute.Firewall(
            f"{spec.name}-firewall",
            name=f"{spec.name}-firewall",
            network=network.self_link,
            direction="INGRESS",
            source_ranges=[spec.ingress],
            allows=[compute.FirewallAllowArgs(protocol="tcp", ports=["22"])],
            target_tags=[spec.name],
            description=about,
            opts=options,
        )
        return {"network": network.self_link, "tag": spec.name}

    def resources(self, spec: InstanceSpec) -> tuple[Asked, ...]:
        """The instance; its boot disk has the same name, and is deleted with it."""
        return (Asked("server", spec.name),)

    def program(self, spec: InstanceSpec, shared: Mapping[str, str]) -> dict[str, Any]:
        """An instance without a service account: nothing on it can call Google's APIs."""
        import pulumi
        from pulumi_gcp import compute

        if not spec.zone:
            raise BenchctlError(f"{spec.server_type} in {spec.region}: Google rents by zone, and no zone was chosen.")
        run = scheduling(spec, time.time())
        limit = run.pop("max_run_duration")
        server = compute.Instance(
            spec.name,
            name=spec.name,
            machine_type=spec.server_type,
            zone=spec.zone,
            boot_disk=compute.InstanceBootDiskArgs(
                auto_delete=True,
                initialize_params=compute.InstanceBootDiskInitializeParamsArgs(
                    image=image(spec),
                    size=spec.disk_gb,
                    type=disk_type(spec.server_type),
                    architecture=architecture(spec),
                    labels=dict(spec.labels),
                ),
            ),
            network_interfaces=[
                compute.InstanceNetworkInterfaceArgs(
                    network=shared["network"], access_configs=[compute.InstanceNetworkInterfaceAccessConfigArgs()]
                )
            ],
            guest_accelerators=[
                compute.InstanceGuestAcceleratorArgs(type=kind, count=count) for kind, count in accelerators(spec)
            ]
            or None,
            scheduling=compute.InstanceSchedulingArgs(
                max_run_duration=compute.InstanceSchedulingMaxRunDurationArgs(**limit), **run
            ),
            metadata=pulumi.Output.secret(metadata(spec)),
            labels=dict(spec.labels),
            tags=[shared["tag"]],
            # the time that is left is another one at every run of the program, and must not change what runs
            opts=pulumi.ResourceOptions(custom_timeouts=_timeouts(), ignore_changes=["scheduling"]),
        )
        address = server.network_interfaces.apply(lambda found: (found[0].access_configs or [])[0].nat_ip)
        return {"address": address, "ids": {spec.name: server.instance_id}}

    def client(self, environment: Mapping[str, str], regions: Sequence[str] = ()) -> Client:
        """One client: the API lists all zones at once; those outside ``regions`` need not answer."""
        credentials = _credentials(environment)
        if problem := self.login_problem(environment):
            raise CloudError(problem, refusal=Refusal.ACCOUNT)
        return GcpClient(credentials, project(environment), environment.get(ENDPOINT, ""), regions)


class GcpClient:
    """See :class:`benchctl.clouds.cloud.Client`."""

    def __init__(self, credentials: Any, project_id: str, endpoint: str, regions: Sequence[str] = ()) -> None:
        self._credentials, self._project = credentials, project_id
        self._endpoint = endpoint.rstrip("/").removesuffix("/compute/v1")
        self._regions = frozenset(regions)
        self._made: dict[str, Any] = {}
        self._session: Any = None

    def whoami(self) -> str:
        """The project; the call proves that the login may look into it."""
        with _said():
            found = self._client("Projects").get(project=self._project, **_patience())
        return f"project {found.name or self._project}"

    def find(self) -> list[Resource]:
        """By name: firewalls and networks can't be labelled, and everything of ours is named so.

        Raises:
            PartialListError: some zones can't be reached.
            CloudError: none can.
        """
        scopes = _Scopes(self._regions)
        with _said():
            servers = [_server(one) for one in self._aggregated("Instances", scopes)]
            found = [
                *servers,
                *(_disk(one) for one in self._aggregated("Disks", scopes)),
                *(_address(one) for one in self._aggregated("Addresses", scopes)),
            ]
            firewalls = self._global("Firewalls")
            networks = self._global("Networks")
        used = {_last(one.network) for one in firewalls}
        found.extend(_plain("firewall", one) for one in firewalls)
        found.extend(_plain("network", one, attached=_last(one.self_link) in used or bool(servers)) for one in networks)
        found = [one for one in found if is_ours(one.name, {LABEL_SWEEP: one.sweep} if one.sweep else {})]
        if scopes.missing and not scopes.answered:
            raise next(iter(scopes.missing.values()))
        if scopes.missing:
            raise PartialListError(found, scopes.missing, answered=True, zones=scopes.zones)
        return found

    def delete(self, resource: Resource) -> None:
        """Google answers with an operation, which is waited for; its errors come at its end."""
        from google.api_core import exceptions

        service, argument, scope = {
            "server": ("Instances", "instance", "zone"),
            "disk": ("Disks", "disk", "zone"),
            "address": ("Addresses", "address", "region"),
            "firewall": ("Firewalls", "firewall", ""),
            "network": ("Networks", "network", ""),
        }[resource.kind]
        where = {scope: resource.zone if scope == "zone" else resource.region} if scope else {}
        with _said():
            try:
                operation = self._client(service).delete_unary(
                    project=self._project, **where, **{argument: resource.name}, **_patience()
                )
                self._wait(operation, scope, where)
            except exceptions.NotFound:
                return

    def _wait(self, operation: Any, scope: str, where: Mapping[str, str]) -> None:
        # the SDK's own waiting asks Google's usual address, whatever address the client has
        client = self._client({"zone": "ZoneOperations", "region": "RegionOperations", "": "GlobalOperations"}[scope])
        deadline = time.monotonic() + DELETE_SECONDS
        while operation.status.name != "DONE":
            if time.monotonic() > deadline:
                said = f"operation {operation.name} is not done after {DELETE_SECONDS:.0f} s"
                raise CloudError(f"Google says: {said}.", refusal=Refusal.TIMEOUT, said=said)
            operation = client.wait(
                project=self._project, operation=operation.name, **where, timeout=3 * HTTP_SECONDS
            )  # answers when it is done, or after two minutes
        if operation.error.errors:
            raise _refused("; ".join(f"{one.code}: {one.message}" for one in operation.error.errors))

    def _aggregated(self, service: str, scopes: _Scopes) -> list[Any]:
        """All pages of all zones; a zone that can't be reached is no empty zone."""
        field = service.lower()
        found: list[Any] = []
        for page in self._pages(service):
            for scope in page.unreachables:
                scopes.add(scope)
            for scope, listed in page.items.items():
                if listed.warning.code == "UNREACHABLE":
                    scopes.add(scope, listed.warning.message)
                else:
                    scopes.answered = True
                found.extend(getattr(listed, field))
        return found

    def _pages(self, service: str) -> Iterator[Any]:
        """The pages of an aggregated list.

        One zone that can't be reached may fail the whole list unless it may be a part of it, which Google recommends;
        the SDK's requests lack that parameter. So its answers are read, and asked for here.
        """
        answer = getattr(_compute(), f"{_SINGULAR[service]}AggregatedList")
        asked = {"filter": _ours(), "returnPartialSuccess": "true"}
        while True:
            text = _patience()["retry"](self._get)(f"aggregated/{service.lower()}", asked)
            page = answer.from_json(text, ignore_unknown_fields=True)
            yield page
            if not page.next_page_token:
                return
            asked["pageToken"] = page.next_page_token

    def _get(self, path: str, parameters: Mapping[str, str]) -> str:
        from google.api_core import exceptions
        from google.auth.transport.requests import AuthorizedSession

        if self._session is None:
            credentials = self._credentials
            if hasattr(credentials, "with_always_use_jwt_access"):  # as the SDK: a service account signs for itself
                credentials = credentials.with_always_use_jwt_access(True)
            self._session = AuthorizedSession(credentials, default_host=HOST)
        url = f"{self._endpoint or f'https://{HOST}'}/compute/v1/projects/{self._project}/{path}"
        answer = self._session.get(url, params=parameters, timeout=HTTP_SECONDS)
        if answer.status_code >= 400:
            errors: Any = exceptions  # whose functions have no types
            raise errors.from_http_response(answer)
        return str(answer.text)

    def _global(self, service: str) -> list[Any]:
        request = getattr(_compute(), f"List{service}Request")(project=self._project, filter=_ours())
        return list(self._client(service).list(request=request, **_patience()))

    def _client(self, service: str) -> Any:
        if service not in self._made:
            options = {"api_endpoint": self._endpoint} if self._endpoint else None
            self._made[service] = getattr(_compute(), f"{service}Client")(
                credentials=self._credentials, client_options=options
            )
        return self._made[service]


class _Scopes:
    """Which zones and regions could not be reached while lists were read."""

    def __init__(self, regions: Collection[str]) -> None:
        """Only ``regions`` matter; all when there are none."""
        self.missing: dict[str, CloudError] = {}
        self.zones: set[str] = set()
        self.answered = False
        self._regions = regions

    def add(self, scope: str, said: str = "") -> None:
        """Note one: ``zones/us-central1-a`` or ``regions/us-central1``, however much of a link stands before it."""
        place = _last(scope)
        region = place.rpartition("-")[0] if scope.endswith(f"zones/{place}") else place
        if self._regions and region not in self._regions:
            return
        self.zones.add(place)
        problem = f"Google says: {scope} can't be reached."
        self.missing.setdefault(region, CloudError(problem, refusal=Refusal.OUTAGE, said=said or problem))


def project(environment: Mapping[str, str]) -> str:
    """The project in which servers are rented; empty when nothing names one."""
    named = next((environment[name] for name in PROJECTS if environment.get(name)), "")
    if named:
        return named
    with contextlib.suppress(BenchctlError):
        for found in (_document(environment) or {},):
            return str(found.get("project_id") or found.get("quota_project_id") or "")
    return ""


def _gcloud_file(environment: Mapping[str, str]) -> Path | None:
    """Where gcloud keeps its login, if it is there."""
    folder = environment.get("CLOUDSDK_CONFIG")
    home = environment.get("HOME")
    if not folder and not home:
        return None
    file = (Path(folder) if folder else Path(str(home)) / ".config" / "gcloud") / "application_default_credentials.json"
    return file if file.is_file() else None


def _document(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """The login as JSON, whichever way it is named; nothing when none is."""
    given = environment.get(CREDENTIALS, "").strip()
    if given.startswith("{"):
        name, text = CREDENTIALS, given
    else:
        path = given or environment.get(CREDENTIALS_FILE, "")
        file = Path(path) if path else _gcloud_file(environment)
        if file is None:
            return None
        name = CREDENTIALS if given else CREDENTIALS_FILE if path else str(file)
        try:
            text = file.read_text()
        except OSError as error:
            raise BenchctlError(
                f"{name}: {file} can't be read: {error.strerror}.", "Set it to the key file of a service account."
            ) from None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "type" not in found:
        raise BenchctlError(f"{name} holds no login of Google's.", "Set it to a service account's key, which is JSON.")
    return found


def _credentials(environment: Mapping[str, str]) -> Any:
    """The login, as google-auth knows it; nothing when there is none.

    Raises:
        BenchctlError: what is named as the login is none.
    """
    document = _document(environment)
    if document is None:
        return None
    import google.auth

    try:
        found, _ = google.auth.load_credentials_from_dict(document, scopes=[SCOPE])
    except (google.auth.exceptions.GoogleAuthError, ValueError) as error:
        # the text of google-auth's error names fields, never their values
        raise BenchctlError(
            f"Google's login can't be used: {type(error).__name__}.",
            f"Make a new key, and set {CREDENTIALS_FILE} to it.",
        ) from None
    return found


def _compute() -> Any:
    from google.cloud import compute_v1

    return compute_v1


def _patience() -> dict[str, Any]:
    from google.api_core import exceptions, retry

    return {
        "timeout": HTTP_SECONDS,
        "retry": retry.Retry(
            predicate=retry.if_exception_type(exceptions.ServiceUnavailable), initial=0.5, timeout=RETRY_SECONDS
        ),
    }


def _ours() -> str:
    return f"name eq {PREFIX}.*"


def _last(link: str) -> str:
    return link.rpartition("/")[2]


def _server(one: Any) -> Resource:
    zone = _last(one.zone)
    configs = [config for interface in one.network_interfaces for config in interface.access_configs]
    return _labelled("server", one, zone=zone, address=configs[0].nat_i_p if configs else "", state=one.status.lower())


def _disk(one: Any) -> Resource:
    return _labelled("disk", one, zone=_last(one.zone), state=one.status.lower(), attached=bool(one.users))


def _address(one: Any) -> Resource:
    return _labelled("address", one, region=_last(one.region), state=one.status.lower(), attached=bool(one.users))


def _labelled(kind: str, one: Any, zone: str = "", region: str = "", **others: Any) -> Resource:
    labels = dict(one.labels)
    return Resource(
        vendor=CLOUD.name,
        kind=kind,
        id=str(one.id),
        name=one.name,
        region=region or zone.rpartition("-")[0],
        zone=zone,
        sweep=labels.get(LABEL_SWEEP, ""),
        job=labels.get(LABEL_JOB, ""),
        expires_at=expiry_of(labels.get(LABEL_EXPIRES)),
        created_at=_seconds(one.creation_timestamp),
        **others,
    )


def _plain(kind: str, one: Any, *, attached: bool = False) -> Resource:
    """What can't be labelled: its description says the same."""
    said = dict(part.partition("=")[::2] for part in one.description.split())
    return Resource(
        vendor=CLOUD.name,
        kind=kind,
        id=str(one.id),
        name=one.name,
        sweep=said.get(LABEL_SWEEP, ""),
        job=said.get(LABEL_JOB, ""),
        expires_at=expiry_of(said.get(LABEL_EXPIRES)),
        created_at=_seconds(one.creation_timestamp),
        attached=attached,
    )


def _seconds(stamp: str) -> float | None:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return None


def _timeouts() -> Any:
    import pulumi

    return pulumi.CustomTimeouts(create=CREATE_TIMEOUT, delete=DELETE_TIMEOUT)


def _refused(message: str, ours: Refusal | None = None, mend: str = "") -> CloudError:
    said = re.sub(r"^[A-Z]+ https?://\S+: ", "", message)  # the SDK puts the request before Google's words
    return CloudError(f"Google says: {said}", mend, refusal=classify(said) or ours, said=said)


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """Turn the client's errors into ours, with the vendor's words."""
    import requests
    from google.api_core import exceptions
    from google.auth import exceptions as login

    try:
        yield
    except login.RefreshError as error:
        said = _first_line(error)
        raise CloudError(
            f"Google does not take the login: {said}",
            f"Make a new key, and set {CREDENTIALS_FILE} to it.",
            refusal=Refusal.ACCOUNT,
            said=said,
        ) from None
    except exceptions.Unauthorized as error:
        raise _refused(error.message, Refusal.ACCOUNT, f"Make a new key, and set {CREDENTIALS_FILE} to it.") from None
    except exceptions.Forbidden as error:  # too many calls are told so, too; their words are known
        raise _refused(error.message, Refusal.ACCOUNT) from None
    except exceptions.TooManyRequests as error:
        raise _refused(error.message, Refusal.THROTTLED) from None
    except exceptions.ServerError as error:
        raise _refused(error.message, Refusal.OUTAGE) from None
    except exceptions.RetryError as error:
        cause = error.cause
        said = cause.message if isinstance(cause, exceptions.GoogleAPICallError) else "no answer from the API"
        raise _refused(said, Refusal.OUTAGE) from None
    except exceptions.GoogleAPICallError as error:
        raise _refused(error.message or str(error)) from None
    except (login.TransportError, requests.RequestException) as error:
        said = f"{type(error).__name__}: no answer from the API"
        raise CloudError(
            "Google's API can't be reached.", "Check the network.", refusal=Refusal.OUTAGE, said=said
        ) from None


def _first_line(error: Exception) -> str:
    return str(error.args[0] if error.args else error).splitlines()[0]


CLOUD: Cloud = Gcp()
