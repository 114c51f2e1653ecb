"""What the machine under test is: CPU, cores, memory, NUMA, GPUs, limits and virtualisation, as plain facts.

No host name, address or serial number is among them: results are published. All files are read under one root, so that
a recorded tree stands for a machine.

Threads and pinning. llama-bench gets one thread per physical core that the process may use (two threads on one core
share its arithmetic units, which is what the time goes into), fewer where a CPU quota allows fewer. Threads are pinned
(``-C MASK --cpu-strict 1``), one to the first hardware thread of each core, where hyper-threading is on and no quota
applies, because only there could the scheduler put two of them on one core. The mask is recorded with the session.
"""

from __future__ import annotations

import platform
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from . import cgroup, cpu, gpu, programs, virtualisation
from .gpu import GPU
from .tree import Tree, colon_fields, cpu_list, kibibytes, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_THREADS = 512
"""GGML_MAX_N_THREADS of llama.cpp (ggml/include/ggml.h): more threads, or CPUs beyond this, it does not take."""


@dataclass(frozen=True)
class NumaNode:
    """One memory node: its number, its logical CPUs in the kernel's list format, and its memory."""

    node: int
    cpus: str
    memory_bytes: int


@dataclass(frozen=True)
class Disk:
    """Room on the file system that holds ``path``, or will when it is made."""

    path: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class HostFacts:
    """The machine, at the moment it was looked at. Empty text and ``None`` mean that it could not be read.

    Attributes:
        cpu_model: e.g. ``Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz``, ``AWS Graviton3 (Neoverse-V1)``.
        architecture: ``x86_64``, ``aarch64``, ...
        logical_cpus: hardware threads that this process may use.
        physical_cores: cores that these belong to.
        cores: the logical CPUs by core.
        smt: whether two usable hardware threads share a core.
        cpu_quota: control group's limit in cores.
        numa_nodes: the memory nodes.
        memory_bytes: the machine's memory or the control group's limit, whichever is less.
        memory_available_bytes: what of it can be had now without swapping.
        swap_bytes: size of the swap space.
        governor: frequency governor(s) of the usable CPUs.
        clock_mhz: clock of the first usable CPU now.
        clock_max_mhz: its highest clock, as cpufreq tells it.
        turbo: ``on``, ``off`` or empty.
        hypervisor: ``kvm``, ``xen``, ``hyperv``, ...; ``unknown`` when there is one that does not say; empty for none.
        machine: DMI vendor and product, e.g. ``Amazon EC2 m5.large``.
        container: ``docker``, ``podman``, ``lxc``, ... or empty.
        kernel: release of the kernel.
        os: the distribution's name and version.
        python: version of the Python that looked.
        gpus: the GPUs.
        transparent_hugepages: the setting in force, e.g. ``madvise``.
        load1: load average over one minute.
        disks: room where it was asked for.
    """

    cpu_model: str
    architecture: str
    logical_cpus: int
    physical_cores: int
    cores: tuple[tuple[int, ...], ...]
    smt: bool
    cpu_quota: float | None
    numa_nodes: tuple[NumaNode, ...]
    memory_bytes: int
    memory_available_bytes: int
    swap_bytes: int
    governor: str
    clock_mhz: float | None
    clock_max_mhz: float | None
    turbo: str
    hypervisor: str
    machine: str
    container: str
    kernel: str
    os: str
    python: str
    gpus: tuple[GPU, ...]
    transparent_hugepages: str
    load1: float | None
    disks: tuple[Disk, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HostFacts:
        """The facts that :meth:`to_dict` gave; keys of a newer version are left out."""
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        values["cores"] = tuple(tuple(core) for core in data["cores"])
        values["numa_nodes"] = tuple(NumaNode(**node) for node in data["numa_nodes"])
        values["gpus"] = tuple(GPU(**one) for one in data["gpus"])
        values["disks"] = tuple(Disk(**disk) for disk in data["disks"])
        return cls(**values)


def gather(
    root: str = "/",
    run: programs.Run = programs.run,
    paths: Iterable[str] = (),
    architecture: str | None = None,
    disk_usage: Callable[[str], tuple[int, int, int]] = shutil.disk_usage,
) -> HostFacts:
    """Look at the machine.

    Args:
        root: folder that holds ``proc``, ``sys`` and ``etc``.
        run: runs ``nvidia-smi``.
        paths: folders whose file systems' room is wanted; they need not exist yet.
        architecture: what ``uname -m`` says; asked of this machine when not given.
        disk_usage: total, used and free bytes of the file system that holds a path.
    """
    tree = Tree(root)
    blocks = cpu.processors(tree.text("/proc/cpuinfo", 1 << 24))
    vendor = tree.text("/sys/class/dmi/id/sys_vendor") or ""
    product = tree.text("/sys/class/dmi/id/product_name") or ""
    cpus = cpu.usable_cpus(tree, blocks)
    cores = cpu.cores(tree, blocks, cpus)
    limits = cgroup.limits(tree)
    memory = colon_fields(tree.text("/proc/meminfo"))
    total = kibibytes(memory.get("MemTotal")) or 0
    available = kibibytes(memory.get("MemAvailable")) or kibibytes(memory.get("MemFree")) or 0
    total = min(total, limits.memory_bytes or total)
    if limits.memory_free_bytes is not None:
        available = min(available, limits.memory_free_bytes)
    return HostFacts(
        cpu_model=cpu.model_name(blocks, vendor),
        architecture=architecture or platform.machine(),
        logical_cpus=len(cpus),
        physical_cores=len(cores),
        cores=cores,
        smt=len(cores) < len(cpus),
        cpu_quota=limits.cpu_cores,
        numa_nodes=_numa_nodes(tree),
        memory_bytes=total,
        memory_available_bytes=available,
        swap_bytes=kibibytes(memory.get("SwapTotal")) or 0,
        governor=governor(tree, cpus),
        clock_mhz=_clock(tree, blocks, cpus),
        clock_max_mhz=_mhz(tree.number(f"/sys/devices/system/cpu/cpu{cpus[0]}/cpufreq/cpuinfo_max_freq")),
        turbo=_turbo(tree),
        hypervisor=virtualisation.hypervisor(tree, blocks, vendor, product),
        machine=" ".join(f"{vendor} {product}".split()),
        container=virtualisation.container(tree),
        kernel=tree.text("/proc/sys/kernel/osrelease") or "",
        os=_os_name(tree),
        python=platform.python_version(),
        gpus=gpu.query(run, total, available),
        transparent_hugepages=_bracketed(tree.text("/sys/kernel/mm/transparent_hugepage/enabled")),
        load1=load_average(tree),
        disks=tuple(_disk(path, disk_usage) for path in paths),
    )


def recommended_threads(facts: HostFacts) -> int:
    """Threads for llama-bench: physical cores, whole cores of the quota at most, never less than one."""
    threads = facts.physical_cores
    if facts.cpu_quota is not None:
        threads = min(threads, int(facts.cpu_quota))
    return max(1, min(threads, MAX_THREADS))


def affinity_mask(facts: HostFacts, threads: int | None = None) -> str:
    """The hex mask for ``llama-bench -C`` (with ``--cpu-strict 1``), or empty when nothing is to be pinned.

    It names the first hardware thread of each core. Nothing is pinned without hyper-threading (then there is one place
    per thread anyway), under a quota (the kernel throttles, and which cores are free is not ours to say), when another
    number of threads was asked for, or where a CPU's number is beyond what llama.cpp's mask can hold.
    """
    wanted = recommended_threads(facts) if threads is None else threads
    firsts = [core[0] for core in facts.cores]
    if not facts.smt or wanted != len(firsts) or max(firsts) >= MAX_THREADS:
        return ""
    return hex(sum(1 << first for first in firsts))


def governor(tree: Tree, cpus: Iterable[int]) -> str:
    """The frequency governors of some CPUs, comma-joined when they differ; empty where cpufreq is hidden."""
    names = {tree.text(f"/sys/devices/system/cpu/cpu{one}/cpufreq/scaling_governor") for one in cpus}
    return ",".join(sorted(name for name in names if name))


def load_average(tree: Tree) -> float | None:
    """The load average over one minute."""
    try:
        return float((tree.text("/proc/loadavg") or "").split()[0])
    except (IndexError, ValueError):
        return None


def _numa_nodes(tree: Tree) -> tuple[NumaNode, ...]:
    nodes = []
    for name in tree.names("/sys/devices/system/node"):
        number = whole_number(name[4:]) if name.startswith("node") else None
        if number is None:
            continue
        folder = f"/sys/devices/system/node/{name}"
        total = 0
        for line in (tree.text(f"{folder}/meminfo") or "").splitlines():
            words = line.split()
            if "MemTotal:" in words[:-1]:
                total = (whole_number(words[words.index("MemTotal:") + 1]) or 0) * 1024
        cpus = tree.text(f"{folder}/cpulist") or ""
        if cpu_list(cpus) or total:
            nodes.append(NumaNode(number, cpus, total))
    return tuple(sorted(nodes, key=lambda node: node.node))


def _clock(tree: Tree, blocks: list[dict[str, str]], cpus: tuple[int, ...]) -> float | None:
    current = _mhz(tree.number(f"/sys/devices/system/cpu/cpu{cpus[0]}/cpufreq/scaling_cur_freq"))
    if current is not None:
        return current
    try:
        return float(blocks[0]["cpu MHz"])
    except (IndexError, KeyError, ValueError):
        return None


def _mhz(kilohertz: int | None) -> float | None:
    return None if kilohertz is None else kilohertz / 1000


def _turbo(tree: Tree) -> str:
    no_turbo = tree.number("/sys/devices/system/cpu/intel_pstate/no_turbo")
    boost = tree.number("/sys/devices/system/cpu/cpufreq/boost")
    if no_turbo is not None:
        return "off" if no_turbo else "on"
    if boost is not None:
        return "on" if boost else "off"
    return ""


def _os_name(tree: Tree) -> str:
    for line in (tree.text("/etc/os-release") or tree.text("/usr/lib/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip().strip('"')
    return ""


def _bracketed(text: str | None) -> str:
    """The word in brackets, which is how sysfs marks the choice in force."""
    return (text or "").partition("[")[2].partition("]")[0]


def _disk(path: str, disk_usage: Callable[[str], tuple[int, int, int]]) -> Disk:
    place = Path(path).expanduser().absolute()
    for folder in (place, *place.parents):
        try:
            total, _, free = disk_usage(str(folder))
        except OSError:
            continue
        return Disk(path, total, free)
    return Disk(path, 0, 0)
