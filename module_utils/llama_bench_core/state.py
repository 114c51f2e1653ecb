"""The state folder of a measurement: its journal, its live progress, its lock. Resuming is reading it again.

``journal.jsonl`` is the truth: one JSON object a line, appended by one ``write`` each, so that a line is there whole
or, when the machine died in the middle of it, torn and dropped at the next start. Everything else in the folder is
derived from it (``progress.json``) or evidence (``stderr``).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Callable, Protocol

from .noise import NoiseReading
from .values import CoreError, Outcome, Sample, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JOURNAL = "journal.jsonl"
PROGRESS = "progress.json"
STDERR = "stderr"
LOCK = "lock"
CHILD = "llama-bench.json"

Key = tuple[str, str, int]
"""Model name, task, tokens."""


class StateError(CoreError):
    """The state folder can't be used."""


class BusyError(StateError):
    """Another measurement holds the lock."""


def timestamp(seconds: float | None = None) -> str:
    """UTC time in ISO format with milliseconds."""
    moment = datetime.fromtimestamp(time.time() if seconds is None else seconds, tz=timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


@dataclass
class History:
    """What the journal says, folded.

    Attributes:
        sessions: how many times the module has been started on this folder.
        processes: how many llama-bench processes there have been.
        samples: samples by (model, task, tokens), all attempts, warm-ups left out.
        verdicts: how each scenario ended.
        loads: last load time in seconds by model.
        supplied: the ``model`` records by model name.
        weights: kind of weights that the folder holds measurements of, or empty.
        ended: the last ``end`` record, or ``None`` while none follows the last ``session``.
        noise: readings of the noise by scenario and attempt, one per sample.
        noisy_attempts: the limits that the attempt before a repetition broke, by scenario.
        session_at: when the last session began, as its record says.
        last_at: when the last record was written.
        earlier_seconds: how long the sessions before the last one took.
        unloaded: processes in a row, by model, that were started in this session and never began a sample.
    """

    sessions: int = 0
    processes: int = 0
    samples: dict[Key, list[Sample]] = field(default_factory=dict)
    verdicts: dict[Key, Verdict] = field(default_factory=dict)
    attempts: dict[Key, int] = field(default_factory=dict)
    loads: dict[str, float] = field(default_factory=dict)
    supplied: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: str = ""
    ended: dict[str, Any] | None = None
    noise: dict[tuple[Key, int], list[NoiseReading]] = field(default_factory=dict)
    noisy_attempts: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    unloaded: dict[str, int] = field(default_factory=dict)
    session_at: str = ""
    last_at: str = ""
    earlier_seconds: float = 0.0

    @property
    def spent_seconds(self) -> float:
        """How long all sessions took together, from their first record to their last."""
        return self.earlier_seconds + _seconds_between(self.session_at, self.last_at)

    def apply(self, record: dict[str, Any]) -> None:
        """Take in one record."""
        kind = record.get("kind")
        if kind == "session":
            self.earlier_seconds = self.spent_seconds
            self.session_at = record.get("at", "")
            self.sessions = record["session"]
            self.weights = record.get("weights", "")
            self.ended = None
            self.unloaded.clear()
        elif kind == "model":
            self.supplied[record["model"]] = record
        elif kind == "process":
            self.processes = record["process"]
            self.unloaded[record["model"]] = self.unloaded.get(record["model"], 0) + 1
        elif kind == "load":
            self.unloaded[record["model"]] = 0
            self.loads[record["model"]] = record["seconds"]
        elif kind == "sample":
            self._sample(record)
        elif kind == "repeat":
            self.attempts[_key(record)] = record["attempt"]
            self.noisy_attempts[_key(record)] = tuple(record.get("noisy", ()))
        elif kind == "outcome":
            evidence = record.get("evidence_seconds")
            self.verdicts[_key(record)] = Verdict(
                Outcome(record["outcome"]),
                record.get("reason", ""),
                tuple(record.get("noisy", ())),
                evidence,
                record.get("attempt", 1),
            )
        elif kind == "end":
            self.ended = record
        self.last_at = record.get("at", "")

    def _sample(self, record: dict[str, Any]) -> None:
        if record.get("warmup"):
            return
        sample = Sample(record["ns"], record["process"], record.get("attempt", 1))
        self.samples.setdefault(_key(record), []).append(sample)
        reading = NoiseReading.from_dict(record["noise"])
        self.noise.setdefault((_key(record), sample.attempt), []).append(reading)

    def current_samples(self, key: Key) -> tuple[Sample, ...]:
        """The samples of the attempt that is under way."""
        return self.samples_of(key, self.attempts.get(key, 1))

    def samples_of(self, key: Key, attempt: int) -> tuple[Sample, ...]:
        """The samples of one attempt."""
        taken = self.samples.get(key)
        return tuple(sample for sample in taken if sample.attempt == attempt) if taken else ()

    def readings(self, key: Key, attempt: int) -> tuple[NoiseReading, ...]:
        """The noise during the samples of one attempt."""
        return tuple(self.noise.get((key, attempt), ()))


def _seconds_between(began: str, ended: str) -> float:
    """Seconds between two of our timestamps; none where one is missing."""
    if not began or not ended:
        return 0.0
    moments = [datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (began, ended)]
    return max(0.0, (moments[1] - moments[0]).total_seconds())


def _key(record: dict[str, Any]) -> Key:
    return (record["model"], record["task"], record["tokens"])


class Ledger(Protocol):
    """Where a session writes down what it learns: a file for a measurement, memory for a replay."""

    history: History

    def append(self, kind: str, **facts: Any) -> dict[str, Any]:
        """Keep one record and take it in; the record as it is kept."""


class MemoryJournal:
    """A journal that lasts as long as the process, for replays: nothing is written anywhere.

    Attributes:
        records: what was appended, in order.
        history: what it adds up to.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Empty; ``clock`` gives the seconds that the records are dated by."""
        self.records: list[dict[str, Any]] = []
        self.history = History()
        self._clock = clock

    def append(self, kind: str, **facts: Any) -> dict[str, Any]:
        """Keep one record and take it in."""
        record: dict[str, Any] = {"kind": kind, "at": timestamp(self._clock()), **facts}
        self.records.append(record)
        self.history.apply(record)
        return record


class Journal:
    """Append-only file of records, and what they add up to."""

    def __init__(self, folder: Path) -> None:
        """Open the journal in ``folder``, drop a torn last line, and fold what is there."""
        self.path = folder / JOURNAL
        self.history = History()
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise StateError(
                f"The state folder {folder} can't be written: {error.strerror}.", "Give another as state_dir."
            ) from error
        self._load()

    def _load(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._file, whole)
        self.history = _fold(content[:whole], self.path)

    def append(self, kind: str, **facts: Any) -> dict[str, Any]:
        """Write one record through to the disk and take it in."""
        record: dict[str, Any] = {"kind": kind, "at": timestamp(), **facts}
        line = (json.dumps(record, separators=(",", ":")) + "\n").encode()
        start = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError(28, os.strerror(28))
            os.fsync(self._file)
        except OSError as error:
            # half a line would make the next append unreadable too
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, start)
            raise StateError(
                f"The journal {self.path} can't be written: {error.strerror}.", "Free disk space and run again."
            ) from error
        self.history.apply(record)
        return record

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_history(folder: Path) -> History:
    """What the journal in ``folder`` says, without touching it; nothing where there is none."""
    try:
        content = (folder / JOURNAL).read_bytes()
    except FileNotFoundError:
        return History()
    except OSError as error:
        raise StateError(f"{folder / JOURNAL} can't be read: {error.strerror}.") from error
    return _fold(content[: content.rfind(b"\n") + 1], folder / JOURNAL)


def _fold(content: bytes, path: Path) -> History:
    history = History()
    for number, line in enumerate(content.splitlines(), 1):
        try:
            history.apply(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(
                f"{path}, line {number} is not a record of a journal ({error}).",
                "Move the folder away, or give another as state_dir.",
            ) from error
    return history


@contextlib.contextmanager
def locked(path: Path, holder: dict[str, Any]) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` while the block runs; the kernel lets go of it when the process dies.

    Args:
        path: the lock file.
        holder: written into it, so that whoever finds it taken can say by whom.

    Raises:
        BusyError: somebody else holds it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _take(handle):
            by = lock_holder(path)
            whose = f" (sweep {by['sweep']}, process {by['pid']})" if by.get("sweep") else ""
            raise BusyError(
                f"Another measurement{whose} runs on this machine; two at once would disturb each other.",
                "Wait for it, or stop it first.",
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), **holder}).encode(), 0)
        yield
    finally:
        os.close(handle)


def _take(handle: int, attempts: int = 20) -> bool:
    """Lock, trying for a second: somebody who only asks whether it is taken holds it for an instant too."""
    for _ in range(attempts):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def lock_holder(path: Path) -> dict[str, Any]:
    """What the holder wrote into the lock file; empty when there is nothing readable."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_progress(folder: Path, progress: dict[str, Any]) -> None:
    """Replace the live progress; a reader sees the old or the new one, never half of it."""
    target = folder / PROGRESS
    draft = target.with_suffix(".tmp")
    # progress is a courtesy: a full disk must not end a measurement because of it
    with contextlib.suppress(OSError):
        draft.write_text(json.dumps(progress))
        draft.replace(target)


@dataclass(frozen=True)
class Increment:
    """What is new in a state folder since the last look.

    Attributes:
        alive: whether a session holds the folder's lock now.
        status: ``running``, ``finished``, ``stopped``, ``failed``, ``died`` (no end, and nobody alive) or ``absent``.
        message: the end record's message.
        progress: the live progress, or empty.
        journal: whole new lines of the journal.
        journal_offset: where to read on next time, in bytes.
        stderr: new text of llama-bench's stderr.
        stderr_offset: where to read on next time, in bytes.
    """

    alive: bool
    status: str
    message: str
    progress: dict[str, Any]
    journal: str
    journal_offset: int
    stderr: str
    stderr_offset: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a module's result."""
        return dict(self.__dict__)


def read_increment(
    folder: Path, journal_offset: int = 0, stderr_offset: int = 0, max_bytes: int = 1024 * 1024
) -> Increment:
    """Read what is new: the one way in which a poller, near or far, sees a measurement."""
    alive = is_locked(folder / LOCK)  # before the journal: an end record written in between is then seen
    journal = _read_from(folder / JOURNAL, journal_offset, max_bytes)
    journal = journal[: journal.rfind(b"\n") + 1]
    errors = _read_from(folder / STDERR, stderr_offset, max_bytes)
    end = _last_end(folder / JOURNAL)
    if end is not None:
        status = "running" if alive and end["kind"] != "end" else end.get("status", "running")
        if end["kind"] != "end" and not alive:
            status = "died"
    else:
        status = "running" if alive else "absent"
    try:
        progress = json.loads((folder / PROGRESS).read_text())
    except (OSError, ValueError):
        progress = {}
    return Increment(
        alive=alive,
        status=status,
        message=str(end.get("message", "")) if end else "",
        progress=progress,
        journal=journal.decode(errors="replace"),
        journal_offset=journal_offset + len(journal),
        stderr=errors.decode(errors="replace"),
        stderr_offset=stderr_offset + len(errors),
    )


def _read_from(path: Path, offset: int, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as source:
            source.seek(offset)
            return source.read(max_bytes)
    except OSError:
        return b""


def _last_end(path: Path) -> dict[str, Any] | None:
    """The journal's last record (an ``end`` is the last thing that a session writes), or ``None`` without one."""
    tail = b""
    try:
        with path.open("rb") as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(max(0, size - 65536))
            tail = source.read()
    except OSError:
        return None
    for line in reversed(tail.splitlines()):
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and "kind" in record:
                return record
    return None
