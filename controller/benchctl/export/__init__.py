"""A data set ready to publish: tables in files, a description of every column, licences, sources and checksums.

``contents`` says what leaves and what does not, ``formats`` writes it, ``package`` and ``readme`` describe it (pure),
``folder`` puts it in its place, whole or not at all. The same data give the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benchctl import __version__
from benchctl.db import extract
from benchctl.db.engine import reading
from benchctl.errors import BenchctlError, UsageError
from benchctl.export import contents, formats, licences, package, readme
from benchctl.export.folder import CHECKSUMS, placed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from benchctl.export.contents import Part

TITLE = "LLM inference speed of servers, and what they cost"


@dataclass(frozen=True)
class Request:
    """What is to be exported, and how.

    Attributes:
        target: the folder to be made.
        form: ``sqlite``, ``parquet`` or ``csv``.
        tables: names of tables; nothing means all that may leave.
        vendors: these vendors alone; nothing means all.
        since: measurements and prices of this time and later; nothing means all.
        licence: identifier of the licence under which one's own results are published.
        title: the data set's title.
        force: replace a data set that lies there.
    """

    target: Path
    form: str
    tables: tuple[str, ...] = ()
    vendors: tuple[str, ...] = ()
    since: datetime | None = None
    licence: str = licences.DEFAULT
    title: str = TITLE
    force: bool = False


@dataclass(frozen=True)
class Written:
    """One table of the data set.

    Attributes:
        table: its name.
        rows: how many it has.
        path: the file that holds it, relative to the data set.
        size_bytes: size of that file.
        sha256: checksum of that file, hex.
    """

    table: str
    rows: int
    path: str
    size_bytes: int
    sha256: str


def export(engine: Engine, request: Request, report: Callable[[str], None]) -> list[Written]:
    """Write the data set.

    Args:
        engine: the database.
        request: what is wanted.
        report: is told, in a line, about each table.

    Returns:
        What was written, table by table.

    Raises:
        UsageError: the request names what is not there, or the folder holds something else.
        BenchctlError: it can't be written, or what the format needs is not installed.
    """
    licences.known(request.licence)
    parts = contents.parts(request.tables)
    try:
        with placed(request.target, force=request.force) as folder, reading(engine) as session:
            extract.one_state(session)
            selection = extract.Selection.checked(session, request.vendors, request.since)
            cleaner = contents.Cleaner(extract.raw_origins(session))

            def rows_of(part: Part) -> Iterator[tuple[Any, ...]]:
                return cleaner.cleaned(part, extract.rows(session, part.name, selection))

            counts = _write(folder, request, parts, rows_of, report)
            origins = extract.origins(session, selection)
            if not any(counts.values()):
                raise UsageError("There is nothing to export.", "Take in results first, or choose more of them.")
            sums = {file.name: _sha256(file) for file in folder.iterdir()}
            written = [
                Written(part.name, counts[part.name], path, (folder / path).stat().st_size, sums[path])
                for part in parts
                for path in (formats.file_of(request.form, part.name),)
            ]
            about = package.About(
                title=request.title,
                form=request.form,
                version=__version__,
                created=_created(origins),
                licence=request.licence,
                selection=selection,
                origins=origins,
                withheld=contents.withheld(parts),
            )
            for name, content in (
                ("datapackage.json", package.text(about, parts, written)),
                ("README.md", readme.text(about, parts, written)),
            ):
                (folder / name).write_text(content, encoding="utf-8")
                sums[name] = _sha256(folder / name)
            lines = (f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
            (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise BenchctlError(
            f"The data set can't be written to {request.target}: {error.strerror or error}.",
            "Make room or choose another folder; what was there before is as it was.",
        ) from error
    return written


def _write(
    folder: Path,
    request: Request,
    parts: list[Part],
    rows_of: Callable[[Part], Iterator[tuple[Any, ...]]],
    report: Callable[[str], None],
) -> dict[str, int]:
    counts = {}
    with formats.writer(request.form, folder, complete=not request.tables) as writer:
        for part in parts:
            counts[part.name] = writer.write(part, rows_of(part))
            report(f"{part.name}: {counts[part.name]:,} rows")
    return counts


def _created(origins: extract.Origins) -> datetime:
    """When the data are from, so that the same data give the same bytes; ``SOURCE_DATE_EPOCH`` overrides it."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if epoch.isdigit():
        return datetime.fromtimestamp(int(epoch), tz=UTC)
    return (origins.newest or datetime.fromtimestamp(0, tz=UTC)).replace(microsecond=0)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
