"""``benchctl sql``: a question in SQL, answered and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.options import FiniteRange
from benchctl.cli.render import Column, Output, emit, output_options
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchctl.db.readonly import Reply
    from benchctl.home import Home

SHOWN_ROWS = 1000
"""How many rows a table shows when --limit does not say."""


@click.command()
@click.argument("statement", required=False, metavar="[STATEMENT|-]")
@click.option("--file", metavar="FILE", type=click.Path(path_type=Path), help="Read the statement from FILE.")
@click.option(
    "--timeout",
    type=FiniteRange(min=0, min_open=True, max=86_400),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Stop the statement after so long.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="ROWS",
    help=f"Show so many rows, and say if there are more; 0 for all.  [default: {SHOWN_ROWS} in a table, else all]",
)
@click.option("--tables", is_flag=True, help="List the tables instead: their rows and what they mean.")
@click.option("--schema", metavar="TABLE", help="List the columns of TABLE instead: type, unit and meaning.")
@output_options()
@click.pass_obj
def sql(
    home: Home,
    statement: str | None,
    file: Path | None,
    timeout: float,
    limit: int | None,
    tables: bool,
    schema: str | None,
    as_json: bool,
    as_csv: bool,
    query: str | None,
) -> None:
    """Ask the database in SQL: one statement that reads.

    STATEMENT is SELECT, WITH, VALUES or EXPLAIN in the database's own dialect, SQLite's or PostgreSQL's; '-' reads it
    from standard input. Tables and columns are in docs/schema.md, and here with --tables and --schema; queries to
    begin with are in docs/queries.md. Queries written for Spare Cores' database run unchanged on SQLite.

    Nothing can be written, attached or read but the tables: the database is opened for reading, each step of the
    statement is checked, and it runs in a process of its own that may write no file, use 1 GiB of memory at most, and
    is killed when its time is over. On PostgreSQL use a role that may only read; a superuser becomes pg_read_all_data
    for the statement.

    In --json a second column called 'name' is 'name_2'. NULL is null, bytes are hexadecimal text, times are text in
    UTC. JSON columns are text on SQLite, and objects on PostgreSQL.

    \b
    benchctl sql "SELECT vendor_id, count(*) FROM server GROUP BY 1"
    benchctl sql --file question.sql --csv > answer.csv
    """  # noqa: D301 - click's sign for a paragraph that keeps its lines is the character itself
    output = Output(as_json, as_csv, query)
    if tables or schema is not None:
        if statement is not None or file is not None or (tables and schema is not None):
            raise UsageError("--tables and --schema stand alone.", "Give one of them, or a statement.")
        _emit_schema(schema, output) if schema is not None else _emit_tables(home, output)
        return
    from benchctl.db.engine import open_database
    from benchctl.db.readonly import Limits, ask

    text = _statement(statement, file)
    rows = limit if limit is not None else None if output.for_machines else SHOWN_ROWS
    engine = open_database(home.database_url, create=False)
    try:
        reply = ask(engine, text, Limits(seconds=timeout, rows=rows or None))
    finally:
        engine.dispose()
    notes = [f"There are more rows than these {len(reply.rows)} (--limit 0 shows all)."] if reply.more else []
    emit(reply.objects(), _columns(reply), output, notes=notes, empty="No rows.")


def _statement(statement: str | None, file: Path | None) -> str:
    if (statement is None) == (file is None):
        raise UsageError("Give one statement: as an argument, as '-' for standard input, or with --file.")
    try:
        if file is not None:
            return file.read_text(encoding="utf-8-sig")
        return sys.stdin.buffer.read().decode("utf-8-sig") if statement == "-" else str(statement)
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}.", "Name a file with a statement.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file or 'Standard input'} is not text in UTF-8.", "Save it as UTF-8.") from error


def _columns(reply: Reply) -> list[Column]:
    """The answer's own columns; numbers stand to the right."""
    columns = []
    for place, key in enumerate(reply.keys):
        values = [row[place] for row in reply.rows if row[place] is not None]
        numbers = bool(values) and all(isinstance(one, (int, float)) for one in values)
        columns.append(Column(key, reply.columns[place], "right" if numbers else "left", _cell_of(key)))
    return columns


def _cell_of(key: str) -> Any:
    return lambda row: _cell(row[key])


def _cell(value: Any) -> str:
    """Every digit: who asks in SQL rounds there."""
    if value is None:
        return ""
    if isinstance(value, (dict, list, bool)):
        return json.dumps(value, ensure_ascii=False)
    return " ".join(str(value).splitlines())


def _emit_tables(home: Home, output: Output) -> None:
    from benchctl.db import dictionary
    from benchctl.db.engine import open_database, reading

    engine = open_database(home.database_url, create=False)
    try:
        with reading(engine) as session:
            rows = dictionary.sizes(session)
    finally:
        engine.dispose()
    found: list[Mapping[str, Any]] = [
        {"table": name, "rows": count, "meaning": dictionary.describe(name).summary} for name, count in rows.items()
    ]
    columns = [Column("table", "table"), Column("rows", "rows", "right"), Column("meaning", "meaning")]
    emit(found, columns, output, notes=["'benchctl sql --schema TABLE' lists the columns of one."])


def _emit_schema(table: str, output: Output) -> None:
    from dataclasses import asdict

    from benchctl.db import dictionary

    described = dictionary.describe(table)
    targets = {column: one.table for one in described.references for column in one.columns}
    found = [{**asdict(field), "refers_to": targets.get(field.name)} for field in described.fields]
    columns = [
        Column("name", "column"),
        Column("type", "type"),
        Column("key", "key", "left", lambda row: "key" if row["key"] else ""),
        Column("unit", "unit"),
        Column("refers_to", "refers to"),
        Column("meaning", "meaning"),
    ]
    emit(found, columns, output, title=f"{described.name}: {described.summary}")
