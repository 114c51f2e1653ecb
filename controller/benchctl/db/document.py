"""Writes docs/schema.md from the models: ``python -m benchctl.db.document > docs/schema.md``."""

from __future__ import annotations

import sys
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import sqlite

from benchctl.db import ours, sparecores
from benchctl.db.schema import OURS, THEIRS, metadata

if TYPE_CHECKING:
    from types import ModuleType

    from sqlalchemy import Column

    from benchctl.db.columns import Base

HEAD = """\
# The database's tables

Generated from the models by `python -m benchctl.db.document > docs/schema.md`; a test checks that it is current.

Times are UTC. Columns in **bold** are the primary key. On PostgreSQL the JSON columns are `jsonb`, and time is
`timestamp without time zone`. An older database is upgraded when benchctl opens it, after a copy was put beside an
SQLite file.
"""


def document() -> str:
    """The whole page, in Markdown."""
    parts = [HEAD, *_section("Ours", ours, OURS), *_section("Spare Cores' tables", sparecores, THEIRS)]
    return "\n".join(parts)


def _section(title: str, module: ModuleType, models: tuple[type[Base], ...]) -> list[str]:
    lines = [f"## {title}", "", _prose(module.__doc__), ""]
    for model in models:
        table = metadata.tables[model.__tablename__]
        lines += [
            f"### {table.name}",
            "",
            _prose(model.__doc__),
            "",
            "| column | type | | meaning |",
            "| --- | --- | --- | --- |",
        ]
        lines += [_row(column) for column in table.columns]
        lines.append("")
    return lines


def _row(column: Column[Any]) -> str:
    name = f"**{column.name}**" if column.primary_key else column.name
    remarks = [] if column.nullable else ["not null"]
    remarks += sorted({f"→ {key.column.table.name}" for key in column.foreign_keys})
    meaning = (column.doc or "").replace("``", "`").replace("|", "\\|")
    return f"| {name} | {column.type.compile(sqlite.dialect())} | {', '.join(remarks)} | {meaning} |"


def _prose(text: str | None) -> str:
    return cleandoc(text or "").replace("``", "`").replace(":mod:", "")


if __name__ == "__main__":
    sys.stdout.write(document())
