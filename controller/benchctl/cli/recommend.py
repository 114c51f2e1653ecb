"""``benchctl recommend``: the cheapest servers that are fast enough, and what a workload costs on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.options import FiniteRange
from benchctl.cli.price_options import price_options, terms_of
from benchctl.cli.reading import reading_session
from benchctl.cli.render import Column, Output, emit, number, output_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchctl.db.recommendations import Need, Recommendation
    from benchctl.home import Home

    Cell = Callable[[Mapping[str, Any]], str]

NOTHING = "Nothing measured yet: run 'benchctl sweep --vendors local', or import results."

MARKS = {"measured": "", "interpolated": "~", "beyond": "*"}
"""What stands behind a speed that was not measured at the very length."""


@click.command()
@click.option("--model", required=True, metavar="MODEL", help="The model: its short name or its file name.")
@click.option(
    "--min-pp",
    type=FiniteRange(min=0),
    default=0.0,
    metavar="X",
    help="Tokens per second that processing a prompt must reach.  [default: any speed]",
)
@click.option(
    "--min-tg",
    type=FiniteRange(min=0),
    default=0.0,
    metavar="Y",
    help="Tokens per second that generating text must reach.  [default: any speed]",
)
@click.option(
    "--tokens-in", type=click.IntRange(min=1), default=512, show_default=True, help="Prompt tokens of a request."
)
@click.option(
    "--tokens-out", type=click.IntRange(min=1), default=128, show_default=True, help="Tokens generated for a request."
)
@click.option(
    "--requests-per-day",
    type=FiniteRange(min=0, min_open=True),
    metavar="R",
    help="How many requests: how many servers that takes, and what they cost a month.",
)
@click.option(
    "--utilisation",
    type=FiniteRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    metavar="SHARE",
    help="Share of the paid time in which a server works; 1 is a bound that no service reaches.",
)
@click.option(
    "--at-pp",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Prompt length at which --min-pp is judged.  [default: --tokens-in]",
)
@click.option(
    "--at-tg",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Number of generated tokens at which --min-tg is judged.  [default: --tokens-out]",
)
@click.option("--vendor", "vendors", multiple=True, metavar="VENDOR", help="This vendor alone; may be repeated.")
@click.option(
    "--gpu", metavar="NAME", help="Servers with this GPU (a part of its name), with 'any' GPU, or with 'none'."
)
@click.option(
    "--max-price",
    type=FiniteRange(min=0),
    metavar="PRICE",
    help="The most that a server may cost per hour, in the answer's currency.",
)
@price_options
@click.option(
    "--weights",
    type=click.Choice(["real", "synthetic"]),
    help="Which weights the speeds were measured with.  [default: real where there are any, else synthetic]",
)
@click.option("--include-fallback", is_flag=True, help="Count speeds of GPU servers that ran on their CPU.")
@click.option(
    "--beyond",
    is_flag=True,
    help="Count servers, too, that were not measured up to the lengths asked for, at the nearest measured speed.",
)
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="How many servers.")
@output_options()
@click.pass_obj
def recommend(
    home: Home,
    /,
    limit: int,
    as_json: bool,
    as_csv: bool,
    query: str | None,
    **asked: Any,
) -> None:
    """The cheapest servers that meet a need: by cost per month with --requests-per-day, else by cost per token.

    A measurement is a single stream: one request at a time, nothing batched. So time to first token is processing the
    prompt (the model loaded, nobody waiting, no network), a request takes that and the generation of its tokens, and a
    server answers 86400 s x utilisation / that time of them a day. A month has 730 hours. The blended cost of a million
    tokens is at the ratio of --tokens-in to --tokens-out.

    Speeds between the measured lengths are interpolated (marked ~). Servers that were not measured up to the lengths
    asked for are left out; --beyond counts them at the nearest speed that was, marked *. Formulas and limits are in
    docs/answers.md.

    The keys of --json have units in their names; money is in the key 'currency'.
    """
    from benchctl.db.recommendations import recommend as answer

    output = Output(as_json, as_csv, query)
    need = need_from(asked)
    with reading_session(home) as session:
        found = answer(session, need, limit)
    emit(
        found.rows,
        _columns(found, need),
        output,
        title=_title(found, need),
        notes=_notes(found, need),
        empty=found.why_empty if found.model else NOTHING,
    )


def need_from(asked: Mapping[str, Any]) -> Need:
    """The need that the options say."""
    from benchctl.db.recommendations import Need
    from benchctl.economics import Workload

    return Need(
        model=asked["model"],
        min_pp=asked["min_pp"],
        min_tg=asked["min_tg"],
        at_pp=asked["at_pp"] or asked["tokens_in"],
        at_tg=asked["at_tg"] or asked["tokens_out"],
        workload=Workload(asked["tokens_in"], asked["tokens_out"], asked["requests_per_day"], asked["utilisation"]),
        terms=terms_of(asked["allocation"], asked["region"], asked["currency"], asked["flagged"]),
        weights=asked["weights"],
        vendors=asked["vendors"],
        gpu=asked["gpu"],
        max_price_per_hour=asked["max_price"],
        fallback=asked["include_fallback"],
        beyond=asked["beyond"],
    )


def _columns(found: Recommendation, need: Need) -> list[Column]:
    money = found.currency
    columns = [
        Column("rank", "#", "right"),
        Column("vendor_id", "vendor"),
        Column("api_reference", "server"),
        Column("vcpus", "vCPUs", "right"),
        Column("gpu_model", "GPU", "left", _gpu),
        Column("pp_tokens_per_second", f"pp{need.at_pp}, t/s", "right", _speed("pp_tokens_per_second", "pp_basis")),
        Column("tg_tokens_per_second", f"tg{need.at_tg}, t/s", "right", _speed("tg_tokens_per_second", "tg_basis")),
        Column("time_to_first_token_seconds", "first token", "right", _first_token),
        Column("load_seconds", "load", "right", lambda row: _seconds(row["load_seconds"]) or "unknown"),
        Column("price_per_hour", f"{money}/h", "right"),
    ]
    if need.workload.requests_per_day is not None:
        columns += [
            Column("servers", "servers", "right"),
            Column("busy_share", "busy", "right", lambda row: f"{row['busy_share']:.1%}"),
            Column("cost_per_month", f"{money}/month", "right", _money("cost_per_month")),
        ]
    else:
        columns.append(
            Column("cost_per_month_per_server", f"{money}/month", "right", _money("cost_per_month_per_server"))
        )
    columns += [
        Column("cost_per_million_tokens_in", f"{money}/1M in", "right"),
        Column("cost_per_million_tokens_out", f"{money}/1M out", "right"),
        Column("cost_per_million_tokens", f"{money}/1M blended", "right"),
        Column("price_region", "price from", "left", _price_from),
    ]
    return columns


def _title(found: Recommendation, need: Need) -> str:
    load = need.workload
    parts = [f"{found.model}, {found.weights} weights"]
    minimums = [
        f"{task}{tokens} >= {least:g} tokens/s"
        for task, tokens, least in (("pp", need.at_pp, need.min_pp), ("tg", need.at_tg, need.min_tg))
        if least
    ]
    if minimums:
        parts.append(" and ".join(minimums))
    requests = f"requests of {load.tokens_in} tokens in and {load.tokens_out} out"
    if load.requests_per_day is not None:
        requests = f"{load.requests_per_day:g} {requests} a day"
    parts += [requests, f"{need.terms.allocation.lower()} prices"]
    return " · ".join(parts)


def _notes(found: Recommendation, need: Need) -> list[str]:
    notes = []
    if found.rows:
        notes.append("Single stream: one request at a time; a server that batches answers more of them, each slower.")
        share = need.workload.utilisation
        if share == 1:
            notes.append("Costs per token are at 100 % utilisation, which is a bound: --utilisation sets what is real.")
        else:
            notes.append(f"Costs per token and requests per server are at {share:.0%} utilisation.")
        notes.append(
            "A month is 730 hours. First token: the prompt's processing, without network, queue and loading the model."
        )
    if found.more:
        notes.append(f"{found.more} more servers meet the need (--limit).")
    return [*notes, *found.notes]


def _speed(key: str, basis: str) -> Cell:
    return lambda row: number(row[key]) + MARKS[row[basis]]


def _first_token(row: Mapping[str, Any]) -> str:
    return _seconds(row["time_to_first_token_seconds"]) + MARKS[row["tokens_in_basis"]]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{number(value, 3)} s"


def _money(key: str) -> Cell:
    return lambda row: f"{row[key]:.2f}"


def _gpu(row: Mapping[str, Any]) -> str:
    count, model = row["gpu_count"], row["gpu_model"] or "GPU"
    return "" if not count else model if count == 1 else f"{count} x {model}"


def _price_from(row: Mapping[str, Any]) -> str:
    """Where the price holds, and of which day it is."""
    day = row["price_date"].isoformat() if row["price_date"] else ""
    doubts = f"doubtful: {', '.join(row['price_flags'])}" if row["price_flags"] else ""
    place = row["price_region"] if row["price_region"] not in (None, "*") else ""
    return ", ".join(filter(None, (place or row["price_source"], day, doubts)))
