"""A whole session over recorded times: the order of things, every kind of end, and resuming.

Real are the policy, the journal, the supply and a (tiny) GGUF file; llama-bench is played back in simulated time.
"""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from llama_bench_core import host, session, state, synthetic
from llama_bench_core.gpu import GPU
from llama_bench_core.playback import Failure, Playback, Recording
from llama_bench_core.programs import Finished
from llama_bench_core.suite import Suite
from llama_bench_core.values import Model, SettingsError

HELP = (Path(__file__).parents[2] / "cases" / "help" / "2026-0.5.0.txt").read_text()
SHAPE = {
    "architecture": "llama",
    "embedding": 256,
    "feed_forward": 512,
    "heads": 4,
    "heads_kv": 2,
    "context": 2048,
    "vocabulary": 512,
}
SUITE = Suite.from_dict(
    {
        "name": "tiny",
        "models": ["small", "large"],
        "scenarios": {"pp": {16: 2, 512: 25}, "tg": {16: 1}},
        # the machine that runs this test may be busy: only the recorded times are to be judged
        "policy": {
            "max_warmups": 1,
            "max_other_cores": 1000,
            "max_steal": 1,
            "min_clock_ratio": 0.0001,
            "repeat_seconds": 5,
        },
    }
)


def nanoseconds(*seconds):
    return [round(one * 1e9) for one in seconds]


def generation(*seconds):
    """Times of rows of generation: llama-bench's own warm-up takes one from the record too."""
    return [one for each in nanoseconds(*seconds) for one in (each, each)]


QUICK = {
    ("pp", 1): nanoseconds(0.05),
    ("pp", 16): nanoseconds(0.100, 0.1001, 0.1002),
    ("pp", 512): nanoseconds(2.0, 2.001, 2.002),
    ("tg", 16): nanoseconds(0.5, 0.5001, 0.5002),
}


@pytest.fixture
def models(tmp_path):
    """Two models that lie on the disk already."""
    found = []
    for layers, name in enumerate(("small", "large"), 1):
        path = tmp_path / "models" / f"{name}.gguf"
        model = Model(name, f"{name}.gguf", shape={**SHAPE, "layers": layers})
        synthetic.write(model, path)
        found.append(replace(model, path=str(path), bytes=path.stat().st_size))
    return found


class Machine:
    """A session's surroundings: recorded times, and facts of a machine without GPUs unless told otherwise."""

    def __init__(self, folder, models):
        self.folder, self.models = folder, models
        self.stop = threading.Event()
        self.facts = replace(host.gather(), gpus=())
        self.playback = None

    def run(self, recordings=None, failures=(), **request):
        """One start of the module; the journal's history."""
        self.folder.mkdir(exist_ok=True)
        self.playback = Playback(recordings or [Recording(f"{m.name}.gguf", QUICK, 0.5) for m in self.models], failures)
        if "stop_after" in request:
            self._stop_after(request.pop("stop_after"))
        asked = session.Request(
            suite=request.pop("suite", SUITE),
            models=tuple(self.models),
            state_dir=self.folder,
            models_dir=self.folder / "models",
            llama_bench="llama-bench",
            **{"weights": "real", **request},
        )
        journal = state.Journal(self.folder)
        tools = session.Tools(
            self.playback,
            run=lambda argv, _seconds: Finished(0, HELP if "--help" in argv else "", ""),
            clock=self.playback.clock,
            facts=self.facts,
        )
        try:
            session.Session(asked, journal, tools, self.stop).run()
        finally:
            journal.close()
        return state.read_history(self.folder)

    def _stop_after(self, rows):
        """Ask for the end once so many values have been played."""
        played, left = self.playback.next_seconds, [rows]

        def counting(*arguments):
            left[0] -= 1
            if left[0] < 0:
                self.stop.set()
            return played(*arguments)

        self.playback.next_seconds = counting

    def records(self, kind):
        lines = (self.folder / state.JOURNAL).read_text().splitlines()
        return [record for record in map(json.loads, lines) if record["kind"] == kind]


@pytest.fixture
def machine(tmp_path, models):
    return Machine(tmp_path / "state", models)


def outcomes(history):
    return {
        f"{model} {task}{tokens}": str(verdict.outcome) for (model, task, tokens), verdict in history.verdicts.items()
    }


def test_all_goes_well_with_one_process_per_model_and_task(machine):
    """Every scenario ends ok; the model is loaded once per task, and the warm-up is no sample."""
    history = machine.run()
    assert set(outcomes(history).values()) == {"ok"}
    assert len(history.verdicts) == 6
    assert len(machine.playback.started) == 4
    assert [one["tokens"] for one in machine.records("sample") if one["warmup"]] == [16] * 4
    assert machine.records("end")[-1]["status"] == "finished"


def test_samples_of_the_first_second_are_discarded(machine):
    """Processors take a while to wake: what begins within a second of the first sample does not count."""
    suite = replace(SUITE, policy=replace(SUITE.policy, max_warmups=32))
    slower = {**QUICK, ("pp", 16): nanoseconds(0.9, 0.6, 0.4, *[0.3] * 30)}
    machine.run([Recording("small.gguf", slower, 0.5), Recording("large.gguf", QUICK, 0.5)], suite=suite)
    taken = [one for one in machine.records("sample") if one["process"] == 1]
    assert [one["ns"] for one in taken if one["warmup"]] == nanoseconds(0.9, 0.6)
    assert {one["ns"] for one in taken if one["tokens"] == 16 and not one["warmup"]} <= set(nanoseconds(0.4, 0.3))


def test_a_surplus_of_long_values_is_cut(machine):
    """Eight values are queued to warm up; where each takes 4 s, they are not all run."""
    suite = replace(SUITE, policy=replace(SUITE.policy, max_warmups=32))
    slow = {**QUICK, ("pp", 16): nanoseconds(*[4.0] * 30)}
    machine.run([Recording("small.gguf", slow, 0.5), Recording("large.gguf", QUICK, 0.5)], suite=suite)
    taken = [one for one in machine.records("sample") if (one["model"], one["tokens"]) == ("small", 16)]
    assert len([one for one in taken if one["task"] == "pp"]) == 3


def test_every_sample_keeps_its_row_verbatim(machine):
    """What llama-bench printed can be had back from the journal."""
    machine.run()
    for record in machine.records("sample"):
        row = json.loads(record["row"])
        assert row["samples_ns"] == [record["ns"]]


@pytest.mark.parametrize("kind", ["crash", "abort", "end", "garbage"])
def test_a_failure_ends_one_scenario_and_the_next_process_carries_on(machine, kind):
    """pp512 of the small model fails; everything else is measured."""
    failure = Failure(kind, "small.gguf", "pp", 512, times=1, says="ggml.c:1: GGML_ASSERT(false) failed")
    found = outcomes(machine.run(failures=[failure]))
    assert found.pop("small pp512") == "crash"
    assert set(found.values()) == {"ok"}
    assert len(found) == 5


def test_a_process_that_hangs_in_a_sample_is_cut_as_too_slow(machine):
    """A sample that never ends is proof of a miss, and does not end the rest."""
    found = outcomes(machine.run(failures=[Failure("hang", "small.gguf", "tg", 16, times=1)]))
    assert found.pop("small tg16") == "below_threshold"
    assert set(found.values()) == {"ok"}


def test_a_sample_that_takes_for_ever_is_cut_and_bounds_the_longer_ones(machine):
    """Never recorded means never ending: pp16 is cut at its limit, pp512 is then not even tried."""
    slow = Recording("small.gguf", {key: value for key, value in QUICK.items() if key[0] == "tg"}, 0.5)
    warm = {("pp", 16): nanoseconds(1.0, 400.0)}
    slow = replace(slow, samples_ns={**slow.samples_ns, **warm})
    history = machine.run([slow, Recording("large.gguf", QUICK, 0.5)])
    found = outcomes(history)
    assert found["small pp16"] == "below_threshold"
    assert found["small pp512"] == "predicted_skip"
    assert found["small tg16"] == "ok"
    evidence = history.verdicts["small", "pp", 16].evidence_seconds
    assert 8 < evidence / SUITE.policy.miss_margin < 9
    assert machine.playback.now < 60


def test_a_model_that_does_not_load_twice_ends_and_the_second_try_asks_why(machine):
    """The load fails for every process: two are enough to know; the second has the log on."""
    found = outcomes(machine.run(failures=[Failure("abort", "small.gguf", says="error: failed to load model")]))
    assert {found[f"small {name}"] for name in ("pp16", "pp512", "tg16")} == {"crash"}
    assert {found[f"large {name}"] for name in ("pp16", "pp512", "tg16")} == {"ok"}
    tries = [argv for argv in machine.playback.started if any("small.gguf" in word for word in argv)]
    assert len(tries) == 2
    assert ["-v" in argv for argv in tries] == [False, True]


def test_out_of_memory_while_loading_ends_the_model_at_once(machine):
    """The kernel's word is enough: no second try."""
    found = outcomes(machine.run(failures=[Failure("oom", "large.gguf")]))
    assert {found[f"large {name}"] for name in ("pp16", "pp512", "tg16")} == {"oom"}
    assert len([argv for argv in machine.playback.started if any("large.gguf" in word for word in argv)]) == 1


def test_a_model_over_the_memory_is_not_tried(machine):
    """0.8 of the memory is the limit, by arithmetic."""
    machine.facts = replace(machine.facts, memory_bytes=machine.models[1].bytes)
    found = outcomes(machine.run())
    assert {found[f"large {name}"] for name in ("pp16", "pp512", "tg16")} == {"oom"}
    assert not any("large.gguf" in word for argv in machine.playback.started for word in argv)


def test_larger_models_are_skipped_when_the_smaller_missed_both_shortest_scenarios(machine):
    """Nothing is run for the large one, and the reason names the small one."""
    slow = Recording("small.gguf", {("pp", 16): nanoseconds(1.0, 99.0), ("tg", 16): generation(1.0, 99.0)}, 0.5)
    history = machine.run([slow])
    found = outcomes(history)
    assert {found[f"large {name}"] for name in ("pp16", "pp512", "tg16")} == {"predicted_skip"}
    assert "small" in history.verdicts["large", "pp", 16].reason
    assert not any("large.gguf" in word for argv in machine.playback.started for word in argv)


@pytest.mark.parametrize("rows", range(1, 17, 2))
def test_stopping_anywhere_and_going_on_loses_nothing_and_doubles_nothing(machine, rows):
    """Stopped after any number of values, the second start ends with the same outcomes and no sample too many."""
    machine.run(stop_after=rows)
    assert machine.records("end")[-1]["status"] == "stopped"
    kept = [record["row"] for record in machine.records("sample")]
    machine.stop.clear()
    history = machine.run()
    assert set(outcomes(history).values()) == {"ok"}
    assert len(history.verdicts) == 6
    assert len(machine.records("outcome")) == 6
    rows_now = [record["row"] for record in machine.records("sample")]
    assert rows_now[: len(kept)] == kept
    assert all(len(samples) <= 5 for samples in history.samples.values())


def test_a_torn_last_line_is_dropped_and_the_rest_is_kept(machine):
    """A machine that died in the middle of a write costs that line."""
    machine.run(stop_after=3)
    whole = (machine.folder / state.JOURNAL).read_bytes()
    (machine.folder / state.JOURNAL).write_bytes(whole + b'{"kind":"sample","mod')
    machine.stop.clear()
    history = machine.run()
    assert len(history.verdicts) == 6
    assert (machine.folder / state.JOURNAL).read_bytes().startswith(whole)


def test_a_noisy_measurement_is_repeated_once_and_both_attempts_are_kept(machine):
    """Samples that scatter by more than 3 % are taken again; the outcome says which attempt counts."""
    scattered = {**QUICK, ("tg", 16): generation(0.5, 0.5, 0.6, 0.55, 0.5, 0.62, *[0.5] * 9)}
    history = machine.run([Recording("small.gguf", scattered, 0.5), Recording("large.gguf", QUICK, 0.5)])
    key = ("small", "tg", 16)
    assert history.verdicts[key].attempt == 2
    assert history.verdicts[key].noisy == ()
    assert len(history.samples_of(key, 1)) == 5
    assert len(history.samples_of(key, 2)) >= 2
    assert [one["noisy"] for one in machine.records("repeat")] == [["cv"]]


def test_longer_scenarios_wait_for_the_repetition_of_a_noisy_one(machine):
    """pp16 looks too slow for pp512 until it is repeated; then all is measured."""
    scattered = {**QUICK, ("pp", 16): nanoseconds(0.1, *[0.8, 1.0] * 2, 0.9, *[0.1] * 9)}
    history = machine.run([Recording("small.gguf", scattered, 0.5), Recording("large.gguf", QUICK, 0.5)])
    assert str(history.verdicts["small", "pp", 512].outcome) == "ok"
    assert history.verdicts["small", "pp", 16].attempt == 2


def test_a_stall_after_a_good_sample_is_tried_again(machine):
    """One good sample, then a stall: measured anew, and then all is well."""
    stalled = {**QUICK, ("tg", 16): generation(0.5, 0.5, 300.0, *[0.5] * 9)}
    history = machine.run([Recording("small.gguf", stalled, 0.5), Recording("large.gguf", QUICK, 0.5)])
    verdict = history.verdicts["small", "tg", 16]
    assert (str(verdict.outcome), verdict.attempt) == ("ok", 2)


def test_a_measurement_that_stays_noisy_is_flagged(machine):
    """After the second attempt it is kept, with the limit that it broke."""
    scattered = {**QUICK, ("tg", 16): generation(0.5, 0.6, 0.55, 0.62, 0.48)}
    history = machine.run([Recording("small.gguf", scattered, 0.5), Recording("large.gguf", QUICK, 0.5)])
    assert history.verdicts["small", "tg", 16].noisy == ("cv",)
    assert str(history.verdicts["small", "tg", 16].outcome) == "ok"


def test_a_gpu_that_was_asked_for_and_did_nothing_is_a_fallback_and_no_score(machine):
    """The probe's log shows no layer on the GPU: nothing is measured as if it were one."""
    machine.facts = replace(machine.facts, gpus=(GPU(0, "NVIDIA L4", 24 << 30, 23 << 30, "550.1", "8.9"),))
    found = outcomes(machine.run())
    assert set(found.values()) == {"gpu_fallback"}
    assert machine.records("sample") == []


def test_a_gpu_that_is_left_alone_needs_no_proof(machine):
    """device: cpu measures on the CPU, and says so."""
    machine.facts = replace(machine.facts, gpus=(GPU(0, "NVIDIA L4", 24 << 30, 23 << 30, "550.1", "8.9"),))
    history = machine.run(device="cpu")
    assert set(outcomes(history).values()) == {"ok"}
    assert {load["offload"]["device"] for load in machine.records("load")} == {"CPU"}


def test_asking_for_a_gpu_where_there_is_none_is_an_error(machine):
    """One sentence, and the journal says that it failed."""
    with pytest.raises(SettingsError, match="A GPU was asked for"):
        machine.run(device="gpu")
    assert machine.records("end")[-1]["status"] == "failed"


def test_the_session_limit_ends_what_is_open(machine):
    """Scenarios whose turn did not come have an outcome too."""
    found = outcomes(machine.run(session_seconds=5))
    assert found["small pp16"] == "ok"
    assert found["large tg16"] == "not_reached"
    assert len(found) == 6


def test_kinds_of_weights_are_not_mixed_in_one_folder(machine):
    """A folder that holds real measurements refuses synthetic ones."""
    machine.run(stop_after=2)
    machine.stop.clear()
    with pytest.raises(state.StateError, match="real weights"):
        machine.run(weights="synthetic")


def test_a_corrupt_model_ends_that_model_only(machine):
    """A file that is no GGUF: download_failed with the reason; the other model is measured."""
    Path(machine.models[0].path).write_bytes(b"not a model")
    found = outcomes(machine.run())
    assert {found[f"small {name}"] for name in ("pp16", "pp512", "tg16")} == {"download_failed"}
    assert {found[f"large {name}"] for name in ("pp16", "pp512", "tg16")} == {"ok"}


def test_a_file_that_names_itself_a_model_and_is_none_ends_alone(machine):
    """Four right bytes and nothing behind them."""
    Path(machine.models[0].path).write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 64)
    machine.models[0] = replace(machine.models[0], bytes=72)
    found = outcomes(machine.run())
    assert {found[f"small {name}"] for name in ("pp16", "pp512", "tg16")} == {"download_failed"}
    assert {found[f"large {name}"] for name in ("pp16", "pp512", "tg16")} == {"ok"}


def test_a_model_of_unknown_size_comes_last_and_hides_no_smaller_one(machine):
    """What is not known to be larger is not given up because a slow model came before it."""
    machine.models[1] = replace(machine.models[1], bytes=0)
    slow = Recording("large.gguf", {("pp", 16): nanoseconds(1.0, 99.0), ("tg", 16): generation(1.0, 99.0)}, 0.5)
    request = session.Request.from_params(
        {
            "suite": SUITE.to_dict(),
            "models": [{"name": "large", "file": "large.gguf"}, {"name": "small", "file": "small.gguf", "bytes": 5}],
            "state_dir": "/",
            "models_dir": "/",
            "llama_bench": "llama-bench",
        }
    )
    assert [model.name for model in request.models] == ["small", "large"]
    found = outcomes(machine.run([slow, Recording("small.gguf", QUICK, 0.5)]))
    assert {found[f"small {name}"] for name in ("pp16", "pp512", "tg16")} == {"ok"}


def test_a_crash_while_repeating_keeps_the_noisy_measurement(machine):
    """Five samples that scatter are a measurement; a crash of the repetition takes nothing from it."""
    scattered = {**QUICK, ("tg", 16): generation(0.5, 0.5, 0.6, 0.55, 0.62, 0.48, 0.5)}
    failure = Failure("crash", "small.gguf", "tg", 16, times=99)
    recordings = [Recording("small.gguf", scattered, 0.5), Recording("large.gguf", QUICK, 0.5)]
    machine.run(recordings, stop_after=20)
    machine.stop.clear()
    before = state.read_history(machine.folder)
    key = ("small", "tg", 16)
    assert key not in before.verdicts
    assert len(before.samples_of(key, 1)) >= 2
    history = machine.run(recordings, [failure])
    assert str(history.verdicts[key].outcome) == "ok"
    assert "cv" in history.verdicts[key].noisy
    assert history.verdicts[key].attempt == 1


def test_the_time_limit_counts_all_starts():
    """A budget is not granted anew by starting again."""
    history = state.History()
    for kind, at in (("session", "00:00:00"), ("end", "00:00:40"), ("session", "01:00:00"), ("end", "01:00:02")):
        history.apply({"kind": kind, "at": f"2026-01-01T{at}.000Z", "session": 1, "status": "stopped"})
    assert history.spent_seconds == 42


def test_warm_ups_that_turn_slow_do_not_begin_anew_for_ever(machine):
    """A later process warms up with pp16, which was fast and is slow now: it goes on, and the session ends."""
    suite = replace(SUITE, policy=replace(SUITE.policy, max_warmups=8, repeat_seconds=100.0))
    turning = {
        **QUICK,
        ("pp", 16): nanoseconds(*[0.01] * 13, *[1.2] * 40),
        ("pp", 512): nanoseconds(2.0, 2.6, 2.0, 2.6, 2.0),
    }
    recordings = [Recording("small.gguf", turning, 0.01), Recording("large.gguf", QUICK, 0.5)]
    history = machine.run(recordings, suite=suite, stop_after=200)
    assert str(history.verdicts["small", "pp", 512].outcome) == "ok"
    assert len(machine.playback.started) < 20
