"""Is this file the one it should be: size, SHA-256, and the first four bytes of a GGUF."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from .delivery import CancelledError, CorruptError, DownloadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAGIC = b"GGUF"
BLOCK_BYTES = 4 * 1024**2
POLL_SECONDS = 0.02
"""How often the follower looks for more; also what it may add to the end of a download."""


def file_sha256(path: Path, progress: Callable[[int], None], stop: Callable[[], bool]) -> str:
    """SHA-256 of a file in hex; ``progress`` hears the bytes read so far.

    Raises:
        CancelledError: when ``stop()`` says so.
    """
    digest = hashlib.sha256()
    done = 0
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(BLOCK_BYTES):
            if stop():
                raise CancelledError(f"The check of {path} was stopped.")
            digest.update(block)
            done += len(block)
            progress(done)
    return digest.hexdigest()


def remembered_sha256(path: Path, memory: Path) -> str:
    """The checksum noted in ``memory`` if ``path`` is still the same file by size and time, otherwise empty.

    Large files are hashed once, not in every session.
    """
    note = recall(memory)
    return str(note.get("sha256", "")) if note and note.get("file") == _identity(path) else ""


def remember(path: Path, memory: Path, sha256: str, **more: str) -> None:
    """Note a file's checksum; where that can't be written it is computed again the next time."""
    note = {"file": _identity(path), "sha256": sha256, **more}
    partial = memory.with_name(f"{memory.name}.{os.getpid()}")
    with suppress(OSError):
        partial.write_text(json.dumps(note), encoding="utf-8")
        partial.replace(memory)


def recall(memory: Path) -> dict[str, object]:
    """What :func:`remember` noted, or nothing when there is no readable note."""
    try:
        note = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def is_same_file(path: Path, note: dict[str, object]) -> bool:
    """Whether a note was made of this very file."""
    return note.get("file") == _identity(path)


def require_gguf(path: Path) -> None:
    """Check that a file begins as a GGUF does.

    Raises:
        CorruptError: when it does not.
    """
    with path.open("rb") as stream:
        start = stream.read(len(MAGIC))
    if start != MAGIC:
        raise CorruptError(f"{path} is not a GGUF file: it begins with {start!r}.")


def _identity(path: Path) -> list[object]:
    facts = path.stat()
    return [str(path.resolve()), facts.st_size, facts.st_mtime_ns]


class Follower:
    """Hashes the part of a growing file that is there without a gap, in a thread of its own, while the rest arrives.

    Args:
        handle: the open file; a duplicate of it is read from.
        reach: says how far the file has come: how often it began anew, bytes there without a gap, whether that is all.
    """

    def __init__(self, handle: int, reach: Callable[[], tuple[int, int, bool]]) -> None:
        self._handle = os.dup(handle)
        self._reach = reach
        self._stop = threading.Event()
        self._sha256 = ""
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)
        self._thread.start()

    def finish(self, cancel: threading.Event) -> str:
        """Return the checksum in hex, when the file is whole.

        Raises:
            CancelledError: when ``cancel`` is set meanwhile.
            DownloadError: when the file can't be read.
        """
        while self._thread.is_alive():
            self._thread.join(POLL_SECONDS)
            if cancel.is_set():
                raise CancelledError("The check of the download was stopped.")
        if self._failure is not None:
            raise DownloadError(f"What was downloaded can't be read: {self._failure}.")
        return self._sha256

    def stop(self) -> None:
        """Stop if it has not finished."""
        self._stop.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            self._follow()
        except OSError as error:
            self._failure = error
        finally:
            os.close(self._handle)

    def _follow(self) -> None:
        digest, done, beginnings = hashlib.sha256(), 0, 0
        while not self._stop.is_set():
            begun, there, whole = self._reach()
            if begun != beginnings:
                digest, done, beginnings = hashlib.sha256(), 0, begun
            if done < there:
                block = os.pread(self._handle, min(BLOCK_BYTES, there - done), done)
                digest.update(block)
                done += len(block)
            elif whole:
                self._sha256 = digest.hexdigest()
                return
            else:
                self._stop.wait(POLL_SECONDS)
