"""Disk space, on the file system that a file is really on."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from .delivery import DiskFullError, DownloadError

if TYPE_CHECKING:
    from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says when a file finds no room: the disk is full, the quota is, or files can't be so large there."""


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written by this user to the file system of ``folder``."""
    there = os.statvfs(folder)
    return there.f_bavail * there.f_frsize


def allocated_bytes(path: Path) -> int:
    """Bytes of disk that a file has already; 0 when there is none."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def require(path: Path, total_bytes: int, reserve_bytes: int = 0) -> None:
    """Check that a file can grow to ``total_bytes`` and leave ``reserve_bytes`` free.

    Raises:
        DiskFullError: with the figures, when it can't.
    """
    folder = path.parent
    missing = max(0, total_bytes - allocated_bytes(path))
    free = free_bytes(folder)
    if missing and missing + reserve_bytes > free:
        also = f" and {_size(reserve_bytes)} are to stay free" if reserve_bytes else ""
        raise DiskFullError(
            f"{path.name} needs {_size(missing)} more on the disk of {folder}, where {_size(free)} are free{also}.",
            "Free some space, or set models_dir to a larger disk.",
        )


def allocate(path: Path, handle: int, start: int, length: int) -> None:
    """Have the file system set space aside, so that a full disk shows before the bytes come and pieces lie together.

    File systems that can't are left alone: there the write itself tells.

    Raises:
        DiskFullError: when there is no room.
    """
    if length <= 0 or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(handle, start, length)
    except OSError as error:
        if error.errno in FULL:
            raise writing_failed(path, error) from error


def write(path: Path, handle: int, block: bytes, position: int) -> None:
    """Write all of ``block`` at a place in a file.

    Raises:
        DiskFullError: when there is no room.
        DownloadError: when it can't be written for another reason.
    """
    view = memoryview(block)
    try:
        while view:
            written = os.pwrite(handle, view, position)
            view, position = view[written:], position + written
    except OSError as error:
        raise writing_failed(path, error) from error


def writing_failed(path: Path, error: OSError) -> DownloadError:
    """What to say when a file can't be written."""
    if error.errno in FULL:
        return DiskFullError(
            f"The disk of {path.parent} had no room left for {path.name}: {os.strerror(error.errno or 0)}.",
            "Free some space, or set models_dir to a larger disk.",
        )
    return DownloadError(f"{path} can't be written: {error.strerror or error}.", "Check models_dir.")


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
