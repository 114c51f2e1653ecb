"""``benchctl status``: sweeps and their jobs, and what runs now."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.render import Column, Output, emit, emit_json, moment, number, output_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchctl.home import Home

FOLLOW_SECONDS = 1.0

SWEEP_COLUMNS = [
    Column("sweep_id", "sweep"),
    Column("status", "status"),
    Column("suite", "suite"),
    Column("vendors", "vendors"),
    Column("jobs", "jobs", "right", lambda row: str(len(row["jobs"]))),
    Column("outcomes", "outcomes", "left", lambda row: _counted(row["outcomes"])),
    Column("created_at", "started (UTC)", "left", lambda row: moment(row["created_at"])),
    Column("finished_at", "ended (UTC)", "left", lambda row: moment(row["finished_at"])),
]

MONEY_COLUMNS = [
    Column("alive", "alive", "right", lambda row: str(len(row["rented"]["alive"])) if row["rented"] else ""),
    Column("per_hour", "per hour", "right", lambda row: money(row["rented"]["per_hour"]) if row["rented"] else ""),
    Column("spent", "spent", "right", lambda row: money(row["rented"]["spent"]) if row["rented"] else ""),
    Column("committed", "at most", "right", lambda row: money(row["rented"]["committed"]) if row["rented"] else ""),
    Column("budget", "budget", "right", lambda row: _budget(row["rented"])),
]
"""Shown when a sweep rents."""

ALIVE_COLUMNS = [
    Column("vendor_id", "vendor"),
    Column("server_id", "server"),
    Column("name", "name in the cloud"),
    Column("region", "where", "left", lambda row: row["zone"] or row["region"]),
    Column("stage", "stage"),
    Column("price_per_hour", "per hour", "right", lambda row: money(total_of(row))),
    Column("cost", "so far", "right", lambda row: money({row["currency"]: row["cost"]}) if row["cost"] else ""),
    Column("expires_at", "must be gone (UTC)", "left", lambda row: moment(row["expires_at"])),
    Column("sweep_id", "sweep"),
]

JOB_COLUMNS = [
    Column("job_id", "job"),
    Column("status", "status"),
    Column("stage", "stage"),
    Column("progress", "now", "left", lambda row: doing(row["progress"])),
    Column("outcomes", "outcomes", "left", lambda row: _counted(row["outcomes"])),
    Column("error", "error"),
]


@click.command()
@click.argument("sweep", required=False)
@click.option("--follow", is_flag=True, help="Go on until the sweep ends; a new picture every second.")
@click.option("--check", is_flag=True, help="Ask the clouds what is alive, too; it changes nothing.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many sweeps, newest first."
)
@output_options(csv=False)
@click.pass_obj
def status(
    home: Home, sweep: str | None, follow: bool, check: bool, limit: int, as_json: bool, query: str | None
) -> None:
    """Sweeps, the newest first, with their jobs; of SWEEP alone, or of all. What is rented now, and what it costs.

    SWEEP is a sweep's name, the beginning of it, or last.

    What a running job does now comes from its live progress, everything else from the database and the sweeps' books.
    With --check the clouds are asked, and what they list stands beside it; with --json it is under "clouds", and the
    sweeps are under "sweeps". Of a sweep whose book can't be read "book_problem" says why.
    """
    from benchctl.living import rented

    output = Output(as_json, query=query)
    sweeps = _sweeps(home, sweep, limit, follow)
    looked = _ask_the_clouds(home, sweeps[0]["sweep_id"] if sweep and sweeps else "") if check else None
    accounts, problems = rented(home)
    if sweep and sweeps:
        problems = {name: why for name, why in problems.items() if name == sweeps[0]["sweep_id"]}
    for why in problems.values():
        click.echo(why, err=True)
    if output.for_machines and looked is not None:
        emit_json({"sweeps": sweeps, "clouds": looked, "unread": problems}, query)
        return
    columns = list(SWEEP_COLUMNS)
    if any(one["rented"] for one in sweeps):
        columns[5:5] = MONEY_COLUMNS
    emit(sweeps, columns, output, empty="No sweep yet: run 'benchctl sweep --vendors local'.")
    if output.for_machines:
        return
    for one in sweeps:
        if one["jobs"] and (sweep or one["status"] == "running"):
            click.echo()
            emit(one["jobs"], JOB_COLUMNS, output, title=f"Jobs of {one['sweep_id']}")
    alive = [
        row for name, its in accounts.items() if not sweep or name == sweeps[0]["sweep_id"] for row in its["alive"]
    ]
    if accounts or problems or looked is not None:
        click.echo()
        nothing = "Nothing is rented, by the books that can be read." if problems else "Nothing is rented."
        emit(alive, ALIVE_COLUMNS, output, title="Alive by the books", notes=_warnings(alive), empty=nothing)
    if looked is not None:
        _show_clouds(looked, output)


def _sweeps(home: Home, sweep: str | None, limit: int, follow: bool) -> list[dict[str, Any]]:
    """The sweeps as they are, or, when they are followed, as they are once none of them runs any more."""
    from benchctl.overview import overview

    last = ""
    while True:
        sweeps = overview(home, sweep, limit)
        line = _line(sweeps)
        if not follow or not any(one["status"] == "running" for one in sweeps):
            break
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{line}", nl=False, err=True)
        elif line != last:
            click.echo(line, err=True)
        last = line
        time.sleep(FOLLOW_SECONDS)
    if last and sys.stderr.isatty():
        click.echo(err=True)
    return sweeps


def money(amounts: Mapping[str, float | None]) -> str:
    """Amounts by currency as a person reads them: ``1.235 EUR + 0.4000 USD``."""
    return " + ".join(f"{number(amount)} {currency}" for currency, amount in amounts.items() if amount is not None)


def total_of(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The price of one server, by its currency."""
    return {row["currency"] or "": row["price_per_hour"]}


def _budget(account: Mapping[str, Any] | None) -> str:
    return money({account["budget_currency"]: account["budget"]}) if account and account["budget"] is not None else ""


def _warnings(alive: list[dict[str, Any]]) -> list[str]:
    """What of the living a person must not miss."""
    from benchctl.living import total_per_hour

    if not alive:
        return []
    together = money(total_per_hour(alive)) or "an unknown amount"
    told = [f"{len(alive)} alive, {together} an hour."]
    unpriced = sum(1 for row in alive if row["price_per_hour"] is None)
    if unpriced:
        told.append(f"Of {unpriced} the price is not known.")
    expired = [row for row in alive if row["expired"]]
    if expired:
        told.append(f"{len(expired)} should be gone already: run 'benchctl reap'.")
    return told


def _ask_the_clouds(home: Home, sweep: str) -> dict[str, Any]:
    """What the vendors' APIs list, and what the reaper would do about it; nothing is changed."""
    from benchctl.clouds.reaper import plain, reap
    from benchctl.db.engine import open_database

    engine = open_database(home.database_url, create=False)
    try:
        seen = reap(home, engine, sweep=sweep, dry_run=True)
    finally:
        engine.dispose()
    return {
        "found": [plain(one) for one in seen.findings],
        "asked": list(seen.asked),
        "not_asked": dict(seen.problems),
        "skipped": dict(seen.skipped),
        "notes": list(seen.notes),
    }


def _show_clouds(looked: Mapping[str, Any], output: Output) -> None:
    from benchctl.cli.reap import COLUMNS, say_skipped

    asked = ", ".join(looked["asked"]) or "none: there is no login"
    click.echo()
    emit(looked["found"], COLUMNS, output, title="Alive by the clouds", empty=f"The clouds list nothing ({asked}).")
    for note in looked["notes"]:
        click.echo(note, err=True)
    if looked["skipped"]:
        say_skipped(looked["skipped"])
    for vendor, why in looked["not_asked"].items():
        click.echo(f"{vendor} could not be asked, and may hold something: {why}", err=True)


def doing(progress: Mapping[str, Any] | None) -> str:
    """What a job is at, in a few words: ``measuring SmolLM-135M pp512, 260.7 tokens/s, 3 of 22, 40 s left``."""
    if not progress or progress.get("phase") in (None, "ended"):
        return ""
    scenario = f"{progress.get('task') or ''}{progress.get('tokens') or ''}"
    parts = [" ".join(filter(None, (progress["phase"], progress.get("model"), scenario)))]
    if progress.get("tokens_per_second"):
        parts.append(f"{number(progress['tokens_per_second'])} tokens/s")
    if progress.get("scenarios_total"):
        parts.append(f"{progress.get('scenarios_done', 0)} of {progress['scenarios_total']}")
    if progress.get("seconds_left") is not None:
        parts.append(f"{progress['seconds_left']:.0f} s left")
    return ", ".join(parts)


def _line(sweeps: list[dict[str, Any]]) -> str:
    """All that runs, in one line."""
    return "; ".join(
        f"{job['vendor_id']}/{job['server_id']}: {doing(job['progress']) or job['stage'] or job['status']}"
        for one in sweeps
        for job in one["jobs"]
        if job["status"] in ("running", "waiting")
    )


def _counted(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
