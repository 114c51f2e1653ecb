"""``benchctl compare``: servers side by side, and whether they differ by more than noise."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.completion import complete_server
from benchctl.cli.measured import NOTHING, offer_text, scenario_options
from benchctl.cli.price_options import price_options, terms_of
from benchctl.cli.reading import reading_session
from benchctl.cli.render import Column, Output, emit, moment, number, output_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchctl.home import Home

    Row = Mapping[str, Any]


@click.command()
@click.argument("servers", nargs=-1, required=True, metavar="A B [C ...]", shell_complete=complete_server)
@scenario_options
@click.option("--tokens", type=click.IntRange(min=1), help="This length alone.")
@click.option("--include-fallback", is_flag=True, help="Also what ran on the CPU instead of the GPU, which is marked.")
@click.option(
    "--plot", metavar="FILE", help="Draw speed over tokens, a line per server, into FILE (.png, .svg or .pdf)."
)
@price_options
@output_options()
@click.pass_obj
def compare(
    home: Home,
    servers: Sequence[str],
    model: str | None,
    task: str | None,
    tokens: int | None,
    include_fallback: bool,
    plot: str | None,
    weights: str | None,
    allocation: str,
    region: str | None,
    currency: str | None,
    flagged: bool,
    as_json: bool,
    as_csv: bool,
    query: str | None,
) -> None:
    """Servers side by side in every model and scenario: the first, A, against each of the others.

    Each ratio is the other's speed by that of A, with a confidence interval. Two instances of one server type differ
    too, so the interval holds the variance between instances: from replicas in the database, or from server types
    that are the same hardware; the answer says from which, and how large it is. All intervals of an answer hold
    together with 95 % confidence, so that asking for fewer scenarios (--model, --task, --tokens) shows smaller
    differences. The verdict is 'A faster' or 'B faster' where the interval leaves out 1, else 'no difference shown',
    which is not 'equal'. docs/comparing.md has the formulas and how they were checked.

    Each object of --json is one server (b) against the first (a) in one scenario, with the keys model, model_file,
    task, tokens, weights, letter_b; ratio (speed of b by that of a), ratio_ci_low, ratio_ci_high, p_value (corrected),
    comparisons (how many it was corrected for), verdict and cost_ratio (cost of b's tokens by that of a's); and, with
    _a and with _b behind them, vendor_id, server_id, api_reference, outcome, device, tokens_per_second, samples,
    instances, within_run_cv and between_instances_cv (standard deviations of the log speed), between_source
    (replicas, family, pool or default), between_from (in words), price_per_hour, price_currency, price_source and
    cost_per_million_tokens.
    """
    from benchctl.db import comparing, queries

    output = Output(as_json, as_csv, query)
    if plot:
        from benchctl.plot import format_of

        format_of(plot)
    gc.freeze()  # what was imported stays to the end: looking through it for garbage took a fifth of the time
    with reading_session(home) as session:
        found = [queries.find_server(session, name) for name in servers]
        named = [one for one in found if one is not None]
        question = queries.Question(model=model, task=task, tokens=tokens, weights=weights, fallback=include_fallback)
        answer = comparing.SideBySide([], [], [], ())
        if named:
            answer = comparing.side_by_side(session, named, question, terms_of(allocation, region, currency, flagged))
    emit(
        answer.rows if output.for_machines else _lines(answer.rows),
        _columns(answer.rows, len(named)),
        output,
        title="\n".join(_legend(one) for one in answer.servers),
        notes=answer.notes,
        empty="Nothing measured on these servers matches this question." if named else NOTHING,
    )
    if plot and answer.points:
        from benchctl.plot import plot_servers

        plot_servers(answer.points, plot)
        click.echo(f"Plot: {plot}", err=output.for_machines)
    elif plot:
        click.echo(f"No plot: there is nothing to draw into {plot}.", err=True)


def _legend(server: Row) -> str:
    """What stands behind a letter: ``A  aws/g6e.xlarge · NVIDIA L40S · llama.cpp 51f311e0 · 1.861 USD/h ...``."""
    parts = [f"{server['letter']}  {server['server']}", ", ".join(server["devices"])]
    if server["builds"]:
        parts.append(f"llama.cpp {', '.join(server['builds'])}")
    if server["measured_at"]:
        parts.append(f"measured {moment(server['measured_at'])[:10]}")
    return " · ".join(filter(None, (*parts, offer_text(server))))


def _lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line per scenario, with what is said of each other server under its letter."""
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        scenario = {key: row[key] for key in ("model", "model_file", "task", "tokens", "weights")}
        line = lines.setdefault(tuple(scenario.values()), {**scenario, "A": _speed(row, "a")})
        letter = row["letter_b"]
        line[letter] = _speed(row, "b")
        line[f"ratio {letter}"] = "" if row["ratio"] is None else f"{row['ratio']:.3f}"
        line[f"interval {letter}"] = _interval(row)
        line[f"verdict {letter}"] = row["verdict"]
        line[f"cost {letter}"] = "" if row["cost_ratio"] is None else f"{row['cost_ratio']:.2f}"
    return list(lines.values())


def _columns(rows: Sequence[Row], servers: int) -> list[Column]:
    columns = [Column("model", "model"), Column("task", "task"), Column("tokens", "tokens", "right")]
    if len({row["weights"] for row in rows}) > 1:
        columns.append(Column("weights", "weights"))
    letters = list(dict.fromkeys(row["letter_b"] for row in rows)) or ["B"]
    columns += [Column(letter, f"{letter} tokens/s", "right") for letter in ("A", *letters)]
    priced = any(row["cost_ratio"] is not None for row in rows)
    for letter in letters:
        columns += [
            Column(f"ratio {letter}", f"{letter}/A", "right"),
            Column(f"interval {letter}", "95 % interval"),
            Column(f"verdict {letter}", "verdict" if servers == 2 else f"A and {letter}"),
        ]
        if priced:
            columns.append(Column(f"cost {letter}", f"{letter}/A cost", "right"))
    return columns


def _speed(row: Row, side: str) -> str:
    """The speed, or how the scenario ended where there is none."""
    value, outcome = row[f"tokens_per_second_{side}"], row[f"outcome_{side}"]
    if value is None:
        return outcome or "-"
    return f"{number(value)} (CPU)" if outcome == "gpu_fallback" else number(value)


def _interval(row: Row) -> str:
    if row["ratio"] is None:
        return ""
    low, high = row["ratio_ci_low"], row["ratio_ci_high"]
    return f"{low:.3f} .. {high:.3f}" if high < 100 else f"{low:.3g} .. {high:.3g}"
