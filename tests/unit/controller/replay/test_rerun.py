"""The real session over recorded runs: nothing is seen before its time, and every second is accounted for."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from benchctl.models import load_models
from benchctl.replay import corpus, replay, report
from benchctl.replay import rerun as rerun_module
from benchctl.replay.recording import Recorded, Tried, read_recorded
from benchctl.replay.rerun import half_of, play, rerun
from benchctl.replay.world import Assumptions, Hardware, Machine
from benchctl.suites import load_suite
from llama_bench_core.state import MemoryJournal

CASES = Path(__file__).parents[3] / "cases" / "replay"
MODELS = load_models()
SUITE = replace(load_suite("default"), model_names=("SmolLM-135M", "Qwen1.5-0.5B-Chat"))
CHOSEN = tuple(MODELS[name] for name in SUITE.model_names)
NOTHING = Hardware()
AS_IT_WAS = Assumptions()


def recorded(server: str) -> Recorded:
    (raw,) = corpus.raw_runs(CASES / "data", corpus.Wanted(servers=[server]))
    return read_recorded(raw.vendor, raw.server, raw.texts["meta.json"], raw.texts["stdout"], raw.texts["stderr"])


def again(server: str, assumed: Assumptions = AS_IT_WAS, hardware: Hardware = NOTHING):
    return rerun(recorded(server), SUITE, MODELS, hardware, assumed)


def test_every_row_is_kept_in_less_time():
    """All that they measured is measured, in fewer seconds, and the scores hardly move."""
    one = again("cpu-2")
    assert [row.outcome for row in one.rows] == ["ok"] * 14
    assert one.ours_seconds < 0.7 * one.theirs_seconds
    assert max(abs(row.shift) for row in one.rows) < 0.005


def test_the_image_is_pulled_as_recorded_and_the_rest_adds_up():
    """Our causes are theirs, none is negative, and their sum is the simulated clock."""
    run = recorded("cpu-2")
    machine, _ = play(run, SUITE, CHOSEN, NOTHING, AS_IT_WAS)
    ours = again("cpu-2").ours
    assert ours["image pull"] == run.causes["image pull"]
    assert min(ours.values()) >= 0
    assert sum(ours.values()) == pytest.approx(machine.now + ours["image pull"] + ours["other"])


def test_a_time_out_is_cut_early_and_bounds_the_rest():
    """They waited 105 s for tg512: a sample that never ends is cut after a fifth of that; pp4096 is not even run."""
    one = again("cpu-2")
    assert one.outcomes["below_threshold"] == 1
    assert one.outcomes["predicted_skip"] > 3
    assert one.ours["scenarios without a row"] < 0.3 * one.theirs["scenarios without a row"]


def test_the_samples_are_the_recorded_ones_in_their_order():
    """The k-th sample that counts takes the k-th recorded time; a discarded one as long as the one after it."""
    run = recorded("cpu-2")
    _, journal = play(run, SUITE, CHOSEN, NOTHING, AS_IT_WAS)
    for row in run.rows:
        name = next(model.name for model in CHOSEN if model.file == row.file)
        taken = [one.nanoseconds for one in journal.history.samples[name, row.task, row.tokens]]
        assert taken == [row.samples_ns[index % 5] for index in range(len(taken))]


def test_a_gpu_is_probed_once_per_model():
    """The probe is paid for; what was never recorded there is reported as predicted."""
    one = again("gpu-1")
    assert one.ours["probing layers"] > 3
    assert one.predicted > 0
    assert one.ours["never recorded"] > 0
    assert all(row.kept for row in one.rows)


def test_a_model_that_exceeds_the_memory_is_not_tried():
    """What the catalogue says of the memory counts."""
    one = again("cpu-2", hardware=Hardware(memory_bytes=256 * 1024**2))
    assert {row.outcome for row in one.rows if row.model.startswith("Qwen")} == {"oom"}


def test_downloads_run_on_the_clock():
    """Twice as fast, or begun earlier: less is waited. The recorded waits are not used."""
    slow = replace(
        recorded("cpu-2"),
        models={file: replace(model, bytes_per_second=1e6) for file, model in recorded("cpu-2").models.items()},
    )

    def waited(assumed: Assumptions) -> float:
        return rerun(slow, SUITE, MODELS, NOTHING, assumed).ours["waiting for downloads"]

    early, near = Assumptions(downloads_first=True), Assumptions(least_bytes_per_second=3e8)
    assert waited(AS_IT_WAS) > waited(early) > waited(near)


@pytest.mark.parametrize(
    ("assumed", "cause"),
    [
        (Assumptions(load_factor=2), "load"),
        (Assumptions(restart_seconds=5), "load"),
    ],
)
def test_what_is_assumed_can_be_varied(assumed, cause):
    """Longer loads and dearer restarts show where they belong."""
    assert again("cpu-2", assumed).ours[cause] > again("cpu-2").ours[cause]


def test_without_warm_ups_nothing_is_discarded():
    """An assumption of its own, never part of the account as recorded."""
    assert again("cpu-2").ours["warm-up"] > again("cpu-2", Assumptions(warmups=False)).ours["warm-up"]


class Watched(MemoryJournal):
    """A journal that notes how long it was when each scenario's time was first asked for."""

    def __init__(self, clock):
        super().__init__(clock)
        self.drawn = {}


def watch(monkeypatch, run: Recorded):
    """The records of a replay but for their dates, and how many there were before each scenario was first drawn."""
    journals = []

    def journal(clock):
        journals.append(Watched(clock))
        return journals[-1]

    original = Machine.next_seconds

    def next_seconds(machine, file, task, tokens):
        journals[-1].drawn.setdefault((file, task, tokens), len(journals[-1].records))
        return original(machine, file, task, tokens)

    with monkeypatch.context() as patch:
        patch.setattr(rerun_module, "MemoryJournal", journal)
        patch.setattr(Machine, "next_seconds", next_seconds)
        play(run, SUITE, CHOSEN, NOTHING, AS_IT_WAS)
    records = [{key: value for key, value in one.items() if key != "at"} for one in journals[-1].records]
    return records, journals[-1].drawn


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_seen_before_its_time(monkeypatch, seed):
    """Change all recorded values that were not drawn yet: everything up to the first draw of them stays as it was."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    run = recorded("cpu-2")
    before, drawn = watch(monkeypatch, run)
    moment = chance.choice(sorted(drawn.values()))

    def other(one: Tried) -> Tried:
        if drawn.get((one.file, one.task, one.tokens), moment) < moment:
            return one
        factor = chance.choice([0.1, 0.5, 3.0, 50.0, 0.0])
        return replace(
            one, samples_ns=tuple(round(ns * factor) for ns in one.samples_ns) if factor else (), timed_out=True
        )

    # the load times are what was seen of them, whatever the samples were
    after, _ = watch(monkeypatch, replace(run, tried=tuple(map(other, run.tried))))
    assert moment > 0
    assert timeless(after[:moment]) == timeless(before[:moment])


def timeless(records):
    """Without the load times: the recording's own derivation of them uses all rows of a model."""
    return [{key: value for key, value in one.items() if key != "seconds"} for one in records]


def test_half_of_the_servers_are_held_out():
    """By the name alone, so that it never changes."""
    halves = [half_of("aws", f"m{number}.large") for number in range(400)]
    assert 160 < halves.count("held out") < 240
    assert half_of("aws", "m5.large") == half_of("aws", "m5.large")


def test_runs_that_did_not_go_through_are_left_out_and_named():
    """And the others are not disturbed by them."""
    setting = replay.Setting(SUITE, MODELS)
    found = {one.server: one for one in replay.replay_all(corpus.raw_runs(CASES / "data"), setting)}
    assert found["failed"].left_out == "it ended with exit code -1"
    assert len(found["cpu-2"].accounts) == len(found["gpu-1"].accounts) == 1


def test_money_is_hours_times_price_and_currencies_stay_apart():
    """Servers without a price are counted, not guessed."""
    runs = [again("cpu-2"), again("gpu-1"), replace(again("gpu-1"), server="unknown")]
    prices = {("lab", "cpu-2"): (0.1, "USD"), ("lab", "gpu-1"): (0.6, "EUR")}
    summary = report.summarise(runs, prices)
    assert summary.unpriced == 1
    assert summary.theirs_cost == {
        "USD": pytest.approx(0.1 * runs[0].theirs_seconds / 3600),
        "EUR": pytest.approx(0.6 * runs[1].theirs_seconds / 3600),
    }


def test_losses_are_counted_and_the_worst_come_first():
    """By the recorded speed; with the outcome and the reason."""
    one = again("cpu-2", hardware=Hardware(memory_bytes=256 * 1024**2))
    worst = report.worst_losses([one], 2)
    assert len(worst) == 2
    assert worst[0]["recorded_tokens_per_second"] >= worst[1]["recorded_tokens_per_second"]
    assert "memory" in worst[0]["reason"]
    assert report.losses_by_outcome([one]) == {"oom": 6}


def test_nothing_adds_up_to_nothing():
    """No runs, no rows: no division by zero."""
    summary = report.summarise([])
    assert (summary.ratio, summary.kept_share, summary.median_shift, summary.p95_shift) == (None, None, None, None)
