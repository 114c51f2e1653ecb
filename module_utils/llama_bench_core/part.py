"""The unfinished file of a download: ``FILE.part``, what is missing of it in ``FILE.part.json``, and its lock.

The lock is on the ``.part`` file itself, so that nothing is left behind when its holder dies: of two sessions on one
folder the second waits, and then finds the file finished or goes on where the first one ended. What is missing is
written down after the bytes are, so that a kill at any moment leaves a true account.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from .delivery import CancelledError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from .delivery import Clock

LOCK_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Account:
    """What is known of an unfinished file.

    Attributes:
        address: where it comes from, without what may be secret in a URL.
        validator: ETag or Last-Modified of the file there; empty when the server names none.
        sha256: the checksum it should have, or empty.
        total: its size.
        missing: the pieces ``(start, end)`` that are not there yet.
    """

    address: str
    validator: str
    sha256: str
    total: int
    missing: list[tuple[int, int]] = field(default_factory=list)

    def continues(self, address: str, sha256: str) -> bool:
        """Whether this may be gone on with: the checksum says that it is the same file, or the server can say it."""
        if sha256 or self.sha256:
            return sha256 == self.sha256
        return self.address == address and bool(self.validator)

    @property
    def bytes_there(self) -> int:
        """How many bytes have arrived."""
        return self.total - sum(end - start for start, end in self.missing)


class Part:
    """An unfinished file, locked by this process while the object is open.

    Attributes:
        path: the ``.part`` file.
        handle: its file descriptor.
    """

    def __init__(self, final: Path, handle: int) -> None:
        self.path = part_path(final)
        self.handle = handle
        self._final = final
        self._account = account_path(final)

    @classmethod
    def acquire(cls, final: Path, clock: Clock, cancel: threading.Event, waiting: Callable[[], None]) -> Part:
        """Open and lock the ``.part`` file of ``final``, waiting while another session holds it.

        Args:
            final: what the file is called when it is finished.
            clock: for the waiting.
            cancel: ends the waiting.
            waiting: called now and then while another session holds it.

        Raises:
            CancelledError: when ``cancel`` is set.
            OSError: when it can't be opened.
        """
        path = part_path(final)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                while not _lock(handle):
                    waiting()
                    if clock.wait(cancel, LOCK_POLL_SECONDS):
                        raise CancelledError(f"The wait for {path} was stopped.")
                if _is_file(handle, path):
                    return cls(final, handle)
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # its holder renamed or removed it meanwhile: begin with what is there now

    def read_account(self) -> Account | None:
        """What an earlier session left to go on with, or ``None``."""
        return read_account(self._final)

    def write_account(self, account: Account) -> None:
        """Note what is missing; call it after the other bytes have been written."""
        if not account.sha256:
            # No checksum will tell later whether the machine lost power between the two.
            os.fdatasync(self.handle)
        fresh = self._account.with_name(f"{self._account.name}.new")
        try:
            fresh.write_text(json.dumps(asdict(account)), encoding="utf-8")
            fresh.replace(self._account)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise

    def clear(self) -> None:
        """Forget all that has arrived."""
        self._account.unlink(missing_ok=True)
        os.ftruncate(self.handle, 0)

    def finish(self) -> None:
        """Give the finished file its name, and have it on the disk, so that no flush disturbs a measurement."""
        os.fsync(self.handle)
        self.path.replace(self._final)
        self._account.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove what has arrived."""
        with suppress(OSError):
            self._account.unlink(missing_ok=True)
        with suppress(OSError):
            if _is_file(self.handle, self.path):
                self.path.unlink()

    def close(self) -> None:
        """Unlock; an empty file is removed, there is nothing in it to go on with."""
        with suppress(OSError):
            if os.fstat(self.handle).st_size == 0:
                self.remove()
            fcntl.flock(self.handle, fcntl.LOCK_UN)  # a connection that is slow to end may still have a duplicate
        os.close(self.handle)

    def __enter__(self) -> Part:  # noqa: PYI034 - Python 3.9 has no Self
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def part_path(final: Path) -> Path:
    """What the unfinished file of ``final`` is called."""
    return final.with_name(f"{final.name}.part")


def account_path(final: Path) -> Path:
    """What the account of the unfinished file of ``final`` is called."""
    return final.with_name(f"{final.name}.part.json")


def read_account(final: Path) -> Account | None:
    """The account of an unfinished file, or ``None`` when there is no usable one."""
    try:
        found = json.loads(account_path(final).read_text(encoding="utf-8"))
        missing = [(int(start), int(end)) for start, end in found["missing"]]
        account = Account(
            str(found["address"]), str(found["validator"]), str(found["sha256"]), int(found["total"]), missing
        )
        size = part_path(final).stat().st_size
    except (OSError, ValueError, TypeError, KeyError):
        return None
    sound = all(0 <= start < end <= account.total for start, end in missing)
    return account if sound and size == account.total else None


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_file(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(handle)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
