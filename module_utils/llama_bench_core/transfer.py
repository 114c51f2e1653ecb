"""Gets one file from one server into a ``.part`` file, over several connections, and hashes it as it grows.

Connections are daemon threads, because opening one can't be interrupted; a body that is being read can, by shutting
its socket down. Each connection counts its own failures in a row and gives up alone: the file fails with the last
one, so that a server which grants fewer connections than asked for still delivers.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from . import disk
from .checksum import Follower
from .delivery import CancelledError, DownloadError
from .part import Account
from .ranges import Ranges
from .web import Answer, ChangedError, HiccupError, RefusedError, pause_seconds, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from .delivery import Clock, FetchSettings
    from .part import Part
    from .ranges import Lease
    from .values import Model
    from .web import Web

READ_BYTES = 256 * 1024
TICK_SECONDS = 0.1
ACCOUNT_SECONDS = 1.0
GOODBYE_SECONDS = 0.4
GAIN_BYTES = 64 * 1024
"""A connection that brought less than this has failed again; with more, its count of failures begins anew."""


class Transfer:
    """One file on its way from one server.

    Args:
        web: asks the server.
        url: for what.
        part: where to.
        model: what it should be.
        settings: how.
        clock: time and chance.
        cancel: set to stop it; what has arrived stays.
        progress: hears bytes there and bytes in all (0: unknown), several times a second.
        retrying: hears a sentence when a connection failed and will be made anew.
    """

    def __init__(
        self,
        web: Web,
        url: str,
        part: Part,
        model: Model,
        settings: FetchSettings,
        *,
        clock: Clock,
        cancel: threading.Event,
        progress: Callable[[int, int], None],
        retrying: Callable[[str], None],
    ) -> None:
        self._web, self._url, self._part, self._model = web, url, part, model
        self._settings, self._clock, self._cancel = settings, clock, cancel
        self._progress, self._retrying = progress, retrying
        self._lock = threading.Lock()  # of all that follows
        self._ranges: Ranges | None = None
        self._validator = ""
        self._beginnings = 0
        self._open: list[Answer] = []
        self._threads: list[threading.Thread] = []
        self._ended = 0
        self._failure: DownloadError | None = None
        self._fatal = False
        self._wake = threading.Event()  # for the watching thread
        self._over = threading.Event()  # for the connections

    def run(self) -> str:
        """Get the file; return its SHA-256 in hex.

        Raises:
            DownloadError: one of its kinds. What has arrived stays, and a later transfer goes on with it.
        """
        self._resume()
        follower = Follower(self._part.handle, self._reach)
        try:
            self._connect()
            self._watch()
            self._hang_up()
            whole = self._reach()[2]
            if not whole:
                raise self._failure or CancelledError(f"The download of {self._model.file} was stopped.")
            self._report()
            return follower.finish(self._cancel)
        finally:
            self._hang_up()
            follower.stop()
            self._leave()

    # --- in the caller's thread ---

    def _resume(self) -> None:
        """Take up what an earlier session left; whether it is still the same file, the first answer tells."""
        left = self._part.read_account()
        if (
            left is None
            or not left.continues(shown(self._url), self._model.sha256)
            or left.total != (self._model.bytes or left.total)
        ):
            self._part.clear()
            return
        disk.require(self._part.path, left.total, self._settings.reserve_bytes)
        self._validator = left.validator if left.address == shown(self._url) else ""
        self._ranges = self._make_ranges(left.total, left.missing)

    def _connect(self) -> None:
        thread = threading.Thread(target=self._work, name=f"download-{len(self._threads)}", daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _watch(self) -> None:
        """Report, note and add connections until all is there or nothing more will come."""
        noted_at = self._clock.monotonic()
        while not self._cancel.is_set():
            self._wake.wait(TICK_SECONDS)
            self._wake.clear()
            with self._lock:
                whole = self._ranges is not None and self._ranges.complete
                divisible = self._ranges is not None and self._ranges.divisible
                if whole or self._fatal or self._ended == len(self._threads):
                    return
            self._report()
            while divisible and len(self._threads) < self._settings.connections:
                self._connect()
            if self._clock.monotonic() - noted_at >= ACCOUNT_SECONDS:
                noted_at = self._clock.monotonic()
                self._note()

    def _note(self) -> None:
        """Write down what is missing, and check that the disk still has room for it."""
        with self._lock:
            ranges = self._ranges
            if ranges is None or ranges.total is None:
                return
            total, missing = ranges.total, ranges.missing()
        try:
            if ranges.divisible:
                self._part.write_account(Account(shown(self._url), self._validator, self._model.sha256, total, missing))
            disk.require(self._part.path, total)
        except OSError as error:
            raise disk.writing_failed(self._part.path, error) from error

    def _report(self) -> None:
        with self._lock:
            there = self._ranges.bytes_there if self._ranges else 0
            total = (self._ranges.total if self._ranges else None) or self._model.bytes
        self._progress(there, total)

    def _reach(self) -> tuple[int, int, bool]:
        with self._lock:
            if self._ranges is None:
                return self._beginnings, 0, False
            return self._beginnings, self._ranges.prefix, self._ranges.complete

    def _hang_up(self) -> None:
        if self._over.is_set():
            return
        self._over.set()
        with self._lock:  # under which no answer is closed, so that its number can't be another file's by now
            for answer in self._open:
                answer.shut_down()
        deadline = self._clock.monotonic() + GOODBYE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._clock.monotonic()))

    def _leave(self) -> None:
        """Leave behind what the next session can go on with, and nothing else."""
        with suppress(DownloadError, OSError):
            if self._ranges is None or (not self._ranges.complete and not self._ranges.divisible):
                self._part.clear()
            elif not self._ranges.complete:
                self._note()

    # --- in the connections' threads ---

    def _work(self) -> None:
        handle = os.dup(self._part.handle)  # a number of its own: one closed elsewhere may be another file's by now
        failure: DownloadError | None = None
        try:
            self._fetch(handle)
        except DownloadError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - what ends this thread must be known in the other one
            failure = DownloadError(f"The download of {self._model.file} failed unforeseen: {error!r}.")
        finally:
            os.close(handle)
            with self._lock:
                self._ended += 1
                if failure is not None and not self._fatal and not self._over.is_set():
                    self._failure = failure
                    self._fatal = not isinstance(failure, (HiccupError, RefusedError))
            self._wake.set()

    def _fetch(self, handle: int) -> None:
        failures = 0
        farthest = 0
        while not self._over.is_set():
            lease: Lease | None = None
            gained = 0
            try:
                answer, lease = self._next(handle)
                if lease is None:
                    if self._reach()[2]:
                        return
                    self._over.wait(TICK_SECONDS)  # another connection may yet fail
                    continue
                begun = lease.position
                try:
                    self._get(handle, lease, answer)
                finally:
                    # Where there is only all or nothing, a gain is to come farther than ever before.
                    gained = lease.position - (begun if self._give_back(lease) else farthest)
                    farthest = max(farthest, lease.position)
                failures = 0
            except HiccupError as error:
                failures = 1 if gained >= GAIN_BYTES else failures + 1
                if failures >= self._settings.attempts:
                    raise
                pause = pause_seconds(self._settings, self._clock.random(), failures, error)
                self._retrying(f"{error.problem} Trying again in {pause:.1f} s.")
                self._clock.wait(self._over, pause)

    def _next(self, handle: int) -> tuple[Answer | None, Lease | None]:
        """The next piece; the very first comes with the answer that tells how large the file is."""
        with self._lock:
            begun = self._ranges is not None
        if begun:
            return None, self._take(handle)
        first = self._make_ranges(self._model.bytes, None).take() if self._model.bytes else None
        answer = self._web.ask(self._url, self._clock.wall(), 0, first.end if first else None)
        try:
            if not self._over.is_set():
                self._begin(handle, answer)
                return answer, self._take(handle)
        except BaseException:
            answer.close()
            raise
        answer.close()
        return None, None

    def _begin(self, handle: int, answer: Answer) -> None:
        if answer.total == 0 or (self._model.bytes and answer.total not in (None, self._model.bytes)):
            raise RefusedError(
                f"{shown(self._url)} has {answer.total} bytes"
                + (f", and {self._model.bytes} are expected: it is another file." if self._model.bytes else ".")
            )
        if answer.total:
            disk.require(self._part.path, answer.total, self._settings.reserve_bytes)
        try:
            os.ftruncate(handle, answer.total or 0)
        except OSError as error:
            raise disk.writing_failed(self._part.path, error) from error
        with self._lock:
            self._validator = answer.validator
            self._ranges = self._make_ranges(answer.total, None, divisible=answer.ranged)
        self._wake.set()

    def _make_ranges(
        self, total: int | None, missing: list[tuple[int, int]] | None, *, divisible: bool = True
    ) -> Ranges:
        return Ranges(
            total,
            missing,
            connections=self._settings.connections,
            chunk_bytes=self._settings.chunk_bytes,
            split_bytes=self._settings.split_bytes,
            divisible=divisible,
        )

    def _take(self, handle: int) -> Lease | None:
        with self._lock:
            if self._ranges is None:
                return None
            lease, total = self._ranges.take(), self._ranges.total
        if lease is not None and total is not None:
            disk.allocate(self._part.path, handle, lease.position, lease.left)
        return lease

    def _give_back(self, lease: Lease) -> bool:
        """End a lease; return whether what came of it stays."""
        with self._lock:
            if self._ranges is None:
                return False
            self._ranges.give_back(lease)
            self._wake.set()
            if self._ranges.divisible or self._ranges.complete:
                return True
            self._ranges = None  # the next answer begins from the start
            self._beginnings += 1
            return False

    def _get(self, handle: int, lease: Lease, answer: Answer | None) -> None:
        """Write the bytes of a piece as they come, from the answer at hand or from one asked for."""
        if answer is None:
            answer = self._web.ask(self._url, self._clock.wall(), lease.position, lease.end, self._validator)
            self._require_same_file(answer)
        with self._lock:
            self._open.append(answer)
        try:
            while lease.left and not self._over.is_set():
                self._get_some(handle, lease, answer)
        finally:
            with self._lock:
                self._open.remove(answer)
            answer.close()

    def _require_same_file(self, answer: Answer) -> None:
        with self._lock:
            same = self._ranges is not None and answer.ranged and answer.total == self._ranges.total
            if same and not self._validator:
                self._validator = answer.validator  # begun from another server
        if not same:
            answer.close()
            raise ChangedError(f"The file at {shown(self._url)} has changed, or is no longer served in pieces.")

    def _get_some(self, handle: int, lease: Lease, answer: Answer) -> None:
        block = answer.read(min(READ_BYTES, lease.left))
        if self._over.is_set():
            return
        if not block:
            if answer.total is not None or not lease.position:
                raise HiccupError("The connection ended before the file did.")
            with self._lock:
                if self._ranges is not None:
                    self._ranges.ends_here(lease)
            return
        disk.write(self._part.path, handle, block, lease.position)
        with self._lock:
            if self._ranges is not None:
                self._ranges.advance(lease, len(block))
