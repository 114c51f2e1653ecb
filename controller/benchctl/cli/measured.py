"""How a measured speed and its price look in a table, and the options that say which measurements are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from benchctl.cli.completion import complete_model
from benchctl.cli.render import Column, number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Command = TypeVar("Command", bound=Callable[..., Any])
    Row = Mapping[str, Any]

NOTHING = "Nothing measured yet: run 'benchctl sweep --vendors local'."

ALLOCATIONS = {"ONDEMAND": "on demand", "SPOT": "spot", "RESERVED": "reserved"}


def scenario_options(command: Command) -> Command:
    """``--model``, ``--task`` and ``--weights``, where each of them is a choice and none is needed."""
    for option in (
        weights_option,
        click.option("--task", type=click.Choice(["pp", "tg"]), help="Prompt processing or text generation alone."),
        click.option(
            "--model",
            metavar="MODEL",
            shell_complete=complete_model,
            help="This model alone: its short name or its file name.",
        ),
    ):
        command = option(command)
    return command


def weights_option(command: Command) -> Command:
    """``--weights``."""
    return click.option(
        "--weights",
        type=click.Choice(["real", "synthetic", "rehearsal", "all"]),
        help="Which weights the rows were measured with.  [default: real where there are any, else synthetic]",
    )(command)


def speed(row: Row) -> str:
    """The speed in plain digits."""
    return number(row["tokens_per_second"])


def half_interval(row: Row) -> str:
    """Half of the interval as a share of the mean; the lower end may be cut at 0, so the upper one tells."""
    mean, high = row["tokens_per_second"], row["tokens_per_second_ci_high"]
    return f"{(high - mean) / mean:.1%}" if mean and high is not None else ""


def percent(value: float | None) -> str:
    """A share in percent."""
    return "" if value is None else f"{value:.1%}"


def offer_text(row: Row) -> str:
    """A price and where it comes from, in words: ``1.861 USD/h on demand in us-east-1 (SOURCE, 2025-04-28)``."""
    if row["price_per_hour"] is None:
        return "no price known on these terms"
    parts = [f"{number(row['price_per_hour'])} {row['price_currency']}/h"]
    if row["price_allocation"]:
        parts.append(ALLOCATIONS.get(row["price_allocation"], row["price_allocation"].lower()))
    if row["price_region"] not in (None, "*"):
        parts.append(f"in {row['price_region']}")
    doubts = f"; doubtful: {', '.join(row['price_flags'])}" if row["price_flags"] else ""
    return f"{' '.join(parts)} ({price_source(row)}{doubts})"


def price_source(row: Row) -> str:
    """Where a price comes from: its source and its day."""
    day = row["price_source_date"]
    return f"{row['price_source']}, {day.isoformat()}" if day else str(row["price_source"])


def money_columns(rows: Sequence[Row]) -> list[Column]:
    """What a million tokens cost, in the currency of the answer or of each row; none where no row has a price."""
    currencies = {row["price_currency"] for row in rows if row["price_currency"]}
    if not currencies:
        return []
    if len(currencies) > 1:
        return [
            Column("price_per_hour", "price/h", "right", _in_its_currency("price_per_hour")),
            Column("cost_per_million_tokens", "price/1M tokens", "right", _in_its_currency("cost_per_million_tokens")),
        ]
    (currency,) = currencies
    return [
        Column("price_per_hour", f"{currency}/h", "right"),
        Column("cost_per_million_tokens", f"{currency}/1M tokens", "right"),
    ]


def _in_its_currency(key: str) -> Callable[[Row], str]:
    return lambda row: "" if row[key] is None else f"{number(row[key])} {row['price_currency']}"
