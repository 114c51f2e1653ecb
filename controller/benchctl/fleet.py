"""Where a sweep's servers come from and go to: one's own are simply there, rented ones come and go in threads.

The pipeline asks what is ready, says what it no longer needs, and never waits for a vendor. At the end of its ``with``
block everything that was rented is given back, whatever ended the block.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol, Self

from benchctl.budget import WARN_AT, may_start, raise_it, used_fraction
from benchctl.clouds.cloud import cloud_of
from benchctl.clouds.rental import GaveUpError, LeakError
from benchctl.errors import BenchctlError, told
from benchctl.hooks import BUDGET, LEAK, leak_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from benchctl.clouds.rental import Rental
    from benchctl.ledger import JobState, Ledger

ENGINES = 4
"""How many of Pulumi's engines make servers at once; each takes most of a core. Two more are kept for destroying."""

RETURNS = 4
"""How many servers of one vendor are given back at once."""

LOOK_AGAIN_SECONDS = 180.0
"""How long between two looks whether this machine's address has changed, while a server is out of reach."""


class Fleet(Protocol):
    """The servers of a sweep."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give everything back, and wait until that is done."""
        ...

    def take(self, jobs: Sequence[JobState], *, standing: bool = False) -> None:
        """These jobs want a server, in this order; ``standing``: theirs is there already."""
        ...

    def hold(self, job: JobState) -> None:
        """A job uses its server already."""
        ...

    def advance(self) -> None:
        """Start what may start now."""
        ...

    def ready(self) -> list[JobState]:
        """Jobs whose server came up since the last call."""
        ...

    def failed(self) -> list[tuple[JobState, str]]:
        """Jobs that got no server since the last call, and why."""
        ...

    def release(self, job: JobState) -> None:
        """A job needs its server no longer."""
        ...

    @property
    def busy(self) -> bool:
        """Whether anything may still become ready, or is being given back."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait so long, or until something changed."""
        ...

    def lost(self, job: JobState) -> str:
        """Why a server that does not answer will not answer again; empty where it may, or nobody knows."""
        ...

    def let_in(self, jobs: Sequence[JobState]) -> None:
        """See to it that these jobs' servers, which stand already, let in this machine; how that went is said."""
        ...

    def out_of_reach(self, job: JobState) -> None:
        """A server does not answer: now and then it is seen to, in a thread, that all in use let in this machine."""
        ...


class OwnServers:
    """Servers that are there already, and stay."""

    def __init__(self, wait: Callable[[float], object]) -> None:
        """``wait`` waits so many seconds, or until the user asks for the end."""
        self._wait = wait
        self._ready: list[JobState] = []

    def __enter__(self) -> Self:
        """See :class:`Fleet`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See :class:`Fleet`."""

    def take(self, jobs: Sequence[JobState], *, standing: bool = False) -> None:  # noqa: ARG002
        """See :class:`Fleet`."""
        self._ready += jobs

    def hold(self, job: JobState) -> None:
        """See :class:`Fleet`."""

    def advance(self) -> None:
        """See :class:`Fleet`."""

    def ready(self) -> list[JobState]:
        """See :class:`Fleet`."""
        ready, self._ready = self._ready, []
        return ready

    def failed(self) -> list[tuple[JobState, str]]:
        """See :class:`Fleet`."""
        return []

    def release(self, job: JobState) -> None:
        """See :class:`Fleet`."""

    @property
    def busy(self) -> bool:
        """See :class:`Fleet`."""
        return bool(self._ready)

    def wait(self, seconds: float) -> None:
        """See :class:`Fleet`."""
        self._wait(seconds)

    def lost(self, job: JobState) -> str:  # noqa: ARG002
        """See :class:`Fleet`."""
        return ""

    def let_in(self, jobs: Sequence[JobState]) -> None:
        """See :class:`Fleet`."""

    def out_of_reach(self, job: JobState) -> None:
        """See :class:`Fleet`."""


class RentedServers:
    """Servers that are rented, some at once; servers of one's own among the jobs pass through."""

    def __init__(
        self,
        ledger: Ledger,
        rental: Rental,
        *,
        budget: float | None,
        say: Callable[[str], None],
        warn: Callable[[str, dict[str, object]], None],
        cancelled: threading.Event,
    ) -> None:
        """Rent for the sweep of ``ledger``.

        Args:
            ledger: its book.
            rental: gets and gives back one server.
            budget: the most that the sweep may cost, in the currency of the jobs' ``budget_per_hour``; none for no
                limit.
            say: tells people what happens.
            warn: told of an event by its name (``budget-80-percent``, ``leak``) and facts.
            cancelled: set when the user asked for the end.
        """
        self._ledger, self._rental, self._budget = ledger, rental, budget
        self._say, self._warn, self._cancelled = say, warn, cancelled
        self._waiting: list[str] = []
        self._renting: dict[str, Future[JobState]] = {}
        self._using: set[str] = set()
        self._leaked: set[str] = set()
        self._returning: dict[str, Future[JobState]] = {}
        self._ready: list[JobState] = []
        self._failed: list[tuple[JobState, str]] = []
        self._stopped_vendors: dict[str, str] = {}
        self._warned = False
        self._gone = 0
        self._postponed: dict[str, int] = {}
        self._said_to_wait: set[str] = set()
        self._changed = threading.Event()
        # a thread for each server that may exist: one that waits for SSH, or until it may ask again, keeps no other
        self._up = ThreadPoolExecutor(max(1, ledger.request.concurrency), thread_name_prefix="rent")
        # a vendor that takes long to destroy must not keep those of others alive
        self._down: dict[str, ThreadPoolExecutor] = {}
        self._letting_in: Future[None] | None = None
        self._look_again_at = 0.0
        self._let = ThreadPoolExecutor(1, thread_name_prefix="let-in")

    def __enter__(self) -> Self:
        """See :class:`Fleet`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See :class:`Fleet`."""
        self._waiting.clear()
        if self._renting:
            # a create that is under way is ended by the engine when the user asked for it; else it comes up and goes
            self._say(f"Servers being made: {len(self._renting)}. They are waited for, and destroyed.")
        for name, future in list(self._renting.items()):
            future.cancel()
            self._settle_rent(name, future)
        for job in (*self._ready, *(self._ledger.job(name) for name in self._using)):
            self.release(job)
        for job in self._ledger.jobs:
            if job.alive and job.job not in self._returning:
                self.release(job)
        if self._returning:
            self._say(f"Servers being destroyed: {len(self._returning)}.")
        for name, returning in list(self._returning.items()):
            self._settle_return(name, returning)
        self._up.shutdown()
        for pool in (*self._down.values(), self._let):
            pool.shutdown()

    def take(self, jobs: Sequence[JobState], *, standing: bool = False) -> None:
        """See :class:`Fleet`."""
        for job in jobs:
            if not job.rented:
                self._ready.append(job)
            elif standing:
                self._using.add(job.job)
                self._ready.append(job)
            else:
                self._waiting.append(job.job)
                # of an earlier start: whatever became of it, what follows begins with nothing
                self.release(job)

    def hold(self, job: JobState) -> None:
        """A job uses its server already."""
        if job.rented:
            self._using.add(job.job)

    def advance(self) -> None:
        """See :class:`Fleet`."""
        for name, future in [(name, one) for name, one in self._renting.items() if one.done()]:
            self._settle_rent(name, future)
        for name, returning in [(name, one) for name, one in self._returning.items() if one.done()]:
            self._settle_return(name, returning)
        self._warn_of_budget()
        if self._cancelled.is_set():
            return
        for job in [self._ledger.job(name) for name in self._waiting]:
            if job.vendor in self._stopped_vendors:
                self._waiting.remove(job.job)
                self._failed.append((job, self._stopped_vendors[job.vendor]))
        if not self._full:
            self._start_in_turn()
        self._give_up_if_broke()

    def _start_in_turn(self) -> None:
        """Start what may start, in the order of the row, until there is no room for any."""
        there = Counter(self._ledger.job(name).vendor for name in self._alive)
        able = [job for job in map(self._ledger.job, self._waiting) if self._could_start(job, there)]
        wanting = Counter(job.vendor for job in able)
        for job in able:
            if self._room_for(job, there, wanting):
                # the expiry is noted before the next job is looked at, so that its money is committed
                self._waiting.remove(job.job)
                there[job.vendor] += 1
                wanting[job.vendor] -= 1
                self._renting[job.job] = self._submit(self._up, self._rent, job.job)
                if self._full:
                    break

    @property
    def _alive(self) -> list[str]:
        return [*self._renting, *self._using, *self._returning]

    def _busy_engines(self) -> Counter[str]:
        """How many engines each vendor has that make a server."""
        idle = self._rental.idle
        return Counter(self._ledger.job(name).vendor for name in self._renting if name not in idle)

    @property
    def _full(self) -> bool:
        """Whether nothing may start, whatever it is."""
        return len(self._alive) >= self._ledger.request.concurrency or self._busy_engines().total() >= ENGINES

    def _room_for(self, job: JobState, there: Counter[str], wanting: Counter[str]) -> bool:
        """Whether a job may start; ``there`` is how many servers each vendor has, ``wanting`` how many could start."""
        return self._could_start(job, there) and self._engine_for(job.vendor, wanting) and self._affordable(job)

    def _could_start(self, job: JobState, there: Counter[str]) -> bool:
        """Whether a job may start where there is an engine, and money."""
        if job.job in self._returning or self._postponed.get(job.job) == self._gone:
            return False
        return there[job.vendor] < self._ledger.request.per_vendor and not self._rental.held(job)

    def _engine_for(self, vendor: str, wanting: Counter[str]) -> bool:
        """Whether an engine is free for a vendor; one is kept for each other that has none and wants one."""
        busy = self._busy_engines()
        if not busy[vendor]:
            return True
        without = sum(1 for other, count in wanting.items() if count and not busy[other])
        return ENGINES - busy.total() > without

    def _affordable(self, job: JobState) -> bool:
        if self._budget is None:
            return True
        now = datetime.now(UTC)
        jobs = [
            # those that were told to start and have not noted it yet count whole, in their dearest place
            _as_started(one, now) if one.job in self._renting
            # a server that the job has from before the sweep was resumed goes before there is another
            else replace(one, gone_at=now.isoformat()) if one.job == job.job and one.alive
            else one
            for one in self._ledger.jobs
        ]  # fmt: skip
        return may_start(job, jobs, self._budget, now)

    def _give_up_if_broke(self) -> None:
        """Where nothing is alive that could turn out cheaper, what can't be paid now can't be paid later.

        A server that could not be destroyed is none of these: what it costs is not known to end.
        """
        if self._renting or self._using or self._returning or self._ready:
            return
        for name in list(self._waiting):
            job = self._ledger.job(name)
            if self._postponed.get(name) == self._gone or not self._affordable(job):
                self._waiting.remove(name)
                self._failed.append((job, f"the budget does not cover it: {raise_it(self._ledger.sweep)}"))

    def _warn_of_budget(self) -> None:
        if self._budget and not self._warned:
            used = used_fraction(self._ledger.jobs, self._budget, datetime.now(UTC))
            if used >= WARN_AT:
                self._warned = True
                self._say(f"{used:.0%} of the budget is spent or committed.")
                self._warn(BUDGET, {"sweep": self._ledger.sweep, "used_fraction": round(used, 4)})

    def ready(self) -> list[JobState]:
        """See :class:`Fleet`."""
        ready, self._ready = self._ready, []
        return ready

    def failed(self) -> list[tuple[JobState, str]]:
        """See :class:`Fleet`."""
        failed, self._failed = self._failed, []
        return failed

    def release(self, job: JobState) -> None:
        """See :class:`Fleet`."""
        self._using.discard(job.job)
        now = self._ledger.job(job.job)
        if now.alive and job.job not in self._returning:
            if now.vendor not in self._down:
                self._down[now.vendor] = ThreadPoolExecutor(RETURNS, thread_name_prefix="give-back")
            self._returning[job.job] = self._submit(self._down[now.vendor], self._rental.give_back, job.job)

    @property
    def busy(self) -> bool:
        """See :class:`Fleet`."""
        return bool(self._waiting or self._renting or self._returning or self._ready or self._failed)

    def wait(self, seconds: float) -> None:
        """See :class:`Fleet`."""
        deadline = time.monotonic() + seconds
        while not self._cancelled.is_set():
            left = deadline - time.monotonic()
            # in short pieces, because a signal that asks for the end does not set this event
            if left <= 0 or self._changed.wait(min(left, 0.25)):
                break
        self._changed.clear()

    def lost(self, job: JobState) -> str:
        """See :class:`Fleet`."""
        if not job.rented:
            return ""
        try:
            there = self._rental.exists(job)
        except BenchctlError:
            return ""
        if there:
            return ""
        return "the vendor took the spot server back" if job.allocation == "SPOT" else "the vendor lists it no longer"

    def let_in(self, jobs: Sequence[JobState]) -> None:
        """See :class:`Fleet`."""
        self._let_in([job for job in jobs if job.rented], look_again=False)

    def out_of_reach(self, job: JobState) -> None:
        """See :class:`Fleet`."""
        now = time.monotonic()
        busy = self._letting_in is not None and not self._letting_in.done()
        if not job.rented or busy or now < self._look_again_at or self._cancelled.is_set():
            return
        self._look_again_at = now + LOOK_AGAIN_SECONDS
        jobs = [self._ledger.job(name) for name in self._using]
        self._letting_in = self._let.submit(self._let_in, jobs, look_again=True)

    def _let_in(self, jobs: Sequence[JobState], *, look_again: bool) -> None:
        try:
            self._rental.let_in(jobs, look_again=look_again)
        except Exception as error:  # noqa: BLE001 - a server out of reach is borne, whatever the reason
            self._say(f"Whether the servers let in this machine could not be seen to: {told(error)}")

    def _rent(self, name: str) -> JobState:
        job = self._ledger.job(name)
        if job.alive:
            # of an earlier start: whatever became of it, what follows begins with nothing
            self._rental.give_back(name, stage=job.stage)
        return self._rental.rent(name)

    def _submit(self, pool: ThreadPoolExecutor, work: Callable[[str], JobState], name: str) -> Future[JobState]:
        future = pool.submit(work, name)
        future.add_done_callback(lambda _: self._changed.set())
        return future

    def _settle_rent(self, name: str, future: Future[JobState]) -> None:
        self._renting.pop(name, None)
        if future.cancelled():
            return
        try:
            job = future.result()
        except GaveUpError as error:
            job = self._ledger.job(name)
            if error.vendor_stopped:
                self._stopped_vendors[job.vendor] = error.problem
            if error.later:
                self._postpone(job, error)
            elif not error.cancelled:
                self._gone += 1
                self._failed.append((job, error.problem))
        except LeakError as error:
            self._gone += 1
            self._leak(name, error)
            self._failed.append((self._ledger.job(name), str(error)))
        except Exception as error:  # noqa: BLE001 - whatever befalls one job, the servers of the others are given back
            self._gone += 1
            self._failed.append((self._ledger.job(name), told(error)))
            self.release(self._ledger.job(name))
        else:
            self._using.add(name)
            self._ready.append(job)

    def _postpone(self, job: JobState, why: GaveUpError) -> None:
        """Let a job wait, in its place in the row: for money until a server is gone, else as the rental says."""
        if job.job not in self._said_to_wait:
            self._said_to_wait.add(job.job)
            self._say(f"{job.job}: {why.problem}")
        if why.money:
            self._postponed[job.job] = self._gone
        rank = {one.job: number for number, one in enumerate(self._ledger.jobs)}
        before = sum(1 for name in self._waiting if rank[name] < rank[job.job])
        self._waiting.insert(before, job.job)

    def _settle_return(self, name: str, future: Future[JobState]) -> None:
        self._returning.pop(name, None)
        self._gone += 1
        try:
            try:
                future.result()
            except LeakError as error:
                self._leak(name, error)
                if name in self._waiting:
                    self._waiting.remove(name)
                    self._failed.append((self._ledger.job(name), str(error)))
                # what was measured is measured, and needs no new server; that the old one may live the error tells
                measured = self._ledger.job(name).status == "finished"
                self._ledger.update(name, status="finished" if measured else "failed", error=str(error))
        except Exception as error:  # noqa: BLE001 - a full disk as well; the servers of the others are given back
            self._say(f"{name}: {told(error)}")

    def _leak(self, name: str, error: LeakError) -> None:
        if name in self._leaked:
            return  # giving back is tried again and again; once is enough to call somebody
        self._leaked.add(name)
        self._say(f"LEAK? {name}: {error}")
        left = [{"vendor": one.vendor, "kind": one.kind, "name": one.name, "id": one.id} for one in error.left]
        not_asked = {} if left else {cloud_of(self._ledger.job(name).vendor).name: error.problem}
        facts = leak_facts([self._ledger.sweep], left, not_asked)
        self._warn(LEAK, {**facts, "job": name, "problem": str(error)})


def _as_started(job: JobState, now: datetime) -> JobState:
    if job.alive:
        return job
    prices = [one["budget_per_hour"] for one in job.places if one.get("budget_per_hour") is not None]
    return replace(
        job,
        launched_at=now.isoformat(),
        expires_at=(now + timedelta(seconds=job.lifetime_seconds)).isoformat(),
        gone_at=None,
        budget_per_hour=max(prices, default=job.budget_per_hour),
    )
