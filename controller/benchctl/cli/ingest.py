"""``benchctl ingest``: raw results into the database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchctl.cli.render import Column, Output, emit, output_options

if TYPE_CHECKING:
    from benchctl.home import Home


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@output_options()
@click.pass_obj
def ingest(home: Home, path: Path, as_json: bool, as_csv: bool, query: str | None) -> None:
    """Bring the raw results at or below PATH into the database: one run, a sweep, or a whole lake.

    Doing it twice is doing it once. Damaged lines are named and set aside; the rest is taken in.
    """
    from benchctl.db.engine import open_database
    from benchctl.ingest import ingest_tree

    output = Output(as_json, as_csv, query)
    engine = open_database(home.ensure().database_url)
    rows = []
    try:
        for one in ingest_tree(engine, path):
            for damage in one.damage:
                click.echo(f"set aside: {damage}", err=True)
            rows.append(
                {
                    "folder": str(one.folder),
                    "sweep_id": one.sweep,
                    "job_id": one.job,
                    "vendor_id": one.vendor,
                    "server_id": one.server,
                    "measurements": one.measurements,
                    "outcomes": one.outcomes,
                    "set_aside": [str(damage) for damage in one.damage],
                }
            )
    finally:
        engine.dispose()
    columns = [
        Column("sweep_id", "sweep"),
        Column("vendor_id", "vendor"),
        Column("server_id", "server"),
        Column("measurements", "measurements", "right"),
        Column("outcomes", "ok", "right", lambda row: str(row["outcomes"].get("ok", 0))),
        Column("set_aside", "set aside", "right", lambda row: str(len(row["set_aside"]))),
    ]
    emit(rows, columns, output)
