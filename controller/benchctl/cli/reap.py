"""``benchctl reap``: destroy what should not be alive, by asking the clouds."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.render import Column, Output, emit, emit_json, number, output_options
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from benchctl.clouds.reaper import ReapReport
    from benchctl.home import Home

COLUMNS = [
    Column("vendor", "vendor"),
    Column("kind", "kind"),
    Column("name", "name"),
    Column("region", "where", "left", lambda row: row["zone"] or row["region"]),
    Column("sweep", "sweep"),
    Column("job", "job"),
    Column("expires_at", "time left", "left", lambda row: _time_left(row["expires_at"])),
    Column("outcome", "outcome"),
    Column("reason", "why"),
]

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Span(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic in new versions of click alone
    """A time as ``90``, ``30m``, ``2h`` or ``1d``; seconds when nothing stands behind it."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """In seconds."""
        if isinstance(value, float | int):
            return float(value)
        found = _SPAN.fullmatch(str(value).strip().lower())
        if found is None:
            self.fail(f"'{value}' is no time; give one as 90s, 30m, 2h or 1d.", param, ctx)
        return float(found[1]) * _SECONDS[found[2]]


@click.command()
@click.option(
    "--sweep", metavar="SWEEP", help="Only what belongs to this sweep (or the beginning of its name, or last)."
)
@click.option(
    "--all", "everything", is_flag=True, help="Also what belongs to sweeps that this state directory does not know."
)
@click.option(
    "--dry-run", is_flag=True, help="Look, say what would be destroyed (exit status 1 for that), and destroy nothing."
)
@click.option(
    "--vendors",
    metavar="LIST",
    help="Only these.  [default: all that there is a login for, or that may hold something]",
)
@click.option(
    "--grace",
    type=Span(),
    default="0",
    show_default=True,
    metavar="TIME",
    help="Leave a sweep that nobody runs alone until it was silent for so long, as 30m.",
)
@click.option(
    "--settle",
    type=Span(),
    default="60",
    show_default=True,
    metavar="TIME",
    help="Go on looking for what was asked for so lately that the cloud may not list it yet.",
)
@click.option(
    "--timeout",
    type=Span(),
    default="15m",
    show_default=True,
    metavar="TIME",
    help="Give the clouds up after this; what is still there then is a leak. Ending the engines of killed controllers, "
    "before, and removing Pulumi's state of what is gone, after, may take 30 minutes more.",
)
@click.option(
    "--hook",
    metavar="COMMAND|URL",
    envvar="BENCHCTL_HOOK",
    show_envvar=True,
    help="Told of a leak, besides the hooks of the sweeps.",
)
@click.option(
    "--backend",
    metavar="URL",
    default="",
    help="Where Pulumi's state lies, besides that of the sweeps.  "
    "[env: PULUMI_BACKEND_URL; default: files in the state directory]",
)
@click.option(
    "--login-changed",
    is_flag=True,
    help="The logins are of the accounts and projects that rented, though they have changed: believe their lists.",
)
@click.option("--yes", is_flag=True, help="Don't ask before things of unknown sweeps are destroyed (--all).")
@output_options(csv=False)
@click.pass_context
def reap(
    ctx: click.Context,
    /,
    sweep: str | None,
    everything: bool,
    dry_run: bool,
    vendors: str | None,
    grace: float,
    settle: float,
    timeout: float,
    hook: str | None,
    backend: str,
    login_changed: bool,
    yes: bool,
    as_json: bool,
    query: str | None,
) -> None:
    """Destroy what should not be alive, by asking the clouds.

    Lists what each vendor's API has of ours, and destroys what is expired, what a job that ended left behind, and what
    belongs to a sweep that nobody runs (its controller is gone). It ends well only once the API no longer lists it.
    What a sweep that runs still uses is left alone. What belongs to sweeps that are not known here goes only when its
    time is over, or with --all.

    Exit status: 0 nothing is left that should not be, 1 something is (with --dry-run: would be destroyed), or a vendor
    did not say all that it may hold: it answered with another login than the sweep's, or not in all of its regions, or
    could not be asked. That counts for a vendor that --vendors names, for one with a login that is incomplete or can't
    be used, and where the books hold something; 2 wrong usage.
    """
    from benchctl.clouds import reaper
    from benchctl.db.engine import open_database
    from benchctl.hooks import settled

    home: Home = ctx.obj
    output = Output(as_json, query=query)
    options: dict[str, Any] = {
        "sweep": _sweep(home, sweep, everything),
        "everything": everything,
        "grace_seconds": grace,
        "vendors": _vendors(vendors),
        "patience": reaper.Patience(deadline_seconds=timeout, settle_seconds=settle),
        "backend": backend,
        "login_changed": login_changed,
        "hook": settled(hook or ""),
        "report": lambda line: click.echo(line, err=True),
    }
    home.ensure()
    engine = open_database(home.database_url)
    try:
        if everything and not dry_run and not yes:
            _confirm(reaper.reap(home, engine, dry_run=True, **options), output)
        result = reaper.reap(home, engine, dry_run=dry_run, **options)
    finally:
        engine.dispose()
    _show(result, output)
    if not result.clean:
        ctx.exit(1)


def _sweep(home: Home, name: str | None, everything: bool) -> str:
    """The sweep that is meant; with ``everything`` also one that is not known here, by its whole name."""
    from benchctl.ledger import find_sweep, sweep_names
    from benchctl.names import LAST

    if not name:
        return ""
    if everything and name != LAST and not any(known.startswith(name) for known in sweep_names(home)):
        return name
    try:
        return find_sweep(home, name)
    except UsageError as error:
        raise UsageError(
            error.problem, f"{error.mend} What a lost state directory left: --all with the sweep's whole name."
        ) from error


def _vendors(text: str | None) -> tuple[str, ...] | None:
    from benchctl.cli.options import parse_vendors
    from benchctl.request import CLOUDS

    return None if text is None else parse_vendors(text, CLOUDS, "cloud")


def _confirm(seen: ReapReport, output: Output) -> None:
    """Ask before things are destroyed that may be somebody else's."""
    from benchctl.clouds.reaper import plain
    from benchctl.clouds.verdicts import Decision

    foreign = [one for one in seen.findings if one.verdict.decision is Decision.ASKED]
    if not foreign:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            f"{_things(len(foreign))} of sweeps that are not known here would be destroyed, and nobody is there to say "
            "yes.",
            "Look with --dry-run, then give --yes.",
        )
    if not output.for_machines:
        emit([plain(one) for one in foreign], COLUMNS, output, title="Of sweeps that are not known here:")
    click.confirm(f"Destroy {_things(len(foreign)).lower()} that may be somebody else's?", abort=True, err=True)


def _show(result: ReapReport, output: Output) -> None:
    from benchctl.clouds.reaper import plain

    rows = [plain(one) for one in result.findings]
    if output.for_machines:
        emit_json(
            {
                "clean": result.clean,
                "dry_run": result.dry,
                "found": rows,
                "leaks": [plain(one) for one in result.leaks],
                "not_asked": dict(result.problems),
                "answered_in_part": list(result.partly),
                "asked": list(result.asked),
                "skipped": dict(result.skipped),
                "stacks_removed": list(result.stacks),
                "notes": list(result.notes),
            },
            output.query,
        )
    elif rows:
        emit(rows, COLUMNS, output)
    for note in result.notes:
        click.echo(note, err=True)
    if result.skipped and not output.for_machines:
        say_skipped(result.skipped)
    say_problems(result.problems, result.partly)
    for leak in result.leaks:
        click.echo(_leak(plain(leak)), err=True)
    if not output.for_machines:
        click.echo(_summary(result))


def say_skipped(skipped: Mapping[str, str]) -> None:
    """Which vendors were not asked, and why."""
    click.echo("Not asked, for there is no login, and the books hold nothing there:")
    for vendor, why in skipped.items():
        click.echo(f"  {vendor}: {why.removeprefix(f'{vendor}: ')}")


def say_problems(problems: Mapping[str, str], partly: Collection[str]) -> None:
    """Which vendors may hold more than is known: those of ``partly`` answered, the others could not be asked."""
    for vendor, why in problems.items():
        answered = vendor in partly
        what = (
            "answered, and may hold more than it listed" if answered else "could not be asked, and may hold something"
        )
        click.echo(f"{vendor} {what}: {why}", err=True)


def no_cloud(asked: Collection[str], skipped: Collection[str], problems: Collection[str]) -> str:
    """That nobody looked into any cloud, as no login of one is set; empty where somebody did, or was to.

    The lab is this machine, and asked wherever podman is.
    """
    from benchctl.request import LAB

    if not skipped or problems or set(asked) - {LAB}:
        return ""
    return "No cloud was asked: no login of one is set; what each needs is said above"


def _leak(row: Mapping[str, Any]) -> str:
    place = row["zone"] or row["region"]
    price = f", {number(row['price_per_hour'])} {row['currency']} an hour" if row["price_per_hour"] is not None else ""
    where = f" in {place}" if place else ""
    said = f": {row['problem']}" if row["problem"] else ""
    return f"LEAK: {row['vendor']} {row['kind']} {row['name']} (id {row['id']}){where}{price}{said}"


def _summary(result: ReapReport) -> str:
    from benchctl.clouds.reaper import Outcome

    counts = {one: sum(1 for f in result.findings if f.outcome is one) for one in Outcome}
    parts = [f"{count} {outcome}" for outcome, count in counts.items() if count]
    if result.stacks:
        parts.append(f"{len(result.stacks)} stack{'s' * (len(result.stacks) != 1)} removed")
    if result.leaks or result.problems:
        parts.append("NOT CLEAN: see above; docs/teardown.md says how to look by hand")
    if not parts and result.asked:
        parts.append(f"Nothing of ours is there ({', '.join(result.asked)})")
    sentences = ("; ".join(parts), no_cloud(result.asked, result.skipped, result.problems))
    return ". ".join(filter(None, sentences)) + "."


def _things(count: int) -> str:
    return "One thing" if count == 1 else f"{count} things"


def _time_left(expires_at: str | None) -> str:
    if not expires_at:
        return "?"
    seconds = (datetime.fromisoformat(expires_at) - datetime.now(UTC)).total_seconds()
    return span(seconds) if seconds > 0 else f"over by {span(-seconds)}"


def span(seconds: float) -> str:
    """A time as a person reads it: ``45 s``, ``12 min``, ``3.5 h``, ``2.0 d``."""
    steps: Sequence[tuple[float, str, int]] = ((86400.0, "d", 1), (3600.0, "h", 1), (60.0, "min", 0))
    for unit, name, digits in steps:
        if seconds >= unit:
            return f"{seconds / unit:.{digits}f} {name}"
    return f"{seconds:.0f} s"
