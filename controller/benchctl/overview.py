"""Sweeps and jobs as they are now: what the database holds, and the live progress that lies in files beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llama_bench_core.state import is_locked

from benchctl.db import queries
from benchctl.db.engine import open_database, reading
from benchctl.living import rented

if TYPE_CHECKING:
    from pathlib import Path

    from benchctl.home import Home

PROGRESS = "progress.json"

INTERRUPTED = "interrupted"
"""What a sweep is called that was running when its controller vanished; ``sweep --resume`` takes it up again."""


def overview(home: Home, sweep: str | None = None, limit: int | None = None) -> list[dict[str, Any]]:
    """Sweeps, the newest first, each with its jobs, and these with ``progress``: an object, or nothing.

    ``rented`` says what a sweep that rents has alive, and its money (:func:`benchctl.living.account`); nothing for one
    that does not rent. ``book_problem`` says why its book can't be read; nothing where it can.

    Raises:
        UsageError: there is no sweep of that name.
        DatabaseError: the database can't be read.
    """
    engine = open_database(home.database_url, create=False)
    try:
        with reading(engine) as session:
            sweep_id = queries.find_sweep(session, sweep) if sweep else None
            rows = queries.sweeps(session, sweep_id, limit)
    finally:
        engine.dispose()
    accounts, problems = rented(home)
    for row in rows:
        row["rented"] = accounts.get(row["sweep_id"])
        row["book_problem"] = problems.get(row["sweep_id"])
        if row["status"] == "running" and not is_locked(home.sweeps / row["sweep_id"] / "lock"):
            row["status"] = INTERRUPTED  # its controller died without a word
        for job in row["jobs"]:
            folder = home.sweeps / row["sweep_id"] / "jobs" / job["job_id"]
            job["progress"] = _progress(folder) if job["status"] == "running" else None
    return rows


def _progress(job_folder: Path) -> dict[str, Any] | None:
    """The live progress, where there is one; a courtesy, so that one that can't be read is none."""
    try:
        found = json.loads((job_folder / PROGRESS).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
