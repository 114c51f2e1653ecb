"""Google Compute Engine, emulated: it says what the vendor's API and Pulumi's provider are known to say. Google was not
asked.

Sources of the routes and their fields: https://cloud.google.com/compute/docs/reference/rest/v1 and google-cloud-compute
1.57; the login is the real one of google-auth, with a key of our own.
"""  # noqa: D205

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import re
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from emulation import cloudinit, faults
from emulation.faults import Call
from emulation.refusals import Refused, Rule, first
from emulation.store import PAGE, Thing
from emulation.vendor import Request, Response, Vendor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PROJECT = "emulated-project"

ZONES = tuple(
    f"{region}-{letter}"
    for region, letters in {
        "us-central1": "abcf",
        "us-east1": "bcd",
        "us-east4": "abc",
        "europe-west1": "bcd",
        "europe-west3": "abc",
        "europe-west4": "abc",
    }.items()
    for letter in letters
)
"""Some of Google's zones."""

ARM = ("t2a", "c4a", "n4a", "a4x")
HYPERDISK_ONLY = ("c4", "c4a", "c4d", "c4n", "n4", "n4a", "n4d", "a4", "a4x", "g4", "x4", "m4", "m4n", "h4d")
BOTH_DISKS = ("c3", "c3d", "m3", "z3", "h3", "a3")
PERSISTENT_ONLY = ("e2", "n1", "n2", "n2d", "t2d", "t2a", "c2", "c2d", "g2", "a2", "m1", "m2", "f1", "g1")
WITH_GPUS = ("g2", "g4", "a2", "a3", "a4", "a4x")
ACCELERATORS = ("nvidia-tesla-t4", "nvidia-tesla-p4", "nvidia-tesla-v100", "nvidia-tesla-p100")
ONLY_IN: Mapping[str, tuple[str, ...]] = {"t2a": ("us-central1", "europe-west4"), "a4": ("us-central1", "us-east4")}
"""Series that some regions alone have; made up, after Google's table of regions and zones."""

IMAGES: Mapping[str, tuple[str, int]] = {
    "ubuntu-os-cloud/ubuntu-2404-lts-amd64": ("X86_64", 10),
    "ubuntu-os-cloud/ubuntu-2404-lts-arm64": ("ARM64", 10),
    "debian-cloud/debian-12": ("X86_64", 10),
    "debian-cloud/debian-12-arm64": ("ARM64", 10),
}
"""Architecture and size in GB by image family."""

INSTANCE, NETWORK, FIREWALL = (
    "gcp:compute/instance:Instance", "gcp:compute/network:Network", "gcp:compute/firewall:Firewall"
)  # fmt: skip
KINDS = {INSTANCE: "server", NETWORK: "network", FIREWALL: "firewall"}
LISTS = {
    "instances": "server", "disks": "disk", "addresses": "address", "firewalls": "firewall", "networks": "network"
}  # fmt: skip
SINGULAR = {"server": "instance", "disk": "disk", "address": "address", "firewall": "firewall", "network": "network"}

_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"[\w-]{0,63}")
_PROVIDER = "https://github.com/hashicorp/terraform-provider-google/blob/main/google"
_INSERT = "Error creating instance: googleapi: Error 400: {}"


def _series(inputs: Mapping[str, Any]) -> str:
    return str(inputs.get("machineType")).partition("-")[0]


def _disk(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = inputs["bootDisk"].get("initializeParams") or {}
    return found


def _hyperdisk(inputs: Mapping[str, Any]) -> bool:
    return str(_disk(inputs).get("type")).startswith("hyperdisk")


def _scheduling(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    return inputs.get("scheduling") or {}


def _known(inputs: Mapping[str, Any]) -> bool:
    series, zone = _series(inputs), str(inputs.get("zone"))
    offered = ONLY_IN.get(series, (zone.rpartition("-")[0],))
    return series in HYPERDISK_ONLY + BOTH_DISKS + PERSISTENT_ONLY and zone.rpartition("-")[0] in offered


def _machine_architecture(inputs: Mapping[str, Any]) -> str:
    return "ARM64" if _series(inputs) in ARM else "X86_64"


def _with_gpu(inputs: Mapping[str, Any]) -> bool:
    return _series(inputs) in WITH_GPUS or bool(inputs.get("guestAccelerators"))


def _label_values(_: Gcp, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    labels = {**(inputs.get("labels") or {}), **(_disk(inputs).get("labels") or {})}
    return {"wrong": next((one for one in labels.values() if _label_wrong(one)), "")}


def _label_wrong(value: str) -> bool:
    return not _LABEL_VALUE.fullmatch(value) or value != value.lower()


def _not_cidr(_: Gcp, inputs: Mapping[str, Any]) -> str:
    for one in inputs.get("sourceRanges") or ():
        try:
            ipaddress.ip_network(one)
        except ValueError:
            return str(one)
    return ""


def _named_already(kind: str) -> Any:
    def used(vendor: Gcp, inputs: Mapping[str, Any]) -> bool:
        zone = inputs.get("zone", "")
        return any(
            one.name == inputs.get("name") and one.data.get("zone", "") == zone for one in vendor.store.alive(kind)
        )

    return used


def _name_rule(kind: str) -> Rule:
    return Rule(
        f"name-{KINDS[kind]}", kind,
        lambda _, inputs: not _NAME.fullmatch(str(inputs.get("name"))),
        '"name" ("{name}") doesn\'t match regexp "^(?:[a-z](?:[-a-z0-9]{{0,61}}[a-z0-9])?)$"',
        f"{_PROVIDER}/verify/validation.go",
        property="name",
    )  # fmt: skip


RULES: tuple[Rule, ...] = (
    _name_rule(INSTANCE), _name_rule(NETWORK), _name_rule(FIREWALL),
    Rule(
        "zone-unknown", INSTANCE,
        lambda _, inputs: inputs.get("zone") not in ZONES,
        "Error loading zone '{zone}': googleapi: Error 404: The resource 'projects/" + PROJECT
        + "/zones/{zone}' was not found, notFound",
        f"{_PROVIDER}/services/compute/resource_compute_instance.go",
    ),
    Rule(
        "image-unknown", INSTANCE,
        lambda _, inputs: _disk(inputs).get("image") not in IMAGES,
        "Error resolving image name '{image}': Could not find image or family {image}",
        f"{_PROVIDER}/services/compute/image.go",
        values=lambda _, inputs: _disk(inputs),
    ),
    Rule(
        "machine-type-not-in-zone", INSTANCE,
        lambda _, inputs: not _known(inputs),
        _INSERT.format(
            "Invalid value for field 'resource.machineType': 'zones/{zone}/machineTypes/{machineType}'. "
            "Machine type with name '{machineType}' does not exist in zone '{zone}'., invalid"
        ),
        "https://github.com/hashicorp/terraform-provider-google/issues/3838",
    ),
    Rule(
        "network-unknown", INSTANCE,
        lambda vendor, inputs: any(not vendor.network(one.get("network")) for one in inputs["networkInterfaces"]),
        _INSERT.format(
            "Invalid value for field 'resource.networkInterfaces[0].network': '{network}'. "
            "The referenced network resource cannot be found., invalid"
        ),
        "https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-vm-creation",
        values=lambda _, inputs: inputs["networkInterfaces"][0],
    ),
    Rule(
        "persistent-disk-on-new-series", INSTANCE,
        lambda _, inputs: _series(inputs) in HYPERDISK_ONLY and not _hyperdisk(inputs),
        _INSERT.format("[{type}, {machineType}] features are not compatible for creating instance., badRequest"),
        "https://github.com/DataBiosphere/dsub/issues/301",
        values=lambda _, inputs: {"type": "pd-standard", **inputs, **_disk(inputs)},
    ),
    Rule(
        "hyperdisk-on-old-series", INSTANCE,
        lambda _, inputs: _series(inputs) in PERSISTENT_ONLY and _hyperdisk(inputs),
        _INSERT.format("{type} disk type cannot be used by {machineType} machine type., badRequest"),
        "https://github.com/rancher/harvester-cloud/issues/249",
        values=lambda _, inputs: {**inputs, **_disk(inputs)},
    ),
    Rule(
        "disk-architecture", INSTANCE,
        lambda _, inputs: _disk(inputs).get("architecture", IMAGES[_disk(inputs)["image"]][0])
        != IMAGES[_disk(inputs)["image"]][0],
        _INSERT.format(
            "Invalid value for field 'resource.disks[0].initializeParams.architecture': '{architecture}'. "
            "Requested architecture must be the same as the source resource architecture ({source})., invalid"
        ),
        "https://github.com/cirruslabs/cirrus-ci-docs/issues/1091",
        values=lambda _, inputs: {**_disk(inputs), "source": IMAGES[_disk(inputs)["image"]][0]},
    ),
    Rule(
        "machine-architecture", INSTANCE,
        lambda _, inputs: IMAGES[_disk(inputs)["image"]][0] != _machine_architecture(inputs),
        _INSERT.format(
            "Invalid resource usage: 'Requested boot disk architecture ({disk}) is not compatible with machine type "
            "architecture ({machine}).'., invalidResourceUsage"
        ),
        "https://github.com/GoogleCloudPlatform/PerfKitBenchmarker/pull/6593",
        values=lambda _, inputs: {
            "disk": IMAGES[_disk(inputs)["image"]][0], "machine": _machine_architecture(inputs)
        },
    ),
    Rule(
        "disk-too-small", INSTANCE,
        lambda _, inputs: int(_disk(inputs).get("size") or 10) < IMAGES[_disk(inputs)["image"]][1],
        _INSERT.format(
            "Invalid value for field 'resource.disks[0].initializeParams.diskSizeGb': '{size}'. "
            "Requested disk size cannot be smaller than the image size (10 GB), invalid"
        ),
        "https://github.com/skypilot-org/skypilot/blob/master/sky/backends/cloud_vm_ray_backend.py",
        values=lambda _, inputs: _disk(inputs),
    ),
    Rule(
        "accelerator-unknown", INSTANCE,
        lambda _, inputs: any(one["type"] not in ACCELERATORS for one in inputs.get("guestAccelerators") or ()),
        _INSERT.format(
            "The resource 'projects/" + PROJECT + "/zones/{zone}/acceleratorTypes/{type}' was not found, notFound"
        ).replace("400", "404"),
        "https://github.com/bsteuber/lizzie-gcloud-setup/issues/6",
        values=lambda _, inputs: {**inputs, **inputs["guestAccelerators"][0]},
    ),
    Rule(
        "gpu-may-not-migrate", INSTANCE,
        lambda _, inputs: _with_gpu(inputs) and _scheduling(inputs).get("onHostMaintenance", "MIGRATE") != "TERMINATE",
        _INSERT.format("Instances with guest accelerators do not support live migration., badRequest"),
        "https://github.com/cloudpilot-ai/karpenter-provider-gcp/issues/167",
    ),
    Rule(
        "spot-may-not-restart", INSTANCE,
        lambda _, inputs: _scheduling(inputs).get("preemptible", False)
        and _scheduling(inputs).get("automaticRestart", True),
        _INSERT.format(
            "Invalid value for field 'resource.scheduling.preemptible': 'true'. "
            "Scheduling must have preemptible be false when AutomaticRestart is true., invalid"
        ),
        "https://github.com/percona/mongo_terraform_ansible/issues/34",
    ),
    Rule(
        "spot-may-not-migrate", INSTANCE,
        lambda _, inputs: _scheduling(inputs).get("preemptible", False)
        and _scheduling(inputs).get("onHostMaintenance", "MIGRATE") != "TERMINATE",
        _INSERT.format(
            "Invalid value for field 'resource.scheduling.preemptible': 'true'. "
            "Scheduling must have preemptible be false when OnHostMaintenance isn't TERMINATE., invalid"
        ),
        "https://github.com/lighttransport/francine/issues/5",
    ),
    Rule(
        "label-value", INSTANCE,
        lambda vendor, inputs: bool(_label_values(vendor, inputs)["wrong"]),
        _INSERT.format(
            "Invalid value for field 'resource.labels': ''. Label value '{wrong}' violates format constraints. "
            "The value can only contain lowercase letters, numeric characters, underscores and dashes. "
            "The value can be at most 63 characters long. International characters are allowed., invalid"
        ),
        "https://cloud.google.com/compute/docs/labeling-resources#requirements (rule; wording not confirmed)",
        values=_label_values,
    ),
    Rule(
        "metadata-too-large", INSTANCE,
        lambda _, inputs: any(len(one) > 262_144 for one in (inputs.get("metadata") or {}).values()),
        _INSERT.format(
            "Value for field 'resource.metadata.items[0].value' is too large: "
            "maximum size 262144 character(s); actual size {size}., invalid"
        ).replace("400", "413"),
        "https://cloud.google.com/compute/docs/troubleshooting/troubleshoot-ssh-key",
        values=lambda _, inputs: {"size": max(len(one) for one in inputs["metadata"].values())},
    ),
    Rule(
        "name-used", INSTANCE, _named_already("server"),
        _INSERT.format(
            "The resource 'projects/" + PROJECT + "/zones/{zone}/instances/{name}' already exists, alreadyExists"
        ).replace("400", "409"),
        "https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-vm-creation#resource_already_exists",
    ),
    Rule(
        "network-name-used", NETWORK, _named_already("network"),
        "Error creating Network: googleapi: Error 409: The resource 'projects/" + PROJECT
        + "/global/networks/{name}' already exists, alreadyExists",
        "https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-vm-creation#resource_already_exists",
    ),
    Rule(
        "networks-quota", NETWORK,
        lambda vendor, _: len(vendor.store.alive("network")) >= 5,
        "Error waiting to create Network: Error waiting for Creating Network: Quota 'NETWORKS' exceeded.  "
        "Limit: 5.0 globally.",
        "https://cloud.google.com/vpc/docs/quota; words as of other quotas",
    ),
    Rule(
        "source-range", FIREWALL,
        lambda vendor, inputs: bool(_not_cidr(vendor, inputs)),
        "Error creating Firewall: googleapi: Error 400: Invalid value for field 'resource.sourceRanges[0]': '{wrong}'. "
        "Must be a CIDR address range., invalid",
        "https://cloud.google.com/compute/docs/reference/rest/v1/firewalls (rule; wording not confirmed)",
        values=lambda vendor, inputs: {"wrong": _not_cidr(vendor, inputs)},
    ),
)  # fmt: skip

IN_USE = (
    "The network resource 'projects/" + PROJECT + "/global/networks/{name}' is already being used by "
    "'projects/" + PROJECT + "/{user}'",
    "https://github.com/hashicorp/terraform-provider-google/issues/5423",
)


class Gcp(Vendor):
    """See the module."""

    name = "gcp"
    package = "gcp"

    def start(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import rsa

        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._pages: dict[str, list[Thing]] = {}

    def variables(self, url: str, folder: Path) -> dict[str, str]:
        from cryptography.hazmat.primitives import serialization

        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = folder / "gcp-service-account.json"
        document = {
            "type": "service_account", "project_id": PROJECT, "private_key_id": "1", "private_key": pem.decode(),
            "client_email": f"tester@{PROJECT}.iam.gserviceaccount.com", "client_id": "1",
            "token_uri": f"{url}/no-token",
        }  # fmt: skip
        file.write_text(json.dumps(document))
        file.chmod(0o600)
        return {
            "GOOGLE_APPLICATION_CREDENTIALS": str(file),
            "GOOGLE_PROJECT": PROJECT,
            "GOOGLE_COMPUTE_CUSTOM_ENDPOINT": f"{url}/compute/v1/",
        }

    # -- the engine ---------------------------------------------------------------------------------------------------

    def configure(self, settings: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        named = ("GOOGLE_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS")
        if not settings.get("credentials") and not any(environment.get(one) for one in named):
            raise Refused(
                "Attempted to load application default credentials since neither `credentials` nor `access_token` was "
                "set in the provider block.  No credentials loaded. google: could not find default credentials."
            )

    def kind_of(self, token: str) -> str:
        return KINDS[token]

    def check(self, token: str, inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
        refused = first(RULES, self, token, inputs, check=True)
        return [(refused.property, refused.text)] if refused else []

    def create(self, token: str, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        if not inputs.get("project") and not self.world.login[1].get("GOOGLE_PROJECT"):
            raise Refused("project: required field is not set")
        with self.store.lock:
            if refused := first(RULES, self, token, inputs, check=False):
                raise refused
            made = self._make(token, inputs)
        if token == INSTANCE:
            told = inputs.get("metadata") or {}
            user, _, key = str(told.get("ssh-keys", "")).partition(":")
            distribution = str(_disk(inputs)["image"]).partition("/")[2].partition("-")[0]
            keys, script = (key,) if key else (), str(told.get("startup-script", ""))
            # Google's Debian has no cloud-init; the guest agent makes the user and runs the script
            cloud_config = "" if distribution == "debian" else str(told.get("user-data", ""))
            boot = replace(cloudinit.interpret(cloud_config, user or "nobody", keys), script=script)
            made.data["address"] = self.world.backing.start(made.id, boot, distribution)
            made.data["status"] = "RUNNING"
        return self._id(made), self._state(made)

    def _make(self, token: str, inputs: Mapping[str, Any]) -> Thing:
        kind, name = KINDS[token], str(inputs["name"])
        made = self.store.add(kind, str(self.store.number()), name, description=inputs.get("description", ""))
        if kind == "firewall":
            made.data.update(
                network=inputs["network"], ranges=inputs.get("sourceRanges"), tags=inputs.get("targetTags")
            )
        elif kind == "server":
            zone, scheduling = inputs["zone"], _scheduling(inputs)
            made.data.update(
                zone=zone, labels=dict(inputs.get("labels") or {}), status="STAGING", type=inputs["machineType"],
                network=inputs["networkInterfaces"][0]["network"], scheduling=dict(scheduling), address="",
                tags=inputs.get("tags"), auto_delete=inputs["bootDisk"].get("autoDelete", True),
            )  # fmt: skip
            self.store.add(
                "disk", str(self.store.number()), name, zone=zone, labels=dict(_disk(inputs).get("labels") or {}),
                type=_disk(inputs).get("type"), size=_disk(inputs).get("size"), server=made.id,
            )  # fmt: skip
        return made

    def _link(self, thing: Thing) -> str:
        where = f"zones/{thing.data['zone']}" if "zone" in thing.data else "global"
        return f"projects/{PROJECT}/{where}/{SINGULAR[thing.kind]}s/{thing.name}"

    def _id(self, thing: Thing) -> str:
        return self._link(thing)

    def _state(self, thing: Thing) -> dict[str, Any]:
        state: dict[str, Any] = {"selfLink": f"https://www.googleapis.com/compute/v1/{self._link(thing)}"}
        if thing.kind == "server":
            config = {"natIp": thing.data["address"], "networkTier": "PREMIUM"}
            state |= {
                "instanceId": thing.id, "currentStatus": thing.data["status"],
                "networkInterfaces": [
                    {"network": thing.data["network"], "networkIp": "10.128.0.2", "accessConfigs": [config]}
                ],
            }  # fmt: skip
        return state

    def _by_link(self, token: str, identifier: str) -> Thing | None:
        return next((one for one in self.store.alive(KINDS[token]) if self._link(one) == identifier), None)

    def read(self, token: str, identifier: str, state: Mapping[str, Any]) -> dict[str, Any] | None:
        del state
        thing = self._by_link(token, identifier)
        return self._state(thing) if thing else None

    def update(
        self, token: str, identifier: str, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A firewall's ranges are set anew; of nothing else of ours anything changes."""
        thing = self._by_link(token, identifier)
        if token != FIREWALL or thing is None or thing.data["description"] != inputs.get("description", ""):
            return super().update(token, identifier, state, inputs)
        thing.data["ranges"] = inputs.get("sourceRanges")
        return self._state(thing)

    def delete(self, token: str, identifier: str, state: Mapping[str, Any]) -> None:
        del state
        if thing := self._by_link(token, identifier):
            try:
                self._remove(thing)
            except Refused as refused:
                raise Refused(f"Error waiting for Deleting Network: {refused.text}") from None

    def engine_text(self, refused: Refused) -> str:
        return f"1 error occurred:\n\t* {refused.text}\n\n"

    # -- what both do -------------------------------------------------------------------------------------------------

    def network(self, name_or_link: Any) -> Thing | None:
        """A network, by its name or any form of its link."""
        return next(
            (one for one in self.store.alive("network") if one.name == str(name_or_link).rpartition("/")[2]), None
        )

    def _users(self, network: Thing) -> list[Thing]:
        return [
            one for kind in ("server", "firewall") for one in self.store.alive(kind)
            if str(one.data["network"]).rpartition("/")[2] == network.name
        ]  # fmt: skip

    def _remove(self, thing: Thing) -> None:
        with self.store.lock:
            if thing.kind == "network" and (users := self._users(thing)):
                user = self._link(users[0]).removeprefix(f"projects/{PROJECT}/")
                raise Refused(IN_USE[0].format(name=thing.name, user=user), "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", 400)
            if thing.kind == "disk" and self.store.get("server", thing.data.get("server", "")):
                raise Refused(
                    f"The disk resource '{self._link(thing)}' is already being used", "resourceInUseByAnotherResource"
                )
            if thing.kind == "server" and thing.data["auto_delete"]:
                for disk in self.store.alive("disk"):
                    if disk.data.get("server") == thing.id:
                        self.store.remove(disk)
            self.store.remove(thing)
        if thing.kind == "server":
            self.world.backing.remove(thing.id)

    def vanish(self, thing: Thing) -> None:
        self._remove(thing)

    def words(self, effect: str, inputs: Mapping[str, Any]) -> Refused:
        zone = str(inputs.get("zone") or "us-central1-a")
        region = zone.rpartition("-")[0]
        return {
            # https://github.com/GoogleCloudPlatform/ai-on-gke/issues/849 and clouds' own: text as the provider gives it
            faults.QUOTA: Refused(
                f"Error waiting for instance to create: Quota 'CPUS' exceeded.  Limit: 24.0 in region {region}."
            ),
            # https://github.com/kubernetes/k8s.io/issues/9834
            faults.STOCK: Refused(
                f"Error waiting for instance to create: The zone 'projects/{PROJECT}/zones/{zone}' does not have "
                "enough resources available to fulfill the request.  Try a different zone, or try again later."
            ),
            faults.THROTTLED: Refused("googleapi: Error 403: Rate Limit Exceeded", "rateLimitExceeded", 403),
            faults.UNAUTHORIZED: Refused(
                "Request had invalid authentication credentials. Expected OAuth 2 access token.", "UNAUTHENTICATED", 401
            ),
            faults.OUTAGE: Refused("The service is currently unavailable.", "backendError", 503),
            faults.TIMEOUT: Refused(
                "Error waiting for instance to create: timeout while waiting for state to become 'DONE' "
                "(last state: 'RUNNING', timeout: 10m0s)"
            ),
        }[effect]

    # -- the API ------------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Response:
        self._logged_in(request)
        parts = request.path.removeprefix("/compute/v1/projects/").strip("/").split("/")
        if parts[0] != PROJECT:
            raise Refused(f"Failed to find project {parts[0]}", "notFound", 404)
        match parts[1:]:
            case []:
                self.world.api(Call(self.name, "login"))
                return Response(json={"kind": "compute#project", "name": PROJECT, "id": "1"})
            case ["aggregated", listed]:
                return self._aggregated(LISTS[listed], listed, request)
            case ["global", listed] if request.method == "GET":
                return self._list(LISTS[listed], request)
            case [*_, "operations", operation, "wait"] | [*_, "operations", operation]:
                return Response(json=self._operation(operation))
            case ["zones", zone, listed, name] if request.method == "DELETE":
                return self._deleted(LISTS[listed], name, zone)
            case ["global", listed, name] if request.method == "DELETE":
                return self._deleted(LISTS[listed], name, None)
        raise Refused(f"Not found: {request.path}", "notFound", 404)

    def _logged_in(self, request: Request) -> None:
        """The SDK signs its tokens itself (RS256), with the key of the service account."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import padding
        from cryptography.hazmat.primitives.hashes import SHA256

        signed, _, signature = request.headers.get("authorization", "").removeprefix("Bearer ").rpartition(".")
        try:
            self._key.public_key().verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), SHA256())
            claims = json.loads(_decoded(signed.partition(".")[2]))
        except (InvalidSignature, ValueError):
            raise self.words(faults.UNAUTHORIZED, {}) from None
        if claims["exp"] < datetime.datetime.now(datetime.UTC).timestamp():
            raise self.words(faults.UNAUTHORIZED, {})

    def _wanted(self, kind: str, request: Request) -> tuple[list[Thing], dict[str, str]]:
        """One page of a list, and the answer's ``nextPageToken``."""
        token = request.query.get("pageToken", "")
        if token:
            things = self._pages.pop(token)
        else:
            self.world.api(Call(self.name, "list", kind))
            pattern = re.fullmatch(r"name eq (\S+)", request.query.get("filter", "name eq .*"))
            if pattern is None:
                raise Refused("Invalid value for field 'filter'.", "invalid", 400)
            things = self.store.listed(kind, lambda one: re.fullmatch(pattern[1], one.name) is not None)
        page, rest = things[:PAGE], things[PAGE:]
        if not rest:
            return page, {}
        fresh = secrets.token_hex(8)
        self._pages[fresh] = rest
        return page, {"nextPageToken": fresh}

    def _aggregated(self, kind: str, listed: str, request: Request) -> Response:
        """A part of a list has to be asked for: https://cloud.google.com/compute/docs/reference/rest/v1/instances says
        "to prevent failure ... set the returnPartialSuccess parameter to true".
        """  # noqa: D205
        page, more = self._wanted(kind, request)
        places = [f"zones/{one}" for one in ZONES]
        if kind == "address":
            places = ["global", *sorted({f"regions/{one.rpartition('-')[0]}" for one in ZONES})]
        scopes: dict[str, Any] = {
            one: {"warning": {"code": "NO_RESULTS_ON_PAGE", "message": f"There are no results for '{one}'."}}
            for one in places
        }
        for one in page:
            scope = f"zones/{one.data['zone']}"
            scopes.setdefault(scope, {}).setdefault(listed, []).append(self._shown(one))
            scopes[scope].pop("warning", None)
        away = [
            one for one in places
            if self.world.faults.unreachable(Call(self.name, "list", kind, one.rpartition("/")[2]))
        ]  # fmt: skip
        if away and request.query.get("returnPartialSuccess") != "true":
            raise self.outage()
        for one in away:
            scopes[one] = {"warning": {"code": "UNREACHABLE", "message": f"'{one}' is unreachable."}}
        return Response(json={"kind": f"compute#{SINGULAR[kind]}AggregatedList", "items": scopes, **more})

    def _list(self, kind: str, request: Request) -> Response:
        page, more = self._wanted(kind, request)
        return Response(
            json={"kind": f"compute#{SINGULAR[kind]}List", "items": [self._shown(one) for one in page], **more}
        )

    def _deleted(self, kind: str, name: str, zone: str | None) -> Response:
        found = next((one for one in self.store.alive(kind) if one.name == name and one.data.get("zone") == zone), None)
        effect = self.world.api(Call(self.name, "delete", kind, zone or "", name))
        if found is None:
            where = f"zones/{zone}" if zone else "global"
            link = f"projects/{PROJECT}/{where}/{SINGULAR[kind]}s/{name}"
            raise Refused(f"The resource '{link}' was not found", "notFound", 404)
        if effect == faults.LIES:
            return Response(json=self._operation("operation-lies"))
        try:
            self._remove(found)
        except Refused as refused:
            if kind != "network":
                raise
            # of networks it is said at the operation's end
            return Response(json=self._operation("operation-failed", refused))
        return Response(json=self._operation("operation-done"))

    def _operation(self, name: str, refused: Refused | None = None) -> dict[str, Any]:
        operation: dict[str, Any] = {"kind": "compute#operation", "name": name, "status": "DONE", "progress": 100}
        if refused:
            operation["error"] = {"errors": [{"code": refused.code, "message": refused.text}]}
        return operation

    def _shown(self, thing: Thing) -> dict[str, Any]:
        data, base = thing.data, "https://www.googleapis.com/compute/v1"
        made = datetime.datetime.fromtimestamp(thing.made_at, datetime.UTC).isoformat(timespec="milliseconds")
        shown: dict[str, Any] = {
            "id": thing.id, "name": thing.name, "creationTimestamp": made, "selfLink": f"{base}/{self._link(thing)}"
        }  # fmt: skip
        if thing.kind in ("server", "disk"):
            shown |= {"zone": f"{base}/projects/{PROJECT}/zones/{data['zone']}", "labels": data["labels"]}
        if thing.kind == "server":
            shown |= {
                "status": data["status"],
                "networkInterfaces": [{"network": data["network"], "accessConfigs": [{"natIP": data["address"]}]}],
            }
        elif thing.kind == "disk":
            server = self.store.get("server", data["server"])
            shown |= {"status": "READY", "users": [f"{base}/{self._link(server)}"] if server else []}
        else:
            shown |= {"description": data["description"]}
            if thing.kind == "firewall":
                shown["network"] = data["network"]
        return shown

    def error(self, refused: Refused) -> Response:
        text = refused.text.partition(": googleapi: ")[2] or refused.text
        text = re.sub(r"^(?:googleapi: )?Error \d+: ", "", text)
        errors = [{"message": text, "domain": "global", "reason": refused.code}]
        return Response(refused.status, {"error": {"code": refused.status, "message": text, "errors": errors}})


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


VENDOR = Gcp
