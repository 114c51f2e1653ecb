"""The vendor ``lab``: servers are containers with sshd on this machine. A rehearsal of sweeps, and the ground of tests.

Made through Pulumi's engine like any vendor's, by a provider of our own (:mod:`benchctl.lab.provider`). Podman itself
ends and removes a server when its time is over, whatever becomes of us: the lab limits itself.

Labs of different names (:data:`NAME`) on one machine do not see each other.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.clouds.cloud import CloudError
from benchctl.clouds.spec import LABEL_EXPIRES, LABEL_JOB, LABEL_SWEEP, Asked, Resource, expiry_of
from benchctl.lab import containers
from benchctl.lab.podman import LabError, problem
from benchctl.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchctl.clouds.cloud import Client, Cloud
    from benchctl.clouds.spec import InstanceSpec, SharedSpec

NAME = "BENCHCTL_LAB"
"""Variable with the name of the lab; ``lab`` without it."""

_READ = (
    "HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "BENCHCTL_CACHE",
    "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF",
)  # fmt: skip
"""What podman and the provider's cache depend on."""

MODELS = "/root/.local/share/llama_bench/models"
"""Where the role looks for models on a server, unless it is told otherwise."""

REGION = "here"


class Lab:
    """See :class:`benchctl.clouds.cloud.Cloud`."""

    name = "lab"
    vendor_id = "lab"
    limits_itself = True
    engine_seconds = 900.0

    def user(self, spec: InstanceSpec) -> str:  # noqa: ARG002
        """Root of the container."""
        return "root"

    def login_problem(self, environment: Mapping[str, str]) -> str:
        """There is no login; podman must be there."""
        return problem(environment)

    def account(self, environment: Mapping[str, str], client: Client) -> str:  # noqa: ARG002
        """The lab."""
        return environment.get(NAME) or "lab"

    def engine_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """What podman needs to find its containers and images."""
        return {name: environment[name] for name in _READ if environment.get(name)}

    def shared_scope(self, region: str) -> str | None:  # noqa: ARG002
        """A sweep's servers are on one network."""
        return ""

    def shared_resources(self, spec: SharedSpec) -> tuple[Asked, ...]:
        """The network."""
        return (Asked("network", spec.name),)

    def shared_program(self, spec: SharedSpec) -> dict[str, Any]:
        """A network with room for a thousand servers."""
        network = _resource("Network", spec.name, {"name": spec.name, "labels": _labels(spec.labels)}, ["subnet"])
        return {"network": network.id}

    def resources(self, spec: InstanceSpec) -> tuple[Asked, ...]:
        """The server; what it writes goes with it."""
        return (Asked("server", spec.name),)

    def program(self, spec: InstanceSpec, shared: Mapping[str, str]) -> dict[str, Any]:
        """A container of the size that the type's name tells, as far as this machine has it."""
        import pulumi

        from benchctl.lab.images import image_name
        from benchctl.lab.types import size_of

        size = size_of(spec.server_type)
        here_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2
        limited = size is not None and size.memory_mib < here_mib
        server = _resource(
            "Server",
            spec.name,
            {
                "name": spec.name,
                "network": shared["network"],
                "image": image_name(),
                "hostKey": pulumi.Output.secret(spec.host_key.private),
                "authorizedKeys": spec.ssh_public_key,
                "labels": _labels(spec.labels),
                "cpus": size.vcpus if size else 0,
                "memoryMib": size.memory_mib if size and limited else 0,
                "lifetimeSeconds": spec.lifetime_seconds(time.time()),
                "mounts": _mounts(spec),
            },
            ["address", "port"],
        )
        return {
            "address": server.address,
            "port": server.port,
            "ids": {spec.name: server.id},
        }

    def client(self, environment: Mapping[str, str], regions: Sequence[str] = ()) -> Client:  # noqa: ARG002
        """Podman, by the lab's label."""
        return LabClient(environment.get(NAME) or "lab")


class LabClient:
    """See :class:`benchctl.clouds.cloud.Client`."""

    def __init__(self, lab: str) -> None:
        """Nothing is asked yet."""
        self._ours = {containers.LABEL_CLOUD: lab}

    def whoami(self) -> str:
        """The version of podman."""
        from benchctl.lab.podman import podman

        try:
            return podman("--version")
        except LabError as error:
            raise _said(error) from error

    def find(self) -> list[Resource]:
        """Containers in whatever state (one that has ended is removed by podman itself), and networks."""
        try:
            servers = containers.servers(**self._ours)
            networks = containers.networks(**self._ours)
        except LabError as error:
            raise _said(error) from error
        used = {network for one in servers for network in one.networks}
        return [
            *(_listed("server", one, address=one.address, state=one.state) for one in servers),
            *(
                _listed("network", one, state="in use" if one.name in used else "free", attached=one.name in used)
                for one in networks
            ),
        ]

    def delete(self, resource: Resource) -> None:
        """Podman answers when it is done."""
        try:
            (containers.remove_network if resource.kind == "network" else containers.remove)(resource.id)
        except LabError as error:
            raise _said(error) from error


def _listed(kind: str, one: containers.Server | containers.Network, **more: Any) -> Resource:
    return Resource(
        vendor=CLOUD.name,
        kind=kind,
        id=one.name,
        name=one.name,
        region=REGION,
        sweep=one.labels.get(LABEL_SWEEP, ""),
        job=one.labels.get(LABEL_JOB, ""),
        expires_at=expiry_of(one.labels.get(LABEL_EXPIRES)),
        created_at=one.created_at or None,
        **more,
    )


def _said(error: LabError) -> CloudError:
    return CloudError(error.problem, error.mend, refusal=Refusal.OUTAGE, said=error.said)


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    return {**labels, containers.LABEL_CLOUD: os.environ.get(NAME) or "lab"}


def _mounts(spec: InstanceSpec) -> list[dict[str, Any]]:
    """Model files lie in one folder of this machine, for all servers together; so do the recordings that are played."""
    cache = Path(spec.settings["cache"]) if spec.settings.get("cache") else None
    if cache is None:
        return []
    if not spec.settings.get("recorded"):
        models = cache / "models"
        models.mkdir(parents=True, exist_ok=True)
        return [{"here": str(models), "there": MODELS, "readOnly": False}]
    from benchctl.lab import recordings

    recording = recordings.prepare(
        cache, Path(spec.settings["recorded"]), spec.server_type, float(spec.settings.get("time_scale") or 1.0)
    )
    return [
        {"here": str(recording), "there": recordings.ON_THE_SERVER, "readOnly": True},
        {"here": str(recordings.hollow_models(cache)), "there": MODELS, "readOnly": True},
    ]


def _resource(kind: str, name: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Any:
    """A resource of our provider; what it gives back are attributes of the object."""
    import pulumi

    from benchctl.lab.provider import PACKAGE

    if re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) is None:
        raise CloudError(f"{name!r} can't be the name of a container.", refusal=Refusal.NOT_OFFERED)
    made = type(kind, (pulumi.CustomResource,), {})
    return made(f"{PACKAGE}:index:{kind}", name, {**dict.fromkeys(outputs), **inputs}, pulumi.ResourceOptions())


CLOUD: Cloud = Lab()
