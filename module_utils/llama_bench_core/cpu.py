"""Which CPU this is, and which hardware threads share a core, from /proc/cpuinfo and /sys/devices/system/cpu."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .tree import cpu_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .tree import Tree

# Implementer and part of the MIDR register, as /proc/cpuinfo prints them. Names and numbers: Linux
# arch/arm64/include/asm/cputype.h and util-linux sys-utils/lscpu-arm.c. The server cores that clouds rent.
ARM_CORES: Mapping[tuple[int, int], str] = {
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD83): "Neoverse-V3AE",
    (0x41, 0xD84): "Neoverse-V3",
    (0x41, 0xD8E): "Neoverse-N3",
    (0x43, 0x0AF): "ThunderX2",
    (0x46, 0x001): "A64FX",
    (0x48, 0xD01): "Kunpeng-920",
    (0x6D, 0xD49): "Azure Cobalt 100",
    (0xC0, 0xAC3): "AmpereOne",
    (0xC0, 0xAC4): "AmpereOne A",
    (0xC0, 0xAC5): "AmpereOne B",
}
"""(implementer, part) of a core to its name."""

# The same licensed core is in chips of several makers; who rents it out says which one it is.
# Sources: the vendors' pages on EC2 A1/M6g/M7g/M8g, Google T2A/C4A/N4A, Azure Dpsv5, Hetzner CAX.
_CHIPS: Mapping[tuple[str, str], str] = {
    ("amazon", "Cortex-A72"): "AWS Graviton",
    ("amazon", "Neoverse-N1"): "AWS Graviton2",
    ("amazon", "Neoverse-V1"): "AWS Graviton3",
    ("amazon", "Neoverse-V2"): "AWS Graviton4",
    ("google", "Neoverse-N1"): "Ampere Altra",
    ("google", "Neoverse-V2"): "Google Axion",
    ("google", "Neoverse-N3"): "Google Axion",
    ("microsoft", "Neoverse-N1"): "Ampere Altra",
    ("hetzner", "Neoverse-N1"): "Ampere Altra",
}


def processors(cpuinfo: str | None) -> list[dict[str, str]]:
    """The blocks of /proc/cpuinfo, one dict per logical CPU."""
    blocks: list[dict[str, str]] = []
    for line in (cpuinfo or "").splitlines():
        key, colon, value = line.partition(":")
        key = key.strip()
        if not colon:
            continue
        if key == "processor":
            blocks.append({})
        if blocks:
            blocks[-1].setdefault(key, value.strip())
    return blocks


def model_name(blocks: list[dict[str, str]], vendor: str) -> str:
    """The CPU's name for a person.

    x86 says it itself. On ARM /proc/cpuinfo has only numbers; they become the core's name, with the chip's where the
    machine's vendor tells it: ``AWS Graviton3 (Neoverse-V1)``.

    Args:
        blocks: what :func:`processors` found.
        vendor: the DMI sys_vendor, e.g. ``Amazon EC2``; may be empty.
    """
    first = blocks[0] if blocks else {}
    named = first.get("model name") or first.get("cpu model") or first.get("cpu")
    if named and not named.isdigit():
        return " ".join(named.split())
    try:
        implementer, part = int(first["CPU implementer"], 16), int(first["CPU part"], 16)
    except (KeyError, ValueError):
        return ""
    core = ARM_CORES.get((implementer, part))
    if core is None:
        return f"ARM implementer 0x{implementer:02x} part 0x{part:03x}"
    for (owner, of_core), chip in _CHIPS.items():
        if of_core == core and vendor.lower().startswith(owner):
            return f"{chip} ({core})"
    return core


def usable_cpus(tree: Tree, blocks: list[dict[str, str]]) -> tuple[int, ...]:
    """The logical CPUs that this process may run on: its affinity, within what is online.

    ``Cpus_allowed_list`` already holds the cpuset of a container. It may also name CPUs that could be plugged in but
    are not there, hence the cut with the online ones.
    """
    listed = tuple(number for number in (_int(block.get("processor")) for block in blocks) if number is not None)
    online = cpu_list(tree.text("/sys/devices/system/cpu/online")) or listed
    status = tree.text("/proc/self/status") or ""
    allowed: tuple[int, ...] = ()
    for line in status.splitlines():
        if line.startswith("Cpus_allowed_list:"):
            allowed = cpu_list(line.partition(":")[2])
    return tuple(sorted(set(allowed) & set(online))) or online or allowed or (0,)


def cores(tree: Tree, blocks: list[dict[str, str]], cpus: Iterable[int]) -> tuple[tuple[int, ...], ...]:
    """The usable logical CPUs grouped by physical core, lowest number first.

    Which threads share a core is told by sysfs (``core_cpus_list``, before Linux 5.3 ``thread_siblings_list``), else by
    package and core number there, else by ``physical id`` and ``core id`` of /proc/cpuinfo (containers that hide
    sysfs), else by nothing: then every logical CPU counts as a core.
    """
    by_number = {block.get("processor"): block for block in blocks}
    groups: dict[tuple[object, ...], list[int]] = {}
    for cpu in sorted(cpus):
        groups.setdefault(_core_key(tree, by_number.get(str(cpu), {}), cpu), []).append(cpu)
    return tuple(sorted(tuple(group) for group in groups.values()))


def _core_key(tree: Tree, block: Mapping[str, str], cpu: int) -> tuple[object, ...]:
    place = f"/sys/devices/system/cpu/cpu{cpu}/topology"
    for name in ("core_cpus_list", "thread_siblings_list"):
        siblings = cpu_list(tree.text(f"{place}/{name}"))
        if cpu in siblings:
            return ("siblings", *siblings)
    package, core = tree.number(f"{place}/physical_package_id"), tree.number(f"{place}/core_id")
    if package is not None and core is not None and core >= 0:
        return ("topology", package, core)
    if "core id" in block:
        return ("cpuinfo", block.get("physical id", "0"), block["core id"])
    return ("cpu", cpu)


def flags(blocks: list[dict[str, str]]) -> frozenset[str]:
    """The feature flags of the first CPU (``flags`` on x86, ``Features`` on ARM)."""
    first = blocks[0] if blocks else {}
    return frozenset((first.get("flags") or first.get("Features") or "").split())


def _int(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
