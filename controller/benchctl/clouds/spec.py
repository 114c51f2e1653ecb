"""What is wanted of a vendor and what was got: plain frozen values. Pure.

All that is ours carries the same labels in every cloud, and a name that says so too, because some resources can't be
labelled. Labels hold ``[a-z0-9_-]`` alone, which all five vendors take; the expiry is in seconds since 1970, because a
colon breaks GCP and Hetzner.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "benchctl-"
"""Every name of ours begins so, in every cloud."""

LABEL_SWEEP = "benchctl-sweep"
LABEL_JOB = "benchctl-job"
LABEL_EXPIRES = "benchctl-expires"
LABELS = (LABEL_SWEEP, LABEL_JOB, LABEL_EXPIRES)

SHARED_JOB = "shared"
"""The value of :data:`LABEL_JOB` on what all jobs of a sweep use together: keys, firewalls, networks."""

FIRST = ("spot-request", "server")
"""Kinds that go before all else, in this order: nothing holds them, and a request could start its server again."""

NAME_LENGTH = 60
"""The most that a name of ours has, characters: GCP, Hetzner and Azure take 63 or 64, and kinds add a suffix."""

X86_64 = "x86_64"
ARM64 = "arm64"


@dataclass(frozen=True)
class HostKey:
    """The SSH host key of one instance (ed25519), made here and given to it at its first boot.

    Attributes:
        public: ``ssh-ed25519 AAAA...``, without a comment.
        private: the private key in OpenSSH's format; never shown.
    """

    public: str
    private: str = field(repr=False)


@dataclass(frozen=True)
class InstanceSpec:
    """One server that is wanted.

    Attributes:
        vendor: the vendor as the command line calls it, e.g. ``hetzner``.
        server_type: the type as the vendor's API calls it, e.g. ``g2-standard-4``.
        region: the region as the vendor's API calls it.
        zone: the zone in it as the vendor's API calls it; empty where the vendor chooses.
        architecture: ``x86_64`` or ``arm64``.
        gpus: number of GPUs; 0 without.
        image: ``ubuntu-24.04`` or ``debian-12``; each vendor's module knows its own name for it.
        disk_gb: size of the boot disk, GB; vendors whose disk comes with the type ignore it.
        name: name of the server in the cloud, and the beginning of the names of all that belongs to it alone.
        ssh_public_key: the sweep's key, which may log in.
        host_key: what the instance shall call itself by.
        ingress: CIDR from which SSH is let in, e.g. ``203.0.113.7/32``.
        expires_at: when it must be gone, seconds since 1970.
        labels: on everything that can be labelled; see :func:`labels_of`.
        spot: whether it is rented on the spot market.
        memory_gib: RAM of the type, GiB; 0 when unknown.
        settings: what one vendor alone needs, e.g. the lab's recording.
    """

    vendor: str
    server_type: str
    region: str
    zone: str
    architecture: str
    name: str
    ssh_public_key: str
    host_key: HostKey
    ingress: str
    expires_at: int
    labels: Mapping[str, str]
    gpus: int = 0
    image: str = "ubuntu-24.04"
    disk_gb: int = 75
    spot: bool = False
    memory_gib: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def lifetime_seconds(self, now: float) -> int:
        """How long it may live from ``now`` (seconds since 1970), at least 60."""
        return max(60, int(self.expires_at - now))


@dataclass(frozen=True)
class SharedSpec:
    """What the jobs of one sweep at one vendor (and in one region, where the vendor wants it) share.

    Attributes:
        vendor: the vendor as the command line calls it.
        scope: the region, or empty where it is good for all of them.
        name: the beginning of the names of all of it.
        ssh_public_key: the sweep's key.
        ingress: CIDR from which SSH is let in.
        expires_at: when it must be gone, seconds since 1970.
        labels: on everything that can be labelled.
    """

    vendor: str
    scope: str
    name: str
    ssh_public_key: str
    ingress: str
    expires_at: int
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Asked:
    """One resource that a program makes, known before the engine runs.

    Attributes:
        kind: in the words of all vendors: ``server``, ``disk``, ``address``, ``key``, ``firewall``, ``network``,
            ``subnet``, ``interface``, ``group`` (Azure's resource group).
        name: its name in the cloud; unique among all of ours.
    """

    kind: str
    name: str


@dataclass(frozen=True)
class Instance:
    """One server that was got.

    Attributes:
        address: where SSH reaches it.
        user: who logs in.
        host_key: its public host key, ``ssh-ed25519 AAAA...``.
        ids: the cloud's identifiers by our name of the resource.
        port: of SSH.
    """

    address: str
    user: str
    host_key: str
    ids: Mapping[str, str]
    port: int = 22


@dataclass(frozen=True)
class Resource:
    """One thing that a vendor's API lists as ours.

    Attributes:
        vendor: the vendor as the command line calls it.
        kind: as in :class:`Asked`.
        id: what the vendor's API deletes it by.
        name: its name in the cloud.
        region: where it is; empty where it is nowhere in particular.
        zone: where it is.
        sweep: value of its label; empty without one.
        job: value of its label; empty without one.
        expires_at: value of its label, seconds since 1970; nothing without one.
        address: where SSH reaches it, of servers.
        state: the vendor's word for it, e.g. ``running``.
        created_at: seconds since 1970; nothing where the API does not say.
        attached: whether something else of ours holds it and goes first (a disk in a server).
    """

    vendor: str
    kind: str
    id: str
    name: str
    region: str = ""
    zone: str = ""
    sweep: str = ""
    job: str = ""
    expires_at: int | None = None
    address: str = ""
    state: str = ""
    created_at: float | None = None
    attached: bool = False


def labels_of(sweep: str, job: str, expires_at: int) -> dict[str, str]:
    """The labels of everything that belongs to a job (or, with :data:`SHARED_JOB`, to its sweep)."""
    return {LABEL_SWEEP: label_value(sweep), LABEL_JOB: label_value(job), LABEL_EXPIRES: str(expires_at)}


def label_value(text: str) -> str:
    """``text`` in what every vendor takes as a label's value: ``[a-z0-9_-]``, 63 at most, alphanumeric ends.

    Names of sweeps and jobs are made so already, and come out as they are.
    """
    plain = re.sub(r"[^a-z0-9_-]+", "-", text.lower())[:63].strip("-_")
    return plain or "x"


def resource_name(sweep: str, job: str, attempt: int = 1) -> str:
    """The name of a job's server in the cloud: what a person can read of the job, and eight letters that tell it apart.

    The same for the same job and attempt, so that it can be looked for after everything else was lost.
    """
    mark = hashlib.sha256(f"{sweep}/{job}/{attempt}".encode()).hexdigest()[:8]
    plain = re.sub(r"[^a-z0-9]+", "-", job.lower()).strip("-")
    return f"{PREFIX}{plain[: NAME_LENGTH - len(PREFIX) - 18].strip('-')}-{mark}"


def shared_name(sweep: str, vendor: str, scope: str) -> str:
    """The name of what the jobs of a sweep share at one vendor and in one region."""
    return resource_name(sweep, f"{SHARED_JOB}-{vendor}-{scope}" if scope else f"{SHARED_JOB}-{vendor}")


def expiry_of(value: str | None) -> int | None:
    """Read :data:`LABEL_EXPIRES`; nothing for what is no number."""
    return int(value) if value and value.isdigit() and len(value) < 13 else None


def is_ours(name: str, labels: Mapping[str, str] | None = None) -> bool:
    """Whether a resource is ours, by its labels or, where there can be none, by its name."""
    return bool(labels and LABEL_SWEEP in labels) or name.startswith(PREFIX)
