"""The stages of a sweep in this process, with the real Ansible, module and llama-bench."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from benchctl import pipeline
from benchctl.cli.sweep import plan as plan_command
from benchctl.cli.sweep import plan_of, request_from
from benchctl.db.engine import open_database
from benchctl.fleet import OwnServers
from benchctl.ledger import COLLECTING, JobState, Ledger
from benchctl.models import load_models
from benchctl.playbook import AnsiblePlaybook, PlaybookResult, TaskResult
from benchctl.request import SweepRequest
from benchctl.suites import load_suite
from benchctl.view import PlainView
from llama_bench_core.state import Increment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchctl.home import Home
    from sqlalchemy import Engine

SUITE = """\
name: one
models: [SmolLM-135M]
scenarios:
  pp: {8: 0.5}
policy: {max_samples: 2, noise_retries: 0}
"""

ASKED: dict[str, Any] = {
    **{str(one.name): None for one in plan_command.params},
    "vendors": "local",
    "models": (),
    "weights": "synthetic",
    "connections": 1,
    "threads": 1,
    "device": "cpu",
    "replicas": 1,
    "image": "ubuntu-24.04",
    "max_hours": 1.0,
    "time_scale": 1.0,
    "poll_seconds": 0.2,
}


KILLED = "killed"
"""A file that says so, among the runs."""


class KilledOnce(AnsiblePlaybook):
    """The real Ansible, which dies by kill -9 once, as soon as the first task of the first playbook went well.

    Ansible gets no further before: it is not told of a Python to run modules with until the kill, and the first task
    needs none.
    """

    held, told = "ansible_python_interpreter", sys.executable
    last = ""

    def __init__(self, runs: Path) -> None:
        super().__init__(runs)
        self.killed = False

    def run(self, name: str, **options: Any) -> PlaybookResult:
        given = dict(options.pop("extra_vars", None) or {})
        if not self.killed:
            self.runs.mkdir(parents=True, exist_ok=True)
            wait = f"timeout 600 sh -c 'until [ -e {self.runs / KILLED} ]; do sleep 0.05; done'; echo {self.told}"
            given[self.held] = f"{{{{ lookup('ansible.builtin.pipe', {json.dumps(wait)}) }}}}"
        return super().run(name, **{**options, "extra_vars": given, "on_event": self._kill})

    def _kill(self, event: Mapping[str, Any]) -> None:
        if self.killed or event.get("event") != "runner_on_ok":
            return
        if self.last not in str(event["event_data"].get("task_action")):
            return
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if str(self.runs).encode() in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
                    self.killed = True
        (self.runs / KILLED).touch()


@pytest.fixture
def engine(home: Home) -> Iterator[Engine]:
    engine = open_database(home.database_url)
    yield engine
    engine.dispose()


class KilledAfterTheFacts(KilledOnce):
    """The same, when it has learnt what the host is; what is to be put there it is not told until the kill."""

    held, told = "llama_bench_source", ""
    last = "llama_bench_host_info"


@pytest.mark.parametrize("kind", [KilledOnce, KilledAfterTheFacts])
def test_ansible_that_is_killed_between_two_tasks_fails_the_job_and_resume_goes_on(
    home: Home,
    engine: Engine,
    llama_bench: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[KilledOnce],
) -> None:
    """A job of which nothing is known to have failed is not one that has finished, nor one that is prepared."""
    # a lock of one's own: other measurements on this machine are none of this test's business
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    suite = tmp_path / "one.yml"
    suite.write_text(SUITE)
    request = request_from({**ASKED, "suite": str(suite), "llama_bench": str(llama_bench)})
    server = plan_of(request, home).running[0].server
    book = Ledger.create(home, engine, request, [JobState("local", "local", server.name, server.host)])

    def run(playbook: AnsiblePlaybook) -> pipeline.Report:
        sweep = pipeline.Sweep(
            Ledger.open(home, engine, book.sweep),
            engine,
            llama_bench,
            playbook=playbook,
            view=PlainView(io.StringIO()),
            cancelled=threading.Event(),
        )
        return sweep.run()

    playbook = kind(book.folder / "runs")
    cut = run(playbook)
    assert playbook.killed
    assert cut.status == "failed"
    assert "Ansible ended" in str(cut.jobs[0].error)
    pipeline.resumable(home, book.sweep)
    whole = run(playbook)
    assert whole.status == "finished"
    assert whole.outcomes == {"ok": 1}


class Counting(OwnServers):
    """A fleet that counts how often it may let servers come and go."""

    advanced = 0

    def advance(self) -> None:
        self.advanced += 1


class LongLooks:
    """Ansible whose looks take until the fleet has advanced in the middle of one; then the user asks for the end."""

    def __init__(self, fleet: Counting, cancelled: threading.Event) -> None:
        self.fleet, self.cancelled = fleet, cancelled
        self.seen = 0

    def run(self, name: str, **options: Any) -> PlaybookResult:
        if name == "collect":
            before, deadline = self.fleet.advanced, time.monotonic() + 120
            while not options["cancelled"]() and self.fleet.advanced == before and time.monotonic() < deadline:
                time.sleep(0.01)
            self.seen += self.fleet.advanced - before
            if self.seen > 1 or time.monotonic() >= deadline:
                self.cancelled.set()
        increment = Increment(name != "stop", "stopped" if name == "stop" else "running", "", {}, "", 0, "", 0)
        hosts = {host: (TaskResult(name, "llama_bench_info", "ok", asdict(increment)),) for host in options["limit"]}
        return PlaybookResult(0, hosts=hosts)


def test_servers_come_and_go_while_a_look_at_the_others_goes_on(
    home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look over a large fleet takes long; renting and giving back do not wait for its end."""
    suite = load_suite("quick")
    request = SweepRequest(("ssh",), suite, tuple(load_models()[name] for name in suite.model_names), poll_seconds=0.1)
    job = JobState("h", "ssh", "h", "h", stage=COLLECTING, status="running")
    cancelled = threading.Event()
    fleet = Counting(cancelled.wait)
    monkeypatch.setattr(pipeline.Sweep, "_make_fleet", lambda _: fleet)
    playbook = LongLooks(fleet, cancelled)
    book = Ledger.create(home, engine, request, [job])
    sweep = pipeline.Sweep(
        book, engine, Path("llama-bench"), playbook=playbook, view=PlainView(io.StringIO()), cancelled=cancelled
    )
    assert sweep.run().status == "stopped"
    assert playbook.seen > 1


def test_many_servers_are_begun_some_at_a_time(home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that came up measure while others are prepared still; all of them get their turn, in order."""
    suite = load_suite("quick")
    request = SweepRequest(("ssh",), suite, tuple(load_models()[name] for name in suite.model_names))
    jobs = [JobState(f"h{number}", "ssh", "h", f"h{number}") for number in range(2 * pipeline.FORKS + 1)]
    cancelled = threading.Event()
    playbook = LongLooks(Counting(cancelled.wait), cancelled)
    sweep = pipeline.Sweep(
        Ledger.create(home, engine, request, jobs), engine, Path("llama-bench"),
        playbook=playbook, view=PlainView(io.StringIO()), cancelled=cancelled,
    )  # fmt: skip
    together: list[int] = []
    monkeypatch.setattr(sweep, "_prepare_and_bench", lambda some: together.append(len(some)) or some)
    sweep._came_up += jobs
    sweep._begin_in_turn()
    assert together == [pipeline.FORKS, pipeline.FORKS, 1]
    assert list(sweep._begun) == jobs
