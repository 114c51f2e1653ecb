"""Fetching Spare Cores' published database: only when it is a new one, whole, and checked before it replaces the old.

The file lies in the cache beside a note with its ETag and checksum. A server that still has the same version answers
304, and nothing is transferred.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from llama_bench_core.web import LOOPBACK, PASSING, make_opener, shown

from benchctl import __version__
from benchctl.catalog.files import read_file
from benchctl.errors import BenchctlError, UsageError
from benchctl.request import is_web_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchctl.catalog.values import Delivery

PUBLISHED = "https://cdn.sparecores.net/sc-data/latest/sc-data-all.sql.xz"
"""Where Spare Cores publish their database, https://github.com/SpareCores/sc-data; their client reads it there too."""

ATTEMPTS = 4
TIMEOUT_SECONDS = 60.0
"""A connection that brings nothing for so long is given up."""

_BLOCK = 1024 * 1024


class Opener(Protocol):
    """What opens requests: urllib's opener, or a test's."""

    def open(self, fullurl: Any, data: None = None, timeout: float = ...) -> Any:
        """Return a response with ``headers`` and ``read``, or raise as urllib."""


@dataclass(frozen=True)
class Pulled:
    """What came of asking.

    Attributes:
        path: the file in the cache.
        etag: the server's mark of this version, if it has one.
        sha256: checksum of the file, hex.
        fresh: whether it was transferred just now.
        delivery: what it says, where it was read already.
    """

    path: Path
    etag: str | None
    sha256: str
    fresh: bool
    delivery: Delivery | None = None


class _PassingError(Exception):
    """It may go better the next time; its text says what went wrong."""


def pull(
    url: str,
    folder: Path,
    *,
    sha256: str | None = None,
    opener: Opener | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Pulled:
    """Have the newest version of the database at ``url`` in ``folder``.

    Args:
        url: http or https.
        folder: the cache; made when it is not there.
        sha256: the checksum that the file must have, hex.
        opener: what opens requests.
        wait: what pauses between attempts.

    Raises:
        BenchctlError: it can't be fetched, or is not what it should be; what lay in the cache is untouched.
        UsageError: the URL is none, or the file is not a Spare Cores database.
    """
    if not is_web_address(url):
        raise UsageError(f"'{url}' is not an address that can be fetched.", "Give an https:// URL.")
    expected = sha256.lower() if sha256 else None
    folder.mkdir(parents=True, exist_ok=True)
    name = PurePosixPath(urlsplit(url).path).name or "database"
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name}"
    note = _note(path)
    if note and expected and note["sha256"] != expected:
        note = None
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _fetch(url, path, note, expected, opener or make_opener())
        except _PassingError as error:
            if attempt == ATTEMPTS:
                raise BenchctlError(
                    f"{shown(url)} can't be fetched: {error}.", "Check the network or the address, and run again."
                ) from error
            wait(2.0 ** (attempt - 1))
    raise AssertionError("unreachable")


def is_open_to_tampering(url: str) -> bool:
    """Whether what comes from ``url`` may be altered on its way."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in LOOPBACK


def _fetch(url: str, path: Path, note: dict[str, str] | None, expected: str | None, opener: Opener) -> Pulled:
    headers = {"User-Agent": f"benchctl/{__version__} (catalogue)"}
    if note and note.get("etag"):
        headers["If-None-Match"] = note["etag"]
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)  # noqa: S310
    except HTTPError as error:
        error.close()
        if error.code == 304 and note:
            return Pulled(path, note["etag"], note["sha256"], fresh=False)
        if error.code in PASSING:
            raise _PassingError(f"the server answers {error.code} {error.reason}") from error
        raise BenchctlError(
            f"{shown(url)} can't be fetched: the server answers {error.code} {error.reason}.",
            "Check the address (--url).",
        ) from error
    except URLError as error:
        raise _PassingError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(str(error) or type(error).__name__) from error
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with response, part.open("wb") as file:
            found = _copy(response, file)
        if expected and found != expected:
            raise BenchctlError(
                f"{shown(url)} has the SHA-256 {found}, not {expected}.",
                "Check the checksum, or get it from elsewhere.",
            )
        etag = response.headers.get("ETag")
        # read it before it replaces a good one
        delivery = read_file(part, url, etag)
        os.replace(part, path)  # noqa: PTH105 - one atomic step
    except OSError as error:
        raise BenchctlError(f"{path} can't be written: {error.strerror or error}.", "Free some space.") from error
    finally:
        part.unlink(missing_ok=True)
    memory = path.with_name(f"{path.name}.json")
    fresh = memory.with_name(f".{memory.name}.{os.getpid()}.part")
    fresh.write_text(json.dumps({"url": shown(url), "etag": etag or "", "sha256": found}), encoding="utf-8")
    os.replace(fresh, memory)  # noqa: PTH105
    return Pulled(path, etag, found, fresh=True, delivery=delivery)


def _copy(response: Any, file: IO[bytes]) -> str:
    """The body into the file.

    Returns:
        Its checksum, hex.

    Raises:
        _PassingError: it broke off.
    """
    digest = hashlib.sha256()
    size = 0
    while True:
        try:
            block = response.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _PassingError(f"the connection broke after {size} bytes") from error
        if not block:
            break
        digest.update(block)
        size += len(block)
        file.write(block)
    length = response.headers.get("Content-Length")
    if length is not None and length.isdigit() and int(length) != size:
        raise _PassingError(f"it broke off after {size} of {length} bytes")
    return digest.hexdigest()


def _note(path: Path) -> dict[str, str] | None:
    """What is remembered of the file in the cache; nothing unless the file is just that."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        note: dict[str, str] = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == note["sha256"]:
                return note
    return None
