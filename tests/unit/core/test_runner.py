"""Real processes that crash, hang, flood, fork and resist: nothing is lost, nothing survives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from llama_bench_core import leftovers, runner
from llama_bench_core.events import Exited, Garbage, ProgressLine, RowLine, Tick
from llama_bench_core.leftovers import RunningNote, boot_id, read_note, reap_leftover, start_ticks, write_note
from llama_bench_core.programs import run
from llama_bench_core.runner import LlamaBenchProcess, Runner, RunnerError

CORE = Path(__file__).parents[3] / "module_utils"
ROW = json.dumps({"n_prompt": 16, "n_gen": 0, "samples_ns": [1_000_000_000]})


@pytest.fixture
def start(tmp_path):
    """Start a shell script in place of llama-bench; whatever happens, it is gone after the test."""
    started: list[LlamaBenchProcess] = []

    def start(script: str, **settings: int) -> LlamaBenchProcess:
        path = tmp_path / "script"
        path.write_text(textwrap.dedent(script), encoding="utf-8")
        process = Runner(str(tmp_path / "note"), tick_seconds=0.05, **settings).start(
            ["/bin/sh", str(path)], stderr_path=str(tmp_path / "stderr"), env={"PATH": os.environ["PATH"]}
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.__exit__()


def alive(pid: int) -> bool:
    """Whether a process is there and no corpse."""
    return start_ticks(pid) is not None


def wait_for(what, seconds: float = 60.0):
    """Wait until something is true, and give it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(0.01)
    return found


def pids_in(path: Path, count: int = 1) -> list[int]:
    """The process ids that a script has written down, once they are all there."""

    def written() -> list[str]:
        words = path.read_text().split() if path.exists() else []
        return words if len(words) == count else []

    return [int(word) for word in wait_for(written)]


def test_rows_progress_and_end_come_as_events(start, tmp_path):
    """Rows, progress and the exit status are told in order, with a clock that never goes back."""
    process = start(
        f"""
        echo 'llama-bench: benchmark 1/1: starting' >&2
        echo 'load_backend: loaded CPU backend' >&2
        echo 'llama-bench: benchmark 1/1: prompt run 1/1' >&2
        echo '{ROW}'
        while [ ! -e {tmp_path / "go"} ]; do sleep 0.02; done
        printf '%s' '{ROW}'
        exit 3
        """
    )
    events = []
    for event in process.events():
        events.append(event)
        if sum(isinstance(one, Tick) for one in events) == 5:
            (tmp_path / "go").touch()
    assert [event.row.tokens for event in events if isinstance(event, RowLine)] == [16, 16], (
        "a last line needs no newline"
    )
    assert [event.progress.kind for event in events if isinstance(event, ProgressLine)] == ["starting", "run"]
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert events[0] == Tick(events[0].at, 0.0)
    assert sum(isinstance(event, Tick) for event in events) >= 5
    end = events[-1]
    assert isinstance(end, Exited)
    assert (end.returncode, end.signal, end.killed) == (3, None, False)
    assert end.elapsed >= 4 * 0.05, "of its five ticks the first comes at once"
    assert "loaded CPU backend" in process.log_head
    assert (tmp_path / "stderr").read_text().count("\n") == 3


def test_stderr_is_appended(start, tmp_path):
    """The stderr of earlier processes stays."""
    (tmp_path / "stderr").write_text("earlier\n", encoding="utf-8")
    list(start("echo now >&2").events())
    assert (tmp_path / "stderr").read_text() == "earlier\nnow\n"


def test_a_crash_tells_its_signal(start):
    """A signal is told as such, and the last words are kept."""
    process = start(f"echo '{ROW}'; echo 'ggml.c:1: GGML_ASSERT failed' >&2; kill -SEGV $$")
    *events, end = process.events()
    assert sum(isinstance(event, RowLine) for event in events) == 1
    assert (end.returncode, end.signal) == (None, signal.SIGSEGV)
    assert "GGML_ASSERT" in process.log_tail


def test_garbage_is_told_and_ends_nothing(start):
    """A line that is no row is an event; rows around it are not lost; empty lines are nothing."""
    process = start(f"echo '{ROW}'; echo; echo 'Hello, world'; printf '\\377\\376\\n'; echo '{ROW}'")
    kinds = [type(event) for event in process.events() if not isinstance(event, Tick)]
    assert kinds == [RowLine, Garbage, Garbage, RowLine, Exited]


def test_a_hang_can_be_ended_between_ticks(start, tmp_path):
    """Ticks go on while nothing is printed; a kill ends the process although it ignores every polite signal."""
    process = start(
        "trap '' TERM INT HUP; echo $$ > pid; while :; do sleep 60; done".replace("pid", str(tmp_path / "pid"))
    )
    (pid,) = pids_in(tmp_path / "pid")
    assert pid == process.pid
    end = None
    for event in process.events():
        if isinstance(event, Tick) and event.elapsed > 0.2:
            process.kill()
        end = event
    assert isinstance(end, Exited)
    assert (end.signal, end.killed) == (signal.SIGKILL, True)
    assert end.elapsed < 50
    assert not alive(pid)


def test_rows_printed_before_a_kill_are_not_lost(start, tmp_path):
    """What stands in the pipe when the process is killed is still told."""
    printed = tmp_path / "printed"
    process = start(f"for i in 1 2 3 4 5; do echo '{ROW}'; done; echo done >&2; : > {printed}; exec sleep 600")
    wait_for(printed.exists)
    process.kill()
    events = list(process.events())
    assert sum(isinstance(event, RowLine) for event in events) == 5
    assert events[-1].killed


def test_closed_pipes_are_no_end(start, tmp_path):
    """A process that closes its stdout and stderr and lives on is a hang, not an end."""
    closed = tmp_path / "closed"
    process = start(f"exec >&- 2>&-; : > {closed}; sleep 600")
    ticks = 0
    for event in process.events():
        ticks += isinstance(event, Tick) and closed.exists()
        if ticks == 5:
            process.kill()
    assert ticks >= 5
    assert isinstance(event, Exited)
    assert event.killed


def test_grandchildren_die_with_the_group_and_hold_nothing_up(start, tmp_path):
    """A child of the process that keeps its pipes open neither delays the end nor survives it."""
    process = start(f"sleep 600 & echo $! > {tmp_path / 'pid'}; echo '{ROW}'; exit 0")
    began = time.monotonic()
    events = list(process.events())
    assert time.monotonic() - began < 50
    assert sum(isinstance(event, RowLine) for event in events) == 1
    assert (events[-1].returncode, events[-1].killed) == (0, False)
    (child,) = pids_in(tmp_path / "pid")
    wait_for(lambda: not alive(child))


def test_one_that_left_the_group_and_holds_the_pipes_delays_the_end_a_second_at_most(start, tmp_path):
    """Pipes held open from outside the group are given up soon after the end."""
    pid = tmp_path / "pid"
    # it is on its own once it writes: only then may what started it end, and its group be killed
    process = start(
        f"setsid sh -c 'echo $$ > {pid}; exec sleep 600' & while [ ! -s {pid} ]; do sleep 0.02; done; exit 0"
    )
    began = time.monotonic()
    try:
        assert list(process.events())[-1].returncode == 0
        assert time.monotonic() - began < 50
    finally:
        for left in pids_in(pid):
            os.kill(left, signal.SIGKILL)


def test_leaving_the_block_kills(start, tmp_path):
    """Also when an exception leaves it."""
    process = start(f"sleep 600 & echo $! $$ > {tmp_path / 'pid'}; wait")
    pids = pids_in(tmp_path / "pid", 2)
    with pytest.raises(ZeroDivisionError), process:
        _ = 1 / 0
    wait_for(lambda: not any(map(alive, pids)))
    assert not (tmp_path / "note").exists()


def test_a_flood_without_newlines_stays_small_and_ticks_go_on(start):
    """Endless output fills no memory, and time is still told, so that the flood can be ended."""
    process = start("exec cat /dev/zero")
    ticks = 0
    for event in process.events():
        ticks += isinstance(event, Tick)
        if ticks == 6:
            process.kill()
        if isinstance(event, Garbage):
            assert len(event.text) <= 200
    assert ticks >= 6
    assert len(process._stdout._partial) <= runner.LINE_LIMIT


def test_a_flood_of_stderr_is_bounded(start, tmp_path):
    """Memory and disk hold the beginning and the end of a log, not all of it."""
    process = start(
        "echo first >&2; yes llama 2>/dev/null | head -c 4000000 >&2; echo last >&2", stderr_limit_bytes=100_000
    )
    assert list(process.events())[-1].returncode == 0
    assert process.log_head.startswith("first")
    assert process.log_tail.endswith("last\n")
    assert len(process.log_head) + len(process.log_tail) < 1_300_000
    assert (tmp_path / "stderr").stat().st_size == 100_000


def test_a_full_disk_under_the_log_loses_no_row():
    """What can't be written of stderr stays in memory, and the rows go on."""
    argv = ["/bin/sh", "-c", f"echo words >&2; sleep 0.2; echo more >&2; echo '{ROW}'"]
    with Runner().start(argv, stderr_path="/dev/full", env={"PATH": os.environ["PATH"]}) as process:
        events = list(process.events())
    assert sum(isinstance(event, RowLine) for event in events) == 1
    assert process.log_tail == "words\nmore\n"


def test_a_line_longer_than_the_limit_is_cut_and_the_next_is_whole(start):
    """One endless line costs itself only."""
    process = start(f"head -c 3000000 /dev/zero | tr '\\0' x; echo; echo '{ROW}'")
    assert [type(event) for event in process.events() if not isinstance(event, Tick)] == [Garbage, RowLine, Exited]


def test_the_note_is_there_while_it_runs_and_only_then(start, tmp_path):
    """The note names the process that runs; it is removed with it."""
    process = start("sleep 60")
    note = read_note(str(tmp_path / "note"))
    assert note is not None
    assert (note.pid, note.start_ticks, note.boot_id) == (process.pid, start_ticks(process.pid), boot_id())
    process.__exit__()
    assert not (tmp_path / "note").exists()


def test_what_cannot_be_started_is_told(tmp_path):
    """A binary that is not there ends at once with a status and words; a folder that can't be written is an error."""
    with Runner().start(["/no/such/binary"], stderr_path=str(tmp_path / "stderr"), env={}) as process:
        assert list(process.events())[-1].returncode == 126
        assert "can't run /no/such/binary" in process.log_tail
    with pytest.raises(RunnerError, match="can't be started: No such file or directory"):
        Runner().start(["/bin/true"], stderr_path=str(tmp_path / "absent" / "stderr"), env={})
    pid = tmp_path / "pid"
    with pytest.raises(RunnerError, match="can't be started"):
        Runner(str(tmp_path / "absent" / "note")).start(
            ["/bin/sh", "-c", f"echo $$ > {pid}; exec sleep 60"], stderr_path=str(tmp_path / "stderr"), env={}
        )
    assert not pid.exists() or not alive(int(pid.read_text() or 0))


def test_it_is_the_first_to_go_when_memory_runs_out_and_leaves_no_core(start, tmp_path):
    """The kernel is told to kill it before us, and a crash of a 42 GB process writes no core file."""
    process = start(f"cat /proc/self/oom_score_adj > {tmp_path / 'out'}; ulimit -c >> {tmp_path / 'out'}")
    list(process.events())
    assert (tmp_path / "out").read_text().split() == ["1000", "0"]


PARENT = """
import sys
sys.path.insert(0, {core!r})
from llama_bench_core.runner import Runner
runner = Runner({note!r})
with runner.start(["/bin/sh", {script!r}], stderr_path={stderr!r}, env={{"PATH": "/usr/bin:/bin"}}) as process:
    for event in process.events():
        pass
"""


@pytest.fixture
def orphaned(tmp_path):
    """Start a Python that runs a script, kill that Python with SIGKILL, and give the ids that the script wrote."""
    pids: list[int] = []

    def orphan(script: str, count: int) -> list[int]:
        (tmp_path / "script").write_text(script.replace("PIDS", str(tmp_path / "pids")), encoding="utf-8")
        text = PARENT.format(
            core=str(CORE),
            note=str(tmp_path / "note"),
            script=str(tmp_path / "script"),
            stderr=str(tmp_path / "stderr"),
        )
        with subprocess.Popen([sys.executable, "-c", text]) as parent:
            try:
                pids.extend(pids_in(tmp_path / "pids", count))
                wait_for((tmp_path / "note").exists)
                assert all(map(alive, pids))
            finally:
                parent.kill()
        return pids

    yield orphan
    for pid in pids:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_it_dies_with_a_parent_that_was_killed(orphaned, tmp_path):
    """Kill -9 of the program that started it ends it at once, and the next start finds nothing alive."""
    (pid,) = orphaned("echo $$ > PIDS; exec sleep 600", 1)
    wait_for(lambda: not alive(pid))
    assert (tmp_path / "note").exists()
    assert reap_leftover(str(tmp_path / "note")) is False
    assert not (tmp_path / "note").exists()


def test_a_group_that_outlived_its_parent_is_reaped(orphaned, tmp_path):
    """What its leader had started, also outside the group, is found by its mark and killed at the next start."""
    leader, *children = orphaned("sleep 600 & a=$!; setsid sleep 600 & b=$!; sleep 0.2; echo $$ $a $b > PIDS; wait", 3)
    wait_for(lambda: not alive(leader))
    assert all(map(alive, children))
    assert reap_leftover(str(tmp_path / "note")) is True
    assert not any(map(alive, children))
    assert reap_leftover(str(tmp_path / "note")) is False


@pytest.mark.parametrize("changes", [{"start_ticks": 1}, {"boot_id": "another boot"}], ids=["recycled", "rebooted"])
def test_a_recycled_pid_is_never_killed(tmp_path, changes):
    """A stranger that has the noted pid, in this boot or after another, is left alone."""
    with subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        try:
            ticks = start_ticks(stranger.pid)
            assert ticks is not None
            note = {
                "pid": stranger.pid,
                "start_ticks": ticks,
                "boot_id": boot_id(),
                "token": "not-its-token",
                **changes,
            }
            write_note(str(tmp_path / "note"), RunningNote(**note))
            assert reap_leftover(str(tmp_path / "note")) is False
            assert stranger.poll() is None
            assert not (tmp_path / "note").exists()
        finally:
            stranger.kill()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_broken_note_is_thrown_away(tmp_path, text):
    """Half a note can't be judged, and names nothing to kill."""
    (tmp_path / "note").write_text(text, encoding="utf-8")
    assert reap_leftover(str(tmp_path / "note")) is False
    assert not (tmp_path / "note").exists()
    assert reap_leftover(str(tmp_path / "note")) is False


def test_names_with_brackets_do_not_confuse_the_start_time(tmp_path):
    """The name in /proc/PID/stat may hold anything."""
    odd = tmp_path / "a) S 1 (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([str(odd), "60"]) as process, subprocess.Popen(["/bin/sleep", "60"]) as plain:
        try:
            first, second = wait_for(lambda: start_ticks(process.pid)), start_ticks(plain.pid)
            assert second is not None
            assert 0 <= second - first < 6000
        finally:
            process.kill()
            plain.kill()
    assert leftovers.start_ticks(process.pid) is None


def test_a_short_program_is_run_to_its_end(tmp_path):
    """Status and output come back; a grandchild that holds the pipes is not waited for; nothing is read from stdin."""
    began = time.monotonic()
    done = run(["/bin/sh", "-c", f"sleep 60 & echo $! > {tmp_path / 'pid'}; cat; echo out; echo err >&2; exit 4"], 30)
    assert time.monotonic() - began < 25
    assert (done.returncode, done.stdout, done.stderr) == (4, "out\n", "err\n")
    (child,) = pids_in(tmp_path / "pid")
    wait_for(lambda: not alive(child))


def test_a_short_program_that_floods_is_bounded():
    """What it prints beyond a mebibyte is thrown away."""
    done = run(["/bin/sh", "-c", "head -c 5000000 /dev/zero"], 30)
    assert len(done.stdout) < 1_200_000
