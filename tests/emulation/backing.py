"""Containers behind the emulated servers: they boot with the user data that we sent, so that what we send is tried."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emulation.cloudinit import Boot

SUITES = {"debian": "bookworm", "ubuntu": "bookworm"}
"""The lab's image by the distribution that was asked for; Ubuntu's packages can't be had everywhere, Debian's can."""


class Backing:
    """Starts and removes what is behind a server.

    Args:
        cache: where the lab's images are.
        containers: start real ones; otherwise an address of loopback is all that there is.
        owner: to whom containers belong, as the lab's label says it: what removes stale ones believes it.
    """

    def __init__(self, cache: Path, containers: bool, owner: str) -> None:
        self._cache, self._containers, self._owner = cache, containers, owner
        self._lock, self._count = threading.Lock(), 0
        self._network = self._prefix = ""
        self._folder = Path(tempfile.mkdtemp(prefix="emulation-"))
        self._names: dict[str, str] = {}

    def reserve(self) -> str:
        """An address for a server that comes later, for clouds whose addresses are things of their own."""
        with self._lock:
            # around again after 240: by then the first ones are long gone
            self._count += 1
            number = (self._count - 1) % 240 + 11
            if not self._containers:
                return f"127.9.{number // 250}.{number % 250 + 1}"
            self._connect()
        return f"{self._prefix}.{number}"

    def start(self, identifier: str, boot: Boot, image: str, address: str = "") -> str:
        """Start what is behind the server ``identifier``; returns its address when its sshd answers.

        ``address`` is one that was reserved; by default it gets one.
        """
        address = address or self.reserve()
        if not self._containers:
            return address
        from benchctl.lab.containers import hardware_address, wait_for_ssh
        from benchctl.lab.images import host_image
        from lab.hosts import READY_SECONDS
        from lab.podman import LABEL, podman

        here = Path(__file__).resolve().parent
        name = f"{self._network}-{address.rpartition('.')[2]}"
        folder = self._folder / name
        folder.mkdir()
        (folder / "boot.json").write_text(json.dumps(boot.document()))
        shutil.copy(here / "first_boot.py", folder)
        self._names[identifier] = name
        podman(
            *("run", "-d", "--name", name, "--hostname", name, "--label", f"{LABEL}={self._owner}"),
            *("--network", self._network, "--ip", address, "--mac-address", hardware_address(address)),
            *("-v", f"{folder}:/emulation:ro"),
            host_image(self._cache, SUITES[image]),
            *("python3", "/emulation/first_boot.py", "/emulation/boot.json"),
        )
        wait_for_ssh(address, 22, READY_SECONDS)
        return address

    def remove(self, identifier: str) -> None:
        """Remove it; nothing to do when nothing is there."""
        name = self._names.pop(identifier, "")
        if name:
            from lab.podman import podman

            podman("rm", "-f", "-t", "0", name, check=False)
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def clear(self) -> None:
        """Remove all of them."""
        for identifier in list(self._names):
            self.remove(identifier)

    def close(self) -> None:
        """Remove everything, the network included."""
        self.clear()
        if self._network:
            from lab.podman import podman

            podman("network", "rm", "-f", self._network, check=False)
        with contextlib.suppress(OSError):
            shutil.rmtree(self._folder)

    def _connect(self) -> None:
        if not self._network:
            from benchctl.lab.containers import make_network
            from lab.hosts import SUBNETS
            from lab.podman import LABEL, remove_stale

            remove_stale()
            made = make_network(f"{LABEL}-emulation-{self._owner}", {LABEL: self._owner}, SUBNETS)
            self._network, self._prefix = made.name, made.subnet.rpartition(".")[0]
