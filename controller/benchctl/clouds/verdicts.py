"""Which of the things that a vendor's API lists may live, and why. Pure.

The cloud's list says what there is; the sweeps' books say what should be. A thing goes when its time is over
(*expired*), when its job has ended (*finished*), or when nobody runs its sweep any more (*orphaned*). What belongs to a
sweep that no book here knows is somebody else's: it goes when its time is over, or when a person asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from benchctl.clouds.cloud import vendor_id
from benchctl.clouds.spec import SHARED_JOB, label_value, resource_name, shared_name
from benchctl.ledger import DESTROYING, DONE, GONE, INGESTING, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchctl.clouds.spec import Resource

MARGIN_SECONDS = 600.0
"""How long past its time a thing of a sweep that runs is left to that sweep: it gives its servers back itself."""


class Holder(StrEnum):
    """Who runs a sweep."""

    NOBODY = "nobody"
    CALLER = "caller"
    OTHER = "other"


class Decision(StrEnum):
    """What is to become of one thing."""

    KEEP = "keep"
    EXPIRED = "expired"
    FINISHED = "finished"
    ORPHANED = "orphaned"
    ASKED = "asked for"


@dataclass(frozen=True)
class Row:
    """What the ledger's table ``instance`` knows of one thing.

    Attributes:
        name: its name in the cloud.
        vendor: as the database calls it.
        kind: ``server``, ``disk``, ...
        sweep: its sweep.
        job: its job.
        state: ``asked``, ``alive``, ``gone`` or ``refused``.
        asked_at: seconds since 1970.
        expires_at: seconds since 1970; nothing when unknown.
        region: where it was asked for; empty when unknown.
    """

    name: str
    vendor: str
    kind: str
    sweep: str
    job: str
    state: str
    asked_at: float
    expires_at: float | None = None
    region: str = ""


@dataclass(frozen=True)
class Book:
    """One sweep as its book says.

    Attributes:
        sweep: its identifier.
        jobs: its jobs.
        holder: who runs it.
        quiet_seconds: how long nothing was written to it.
        hook: who is told of a leak; empty for nobody.
        backend: Pulumi's state backend; empty for the default.
    """

    sweep: str
    jobs: tuple[JobState, ...]
    holder: Holder = Holder.NOBODY
    quiet_seconds: float = 0.0
    hook: str = ""
    backend: str = ""

    def job(self, label: str) -> JobState | None:
        """The job whose label has this value."""
        return next((one for one in self.jobs if label_value(one.job) == label), None)


@dataclass(frozen=True)
class Verdict:
    """What is to become of one thing, and why.

    Attributes:
        resource: the thing.
        decision: what is to become of it.
        reason: a few words.
        sweep: its sweep; empty when nothing says.
        job: its job, ``shared`` for what the jobs of a sweep share; empty when nothing says.
        expires_at: its end as it was reckoned with, seconds since 1970.
        price_per_hour: what a server costs; nothing when unknown, and for other things.
        currency: of the price.
    """

    resource: Resource
    decision: Decision
    reason: str
    sweep: str = ""
    job: str = ""
    expires_at: float | None = None
    price_per_hour: float | None = None
    currency: str | None = None

    @property
    def doomed(self) -> bool:
        """Whether it is to be destroyed."""
        return self.decision is not Decision.KEEP


class Owners:
    """To which sweep and job a thing belongs, by its labels or, without them, by its name."""

    def __init__(self, books: Iterable[Book], rows: Iterable[Row] = ()) -> None:
        """Names can be computed again from sweep, job and try, so that a lost database changes nothing."""
        self._books = {label_value(book.sweep): book for book in books}
        self._names: dict[str, tuple[str, str]] = {}
        for book in self._books.values():
            places = set()
            for job in book.jobs:
                if not job.rented:
                    continue
                for attempt in range(1, max(1, job.attempt) + 1):
                    self._names[resource_name(book.sweep, job.job, attempt)] = (book.sweep, job.job)
                places |= {(job.vendor, region) for region in regions_of(job)} | {(job.vendor, "")}
            for vendor, region in places:
                for called in {vendor, _command_line_name(vendor)}:
                    self._names[shared_name(book.sweep, called, region)] = (book.sweep, SHARED_JOB)
        self.rows = {row.name: row for row in rows}

    def book(self, sweep: str) -> Book | None:
        """The book of a sweep, by its name or its label."""
        return self._books.get(label_value(sweep)) if sweep else None

    def of(self, resource: Resource) -> tuple[str, str]:
        """Sweep and job; empty where nothing says."""
        if resource.sweep:
            book = self.book(resource.sweep)
            return (book.sweep if book else resource.sweep), resource.job
        return self.by_name(resource.name)

    def by_name(self, name: str) -> tuple[str, str]:
        """Sweep and job of a name of ours, with or without the ending that its kind adds; empty when unknown."""
        # The table comes second: what jobs share stands there under the job that asked for it first.
        beginning = name
        while beginning:
            if beginning in self._names:
                return self._names[beginning]
            beginning = beginning.rpartition("-")[0]
        row = self.rows.get(name)
        return (row.sweep, row.job) if row is not None else ("", "")

    def by_stack(self, stack: str) -> tuple[str, str, str]:
        """Sweep, job and vendor (as the database calls it) of a Pulumi stack, ``SWEEP.JOB``; empty when unknown."""
        sweep, _, label = stack.partition(".")
        book = self.book(sweep)
        if book is None or book.sweep != sweep:
            return "", "", ""
        job = next((one for one in book.jobs if one.job == label), None)
        if job is not None:
            return sweep, label, job.vendor
        shared = label.removeprefix(f"{SHARED_JOB}-")
        vendors = {one.vendor for one in book.jobs if one.rented}
        for vendor in sorted(vendors):
            called = _command_line_name(vendor)
            if shared != label and (shared == called or shared.startswith(f"{called}-")):
                return sweep, SHARED_JOB, vendor
        return "", "", ""


def judge(
    resources: Sequence[Resource],
    books: Iterable[Book],
    now: float,
    *,
    rows: Iterable[Row] = (),
    sweep: str = "",
    everything: bool = False,
    orphans: bool = True,
    grace_seconds: float = 0.0,
    margin_seconds: float = MARGIN_SECONDS,
) -> list[Verdict]:
    """Say of each thing whether it may live.

    Args:
        resources: what the vendors' APIs list.
        books: the sweeps that are known here.
        now: seconds since 1970.
        rows: what the table ``instance`` knows.
        sweep: only things of this sweep are judged, the others left out; empty for all.
        everything: things of sweeps that no book here knows are destroyed, too.
        orphans: things of sweeps that nobody runs are destroyed; else only once they are expired, or their job ended.
        grace_seconds: how long a sweep has to be silent before its things are orphaned.
        margin_seconds: how long past its time a thing of a sweep that runs is left alone.
    """
    owners = Owners(books, rows)
    owned = [(one, *owners.of(one)) for one in resources]
    # What jobs share lives as long as the last of them.
    latest: dict[str, float] = {}
    for resource, its_sweep, _ in owned:
        if its_sweep and resource.kind == "server" and resource.expires_at is not None:
            latest[its_sweep] = max(latest.get(its_sweep, 0.0), float(resource.expires_at))
    verdicts = []
    for resource, its_sweep, its_job in owned:
        if sweep and label_value(its_sweep or "-") != label_value(sweep):
            continue
        book = owners.book(its_sweep)
        job = book.job(label_value(its_job)) if book and its_job and its_job != SHARED_JOB else None
        expires_at = _expiry(resource, owners, book, its_job, job, latest.get(its_sweep))
        late = now - expires_at if expires_at is not None else None
        if book is None:
            decision, reason = _of_a_stranger(its_sweep, late, everything)
        elif book.holder is Holder.NOBODY:
            decision, reason = _of_nobody(book, its_job, job, late, orphans, grace_seconds)
        else:
            decision, reason = _of_a_running_sweep(book, resource, its_job, job, late, margin_seconds)
        priced = job if job is not None and resource.kind == "server" else None
        verdicts.append(
            Verdict(
                resource, decision, reason, its_sweep, its_job, expires_at,
                priced.price_per_hour if priced else None, priced.currency if priced else None,
            )
        )  # fmt: skip
    return verdicts


def over(book: Book, label: str, job: JobState | None, vendor: str = "") -> bool:
    """Whether nobody will use the server of a job, or what its jobs share, any more."""
    if label in (SHARED_JOB, ""):
        known = [one for one in book.jobs if one.rented and (not vendor or one.vendor == vendor_id(vendor))]
        return all(over(book, one.job, one) for one in known)
    return job is None or job.ended or job.stage in (GONE, DONE)


def regions_of(job: JobState) -> set[str]:
    """Where a server of this job may have been asked for."""
    tried = {str(one.get("region") or "") for one in job.attempts}
    places = {str(one.get("region") or "") for one in job.places}
    return {one for one in ({job.region} | tried | places) if one}


def known_logins(book: Book, vendor: str, login: str, shown: Iterable[str]) -> set[str]:
    """With which logins a sweep's servers may have been rented for ``login`` to list them. Pure.

    Beside itself these are the logins of jobs of which it listed something: both are of one account.

    Args:
        book: the sweep.
        vendor: the vendor.
        login: mark of the login that lists.
        shown: jobs of the sweep of which a list has shown something, :data:`SHARED_JOB` among them.
    """
    labels = {label_value(one) for one in shown}
    jobs = [one for one in book.jobs if one.vendor == vendor_id(vendor) and one.login]
    seen = {one.login for one in jobs if label_value(one.job) in labels}
    if SHARED_JOB in labels and len({one.login for one in jobs}) == 1:
        seen |= {one.login for one in jobs}
    # books of earlier versions name no login
    return {login, "", *seen}


def after_loss(job: JobState, gone_at: str, *, destroyed: bool = True) -> dict[str, object]:
    """What changes in a job whose server was destroyed by somebody else than its sweep. Pure.

    A job that had its measurements at home already keeps its stage, because what is left of it needs no server. One
    that was in the middle is stopped, so that ``--resume`` takes it up again.

    Args:
        job: the job.
        gone_at: when it was found to be gone.
        destroyed: whether the reaper did it; else nothing is known but that it is listed no longer.
    """
    changes: dict[str, object] = {"gone_at": gone_at}
    if job.stage == INGESTING:
        return changes
    changes["stage"] = GONE
    if not job.ended and job.stage != DESTROYING:
        changes["status"] = "stopped"
        what = "its server was destroyed by the reaper" if destroyed else "the vendor lists its server no longer"
        changes["error"] = f"{what}, in the stage {job.stage}"
    return changes


def _command_line_name(vendor: str) -> str:
    from benchctl.clouds.cloud import VENDOR_IDS

    return next((ours for ours, theirs in VENDOR_IDS.items() if theirs == vendor), vendor)


def _expiry(
    resource: Resource, owners: Owners, book: Book | None, label: str, job: JobState | None, latest: float | None
) -> float | None:
    known: list[float] = []
    if resource.expires_at is not None:
        known.append(float(resource.expires_at))
    elif resource.name in owners.rows and owners.rows[resource.name].expires_at is not None:
        known.append(float(owners.rows[resource.name].expires_at or 0.0))
    elif job is not None and job.expires_at:
        known.append(datetime.fromisoformat(job.expires_at).timestamp())
    if known and label == SHARED_JOB:
        if latest is not None:
            known.append(latest)
        if book is not None:
            alive = [one.expires_at for one in book.jobs if one.alive and one.expires_at]
            known.extend(datetime.fromisoformat(one).timestamp() for one in alive)
    return max(known) if known else None


def _of_a_stranger(sweep: str, late: float | None, everything: bool) -> tuple[Decision, str]:
    whose = f"sweep {sweep} is not known here" if sweep else "nothing says whose it is"
    if late is not None and late >= 0:
        return Decision.EXPIRED, f"its time is over; {whose}"
    if everything:
        return Decision.ASKED, f"{whose}, and everything was asked for"
    return Decision.KEEP, f"{whose}; --all destroys it" + ("" if late is None else ", and its expiry will")


def _of_nobody(
    book: Book, label: str, job: JobState | None, late: float | None, orphans: bool, grace_seconds: float
) -> tuple[Decision, str]:
    if over(book, label, job):
        return Decision.FINISHED, "its job has ended" if job is not None else "no job needs it any more"
    if late is not None and late >= 0:
        return Decision.EXPIRED, "its time is over"
    if not orphans:
        return Decision.KEEP, "nobody runs its sweep; it can be resumed"
    if book.quiet_seconds < grace_seconds:
        return Decision.KEEP, f"nobody runs its sweep, but only since {book.quiet_seconds:.0f} s"
    return Decision.ORPHANED, "nobody runs its sweep"


def _of_a_running_sweep(
    book: Book, resource: Resource, label: str, job: JobState | None, late: float | None, margin_seconds: float
) -> tuple[Decision, str]:
    if label == SHARED_JOB and not over(book, label, job, resource.vendor):
        # The label's time was a guess at the sweep's start; jobs that wait still need it, and it costs nothing.
        return Decision.KEEP, "its sweep runs"
    if late is not None and late >= margin_seconds:
        return Decision.EXPIRED, "its time is over, and its sweep has not given it back"
    if book.holder is Holder.OTHER:
        return Decision.KEEP, "its sweep runs in another process"
    if over(book, label, job, resource.vendor):
        return Decision.FINISHED, "its job has ended" if job is not None else "no job needs it any more"
    if job is not None and _of_an_earlier_try(book, resource, job):
        return Decision.FINISHED, "of an earlier try of its job"
    return Decision.KEEP, "its sweep runs"


def _of_an_earlier_try(book: Book, resource: Resource, job: JobState) -> bool:
    earlier = (resource_name(book.sweep, job.job, one) for one in range(1, job.attempt))
    return any(resource.name == name or resource.name.startswith(f"{name}-") for name in earlier)


def awaited(rows: Iterable[Row], books: Mapping[str, Book], now: float, settle_seconds: float) -> list[Row]:
    """Rows of what was asked for so lately that the cloud may list it yet: lists lag.

    Whether it was answered says nothing: a request that was sent before a kill is carried out after it. Only of sweeps
    that nobody else runs.
    """
    return [
        row
        for row in rows
        if row.state in ("asked", "alive")
        and now - row.asked_at < settle_seconds
        and (book := books.get(row.sweep)) is not None
        and book.holder is not Holder.OTHER
    ]
