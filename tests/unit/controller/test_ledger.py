"""The ledger writes every step through, to the sweep's file and to the database."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from benchctl.db import queries
from benchctl.db.engine import open_database, reading
from benchctl.db.schema import Job, JobServer
from benchctl.errors import BenchctlError, UsageError
from benchctl.ledger import JobState, Ledger, find_sweep, read_book, sweep_name
from benchctl.request import SweepRequest
from llama_bench_core.suite import Suite
from llama_bench_core.values import Model
from sqlalchemy import select

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchctl.home import Home
    from sqlalchemy import Engine

SUITE = Suite.from_dict({"name": "some", "models": ["m"], "scenarios": {"pp": {16: 2}}})
REQUEST = SweepRequest(
    vendors=("local",),
    suite=SUITE,
    models=(Model("m", "m.gguf", bytes=3, shape={"architecture": "llama"}),),
    mirror="http://user:secret@mirror.example/models/",
)
JOB = JobState("local", "local", "amd-2c", "localhost", price_per_hour=0.05, currency="USD")


@pytest.fixture
def engine(home: Home) -> Iterator[Engine]:
    engine = open_database(home.database_url)
    yield engine
    engine.dispose()


def sweeps(engine: Engine) -> list[dict[str, object]]:
    with reading(engine) as session:
        return queries.sweeps(session)


def test_a_sweep_begins_in_both_places(home: Home, engine: Engine) -> None:
    """Before anything is done, the file and the tables know the sweep and its jobs."""
    ledger = Ledger.create(home, engine, REQUEST, [JOB])
    assert read_book(home, ledger.sweep)["jobs"][0]["status"] == "waiting"
    (row,) = sweeps(engine)
    assert row["sweep_id"] == ledger.sweep
    assert row["status"] == "running"
    assert row["jobs"][0]["price_usd_per_hour"] == 0.05  # type: ignore[index]


def test_each_step_is_written_through(home: Home, engine: Engine) -> None:
    """A change of a job is in file and table at once, with the times of its start and its end."""
    ledger = Ledger.create(home, engine, REQUEST, [JOB])
    ledger.update("local", status="running", stage="preparing")
    (row,) = sweeps(engine)
    job = row["jobs"][0]  # type: ignore[index]
    assert (job["status"], job["stage"], job["ended_at"]) == ("running", "preparing", None)
    ledger.update("local", status="failed", error="it broke")
    ledger.close("failed", "local: it broke")
    (row,) = sweeps(engine)
    assert row["error"] == "local: it broke"
    assert row["jobs"][0]["ended_at"] is not None  # type: ignore[index]
    book = read_book(home, ledger.sweep)
    assert (book["status"], book["jobs"][0]["error"]) == ("failed", "it broke")


def test_a_sweep_is_taken_up_without_a_flag(home: Home, engine: Engine) -> None:
    """What was asked for comes back whole from the file."""
    ledger = Ledger.create(home, engine, REQUEST, [JOB])
    ledger.update("local", status="stopped", stage="collecting", ansible_job="j1")
    again = Ledger.open(home, engine, ledger.sweep)
    assert again.request == REQUEST
    assert again.jobs == ledger.jobs
    assert again.created_at == ledger.created_at
    again.reopen()
    assert sweeps(engine)[0]["finished_at"] is None


def test_a_mirrors_password_stays_in_the_private_file(home: Home, engine: Engine) -> None:
    """The database and the book get the address without the password; the file that holds it is its owner's alone."""
    ledger = Ledger.create(home, engine, replace(REQUEST, hook="tell --key secret"), [JOB])
    assert "secret" not in (ledger.folder / "sweep.json").read_text()
    private = ledger.folder / "keys" / "request.json"
    assert private.stat().st_mode & 0o077 == 0
    assert json.loads(private.read_text()) == {"mirror": REQUEST.mirror, "hook": "tell --key secret"}
    assert Ledger.open(home, engine, ledger.sweep).request == ledger.request
    assert "secret" not in json.dumps(REQUEST.public())
    assert REQUEST.public()["mirror"] == "http://mirror.example/models/"
    assert os.stat(ledger.folder / "sweep.json").st_mode & 0o077 == 0  # noqa: PTH116
    with reading(engine) as session:
        from benchctl.db.schema import Sweep

        assert "secret" not in json.dumps(session.get_one(Sweep, ledger.sweep).request)


def test_the_servers_of_a_job_are_kept(home: Home, engine: Engine) -> None:
    """Each from its launch to its end at its own price; one that turns out never to have been made leaves again."""
    rented = JobState("cx22", "hcloud", "cx22", "cx22", lifetime_seconds=3600)
    ledger = Ledger.create(home, engine, REQUEST, [JOB, rented])

    def kept() -> list[tuple[object, ...]]:
        columns = (JobServer.job_id, JobServer.launched_at, JobServer.gone_at, JobServer.price_per_hour)
        with reading(engine) as session:
            found = session.execute(select(*columns).order_by(JobServer.launched_at))
            return [(job, launched.hour, gone and gone.hour, price) for job, launched, gone, price in found]

    def counted() -> dict[str, int | None]:
        with reading(engine) as session:
            return {one.job_id: one.servers_rented for one in session.scalars(select(Job))}

    assert counted() == {"local": None, "cx22": 0}
    first = ledger.update("cx22", status="running", launched_at=at(10), price_per_hour=0.01, currency="EUR")
    assert kept() == [("cx22", 10, None, 0.01)]
    ledger.update("local", status="running")
    ledger.update("cx22", gone_at=at(11))
    assert kept() == [("cx22", 10, 11, 0.01)]
    past = {"launched_at": first.launched_at, "gone_at": at(11), "price_per_hour": 0.01, "currency": "EUR"}
    ledger.update("cx22", past=(past,), launched_at=at(12), gone_at=None, price_per_hour=0.02)
    assert kept() == [("cx22", 10, 11, 0.01), ("cx22", 12, None, 0.02)]
    ledger.update("cx22", launched_at=None, gone_at=at(13))
    assert (kept(), counted()) == ([("cx22", 10, 11, 0.01)], {"local": None, "cx22": 1})
    ledger.close("finished")
    assert kept() == [("cx22", 10, 11, 0.01)]


def at(hour: int) -> str:
    """An hour of a day, as a book says it."""
    return datetime(2026, 11, 1, hour, tzinfo=UTC).isoformat(timespec="milliseconds")


def test_names_sort_by_time_and_are_labels() -> None:
    """A sweep's name begins with its time and holds nothing that a cloud's label may not."""
    name = sweep_name(("local",), datetime(2026, 11, 23, 18, 30, tzinfo=UTC), "ab12")
    assert name == "20261123-1830-local-ab12"


def test_sweeps_are_found_by_name_beginning_or_last(home: Home, engine: Engine) -> None:
    """The newest is 'last' also within one minute; a beginning must be unique; else the mend lists what there is."""
    with pytest.raises(UsageError, match="no sweep yet"):
        find_sweep(home, "last")
    moments = iter(datetime(2026, 1, 1, 12, 0, second, tzinfo=UTC) for second in range(60))

    def clock() -> datetime:
        return next(moments)

    first = Ledger.create(home, engine, REQUEST, [JOB], clock=clock).sweep
    second = Ledger.create(home, engine, REQUEST, [JOB], clock=clock).sweep
    assert find_sweep(home, "last") == second
    assert find_sweep(home, first) == first
    assert find_sweep(home, first[:-1] if first[:-1] != second[:-1] else first) == first
    with pytest.raises(UsageError, match="several"):
        find_sweep(home, "20260101")
    with pytest.raises(UsageError, match="newest are"):
        find_sweep(home, "nothing")


def test_a_damaged_book_is_one_sentence(home: Home, engine: Engine) -> None:
    """A file that is no JSON, or not a sweep's, is named, and the way to its results with it."""
    ledger = Ledger.create(home, engine, REQUEST, [JOB])
    path = ledger.folder / "sweep.json"
    for content in ("{", "[]", '{"jobs": 3}'):
        path.write_text(content)
        with pytest.raises(BenchctlError, match="damaged"):
            Ledger.open(home, engine, ledger.sweep)


def test_a_job_that_goes_on_has_no_end(home: Home, engine: Engine) -> None:
    """Resuming takes the end off the job, and keeps its start."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    times = iter(began + timedelta(seconds=number) for number in range(100))
    ledger = Ledger.create(home, engine, REQUEST, [JOB], clock=lambda: next(times))
    started = ledger.update("local", status="running").started_at
    assert ledger.update("local", status="stopped").ended_at is not None
    resumed = ledger.update("local", status="running")
    assert (resumed.started_at, resumed.ended_at) == (started, None)
