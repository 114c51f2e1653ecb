from __future__ import annotations

import csv
import hashlib
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from benchctl.db import queries
from benchctl.db.dictionary import COUNTS, MODELS, UNITS, describe
from benchctl.db.engine import open_database, reading, writing
from benchctl.db.records import record
from benchctl.db.schema import (
    CatalogSource,
    Country,
    ExchangeRate,
    Instance,
    Job,
    JobServer,
    Price,
    RawRun,
    Region,
    Server,
    ServerPrice,
    Sweep,
    Vendor,
    Zone,
)
from benchctl.errors import BenchctlError, UsageError
from benchctl.export import Request, contents, export, formats, licences
from benchctl.ingest import ingest_run
from raw_runs import STARTED
from raw_runs import RawRun as Run
from sqlalchemy import func, select, text, update

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchctl.home import Home
    from sqlalchemy import Engine

    Benchctl = Callable[..., subprocess.CompletedProcess[str]]

SEEN = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
SECRETS = ("hunter2", "192.0.2.17", "2001:db8::17", "/home/ann", "i-0abc", "inventory-of-ann")
"""What stands in the database, and must stand in no file."""


def fill(engine: Engine, folder: Path) -> None:
    """A run on a cloud's server and one on a machine of one's own, a catalogue, prices, and secrets everywhere."""
    seen = {"observed_at": SEEN}
    record(engine, Country(country_id="US", continent="North America", **seen))
    record(engine, Vendor(vendor_id="aws", name="Amazon Web Services", country_id="US", **seen))
    place = {"vendor_id": "aws", "region_id": "us-east-1"}
    record(engine, Region(**place, name="Virginia", api_reference="us-east-1", display_name="V", lon=-77.5, **seen))
    named = {"name": "a", "api_reference": "a", "display_name": "a"}
    record(engine, Zone(**place, zone_id="use1-az1", **named, **seen))
    kind = {"vendor_id": "aws", "server_id": "g6.xlarge"}
    record(
        engine,
        Server(
            **kind, name="g6.xlarge", api_reference="g6.xlarge", display_name="g6.xlarge", vcpus=4,
            cpu_architecture="X86_64", memory_amount=16384, gpu_count=1, gpus=[{"model": "L4"}], **seen,
        ),
    )  # fmt: skip
    where = {**place, "zone_id": "use1-az1", "server_id": "g6.xlarge", "allocation": "ONDEMAND"}
    record(engine, ServerPrice(**where, price=0.8048, **seen))
    paid = {**where, "price": 0.8048, "currency": "USD", "since": SEEN, "source_date": date(2026, 2, 28)}
    record(engine, Price(**paid, source="SpareCores/sc-data", licence="CC-BY-SA-4.0", is_current=True))
    record(engine, Price(**paid, source="/home/ann/prices.csv", licence="as-is", until=SEEN + timedelta(days=1)))
    record(engine, ExchangeRate(currency="EUR", rate_date=date(2026, 2, 28), source="ECB", usd_per_unit=1.1))
    source = {"kind": "prices", "sha256": "0" * 64, "size_bytes": 1, "imported_at": SEEN}
    record(engine, CatalogSource(url="/home/ann/prices.csv", **source))
    cloud = Run(sweep="cloud", vendor="aws", server="g6.xlarge", job="aws_g6.xlarge", price_usd_per_hour=0.8)
    later = STARTED + timedelta(days=10)
    own = Run(sweep="own", job="ssh_192.0.2.17", vendor="ssh", server="192.0.2.17", started=later)
    for run in (cloud, own):
        ingest_run(engine, run.write(folder / "home" / "ann" / "lake"))
    with writing(engine) as session:
        for model in MODELS.values():
            for column in ("observed_at", "ingested_at"):
                if column in model.__table__.c:
                    session.execute(update(model).values({column: SEEN}))
        session.execute(update(RawRun).values(origin="/home/ann/lake"))
        request = {"mirror": "https://ann:hunter2@mirror", "inventory": "/home/ann/inventory-of-ann.yml"}
        session.execute(update(Sweep).values(request=request))
        session.execute(update(Sweep).where(Sweep.sweep_id == "cloud").values(source="spare-cores"))
        error = (
            "ssh: connect to host 192.0.2.17: no key /home/ann/.ssh/key; https://ann:hunter2@mirror/m or 2001:db8::17"
        )
        session.execute(update(Job).values(error=error, host={"notes": ["at 192.0.2.17"], "cpu": "EPYC"}))
        machine = {"sweep_id": "cloud", "job_id": "aws_g6.xlarge", "vendor_id": "aws", "kind": "server"}
        session.add(Instance(instance_id="i", cloud_id="i-0abc", address="192.0.2.17", asked_at=SEEN, **machine))
        session.add(JobServer(sweep_id="own", job_id="ssh_192.0.2.17", launched_at=SEEN, price_per_hour=1.0))


@pytest.fixture
def filled(engine: Engine, tmp_path: Path) -> Engine:
    """The database of :func:`fill`."""
    fill(engine, tmp_path)
    return engine


def run(engine: Engine, target: Path, form: str = "csv", **more: Any) -> dict[str, int]:
    """Export, and give the number of rows of each table."""
    written = export(engine, Request(target=target, form=form, **more), lambda _: None)
    return {one.table: one.rows for one in written}


def files(folder: Path) -> dict[str, str]:
    """Checksum of each file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def lines(folder: Path, table: str) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with (folder / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("form", formats.FORMS)
def test_all_that_may_leave_is_there_and_checks(filled: Engine, tmp_path: Path, form: str) -> None:
    """Every table but two with all its rows; a description and checksums that hold; the same again, byte by byte."""
    rows = run(filled, tmp_path / "set", form)
    with reading(filled) as session:
        counts = {name: session.scalar(select(func.count()).select_from(model)) for name, model in MODELS.items()}
    assert rows == {name: count for name, count in counts.items() if name not in ("instance", "job_attempt")}
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "set", capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    described = json.loads((tmp_path / "set" / "datapackage.json").read_text())
    assert [one["name"] for one in described["resources"]] == list(rows)
    for one in described["resources"]:
        content = (tmp_path / "set" / one["path"]).read_bytes()
        assert one["bytes"] == len(content)
        assert one["hash"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert one["rows"] == rows[one["name"]]
    assert described["created"] == "2026-03-01T08:30:00Z"
    run(filled, tmp_path / "again", form)
    assert files(tmp_path / "again") == files(tmp_path / "set")


@pytest.mark.parametrize("form", formats.FORMS)
def test_secrets_stay(filled: Engine, tmp_path: Path, form: str) -> None:
    """No password, no address, no folder of a user and no identifier of a cloud resource is in any file."""
    run(filled, tmp_path / "set", form)
    for path in (tmp_path / "set").iterdir():
        content = path.read_bytes()
        if form == "parquet" and path.suffix == ".parquet":
            import pyarrow.parquet as pq

            content = str(pq.read_table(path).to_pylist()).encode()
        for secret in SECRETS:
            assert secret.encode() not in content, f"{secret} is in {path.name}"
    readme = (tmp_path / "set" / "README.md").read_text()
    assert "The table `instance`: addresses" in readme
    assert "`sweep.request`: what was asked for" in readme


def test_what_is_replaced_stays_joined(filled: Engine, tmp_path: Path) -> None:
    """An address in a name becomes the same word wherever the name stands, and a message stays readable."""
    run(filled, tmp_path / "set")
    jobs = {row["sweep_id"]: row for row in lines(tmp_path / "set", "job")}
    assert jobs["own"]["job_id"] == "ssh_host-1"
    assert {row["job_id"] for row in lines(tmp_path / "set", "measurement")} == {"ssh_host-1", "aws_g6.xlarge"}
    assert {row["server_id"] for row in lines(tmp_path / "set", "server")} == {"host-1", "g6.xlarge"}
    message = "ssh: connect to host host-1: no key .../key; https://mirror/m or host-2"
    assert jobs["own"]["error"] == message
    assert json.loads(jobs["own"]["host"]) == {"cpu": "EPYC", "notes": ["at host-1"]}
    assert {row["origin"] for row in lines(tmp_path / "set", "raw_run")} == {"lake"}
    assert {row["source"] for row in lines(tmp_path / "set", "price")} == {"SpareCores/sc-data", "prices.csv"}


def test_origins_that_end_alike_are_numbered() -> None:
    """Two lakes of the same name stay two; nothing else of their paths is left."""
    assert contents._short_names(["/b/lake", "/a/lake", "/c/x.tar.xz"]) == {
        "/a/lake": "lake", "/b/lake": "lake-2", "/c/x.tar.xz": "x.tar.xz",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("llama.cpp 0c1e570, driver 550.54.15, b4753", None),
        ("2025-04-18T13:32:57 took 12:30:45", None),
        ("see https://huggingface.co/a/b and ggml/src/x.c:12", None),
        ("1.2.3.4.5 is no address, nor is 256.1.1.1", None),
        ("from 10.0.0.1:22 and [fe80::1]", "from host-1:22 and [host-2]"),
        ("ssh_192.0.2.17_2 and again 192.0.2.17.", "ssh_host-1_2 and again host-1."),
        ("/usr/bin/llama-bench: not found", ".../llama-bench: not found"),
    ],
)
def test_only_addresses_and_paths_are_replaced(before: str, after: str | None) -> None:
    """Versions, times and links stay as they are."""
    assert contents.Cleaner([]).text(before) == (after or before)


def test_csv_is_a_valid_data_package(filled: Engine, tmp_path: Path) -> None:
    """Frictionless reads every file by its description: types, required values, keys, references, sizes, checksums."""
    frictionless = pytest.importorskip("frictionless", reason="frictionless is not installed")
    run(filled, tmp_path / "set")
    report = frictionless.Package(str(tmp_path / "set" / "datapackage.json")).validate()
    errors = [(task.name, error.note) for task in report.tasks for error in task.errors]
    assert (report.valid, errors) == (True, [])
    assert report.stats["tasks"] == len(MODELS) - 2


@pytest.mark.parametrize("form", formats.FORMS)
def test_the_description_keeps_to_the_standard(filled: Engine, tmp_path: Path, form: str) -> None:
    """The description of each form is a Data Package; every column has a meaning, measures have units."""
    frictionless = pytest.importorskip("frictionless", reason="frictionless is not installed")
    run(filled, tmp_path / "set", form)
    described = json.loads((tmp_path / "set" / "datapackage.json").read_text())
    assert list(frictionless.Package.metadata_validate(described)) == []
    by_name = {one["name"]: one for one in described["resources"]}
    assert all(field["description"] for one in described["resources"] for field in one["schema"]["fields"])
    fields = {field["name"]: field for field in by_name["measurement"]["schema"]["fields"]}
    assert (fields["tokens_per_second"]["unit"], fields["tokens_per_second"]["type"]) == ("token/s", "number")
    assert fields["samples_ns"]["type"] == "array"
    assert by_name["measurement"]["schema"]["primaryKey"] == ["sweep_id", "job_id", "model", "task", "tokens"]
    reference = {"fields": ["sweep_id", "job_id"], "reference": {"resource": "job", "fields": ["sweep_id", "job_id"]}}
    assert reference in by_name["measurement"]["schema"]["foreignKeys"]
    assert [one["name"] for one in by_name["measurement"]["licenses"]] == ["CC-BY-4.0", "CC-BY-SA-4.0"]
    assert [one["name"] for one in by_name["price"]["licenses"]] == ["notspecified", "CC-BY-SA-4.0"]
    titles = " ".join(one["title"] for one in described["sources"])
    assert "Spare Cores inspector data: 1 runs, 2026-01-31" in titles
    assert "Prices: SpareCores/sc-data: 1, 2026-02-28; CC-BY-SA-4.0" in titles


def test_parquet_has_the_right_types(filled: Engine, tmp_path: Path) -> None:
    """Times in UTC, whole numbers, JSON as text, and the meaning and unit of each column."""
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'parquet' is not installed")
    run(filled, tmp_path / "set", "parquet")
    table = pq.read_table(tmp_path / "set" / "measurement.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    assert types["measured_at"] == "timestamp[us, tz=UTC]"
    assert (types["tokens"], types["tokens_per_second"], types["samples_ns"]) == ("int64", "double", "string")
    assert table.schema.field("tokens_per_second").metadata[b"unit"] == b"token/s"
    assert not table.schema.field("tokens").nullable
    row = table.to_pylist()[0]
    assert row["measured_at"].tzinfo is not None
    assert json.loads(row["samples_ns"])[0] > 0
    prices = pq.read_table(tmp_path / "set" / "price.parquet")
    assert prices.column("source_date").to_pylist()[0] == date(2026, 2, 28)
    assert prices.column("is_current").to_pylist().count(True) == 1
    chunk = pq.ParquetFile(tmp_path / "set" / "measurement.parquet").metadata.row_group(0).column(0)
    assert chunk.compression == "ZSTD"


def test_sqlite_is_a_database_of_benchctl(filled: Engine, tmp_path: Path) -> None:
    """It opens with benchctl, queries for Spare Cores' database run, and reading changes not a byte."""
    run(filled, tmp_path / "set", "sqlite")
    before = files(tmp_path / "set")
    path = tmp_path / "set" / formats.SQLITE_FILE
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert plain.execute("PRAGMA foreign_key_check").fetchall() == []
        found = plain.execute(
            "SELECT api_reference, ROUND(score / price, 2) > 0 FROM benchmark_score "
            "JOIN server_price USING (vendor_id, server_id) JOIN server USING (vendor_id, server_id) "
            "WHERE json_extract(config, '$.model') LIKE 'gemma%' AND json_extract(config, '$.tokens') = 128"
        ).fetchall()
        assert found == [("g6.xlarge", 1)]
        assert plain.execute("SELECT count(*) FROM instance").fetchone() == (0,)
        assert plain.execute("SELECT DISTINCT request FROM sweep").fetchall() == [("{}",)]
    theirs = open_database(f"sqlite:///{path}", create=False)
    with reading(theirs) as session, reading(filled) as other:
        question = queries.Question(vendor="aws")
        assert len(queries.measurements(session, question).rows) == len(queries.measurements(other, question).rows) > 0
    theirs.dispose()
    assert files(tmp_path / "set") == before


def test_both_databases_give_the_same_files(tmp_path: Path, postgres_socket: Path) -> None:
    """What lies in PostgreSQL leaves as the very bytes that the same data in SQLite leave as."""
    import psycopg

    name = f"test_{uuid4().hex}"
    with psycopg.connect(host=str(postgres_socket), user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    urls = (f"sqlite:///{tmp_path / 'test.db'}", f"postgresql://postgres@/{name}?host={postgres_socket}")
    found = []
    for url in urls:
        engine = open_database(url)
        fill(engine, tmp_path / url[:6])
        with writing(engine) as session:
            session.execute(update(RawRun).values(fingerprint="same"))
        target = tmp_path / f"set-{url[:6]}"
        run(engine, target)
        found.append(files(target))
        engine.dispose()
    assert found[0] == found[1]


def test_null_and_nothing_written(filled: Engine, tmp_path: Path) -> None:
    """In CSV a NULL is an empty cell, truth is a word, times are ISO 8601 with their zone, JSON is in order."""
    run(filled, tmp_path / "set")
    price = lines(tmp_path / "set", "price")[0]
    assert (price["until"], price["since"]) == ("2026-03-02T08:30:00Z", "2026-03-01T08:30:00Z")
    assert {row["is_current"] for row in lines(tmp_path / "set", "price")} == {"true", "false"}
    score = lines(tmp_path / "set", "benchmark_score")[0]
    assert list(json.loads(score["config"])) == ["model", "tokens"]
    assert lines(tmp_path / "set", "region")[0]["lat"] == ""
    assert "request" not in lines(tmp_path / "set", "sweep")[0]


def test_a_selection(filled: Engine, tmp_path: Path) -> None:
    """Vendors, a day and tables narrow what leaves; what refers to a row that stays behind stays behind as well."""
    rows = run(filled, tmp_path / "aws", vendors=("aws",))
    assert (rows["sweep"], rows["job"], rows["server"], rows["raw_run"]) == (1, 1, 1, 1)
    assert "job_server" not in rows or rows["job_server"] == 0
    rows = run(filled, tmp_path / "late", since=STARTED + timedelta(days=5))
    assert (rows["sweep"], rows["job"], rows["raw_run"], rows["server"]) == (1, 1, 1, 2)
    assert {row["sweep_id"] for row in lines(tmp_path / "late", "measurement")} == {"own"}
    rows = run(filled, tmp_path / "two", tables=("price", "server"))
    assert rows == {"server": 2, "price": 2}
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        "server.csv", "price.csv", "datapackage.json", "README.md", "SHA256SUMS",
    }  # fmt: skip
    described = json.loads((tmp_path / "two" / "datapackage.json").read_text())
    keys = described["resources"][1]["schema"]["foreignKeys"]
    assert [key["reference"]["resource"] for key in keys] == ["server"]
    run(filled, tmp_path / "file", form="sqlite", tables=("price",))
    with closing(sqlite3.connect(tmp_path / "file" / formats.SQLITE_FILE)) as plain:
        assert plain.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("price",)]
    with pytest.raises(UsageError, match="nothing to export"):
        run(filled, tmp_path / "none", since=datetime(2050, 1, 1, tzinfo=UTC), tables=("measurement", "job"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tables": ("servers",)}, r"no table 'servers'\. Did you mean 'server'\?"),
        ({"tables": ("instance",)}, r"'instance' is never exported: it holds addresses"),
        ({"vendors": ("awz",)}, r"no vendor 'awz' in the database\. Did you mean 'aws'\?"),
        ({"licence": "CC-BY-SA"}, r"'CC-BY-SA' is no licence .*\. Did you mean CC-BY-SA-4.0\?"),
    ],
)
def test_what_is_not_there_is_named(filled: Engine, tmp_path: Path, more: dict[str, Any], words: str) -> None:
    """A mistyped table, vendor or licence is answered with the nearest, and nothing is made."""
    with pytest.raises(UsageError, match=words):
        run(filled, tmp_path / "sets" / "set", **more)
    assert not list(tmp_path.glob("sets/*"))


@pytest.mark.parametrize("form", formats.FORMS)
def test_never_half_a_data_set(filled: Engine, tmp_path: Path, form: str) -> None:
    """What is interrupted leaves nothing, neither the folder nor anything beside it."""
    (tmp_path / "sets").mkdir()
    told = []

    def interrupt(line: str) -> None:
        told.append(line)
        if len(told) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(filled, Request(target=tmp_path / "sets" / "set", form=form), interrupt)
    assert list((tmp_path / "sets").iterdir()) == []


def test_other_peoples_files_stay(filled: Engine, tmp_path: Path) -> None:
    """A folder that isn't empty is left alone; with force the data set in it is replaced, and the rest stays."""
    target = tmp_path / "set"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"is not empty\. Name another, or replace the data set in it: --force\."):
        run(filled, target)
    run(filled, target, force=True)
    assert (target / "notes.txt").read_text() == "mine"
    run(filled, target, form="parquet", force=True)
    assert (target / "notes.txt").read_text() == "mine"
    assert not list(target.glob("*.csv"))
    assert (target / "server.parquet").exists()
    (target / "README.md").write_text("my own words")
    before = files(target)
    with pytest.raises(UsageError, match=r"README\.md is not as an export wrote it"):
        run(filled, target, force=True)
    assert files(target) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_place_that_can_not_be_written(filled: Engine, tmp_path: Path) -> None:
    """A file where a folder should be is one clear sentence."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        run(filled, tmp_path / "file")
    with pytest.raises(UsageError, match=r"/file is a file, not a folder"):
        run(filled, tmp_path / "file" / "set")


def test_without_pyarrow(filled: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet without its library is a sentence that says what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BenchctlError, match=r"needs pyarrow, .* Install benchctl with the extra 'parquet': "):
        run(filled, tmp_path / "set", "parquet")
    assert not (tmp_path / "set").exists()


def test_the_date_can_be_given(filled: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SOURCE_DATE_EPOCH, as reproducible builds have it, is the data set's date."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    run(filled, tmp_path / "set")
    assert json.loads((tmp_path / "set" / "datapackage.json").read_text())["created"] == "2023-11-14T22:13:20Z"


def test_every_number_has_a_unit_or_is_a_count() -> None:
    """No column of numbers is without a unit, unless it is named as one that counts; no unit is for what is gone."""
    columns = {f"{name}.{field.name}": field for name in MODELS for field in describe(name).fields}
    assert UNITS.keys() <= columns.keys()
    assert columns.keys() >= COUNTS
    numbers = {name for name, field in columns.items() if field.type in ("integer", "number")}
    assert numbers - UNITS.keys() - COUNTS == set()
    assert not COUNTS & UNITS.keys()


def test_columns_that_are_cleaned_exist() -> None:
    """What is withheld, reduced or scrubbed is named as the tables name it."""
    columns = {f"{name}.{field.name}" for name in MODELS for field in describe(name).fields}
    scrubbed = {f"{table}.{column}" for table, names in contents.SCRUBBED_COLUMNS.items() for column in names}
    assert contents.WITHHELD_COLUMNS.keys() | contents.REDUCED_COLUMNS.keys() | scrubbed <= columns
    assert contents.WITHHELD_TABLES.keys() <= MODELS.keys()


def test_a_stated_licence_is_recognised() -> None:
    """A licence's identifier is known by its name; other words are kept as they are said."""
    assert licences.named("Apache-2.0").path.endswith("LICENSE-2.0")
    assert licences.named("as-is, no licence file").title == "Not a known licence: as-is, no licence file"
    assert licences.named(None).title == "No licence stated"


def test_the_command(home: Home, benchctl: Benchctl, tmp_path: Path) -> None:
    """The command writes the data set, says what it did, and answers programs with an object for each table."""
    assert benchctl("export", tmp_path / "set", "--format", "csv").returncode == 2
    engine = open_database(home.database_url)
    fill(engine, tmp_path)
    with engine.connect() as connection:
        before = connection.execute(text("SELECT count(*) FROM measurement")).scalar()
    engine.dispose()
    done = benchctl("export", tmp_path / "set", "--format", "sqlite", "--vendors", "aws,ssh", "--json", check=True)
    rows = {row["table"]: row for row in json.loads(done.stdout)}
    assert rows["measurement"]["rows"] == before
    assert Path(rows["measurement"]["path"]).is_file()
    assert f"measurement: {before} rows" in done.stderr
    again = benchctl("export", tmp_path / "set", "--format", "csv", "--tables", "server,price")
    assert (again.returncode, again.stdout) == (2, "")
    assert "--force" in again.stderr
    shown = benchctl("export", tmp_path / "set", "--format", "csv", "--tables", "server,price", "--force", check=True)
    assert shown.stdout.splitlines()[0].split() == ["table", "rows", "file", "bytes"]
    assert {path.name for path in (tmp_path / "set").glob("*.csv")} == {"server.csv", "price.csv"}
