"""What a vendor's failure means: why there was no server, where that holds, and what the vendor itself suggests. Pure.

:mod:`benchctl.refusals` tells the kinds apart by the vendors' codes. Here is read what the next try depends on: whether
a quota is that of the region or of the whole account, and of one family of servers or of all; which zones the vendor
says have room; whether another place would be of any use; and where words have two meanings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchctl.refusals import Refusal, classify, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

REGION, ACCOUNT = "region", "account"
"""Where a quota holds."""

GPU_FAMILY = "gpu"
"""The family of all servers with a GPU, of quotas that count GPUs."""


@dataclass(frozen=True)
class Fault:
    """Why there was no server.

    Attributes:
        refusal: the kind; nothing for words that no rule knows.
        said: the vendor's words in one line.
        scope: of a quota: where it holds, ``region`` or ``account``.
        family: of a quota: whether it counts only servers of the same family.
        gpus: of a quota: whether it counts GPUs of all kinds.
        sized: of a quota: whether a smaller server may still fit.
        zones: zones that the vendor says have room, or have the type.
        everywhere: whether it would be the same in every place.
        closed: whether the whole region is closed to the account.
        doubtful: whether the login may be good in spite of these words; see :meth:`asked`.
    """

    refusal: Refusal | None
    said: str
    scope: str = REGION
    family: bool = False
    gpus: bool = False
    sized: bool = False
    zones: tuple[str, ...] = ()
    everywhere: bool = False
    closed: bool = False
    doubtful: bool = False

    def asked(self, login_works: bool) -> Fault:
        """The same after the vendor was asked who we are.

        AWS refuses good keys, too, in a region that the account has not opted into (``AuthFailure`` of EC2,
        ``InvalidClientTokenId`` of the region's STS), and an organisation's policy denies its accounts whole regions:
        it is then the region that is not offered.
        """
        if not self.doubtful:
            return self
        if not login_works:
            return replace(self, closed=False, doubtful=False)
        return replace(self, refusal=Refusal.NOT_OFFERED, doubtful=False)


_EVERYWHERE = re.compile(
    r"disk type cannot be used by|features are not compatible|architecture \(\w+\) is not compatible"
    r"|cannot boot Hypervisor Generation|server type \S+ not found",
    re.IGNORECASE,
)
"""What is wrong with what was asked for, not with where."""

_ZONES = re.compile(r"(?:or choosing|your request\s+in the) ((?:[a-z]+-[a-z0-9-]+(?:, )?)+?)(?:[.\s]|$)")
_BAD_KEYS = re.compile(
    r"\b(?:AuthFailure|InvalidClientTokenId)\b|Invalid credentials configured|(?i:unable to validate aws )"
)
"""What AWS, and its Pulumi provider, say of keys that are bad, or only unknown in that region."""

_DENIED = re.compile(r"with an explicit deny\b")
"""Of an organisation's policy for the most part, which forbids regions, or types of servers."""

_NO_LIMIT_AT_ALL = re.compile(r"limit of 0 allows|Limit: 0(?:\.0)?\b")
_GCP_QUOTA = re.compile(r"Quota '(?P<name>[^']+)' exceeded\.?\s*(?:Limit: (?P<limit>[\d.]+))?(?P<globally> globally)?")
_AZURE_FAMILY = re.compile(r"exceeding approved \w*Family\b", re.IGNORECASE)


def fault_of(vendor: str, message: str, refusal: Refusal | None = None) -> Fault:
    """Read a vendor's words.

    Args:
        vendor: the vendor, as the command line or as the database calls it.
        message: the vendor's (or its Pulumi provider's) words.
        refusal: the kind, where it is known without them.
    """
    kind = refusal or classify(message)
    fault = Fault(kind, shortened(message))
    if kind is Refusal.QUOTA:
        return _quota(vendor, message, fault)
    if kind in (Refusal.STOCK, Refusal.NOT_OFFERED):
        return replace(fault, zones=_zones(message), everywhere=bool(_EVERYWHERE.search(message)))
    if kind in (Refusal.DEPRECATED, Refusal.MEMORY):
        return replace(fault, everywhere=True)
    if kind is Refusal.ACCOUNT:
        return _login(message, fault) if vendor == "aws" else fault
    return fault


def _login(message: str, fault: Fault) -> Fault:
    """AWS's words for a login that may be good elsewhere."""
    unknown, denied = bool(_BAD_KEYS.search(message)), bool(_DENIED.search(message))
    # who may make what a server needs, and not the server, is denied that type
    closed = unknown or (denied and "RunInstances" not in message)
    return replace(fault, doubtful=unknown or denied, closed=closed)


def _quota(vendor: str, message: str, fault: Fault) -> Fault:
    sized = not _NO_LIMIT_AT_ALL.search(message)
    if vendor == "aws":
        # vCPUs per region and group of families ("instance bucket"), and so are those of the spot market
        vcpus = bool(re.search(r"\b(?:VcpuLimitExceeded|MaxSpotInstanceCountExceeded)\b", message))
        return replace(fault, family=vcpus or "InstanceLimitExceeded" in message, sized=sized and vcpus)
    if vendor == "gcp":
        return _gcp_quota(message, fault)
    if vendor == "azure":
        return replace(fault, family=bool(_AZURE_FAMILY.search(message)), sized=sized and "PublicIP" not in message)
    if vendor in ("hetzner", "hcloud", "upcloud"):
        # both count over the whole account; Hetzner counts servers and addresses, and cores of dedicated servers alone
        cores = "core" in message.lower() or "MEMORY_LIMIT" in message
        return replace(fault, scope=ACCOUNT, family="dedicated" in message.lower(), sized=cores)
    return fault


def _gcp_quota(message: str, fault: Fault) -> Fault:
    """GCP's quotas: each has a name, and is of a region or, ``globally``, of all of them."""
    found = _GCP_QUOTA.search(message)
    name = found["name"] if found else ""
    everywhere = bool(found and found["globally"]) or name.endswith("_ALL_REGIONS") or name in ("NETWORKS", "FIREWALLS")
    # of GPUS_ALL_REGIONS alone every GPU counts; the others are of one kind, and GPUs don't go by vCPUs
    all_gpus = bool(re.fullmatch(r"(?:PREEMPTIBLE_)?GPUS_ALL_REGIONS", name))
    one_gpu = "GPUS" in name and not all_gpus
    counts_cpus = "CPUS" in name
    return replace(
        fault,
        scope=ACCOUNT if everywhere else REGION,
        family=one_gpu or (counts_cpus and not everywhere),
        gpus=all_gpus,
        sized=(counts_cpus or all_gpus) and not _NO_LIMIT_AT_ALL.search(message),
    )


def _zones(message: str) -> tuple[str, ...]:
    found = _ZONES.search(" ".join(message.split()))
    return tuple(one.strip() for one in found[1].split(",") if one.strip()) if found else ()


_AWS_BUCKETS: Mapping[str, str] = {"vt": "g", "gr": "g", "g": "g", "p": "p", "f": "f", "x": "x", "u": "u", "dl": "dl",
                                   "inf": "inf", "trn": "trn", "hpc": "hpc"}  # fmt: skip
"""AWS's groups of families that have a quota of their own; all others share one."""


def family_of(vendor: str, server_type: str) -> str:
    """What a vendor's quotas per family count together with ``server_type``; a made-up name, the same for all of them.

    AWS: the group of families; GCP and Hetzner: what the name begins with; Azure: the size without its number.
    """
    if vendor == "aws":
        letters = re.match(r"[a-z]+", server_type)
        return _AWS_BUCKETS.get(letters[0] if letters else "", "standard")
    if vendor == "azure":
        return re.sub(r"^(?:Standard_|Basic_)?([A-Za-z]+)\d+(?:-\d+)?", r"\1", server_type)
    if vendor in ("hetzner", "hcloud"):
        letters = re.match(r"[a-z]+", server_type)
        return letters[0] if letters else server_type
    return server_type.split("-")[0]
