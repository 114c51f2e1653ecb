"""Bringing a database to the newest schema with Alembic, without an ``alembic.ini`` on disk.

Apart from :mod:`engine` because Alembic takes a while to import and is needed once in a database's life.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from benchctl.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

_LOCK = 0x62656E6368
"""Key of PostgreSQL's advisory lock: two processes must not upgrade one database at once."""


def upgrade(connection: Connection, migrations: Path, revision: Callable[[], str | None], head: str) -> None:
    """Run the missing revisions in one transaction: all or nothing.

    Args:
        connection: one that isn't in a transaction, and begins with SQLite's write lock.
        migrations: where the revisions lie.
        revision: asks the database for its revision.
        head: the revision to arrive at.

    Raises:
        DatabaseError: a revision failed; the database is as it was.
    """
    sqlite = connection.dialect.name == "sqlite"
    if sqlite:
        # A table that is rebuilt is dropped for a moment; what refers to it is checked at the end instead.
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.rollback()
    try:
        with connection.begin():
            if not sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            before = revision()
            if before == head:
                return  # another process was faster
            if before is not None and sqlite:
                _copy_aside(connection, before)
            _run_revisions(connection, migrations, head)
            if sqlite:
                _check_references(connection)
    finally:
        if sqlite:
            connection.rollback()
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            connection.rollback()


def _run_revisions(connection: Connection, migrations: Path, head: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, head)
    except (SQLAlchemyError, CommandError) as error:
        what = " ".join(str(error).split())
        raise DatabaseError(f"The database can't be upgraded to schema {head}: {what}", "It is as it was.") from error


def _copy_aside(connection: Connection, revision: str) -> None:
    """Copy the database file, as committed, beside itself: ``benchctl.db.0001-20260131T120000Z.bak``."""
    if not connection.engine.url.database:
        return
    path = Path(connection.engine.url.database)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    backup = path.with_name(f"{path.name}.{revision}-{stamp}.bak")
    part = backup.with_name(backup.name + ".part")
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(part)) as target:
            source.backup(target)
        part.replace(backup)
    except (OSError, sqlite3.Error) as error:
        part.unlink(missing_ok=True)
        raise DatabaseError(
            f"The database {path} must be upgraded, but no copy of it can be put beside it: {error}.",
            "Free some space there, or make the folder writable.",
        ) from error


def _check_references(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise DatabaseError(
            f"The upgrade would leave table {broken[0]} with rows that refer to nothing.", "It is undone."
        )
