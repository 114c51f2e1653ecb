"""``benchctl ingest`` and ``benchctl import``: raw results into the database."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.render import Column, Output, emit, output_options
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from benchctl.home import Home
    from benchctl.ingest import Ingest, IngestSummary
    from benchctl.rawfiles import Damage

SHOWN_DAMAGE = 20
"""So many damaged lines are named one by one; ``--json`` has all of them."""


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--rebuild", is_flag=True, help="Read everything again, from PATH or from wherever it once came.")
@output_options()
@click.pass_obj
def ingest(home: Home, path: Path | None, rebuild: bool, as_json: bool, as_csv: bool, query: str | None) -> None:
    """Bring the raw results at or below PATH into the database: a run, a sweep, a whole lake, or a tar archive of it.

    Doing it twice is doing it once, and what has not changed since is not read again. Damaged lines and files are named
    and set aside; the rest is taken in. Results of Spare Cores are taken in by the same way as ours.

    --rebuild reads what has not changed, too: the raw files are the truth, and all that the database says of
    measurements can be made from them again. Without PATH it takes the lake, and all folders and archives that were
    taken in before.
    """
    output = Output(as_json, as_csv, query)
    if path is None and not rebuild:
        raise UsageError("There is no PATH.", f"Give the folder of raw results, for instance {home.lake}.")
    _take_in(home, path, output, again=rebuild)


@click.group(name="import")
def import_group() -> None:
    """Results of others into the database."""


@import_group.command(name="spare-cores")
@click.argument("path", type=click.Path(path_type=Path))
@output_options()
@click.pass_obj
def spare_cores(home: Home, path: Path, as_json: bool, as_csv: bool, query: str | None) -> None:
    """Bring Spare Cores' raw results (their inspector's data) into the database.

    PATH is a folder with data/VENDOR/SERVER/llm/{meta.json,stdout,stderr}, or a tar archive of it, compressed or not,
    which is read as a stream and never unpacked.

    A run becomes a job of the sweep 'spare-cores-DATE', by the day on which it began, from wherever it is imported.
    What its log says of scenarios without a row (time-outs, crashes, skips, models that did not arrive) becomes their
    outcome; a row that says CUDA and ran on the CPU is a 'gpu_fallback'. Their results are CC BY-SA 4.0.
    """
    _take_in(home, path, Output(as_json, as_csv, query), again=False)


def _take_in(home: Home, path: Path | None, output: Output, *, again: bool) -> None:
    from benchctl.db.engine import open_database
    from benchctl.ingest import Ingest
    from benchctl.ledger import servers_from_books

    engine = open_database(home.ensure().database_url)
    rows: list[dict[str, Any]] = []
    try:
        for work in [Ingest(engine, path, again=again)] if path else _everything(home, engine):
            damage: list[Damage] = []
            try:
                with _progress((path or home.lake).name, work.total) as advance:
                    for one in work:
                        rows.append(_row(one))
                        damage += one.damage
                        advance()
            finally:
                _tell(damage + work.damage)
        servers_from_books(home, engine)
    finally:
        engine.dispose()
    if output.for_machines:
        emit(rows, [], output)
    else:
        emit(_by_sweep(rows), _COLUMNS, output, notes=_totals(rows))


def _everything(home: Home, engine: Engine) -> list[Ingest]:
    """The lake, and all that was ever taken in from elsewhere, to be read again.

    Raises:
        UsageError: there is nothing, or something of it is gone.
    """
    from benchctl.ingest import Ingest, known_places

    folders, archives = known_places(engine)
    gone = [place for place in (*folders, *archives) if not place.exists()]
    if gone:
        raise UsageError(
            f"Raw results were once taken in from {gone[0]}, which is gone"
            + (f", as are {len(gone) - 1} others." if len(gone) > 1 else "."),
            "Bring it back, or give the PATH that is to be read again.",
        )
    found = [Ingest(engine, place, again=True) for place in archives]
    elsewhere = [folder for folder in folders if home.lake not in folder.parents]
    if elsewhere:
        found.append(Ingest(engine, home.lake, again=True, folders=elsewhere))
    if home.lake.is_dir() and any(home.lake.iterdir()):
        found.append(Ingest(engine, home.lake, again=True))
    if not found:
        raise UsageError("There are no raw results yet.", "Give the PATH of some, or measure with 'benchctl sweep'.")
    return found


def _row(one: IngestSummary) -> dict[str, Any]:
    return {
        "folder": str(one.folder),
        "sweep_id": one.sweep,
        "job_id": one.job,
        "vendor_id": one.vendor,
        "server_id": one.server,
        "measurements": one.measurements,
        "outcomes": one.outcomes,
        "unchanged": one.unchanged,
        "set_aside": [str(damage) for damage in one.damage],
    }


def _by_sweep(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line per sweep and vendor: a corpus has thousands of runs."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        line = found.setdefault(
            (row["sweep_id"], row["vendor_id"]),
            {"sweep_id": row["sweep_id"], "vendor_id": row["vendor_id"], "servers": set(), "unchanged": 0}
            | {"measurements": 0, "ok": 0, "set_aside": 0},
        )
        line["servers"].add(row["server_id"])
        line["unchanged"] += row["unchanged"]
        line["measurements"] += row["measurements"]
        line["ok"] += row["outcomes"].get("ok", 0)
        line["set_aside"] += len(row["set_aside"])
    return [{**line, "servers": len(line["servers"])} for _, line in sorted(found.items())]


_COLUMNS = [
    Column("sweep_id", "sweep"),
    Column("vendor_id", "vendor"),
    Column("servers", "servers", "right"),
    Column("measurements", "measurements", "right"),
    Column("ok", "ok", "right"),
    Column("set_aside", "set aside", "right"),
    Column("unchanged", "unchanged", "right"),
]


def _totals(rows: list[dict[str, Any]]) -> list[str]:
    new = sum(not row["unchanged"] for row in rows)
    aside = sum(len(row["set_aside"]) for row in rows)
    told = f"{len(rows)} runs: {new} read, {len(rows) - new} unchanged"
    return [told + (f"; {aside} lines or files set aside." if aside else "; nothing set aside.")]


def _tell(damage: list[Damage]) -> None:
    for one in damage[:SHOWN_DAMAGE]:
        click.echo(f"set aside: {one}", err=True)
    if len(damage) > SHOWN_DAMAGE:
        click.echo(f"... and {len(damage) - SHOWN_DAMAGE} more (--json lists them all)", err=True)


@contextmanager
def _progress(name: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A bar on a terminal; nothing elsewhere, for it takes seconds."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=total)
        yield lambda: progress.advance(task)
