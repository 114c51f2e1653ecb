"""The command-line reference, docs/cli.md: generated from the commands' own help, so that it can't drift.

``python -m benchctl.cli.reference`` writes it, ``--check`` fails when it is not up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchctl.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = Path(__file__).resolve().parents[3] / "docs" / "cli.md"
"""In the checkout; an installed package has no documentation to write."""

WIDTH = 100
"""Columns of the help texts, whatever the terminal."""

HEAD = """# The command line

Made by `python -m benchctl.cli.reference` from what `benchctl COMMAND --help` prints; do not edit.

Exit status: 0 all went well, 1 an error, 2 wrong usage, 3 the sweep ended but some jobs failed, 130 interrupted.
"""


def reference() -> str:
    """The whole page."""
    sections = (f"\n## `{name}`\n\n```text\n{text}\n```\n" for name, text in _pages(cli, "benchctl", None))
    return HEAD + "".join(sections)


def _pages(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    """The help of one command and of all below it."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=parent, **settings)
    yield name, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None and not found.hidden:
                yield from _pages(found, f"{name} {below}", context)


def main(arguments: list[str]) -> int:
    """Write the page, or compare it; returns the exit status."""
    page = reference()
    if arguments == ["--check"]:
        if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == page:
            return 0
        click.echo("docs/cli.md is not up to date; run 'python -m benchctl.cli.reference'.", err=True)
        return 1
    TARGET.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
