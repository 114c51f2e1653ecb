"""What a container or a slice may use of the machine: CPU quota and memory limit, from control groups v1 and v2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from .tree import whole_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .tree import Tree

_MOUNT = "/sys/fs/cgroup"


@dataclass(frozen=True)
class Limits:
    """The tightest limits on the way from this process's group to the root.

    Attributes:
        cpu_cores: CPU time per time, in cores; ``None`` when there is no quota.
        memory_bytes: memory limit, ``None`` when there is none.
        memory_free_bytes: what the tightest group still has, its file cache counted as free; ``None`` without limit.
    """

    cpu_cores: float | None
    memory_bytes: int | None
    memory_free_bytes: int | None


def limits(tree: Tree) -> Limits:
    """Read the limits of the group that ``/proc/self/cgroup`` names, and of all its ancestors.

    In a container without a cgroup namespace the named path is the host's and does not exist inside; then the levels
    that do exist are read, the mount's root in the end, which is the container's own group.
    """
    quotas: list[float] = []
    memories: list[tuple[int, int]] = []
    for folder in _folders(tree, "cpu"):
        quota = _quota(tree, folder)
        if quota is not None:
            quotas.append(quota)
    for folder in _folders(tree, "memory"):
        memory = _memory(tree, folder)
        if memory is not None:
            memories.append(memory)
    return Limits(
        cpu_cores=min(quotas, default=None),
        memory_bytes=min((limit for limit, _ in memories), default=None),
        memory_free_bytes=min((free for _, free in memories), default=None),
    )


def _folders(tree: Tree, controller: str) -> Iterator[str]:
    """The folders of this process's group and its ancestors that may hold the files of a controller."""
    seen: set[str] = set()
    for line in (tree.text("/proc/self/cgroup") or "0::/").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            mounts = [_MOUNT, f"{_MOUNT}/unified"]
        elif controller in names.split(","):
            mounts = [f"{_MOUNT}/{names}", f"{_MOUNT}/{controller}"]
        else:
            continue
        clean = PurePosixPath("/" + path.strip("/"))
        for mount in mounts:
            for level in (clean, *clean.parents):
                folder = mount + str(level).rstrip("/")
                if folder not in seen:
                    seen.add(folder)
                    yield folder


def _quota(tree: Tree, folder: str) -> float | None:
    """Cores that a group may use: ``cpu.max`` is ``QUOTA PERIOD`` in microseconds (v2), v1 has a file for each."""
    words = (tree.text(f"{folder}/cpu.max") or "").split()
    if len(words) == 2:
        quota, period = whole_number(words[0]), whole_number(words[1])
    else:
        quota, period = tree.number(f"{folder}/cpu.cfs_quota_us"), tree.number(f"{folder}/cpu.cfs_period_us")
    if quota is None or not period or quota <= 0:
        return None
    return quota / period


def _memory(tree: Tree, folder: str) -> tuple[int, int] | None:
    """Limit and what is left of it, in bytes; v1 says "no limit" with a number near 2^63."""
    for limit_file, usage_file, key in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit = tree.number(f"{folder}/{limit_file}")
        if limit is None or limit >= 1 << 60:
            continue
        used = tree.number(f"{folder}/{usage_file}") or 0
        for line in (tree.text(f"{folder}/memory.stat") or "").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                used -= whole_number(value) or 0
        return limit, max(limit - max(used, 0), 0)
    return None
