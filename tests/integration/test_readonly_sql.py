from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.db import readonly
from benchctl.db.dictionary import MODELS
from benchctl.db.engine import open_database, reading
from benchctl.db.readonly import Limits, ask
from benchctl.errors import BenchctlError, DatabaseError, UsageError
from benchctl.ingest import ingest_run
from raw_runs import RawRun
from sqlalchemy import func, select, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchctl.home import Home

    Benchctl = Callable[..., subprocess.CompletedProcess[str]]

QUICK = Limits(seconds=2)

BOTH = [
    # writing, plainly
    "DROP TABLE sweep",
    "drop table if exists sweep",
    "DELETE FROM measurement",
    "UPDATE sweep SET status = 'gone'",
    "INSERT INTO sweep (sweep_id) VALUES ('x')",
    "CREATE TABLE mine (x)",
    "CREATE TEMP TABLE mine (x int)",
    "CREATE VIEW mine AS SELECT 1",
    "CREATE INDEX mine ON sweep (status)",
    "ALTER TABLE sweep ADD COLUMN mine int",
    "ALTER TABLE sweep RENAME TO mine",
    "REINDEX",
    "ANALYZE",
    "VACUUM",
    # writing, dressed up
    "/* SELECT */ DELETE FROM measurement",
    "-- SELECT\nDELETE FROM measurement",
    "((DELETE FROM measurement))",
    "WITH x AS (SELECT 1) DELETE FROM measurement",
    "WITH x AS (SELECT 1) UPDATE sweep SET status = 'gone'",
    "WITH x AS (SELECT 1) INSERT INTO sweep (sweep_id) SELECT 'x'",
    "EXPLAIN ANALYZE DELETE FROM measurement",
    "SELECT * INTO mine FROM sweep",
    # several statements, and transactions of one's own
    "SELECT 1; DROP TABLE sweep",
    "SELECT 1; COMMIT; DELETE FROM measurement",
    "COMMIT",
    "COMMIT; DROP TABLE sweep",
    "ROLLBACK; BEGIN; DELETE FROM measurement; COMMIT",
    "BEGIN",
    "SAVEPOINT mine",
    ";;SELECT 1;;DELETE FROM measurement",
    # nothing to run, or no text
    "",
    "   ",
    "-- only a comment",
    ";",
    "SELECT 'a\0b'",
    "SELECT '\ud800'",
    "SELEKT 1",
    "SELECT * FROM no_such_table",
    "SELECT (((((1)",
    "SELECT '",
]

SQLITE = [
    "ATTACH DATABASE '{tmp}/attached.db' AS other",
    "ATTACH '/etc/passwd' AS p",
    "DETACH DATABASE main",
    "VACUUM INTO '{tmp}/copy.db'",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "PRAGMA user_version = 7",
    "PRAGMA temp_store_directory = '{tmp}'",
    "PRAGMA data_store_directory = '{tmp}'",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA hard_heap_limit = 1",
    "PRAGMA database_list",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM pragma_journal_mode('delete')",
    "SELECT load_extension('{tmp}/evil.so')",
    "SELECT load_extension('{tmp}/evil.so', 'init')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('{tmp}/written', 'x')",
    "SELECT * FROM fsdir('/')",
    "SELECT edit('x', 'touch {tmp}/edited')",
    "SELECT fts3_tokenizer('simple', x'4141414141414141')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT hex(fts3_tokenizer('simple'))",
    "CREATE VIRTUAL TABLE mine USING fts5(x)",
    "CREATE VIRTUAL TABLE mine USING csv(filename='/etc/passwd')",
    "CREATE TRIGGER mine AFTER INSERT ON sweep BEGIN DELETE FROM measurement; END",
    "REPLACE INTO sweep (sweep_id) VALUES ('x')",
    "INSERT INTO sweep (sweep_id) VALUES ('x') RETURNING sweep_id",
    "WITH x AS (SELECT 1) REPLACE INTO sweep (sweep_id) SELECT 'x'",
    "EXPLAIN DELETE FROM measurement",
    "EXPLAIN QUERY PLAN DROP TABLE sweep",
    "DELETE FROM sqlite_master",
    "WITH x AS (SELECT 1) UPDATE sqlite_master SET sql = ''",
    "SELECT rtreecheck('sweep')",
    "SELECT",
    "SELECT ?",
    "SELECT :name",
]

POSTGRES = [
    "COPY (SELECT 1) TO PROGRAM 'touch {tmp}/program'",
    "COPY (SELECT 1) TO '{tmp}/copied'",
    "COPY sweep FROM '/etc/passwd'",
    "COPY sweep TO STDOUT",
    "COPY sweep FROM STDIN",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_catalog.pg_read_file('/etc/passwd')",
    "SELECT \"pg_read_file\"('/etc/passwd')",
    "SELECT pg_read_file /* */ -- \n ('/etc/passwd')",
    "SELECT U&\"pg\\005fread\\005ffile\"('/etc/passwd')",
    "SELECT pg_read_binary_file('/etc/passwd')",
    "SELECT * FROM pg_ls_dir('/')",
    "SELECT * FROM pg_stat_file('/etc/passwd')",
    "SELECT * FROM pg_ls_logdir()",
    "SELECT lo_export(lo_from_bytea(0, 'x'), '{tmp}/exported')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_creat(-1)",
    "SELECT dblink('dbname=postgres', 'DROP TABLE sweep')",
    "SELECT * FROM dblink('dbname=postgres', 'SELECT 1') AS t(x int)",
    "DO $$ BEGIN DELETE FROM measurement; END $$",
    "CALL anything()",
    "SET default_transaction_read_only = off",
    "SET TRANSACTION READ WRITE",
    "SET ROLE postgres",
    "RESET ROLE",
    "RESET ALL",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT set_config('role', 'none', false), pg_sleep(0)",
    "SELECT set_config('role', 'none', true), query_to_xml('SELECT pg_read_file(''/etc/passwd'')', true, true, '')",
    "SELECT E'x'\n'\\' || ' , set_config('role', 'none', true), ' --'",
    "SELECT query_to_xml('DELETE FROM measurement', true, true, '')",
    "SELECT ts_stat('SELECT pg_read_file(''/etc/passwd'')')",
    "UPDATE pg_settings SET setting = 'off' WHERE name = 'transaction_read_only'",
    "WITH x AS (UPDATE pg_settings SET setting = 'none' WHERE name = 'role' RETURNING 1) SELECT * FROM x",
    "WITH x AS (DELETE FROM measurement RETURNING 1) SELECT * FROM x",
    "WITH x AS (INSERT INTO exchange_rate VALUES ('X', '2025-01-01', '', 1) RETURNING 1) SELECT * FROM x",
    "EXPLAIN ANALYZE INSERT INTO sweep (sweep_id, vendors, request, source, status) VALUES ('x', '[]', '{}', '', '')",
    "EXPLAIN ANALYZE CREATE TABLE mine AS SELECT 1",
    "SELECT * FROM sweep FOR UPDATE",
    "CREATE EXTENSION dblink",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER SYSTEM SET archive_command = 'touch {tmp}/archived'",
    "ALTER ROLE postgres PASSWORD 'mine'",
    "GRANT ALL ON sweep TO public",
    "TRUNCATE measurement CASCADE",
    "LISTEN mine",
    "NOTIFY mine",
    "SELECT pg_notify('mine', '')",
    "LOCK TABLE sweep",
    "LOAD '{tmp}/evil.so'",
    "CHECKPOINT",
    "PREPARE mine AS DELETE FROM measurement",
    "EXECUTE mine",
    "DECLARE mine CURSOR FOR SELECT 1",
    "DISCARD ALL",
    "SELECT pg_reload_conf()",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
    "SELECT pg_create_physical_replication_slot('mine', true)",
    "SELECT pg_switch_wal()",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_export_snapshot()",
    "SELECT pg_logical_emit_message(false, 'mine', 'x')",
    "SELECT rolpassword FROM pg_authid",
    "SELECT passwd FROM pg_shadow",
    "SELECT current_setting('no.such.setting')",
    "SELECT $1",
]

ENDLESS = [
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT count(*) FROM t",
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 0 FROM t) SELECT x FROM t",
    "WITH m AS (SELECT 1 FROM measurement a, measurement b) SELECT count(*) FROM m a, m b, m c, m d, m e, m f, m g",
]

ENDLESS_SQLITE = [
    # one step of SQLite that can't be interrupted
    "SELECT replace(a, b, 'x') FROM (SELECT hex(zeroblob(4000000)) AS a, hex(zeroblob(2000000)) || '1' AS b)",
    "WITH RECURSIVE t(x) AS (SELECT hex(zeroblob(10000)) UNION ALL SELECT x FROM t) SELECT group_concat(x) FROM t",
]

ENDLESS_POSTGRES = [
    "SELECT pg_sleep(600)",
    "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b",
]

HUGE_SQLITE = [
    "SELECT zeroblob(1000000000)",
    "SELECT randomblob(1000000000)",
    "SELECT hex(randomblob(7000000))",
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT json_group_array(x) FROM t",
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT x, zeroblob(1000000) FROM t",
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT x, randomblob(1000) FROM t ORDER BY 2",
]

HUGE_POSTGRES = [
    "SELECT repeat('x', 500000000)",
    "SELECT x, repeat('x', 1000000) FROM generate_series(1, 100000) x",
]


def hostile(both: list[str], sqlite: list[str], postgres: list[str]) -> list[Any]:
    """Pairs of a database's kind and a statement, for ``parametrize`` with the fixture ``stocked``."""
    pairs = [("sqlite", sql) for sql in (*both, *sqlite)] + [("postgresql", sql) for sql in (*both, *postgres)]
    return [pytest.param(kind, sql, id=f"{kind}-{sql[:50]!a}") for kind, sql in pairs]


class Stock:
    """A database with a measurement in it, and what it looks like."""

    def __init__(self, url: str, folder: Path) -> None:
        self.engine = open_database(url)
        self.folder = folder
        ingest_run(self.engine, RawRun().write(folder / "lake"))

    def state(self) -> Any:
        """The rows of all tables and the names in the schema; of SQLite also the file's bytes."""
        self.engine.dispose()
        with reading(self.engine) as session:
            rows = {name: session.execute(select(func.count()).select_from(model)).scalar()
                    for name, model in MODELS.items()}  # fmt: skip
            rows["status"] = session.execute(text("SELECT min(status) FROM sweep")).scalar()
            names = "SELECT count(*) FROM sqlite_master"
            if self.engine.dialect.name == "postgresql":
                names = "SELECT (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_largeobject_metadata), "
                names += "(SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_replication_slots)"
            schema = tuple(session.execute(text(names)).one())
        self.engine.dispose()
        file = Path(self.engine.url.database or "")
        return rows, schema, hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None

    def files(self) -> set[str]:
        """What lies in the test's folder, but for SQLite's own log, which comes and goes with its readers."""
        found = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}
        return found - {"test.db-wal", "test.db-shm"}


@pytest.fixture(scope="module")
def stocks(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[str, Stock]]:
    """The databases that all hostile statements are tried on, one after the other; made when first asked for."""
    made = Stocks(tmp_path_factory, request)
    yield made
    for stock in made.values():
        stock.engine.dispose()


class Stocks(dict[str, Stock]):
    """Makes what is missing."""

    def __init__(self, folders: pytest.TempPathFactory, request: pytest.FixtureRequest) -> None:
        super().__init__()
        self.folders, self.request = folders, request

    def __missing__(self, kind: str) -> Stock:
        folder = self.folders.mktemp(kind)
        folder.chmod(0o777)  # the database's server is another user, who could write here
        for parent in folder.parents[:2]:
            parent.chmod(0o755)
        if kind == "sqlite":
            url = f"sqlite:///{folder / 'test.db'}"
        else:
            import psycopg

            socket = self.request.getfixturevalue("postgres_socket")
            with psycopg.connect(host=str(socket), user="postgres", dbname="postgres", autocommit=True) as connection:
                connection.execute("CREATE DATABASE hostile")
            url = f"postgresql://postgres@/hostile?host={socket}"
        self[kind] = Stock(url, folder)
        return self[kind]


@pytest.mark.parametrize(("kind", "sql"), hostile(BOTH, SQLITE, POSTGRES))
def test_hostile_statements_are_refused(stocks: dict[str, Stock], kind: str, sql: str) -> None:
    """Nothing is written, no file is made or read, and the answer is one sentence and what mends it."""
    stock = stocks[kind]
    sql = sql.replace("{tmp}", str(stock.folder))
    before = stock.state(), stock.files()
    with pytest.raises(BenchctlError) as caught:
        ask(stock.engine, sql, QUICK)
    assert (stock.state(), stock.files()) == before
    sentence = str(caught.value)
    assert caught.value.mend
    assert "\n" not in sentence
    assert "unexpectedly" not in sentence
    assert "root:" not in sentence


NO_TEXT = ("\0", "\ud800")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_database_itself_keeps_from_writing(
    stocks: dict[str, Stock], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the reading of the statement's words fooled, still nothing would be written, and SQLite would refuse."""
    stock = stocks[kind]
    monkeypatch.setattr(readonly, "_check", lambda *_: None)
    before = stock.state(), stock.files()
    for sql in (*BOTH, *(SQLITE if kind == "sqlite" else POSTGRES)):
        if any(character in sql for character in NO_TEXT):
            continue
        said = ""
        try:
            ask(stock.engine, sql.replace("{tmp}", str(stock.folder)), QUICK)
        except BenchctlError as error:
            said = str(error)
        assert "unexpectedly" not in said, sql
        assert said or kind == "postgresql", sql
    assert (stock.state(), stock.files()) == before


def test_roles_that_are_no_superuser(stocks: dict[str, Stock], postgres_socket: Path) -> None:
    """A role that may only read asks, and the tables' owner, who might write, can't write here."""
    import psycopg

    assert stocks["postgresql"].engine
    with psycopg.connect(host=str(postgres_socket), user="postgres", dbname="hostile", autocommit=True) as connection:
        connection.execute("CREATE ROLE reader LOGIN")
        connection.execute("GRANT pg_read_all_data TO reader")
        connection.execute("ALTER ROLE reader SET default_transaction_read_only = on")
        connection.execute("CREATE ROLE owner LOGIN")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO owner")
    for role in ("reader", "owner"):
        engine = open_database(f"postgresql://{role}@/hostile?host={postgres_socket}", create=False)
        assert ask(engine, "SELECT current_user::text, count(*) FROM sweep").rows == ((role, 1),)
        for sql in ("WITH x AS (DELETE FROM measurement RETURNING 1) SELECT * FROM x", "SELECT nextval('x')"):
            with pytest.raises(UsageError, match="only reads the tables"):
                ask(engine, sql)
        engine.dispose()


@pytest.mark.parametrize(("kind", "sql"), hostile(ENDLESS, ENDLESS_SQLITE, ENDLESS_POSTGRES))
def test_endless_statements_are_stopped(stocks: dict[str, Stock], kind: str, sql: str) -> None:
    """What would run for ever ends soon after its time, also inside one step that can't be interrupted."""
    begun = time.monotonic()
    with pytest.raises(BenchctlError, match=r"stopped after 1 seconds\. Narrow it, or give it more with --timeout\."):
        ask(stocks[kind].engine, sql, Limits(seconds=1))
    assert time.monotonic() - begun < 50


@pytest.mark.parametrize(("kind", "sql"), hostile([], HUGE_SQLITE, HUGE_POSTGRES))
def test_huge_answers_are_stopped(stocks: dict[str, Stock], kind: str, sql: str) -> None:
    """What would fill the memory ends in a sentence that says what was too large."""
    before = stocks[kind].files()
    with pytest.raises(BenchctlError, match=r"MiB"):
        ask(
            stocks[kind].engine,
            sql,
            Limits(seconds=30, answer_bytes=16 * readonly.MIB, memory_bytes=300 * readonly.MIB),
        )
    assert stocks[kind].files() == before


READS = [
    ("SELECT 1 + 1 AS two", ("two",), [(2,)]),
    ("  -- why\n /* not */ SELECT NULL AS none, 'a' AS text, 1.5e0 AS half;  ", None, [(None, "a", 1.5)]),
    ("VALUES (1, 'x'), (2, 'y')", None, [(1, "x"), (2, "y")]),
    ("WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 2) SELECT x FROM t", None, [(1,), (2,)]),
    ("SELECT 'DROP TABLE sweep; --' AS text", ("text",), [("DROP TABLE sweep; --",)]),
    ('SELECT count(*) AS "drop" FROM sweep', ("drop",), [(1,)]),
    ("SELECT tokens, rank() OVER (ORDER BY tokens) AS place FROM measurement WHERE task = 'pp' ORDER BY 1",
     ("tokens", "place"), [(16, 1), (128, 2)]),
    ("SELECT 1 AS x, 2 AS x, 3 AS x_2", ("x", "x", "x_2"), [(1, 2, 3)]),
    ("SELECT DISTINCT status FROM job WHERE vendor_id LIKE 'loc%' AND replica BETWEEN 1 AND 2", None, [("finished",)]),
    ("SELECT 1 AS n FROM sweep WHERE sweep_id = 'none'", ("n",), []),
]  # fmt: skip

READS_SQLITE = [
    ("SELECT json_extract(config, '$.model') AS model FROM benchmark_score LIMIT 1",
     ("model",), [("gemma-3-270m-q4_k_m.gguf",)]),
    ("SELECT config ->> 'tokens' AS tokens FROM benchmark_score ORDER BY 1 LIMIT 1", None, [(16,)]),
    ("SELECT value FROM json_each('[1, 2]')", None, [(1,), (2,)]),
    ("SELECT x'00ff' AS bytes, CAST(x'ff' AS TEXT) AS broken, 9e999 AS much", None, [("00ff", "\ufffd", "Infinity")]),
    ("SELECT name FROM pragma_table_info('job_time') LIMIT 1", None, [("sweep_id",)]),
    ("SELECT date('2025-04-30', '+1 day'), round(1.25, 1), upper('a')", None, [("2025-05-01", 1.3, "A")]),
    ("SELECT printf('%d %s', 1, 'a'), group_concat(x), total(x) FROM (SELECT 1 AS x UNION ALL SELECT 2)",
     None, [("1 a", "1,2", 3.0)]),
]  # fmt: skip

READS_POSTGRES = [
    ("SELECT config ->> 'model' AS model FROM benchmark_score LIMIT 1", ("model",), [("gemma-3-270m-q4_k_m.gguf",)]),
    ("TABLE exchange_rate", ("currency", "rate_date", "source", "usd_per_unit"), []),
    ("(SELECT 1)", None, [(1,)]),
    ("SHOW transaction_read_only", None, [("on",)]),
    ("SELECT current_user::text", None, [("pg_read_all_data",)]),
    ("SELECT '\\x00ff'::bytea, 'infinity'::timestamp, 1.50::numeric, 2::numeric, 'NaN'::float8, '{\"a\": [1]}'::jsonb",
     None,
     [("00ff", "infinity", 1.5, 2, "NaN", {"a": [1]})]),
    ("SELECT timestamp '2025-04-30 12:00', date '2025-04-30', interval '1 day', array[1, 2]", None,
     [("2025-04-30 12:00:00", "2025-04-30", "1 day", [1, 2])]),
    ("SELECT $tag$it's; DROP TABLE x$tag$ AS text, /* /* nested */ SET */ 1", None, [("it's; DROP TABLE x", 1)]),
    ("SELECT 5 % 3, '%s'", None, [(2, "%s")]),
    ("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM generate_series(1, 3) x", None, [(2.0,)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "sql", "columns", "rows"),
    [("sqlite", *one) for one in (*READS, *READS_SQLITE)] + [("postgresql", *one) for one in (*READS, *READS_POSTGRES)],
)
def test_questions_are_answered(
    stocks: dict[str, Stock], kind: str, sql: str, columns: tuple[str, ...] | None, rows: list[tuple[Any, ...]]
) -> None:
    """What only reads is answered with plain values, in the dialect of the database."""
    reply = ask(stocks[kind].engine, sql, Limits(seconds=20))
    assert list(reply.rows) == rows
    assert columns is None or reply.columns == columns


@pytest.mark.parametrize(
    ("kind", "sql"),
    [
        ("sqlite", "EXPLAIN QUERY PLAN SELECT * FROM measurement WHERE vendor_id = 'local'"),
        ("postgresql", "EXPLAIN ANALYZE SELECT * FROM measurement WHERE vendor_id = 'local'"),
    ],
)
def test_a_plan_is_explained(stocks: dict[str, Stock], kind: str, sql: str) -> None:
    """EXPLAIN shows how the database goes about it."""
    reply = ask(stocks[kind].engine, sql)
    assert any("measurement" in str(row) for row in reply.rows)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_rows_are_counted_out(stocks: dict[str, Stock], kind: str) -> None:
    """Only so many rows are fetched as are asked for, and whether there are more is said."""
    sql = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT x FROM t"
    reply = ask(stocks[kind].engine, sql, Limits(rows=3))
    assert (reply.rows, reply.more) == (((1,), (2,), (3,)), True)
    assert not ask(stocks[kind].engine, "VALUES (1), (2)", Limits(rows=2)).more


def test_every_column_has_one_name() -> None:
    """Columns that are called the same get a number, which no other column has."""
    assert readonly.Reply(("x", "x", "x_2", "y", "x"), ()).keys == ("x", "x_3", "x_2", "y", "x_4")


@pytest.mark.parametrize(
    ("kind", "sql", "mend"),
    [
        ("sqlite", "SELECT scor FROM benchmark_score", "Did you mean 'score'?"),
        ("postgresql", "SELECT scor FROM benchmark_score", "Did you mean 'score'?"),
        ("sqlite", "SELECT * FROM benchmark_scores", "Did you mean 'benchmark_score'?"),
        ("postgresql", "SELECT * FROM benchmark_scores", "Did you mean 'benchmark_score'?"),
        ("sqlite", "SELECT * FROM", "'benchctl sql --tables' lists the tables, '--schema TABLE' the columns of one."),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(stocks: dict[str, Stock], kind: str, sql: str, mend: str) -> None:
    """An unknown column or table brings up the one that was meant."""
    with pytest.raises(UsageError) as caught:
        ask(stocks[kind].engine, sql)
    assert caught.value.mend == mend


def test_a_database_that_somebody_writes_to_is_read(tmp_path: Path) -> None:
    """What is committed to the write-ahead log is seen, and what is not yet committed holds nothing up."""
    stock = Stock(f"sqlite:///{tmp_path / 'test.db'}", tmp_path)
    with closing(sqlite3.connect(tmp_path / "test.db", isolation_level=None)) as writer:
        writer.execute("UPDATE sweep SET status = 'new'")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE sweep SET status = 'never'")
        assert ask(stock.engine, "SELECT status FROM sweep").rows == (("new",),)
        writer.execute("ROLLBACK")
    stock.engine.dispose()


def test_a_database_in_a_folder_that_can_only_be_read(tmp_path: Path, checkout: Path) -> None:
    """Who may read the file, and write nothing near it, gets an answer and leaves nothing."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    stock = Stock(f"sqlite:///{folder / 'test.db'}", folder)
    stock.engine.dispose()
    before = stock.files()
    program = (
        "import sys; from benchctl.db.engine import open_database; from benchctl.db.readonly import ask\n"
        "print(ask(open_database(sys.argv[1], create=False), 'SELECT count(*) FROM sweep').rows)"
    )
    command = [sys.executable, "-c", program, f"sqlite:///{folder / 'test.db'}"]
    if os.getuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may write everywhere, and there is no setpriv to take that right away")
        command = ["setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override", *command]
    (folder / "test.db").chmod(0o444)
    folder.chmod(0o555)
    path = os.pathsep.join((str(checkout / "controller"), str(checkout / "module_utils")))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    assert done.stdout == "((1,),)\n", done.stderr
    assert stock.files() == before
    folder.chmod(0o755)


@pytest.fixture
def stocked(home: Home, tmp_path: Path) -> Home:
    """A home with one local run in its database."""
    engine = open_database(home.database_url)
    ingest_run(engine, RawRun().write(tmp_path / "lake"))
    engine.dispose()
    return home


@pytest.mark.usefixtures("stocked")
def test_the_command_answers_in_three_forms(benchctl: Benchctl, tmp_path: Path) -> None:
    """A table, JSON with one name a column, CSV with a header; from an argument, a file and standard input."""
    sql = "SELECT task, tokens, 1.25 AS tokens, NULL AS none FROM measurement WHERE task = 'pp' ORDER BY 2"
    table = benchctl("sql", sql, check=True).stdout
    assert table.splitlines() == ["task  tokens  tokens  none", "pp        16    1.25", "pp       128    1.25"]
    rows = json.loads(benchctl("sql", sql, "--json", check=True).stdout)
    assert rows[0] == {"task": "pp", "tokens": 16, "tokens_2": 1.25, "none": None}
    (tmp_path / "question.sql").write_text(f"\ufeff{sql};\n")
    csv = benchctl("sql", "--file", tmp_path / "question.sql", "--csv", check=True).stdout
    assert csv == "task,tokens,tokens_2,none\npp,16,1.25,\npp,128,1.25,\n"
    assert benchctl("sql", sql, "--query", "[].tokens", check=True).stdout.split() == ["[", "16,", "128", "]"]
    assert benchctl("sql", "SELECT 1 AS n WHERE 0", check=True).stdout == "No rows.\n"
    assert benchctl("sql", "SELECT 1 AS n WHERE 0", "--csv", check=True).stdout == "n\n"


@pytest.mark.usefixtures("stocked")
def test_a_table_is_cut_and_says_so(benchctl: Benchctl) -> None:
    """A table ends somewhere and says that there is more; a program gets all, and never a part without a word."""
    sql = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 1500) SELECT x FROM t"
    lines = benchctl("sql", sql, check=True).stdout.splitlines()
    assert lines[-2].strip() == "1000"
    assert lines[-1] == "There are more rows than these 1000 (--limit 0 shows all)."
    assert len(benchctl("sql", sql, "--limit", "0", check=True).stdout.splitlines()) == 1501
    assert len(json.loads(benchctl("sql", sql, "--json", check=True).stdout)) == 1500
    cut = benchctl("sql", sql, "--json", "--limit", "2", check=True)
    assert json.loads(cut.stdout) == [{"x": 1}, {"x": 2}]
    assert "more rows" in cut.stderr


@pytest.mark.usefixtures("stocked")
def test_tables_and_columns_are_found(benchctl: Benchctl) -> None:
    """The tables with their rows, and the columns of one with units, from the same words as docs/schema.md."""
    tables = json.loads(benchctl("sql", "--tables", "--json", check=True).stdout)
    assert {row["table"]: row["rows"] for row in tables}["sweep"] == 1
    fields = json.loads(benchctl("sql", "--schema", "server", "--json", check=True).stdout)
    memory = next(field for field in fields if field["name"] == "memory_amount")
    assert (memory["type"], memory["unit"], memory["required"]) == ("integer", "MiB", True)
    assert "token/s" in benchctl("sql", "--schema", "measurement", check=True).stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "Give one statement"),
        (["SELECT 1", "--file", "x.sql"], 2, "Give one statement"),
        (["--file", "/no/such.sql"], 2, "/no/such.sql can't be read"),
        (["--tables", "SELECT 1"], 2, "stand alone"),
        (["--schema", "servr"], 2, "Did you mean 'server'?"),
        (["SELECT 1", "--csv", "--json"], 2, "--csv does not go together"),
        (["SELECT 1", "--timeout", "0"], 2, "--timeout"),
        (["DROP TABLE sweep"], 2, "DROP is refused. Begin with SELECT"),
        (["SELECT 1; SELECT 2"], 2, "These are 2 statements. Give one at a time."),
        (["SELECT 1"], 1, "There is no database to ask yet."),
    ],
)
def test_wrong_usage_is_one_sentence(benchctl: Benchctl, arguments: list[str], status: int, words: str) -> None:
    """What can't be asked is said in one sentence, with the exit status of its kind."""
    done = benchctl("sql", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_missing_database_is_a_database_error() -> None:
    """A database in memory stands for a file that is missing; nobody else's process could read it."""
    engine = open_database("sqlite://")
    with pytest.raises(DatabaseError, match=r"no database to ask yet\. Measure something"):
        ask(engine, "SELECT 1")
    engine.dispose()
