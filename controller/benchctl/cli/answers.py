"""``benchctl show`` and ``benchctl top``: what was measured."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from benchctl.cli.render import Column, Output, emit, moment, number, output_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy.orm import Session

    from benchctl.db.queries import Answer
    from benchctl.home import Home

    Command = TypeVar("Command", bound=Callable[..., Any])

NOTHING = "Nothing measured yet: run 'benchctl sweep --vendors local'."


def _question_options(command: Command) -> Command:
    for option in (
        click.option(
            "--weights",
            type=click.Choice(["real", "synthetic", "all"]),
            help="Which weights the rows were measured with.  [default: real where there are any, else synthetic]",
        ),
        output_options(),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("server", required=False, metavar="[VENDOR/SERVER]")
@click.option(
    "--sweep", metavar="SWEEP", help="This sweep alone (or the beginning of its name).  [default: the newest]"
)
@click.option("--model", metavar="MODEL", help="This model alone: its short name or its file name.")
@click.option("--task", type=click.Choice(["pp", "tg"]), help="Prompt processing or text generation alone.")
@click.option("--all-outcomes", is_flag=True, help="Also what ended without a score, and why.")
@click.option("--plot", metavar="FILE", help="Draw speed over tokens per model into FILE (.png, .svg or .pdf).")
@_question_options
@click.pass_obj
def show(
    home: Home,
    server: str | None,
    sweep: str | None,
    model: str | None,
    task: str | None,
    all_outcomes: bool,
    plot: str | None,
    weights: str | None,
    as_json: bool,
    as_csv: bool,
    query: str | None,
) -> None:
    """Everything measured on one server: by default the one measured last, and the newest row of each scenario.

    Speed is the mean of the samples' speeds, with the 95 % confidence interval of that mean. It says how well this run
    knows its own mean, not how far the next instance of the same type lies from it. The price of a million tokens is
    that of one request at a time, at the price at which the server was rented.

    The keys of --json are the columns of the table 'measurement' (docs/schema.md), and api_reference, display_name and
    usd_per_million_tokens.
    """
    from benchctl.db import queries

    output = Output(as_json, as_csv, query)
    if plot:
        from benchctl.plot import format_of

        format_of(plot)
    with _session(home) as session:
        found = queries.find_server(session, server)
        sweep_id = queries.find_sweep(session, sweep) if sweep and found else None
        if sweep_id and server is None:
            chosen = queries.Question(
                sweep=sweep_id, model=model, task=task, weights=weights, all_outcomes=all_outcomes
            )
        else:
            chosen = queries.Question(
                vendor=found.vendor if found else None,
                server=found.server if found else None,
                sweep=sweep_id,
                model=model,
                task=task,
                weights=weights,
                all_outcomes=all_outcomes,
            )
        answer = queries.measurements(session, chosen)
    servers = {f"{row['vendor_id']}/{row['server_id']}" for row in answer.rows}
    several = len(servers) > 1
    title = _title(answer, servers.pop()) if len(servers) == 1 else ""
    emit(
        answer.rows,
        _show_columns(answer, several),
        output,
        title=title,
        notes=_notes(answer),
        empty="Nothing measured matches this question." if found else NOTHING,
    )
    if plot and answer.rows:
        from benchctl.plot import plot_speeds

        plot_speeds(answer.rows, plot, title=title)
        click.echo(f"Plot: {plot}", err=output.for_machines)
    elif plot:
        click.echo(f"No plot: there is nothing to draw into {plot}.", err=True)


@click.command()
@click.option("--model", required=True, metavar="MODEL", help="The model: its short name or its file name.")
@click.option("--task", required=True, type=click.Choice(["pp", "tg"]), help="Prompt processing or text generation.")
@click.option("--tokens", required=True, type=click.IntRange(min=1), help="Prompt length, or tokens generated.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many servers.")
@_question_options
@click.pass_obj
def top(
    home: Home,
    model: str,
    task: str,
    tokens: int,
    limit: int,
    weights: str | None,
    as_json: bool,
    as_csv: bool,
    query: str | None,
) -> None:
    """The fastest servers for one model, task and length.

    Where several instances of a server were measured, its speed is their median.

    The keys of --json are those of 'benchctl show', and rank and instances.
    """
    from benchctl.db import queries

    output = Output(as_json, as_csv, query)
    with _session(home) as session:
        anything = bool(queries.measured_servers(session))
        question = queries.Question(model=model, task=task, tokens=tokens, weights=weights)
        answer = queries.top(session, question, limit)
        there = [] if answer.rows or not anything else queries.scenarios_of(session, model)
    empty = f"Nothing measured matches this question. Of {model} there are: {', '.join(there) or 'no scores'}."
    columns = [
        Column("rank", "#", "right"),
        Column("vendor_id", "vendor"),
        Column("api_reference", "server"),
        Column("tokens_per_second", "tokens/s", "right", _speed),
        Column("instances", "instances", "right"),
        Column("device", "device"),
        Column("noisy", "noisy"),
        Column("usd_per_million_tokens", "USD/1M tokens", "right"),
        Column("measured_at", "measured (UTC)", "left", lambda row: moment(row["measured_at"])),
    ]
    if weights == "all":
        columns.insert(3, Column("weights", "weights"))
    title = f"{model}, {'prompt processing' if task == 'pp' else 'text generation'}, {tokens} tokens"
    emit(answer.rows, columns, output, title=title, notes=answer.notes, empty=empty if anything else NOTHING)


@contextmanager
def _session(home: Home) -> Iterator[Session]:
    """A session on the database as it is; one that isn't there yet is an empty one."""
    from benchctl.db.engine import open_database, reading

    engine = open_database(home.database_url, create=False)
    try:
        with reading(engine) as session:
            yield session
    finally:
        engine.dispose()


def _show_columns(answer: Answer, several_servers: bool) -> list[Column]:
    rows = answer.rows
    columns = [
        Column("model", "model"),
        Column("task", "task"),
        Column("tokens", "tokens", "right"),
        Column("tokens_per_second", "tokens/s", "right", _speed),
        Column("tokens_per_second_ci_high", "± 95 %", "right", _half_interval),
        Column("samples", "samples", "right"),
        Column("outcome", "outcome"),
        Column("noisy", "noisy"),
    ]
    if several_servers:
        columns.insert(0, Column("api_reference", "server"))
    if len({row["job_id"] for row in rows}) > len({row["server_id"] for row in rows}):
        columns.insert(0, Column("job_id", "job"))
    if any(row["weights"] == "synthetic" for row in rows):
        columns.insert(1, Column("weights", "weights"))
    if any(row["usd_per_million_tokens"] is not None for row in rows):
        columns.append(Column("usd_per_million_tokens", "USD/1M tokens", "right"))
    if any(row["reason"] for row in rows):
        columns.append(Column("reason", "why"))
    return columns


def _title(answer: Answer, server: str) -> str:
    row = answer.rows[0]
    parts = [server if row["display_name"] == row["server_id"] else f"{server} ({row['display_name']})"]
    devices = sorted({one["device"] for one in answer.rows if one["device"]})
    builds = sorted({one["llama_cpp_commit"] for one in answer.rows if one["llama_cpp_commit"]})
    if devices:
        parts.append(", ".join(devices))
    if row["threads"]:
        parts.append(f"{row['threads']} threads")
    if builds:
        parts.append(f"llama.cpp {', '.join(builds)}")
    if row["price_usd_per_hour"] is not None:
        parts.append(f"{number(row['price_usd_per_hour'])} USD/h")
    return " · ".join(parts)


def _notes(answer: Answer) -> list[str]:
    notes = list(answer.notes)
    if answer.hidden:
        counted = ", ".join(f"{count} {outcome}" for outcome, count in answer.hidden.items())
        notes.append(f"{sum(answer.hidden.values())} scenarios ended without a score ({counted}): --all-outcomes.")
    return notes


def _speed(row: Mapping[str, Any]) -> str:
    return number(row["tokens_per_second"])


def _half_interval(row: Mapping[str, Any]) -> str:
    """Half of the interval as a share of the mean; the lower end may be cut at 0, so the upper one tells."""
    mean, high = row["tokens_per_second"], row["tokens_per_second_ci_high"]
    return f"{(high - mean) / mean:.1%}" if mean and high is not None else ""
