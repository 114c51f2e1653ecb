"""Read what llama-bench says of itself: ``--help``, ``--version``, ``--list-devices``.

``tests/cases/help`` holds the texts of several versions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """A device that ``--list-devices`` shows.

    Attributes:
        name: what ``-dev`` takes, e.g. ``CUDA0``.
        description: e.g. ``NVIDIA L40S``.
        total_mib: its memory.
        free_mib: its memory that was free.
    """

    name: str
    description: str
    total_mib: int
    free_mib: int


_FLAG = r"-{1,2}[A-Za-z][\w-]*"
_FLAGS_LINE = re.compile(
    rf"^\s+(?P<flags>{_FLAG}(?: <\w+>)?(?:,? {_FLAG}(?: <\w+>)?)*)(?: <(?P<hint>[^>]*)>)?(?P<rest>.*)$"
)


def parse_help(text: str) -> tuple[frozenset[str], dict[str, str], dict[str, str]]:
    """Read a help text: all spellings of all flags; by flag what its value may be; by flag its default."""
    flags: set[str] = set()
    hints: dict[str, str] = {}
    defaults: dict[str, str] = {}
    for line in text.splitlines():
        found = _FLAGS_LINE.match(line)
        if found is None:
            continue
        names = re.findall(rf"(?<![\w-]){_FLAG}", re.sub(r"<[^>]*>", "", found["flags"]))
        default = re.search(r"\(default: ([^)]*)\)", found["rest"])
        flags.update(names)
        for name in names:
            if found["hint"]:
                hints[name] = found["hint"]
            if default:
                defaults[name] = default[1].strip()
    return frozenset(flags), hints, defaults


def parse_version(text: str) -> tuple[str, int, str]:
    """Version, build number and commit, from ``0.5.0-dev (build 1, commit 0c1e570)`` or the older ``42 (0c1e570)``."""
    found = re.search(r"^version: (\S+) \(build (\d+), commit (\w+)\)", text, re.MULTILINE)
    if found:
        return found[1], int(found[2]), found[3]
    found = re.search(r"^version: (\d+) \((\w+)\)", text, re.MULTILINE)
    if found:
        return found[1], int(found[1]), found[2]
    return "", 0, ""


def parse_pace(text: str) -> float:
    """How fast a recording is played, from ``replayed: aws/m7i.large, 60 seconds in one``; 0 for what is real."""
    found = re.search(r"^replayed: .*, ([\d.e+]+) seconds in one$", text, re.MULTILINE)
    try:
        return float(found[1]) if found else 0.0
    except ValueError:
        return 0.0


def parse_devices(text: str) -> tuple[Device, ...]:
    """The devices from ``--list-devices``: lines like ``CUDA0: NVIDIA L40S (45472 MiB, 44887 MiB free)``."""
    lines = re.findall(r"^\s+(\S+): (.+) \((\d+) MiB, (\d+) MiB free\)\s*$", text, re.MULTILINE)
    return tuple(Device(name, description, int(total), int(free)) for name, description, total, free in lines)
