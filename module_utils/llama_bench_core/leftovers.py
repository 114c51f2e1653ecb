"""The note of a running llama-bench on disk, and the end of one that outlived whoever started it.

A process is known by its pid together with its start time (field 22 of /proc/PID/stat) and the boot id, so that a
recycled pid is never killed; further members of its group by a random token in their environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

TOKEN_VARIABLE = "BENCHCTL_RUN_TOKEN"  # noqa: S105  (a mark, no secret)


@dataclass(frozen=True)
class RunningNote:
    """What is written down of a running llama-bench.

    Attributes:
        pid: of the process; also the id of its group and session.
        start_ticks: when it began, in clock ticks since boot.
        boot_id: of the boot it runs in.
        token: stands in the environment of it and of everything that it starts.
    """

    pid: int
    start_ticks: int
    boot_id: str
    token: str


def boot_id() -> str:
    """The id of this boot; the same text all along where the kernel gives none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def start_ticks(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; ``None`` when there is no such process (or only its corpse)."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def write_note(path: str, note: RunningNote) -> None:
    """Write the note down, at once and as a whole."""
    partial = Path(f"{path}.part")
    partial.write_text(json.dumps({**asdict(note), "pgid": note.pid}) + "\n", encoding="ascii")
    partial.replace(path)


def read_note(path: str) -> RunningNote | None:
    """The note at ``path``; ``None`` when there is none or it can't be read as one."""
    try:
        found = json.loads(Path(path).read_text(encoding="ascii"))
        return RunningNote(int(found["pid"]), int(found["start_ticks"]), str(found["boot_id"]), str(found["token"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def reap_leftover(state_file: str, *, grace_seconds: float = 10.0) -> bool:
    """Kill the llama-bench that an earlier life left behind, with its whole group, and remove the note.

    Call it before starting anything, while holding the state folder's lock.

    Args:
        state_file: path of the note.
        grace_seconds: how long to wait until the killed are gone.

    Returns:
        Whether something was still alive.
    """
    note = read_note(state_file)
    Path(f"{state_file}.part").unlink(missing_ok=True)
    if note is None:
        Path(state_file).unlink(missing_ok=True)
        return False
    found = members(note)
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + grace_seconds
    while members(note) and time.monotonic() < deadline:
        time.sleep(0.02)
    Path(state_file).unlink(missing_ok=True)
    return bool(found)


def members(note: RunningNote) -> list[int]:
    """The living processes that the note speaks of: the leader, and everything that carries its token."""
    if note.boot_id != boot_id():
        return []
    found = [note.pid] if start_ticks(note.pid) == note.start_ticks else []
    mark = f"{TOKEN_VARIABLE}={note.token}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in (note.pid, os.getpid()):
            continue
        # Other users' environments can't be read; nor can they be ours to kill.
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0") and start_ticks(int(entry.name)) is not None:
                found.append(int(entry.name))
    return found


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, which may hold spaces and brackets: state is the first."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
