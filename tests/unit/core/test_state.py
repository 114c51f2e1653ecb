"""The state folder: a journal that is whole or torn at its end, locks that die with their holder, a poller's view."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from llama_bench_core import state

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = {"process": 1, "model": "m", "task": "pp", "tokens": 16, "warmup": False, "ns": 5, "attempt": 1, "noise": {}}


@pytest.fixture
def journal(tmp_path):
    opened = state.Journal(tmp_path)
    yield opened
    opened.close()


def test_what_is_appended_is_folded_and_read_again(tmp_path, journal):
    """The history in memory and the one read from the file are the same."""
    journal.append("process", process=1, model="m", task="pp", argv=[], gpu_layers=0)
    journal.append("sample", **SAMPLE, row="{}")
    journal.append("sample", **{**SAMPLE, "warmup": True}, row="{}")
    again = state.read_history(tmp_path)
    assert again.samples == journal.history.samples
    assert len(again.current_samples(("m", "pp", 16))) == 1
    assert again.processes == 1


def test_a_line_that_is_no_record_is_named(tmp_path):
    """File and line are said, and how to mend it."""
    (tmp_path / state.JOURNAL).write_text('{"kind":"end","status":"finished"}\nnonsense\n')
    with pytest.raises(state.StateError, match="line 2") as caught:
        state.Journal(tmp_path)
    assert "state_dir" in caught.value.mend


def test_a_read_only_folder_is_one_sentence(tmp_path):
    """Where nothing can be written, nothing is begun."""
    with pytest.raises(state.StateError, match="can't be written"):
        state.Journal(tmp_path / "missing")


def test_a_lock_ends_with_its_holder(tmp_path):
    """A killed process holds no lock."""
    lock = tmp_path / "lock"
    code = "import sys, time\nfrom pathlib import Path\nfrom llama_bench_core import state\n"
    code += (
        "with state.locked(Path(sys.argv[1]), {'sweep': 'other'}):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT / "module_utils")},
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        assert state.is_locked(lock)
        with pytest.raises(state.BusyError, match="sweep other"), state.locked(lock, {}):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert not state.is_locked(lock)
    with state.locked(lock, {}):
        assert state.is_locked(lock)


def test_a_poller_gets_whole_lines_once(tmp_path, journal):
    """From its offset on, and never half a line."""
    journal.append("process", process=1, model="m", task="pp", argv=[], gpu_layers=0)
    first = state.read_increment(tmp_path)
    assert json.loads(first.journal)["kind"] == "process"
    with (tmp_path / state.JOURNAL).open("ab") as file:
        file.write(b'{"kind":"torn')
    second = state.read_increment(tmp_path, first.journal_offset)
    assert (second.journal, second.journal_offset) == ("", first.journal_offset)


def test_a_poller_reads_in_pieces_when_asked_to(tmp_path, journal):
    """What is left comes with the next look."""
    for number in range(1, 6):
        journal.append("process", process=number, model="m", task="pp", argv=[], gpu_layers=0)
    size = (tmp_path / state.JOURNAL).stat().st_size
    text, offset = "", 0
    while offset < size:
        piece = state.read_increment(tmp_path, offset, max_bytes=size // 3)
        assert piece.journal
        text, offset = text + piece.journal, piece.journal_offset
    assert text == (tmp_path / state.JOURNAL).read_text()


@pytest.mark.parametrize("status", ["finished", "stopped", "failed"])
def test_the_status_is_what_the_end_says(tmp_path, journal, status):
    """And the message comes with it."""
    journal.append("end", status=status, message="because")
    found = state.read_increment(tmp_path)
    assert (found.status, found.message, found.alive) == (status, "because", False)


def test_a_measurement_that_vanished_is_seen_as_dead(tmp_path, journal):
    """Records, no end, and nobody holds the lock."""
    journal.append("process", process=1, model="m", task="pp", argv=[], gpu_layers=0)
    assert state.read_increment(tmp_path).status == "died"


def test_a_living_measurement_runs_even_before_its_first_record(tmp_path):
    """The lock is taken before anything is written."""
    with state.locked(tmp_path / state.LOCK, {}):
        assert state.read_increment(tmp_path).status == "running"


def test_an_empty_folder_is_absent(tmp_path):
    """Nothing was ever started there."""
    assert state.read_increment(tmp_path).status == "absent"
    assert state.read_increment(tmp_path / "nowhere").status == "absent"


def test_progress_is_replaced_as_a_whole(tmp_path):
    """A reader sees one state or the next."""
    state.write_progress(tmp_path, {"phase": "starting"})
    state.write_progress(tmp_path, {"phase": "measuring"})
    assert state.read_increment(tmp_path).progress == {"phase": "measuring"}
    assert not (tmp_path / "progress.tmp").exists()
