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
from typing import IO, TYPE_CHECKING, Any

from llama_bench_core.web import shown

from benchctl.catalog import price_list
from benchctl.catalog.sparecores_database import read_snapshot, restore
from benchctl.catalog.values import Delivery, Origin, PriceList, RateList, Snapshot
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

MEND = "Give a Spare Cores database, or a CSV of prices or of exchange rates; .xz, .bz2 and .gz are unpacked."

_SQLITE = b"SQLite format 3\x00"
_SQL_TEXT = (b"PRAGMA ", b"BEGIN ", b"CREATE ", b"--")
_PACKED: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
    (b"BZh", bz2.BZ2File),
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
)


def read_file(path: Path, url: str = "", etag: str | None = None) -> Delivery:
    """Read a file, whatever of the catalogue it holds.

    Args:
        path: the file.
        url: where it is from; the file's own path by default. What may be a secret in it is not kept.
        etag: the mark that the server gave it.

    Raises:
        UsageError: it is not there, damaged, or something else.
    """
    name = shown(url) if url else str(path)
    if not path.is_file():
        raise UsageError(f"There is no file {name}.", MEND)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            plain = _unpacked(file)
            content = _content(plain, plain is not file, path, name)
    except (lzma.LZMAError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise UsageError(f"{name} is damaged: it can't be unpacked ({error}).", "Get it anew.") from error
    except OSError as error:
        # bz2 calls broken data an OSError too, without a number
        what = error.strerror or f"it can't be unpacked ({error})"
        raise UsageError(f"{name} can't be read: {what}.", "Get it anew." if error.errno is None else "") from error
    kind = {Snapshot: "database", PriceList: "prices", RateList: "rates"}[type(content)]
    return Delivery(content, Origin(name if url else str(path.absolute()), kind, sha256, path.stat().st_size, etag))


def _unpacked(file: IO[bytes]) -> Any:
    head = file.read(8)
    file.seek(0)
    for magic, opened in _PACKED:
        if head.startswith(magic):
            return opened(file)
    return file


def _content(file: Any, packed: bool, path: Path, name: str) -> Snapshot | PriceList | RateList:
    buffered = io.BufferedReader(file)
    head = buffered.peek(64)[:64]
    if head.startswith(_SQLITE):
        if not packed:
            return read_snapshot(path, name)
        with tempfile.NamedTemporaryFile(prefix="benchctl-", suffix=".db") as plain:
            shutil.copyfileobj(buffered, plain, 1024 * 1024)
            plain.flush()
            return read_snapshot(Path(plain.name), name)
    if head.startswith(_SQL_TEXT):
        with tempfile.TemporaryDirectory(prefix="benchctl-") as folder:
            made = Path(folder) / "restored.db"
            restore(_text(buffered), made, name)
            return read_snapshot(made, name)
    if not head.strip():
        raise UsageError(f"{name} is empty.", MEND)
    if b"\x00" in head:
        raise UsageError(f"{name} is neither a Spare Cores database nor CSV.", MEND)
    text = _text(buffered)
    header = text.readline()
    lines = chain([header], text)
    if price_list.is_rates(header):
        return price_list.read_rates(lines, name)
    if "," not in header:
        raise UsageError(f"{name} is neither a Spare Cores database nor CSV.", MEND)
    return price_list.read_prices(lines, name)


def _text(file: IO[bytes]) -> io.TextIOWrapper:
    # a byte that is no UTF-8 must spoil its own line only
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
