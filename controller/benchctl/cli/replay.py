"""``benchctl replay``: what the policy would have cost and kept on recorded runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.render import Column, Output, emit, emit_json, number, output_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from benchctl.replay.replay import Replayed
    from benchctl.replay.report import Prices
    from benchctl.replay.rerun import Rerun


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--prices",
    "prices_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Prices as CSV, .xz too (vendor_id, api_reference, allocation, price, currency, unit): cheapest on demand.",
)
@click.option(
    "--catalog",
    "catalog_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Spare Cores' SQLite catalogue (.xz too): the servers' memory. Without it every model fits.",
)
@click.option(
    "--suite", "suite_name", default="default", show_default=True, help="A carried suite, or the path of one."
)
@click.option("--vendor", default="", help="Only this vendor.")
@click.option("--servers", default="", metavar="GLOB,..", help="Only servers whose names match, as 'm5.*,c7g.*'.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N runs.")
@click.option("--every", type=click.IntRange(min=1), default=1, metavar="N", help="Only every N-th run, as a sample.")
@click.option(
    "--split",
    type=click.Choice(["tuned on", "held out"]),
    help="Only one half of the servers: those in sight while the policy was tuned, or the others.",
)
@click.option("--sensitivity", is_flag=True, help="Also with other load times, restart costs and downloads.")
@click.option("--worst", type=click.IntRange(min=0), default=10, show_default=True, help="How many lost rows to show.")
@click.option(
    "--jobs",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Processes; 0: as many as there are CPUs.",
)
@output_options()
def replay(
    path: Path,
    prices_path: Path | None,
    catalog_path: Path | None,
    suite_name: str,
    vendor: str,
    servers: str,
    limit: int | None,
    every: int,
    split: str | None,
    sensitivity: bool,
    worst: int,
    jobs: int,
    as_json: bool,
    as_csv: bool,
    query: str | None,
) -> None:
    """Run the policy over the recorded runs at PATH: what it would have cost, kept and lost.

    PATH is a folder with VENDOR/SERVER/llm/{meta.json,stdout,stderr} as Spare Cores' inspector leaves them, or a tar
    archive of one. The code that measures runs in simulated time: it sees what it would have seen, and nothing before.
    "as recorded" has image and network as they were; "with assumptions" a small image, a near mirror and no warm-ups.
    --csv gives one line per server and account.
    """
    from benchctl.errors import UsageError
    from benchctl.models import load_models
    from benchctl.replay import listed
    from benchctl.replay import replay as engine
    from benchctl.replay.corpus import Wanted, raw_runs
    from benchctl.suites import load_suite

    output = Output(as_json, as_csv, query)
    prices = listed.read_prices(prices_path) if prices_path else {}
    accounts = {"as recorded": engine.AS_RECORDED, "with assumptions": engine.WITH_ASSUMPTIONS}
    if sensitivity:
        accounts.update(engine.SENSITIVITY)
    setting = engine.Setting(
        suite=load_suite(suite_name),
        models=load_models(),
        hardware=listed.read_hardware(catalog_path) if catalog_path else {},
        assumed=tuple(accounts.values()),
    )
    runs = _chosen(raw_runs(path, Wanted(vendor, [one for one in servers.split(",") if one])), split, every, limit)
    done = list(_watched(engine.replay_all(runs, setting, jobs)))
    found = {name: [one.accounts[index] for one in done if one.accounts] for index, name in enumerate(accounts)}
    if not found["as recorded"]:
        raise UsageError(
            f"There is no recorded run at {path} that went through and matches.",
            "Runs are folders VENDOR/SERVER/llm with a meta.json.",
        )
    left_out = [f"{one.vendor}/{one.server}: {one.left_out}" for one in done if one.left_out]
    notes = _notes(left_out, catalog_path, prices_path)
    answer = _answer(found, prices, worst, left_out)
    if output.as_csv:
        emit(answer["servers"], [], output, notes=notes)
    elif output.for_machines:
        emit_json(answer, output.query)
        for note in notes:
            click.echo(note, err=True)
    else:
        _print(answer, notes)


def _chosen(runs: Iterable[Any], split: str | None, every: int, limit: int | None) -> Iterator[Any]:
    from itertools import islice

    from benchctl.replay.rerun import half_of

    half = (one for one in runs if split is None or half_of(one.vendor, one.server) == split)
    return islice(half, 0, None if limit is None else limit * every, every)


def _watched(replayed: Iterator[Replayed]) -> Iterator[Replayed]:
    """Pass on, and tell on stderr how far it is: a line that changes on a terminal, one every hundred runs else."""
    if not sys.stderr.isatty():
        for count, one in enumerate(replayed, start=1):
            if count % 100 == 0:
                click.echo(f"{count} runs replayed", err=True)
            yield one
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed} runs replayed, {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=None)
        for one in replayed:
            progress.update(task, advance=1, description=f"{one.vendor}/{one.server}")
            yield one


def _answer(found: Mapping[str, Sequence[Rerun]], prices: Prices, worst: int, left_out: list[str]) -> dict[str, Any]:
    from benchctl.replay import report

    summary = []
    for name, reruns in found.items():
        summary.append(report.summarise(reruns, prices).to_row(account=name, group=report.ALL))
        if name in ("as recorded", "with assumptions"):
            for groups in (report.by(reruns, lambda one: one.half), report.by(reruns, lambda one: one.vendor)):
                summary += [
                    report.summarise(some, prices).to_row(account=name, group=group) for group, some in groups.items()
                ]
    recorded = found["as recorded"]
    return {
        "summary": summary,
        "causes": [
            {"account": name, **row}
            for name in ("as recorded", "with assumptions")
            for row in report.by_cause(found[name])
        ],
        "lost": report.losses_by_outcome(recorded),
        "worst_losses": report.worst_losses(recorded, worst),
        "left_out": left_out,
        "servers": [
            report.summarise([one], prices).to_row(account=name, vendor=one.vendor, server=one.server, half=one.half)
            for name, reruns in found.items()
            for one in reruns
        ],
    }


def _notes(left_out: Sequence[str], catalog: Path | None, prices: Path | None) -> list[str]:
    notes = [f"{len(left_out)} runs are left out: they did not go through, or can't be read."] if left_out else []
    if catalog is None:
        notes.append("Without --catalog the servers' memory is unknown: every model is tried.")
    if prices is None:
        notes.append("Without --prices there is no money in it.")
    return notes


def _print(answer: Mapping[str, Any], notes: Sequence[str]) -> None:
    def share(key: str, digits: int = 1) -> Any:
        return lambda row: "" if row[key] is None else f"{100 * row[key]:.{digits}f}%"

    def money(key: str) -> Any:
        return lambda row: " + ".join(f"{amount:.2f} {currency}" for currency, amount in row[key].items())

    def hours(key: str) -> Any:
        return lambda row: number(row[key]) if row[key] < 100 else f"{row[key]:.1f}"

    plain = Output()
    emit(
        answer["summary"],
        [
            Column("account", "account"),
            Column("group", "group"),
            Column("runs", "runs", "right"),
            Column("theirs_hours", "theirs h", "right", hours("theirs_hours")),
            Column("ours_hours", "ours h", "right", hours("ours_hours")),
            Column("hours_ratio", "ratio", "right", lambda row: f"{row['hours_ratio'] or 0:.3f}"),
            Column("theirs_cost", "theirs", "right", money("theirs_cost")),
            Column("ours_cost", "ours", "right", money("ours_cost")),
            Column("rows", "rows", "right"),
            Column("rows_kept_share", "kept", "right", share("rows_kept_share", 2)),
            Column("median_shift", "median shift", "right", share("median_shift", 3)),
            Column("p95_shift", "p95", "right", share("p95_shift", 2)),
        ],
        plain,
    )
    click.echo()
    emit(
        answer["causes"],
        [
            Column("account", "account"),
            Column("cause", "hours by cause"),
            Column("theirs_hours", "theirs h", "right", hours("theirs_hours")),
            Column("ours_hours", "ours h", "right", hours("ours_hours")),
            Column("theirs_share", "theirs", "right", share("theirs_share")),
            Column("ours_share", "ours", "right", share("ours_share")),
        ],
        plain,
    )
    click.echo()
    if answer["lost"]:
        click.echo("Rows lost: " + "; ".join(f"{count} {outcome}" for outcome, count in answer["lost"].items()))
        emit(
            answer["worst_losses"],
            [
                Column("vendor", "vendor"),
                Column("server", "server"),
                Column("model", "model"),
                Column("task", "task"),
                Column("tokens", "tokens", "right"),
                Column("recorded_tokens_per_second", "tokens/s", "right"),
                Column("outcome", "outcome"),
                Column("reason", "reason"),
            ],
            plain,
        )
    for note in notes:
        click.echo(note)
