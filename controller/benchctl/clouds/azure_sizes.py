"""What a VM size of Azure asks of its boot disk and image, read from its name. Pure.

A name is ``Standard_`` family, cores, features, accelerator and version: ``Standard_NC24ads_A100_v4``. Features that
matter here: ``p`` ARM, ``s`` premium storage. Sources: Azure's naming convention
(https://learn.microsoft.com/azure/virtual-machines/vm-naming-conventions), its table of generations
(https://learn.microsoft.com/azure/virtual-machines/generation-2), and PerfKitBenchmarker's list of sizes that boot
images of generation 1 alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchctl.clouds.spec import ARM64
from benchctl.errors import BenchctlError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"(?:Standard|Basic)_([A-Z]+)\d+(?:-\d+)?([a-z]*)((?:_[A-Za-z0-9]+)*)")
_VERSION = re.compile(r"_v(\d+)$")

STANDARD_SSD = "StandardSSD_LRS"
PREMIUM_SSD = "Premium_LRS"

CONFIDENTIAL = "confidential"


@dataclass(frozen=True)
class Size:
    """The parts of a size's name.

    Attributes:
        family: capital letters: ``D``, ``NC``.
        features: small letters after the number of cores: ``ads``.
        extra: what stands before the version: ``_A100``, ``_cc``.
        version: 1 where none is said.
    """

    family: str
    features: str
    extra: str
    version: int


@dataclass(frozen=True)
class Image:
    """An image of Azure's marketplace; the newest version of it."""

    publisher: str
    offer: str
    sku: str


_IMAGES: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "ubuntu-24.04": (
        "Canonical",
        "ubuntu-24_04-lts",
        {"1": "server-gen1", "2": "server", ARM64: "server-arm64", CONFIDENTIAL: "cvm"},
    ),
    "debian-12": ("Debian", "debian-12", {"1": "12", "2": "12-gen2", ARM64: "12-arm64"}),
}
"""Publisher, offer, and SKU by what boots it."""


def parse(server_type: str) -> Size:
    """The parts of a size's name; a name that is none has no family and no features."""
    found = _NAME.fullmatch(server_type)
    if not found:
        return Size("", "", "", 1)
    version = _VERSION.search(found[3])
    return Size(found[1], found[2], _VERSION.sub("", found[3]), int(version[1]) if version else 1)


def generation(server_type: str) -> int:
    """Which generation of Hyper-V boots the image: 1 where 2 is refused, else 2, which all newer sizes want.

    A wrong generation is "cannot boot Hypervisor Generation". Of the old sizes some boot either; they get 1, too,
    where the table of generations is silent, for none of them wants 2.
    """
    size = parse(server_type)
    premium = "s" in size.features
    old = size.version == 1
    if size.family in ("A", "G", "GS", "H", "NP", "PB"):
        return 1
    if size.family in ("D", "E") and size.version <= 3 and not premium:
        return 1
    if size.family in ("F", "L", "ND") and old:
        return 1
    if size.family in ("NC", "NV") and (old or (size.family == "NV" and size.version <= 2)):
        return 1
    return 2


def premium_storage(server_type: str) -> bool:
    """Whether it takes premium SSDs: ``s`` among the features, or the old families that have it in their name."""
    size = parse(server_type)
    return "s" in size.features or size.family in ("DS", "GS")


def disk_type(server_type: str) -> str:
    """The type of the boot disk; every size takes a standard SSD, a faster one only some."""
    return PREMIUM_SSD if premium_storage(server_type) else STANDARD_SSD


def confidential(server_type: str) -> bool:
    """Whether it runs confidential VMs alone, which want a security type and an image made for them.

    DC and EC since version 5 (AMD SEV-SNP, Intel TDX), but not their parents of child VMs (``_cc``), nor the older DC
    with SGX, and NCC. Refused without: "not supported for creation of VMs and Virtual Machine Scale Set with '<NULL>'
    security type".
    """
    size = parse(server_type)
    return size.family == "NCC" or (size.family in ("DC", "EC") and size.version >= 5 and "_cc" not in size.extra)


def image(name: str, server_type: str, architecture: str) -> Image:
    """The marketplace's image of ``name`` that this size boots.

    Raises:
        BenchctlError: there is none.
    """
    if name not in _IMAGES:
        raise BenchctlError(f"'{name}' is no image that is known on Azure.", f"Images: {', '.join(_IMAGES)}.")
    publisher, offer, skus = _IMAGES[name]
    boots = ARM64 if architecture == ARM64 else str(generation(server_type))
    if confidential(server_type):
        boots = CONFIDENTIAL
    if boots not in skus:
        raise BenchctlError(
            f"{server_type} boots confidential images alone, and Azure has none of {name}.", "Use ubuntu-24.04."
        )
    return Image(publisher, offer, skus[boots])
