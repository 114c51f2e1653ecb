"""SSH hosts: containers with sshd, whose host keys are known before the first connection."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.images import SUITES, host_image
from lab.podman import LABEL, owner, podman, remove_stale

if TYPE_CHECKING:
    from collections.abc import Iterator

READY_SECONDS = 30.0


@dataclass(frozen=True)
class Host:
    """One running host.

    Attributes:
        name: of the container, and in the inventory.
        address: where it listens.
        python: the version of its ``/usr/bin/python3``.
    """

    name: str
    address: str
    python: str


class Lab:
    """A network, and the hosts that were started on it.

    Attributes:
        folder: keys, known_hosts, inventories and the sockets of SSH connections.
    """

    def __init__(self, cache: Path, folder: Path, network: str, prefix: str) -> None:
        self._cache, self.folder, self._network, self._prefix = cache, folder, network, prefix
        self._known_hosts = folder / "known_hosts"
        self._key = folder / "key"
        self._containers: list[str] = []
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._key], check=True)

    def start(self, python: str = "3.11") -> Host:
        """Start one host and wait until its sshd answers."""
        number = len(self._containers) + 11
        name, address = f"{self._network}-{number}", f"{self._prefix}.{number}"
        key = self.folder / f"{name}.host_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key], check=True)
        public = key.with_name(key.name + ".pub").read_text()
        with self._known_hosts.open("a") as file:
            file.write(f"{address} {public}")
        image = host_image(self._cache, SUITES[python])
        self._containers.append(name)
        podman(
            *("run", "-d", "--name", name, "--hostname", name, "--label", f"{LABEL}={owner()}"),
            # One address, one hardware address: the neighbour table of the host never holds a stale one.
            *("--network", self._network, "--ip", address, "--mac-address", f"02:77:{_hex(address)}"),
            *("-v", f"{key}:/etc/ssh/ssh_host_ed25519_key:ro"),
            *("-v", f"{self._key}.pub:/root/.ssh/authorized_keys:ro"),
            image,
        )
        _wait_for_sshd(name, address)
        return Host(name, address, python)

    def inventory(self, hosts: list[Host]) -> Path:
        """An Ansible inventory with these hosts in the group ``bench``."""
        options = (
            f"-o UserKnownHostsFile={self._known_hosts} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes "
            f"-o ControlPath={self.folder}/%C"
        )
        listed = {
            host.name: {
                "ansible_host": host.address,
                "ansible_user": "root",
                "ansible_ssh_private_key_file": str(self._key),
                "ansible_ssh_common_args": options,
                "ansible_python_interpreter": "/usr/bin/python3",
            }
            for host in hosts
        }
        path = self.folder / f"inventory-{hosts[0].name}.yml"
        path.write_text(json.dumps({"bench": {"hosts": listed}}, indent=1))  # JSON is YAML
        return path

    def hosts(self, count: int, python: str = "3.11") -> Path:
        """Start some hosts; returns the path of their inventory."""
        return self.inventory([self.start(python) for _ in range(count)])

    def close(self) -> None:
        """Remove the hosts; SSH connections that Ansible keeps open end with them."""
        if self._containers:
            podman("rm", "-f", "-t", "0", *self._containers, check=False)


@contextlib.contextmanager
def lab(cache: Path) -> Iterator[Lab]:
    """A lab of one's own; everything in it is removed at the end, and what a killed run left, at the start."""
    remove_stale()
    # Sockets lie in it, and their paths may have 107 characters: pytest's own folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="bl-"))
    network = ""
    made: Lab | None = None
    try:
        network, prefix = _network(f"{LABEL}-{owner()}")
        made = Lab(cache, folder, network, prefix)
        yield made
    finally:
        if made is not None:
            made.close()
        if network:
            podman("network", "rm", "-f", network, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _network(name: str) -> tuple[str, str]:
    """Create a network on the first of some subnets that is free; returns its name and the subnet's prefix."""
    trouble = ""
    for third in range(77, 97):
        prefix = f"10.77.{third}"
        try:
            podman(
                *("network", "create", "--disable-dns", "--label", f"{LABEL}={owner()}"),
                *("--subnet", f"{prefix}.0/24", "--gateway", f"{prefix}.1", name),
            )
        except RuntimeError as error:
            trouble = str(error)
            continue
        return name, prefix
    raise RuntimeError(f"no subnet is free for the lab: {trouble}")


def _wait_for_sshd(name: str, address: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            with socket.create_connection((address, 22), timeout=2) as connection:
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} does not answer SSH: {podman('logs', name, check=False)}")
        time.sleep(0.1)


def _hex(address: str) -> str:
    return ":".join(f"{int(part):02x}" for part in address.split("."))
