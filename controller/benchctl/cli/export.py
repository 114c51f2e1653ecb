"""``benchctl export``: a data set ready to publish."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchctl.cli.render import Column, Output, emit, output_options

if TYPE_CHECKING:
    from benchctl.home import Home


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["sqlite", "parquet", "csv"]),
    required=True,
    help="One SQLite file, or a Parquet or CSV file for each table.",
)
@click.option("--tables", metavar="TABLE,..", help="These tables alone.  [default: all that may leave]")
@click.option("--vendors", "--vendor", metavar="VENDOR,..", help="Rows of these vendors alone.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="What was measured, and what was a price, on this day or later (UTC).",
)
@click.option(
    "--licence",
    default="CC-BY-4.0",
    show_default=True,
    metavar="ID",
    help="Licence of your own results: CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0, ODbL-1.0, ODC-BY-1.0 or PDDL-1.0.",
)
@click.option("--title", metavar="TEXT", help="Title of the data set.")
@click.option("--force", is_flag=True, help="Replace a data set in DIR; files that no export wrote stay.")
@output_options()
@click.pass_obj
def export(
    home: Home,
    folder: Path,
    form: str,
    tables: str | None,
    vendors: str | None,
    since: datetime | None,
    licence: str,
    title: str | None,
    force: bool,
    as_json: bool,
    as_csv: bool,
    query: str | None,
) -> None:
    """Write a data set that is ready to publish into the folder DIR.

    Beside the data lie datapackage.json (a Data Package, https://specs.frictionlessdata.io: every column with type,
    unit and meaning, keys, licences and sources), README.md for the reader, and SHA256SUMS ('sha256sum -c' checks
    it). DIR appears when all is written, or not at all. The same data give the same files: the date in them is that
    of the data, or SOURCE_DATE_EPOCH.

    The SQLite file has Spare Cores' tables and benchctl's, so that queries for theirs run on it, and 'benchctl --db'
    opens it. Parquet needs the extra 'parquet'.

    Results and the catalogue of Spare Cores stay under their licence, CC BY-SA 4.0, and prices under that of their
    sources; --licence is for what you measured yourself. Each table's licences are in datapackage.json.

    Not exported: the table 'instance', the request of a sweep, the folders of raw files; IP addresses and folders in
    names and messages are replaced. Names that you gave to servers in an inventory leave as they are.
    """
    from benchctl import export as exporting
    from benchctl.db.engine import open_database

    output = Output(as_json, as_csv, query)
    request = exporting.Request(
        target=folder,
        form=form,
        tables=_names(tables),
        vendors=_names(vendors),
        since=since.replace(tzinfo=UTC) if since else None,
        licence=licence,
        title=title or exporting.TITLE,
        force=force,
    )
    engine = open_database(home.database_url, create=False)
    try:
        written = exporting.export(engine, request, lambda line: click.echo(line, err=True))
    finally:
        engine.dispose()
    rows = [
        {"table": one.table, "rows": one.rows, "path": str(folder / one.path), "bytes": one.size_bytes,
         "sha256": one.sha256}
        for one in written
    ]  # fmt: skip
    columns = [
        Column("table", "table"),
        Column("rows", "rows", "right"),
        Column("path", "file"),
        Column("bytes", "bytes", "right"),
    ]
    notes = [f"Written to {folder}: the data, datapackage.json, README.md and SHA256SUMS."]
    emit(rows, columns, output, notes=notes)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
