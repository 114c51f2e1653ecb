"""The database as a command that only answers sees it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from benchctl.home import Home


@contextmanager
def reading_session(home: Home) -> Iterator[Session]:
    """A session on the database as it is; one that isn't there yet is an empty one.

    Raises:
        DatabaseError: it can't be read.
    """
    from benchctl.db.engine import open_database, reading

    engine = open_database(home.database_url, create=False)
    try:
        with reading(engine) as session:
            yield session
    finally:
        engine.dispose()
