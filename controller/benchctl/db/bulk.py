"""Writing many rows at the speed of the driver: SQL is made once a table, and rows are plain tuples.

The ORM costs a hundred times what SQLite itself does with a row. Here a row is handed over as the database keeps it:
times as text in UTC, JSON as canonical text (:mod:`benchctl.prepared`). SQLite and PostgreSQL read the same tuples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from benchctl.db.columns import Base


def insert(
    connection: Connection,
    model: type[Base],
    columns: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    conflict: str = "",
    constants: Mapping[str, str] | None = None,
) -> None:
    """Insert rows.

    Args:
        connection: in a transaction that may write.
        model: the table.
        columns: names of its columns, in the order of the tuples.
        rows: the values as the database keeps them.
        conflict: what follows ``INSERT ... VALUES (...)``, such as an ``ON CONFLICT`` clause (:func:`upsert`).
        constants: columns that are the same in all rows, with their values in SQL.
    """
    if rows:
        fixed = constants or {}
        marks = ", ".join([_mark(connection)] * len(columns) + list(fixed.values()))
        names = ", ".join([*columns, *fixed])
        sql = f"INSERT INTO {model.__tablename__} ({names}) VALUES ({marks}) {conflict}"  # noqa: S608 - names of ours
        connection.exec_driver_sql(sql, list(rows))


def delete(connection: Connection, model: type[Base], columns: Sequence[str], keys: Iterable[tuple[Any, ...]]) -> None:
    """Delete the rows whose ``columns`` have one of the values in ``keys``."""
    wanted = list(keys)
    if wanted:
        where = " AND ".join(f"{column} = {_mark(connection)}" for column in columns)
        connection.exec_driver_sql(f"DELETE FROM {model.__tablename__} WHERE {where}", wanted)  # noqa: S608


def _mark(connection: Connection) -> str:
    return "?" if connection.dialect.name == "sqlite" else "%s"


def upsert(keys: Sequence[str], changes: Mapping[str, str]) -> str:
    """``ON CONFLICT`` clause: where ``keys`` are there already, set each column to its SQL expression."""
    settings = ", ".join(f"{column} = {expression}" for column, expression in changes.items())
    return f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {settings}"
