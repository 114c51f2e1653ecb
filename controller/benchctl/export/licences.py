"""Licences by their identifiers (SPDX, Open Definition), with the names and addresses that a data package gives."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from benchctl.errors import UsageError

DEFAULT = "CC-BY-4.0"
"""For one's own results, when nobody says otherwise: use them for anything, and say whose they are."""

SPARE_CORES = "CC-BY-SA-4.0"
"""Spare Cores' results and catalogue."""


@dataclass(frozen=True)
class Licence:
    """One licence: ``name`` is its identifier, ``path`` the address of its text, or nothing."""

    name: str
    title: str
    path: str = ""


OPEN = {
    one.name: one
    for one in (
        Licence("CC-BY-4.0", "Creative Commons Attribution 4.0", "https://creativecommons.org/licenses/by/4.0/"),
        Licence(
            "CC-BY-SA-4.0",
            "Creative Commons Attribution Share-Alike 4.0",
            "https://creativecommons.org/licenses/by-sa/4.0/",
        ),
        Licence("CC0-1.0", "Creative Commons CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
        Licence(
            "ODbL-1.0", "Open Data Commons Open Database License 1.0", "https://opendatacommons.org/licenses/odbl/1-0/"
        ),
        Licence(
            "ODC-BY-1.0", "Open Data Commons Attribution License 1.0", "https://opendatacommons.org/licenses/by/1-0/"
        ),
        Licence(
            "PDDL-1.0",
            "Open Data Commons Public Domain Dedication and Licence 1.0",
            "https://opendatacommons.org/licenses/pddl/1-0/",
        ),
    )
}
"""What one's own results can be published under."""

_OTHERS = {"Apache-2.0": Licence("Apache-2.0", "Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0")}


def known(name: str) -> Licence:
    """The licence that a user chose for his own results.

    Raises:
        UsageError: it is not one for data.
    """
    if name not in OPEN:
        by_case = {one.lower(): one for one in OPEN}
        near = difflib.get_close_matches(name.lower(), by_case, n=1)
        mend = f"Did you mean {by_case[near[0]]}?" if near else f"There are: {', '.join(OPEN)}."
        raise UsageError(f"'{name}' is no licence for data that benchctl knows.", mend)
    return OPEN[name]


def named(text: str | None) -> Licence:
    """The licence that a source states; its own words where they are no licence's name."""
    words = (text or "").strip()
    found = OPEN.get(words) or _OTHERS.get(words)
    return found or Licence("notspecified", f"Not a known licence: {words}" if words else "No licence stated")
