"""The lab's server types: sizes of containers, with prices that are made up. Pure.

``lab-b4-16`` is a type of 4 CPUs and 16 GiB; the letter tells apart generations that are alike, so that there are
enough types for a large fleet. What plays a recorded server is called after it: ``lab-`` and its name.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

PREFIX = "lab-"
GENERATIONS = "abc"
VCPUS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128)
GIB_PER_VCPU = (1, 2, 4, 8)
ZONES = ("here-a", "here-b")

USD_PER_VCPU_HOUR = 0.02
USD_PER_GIB_HOUR = 0.0025
"""Made up, in the order of what clouds ask; ``PRICE_SOURCE`` says so beside every price."""

PRICE_SOURCE = "benchctl rehearsal (made up)"

_SIZE = re.compile(rf"{PREFIX}[{GENERATIONS}](\d{{1,4}})-(\d{{1,5}})")


@dataclass(frozen=True)
class Size:
    """How large a server is.

    Attributes:
        vcpus: number of CPUs.
        memory_mib: MiB.
    """

    vcpus: int
    memory_mib: int

    @property
    def usd_per_hour(self) -> float:
        """The made-up price."""
        return round(USD_PER_VCPU_HOUR * self.vcpus + USD_PER_GIB_HOUR * self.memory_mib / 1024, 4)


def size_of(server_type: str) -> Size | None:
    """The size that a type's name tells; nothing for one that plays a recorded server."""
    found = _SIZE.fullmatch(server_type)
    return Size(int(found[1]), int(found[2]) * 1024) if found else None


def plain_types() -> dict[str, Size]:
    """The types that play nothing: 120, by name."""
    return {
        f"{PREFIX}{generation}{vcpus}-{vcpus * per}": Size(vcpus, vcpus * per * 1024)
        for generation, vcpus, per in itertools.product(GENERATIONS, VCPUS, GIB_PER_VCPU)
    }


def type_of(server: str) -> str:
    """The type that plays the recorded server of this name."""
    return PREFIX + server
