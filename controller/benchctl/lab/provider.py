"""Pulumi's provider of the lab: the program ``pulumi-resource-benchlab``, whose servers are containers.

======================  ============================================================================
``benchlab:index:Network``  inputs name, labels; outputs subnet
``benchlab:index:Server``   inputs as :class:`~benchctl.lab.containers.Wanted`; outputs address, port
======================  ============================================================================

The identifier of both is their name, which is unique on this machine. An engine that is killed in the middle of a
create leaves the plugin to finish it; the lab's client then finds the server by its labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchctl import __version__
from benchctl.home import Home
from benchctl.lab import containers
from benchctl.lab.images import host_image
from benchctl.lab.plugin import RefusedError, serve
from benchctl.lab.podman import LabError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PACKAGE = "benchlab"
NETWORK = "benchlab:index:Network"
SERVER = "benchlab:index:Server"
_NEEDED = {
    NETWORK: ("name", "labels"),
    SERVER: ("name", "network", "image", "hostKey", "authorizedKeys", "labels", "lifetimeSeconds"),
}
_NO_IMAGE = ("image not known", "no such image", "unable to pull", "pinging container registry", "initializing source")


class LabProvider:
    """See :class:`benchctl.lab.plugin.Provider`."""

    def configure(self, settings: Mapping[str, Any]) -> None:
        """There is nothing to set."""

    def check(self, kind: str, inputs: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """Whether all is there that is needed."""
        if kind not in _NEEDED:
            raise RefusedError(f"the lab makes no {kind}")
        return [(one, "is needed") for one in _NEEDED[kind] if one not in inputs]

    def create(self, kind: str, name: str, inputs: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:  # noqa: ARG002
        """Make it. The private host key is not among the outputs."""
        shown = {key: value for key, value in inputs.items() if key != "hostKey"}
        try:
            if kind == NETWORK:
                network = containers.make_network(inputs["name"], inputs["labels"])
                return network.name, {**shown, "subnet": network.subnet}
            server = _start(inputs)
        except LabError as error:
            raise RefusedError(error.said) from error
        return server.name, {**shown, "address": server.address, "port": server.port}

    def read(self, kind: str, identifier: str, state: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Its properties, if podman still lists it."""
        try:
            if kind == NETWORK:
                return dict(state) if any(one.name == identifier for one in containers.networks()) else None
            found = [one for one in containers.servers(**{containers.LABEL_CLOUD: ""}) if one.name == identifier]
        except LabError as error:
            raise RefusedError(error.said) from error
        return {**state, "address": found[0].address, "port": found[0].port} if found else None

    def update(
        self,
        kind: str,
        identifier: str,
        state: Mapping[str, Any],  # noqa: ARG002
        inputs: Mapping[str, Any],  # noqa: ARG002
    ) -> Mapping[str, Any]:
        """Nothing of a server can be changed."""
        raise RefusedError(f"{kind} {identifier} can't be changed in place")

    def delete(self, kind: str, identifier: str, state: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Remove it."""
        try:
            (containers.remove_network if kind == NETWORK else containers.remove)(identifier)
        except LabError as error:
            raise RefusedError(error.said) from error

    def invoke(self, function: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002
        """The lab answers no questions."""
        raise RefusedError(f"the lab has no function {function}")


def _start(inputs: Mapping[str, Any]) -> containers.Server:
    wanted = containers.Wanted(
        name=inputs["name"],
        network=inputs["network"],
        image=inputs["image"],
        host_key=inputs["hostKey"],
        authorized_keys=inputs["authorizedKeys"],
        labels=inputs["labels"],
        cpus=inputs.get("cpus", 0),
        memory_mib=inputs.get("memoryMib", 0),
        lifetime_seconds=inputs["lifetimeSeconds"],
        mounts=tuple((one["here"], one["there"], one["readOnly"]) for one in inputs.get("mounts", ())),
    )
    try:
        return containers.start(wanted)
    except LabError as error:
        if not any(word in error.said for word in _NO_IMAGE):
            raise
    host_image(Home.at().cache)
    return containers.start(wanted)


def main() -> None:
    """What the engine starts."""
    serve(LabProvider(), PACKAGE, __version__)


if __name__ == "__main__":
    main()
