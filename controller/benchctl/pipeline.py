"""The stages of a sweep, in the order in which its data flows.

::

    plan ──► provision ──► prepare ──► bench ──► collect ──► ingest ──► destroy ──► report
    jobs     Pulumi, or    Ansible     Ansible   raw files   SQL        and the     what came of it
             nothing       role        module    in a lake   rows       proof

:meth:`Sweep.run` is the table of contents. Every stage notes in the ledger what it is about to do and what came of it,
so that a sweep that was cut anywhere goes on with the same call. Measurements run by themselves: starting one that
runs already is never needed, and starting one that was cut goes on where it was.

Each job walks by itself. Servers come up and go down in threads of the fleet, hosts that came up meanwhile are prepared
and started together in a thread of their own, and one loop looks at all measurements at once.
"""

from __future__ import annotations

import contextlib
import json
import platform
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_bench_core import session, state
from llama_bench_core.state import read_increment
from llama_bench_core.suite import model_to_dict
from llama_bench_core.values import OUTCOME_MEANINGS, Outcome

from benchctl import __version__, hooks, lake
from benchctl.errors import BenchctlError, PlaybookError, SweepBusyError, UsageError
from benchctl.fleet import OwnServers, RentedServers
from benchctl.inventory import host_variables
from benchctl.ledger import (
    BENCHING,
    COLLECTING,
    DESTROYING,
    DONE,
    GONE,
    INGESTING,
    PLANNED,
    PREPARING,
    PROVISIONING,
    READY,
    JobState,
    Ledger,
    jobs_of,
    read_book,
    sweep_names,
)
from benchctl.plan import parse_budget
from benchctl.playbook import FORKS
from benchctl.poller import LocalPoller, PlaybookPoller, Target
from benchctl.rented_plan import END_SECONDS, session_left
from benchctl.request import LOCAL
from benchctl.servers import models_folder
from benchctl.watch import ENDED, Diagnosis, Ended, Watcher, history_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from llama_bench_core.state import Increment
    from sqlalchemy import Engine

    from benchctl.fleet import Fleet
    from benchctl.home import Home
    from benchctl.playbook import Playbook, PlaybookResult
    from benchctl.poller import Poller
    from benchctl.request import SweepRequest
    from benchctl.view import View

STOP_SECONDS = 4.0
"""How long servers get to stop and hand over what is left; what they don't stays there for ``--resume``."""

RENTED_STOP_SECONDS = 45.0
"""How long rented ones get, which are destroyed after it."""

ADVANCE_SECONDS = 0.5
"""How often, in the middle of a look, servers are made and given back."""

LAST_LOOK_SECONDS = 1.0
"""How long to look for the last words of a measurement on this machine."""

START_SECONDS = 2.0
"""How long a start that is under way may go on once the user asked for the end."""

FIRST_SIGN_SECONDS = 1.5
"""How long to wait for a measurement of this machine to show itself before it is taken for not started."""

DESTROY_SECONDS = END_SECONDS / 2
"""So long before its expiry a rented server is given back, whatever it is at; fetching results comes before that."""

LEAST_LIFE_SECONDS = 120.0
"""With less than this left before its expiry a rented server is not taken up again, but given back."""

_SAID_LENGTH = 200
"""How much of what Ansible says of a killed process is passed on, characters; the end of it tells most."""

REMOTE_HOME = "{{ llama_bench_home | default('~/.local/share/llama_bench') }}"

JUDGED = (Outcome.OK, Outcome.BELOW_THRESHOLD, Outcome.PREDICTED_SKIP)
"""Outcomes that say something of the server. A job with none of them failed, whatever each scenario's reason."""


@dataclass(frozen=True)
class Report:
    """What came of a sweep.

    Attributes:
        sweep: its identifier.
        status: ``finished``, ``stopped`` or ``failed`` (some job failed).
        jobs: its jobs.
        outcomes: scenarios by outcome, over all jobs.
        noisy: number of measurements that broke a limit of noise.
        database: where the rows are.
        lake: the folder of the raw files.
    """

    sweep: str
    status: str
    jobs: tuple[JobState, ...]
    outcomes: Mapping[str, int]
    noisy: int
    database: str
    lake: Path


class Sweep:
    """One sweep under way."""

    def __init__(
        self,
        ledger: Ledger,
        engine: Engine,
        llama_bench: Path,
        *,
        playbook: Playbook,
        view: View,
        cancelled: threading.Event,
    ) -> None:
        """Take up the sweep whose book is ``ledger``.

        Args:
            ledger: its book.
            engine: the database.
            llama_bench: path of llama-bench on this machine.
            playbook: runs Ansible.
            view: shows what happens.
            cancelled: set it to end the sweep; what is measured is kept.
        """
        self.ledger, self.home, self.request = ledger, ledger.home, ledger.request
        self._engine, self._llama_bench, self._playbook, self._view = engine, llama_bench, playbook, view
        self._cancelled = cancelled
        self._poller = self._make_poller()
        self._watcher = Watcher(
            self._poller,
            view,
            restart=lambda job: self._start([job])[0],
            diagnose=self._diagnose,
            keep_progress=self._keep_progress,
            lost=lambda job: self._fleet.lost(job),
            overdue=self._overdue,
            out_of_reach=lambda job: self._fleet.out_of_reach(job),
            heard=self._heard,
            patience_seconds=self.request.patience_seconds,
        )
        self._fleet: Fleet = self._make_fleet()
        self._beginning: Future[None] | None = None
        self._beginner = ThreadPoolExecutor(1, thread_name_prefix="begin")
        self._came_up: deque[JobState] = deque()
        self._begun: deque[JobState] = deque()
        self._unneeded: deque[JobState] = deque()
        self._plays: dict[str, threading.Lock] = {}
        self._next_advance = 0.0

    # ── the stages ──────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> Report:
        """Everything between the plan and the report.

        Raises:
            BenchctlError: what concerns the sweep as a whole: Ansible, the lake or the database can't be used. A job
                that fails is in the report instead.
        """
        with _held(self.ledger.folder / "lock", self.ledger.sweep, "goes on in another process now"):
            self.ledger.reopen()
            try:
                with self._beginner:
                    return self._stages()
            except BenchctlError as error:
                with contextlib.suppress(BenchctlError):
                    self.ledger.close("failed", str(error))
                raise

    def _stages(self) -> Report:
        self._sweep_away()
        with self._fleet as fleet:
            for job in self._attach(self._open_jobs()):
                self._watch(job, just_started=False)
            next_look = 0.0
            while not self._cancelled.is_set() and (fleet.busy or self._beginning or self._watcher.watched):
                fleet.advance()
                for job, problem in fleet.failed():
                    self._without_server(job, problem)
                self._begin(fleet.ready())
                now = time.monotonic()
                if self._watcher.watched and now >= next_look:
                    for ended in self._watcher.look():
                        self._ingest(ended)
                        fleet.release(ended.job)
                    next_look = time.monotonic() + self._poller.interval_seconds
                self._pause(next_look)
            if self._cancelled.is_set():
                for ended in self._stop():
                    self._ingest(ended)
        self._sweep_away(ending=True)
        return self._report()

    def _without_server(self, job: JobState, problem: str) -> None:
        """A job that got no server: nothing of its tries is left, or the fleet has said so."""
        job = self._fail(job, problem)
        if job.attempt and not job.alive:
            self.ledger.update(job.job, stage=GONE)

    def _pause(self, next_look: float) -> None:
        """Wait for the next look or for what happens first; not at all where there is something to do."""
        if self._watcher.watched:
            self._fleet.wait(max(0.0, next_look - time.monotonic()))
        elif self._fleet.busy or self._beginning:
            self._fleet.wait(self._poller.interval_seconds)

    def _attach(self, jobs: Sequence[JobState]) -> list[JobState]:
        """Which jobs' measurements run (or have ended) without our doing; the fleet gets the others.

        A rented server that is silent, and that the vendor does not say is gone, is watched as in the middle of a
        sweep: it may be measuring, and what it is at is asked as soon as it answers.
        """
        done = [job for job in jobs if job.status == "finished"]
        jobs = [job for job in jobs if job.status != "finished"]
        seen_before = [job for job in jobs if self._seen_before(job)]
        if seen_before:
            self._fleet.let_in(seen_before)
        looks = self._poller.poll([self._target(job) for job in seen_before]) if seen_before else {}
        going, standing, silent, waiting, judged = [], [], [], [], []
        for job in jobs:
            look = looks.get(job.job)
            increment = look.increment if look else None
            if increment is not None and _goes_on(increment):
                going.append(self.ledger.update(job.job, status="running", stage=COLLECTING, error=None, restarts=0))
            elif increment is not None and job.rented:
                standing.append(job)
            elif job.rented and self._judged(job):
                judged.append(job)
            elif job.rented and self._seen_before(job) and not self._gone(job):
                silent.append(self.ledger.update(job.job, status="running", error=None, restarts=0))
            else:
                waiting.append(self._from_the_start(job))
        for job in (*going, *standing, *silent):
            self._fleet.hold(job)
        for job in silent:
            self._watcher.add(job, self._folder(job), self._state_dir(job), just_started=False, unheard=True)
        self._fleet.take(standing, standing=True)
        self._fleet.take(waiting)
        for job in done:  # measured, and its server is to be given back still
            self._fleet.release(self.ledger.update(job.job, error=None))
        for job in judged:
            self._without_new_server(job)
        return going

    def _gone(self, job: JobState) -> bool:
        """Whether the vendor says that the server of a job is gone; it is told."""
        lost = self._fleet.lost(job)
        if lost:
            self._view.say(f"{job.job}: the server is gone: {lost}. Another one is rented.")
        return bool(lost)

    def _heard(self, job: JobState, increment: Increment) -> bool:
        """Whether a server that was silent when the sweep was resumed measures; else the fleet begins with it."""
        if self._cancelled.is_set():
            return True  # it ends as all others do
        if not _goes_on(increment):
            self._fleet.take([job], standing=True)
            return False
        self.ledger.update(job.job, stage=COLLECTING)
        return True

    def _judged(self, job: JobState) -> bool:
        """Whether each scenario of a job has its verdict at home: a new server would find nothing to measure."""
        known = {(one.get("model"), one.get("task"), one.get("tokens")) for one in _outcomes(self._folder(job))}
        suite, models = self.request.suite, self.request.models
        return bool(known) and all(
            (model.name, one.task, one.tokens) in known for model in models for one in suite.scenarios
        )

    def _without_new_server(self, job: JobState) -> None:
        """End a job by what is at home; a server that it has still is given back."""
        self._view.say(f"{job.job}: each of its scenarios has a verdict already, so that no server is rented for it.")
        self._ingest(Ended(job, "finished", ""))
        if job.alive:
            self._fleet.release(job)
        else:
            self.ledger.update(job.job, stage=GONE)

    @staticmethod
    def _seen_before(job: JobState) -> bool:
        """Whether there is, or may be, something of a measurement on the job's host."""
        if not job.rented:
            return job.stage not in (PLANNED, PREPARING)
        if not (job.alive and job.address and job.expires_at) or job.stage in (PROVISIONING, DESTROYING):
            return False
        left = datetime.fromisoformat(job.expires_at) - datetime.now(UTC)
        return left.total_seconds() > LEAST_LIFE_SECONDS

    def _from_the_start(self, job: JobState) -> JobState:
        """A job that gets a new server; what was measured on an earlier one is kept."""
        if not job.rented:
            return job
        return self.ledger.update(job.job, status="waiting", error=None, restarts=0, ansible_job=None)

    def _begin(self, ready: Sequence[JobState]) -> None:
        """Prepare what came up and start its measurements; behind the back of the loop where servers come and go."""
        if isinstance(self._fleet, OwnServers):
            for job in self._bench(self._prepare(ready)):
                self._watch(job, just_started=True)
            return
        self._came_up += ready
        if self._beginning is not None and self._beginning.done():
            begun, self._beginning = self._beginning, None
            begun.result()
        self._watch_begun()
        while self._unneeded:
            self._fleet.release(self._unneeded.popleft())
        if self._beginning is None and self._came_up:
            self._beginning = self._beginner.submit(self._begin_in_turn)

    def _begin_in_turn(self) -> None:
        """Begin what came up, some at a time, until nothing is left of it.

        With more hosts than forks Ansible's main process waits in haste, and the first host waits for the last.
        """
        while self._came_up and not self._cancelled.is_set():
            jobs = [self._came_up.popleft() for _ in range(min(FORKS, len(self._came_up)))]
            self._begun += self._prepare_and_bench(jobs)

    def _watch_begun(self) -> None:
        while self._begun:
            self._watch(self._begun.popleft(), just_started=True)

    def _prepare_and_bench(self, jobs: Sequence[JobState]) -> list[JobState]:
        started = self._bench(self._prepare(jobs))
        # the fleet is for the thread of the loop alone
        self._unneeded += [job for job in jobs if self.ledger.job(job.job).ended]
        return started

    def _watch(self, job: JobState, *, just_started: bool) -> None:
        """Bring home what is measured, from now on."""
        job = self.ledger.update(job.job, stage=COLLECTING)
        self._watcher.add(job, self._folder(job), self._state_dir(job), just_started=just_started)

    def _prepare(self, jobs: Sequence[JobState]) -> list[JobState]:
        """Find out what the servers are, and put llama-bench on them."""
        if not jobs or self._cancelled.is_set():
            return []
        for job in jobs:
            if job.stage == READY:  # a new server, which goes on with what an earlier one measured
                lake.go_on_elsewhere(self._folder(job))
        jobs = [self.ledger.update(job.job, stage=PREPARING, status="running", error=None, restarts=0) for job in jobs]
        self._view.say(f"Preparing {_named(jobs)}.")
        done = self._play("prepare", jobs, cancelled=self._unless_overdue(jobs))
        ready = []
        for job in jobs:
            found = done.of(job.host, "llama_bench_host_info")
            facts = found["host"] if found else None
            problem = self._overdue(job) or self._problem(done, job) or self._misfit(facts)
            if problem:
                self._fail(job, self._fleet.lost(job) or problem)
            elif facts is not None and not done.killed:
                lake.write_facts(self._folder(job), facts)
                ready.append(job)
            elif not done.cancelled:
                # killed in the middle: earlier tasks went well, and nothing is known to have failed
                self._fail(job, f"Ansible ended (exit status {done.rc}) before {job.host} was prepared.")
        return ready

    def _bench(self, jobs: Sequence[JobState]) -> list[JobState]:
        """Start the measurements; they run by themselves from then on."""
        if not jobs or self._cancelled.is_set():
            return []
        jobs = [self.ledger.update(job.job, stage=BENCHING) for job in jobs]
        for job in jobs:
            self._write_meta(job)
        self._view.say(f"Measuring on {_named(jobs)}.")
        return [job for job in self._start(jobs) if not job.ended]

    def _ingest(self, ended: Ended) -> None:
        """Bring one job's raw files into the database, and note how it ended."""
        from benchctl.ingest import ingest_run

        job = self.ledger.update(ended.job.job, stage=INGESTING)
        folder = self._folder(job)
        lake.rebuild_stdout(folder)
        counts = _counts(folder)
        status, error = ended.status, ended.message or None
        if status == "finished" and counts and not any(str(one) in counts for one in JUDGED):
            status, error = "failed", f"nothing could be measured: {_counted(counts)}"
        self._write_meta(job, status, error)
        ingest_run(self._engine, folder)
        # a rented one goes on to be destroyed, and is gone after that
        stage = INGESTING if job.rented else DONE if status == "finished" else COLLECTING
        self.ledger.update(job.job, stage=stage, status=status, error=error)

    def _report(self) -> Report:
        """Close the book, and say what came of the sweep."""
        for job in self.ledger.jobs:
            if job.status == "finished" and job.rented and job.error and not job.alive:
                self.ledger.update(job.job, error=None)  # the last look around destroyed what could not be before
        jobs = self.ledger.jobs
        statuses = {job.status for job in jobs}
        well = all(ended_well(job) for job in jobs)
        status = "stopped" if "stopped" in statuses else "finished" if well else "failed"
        errors = [f"{job.job}: {job.error}" for job in jobs if job.error]
        self.ledger.close(status, "; ".join(errors) or None)
        outcomes: dict[str, int] = {}
        noisy = 0
        for job in jobs:
            folder = self._folder(job)
            for outcome, count in _counts(folder).items():
                outcomes[outcome] = outcomes.get(outcome, 0) + count
            noisy += _noisy(folder)
        self._tell(
            hooks.ENDED,
            {
                "sweep": self.ledger.sweep,
                "status": status,
                "jobs": len(jobs),
                "jobs_failed": sum(1 for job in jobs if job.status == "failed" or job.alive),
                "outcomes": outcomes,
            },
        )
        from benchctl.db.engine import shown

        return Report(
            sweep=self.ledger.sweep,
            status=status,
            jobs=jobs,
            outcomes=dict(sorted(outcomes.items())),
            noisy=noisy,
            database=shown(self._engine.url),
            lake=self.home.lake / self.ledger.sweep,
        )

    # ── starting and stopping ───────────────────────────────────────────────────────────────────────────────────────

    def _start(self, jobs: Sequence[JobState]) -> list[JobState]:
        """Run the playbook that starts the module detached, and note Ansible's numbers of the tasks."""
        patient, overdue = self._patient(), self._unless_overdue(jobs)
        done = self._play("bench", jobs, cancelled=lambda: patient() or overdue(), llama_bench_installed=True)
        after = []
        for job in jobs:
            problem = self._overdue(job) or self._problem(done, job)
            if problem:
                after.append(self._fail(job, problem))
                continue
            result = done.of(job.host, "llama_bench") or {}
            after.append(
                self.ledger.update(
                    job.job, status="running", ansible_job=result.get("ansible_job_id"), restarts=job.restarts
                )
            )
        return after

    def _stop(self) -> Iterator[Ended]:
        """End the measurements that run, fetch what they have left, and end their jobs as stopped."""
        self._view.say("Stopping; what is measured is kept.")
        if self._beginning is not None:
            # a start that is cut leaves open whether it happened; it is cancelled by the same event, and soon over
            with contextlib.suppress(PlaybookError):
                self._beginning.result()
            self._beginning = None
        self._watch_begun()
        watched = {one.job.job for one in self._watcher.watched}
        for job in self.ledger.jobs:
            if not job.ended and job.stage == BENCHING and job.job not in watched:
                # the start was cut, and may have happened
                self._watcher.add(job, self._folder(job), self._state_dir(job), just_started=True)
        if self._local:
            yield from self._stop_here()
        elif self._watcher.watched:
            yield from self._stop_there()
        for one in self._watcher.watched:
            confirmed = self._local or one.status in ENDED
            message = "stopped on request" if confirmed else "asked to stop; it had not answered in time"
            yield Ended(one.job, one.status if one.status in ENDED else "stopped", message, reached=confirmed)
        for job in self.ledger.jobs:
            if not job.ended and job.stage in (PLANNED, PROVISIONING, READY, PREPARING):
                self.ledger.update(job.job, status="stopped", error="stopped before anything was measured")

    def _stop_here(self) -> Iterator[Ended]:
        for one in self._watcher.watched:
            self._end_here(Path(one.state_dir), one.offset_at_start)
        deadline = time.monotonic() + LAST_LOOK_SECONDS
        while self._watcher.watched and time.monotonic() < deadline:
            yield from self._watcher.look()
            time.sleep(0.1)

    def _stop_there(self) -> Iterator[Ended]:
        """End and look in one run of Ansible; what a slow server does not hand over in time stays there."""
        # what a rented server does not hand over now is lost with it
        rented = any(one.job.rented for one in self._watcher.watched)
        deadline = time.monotonic() + (RENTED_STOP_SECONDS if rented else STOP_SECONDS)
        if isinstance(self._poller, PlaybookPoller):
            self._poller.play, self._poller.cancelled = "stop", lambda: time.monotonic() > deadline
        yield from self._watcher.look()

    @staticmethod
    def _end_here(state_dir: Path, offset_at_start: int) -> None:
        """End a measurement on this machine. One that was started an instant ago has yet to take its lock.

        An end on record counts only if it was written since: the one before it is of an earlier start.
        """
        deadline = time.monotonic() + FIRST_SIGN_SECONDS
        while not session.stop(str(state_dir), check=False)["changed"]:
            increment = read_increment(state_dir, max(offset_at_start, 0))
            if time.monotonic() > deadline or (increment.journal and increment.status in ENDED):
                return
            time.sleep(0.1)

    def _diagnose(self, job: JobState) -> Diagnosis:
        """What the detached task said when it ended; nothing if it has not ended."""
        if not job.ansible_job or self._cancelled.is_set():
            return Diagnosis()
        try:
            done = self._play("ended", [job])
        except PlaybookError:
            return Diagnosis()
        said = [one.result for one in done.hosts.get(job.host, ()) if one.status == "failed"]
        # Without "started" it is Ansible's own answer that it knows no such task, not the task's.
        if not said or not said[-1].get("finished") or "started" not in said[-1]:
            return Diagnosis()
        # The module's own failures name a problem; anything else is what Ansible makes of a process that was killed.
        if said[-1].get("problem"):
            return Diagnosis(done.failures.get(job.host, ""), final=True)
        return Diagnosis(f"Ansible says: {done.failures.get(job.host, '')[-_SAID_LENGTH:]}")

    # ── Ansible ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _play(
        self, name: str, jobs: Sequence[JobState], cancelled: Callable[[], bool] | None = None, **variables: Any
    ) -> PlaybookResult:
        """Run a playbook on the hosts of some jobs, with further variables for all of them."""
        hosts = {job.host: {**self._connection(job), **self._host_variables(job)} for job in jobs}
        # the newest run of a playbook takes the place of the one before it, on the disk too
        with self._plays.setdefault(name, threading.Lock()):
            return self._playbook.run(
                name,
                inventory=[*self._inventory, {"bench": {"hosts": hosts}}],
                extra_vars={**self._variables(), **variables},
                limit=list(hosts),
                cancelled=cancelled or self._cancelled.is_set,
            )

    def _connection(self, job: JobState) -> dict[str, Any]:
        """How Ansible reaches a rented server; of one's own the inventory knows."""
        return host_variables(self.home.state, self.ledger.sweep, job) if job.rented else {}

    def _patient(self) -> Callable[[], bool]:
        """Cancels a little later than the user asked: a start that is cut leaves open whether it happened."""
        asked: list[float] = []

        def cancelled() -> bool:
            if self._cancelled.is_set():
                asked.append(time.monotonic())
            return bool(asked) and time.monotonic() - asked[0] > START_SECONDS

        return cancelled

    @staticmethod
    def _overdue(job: JobState) -> str:
        """Why a rented server has to go now, whatever it is at: what its measurement may take ended before."""
        if not job.rented or not job.expires_at:
            return ""
        left = (datetime.fromisoformat(job.expires_at) - datetime.now(UTC)).total_seconds()
        return f"not done when its server's time was over ({job.expires_at})" if left < DESTROY_SECONDS else ""

    def _unless_overdue(self, jobs: Sequence[JobState]) -> Callable[[], bool]:
        """Cancels a playbook when the user asked for it, or when none of its servers may live any longer."""
        return lambda: self._cancelled.is_set() or all(self._overdue(job) for job in jobs)

    @property
    def _local(self) -> bool:
        return LOCAL in self.request.vendors

    @property
    def _inventory(self) -> list[Path]:
        from benchctl.content import content_root

        if self._local:
            return [content_root() / "inventories" / "local"]
        return [Path(self.request.inventory)] if self.request.inventory else []

    def _make_poller(self) -> Poller:
        poller: Poller = (
            LocalPoller()
            if self._local
            else PlaybookPoller(
                self._playbook, self._inventory, cancelled=self._meanwhile, connection=self._connection_of
            )
        )
        poller.interval_seconds = self.request.poll_seconds or poller.interval_seconds
        return poller

    def _meanwhile(self) -> bool:
        """In the middle of a look, which over a large fleet takes long, servers come and go; true ends the look."""
        now = time.monotonic()
        if now >= self._next_advance:
            self._next_advance = now + ADVANCE_SECONDS
            self._fleet.advance()
        return self._cancelled.is_set()

    def _connection_of(self, job: str) -> dict[str, Any]:
        return self._connection(self.ledger.job(job))

    def _make_fleet(self) -> Fleet:
        if not self.request.clouds:
            return OwnServers(self._cancelled.wait)
        from benchctl.clouds.ingress import ingress_for
        from benchctl.clouds.rental import Rental
        from benchctl.clouds.stacks import Stacks, warm_up

        warm_up(one for one in self.request.clouds)
        budget = parse_budget(self.request.budget)[0] if self.request.budget else None
        rental = Rental(
            self.ledger,
            Stacks(self.home, backend=self.request.backend),
            ingress=ingress_for(self.request.ingress),
            say=self._view.say,
            budget=budget,
            doing=self._view.doing,
            cancelled=self._cancelled,
        )
        return RentedServers(
            self.ledger,
            rental,
            budget=budget,
            say=self._view.say,
            warn=self._tell,
            cancelled=self._cancelled,
        )

    def _tell(self, event: str, facts: Mapping[str, object]) -> None:
        """Tell whoever asked to be told."""
        if self.request.hook:
            problem = hooks.tell(self.request.hook, event, facts)
            if problem:
                self._view.say(problem)

    def _sweep_away(self, *, ending: bool = False) -> None:
        """Destroy what should not be alive: at the start what has expired, at the end all that is this sweep's."""
        if not self.request.clouds:
            return
        from benchctl.clouds.reaper import plain, reap

        try:
            found = reap(
                self.home,
                self._engine,
                sweep=self.ledger.sweep if ending else "",
                orphans=ending,
                own=self.ledger,
                vendors=self.request.clouds,
                backend=self.request.backend,
                report=self._view.say,
            )
        except BenchctlError as error:
            self._view.say(f"What is alive could not be looked at: {error}")
            return
        for told in (*found.problems.values(), *found.notes):
            self._view.say(told)
        if ending and not found.clean:
            leaks = [plain(one) for one in found.leaks]
            self._tell(hooks.LEAK, hooks.leak_facts([self.ledger.sweep], leaks, found.problems))

    def _variables(self) -> dict[str, Any]:
        """The role's variables that are the same for all hosts."""
        request = self.request
        variables: dict[str, Any] = {
            "llama_bench_suite": request.suite.to_dict(),
            "llama_bench_models": [model_to_dict(one) for one in request.models],
            "llama_bench_weights": request.weights,
            "llama_bench_connections": request.connections,
            "llama_bench_device": request.device,
            "llama_bench_wait": False,
            "llama_bench_sweep": self.ledger.sweep,
        }
        if self._local:
            variables["llama_bench_binary"] = str(self._llama_bench)
            variables["llama_bench_models_dir"] = str(models_folder(self.home))
            variables["llama_bench_source"] = ""
            token = Path("~/.cache/huggingface/token").expanduser()  # where huggingface-cli keeps it
            variables["llama_bench_token_file"] = str(token) if token.is_file() else ""
        else:
            variables["llama_bench_source"] = str(self._llama_bench)
        # what is not asked for may stand in the inventory, host by host
        if request.threads:
            variables["llama_bench_threads"] = request.threads
        if request.mirror:
            variables["llama_bench_mirror"] = request.mirror
        return variables

    def _host_variables(self, job: JobState) -> dict[str, Any]:
        journal = lake.journal_to_go_on_from(self._folder(job)) if job.rented else None
        session = job.session_seconds
        if job.rented:
            session = session_left(job, datetime.now(UTC), spent_seconds=self._spent_seconds(job))
        return {
            "llama_bench_journal": str(journal or ""),
            "llama_bench_state_dir": self._state_dir(job),
            "llama_bench_job": job.job,
            "llama_bench_session_seconds": session,
            "llama_bench_async_job": job.ansible_job or "",
        }

    @staticmethod
    def _problem(done: PlaybookResult, job: JobState) -> str:
        """Why a host did not go through a playbook; empty when it did, or when the user ended it."""
        if done.cancelled:
            return ""
        problem = done.unreachable.get(job.host) or done.failures.get(job.host)
        if problem is None and job.host not in done.hosts:
            problem = f"Ansible did nothing on {job.host}."
        return problem or ""

    def _spent_seconds(self, job: JobState) -> float:
        """How long the job's measurement took so far, in all its starts, as far as it has come home."""
        return history_of(self._folder(job)).spent_seconds

    def _misfit(self, facts: Mapping[str, Any] | None) -> str:
        """Why the llama-bench of this machine can't run on the server; empty when it can."""
        if facts is None or self._local or facts.get("architecture") == platform.machine():
            return ""
        return (
            f"The server is {facts.get('architecture')}, and {self._llama_bench} was built for {platform.machine()}. "
            "Give a llama-bench for it with --llama-bench, in a sweep of its own."
        )

    # ── places and notes ────────────────────────────────────────────────────────────────────────────────────────────

    def _folder(self, job: JobState) -> Path:
        return lake.run_folder(self.home.lake, self.ledger.sweep, job.vendor, job.server, job.replica)

    def _state_dir(self, job: JobState) -> str:
        if self._local:
            return str(self.ledger.job_folder(job.job) / "target")
        return f"{REMOTE_HOME}/state/{self.ledger.sweep}"

    def _target(self, job: JobState) -> Target:
        folder = self._folder(job)
        return Target(job.job, job.host, self._state_dir(job), lake.journal_offset(folder), lake.stderr_offset(folder))

    def _open_jobs(self) -> list[JobState]:
        """What is not measured to its end, and what is and has a server still."""
        return [job for job in self.ledger.jobs if job.status != "finished" or job.alive]

    def _keep_progress(self, job: JobState, progress: Mapping[str, Any]) -> None:
        state_folder = self.ledger.job_folder(job.job)
        # the live progress is a courtesy to "benchctl status"
        with contextlib.suppress(OSError):
            state_folder.mkdir(parents=True, exist_ok=True)
            state.write_progress(state_folder, dict(progress))

    def _fail(self, job: JobState, problem: str) -> JobState:
        """End a job. A rented server is left where it is: whoever calls gives it back."""
        self._view.say(f"{job.job}: {problem}")
        self._write_meta(job, "failed", problem)
        return self.ledger.update(job.job, status="failed", error=problem)

    def _write_meta(self, job: JobState, status: str = "running", error: str | None = None) -> None:
        codes = {"finished": 0, "failed": 1, "stopped": 2}
        lake.write_meta(
            self._folder(job),
            lake.RunMeta(
                start=job.started_at,
                end=datetime.now(UTC).isoformat(timespec="milliseconds") if status in codes else None,
                exit_code=codes.get(status, -1),
                error_msg=error,
                version=f"benchctl {__version__}",
                benchctl={
                    "sweep": self.ledger.sweep,
                    "job": job.job,
                    "vendor": job.vendor,
                    "server": job.server,
                    "api_reference": job.server,
                    "replica": job.replica,
                    "suite": self.request.suite.name,
                    "weights": self.request.weights,
                    "price_usd_per_hour": job.price_usd_per_hour,
                    "price_per_hour": job.price_per_hour,
                    "currency": job.currency,
                    "region": job.region or None,
                    "zone": job.zone or None,
                    "created_at": self.ledger.created_at,
                    "models": {one.name: one.file for one in self.request.models},
                    "request": self.request.public(),
                },
            ),
        )


def _goes_on(increment: Increment) -> bool:
    """Whether a measurement runs, or has run to its end: nothing is to be started."""
    return increment.alive or increment.status == "finished"


def ended_well(job: JobState) -> bool:
    """Whether a job was measured, and nothing of it costs money any more."""
    return job.status == "finished" and not job.alive


@contextlib.contextmanager
def machine_held(home: Home, request: SweepRequest, sweep: str) -> Iterator[None]:
    """Hold this machine while a sweep measures it: no other sweep of this state may do so meanwhile.

    Take it before anything is written down, so that a sweep that is refused leaves nothing behind.

    Raises:
        SweepBusyError: another sweep does, or its measurement goes on without it.
    """
    if LOCAL not in request.vendors:
        yield
        return
    with _held(home.state / "local.lock", sweep, "measures this machine now; two at once would disturb each other"):
        _refuse_orphan(home, sweep)
        yield


@contextlib.contextmanager
def _held(path: Path, sweep: str, why: str) -> Iterator[None]:
    """Hold a lock in the name of a sweep, or say which sweep does and ``why`` that matters."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(state.locked(path, {"sweep": sweep}))
        except state.BusyError as error:
            other = state.lock_holder(path)
            raise SweepBusyError(
                f"The sweep {other.get('sweep')} (process {other.get('pid')}) {why}.",
                "Wait until it has ended, or stop it with Ctrl-C.",
            ) from error
        yield


def _refuse_orphan(home: Home, sweep: str) -> None:
    """Refuse to start while a measurement runs whose controller is gone.

    Raises:
        SweepBusyError: one does; it can be taken up again.
    """
    for other in sweep_names(home):
        if other == sweep:
            continue
        for lock in (home.sweeps / other / "jobs").glob(f"*/target/{state.LOCK}"):
            if state.is_locked(lock):
                raise SweepBusyError(
                    f"The measurement of sweep {other} still runs on this machine; two at once would disturb each "
                    "other.",
                    f"Take it up again with 'benchctl sweep --resume {other}' (Ctrl-C there stops it).",
                )


def resumable(home: Home, sweep: str) -> None:
    """Check that there is something to resume.

    Raises:
        BenchctlError: the sweep has finished.
    """
    book = read_book(home, sweep)
    if book.get("status") == "finished" and not any(job.alive for job in jobs_of(book)):
        raise BenchctlError(
            f"The sweep {sweep} has finished.", f"'benchctl show --sweep {sweep}' shows what it measured."
        )


def change_budget(home: Home, engine: Engine, sweep: str, text: str) -> None:
    """Let a sweep that was begun go on with another budget for what is rented. What its plan left out stays out.

    Raises:
        UsageError: it rents nothing, was begun without a budget or with one in another currency, or this one is 0.
        SweepBusyError: another process goes on with it.
    """
    amount, currency = parse_budget(text)
    with _held(home.sweeps / sweep / "lock", sweep, "goes on in another process now"):
        book = Ledger.open(home, engine, sweep)
        before = book.request.budget
        if not book.request.clouds:
            raise UsageError("--budget is for what a sweep rents, and this one rents nothing.", "Leave it out.")
        if not before or parse_budget(before)[1] != currency:
            had = f"one in {parse_budget(before)[1]}" if before else "none"
            raise UsageError(
                f"The budget is in {currency}, and the sweep was begun with {had}, by which its prices were converted.",
                "Give one in that currency." if before else "Leave it out, or begin a new sweep.",
            )
        if not amount:
            raise UsageError("With a budget of 0 nothing goes on.", "Give another one, or leave it out.")
        book.ask_otherwise(replace(book.request, budget=text))


def _names(jobs: Sequence[JobState]) -> set[str]:
    return {job.job for job in jobs}


def _named(jobs: Sequence[JobState]) -> str:
    shown = [job.server for job in jobs[:3]]
    return ", ".join(shown) + (f" and {len(jobs) - 3} more" if len(jobs) > 3 else "")


def _counts(folder: Path) -> dict[str, int]:
    """The scenarios of a run by outcome, from its journal in the lake."""
    counts: dict[str, int] = {}
    for record in _outcomes(folder):
        counts[record["outcome"]] = counts.get(record["outcome"], 0) + 1
    return counts


def _noisy(folder: Path) -> int:
    return sum(1 for record in _outcomes(folder) if record.get("noisy"))


def _outcomes(folder: Path) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(OSError), (folder / lake.JOURNAL).open(errors="replace") as journal:
        for line in journal:
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and record.get("kind") == "outcome":
                    yield record


def _counted(counts: Mapping[str, int]) -> str:
    meanings = {str(outcome): meaning for outcome, meaning in OUTCOME_MEANINGS.items()}
    return "; ".join(f"{count} {outcome} ({meanings.get(outcome, '')})" for outcome, count in counts.items())
