"""Recorded runs in simulated time behave as real ones do."""

from __future__ import annotations

import signal
import time

import pytest
from llama_bench_core.command import Binary, arguments
from llama_bench_core.endings import classify_exit
from llama_bench_core.events import Exited, Garbage, Launcher, ProgressLine, RowLine, Tick
from llama_bench_core.playback import Failure, Playback, Recording
from llama_bench_core.values import Outcome

FILE = "a.gguf"
BINARY = Binary("llama-bench", "", 0, "", frozenset({"--no-warmup", "--progress", "-t", "-ngl", "-dev"}), "")
RECORDING = Recording(
    FILE,
    {("pp", 16): [2_000_000_000, 1_000_000_000], ("pp", 512): [30_000_000_000], ("tg", 16): [4_000_000_000]},
    load_seconds=3.0,
    fields={"backends": "CPU", "model_size": 7},
)


def argv(task="pp", values=(16, 16, 512), **changes):
    """Arguments as the real llama-bench gets them."""
    usual = {"repetitions": 1, "warmup": False, "threads": 2, **changes}
    return arguments(BINARY, f"/models/{FILE}", task, values, **usual)


def played(playback, *args, **changes):
    """All events of one process."""
    with playback.start(argv(*args, **changes), stderr_path="", env={}) as process:
        return list(process.events()), process


def without_ticks(events):
    """Everything but the passing of time."""
    return [event for event in events if not isinstance(event, Tick)]


def test_rows_come_at_the_recorded_times():
    """Load, samples and end are as far apart as they were recorded, and no real time passes."""
    began = time.monotonic()
    playback: Launcher = Playback([RECORDING], now=100.0)
    events, _ = played(playback)
    rows = [event for event in events if isinstance(event, RowLine)]
    assert [(row.at, row.row.tokens, row.row.samples_ns) for row in rows] == [
        (105.0, 16, (2_000_000_000,)),
        (106.0, 16, (1_000_000_000,)),
        (136.0, 512, (30_000_000_000,)),
    ]
    assert (rows[0].row.model_filename, rows[0].row.model_size, rows[0].row.n_threads) == (f"/models/{FILE}", 7, 2)
    assert events[-1] == Exited(136.0, 36.0, 0, None)
    assert time.monotonic() - began < 10


def test_progress_is_told_as_llama_bench_tells_it():
    """Starting, then the run, for every value; the load lies between the first two."""
    events, _ = played(Playback([RECORDING]))
    lines = [
        (event.at, event.progress.kind, event.progress.index) for event in events if isinstance(event, ProgressLine)
    ]
    assert lines[:4] == [(0.0, "starting", 1), (3.0, "run", 1), (5.0, "starting", 2), (5.0, "run", 2)]
    assert not any(isinstance(event, ProgressLine) for event in played(Playback([RECORDING]), progress=False)[0])


def test_repetitions_and_warmup_take_their_time():
    """A row of several repetitions comes after all of them; a warm-up is a whole prompt, or one token."""
    events, _ = played(Playback([RECORDING]), "pp", (16,), repetitions=3, warmup=True)
    (row,) = [event for event in events if isinstance(event, RowLine)]
    assert row.row.samples_ns == (1_000_000_000, 2_000_000_000, 1_000_000_000), "the warm-up took the first"
    assert row.at == 3 + 2 + 4
    events, _ = played(Playback([RECORDING]), "tg", (16,), warmup=True)
    assert events[-1].at == 3 + 0.25 + 4


def test_what_was_never_recorded_never_ends():
    """A scenario without a recorded row runs until it is killed, in ticks."""
    playback = Playback([RECORDING])
    with playback.start(argv("tg", (128,))) as process:
        for event in process.events():
            if isinstance(event, Tick) and event.elapsed >= 1000:
                process.kill()
    assert isinstance(event, Exited)
    assert (event.signal, event.killed, event.elapsed) == (signal.SIGKILL, True, 1000.0)
    assert playback.clock() == 1000.0


def test_a_kill_at_a_row_stops_there():
    """The rows up to the kill are told, and none after it."""
    with Playback([RECORDING]).start(argv()) as process:
        events = []
        for event in process.events():
            events.append(event)
            if isinstance(event, RowLine):
                process.kill()
    assert sum(isinstance(event, RowLine) for event in events) == 1
    assert events[-1].killed


@pytest.mark.parametrize(
    ("failure", "outcome", "rows"),
    [
        (Failure("crash", FILE, "pp", 512), Outcome.CRASH, 2),
        (Failure("oom", FILE, "pp", 512), Outcome.OOM, 2),
        (Failure("abort", FILE, says="cudaMalloc failed: out of memory"), Outcome.OOM, 0),
        (Failure("abort", FILE, "pp", 16, says="GGML_ASSERT failed"), Outcome.CRASH, 0),
        (Failure("end", FILE, "pp", 512), Outcome.CRASH, 2),
    ],
)
def test_failures_end_as_real_ones_do(failure, outcome, rows):
    """A scripted failure looks to whoever judges it like the real thing."""
    events, process = played(Playback([RECORDING], [failure]))
    end = events[-1]
    assert sum(isinstance(event, RowLine) for event in events) == rows
    found, reason = classify_exit(end.returncode, end.signal, process.log_tail, oom_kills=end.oom_kills)
    assert found is outcome
    assert failure.says in reason


def test_garbage_and_hangs():
    """Garbage is told and the run goes on; a hang gives ticks and nothing else until it is killed."""
    events, _ = played(Playback([RECORDING], [Failure("garbage", FILE, "pp", 512, says="?!")]), progress=False)
    assert [type(event) for event in without_ticks(events)] == [RowLine, RowLine, Garbage, RowLine, Exited]
    with Playback([RECORDING], [Failure("hang", FILE)]).start(argv(progress=False)) as process:
        for event in process.events():
            assert isinstance(event, (Tick, Exited))
            if isinstance(event, Tick) and event.elapsed > 500:
                process.kill()


def test_a_failure_happens_as_often_as_it_is_told_to():
    """Once, say: the next process goes through."""
    playback = Playback([RECORDING], [Failure("crash", FILE, "pp", 16, times=1)])
    assert played(playback)[0][-1].signal == signal.SIGSEGV
    assert played(playback)[0][-1].returncode == 0
    assert len(playback.started) == 2
