"""The plan of a sweep over clouds as people read it: a line per server, totals per vendor, what is left out and why."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.render import Column, Output, emit, number
from benchctl.rented_plan import committed_cost, expected_cost

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchctl.plan import JobPlan, Plan

NAMED = 3
"""Servers that a line about those left out names."""


def notes(planned: Plan) -> list[str]:
    """All that a reader of the plan must know besides its rows."""
    return [*totals(planned), *left_out(planned), *planned.notes]


def show(planned: Plan, told: Sequence[str], alone: bool) -> None:
    """Print the plan for people: in the order in which servers are rented.

    Args:
        planned: the plan.
        told: its :func:`notes`.
        alone: whether it is the command's answer, or stands before a sweep that begins.
    """
    from benchctl.view import duration

    columns = [
        Column("vendor", "vendor"),
        Column("server", "server"),
        Column("where", "cheapest in"),
        Column("places", "places", "right"),
        Column("price", "price", "right"),
        Column("models", "models", "right"),
        Column("scenarios", "scenarios", "right"),
        Column("expected_seconds", "expected", "right", lambda row: duration(row["expected_seconds"])),
        Column("lifetime_seconds", "lifetime", "right", lambda row: duration(row["lifetime_seconds"])),
        Column("disk_gb", "disk, GB", "right"),
        Column("expected_cost", "expected cost", "right"),
        Column("committed_cost", "committed", "right"),
    ]
    title = f"Suite {planned.suite.name}, {planned.weights} weights" if alone else f"Plan: suite {planned.suite.name}"
    emit(
        [_row(job) for job in planned.running], columns, Output(False), title=title, notes=told,
        empty="Nothing would be measured.",
    )  # fmt: skip
    if not alone:
        click.echo()


def totals(planned: Plan) -> Iterator[str]:
    """What each vendor's servers should cost, and can cost at most, in the currency of its prices."""
    groups: dict[tuple[str, str], list[JobPlan]] = defaultdict(list)
    for job in planned.running:
        groups[job.server.vendor, job.server.price.currency if job.server.price else ""].append(job)
    for (vendor, currency), jobs in sorted(groups.items()):
        count = f"{len(jobs)} server{'s' if len(jobs) != 1 else ''}"
        if not currency:
            yield f"{vendor}: {count}, of unknown price."
            continue
        yield (
            f"{vendor}: {count}, about {_sum(map(expected_cost, jobs))} {currency}; committed, if all live to their "
            f"end, {_sum(map(committed_cost, jobs))} {currency}."
        )


def left_out(planned: Plan) -> Iterator[str]:
    """Why servers are left out, the most frequent reason first; each reason once."""
    groups: dict[str, dict[str, None]] = defaultdict(dict)
    for job in planned.jobs:
        if not job.runs:
            # a catalogue's name goes to a terminal: on one line, and without what would steer it
            name = "".join(one if one.isprintable() else "?" for one in job.server.name)
            groups[_without_figures(job)][f"{job.server.vendor}/{name}"] = None
    for reason, names in sorted(groups.items(), key=lambda one: -len(one[1])):
        shown = ", ".join(list(names)[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        yield f"Left out: {shown}: {reason}."


def _without_figures(job: JobPlan) -> str:
    """The reason in words that are the same for all to which it applies."""
    reason = job.left_out
    if reason.startswith("would cost about"):
        return "the budget is expected to be used up by those above (--json gives each one's cost)"
    if reason.startswith("could cost"):
        return "each could cost more than all that the budget has for it (--json gives each one's cost)"
    return reason


def _row(job: JobPlan) -> dict[str, Any]:
    server = job.server
    place = server.places[0] if server.places else None
    currency = server.price.currency if server.price else ""
    runs = sum(1 for one in job.models if not one.left_out)
    where = (place.zone or place.region) if place else ""
    return {
        "vendor": server.vendor,
        "server": server.name if server.replica == 1 else f"{server.name} ({server.replica})",
        "where": where,
        "places": len(server.places) or "",
        "price": f"{number(server.price.per_hour, 3)} {currency}/h" if server.price else "",
        "models": f"{runs} of {len(job.models)}" if runs != len(job.models) else str(runs),
        "scenarios": job.scenarios,
        "expected_seconds": job.expected_seconds,
        "lifetime_seconds": job.lifetime_seconds or None,
        "disk_gb": job.disk_gb or "",
        "expected_cost": _money(expected_cost(job), currency),
        "committed_cost": _money(committed_cost(job), currency),
    }


def _money(amount: float | None, currency: str) -> str:
    return "" if amount is None else f"{number(amount, 2)} {currency}"


def _sum(amounts: Iterable[float | None]) -> str:
    return number(sum(one or 0.0 for one in amounts), 2)
