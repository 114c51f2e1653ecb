"""What goes wrong in an emulated cloud, as a test scripts it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

QUOTA, STOCK, THROTTLED, UNAUTHORIZED, OUTAGE, TIMEOUT = (
    "quota", "stock", "throttled", "unauthorized", "outage", "timeout"
)  # fmt: skip
"""Refusals that every vendor has words for (``Vendor.words``)."""

DENIED = "denied"  # an organisation's policy forbids it, at AWS
SLOW = "slow"  # the call takes `seconds` longer
HOLD = "hold"  # the call waits until the test says `release`, or HOLD_SECONDS at most
AFTER = "after"  # a create that fails after the server was made, and the engine is told of nothing
AFTER_THROTTLED = "after-throttled"  # the same, and what the vendor says is that it was asked too often
AFTER_KEPT = "after-kept"  # the same, and the engine keeps what was made in its state
FAILS = "fails"  # a delete that fails, in the vendor's words for an outage
LIES = "lies"  # a delete that says done and did nothing
UNREACHABLE = "unreachable"  # a zone, or a region's own things, of which Google's lists of all of them say nothing

LATE = (AFTER, AFTER_THROTTLED, AFTER_KEPT)
EFFECTS = (QUOTA, STOCK, THROTTLED, UNAUTHORIZED, OUTAGE, TIMEOUT, DENIED, SLOW, HOLD, *LATE, FAILS, LIES, UNREACHABLE)


HOLD_SECONDS = 300.0
DELAYS = (SLOW, HOLD)


@dataclass
class Fault:
    """One fault; an empty attribute matches everything.

    Attributes:
        effect: one of :data:`EFFECTS`.
        vendor: as the command line calls it.
        call: ``create``, ``read``, ``delete``, ``list``, ``invoke`` or ``login``.
        kind: as in :class:`benchctl.clouds.spec.Asked`.
        place: a zone, or a region and all of its zones.
        name: the beginning of the resource's name.
        via: ``engine`` or ``api``: who calls.
        times: how often it strikes.
        seconds: how long :data:`SLOW` takes.
    """

    effect: str
    vendor: str = ""
    call: str = ""
    kind: str = ""
    place: str = ""
    name: str = ""
    via: str = ""
    times: int = 1
    seconds: float = 0.0

    def matches(self, call: Call) -> bool:
        """Whether it strikes this call."""
        return (
            self.times > 0
            and self.vendor in ("", call.vendor)
            and self.call in ("", call.call)
            and self.kind in ("", call.kind)
            and call.place.startswith(self.place)
            and call.name.startswith(self.name)
            and self.via in ("", call.via)
        )


@dataclass(frozen=True)
class Call:
    """A call, as faults are matched with it and as the journal keeps it."""

    vendor: str
    call: str
    kind: str = ""
    place: str = ""
    name: str = ""
    via: str = "api"


class Faults:
    """The script of a test."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._script: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """One more."""
        if fault.effect not in EFFECTS:
            raise ValueError(f"no such effect: {fault.effect}")
        with self._lock:
            self._script.append(fault)

    def clear(self) -> None:
        """None any more."""
        with self._lock:
            self._script.clear()

    def take(self, call: Call) -> list[Fault]:
        """What strikes this call: all delays, and the first fault of another effect."""
        struck: list[Fault] = []
        with self._lock:
            for fault in self._script:
                if fault.effect == UNREACHABLE:
                    continue
                if fault.matches(call) and (fault.effect in DELAYS or all(one.effect in DELAYS for one in struck)):
                    fault.times -= 1
                    struck.append(fault)
        return struck

    def unreachable(self, call: Call) -> bool:
        """Whether a list says nothing of this place."""
        with self._lock:
            struck = [one for one in self._script if one.effect == UNREACHABLE and one.matches(call)]
            for fault in struck[:1]:
                fault.times -= 1
            return bool(struck)
