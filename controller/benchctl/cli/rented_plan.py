"""The plan of a sweep over clouds as people read it: a line per server, totals per vendor, what is left out and why."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.render import Column, Output, emit, number
from benchctl.rented_plan import committed_cost, dearest_cost, expected_cost, whole_seconds
from benchctl.rented_plan import of_budget as reckon
from benchctl.view import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchctl.plan import JobPlan, Plan

NAMED = 3
"""Servers that a line about those left out names."""


def notes(planned: Plan) -> list[str]:
    """All that a reader of the plan must know besides its rows."""
    return [*totals(planned), *of_budget(planned), *left_out(planned), *planned.notes]


def show(planned: Plan, told: Sequence[str], alone: bool) -> None:
    """Print the plan for people: in the order in which servers are rented.

    Args:
        planned: the plan.
        told: its :func:`notes`.
        alone: whether it is the command's answer, or stands before a sweep that begins.
    """
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
        Column("dearest_cost", "where dearest", "right"),
    ]
    title = f"Suite {planned.suite.name}, {planned.weights} weights" if alone else f"Plan: suite {planned.suite.name}"
    emit(
        [_row(job) for job in planned.running], columns, Output(False), title=title, notes=told,
        empty="Nothing would be measured.",
    )  # fmt: skip
    if not alone:
        click.echo()


def totals(planned: Plan) -> Iterator[str]:
    """What each vendor's servers should cost, and can cost, in the currency of its prices."""
    groups: dict[tuple[str, str], list[JobPlan]] = defaultdict(list)
    for job in planned.running:
        groups[job.server.vendor, job.server.price.currency if job.server.price else ""].append(job)
    for (vendor, currency), jobs in sorted(groups.items()):
        count = _servers(jobs)
        if not currency:
            yield f"{vendor}: {count}, of unknown price."
            continue
        told = f"{vendor}: {count}, about {_sum(map(expected_cost, jobs))} {currency}; "
        committed, dearest = _sum(map(committed_cost, jobs)), _sum(map(dearest_cost, jobs))
        if not jobs[0].server.rented:
            yield f"{told}at most {committed} {currency}."
            continue
        told = f"{told}committed, if all live to their end, {committed} {currency}"
        yield f"{told}." if dearest == committed else f"{told}, or {dearest} {currency} where each is dearest."
    if any(job.server.rented for job in planned.running):
        yield (
            "Committed is for the cheapest places. Where a server is sold out there, dearer ones are tried, and a try "
            "that fails may cost something: only --budget is a limit of the whole."
        )
        yield from _all_together(planned)


def _all_together(planned: Plan) -> Iterator[str]:
    """Money and time over all vendors; no time where that of a server can't be expected."""
    jobs = planned.running
    costs: dict[str, float] = defaultdict(float)
    for job in jobs:
        if job.server.price:
            costs[job.server.price.currency] += expected_cost(job) or 0.0
    told = " + ".join(f"{number(cost, 2)} {currency}" for currency, cost in sorted(costs.items()))
    parts = [_servers(jobs), *([f"about {told}"] if told else [])]
    if all(job.expected_seconds is not None for job in jobs):
        most, of_vendor = planned.at_once
        parts.append(f"in about {duration(whole_seconds(jobs, most, of_vendor))} with {most} at once")
        if of_vendor < most:
            parts[-1] += f", {of_vendor} of one vendor"
    yield f"All together: {', '.join(parts)}."


def _servers(jobs: Sequence[JobPlan]) -> str:
    return f"{len(jobs)} server{'s' if len(jobs) != 1 else ''}"


def of_budget(planned: Plan) -> Iterator[str]:
    """How much of the budget is planned, over all vendors and in its currency; nothing without one."""
    if planned.budget is None:
        return
    amount, currency = planned.budget
    expected, committed, rates = reckon(planned.running, currency)
    converted = "".join(f"; 1 {name} is reckoned as {number(rate)} {currency}" for name, rate in sorted(rates.items()))
    yield (
        f"Budget: {number(committed, 2)} of {amount:g} {currency} committed at the planned places, about "
        f"{number(expected, 2)} expected{converted}."
    )
    if committed > amount:
        yield "That is more than there is: servers wait until others have ended, and cost less than was committed."


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
        "dearest_cost": _money(dearest_cost(job), currency),
    }


def _money(amount: float | None, currency: str) -> str:
    return "" if amount is None else f"{number(amount, 2)} {currency}"


def _sum(amounts: Iterable[float | None]) -> str:
    return number(sum(one or 0.0 for one in amounts), 2)
