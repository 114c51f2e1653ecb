"""``benchctl coverage``: what was measured, what was not, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.reading import reading_session
from benchctl.cli.render import Column, Output, emit, moment, output_options
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchctl.home import Home

NOTHING = "No server is known yet: run 'benchctl sweep --vendors local', or import a catalogue and results."


@click.command()
@click.option("--vendor", metavar="VENDOR", help="This vendor alone, server by server.")
@click.option("--servers", is_flag=True, help="Server by server: the largest model reached, or why there is no speed.")
@click.option("--models", is_flag=True, help="Model by model: how many servers reached it, and why others did not.")
@click.option("--tries", is_flag=True, help="Every try to rent a server that failed, with the vendor's words.")
@click.option("--why", metavar="REASON", help="Only servers without a speed for this reason, e.g. quota.")
@click.option(
    "--measured/--not-measured", default=None, help="Only servers with a speed on record, or only those without."
)
@output_options()
@click.pass_obj
def coverage(
    home: Home,
    vendor: str | None,
    servers: bool,
    models: bool,
    tries: bool,
    why: str | None,
    measured: bool | None,
    as_json: bool,
    as_csv: bool,
    query: str | None,
) -> None:
    """What was measured, what was not, and why: per vendor, per server or per model.

    Everything comes from recorded facts: how runs ended (exit code, outcome of each scenario, the vendor's own words),
    and what the catalogue says. A server counts as measured with one 'ok' row or more; it may have failed at larger
    models. Reasons and what they mean: docs/answers.md.

    The keys of --json are one per reason in the table of vendors, and one per outcome in that of models.
    """
    from benchctl.db import coverage as answers

    output = Output(as_json, as_csv, query)
    if tries and (servers or models or why is not None or measured is not None):
        raise UsageError("--tries is a list of its own.", "Give it with --vendor at most.")
    by_server = servers or why is not None or measured is not None or (vendor is not None and not models)
    if models and by_server:
        raise UsageError(
            "--models does not go together with a list of servers.", "Give --models with --vendor at most."
        )
    _require_reason(why)
    with reading_session(home) as session:
        if tries:
            answer = answers.tries(session, vendor)
            emit(answer.rows, TRY_COLUMNS, output, notes=answer.notes, empty="No try to rent a server failed yet.")
        elif models:
            answer = answers.by_model(session, vendor)
            emit(answer.rows, _model_columns(answer.rows), output, notes=answer.notes, empty="Nothing measured yet.")
        elif by_server:
            answer = answers.by_server(session, vendor, why, measured)
            emit(answer.rows, SERVER_COLUMNS, output, notes=answer.notes, empty="No server matches this question.")
        else:
            answer = answers.by_vendor(session)
            rows = answer.rows
            shown = rows if output.for_machines or len(rows) < 2 else [*rows, _total(rows)]
            notes = [*answer.notes, *(_meanings(rows) if rows and not output.for_machines else [])]
            emit(shown, _vendor_columns(rows), output, notes=notes, empty=NOTHING)


SERVER_COLUMNS = [
    Column("vendor_id", "vendor"),
    Column("api_reference", "server"),
    Column("memory_gib", "GiB", "right", lambda row: f"{row['memory_gib']:.4g}"),
    Column("gpu_model", "GPU", "left", lambda row: _gpu(row)),
    Column("models_reached", "models", "right"),
    Column("largest_model", "largest model"),
    Column("last_run_at", "last run (UTC)", "left", lambda row: moment(row["last_run_at"])),
    Column("why", "why not"),
    Column("detail", "in words"),
]


TRY_COLUMNS = [
    Column("vendor_id", "vendor"),
    Column("api_reference", "server"),
    Column("region", "region", "left", lambda row: row["region"] or ""),
    Column("zone", "zone", "left", lambda row: row["zone"] or ""),
    Column("tried_at", "when (UTC)", "left", lambda row: moment(row["tried_at"])),
    Column("refusal", "why", "left", lambda row: (row["refusal"] or "unknown words").replace("_", " ")),
    Column("said", "the vendor said"),
]


def _vendor_columns(rows: list[dict[str, Any]]) -> list[Column]:
    """What is known of every vendor, and a column for each reason that there is."""
    from benchctl.unmeasured import Why

    return [
        Column("vendor_id", "vendor"),
        Column("servers", "servers", "right"),
        Column("tried", "tried", "right"),
        Column("measured", "measured", "right"),
        Column("measured_share", "share", "right", lambda row: f"{row['measured_share']:.1%}"),
        *(Column(str(why), str(why).replace("_", " "), "right") for why in Why if any(row[str(why)] for row in rows)),
    ]


def _model_columns(rows: list[dict[str, Any]]) -> list[Column]:
    fixed = ("model", "model_file", "servers_reached", "servers_run", "reached_share")
    return [
        Column("model", "model"),
        Column("servers_reached", "servers", "right"),
        Column("servers_run", "of", "right"),
        Column("reached_share", "share", "right", lambda row: f"{row['reached_share']:.1%}"),
        *(
            Column(key, key.replace("_", " "), "right")
            for key in (rows[0] if rows else ())
            if key not in fixed and any(row[key] for row in rows)
        ),
    ]


def _total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """All vendors together; a row of the table alone, so that nobody who adds up the JSON counts twice."""
    total: dict[str, Any] = {key: sum(row[key] for row in rows) for key in rows[0] if key != "vendor_id"}
    return {"vendor_id": "all", **total, "measured_share": total["measured"] / total["servers"]}


def _meanings(rows: list[dict[str, Any]]) -> list[str]:
    from benchctl.unmeasured import WHY_MEANINGS, Why

    return [f"{str(why).replace('_', ' ')}: {WHY_MEANINGS[why]}." for why in Why if any(row[str(why)] for row in rows)]


def _require_reason(why: str | None) -> None:
    if why is None:
        return
    from benchctl.unmeasured import Why

    known = [str(one) for one in Why]
    if why not in known:
        import difflib

        near = difflib.get_close_matches(why, known, n=1)
        mend = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(known)}."
        raise UsageError(f"There is no reason '{why}'.", mend)


def _gpu(row: Mapping[str, Any]) -> str:
    count, model = row["gpu_count"], row["gpu_model"] or "GPU"
    return "" if not count else model if count == 1 else f"{count} x {model}"
