"""Where raw results come from: a folder, or a tar archive that is read as a stream and never unpacked.

Either way a run is a folder that holds a ``meta.json`` or a ``journal.jsonl``; whoever reads it asks for its files by
name. Nothing is written anywhere, so that no archive can reach outside a target folder.
"""

from __future__ import annotations

import os
import tarfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from benchctl.errors import BenchctlError, UsageError
from benchctl.lake import FACTS, JOURNAL, META, STDERR, STDOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NAMES = (META, JOURNAL, STDOUT, STDERR, FACTS)
"""The files of a run that are read."""

LARGEST_FILE_BYTES = 256 * 1024**2
"""A raw file larger than this is set aside: the largest of 2,106 recorded runs has 70 kB."""

LARGEST_MEMBER_BYTES = 32 * 1024**2
"""The same for a member of an archive, which is held in memory."""

PENDING_BYTES = 64 * 1024**2
"""How much of an archive waits for the rest of its folders; what comes later than that is set aside."""

LARGEST_ARCHIVE_BYTES = 64 * 1024**3
"""An archive that unpacks to more than this is given up: a sweep over 2,000 servers has 100 MB."""


class ArchiveError(BenchctlError):
    """An archive can't be read to its end; what came before the damage is kept."""


@dataclass(frozen=True)
class Damage:
    """Something in the raw files that can't be read.

    Attributes:
        path: the file, as its origin calls it.
        line: its line, counted from 1; nothing for the file as a whole.
        reason: what is wrong with it.
    """

    path: Path
    line: int | None
    reason: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {self.reason}"


@dataclass(frozen=True)
class RunFiles:
    """The raw files of one run.

    Attributes:
        origin: absolute path of the lake, the folder or the archive that they lie in.
        path: the run's folder, relative to ``origin``, with ``/``.
        fingerprint: names, sizes and times of the files: the same means that nothing is new.
        read: gives a file's bytes by its name, nothing where it is absent.

    Raises (from ``read``):
        OSError: the file can't be read.
        ValueError: it is larger than a raw file can be.
    """

    origin: str
    path: str
    fingerprint: str
    read: Callable[[str], bytes | None]

    @property
    def folder(self) -> Path:
        """Where the files are, as a message names it."""
        return Path(self.origin) / self.path

    @property
    def names(self) -> tuple[str, str]:
        """Vendor and server, as the path calls them."""
        parts = self.path.split("/")
        if len(parts) < 3:
            parts = [part for part in self.parts if part != "/"]
        return (parts[-3] if len(parts) > 2 else "unknown", parts[-2] if len(parts) > 1 else "unknown")

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders of the whole path, the run's own last."""
        return (*PurePosixPath(self.origin).parts, *PurePosixPath(self.path).parts)


def runs_in(path: Path, damage: list[Damage] | None = None) -> Iterator[RunFiles]:
    """Every run at or below a folder, or in an archive; a folder's in the order of their paths.

    Args:
        path: the folder, a file in a run's folder, or an archive.
        damage: takes what is wrong with the archive itself: members that lead elsewhere, are too large or too late.

    Raises:
        UsageError: there is no such path, or it is no archive.
        ArchiveError: the archive breaks off.
    """
    if not path.exists():
        raise UsageError(f"There is no {path}.", "Give the folder of a run, of a sweep, the lake, or a tar archive.")
    if path.is_file() and path.name in NAMES:
        path = path.parent
    if path.is_dir():
        yield from _in_folder(path)
    else:
        yield from _Archive(path, damage if damage is not None else []).runs()


def run_files(folder: Path) -> RunFiles:
    """The raw files of the run in this very folder."""
    absolute = folder.absolute()
    with os.scandir(absolute) as entries:
        found = {entry.name: entry.stat() for entry in entries if entry.name in NAMES}
    return _of_folder(str(absolute), found)


def _in_folder(path: Path) -> Iterator[RunFiles]:
    pending = [str(path.absolute())]
    while pending:
        folder = pending.pop()
        below: list[str] = []
        found: dict[str, os.stat_result] = {}
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name in NAMES:
                        found[entry.name] = entry.stat()
                    elif entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
        except OSError:
            continue  # a folder that vanished or is not ours to read holds no results that could be taken in
        pending += sorted(below, reverse=True)
        if META in found or JOURNAL in found:
            yield _of_folder(folder, found)


def _of_folder(folder: str, found: Mapping[str, os.stat_result]) -> RunFiles:
    fingerprint = ";".join(f"{name}:{found[name].st_size}:{found[name].st_mtime_ns}" for name in sorted(found))
    parts = folder.strip("/").split("/")
    kept = min(len(parts), DEPTH)
    origin = "/" + "/".join(parts[: len(parts) - kept])
    return files_in(origin, "/".join(parts[len(parts) - kept :]), fingerprint)


DEPTH = 5
"""Parts of a run's path, ``SWEEP/data/VENDOR/SERVER/llm``; what is above is its origin, so that a lake may be moved."""


def files_in(origin: str, path: str, fingerprint: str) -> RunFiles:
    """The raw files of the run in the folder ``path`` below ``origin``, whose fingerprint is known."""
    folder = f"{origin.rstrip('/')}/{path}"

    def read(name: str) -> bytes | None:
        try:
            handle = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with open(handle, "rb", buffering=0) as file:  # noqa: PTH123 - half the time of Path.open
            size = os.fstat(handle).st_size
            if size > LARGEST_FILE_BYTES:
                raise ValueError(f"it is larger than {LARGEST_FILE_BYTES >> 20} MiB")
            return file.read()

    return RunFiles(origin, path, fingerprint, read)


@dataclass
class _Pending:
    """The members of one folder of an archive, until all of them have come."""

    files: dict[str, bytes] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    bytes: int = 0


class _Archive:
    """A tar archive as a stream."""

    def __init__(self, path: Path, damage: list[Damage]) -> None:
        self._path, self._damage = path, damage
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self._waiting_bytes = 0
        self._done: set[str] = set()

    def runs(self) -> Iterator[RunFiles]:
        """Every run of it, each when its folder is complete."""
        try:
            archive = tarfile.open(self._path, mode="r|*")  # noqa: SIM115 - a context around yields would hide errors
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            raise UsageError(
                f"{self._path} is neither a folder nor a tar archive: {_words(error)}.",
                "Give the folder of a run, of a sweep, the lake, or a tar archive.",
            ) from error
        with archive:
            yield from self._members(archive)
        while self._pending:
            yield from self._emit()

    def _members(self, archive: tarfile.TarFile) -> Iterator[RunFiles]:
        unpacked = 0
        while True:
            try:
                member = archive.next()
                if member is None:
                    return
                unpacked += max(member.size, 0)
                if unpacked > LARGEST_ARCHIVE_BYTES:
                    raise ArchiveError(
                        f"{self._path} unpacks to more than {LARGEST_ARCHIVE_BYTES >> 30} GiB; it was given up.",
                        "Import it in parts, or as a folder.",
                    )
                self._take(archive, member)
                archive.members.clear()  # type: ignore[attr-defined]  # else it remembers every header
            except (tarfile.TarError, OSError, EOFError, ValueError, MemoryError, OverflowError) as error:
                while self._pending:
                    yield from self._emit()
                raise ArchiveError(
                    f"The archive {self._path} is damaged: {_words(error)}.",
                    "What came before the damage is in the database; get the archive again for the rest.",
                ) from error
            while self._waiting_bytes > PENDING_BYTES:
                yield from self._emit()

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Hold the content of one member, if it is a raw file of a run."""
        name = PurePosixPath(member.name)
        if name.name not in NAMES or member.isdir():
            return
        place = self._path / member.name
        if name.is_absolute() or ".." in name.parts or "\0" in member.name:
            self._damage.append(Damage(place, None, "its name leads out of the archive"))
            return
        if not member.isreg():
            self._damage.append(Damage(place, None, "it is a link or a device, not a file"))
            return
        if member.size > LARGEST_MEMBER_BYTES:
            self._damage.append(Damage(place, None, f"it is larger than {LARGEST_MEMBER_BYTES >> 20} MiB"))
            return
        folder = str(name.parent)
        if folder in self._done:
            self._damage.append(Damage(place, None, "it comes too long after the other files of its folder"))
            return
        file = archive.extractfile(member)
        content = file.read() if file is not None else b""
        if folder not in self._pending:
            self._pending[folder] = _Pending()
        pending = self._pending[folder]
        pending.files[name.name] = content
        pending.marks[name.name] = f"{name.name}:{member.size}:{int(member.mtime * 1_000_000_000)}"
        pending.bytes += len(content)
        self._waiting_bytes += len(content)

    def _emit(self) -> Iterator[RunFiles]:
        """The folder that came first, if it is a run."""
        folder, pending = self._pending.popitem(last=False)
        self._waiting_bytes -= pending.bytes
        self._done.add(folder)
        if META in pending.files or JOURNAL in pending.files:
            fingerprint = ";".join(pending.marks[name] for name in sorted(pending.marks))
            yield RunFiles(str(self._path.absolute()), folder, fingerprint, pending.files.get)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
