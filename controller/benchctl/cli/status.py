"""``benchctl status``: sweeps and their jobs, and what runs now."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.render import Column, Output, emit, moment, number, output_options

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
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many sweeps, newest first."
)
@output_options(csv=False)
@click.pass_obj
def status(home: Home, sweep: str | None, follow: bool, limit: int, as_json: bool, query: str | None) -> None:
    """Sweeps, the newest first, with their jobs; of SWEEP alone, or of all.

    What a running job does now comes from its live progress, everything else from the database.
    """
    from benchctl.overview import overview

    output = Output(as_json, query=query)
    last = ""
    while True:
        sweeps = overview(home, sweep, limit)
        running = [one for one in sweeps if one["status"] == "running"]
        line = _line(sweeps)
        if not follow or not running:
            break
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{line}", nl=False, err=True)
        elif line != last:
            click.echo(line, err=True)
        last = line
        time.sleep(FOLLOW_SECONDS)
    if last and sys.stderr.isatty():
        click.echo(err=True)
    emit(sweeps, SWEEP_COLUMNS, output, empty="No sweep yet: run 'benchctl sweep --vendors local'.")
    if output.for_machines:
        return
    for one in sweeps:
        if one["jobs"] and (sweep or one["status"] == "running"):
            click.echo()
            emit(one["jobs"], JOB_COLUMNS, output, title=f"Jobs of {one['sweep_id']}")


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
