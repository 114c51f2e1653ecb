"""SSH hosts: containers with sshd, whose host keys are known before the first connection."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.lab import containers
from benchctl.lab.images import host_image
from lab.podman import LABEL, owner, podman, remove_stale

if TYPE_CHECKING:
    from collections.abc import Iterator

SUITES = {"3.9": "bullseye", "3.11": "bookworm", "3.13": "trixie"}
"""Debian's release by the version of its ``/usr/bin/python3``: the lowest and highest of targets, and one."""

READY_SECONDS = 180.0
"""How long a host may take until its sshd answers, on a machine that others use."""

SUBNETS = tuple(f"10.77.{third}.0/24" for third in range(77, 97))


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
        self._containers.append(name)
        containers.start(
            containers.Wanted(
                name=name,
                network=self._network,
                image=host_image(self._cache, SUITES[python]),
                host_key=key.read_text(),
                authorized_keys=self._key.with_name("key.pub").read_text(),
                labels={LABEL: owner()},
                address=address,
            ),
            keys=self.folder,
        )
        containers.wait_for_ssh(address, seconds=READY_SECONDS)
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
    network: containers.Network | None = None
    made: Lab | None = None
    try:
        network = containers.make_network(f"{LABEL}-{owner()}", {LABEL: owner()}, SUBNETS)
        made = Lab(cache, folder, network.name, network.subnet.rpartition(".")[0])
        yield made
    finally:
        if made is not None:
            made.close()
        if network:
            podman("network", "rm", "-f", network.name, check=False)
        shutil.rmtree(folder, ignore_errors=True)
