"""Puts a folder in its place, whole or not at all, and deletes nothing that somebody else put there."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKSUMS = "SHA256SUMS"
"""The list of all other files with their checksums, as ``sha256sum -c`` reads it."""


@contextmanager
def placed(target: Path, *, force: bool) -> Iterator[Path]:
    """A folder to write into, which becomes ``target`` when all went well, and is gone when not.

    Args:
        target: where it is to be; it may be there and empty.
        force: replace a data set that lies there. Other files in it stay.

    Raises:
        UsageError: ``target`` holds what must not be replaced, or is no folder.
        OSError: it can't be written.
    """
    target = target.absolute()
    _require_room(target, force)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        yield fresh
        fresh.chmod(0o777 & ~_umask(target.parent))
        _swap(fresh, target, force)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _require_room(target: Path, force: bool) -> None:
    for path in (target, *target.parents):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file, not a folder.", "Name a folder to be made.")
    if target.is_symlink():
        raise UsageError(f"{target} is a symbolic link.", "Name the folder itself.")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise UsageError(f"The folder {target} is not empty.", "Name another, or replace the data set in it: --force.")


def _swap(fresh: Path, target: Path, force: bool) -> None:
    """Two renames: at any moment the old data set or the new one is whole, under its name or beside it."""
    if not target.exists() or not any(target.iterdir()):
        fresh.rename(target)
        return
    _require_room(target, force)
    mine = _unchanged(target)
    others = [path for path in sorted(target.iterdir()) if path.name not in mine]
    for path in others:
        if (fresh / path.name).exists():
            raise UsageError(
                f"{path} is not as an export wrote it, and would be replaced.", "Move it away, or name another folder."
            )
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    target.rename(old)
    try:
        fresh.rename(target)
    except OSError:
        old.rename(target)
        raise
    for path in others:
        (old / path.name).rename(target / path.name)
    shutil.rmtree(old)


def _unchanged(folder: Path) -> set[str]:
    """The files of an earlier export that are still as it wrote them, by its own list of checksums."""
    sums = folder / CHECKSUMS
    if not sums.is_file():
        return set()
    found = {CHECKSUMS}
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        file = folder / name
        if name and Path(name).name == name and file.is_file() and not file.is_symlink():
            with file.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() == digest:
                    found.add(name)
    return found


def _umask(folder: Path) -> int:
    """The user's mask, read off a folder that is made and removed: asking the system for it would change it."""
    probe = Path(tempfile.mkdtemp(dir=folder))
    try:
        (probe / "mask").mkdir()
        return 0o777 & ~(probe / "mask").stat().st_mode
    finally:
        shutil.rmtree(probe)
