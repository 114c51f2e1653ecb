"""``benchctl show`` and ``benchctl top``: what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.completion import complete_model, complete_server
from benchctl.cli.measured import (
    NOTHING,
    half_interval,
    money_columns,
    offer_text,
    percent,
    price_source,
    scenario_options,
    speed,
    weights_option,
)
from benchctl.cli.options import FiniteRange
from benchctl.cli.price_options import price_options, terms_of
from benchctl.cli.reading import reading_session
from benchctl.cli.render import Column, Output, emit, moment, number, output_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchctl.db.queries import Answer
    from benchctl.db.ranking import By
    from benchctl.home import Home


@click.command()
@click.argument("server", required=False, metavar="[VENDOR/SERVER]", shell_complete=complete_server)
@click.option(
    "--sweep",
    metavar="SWEEP",
    help="This sweep alone (or the beginning of its name, or last).  [default: the newest]",
)
@scenario_options
@click.option("--all-outcomes", is_flag=True, help="Also what ended without a score, and why.")
@click.option("--source", is_flag=True, help="Also the raw file, line and byte offset that each row was read from.")
@click.option("--plot", metavar="FILE", help="Draw speed over tokens per model into FILE (.png, .svg or .pdf).")
@price_options
@output_options()
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
    source: bool = False,
    allocation: str = "ondemand",
    region: str | None = None,
    currency: str | None = None,
    flagged: bool = False,
) -> None:
    """Everything measured on one server: by default the one measured last, and the newest row of each scenario.

    Speed is the mean of the samples' speeds, with the 95 % confidence interval of that mean. It says how well this run
    knows its own mean, not how far the next instance of the same type lies from it: 'benchctl compare' adds that. The
    price of a million tokens is that of one request at a time, at the price at which the server was rented, in the
    currency in which it was; where that is not known, or a price option is given, at the cheapest current offer in
    the catalogue.

    Rows whose outcome is gpu_fallback ran on the CPU although a GPU was to do the work.

    With --source, the raw file is shown as ORIGIN/FILE:LINE @OFFSET (bytes from the beginning of the file), or for one
    in an archive as ARCHIVE: FILE:LINE @OFFSET, which 'tar -xOf ARCHIVE FILE' prints.

    The keys of --json are the columns of the table 'measurement' (docs/schema.md), and api_reference, display_name,
    usd_per_million_tokens, price_per_hour, price_currency, price_allocation, price_region, price_source ('at launch' or
    the catalogue's source), price_source_date, price_flags, cost_per_million_tokens and tokens_per_currency_unit (both
    in price_currency); with --source also raw_origin and raw_file.
    """
    from benchctl.db import queries
    from benchctl.db.priced import pricing
    from benchctl.db.prices import Terms

    output = Output(as_json, as_csv, query)
    if plot:
        from benchctl.plot import format_of

        format_of(plot)
    terms = terms_of(allocation, region, currency, flagged)
    with reading_session(home) as session:
        found = queries.find_server(session, server)
        sweep_id = queries.find_sweep(session, sweep) if sweep and found else None
        of_all = sweep_id is not None and server is None
        chosen = queries.Question(
            vendor=found.vendor if found and not of_all else None,
            server=found.server if found and not of_all else None,
            sweep=sweep_id,
            model=model,
            task=task,
            weights=weights,
            all_outcomes=all_outcomes,
            fallback=True,
        )
        answer = queries.measurements(session, chosen)
        names = {(row["vendor_id"], row["server_id"]) for row in answer.rows}
        prices = pricing(session, terms, names, launch_first=terms == Terms())
        rows = [prices.of(row) for row in answer.rows]
        if source:
            rows = queries.with_sources(session, rows)
    title = _title(rows) if len(names) == 1 else ""
    emit(
        rows,
        _show_columns(rows, len(names) > 1, source),
        output,
        title=title,
        notes=[*_offers(rows), *_notes(answer), *(prices.notes if rows else ())],
        empty="Nothing measured matches this question." if found else NOTHING,
    )
    if plot and rows:
        from benchctl.plot import plot_speeds

        plot_speeds(rows, plot, title=title)
        click.echo(f"Plot: {plot}", err=output.for_machines)
    elif plot:
        click.echo(f"No plot: there is nothing to draw into {plot}.", err=True)


@click.command()
@click.option(
    "--model",
    required=True,
    metavar="MODEL",
    shell_complete=complete_model,
    help="The model: its short name or its file name.",
)
@click.option("--task", required=True, type=click.Choice(["pp", "tg"]), help="Prompt processing or text generation.")
@click.option("--tokens", required=True, type=click.IntRange(min=1), help="Prompt length, or tokens generated.")
@click.option(
    "--by",
    type=click.Choice(["speed", "price-performance", "usd-per-mtok"]),
    default="speed",
    show_default=True,
    help="Rank by tokens/s, by the tokens that one unit of money buys, or by what a million tokens cost.",
)
@click.option("--vendor", "vendors", multiple=True, metavar="VENDOR", help="This vendor alone; may be repeated.")
@click.option(
    "--gpu",
    is_flag=False,
    flag_value="any",
    metavar="[GPU]",
    help="Servers with this GPU, e.g. L40S; without a name (or 'any') those with any, with 'none' those without.",
)
@click.option("--min-speed", type=FiniteRange(min=0), metavar="N", help="At least so many tokens/s.")
@click.option("--max-price", type=FiniteRange(min=0), metavar="N", help="At most so much for an hour.")
@click.option("--include-fallback", is_flag=True, help="Also what ran on the CPU instead of the GPU, which is marked.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many servers.")
@weights_option
@price_options
@output_options()
@click.pass_obj
def top(
    home: Home,
    model: str,
    task: str,
    tokens: int,
    by: By,
    vendors: Sequence[str],
    gpu: str | None,
    min_speed: float | None,
    max_price: float | None,
    include_fallback: bool,
    limit: int,
    weights: str | None,
    allocation: str,
    region: str | None,
    currency: str | None,
    flagged: bool,
    as_json: bool,
    as_csv: bool,
    query: str | None,
) -> None:
    """The best servers for one model, task and length: the fastest, or those whose tokens are cheapest.

    Where several instances of a server were measured, its speed is their median, and 'spread' how far they scatter.
    Beside it stands the 95 % confidence interval of the mean within one run, from that many samples.

    The price is the cheapest current offer in the catalogue on the terms asked for, and in the region where that
    is; a server that no catalogue lists has the price at which it was rented. What tokens cost is for one request at a
    time. Servers without a price are left out where prices matter (--by other than speed, --max-price, --region).

    The keys of --json are those of 'benchctl show', and rank, instances, instance_spread, vcpus, memory_amount (MiB),
    gpu_model and gpu_count.
    """
    from benchctl.db import queries
    from benchctl.db.ranking import Ranking
    from benchctl.db.ranking import top as ranked

    output = Output(as_json, as_csv, query)
    ranking = Ranking(
        model,
        task,
        tokens,
        by=by,
        vendors=[name for listed in vendors for name in listed.split(",") if name],
        gpu=gpu,
        min_speed=min_speed,
        max_price=max_price,
        terms=terms_of(allocation, region, currency, flagged),
        weights=weights,
        fallback=include_fallback,
    )
    with reading_session(home) as session:
        anything = queries.anything_measured(session)
        answer = ranked(session, ranking, limit) if anything else queries.Answer([])
        there = [] if answer.rows or not anything else queries.scenarios_of(session, model)
    rows = answer.rows
    empty = NOTHING
    if f"{task}{tokens}" in there:
        empty = "No server is left."
    elif anything:
        empty = f"Nothing measured matches this question. Of {model} there are: {', '.join(there) or 'no scores'}."
    sources = list(dict.fromkeys(price_source(row) for row in rows if row["price_source"]))
    order = {"speed": "by speed", "price-performance": "by tokens for the money", "usd-per-mtok": "by cost"}[by]
    title = f"{model}, {'prompt processing' if task == 'pp' else 'text generation'}, {tokens} tokens, {order}"
    legend = [f"[{place}] {source}" for place, source in enumerate(sources, 1)] if not output.for_machines else []
    emit(
        rows,
        _top_columns(rows, sources, weights == "all"),
        output,
        title=title,
        notes=[*legend, *answer.notes],
        empty=empty,
    )


def _top_columns(rows: Sequence[Mapping[str, Any]], sources: Sequence[str], with_weights: bool) -> list[Column]:
    columns = [
        Column("rank", "#", "right"),
        Column("vendor_id", "vendor"),
        Column("api_reference", "server"),
        Column("tokens_per_second", "tokens/s", "right", speed),
        Column("tokens_per_second_ci_high", "± 95 %", "right", half_interval),
        Column("samples", "samples", "right"),
        Column("device", "device"),
    ]
    if with_weights:
        columns.insert(3, Column("weights", "weights"))
    if any(row["instances"] > 1 for row in rows):
        columns[-1:-1] = [
            Column("instances", "instances", "right"),
            Column("instance_spread", "spread", "right", lambda row: percent(row["instance_spread"])),
        ]
    if any(row["outcome"] != "ok" for row in rows):
        columns.append(Column("outcome", "outcome"))
    if any(row["noisy"] for row in rows):
        columns.append(Column("noisy", "noisy"))
    columns += money_columns(rows)
    if sources:
        currency = next(row["price_currency"] for row in rows if row["price_currency"])
        columns += [
            Column("tokens_per_currency_unit", f"M tokens/{currency}", "right", _million_tokens_for_one),
            Column("price_region", "region"),
            Column("price_source", "price from", "left", lambda row: _place(row, sources)),
        ]
    if any(row["price_flags"] for row in rows):
        columns.append(Column("price_flags", "doubts"))
    return [*columns, Column("measured_at", "measured (UTC)", "left", lambda row: moment(row["measured_at"])[:10])]


def _million_tokens_for_one(row: Mapping[str, Any]) -> str:
    tokens = row["tokens_per_currency_unit"]
    return number(tokens / 1e6) if tokens else ""


def _place(row: Mapping[str, Any], sources: Sequence[str]) -> str:
    return f"[{sources.index(price_source(row)) + 1}]" if row["price_source"] else ""


def _show_columns(rows: Sequence[Mapping[str, Any]], several_servers: bool, source: bool) -> list[Column]:
    columns = [
        Column("model", "model"),
        Column("task", "task"),
        Column("tokens", "tokens", "right"),
        Column("tokens_per_second", "tokens/s", "right", speed),
        Column("tokens_per_second_ci_high", "± 95 %", "right", half_interval),
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
    if len({row["device"] for row in rows}) > 1:
        columns.append(Column("device", "device"))
    columns += [one for one in money_columns(rows) if one.key == "cost_per_million_tokens"]
    if any(row["reason"] for row in rows):
        columns.append(Column("reason", "why"))
    if source:
        columns.append(Column("raw_file", "raw file", "left", _raw_place))
    return columns


def _raw_place(row: Mapping[str, Any]) -> str:
    """Where a row was read: ``/data/lake/S/data/aws/x/llm/stdout:44 @10234``; in an archive, its path comes first."""
    origin, file = row["raw_origin"], row["raw_file"] or row["raw_path"]
    archive = origin is not None and ".tar" in origin.rpartition("/")[2]
    place = file if origin is None else f"{origin}: {file}" if archive else f"{origin.rstrip('/')}/{file}"
    line = f":{row['raw_line']}" if row["raw_line"] is not None else ""
    offset = f" @{row['raw_offset']}" if row["raw_offset"] is not None else ""
    return f"{place}{line}{offset}"


def _title(rows: Sequence[Mapping[str, Any]]) -> str:
    row = rows[0]
    server = f"{row['vendor_id']}/{row['api_reference']}"
    parts = [server if row["display_name"] in row["api_reference"] else f"{server} ({row['display_name']})"]
    devices = sorted({one["device"] for one in rows if one["device"]})
    builds = sorted({one["llama_cpp_commit"] for one in rows if one["llama_cpp_commit"]})
    if devices:
        parts.append(", ".join(devices))
    if row["threads"]:
        parts.append(f"{row['threads']} threads")
    if builds:
        parts.append(f"llama.cpp {', '.join(builds)}")
    return " · ".join(parts)


def _offers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The prices that the rows' costs were reckoned with, each once."""
    several = len({(row["vendor_id"], row["server_id"]) for row in rows}) > 1
    priced = [row for row in rows if row["price_per_hour"] is not None]
    texts = [
        f"{row['vendor_id']}/{row['api_reference']}: {offer_text(row)}" if several else offer_text(row)
        for row in priced
    ]
    return [f"Price: {text}" for text in dict.fromkeys(texts)]


def _notes(answer: Answer) -> list[str]:
    notes = list(answer.notes)
    fallbacks = sum(row["outcome"] == "gpu_fallback" for row in answer.rows)
    if fallbacks:
        notes.append(
            f"{fallbacks} scenarios ran on the CPU instead of the GPU (gpu_fallback): rankings leave them out."
        )
    if answer.hidden:
        counted = ", ".join(f"{count} {outcome}" for outcome, count in answer.hidden.items())
        notes.append(f"{sum(answer.hidden.values())} scenarios ended without a score ({counted}): --all-outcomes.")
    return notes
