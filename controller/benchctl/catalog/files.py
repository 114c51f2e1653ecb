"""Files of a catalogue: what they are is told by their content, not by their name; compressed or not is the same."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import shutil
import tempfile
import zlib
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING

from benchctl.catalog import price_list
from benchctl.catalog.sparecores_database import read_snapshot, restore
from benchctl.catalog.values import Delivery, Origin, PriceList, RateList, Snapshot
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

MEND = "Give a Spare Cores database, or a CSV of prices or of exchange rates; .xz, .bz2 and .gz are unpacked."

_SQLITE = b"SQLite format 3\x00"
_SQL_TEXT = (b"PRAGMA ", b"BEGIN ", b"CREATE ", b"--")
_PACKED: tuple[tuple[bytes, Callable[[IO[bytes]], IO[bytes]]], ...] = (
    (b"\xfd7zXZ\x00", lambda file: lzma.open(file)),
    (b"BZh", lambda file: bz2.open(file)),
    (b"\x1f\x8b", lambda file: gzip.open(file)),  # type: ignore[arg-type,return-value]
)


def read_file(path: Path, url: str = "", etag: str | None = None) -> Delivery:
    """Read a file, whatever of the catalogue it holds.

    Args:
        path: the file.
        url: where it is from; the file's own path by default.
        etag: the mark that the server gave it.

    Raises:
        UsageError: it is not there, damaged, or something else.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", MEND)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            content = _content(_unpacked(file), path)
    except (lzma.LZMAError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise UsageError(f"{path} is damaged: it can't be unpacked ({error}).", "Get it anew.") from error
    except OSError as error:
        # bz2 calls broken data an OSError too, without a number
        what = error.strerror or f"it can't be unpacked ({error})"
        raise UsageError(f"{path} can't be read: {what}.", "Get it anew." if error.errno is None else "") from error
    kind = {Snapshot: "database", PriceList: "prices", RateList: "rates"}[type(content)]
    return Delivery(content, Origin(url or str(path.absolute()), kind, sha256, path.stat().st_size, etag))


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    head = file.read(8)
    file.seek(0)
    for magic, opened in _PACKED:
        if head.startswith(magic):
            return opened(file)
    return file


def _content(file: IO[bytes], path: Path) -> Snapshot | PriceList | RateList:
    buffered = io.BufferedReader(file)  # type: ignore[arg-type]
    head = buffered.peek(64)[:64]
    if head.startswith(_SQLITE):
        with tempfile.NamedTemporaryFile(prefix="benchctl-", suffix=".db") as plain:
            shutil.copyfileobj(buffered, plain, 1024 * 1024)
            plain.flush()
            return read_snapshot(Path(plain.name), str(path))
    if head.startswith(_SQL_TEXT):
        with tempfile.TemporaryDirectory(prefix="benchctl-") as folder:
            made = Path(folder) / "restored.db"
            restore(_text(buffered), made, str(path))
            return read_snapshot(made, str(path))
    if not head.strip():
        raise UsageError(f"{path} is empty.", MEND)
    if b"\x00" in head:
        raise UsageError(f"{path} is neither a Spare Cores database nor CSV.", MEND)
    text = _text(buffered)
    header = text.readline()
    lines = chain([header], text)
    if price_list.is_rates(header):
        return price_list.read_rates(lines, path.name)
    if "," not in header:
        raise UsageError(f"{path} is neither a Spare Cores database nor CSV.", MEND)
    return price_list.read_prices(lines, path.name)


def _text(file: IO[bytes]) -> io.TextIOWrapper:
    # a byte that is no UTF-8 must spoil its own line only
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")


