"""``benchctl status``: sweeps and their jobs, and what runs now."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from benchctl import errors
from benchctl.cli.render import Column, Output, emit, emit_json, moment, number, output_options
from benchctl.errors import BenchctlError, JobsFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchctl.home import Home

FOLLOW_SECONDS = 1.0

LINE = 200
"""The most characters of what --follow says where there is no terminal, whose width would be the limit."""

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
@click.option(
    "--follow", is_flag=True, help="Go on until the sweep ends, and end as it did; a new picture every second."
)
@click.option(
    "--check", is_flag=True, help="Ask the clouds what is alive, too; it changes nothing, and ends as 'reap --dry-run'."
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many sweeps, newest first."
)
@output_options(csv=False)
@click.pass_context
def status(
    ctx: click.Context,
    /,
    sweep: str | None,
    follow: bool,
    check: bool,
    limit: int,
    as_json: bool,
    query: str | None,
) -> None:
    """Sweeps, the newest first, with their jobs; of SWEEP alone, or of all. What is rented now, and what it costs.

    SWEEP is a sweep's name, the beginning of it, or last.

    What a running job does now comes from its live progress, everything else from the database and the sweeps' books.
    With --check the clouds are asked, and what they list stands beside it; with --json it is under "clouds", and the
    sweeps are under "sweeps". Of a sweep whose book can't be read "book_problem" says why.

    Exit status: with --follow that of the sweep: 0 all of it ended well, 1 it broke off or its controller died, 3 some
    jobs did not end well, 130 it was stopped; of several sweeps, that of the newest that did not end well. With --check
    1 where something is alive that should not be, or a vendor did not say all that it may hold.
    """
    home: Home = ctx.obj
    output = Output(as_json, query=query)
    sweeps, followed = _sweeps(home, sweep, limit, follow)
    looked = _ask_the_clouds(home, sweeps[0]["sweep_id"] if sweep and sweeps else "") if check else None
    _show(home, sweeps, looked, output, one_alone=bool(sweep))
    ends = [exit_status(one) for one in sweeps if one["sweep_id"] in followed]
    if looked is not None and not looked["clean"]:
        ends.append(BenchctlError.exit_code)
    ctx.exit(next(filter(None, ends), 0))


def exit_status(sweep: Mapping[str, Any]) -> int:
    """With what status ``benchctl sweep`` ended, or would have if its controller had not died. Pure."""
    from benchctl.ledger import ENDED
    from benchctl.overview import INTERRUPTED

    if sweep["status"] == "stopped":
        return errors.INTERRUPTED
    if sweep["status"] == INTERRUPTED:
        return BenchctlError.exit_code
    alive = sweep["rented"]["alive"] if sweep["rented"] else ()
    statuses = {job["status"] for job in sweep["jobs"]}
    if statuses <= set(ENDED) and (alive or statuses - {"finished"}):
        return JobsFailedError.exit_code
    return 0 if sweep["status"] == "finished" else BenchctlError.exit_code


def _show(
    home: Home, sweeps: list[dict[str, Any]], looked: Mapping[str, Any] | None, output: Output, *, one_alone: bool
) -> None:
    """All of it: sweeps, jobs, what is alive by the books and, where the clouds were asked, by these."""
    from benchctl.living import rented

    accounts, problems = rented(home)
    if one_alone and sweeps:
        problems = {name: why for name, why in problems.items() if name == sweeps[0]["sweep_id"]}
    for why in problems.values():
        click.echo(why, err=True)
    if output.for_machines and looked is not None:
        emit_json({"sweeps": sweeps, "clouds": looked, "unread": problems}, output.query)
        return
    columns = list(SWEEP_COLUMNS)
    if any(one["rented"] for one in sweeps):
        columns[5:5] = MONEY_COLUMNS
    emit(sweeps, columns, output, empty="No sweep yet: run 'benchctl sweep --vendors local'.")
    if output.for_machines:
        return
    for one in sweeps:
        if one["jobs"] and (one_alone or one["status"] == "running"):
            click.echo()
            emit(one["jobs"], JOB_COLUMNS, output, title=f"Jobs of {one['sweep_id']}")
    alive = [
        row for name, its in accounts.items() if not one_alone or name == sweeps[0]["sweep_id"] for row in its["alive"]
    ]
    if accounts or problems or looked is not None:
        click.echo()
        nothing = "Nothing is rented, by the books that can be read." if problems else "Nothing is rented."
        emit(alive, ALIVE_COLUMNS, output, title="Alive by the books", notes=_warnings(alive), empty=nothing)
    if looked is not None:
        _show_clouds(looked, output)


def _sweeps(home: Home, sweep: str | None, limit: int, follow: bool) -> tuple[list[dict[str, Any]], set[str]]:
    """The sweeps as they are or, when they are followed, as they are once none of them runs any more; and which were.

    Who names a sweep follows it though it has ended already.
    """
    from benchctl.overview import INTERRUPTED, overview

    last, followed = "", set[str]()
    while True:
        sweeps = overview(home, sweep, limit)
        if not follow:
            return sweeps, set()
        followed |= {one["sweep_id"] for one in sweeps if sweep or one["status"] == "running"}
        if not any(one["status"] == "running" for one in sweeps):
            break
        terminal = sys.stderr.isatty()
        line = picture(sweeps, _width() if terminal else LINE)
        if terminal:
            click.echo(f"\r\x1b[K{line}", nl=False, err=True)
        elif line != last:
            click.echo(line, err=True)
        last = line
        time.sleep(FOLLOW_SECONDS)
    if last and sys.stderr.isatty():
        click.echo(err=True)
    if any(one["status"] == INTERRUPTED for one in sweeps):
        sweeps = overview(home, sweep, limit)  # it may have ended between the look at the database and at its lock
    return sweeps, followed


def _width() -> int:
    """What a line of the terminal takes without wrapping; some terminals call themselves 0 wide."""
    return (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1


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
        "clean": seen.clean,
        "found": [plain(one) for one in seen.findings],
        "asked": list(seen.asked),
        "not_asked": dict(seen.problems),
        "answered_in_part": list(seen.partly),
        "skipped": dict(seen.skipped),
        "notes": list(seen.notes),
    }


def _show_clouds(looked: Mapping[str, Any], output: Output) -> None:
    from benchctl.cli.reap import COLUMNS, no_cloud, say_problems, say_skipped

    asked = ", ".join(looked["asked"])
    nothing = f"What was asked lists nothing ({asked})." if asked else "No list could be had."
    click.echo()
    emit(looked["found"], COLUMNS, output, title="Alive by the clouds", empty=nothing)
    for note in looked["notes"]:
        click.echo(note, err=True)
    if looked["skipped"]:
        say_skipped(looked["skipped"])
    say_problems(looked["not_asked"], looked["answered_in_part"])
    if none := no_cloud(looked["asked"], looked["skipped"], looked["not_asked"]):
        click.echo(f"{none}.")


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


def picture(sweeps: list[dict[str, Any]], columns: int) -> str:
    """All that runs, in one line. Pure.

    Job by job or, where that is too long, how many are in which stage, and those that began last.

    Args:
        sweeps: as the overview has them.
        columns: the most characters that it may have.
    """
    jobs = [job for one in sweeps for job in one["jobs"] if job["status"] in ("running", "waiting")]
    whole = "; ".join(map(_at, jobs))
    if len(whole) <= columns:
        return whole
    stages = Counter(job["stage"] if job["status"] == "running" and job["stage"] else job["status"] for job in jobs)
    line = ", ".join(f"{count} {stage}" for stage, count in stages.most_common())
    begun = [job for job in jobs if job["status"] == "running" and job["started_at"]]
    for job in sorted(begun, key=lambda job: job["started_at"], reverse=True):
        if len(line) + len(_at(job)) + 2 > columns:
            break
        line += f"; {_at(job)}"
    return line[: max(0, columns)]


def _at(job: Mapping[str, Any]) -> str:
    return f"{job['vendor_id']}/{job['server_id']}: {doing(job['progress']) or job['stage'] or job['status']}"


def _counted(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
