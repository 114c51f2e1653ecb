"""kill -9 at any moment loses no finished row, doubles none, and leaves no llama-bench behind.

Real processes, real signals, the real llama-bench on a small synthetic model. The moments come from a seeded generator.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from llama_bench_core import state, synthetic
from llama_bench_core.values import Model

ROOT = Path(__file__).resolve().parents[2]
MEASURE = """
import json, pathlib, sys, threading
from llama_bench_core import session
class Stop(threading.Event):
    def wait(self, timeout=None):
        pathlib.Path(sys.argv[1] + ".waits").touch()
        return super().wait(timeout)
params = json.load(open(sys.argv[1]))
result = session.measure(params, check=False, stop=Stop())
print(json.dumps(result))
"""
SUITE = {
    "name": "kills",
    "models": ["tiny"],
    "scenarios": {"pp": {16: 1, 256: 1, 1024: 1}, "tg": {16: 1, 128: 1}},
    "policy": {"noise_retries": 0},
}
SHAPE = {
    "architecture": "llama",
    "layers": 4,
    "embedding": 256,
    "feed_forward": 1024,
    "heads": 4,
    "heads_kv": 4,
    "vocabulary": 4096,
    "context": 2048,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model that loads at once and takes a few seconds in all."""
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    synthetic.write(Model("tiny", "tiny.gguf", shape=SHAPE), path)
    return path


@pytest.fixture
def start(tmp_path, tiny, llama_bench):
    """Start the module's work in a process of its own; whatever is left is killed at the end."""
    asked = {
        "suite": SUITE,
        "models": [{"name": "tiny", "file": "tiny.gguf", "path": str(tiny), "bytes": tiny.stat().st_size}],
        "state_dir": str(tmp_path / "state"),
        "models_dir": str(tmp_path / "models"),
        "llama_bench": str(llama_bench),
        "weights": "real",
    }
    started = []

    def go(**changes):
        params = tmp_path / f"params-{len(started)}.json"
        params.write_text(json.dumps({**asked, **changes}))
        # a lock of one's own: other measurements on this machine are none of this test's business
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "module_utils"), "TMPDIR": str(tmp_path)}
        process = subprocess.Popen(
            [sys.executable, "-c", MEASURE, str(params)], stdout=subprocess.PIPE, text=True, env=environment
        )
        started.append(process)
        return process

    yield go
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
    kill_benches(tiny)


def benches(model):
    """Living processes that run on this very model file."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if folder.name.isdigit() and str(model) in command and "-m" in command:
            found.append(int(folder.name))
    return found


def kill_benches(model):
    """Kill what `benches` finds; whether one of them was still there when the signal came."""
    hit = False
    for pid in benches(model):
        with contextlib.suppress(ProcessLookupError):  # it ended by itself since it was listed
            os.kill(pid, signal.SIGKILL)
            hit = True
    return hit


def journal(folder):
    path = folder / state.JOURNAL
    if not path.exists():  # the kill came before the first line
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def finished_rows(folder):
    return [record["row"] for record in journal(folder) if record["kind"] == "sample"]


@pytest.mark.parametrize("seed", range(8))
def test_three_kills_at_random_moments_lose_and_double_nothing(seed, start, tiny, tmp_path):
    """The module or llama-bench dies three times; the fourth start ends with every outcome once and every row kept."""
    chance = random.Random(seed)  # noqa: S311 - moments, no secrets
    folder = tmp_path / "state"
    kept = []
    for _ in range(3):
        process = start()
        moment = time.monotonic() + chance.uniform(0.1, 2.5)
        victim = chance.choice(["module", "llama-bench"])
        while time.monotonic() < moment and process.poll() is None:
            time.sleep(0.01)
        if victim == "module":
            process.kill()
        else:
            kill_benches(tiny)
            process.kill()
        process.wait()
        rows = finished_rows(folder)
        assert rows[: len(kept)] == kept
        kept = rows

    last = start()
    said, _ = last.communicate(timeout=240)
    assert last.returncode == 0, said
    assert benches(tiny) == []

    records = journal(folder)
    rows = finished_rows(folder)
    assert rows[: len(kept)] == kept
    # a row carries its time to the nanosecond and its date: the same one twice would be the same row
    assert max(Counter(rows).values()) == 1
    outcomes = Counter((one["task"], one["tokens"]) for one in records if one["kind"] == "outcome")
    assert outcomes == {("pp", 16): 1, ("pp", 256): 1, ("pp", 1024): 1, ("tg", 16): 1, ("tg", 128): 1}
    assert records[-1]["kind"] == "end"
    assert records[-1]["status"] == "finished"


def test_a_killed_llama_bench_ends_one_scenario_and_the_session_goes_on(start, tiny):
    """The scenario in flight is a crash; the others are measured by the next process."""
    process = start()
    deadline = time.monotonic() + 120
    killed = False
    while not killed and time.monotonic() < deadline:
        killed = kill_benches(tiny)
    said, _ = process.communicate(timeout=240)
    assert killed
    assert process.returncode == 0
    counts = json.loads(said)["counts"]
    assert sum(counts.values()) == 5
    assert counts["ok"] >= 3


def test_an_orphan_is_gone_after_the_next_start(start, tiny):
    """However the module died, the next start leaves no llama-bench of the earlier life."""
    process = start()
    before = set(_wait_for_benches(tiny))
    process.kill()
    process.wait()
    again = start()
    again.communicate(timeout=240)
    assert again.returncode == 0
    assert not before & set(benches(tiny))


def test_a_complete_folder_changes_nothing(start):
    """The second run of a finished measurement says so and starts nothing."""
    first, _ = start().communicate(timeout=240)
    assert json.loads(first)["changed"] is True
    second, _ = start().communicate(timeout=240)
    answer = json.loads(second)
    assert answer["changed"] is False
    assert answer["status"] == "finished"
    assert len(answer["outcomes"]) == 5


@pytest.fixture
def held(tmp_path, llama_bench):
    """A llama-bench that measures nothing until the file `go` beside it is there: who starts it can't be through."""
    program, go = tmp_path / "held" / "llama-bench", tmp_path / "held" / "go"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'case " $* " in *" -m "*) while [ ! -e {go} ]; do sleep 0.05; done;; esac\n'
        f'exec {llama_bench} "$@"\n'
    )
    program.chmod(0o755)
    return program


def test_two_at_once_are_refused_with_a_sentence(start, tiny, held):
    """Two measurements on one machine would disturb each other."""
    first = start(llama_bench=str(held))
    _wait_for_benches(tiny)
    second = subprocess.run(
        first.args, capture_output=True, text=True, check=False, env=_environment_of(first.pid), timeout=240
    )
    held.with_name("go").touch()
    assert second.returncode != 0, second.stdout
    assert "Another measurement" in second.stderr
    first.communicate(timeout=240)
    assert first.returncode == 0


def test_one_that_attaches_itself_waits_and_measures_nothing_again(start, tiny, held, tmp_path):
    """It ends when the other has ended, with the other's outcomes."""
    first = start(llama_bench=str(held))
    _wait_for_benches(tiny)
    second = start(llama_bench=str(held), attach=True)
    deadline = time.monotonic() + 240
    while not Path(f"{second.args[-1]}.waits").exists():
        assert second.poll() is None, "it did not wait"
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.01)
    held.with_name("go").touch()
    answer = json.loads(second.communicate(timeout=240)[0])
    assert first.wait(timeout=240) == 0
    # all of them: it answered no sooner than the other had measured the last
    assert (answer["changed"], answer["status"], len(answer["outcomes"])) == (False, "finished", 5)
    assert [one["kind"] for one in journal(tmp_path / "state")].count("session") == 1


def _wait_for_benches(model):
    deadline = time.monotonic() + 240
    while not (found := benches(model)):
        assert time.monotonic() < deadline, "llama-bench was not started"
        time.sleep(0.01)
    return found


def _environment_of(pid):
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
