"""Names that a user gives, as the database has them: models by short name or file, vendors with their nicknames."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from sqlalchemy import select

from benchctl.db.schema import Measurement, Vendor
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

NICKNAMES = {"hetzner": "hcloud", "google": "gcp", "amazon": "aws"}
"""What people call a vendor, and how Spare Cores' tables and ours spell it."""


@dataclass(frozen=True)
class MeasuredModel:
    """A model that was measured.

    Attributes:
        name: its short name.
        files: the GGUF files that the name stands for.
    """

    name: str
    files: tuple[str, ...]


def find_model(session: Session, name: str) -> MeasuredModel | None:
    """The model that a short name, a file's name, or that without its ending means.

    Returns:
        The model; nothing when nothing was measured at all.

    Raises:
        UsageError: there is none of that name.
    """
    wanted = name.lower()
    known = _one_name_per_file(session)
    if not known:
        return None
    found = _named(known, wanted)
    if not found:
        # the slow way: a file may have been measured under several names
        rows = session.execute(select(Measurement.model, Measurement.model_file).distinct().order_by(Measurement.model))
        known = [(model, file) for model, file in rows]
        found = _named(known, wanted)
    if not found:
        file = _file_of_known_model(wanted)
        found = [one for one in known if one[1] == file]
    if found:
        return MeasuredModel(found[0][0], tuple(sorted({file for _, file in found})))
    names = sorted({model for model, _ in known})
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    mend = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(names[:8])}."
    raise UsageError(f"No model '{name}' was measured.", mend)


def find_vendor(session: Session, name: str) -> str:
    """The identifier of a vendor; ``hetzner`` means ``hcloud``.

    Raises:
        UsageError: there is none of that name.
    """
    wanted = NICKNAMES.get(name.lower(), name.lower())
    known = list(session.scalars(select(Vendor.vendor_id).order_by(Vendor.vendor_id)))
    if wanted in known:
        return wanted
    near = difflib.get_close_matches(wanted, (*known, *NICKNAMES), n=1)
    mend = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(known) or 'none'}."
    raise UsageError(f"There is no vendor '{name}' in the database.", mend)


def _one_name_per_file(session: Session) -> list[tuple[str, str]]:
    """Name and file of each model; an index has the files, so that the table is not read for them."""
    found = []
    for file in session.scalars(select(Measurement.model_file).distinct().order_by(Measurement.model_file)).all():
        query = select(Measurement.model).where(Measurement.model_file == file).limit(1)
        found.append((session.execute(query).scalar_one(), file))
    return sorted(found)


def _named(known: list[tuple[str, str]], wanted: str) -> list[tuple[str, str]]:
    return [(model, file) for model, file in known if wanted in (model.lower(), file.lower(), _stem(file))]


def _stem(file: str) -> str:
    return PurePosixPath(file).stem.lower()


def _file_of_known_model(wanted: str) -> str | None:
    """The file that the list of known models gives for a name: results of others may go by the file's name alone."""
    from benchctl.models import load_models

    return next((model.file for name, model in load_models().items() if name.lower() == wanted), None)
