"""What several commands read from their options in the same way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


class FiniteRange(click.FloatRange):
    """A number within limits; ``nan`` and ``inf`` are none, which click's own type lets through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"'{value}' is no finite number.", param, ctx)
        return found


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
