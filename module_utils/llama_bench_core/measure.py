"""One llama-bench process from start to end: its events become samples and verdicts in the journal.

:func:`run_batch` is the only place where the policy meets a running process. It holds no state that matters: all it
learns is in the journal at once, so that whatever kills it costs the sample in flight and nothing else.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from . import command, noise, policy
from .endings import classify_exit
from .events import Exited, Garbage, ProgressLine, RowLine
from .values import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .events import Event, Process
    from .noise import Monitor, NoiseReading
    from .policy import Batch, Observation, TaskView
    from .rows import Row
    from .state import History, Ledger
    from .suite import Suite
    from .values import Model, PolicySettings, Scenario


class Stopped(Exception):  # noqa: N818 - not an error: somebody asked for it, or the time is up
    """The session is to end; ``reason`` says why, ``out_of_time`` whether what is open ends with it."""

    def __init__(self, reason: str, out_of_time: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.out_of_time = out_of_time


@dataclass(frozen=True)
class Place:
    """What a model is measured with, and how much of it sits on a GPU.

    Attributes:
        path: the GGUF file.
        gpu_layers: llama-bench's ``-ngl``: 0 for the CPU alone, -1 for all layers.
        offload: what was proven about it; goes into the journal with every load.
    """

    path: str
    gpu_layers: int
    offload: Mapping[str, Any]

    @property
    def partial_gpu(self) -> bool:
        """Whether only a part of the layers is on a GPU."""
        return self.gpu_layers > 0


@dataclass
class Bench:
    """What every batch of a session shares.

    Attributes:
        binary: the llama-bench, and what it understands.
        start: starts a process from its arguments; the ``run`` capability. Its events carry the time, so that a
            recorded run may have a clock of its own.
        journal: where everything goes.
        suite: what is measured, and by which settings.
        threads: llama-bench's ``-t``.
        cpu_mask: llama-bench's ``-C``, or empty.
        monitor: watches the noise of the machine.
        check: raises :class:`Stopped` when the session is to end.
        report: told of what runs now (keyword facts of the live progress).
    """

    binary: command.Binary
    start: Callable[[list[str]], Process]
    journal: Ledger
    suite: Suite
    threads: int
    cpu_mask: str
    monitor: Monitor
    check: Callable[[], None]
    report: Callable[..., None]

    @property
    def history(self) -> History:
        """What the journal adds up to so far."""
        return self.journal.history

    def observation(self, model: Model, scenario: Scenario) -> Observation:
        """What is known of one scenario of one model."""
        key = (model.name, scenario.task, scenario.tokens)
        attempt = self.history.attempts.get(key, 1)
        return policy.Observation(
            scenario,
            self.history.samples_of(key, attempt),
            self.history.verdicts.get(key),
            attempt,
            self.history.samples_of(key, attempt - 1),
        )

    def view(self, model: Model, task: str, partial_gpu: bool, guesses: Mapping[int, float]) -> TaskView:
        """What the policy sees of one task of one model."""
        return policy.TaskView(
            model=model,
            observations=tuple(self.observation(model, one) for one in self.suite.scenarios if one.task == task),
            load_seconds=self.history.loads.get(model.name),
            partial_gpu=partial_gpu,
            guesses=guesses,
            settings=self.suite.policy,
            streams=self.binary.streams,
        )

    def conclude(self, model: Model, scenario: Scenario, verdict: Verdict) -> None:
        """Write the end of a scenario, unless it has ended already."""
        conclude(self.journal, self.suite.policy, model, scenario, verdict)


def conclude(journal: Ledger, settings: PolicySettings, model: Model, scenario: Scenario, verdict: Verdict) -> None:
    """Write the end of a scenario, unless it has ended already.

    What is measured stays measured: where enough samples were taken before a crash, the end of the time or the like,
    those of the attempt before a repetition if need be, the scenario is ``ok`` and the reason says what came after.
    """
    history = journal.history
    key = (model.name, scenario.task, scenario.tokens)
    if key in history.verdicts:
        return
    if verdict.outcome is not Outcome.OK:
        verdict = _rescued(history, settings, model, scenario, verdict)
    journal.append(
        "outcome",
        model=model.name,
        task=scenario.task,
        tokens=scenario.tokens,
        outcome=str(verdict.outcome),
        reason=verdict.reason,
        noisy=list(verdict.noisy),
        attempt=verdict.attempt,
        evidence_seconds=verdict.evidence_seconds,
    )


def _rescued(history: History, settings: PolicySettings, model: Model, scenario: Scenario, verdict: Verdict) -> Verdict:
    key = (model.name, scenario.task, scenario.tokens)
    attempt = history.attempts.get(key, 1)
    for number in (attempt, attempt - 1):
        samples = history.samples_of(key, number)
        if len(samples) < settings.min_samples:
            continue
        load = history.loads.get(model.name)
        judged = policy.judge_samples(scenario, model, samples, load, settings)
        if judged is not None and judged.outcome is not Outcome.OK:
            continue
        flags = noise.judge(policy.coefficient_of_variation(samples), history.readings(key, number), settings)
        return Verdict(Outcome.OK, f"then: {verdict.reason}", flags, None, number)
    return replace(verdict, attempt=attempt)


def settle(bench: Bench, model: Model, task: str, place: Place, guesses: Mapping[int, float]) -> TaskView:
    """End every scenario that the samples at hand, or what they predict, decide; the view after it.

    Safe to call at any time, and the first thing after a resume.
    """
    for one in bench.view(model, task, place.partial_gpu, guesses).pending:
        _decide(bench, model, one)
    for scenario, verdict in policy.predicted_skips(bench.view(model, task, place.partial_gpu, guesses)):
        bench.conclude(model, scenario, verdict)
    return bench.view(model, task, place.partial_gpu, guesses)


def _decide(bench: Bench, model: Model, one: Observation) -> None:
    """End one scenario if its samples suffice; a noisy measurement is repeated first."""
    settings = bench.suite.policy
    load = bench.history.loads.get(model.name)
    verdict = policy.judge_samples(one.scenario, model, one.samples, load, settings)
    if verdict is None:
        return
    key = (model.name, one.scenario.task, one.scenario.tokens)
    flags = noise.judge(
        policy.coefficient_of_variation(one.samples), bench.history.readings(key, one.attempt), settings
    )
    if verdict.outcome is Outcome.OK and flags:
        if policy.repeat_noisy(one.scenario, model, one.samples, one.attempt, settings):
            _repeat(bench, model, one, flags)
            return
        earlier = bench.history.noisy_attempts.get(key)
        if earlier is not None and len(earlier) < len(flags) and len(one.earlier) >= settings.min_samples:
            # the repetition was the noisier one: the first attempt counts
            bench.conclude(model, one.scenario, replace(verdict, noisy=earlier, attempt=one.attempt - 1))
            return
    bench.conclude(model, one.scenario, replace(verdict, noisy=flags, attempt=one.attempt))


def _repeat(bench: Bench, model: Model, one: Observation, flags: tuple[str, ...]) -> None:
    """Note that a measurement was noisy and begins anew; its samples so far are kept."""
    bench.journal.append(
        "repeat",
        model=model.name,
        task=one.scenario.task,
        tokens=one.scenario.tokens,
        attempt=one.attempt + 1,
        noisy=list(flags),
    )


def run_batch(bench: Bench, model: Model, task: str, place: Place, batch: Batch, guesses: Mapping[int, float]) -> None:
    """Run one llama-bench process over ``batch`` and write down all that it shows.

    Raises:
        Stopped: the session is to end; the process has been killed, finished rows are in the journal.
    """
    values = batch.warmups + batch.values
    argv = command.arguments(
        bench.binary,
        place.path,
        task,
        values,
        repetitions=batch.repetitions,
        warmup=batch.own_warmup,
        threads=bench.threads,
        cpu_mask=bench.cpu_mask,
        gpu_layers=place.gpu_layers,
        flags=asdict(bench.suite.flags),
        # without its log llama-bench says "failed to load model" and not why; the second try is to tell
        verbose=bench.history.unloaded.get(model.name, 0) > 0,
    )
    number = bench.history.processes + 1
    bench.journal.append("process", process=number, model=model.name, task=task, argv=argv, gpu_layers=place.gpu_layers)
    _BatchRun(bench, model, task, place, batch, guesses, number).run(argv)


class _BatchRun:
    """The course of one process; lives as long as :func:`run_batch` runs."""

    def __init__(
        self,
        bench: Bench,
        model: Model,
        task: str,
        place: Place,
        batch: Batch,
        guesses: Mapping[int, float],
        number: int,
    ) -> None:
        self.bench, self.model, self.task, self.place = bench, model, task, place
        self.guesses, self.number = guesses, number
        self.scenarios = {one.tokens: one for one in bench.suite.of_task(task)}
        self.warmups = deque(batch.warmups)
        self.queue = deque(batch.values)
        self.loaded = False
        self.first_sample: float | None = None
        self.warm = False
        self.began: float | None = None
        self.quiet_since = 0.0
        self.sample_began: float | None = None

    @property
    def current(self) -> Scenario:
        """The scenario in flight; a warm-up belongs to the first one."""
        return self.scenarios[self.queue[0]]

    def run(self, argv: list[str]) -> None:
        """Follow the process until it ends or its end is decided; it is dead when this returns."""
        self._report(None)
        with self.bench.start(argv) as process:
            for event in process.events():
                self.bench.check()
                if not self._goes_on(process, event):
                    break
        settle(self.bench, self.model, self.task, self.place, self.guesses)

    def _goes_on(self, process: Process, event: Event) -> bool:
        """Take in one event; ``False`` when the process has ended or is not worth going on with."""
        if self.began is None:
            self.began = self.quiet_since = event.at
        if isinstance(event, RowLine):
            return self._row(event)
        if isinstance(event, ProgressLine):
            if event.progress.kind in ("run", "warmup"):
                self._mark_loaded(event.at - self.began)
            if event.progress.kind == "run":
                self.sample_began = event.at
                if self.first_sample is None:
                    self.first_sample = event.at
                self.bench.monitor.begin()
            return True
        if isinstance(event, Garbage):
            self._conclude(Verdict(Outcome.CRASH, event.problem))
            return False
        if isinstance(event, Exited):
            self._ended(process, event)
            return False
        return not self._overdue(event.at)

    def _mark_loaded(self, seconds: float) -> None:
        if self.loaded:
            return
        self.loaded = True
        self.bench.journal.append(
            "load",
            process=self.number,
            model=self.model.name,
            task=self.task,
            seconds=round(max(0.0, seconds), 3),
            offload=dict(self.place.offload),
        )

    def _row(self, event: RowLine) -> bool:
        """Take in a row; ``False`` when the process is not worth going on with."""
        row = event.row
        expected = (*self.warmups, *self.queue, 0)[0]
        if (row.task, row.tokens) != (self.task, expected):
            self._conclude(
                Verdict(
                    Outcome.CRASH,
                    f"llama-bench answered {row.task}{row.tokens} where {self.task}{expected} was its turn",
                )
            )
            return False
        reading = self.bench.monitor.end()
        self._mark_loaded(event.at - (self.began or 0.0) - sum(row.samples_ns) / 1e9)
        self.warm = not self._warming(event, row)
        # a decided scenario's values are there to warm up, however long that takes
        warming = bool(self.warmups) and (not self.warm or self._decided(expected))
        self._record(row, expected, warming, reading)
        self.sample_began, self.quiet_since = None, event.at
        (self.warmups or self.queue).popleft()
        if not warming:
            self._after_sample(self.scenarios[expected])
            self._report(sum(row.samples_ts) / len(row.samples_ts))
        return self._worth_going_on()

    def _warming(self, event: RowLine, row: Row) -> bool:
        """Whether the sample began before the machine had worked for long enough; the first one always did."""
        began = self.sample_began if self.sample_began is not None else event.at - sum(row.samples_ns) / 1e9
        if self.first_sample is None:
            self.first_sample = began
        return began - self.first_sample < self.bench.suite.policy.warmup_seconds

    def _record(self, row: Row, tokens: int, warming: bool, reading: NoiseReading) -> None:
        attempt = self.bench.history.attempts.get((self.model.name, self.task, tokens), 1)
        for index, nanoseconds in enumerate(row.samples_ns):
            self.bench.journal.append(
                "sample",
                process=self.number,
                model=self.model.name,
                task=self.task,
                tokens=tokens,
                warmup=warming,
                ns=nanoseconds,
                attempt=attempt,
                noise=reading.to_dict(),
                row=row.raw if index == 0 else "",
            )

    def _after_sample(self, scenario: Scenario) -> None:
        """Decide the scenario when no more samples of it are queued, or at once when it proves too slow."""
        key = (self.model.name, self.task, scenario.tokens)
        if key in self.bench.history.verdicts:
            return
        samples = self.bench.history.current_samples(key)
        load = self.bench.history.loads.get(self.model.name)
        verdict = policy.judge_samples(scenario, self.model, samples, load, self.bench.suite.policy)
        missed = verdict is not None and verdict.outcome is not Outcome.OK
        if missed or scenario.tokens not in self.queue:
            settle(self.bench, self.model, self.task, self.place, self.guesses)

    def _worth_going_on(self) -> bool:
        """Whether what is still queued is wanted: not all decided, the next one not given up, no costly surplus."""
        if not self.queue:
            return True  # let it end by itself
        view = self._view()
        # warm-ups of a decided scenario are not counted: the next process would begin with the same again, for ever
        counted = self.warm and bool(self.warmups) and not self._decided(self.warmups[0])
        ahead = (*self.warmups, *self.queue) if counted else tuple(self.queue)
        surplus = list(itertools.takewhile(self._enough, ahead))
        if surplus:
            load = self.bench.history.loads.get(self.model.name, 0.0)
            seconds = [tokens / (view.observation(tokens).speed or math.inf) for tokens in surplus]
            if policy.surplus_costs(seconds, load):
                return False
        following = view.observation(self.queue[0])
        if following.verdict is not None and following.verdict.outcome is not Outcome.OK:
            return False
        if policy.predicted_miss(view, following):
            return False  # what it is predicted from disagrees or was noisy, and is settled first
        return any(not self._enough(tokens) for tokens in set(self.queue))

    def _decided(self, tokens: int) -> bool:
        return (self.model.name, self.task, tokens) in self.bench.history.verdicts

    def _enough(self, tokens: int) -> bool:
        if self._decided(tokens):
            return True
        key = (self.model.name, self.task, tokens)
        return policy.agreed(self.bench.history.current_samples(key), self.bench.suite.policy)

    def _overdue(self, now: float) -> bool:
        """Whether the sample in flight, or the silence, has lasted too long; the verdict is written."""
        settings = self.bench.suite.policy
        if not self.queue:
            # every row is here and yet it doesn't end: nothing more is owed to it
            return now - self.quiet_since > policy.load_allowance_seconds(self.model, settings)
        scenario = self.current
        load = self.bench.history.loads.get(self.model.name)
        if self.sample_began is None:
            verdict = policy.judge_silence(scenario, self.model, now - self.quiet_since, settings)
        elif self.warmups:
            verdict = policy.judge_warmup(scenario, self.model, now - self.sample_began, load, settings)
        else:
            one = self.bench.observation(self.model, scenario)
            verdict = policy.judge_running(one, self.model, now - self.sample_began, load, settings)
            again = verdict is not None and verdict.outcome is Outcome.TIMEOUT and one.attempt <= settings.noise_retries
            if verdict is not None and (again or policy.stalled(self._view(), one)):
                _repeat(self.bench, self.model, one, verdict.noisy or ("cv",))
                return True
        if verdict is None:
            return False
        self._conclude(verdict)
        return True

    def _view(self) -> TaskView:
        return self.bench.view(self.model, self.task, self.place.partial_gpu, self.guesses)

    def _ended(self, process: Process, event: Exited) -> None:
        """The process is gone by itself: all is well, or the scenario in flight ends with it."""
        if not self.queue:
            return
        outcome, reason = classify_exit(
            event.returncode, event.signal, process.log_tail, oom_kills=event.oom_kills, killed=event.killed
        )
        verdict = Verdict(outcome, reason)
        self._conclude(verdict)
        if not self.loaded and (outcome is Outcome.OOM or self.bench.history.unloaded.get(self.model.name, 0) > 1):
            # it does not load, for want of memory or for the second time: the other scenarios would not either
            for scenario in self.bench.suite.scenarios:
                self.bench.conclude(self.model, scenario, verdict)

    def _conclude(self, verdict: Verdict) -> None:
        if self.queue:
            self.bench.conclude(self.model, self.current, verdict)

    def _report(self, speed: float | None) -> None:
        tokens = self.queue[0] if self.queue else None
        taken = self.bench.history.current_samples((self.model.name, self.task, tokens)) if tokens else ()
        self.bench.report(
            phase="measuring",
            model=self.model.name,
            task=self.task,
            tokens=tokens,
            sample=len(taken) + 1,
            tokens_per_second=speed,
        )
