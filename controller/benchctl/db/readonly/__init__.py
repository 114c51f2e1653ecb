"""SQL that a person wrote: it can read the tables, and nothing else; it takes so long, and so much memory, and no more.

The statement runs in a process of its own (:mod:`process`), which the kernel forbids to write any file, to grow beyond
a limit and to run for ever: some of SQLite's functions can't be interrupted, but a process can be killed. Inside it
the database is opened for reading alone (:mod:`sqlite`, :mod:`postgres`). What comes back are plain values in JSON
lines, never objects.
"""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from threading import Timer
from typing import TYPE_CHECKING, Any

from benchctl.db.readonly.statement import Statement
from benchctl.errors import BenchctlError, DatabaseError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Engine

MIB = 1024**2

START_SECONDS = 5.0
"""What the process may take besides the statement's own time: to start, and to connect."""

LONGEST_STATEMENT = 1_000_000
"""Characters of a statement; SQLite's own limit, for PostgreSQL too."""


@dataclass(frozen=True)
class Limits:
    """What a statement may cost.

    Attributes:
        seconds: how long it may run.
        rows: how many rows are fetched; nothing for as many as the answer may hold.
        answer_bytes: how large all rows together may be, as text.
        value_bytes: how large one value may be (SQLite).
        memory_bytes: address space of the process that runs it.
    """

    seconds: float = 30.0
    rows: int | None = None
    answer_bytes: int = 64 * MIB
    value_bytes: int = 8 * MIB
    memory_bytes: int = 1024 * MIB


@dataclass(frozen=True)
class Reply:
    """What a statement answered.

    Attributes:
        columns: their names as the database gives them; two may be called the same.
        rows: plain values: nothing, true and false, numbers, text; JSON's lists and objects where PostgreSQL has them.
            Bytes are hexadecimal text, times are text in UTC.
        more: whether there are more rows than were asked for.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns' names, each once: the second ``name`` is ``name_2``."""
        taken: list[str] = []
        for name in self.columns:
            number, key = 1, name
            while key in taken or (number > 1 and key in self.columns):
                number += 1
                key = f"{name}_{number}"
            taken.append(key)
        return tuple(taken)

    def objects(self) -> list[dict[str, Any]]:
        """The rows as objects, by :attr:`keys`."""
        keys = self.keys
        return [dict(zip(keys, row, strict=True)) for row in self.rows]


def ask(engine: Engine, sql: str, limits: Limits = Limits()) -> Reply:
    """What the database answers to one statement.

    Args:
        engine: the database, as :func:`benchctl.db.engine.open_database` opened it.
        sql: one statement that reads.
        limits: what it may cost.

    Raises:
        UsageError: the statement is wrong, or does something else than read.
        BenchctlError: it takes longer, or more memory, than it may.
        DatabaseError: the database can't be read.
    """
    dialect = engine.dialect.name
    _check(sql, dialect)
    request = {"sql": sql, "dialect": dialect, "database": _database(engine), **asdict(limits)}
    if dialect == "sqlite":
        # A write-ahead log is shared in files that the reading process may not make; while this connection reads,
        # they are there, and whoever closes last tidies them up.
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM alembic_version").scalar()
            return _reply(request, limits, engine)
    return _reply(request, limits, engine)


def _check(sql: str, dialect: str) -> None:
    """Refuse early, and in better words than the database has, what it would refuse anyway."""
    if len(sql) > LONGEST_STATEMENT:
        raise UsageError(f"The statement has {len(sql):,} characters.", f"At most {LONGEST_STATEMENT:,} are allowed.")
    if "\0" in sql or _LONE_SURROGATE.search(sql):
        raise UsageError("The statement holds characters that are no text.", "Write it in UTF-8, without NUL.")
    statement = Statement.parse(sql, dialect)
    if not statement.keyword:
        raise UsageError("There is no statement to run.", "Give one: benchctl sql 'SELECT ...'.")
    if statement.refusal:
        raise UsageError(statement.refusal, statement.mend)


def _database(engine: Engine) -> dict[str, Any]:
    """How the process opens it."""
    if engine.dialect.name != "sqlite":
        _, settings = engine.dialect.create_connect_args(engine.url)
        return {key: value for key, value in settings.items() if isinstance(value, (str, int))}
    from benchctl.db.engine import sqlite_file

    path = sqlite_file(engine)
    if path is None or not path.exists():
        raise DatabaseError(
            "There is no database to ask yet.",
            "Measure something ('benchctl sweep --vendors local'), take results in ('benchctl ingest'), or name "
            "another with --db.",
        )
    return {"path": str(path)}


def _reply(request: dict[str, Any], limits: Limits, engine: Engine) -> Reply:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchctl.db.readonly.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin  # noqa: S101 - it was asked for
    assert process.stdout  # noqa: S101 - it was asked for
    killer = Timer(limits.seconds + START_SECONDS, process.kill)
    killer.start()
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.close()
        return _read(process.stdout, limits, engine)
    except BrokenPipeError as error:
        raise _ended(process.wait()) from error
    except EOFError as error:
        code = process.wait()
        if not killer.is_alive() or code in _KILLED_FOR_TIME:
            raise _too_long(limits) from error
        raise _ended(code) from error
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes that are not UTF-8; no database takes it."""

_UNKNOWN_NAME = re.compile(r"(?:no such )?(table|relation|column)(?:: | \")([\w.]+)")
"""How SQLite and PostgreSQL name what they don't know; they have no other way to say it."""

_KILLED_FOR_TIME = (-9, -24)
"""SIGKILL, which the timer and the kernel's limit on CPU time send, and SIGXCPU."""


def _read(lines: Iterable[bytes], limits: Limits, engine: Engine) -> Reply:
    columns: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = []
    for record in _records(lines, limits):
        if isinstance(record, list):
            rows.append(tuple(record))
        elif "columns" in record:
            columns = tuple(record["columns"])
        elif "end" in record:
            return Reply(columns, tuple(rows), record["end"] == "more")
        else:
            raise _failure(record["error"], record["text"], limits, engine)
    raise EOFError


def _records(lines: Iterable[bytes], limits: Limits) -> Iterator[Any]:
    size = 0
    for line in lines:
        size += len(line)
        if size > limits.answer_bytes:
            raise _too_large(limits)
        yield json.loads(line)


def _failure(kind: str, text: str, limits: Limits, engine: Engine) -> BenchctlError:
    """The sentence for a way to fail that :mod:`process` names."""
    if kind == "time":
        return _too_long(limits)
    if kind == "memory":
        return BenchctlError(
            f"The statement needs more than {limits.memory_bytes // MIB} MiB of memory.",
            "Narrow it with WHERE or LIMIT, or aggregate less at once.",
        )
    if kind == "value":
        return BenchctlError(
            f"The statement makes a value of more than {limits.value_bytes // MIB} MiB.", "Make it smaller."
        )
    if kind == "refused":
        return UsageError(f"'benchctl sql' only reads the tables: {text} is refused.", "Ask with SELECT.")
    if kind == "database":
        from benchctl.db.engine import shown

        return DatabaseError(f"The database {shown(engine.url)} reports: {text}.", "Check that you may use it.")
    return UsageError(f"The database does not understand this: {text}.", _near(text))


def _near(text: str) -> str:
    """The mend for an unknown name: the nearest that there is."""
    from benchctl.db.schema import metadata

    unknown = _UNKNOWN_NAME.search(text)
    if unknown:
        what, name = unknown[1], unknown[2].rpartition(".")[2]
        columns = sorted({column.name for table in metadata.tables.values() for column in table.columns})
        near = difflib.get_close_matches(name.lower(), columns if what == "column" else list(metadata.tables), n=1)
        if near and near[0] != name:
            return f"Did you mean '{near[0]}'?"
    return "'benchctl sql --tables' lists the tables, '--schema TABLE' the columns of one."


def _too_long(limits: Limits) -> BenchctlError:
    return BenchctlError(
        f"The statement was stopped after {limits.seconds:g} seconds.", "Narrow it, or give it more with --timeout."
    )


def _too_large(limits: Limits) -> BenchctlError:
    return BenchctlError(
        f"The answer is larger than {limits.answer_bytes // MIB} MiB.",
        "Narrow it with WHERE, LIMIT or --limit; 'benchctl export' writes whole tables.",
    )


def _ended(code: int) -> BenchctlError:
    return BenchctlError(
        f"The process that ran the statement ended unexpectedly (status {code}).", "Write the statement differently."
    )
