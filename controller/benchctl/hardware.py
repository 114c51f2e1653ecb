"""Which server types are the same hardware: what their differences in speed tell of the variance between instances.

Clouds sell one machine under many names: with more disk, a faster network or more memory (m5, m5d, m5n, m5dn), or a GPU
with hosts of several sizes. What differs between them in the speed of a model is, for the most part, what differs
between two instances. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

OWN = ("local", "ssh")
"""Vendors whose servers are single machines: nothing else is the same hardware."""

_SERIES = {
    "aws": r"([a-z]+\d+)[a-z]*(-flex)?",  # m5dn.2xlarge: m5
    "azure": r"Standard_([A-Z]+)\d+(?:-\d+)?[a-z]*((?:_[A-Za-z0-9]+)*)",  # Standard_D8ds_v5: D, _v5
    "gcp": r"([a-z]\d+[a-z]*)-",  # n2d-highmem-8: n2d
    "upcloud": r"([A-Z]*)-?\d+xCPU",  # HIMEM-8xCPU-192GB: HIMEM
    "hcloud": r"([a-z]+)\d+",  # cpx31: cpx
}
"""How the vendor's names for server types say series and generation. What is left out (disk, network, memory and, for
Azure, the maker of the CPU, which the catalogue has) does not make other hardware."""


@dataclass(frozen=True)
class Facts:
    """What the catalogue says of a server type.

    Attributes:
        vendor: the vendor.
        name: the vendor's own name for the type.
        hypervisor: what it runs on; nothing for bare metal or where it is unknown.
        cpu_manufacturer: e.g. ``AMD``.
        cpu_model: e.g. ``7R13``; nothing where the catalogue does not know it.
        vcpus: logical CPUs.
        cpu_cores: physical cores.
        cpu_allocation: ``SHARED``, ``BURSTABLE`` or ``DEDICATED``.
        gpu_model: e.g. ``L40S``.
        gpu_count: number of GPUs.
        gpu_memory_mib: memory of the smallest of them.
    """

    vendor: str
    name: str
    hypervisor: str | None
    cpu_manufacturer: str | None
    cpu_model: str | None
    vcpus: int
    cpu_cores: int | None
    cpu_allocation: str
    gpu_model: str | None
    gpu_count: int
    gpu_memory_mib: int | None = None


@dataclass(frozen=True)
class Family:
    """Servers with the same hardware.

    Attributes:
        label: what a reader knows it by, e.g. ``aws 1x L40S 45 GiB``.
        key: what makes it one family, whole.
    """

    label: str
    key: tuple[object, ...]


def series_of(vendor: str, name: str) -> str | None:
    """Series and generation in the vendor's name of a server type: ``m5`` of ``m5dn.large``; nothing if unknown."""
    pattern = _SERIES.get(vendor)
    match = re.match(pattern, name) if pattern else None
    return None if match is None else "".join(part or "" for part in match.groups())


def family_of(facts: Facts, on_gpu: bool) -> Family | None:
    """The family whose members do this work on the same hardware; nothing where it can't be told.

    On a GPU: the same vendor, GPU, memory of it and number of GPUs, whatever the host. On the CPU: the same vendor,
    series and generation, CPU model, vCPUs, cores, kind of CPU allocation and hypervisor.

    Args:
        facts: of the server type.
        on_gpu: whether the work was done on the GPU.
    """
    if facts.vendor in OWN:
        return None
    if on_gpu:
        if not facts.gpu_model or facts.gpu_count < 1:
            return None
        memory = round(facts.gpu_memory_mib / 1024) if facts.gpu_memory_mib else None
        label = f"{facts.vendor} {facts.gpu_count}x {facts.gpu_model}{f' {memory} GiB' if memory else ''}"
        return Family(label, (facts.vendor, facts.gpu_model, memory, facts.gpu_count))
    series = series_of(facts.vendor, facts.name)
    if series is None or not facts.cpu_model or not facts.vcpus:
        return None
    label = " ".join(filter(None, (facts.vendor, series, facts.cpu_model, f"{facts.vcpus} vCPUs")))
    hardware = (facts.hypervisor, facts.cpu_manufacturer, facts.cpu_model, facts.vcpus, facts.cpu_cores)
    return Family(label, (facts.vendor, series, *hardware, facts.cpu_allocation))
