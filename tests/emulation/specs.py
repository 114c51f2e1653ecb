"""What tests ask of a cloud: a server as the sweep would want it, with keys of its own."""

from __future__ import annotations

import functools
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchctl.clouds.spec import (
    SHARED_JOB,
    HostKey,
    InstanceSpec,
    SharedSpec,
    labels_of,
    resource_name,
    shared_name,
)

SWEEP = "s20261126-aaaa"
INGRESS = "203.0.113.7/32"


@functools.cache
def key_pair(purpose: str) -> tuple[str, str]:  # noqa: ARG001 - what it is cached by
    """An ed25519 pair, public and private; the same for the same purpose in one run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
        return path.with_suffix(".pub").read_text().strip(), path.read_text()


def instance_spec(vendor: str, server_type: str, region: str, *, job: str = "", **others: Any) -> InstanceSpec:
    """A server that is wanted for the next hour."""
    job = job or f"{vendor}-{server_type}"
    expires = int(time.time()) + 3600
    public, private = key_pair(f"host {job}")
    spec = InstanceSpec(
        vendor=vendor,
        server_type=server_type,
        region=region,
        zone="",
        architecture="x86_64",
        name=resource_name(SWEEP, job),
        ssh_public_key=key_pair("login")[0],
        host_key=HostKey(public, private),
        ingress=INGRESS,
        expires_at=expires,
        labels=labels_of(SWEEP, job, expires),
    )
    return replace(spec, **others)


def shared_spec(vendor: str, scope: str = "", **others: Any) -> SharedSpec:
    """What a sweep's jobs share."""
    expires = int(time.time()) + 3600
    spec = SharedSpec(
        vendor=vendor,
        scope=scope,
        name=shared_name(SWEEP, vendor, scope),
        ssh_public_key=key_pair("login")[0],
        ingress=INGRESS,
        expires_at=expires,
        labels=labels_of(SWEEP, SHARED_JOB, expires),
    )
    return replace(spec, **others)


def ssh(
    folder: Path, address: str, user: str, host_key: str, *command: str, wait_seconds: int = 60
) -> subprocess.CompletedProcess[str]:
    """Log in with the sweep's key, as who expects ``host_key`` and believes nothing else; runs a command.

    ``wait_seconds``: for an answer; a server that is there may be slow, and one that is gone never answers.
    """
    key, known = folder / "ssh-key", folder / "ssh-known"
    key.write_text(key_pair("login")[1])
    key.chmod(0o600)
    known.write_text(f"{address} {host_key}\n")
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": known,
        "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "ConnectTimeout": str(wait_seconds),
        "ControlPath": "none",
    }
    flags = [f"-o{name}={value}" for name, value in options.items()]
    return subprocess.run(
        ["ssh", "-F", "/dev/null", "-i", key, *flags, f"{user}@{address}", *command],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def refuses_another_host_key(folder: Path, address: str, user: str) -> bool:
    """Whether nobody is logged in who expects another host key than the server's."""
    refused = ssh(folder, address, user, key_pair("another")[0], "id -un")
    return refused.returncode == 255 and "Host key verification failed" in refused.stderr
