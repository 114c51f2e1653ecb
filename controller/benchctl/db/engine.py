"""Opening a database: SQLite by default, PostgreSQL when the URL says so, always at the schema of this benchctl.

An older database is upgraded when it is opened, in one transaction and after a copy was put beside the file; a newer
one is refused. Whoever writes does so in :func:`writing`, whoever reads in :func:`reading`; both turn what a driver
raises into a :class:`~benchctl.errors.DatabaseError` with one sentence.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from benchctl.errors import DatabaseError
from benchctl.extras import extra_mend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).with_name("migrations")
"""Where the revisions of the schema lie, in the checkout and in the wheel."""

BUSY_TIMEOUT_SECONDS = 30
"""How long a writer waits for another one."""

CACHE_KIB = 64 * 1024
"""What SQLite may keep of a database in memory."""

CHECKPOINT_PAGES = 16 * 1024
"""After so many pages (64 MiB) SQLite's write-ahead log is moved into the file."""

POSTGRES_DRIVER = "postgresql+psycopg"

_WRITES = "benchctl_writes"
_READS_ONLY = "benchctl_reads_only"

# SQLite's result codes, https://www.sqlite.org/rescode.html: the low byte is the kind of error
_SQLITE_PROBLEMS = {
    sqlite3.SQLITE_BUSY: ("is locked by another program", "Wait until it has ended, and run again."),
    sqlite3.SQLITE_LOCKED: ("is locked by another program", "Wait until it has ended, and run again."),
    sqlite3.SQLITE_READONLY: ("can't be written", "Make it writable, or choose another with --db."),
    sqlite3.SQLITE_PERM: ("can't be written", "Make it writable, or choose another with --db."),
    sqlite3.SQLITE_CANTOPEN: ("can't be opened", "Check that its folder exists and is writable, or choose another."),
    sqlite3.SQLITE_FULL: ("can't grow: the disk is full", "Free some space, and run again."),
    sqlite3.SQLITE_IOERR: ("can't be read or written: the disk reports an error", "Check the disk."),
    sqlite3.SQLITE_NOTADB: ("is not an SQLite database", "Choose another with --db."),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "Move it away, and rebuild it with 'benchctl ingest LAKE'."),
}


def open_database(url: str, *, create: bool = True, migrations: Path = MIGRATIONS) -> Engine:
    """Open the database at ``url``, at the newest schema.

    Args:
        url: an SQLAlchemy URL, ``sqlite:///PATH`` or ``postgresql://...``.
        create: make the SQLite file when there is none. Without it a missing file reads as an empty database, and a
            file that can't be written is opened for reading alone: what a command that only answers wants.
        migrations: where the revisions lie.

    Raises:
        DatabaseError: it can't be opened, is not benchctl's, or is newer than this benchctl.
    """
    engine = _engine(_parsed(url), create)
    try:
        with translated(engine):
            _bring_up_to_date(engine, migrations)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A session in one transaction that may write: committed at the end, rolled back on an error.

    On SQLite the lock is taken at the start, so that what was read in it still holds when it is written.

    Raises:
        DatabaseError: the database is locked, read-only, full, ...
    """
    with (
        translated(engine),
        engine.connect().execution_options(**{_WRITES: True}) as connection,
        connection.begin(),
        Session(connection) as session,
    ):
        yield session
        session.flush()


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session for questions; it sees one state of the database from beginning to end.

    Raises:
        DatabaseError: the database can't be read.
    """
    with translated(engine), Session(engine) as session:
        yield session


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn what the driver raises into one sentence.

    Raises:
        DatabaseError: with the driver's error as its cause.
    """
    try:
        yield
    except DBAPIError as error:
        raise _sentence(error.orig, engine.url) from error
    except sqlite3.Error as error:
        raise _sentence(error, engine.url) from error


def shown(url: URL) -> str:
    """How a message calls the database: the file's path, or the URL without its password."""
    if url.get_backend_name() != "sqlite":
        return url.render_as_string(hide_password=True)
    return str(_sqlite_path(url) or "in memory")


def sqlite_file(engine: Engine) -> Path | None:
    """The file of an SQLite database; nothing for one in memory, which stands for a file that is missing."""
    return _sqlite_path(engine.url)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        # not repeated: a password may stand in it
        raise DatabaseError(
            "What is given is not the URL of a database.",
            "Give sqlite:///PATH, postgresql://USER@HOST/NAME or a path (--db, BENCHCTL_DB).",
        ) from error
    backend = parsed.drivername.split("+")[0]
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername=POSTGRES_DRIVER)
    if backend != "sqlite":
        raise DatabaseError(f"benchctl keeps no data in '{backend}'.", "Use SQLite or PostgreSQL.")
    return parsed


def _engine(url: URL, create: bool) -> Engine:
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, create)
    try:
        return create_engine(url, connect_args={"connect_timeout": 10})
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise DatabaseError("The driver for PostgreSQL is not installed.", extra_mend("postgres")) from error


def _sqlite_path(url: URL) -> Path | None:
    """The file, or nothing for a database in memory."""
    if not url.database or url.database == ":memory:":
        return None
    return Path(url.database.removeprefix("file:"))


def _sqlite_engine(url: URL, create: bool) -> Engine:
    path = _sqlite_path(url)
    if path is not None and path.is_dir():
        raise DatabaseError(f"{path} is a folder, not a database.", "Give the path of a file with --db.")
    if path is None or not (create or path.exists()):
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        read_only = False
    else:
        read_only = not create and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
        if read_only:
            # Without write access SQLite can't make the files that its write-ahead log shares between readers.
            url = url.set(database=f"file:{path}", query={"uri": "true", "mode": "ro", "immutable": "1"})
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})

    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver must not open and end transactions behind our back
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")
        connection.execute("PRAGMA foreign_keys = ON")
        if not read_only:
            if create:  # who only answers leaves the file as it is, to the last byte: it may be a published one
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            # an import writes its indexes all over the file: with the 2 MiB of the default every batch pays for it
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")

    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine.execution_options(**{_READS_ONLY: read_only})


def _bring_up_to_date(engine: Engine, migrations: Path) -> None:
    known = sorted(path.name.split("_")[0] for path in (migrations / "versions").glob("[0-9]*.py"))
    with engine.connect() as connection:
        found = _revision(connection, known)
    if found == known[-1]:
        return
    if engine.get_execution_options().get(_READS_ONLY):
        raise DatabaseError(
            f"The database {shown(engine.url)} is older than this benchctl, and can't be upgraded because it is "
            "read-only.",
            "Make it writable, or copy it to where it is.",
        )
    from benchctl.db.upgrade import upgrade

    with engine.connect().execution_options(**{_WRITES: True}) as connection:
        upgrade(connection, migrations, revision=lambda: _revision(connection, known), head=known[-1])


def _revision(connection: Connection, known: list[str]) -> str | None:
    """The database's revision, or nothing for an empty one.

    Raises:
        DatabaseError: it is somebody else's, or newer than ``known``.
    """
    name = shown(connection.engine.url)
    tables = set(inspect(connection).get_table_names())
    if "alembic_version" not in tables:
        if tables:
            raise DatabaseError(
                f"The database {name} holds other tables ({', '.join(sorted(tables)[:3])}, ...), not benchctl's.",
                "Choose another with --db.",
            )
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found is not None and found not in known:
        raise DatabaseError(
            f"The database {name} was written by a newer benchctl (its schema is {found}, this one knows {known[-1]}).",
            "Upgrade benchctl, or choose another database with --db.",
        )
    return found


def _sentence(error: BaseException | None, url: URL) -> DatabaseError:
    name = shown(url)
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _SQLITE_PROBLEMS:
            problem, mend = _SQLITE_PROBLEMS[code]
            return DatabaseError(f"The database {name} {problem}.", mend)
    what = " ".join(str(error).split()).rstrip(".")
    return DatabaseError(f"The database {name} reports: {what}.", "Check that it is there and that you may use it.")
