"""For which jobs ``--resume`` rents a server again, and for which it need not."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from benchctl import lake, pipeline
from benchctl.db.engine import open_database
from benchctl.fleet import OwnServers
from benchctl.ledger import GONE, JobState, Ledger
from benchctl.models import load_models
from benchctl.request import SweepRequest
from benchctl.view import PlainView
from llama_bench_core.suite import Suite
from raw_runs import MODEL, RawRun, rows_by_scenario

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchctl.home import Home
    from sqlalchemy import Engine

SWEEP, MOMENT = "20261126-0000-hetzner-ab12", "2026-11-26T00:00:00.000+00:00"


class Fleet(OwnServers):
    """A fleet that only notes who wants a server, and gives none."""

    def __init__(self) -> None:
        super().__init__(lambda _seconds: None)
        self.wanted: list[str] = []
        self.released: list[str] = []

    def take(self, jobs: Sequence[JobState], *, standing: bool = False) -> None:  # noqa: ARG002
        self.wanted += [job.job for job in jobs]

    def release(self, job: JobState) -> None:
        self.released.append(job.job)


@pytest.fixture
def engine(home: Home) -> Iterator[Engine]:
    engine = open_database(home.ensure().database_url)
    yield engine
    engine.dispose()


class Resumed:
    """A sweep of one rented job that has failed, resumed with what its journal says."""

    def __init__(self, home: Home, engine: Engine, *, gone_at: str | None = MOMENT) -> None:
        scenarios: dict[str, dict[int, float]] = {}
        for task, tokens in rows_by_scenario():
            scenarios.setdefault(task, {})[tokens] = 1.0
        model = replace(load_models()["SmolLM-135M"], name=MODEL)
        suite = Suite.from_dict({"name": "one", "models": [MODEL], "scenarios": scenarios})
        job = JobState(
            "cx22", "hcloud", "cx22", "cx22", lifetime_seconds=3600, attempt=1, stage=GONE, status="failed",
            launched_at=MOMENT, gone_at=gone_at, error="it failed",
        )  # fmt: skip
        self.home, self.engine, self.fleet, self.view = home, engine, Fleet(), io.StringIO()
        self.book = Ledger.create(home, engine, SweepRequest(("hetzner",), suite, (model,)), [job], sweep=SWEEP)

    def oom(self, *, but: int = 0) -> None:
        """Every scenario (but some) ran out of memory."""
        records = [RawRun.outcome(task, tokens, "oom", "") for task, tokens in rows_by_scenario()]
        lines = [json.dumps({**one, "at": MOMENT}) for one in records[: len(records) - but]]
        folder = lake.run_folder(self.home.lake, SWEEP, "hcloud", "cx22")
        lake.append_journal(folder, 0, "\n".join(lines) + "\n")

    def run(self, monkeypatch: pytest.MonkeyPatch) -> pipeline.Report:
        monkeypatch.setattr(pipeline.Sweep, "_make_fleet", lambda _: self.fleet)
        monkeypatch.setattr(pipeline.Sweep, "_sweep_away", lambda *_, **__: None)
        sweep = pipeline.Sweep(
            self.book, self.engine, Path("llama-bench"), playbook=None,  # type: ignore[arg-type] # is never run
            view=PlainView(self.view), cancelled=threading.Event(),
        )  # fmt: skip
        return sweep.run()


def test_a_job_of_which_nothing_can_be_measured_gets_no_second_server(
    home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new server would find no open scenario: none is rented, a line says so, and the job has failed still."""
    resumed = Resumed(home, engine)
    resumed.oom()
    report = resumed.run(monkeypatch)
    assert resumed.fleet.wanted == []
    assert "cx22: each of its scenarios has a verdict already" in resumed.view.getvalue()
    assert report.status == "failed"
    (job,) = report.jobs
    assert (job.status, job.stage) == ("failed", GONE)
    assert "nothing could be measured" in str(job.error)


def test_a_job_with_a_scenario_left_gets_a_server(home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One scenario without a verdict is worth a server."""
    resumed = Resumed(home, engine)
    resumed.oom(but=1)
    resumed.run(monkeypatch)
    assert resumed.fleet.wanted == ["cx22"]


def test_a_job_without_a_journal_gets_a_server(home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was measured yet."""
    resumed = Resumed(home, engine)
    resumed.run(monkeypatch)
    assert resumed.fleet.wanted == ["cx22"]


def test_a_job_that_lost_its_server_after_its_last_scenario_is_finished_without_another(
    home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is at home but the end: the rows are in the database, and the server that may be there is given back."""
    resumed = Resumed(home, engine, gone_at=None)
    RawRun(sweep=SWEEP, job="cx22", vendor="hcloud", server="cx22", ended=False).write(home.lake)
    report = resumed.run(monkeypatch)
    assert resumed.fleet.wanted == []
    assert resumed.fleet.released == ["cx22"]
    assert report.jobs[0].status == "finished"
    assert report.outcomes == {"ok": len(rows_by_scenario())}
