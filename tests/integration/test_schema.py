from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from benchctl.db.document import document
from benchctl.db.engine import MIGRATIONS, open_database, reading, writing
from benchctl.db.records import record
from benchctl.db.schema import BenchmarkScore, Job, Sweep, metadata
from benchctl.errors import DatabaseError
from corpus import FOLDER as CORPUS
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

if TYPE_CHECKING:
    from sqlalchemy import Engine

LATER = '''"""A later schema."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade():
    with op.batch_alter_table("sweep") as table:
        table.add_column(sa.Column("colour", sa.String(), nullable=False, server_default="grey"))
    op.execute("UPDATE sweep SET colour = 'blue' WHERE suite = 'quick'")
    {more}
'''


def later_migrations(folder: Path, more: str = "pass") -> Path:
    """The migrations of a benchctl to come: ours, and one more that rebuilds a table and moves data."""
    copy = shutil.copytree(MIGRATIONS, folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    newest = max(path.name.split("_")[0] for path in (copy / "versions").glob("[0-9]*.py"))
    revision = f"{int(newest) + 1:04d}"
    (copy / "versions" / f"{revision}_later.py").write_text(LATER.format(revision=revision, before=newest, more=more))
    return copy


def test_migrations_make_what_the_models_say(engine: Engine) -> None:
    """The revisions, run one after the other, give the very tables of the models."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_documentation_is_current(checkout: Path) -> None:
    """docs/schema.md is what the models say; ``python -m benchctl.db.document > docs/schema.md`` mends it."""
    assert (checkout / "docs" / "schema.md").read_text() == document()


def test_every_column_is_explained() -> None:
    """No column goes without a word on its meaning."""
    assert [f"{t.name}.{c.name}" for t in metadata.tables.values() for c in t.columns if not c.doc] == []


def test_opening_again_keeps_all(database_url: str) -> None:
    """A database that is current is opened as it is."""
    first = open_database(database_url)
    record(first, Sweep(sweep_id="s1", vendors=["local"]))
    first.dispose()
    again = open_database(database_url)
    with reading(again) as session:
        assert session.get(Sweep, "s1") is not None
    again.dispose()


def test_an_older_database_is_upgraded(database_url: str, tmp_path: Path) -> None:
    """Rows are kept and moved by the new revision, jobs still refer to their sweep, and SQLite's file has a copy."""
    older = open_database(database_url)
    record(older, Sweep(sweep_id="s1", suite="quick", vendors=["local"]), Sweep(sweep_id="s2", vendors=[]))
    record(older, Job(sweep_id="s1", job_id="j", vendor_id="local", server_id="x", outcomes={"ok": 2}))
    older.dispose()
    newer = open_database(database_url, migrations=later_migrations(tmp_path))
    with newer.connect() as connection:
        found = dict(connection.execute(text("SELECT sweep_id, colour FROM sweep")).all())
        assert found == {"s1": "blue", "s2": "grey"}
        assert connection.execute(text("SELECT count(*) FROM job")).scalar() == 1
    newer.dispose()
    copies = list(tmp_path.glob("test.db.0004-*.bak"))
    assert len(copies) == (1 if database_url.startswith("sqlite") else 0)
    for copy in copies:
        with closing(sqlite3.connect(copy)) as old:
            assert old.execute("SELECT sweep_id FROM sweep ORDER BY 1").fetchall() == [("s1",), ("s2",)]


def earlier_migrations(folder: Path, newest: str) -> Path:
    """The migrations of a benchctl of earlier, up to one revision."""
    copy = shutil.copytree(MIGRATIONS, folder / newest, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (copy / "versions").glob("[0-9]*.py"):
        if path.name.split("_")[0] > newest:
            path.unlink()
    return copy


def test_prices_at_launch_of_an_older_database(database_url: str, tmp_path: Path) -> None:
    """Those in USD are kept in their own currency, too; runs in another are read again, for the raw files have it."""
    older = open_database(database_url, migrations=earlier_migrations(tmp_path, "0003"))
    with older.begin() as connection:
        connection.execute(text("INSERT INTO sweep (sweep_id, vendors, status, request) VALUES ('s', '[]', '', '{}')"))
        for job, price, currency in (("usd", 0.5, "USD"), ("eur", None, "EUR"), ("none", None, None)):
            values = {"job": job, "price": price, "currency": currency}
            job_row = "INSERT INTO job (sweep_id, job_id, vendor_id, server_id, replica, status, outcomes, "
            job_row += (
                "price_usd_per_hour, currency) VALUES ('s', :job, 'v', 'x', 1, 'finished', '{}', :price, :currency)"
            )
            connection.execute(text(job_row), values)
            raw = "INSERT INTO raw_run (origin, path, fingerprint, sweep_id, job_id, ingested_at, damage) "
            raw += "VALUES ('o', :job, 'f', 's', :job, '2026-01-01 00:00:00.000000', '[]')"
            connection.execute(text(raw), values)
        archive = "INSERT INTO catalog_source (url, kind, sha256, size_bytes, imported_at) "
        archive += "VALUES ('o', 'results', 'sum', 1, '2026-01-01 00:00:00.000000')"
        connection.execute(text(archive))
    older.dispose()
    newer = open_database(database_url)
    with newer.connect() as connection:
        jobs = connection.execute(text("SELECT job_id, launch_price_per_hour, servers_rented FROM job ORDER BY 1"))
        assert [tuple(one) for one in jobs] == [("eur", None, None), ("none", None, None), ("usd", 0.5, None)]
        marks = connection.execute(text("SELECT job_id, fingerprint FROM raw_run ORDER BY 1"))
        assert [tuple(one) for one in marks] == [("eur", ""), ("none", "f"), ("usd", "f")]
        # nor is the archive that they came from taken for one that is known
        assert connection.execute(text("SELECT sha256 FROM catalog_source")).scalar_one() == ""
    newer.dispose()


def test_a_failing_upgrade_changes_nothing(database_url: str, tmp_path: Path) -> None:
    """A revision that fails half way leaves the older database whole and usable."""
    older = open_database(database_url)
    record(older, Sweep(sweep_id="s1", vendors=[]))
    older.dispose()
    broken = later_migrations(tmp_path, more='op.execute("INSERT INTO nowhere VALUES (1)")')
    with pytest.raises(DatabaseError, match=r"can't be upgraded to schema 0005: .*nowhere.* It is as it was"):
        open_database(database_url, migrations=broken)
    again = open_database(database_url)
    assert "colour" not in {column["name"] for column in inspect(again).get_columns("sweep")}
    with reading(again) as session:
        assert session.get(Sweep, "s1") is not None
    again.dispose()


def test_a_newer_database_is_refused(database_url: str, tmp_path: Path) -> None:
    """What a later benchctl wrote is not touched."""
    open_database(database_url, migrations=later_migrations(tmp_path)).dispose()
    with pytest.raises(DatabaseError, match=r"newer benchctl \(its schema is 0005, this one knows 0004\)\. Upgrade"):
        open_database(database_url)


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    """A database with other tables is named as such and left alone."""
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE songs (title)")
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match=r"holds other tables \(songs"):
        open_database(f"sqlite:///{path}", create=False)
    with pytest.raises(DatabaseError, match=r"holds other tables \(songs"):
        open_database(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as theirs:
        assert theirs.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]
    assert len(before) == path.stat().st_size


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("sqlite:///{tmp}/text.db", "is not an SQLite database"),
        ("sqlite:///{tmp}/nowhere/x.db", "can't be opened"),
        ("sqlite:///{tmp}", "is a folder"),
        ("mysql://me@host/db", "keeps no data in 'mysql'"),
        ("certainly not", "is not the URL of a database"),
        ("postgresql://me:secret@127.0.0.1:1/db", "Connection refused"),
    ],
)
def test_what_is_no_database(tmp_path: Path, url: str, sentence: str) -> None:
    """Each mistake is one sentence that names the place, without the password."""
    (tmp_path / "text.db").write_text("hello, this is no database at all\n" * 200)
    with pytest.raises(DatabaseError) as raised:
        open_database(url.format(tmp=tmp_path))
    assert sentence in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_missing_driver_is_named(tmp_path: Path) -> None:
    """Without the extra the sentence says how to install it."""
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError(\"No module named 'psycopg'\")\n")
    program = "from benchctl.db.engine import open_database\nopen_database('postgresql://me@host/db')"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env={"PYTHONPATH": path}
    )
    assert "pip install '.[postgres]' (in benchctl's checkout)" in done.stderr.splitlines()[-1]


def test_a_missing_file_reads_as_an_empty_database(tmp_path: Path) -> None:
    """Asking does not make files."""
    opened = open_database(f"sqlite:///{tmp_path / 'none.db'}", create=False)
    with reading(opened) as session:
        assert session.query(Sweep).count() == 0
    opened.dispose()
    assert list(tmp_path.iterdir()) == []


def _as_nobody(path: str, results: multiprocessing.Queue[str]) -> None:
    if os.getuid() == 0:
        os.setuid(65534)
    try:
        opened = open_database(f"sqlite:///{path}", create=False)
        with reading(opened) as session:
            results.put(f"read {session.query(Sweep).count()}")
        opened.dispose()
        writable = open_database(f"sqlite:///{path}")
        record(writable, Sweep(sweep_id="s2", vendors=[]))
        results.put("written")
    except DatabaseError as error:
        results.put(str(error))


def test_a_read_only_database_answers_and_refuses_writes() -> None:
    """In a folder without write access questions are answered, and writing is one sentence."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    path = folder / "b.db"
    try:
        first = open_database(f"sqlite:///{path}")
        record(first, Sweep(sweep_id="s1", vendors=[]))
        first.dispose()
        path.chmod(0o444)
        folder.chmod(0o555)
        context = multiprocessing.get_context("fork")
        results: multiprocessing.Queue[str] = context.Queue()
        child = context.Process(target=_as_nobody, args=(str(path), results))
        child.start()
        assert results.get(timeout=60) == "read 1"
        assert "can't be written" in results.get(timeout=60)
        child.join(60)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


OPEN_AND_WRITE = """
import sys
from benchctl.db.engine import open_database
from benchctl.db.records import record
from benchctl.db.schema import Sweep
opened = open_database(sys.argv[1])
for count in range(5):
    record(opened, Sweep(sweep_id=f"s{sys.argv[2]}-{count}", vendors=[]))
opened.dispose()
"""


def test_four_processes_open_a_new_database_at_once(database_url: str, checkout: Path) -> None:
    """One makes the tables, the others wait for it, and all of them write."""
    places = os.pathsep.join((str(checkout / "controller"), str(checkout / "module_utils")))
    children = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_WRITE, database_url, str(number)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": places},
        )
        for number in range(4)
    ]
    told = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0] * 4, "\n".join(told)
    opened = open_database(database_url)
    with reading(opened) as session:
        assert session.query(Sweep).count() == 20
    opened.dispose()


def test_a_transaction_is_all_or_nothing(engine: Engine) -> None:
    """What fails in the middle leaves no half."""

    def fail_in_the_middle() -> None:
        with writing(engine) as session:
            session.add(Sweep(sweep_id="s1", vendors=[]))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_middle()
    with reading(engine) as session:
        assert session.get(Sweep, "s1") is None


def test_references_are_checked(engine: Engine) -> None:
    """A job without its sweep is refused by the database itself."""
    with pytest.raises(DatabaseError) as raised:
        record(engine, Job(sweep_id="none", job_id="j", vendor_id="local", server_id="x"))
    assert isinstance(raised.value.__cause__, IntegrityError)


def test_recording_changes_only_what_is_given(engine: Engine) -> None:
    """A later word on a job leaves alone what it does not speak of."""
    record(engine, Sweep(sweep_id="s", suite="quick", vendors=["local"], request={"b": 1, "a": 2}))
    record(engine, Job(sweep_id="s", job_id="j", vendor_id="local", server_id="x", status="running"))
    record(engine, Job(sweep_id="s", job_id="j", stage="bench"), Sweep(sweep_id="s", status="finished"))
    with reading(engine) as session:
        job, sweep = session.get(Job, ("s", "j")), session.get(Sweep, "s")
        assert job is not None
        assert sweep is not None
        assert (job.status, job.stage, job.server_id) == ("running", "bench", "x")
        assert (sweep.status, sweep.suite, sweep.request) == ("finished", "quick", {"a": 2, "b": 1})


def test_spare_cores_tables_have_their_columns() -> None:
    """Names and types are those of Spare Cores' database, so that queries written for it run."""
    catalogue = CORPUS / "sc-data-priceless-2025-04-28.db.xz"
    if not catalogue.exists():
        pytest.skip("BENCHCTL_TEST_CORPUS names no folder with Spare Cores' catalogue")
    import lzma

    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = Path(folder, "theirs.db"), Path(folder, "ours.db")
        theirs.write_bytes(lzma.decompress(catalogue.read_bytes()))
        open_database(f"sqlite:///{ours}").dispose()
        with closing(sqlite3.connect(theirs)) as a, closing(sqlite3.connect(ours)) as b:
            for table in (
                "country",
                "vendor",
                "region",
                "zone",
                "server",
                "server_price",
                "benchmark",
                "benchmark_score",
            ):
                query = f"SELECT name, type, pk FROM pragma_table_info('{table}') ORDER BY cid"  # noqa: S608
                assert b.execute(query).fetchall() == a.execute(query).fetchall(), table


def test_published_queries_run_unchanged() -> None:
    """The queries that people run on Spare Cores' database run on ours, to the letter."""
    published = CORPUS / "queries.sql"
    if not published.exists():
        pytest.skip("BENCHCTL_TEST_CORPUS names no folder with Spare Cores' queries")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ours.db")
        open_database(f"sqlite:///{path}").dispose()
        with closing(sqlite3.connect(path)) as ours:
            queries = [query for query in published.read_text().split(";") if "SELECT" in query]
            assert len(queries) == 3
            for query in queries:
                ours.execute(query).fetchall()


def test_config_is_canonical_text(tmp_path: Path) -> None:
    """However a config is written down, equal ones are one key, with Spare Cores' own text."""
    column = BenchmarkScore.__table__.c.config.type
    opened = open_database(f"sqlite:///{tmp_path / 'c.db'}")
    process = column.dialect_impl(opened.dialect).bind_processor(opened.dialect)
    assert process is not None
    assert process({"tokens": 16, "model": "m.gguf"}) == '{"model": "m.gguf", "tokens": 16}'
    opened.dispose()
