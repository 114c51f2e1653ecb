"""``benchctl doctor``: what this machine has and lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from benchctl.cli.render import Column, Output, emit, output_options

if TYPE_CHECKING:
    from benchctl.home import Home

COLUMNS = (
    Column("vendor", "for"),
    Column("check", "needs"),
    Column("state", ""),
    Column("found", "found"),
    Column("mend", "to mend it"),
)


@click.command()
@click.option(
    "--fix",
    is_flag=True,
    help="Build llama-bench and install Pulumi's engine where they are missing; print the commands for the rest.",
)
@output_options(csv=False)
@click.pass_obj
def doctor(home: Home, fix: bool, as_json: bool, query: str | None) -> int:
    """What this machine has and lacks for each vendor, and how to mend it.

    Exit status 0 when this machine can measure itself (vendor "local"), else 1. Whether credentials are set is looked
    at; their values are not.
    """
    from dataclasses import asdict

    from benchctl import doctor as checks

    findings = checks.examine(home)
    left: list[str] = []
    if fix:
        left = checks.fix(home, findings, lambda line: click.echo(line, err=True))
        findings = checks.examine(home)
    rows = [asdict(finding) | {"state": str(finding.state)} for finding in findings]
    ready = [vendor for vendor in dict.fromkeys(f.vendor for f in findings) if checks.usable(findings, vendor)]
    notes = [f"Ready for: {', '.join(ready) or 'nothing yet'}.", *(f"Left to do: {command}" for command in left)]
    emit(rows, COLUMNS, Output(as_json=as_json, query=query), notes=notes)
    return 0 if "local" in ready else 1
