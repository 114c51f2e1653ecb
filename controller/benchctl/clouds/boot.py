"""The first boot of a rented server: its host key, who may log in, and on AWS its own end. Pure.

What cloud-init reads is written by a YAML library, never by putting text into text. The host key travels in it, so that
it is known before the first connection; the vendor's metadata service shows it to whoever is on that server, which is
why every job has one of its own.
"""

from __future__ import annotations

import base64
import shlex
from typing import TYPE_CHECKING, Any

from benchctl.errors import BenchctlError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchctl.clouds.spec import InstanceSpec

LIMITS: Mapping[str, int] = {
    "aws": 16 * 1024,  # raw: EC2's user guide, "User data is limited to 16 KB, in raw form"
    "azure": 64 * 1024,  # custom data, after base64
    "gcp": 256 * 1024,  # one metadata value
    "hetzner": 32 * 1024,  # docs.hetzner.cloud, POST /servers, user_data
    "upcloud": 64 * 1024,  # the cautious reading: the documentation names no limit
}
"""The most that a vendor takes as user data, bytes."""

_USERS: Mapping[str, Mapping[str, str]] = {
    "aws": {"ubuntu": "ubuntu", "debian": "admin"},
    "gcp": {"ubuntu": "ubuntu", "debian": "debian"},
    "azure": {"ubuntu": "ubuntu", "debian": "debian"},
}

GUEST_AGENT_FILE = "/etc/default/instance_configs.cfg"
GUEST_AGENT_SETTINGS = "[InstanceSetup]\nset_host_keys = false\n"
"""Google's guest agent makes host keys of its own at first boot unless it is told not to."""

HOST_KEY_FILE = "/etc/ssh/ssh_host_ed25519_key"

END = "benchctl-end"
"""Name of the processes that switch the server off."""

LATE_MINUTES = 6
"""How long after the expiry the system's own shutdown comes, for a server whose other end failed.

Five minutes before a shutdown that was told its time /run/nologin is written (shutdown(8) of systemd), and nobody but
root is let in any more: the results, collected last of all, would stay behind.
"""

_SHUT_DOWN = f'shutdown -P "+$(( ($1 - $(date +%s) + 59) / 60 + {LATE_MINUTES} ))"'
_WATCH = 'while [ "$(date +%s)" -lt "$1" ]; do sleep 15; done; systemctl poweroff || poweroff -f'
_WATCH_BEHIND = 'setsid sh -c "$2" "$0" "$1" </dev/null >/dev/null 2>&1 &'
"""Plain shell, because this early in the boot neither ``shutdown`` nor a timer works: logind and the bus are not up,
and waiting for a timer's start would wait for cloud-init itself. What is put in comes as arguments."""


def login_user(vendor: str, image: str) -> str:
    """Who logs in on ``image`` (``ubuntu-24.04``, ``debian-12``) at a vendor; root where the images have no other."""
    return _USERS.get(vendor, {}).get(image.partition("-")[0], "root")


def user_data(spec: InstanceSpec, *, shut_down: bool = False, google: bool = False) -> str:
    """What cloud-init does at the first boot, as ``#cloud-config``.

    Args:
        spec: the server that is wanted.
        shut_down: the server switches itself off when its time is over, for clouds that then delete it. Twice, each
            as early as it can be: ``bootcmd`` runs at every boot, before the network, and holds after a reboot too;
            ``runcmd`` runs once, late, is told to come a few minutes after that, and is seen by ``shutdown --show``.
        google: keeps Google's guest agent from making host keys of its own.

    Raises:
        BenchctlError: it is larger than the vendor takes.
    """
    config: dict[str, Any] = {}
    if shut_down:
        expires = str(int(spec.expires_at))
        config["bootcmd"] = [["sh", "-c", _WATCH_BEHIND, END, expires, _WATCH]]
        config["runcmd"] = [["sh", "-c", _SHUT_DOWN, END, expires]]
    config["ssh_deletekeys"] = True
    config["ssh_keys"] = {
        "ed25519_private": _ended(spec.host_key.private),
        "ed25519_public": spec.host_key.public.strip(),
    }
    config["ssh_authorized_keys"] = [spec.ssh_public_key.strip()]
    config["ssh_pwauth"] = False
    if login_user(spec.vendor, spec.image) == "root":
        config["disable_root"] = False
    if google:
        config["write_files"] = [{"path": GUEST_AGENT_FILE, "content": GUEST_AGENT_SETTINGS}]
    return checked(spec.vendor, f"#cloud-config\n{_yaml(config)}")


def startup_script(spec: InstanceSpec) -> str:
    """The same for images without cloud-init (Google's Debian), as the script that root runs at every boot.

    The guest agent has made a host key by then; this one takes its place before anybody who knows it can log in. Who
    may log in is told by the metadata ``ssh-keys``.

    Raises:
        BenchctlError: it is larger than the vendor takes.
    """
    lines = [
        "#!/bin/sh",
        "set -eu",
        "umask 077",
        f"echo {_armoured(GUEST_AGENT_SETTINGS)} | base64 -d > {GUEST_AGENT_FILE}",
        f"chmod 644 {GUEST_AGENT_FILE}",
        "rm -f /etc/ssh/ssh_host_*",
        f"echo {_armoured(_ended(spec.host_key.private))} | base64 -d > {HOST_KEY_FILE}",
        f"echo {_armoured(_ended(spec.host_key.public))} | base64 -d > {HOST_KEY_FILE}.pub",
        f"chmod 644 {HOST_KEY_FILE}.pub",
        "systemctl restart ssh.service",
    ]
    return checked(spec.vendor, "\n".join(lines) + "\n")


def checked(vendor: str, data: str) -> str:
    """``data``, if the vendor takes that much.

    Raises:
        BenchctlError: it does not.
    """
    most = LIMITS.get(vendor, min(LIMITS.values()))
    size = len(data.encode())
    if vendor == "azure":
        size = (size + 2) // 3 * 4
    if size > most:
        raise BenchctlError(
            f"What the server does at its first boot takes {size} bytes, and {vendor} takes {most}.",
            "The sweep's public key is too long; use an ed25519 key.",
        )
    return data


def _ended(text: str) -> str:
    return text.strip() + "\n"


def _armoured(text: str) -> str:
    return shlex.quote(base64.b64encode(text.encode()).decode())


def _yaml(config: Mapping[str, Any]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Text of several lines as a block, which people can read."""

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    Dumper.add_representer(str, represent)
    return yaml.dump(dict(config), Dumper=Dumper, sort_keys=False, width=10_000)
