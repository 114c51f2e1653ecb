"""Reading /proc, /sys and /etc, of this machine or of a recorded tree, without ever failing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tree:
    """A root folder whose files are read as the kernel's; what is not there or not readable is ``None``.

    Attributes:
        root: ``/`` on a living machine, a folder of recorded files in a test.
    """

    root: str = "/"

    def path(self, name: str) -> Path:
        """Where a file of the tree lies; ``name`` is absolute, as on the machine itself."""
        return Path(self.root) / name.lstrip("/")

    def text(self, name: str, limit: int = 1 << 20) -> str | None:
        """The first ``limit`` bytes of a file, stripped of white space at its ends."""
        try:
            with self.path(name).open("rb") as stream:
                return stream.read(limit).decode("utf-8", "replace").strip("\0 \t\r\n")
        except (OSError, ValueError):
            return None

    def number(self, name: str) -> int | None:
        """The whole number that a file holds."""
        return whole_number(self.text(name))

    def names(self, name: str) -> list[str]:
        """What a folder holds, sorted; nothing when it is no folder."""
        try:
            return sorted(entry.name for entry in self.path(name).iterdir())
        except OSError:
            return []

    def exists(self, name: str) -> bool:
        """Whether a file is there (and its folder may be searched)."""
        try:
            return self.path(name).exists()
        except OSError:
            return False


def whole_number(text: str | None) -> int | None:
    """A decimal number as the kernel prints it, or ``None`` for anything else (``max``, ``[N/A]``, nothing)."""
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def cpu_list(text: str | None) -> tuple[int, ...]:
    """The CPU numbers of the kernel's list format, e.g. ``0-3,8``; empty for none or for nonsense."""
    cpus: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.strip().partition("-")
        low = whole_number(first)
        high = whole_number(last) if last else low
        if low is not None and high is not None:
            cpus.update(range(low, high + 1))
    return tuple(sorted(cpus))


def colon_fields(text: str | None) -> dict[str, str]:
    """``key : value`` lines (/proc/meminfo, /proc/self/status) as a dict; the first of equal keys wins."""
    fields: dict[str, str] = {}
    for line in (text or "").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields


def kibibytes(text: str | None) -> int | None:
    """Bytes of a ``123 kB`` value of /proc/meminfo."""
    number = whole_number((text or "").split(" ")[0])
    return None if number is None else number * 1024
