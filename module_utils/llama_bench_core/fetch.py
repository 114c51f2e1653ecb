"""Gets one model: finds it where it is already, or downloads it, and hands over only what has been checked."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from . import checksum, disk
from .delivery import CancelledError, CorruptError, DiskFullError, DownloadError, Supplied
from .part import Part, read_account
from .transfer import Transfer
from .web import ChangedError, addresses, shown

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from .delivery import Clock, FetchSettings
    from .values import Model
    from .web import Web

BEGINNINGS = 3
"""How often a file that changes on the server, or arrives corrupt, is begun from the start."""


class Fetch:
    """The way of one model to this machine.

    Args:
        model: which one.
        directory: where downloads go.
        web: asks servers.
        settings: how to download.
        clock: time and chance.
        cancel: set to stop it.
        progress: hears bytes there and bytes in all (0: unknown).
        checking: hears bytes checked, of a file that was there already, and bytes in all.
        notice: hears a kind (``started``, ``reused``, ``retry``, ``restarted``) and a sentence.
    """

    def __init__(
        self,
        model: Model,
        directory: Path,
        web: Web,
        settings: FetchSettings,
        *,
        clock: Clock,
        cancel: threading.Event,
        progress: Callable[[int, int], None],
        checking: Callable[[int, int], None],
        notice: Callable[[str, str], None],
    ) -> None:
        self._model, self._directory, self._web, self._settings = model, directory, web, settings
        self._clock, self._cancel = clock, cancel
        self._progress, self._checking, self._notice = progress, checking, notice

    def run(self) -> Supplied:
        """Get it.

        Raises:
            DownloadError: one of its kinds, with a sentence.
        """
        began = self._clock.monotonic()
        try:
            if self._model.path:
                path = Path(self._model.path)
                sha256 = self._in_place(path)
            else:
                path = self._directory / plain_name(self._model.file)
                sha256 = self._found(path) or self._download(path)
            size = path.stat().st_size
        except OSError as error:
            raise DownloadError(f"{error.filename or self._directory}: {error.strerror or error}.") from error
        return Supplied(str(path), size, sha256, self._clock.monotonic() - began, "real")

    def _in_place(self, path: Path) -> str:
        """Check a file that the user named; it is never copied or replaced."""
        if not path.is_file():
            raise DownloadError(f"The model file {path} does not exist.", "Check the path.")
        with suppress(OSError):  # only the checksum is remembered there
            self._directory.mkdir(parents=True, exist_ok=True)
        return self._checked(path, self._directory / f"{path.name}.sha256.json")

    def _found(self, path: Path) -> str:
        """SHA-256 of a file that is there already and right, or empty."""
        if not path.exists():
            return ""
        try:
            sha256 = self._checked(path, memory_path(path))
        except CorruptError as error:
            self._notice("restarted", f"{error.problem} It is downloaded again.")
            return ""
        self._notice("reused", f"{path} is there already.")
        return sha256

    def _checked(self, path: Path, memory: Path) -> str:
        size = path.stat().st_size
        if self._model.bytes and size != self._model.bytes:
            raise CorruptError(f"{path} has {size} bytes, and {self._model.bytes} are expected.")
        checksum.require_gguf(path)
        sha256 = checksum.remembered_sha256(path, memory)
        if not sha256:
            sha256 = checksum.file_sha256(path, lambda done: self._checking(done, size), self._cancel.is_set)
            checksum.remember(path, memory, sha256)
        if self._model.sha256 and sha256 != self._model.sha256.lower():
            raise CorruptError(f"{path} has the SHA-256 {sha256}, and {self._model.sha256.lower()} is expected.")
        return sha256

    def _download(self, path: Path) -> str:
        places = addresses(self._model, self._settings.mirror)
        if not places:
            raise DownloadError(
                f"{self._model.name} is not on this machine and no URL is known for it.", "Give a url, path or mirror."
            )
        self._directory.mkdir(parents=True, exist_ok=True)
        before = _version(path)
        if self._model.bytes:
            disk.require(path.with_name(f"{path.name}.part"), self._model.bytes, self._settings.reserve_bytes)
        with Part.acquire(path, self._clock, self._cancel, lambda: self._report_other(path)) as part:
            try:
                arrived = self._found(path) if _version(path) != before else ""
                return arrived or self._from_any(places, path, part)
            except (DiskFullError, CorruptError):
                part.remove()
                raise

    def _report_other(self, path: Path) -> None:
        """While another session downloads this file, its progress is ours."""
        account = read_account(path)
        if account is not None:
            self._progress(account.bytes_there, account.total)

    def _from_any(self, places: list[str], path: Path, part: Part) -> str:
        """Download from the first place that has the right file; the last one's failure is the model's."""
        for place in places[:-1]:
            try:
                return self._from_one(place, path, part, beginnings=1)
            except (CancelledError, DiskFullError):
                raise
            except DownloadError as error:
                self._notice("retry", f"{error.problem} Trying {shown(places[-1])} instead.")
        return self._from_one(places[-1], path, part, beginnings=2)

    def _from_one(self, place: str, path: Path, part: Part, beginnings: int) -> str:
        self._notice("started", f"Downloading {shown(place)}.")
        changes = 0
        while True:
            try:
                sha256 = self._transfer(place, part)
                self._require_right(part.path, sha256)
            except ChangedError as error:
                changes += 1
                if changes == BEGINNINGS:
                    raise
                problem = error.problem
            except CorruptError as error:
                part.clear()
                beginnings -= 1
                if not beginnings:
                    raise
                problem = error.problem
            else:
                part.finish()
                checksum.remember(path, memory_path(path), sha256)
                return sha256
            part.clear()
            self._notice("restarted", f"{problem} The download begins anew.")

    def _transfer(self, place: str, part: Part) -> str:
        return Transfer(
            self._web,
            place,
            part,
            self._model,
            self._settings,
            clock=self._clock,
            cancel=self._cancel,
            progress=self._progress,
            retrying=lambda sentence: self._notice("retry", sentence),
        ).run()

    def _require_right(self, path: Path, sha256: str) -> None:
        """Check what has arrived.

        Raises:
            CorruptError: when it is not the file that it should be.
        """
        size = path.stat().st_size
        if self._model.bytes and size != self._model.bytes:
            raise CorruptError(f"{size} bytes of {self._model.file} came, and {self._model.bytes} are expected.")
        if self._model.sha256 and sha256 != self._model.sha256.lower():
            raise CorruptError(
                f"{self._model.file} arrived with the SHA-256 {sha256}, and {self._model.sha256.lower()} is expected."
            )
        checksum.require_gguf(path)


def plain_name(file: str) -> str:
    """A file name that stays in its folder.

    Raises:
        DownloadError: when it would not.
    """
    if not file or file != Path(file).name or file in (".", "..") or "\0" in file:
        raise DownloadError(f"{file!r} is not a plain file name.", "Give the model a file name without folders.")
    return file


def memory_path(path: Path) -> Path:
    """Where a file's checksum is remembered."""
    return path.with_name(f"{path.name}.sha256.json")


def _version(path: Path) -> tuple[int, int] | None:
    """Tells whether a file was replaced."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_ino, facts.st_mtime_ns
