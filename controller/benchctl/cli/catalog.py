"""``benchctl catalog``: the servers there are and what they cost; importing, fetching and listing them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.options import FiniteRange
from benchctl.cli.reading import reading_session
from benchctl.cli.render import Column, Output, emit, number, output_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchctl.catalog.values import Delivery, Summary
    from benchctl.db.catalog import Listing, Wanted
    from benchctl.home import Home

EMPTY = "The catalogue is empty: fill it with 'benchctl catalog pull' or 'benchctl catalog import FILE'."
SHOWN_BY_DEFAULT = 50
SET_ASIDE_SHOWN = 20


@click.group()
def catalog() -> None:
    """Servers, regions, zones, prices and exchange rates: import them, fetch them, list them."""


@catalog.command("import")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--rates",
    "rate_files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="CSV of exchange rates: currency, rate_date, usd_per_unit, source. May be given several times.",
)
@click.option(
    "--partial", is_flag=True, help="The lists of prices are not whole: what they lack is not taken for gone."
)
@output_options()
@click.pass_obj
def import_(
    home: Home,
    files: tuple[Path, ...],
    rate_files: tuple[Path, ...],
    partial: bool,
    as_json: bool,
    as_csv: bool,
    query: str | None,
) -> None:
    """Take FILEs into the catalogue: a Spare Cores database, prices as CSV, exchange rates as CSV.

    What a file is tells its content, not its name; .xz, .bz2 and .gz are unpacked. All files of one call go in
    together or not at all, and a file that was taken in before changes nothing.

    Prices are CSV with the columns vendor_id, api_reference, region, allocation, price, currency, unit, source and
    source_date, and may have zone, licence and operating_system. A line that can't be read is set aside and named.
    A price that its source lists no more, and a server that a newer database lacks, are closed and never deleted.

    Prices are checked: a GPU server priced like a CPU server, spot above on-demand, a price an order of magnitude off
    its family, an unknown currency. What is doubtful is kept, marked, and left out of answers:
    'benchctl catalog list prices --flagged' shows it.
    """
    from benchctl.catalog.files import read_file
    from benchctl.errors import UsageError

    output = Output(as_json, as_csv, query)
    if not files and not rate_files:
        raise UsageError("There is no file to import.", "Give a Spare Cores database, or a CSV of prices or rates.")
    _take_in(home, [read_file(path) for path in (*files, *rate_files)], output, whole=not partial)


@catalog.command()
@click.option(
    "--url",
    envvar="BENCHCTL_CATALOG_URL",
    metavar="URL",
    help="Where the database is published.  [env: BENCHCTL_CATALOG_URL; default: Spare Cores' own address]",
)
@click.option("--sha256", metavar="HEX", help="Refuse any other file than the one with this checksum.")
@click.option(
    "--gpuhunt", "with_gpuhunt", is_flag=True, help="Also prices that contain the GPU, from dstack's gpuhunt catalogue."
)
@output_options()
@click.pass_obj
def pull(
    home: Home,
    url: str | None,
    sha256: str | None,
    with_gpuhunt: bool,
    as_json: bool,
    as_csv: bool,
    query: str | None,
) -> None:
    """Fetch Spare Cores' published database, and take it into the catalogue.

    Nothing is transferred while the server still has the version that was fetched before (ETag). A file that is not
    whole, has another checksum or is no such database replaces nothing.

    Spare Cores' prices for Google's GPU servers leave the GPU out; --gpuhunt brings prices that contain it. It needs
    the extra 'gpuhunt', and reads GPUHUNT_CATALOG_URL and GPUHUNT_CATALOG_DIR.
    """
    from datetime import UTC, datetime

    from llama_bench_core.web import shown

    from benchctl.catalog import store
    from benchctl.catalog.files import read_file
    from benchctl.catalog.pull import PUBLISHED, is_open_to_tampering
    from benchctl.catalog.pull import pull as fetch
    from benchctl.db.engine import open_database

    output = Output(as_json, as_csv, query)
    url = url or PUBLISHED
    pulled = fetch(url, home.ensure().cache / "catalog", sha256=sha256)
    if is_open_to_tampering(url) and not sha256:
        click.echo("Fetched without encryption: --sha256 makes sure that it is what it should be.", err=True)
    origin = shown(url)  # what is written down and said
    engine = open_database(home.database_url)
    try:
        known = store.knows(engine, origin, pulled.sha256)
    finally:
        engine.dispose()
    deliveries: list[Delivery] = []
    if not known:
        deliveries.append(pulled.delivery or read_file(pulled.path, url, pulled.etag))
    if with_gpuhunt:
        from benchctl.catalog.gpu_prices import read_gpu_prices
        from benchctl.catalog.values import Delivery

        deliveries.append(Delivery(read_gpu_prices(datetime.now(UTC).date())))
    if not deliveries:
        how = "was fetched and is" if pulled.fresh else "is still"
        click.echo(f"Nothing new: {origin} {how} the version that was taken in before.", err=output.for_machines)
        if output.for_machines:
            emit([], _SUMMARY_COLUMNS, output)
        return
    _take_in(home, deliveries, output)


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option("--vendor", metavar="VENDOR", help="This vendor alone."),
            click.option(
                "--server", metavar="[VENDOR/]GLOB", help="Server types of this name; * and ? stand for anything."
            ),
            click.option(
                "--gpu",
                metavar="[MODEL]",
                is_flag=False,
                flag_value="any",
                help="Servers with a GPU, or with this model: --gpu, --gpu L4.",
            ),
            click.option(
                "--min-gpu-memory", type=FiniteRange(min=0), metavar="GIB", help="GPU memory, all GPUs together."
            ),
            click.option("--min-memory", type=FiniteRange(min=0), metavar="GIB", help="Memory at least."),
            click.option("--min-vcpus", type=click.IntRange(min=1), metavar="N", help="Logical CPUs at least."),
            click.option(
                "--arch",
                type=click.Choice(["x86_64", "arm64"], case_sensitive=False),
                help="CPU architecture.",
            ),
            click.option(
                "--status", type=click.Choice(["active", "inactive"], case_sensitive=False), help="Offered or not."
            ),
            click.option("--region", metavar="REGION", help="Prices, or servers with a price, in this region."),
            click.option(
                "--allocation",
                type=click.Choice(["ondemand", "spot", "reserved"], case_sensitive=False),
                help="Prices of this kind alone.",
            ),
            click.option(
                "--currency", metavar="CODE", help="Convert prices into this currency, with the newest rate known."
            ),
            click.option("--flagged", is_flag=True, help="Only prices that are doubtful, and why."),
            click.option("--history", is_flag=True, help="Also prices that are closed."),
            click.option(
                "--limit",
                type=click.IntRange(min=0),
                metavar="N",
                help=f"So many rows; 0 for all.  [default: {SHOWN_BY_DEFAULT} in a table, else all]",
            ),
        )
    ):
        command = option(command)
    return command


@catalog.command("list")
@click.argument(
    "what", type=click.Choice(["servers", "regions", "zones", "prices", "rates"]), default="servers", required=False
)
@_filters
@output_options()
@click.pass_obj
def list_(
    home: Home,
    what: str,
    vendor: str | None,
    server: str | None,
    gpu: str | None,
    min_gpu_memory: float | None,
    min_memory: float | None,
    min_vcpus: int | None,
    arch: str | None,
    status: str | None,
    region: str | None,
    allocation: str | None,
    currency: str | None,
    flagged: bool,
    history: bool,
    limit: int | None,
    as_json: bool,
    as_csv: bool,
    query: str | None,
) -> None:
    """Show what the catalogue holds: servers (by default), regions, zones, prices or exchange rates.

    Prices come from several sources; 'current' marks the one that counts: of those that no check doubts the newest.
    They are shown as they are listed, unless --currency converts them; the rate is then part of the answer.
    """
    from benchctl.db import catalog as questions

    output = Output(as_json, as_csv, query)
    given = {
        "server": server, "gpu": gpu, "min-gpu-memory": min_gpu_memory, "min-memory": min_memory,
        "min-vcpus": min_vcpus, "arch": arch, "status": status, "region": region, "allocation": allocation,
        "currency": currency, "flagged": flagged or None, "history": history or None, "vendor": vendor,
    }  # fmt: skip
    _require_sense(what, [name for name, value in given.items() if value is not None])
    wanted = questions.Wanted(
        vendor=vendor,
        server=server,
        gpu=gpu,
        min_gpu_memory_gib=min_gpu_memory,
        min_memory_gib=min_memory,
        min_vcpus=min_vcpus,
        arch=arch.upper() if arch else None,
        status=status.upper() if status else None,
        region=region,
        allocation=allocation.upper() if allocation else None,
        currency=currency,
        flagged=flagged,
        history=history,
        limit=(limit or None) if limit is not None else None if output.for_machines else SHOWN_BY_DEFAULT,
    )
    ask: Callable[[Any, Wanted], Listing] = getattr(questions, what)
    with reading_session(home) as session:
        listing = ask(session, wanted)
        empty = EMPTY if questions.is_empty(session) else f"No {what[:-1]} matches."
    notes = list(listing.notes)
    if listing.total > len(listing.rows):
        notes.insert(0, f"{len(listing.rows)} of {listing.total} {what} (--limit 0 shows all).")
    if what == "rates" and not listing.rows:
        empty = "There are no exchange rates: 'benchctl catalog import --rates FILE' takes them in."
    emit(listing.rows, _columns(what, wanted), output, notes=notes, empty=empty)


_SERVER_FILTERS = {"vendor", "server", "gpu", "min-gpu-memory", "min-memory", "min-vcpus", "arch", "status", "region"}
_SENSE = {
    "servers": _SERVER_FILTERS,
    "regions": {"vendor", "region", "status"},
    "zones": {"vendor", "region", "status"},
    "prices": _SERVER_FILTERS | {"allocation", "currency", "flagged", "history"},
    "rates": {"currency"},
}
"""The filters that mean something for each list."""


def _require_sense(what: str, given: Sequence[str]) -> None:
    from benchctl.errors import UsageError

    odd = [name for name in given if name not in _SENSE[what]]
    if odd:
        other = next((one for one in ("prices", "servers") if odd[0] in _SENSE[one]), "rates")
        raise UsageError(
            f"--{odd[0]} means nothing for {what}.",
            f"It selects {other}: 'benchctl catalog list {other} --{odd[0]} ...'.",
        )


def _take_in(home: Home, deliveries: Sequence[Delivery], output: Output, *, whole: bool = True) -> None:
    from datetime import UTC, datetime

    from benchctl.catalog.store import take_in
    from benchctl.db.engine import open_database

    engine = open_database(home.ensure().database_url)
    try:
        summary = take_in(engine, deliveries, datetime.now(UTC), whole=whole)
    finally:
        engine.dispose()
    for one in summary.set_aside[:SET_ASIDE_SHOWN]:
        click.echo(f"set aside: {one}", err=True)
    if len(summary.set_aside) > SET_ASIDE_SHOWN:
        click.echo(f"... and {len(summary.set_aside) - SET_ASIDE_SHOWN} more", err=True)
    emit(_summary_rows(summary), _SUMMARY_COLUMNS, output, notes=_summary_notes(summary))


_SUMMARY_COLUMNS = [
    Column("what", ""),
    Column("new", "new", "right"),
    Column("changed", "changed", "right"),
    Column("closed", "closed", "right"),
    Column("unchanged", "unchanged", "right"),
    Column("older", "older", "right"),
    Column("set_aside", "set aside", "right", lambda row: str(len(row["set_aside"]))),
]


def _summary_rows(summary: Summary) -> list[dict[str, Any]]:
    kinds = [kind for kind in ("servers", "regions", "zones", "prices", "rates") if kind in summary.tallies]
    return [
        {
            "what": kind,
            "new": tally.new,
            "changed": tally.changed,
            "closed": tally.closed,
            "unchanged": tally.unchanged,
            "older": tally.older,
            "set_aside": [str(one) for one in summary.set_aside if (kind == "rates") == one.is_rate],
            "flagged": summary.flagged if kind == "prices" else {},
        }
        for kind in kinds
        for tally in (summary.tallies[kind],)
    ]


def _summary_notes(summary: Summary) -> list[str]:
    notes = list(summary.notes)
    if summary.flagged:
        counted = ", ".join(f"{count} {flag}" for flag, count in summary.flagged.items())
        notes.append(f"Doubtful prices: {counted} ('benchctl catalog list prices --flagged' shows them).")
    if summary.changed_nothing:
        notes.append("Nothing changed: the catalogue held all of it already.")
    return notes


def _columns(what: str, wanted: Wanted) -> list[Column]:
    vendor = Column("vendor_id", "vendor")
    if what == "servers":
        return [
            vendor,
            Column("api_reference", "server"),
            Column("vcpus", "vCPUs", "right"),
            Column("cpu_cores", "cores", "right"),
            Column("memory_gib", "memory GiB", "right", lambda row: _whole(row["memory_gib"])),
            Column("gpu_model", "GPUs", "left", _gpus),
            Column("gpu_memory_total_gib", "GPU GiB", "right", lambda row: _whole(row["gpu_memory_total_gib"])),
            Column("storage_gb", "storage GB", "right", lambda row: str(row["storage_gb"] or "")),
            Column("cpu_architecture", "architecture"),
            Column("status", "status"),
        ]
    if what == "regions":
        return [
            vendor,
            Column("api_reference", "region"),
            Column("region_id", "id"),
            Column("display_name", "where"),
            Column("country_id", "country"),
            Column("priced_servers", "priced servers", "right"),
            Column("status", "status"),
        ]
    if what == "zones":
        return [vendor, Column("region", "region"), Column("api_reference", "zone"), Column("zone_id", "id"),
                Column("status", "status")]  # fmt: skip
    if what == "rates":
        return [Column("currency", "currency"), Column("rate_date", "date"),
                Column("usd_per_unit", "USD per unit", "right"), Column("source", "source")]  # fmt: skip
    return _price_columns(vendor, wanted)


def _price_columns(vendor: Column, wanted: Wanted) -> list[Column]:
    columns = [
        vendor,
        Column("api_reference", "server"),
        Column("region", "region"),
        Column("zone_id", "zone"),
        Column("allocation", "allocation"),
        Column("price", "price", "right"),
        Column("currency", "currency"),
        Column("unit", "per", "left", lambda row: row["unit"].lower()),
    ]
    if wanted.currency:
        columns.append(
            Column(
                "listed_price", "listed", "right", lambda row: f"{number(row['listed_price'])} {row['listed_currency']}"
            )
        )
    columns += [
        Column("is_current", "current"),
        Column("source_date", "of"),
        Column("source", "source", "left", _source),
    ]
    if wanted.history:
        columns += [Column("since", "since (UTC)"), Column("until", "until (UTC)")]
    if wanted.flagged:
        columns.append(Column("doubts", "doubt"))
    else:
        columns.append(Column("flags", "doubts"))
    return columns


def _whole(value: float | None) -> str:
    """Gibibytes without needless digits: ``0.5``, ``16``."""
    return "" if value is None else f"{value:.1f}".removesuffix(".0")


def _source(row: Mapping[str, Any]) -> str:
    """The source's name without revision and path, which JSON and CSV have."""
    return str(row["source"]).partition(" ")[0].partition("@")[0]


def _gpus(row: Mapping[str, Any]) -> str:
    count = row["gpu_count"]
    return f"{count}x {row['gpu_model'] or 'GPU'}" if count else ""
