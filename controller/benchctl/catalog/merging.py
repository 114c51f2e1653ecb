"""Rows as a catalogue gives them, brought into a table: what is new is inserted, what differs is updated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, update

from benchctl.catalog.values import Tally

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection, Table

    Row = Mapping[str, Any]

SEEN = "observed_at"
"""The one column that may differ without a row being another."""


OURS_UNTIL_TOLD = "description"
"""The one column that is never kept: what stands there before a catalogue came is our own word."""


def key_of(table: Table, row: Row) -> tuple[Any, ...]:
    """The primary key of a row."""
    return tuple(row[column.name] for column in table.primary_key)


def merge(
    connection: Connection, table: Table, rows: Sequence[Row], *, vendors: Collection[str] | None = None
) -> Tally:
    """Bring ``rows`` into ``table``.

    A value that the catalogue does not know (none, or an empty list) leaves what is known otherwise.

    Args:
        connection: in a transaction.
        table: with ``observed_at`` among its columns.
        rows: all with the same columns.
        vendors: only rows of these vendors are looked at in the table; it must then have a ``vendor_id``.
    """
    if not rows:
        return Tally()
    tally = Tally()
    query = select(table) if vendors is None else select(table).where(table.c.vendor_id.in_(vendors))
    known: dict[tuple[Any, ...], dict[str, Any]] = {}
    for found in connection.execute(query).mappings():
        known[tuple(found[column] for column in table.primary_key)] = {str(name): found[name] for name in found}
    fresh: list[Row] = []
    changed: list[Row] = []
    for row in rows:
        before = known.get(key_of(table, row))
        if before is None:
            fresh.append(row)
            continue
        merged = filled(row, before)
        if any(before[name] != value for name, value in merged.items() if name != SEEN):
            tally.changed += 1
            changed.append(merged)
        else:
            tally.unchanged += 1
            if before[SEEN] != merged[SEEN]:
                changed.append(merged)
    tally.new = len(fresh)
    if fresh:
        connection.execute(insert(table), fresh)
    update_rows(connection, table, changed)
    return tally


def filled(row: Row, before: Row) -> dict[str, Any]:
    """``row``, with what was known ``before`` in place of what it does not tell."""
    return {
        name: before[name] if (value is None or value == []) and name != OURS_UNTIL_TOLD else value
        for name, value in row.items()
    }


def update_rows(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Write the values of ``rows`` into the rows of the same keys."""
    if not rows:
        return
    keys = {column.name for column in table.primary_key}
    statement = update(table).where(*(table.c[name] == bindparam(f"key_{name}") for name in sorted(keys)))
    connection.execute(
        statement.values({name: bindparam(f"new_{name}") for name in rows[0] if name not in keys}),
        [{f"{'key' if name in keys else 'new'}_{name}": value for name, value in row.items()} for row in rows],
    )
