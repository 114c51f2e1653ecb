"""The lab's servers: containers with sshd on this machine, found again by their labels alone.

Keys get into a server as files that only their owner can read, mounted when it starts; no secret is an argument of a
process. Root's containers have addresses that this machine reaches. Without root podman gives them none, so their SSH
port is published on 127.0.0.1 instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchctl.home import Home
from benchctl.lab.podman import LabError, podman, with_own_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

LABEL_CLOUD = "benchctl-cloud"
"""On every container and network that a cloud of ours made; its value names that cloud."""

READY_SECONDS = 30.0
OLD_SECONDS = 3600.0
_BLOCKS = tuple(f"10.98.{third}.0/22" for third in range(0, 256, 4))
_TAKEN = ("already used", "already in use", "conflicts", "overlap")
_GONE = ("no such container", "no container with", "network not found", "unable to find network", "no such network")


@dataclass(frozen=True)
class Wanted:
    """A server to start.

    Attributes:
        name: of the container, and its host name; unique on this machine.
        network: name of a network of :func:`make_network`.
        image: name of an image of :func:`benchctl.lab.images.host_image`.
        host_key: its private SSH host key (ed25519), in OpenSSH's format.
        authorized_keys: who may log in as root, a line each.
        labels: to find it by.
        cpus: how many of this machine's CPUs it may use at most; 0 for all.
        memory_mib: how much memory, MiB; 0 for all.
        lifetime_seconds: podman ends and removes it after this time, whatever becomes of us; 0 for never.
        address: on its network; empty to let podman choose.
        mounts: (path here, path there, whether the server may only read it).
    """

    name: str
    network: str
    image: str
    host_key: str = field(repr=False)
    authorized_keys: str
    labels: Mapping[str, str] = field(default_factory=dict)
    cpus: float = 0.0
    memory_mib: int = 0
    lifetime_seconds: int = 0
    address: str = ""
    mounts: Sequence[tuple[str, str, bool]] = ()


@dataclass(frozen=True)
class Server:
    """A server that podman lists.

    Attributes:
        id: of the container, 64 hex digits.
        name: of the container.
        state: podman's word, e.g. ``running`` or ``exited``.
        labels: all of them.
        created_at: seconds since 1970.
        address: where this machine reaches it; empty when it does not run.
        port: of SSH there.
        networks: names of the networks that it is on.
    """

    id: str
    name: str
    state: str
    labels: Mapping[str, str]
    created_at: float
    address: str = ""
    port: int = 22
    networks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Network:
    """A network that podman lists.

    Attributes:
        name: its name.
        subnet: in CIDR notation; empty when it has none.
        labels: all of them.
        created_at: seconds since 1970; nothing where podman does not say.
    """

    name: str
    subnet: str
    labels: Mapping[str, str]
    created_at: float | None = None


def start(wanted: Wanted, *, keys: Path | None = None) -> Server:
    """Start a server; whether its sshd answers is not waited for (:func:`wait_for_ssh`).

    Args:
        wanted: the server.
        keys: folder for its key files, one below it by the server's name; :func:`remove` clears the default one.

    Raises:
        LabError: podman refuses; nothing is left then.
    """
    folder = _write_keys(wanted, (keys or _keys()) / wanted.name)
    arguments = _arguments(wanted, folder)
    try:
        try:
            podman(*arguments)
        except LabError as error:
            # what could not be started stays behind as a container that was only made
            if not with_own_settings(error):
                raise
            podman("rm", "-f", "-t", "0", wanted.name, check=False)
            podman(*arguments)
    except LabError as error:
        if "is already in use" not in error.said:
            podman("rm", "-f", "-t", "0", wanted.name, check=False)
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return get(wanted.name)


def _arguments(wanted: Wanted, folder: Path) -> list[str]:
    arguments = ["run", "-d", "--name", wanted.name, "--hostname", wanted.name, "--network", wanted.network]
    for key, value in wanted.labels.items():
        arguments += ["--label", f"{key}={value}"]
    if os.geteuid() != 0:
        arguments += ["-p", "127.0.0.1::22"]
    elif wanted.address:
        # one address, one hardware address: the neighbour table of this machine never holds a stale one
        arguments += ["--ip", wanted.address, "--mac-address", hardware_address(wanted.address)]
    if wanted.cpus:
        arguments += ["--cpus", f"{min(wanted.cpus, os.cpu_count() or 1):g}"]
    if wanted.memory_mib:
        arguments += ["--memory", f"{wanted.memory_mib}m"]
    if wanted.lifetime_seconds:
        arguments += ["--rm", "--timeout", str(wanted.lifetime_seconds)]
    arguments += ["-v", f"{folder}/host_key:/etc/ssh/ssh_host_ed25519_key:ro"]
    arguments += ["-v", f"{folder}/authorized_keys:/root/.ssh/authorized_keys:ro"]
    for here, there, read_only in wanted.mounts:
        arguments += ["-v", f"{here}:{there}:{'ro' if read_only else 'rw'}"]
    return [*arguments, wanted.image]


def hardware_address(address: str) -> str:
    """The one hardware address that goes with an IPv4 address."""
    return "02:77:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def get(name: str) -> Server:
    """The server of this name.

    Raises:
        LabError: there is none.
    """
    return _server(json.loads(podman("container", "inspect", name))[0])


def servers(**labels: str) -> list[Server]:
    """All containers with these labels (an empty value for any), whatever their state; ``_`` in a name means ``-``."""
    found = podman("ps", "-a", "-q", "--no-trunc", *_filters(labels)).split()
    if not found:
        return []
    with contextlib.suppress(LabError):
        return [_server(one) for one in json.loads(podman("container", "inspect", *found))]
    # one of them went away in between
    return [server for one in found if (server := _get(one)) is not None]


def _get(name: str) -> Server | None:
    try:
        return get(name)
    except LabError as error:
        if _is_gone(error):
            return None
        raise


def remove(name: str) -> None:
    """Remove a server and its keys, at once; what is gone is removed.

    Raises:
        LabError: podman can't remove it.
    """
    try:
        podman("rm", "-f", "-t", "0", name)
    except LabError as error:
        if not _is_gone(error):
            raise
    shutil.rmtree(_keys() / name, ignore_errors=True)


def make_network(name: str, labels: Mapping[str, str], blocks: Iterable[str] = _BLOCKS) -> Network:
    """Make a network on the first subnet that is free.

    Args:
        name: its name; unique on this machine.
        labels: to find it by.
        blocks: subnets to try, in CIDR notation.

    Raises:
        LabError: none is free, or podman refuses.
    """
    _forget_keys()
    taken = {network.subnet for network in networks()}
    trouble: LabError | None = None
    words = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    for block in blocks:
        if block in taken:
            continue
        try:
            podman("network", "create", "--disable-dns", *words, "--subnet", block, name)
        except LabError as error:
            trouble = error
            if "subnet" in error.said and any(word in error.said for word in _TAKEN):
                continue
            raise
        return Network(name, block, dict(labels))
    raise LabError(f"No subnet is free for the lab's network {name}.", "Remove networks that nobody uses.") from trouble


def networks(**labels: str) -> list[Network]:
    """All networks with these labels; none for every network of podman's."""
    found = podman("network", "ls", "-q", *_filters(labels)).split()
    if not found:
        return []
    listed = [
        one for name in found if (text := podman("network", "inspect", name, check=False)) for one in json.loads(text)
    ]
    return [
        Network(one["name"], _subnet(one), one.get("labels") or {}, _time(one.get("created"))) for one in listed if one
    ]


def remove_network(name: str) -> None:
    """Remove a network; what is gone is removed.

    Raises:
        LabError: servers are on it, or podman can't remove it.
    """
    try:
        podman("network", "rm", name)
    except LabError as error:
        if not _is_gone(error):
            raise


def wait_for_ssh(address: str, port: int = 22, seconds: float = READY_SECONDS) -> None:
    """Wait until an sshd answers.

    Raises:
        LabError: none does in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=2) as connection:
            if connection.recv(4) == b"SSH-":
                return
        if time.monotonic() > deadline:
            raise LabError(f"{address} does not answer SSH at port {port} within {seconds:g} s.", "See 'podman logs'.")
        time.sleep(0.1)


def _write_keys(wanted: Wanted, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, content in (("host_key", wanted.host_key), ("authorized_keys", wanted.authorized_keys)):
        path = folder / name
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content.rstrip("\n") + "\n")
    return folder


def _keys() -> Path:
    return Home.at().cache / "lab" / "keys"


def _forget_keys() -> None:
    """Remove the keys of servers that podman ended by itself; what was written a moment ago may belong to a start."""
    old = time.time() - OLD_SECONDS
    folders = [one for one in _keys().glob("*") if _written_at(one) < old] if _keys().is_dir() else []
    if folders:
        alive = set(podman("ps", "-a", "--format", "{{.Names}}").split())
        for folder in folders:
            if folder.name not in alive:
                shutil.rmtree(folder, ignore_errors=True)


def _written_at(path: Path) -> float:
    """Seconds since 1970; now for what somebody else removed meanwhile."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return time.time()


def _filters(labels: Mapping[str, str]) -> list[str]:
    words = []
    for key, value in labels.items():
        plain = key.replace("_", "-")
        words += ["--filter", f"label={plain}={value}" if value else f"label={plain}"]
    return words


def _server(found: Mapping[str, Any]) -> Server:
    state = str(found["State"]["Status"])
    settings = found.get("NetworkSettings") or {}
    joined: Mapping[str, Any] = settings.get("Networks") or {}
    address, port = "", 22
    if state == "running":
        bound = (settings.get("Ports") or {}).get("22/tcp")
        if bound:
            address, port = bound[0].get("HostIp") or "127.0.0.1", int(bound[0]["HostPort"])
        else:
            address = next((one["IPAddress"] for one in joined.values() if one.get("IPAddress")), "")
    labels = found["Config"].get("Labels") or {}
    created = _time(found.get("Created")) or 0.0
    return Server(found["Id"], found["Name"].lstrip("/"), state, labels, created, address, port, tuple(joined))


def _subnet(found: Mapping[str, Any]) -> str:
    subnets = found.get("subnets") or ()
    return str(subnets[0]["subnet"]) if subnets else ""


def _time(text: object) -> float | None:
    """Podman's time, which has nine digits behind the point, in seconds since 1970."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _is_gone(error: LabError) -> bool:
    return any(word in error.said.lower() for word in _GONE)
