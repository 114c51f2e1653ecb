"""The main job, for real: the real command line, playbook, module and llama-bench, on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sweeping
from llama_bench_core import state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchctl.home import Home

pytestmark = pytest.mark.timeout(1500)  # longer than what is waited for inside, which says more

TINY = """\
name: tiny
models: [SmolLM-135M]
scenarios:
  pp: {8: 0.5, 16: 0.5}
  tg: {4: 0.2}
policy: {max_samples: 2, noise_retries: 0}
"""

LONGER = """\
name: longer
models: [SmolLM-135M]
scenarios:
  pp: {8: 0.01, 16: 0.01, 24: 0.01, 32: 0.01}
  tg: {4: 0.01, 8: 0.01, 16: 0.01, 32: 0.01, 64: 0.01, 128: 0.01}
policy: {max_samples: 2, noise_retries: 0}
"""

PACE = {
    **dict.fromkeys(("pp8", "pp16", "pp24", "pp32"), 0.2),
    **dict.fromkeys(("tg4", "tg8", "tg16", "tg32", "tg64"), 0.3),
    "tg128": 15.0,
}
"""Seconds of each test of the longer suite: after its first outcomes it goes on for more than half a minute."""

PATIENCE_SECONDS = 240
TRIES = 3
"""A kill that came when nobody of its kind was there is tried again."""


def _hear_hang_ups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Machine:
    """One user's home, in which sweeps are run."""

    def __init__(self, home: Home, checkout: Path, llama_bench: Path, models: Path) -> None:
        self.home, self.checkout, self.llama_bench = home, checkout, llama_bench
        # models are the same for all tests of this file; the rest is each test's own
        home.cache.mkdir(parents=True, exist_ok=True)
        (home.cache / "models").symlink_to(models)
        # The lock that a measurement takes of its machine lies there: other tests' sweeps must not disturb this one's.
        self.temporary = home.state.parent / "tmp"
        self.temporary.mkdir()
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str | Path, terminal: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Run ``benchctl sweep`` in a session of its own, as a terminal would."""
        environment = {
            **os.environ,
            "BENCHCTL_HOME": str(self.home.state),
            "BENCHCTL_CACHE": str(self.home.cache),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": os.pathsep.join((str(self.checkout / "controller"), str(self.checkout / "module_utils"))),
        }
        environment.pop("BENCHCTL_DB", None)
        process = subprocess.Popen(
            [sys.executable, "-m", "benchctl", "sweep", *map(str, arguments)],
            stdout=terminal,
            stderr=terminal,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,
            # tests that run under nohup would hand on that a closed terminal is ignored
            preexec_fn=_hear_hang_ups,
        )
        self.started.append(process)
        return process

    def sweep(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def asked(self, suite: Path, llama_bench: Path | None = None) -> tuple[str | Path, ...]:
        """The options of a sweep over synthetic weights with this suite; by default with the real llama-bench."""
        return ("--suite", suite, "--weights", "synthetic", "--llama-bench", llama_bench or self.llama_bench, "--yes")

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with sqlite3.connect(self.home.state / "benchctl.db") as connection:
            return connection.execute(query).fetchall()

    def journal(self) -> list[dict[str, Any]]:
        """The records on the target, of whatever sweep there is."""
        found = list(self.home.sweeps.glob("*/jobs/local/target/journal.jsonl"))
        lines = [line for path in found for line in path.read_text().splitlines(keepends=True)]
        # the last one may be half written
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_for_outcomes(self, number: int) -> None:
        """Wait until so many scenarios have ended; the sweep that was started last goes on after it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            ended = sum(1 for record in self.journal() if record["kind"] == "outcome")
            assert self.started[-1].poll() is None, "the sweep ended before the test could do anything"
            if ended >= number:
                return
            assert time.monotonic() < deadline, "no scenario ended in time"
            time.sleep(0.05)

    def strays(self) -> list[int]:
        """Processes that still work on this home's measurements.

        What llama-bench inherits of the environment does not name the home; its model lies in the home's cache.
        """
        marks = [str(folder).encode() for folder in (self.home.state, self.home.cache)]
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if any(mark in command for mark in marks):
                found.append(int(entry.name))
        return found

    def close(self) -> None:
        """End whatever a failed test left."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for target in self.home.sweeps.glob("*/jobs/*/target"):
            from llama_bench_core import session

            session.stop(str(target), check=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for models, shared by the tests of this file."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def machine(home: Home, checkout: Path, llama_bench: Path, models: Path) -> Iterator[Machine]:
    machine = Machine(home, checkout, llama_bench, models)
    yield machine
    machine.close()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yml"
    path.write_text(TINY)
    return path


@pytest.fixture
def longer(tmp_path: Path) -> Path:
    path = tmp_path / "longer.yml"
    path.write_text(LONGER)
    return path


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A llama-bench for the longer suite, of which it is known how long it takes."""
    return sweeping.write_paced_llama_bench(tmp_path / "llama-bench", PACE)


def assert_whole(machine: Machine, sweep: str, scenarios: int) -> None:
    """Every scenario has one row, one outcome, and its samples once."""
    rows = machine.rows(f"SELECT task, tokens, outcome, samples FROM measurement WHERE sweep_id = '{sweep}'")  # noqa: S608
    assert len(rows) == scenarios
    assert {outcome for _, _, outcome, _ in rows} == {"ok"}
    lake = next((machine.home.lake / sweep / "data" / "local").glob("*/llm"))
    target = machine.home.sweeps / sweep / "jobs" / "local" / "target" / "journal.jsonl"
    assert (lake / "journal.jsonl").read_bytes() == target.read_bytes()
    records = [json.loads(line) for line in target.read_text().splitlines()]
    outcomes = Counter((r["task"], r["tokens"]) for r in records if r["kind"] == "outcome")
    assert set(outcomes.values()) == {1}
    samples = Counter((r["task"], r["tokens"]) for r in records if r["kind"] == "sample" and not r["warmup"])
    assert {(task, tokens): number for task, tokens, _, number in rows} == dict(samples)


def test_two_sweeps_end_as_rows_of_their_own(machine: Machine, tiny: Path) -> None:
    """A sweep answers with one JSON object and fills database and lake; the second one re-uses the model."""
    first = machine.sweep(*machine.asked(tiny), "--json", "--price", "0.046USD/h")
    assert first.returncode == 0, first.stderr
    answer = json.loads(first.stdout)
    assert answer["status"] == "finished"
    assert answer["outcomes"] == {"ok": 3}
    assert [row["tokens"] for row in answer["measurements"]] == [8, 16, 4]
    assert all(row["weights"] == "synthetic" and row["tokens_per_second"] > 0 for row in answer["measurements"])
    assert all(row["price_usd_per_hour"] == 0.046 for row in answer["measurements"])
    assert_whole(machine, answer["sweep"], 3)

    meta = json.loads(next((Path(answer["lake"]) / "data" / "local").glob("*/llm/meta.json")).read_text())
    assert meta["exit_code"] == 0
    assert meta["stdout_bytes"] > 0
    assert meta["benchctl"]["price_usd_per_hour"] == 0.046

    second = machine.sweep(*machine.asked(tiny))
    assert second.returncode == 0, second.stderr
    assert "tokens/s" in second.stdout
    assert str(machine.home.state / "benchctl.db") in second.stdout
    assert machine.rows("SELECT sweep_id, count(*) FROM measurement GROUP BY 1 ORDER BY 1")[0][1] == 3
    assert machine.rows("SELECT count(*) FROM measurement") == [(6,)]
    assert machine.rows("SELECT DISTINCT status, stage FROM job") == [("finished", "done")]
    assert machine.rows("SELECT DISTINCT status FROM sweep") == [("finished",)]
    assert not machine.strays()


def test_ctrl_c_keeps_what_is_measured_and_resume_goes_on(machine: Machine, longer: Path, slow: Path) -> None:
    """Ctrl-C ends all within seconds with status 130; --resume measures what is missing, and nothing twice."""
    process = machine.start(*machine.asked(longer, slow))
    machine.wait_for_outcomes(1)
    process.send_signal(signal.SIGINT)
    # five seconds are promised; on a busy machine it may come to the kills that follow a patience of ten seconds each
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, err
    assert not machine.strays()
    ((sweep, status),) = machine.rows("SELECT sweep_id, status FROM sweep")
    assert status == "stopped"
    assert f"--resume {sweep}" in err
    before = machine.rows("SELECT task, tokens, samples_ns FROM measurement WHERE outcome = 'ok'")
    assert before
    assert "ok" in out

    resumed = machine.sweep("--resume", "last")
    assert resumed.returncode == 0, resumed.stderr
    assert_whole(machine, sweep, 10)
    after = machine.rows("SELECT task, tokens, samples_ns FROM measurement")
    assert set(before) <= set(after)
    assert machine.rows("SELECT status FROM sweep") == [("finished",)]

    again = machine.sweep("--resume", sweep)
    assert again.returncode == 1
    assert "has finished" in again.stderr


def test_a_terminal_that_is_closed_ends_it_as_ctrl_c_does(machine: Machine, longer: Path, slow: Path) -> None:
    """Nothing goes on, and what is measured is kept, although nothing can be written any more; the log has the rest."""
    ours, theirs = pty.openpty()
    process = machine.start(*machine.asked(longer, slow), terminal=theirs)
    os.close(theirs)
    machine.wait_for_outcomes(1)
    os.close(ours)
    # from here on every write fails; some are tried before anybody is told
    machine.wait_for_outcomes(3)
    # the shell tells its jobs, and the kernel those in the foreground
    for _ in range(2):
        process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=PATIENCE_SECONDS) == 130
    assert not machine.strays()
    assert machine.rows("SELECT status FROM sweep") == [("stopped",)]
    assert machine.rows("SELECT count(*) FROM measurement WHERE outcome = 'ok'") > [(0,)]
    [log] = machine.home.sweeps.glob("*/log")
    assert "--resume" in log.read_text()


def test_a_killed_controller_ends_nothing(machine: Machine, longer: Path, slow: Path, tiny: Path) -> None:
    """After kill -9 the measurement goes on, another sweep is refused, and --resume brings all of it home."""
    process = machine.start(*machine.asked(longer, slow))
    machine.wait_for_outcomes(1)
    process.kill()
    process.communicate()
    sweep = next(machine.home.sweeps.iterdir()).name
    refused = machine.sweep(*machine.asked(tiny))
    assert refused.returncode == 1
    assert f"--resume {sweep}" in refused.stderr
    assert "Traceback" not in refused.stderr

    resumed = machine.sweep("--resume", sweep[:-2])
    assert resumed.returncode == 0, resumed.stderr
    assert_whole(machine, sweep, 10)
    sessions = [record for record in machine.journal() if record["kind"] == "session"]
    assert len(sessions) == 1, "the measurement was started twice"
    assert not machine.strays()


def test_two_sweeps_at_once_are_one_too_many(machine: Machine, longer: Path, slow: Path, tiny: Path) -> None:
    """While one sweep measures this machine, the next one is refused by a sentence that names the first."""
    process = machine.start(*machine.asked(longer, slow))
    machine.wait_for_outcomes(1)
    sweep = next(machine.home.sweeps.iterdir()).name
    refused = machine.sweep(*machine.asked(tiny))
    assert refused.returncode == 1
    assert sweep in refused.stderr
    assert process.poll() is None
    process.terminate()
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, err
    assert len(list(machine.home.sweeps.glob("*/sweep.json"))) == 1


def test_a_module_that_dies_is_started_again(machine: Machine, longer: Path, slow: Path) -> None:
    """When the measurement is killed in mid-run, the sweep starts it once more and loses no finished row."""
    process = machine.start(*machine.asked(longer, slow))
    machine.wait_for_outcomes(1)
    lock = next(machine.home.sweeps.glob("*/jobs/local/target/lock"))
    os.kill(json.loads(lock.read_text())["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "started again" in err
    assert_whole(machine, lock.parents[3].name, 10)
    assert not machine.strays()


def victims(machine: Machine, controller: subprocess.Popen[str], kind: str) -> list[int]:
    """Process numbers of one kind of this home's processes."""
    if kind == "controller":
        return [controller.pid] if controller.poll() is None else []
    if kind == "module":
        locks = machine.home.sweeps.glob("*/jobs/local/target/lock")
        pids = [state.lock_holder(lock).get("pid") for lock in locks if state.is_locked(lock)]
        return [pid for pid in pids if pid]  # it takes the lock before it writes who it is
    word = {"runner": b"ansible-playbook", "llama-bench": str(machine.llama_bench).encode()}[kind]
    found = []
    for pid in machine.strays():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        # the controller, and the module, are told the path of llama-bench
        at_most = 1 if kind == "llama-bench" else 3
        if any(word in part for part in command[:at_most]) and pid != controller.pid:
            found.append(pid)
    return found


def kill_one(machine: Machine, suite: Path, kind: str, chance: random.Random) -> tuple[subprocess.Popen[str], bool]:
    """Sweep, and kill all of a kind at some moment; returns the sweep, which has ended, and whether there were any."""
    process = machine.start(*machine.asked(suite))
    early = kind in ("controller", "runner")
    while not early and process.poll() is None and not machine.journal():
        time.sleep(0.02)
    moment = time.monotonic() + (chance.uniform(1.0, 7.0) if early else chance.uniform(0.0, 3.0))
    killed = False
    while process.poll() is None and not killed:
        if time.monotonic() > moment:
            for pid in victims(machine, process, kind):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed = True
        time.sleep(0.02)
    process.communicate(timeout=300)
    return process, killed


@pytest.mark.parametrize("seed", range(6))
def test_killing_anything_at_any_moment_loses_and_doubles_nothing(machine: Machine, tiny: Path, seed: int) -> None:
    """Controller, Ansible, module or llama-bench die by kill -9; --resume ends with every finished row once."""
    chance = random.Random(100 + seed)  # noqa: S311 - moments, no secrets
    kind = ("controller", "runner", "module", "llama-bench")[seed % 4]
    for _ in range(TRIES):
        process, killed = kill_one(machine, tiny, kind, chance)
        if killed:
            break
        shutil.rmtree(machine.home.state)
        machine.home.ensure()
    assert killed, f"no {kind} was ever there"
    kept = [record["row"] for record in machine.journal() if record["kind"] == "sample"]
    # it may have died before its sweep had a book
    names = [path.parent.name for path in machine.home.sweeps.glob("*/sweep.json")]
    if names and process.returncode != 0:
        # the kill may come in the last moments of a sweep that has written down that it finished: it says so then
        finished = json.loads((machine.home.sweeps / names[0] / "sweep.json").read_text())["status"] == "finished"
        resumed = machine.sweep("--resume", "last")
        assert resumed.returncode == (1 if finished else 0), resumed.stderr
        assert not finished or "has finished" in resumed.stderr
    elif not names:
        assert machine.sweep(*machine.asked(tiny)).returncode == 0
    [sweep] = [path.parent.name for path in machine.home.sweeps.glob("*/sweep.json")]

    records = machine.journal()
    rows = [record["row"] for record in records if record["kind"] == "sample"]
    assert rows[: len(kept)] == kept
    assert max(Counter(rows).values()) == 1
    outcomes = Counter((one["task"], one["tokens"]) for one in records if one["kind"] == "outcome")
    assert outcomes == {("pp", 8): 1, ("pp", 16): 1, ("tg", 4): 1}
    lake = next((machine.home.lake / sweep / "data" / "local").glob("*/llm"))
    assert [json.loads(line) for line in (lake / "journal.jsonl").read_text().splitlines()] == records
    assert machine.rows("SELECT count(*) FROM measurement") == [(3,)]
    assert not machine.strays()


def test_dry_run_does_nothing(machine: Machine, tiny: Path) -> None:
    """--dry-run shows the plan and its cost, and leaves no file behind."""
    shutil.rmtree(machine.home.state)
    done = machine.sweep(*machine.asked(tiny), "--dry-run", "--price", "0.046USD/h")
    assert done.returncode == 0, done.stderr
    assert "SmolLM-135M" in done.stdout
    assert "USD" in done.stdout
    assert not machine.home.state.exists()


def test_a_state_that_cannot_be_written_is_one_sentence(machine: Machine, tiny: Path, tmp_path: Path) -> None:
    """On a read-only file system the sweep says so before it does anything."""
    folder = tmp_path / "readonly"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a read-only file system needs root")
    try:
        shutil.rmtree(machine.home.state)
        machine.home.state.symlink_to(folder / "state")
        done = machine.sweep(*machine.asked(tiny))
    finally:
        subprocess.run(["umount", folder], check=True)
        machine.home.state.unlink(missing_ok=True)
    assert done.returncode == 1
    assert "can't be written" in done.stderr
    assert "--state-dir" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("content", [None, "#!/bin/sh\necho hello\n"], ids=["absent", "another-program"])
def test_what_is_no_llama_bench_is_refused(machine: Machine, tiny: Path, tmp_path: Path, content: str | None) -> None:
    """A --llama-bench that is none is named in one sentence, before anything is written down."""
    path = tmp_path / "llama-bench"
    if content is not None:
        path.write_text(content)
        path.chmod(0o755)
    done = machine.sweep("--suite", tiny, "--llama-bench", path)
    assert done.returncode in (1, 2)
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(machine.home.sweeps.iterdir())


def test_a_model_that_cannot_be_had_fails_the_job(machine: Machine, tiny: Path) -> None:
    """Real weights without a network: every scenario says so, and the exit status is 3."""
    mirror = "http://127.0.0.1:9/"
    gguf = "hf:nobody/nothing/nothing.gguf"
    done = machine.sweep(
        *("--suite", tiny, "--model", gguf, "--weights", "real", "--mirror", mirror),
        *("--llama-bench", machine.llama_bench, "--yes"),
    )
    if "download_failed" not in done.stdout + done.stderr:
        pytest.fail(f"{done.returncode}\n{done.stdout}\n{done.stderr}")
    assert done.returncode == 3
    assert machine.rows("SELECT DISTINCT outcome FROM measurement") == [("download_failed",)]


def test_the_module_sees_nothing_of_the_users_secrets(
    machine: Machine, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token in the user's environment is in no file of a sweep."""
    monkeypatch.setenv("HCLOUD_TOKEN", "planted-3f9a1c")
    done = machine.sweep(*machine.asked(tiny))
    assert done.returncode == 0, done.stderr
    holding = [
        path for path in machine.home.state.rglob("*") if path.is_file() and b"planted-3f9a1c" in path.read_bytes()
    ]
    assert not holding
