"""Why llama-bench ended: out of memory, or a crash. Exit codes and signals first; texts only where nothing else says.

llama-bench ends with status 1 whatever goes wrong, and without ``-v`` it mutes llama.cpp's log, so that often nothing
but ``failed to load model`` remains. The messages are matched here and nowhere else; ``tests/cases/endings`` holds
recorded ones.
"""

from __future__ import annotations

import re
import signal as signals
from pathlib import Path

from .values import Outcome

OUT_OF_MEMORY = (
    r"out of memory",  # cudaMalloc failed: out of memory; CUDA error: out of memory; the kernel's own words
    r"failed to allocate",  # ggml's allocators: buffer of size N, compute buffers, CUDA0 buffer
    r"unable to allocate",  # llama_model_load: error loading model: unable to allocate CUDA0 buffer
    r"[Oo]ut[Oo]f(?:Device|Host)Memory|OUT_OF_(?:DEVICE|HOST)_MEMORY",  # Vulkan
    r"CUBLAS_STATUS_ALLOC_FAILED",
    r"std::bad_alloc|cannot allocate memory|memory allocation of size \d+ failed",
    r"insufficient memory",  # Metal, ggml's pools
)
_OUT_OF_MEMORY = re.compile(rf"^(?!.*pinned memory).*(?:{'|'.join(OUT_OF_MEMORY)})", re.IGNORECASE)
"""Pinned memory that can't be had is a mere warning: ggml goes on with ordinary memory."""
_INIT = ("llama-bench: benchmark", "ggml_cuda_init:", "load_backend:", "ggml_backend_load")
"""Lines that begin so are said before the work begins: a GPU that was hidden on purpose is no cause of anything."""

_TELLING = re.compile(
    r"error|fail|abort|assert|terminate called|what\(\)|exception|cannot|unable|not found", re.IGNORECASE
)


def classify_exit(
    returncode: int | None, signal: int | None, stderr_tail: str, *, oom_kills: int = 0, killed: bool = False
) -> tuple[Outcome, str]:
    """Name the end of a process that was to deliver more.

    Args:
        returncode: its exit status, or ``None`` when a signal ended it.
        signal: the signal that ended it, or ``None``.
        stderr_tail: the last part of its stderr.
        oom_kills: processes that the kernel killed for want of memory while it ran.
        killed: we killed it ourselves; the caller knows why better, so this is never ``oom``.

    Returns:
        ``Outcome.OOM`` or ``Outcome.CRASH``, and one sentence for a person.
    """
    if killed:
        return Outcome.CRASH, "llama-bench was ended before it had finished."
    said = _telling_line(stderr_tail, _OUT_OF_MEMORY)
    if signal == signals.SIGKILL and oom_kills > 0:
        return Outcome.OOM, "The kernel killed llama-bench: the machine ran out of memory."
    if said and signal != signals.SIGKILL:
        return Outcome.OOM, f"llama-bench could not get the memory it needs: {said}"
    if signal is not None:
        return Outcome.CRASH, _with_words(_signal_words(signal), _telling_line(stderr_tail, _TELLING))
    if returncode == 0:
        return Outcome.CRASH, "llama-bench ended without printing all rows that it was asked for."
    if returncode is not None and 128 < returncode <= 128 + 64:
        # What a shell or a container says of a program that a signal ended.
        return classify_exit(None, returncode - 128, stderr_tail, oom_kills=oom_kills)
    return Outcome.CRASH, _with_words(
        f"llama-bench ended with status {returncode}", _telling_line(stderr_tail, _TELLING)
    )


def oom_kill_count(vmstat: str = "/proc/vmstat") -> int:
    """How many processes the kernel has killed for want of memory since it booted, on the machine or in any container.

    The counter ``oom_kill`` of /proc/vmstat (Linux 4.13 and newer) is readable by everyone, unlike the kernel log, and
    counts the kills in memory cgroups too. 0 where there is none, so that differences never claim a kill.
    """
    try:
        text = Path(vmstat).read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _telling_line(text: str, pattern: re.Pattern[str]) -> str:
    """The first line that matches, cut to a readable length; the first, because later ones follow from it."""
    for line in text.splitlines():
        if pattern.search(line) and not line.startswith(_INIT):
            shown = line.strip()
            return shown if len(shown) <= 200 else shown[:197] + "..."
    return ""


def _with_words(sentence: str, said: str) -> str:
    return f"{sentence}: {said}" if said else f"{sentence}."


def _signal_words(signal: int) -> str:
    meanings = {
        signals.SIGKILL: "something killed llama-bench (SIGKILL)",
        signals.SIGTERM: "something ended llama-bench (SIGTERM)",
        signals.SIGILL: "llama-bench uses instructions that this CPU lacks (SIGILL); build it for this machine",
        signals.SIGABRT: "llama-bench gave up (SIGABRT)",
        signals.SIGSEGV: "llama-bench crashed (SIGSEGV)",
        signals.SIGBUS: "llama-bench lost its model file or its disk while reading (SIGBUS)",
    }
    if signal in meanings:
        return meanings[signals.Signals(signal)]
    return f"llama-bench was ended by signal {signal}"
