"""A statement on SQLite: the file is opened for reading, and SQLite asks us before every kind of step.

What an authorizer is, and what it is asked: https://www.sqlite.org/c3ref/set_authorizer.html. Runs in the process of
:mod:`process`, and imports nothing but the standard library.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.db.readonly.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEPS_BETWEEN_LOOKS = 2000
"""Steps of SQLite's machine between two looks at the clock."""

LONGEST_PATTERN = 1000
"""Bytes of a LIKE or GLOB pattern: matching takes the product of both lengths."""

READ_PRAGMAS = frozenset(
    {"table_list", "table_info", "table_xinfo", "index_list", "index_info", "index_xinfo", "foreign_key_list"}
)
"""Pragmas that describe tables, and change nothing."""

# SQLite marks functions that can do no harm, https://www.sqlite.org/c3ref/c_deterministic.html
_INNOCUOUS = 0x200000

_STEPS = {
    sqlite3.SQLITE_INSERT: "writing to {0}",
    sqlite3.SQLITE_UPDATE: "writing to {0}",
    sqlite3.SQLITE_DELETE: "deleting from {0}",
    sqlite3.SQLITE_ATTACH: "ATTACH",
    sqlite3.SQLITE_DETACH: "DETACH",
    sqlite3.SQLITE_PRAGMA: "PRAGMA {0}",
    sqlite3.SQLITE_FUNCTION: "the function {1}()",
    sqlite3.SQLITE_TRANSACTION: "a transaction of one's own",
    sqlite3.SQLITE_SAVEPOINT: "a transaction of one's own",
}


def run(request: dict[str, Any]) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Begin the statement.

    Returns:
        The columns' names, and the rows as they come.

    Raises:
        Failure: it is wrong, or does more than read.
    """
    refused: list[str] = []
    try:
        connection = _open(Path(request["database"]["path"]))
        _limit(connection, request)
        _load_table_functions(connection)
        connection.set_authorizer(_authorizer(connection, refused))
        cursor = connection.execute(request["sql"])
    except sqlite3.Warning as error:  # Python 3.11's word for several statements
        raise Failure("sql", str(error)) from error
    except sqlite3.Error as error:
        raise _failure(error, refused) from error
    if cursor.description is None:
        raise Failure("sql", "it gives no rows")
    return [str(column[0]) for column in cursor.description], _rows(cursor, refused)


def _rows(cursor: sqlite3.Cursor, refused: list[str]) -> Iterator[tuple[Any, ...]]:
    try:
        yield from cursor
    except sqlite3.Error as error:
        raise _failure(error, refused) from error


def _open(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)) and not _log(path):
        uri += "&immutable=1"  # without its log's shared memory, which can't be made here, SQLite reads no other way
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _log(path: Path) -> bool:
    """Whether somebody writes to the database, and it has a write-ahead log beside it."""
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _limit(connection: sqlite3.Connection, request: dict[str, Any]) -> None:
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, int(request["value_bytes"]))
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LONGEST_PATTERN)
    connection.setlimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0)
    end = time.monotonic() + float(request["seconds"])
    connection.set_progress_handler(lambda: time.monotonic() > end, STEPS_BETWEEN_LOOKS)


def _authorizer(connection: sqlite3.Connection, refused: list[str]) -> Callable[..., int]:
    functions = _harmless_functions(connection)

    def authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        allowed = (
            action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
            or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in functions)
            or (action == sqlite3.SQLITE_PRAGMA and (first or "").lower() in READ_PRAGMAS)
        )
        if allowed:
            return sqlite3.SQLITE_OK
        refused.append(_STEPS.get(action, "a change of the schema").format(first or "the schema", second))
        return sqlite3.SQLITE_DENY

    return authorize


def _load_table_functions(connection: sqlite3.Connection) -> None:
    """Have SQLite set up its functions that give tables: the first use of each declares a table, which is refused."""
    for function in ("json_each('[]')", "json_tree('[]')", *(f"pragma_{name}" for name in sorted(READ_PRAGMAS))):
        connection.execute(f"SELECT 1 FROM {function} LIMIT 0")  # noqa: S608 - names that stand above


def _harmless_functions(connection: sqlite3.Connection) -> frozenset[str]:
    """What SQLite itself calls harmless, and JSON's functions, which older versions forget to mark.

    That leaves out load_extension, fts3_tokenizer and whatever else a build of SQLite brings.
    """
    flags: dict[str, int] = {}
    for name, flag in connection.execute("SELECT name, flags FROM pragma_function_list"):
        flags[name.lower()] = flags.get(name.lower(), _INNOCUOUS) & flag
    return frozenset(name for name, flag in flags.items() if flag & _INNOCUOUS or name.startswith(("json", "->")))


def _failure(error: sqlite3.Error, refused: list[str]) -> Failure:
    if isinstance(error, sqlite3.ProgrammingError):
        return Failure("sql", "it has parameters, and nothing fills them")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if refused and code in (sqlite3.SQLITE_AUTH, sqlite3.SQLITE_ERROR):
        return Failure("refused", refused[0])
    kinds = {
        sqlite3.SQLITE_INTERRUPT: "time",
        sqlite3.SQLITE_NOMEM: "memory",
        sqlite3.SQLITE_TOOBIG: "value",
        sqlite3.SQLITE_ERROR: "sql",
        sqlite3.SQLITE_RANGE: "sql",
        sqlite3.SQLITE_MISMATCH: "sql",
    }
    if code == sqlite3.SQLITE_READONLY:
        return Failure("refused", "writing")
    return Failure(kinds.get(code, "database"), str(error))
