"""Out of memory or a crash: exit codes and signals first, recorded messages last."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from llama_bench_core.endings import classify_exit, oom_kill_count
from llama_bench_core.values import Outcome

CASES = sorted((Path(__file__).parents[2] / "cases" / "endings").glob("*.txt"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_recorded_messages(path):
    """What llama-bench and its backends have said at the end is named for what it was, and quoted."""
    text = path.read_text(encoding="utf-8")
    expected = Outcome.CRASH if path.stem.startswith("crash") else Outcome.OOM
    outcome, reason = classify_exit(1, None, text)
    assert outcome is expected
    assert any(line.strip() and line.strip() in reason for line in text.splitlines())


def test_the_kernels_kill_is_oom_and_a_strangers_is_not():
    """SIGKILL means want of memory only if the kernel has counted such a kill meanwhile."""
    assert classify_exit(None, signal.SIGKILL, "", oom_kills=1)[0] is Outcome.OOM
    outcome, reason = classify_exit(None, signal.SIGKILL, "", oom_kills=0)
    assert (outcome, "SIGKILL" in reason) == (Outcome.CRASH, True)
    assert classify_exit(137, None, "", oom_kills=1)[0] is Outcome.OOM


def test_a_segmentation_fault_stays_a_crash_while_another_program_is_killed():
    """The kernel's count is of the whole machine, so it speaks only for a process that got SIGKILL."""
    assert classify_exit(None, signal.SIGSEGV, "", oom_kills=3)[0] is Outcome.CRASH


def test_what_we_killed_is_never_oom():
    """The caller knows why it killed."""
    assert classify_exit(None, signal.SIGKILL, "out of memory", oom_kills=1, killed=True)[0] is Outcome.CRASH


def test_pinned_memory_that_fails_is_a_warning_only():
    """Ggml goes on with ordinary memory, so what ends the process afterwards is something else."""
    text = (
        "ggml_cuda_host_malloc: failed to allocate 1024.00 MiB of pinned memory: out of memory\n"
        "CUDA error: unspecified launch failure\n"
    )
    outcome, reason = classify_exit(None, signal.SIGABRT, text)
    assert outcome is Outcome.CRASH
    assert "SIGABRT" in reason


@pytest.mark.parametrize(
    ("returncode", "signal_number", "words"),
    [
        (0, None, "without printing all rows"),
        (3, None, "status 3"),
        (None, signal.SIGILL, "instructions that this CPU lacks"),
        (139, None, "SIGSEGV"),
        (255, None, "status 255"),
        (None, 64, "signal 64"),
    ],
)
def test_every_end_is_a_sentence(returncode, signal_number, words):
    """Whatever the end, the reason says so in words."""
    outcome, reason = classify_exit(returncode, signal_number, "ggml_cuda_init: failed to initialize CUDA\n")
    assert outcome is Outcome.CRASH
    assert words in reason
    assert "CUDA" not in reason, "a GPU that is hidden from a run on the CPU ends nothing"


def test_the_kernels_count_is_read(tmp_path):
    """The counter is found in /proc/vmstat; a kernel without it counts nothing."""
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 12\noom_kill 7\n", encoding="ascii")
    assert oom_kill_count(str(vmstat)) == 7
    vmstat.write_text("nr_free_pages 12\n", encoding="ascii")
    assert oom_kill_count(str(vmstat)) == 0
    assert oom_kill_count(str(tmp_path / "absent")) == 0
