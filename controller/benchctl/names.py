"""Names that a user may shorten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


LAST = "last"
"""Means the newest sweep, wherever one is named."""


def sweep_meant(name: str, known: Sequence[str]) -> str | None:
    """The sweep of ``known`` that ``name``, or the beginning of it, means; ``None`` when there is none.

    Raises:
        UsageError: it is the beginning of several.
    """
    if name in known:
        return name
    found = [one for one in known if one.startswith(name)]
    if len(found) > 1:
        raise UsageError(f"'{name}' is the beginning of several sweeps: {', '.join(found[:5])}.", "Give more of it.")
    return found[0] if found else None
