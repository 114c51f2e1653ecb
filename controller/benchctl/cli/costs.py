"""``benchctl costs``: what measuring cost, and where the hours went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.price_options import price_options, terms_of
from benchctl.cli.reading import reading_session
from benchctl.cli.render import Column, Output, emit, number, output_options
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchctl.db.costs import Spending
    from benchctl.home import Home

    Cell = Callable[[Mapping[str, Any]], str]

NOTHING = "Nothing was billed yet: run 'benchctl sweep --vendors local --price 0.05USD/h', or import results."


@click.command()
@click.option(
    "--sweep",
    metavar="SWEEP",
    help="This sweep alone (or the beginning of its name, or last): planned and billed.",
)
@click.option("--vendor", metavar="VENDOR", help="This vendor alone.")
@click.option(
    "--by",
    type=click.Choice(["vendor", "sweep", "server", "job"]),
    help="What a row stands for.  [default: vendor; job with a --sweep of benchctl's own]",
)
@price_options
@output_options()
@click.pass_obj
def costs(
    home: Home,
    sweep: str | None,
    vendor: str | None,
    by: str | None,
    allocation: str,
    region: str | None,
    currency: str | None,
    flagged: bool,
    as_json: bool,
    as_csv: bool,
    query: str | None,
) -> None:
    """What measuring cost, and where the hours went.

    Billed is what a vendor bills: each server that a run had, also those of failed tries and of the days before it was
    resumed, from its launch until it was gone (or until now) in the vendor's unit. Where that is not on record it is
    the time between a run's start and its end, where a server existed; a note says so. "Measured" is at the price at
    launch; where none is on record, "estimated" is at the catalogue's price. Currencies are kept apart unless
    --currency is given, and hours without a price are rows of their own.

    With --sweep the jobs of one sweep, in the columns of 'benchctl plan' and beside them what it came to: the same
    table before a sweep and after.

    In --json money is in the key 'currency'; the hours (or seconds) and the cost of each cause have keys of their own.
    Of a job, billed_by is 'servers', or 'run' for the time between its start and its end.
    """
    from benchctl.db import costs as answers

    output = Output(as_json, as_csv, query)
    if by == "job" and sweep is None:
        raise UsageError("--by job needs a sweep.", "Name it with --sweep; 'benchctl status' lists them.")
    terms = terms_of(allocation, region, currency, flagged)
    with reading_session(home) as session:
        jobs = by == "job" or (by is None and sweep is not None and answers.is_planned(session, sweep))
        if jobs and sweep is not None:
            answer = answers.of_sweep(session, terms, sweep, vendor)
        else:
            answer = answers.spending(session, terms, by=by or "vendor", vendor=vendor, sweep=sweep)
    if jobs:
        _show_jobs(answer, output)
    else:
        _show_groups(answer, by or "vendor", output)


def _show_jobs(answer: Spending, output: Output) -> None:
    from benchctl.view import duration

    def time(key: str) -> Cell:
        return lambda row: duration(row[key])

    columns = [
        Column("api_reference", "server"),
        Column("status", "status"),
        Column("scenarios", "scenarios", "right"),
        Column("scenarios_ok", "measured", "right"),
        Column("expected_seconds", "expected", "right", time("expected_seconds")),
        Column("limit_seconds", "at most", "right", time("limit_seconds")),
        Column("billed_seconds", "billed", "right", time("billed_seconds")),
    ]
    if any(row["price_per_hour"] is not None for row in answer.rows):
        columns += [
            Column("expected_cost", "expected cost", "right", _amount("expected_cost")),
            Column("limit_cost", "cost at most", "right", _amount("limit_cost")),
            Column("cost", "cost", "right", _amount("cost")),
            Column("price_basis", "price from"),
        ]
    emit(answer.rows, columns, output, notes=answer.notes, empty="No job of this sweep matches.")
    if not output.for_machines and answer.rows:
        _show_time(answer, [Column("api_reference", "server")], "seconds", output)


def _show_groups(answer: Spending, by: str, output: Output) -> None:
    names = {
        "vendor": [Column("vendor_id", "vendor")],
        "sweep": [Column("sweep_id", "sweep"), Column("source", "measured by")],
        "server": [Column("vendor_id", "vendor"), Column("server_id", "server")],
    }[by]
    columns = [
        *names,
        Column("runs", "runs", "right"),
        Column("servers", "servers", "right"),
        Column("hours", "hours", "right", lambda row: f"{row['hours']:.1f}"),
        Column("currency", "currency", "left", lambda row: row["currency"] or "no price"),
        Column("cost_measured", "measured", "right", _amount("cost_measured", with_currency=False)),
        Column("cost_estimated", "estimated", "right", _amount("cost_estimated", with_currency=False)),
        Column("cost", "cost", "right", _amount("cost", with_currency=False)),
    ]
    rows = answer.rows
    totals = _totals(rows, names[0].key) if not output.for_machines and len(rows) > 1 else []
    emit([*rows, *totals], columns, output, notes=answer.notes, empty=NOTHING)
    if not output.for_machines and rows:
        _show_time(answer, names, "hours", output)


def _show_time(answer: Spending, names: Sequence[Column], unit: str, output: Output) -> None:
    """Where the time went, as shares of each row's."""
    from benchctl.db.costs import NOT_RECORDED
    from benchctl.savings import CAUSES

    causes = [*CAUSES, NOT_RECORDED]
    keys = [f"{cause}_{unit}" for cause in causes]
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in answer.rows:
        own = merged.setdefault(
            tuple(row[column.key] for column in names), {**{c.key: row[c.key] for c in names}, **dict.fromkeys(keys, 0)}
        )
        for key in keys:
            own[key] += row[key] or 0
    if not any(row[key] for row in merged.values() for key in keys[:-1]):
        click.echo("\nWhere the time went is not on record for these runs.")
        return
    rows = list(merged.values())
    if len(rows) > 1:
        rows.append({names[0].key: "all", **{key: sum(row[key] for row in rows) for key in keys}})
    shown = [
        Column(key, cause.replace("_", " "), "right", _share(key, keys))
        for cause, key in zip(causes, keys, strict=True)
        if any(abs(row[key]) >= 1e-3 for row in rows)
    ]
    click.echo()
    emit(rows, [*names, *shown], output, title="Where the billed time went", notes=["", *answer.hints])


def _share(key: str, keys: Sequence[str]) -> Cell:
    def text(row: Mapping[str, Any]) -> str:
        total = sum(row[one] for one in keys)
        return f"{row[key] / total:.1%}" if total else ""

    return text


def _totals(rows: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """All rows together, by currency; in the table alone, so that nobody who adds up the JSON counts twice."""
    totals = []
    for currency in sorted({row["currency"] for row in rows}, key=str):
        its = [row for row in rows if row["currency"] == currency]
        summed = {
            key: None if any(row[key] is None for row in its) else sum(row[key] for row in its)
            for key in ("runs", "servers", "hours", "cost_measured", "cost_estimated", "cost")
        }
        totals.append({name: "all", "currency": currency, **summed})
    return totals


def _amount(key: str, with_currency: bool = True) -> Cell:
    def text(row: Mapping[str, Any]) -> str:
        if row[key] is None:
            return ""
        # cents where there are some, else enough digits to tell it from nothing
        amount = f"{row[key]:.2f}" if row[key] >= 1 else number(row[key], 3)
        return f"{amount} {row['currency']}" if with_currency else amount

    return text
