"""The third layer of teardown: ask the clouds what there is of ours, and destroy what should not be.

Nothing here believes a state of ours. :func:`reap` lists each vendor's API by our labels and names, judges what it
lists against the sweeps' books (:mod:`benchctl.clouds.verdicts`), deletes, and lists again, until nothing is left that
should not be or the time is over. Lists lag both ways: what was just made comes late, what was just deleted stays a
while; a delete may fail, or lie. So only lists count, more than one of them, and what remains in the last one is a
*leak*.

Each vendor has a thread of its own: one without login, or whose API is down, ends for itself and is said.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from llama_bench_core import state

from benchctl import hooks
from benchctl.clouds import login_mark
from benchctl.clouds.cloud import DENIED, CloudError, PartialListError, cloud_of, vendor_id
from benchctl.clouds.logins import some_login
from benchctl.clouds.spec import FIRST, SHARED_JOB
from benchctl.clouds.verdicts import (
    MARGIN_SECONDS,
    Book,
    Holder,
    Owners,
    Row,
    Verdict,
    after_loss,
    awaited,
    judge,
    known_logins,
    over,
    regions_of,
)
from benchctl.errors import BenchctlError
from benchctl.extras import extra_mend
from benchctl.ledger import FILE, JOB_FILE, Ledger, jobs_of, read_book, sweep_names
from benchctl.refusals import Refusal
from benchctl.request import CLOUDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Engine

    from benchctl.clouds.cloud import Client
    from benchctl.clouds.spec import Resource
    from benchctl.clouds.stacks import Stacks
    from benchctl.home import Home

Item = TypeVar("Item")

__all__ = ["Finding", "Outcome", "Patience", "ReapReport", "judge", "reap"]

PHASES = (
    *((kind,) for kind in FIRST),
    ("disk", "interface"),
    ("address",),
    ("group", "firewall", "key"),
    ("subnet",),
    ("network",),
)
"""Kinds in the order in which they can go: what holds another thing, or could make it again, goes before it."""

UNTRIED_ROUNDS = 3
"""After so many rounds even what something else of its sweep may hold is asked to go."""

STACK_SECONDS = 30 * 60.0
"""How long ending stray engines and removing stacks may take together; the vendors' time is not counted in it."""


STACK_TRIES = 3
"""How often the engine is asked to remove a stack of which nothing is left: it may be killed, or the API fail it."""


class Outcome(StrEnum):
    """What became of one thing."""

    KEPT = "kept"
    DESTROYED = "destroyed"
    WOULD = "would be destroyed"
    LEFT = "left"


@dataclass(frozen=True)
class Patience:
    """How long and how often to ask.

    Attributes:
        deadline_seconds: after so long what is still listed is a leak.
        pause_seconds: between two looks; it doubles while things won't go.
        longest_pause_seconds: the most that it grows to.
        settle_seconds: what was asked for so lately may be listed yet: it is looked for.
        looks: how many lists in a row have to be clean after something was deleted, or is missing.
        tries: how often in a row a list may fail before the vendor is given up.
        deletes_at_once: how many things of one vendor are deleted at the same time.
        delete_seconds: how long to wait for such deletes before the next look; those that hang are left to themselves.
    """

    deadline_seconds: float = 900.0
    pause_seconds: float = 2.0
    longest_pause_seconds: float = 30.0
    settle_seconds: float = 60.0
    looks: int = 2
    tries: int = 5
    deletes_at_once: int = 8
    delete_seconds: float = 240.0


@dataclass(frozen=True)
class Finding:
    """One thing that a vendor's API listed.

    Attributes:
        verdict: what was to become of it.
        outcome: what became of it.
        problem: the vendor's words when it would not go.
    """

    verdict: Verdict
    outcome: Outcome
    problem: str = ""


@dataclass(frozen=True)
class ReapReport:
    """What a reaper saw and did.

    Attributes:
        findings: everything that was listed, by vendor, kind and name.
        problems: vendors that could not be asked, or not in all their regions, or with another login than theirs,
            though they may hold something: why, in one sentence.
        skipped: vendors that were not asked, and need not have been: why.
        notes: what else a person should know.
        asked: the vendors that answered for all that may hold something.
        partly: those of the problems that did answer, if not for all that may be there.
        stacks: names of the Pulumi stacks that were removed.
        dry: whether it only looked.
    """

    findings: tuple[Finding, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    partly: tuple[str, ...] = ()
    stacks: tuple[str, ...] = ()
    dry: bool = False

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """What should have been destroyed and was not."""
        return tuple(one for one in self.findings if one.outcome is Outcome.LEFT)

    @property
    def left(self) -> tuple[Resource, ...]:
        """The leaks as the vendors list them."""
        return tuple(one.verdict.resource for one in self.leaks)

    @property
    def destroyed(self) -> tuple[Finding, ...]:
        """What was destroyed: the vendor's list says so."""
        return tuple(one for one in self.findings if one.outcome is Outcome.DESTROYED)

    @property
    def clean(self) -> bool:
        """Whether nothing is left that should not be, as far as all vendors that may hold something say.

        What a look would destroy is there still.
        """
        return not self.problems and all(one.outcome not in (Outcome.LEFT, Outcome.WOULD) for one in self.findings)


def reap(
    home: Home,
    engine: Engine | None,
    *,
    sweep: str = "",
    everything: bool = False,
    orphans: bool = True,
    grace_seconds: float = 0.0,
    dry_run: bool = False,
    environment: Mapping[str, str] | None = None,
    vendors: Sequence[str] | None = None,
    clients: Mapping[str, Client] | None = None,
    own: Ledger | None = None,
    backend: str = "",
    hook: str = "",
    report: Callable[[str], None] = lambda _line: None,
    clock: Callable[[], float] = time.time,
    patience: Patience | None = None,
    stacks: Callable[[str], Stacks | None] | None = None,
    login_changed: bool = False,
) -> ReapReport:
    """Destroy what should not be alive.

    Args:
        home: whose sweeps.
        engine: the database; nothing where there is none, and then it is not brought up to date.
        sweep: only things of this sweep; empty for all.
        everything: things of sweeps that are not known here, too.
        orphans: things of sweeps that nobody runs.
        grace_seconds: how long a sweep has to be silent before its things are orphaned.
        dry_run: look and judge, and do nothing.
        environment: where the logins are looked for; nothing for this process's own.
        vendors: which vendors, as the command line calls them; nothing for all that can be asked.
        clients: clients to use instead of the vendors' own, by vendor.
        own: the open book of the sweep that calls, whose lock the caller holds: what its jobs still use is left
            alone. Jobs that are to be taken up again must not be in an ended status when it calls.
        backend: URL of Pulumi's state, looked into besides those of the sweeps; empty for the default.
        hook: told of a leak, as are the hooks of the sweeps; not that of ``own``, which is its sweep's affair.
        report: told what happens, line by line; from several threads.
        clock: seconds since 1970.
        patience: how long and how often to ask.
        stacks: makes Pulumi's stacks of a backend; nothing for the real ones.
        login_changed: logins are of the accounts that rented, though they are others than those that did.

    Raises:
        BenchctlError: the database can't be read or written.
    """
    environment = dict(os.environ if environment is None else environment)
    patience = patience or Patience()
    with contextlib.ExitStack() as held:
        books, notes, unread = _read_books(home, own, clock, None if dry_run else held, sweep)
        rows = _rows(engine)
        asked = _Asked(
            books, rows, sweep, everything, orphans, grace_seconds, dry_run, environment, report, clock, patience
        )
        chosen, skipped, problems = _choose(asked, vendors, clients, unread)
        states = _States(home, asked, backend, stacks)
        if not dry_run:
            asked = replace(asked, rows=states.end_strays())
        runs = [_VendorRun(asked, name, client) for name, client in chosen.items()]
        _run_all(runs, patience, clock)
        accounts = _Accounts(home, asked, runs, changed=login_changed)
        if not dry_run:
            if engine is not None:
                notes += _bring_up_to_date(home, engine, asked, runs, own, accounts)
            states.remove(runs, accounts)
            notes += states.notes
        problems |= accounts.problems()
    for run in runs:
        if run.problem:
            problems[run.vendor] = run.problem
        notes += run.notes
    found = sorted(
        (one for run in runs for one in run.findings()),
        key=lambda one: (one.verdict.resource.vendor, _phase(one.verdict.resource), one.verdict.resource.name),
    )
    result = ReapReport(
        findings=tuple(found),
        problems=problems,
        skipped=skipped,
        notes=tuple(notes),
        asked=tuple(run.vendor for run in runs if run.vendor not in problems),
        partly=tuple(run.vendor for run in runs if run.vendor in problems and run.believed is not None),
        stacks=tuple(states.removed),
        dry=dry_run,
    )
    if not dry_run and not result.clean:
        _tell(result, asked, hook, report, own.sweep if own is not None else "")
    return result


@dataclass(frozen=True)
class _Asked:
    """What was asked of the reaper, and what is known before a vendor is."""

    books: tuple[Book, ...]
    rows: tuple[Row, ...]
    sweep: str
    everything: bool
    orphans: bool
    grace_seconds: float
    dry_run: bool
    environment: Mapping[str, str]
    report: Callable[[str], None]
    clock: Callable[[], float]
    patience: Patience

    def judge(self, resources: Sequence[Resource]) -> list[Verdict]:
        return judge(
            resources,
            self.books,
            self.clock(),
            rows=self.rows,
            sweep=self.sweep,
            everything=self.everything,
            orphans=self.orphans,
            grace_seconds=self.grace_seconds,
            margin_seconds=MARGIN_SECONDS,
        )

    def rows_of(self, vendor: str) -> list[Row]:
        """What the ledger believes to exist at one vendor, of the sweeps that are looked at."""
        return [
            row
            for row in self.rows
            if row.vendor == vendor_id(vendor)
            and row.state in ("asked", "alive")
            and (not self.sweep or row.sweep == self.sweep)
        ]

    def may_hold(self, vendor: str, region: str = "") -> bool:
        """Whether this vendor, or one region of it, may have something of ours, by the books."""
        wanted = ("", region) if region else None
        return any(wanted is None or row.region in wanted for row in self.rows_of(vendor)) or any(
            job.alive and job.vendor == vendor_id(vendor) and (wanted is None or job.region in wanted)
            for book in self.books
            if not self.sweep or book.sweep == self.sweep
            for job in book.jobs
        )

    def regions(self, vendor: str) -> list[str]:
        """Where to look: only for one sweep is it known where its things can be."""
        if not self.sweep:
            return []
        jobs = [job for book in self.books if book.sweep == self.sweep for job in book.jobs]
        rows = {row.region for row in self.rows if row.sweep == self.sweep and row.vendor == vendor_id(vendor)}
        places = {region for job in jobs if job.vendor == vendor_id(vendor) for region in regions_of(job)}
        return sorted(one for one in rows | places if one)


# ── what is known ────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_books(
    home: Home,
    ledger: Ledger | None,
    clock: Callable[[], float],
    held: contextlib.ExitStack | None,
    only: str,
) -> tuple[tuple[Book, ...], list[str], list[str]]:
    """The books of the sweeps that rent; what to say of those that can't be read; and whose these are, if asked for.

    Those that nobody runs, and that could be resumed, are held while the reaper works, so that none is resumed in the
    middle of it.
    """
    books, notes, unread = [], [], []
    for name in sweep_names(home):
        if ledger is not None and name == ledger.sweep:
            continue
        try:
            book = read_book(home, name)
            jobs = tuple(jobs_of(book))
        except (BenchctlError, KeyError, TypeError, AttributeError) as error:
            why = str(error) if isinstance(error, BenchctlError) else f"The book of {name} is damaged."
            notes.append(f"{why} Things of {name} are judged by their expiry alone.")
            if not only or only == name:
                unread.append(name)
            continue
        if not any(job.rented for job in jobs):
            continue
        # A sweep beside the one that was asked for is only needed to tell things apart.
        resumable = (not only or only == name) and any(job.status != "finished" for job in jobs)
        holder = _holder(home.sweeps / name, name, held if resumable else None)
        request = book.get("request") or {}
        books.append(
            Book(
                name,
                jobs,
                holder,
                max(0.0, clock() - _last_written(home.sweeps / name)),
                str(request.get("hook") or ""),
                str(request.get("backend") or ""),
            )
        )
    if ledger is not None:
        request = ledger.request
        books.append(Book(ledger.sweep, ledger.jobs, Holder.CALLER, 0.0, request.hook, request.backend))
    return tuple(books), notes, unread


def _holder(folder: Path, sweep: str, held: contextlib.ExitStack | None) -> Holder:
    lock = folder / "lock"
    if held is None:
        return Holder.OTHER if state.is_locked(lock) else Holder.NOBODY
    try:
        held.enter_context(state.locked(lock, {"sweep": sweep, "by": "reap"}))
    except state.BusyError:
        return Holder.OTHER
    except OSError:
        return Holder.OTHER if state.is_locked(lock) else Holder.NOBODY
    return Holder.NOBODY


def _last_written(folder: Path) -> float:
    """When a sweep last gave a sign of life, seconds since 1970.

    Its steps are written to its jobs' files; the book itself only at its beginning and its end.
    """
    times = [0.0]
    for path in (folder / FILE, *folder.glob(f"jobs/*/{JOB_FILE}"), *folder.glob("jobs/*/progress.json")):
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times)


def _rows(engine: Engine | None) -> tuple[Row, ...]:
    if engine is None:
        return ()
    from sqlalchemy import select

    from benchctl.db.engine import reading
    from benchctl.db.schema import Instance

    with reading(engine) as session:
        return tuple(
            Row(
                one.instance_id,
                one.vendor_id,
                one.kind,
                one.sweep_id,
                one.job_id,
                one.state,
                _seconds(one.asked_at) or 0.0,
                _seconds(one.expires_at),
                one.region or "",
            )
            for one in session.scalars(select(Instance))
        )


def _seconds(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()


def _choose(
    asked: _Asked, vendors: Sequence[str] | None, clients: Mapping[str, Client] | None, unread: Sequence[str]
) -> tuple[dict[str, Client], dict[str, str], dict[str, str]]:
    """The vendors' clients; the vendors that need not be asked; those that can't be, though they should."""
    chosen: dict[str, Client] = {}
    skipped: dict[str, str] = {}
    problems: dict[str, str] = {}
    for name in vendors if vendors is not None else (clients if clients is not None else CLOUDS):
        if clients is not None and name in clients:
            chosen[name] = clients[name]
            continue
        try:
            cloud = cloud_of(name)
            missing = cloud.login_problem(asked.environment)
            if not missing:
                chosen[cloud.name] = cloud.client(asked.environment, asked.regions(cloud.name))
        except ImportError as error:
            missing = _not_installed(name, error)
        except BenchctlError as error:
            missing = str(error)
        if not missing:
            continue
        # whoever set a login, even half of one, may have rented with it, on another machine for example
        if vendors is not None or asked.may_hold(name) or some_login(name, asked.environment):
            problems[name] = missing
        elif unread:
            problems[name] = f"{missing} What {', '.join(unread)} rented is not known, as the book can't be read."
        else:
            skipped[name] = missing
    return chosen, skipped, problems


def _not_installed(vendor: str, error: ImportError) -> str:
    return f"its client can't be imported ({error.name}). {extra_mend(vendor)}"


# ── one vendor ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _GivenUpError(Exception):
    """The vendor can't be asked any more; the message says why."""


class _VendorRun:
    """Listing, deleting and listing again at one vendor."""

    def __init__(self, asked: _Asked, vendor: str, client: Client) -> None:
        self.vendor, self.problem = vendor, ""
        self.notes: list[str] = []
        self.listed: list[Resource] | None = None  # the last list, once it can be believed
        self.missing: Mapping[str, CloudError] = {}  # the regions that the last list is without, and why
        self.stop = threading.Event()
        self.done = threading.Event()
        self._asked, self.client = asked, client
        self._seen: dict[tuple[str, str], Verdict] = {}
        self._left: set[tuple[str, str]] = set()
        self._said: dict[tuple[str, str], str] = {}
        self._mutex = threading.Lock()

    @property
    def believed(self) -> Sequence[Resource] | None:
        """The last list; nothing where it was never had, or where the vendor was left to itself.

        What a region had that does not answer any more is in it still.
        """
        return self.listed if self.done.is_set() and not self.stop.is_set() else None

    def unseen(self, region: str) -> bool:
        """Whether the last list says nothing of a region, or of one of which nobody knows which it is."""
        return region in self.missing or (not region and bool(self.missing))

    def run(self) -> None:
        """All of it; never raises."""
        try:
            self._rounds()
            self._note_missing()
        except _GivenUpError as error:
            self.problem = str(error)
        except ImportError as error:  # some import their SDK only when they are asked
            self.problem = _not_installed(self.vendor, error)
        except Exception as error:  # noqa: BLE001 - one vendor's client must not end the others' work
            self.problem = f"its client failed: {type(error).__name__}: {error}"
        finally:
            self.done.set()

    def findings(self) -> list[Finding]:
        """What was listed and what became of it; what was never confirmed counts as left."""
        with self._mutex:
            seen, left, said = dict(self._seen), set(self._left), dict(self._said)
        result = []
        for key, verdict in seen.items():
            if not verdict.doomed:
                outcome = Outcome.KEPT
            elif self._asked.dry_run:
                outcome = Outcome.WOULD
            elif key in left or self.believed is None:
                outcome = Outcome.LEFT
            else:
                outcome = Outcome.DESTROYED
            result.append(Finding(verdict, outcome, said.get(key, "") if outcome is Outcome.LEFT else ""))
        return result

    def _rounds(self) -> None:
        asked, patience = self._asked, self._asked.patience
        deadline = asked.clock() + patience.deadline_seconds
        believed = asked.rows_of(self.vendor)
        clean = rounds = failures = partial = 0
        listed: list[Resource] = []
        while True:
            listed = self._list(deadline, listed)
            # a region that may answer yet is asked as often as a vendor is
            partial = partial + 1 if any(one.refusal not in DENIED for one in self.missing.values()) else 0
            verdicts = asked.judge(listed)
            doomed = [one for one in verdicts if one.doomed]
            with self._mutex:
                for one in verdicts:
                    self._seen[_key(one.resource)] = one
                self._left = {_key(one.resource) for one in doomed}
            if asked.dry_run:
                self.listed = listed
                return
            waiting = self._waiting(believed, listed)
            clean = 0 if doomed else clean + 1
            # One list is enough where nothing is missing in it and nothing was changed.
            enough = patience.looks if rounds or self._missing(believed, listed) else 1
            if not doomed and clean >= enough and not waiting and not 0 < partial < patience.tries:
                self.listed = listed
                return
            if asked.clock() >= deadline or self.stop.is_set():
                self.listed = listed
                if waiting:
                    self.notes.append(
                        f"{self.vendor}: asked for {waiting[0].name} so lately that it may be listed yet; reap again."
                    )
                return
            if doomed:
                failures = 0 if self._delete(doomed, rounds, deadline) else failures + 1
                rounds += 1
            # what was refused gets longer and longer pauses; what only lingers in a list is looked for as before
            self._pause(failures if doomed else partial, deadline)

    def _waiting(self, believed: Iterable[Row], listed: Sequence[Resource]) -> list[Row]:
        books = {book.sweep: book for book in self._asked.books}
        missing = self._missing(believed, listed)
        return awaited(missing, books, self._asked.clock(), self._asked.patience.settle_seconds)

    def _missing(self, believed: Iterable[Row], listed: Sequence[Resource]) -> list[Row]:
        """What the ledger believes in and no list has shown; what was listed and is not any more was deleted."""
        with self._mutex:
            names = {one.name for one in listed} | {one.resource.name for one in self._seen.values()}
        return [row for row in believed if row.name not in names]

    def _list(self, deadline: float, before: Sequence[Resource]) -> list[Resource]:
        """What the API lists; of regions that don't answer what they had ``before``.

        Raises:
            _GivenUpError: it can't be had.
        """
        patience = self._asked.patience
        for attempt in range(1, patience.tries + 1):
            try:
                found, self.missing = list(self.client.find()), {}
                return found
            except CloudError as error:
                if isinstance(error, PartialListError) and error.answered:
                    self.missing = error.missing
                    there = {_key(one) for one in error.found}
                    return [*error.found, *(one for one in before if error.hides(one) and _key(one) not in there)]
                final = attempt == patience.tries or self._asked.clock() >= deadline or self.stop.is_set()
                if error.refusal is Refusal.ACCOUNT or final:
                    raise _GivenUpError(str(error)) from error
            self._pause(attempt, deadline)
        raise _GivenUpError("it was never asked")  # pragma: no cover - the loop returns or raises

    def _note_missing(self) -> None:
        """Say which regions were not looked into: a problem where something of ours may be, else a note."""
        notable = {
            region: error
            for region, error in self.missing.items()
            if error.refusal not in DENIED or self._asked.may_hold(self.vendor, region)
        }
        if notable:
            self.problem = f"{', '.join(notable)} did not say all that is there: {next(iter(notable.values()))}"
        elif self.missing:
            self.notes.append(
                f"{self.vendor}: the account may not look into {', '.join(self.missing)}; the books hold nothing there."
            )

    def _delete(self, doomed: Sequence[Verdict], round_number: int, deadline: float) -> bool:
        """Ask for each thing's end, in the order of :data:`PHASES`; what fails is tried again after the next list.

        Returns:
            Whether the vendor took all of it well.
        """
        patience = self._asked.patience
        # Sweeps of which something is there, or would not go: what it holds can't go either, and some clients would
        # wait for that for minutes. What hangs on a server goes with it, or is free after the next list.
        well = True
        stuck = {one.sweep for one in doomed if one.resource.kind == "server"}
        for phase in range(len(PHASES) + 1):
            now = [
                one
                for one in doomed
                if _phase(one.resource) == phase
                # later on nothing is left untried, whatever holds it
                and (one.resource.kind in FIRST or one.sweep not in stuck or round_number >= UNTRIED_ROUNDS)
            ]
            seconds = min(patience.delete_seconds, max(0.0, deadline - self._asked.clock()))
            taken = _each(now, self._delete_one, patience.deletes_at_once, seconds)
            refused = [one for one in now if one not in taken]
            stuck |= {one.sweep for one in refused}
            well = well and not refused
        return well

    def _delete_one(self, verdict: Verdict) -> bool:
        """Ask for the end of one thing; says whether the vendor took it well."""
        if self.stop.is_set():
            return False
        one = verdict.resource
        if _key(one) not in self._said:
            self._asked.report(f"{self.vendor}: destroying {one.kind} {one.name}{_where(one)}: {verdict.reason}.")
            self._say(one, "its deletion has not ended in time")
        try:
            self.client.delete(one)
        except CloudError as error:
            self._say(one, error.said)
        except Exception as error:  # noqa: BLE001 - one thing that can't be deleted must not keep the others alive
            self._say(one, f"{type(error).__name__}: {error}")
        else:
            self._say(one, "the API said that it is deleted, and lists it still")
            return True
        return False

    def _say(self, resource: Resource, words: str) -> None:
        with self._mutex:
            self._said[_key(resource)] = words

    def _pause(self, attempt: int, deadline: float) -> None:
        """Wait between two looks: longer and longer, and never in step with others."""
        patience = self._asked.patience
        longest = min(patience.longest_pause_seconds, patience.pause_seconds * 2 ** min(max(attempt - 1, 0), 10))
        seconds = longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads calls, guards nothing
        self.stop.wait(max(0.0, min(seconds, deadline - self._asked.clock())))


def _run_all(runs: Sequence[_VendorRun], patience: Patience, clock: Callable[[], float]) -> None:
    """Run all vendors side by side; one that does not come back in time is left to itself."""
    # Daemons: a client that hangs in a call must not keep the program from ending.
    for run in runs:
        threading.Thread(target=run.run, name=f"reap-{run.vendor}", daemon=True).start()
    deadline = clock() + patience.deadline_seconds + 2 * patience.longest_pause_seconds
    for run in runs:
        while not run.done.wait(min(1.0, max(0.05, deadline - clock()))):
            if clock() >= deadline:
                run.stop.set()
                run.problem = f"its API did not answer within {patience.deadline_seconds:.0f} s"
                break


def _each(items: Sequence[Item], work: Callable[[Item], bool], at_once: int, seconds: float) -> list[Item]:
    """Do ``work`` on all items, several at a time; what is not through after ``seconds`` is left to itself.

    Returns:
        The items on which it went well in time.
    """
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for one in items:
        waiting.put(one)
    well: list[Item] = []
    deadline = time.monotonic() + seconds

    def worker() -> None:
        with contextlib.suppress(queue.Empty):
            while time.monotonic() < deadline:
                one = waiting.get_nowait()
                if work(one):
                    well.append(one)

    # Daemons: a client that hangs in a call must not keep the program from ending.
    workers = [threading.Thread(target=worker, daemon=True) for _ in range(min(at_once, len(items)))]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join(max(0.0, deadline - time.monotonic()))
    return list(well)


def _key(resource: Resource) -> tuple[str, str]:
    return resource.kind, resource.id


def _phase(resource: Resource) -> int:
    return next((index for index, kinds in enumerate(PHASES) if resource.kind in kinds), len(PHASES))


def _where(resource: Resource) -> str:
    place = resource.zone or resource.region
    return f" in {place}" if place else ""


# ── afterwards ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Accounts:
    """Whether a vendor's list can say that something is gone: only the account that rented it can."""

    def __init__(self, home: Home, asked: _Asked, runs: Sequence[_VendorRun], *, changed: bool) -> None:
        self._home, self._asked, self._changed = home, asked, changed
        self._runs = {vendor_id(run.vendor): run for run in runs if run.believed is not None}
        self._books = {book.sweep: book for book in asked.books}
        self._shown: dict[str, dict[str, set[str]]] = {}
        owners = Owners(asked.books, asked.rows)
        for vendor, run in self._runs.items():
            by_sweep = self._shown.setdefault(vendor, {})
            for one in run.findings():
                sweep, job = owners.of(one.verdict.resource)
                by_sweep.setdefault(sweep, set()).add(job)
        self._marks: dict[str, str] = {}

    def another(self, vendor: str, sweep: str, job: str) -> bool:
        """Whether a job (or what a sweep's jobs share) was rented with a login whose account is not seen to be ours.

        Args:
            vendor: as the database calls it; one whose list is believed.
            sweep: its sweep; of one without a book nothing is known.
            job: the job.
        """
        book = self._books.get(sweep)
        if self._changed or book is None:
            return False
        theirs = {
            one.login
            for one in book.jobs
            if one.vendor == vendor and one.login and (one.job == job or job == SHARED_JOB)
        }
        if not theirs:
            return False
        shown = self._shown[vendor].get(sweep, ())
        return not theirs <= known_logins(book, vendor, self._mark(vendor), shown)

    def _mark(self, vendor: str) -> str:
        if vendor not in self._marks:
            client = self._runs[vendor].client
            try:
                self._marks[vendor] = login_mark.mark(self._home, cloud_of(vendor), self._asked.environment, client)
            except BenchctlError:
                self._marks[vendor] = ""  # nobody knows who we are
        return self._marks[vendor]

    def problems(self) -> dict[str, str]:
        """By vendor: which sweeps' things are not in its list, and would not be, alive or not."""
        looked = [
            book
            for book in self._asked.books
            if book.holder is not Holder.OTHER and self._asked.sweep in ("", book.sweep)
        ]
        names = {book.sweep for book in looked}
        found = {}
        for vendor, run in self._runs.items():
            alive = ((book.sweep, one) for book in looked for one in book.jobs if one.alive and one.vendor == vendor)
            missing = {(sweep, job.job) for sweep, job in alive}
            missing |= {(row.sweep, row.job) for row in self._asked.rows_of(run.vendor) if row.sweep in names}
            missing = {one for one in missing if one[1] not in self._shown[vendor].get(one[0], ())}
            sweeps = sorted({sweep for sweep, job in missing if self.another(vendor, sweep, job)})
            if sweeps:
                found[run.vendor] = (
                    f"{', '.join(sweeps)} was rented with another login, and nothing that this one lists says that "
                    f"both are of one account. Reap with that login; {login_mark.MEND}"
                )
        return found


def _bring_up_to_date(
    home: Home,
    engine: Engine,
    asked: _Asked,
    runs: Sequence[_VendorRun],
    ledger: Ledger | None,
    accounts: _Accounts,
) -> list[str]:
    """Note in the ledger what the vendors' lists say; sweeps that run elsewhere are left alone."""
    now = datetime.fromtimestamp(asked.clock(), UTC)
    books = {book.sweep: book for book in asked.books}
    owners = Owners(asked.books, asked.rows)
    notes: list[str] = []
    opened: dict[str, Ledger] = {ledger.sweep: ledger} if ledger is not None else {}
    for run in runs:
        if run.believed is None:
            continue
        listed = {one.name: one for one in run.believed}
        rows = [row for row in asked.rows_of(run.vendor) if not run.unseen(row.region)]
        # what a list has shown is not awaited: it is gone since
        shown = {one.verdict.resource.name for one in run.findings()}
        missing = [row for row in rows if row.name not in listed and row.name not in shown]
        waiting = awaited(missing, books, asked.clock(), asked.patience.settle_seconds)
        vendor = vendor_id(run.vendor)
        unknown = {row for row in missing if accounts.another(vendor, row.sweep, row.job)}
        noted = [row for row in rows if row not in waiting and row not in unknown and _ours_to_note(row.sweep, books)]
        _note_rows(engine, noted, listed, now)
        destroyed = {
            owners.of(one.verdict.resource)
            for one in run.findings()
            if one.outcome is Outcome.DESTROYED and one.verdict.resource.kind == "server"
        }
        there = {owners.of(one) for one in run.believed if one.kind == "server"}
        there |= {(row.sweep, row.job) for row in waiting}
        for book in asked.books:
            if book.holder is Holder.OTHER or (asked.sweep and book.sweep != asked.sweep):
                continue
            for job in book.jobs:
                owner = (book.sweep, job.job)
                if job.vendor != vendor or not job.alive or owner in there or accounts.another(vendor, *owner):
                    continue
                if run.unseen(job.region):
                    continue
                try:
                    if book.sweep not in opened:
                        opened[book.sweep] = Ledger.open(home, engine, book.sweep)
                    newest = opened[book.sweep].job(job.job)
                    loss = after_loss(newest, now.isoformat(timespec="milliseconds"), destroyed=owner in destroyed)
                    opened[book.sweep].update(job.job, **loss)
                    if book.holder is Holder.NOBODY:
                        _still_silent(opened[book.sweep].job_folder(job.job), asked.clock() - book.quiet_seconds)
                except (BenchctlError, KeyError) as error:
                    notes.append(f"The book of {book.sweep} could not be brought up to date: {error}")
    return notes


def _still_silent(job_folder: Path, since: float) -> None:
    """What the reaper notes of a job is no sign of its sweep's life: the grace goes on from where it was."""
    with contextlib.suppress(OSError):
        os.utime(job_folder / JOB_FILE, (since, since))


def _ours_to_note(sweep: str, books: Mapping[str, Book]) -> bool:
    """Whether the rows of a sweep may be written: its book is lost, or not in another's hands."""
    return sweep not in books or books[sweep].holder is not Holder.OTHER


def _note_rows(engine: Engine, rows: Iterable[Row], listed: Mapping[str, Resource], now: datetime) -> None:
    from benchctl.db.records import record
    from benchctl.db.schema import Instance

    changed = []
    for row in rows:
        there = listed.get(row.name)
        if there is None:
            changed.append(Instance(instance_id=row.name, state="gone", gone_at=now))
        elif row.state == "asked":
            found = Instance(instance_id=row.name, state="alive", cloud_id=there.id)
            if there.address:
                found.address = there.address
            changed.append(found)
    if changed:
        record(engine, *changed)


class _States:
    """Pulumi's state of what the reaper looks at: what runs of killed controllers are at, and stacks of nothing."""

    def __init__(self, home: Home, asked: _Asked, backend: str, stacks: Callable[[str], Stacks | None] | None) -> None:
        self.removed: list[str] = []
        self.notes: list[str] = []
        self._home, self._asked = home, asked
        self._owners = Owners(asked.books, asked.rows)
        self._books = {
            book.sweep: book
            for book in asked.books
            if book.holder is not Holder.OTHER and (not asked.sweep or book.sweep == asked.sweep)
        }
        self._states: list[tuple[Stacks, list[str]]] = []
        self._seconds = STACK_SECONDS
        if asked.dry_run or not self._books:
            return
        for one in sorted({backend, *(book.backend for book in self._books.values())}):
            try:
                found = stacks(one) if stacks is not None else _stacks(home, one, asked.environment)
                if found is not None:
                    self._states.append((found, found.names()))
            except BenchctlError as error:
                self.notes.append(f"Pulumi's state was left as it is: {error}")

    def end_strays(self) -> tuple[Row, ...]:
        """End the engines and plugins that killed controllers left: they would go on making servers.

        Returns:
            The rows of the ledger; what these were at counts as asked for just now.
        """
        settled: list[tuple[str, str]] = []

        def settle(item: tuple[Stacks, str, tuple[str, str]]) -> bool:
            states, stack, owner = item
            try:
                if states.running(stack):
                    self._asked.report(f"Ending what a killed controller left at work on {stack}.")
                    settled.append(owner)
                    states.settle(stack)
            except BenchctlError as error:
                self.notes.append(str(error))
                return False
            return True

        began = time.monotonic()
        _each([(states, stack, (s, j)) for states, stack, s, j, _ in self._forsaken()], settle, 8, self._seconds)
        self._seconds -= time.monotonic() - began
        now = self._asked.clock()
        return tuple(replace(row, asked_at=now) if (row.sweep, row.job) in settled else row for row in self._asked.rows)

    def remove(self, runs: Sequence[_VendorRun], accounts: _Accounts) -> None:
        """Remove the stacks of what is not there any more; the vendors' lists say what is not."""
        listed = {vendor_id(run.vendor): run.believed for run in runs if run.believed is not None}
        there = {self._owners.of(one) for resources in listed.values() for one in resources}
        there |= {owner for run in runs for owner in self._unseen(run)}

        def remove(item: tuple[Stacks, str, str, str]) -> bool:
            states, stack, sweep, vendor = item
            self._asked.report(f"{cloud_of(vendor).name}: removing the state of {stack}, of which nothing is left.")
            for tries_left in reversed(range(STACK_TRIES)):
                try:
                    states.destroy(
                        stack,
                        environment=cloud_of(vendor).engine_environment(self._asked.environment),
                        log=self._home.sweeps / sweep / "reap.log",
                    )
                except BenchctlError as error:
                    if not tries_left:
                        self.notes.append(f"The state of {stack} could not be removed: {error}")
                else:
                    self.removed.append(stack)
                    return True
            return False

        _each(
            [
                (states, stack, sweep, vendor)
                for states, stack, sweep, job, vendor in self._forsaken()
                if vendor in listed and (sweep, job) not in there and not accounts.another(vendor, sweep, job)
            ],
            remove,
            8,
            self._seconds,
        )

    def _unseen(self, run: _VendorRun) -> Iterator[tuple[str, str]]:
        """Whose things may be in regions that did not answer."""
        for row in self._asked.rows_of(run.vendor):
            if run.unseen(row.region):
                yield self._owners.by_name(row.name)
        for book in self._asked.books:
            for job in book.jobs:
                if job.alive and job.vendor == vendor_id(run.vendor) and run.unseen(job.region):
                    yield book.sweep, job.job

    def _forsaken(self) -> Iterator[tuple[Stacks, str, str, str, str]]:
        """The stacks that nobody will use: whose, and of which job and vendor."""
        for states, names in self._states:
            for stack in names:
                sweep, label, vendor = self._owners.by_stack(stack)
                book = self._books.get(sweep)
                if book is None:
                    continue
                orphaned = (
                    book.holder is Holder.NOBODY
                    and self._asked.orphans
                    and book.quiet_seconds >= self._asked.grace_seconds
                )
                if orphaned or over(book, label, book.job(label), vendor):
                    yield states, stack, sweep, label, vendor


def _stacks(home: Home, backend: str, environment: Mapping[str, str]) -> Stacks | None:
    """Pulumi's stacks; nothing where there never were any."""
    if not backend and not (home.state / "pulumi").is_dir() and not environment.get("PULUMI_BACKEND_URL"):
        return None
    from benchctl.clouds.stacks import Stacks

    return Stacks(home, backend=backend, environment=environment)


def _tell(result: ReapReport, asked: _Asked, hook: str, report: Callable[[str], None], own: str) -> None:
    """Tell the hooks of the leak: each once, with the leaks of the sweeps that name it."""
    # a sweep tells its own hook itself
    books = [book for book in asked.books if book.hook and book.sweep != own]
    by_sweep = {book.sweep: book.hook for book in books}
    named = {one for one in (hook, *by_sweep.values()) if one}
    for one in sorted(named):
        leaks = [leak for leak in result.leaks if one == hook or by_sweep.get(leak.verdict.sweep) == one]
        if not leaks and not (
            result.problems and (one == hook or any(_concerned(result, book) for book in books if book.hook == one))
        ):
            continue
        sweeps = sorted({leak.verdict.sweep for leak in leaks if leak.verdict.sweep})
        problem = hooks.tell(one, hooks.LEAK, hooks.leak_facts(sweeps, map(plain, leaks), result.problems))
        if problem:
            report(problem)


def _concerned(result: ReapReport, book: Book) -> bool:
    """Whether a vendor that could not be asked may hold something of this sweep."""
    vendors = {vendor_id(name) for name in result.problems}
    return any(job.alive and job.vendor in vendors for job in book.jobs)


def plain(finding: Finding) -> dict[str, Any]:
    """A finding as one flat object."""
    verdict, one = finding.verdict, finding.verdict.resource
    return {
        "vendor": one.vendor,
        "kind": one.kind,
        "name": one.name,
        "id": one.id,
        "region": one.region,
        "zone": one.zone,
        "state": one.state,
        "sweep": verdict.sweep,
        "job": verdict.job,
        "expires_at": (
            datetime.fromtimestamp(verdict.expires_at, UTC).isoformat(timespec="seconds")
            if verdict.expires_at is not None
            else None
        ),
        "price_per_hour": verdict.price_per_hour,
        "currency": verdict.currency,
        "decision": str(verdict.decision),
        "reason": verdict.reason,
        "outcome": str(finding.outcome),
        "problem": finding.problem,
    }
