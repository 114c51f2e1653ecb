"""How every read command shows its answer: a table, plain columns, JSON or CSV.

One question gives one list of objects with stable keys; :class:`Column` says which of them a table shows, and how.
A terminal gets a table, a pipe gets plain aligned columns, ``--json`` gets the objects themselves, whole.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Row = Mapping[str, Any]
    Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: the row's key that it shows.
        title: what stands above it, with the unit.
        align: ``right`` for numbers.
        text: makes the cell from the whole row; by default :func:`cell` of ``row[key]``.
    """

    key: str
    title: str
    align: Literal["left", "right"] = "left"
    text: Callable[[Row], str] | None = None

    def of(self, row: Row) -> str:
        """The cell of ``row``."""
        return self.text(row) if self.text else cell(row.get(self.key))


@dataclass(frozen=True)
class Output:
    """The form that the user asked for.

    Attributes:
        as_json: print the objects as JSON.
        as_csv: print the objects as comma-separated values with a header.
        query: a JMESPath expression over the list of objects; its result is printed as JSON.
    """

    as_json: bool = False
    as_csv: bool = False
    query: str | None = None

    def __post_init__(self) -> None:
        if self.as_csv and (self.as_json or self.query):
            raise UsageError("--csv does not go together with --json or --query.", "Give one of them.")

    @property
    def for_machines(self) -> bool:
        """Whether stdout must hold the answer and nothing else."""
        return self.as_json or self.as_csv or self.query is not None


def output_options(csv: bool = True) -> Callable[[Command], Command]:
    """The options ``--json``, ``--query`` and (by default) ``--csv``; read them with :func:`output_of`."""

    def add(command: Command) -> Command:
        if csv:
            command = click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values with a header.")(
                command
            )
        command = click.option("--query", metavar="JMESPATH", help="Select from the JSON with a JMESPath expression.")(
            command
        )
        return click.option("--json", "as_json", is_flag=True, help="A JSON list of objects, with units in the keys.")(
            command
        )

    return add


def emit(
    rows: Sequence[Row],
    columns: Sequence[Column],
    output: Output,
    *,
    title: str = "",
    notes: Sequence[str] = (),
    empty: str = "Nothing to show.",
) -> None:
    """Print ``rows`` in the form that was asked for.

    Args:
        rows: the answer; all rows have the same keys.
        columns: what a table shows of it. JSON and CSV show every key.
        output: the form.
        title: stands above a table.
        notes: lines that a reader of the table must not miss; on stderr where stdout is for a machine.
        empty: the sentence that stands for a table without rows.

    Raises:
        UsageError: the JMESPath expression is not one, or does not fit the rows.
    """
    if output.as_json or output.query is not None:
        emit_json([dict(row) for row in rows], output.query)
    elif output.as_csv:
        _emit_csv(rows, columns)
    elif not rows:
        click.echo(empty)
    else:
        _emit_table(rows, columns, title)
    for note in notes:
        click.echo(note, err=output.for_machines)


def emit_json(value: Any, query: str | None = None) -> None:
    """Print ``value``, or what the JMESPath expression ``query`` selects of it, as JSON.

    Raises:
        UsageError: the expression is not one, or does not fit the value.
    """
    plain = json.loads(json.dumps(value, default=_plain))
    click.echo(json.dumps(select(plain, query) if query is not None else plain, indent=2, ensure_ascii=False))


def select(value: Any, query: str) -> Any:
    """What the JMESPath expression selects of plain JSON data.

    Raises:
        UsageError: the expression is not one, or does not fit the value.
    """
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        return jmespath.search(query, value)
    except JMESPathError as error:
        what = " ".join(str(error).split())
        raise UsageError(f"--query: {what.rstrip('.')}.", "See https://jmespath.org for the language.") from error


def cell(value: Any) -> str:
    """A value as a table shows it: nothing for none, a number in plain digits, a time in UTC."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, (list, tuple)):
        return ",".join(cell(item) for item in value)
    return str(value)


def number(value: float | None, digits: int = 4) -> str:
    """``value`` with at least ``digits`` significant digits, never in powers of ten: ``0.01230``, ``12345``."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    from math import floor, log10

    decimals = max(0, digits - 1 - floor(log10(abs(value))))
    return f"{value:.{min(decimals, 12)}f}"


def moment(value: datetime | None) -> str:
    """A time in UTC to the second: ``2026-01-31 12:00:00``."""
    return "" if value is None else _utc(value).strftime("%Y-%m-%d %H:%M:%S")


def _emit_table(rows: Sequence[Row], columns: Sequence[Column], title: str) -> None:
    cells = [[column.of(row) for column in columns] for row in rows]
    if sys.stdout.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(column.title, justify=column.align, overflow="fold")
        for line in cells:
            table.add_row(*(_escaped(text) for text in line))
        Console().print(table)
        return
    if title:
        click.echo(title)
    widths = [
        max(len(text) for text in (column.title, *(line[i] for line in cells))) for i, column in enumerate(columns)
    ]
    for line in ([column.title for column in columns], *cells):
        padded = (
            text.rjust(width) if column.align == "right" else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def _escaped(text: str) -> str:
    """Text that rich must not read as markup."""
    from rich.markup import escape

    return escape(text)


def _emit_csv(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    import csv
    import io

    keys = list(rows[0]) if rows else [column.key for column in columns]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(keys)
    for row in rows:
        writer.writerow([_csv_cell(row.get(key)) for key in keys])
    click.echo(buffer.getvalue(), nl=False)


def _csv_cell(value: Any) -> Any:
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, default=_plain, ensure_ascii=False)
    return _plain(value) if isinstance(value, (datetime, date)) else value


def _plain(value: Any) -> Any:
    """What JSON has no type for."""
    if isinstance(value, datetime):
        return _utc(value).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


def _utc(value: datetime) -> datetime:
    """Times without a zone are UTC: that is how the database keeps them."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
