"""For which jobs ``--resume`` rents a server again, for which it need not, and whose server is there still."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from benchctl import lake, pipeline
from benchctl.db.engine import open_database
from benchctl.errors import PlaybookError
from benchctl.fleet import OwnServers
from benchctl.ledger import BENCHING, COLLECTING, GONE, PREPARING, READY, JobState, Ledger
from benchctl.models import load_models
from benchctl.playbook import PlaybookResult, TaskResult
from benchctl.request import SweepRequest
from benchctl.view import PlainView
from llama_bench_core.state import Increment
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
        self.begun: list[str] = []
        self.held: list[str] = []
        self.released: list[str] = []
        self.happened: list[str] = []
        self.gone = ""

    def take(self, jobs: Sequence[JobState], *, standing: bool = False) -> None:
        (self.begun if standing else self.wanted).extend(job.job for job in jobs)

    def hold(self, job: JobState) -> None:
        self.held.append(job.job)

    def lost(self, job: JobState) -> str:  # noqa: ARG002
        return self.gone

    def let_in(self, jobs: Sequence[JobState]) -> None:
        self.happened += [f"let in {job.job}" for job in jobs]

    def out_of_reach(self, job: JobState) -> None:
        self.happened.append(f"{job.job} is out of reach")

    def release(self, job: JobState) -> None:
        self.released.append(job.job)


@pytest.fixture
def engine(home: Home) -> Iterator[Engine]:
    engine = open_database(home.ensure().database_url)
    yield engine
    engine.dispose()


class Resumed:
    """A sweep of one rented job that has failed, resumed with what its journal says."""

    def __init__(self, home: Home, engine: Engine, *, gone_at: str | None = MOMENT, **job_has: Any) -> None:
        scenarios: dict[str, dict[int, float]] = {}
        for task, tokens in rows_by_scenario():
            scenarios.setdefault(task, {})[tokens] = 1.0
        model = replace(load_models()["SmolLM-135M"], name=MODEL)
        suite = Suite.from_dict({"name": "one", "models": [MODEL], "scenarios": scenarios})
        job = JobState(
            "cx22", "hcloud", "cx22", "cx22", lifetime_seconds=3600, attempt=1, stage=GONE, status="failed",
            launched_at=MOMENT, gone_at=gone_at, error="it failed",
        )  # fmt: skip
        job = replace(job, **job_has)
        self.home, self.engine, self.fleet, self.view = home, engine, Fleet(), io.StringIO()
        request = SweepRequest(("hetzner",), suite, (model,), poll_seconds=0.01)
        self.book = Ledger.create(home, engine, request, [job], sweep=SWEEP)

    def oom(self, *, but: int = 0) -> None:
        """Every scenario (but some) ran out of memory."""
        records = [RawRun.outcome(task, tokens, "oom", "") for task, tokens in rows_by_scenario()]
        lines = [json.dumps({**one, "at": MOMENT}) for one in records[: len(records) - but]]
        folder = lake.run_folder(self.home.lake, SWEEP, "hcloud", "cx22")
        lake.append_journal(folder, 0, "\n".join(lines) + "\n")

    def run(self, monkeypatch: pytest.MonkeyPatch, playbook: Any = None) -> pipeline.Report:
        monkeypatch.setattr(pipeline.Sweep, "_make_fleet", lambda _: self.fleet)
        monkeypatch.setattr(pipeline.Sweep, "_sweep_away", lambda *_, **__: None)
        sweep = pipeline.Sweep(
            self.book, self.engine, Path("llama-bench"), playbook=playbook,
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


class Looks:
    """Ansible whose looks at the servers come to what the script says, one after the other; the last one stays."""

    def __init__(self, fleet: Fleet, *script: str | PlaybookError) -> None:
        self._fleet, self._script = fleet, list(script)

    def run(self, name: str, **options: Any) -> PlaybookResult:
        assert name == "collect", "nothing is started"
        said = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        self._fleet.happened.append(str(said))
        if isinstance(said, PlaybookError):
            raise said
        if said == "silent":
            return PlaybookResult(4, unreachable=dict.fromkeys(options["limit"], "Connection timed out"))
        increment = asdict(Increment(said == "running", said, "", {}, "", 0, "", 0))
        task = TaskResult("collect", "llama_bench_info", "ok", increment)
        return PlaybookResult(0, hosts=dict.fromkeys(options["limit"], (task,)))


@pytest.fixture
def standing(home: Home, engine: Engine) -> Resumed:
    """A sweep whose controller was killed while its server measured."""
    return with_server(home, engine, COLLECTING)


def with_server(home: Home, engine: Engine, stage: str) -> Resumed:
    expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    resumed = Resumed(
        home, engine, gone_at=None, stage=stage, status="running", error=None, address="192.0.2.7",
        host_key="ssh-ed25519 AAAA", user="root", expires_at=expires,
    )  # fmt: skip
    resumed.oom(but=1)
    return resumed


def test_a_server_that_misses_the_first_looks_is_not_given_up(
    standing: Resumed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on measuring by itself, as in the middle of a sweep, and is followed to its end when it answers."""
    looks = Looks(standing.fleet, "silent", "silent", "running", "finished")
    report = standing.run(monkeypatch, looks)
    assert standing.fleet.wanted == []
    assert standing.fleet.held == standing.fleet.released == ["cx22"]
    assert standing.fleet.happened == [
        "let in cx22", "silent", "silent", "cx22 is out of reach", "running", "finished",
    ]  # fmt: skip
    assert (report.jobs[0].launched_at, report.jobs[0].attempt) == (MOMENT, 1)
    assert "each of its scenarios" not in standing.view.getvalue()
    assert report.outcomes == {"oom": len(rows_by_scenario()) - 1}


def test_ansible_that_fails_at_the_first_look_gives_no_server_up(
    standing: Resumed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That says nothing of any server: it is run again."""
    standing.run(monkeypatch, Looks(standing.fleet, PlaybookError("Ansible fell over"), "running", "finished"))
    assert standing.fleet.wanted == []
    assert standing.fleet.held == standing.fleet.released == ["cx22"]


def test_a_silent_server_that_the_vendor_lists_no_more_is_followed_by_a_new_one(
    standing: Resumed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it; a line says why another one is rented."""
    standing.fleet.gone = "the vendor took the spot server back"
    standing.run(monkeypatch, Looks(standing.fleet, "silent"))
    assert standing.fleet.wanted == ["cx22"]
    assert standing.fleet.held == []
    assert "cx22: the server is gone: the vendor took the spot server back." in standing.view.getvalue()


def test_a_server_that_stays_silent_is_given_up_when_patience_ends(
    standing: Resumed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--patience`` counts from when the sweep was resumed."""
    object.__setattr__(standing.book.request, "patience_seconds", 0.2)
    report = standing.run(monkeypatch, Looks(standing.fleet, "silent"))
    assert standing.fleet.wanted == []
    assert standing.fleet.released == ["cx22"]
    assert "out of reach for" in str(report.jobs[0].error)


@pytest.mark.parametrize("stage", [READY, PREPARING, BENCHING, COLLECTING])
@pytest.mark.parametrize("silent", [0, 2])
def test_a_server_on_which_nothing_runs_is_begun_with_as_soon_as_it_answers(
    home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch, stage: str, silent: int
) -> None:
    """It is the same one, and the stage is as it was: what it still needs depends on it."""
    resumed = with_server(home, engine, stage)
    resumed.run(monkeypatch, Looks(resumed.fleet, *["silent"] * silent, "died"))
    assert resumed.fleet.begun == ["cx22"]
    assert resumed.fleet.wanted == resumed.fleet.released == []
    assert resumed.book.job("cx22").stage == stage
    assert "started again" not in resumed.view.getvalue()
