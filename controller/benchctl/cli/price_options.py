"""The options that say on what terms servers are priced: the same for every command that shows money."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchctl.db.prices import Terms

    Command = TypeVar("Command", bound=Callable[..., Any])

ALLOCATIONS = ("ondemand", "spot", "reserved")


def price_options(command: Command) -> Command:
    """The options ``--allocation``, ``--region``, ``--currency`` and ``--flagged``; :func:`terms_of` reads them."""
    options = [
        click.option(
            "--allocation",
            type=click.Choice(ALLOCATIONS, case_sensitive=False),
            default="ondemand",
            show_default=True,
            help="How servers are rented; the kinds are never mixed.",
        ),
        click.option("--region", metavar="REGION", help="Prices in this region alone.  [default: the cheapest one]"),
        click.option(
            "--currency",
            metavar="CODE",
            help="Convert all prices to this currency with the dated rates in the database, which are shown.  "
            "[default: USD, and nothing is converted]",
        ),
        click.option("--flagged", is_flag=True, help="Count prices too that the import of the catalogue doubts."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def terms_of(allocation: str, region: str | None, currency: str | None, flagged: bool) -> Terms:
    """The terms that the options say."""
    from benchctl.db.prices import Terms

    return Terms(
        allocation=allocation.upper(),
        region=region or None,
        currency=currency.upper() if currency else None,
        flagged=flagged,
    )
