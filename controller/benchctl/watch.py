"""Following measurements to their end: what is new goes to the lake, what happens goes to the view.

The watcher decides what a look means: a measurement that goes on, has ended, has died (it is started once more), or
can't be reached for now (that ends nothing on the host, and is borne for a while).
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llama_bench_core import policy
from llama_bench_core.state import History

from benchctl import lake
from benchctl.poller import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from llama_bench_core.state import Increment

    from benchctl.ledger import JobState
    from benchctl.poller import Poller, PollResult
    from benchctl.view import View

GRACE_SECONDS = 45.0
"""How long a measurement may take from its start to the first sign of life."""

DOUBT_SECONDS = 8.0
"""After this time without one the host is asked, once, whether it ended before it began."""

UNREACHABLE_SECONDS = 900.0
"""How long a host may be out of reach before its job is given up; what it measures meanwhile stays on it."""

LOST_SECONDS = 20.0
"""How long between two questions to the vendor whether a host that is out of reach exists still."""

MAX_RESTARTS = 1
"""How often a measurement that died without a word is started again."""

ENDED = ("finished", "stopped", "failed")


@dataclass(frozen=True)
class Ended:
    """The end of one job's measurement.

    Attributes:
        job: the job.
        status: ``finished``, ``stopped`` or ``failed``.
        message: why, one sentence; empty for an unremarkable end.
        reached: whether the host told it; otherwise it may go on measuring.
    """

    job: JobState
    status: str
    message: str = ""
    reached: bool = True


@dataclass(frozen=True)
class Diagnosis:
    """What a host says of a measurement that left no end in its journal.

    Attributes:
        reason: one sentence, or nothing where nothing is known.
        final: whether the module itself gave it, so that starting again would end the same way.
    """

    reason: str = ""
    final: bool = False


@dataclass
class Watched:
    """One job under watch.

    Attributes:
        job: the job.
        folder: its folder in the lake.
        state_dir: the state folder on the host.
        history: what its journal adds up to so far.
        offset_at_start: length of the journal when the module was started; it has shown life once there is more.
        started: when that was, seconds of the watcher's clock.
        progress: the live progress, as it was last seen.
        status: of the measurement, as it was last seen; empty before the first look.
        doubted: whether the host was asked why there is no sign of life yet.
        out_of_reach_since: since when the host has not answered; nothing while it does.
        problem: why it does not.
        ask_after: when to ask whether it exists still, seconds of the watcher's clock.
        unheard: whether it was silent when its sweep was resumed, and has been since: what runs there nobody knows.
    """

    job: JobState
    folder: Path
    state_dir: str
    history: History = field(default_factory=History)
    offset_at_start: int = 0
    started: float = 0.0
    progress: Mapping[str, Any] = field(default_factory=dict)
    status: str = ""
    doubted: bool = False
    out_of_reach_since: float | None = None
    problem: str = ""
    ask_after: float = 0.0
    unheard: bool = False

    @property
    def target(self) -> Target:
        """Where to look next."""
        return Target(
            job=self.job.job,
            host=self.job.host,
            state_dir=self.state_dir,
            journal_offset=lake.journal_offset(self.folder),
            stderr_offset=lake.stderr_offset(self.folder),
        )

    def counts(self) -> dict[str, int]:
        """Scenarios that have ended, by outcome."""
        found: dict[str, int] = {}
        for verdict in self.history.verdicts.values():
            found[str(verdict.outcome)] = found.get(str(verdict.outcome), 0) + 1
        return found


class Watcher:
    """Watches the jobs of one sweep."""

    def __init__(
        self,
        poller: Poller,
        view: View,
        *,
        restart: Callable[[JobState], JobState],
        diagnose: Callable[[JobState], Diagnosis],
        keep_progress: Callable[[JobState, Mapping[str, Any]], None],
        lost: Callable[[JobState], str] = lambda _job: "",
        overdue: Callable[[JobState], str] = lambda _job: "",
        out_of_reach: Callable[[JobState], None] = lambda _job: None,
        heard: Callable[[JobState, Increment], bool] = lambda _job, _increment: True,
        patience_seconds: float = UNREACHABLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing to watch.

        Args:
            poller: looks at the measurements.
            view: shows what happens.
            restart: starts the measurement of a job again.
            diagnose: asks a host why its measurement died without a word.
            keep_progress: keeps the live progress for whoever asks.
            lost: why a host that does not answer never will again; empty where it may.
            overdue: why a measurement that goes on has to end now; empty where it may go on.
            out_of_reach: told at each look in vain of a host; it must not take long.
            heard: takes the first word of a host that was ``unheard``; says whether there is a measurement to watch.
            patience_seconds: how long a host may be out of reach.
            clock: monotonic seconds.
        """
        self._poller, self._view, self._clock = poller, view, clock
        self._lost, self._overdue, self._patience_seconds = lost, overdue, patience_seconds
        self._tell_out_of_reach, self._heard = out_of_reach, heard
        self._restart, self._diagnose, self._keep_progress = restart, diagnose, keep_progress
        self._watched: dict[str, Watched] = {}

    def add(self, job: JobState, folder: Path, state_dir: str, *, just_started: bool, unheard: bool = False) -> None:
        """Watch a job whose measurement was started just now, or was running already; ``unheard``: or may be."""
        watched = Watched(job, folder, state_dir, history_of(folder), unheard=unheard)
        # Without a start of ours there is nothing to wait for: an end that is on record is the end.
        watched.offset_at_start = lake.journal_offset(folder) if just_started else -1
        watched.started = self._clock()
        self._watched[job.job] = watched

    def look(self) -> list[Ended]:
        """Look once at everything that is still watched."""
        ended = []
        results = self._poller.poll([one.target for one in self._watched.values()])
        for name, result in results.items():
            end = self._take(self._watched[name], result)
            if end is not None:
                ended.append(end)
                del self._watched[name]
        self._view.show(list(self._watched.values()))
        return ended

    def _take(self, watched: Watched, result: PollResult) -> Ended | None:
        increment = result.increment
        overdue = self._overdue(watched.job)
        if increment is None:
            end = self._out_of_reach(watched, result.problem)
            return end or (Ended(watched.job, "failed", overdue, reached=False) if overdue else None)
        watched.out_of_reach_since, watched.problem, watched.status = None, "", increment.status
        if watched.unheard:
            watched.unheard = False
            if not self._heard(watched.job, increment):
                del self._watched[watched.job.job]
                return None
        self._keep(watched, increment)
        if increment.alive and overdue:
            return Ended(watched.job, "failed", overdue)
        if increment.journal or increment.alive:
            return None
        awaited = self._young(watched) and lake.journal_offset(watched.folder) <= watched.offset_at_start
        if awaited:
            return self._doubt(watched)
        if increment.status in ENDED:
            return Ended(watched.job, increment.status, increment.message)
        return self._died(watched)

    def _keep(self, watched: Watched, increment: Increment) -> None:
        if increment.journal:
            lake.append_journal(
                watched.folder, increment.journal_offset - len(increment.journal.encode()), increment.journal
            )
            for record in _fold(watched.history, increment.journal):
                self._report(watched, record)
        if increment.stderr:
            lake.append_stderr(
                watched.folder, lake.stderr_offset(watched.folder), increment.stderr, increment.stderr_offset
            )
        if increment.progress and increment.progress != watched.progress:
            watched.progress = increment.progress
            self._keep_progress(watched.job, increment.progress)

    def _report(self, watched: Watched, record: Mapping[str, Any]) -> None:
        if record.get("kind") == "outcome":
            key = (record["model"], record["task"], record["tokens"])
            samples = watched.history.samples_of(key, record.get("attempt", 1))
            self._view.outcome(watched.job, record, policy.mean_speed(record["tokens"], samples))

    def _doubt(self, watched: Watched) -> Ended | None:
        """Nothing has come since the start: it has yet to begin, or it ended before it could say a word."""
        if watched.doubted or self._clock() - watched.started < DOUBT_SECONDS:
            return None
        watched.doubted = True
        why = self._diagnose(watched.job).reason
        return Ended(watched.job, "failed", why) if why else None

    def _young(self, watched: Watched) -> bool:
        return self._clock() - watched.started < GRACE_SECONDS

    def _died(self, watched: Watched) -> Ended | None:
        why = self._diagnose(watched.job)
        if why.final:
            return Ended(watched.job, "failed", why.reason)
        if watched.job.restarts >= MAX_RESTARTS:
            return Ended(watched.job, "failed", f"the measurement died twice. {why.reason}".strip())
        self._view.say(f"{watched.job.job}: the measurement died; it is started again.")
        watched.job = self._restart(replace(watched.job, restarts=watched.job.restarts + 1))
        if watched.job.ended:
            return Ended(watched.job, "failed", watched.job.error or "the measurement could not be started again")
        watched.offset_at_start, watched.started = lake.journal_offset(watched.folder), self._clock()
        watched.doubted = False
        return None

    def _out_of_reach(self, watched: Watched, problem: str) -> Ended | None:
        now = self._clock()
        if watched.out_of_reach_since is None:
            watched.out_of_reach_since = now
            self._view.say(f"{watched.job.job}: out of reach, the measurement goes on by itself. {problem}")
        watched.problem = problem
        self._tell_out_of_reach(watched.job)
        if now >= watched.ask_after:
            watched.ask_after = now + LOST_SECONDS
            lost = self._lost(watched.job)
            if lost:
                return Ended(watched.job, "failed", f"the server is gone: {lost}", reached=False)
        away = now - watched.out_of_reach_since
        if away < self._patience_seconds:
            return None
        told = f"{away / 60:.0f} minutes" if away >= 120 else f"{away:.0f} s"
        return Ended(watched.job, "failed", f"out of reach for {told}: {problem}", reached=False)

    @property
    def watched(self) -> Sequence[Watched]:
        """What has not ended yet."""
        return list(self._watched.values())


def history_of(folder: Path) -> History:
    """What the journal in a job's folder in the lake adds up to; an empty one where there is none."""
    history = History()
    with contextlib.suppress(FileNotFoundError):
        _fold(history, (folder / lake.JOURNAL).read_text(errors="replace"))
    return history


def _fold(history: History, text: str) -> list[dict[str, Any]]:
    """Take in new lines of a journal; returns their records. A damaged one is left to whoever reads the lake."""
    records = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            record = json.loads(line)
            history.apply(record)
            records.append(record)
    return records
