"""``benchctl sweep`` and ``benchctl plan``: the main job, and what it would do."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from benchctl.cli.options import FiniteRange, GroupedCommand
from benchctl.cli.render import Column, Output, emit, emit_json, number, output_options
from benchctl.errors import INTERRUPTED, JobsFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

    from sqlalchemy import Engine

    from benchctl.home import Home
    from benchctl.ledger import Ledger
    from benchctl.pipeline import Report
    from benchctl.plan import JobPlan, Place, Plan, Server, Speeds
    from benchctl.request import SweepRequest

    Command = TypeVar("Command", bound=Callable[..., Any])

WITH_RESUME = ("resume", "budget", "detach", "yes", "as_json", "query")
"""Options that go together with ``--resume``; the others are what the sweep was begun with."""


HEADINGS = {
    "What to measure": ("suite", "models", "weights", "mirror", "connections", "llama_bench", "threads", "device"),
    "Where": (
        *("vendors", "inventory", "servers", "regions", "missing", "failed", "older_than", "replicas"),
        *("spot", "image", "disk_gb"),
    ),
    "Money, and how much at once": ("price", "budget", "max_hours", "concurrency", "per_vendor"),
    "The way to the servers": ("ingress", "backend", "patience", "poll_seconds"),
    "Rehearsals (--vendors lab)": ("recorded", "time_scale"),
    "How it goes on": ("dry_run", "yes", "detach", "resume", "hook"),
}
"""Under which headings the help shows the options of ``sweep`` and ``plan``; those of all commands come last."""


def request_options(command: Command) -> Command:
    """The options that say what to measure, and where."""
    options = [
        click.option(
            "--vendors", metavar="LIST", default="local", show_default=True,
            help="Where: local (this machine), ssh (servers of one's own), clouds (aws, gcp, azure, hetzner, upcloud), "
            "or lab (containers here, a rehearsal).",
        ),
        click.option("--inventory", type=click.Path(), help="Ansible inventory with the servers of --vendors ssh."),
        click.option("--servers", metavar="GLOB,..", help="Only servers whose name matches one of these patterns."),
        click.option("--suite", default="quick", show_default=True, metavar="NAME|PATH", help="What to measure."),
        click.option(
            "--model", "models", multiple=True, metavar="MODEL",
            help="Measure this model instead of the suite's: a name, the path of a GGUF file, or "
            "hf:owner/repo/file.gguf. May be repeated.",
        ),
        click.option(
            "--weights", type=click.Choice(["auto", "real", "synthetic"]), default="auto", show_default=True,
            help="Real weights are downloaded; synthetic ones are random, in the same shapes, and just as fast.",
        ),
        click.option(
            "--llama-bench", type=click.Path(), help="This llama-bench.  [default: one on PATH, or a cached build]"
        ),
        click.option(
            "--mirror", envvar="BENCHCTL_MIRROR", metavar="URL",
            help="Folder with the model files, tried before their own addresses.  [env: BENCHCTL_MIRROR, for one with "
            "a password]",
        ),
        click.option("--connections", type=click.IntRange(1, 64), default=4, show_default=True, help="Per download."),
        click.option("--threads", type=click.IntRange(min=0), default=0, help="[default: physical cores]"),
        click.option(
            "--device", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True,
            help="GPUs where there are some, the CPU alone, or a GPU without fail.",
        ),
        click.option(
            "--price", metavar="PRICE",
            help="What this machine or a server of one's own costs, as 0.046USD/h; refused for clouds, whose prices "
            "the catalogue has.",
        ),
        click.option(
            "--budget", metavar="MONEY", help="The most that the sweep may cost, as 5USD; needs prices. 0 only plans."
        ),
        click.option("--regions", metavar="GLOB,..", help="Only regions or zones that match one of these patterns."),
        click.option("--spot", is_flag=True, help="Rent on the spot market, where there is one."),
        click.option(
            "--image", type=click.Choice(["ubuntu-24.04", "debian-12"]), default="ubuntu-24.04", show_default=True,
            help="What rented servers boot.",
        ),
        click.option(
            "--disk-gb", type=click.IntRange(10, 16000), metavar="GB",
            help="Boot disk of rented servers.  [default: what the models need, at least 75; the plan's at UpCloud]",
        ),
        click.option(
            "--replicas", type=click.IntRange(1, 20), default=1, show_default=True, help="Instances of each type."
        ),
        click.option(
            "--missing", is_flag=True,
            help="Only types of which there is no row at all for the suite's models and scenarios.",
        ),
        click.option("--failed", is_flag=True, help="Only types whose newest job failed."),
        click.option("--older-than", metavar="AGE", help="Only types measured last so long ago, as 90d."),
        click.option(
            "--max-hours", type=FiniteRange(0.25, 168), default=6.0, show_default=True,
            help="How long a rented server may exist at most.",
        ),
        click.option(
            "--recorded", metavar="PATH",
            help="Of the lab: its servers play the recorded runs of this archive or folder instead of measuring.",
        ),
        click.option(
            "--time-scale", type=FiniteRange(min=0.01), default=1.0, show_default=True,
            help="Of the lab: so many recorded seconds pass in one.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def renting_options(command: Command) -> Command:
    """The options that say how servers are rented; a plan does not depend on them."""
    options = [
        click.option(
            "--concurrency", type=click.IntRange(1, 1000), default=8, show_default=True,
            help="Rented servers that exist at once, in all.",
        ),
        click.option(
            "--per-vendor", type=click.IntRange(1, 1000), metavar="N",
            help="Rented servers of one vendor that exist at once.  [default: half of --concurrency, all of it where "
            "one vendor alone is named]",
        ),
        click.option(
            "--ingress", metavar="CIDR",
            help="From where servers let SSH in.  [default: this machine's own address, asked for over HTTPS]",
        ),
        click.option(
            "--backend", envvar="PULUMI_BACKEND_URL", metavar="URL",
            help="Where Pulumi keeps its state.  [env: PULUMI_BACKEND_URL; default: files in the state directory]",
        ),
        click.option(
            "--hook", envvar="BENCHCTL_HOOK", metavar="COMMAND|URL",
            help="Told of the end, of 80 % of the budget, and of a leak.  [env: BENCHCTL_HOOK]",
        ),
        click.option(
            "--patience", type=FiniteRange(min=1), default=900.0, show_default=True, metavar="SECONDS",
            help="How long a server may be out of reach before its job is given up.",
        ),
        click.option("--detach", is_flag=True, help="Leave the sweep running by itself; 'status --follow' watches it."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command(cls=GroupedCommand, headings=HEADINGS)
@request_options
@renting_options
@click.option(
    "--poll-seconds", type=FiniteRange(min=0.1), help="How often to look.  [default: local 1, ssh and clouds 15]"
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--yes", is_flag=True, help="Don't ask. Without it what costs money, or runs on servers, is asked for.")
@click.option(
    "--resume",
    metavar="SWEEP",
    help="Go on with this sweep (or the beginning of its name, or 'last'); --budget gives it another one from then on.",
)
@output_options(csv=False)
@click.pass_context
def sweep(
    ctx: click.Context,
    /,
    dry_run: bool,
    yes: bool,
    resume: str | None,
    detach: bool,
    as_json: bool,
    query: str | None,
    **asked: Any,
) -> None:
    """Plan, measure, collect, ingest: the main job.

    Shows the plan, measures, and ends with a table of what was measured; rows go into the database, raw files into the
    lake. Ctrl-C stops cleanly and keeps what is measured, and --resume goes on.

    Servers of clouds are rented, measured, and destroyed; a sweep begins and ends with a look at what the clouds list
    of ours. Should this process be killed, 'benchctl reap' destroys what it left, and --resume goes on.

    Exit status: 0 all went well, 1 an error, 2 wrong usage, 3 some jobs failed, 130 interrupted.
    """
    from benchctl import ledger
    from benchctl.plan import parse_budget

    home: Home = ctx.obj
    output = Output(as_json, query=query)
    if resume is not None:
        _refuse_options(ctx)
        name = ledger.find_sweep(home, resume)
        if asked["budget"]:
            _change_budget(home, name, asked["budget"])
        if detach:
            _detach(ctx, home, name)
        else:
            _resume(ctx, home, name, output)
        return
    request = request_from(asked)
    paid = not (request.budget and not parse_budget(request.budget)[0])
    if request.clouds and paid and not dry_run:
        from benchctl.clouds.ready import require_ready

        require_ready(home, request.clouds, os.environ)
    planned = plan_of(request, home)
    if output.for_machines and not dry_run and paid and not yes and _asked_for(request):
        # nobody says yes to what was not shown
        with redirect_stdout(sys.stderr):
            show_plan(planned, Output(), alone=False)
    else:
        show_plan(planned, output, dry_run)
    if dry_run:
        return
    if not paid:
        click.echo("Nothing is begun with a budget of 0.", err=True)
        return
    if not planned.running:
        raise UsageError("There is nothing to measure: every server is left out.", "The plan says why.")
    _confirm(request, yes)
    from benchctl.pipeline import machine_held

    home.ensure()
    name = ledger.sweep_name(request.vendors, datetime.now(UTC))
    with _database(home) as engine, machine_held(home, request, name):
        binary = _llama_bench(home, request)
        request = replace(request, llama_bench=str(binary))
        book = ledger.Ledger.create(home, engine, request, jobs_of_plan(planned), sweep=name)
        if not detach:
            _run(ctx, book, engine, binary, output)
    if detach:  # after the locks of this process are free
        _detach(ctx, home, name)


@click.command(cls=GroupedCommand, headings=HEADINGS)
@request_options
@output_options()
@click.pass_obj
def plan(home: Home, /, as_json: bool, as_csv: bool, query: str | None, **asked: Any) -> None:
    """What a sweep would do and cost, and what it leaves out and why.

    "At most" is the sum of all time limits. "Expected" uses speeds measured earlier on the same server; without them it
    is a rough guess from cores and model size.

    For clouds it needs a catalogue ('benchctl catalog pull') and no login. A rented server's lifetime is the time after
    which it is ended whatever happens; "committed" is what that long costs in its cheapest place, "where dearest" in
    the dearest of those that are tried where it is sold out. Only a budget is a limit of the whole.
    """
    show_plan(plan_of(request_from(asked), home), Output(as_json, as_csv, query), alone=True)


def request_from(asked: Mapping[str, Any]) -> SweepRequest:
    """Check the options and make a request of them.

    Raises:
        UsageError: an option names what is not there.
        SettingsFileError: the suite's file is wrong.
    """
    from benchctl.models import resolve_model
    from benchctl.plan import parse_budget, parse_price
    from benchctl.request import LOCAL, SSH, SweepRequest
    from benchctl.suites import load_suite

    vendors = _vendors(asked["vendors"])
    _require_clouds(asked, vendors)
    if asked["inventory"] and SSH not in vendors:
        raise UsageError("--inventory belongs to --vendors ssh.", "Give --vendors ssh, or leave out --inventory.")
    if asked["price"]:
        parse_price(asked["price"])
    if asked["budget"]:
        parse_budget(asked["budget"])
    _require_addresses(asked)
    suite = load_suite(asked["suite"])
    named = asked["models"] or suite.model_names
    models = tuple({model.name: model for model in map(resolve_model, named)}.values())
    on_disk = [model.name for model in models if model.path]
    if on_disk and vendors != (LOCAL,):
        raise UsageError(
            f"{on_disk[0]} is a file on this machine, and the servers don't have it.",
            "Name a known model, or give hf:owner/repo/file.gguf.",
        )
    return SweepRequest(
        vendors=vendors,
        suite=replace(suite, model_names=tuple(model.name for model in models)),
        models=models,
        inventory=os.path.abspath(asked["inventory"]) if asked["inventory"] else "",  # noqa: PTH100 - may not exist
        servers=_list(asked["servers"]),
        # what is played reads no weights; files without a body stand in for them
        weights="synthetic" if asked["recorded"] else asked["weights"],
        llama_bench=asked["llama_bench"] or "",
        mirror=asked["mirror"] or "",
        connections=asked["connections"],
        threads=asked["threads"],
        device=asked["device"],
        price=asked["price"] or "",
        budget=asked["budget"] or "",
        poll_seconds=asked.get("poll_seconds") or 0.0,
        regions=_list(asked["regions"]),
        spot=asked["spot"],
        image=asked["image"],
        disk_gb=asked["disk_gb"] or 0,
        replicas=asked["replicas"],
        only=",".join(one for one in ("missing", "failed") if asked[one]),
        older_than=_older_than(asked["older_than"], datetime.now(UTC)) if asked["older_than"] else "",
        max_hours=asked["max_hours"],
        recorded=str(Path(asked["recorded"]).absolute()) if asked["recorded"] else "",
        time_scale=asked["time_scale"],
        per_vendor=_per_vendor(asked, vendors),
        **_renting(asked),
    )


def _per_vendor(asked: Mapping[str, Any], vendors: Sequence[str]) -> int:
    """How many servers of one vendor may exist at once: all of them where it is the only cloud, else half."""
    from benchctl.request import CLOUDS, SweepRequest

    concurrency: int = asked.get("concurrency", SweepRequest.concurrency)
    several = sum(one in CLOUDS for one in vendors) > 1
    return asked.get("per_vendor") or (max(1, (concurrency + 1) // 2) if several else concurrency)


def _renting(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the options of :func:`renting_options` ask for; nothing for a plan, which has none of them."""
    if "concurrency" not in asked:
        return {}
    from benchctl.clouds.ingress import parse_ingress
    from benchctl.hooks import settled

    return {
        "concurrency": asked["concurrency"],
        "ingress": parse_ingress(asked["ingress"]) if asked["ingress"] else "",
        "backend": asked["backend"] or "",
        "hook": settled(asked["hook"] or ""),
        "patience_seconds": asked["patience"],
    }


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(one.strip() for one in (text or "").split(",") if one.strip())


_OF_RENTED = (
    *("regions", "spot", "image", "disk_gb", "replicas", "missing", "failed", "older_than", "max_hours"),
    *("concurrency", "per_vendor", "ingress"),
)
"""Options that say nothing of servers which are there already."""


def _given(name: str) -> bool:
    """Whether an option stands on the command line, whatever its value."""
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE


def _require_clouds(asked: Mapping[str, Any], vendors: Sequence[str]) -> None:
    """Refuse options that say nothing of servers which are there already, and those that a cloud has no use for.

    Raises:
        UsageError: there is one.
    """
    from benchctl.request import CLOUDS, LAB

    if asked["recorded"] and tuple(vendors) != (LAB,):
        raise UsageError("--recorded is for the lab alone: nothing else plays.", "Give --vendors lab, or leave it out.")
    rented = any(one in CLOUDS for one in vendors)
    for name in _OF_RENTED:
        if _given(name) and not rented:
            raise UsageError(
                f"--{name.replace('_', '-')} belongs to vendors whose servers are rented.",
                f"Name one of {', '.join(CLOUDS)} with --vendors, or leave it out.",
            )
    if _given("time_scale") and LAB not in vendors:
        raise UsageError("--time-scale is for the lab alone: nothing else plays.", "Leave it out.")
    if asked["price"] and rented:
        raise UsageError("--price is for servers of one's own; clouds' prices are the catalogue's.", "Leave it out.")


def _require_addresses(asked: Mapping[str, Any]) -> None:
    """Refuse what is no URL where one is asked for; it is not repeated, for a password may stand in it.

    Raises:
        UsageError: there is one.
    """
    from benchctl.request import is_address

    mirror, backend = asked["mirror"], asked.get("backend")
    if mirror and not mirror.startswith("/") and not is_address(mirror):
        raise UsageError("--mirror is no address.", "Give https://HOST/FOLDER, or the absolute path of a folder.")
    if backend and not is_address(backend):
        raise UsageError("--backend is no address.", "Give one that Pulumi knows, as file://PATH or s3://BUCKET.")


_AGES = {"h": 1 / 24, "d": 1.0, "w": 7.0}


def _older_than(text: str, now: datetime) -> str:
    """The time that was so long ago, ISO in UTC: ``90d``, ``12h`` or ``2w``.

    Raises:
        UsageError: it is no such time.
    """
    found = re.fullmatch(r"(\d{1,5}(?:\.\d+)?)([hdw])", text.strip().lower())
    if found is None:
        raise UsageError(f"'{text}' is no age.", "Give a number of hours, days or weeks, as 12h, 90d or 4w.")
    return (now - timedelta(days=float(found[1]) * _AGES[found[2]])).isoformat(timespec="seconds")


def plan_of(request: SweepRequest, home: Home) -> Plan:
    """The plan of a request; nothing is written for it."""
    from benchctl.plan import make_plan, parse_budget
    from benchctl.servers import find_servers

    found = find_servers(request, home)
    budget = parse_budget(request.budget) if request.budget else None
    return make_plan(
        request.suite,
        request.models,
        found.servers,
        weights=request.weights,
        known=_known_speeds(home, found.servers),
        # with a budget of nothing the plan is all that there is: it says what everything would cost
        budget=budget if budget and budget[0] else None,
        max_hours=request.max_hours,
        disk_gb=request.disk_gb,
        at_once=(request.concurrency, request.per_vendor),
        notes=found.notes,
    )


def show_plan(planned: Plan, output: Output, alone: bool) -> None:
    """Print the plan: as the command's answer (``alone``), or before the sweep begins, and then for people only."""
    from benchctl.view import duration

    if output.for_machines and not alone:
        return
    from benchctl.cli import rented_plan

    rows = plan_rows(planned)
    notes = [*_totals(planned), *rented_plan.of_budget(planned), *planned.notes]
    if any(job.server.rented for job in planned.jobs):
        notes = rented_plan.notes(planned)
        if not output.for_machines:
            rented_plan.show(planned, notes, alone)
            return
    columns = [
        Column("server", "server"),
        Column("model", "model"),
        Column("scenarios", "scenarios", "right"),
        Column("fetch_bytes", "to fetch, MiB", "right", lambda row: f"{row['fetch_bytes'] / 1024**2:.0f}"),
        Column("expected_seconds", "expected", "right", lambda row: duration(row["expected_seconds"])),
        Column("limit_seconds", "at most", "right", lambda row: duration(row["limit_seconds"])),
        Column("left_out", "left out because"),
    ]
    if any(row["expected_cost"] is not None for row in rows):
        columns.insert(-1, Column("expected_cost", "expected cost", "right", _cost("expected_cost")))
        columns.insert(-1, Column("limit_cost", "cost at most", "right", _cost("limit_cost")))
    title = f"Suite {planned.suite.name}, {planned.weights} weights" if alone else f"Plan: suite {planned.suite.name}"
    emit(rows, columns, output, title=title, notes=notes)
    if not alone:
        click.echo()


def plan_rows(planned: Plan) -> list[dict[str, Any]]:
    """The plan as plain objects, one per model of each job."""
    rows = []
    for job in planned.jobs:
        price = job.server.price
        own = {"job": job.job, "vendor": job.server.vendor, "server": job.server.name}
        rented = _rented_keys(job)
        for one in job.models:
            left_out = job.left_out or one.left_out
            expected = None if left_out else one.expected_seconds
            limit = 0.0 if left_out else one.limit_seconds
            rows.append(
                {
                    **own,
                    "model": one.model.name,
                    "scenarios": one.scenarios,
                    "scenarios_expected_too_slow": one.expected_skips,
                    "fetch_bytes": one.fetch_bytes,
                    "expected_seconds": expected,
                    "limit_seconds": limit,
                    "expected_cost": price.cost(expected) if price and expected is not None else None,
                    "limit_cost": price.cost(limit) if price else None,
                    "currency": price.currency if price else None,
                    "left_out": left_out,
                    **rented,
                }
            )
        if not job.models:
            rows.append({**dict.fromkeys(_MODEL_KEYS), **own, "left_out": job.left_out, **rented})
    return rows


_MODEL_KEYS = (
    "job", "vendor", "server", "model", "scenarios", "scenarios_expected_too_slow", "fetch_bytes", "expected_seconds",
    "limit_seconds", "expected_cost", "limit_cost", "currency",
)  # fmt: skip


def _rented_keys(job: JobPlan) -> dict[str, Any]:
    """What a row says of its whole job, where its server is rented."""
    from benchctl.rented_plan import committed_cost, dearest_cost, expected_cost

    if not job.server.rented:
        return {}
    place = job.server.places[0] if job.server.places else None
    return {
        "replica": job.server.replica,
        "allocation": job.server.allocation,
        "architecture": job.server.architecture,
        "gpus": job.server.gpus,
        "places": len(job.server.places),
        "region": place.region if place else None,
        "price_per_hour": job.server.price.per_hour if job.server.price else None,
        "session_seconds": job.session_seconds,
        "lifetime_seconds": job.lifetime_seconds,
        "disk_gb": job.disk_gb,
        "job_expected_cost": expected_cost(job),
        "job_committed_cost": committed_cost(job),
        "job_dearest_cost": dearest_cost(job),
    }


def _cost(key: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: "" if row[key] is None else f"{number(row[key], 3)} {row['currency']}"


def _totals(planned: Plan) -> list[str]:
    from benchctl.view import duration

    told = []
    for job in planned.running:
        parts = [f"{job.scenarios} scenarios"]
        if job.expected_seconds is not None:
            basis = "from earlier measurements" if job.measured_before else "a guess"
            parts.append(f"about {duration(job.expected_seconds)} ({basis})")
        parts.append(f"at most {duration(job.limit_seconds)} and what is fetched")
        price = job.server.price
        if price is not None:
            seconds = job.limit_seconds if job.expected_seconds is None else job.expected_seconds
            parts.append(f"about {number(price.cost(seconds), 3)} {price.currency} at {price}")
        told.append(f"{job.server.name}: {', '.join(parts)}.")
    return told


def _vendors(text: str) -> tuple[str, ...]:
    from benchctl.cli.options import parse_vendors
    from benchctl.request import LOCAL, VENDORS

    names = parse_vendors(text, VENDORS)
    if LOCAL in names and len(names) > 1:
        raise UsageError(
            "This machine can't be measured while it controls other servers: that would disturb the measurement.",
            "Run two sweeps, one after the other.",
        )
    return names


def _known_speeds(home: Home, servers: Sequence[Server]) -> Mapping[tuple[str, str], Speeds]:
    """What was measured on these servers before; nothing where there is no database yet."""
    from benchctl.db.engine import open_database, reading
    from benchctl.db.selection import known_speeds

    engine = open_database(home.database_url, create=False)
    try:
        with reading(engine) as session:
            return known_speeds(session, {server.key for server in servers if not server.left_out})
    finally:
        engine.dispose()


def _confirm(request: SweepRequest, yes: bool) -> None:
    """Ask before money is spent or other machines are used; measuring this one for nothing needs no question."""
    if yes or not _asked_for(request):
        return
    if not sys.stdin.isatty():
        raise UsageError("Nobody is there to say yes.", "Give --yes.")
    click.confirm("Go on?", abort=True, err=True)


def _asked_for(request: SweepRequest) -> bool:
    from benchctl.request import LOCAL

    return LOCAL not in request.vendors or bool(request.price)


def _refuse_options(ctx: click.Context) -> None:
    for option in ctx.command.params:
        name = str(option.name)
        given = ctx.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
        if given and name not in WITH_RESUME:
            raise UsageError(
                f"{option.opts[0]} does not go together with --resume: a sweep goes on as it was begun.",
                "Leave it out, or begin a new sweep.",
            )


def _detach(ctx: click.Context, home: Home, name: str) -> None:
    """Leave a sweep to a process of its own."""
    from benchctl import detach, pipeline

    pipeline.resumable(home, name)
    log = detach.detach(home, name)
    click.echo(f"Sweep {name} runs by itself.", err=True)
    click.echo(f"Watch it:  benchctl status {name} --follow", err=True)
    click.echo(f"It says:   {log}", err=True)
    click.echo(name)
    ctx.exit(0)


def _change_budget(home: Home, name: str, budget: str) -> None:
    from benchctl import pipeline

    pipeline.resumable(home, name)
    with _database(home) as engine:
        pipeline.change_budget(home, engine, name, budget)


def _resume(ctx: click.Context, home: Home, name: str, output: Output) -> None:
    from benchctl import ledger, pipeline

    pipeline.resumable(home, name)
    home.ensure()
    with _database(home) as engine:
        book = ledger.Ledger.open(home, engine, name)
        with pipeline.machine_held(home, book.request, name):
            there = Path(book.request.llama_bench)
            binary = there if there.is_file() else _llama_bench(home, replace(book.request, llama_bench=""))
            _run(ctx, book, engine, binary, output)


@contextmanager
def _database(home: Home) -> Iterator[Engine]:
    from benchctl.db.engine import open_database

    engine = open_database(home.database_url)
    try:
        yield engine
    finally:
        engine.dispose()


def _llama_bench(home: Home, request: SweepRequest) -> Any:
    """The llama-bench to measure with, found or built; every line about it on stderr."""
    from benchctl.llama_bench_binary import resolve
    from benchctl.request import LOCAL

    if request.recorded:
        from benchctl.lab import recordings

        return recordings.program(home.cache)
    found = resolve(
        home,
        request.llama_bench or None,
        report=lambda line: click.echo(line, err=True),
        alone=LOCAL not in request.vendors,
    )
    click.echo(found.describe(), err=True)
    return found.path


def jobs_of_plan(planned: Plan) -> list[Any]:
    """The jobs of a new sweep, as its book begins."""
    from benchctl.ledger import JobState

    return [
        JobState(
            job=one.job,
            vendor=one.server.vendor,
            server=one.server.name,
            server_id=one.server.server_id,
            host=one.server.host,
            price_per_hour=one.server.price.per_hour if one.server.price else None,
            currency=one.server.price.currency if one.server.price else None,
            session_seconds=one.session_seconds,
            replica=one.server.replica,
            architecture=one.server.architecture,
            gpus=one.server.gpus,
            vcpus=one.server.vcpus,
            memory_gib=one.server.machine.memory_bytes / 1024**3 if one.server.machine else 0.0,
            disk_gb=one.disk_gb,
            allocation=one.server.allocation,
            places=tuple(map(_place, one.server.places)),
            lifetime_seconds=one.lifetime_seconds,
        )
        for one in planned.running
    ]


def _place(place: Place) -> dict[str, Any]:
    return {
        "region": place.region,
        "zone": place.zone,
        "price_per_hour": place.price.per_hour if place.price else None,
        "currency": place.price.currency if place.price else None,
        "budget_per_hour": place.budget_per_hour,
    }


def _run(ctx: click.Context, book: Ledger, engine: Engine, binary: Any, output: Output) -> None:
    """Run the sweep to its end, or to the user's, and show what came of it."""
    from benchctl.detach import LOG
    from benchctl.pipeline import Sweep, ended_well
    from benchctl.playbook import AnsiblePlaybook
    from benchctl.view import view_for

    view = view_for()
    view.say(f"Sweep {book.sweep}")
    try:
        with _interruptible(view.close, book.folder / LOG) as cancelled:
            report = Sweep(
                book, engine, binary, playbook=AnsiblePlaybook(book.folder / "runs"), view=view, cancelled=cancelled
            ).run()
    finally:
        view.close()
    _show(ctx, report, output)
    again = f"{os.environ.get('BENCHCTL_COMMAND', 'benchctl sweep')} --resume {report.sweep}"
    if cancelled.is_set():
        click.echo(f"Stopped. Go on with: {again}", err=True)
        ctx.exit(INTERRUPTED)
    failed = [job for job in report.jobs if not ended_well(job)]
    if failed:
        told = "; ".join(f"{job.job}: {job.error or job.status}" for job in failed)
        raise JobsFailedError(
            f"{len(failed)} of {len(report.jobs)} jobs did not end well. {told}",
            f"'{again}' goes on with what has no outcome yet; what has one is measured again by a new sweep.",
        )


@contextmanager
def _interruptible(restore: Callable[[], None], log: Path) -> Iterator[threading.Event]:
    """Ctrl-C (or SIGTERM) asks for a clean end; a second one ends at once, and what runs on goes on by itself.

    So does the end of the terminal (SIGHUP, unless it is ignored, as under nohup): what would be written to it goes to
    ``log``, and a second hang-up, which a shell and the kernel may both send, ends nothing.
    """
    cancelled = threading.Event()
    terminals = [number for number in (0, 1, 2) if os.isatty(number)]

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if cancelled.is_set():
            restore()
            os._exit(INTERRUPTED)
        cancelled.set()

    def hang_up(_number: int, _frame: FrameType | None) -> None:
        # a write to a terminal that is gone fails, and would end what destroys the servers
        try:
            elsewhere = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError:
            elsewhere = os.open(os.devnull, os.O_RDWR)
        for number in terminals:
            os.dup2(elsewhere, number)
        cancelled.set()

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)
    try:
        yield cancelled
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(ctx: click.Context, report: Report, output: Output) -> None:
    """The table of what was measured and where it is, or all of it as one JSON object."""
    from benchctl.db import queries

    home: Home = ctx.obj
    if output.for_machines:
        from benchctl.db.engine import open_database, reading

        engine = open_database(home.database_url, create=False)
        try:
            with reading(engine) as session:
                question = queries.Question(sweep=report.sweep, weights="all", all_outcomes=True)
                rows = queries.measurements(session, question).rows
        finally:
            engine.dispose()
        emit_json(
            {
                "sweep": report.sweep,
                "status": report.status,
                "outcomes": dict(report.outcomes),
                "noisy": report.noisy,
                "database": report.database,
                "lake": str(report.lake),
                "jobs": [_job_object(job) for job in report.jobs],
                "measurements": rows,
            },
            output.query,
        )
        return
    from benchctl.cli.answers import show

    click.echo()
    if report.outcomes:
        ctx.invoke(
            show, server=None, sweep=report.sweep, model=None, task=None, all_outcomes=True, plot=None, weights="all",
            as_json=False, as_csv=False, query=None,
        )  # fmt: skip
    counted = ", ".join(f"{count} {outcome}" for outcome, count in report.outcomes.items()) or "nothing measured"
    noisy = f"; {report.noisy} noisy" if report.noisy else ""
    click.echo(f"\nOutcomes: {counted}{noisy}")
    click.echo(f"Rows:      {report.database}")
    click.echo(f"Raw files: {report.lake}")


def _job_object(job: Any) -> dict[str, Any]:
    keys = (
        "job",
        "vendor",
        "server",
        "status",
        "stage",
        "error",
        "started_at",
        "ended_at",
        "price_per_hour",
        "currency",
    )
    return {key: getattr(job, key) for key in keys}
