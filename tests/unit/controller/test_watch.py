"""Watching: what a look means. The near poller reads real state folders; the far one is a fleet that obeys a script."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from benchctl import lake
from benchctl.ledger import JobState
from benchctl.playbook import PlaybookResult, TaskResult
from benchctl.poller import LocalPoller, PlaybookPoller, PollResult, Target
from benchctl.view import PlainView, duration, fetch_line, now_line, outcome_line, picture
from benchctl.watch import DOUBT_SECONDS, GRACE_SECONDS, UNREACHABLE_SECONDS, Diagnosis, Ended, Watched, Watcher
from llama_bench_core.state import Increment, Journal, locked, read_increment, write_progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

JOB = JobState("local", "local", "amd-2c", "localhost", price_per_hour=3.6, currency="USD")

OUTCOME = {"model": "m", "task": "pp", "tokens": 16, "outcome": "ok", "reason": "", "noisy": [], "attempt": 1}
SAMPLE = {
    "process": 1,
    "model": "m",
    "task": "pp",
    "tokens": 16,
    "warmup": False,
    "attempt": 1,
    "row": "{}",
    "ns": 100_000_000,
    "noise": {"steal": 0.0, "other_cores": 0.0, "clock_ratio": 1.0, "load1": 0.1},
}


class Clock:
    """Seconds that pass when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Script:
    """A poller that answers what the script says, one look after the other; the last answer stays."""

    interval_seconds = 1.0

    def __init__(self, *answers: Increment | str) -> None:
        self.answers = list(answers)

    def poll(self, targets: Sequence[Target]) -> Mapping[str, PollResult]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, str):
            return {one.job: PollResult(None, answer) for one in targets}
        # a real target never repeats what is known
        return {
            one.job: PollResult(answer if answer.journal_offset > one.journal_offset else replace(answer, journal=""))
            for one in targets
        }


def increment(status: str, journal: str = "", message: str = "", alive: bool | None = None) -> Increment:
    is_alive = status == "running" if alive is None else alive
    return Increment(is_alive, status, message, {}, journal, len(journal), "", 0)


def line(kind: str, **facts: Any) -> str:
    return json.dumps({"kind": kind, "at": "2026-01-01T00:00:00.000Z", **facts}) + "\n"


class Bench:
    """A watcher with all that it is told."""

    def __init__(
        self, tmp_path: Path, poller: Any, why: str = "", just_started: bool = True, unheard: bool = False
    ) -> None:
        self.clock, self.text = Clock(), io.StringIO()
        self.restarts: list[JobState] = []
        self.asked = 0
        self.why = why
        self.lost, self.over_at = "", float("inf")
        self.vain: list[float] = []
        self.heard: list[str] = []
        self.measures = True
        self.progress: list[Mapping[str, Any]] = []
        self.folder = tmp_path / "lake"
        self.watcher = Watcher(
            poller,
            PlainView(self.text),
            restart=self._restart,
            diagnose=self._diagnose,
            keep_progress=lambda _job, progress: self.progress.append(progress),
            lost=lambda _job: self.lost,
            overdue=lambda _job: "its time is over" if self.clock.now >= self.over_at else "",
            out_of_reach=lambda _job: self.vain.append(self.clock.now),
            heard=self._hear,
            clock=self.clock,
        )
        self.watcher.add(JOB, self.folder, str(tmp_path / "target"), just_started=just_started, unheard=unheard)

    def _hear(self, _job: JobState, increment: Increment) -> bool:
        self.heard.append(increment.status)
        return self.measures

    def _restart(self, job: JobState) -> JobState:
        self.restarts.append(job)
        return job

    def _diagnose(self, _job: JobState) -> Diagnosis:
        self.asked += 1
        return Diagnosis(self.why, final=bool(self.why))

    def run(self) -> list[Ended]:
        """Look once a second until everything has ended."""
        ended = []
        while self.watcher.watched:
            ended += self.watcher.look()
            self.clock.now += 1.0 if self.watcher.watched else 0.0
        return ended


def test_near_and_far_pollers_answer_alike(tmp_path: Path) -> None:
    """The same state folder, read in this process or by the playbook's module, gives the same result."""
    journal = Journal(tmp_path)
    journal.append("sample", **SAMPLE)
    journal.append("outcome", **OUTCOME)
    journal.close()
    write_progress(tmp_path, {"phase": "measuring", "tokens_per_second": 160.0})
    (tmp_path / "stderr").write_text("llama-bench says something\n")
    target = Target("local", "localhost", str(tmp_path), journal_offset=0, stderr_offset=6)

    class Module:
        """Ansible, as far as the poller sees it: it hands the module's result on as JSON."""

        def run(self, name: str, *, inventory: Sequence[Any], limit: Sequence[str] = (), **_: Any) -> PlaybookResult:
            assert name == "collect"
            asked = inventory[-1]["bench"]["hosts"][limit[0]]
            found = read_increment(
                tmp_path, asked["llama_bench_journal_offset"], asked["llama_bench_stderr_offset"], 1024 * 1024
            )
            result = {**json.loads(json.dumps(found.to_dict())), "changed": False, "invocation": {}}
            return PlaybookResult(0, hosts={limit[0]: (TaskResult("t", "llama_bench_info", "ok", result),)})

    near = LocalPoller().poll([target])
    far = PlaybookPoller(Module(), []).poll([target])
    assert near == far
    assert near["local"].increment is not None
    assert near["local"].increment.stderr == "bench says something\n"


def test_looking_at_this_machine_costs_next_to_nothing(tmp_path: Path) -> None:
    """A look takes under a hundredth of what is noise (5 % of a core), at one look a second."""
    journal = Journal(tmp_path)
    for _ in range(200):
        journal.append("sample", **SAMPLE)
    journal.close()
    target = Target("local", "localhost", str(tmp_path), journal_offset=(tmp_path / "journal.jsonl").stat().st_size)
    LocalPoller().poll([target])
    began = time.process_time()
    for _ in range(100):
        LocalPoller().poll([target])
    per_look = (time.process_time() - began) / 100
    assert per_look < 0.005, f"{per_look * 1000:.2f} ms of CPU a look"


def test_what_is_new_goes_to_the_lake_and_outcomes_are_told(tmp_path: Path) -> None:
    """Records arrive in pieces, are appended once each, and every outcome is a line with its speed."""
    first = line("session", session=1) + line("sample", **SAMPLE)
    whole = first + line("outcome", **OUTCOME) + line("end", status="finished", message="")
    journal = tmp_path / "target"
    journal.mkdir()
    (journal / "journal.jsonl").write_text(first)
    bench = Bench(tmp_path, LocalPoller())
    with locked(journal / "lock", {"sweep": "s"}):
        assert bench.watcher.look() == []
        assert bench.watcher.look() == []
        (journal / "journal.jsonl").write_text(whole)
    ended = bench.run()
    assert [(one.status, one.message) for one in ended] == [("finished", "")]
    assert (bench.folder / lake.JOURNAL).read_text() == whole
    assert bench.text.getvalue().count("m pp16  160.00 tokens/s") == 1


def test_an_end_counts_only_when_all_is_home(tmp_path: Path) -> None:
    """A look that still brought something is not the last one."""
    text = line("session", session=1)
    bench = Bench(tmp_path, Script(increment("finished", text), increment("finished", text)))
    assert bench.watcher.look() == []
    assert [one.status for one in bench.watcher.look()] == ["finished"]


def test_the_end_of_an_earlier_start_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """Resuming finds an old end in the journal; it waits for the new session, which then ends by itself."""
    old = line("session", session=1) + line("end", status="stopped", message="stopped on request")
    lake.append_journal(tmp_path / "lake", 0, old)
    new = old + line("session", session=2) + line("end", status="finished", message="")
    waiting = Increment(False, "stopped", "stopped on request", {}, "", len(old), "", 0)
    done = Increment(False, "finished", "", {}, new[len(old) :], len(new), "", 0)
    bench = Bench(tmp_path, Script(waiting, waiting, done))
    assert [one.status for one in bench.run()] == ["finished"]
    assert (tmp_path / "lake" / lake.JOURNAL).read_text() == new


def test_an_end_on_record_is_the_end_when_nothing_was_started(tmp_path: Path) -> None:
    """After a re-attachment the recorded end counts at once."""
    bench = Bench(tmp_path, Script(increment("finished")), just_started=False)
    assert [one.status for one in bench.run()] == ["finished"]
    assert bench.clock.now == 0


def test_a_start_that_ends_before_its_first_word_is_asked_why(tmp_path: Path) -> None:
    """No journal after some seconds: the host is asked once, and its sentence is the job's error."""
    bench = Bench(tmp_path, Script(increment("absent")), why="Another measurement runs on this machine.")
    (ended,) = bench.run()
    assert (ended.status, ended.message) == ("failed", "Another measurement runs on this machine.")
    assert DOUBT_SECONDS <= bench.clock.now < GRACE_SECONDS
    assert bench.asked == 1


def test_a_silent_death_is_started_again_once(tmp_path: Path) -> None:
    """A module that dies without an end is started again; when it dies again, the job has failed."""
    text = line("session", session=1)
    bench = Bench(tmp_path, Script(increment("running", text), increment("died")))
    (ended,) = bench.run()
    assert ended.status == "failed"
    assert "died twice" in ended.message
    assert [one.restarts for one in bench.restarts] == [1]
    assert "started again" in bench.text.getvalue()


def test_a_death_with_a_reason_is_not_tried_again(tmp_path: Path) -> None:
    """When the host knows why it ended, that is the error, and nothing is started."""
    text = line("session", session=1)
    bench = Bench(tmp_path, Script(increment("running", text), increment("died")), why="the disk is full")
    (ended,) = bench.run()
    assert (ended.status, ended.message) == ("failed", "the disk is full")
    assert not bench.restarts


def test_a_host_out_of_reach_is_borne_for_a_while(tmp_path: Path) -> None:
    """Some failed looks end nothing, and are told once; the measurement is followed when it answers again."""
    text = line("session", session=1)
    script = Script(increment("running", text), *["no route to host"] * 30, increment("running"), increment("finished"))
    bench = Bench(tmp_path, script)
    assert [one.status for one in bench.run()] == ["finished"]
    assert bench.text.getvalue().count("out of reach") == 1


def test_each_look_in_vain_is_told(tmp_path: Path) -> None:
    """Whoever can do something about it hears of it, and no more once the host answers."""
    running = increment("running", line("session", session=1))
    bench = Bench(tmp_path, Script(running, "no route", "no route", increment("running"), increment("finished")))
    bench.run()
    assert bench.vain == [1.0, 2.0]
    assert bench.heard == []


def test_a_host_that_was_silent_on_resume_is_asked_what_it_is_at(tmp_path: Path) -> None:
    """Its first word decides, once: a measurement is followed; where there is none nothing is started from here."""
    script = Script("no route", increment("running", line("session", session=1)), increment("finished"))
    bench = Bench(tmp_path / "one", script, just_started=False, unheard=True)
    assert [one.status for one in bench.run()] == ["finished"]
    assert bench.heard == ["running"]
    bench = Bench(tmp_path / "other", Script("no route", increment("died")), just_started=False, unheard=True)
    bench.measures = False
    assert bench.run() == bench.restarts == []
    assert bench.heard == ["died"]


def test_a_host_out_of_reach_for_long_is_given_up(tmp_path: Path) -> None:
    """After a quarter of an hour the job has failed, with the last reason; what the host measures stays there."""
    bench = Bench(tmp_path, Script("no route to host"))
    (ended,) = bench.run()
    assert ended.status == "failed"
    assert not ended.reached
    assert "no route to host" in ended.message
    assert bench.clock.now >= UNREACHABLE_SECONDS


@pytest.mark.parametrize("look", [increment("running", alive=True), "no route to host"])
def test_a_measurement_that_goes_on_for_ever_ends_with_its_server(tmp_path: Path, look: Any) -> None:
    """A module that hangs, or that nobody reaches, does not keep a server beyond its time; what came home is kept."""
    bench = Bench(tmp_path, Script(increment("running", line("session", session=1), alive=True), look))
    bench.over_at = bench.clock.now + 300
    (ended,) = bench.run()
    assert (ended.status, ended.message) == ("failed", "its time is over")
    assert 300 <= bench.clock.now - (bench.over_at - 300) < 310
    assert (bench.folder / "journal.jsonl").read_text() == line("session", session=1)


def test_what_ended_in_time_is_not_overdue(tmp_path: Path) -> None:
    """The last lines are brought home, and the end is the measurement's own, also when that takes until later."""
    text = line("session", session=1)
    bench = Bench(tmp_path, Script(increment("finished", text), increment("finished")), just_started=False)
    bench.over_at = 0.0
    assert [one.status for one in bench.run()] == ["finished"]


def test_a_host_that_the_vendor_no_longer_lists_is_given_up_at_once(tmp_path: Path) -> None:
    """Nobody waits a quarter of an hour for a server that is gone; the reason says that it is."""
    bench = Bench(tmp_path, Script("no route to host"))
    bench.lost = "the vendor took the spot server back"
    (ended,) = bench.run()
    assert (ended.status, ended.reached) == ("failed", False)
    assert ended.message == "the server is gone: the vendor took the spot server back"
    assert bench.clock.now < UNREACHABLE_SECONDS / 10


def test_the_picture_shows_where_each_job_is(tmp_path: Path) -> None:
    """Model, scenario, speed, done of total, time left, money so far, and the download with its rate."""
    from rich.console import Console

    watched = Watched(JOB, tmp_path, "/state")
    watched.progress = {
        "phase": "measuring", "model": "m", "task": "pp", "tokens": 512, "sample": 2, "tokens_per_second": 260.7,
        "scenarios_done": 3, "scenarios_total": 22, "seconds_left": 130, "seconds_elapsed": 100,
        "downloads": {
            "big": {"status": "downloading", "bytes": 1 << 20, "bytes_total": 1 << 22, "bytes_per_second": 1 << 20,
                    "eta_seconds": 3, "error": ""},
            "m": {"status": "ready"},
        },
    }  # fmt: skip
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(picture([watched]))
    text = console.export_text()
    for words in ("measuring m pp512, sample 2", "260.70", "3/22", "2 min 10 s", "0.1000 USD"):
        assert words in text
    assert "downloading 1 of 4 MiB, 1.0 MiB/s, 3 s left" in text


def test_words_for_people() -> None:
    """Times, outcomes and downloads as a person reads them."""
    assert [duration(one) for one in (None, 42.4, 200, 3000, 7500)] == ["", "42 s", "3 min 20 s", "50 min", "2 h 5 min"]
    assert now_line({}) == "starting"
    assert now_line({"phase": "downloading", "model": "m"}) == "downloading m"
    assert outcome_line({**OUTCOME, "noisy": ["cv"]}, 160.0) == "m pp16  160.00 tokens/s  noisy: cv"
    skipped = {**OUTCOME, "outcome": "predicted_skip", "reason": "too slow"}
    assert outcome_line(skipped, None) == "m pp16  predicted_skip  (too slow)"
    assert fetch_line({"status": "failed", "error": "refused"}) == "failed 0 MiB, refused"


def test_plain_lines_come_only_when_something_changed(tmp_path: Path) -> None:
    """Showing the same twice prints nothing twice."""
    text = io.StringIO()
    view = PlainView(text)
    watched = Watched(JOB, tmp_path, "/state")
    watched.progress = {"downloads": {"m": {"status": "writing"}}}
    view.show([watched])
    view.show([watched])
    watched.progress = {"downloads": {"m": {"status": "ready"}}}
    view.show([watched])
    assert [row[10:] for row in text.getvalue().splitlines()] == ["local: models: m writing", "local: models: m ready"]
