"""A statement on PostgreSQL: one, in a transaction that only reads and is rolled back, without a superuser's rights.

It is sent by the extended protocol, which carries one statement, so that nothing can follow it: no COMMIT, no SET. A
superuser becomes ``pg_read_all_data`` for it, a role that can read tables and neither files nor settings. Runs in the
process of :mod:`process`.
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.adapt import Loader
from psycopg.types.string import TextLoader

from benchctl.db.readonly.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

READER = "pg_read_all_data"
"""The role that a superuser becomes; it is there since PostgreSQL 14."""

AS_TEXT = ("date", "time", "timetz", "timestamp", "timestamptz", "interval", "uuid", "inet", "cidr")
"""Types whose text says all, also where Python has no value for it: infinity, years before ours."""

TEMPORARY_FILES = "1GB"
"""How much a superuser's statement may spill to the server's disk; for other roles the server's setting counts."""


class Number(Loader):
    """An exact number as a whole one where it is, else as a floating-point one."""

    def load(self, data: Any) -> int | float | str:
        """Of its text."""
        value = Decimal(bytes(data).decode())
        if not value.is_finite():
            return str(value)
        return (
            int(value) if value == value.to_integral_value() and int(value.as_tuple().exponent) >= 0 else float(value)
        )


def run(request: dict[str, Any]) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Begin the statement.

    Returns:
        The columns' names, and the rows as they come.

    Raises:
        Failure: it is wrong, or does more than read.
    """
    end = time.monotonic() + float(request["seconds"])
    try:
        connection = psycopg.connect(**request["database"], prepare_threshold=None)
        _prepare(connection, float(request["seconds"]))
        cursor = connection.cursor()
        rows = cursor.stream(request["sql"])
        first = next(rows, None)
        if first is None:
            return _columns_of(connection, request["sql"]), iter(())
    except psycopg.Error as error:
        raise _failure(error) from error
    return [column.name for column in cursor.description or ()], _rows(first, rows, end)


def _columns_of(connection: psycopg.Connection[Any], sql: str) -> list[str]:
    """The columns of a statement without rows: a stream does not tell them, so it is prepared and described."""
    connection.pgconn.prepare(b"", sql.encode())
    described = connection.pgconn.describe_prepared(b"")
    return [(described.fname(place) or b"").decode() for place in range(described.nfields)]


def _rows(first: tuple[Any, ...], rows: Iterator[tuple[Any, ...]], end: float) -> Iterator[tuple[Any, ...]]:
    yield first
    try:
        for row in rows:
            if time.monotonic() > end:
                raise Failure("time")
            yield row
    except psycopg.Error as error:
        raise _failure(error) from error


def _prepare(connection: psycopg.Connection[Any], seconds: float) -> None:
    for name in AS_TEXT:
        connection.adapters.register_loader(name, TextLoader)
    connection.adapters.register_loader("numeric", Number)
    connection.read_only = True
    settings = {
        "statement_timeout": str(max(1, round(seconds * 1000))),
        "lock_timeout": str(max(1, round(seconds * 1000))),
        "standard_conforming_strings": "on",
        "TimeZone": "UTC",
        "DateStyle": "ISO, YMD",
    }
    superuser = connection.execute("SELECT current_setting('is_superuser')").fetchone() == ("on",)
    if superuser:
        settings |= {"temp_file_limit": TEMPORARY_FILES}
    for name, value in settings.items():
        connection.execute("SELECT set_config(%s, %s, true)", (name, value))
    if superuser:
        known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (READER,)).fetchone()
        if known is None:
            raise Failure(
                "database", f"this role is a superuser, and the server is too old to know the lesser role {READER}"
            )
        connection.execute(f"SET LOCAL ROLE {READER}")


def _failure(error: psycopg.Error) -> Failure:
    text = error.diag.message_primary or str(error)
    if error.diag.message_hint:
        text = f"{text.rstrip('.')} ({error.diag.message_hint.rstrip('.')})"
    state = error.sqlstate or ""
    if state == "57014":
        return Failure("time")
    if state == "25006":
        return Failure("refused", "writing")
    if state == "42501":
        return Failure("refused", f"this ({text})")
    if state in ("53200", "53400", "54000"):
        return Failure("memory", text)
    if not state and "memory" in text:  # the client library's own words; it has no code for it
        return Failure("memory", text)
    if not state and isinstance(error, (psycopg.DataError, psycopg.ProgrammingError)):
        return Failure("sql", text)
    if not state or state[:2] in ("08", "53", "57", "58", "XX"):
        return Failure("database", text)
    return Failure("sql", text)
