"""The forms that a data set has: one SQLite file, or a Parquet or CSV file for each table; written as rows come."""

from __future__ import annotations

import csv
import importlib
import json
from contextlib import contextmanager
from datetime import UTC, date, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from benchctl.errors import BenchctlError
from benchctl.extras import extra_mend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from types import ModuleType

    from sqlalchemy import Engine

    from benchctl.db.dictionary import Field
    from benchctl.export.contents import Part

FORMS = ("sqlite", "parquet", "csv")

SQLITE_FILE = "benchctl.sqlite"

ROWS_AT_ONCE = 10_000
"""Rows of a Parquet row group and of an insertion."""


class Writer(Protocol):
    """Takes tables, one after the other."""

    def write(self, part: Part, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write one table; gives the number of its rows."""


def file_of(form: str, table: str) -> str:
    """The file that holds the table, relative to the data set."""
    return SQLITE_FILE if form == "sqlite" else f"{table}.{form}"


@contextmanager
def writer(form: str, folder: Path, *, complete: bool) -> Iterator[Writer]:
    """What writes ``form`` into ``folder``.

    Args:
        form: one of :data:`FORMS`.
        folder: an empty folder.
        complete: whether all tables come. An SQLite file is then a whole database that benchctl itself can open.

    Raises:
        BenchctlError: the format needs what is not installed.
    """
    if form == "csv":
        yield CsvWriter(folder)
    elif form == "parquet":
        yield ParquetWriter(folder, _pyarrow())
    else:
        with SqliteWriter.open(folder / SQLITE_FILE, complete=complete) as opened:
            yield opened


class CsvWriter:
    """A CSV file for each table: RFC 4180 with line feeds, UTF-8; an empty cell is NULL."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, part: Part, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write one table."""
        cells = [_CSV_CELLS.get(field.type) for field in part.fields]
        count = 0
        with (self.folder / file_of("csv", part.name)).open("w", encoding="utf-8", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow([field.name for field in part.fields])
            for row in rows:
                out.writerow(
                    [
                        cell(value) if cell and value is not None else value
                        for cell, value in zip(cells, row, strict=True)
                    ]
                )
                count += 1
        return count


class ParquetWriter:
    """A Parquet file for each table: compressed with Zstandard, times in UTC, JSON as text."""

    def __init__(self, folder: Path, pyarrow: ModuleType) -> None:
        self.folder, self.pa = folder, pyarrow

    def write(self, part: Part, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write one table."""
        import pyarrow.parquet as pq

        schema = self.pa.schema([self._field(field) for field in part.fields], {"description": part.table.meaning})
        path = self.folder / file_of("parquet", part.name)
        count = 0
        with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=True) as out:
            for batch in _batches(rows):
                columns = [
                    self.pa.array(
                        [json_text(value) for value in column] if field.type in ("object", "array") else column,
                        type=schema.field(place).type,
                    )
                    for place, (field, column) in enumerate(zip(part.fields, zip(*batch, strict=True), strict=True))
                ]
                out.write_table(self.pa.Table.from_arrays(columns, schema=schema))
                count += len(batch)
        return count

    def _field(self, field: Field) -> Any:
        pa = self.pa
        types: Mapping[str, Callable[[], Any]] = {
            "integer": pa.int64,
            "number": pa.float64,
            "boolean": pa.bool_,
            "date": pa.date32,
            "datetime": lambda: pa.timestamp("us", tz="UTC"),
        }
        about = {"description": field.meaning} | ({"unit": field.unit} if field.unit else {})
        return pa.field(field.name, types.get(field.type, pa.string)(), nullable=not field.required, metadata=about)


class SqliteWriter:
    """One SQLite file with all tables, their keys and their indexes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, complete: bool) -> Iterator[SqliteWriter]:
        """Make the file; at the end it is packed, and needs no other file beside it.

        Args:
            path: the file.
            complete: make all tables, as a benchctl database has them, and not only those that are written.
        """
        from sqlalchemy import create_engine

        from benchctl.db.engine import open_database, translated

        if complete:
            open_database(f"sqlite:///{path}").dispose()
        engine = create_engine(f"sqlite:///{path}")
        try:
            with translated(engine):
                yield cls(engine)
                with engine.connect() as connection:
                    driver = connection.connection.driver_connection
                    assert driver is not None  # noqa: S101 - it is connected
                    driver.isolation_level = None
                    driver.execute("PRAGMA journal_mode = DELETE")
                    driver.execute("VACUUM")
        finally:
            engine.dispose()

    def write(self, part: Part, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write one table."""
        from benchctl.db.dictionary import table_of

        table, count = table_of(part.name), 0
        names = [field.name for field in part.fields]
        absent: dict[str, Any] = {
            field.name: {"object": {}, "array": []}.get(field.type, "")
            for field in part.table.fields
            if field.name not in names and field.required
        }
        with self.engine.begin() as connection:
            table.create(connection, checkfirst=True)
            for batch in _batches(rows):
                values = [{**absent, **dict(zip(names, row, strict=True))} for row in batch]
                connection.execute(table.insert(), values)
                count += len(batch)
        return count


def json_text(value: Any) -> str | None:
    """JSON as the database has it on SQLite: keys in order, so that the same value has the same text."""
    if value is None:
        return None
    return json.dumps(value, sort_keys=True, default=dict)


def moment_text(value: datetime) -> str:
    """A time as ISO 8601 in UTC: ``2026-01-31T12:00:00Z``, with a fraction where it has one."""
    utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return utc.isoformat().replace("+00:00", "Z")


_CSV_CELLS: dict[str, Callable[[Any], Any]] = {
    "object": json_text,
    "array": json_text,
    "boolean": lambda value: "true" if value else "false",
    "datetime": moment_text,
    "date": date.isoformat,
}


def _batches(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, ROWS_AT_ONCE)):
        yield batch


def _pyarrow() -> ModuleType:
    try:
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise BenchctlError("Parquet needs pyarrow, which is not installed.", extra_mend("parquet")) from error
