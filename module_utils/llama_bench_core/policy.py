"""What to run next, how often, for how long, and when to stop. Pure: no clock, no files, no processes.

The same functions decide on a real server, in a rehearsal and in a replay of recorded runs. They see what has been
observed so far (:class:`TaskView`) and answer with values: which scenarios end without being run, which values the
next llama-bench process gets, and, while it runs, whether to go on.

The rules are explained in ``docs/measurement.md``, what each saves on recorded runs in ``docs/policy.md``:

* a scenario's *time limit* is what its load may take plus ``limit_samples`` samples at the wanted speed;
* *predict before you run*: skip what, at the best speed seen at shorter lengths of this model and task, misses it;
* *early verdict*: a first sample, or a sample that has been running for too long, proves the miss;
* *samples until they agree*: two to five, until the relative standard error is small; five where they are short.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .values import Model, Outcome, PolicySettings, Sample, Scenario, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GIB = 1024**3

UNKNOWN_WARMUPS = 8
"""Values queued for warming up while the speed is unknown; where they turn out long, they count as samples."""

LONG_TOKENS = 1024
"""Lengths beyond this are predicted from the next shorter one alone."""

UNKNOWN_SHORT_TOKENS = 512
"""While the speed is unknown, up to this length all samples are queued at once: mostly they are short."""


@dataclass(frozen=True)
class Observation:
    """What is known of one scenario of one model.

    Attributes:
        scenario: which one.
        samples: the samples of the current attempt, in the order they were taken; warm-ups are not among them.
        verdict: how it ended, or ``None`` while it is open.
        attempt: 1, or 2 while a noisy measurement is repeated.
        earlier: the samples of the noisy attempt before this one.
    """

    scenario: Scenario
    samples: tuple[Sample, ...] = ()
    verdict: Verdict | None = None
    attempt: int = 1
    earlier: tuple[Sample, ...] = ()

    @property
    def speed(self) -> float | None:
        """Mean speed of the samples, tokens per second, of the better attempt if there were two; ``None`` without."""
        speeds = [mean_speed(self.scenario.tokens, taken) for taken in (self.samples, self.earlier)]
        return max((speed for speed in speeds if speed is not None), default=None)

    @property
    def unsettled(self) -> bool:
        """Whether it was begun, and its samples don't agree yet or were noisy and are being repeated."""
        return self.verdict is None and bool(self.samples or self.earlier)


@dataclass(frozen=True)
class TaskView:
    """All that the policy may look at when it decides about one task of one model.

    Attributes:
        model: the model.
        observations: its scenarios of this task, by ascending token count.
        load_seconds: how long the model took to load when last seen, or ``None`` before its first load.
        partial_gpu: whether only some layers are on a GPU; short prompts then say little about longer ones.
        guesses: expected speeds by token count, scaled from a smaller model; only for planning how many samples to
            queue, never for a verdict.
        settings: the numbers to decide by.
        streams: whether single samples without a warm-up can be had, one row each; otherwise llama-bench makes its
            own warm-up pass before each row.
    """

    model: Model
    observations: tuple[Observation, ...]
    load_seconds: float | None
    partial_gpu: bool
    guesses: Mapping[int, float]
    settings: PolicySettings
    streams: bool = True

    @property
    def pending(self) -> tuple[Observation, ...]:
        """The scenarios without a verdict."""
        return tuple(one for one in self.observations if one.verdict is None)

    def observation(self, tokens: int) -> Observation:
        """What is known of the scenario of this length."""
        return next(one for one in self.observations if one.scenario.tokens == tokens)


@dataclass(frozen=True)
class Batch:
    """The values that one llama-bench process runs, in this order.

    Attributes:
        values: token counts; one row (``repetitions`` samples) each.
        warmups: values to run before them, whose samples are discarded while the machine warms up.
        repetitions: llama-bench's ``-r``.
        own_warmup: whether llama-bench makes its own warm-up pass before each value.
    """

    values: tuple[int, ...]
    warmups: tuple[int, ...] = ()
    repetitions: int = 1
    own_warmup: bool = False


def mean_speed(tokens: int, samples: Sequence[Sample]) -> float | None:
    """Mean of the samples' speeds in tokens per second: llama-bench's own ``avg_ts``; ``None`` without samples."""
    if not samples:
        return None
    return sum(tokens / sample.seconds for sample in samples) / len(samples)


def coefficient_of_variation(samples: Sequence[Sample]) -> float | None:
    """Sample standard deviation over mean of the times (n - 1 in the denominator), ``None`` below two samples."""
    if len(samples) < 2:
        return None
    mean = sum(sample.seconds for sample in samples) / len(samples)
    variance = sum((sample.seconds - mean) ** 2 for sample in samples) / (len(samples) - 1)
    return math.sqrt(variance) / mean if mean else None


def load_allowance_seconds(model: Model, settings: PolicySettings) -> float:
    """What a time limit grants for loading: one second, and four per GiB of file by default.

    The figure is that of Spare Cores' runs: their logs grant 1 s + 4 s per GiB (159 s for the 39.6 GiB of
    Llama-3.3-70B), which is a disk of 256 MiB/s.
    """
    return 1.0 + settings.load_seconds_per_gib * model.size_bytes / GIB


def time_limit_seconds(scenario: Scenario, model: Model, settings: PolicySettings) -> float:
    """How long a scenario may take: its load, and ``limit_samples`` samples at the wanted speed."""
    at_wanted_speed = settings.limit_samples * scenario.tokens / scenario.wanted_tokens_per_second
    return load_allowance_seconds(model, settings) + at_wanted_speed


def sample_limit_seconds(
    scenario: Scenario, model: Model, load_seconds: float | None, settings: PolicySettings
) -> float:
    """How long one sample may take if ``limit_samples`` of them and the load are to fit into the time limit.

    Never below the time of a sample at the wanted speed: a load that took longer than its allowance is the disk's
    fault and must not turn a fast scenario into a miss.
    """
    at_wanted_speed = scenario.tokens / scenario.wanted_tokens_per_second
    load = load_allowance_seconds(model, settings) if load_seconds is None else load_seconds
    # their limit had to hold a warm-up besides the samples, which on prompts is one more
    passes = settings.limit_samples + (scenario.task == "pp")
    share = (time_limit_seconds(scenario, model, settings) - load) / passes
    return max(at_wanted_speed, share)


def fits_memory(model: Model, memory_bytes: int, settings: PolicySettings) -> Verdict | None:
    """``oom`` for a model whose file is too large a share of the memory: RAM, and that of the GPUs that may be used."""
    if model.size_bytes <= settings.memory_fraction * memory_bytes:
        return None
    return Verdict(
        Outcome.OOM,
        f"the file has {model.size_bytes / GIB:.1f} GiB, more than {settings.memory_fraction:.0%} "
        f"of the {memory_bytes / GIB:.1f} GiB of memory",
    )


def best_seen(view: TaskView, scenario: Scenario) -> tuple[float, Observation] | None:
    """The best speed at shorter lengths of this model and task, tokens per second, and where it was seen.

    A scenario that was cut without a sample still bounds its speed from above: it had not done its tokens in the
    time it had been running.
    """
    known = []
    for one in view.observations:
        speed = speed_bound(one)
        if one.scenario.tokens < scenario.tokens and speed is not None:
            # a batch of 16 tokens does not fill the machine: 128 are up to twice as fast per token
            if scenario.task == "pp" and scenario.tokens == 128:
                speed *= view.settings.short_prompt_speedup
            known.append((speed, one))
    if scenario.tokens > LONG_TOKENS:
        # where the machine is full the speed falls with the length
        known = known[-1:]
    return max(known, key=lambda pair: pair[0], default=None)


def predicted_miss(view: TaskView, one: Observation) -> Verdict | None:
    """Whether an open scenario would, by what was seen so far, miss its limit; the verdict says by what."""
    scenario = one.scenario
    if one.verdict is not None or one.samples or one.earlier:
        return None
    if view.partial_gpu and scenario.task == "pp" and scenario.tokens < view.settings.gpu_no_skip_below_tokens:
        return None
    seen = best_seen(view, scenario)
    if seen is None:
        return None
    speed, where = seen
    limit = view.settings.skip_margin * sample_limit_seconds(scenario, view.model, view.load_seconds, view.settings)
    needed = scenario.tokens / speed
    if needed <= limit:
        return None
    reason = (
        f"at {speed:.3g} tokens/s, the best seen at shorter lengths, "
        f"a sample takes {needed:.1f} s where {limit:.1f} s is the limit"
    )
    # what was concluded from a noisy measurement is as doubtful as the measurement
    return Verdict(Outcome.PREDICTED_SKIP, reason, noisy=where.verdict.noisy if where.verdict else ())


def predicted_skips(view: TaskView) -> tuple[tuple[Scenario, Verdict], ...]:
    """The open scenarios that would miss their limit: not run, and the reason said.

    Judged is only a scenario whose turn has come: all shorter ones have their verdict. A prompt of 16 tokens alone says
    little of one of 4096; and while samples of a shorter one disagree, or are repeated because they were noisy, nothing
    is concluded from them: a machine that was busy for a moment would otherwise lose all its longer rows.
    """
    skips: list[tuple[Scenario, Verdict]] = []
    for one in view.pending:
        verdict = predicted_miss(view, one)
        if verdict is None:
            break  # it will be run, and what is longer waits for it
        skips.append((one.scenario, verdict))
    return tuple(skips)


def agreed(samples: Sequence[Sample], settings: PolicySettings) -> bool:
    """Whether there are enough samples: they agree, or there is the most that is taken.

    Short ones are cheap, and all are taken; long ones agree sooner, because each further one costs.
    """
    if len(samples) < settings.min_samples:
        return False
    if len(samples) >= settings.max_samples:
        return True
    taken = sum(sample.seconds for sample in samples)
    mean = taken / len(samples)
    if settings.max_samples * mean <= settings.short_scenario_seconds:
        return False
    is_long = taken + mean > settings.min_samples * settings.long_sample_seconds
    limit = settings.long_agreement if is_long else settings.agreement
    variation = coefficient_of_variation(samples)
    return variation is not None and variation / math.sqrt(len(samples)) <= limit


def judge_samples(
    scenario: Scenario, model: Model, samples: Sequence[Sample], load_seconds: float | None, settings: PolicySettings
) -> Verdict | None:
    """The verdict after a new sample: proven slower than wanted, measured, or ``None`` to go on sampling."""
    if not samples:
        return None
    limit = settings.miss_margin * sample_limit_seconds(scenario, model, load_seconds, settings)
    # the median: one sample that stalled among good ones says nothing of the machine's speed
    typical = statistics.median(sample.seconds for sample in samples)
    if typical > limit:
        speed = scenario.tokens / typical
        return Verdict(
            Outcome.BELOW_THRESHOLD,
            f"{speed:.3g} tokens/s: a sample takes {typical:.1f} s where {limit:.1f} s is the limit",
            evidence_seconds=round(typical, 3),
        )
    return Verdict(Outcome.OK) if agreed(samples, settings) else None


def judge_running(
    one: Observation, model: Model, running_seconds: float, load_seconds: float | None, settings: PolicySettings
) -> Verdict | None:
    """The verdict on a sample in flight: it has already been running for longer than a sample may take.

    After good samples that is a stall and no proof of slowness: with enough of them the scenario is measured (and
    noisy), otherwise nothing is known (the caller repeats it once).
    """
    scenario = one.scenario
    limit = settings.miss_margin * sample_limit_seconds(scenario, model, load_seconds, settings)
    if running_seconds <= limit:
        return None
    evidence = round(running_seconds, 3)
    cut = f"cut after {running_seconds:.1f} s, where {limit:.1f} s is the limit for a sample"
    if not one.samples:
        reason = f"under {scenario.tokens / running_seconds:.3g} tokens/s: {cut}"
        return Verdict(Outcome.BELOW_THRESHOLD, reason, evidence_seconds=evidence)
    outcome = Outcome.OK if len(one.samples) >= settings.min_samples else Outcome.TIMEOUT
    return Verdict(outcome, f"a further sample stalled: {cut}", ("cv",), evidence, one.attempt)


def stalled(view: TaskView, one: Observation) -> bool:
    """Whether a first sample that was cut is rather a stall: shorter lengths promised at least twice the speed needed.

    Small models on many cores stop for seconds now and then; such a scenario is tried once more.
    """
    if one.attempt > view.settings.noise_retries or one.samples:
        return False
    seen = best_seen(view, one.scenario)
    if seen is None:
        return False
    limit = sample_limit_seconds(one.scenario, view.model, view.load_seconds, view.settings)
    return 2 * one.scenario.tokens / seen[0] <= limit


def judge_warmup(
    scenario: Scenario, model: Model, running_seconds: float, load_seconds: float | None, settings: PolicySettings
) -> Verdict | None:
    """The verdict on a warm-up in flight: slower than any cold start makes it."""
    limit = settings.warmup_patience * sample_limit_seconds(scenario, model, load_seconds, settings)
    if running_seconds <= limit:
        return None
    return Verdict(
        Outcome.BELOW_THRESHOLD,
        f"under {scenario.tokens / running_seconds:.3g} tokens/s: its first sample was cut "
        f"after {running_seconds:.1f} s, where {limit:.1f} s is the limit for one that warms up",
        evidence_seconds=round(running_seconds, 3),
    )


def judge_silence(scenario: Scenario, model: Model, silent_seconds: float, settings: PolicySettings) -> Verdict | None:
    """The verdict on a process that has not begun its sample: loading hangs, or it reports no progress at all."""
    limit = time_limit_seconds(scenario, model, settings)
    if silent_seconds <= limit:
        return None
    return Verdict(
        Outcome.TIMEOUT,
        f"no sample began within {limit:.0f} s",
        evidence_seconds=round(silent_seconds, 3),
    )


def next_batch(view: TaskView) -> Batch | None:
    """The values of the next llama-bench process, or ``None`` when nothing is open.

    The first batch of a task takes every open scenario, shortest first, so that the model is loaded once and a miss
    ends the longer ones with it. Where the samples don't agree yet, the next batch takes them round by round: the
    process ends as soon as all of them do.
    """
    pending = view.pending
    if not pending:
        return None
    settings = view.settings
    # what would be skipped waits until that which it is predicted from is settled
    begun = tuple(one for one in pending if one.unsettled)
    untouched = next((one for one in pending if not one.unsettled), None)
    if begun and untouched is not None and predicted_miss(view, untouched):
        pending = begun
    fresh = [one for one in pending if len(one.samples) < settings.min_samples]
    if not view.streams:
        repetitions = settings.min_samples if fresh else settings.max_samples - settings.min_samples
        return Batch(
            values=tuple(one.scenario.tokens for one in fresh or pending), repetitions=repetitions, own_warmup=True
        )
    values: list[int] = []
    if fresh:
        for one in fresh:
            values += [one.scenario.tokens] * (_samples_ahead(view, one) - len(one.samples))
    else:
        for missing in range(settings.max_samples, 0, -1):
            values += [one.scenario.tokens for one in pending if settings.max_samples - len(one.samples) >= missing]
    # llama-bench's own warm-up before a row is one token for generation, and the whole prompt for prompts
    return Batch(values=tuple(values), warmups=_warmups(view, pending[0]), own_warmup=pending[0].scenario.task == "tg")


def _warmups(view: TaskView, first: Observation) -> tuple[int, ...]:
    """Values that fill the warm-up time: of the task's shortest scenario, whose samples cost least.

    Where that one could not be measured, of the first one that will be. A long sample warms up by itself.
    """
    settings = view.settings
    if not settings.warmup_seconds:
        return ()
    shortest = view.observations[0]
    if shortest.verdict is not None and shortest.speed is None:
        shortest = first
    tokens = shortest.scenario.tokens
    speed = shortest.speed or view.guesses.get(tokens)
    if speed is None:
        return (tokens,) * min(UNKNOWN_WARMUPS, settings.max_warmups)
    count = math.ceil(settings.warmup_seconds * speed / tokens)
    if count <= 1 and shortest.scenario.task == "tg":
        return ()
    return (tokens,) * min(count, settings.max_warmups)


def surplus_costs(seconds: Sequence[float], load_seconds: float) -> bool:
    """Whether values that are queued but no longer wanted cost more than to end the process and load again."""
    return sum(seconds) > load_seconds


def _samples_ahead(view: TaskView, one: Observation) -> int:
    """How many samples to queue at once: all of them where the rest costs less than another load."""
    settings = view.settings
    seen = best_seen(view, one.scenario)
    speed = seen[0] if seen else view.guesses.get(one.scenario.tokens)
    if speed is None:
        return settings.max_samples if one.scenario.tokens <= UNKNOWN_SHORT_TOKENS else settings.min_samples
    load = load_allowance_seconds(view.model, settings) if view.load_seconds is None else view.load_seconds
    sample = one.scenario.tokens / speed
    all_are_taken = settings.max_samples * sample <= settings.short_scenario_seconds
    rest = (settings.max_samples - settings.min_samples) * sample
    return settings.max_samples if all_are_taken or rest <= load else settings.min_samples


def scale_guesses(speeds: Mapping[int, float], model: Model, larger: Model) -> dict[int, float]:
    """Speeds expected of a larger model: in proportion to the bytes that each token has to read."""
    if not model.size_bytes or not larger.size_bytes:
        return {}
    return {tokens: speed * model.size_bytes / larger.size_bytes for tokens, speed in speeds.items()}


def speed_bound(one: Observation) -> float | None:
    """The most that is known of a scenario's speed, tokens per second: as measured, or what it was cut for missing."""
    if one.speed is not None or one.verdict is None or not one.verdict.evidence_seconds:
        return one.speed
    missed = one.verdict.outcome is Outcome.BELOW_THRESHOLD
    return one.scenario.tokens / one.verdict.evidence_seconds if missed else None


def download_patience_seconds(
    smaller: Model | None, seen: Sequence[Observation], model: Model, settings: PolicySettings
) -> float:
    """How long the machine may idle for a model: so long for each row that is expected of it, one at least.

    Args:
        smaller: the model measured before it; ``None`` where it is the first, which is waited for as long as for any.
        seen: all scenarios of that one.
        model: the model that is on its way.
        settings: the two limits.
    """
    if smaller is None:
        return settings.download_patience_seconds
    rows = 0
    for one in seen:
        expected = scale_guesses({0: one.speed or 0.0}, smaller, model).get(0, 0.0)
        rows += expected * sample_limit_seconds(one.scenario, model, 0.0, settings) >= one.scenario.tokens
    return min(settings.download_patience_seconds, settings.patience_per_row_seconds * max(1, rows))


def hopeless(shortest: Sequence[Observation]) -> bool:
    """Whether larger models need not be tried: the shortest scenario of every task proved too slow on this one."""
    missed = (Outcome.BELOW_THRESHOLD, Outcome.TIMEOUT)
    return bool(shortest) and all(one.verdict is not None and one.verdict.outcome in missed for one in shortest)


def repeat_noisy(
    scenario: Scenario, model: Model, samples: Sequence[Sample], attempt: int, settings: PolicySettings
) -> bool:
    """Whether a noisy measurement is repeated: once by default, and only within the scenario's own time limit."""
    if attempt > settings.noise_retries:
        return False
    spent = sum(sample.seconds for sample in samples)
    if spent > settings.repeat_seconds:
        return False
    return 2 * spent + load_allowance_seconds(model, settings) <= time_limit_seconds(scenario, model, settings)


def expected_seconds(scenario: Scenario, model: Model, speed: float | None, settings: PolicySettings) -> float:
    """How long a scenario will probably take: its samples at ``speed``, never more than its time limit.

    Args:
        scenario: which one.
        model: the model.
        speed: tokens per second expected, or ``None`` when nothing is known; then the time limit is all that is known.
        settings: the numbers of samples.
    """
    limit = time_limit_seconds(scenario, model, settings)
    if not speed:
        return limit
    sample = scenario.tokens / speed
    if sample > sample_limit_seconds(scenario, model, None, settings):
        return 0.0  # it will be skipped
    count = settings.min_samples if sample > settings.long_sample_seconds else settings.max_samples
    return min(limit, count * sample)
