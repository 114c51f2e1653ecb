"""What to try next after a vendor said no: another zone, another region, later, or nothing more. Pure but for a lock.

=============  ======================================================================================================
refusal        what follows
=============  ======================================================================================================
stock          the next zone of the region (first those that the vendor names), then the next region
quota          the next region; remembered for the whole sweep; a quota of the account ends it at once; where servers of
               the sweep itself use it up, what is left is tried again when they are gone
not offered    the next zone, then the next region; nothing where it would be the same everywhere; the next region at
               once where this one is closed to the account, which is remembered for the whole sweep
throttled      the same place, later
outage         the same place, later; then the next region
account        stop the vendor
time-out       once more in another place
interrupted    another zone, twice at most
words unknown  once more in another region
=============  ======================================================================================================

Every answer but giving up and waiting for the sweep's own servers adds a try to the job, and no job has more than
:data:`MOST_TRIES`: it always ends, as those servers do.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchctl.clouds.faults import ACCOUNT, GPU_FAMILY, Fault, family_of
from benchctl.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from benchctl.ledger import JobState

    Place = Mapping[str, Any]

MOST_TRIES = 24
"""The most tries of one job: each is a call that takes seconds to minutes, and may cost a server's first minute."""

MOST_WAITS = 6
"""Tries in a row in one place that a vendor throttles, or does not answer."""

MOST_OUTAGES = 4
"""Tries in a row in one place while the vendor's API is down, before another region."""

MOST_TIMEOUTS = 2
MOST_UNKNOWN = 2
MOST_INTERRUPTIONS = 3

FIRST_WAIT, LONGEST_WAIT = 15.0, 300.0
"""Backing off, seconds: up to 15, 30, 60, ... 300, at random between nothing and that ("full jitter")."""

EVERYWHERE = "*"

_PASSING = (str(Refusal.THROTTLED), str(Refusal.OUTAGE))
"""Refusals that say nothing of a place."""


@dataclass(frozen=True)
class TryAt:
    """Try there now.

    Attributes:
        place: one of the job's places.
    """

    place: Place


@dataclass(frozen=True)
class WaitThen:
    """Wait, then try there.

    Attributes:
        seconds: how long.
        place: one of the job's places.
    """

    seconds: float
    place: Place


@dataclass(frozen=True)
class GiveUp:
    """The job ends without a server.

    Attributes:
        reason: why, one sentence with the vendor's last words.
    """

    reason: str


@dataclass(frozen=True)
class StopVendor:
    """No server of this vendor can be had by this sweep; others go on.

    Attributes:
        reason: why, one sentence with the vendor's words.
    """

    reason: str


@dataclass(frozen=True)
class Later:
    """There may be a server when others of this sweep are gone, which use a quota up.

    Attributes:
        reason: why, one sentence with the vendor's words.
    """

    reason: str


Step = TryAt | WaitThen | GiveUp | StopVendor | Later


@dataclass(frozen=True)
class _Bar:
    """What is not tried any more.

    Attributes:
        region: the region, or ``*``.
        family: the family, ``gpu``, or empty for all.
        vcpus: from how many vCPUs on.
        why: the vendor's words.
        until: when it is tried again, by the clock; for ever without it.
    """

    region: str
    family: str
    vcpus: int
    why: str
    until: float | None = None


class Barred:
    """What a sweep has learnt not to ask for again, or not yet. All its threads share one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is barred."""
        self._lock, self._clock = threading.Lock(), clock
        self._bars: dict[str, tuple[_Bar, ...]] = {}
        self._stopped: dict[str, str] = {}

    def stop(self, vendor: str, why: str) -> None:
        """Ask a vendor for nothing more. The first reason stays."""
        with self._lock:
            self._stopped.setdefault(vendor, why)

    def stopped(self, vendor: str) -> str:
        """Why a vendor is asked for nothing more; empty when it still is."""
        with self._lock:
            return self._stopped.get(vendor, "")

    def learn(self, fault: Fault, job: JobState, *, hold_seconds: float = 0.0) -> None:
        """Remember what a fault says of other servers, too: a quota, a closed region, a login that does not work.

        Args:
            fault: why a try failed.
            job: whose try it was.
            hold_seconds: of a quota that the sweep's own servers use up: how long it is not asked for again.
        """
        if fault.refusal is Refusal.ACCOUNT and not fault.doubtful:
            self.stop(job.vendor, fault.said)
        if fault.refusal is Refusal.NOT_OFFERED and fault.closed:
            bar = _Bar(job.region, "", 0, fault.said)
        elif fault.refusal is Refusal.QUOTA:
            family = GPU_FAMILY if fault.gpus else family_of(job.vendor, job.server) if fault.family else ""
            region = EVERYWHERE if fault.scope == ACCOUNT else job.region
            until = self._clock() + hold_seconds if hold_seconds else None
            bar = _Bar(region, family, job.vcpus if fault.sized else 0, fault.said, until)
        else:
            return
        with self._lock:
            self._bars[job.vendor] = (*self._bars.get(job.vendor, ()), bar)

    def freed(self, vendor: str) -> None:
        """A server of the sweep is gone there: what its own servers used up may be asked for again."""
        with self._lock:
            self._bars[vendor] = tuple(one for one in self._bars.get(vendor, ()) if one.until is None)

    def holds(self, vendor: str) -> bool:
        """Whether anything is not tried at a vendor until servers of the sweep are gone."""
        with self._lock:
            return any(one.until is not None for one in self._bars.get(vendor, ()))

    def why(self, job: JobState, region: str) -> str:
        """Why a job is not tried in a region now, in the vendor's words; empty when it may be."""
        bar = self._bar(job, region)
        return bar.why if bar else ""

    def held(self, job: JobState, region: str) -> bool:
        """Whether a job is not tried in a region yet, but will be when servers of the sweep are gone."""
        bar = self._bar(job, region)
        return bar is not None and bar.until is not None

    def _bar(self, job: JobState, region: str) -> _Bar | None:
        """What keeps a job from a region; one for ever comes before one for a while."""
        families = {"", family_of(job.vendor, job.server), *([GPU_FAMILY] if job.gpus else [])}
        now = self._clock()
        with self._lock:
            bars = self._bars.get(job.vendor, ())
        held = None
        for one in bars:
            if one.region in (region, EVERYWHERE) and one.family in families and _counts(one.vcpus, job.vcpus):
                if one.until is None:
                    return one
                if one.until > now:
                    held = held or one
        return held


def _counts(barred_from: int, vcpus: int) -> bool:
    """Whether a server of so many vCPUs is barred; one whose size is unknown is."""
    return not barred_from or not vcpus or vcpus >= barred_from


def counts_towards(fault: Fault, job: JobState, other: JobState) -> bool:
    """Whether another server counts towards the quota that a job was refused for."""
    if (other.vendor, other.allocation) != (job.vendor, job.allocation):
        return False
    if fault.scope != ACCOUNT and other.region != job.region:
        return False
    if fault.gpus:
        return other.gpus > 0
    return not fault.family or family_of(other.vendor, other.server) == family_of(job.vendor, job.server)


def first_step(job: JobState, barred: Barred, *, allowed: Callable[[Place], bool] = lambda _place: True) -> Step:
    """Where to try first.

    Args:
        job: the job; where it was tried before and has waited since, its ``attempts`` are those tries.
        barred: what the sweep has learnt.
        allowed: whether a place may be tried, e.g. by what it costs.
    """
    stopped = barred.stopped(job.vendor)
    if stopped:
        return StopVendor(f"{job.vendor} is not asked any more by this sweep: {stopped}")
    tried = _tried(job, passing=False)
    open_to_it = [one for one in job.places if allowed(one) and not _is_used(one, tried)]
    usable = [one for one in open_to_it if not barred.why(job, one["region"])]
    if usable:
        return TryAt(usable[0])
    later = _later(job, barred, open_to_it)
    if later is not None:
        return later
    if job.attempts:
        return GiveUp(_sum_up(job))
    why = next((said for one in job.places if (said := barred.why(job, one["region"]))), "")
    if why:
        return GiveUp(f"Not tried, after what the vendor said of another server of this sweep: {why}")
    return GiveUp("None of its places may be tried." if job.places else "It can be rented nowhere.")


def next_step(
    fault: Fault,
    job: JobState,
    barred: Barred,
    *,
    random: Callable[[], float],
    allowed: Callable[[Place], bool] = lambda _place: True,
    hold_seconds: float = 0.0,
) -> Step:
    """What follows on a failed try. What it teaches about other servers is remembered in ``barred``.

    Args:
        fault: why the try failed. Where it is ``doubtful``, ask the vendor first who we are: :meth:`Fault.asked`.
        job: the job; the failed try is the last of its ``attempts``, and ``region`` and ``zone`` say where it was.
        barred: what the sweep has learnt.
        random: a number from 0 to 1, a new one for each call.
        allowed: whether a place may be tried, e.g. by what it costs.
        hold_seconds: where the sweep's own servers use the quota up: how long it is not asked for again; else 0. The
            attempt says so by ``held``, and counts as none.
    """
    barred.learn(fault, job, hold_seconds=hold_seconds)
    if fault.refusal is Refusal.ACCOUNT:
        return StopVendor(f"{job.vendor} refuses the account: {fault.said}")
    stopped = barred.stopped(job.vendor)
    if stopped:
        return StopVendor(f"{job.vendor} is not asked any more by this sweep: {stopped}")
    give_up = GiveUp(_sum_up(job))
    if fault.everywhere or sum(not one.get("held") for one in job.attempts) >= MOST_TRIES or _too_often(fault, job):
        return give_up
    if fault.refusal in (Refusal.THROTTLED, Refusal.OUTAGE):
        again = _again(fault, job, random)
        if again is not None:
            return again
        if fault.refusal is Refusal.THROTTLED:
            return give_up
    used = _used_up(job, held=bool(hold_seconds))
    open_to_it = [one for one in job.places if not _is_used(one, used) and allowed(one)]
    ordered = _in_order(fault, job, [one for one in open_to_it if not barred.why(job, one["region"])])
    if ordered:
        return TryAt(ordered[0])
    if fault.refusal in (Refusal.TIMEOUT, Refusal.INTERRUPTED):
        here = _here(job)
        if here is not None and allowed(here):
            return TryAt(here)
    return _later(job, barred, open_to_it) or give_up


def _later(job: JobState, barred: Barred, places: Iterable[Place]) -> Later | None:
    """That one of these places may be had when servers of the sweep are gone; nothing where none may."""
    held = next((one for one in places if barred.held(job, one["region"])), None)
    return None if held is None else Later(barred.why(job, held["region"]))


def _too_often(fault: Fault, job: JobState) -> bool:
    most = {
        str(Refusal.TIMEOUT): MOST_TIMEOUTS,
        str(Refusal.INTERRUPTED): MOST_INTERRUPTIONS,
        "": MOST_UNKNOWN,
    }.get(str(fault.refusal or ""))
    counted = Counter(str(one.get("refusal") or "") for one in job.attempts)
    return most is not None and counted[str(fault.refusal or "")] >= most


def _again(fault: Fault, job: JobState, random: Callable[[], float]) -> WaitThen | None:
    """The same place, later; nothing when it was tried often enough, or is none of the job's."""
    row = 0
    for one in reversed(job.attempts):
        if (one.get("region"), one.get("zone")) != (job.region, job.zone):
            break
        if one.get("refusal") not in _PASSING:
            break
        row += 1
    here = _here(job)
    most = MOST_OUTAGES if fault.refusal is Refusal.OUTAGE else MOST_WAITS
    if here is None or row >= most:
        return None
    return WaitThen(random() * min(LONGEST_WAIT, FIRST_WAIT * 2 ** max(0, row - 1)), here)


def _here(job: JobState) -> Place | None:
    return next((one for one in job.places if (one["region"], one["zone"]) == (job.region, job.zone)), None)


def _used_up(job: JobState, *, held: bool) -> tuple[set[str], set[tuple[str, str]]]:
    """Regions and zones that this job has tried, and that a new try would not find changed; the last try's, too."""
    regions, zones = _tried(job, passing=True)
    return regions, zones if held else zones | {(job.region, job.zone)}


def _tried(job: JobState, *, passing: bool) -> tuple[set[str], set[tuple[str, str]]]:
    """Regions and zones of a job's attempts, but for those where servers of the sweep were in the way.

    ``passing``: also those where the vendor was only asked too often, or could not be asked.
    """
    regions: set[str] = set()
    zones: set[tuple[str, str]] = set()
    for one in job.attempts:
        if one.get("held") or (not passing and one.get("refusal") in _PASSING):
            continue
        region, zone = str(one.get("region") or ""), str(one.get("zone") or "")
        if one.get("refusal") == str(Refusal.QUOTA):
            regions.add(region)
        zones.add((region, zone))
    return regions, zones


def _is_used(place: Place, used: tuple[set[str], set[tuple[str, str]]]) -> bool:
    regions, zones = used
    return place["region"] in regions or (place["region"], place["zone"]) in zones


def _in_order(fault: Fault, job: JobState, places: Iterable[Place]) -> list[Place]:
    """The places left, best first; a stable sort, so that the cheapest of equals comes first."""
    stays = fault.refusal in (Refusal.STOCK, Refusal.NOT_OFFERED, Refusal.INTERRUPTED)

    def rank(place: Place) -> tuple[bool, bool]:
        same_region = place["region"] == job.region
        return same_region != stays, place["zone"] not in fault.zones

    return sorted(places, key=rank)


def _sum_up(job: JobState) -> str:
    """Where it was tried and why it failed, in one sentence."""
    counted = Counter(str(one.get("refusal") or "unknown words") for one in job.attempts)
    tries = ", ".join(f"{count} x {name.replace('_', ' ')}" for name, count in sorted(counted.items()))
    regions = len({one.get("region") for one in job.attempts})
    said = next((one.get("said") for one in reversed(job.attempts)), "") or "no words"
    where = f"{regions} region" + ("s" if regions != 1 else "")
    return f"No server after {len(job.attempts)} tries in {where} ({tries or 'none'}); said last: {said}"
