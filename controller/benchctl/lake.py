"""The lake: raw results as they came, and how they are written. Reading them is :mod:`benchctl.results`.

::

    LAKE/SWEEP/data/VENDOR/SERVER/llm/        as Spare Cores lays them out; llm.2, llm.3 ... for further instances
        meta.json       theirs: start, end, exit_code, ...; ours beside: "benchctl": {...}
        stdout          llama-bench's rows, verbatim, in order
        stderr          what llama-bench said
        journal.jsonl   the journal of the machine measured, byte for byte
        facts.json      facts of that machine

What comes home in pieces is appended by offset: a piece that is there already is ignored, so that fetching again after
an interruption loses nothing and doubles nothing.
"""

from __future__ import annotations

import json
import os
import unicodedata
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from benchctl.errors import BenchctlError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

JOURNAL = "journal.jsonl"
META = "meta.json"
STDOUT = "stdout"
STDERR = "stderr"
FACTS = "facts.json"

BENCHCTL = "benchctl"
SPARE_CORES = "spare-cores"
"""Who measured."""

_STDERR_OFFSET = ".stderr.offset"

_NAME_BYTES = 255
"""Longest name of a folder, on every file system in use."""


class LakeError(BenchctlError):
    """A raw file can't be written, or what is to be appended does not follow what is there."""


@dataclass(frozen=True)
class RunMeta:
    """``meta.json`` of one run: Spare Cores' fields, and ours.

    Attributes:
        start: when the run began, ISO time; theirs have no zone and mean UTC.
        end: when it ended; nothing while it runs.
        exit_code: 0 when it went through, -1 while nothing is known.
        error_msg: why it failed.
        task_hash: identifies the task's definition.
        version: of the program that measured.
        stdout_bytes: size of ``stdout``.
        stderr_bytes: size of ``stderr``.
        outputs: the files that hold its output.
        benchctl: our facts: ``sweep``, ``job``, ``vendor``, ``server``, ``api_reference``, ``replica``, ``suite``,
            ``weights``, ``price_usd_per_hour``, ``price_per_hour`` (in ``currency``), ``currency``, ``region``,
            ``zone``, ``image_digest``, ``created_at``, and ``models`` (file names by model name).
    """

    start: str | None = None
    end: str | None = None
    exit_code: int = -1
    error_msg: str | None = None
    task_hash: str | None = None
    version: str | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    outputs: tuple[str, ...] = (STDOUT, STDERR)
    benchctl: Mapping[str, Any] = field(default_factory=dict)


def run_folder(lake: Path, sweep: str, vendor: str, server: str, replica: int = 1) -> Path:
    """Where the raw files of one job lie.

    Raises:
        LakeError: one of the names would lead out of the lake.
    """
    for name in (sweep, vendor, server):
        if not may_be_folder(name):
            raise LakeError(f"{name!r} can't be the name of a folder in the lake.")
    return lake / sweep / "data" / vendor / server / ("llm" if replica == 1 else f"llm.{replica}")


def may_be_folder(name: str) -> bool:
    """Whether a folder of the lake can have this name: it stays in the lake, on one line, and a disk takes it."""
    return (
        name not in ("", ".", "..")
        and "/" not in name
        and not any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in name)
        and len(name.encode()) <= _NAME_BYTES
    )


def journal_offset(folder: Path) -> int:
    """How many bytes of the journal are here: where to fetch on."""
    return _size(folder / JOURNAL)


def stderr_offset(folder: Path) -> int:
    """How many bytes of the machine's stderr were fetched: where to fetch on."""
    try:
        return int((folder / _STDERR_OFFSET).read_text())
    except (OSError, ValueError):
        return 0


def append_journal(folder: Path, offset: int, text: str) -> int:
    """Append a piece of the machine's journal that begins at byte ``offset`` there.

    Args:
        folder: of the run; made if need be.
        offset: where the piece begins in the journal on the machine, in bytes.
        text: the piece.

    Returns:
        The offset to fetch on from. The bytes are on the disk then.

    Raises:
        LakeError: there is a gap before the piece, or it differs from what is here (another journal), or the disk is
            full or read-only.
    """
    piece = text.encode()
    path = folder / JOURNAL
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as journal:
            here = journal.seek(0, os.SEEK_END)
            if offset > here:
                raise LakeError(
                    f"{path} ends at byte {here}, and what came begins at byte {offset}: a piece is missing.",
                    f"Fetch again from byte {here}.",
                )
            known = piece[: here - offset]
            journal.seek(offset)
            if journal.read(len(known)) != known:
                raise LakeError(
                    f"What came for {path} differs from what is there at byte {offset}: it is another run's journal.",
                    "Collect it into a sweep of its own.",
                )
            new = piece[here - offset :]
            if new:
                journal.write(new)
                journal.flush()
                os.fsync(journal.fileno())
            return here + len(new)
    except OSError as error:
        raise _cannot_write(path, error) from error


def append_stderr(folder: Path, offset: int, text: str, end: int) -> int:
    """Append a piece of the machine's stderr, which reaches from byte ``offset`` to byte ``end`` there.

    The text may have lost bytes that were no UTF-8, so that its length says nothing of the offsets; they are kept
    beside.

    Returns:
        The offset to fetch on from.

    Raises:
        LakeError: there is a gap before the piece, or the disk is full or read-only.
    """
    path = folder / STDERR
    here = stderr_offset(folder)
    if end <= here:
        return here
    if offset != here:
        raise LakeError(
            f"{path} holds {here} bytes, and what came reaches from byte {offset} to {end}: it does not follow.",
            f"Fetch again from byte {here}.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stderr:
            stderr.write(text)
        _replace(folder / _STDERR_OFFSET, str(end))
    except OSError as error:
        raise _cannot_write(path, error) from error
    return end


def go_on_elsewhere(folder: Path) -> None:
    """Make a run ready to go on on another machine, which begins with the journal that is here.

    A line that was cut is dropped here, as the machine drops it there, and its stderr begins anew.

    Raises:
        LakeError: the disk is read-only.
    """
    path = folder / JOURNAL
    try:
        (folder / _STDERR_OFFSET).unlink(missing_ok=True)
        whole = path.read_bytes().rpartition(b"\n")
        kept = len(whole[0]) + len(whole[1])
        if kept < path.stat().st_size:
            os.truncate(path, kept)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_write(path, error) from error


def journal_to_go_on_from(folder: Path) -> Path | None:
    """The journal that is here, or nothing where there is none yet."""
    return folder / JOURNAL if _size(folder / JOURNAL) else None


def write_meta(folder: Path, meta: RunMeta) -> None:
    """Write ``meta.json`` whole; the sizes are those of the files as they are now.

    Raises:
        LakeError: the disk is full or read-only.
    """
    document = asdict(meta)
    document["outputs"] = list(meta.outputs)
    document["stdout_bytes"] = _size(folder / STDOUT)
    document["stderr_bytes"] = _size(folder / STDERR)
    _write(folder / META, json.dumps(document, default=str) + "\n")


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``facts.json`` whole.

    Raises:
        LakeError: the disk is full or read-only.
    """
    _write(folder / FACTS, json.dumps(facts, indent=1, sort_keys=True, default=str) + "\n")


def rebuild_stdout(folder: Path) -> int:
    """Write ``stdout`` again from the rows in the journal, verbatim and in order; warm-ups are no result.

    Returns:
        The number of rows.

    Raises:
        LakeError: the disk is full or read-only.
    """
    rows = []
    try:
        lines = (folder / JOURNAL).read_bytes().splitlines()
    except FileNotFoundError:
        lines = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the reader of the lake names damaged lines
        if (
            isinstance(record, dict)
            and record.get("kind") == "sample"
            and record.get("row")
            and not record.get("warmup")
        ):
            rows.append(record["row"])
    _write(folder / STDOUT, "".join(f"{row}\n" for row in rows))
    return len(rows)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _replace(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never half of it."""
    draft = path.with_name(path.name + ".part")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _cannot_write(path: Path, error: OSError) -> LakeError:
    return LakeError(
        f"{path} can't be written: {error.strerror}.", "Free some space there, or choose another state directory."
    )
