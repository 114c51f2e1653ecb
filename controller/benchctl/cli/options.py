"""What several commands read from their options in the same way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class FiniteRange(click.FloatRange):
    """A number within limits; ``nan`` and ``inf`` are none, which click's own type lets through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"'{value}' is no finite number.", param, ctx)
        return found


class GroupedCommand(click.Command):
    """A command whose help shows its many options under headings.

    Args:
        headings: the names of the options under each heading, in order. What none of them names comes last.
    """

    def __init__(self, *given: Any, headings: Mapping[str, Sequence[str]], **named: Any) -> None:
        super().__init__(*given, **named)
        self._headings = headings

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """A section per heading that has an option here."""
        left = {one.name: shown for one in self.get_params(ctx) if (shown := one.get_help_record(ctx)) is not None}
        for heading, names in self._headings.items():
            here = [left.pop(name) for name in names if name in left]
            if here:
                with formatter.section(heading):
                    formatter.write_dl(here)
        if left:
            with formatter.section("Other options"):
                formatter.write_dl(list(left.values()))


def parse_vendors(text: str, known: Sequence[str], what: str = "vendor") -> tuple[str, ...]:
    """The vendors of ``--vendors``, by the names of the command line, each once.

    Args:
        text: names with commas or spaces between them; those of the database, ``google`` and ``amazon`` will do.
        known: which there are.
        what: as what they are asked for.

    Raises:
        UsageError: one is not known, or none is named.
    """
    from benchctl.clouds.cloud import VENDOR_IDS

    nicknames = {theirs: ours for ours, theirs in VENDOR_IDS.items()} | {"google": "gcp", "amazon": "aws"}
    names = tuple(dict.fromkeys(nicknames.get(one, one) for one in text.lower().replace(",", " ").split()))
    if not names:
        raise UsageError(f"--vendors names no {what}.", f"Known: {', '.join(known)}.")
    for name in names:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, n=1)
            mend = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known)}."
            raise UsageError(f"There is no {what} '{name}'.", mend)
    return names
