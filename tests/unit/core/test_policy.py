"""The policy is pure, so every rule is shown by plain values."""

from __future__ import annotations

from dataclasses import replace

import pytest
from llama_bench_core import policy
from llama_bench_core.values import Model, Outcome, PolicySettings, Sample, Scenario, Verdict

SETTINGS = PolicySettings()
SMALL = Model("small", "small.gguf", bytes=100 * 1024**2)
LARGE = Model("large", "large.gguf", bytes=int(39.6 * policy.GIB))
PROMPTS = tuple(
    Scenario("pp", tokens, wanted)
    for tokens, wanted in {16: 2, 128: 10, 512: 25, 1024: 50, 4096: 250, 16384: 1000}.items()
)
GENERATION = tuple(
    Scenario("tg", tokens, wanted) for tokens, wanted in {16: 1, 128: 5, 512: 25, 1024: 50, 4096: 250}.items()
)


def samples(*seconds: float) -> tuple[Sample, ...]:
    return tuple(Sample(round(one * 1e9)) for one in seconds)


def view(scenarios=PROMPTS, seen=None, *, model=SMALL, load=0.2, partial=False, guesses=None, settings=SETTINGS):
    """A view in which ``seen`` gives, by token count, samples in seconds or a verdict."""
    observations = []
    for scenario in scenarios:
        known = (seen or {}).get(scenario.tokens)
        if isinstance(known, Verdict):
            observations.append(policy.Observation(scenario, verdict=known))
        elif known:
            observations.append(policy.Observation(scenario, samples(*known), Verdict(Outcome.OK)))
        else:
            observations.append(policy.Observation(scenario))
    return policy.TaskView(model, tuple(observations), load, partial, guesses or {}, settings)


def open_view(scenarios, taken, **facts):
    """A view in which the scenarios with samples are still open."""
    found = view(scenarios, **facts)
    return replace(
        found,
        observations=tuple(
            replace(one, samples=samples(*taken.get(one.scenario.tokens, ()))) for one in found.observations
        ),
    )


@pytest.mark.parametrize(
    ("model", "scenario", "seconds"),
    [(SMALL, PROMPTS[0], 41), (SMALL, PROMPTS[2], 104), (SMALL, GENERATION[0], 81), (LARGE, PROMPTS[0], 199)],
)
def test_time_limits_are_those_of_the_recorded_runs(model, scenario, seconds):
    """Spare Cores' logs say "for max 41 sec", 104, 81 and, for the 70B model, 199."""
    assert policy.time_limit_seconds(scenario, model, SETTINGS) == pytest.approx(seconds, abs=1)


def test_a_slow_load_does_not_make_a_fast_scenario_miss():
    """A load over its allowance leaves a sample at the wanted speed its time."""
    limit = policy.sample_limit_seconds(PROMPTS[0], SMALL, 300.0, SETTINGS)
    assert limit == pytest.approx(16 / 2)


def test_the_first_batch_loads_once_and_takes_every_open_scenario_shortest_first():
    """One process per model and task; warm-ups come first, and what is probably short is queued five times."""
    batch = policy.next_batch(view())
    assert batch.warmups == (16,) * 8
    assert batch.values == (*[16] * 5, *[128] * 5, *[512] * 5, 1024, 1024, 4096, 4096, 16384, 16384)
    assert (batch.repetitions, batch.own_warmup) == (1, False)


def test_generation_keeps_llama_benchs_own_warm_up():
    """It costs one token, and takes the first-use costs out of every sample."""
    assert policy.next_batch(view(GENERATION)).own_warmup is True


@pytest.mark.parametrize(
    ("scenarios", "speed", "count"),
    [(PROMPTS, 16.0, 1), (PROMPTS, 160.0, 10), (PROMPTS, 1e6, 32), (GENERATION, 10.0, 0), (GENERATION, 32.0, 2)],
)
def test_the_machine_warms_up_for_a_second_whatever_the_model(scenarios, speed, count):
    """As many short samples as a second holds; for slow generation llama-bench's own token is enough."""
    assert policy.next_batch(view(scenarios, guesses={16: speed})).warmups == (16,) * count


def test_queued_values_that_are_not_wanted_are_cut_when_they_cost_more_than_a_load():
    """Three samples of five seconds against loads of one and of twenty seconds."""
    assert policy.surplus_costs([5.0, 5.0, 5.0], 1.0)
    assert not policy.surplus_costs([5.0, 5.0, 5.0], 20.0)


def test_cheap_scenarios_are_queued_five_times_at_once():
    """Where three more samples cost less than another load, they are queued with the first two."""
    batch = policy.next_batch(view(guesses={16: 800.0, 128: 900.0}, load=1.0))
    assert batch.values.count(16) == 5
    assert batch.values.count(128) == 5
    assert batch.values.count(16384) == 2


def test_samples_that_disagree_are_taken_up_again_round_by_round():
    """The second batch goes over the open scenarios in turn, so that it can end as soon as all agree."""
    found = open_view(PROMPTS[:2], {16: (1.0, 1.3), 128: (2.0, 2.6, 2.3)})
    batch = policy.next_batch(found)
    assert batch.values == (16, 16, 128, 16, 128)


def test_without_no_warmup_llama_bench_repeats_by_itself():
    """A binary that always warms up gets each value once, with -r."""
    batch = policy.next_batch(replace(view(PROMPTS[:2]), streams=False))
    assert batch == policy.Batch(values=(16, 128), repetitions=2, own_warmup=True)
    again = policy.next_batch(replace(open_view(PROMPTS[:2], {16: (1, 1.3), 128: (1, 1.3)}), streams=False))
    assert again == policy.Batch(values=(16, 128), repetitions=3, own_warmup=True)


def test_nothing_open_means_no_batch():
    """The end of a task."""
    assert policy.next_batch(view(PROMPTS[:1], {16: (0.1, 0.1)})) is None


def test_a_prompt_that_would_miss_at_the_best_speed_seen_is_skipped_with_the_reason():
    """At 40 tokens/s neither 1024 tokens in 20 s nor the longer ones can be had; 512 can."""
    skips = dict(policy.predicted_skips(view(seen={16: (0.4, 0.4), 128: (3.2, 3.2), 512: (12.8, 12.8)})))
    assert {scenario.tokens for scenario in skips} == {1024, 4096, 16384}
    verdict = skips[PROMPTS[3]]
    assert verdict.outcome is Outcome.PREDICTED_SKIP
    assert "40 tokens/s" in verdict.reason


def test_only_a_scenario_whose_turn_has_come_is_judged():
    """On a GPU 16 tokens may run at 60 tokens/s and 4096 at 400: nothing is skipped before what is shorter was run."""
    found = view(seen={16: (16 / 60, 16 / 60)})
    assert policy.predicted_skips(found) == ()
    assert PROMPTS[4] in dict(policy.predicted_skips(view(seen={t: (t / 60, t / 60) for t in (16, 128, 512, 1024)})))


def test_128_tokens_are_predicted_at_twice_the_speed_of_16():
    """Short prompts don't fill the machine: at 6 tokens/s for 16, 128 at up to 12 tokens/s are still tried."""
    seen = {16: (16 / 6, 16 / 6)}
    assert PROMPTS[1] not in dict(policy.predicted_skips(view(seen=seen)))
    assert PROMPTS[1] in dict(policy.predicted_skips(view(seen={16: (16 / 4.5, 16 / 4.5)})))


def test_generation_is_predicted_without_that_factor():
    """Generation reads all weights for every token, at 16 as at 128."""
    assert GENERATION[1] in dict(policy.predicted_skips(view(GENERATION, {16: (16 / 4, 16 / 4)})))


def test_with_a_gpu_in_part_use_short_prompts_are_never_skipped():
    """There pp128 is up to 35 times as fast as pp16."""
    assert policy.predicted_skips(view(seen={16: (7.9, 7.9)}, partial=True)) == ()
    slow = {16: (7.9, 7.9), 128: (12.0, 12.0), 512: (20.0, 20.0)}
    skips = dict(policy.predicted_skips(view(seen=slow, partial=True)))
    assert {scenario.tokens for scenario in skips} == {1024, 4096, 16384}


def test_a_cut_sample_bounds_the_speed_of_longer_ones():
    """16 tokens that had not come in 8.5 s: 128 would not come in time either."""
    seen = {16: Verdict(Outcome.BELOW_THRESHOLD, evidence_seconds=8.5)}
    assert PROMPTS[1] in dict(policy.predicted_skips(view(seen=seen)))


def test_a_scenario_that_was_begun_is_not_skipped():
    """Samples at hand are worth more than a prediction."""
    found = open_view(PROMPTS[:4], {16: (3.0, 3.0), 1024: (19.0,)})
    assert PROMPTS[3] not in dict(policy.predicted_skips(found))


def test_nothing_is_concluded_from_a_noisy_measurement_before_it_was_repeated():
    """A moment's unrest must not cost all the longer rows."""
    found = view()
    noisy = policy.Observation(PROMPTS[0], (), None, 2, samples(4.0, 5.0))
    found = replace(found, observations=(noisy, *found.observations[1:]))
    assert policy.predicted_skips(found) == ()
    assert set(policy.next_batch(found).values) == {16}
    assert policy.predicted_miss(found, found.observations[2]).outcome is Outcome.PREDICTED_SKIP
    repeated = replace(noisy, samples=samples(4.0, 4.0), verdict=Verdict(Outcome.OK, noisy=("steal",)))
    skips = dict(policy.predicted_skips(replace(found, observations=(repeated, *found.observations[1:]))))
    assert skips[PROMPTS[2]].noisy == ("steal",)


def test_the_first_sample_can_prove_the_miss():
    """17 s for 16 tokens where 8 s are wanted: no second sample."""
    verdict = policy.judge_samples(PROMPTS[0], SMALL, samples(17.0), 0.2, SETTINGS)
    assert verdict.outcome is Outcome.BELOW_THRESHOLD
    assert verdict.evidence_seconds == 17.0


def test_a_running_sample_proves_the_miss_before_it_ends():
    """The time in flight is evidence for the outcome."""
    limit = SETTINGS.miss_margin * policy.sample_limit_seconds(PROMPTS[0], SMALL, 0.2, SETTINGS)
    one = policy.Observation(PROMPTS[0])
    assert policy.judge_running(one, SMALL, limit - 0.1, 0.2, SETTINGS) is None
    verdict = policy.judge_running(one, SMALL, limit + 0.1, 0.2, SETTINGS)
    assert verdict.outcome is Outcome.BELOW_THRESHOLD
    assert verdict.evidence_seconds == pytest.approx(limit + 0.1, abs=0.01)


@pytest.mark.parametrize(("taken", "outcome"), [((0.1,), Outcome.TIMEOUT), ((0.1, 0.12), Outcome.OK)])
def test_a_stall_after_good_samples_is_no_proof_of_slowness(taken, outcome):
    """Two good samples are a measurement, a noisy one; with a single one nothing is known yet."""
    one = policy.Observation(PROMPTS[0], samples(*taken))
    verdict = policy.judge_running(one, SMALL, 30.0, 0.2, SETTINGS)
    assert verdict.outcome is outcome
    assert verdict.noisy == ("cv",)


def test_one_bad_sample_among_good_ones_is_no_miss():
    """The median decides."""
    assert policy.judge_samples(PROMPTS[0], SMALL, samples(0.1, 40.0, *[0.1] * 3), 0.2, SETTINGS).outcome is Outcome.OK


def test_silence_is_a_timeout_not_a_slow_machine():
    """A load that hangs says nothing of the speed."""
    verdict = policy.judge_silence(PROMPTS[0], SMALL, 42.0, SETTINGS)
    assert verdict.outcome is Outcome.TIMEOUT
    assert policy.judge_silence(PROMPTS[0], SMALL, 40.0, SETTINGS) is None


@pytest.mark.parametrize(
    ("seconds", "enough"),
    [
        ((1.0,), False),
        ((0.5, 0.5), False),
        ((1.0, 1.001), True),
        ((1.0, 1.1), False),
        ((1.0, 1.1, 0.9, 1.05), False),
        ((1.0, 1.1, 0.9, 1.05, 1.2), True),
        ((11.0, 12.0), True),
        ((11.0, 13.0), False),
        ((11.0, 13.0, 12.0), True),
        ((7.0, 7.5), True),
        ((6.0, 6.5), False),
    ],
)
def test_two_to_five_samples_until_they_agree(seconds, enough):
    """All five where they take five seconds; a standard error under 1 %, or 5 % where they are long."""
    assert policy.agreed(samples(*seconds), SETTINGS) is enough


def test_the_score_is_the_mean_of_the_speeds():
    """As llama-bench's own avg_ts: not tokens over mean time."""
    assert policy.mean_speed(10, samples(1.0, 2.0)) == pytest.approx((10 + 5) / 2)


def test_a_model_that_fills_the_memory_is_not_tried():
    """Over 0.8 of the memory; at 0.8 it is."""
    model = Model("m", "m.gguf", bytes=8 * policy.GIB)
    assert policy.fits_memory(model, 10 * policy.GIB, SETTINGS) is None
    assert policy.fits_memory(model, 10 * policy.GIB - 1024, SETTINGS).outcome is Outcome.OOM


def test_larger_models_are_hopeless_when_the_shortest_scenarios_were_missed():
    """Both tasks have to fail; one that was measured keeps the larger models in."""
    missed = Verdict(Outcome.BELOW_THRESHOLD)
    prompt = policy.Observation(PROMPTS[0], verdict=missed)
    assert policy.hopeless([prompt, policy.Observation(GENERATION[0], verdict=missed)])
    assert not policy.hopeless([prompt, policy.Observation(GENERATION[0], verdict=Verdict(Outcome.OK))])
    assert not policy.hopeless([prompt, policy.Observation(GENERATION[0], verdict=Verdict(Outcome.CRASH))])
    assert not policy.hopeless([])


def test_guesses_scale_with_the_bytes_to_be_read():
    """Four times the bytes, a quarter of the speed."""
    larger = replace(SMALL, name="larger", bytes=4 * SMALL.bytes)
    assert policy.scale_guesses({16: 100.0}, SMALL, larger) == {16: 25.0}


def test_a_noisy_measurement_is_repeated_once_and_only_within_its_limit():
    """Twice the samples must fit into the scenario's own time limit, and longer ones have averaged the noise."""
    assert policy.repeat_noisy(PROMPTS[0], SMALL, samples(0.8, 1.1), 1, SETTINGS)
    assert not policy.repeat_noisy(PROMPTS[0], SMALL, samples(0.8, 1.1), 2, SETTINGS)
    assert not policy.repeat_noisy(PROMPTS[0], SMALL, samples(1.0, 1.2), 1, SETTINGS)
    patient = replace(SETTINGS, repeat_seconds=100.0)
    assert not policy.repeat_noisy(PROMPTS[0], SMALL, samples(*[7.0] * 5), 1, patient)


def test_long_prompts_are_predicted_from_the_next_shorter_one_alone():
    """Where the machine is full the speed falls with the length: pp512's says too much of pp16384."""
    seen = {16: (0.01,), 128: (0.06,), 512: (0.3,), 1024: (0.7,), 4096: (5.0,)}
    assert policy.best_seen(view(seen=seen), PROMPTS[-1])[0] == pytest.approx(4096 / 5)
    assert policy.predicted_miss(view(seen=seen), policy.Observation(PROMPTS[-1])).outcome is Outcome.PREDICTED_SKIP


def test_later_batches_warm_up_with_the_shortest_prompts():
    """They touch all weights as well as long ones do, and cost least."""
    batch = policy.next_batch(view(seen={16: (0.5, 0.5), 128: (3.0, 3.0)}))
    assert batch.warmups == (16, 16)
    assert batch.values[0] == 512


def test_a_first_sample_that_is_cut_is_a_stall_where_shorter_ones_were_fast():
    """Twice the speed that is needed was seen: it is tried once more, and only once."""
    fast = view(GENERATION, {16: (0.2,)})
    one = policy.Observation(GENERATION[1])
    assert policy.stalled(fast, one)
    assert not policy.stalled(fast, replace(one, attempt=2))
    assert not policy.stalled(view(GENERATION, {16: (2.5,)}), one)


def test_a_warm_up_that_lasts_for_twice_the_limit_of_a_sample_is_proof_too():
    """A cold start makes a sample slower, but not without end."""
    limit = 2 * policy.sample_limit_seconds(PROMPTS[0], SMALL, 0.2, SETTINGS)
    assert policy.judge_warmup(PROMPTS[0], SMALL, limit - 0.1, 0.2, SETTINGS) is None
    assert policy.judge_warmup(PROMPTS[0], SMALL, limit + 0.1, 0.2, SETTINGS).outcome is Outcome.BELOW_THRESHOLD


@pytest.mark.parametrize(("seconds", "patience"), [(0.05, 800.0), (40.0, 400.0)])
def test_a_model_is_waited_for_as_long_as_the_rows_are_worth_that_are_expected_of_it(seconds, patience):
    """Each scenario that it will probably measure is worth some minutes; one row at least is hoped for."""
    seen = [policy.Observation(one, samples(seconds), Verdict(Outcome.OK)) for one in PROMPTS[:2]]
    assert policy.download_patience_seconds(SMALL, seen, replace(SMALL, bytes=SMALL.bytes * 4), SETTINGS) == patience


def test_the_first_model_is_waited_for_longest():
    """Nothing is known yet, and without it there is nothing."""
    assert policy.download_patience_seconds(None, [], SMALL, SETTINGS) == SETTINGS.download_patience_seconds
