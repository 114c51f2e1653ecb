"""What the pipeline itself writes: its sweeps and their jobs, as they go on.

Give a :class:`~benchctl.db.schema.Sweep` or :class:`~benchctl.db.schema.Job` with its key and what is to change; what
is not given stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchctl.db.engine import writing

if TYPE_CHECKING:
    from sqlalchemy import Engine, Executable

    from benchctl.db.columns import Base


def record(engine: Engine, *rows: Base, first: Executable | None = None) -> None:
    """Write rows in one transaction, in the order given: a job's sweep comes before it.

    Args:
        engine: the database.
        rows: the rows.
        first: what comes before them in the same transaction, as the deletion of what they replace.

    Raises:
        DatabaseError: the database can't be written.
    """
    with writing(engine) as session:
        if first is not None:
            session.execute(first)
        for row in rows:
            session.merge(row)
            session.flush()
