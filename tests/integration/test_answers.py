from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.db import queries
from benchctl.db.engine import open_database, reading
from benchctl.db.ranking import Ranking, top
from benchctl.db.records import record
from benchctl.db.schema import Job, Sweep
from benchctl.errors import UsageError
from benchctl.ingest import ingest_run
from llama_bench_core import state
from raw_runs import MODEL, STARTED, RawRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchctl.home import Home
    from sqlalchemy import Engine

    Benchctl = Callable[..., subprocess.CompletedProcess[str]]

DAY = timedelta(days=1)


def fill(engine: Engine, lake: Path, *runs: RawRun) -> None:
    """Write the runs into the lake, and ingest them."""
    for run in runs:
        ingest_run(engine, run.write(lake))


def filled(home: Home, *runs: RawRun) -> None:
    """The same for the home of a user."""
    engine = open_database(home.database_url)
    fill(engine, home.lake, *runs)
    engine.dispose()


def names(answer: queries.Answer) -> set[tuple[str, str]]:
    """Sweep and weights of all rows."""
    return {(row["sweep_id"], row["weights"]) for row in answer.rows}


def test_real_and_synthetic_are_not_mixed(engine: Engine, tmp_path: Path) -> None:
    """Real rows are preferred, synthetic ones come alone or where nothing else is, and both only when asked for."""
    real = RawRun(sweep="real")
    made = RawRun(sweep="made", started=STARTED + DAY, weights="synthetic", speed=5)
    elsewhere = RawRun(sweep="other", server="laptop", job="local_laptop", weights="synthetic")
    fill(engine, tmp_path, real, made, elsewhere)
    with reading(engine) as session:
        ask = queries.Question
        assert names(queries.measurements(session, ask(server="desk"))) == {("real", "real")}
        assert names(queries.measurements(session, ask(server="desk", weights="synthetic"))) == {("made", "synthetic")}
        alone = queries.measurements(session, ask(server="laptop"))
        assert names(alone) == {("other", "synthetic")}
        assert alone.notes == (queries.SYNTHETIC_NOTE,)
        both = queries.measurements(session, ask(server="desk", weights="all"))
        assert names(both) == {("real", "real"), ("made", "synthetic")}
        assert queries.measurements(session, ask(server="laptop", weights="real")).rows == []
        assert names(top(session, Ranking(MODEL, "pp", 128))) == {("real", "real")}
        ranked = top(session, Ranking(MODEL, "pp", 128, weights="all"))
        assert [row["weights"] for row in ranked.rows] == ["synthetic", "real", "synthetic"]


def test_failed_downloads_do_not_hide_synthetic_speeds(engine: Engine, tmp_path: Path) -> None:
    """A sweep that could not fetch the real model leaves no speed, and does not stand in the way of one that did."""
    fill(engine, tmp_path, RawRun(sweep="made", weights="synthetic"))
    failed = RawRun(sweep="failed", started=STARTED + DAY)
    folder = failed.write(tmp_path)
    lines = [line for line in failed.journal().splitlines(keepends=True) if '"kind":"session"' in line]
    bad = failed.outcome("pp", 128, "download_failed", "no route to host")
    (folder / "journal.jsonl").write_text(lines[0] + json.dumps({"at": "2026-02-01T12:00:00.000Z", **bad}) + "\n")
    ingest_run(engine, folder)
    with reading(engine) as session:
        answer = queries.measurements(session, queries.Question())
        assert names(answer) == {("made", "synthetic")}


def test_the_newest_good_row_of_each_scenario(engine: Engine, tmp_path: Path) -> None:
    """A newer sweep's rows replace older ones; its failures don't hide an older score."""
    older = RawRun(sweep="a", extra=[("tg", 4096, "ok", "")])
    newer = RawRun(sweep="b", started=STARTED + DAY, speed=2, extra=[("tg", 4096, "timeout", "no progress")])
    fill(engine, tmp_path, older, newer)
    with reading(engine) as session:
        answer = queries.measurements(session, queries.Question())
        assert {(row["task"], row["tokens"]): row["sweep_id"] for row in answer.rows} == {
            ("pp", 16): "b", ("pp", 128): "b", ("tg", 16): "b", ("tg", 64): "b", ("tg", 4096): "a",
        }  # fmt: skip
        one = queries.measurements(session, queries.Question(sweep="b"))
        assert one.hidden == {"timeout": 1}
        assert {row["sweep_id"] for row in one.rows} == {"b"}
        everything = queries.measurements(session, queries.Question(sweep="b", all_outcomes=True))
        assert [row["reason"] for row in everything.rows if row["outcome"] == "timeout"] == ["no progress"]


def test_the_ranking(engine: Engine, tmp_path: Path) -> None:
    """Servers by speed, instances as their median, with the price of a million tokens."""
    fill(
        engine,
        tmp_path,
        RawRun(price_usd_per_hour=0.036),
        RawRun(sweep="b", vendor="gcp", server="n2", job="n2_1", speed=2),
        RawRun(sweep="b", vendor="gcp", server="n2", job="n2_2", speed=4, replica=2),
    )
    with reading(engine) as session:
        answer = top(session, Ranking(MODEL, "pp", 128))
        assert [(row["rank"], row["server_id"], row["instances"]) for row in answer.rows] == [
            (1, "n2", 2),
            (2, "desk", 1),
        ]
        n2, desk = answer.rows
        assert n2["tokens_per_second"] == pytest.approx(3 * desk["tokens_per_second"], rel=1e-6)
        assert desk["usd_per_million_tokens"] == pytest.approx(10 / desk["tokens_per_second"], rel=1e-9)
        assert n2["usd_per_million_tokens"] is None
        assert len(top(session, Ranking(MODEL, "pp", 128), limit=1).rows) == 1


def test_names_that_are_nearly_right(engine: Engine, tmp_path: Path) -> None:
    """A mistyped server, sweep or model is answered with the one that was meant."""
    fill(engine, tmp_path, RawRun(), RawRun(vendor="ssh", server="rack7", job="r", sweep="20260131-130000-b"))
    with reading(engine) as session:
        assert str(queries.find_server(session, "local/desk")) == "local/desk"
        assert str(queries.find_server(session, "rack7")) == "ssh/rack7"
        assert queries.find_sweep(session, "20260131-12") == "20260131-120000-a"
        for wrong, meant in (("local/desc", "local/desk"), ("rak7", "rack7"), ("ssh/desk", "local/desk")):
            with pytest.raises(UsageError, match=f"Did you mean '{meant}'"):
                queries.find_server(session, wrong)
        with pytest.raises(UsageError, match="several sweeps"):
            queries.find_sweep(session, "2026")
        with pytest.raises(UsageError, match=f"Did you mean '{MODEL}'"):
            queries.measurements(session, queries.Question(model="gemma-270m"))


def test_show_names_the_server_of_a_sweep(home: Home, benchctl: Benchctl) -> None:
    """A sweep over one server, as it ends with, stands under that server's name, device and build."""
    filled(home, RawRun(price_usd_per_hour=0.046))
    first = benchctl("show", "--sweep", "2026", check=True).stdout.splitlines()[0]
    assert first == benchctl("show", check=True).stdout.splitlines()[0]
    assert first.startswith("local/desk (AMD EPYC 7763 64-Core Processor, 2 cores, 8 GiB) · CPU · 2 threads")


def test_show_on_a_terminal_and_in_a_pipe(home: Home, benchctl: Benchctl) -> None:
    """A pipe gets plain aligned columns, a terminal a table, both with speed, interval, samples, outcome and price."""
    filled(home, RawRun(price_usd_per_hour=0.046, extra=[("pp", 16384, "predicted_skip", "too slow")]))
    piped = benchctl("show", check=True).stdout
    lines = piped.splitlines()
    assert lines[0].startswith("local/desk (AMD EPYC 7763 64-Core Processor, 2 cores, 8 GiB)")
    assert lines[1].split("  ")[0] == "model"
    assert "0.1374" in next(line for line in lines if " 128 " in line)
    assert "1 scenarios ended without a score (1 predicted_skip): --all-outcomes." in piped
    assert "too slow" not in piped
    assert "too slow" in benchctl("show", "desk", "--all-outcomes", check=True).stdout
    own, other = pty.openpty()
    environment = {**os.environ, "BENCHCTL_HOME": str(home.state), "COLUMNS": "140", "TERM": "xterm"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-m", "benchctl", "show"], stdout=other, env=environment, check=True, timeout=120
    )
    os.close(other)
    shown = b""
    while True:
        try:
            piece = os.read(own, 65536)
        except OSError:
            break
        shown += piece
        if not piece:
            break
    os.close(own)
    assert done.returncode == 0
    assert "─" in shown.decode()
    assert MODEL in shown.decode()


def test_json_csv_and_jmespath(home: Home, benchctl: Benchctl) -> None:
    """The same rows in every form; stdout holds nothing else, and notes go to stderr."""
    filled(home, RawRun(price_usd_per_hour=0.046, weights="synthetic"))
    done = benchctl("show", "--json", check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(rows) == 4
    expected = {
        "vendor_id", "server_id", "model", "task", "tokens", "outcome", "tokens_per_second", "samples_ns", "weights",
        "usd_per_million_tokens", "price_usd_per_hour", "measured_at", "raw_path", "model_sha256", "llama_cpp_commit",
    }  # fmt: skip
    assert expected <= set(rows[0])
    assert rows[0]["measured_at"].endswith("Z")
    assert "Weights: synthetic" in done.stderr
    table = list(csv.DictReader(io.StringIO(benchctl("show", "--csv", check=True).stdout)))
    assert [float(row["tokens_per_second"]) for row in table] == [row["tokens_per_second"] for row in rows]
    assert json.loads(table[0]["samples_ns"]) == rows[0]["samples_ns"]
    picked = benchctl("show", "--query", "[?task=='tg'].tokens", check=True).stdout
    assert json.loads(picked) == [16, 64]
    assert (
        json.loads(benchctl("top", "--model", MODEL, "--task", "tg", "--tokens", "64", "--query", "[0].rank").stdout)
        == 1
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("show", "--query", "[?"), "--query: Invalid jmespath expression"),
        (("show", "--query", "length(`1`)"), "--query: "),
        (("show", "--csv", "--json"), "--csv does not go together with --json"),
        (("show", "--plot", "speeds.doc"), "its extension names no format"),
        (("show", "--plot", "nowhere/speeds.png"), "can't be written: No such file or directory"),
        (("show", "azure/x"), "No server 'azure/x' was measured"),
        (("show", "--sweep", "xyz"), "There is no sweep 'xyz'"),
        (("top", "--model", "llama", "--task", "pp", "--tokens", "128"), "No model 'llama' was measured"),
        (("status", "xyz"), "There is no sweep 'xyz'"),
        (("ingest", "nowhere"), "There is no nowhere"),
        (("--db", "/", "show"), "is a folder, not a database"),
    ],
)
def test_mistakes_are_one_sentence(home: Home, benchctl: Benchctl, arguments: tuple[str, ...], sentence: str) -> None:
    """A mistake is one line on stderr with a non-zero exit status, and no traceback."""
    filled(home, RawRun())
    done = benchctl(*arguments)
    assert done.returncode in (1, 2)
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_before_anything_was_measured(home: Home, benchctl: Benchctl) -> None:
    """An empty place says what to do, gives valid JSON, and is left as it was."""
    before = sorted(home.state.rglob("*"))
    for arguments in (("show",), ("top", "--model", MODEL, "--task", "pp", "--tokens", "16"), ("status",)):
        done = benchctl(*arguments, check=True)
        assert "run 'benchctl sweep --vendors local'" in done.stdout
        assert json.loads(benchctl(*arguments, "--json", check=True).stdout) == []
    assert sorted(home.state.rglob("*")) == before


def test_top_says_what_there_is(home: Home, benchctl: Benchctl) -> None:
    """A length that was not measured is answered with those that were."""
    filled(home, RawRun())
    done = benchctl("top", "--model", MODEL, "--task", "pp", "--tokens", "129", check=True)
    assert "there are: pp16, pp128, tg16, tg64" in done.stdout


@pytest.mark.parametrize(("extension", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_plot(home: Home, benchctl: Benchctl, tmp_path: Path, extension: str, magic: bytes) -> None:
    """The picture is of the format that its name says; an SVG names model, unit and weights."""
    filled(home, RawRun(weights="synthetic"))
    picture = tmp_path / f"speeds.{extension}"
    done = benchctl("show", "--plot", picture, check=True)
    assert f"Plot: {picture}" in done.stdout
    assert picture.read_bytes().startswith(magic)
    if extension == "svg":
        drawn = picture.read_text()
        for text in (MODEL, "tokens/s", "weights: synthetic", "Prompt processing", "Text generation"):
            assert text in drawn


def test_ingest_names_what_it_set_aside(home: Home, benchctl: Benchctl) -> None:
    """Damaged lines are named on stderr, the summary stays readable by a machine."""
    folder = RawRun().write(home.lake)
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write("Killed\n")
    done = benchctl("ingest", home.lake, "--json", check=True)
    (row,) = json.loads(done.stdout)
    assert (row["measurements"], len(row["set_aside"])) == (4, 1)
    assert f"set aside: {folder / 'journal.jsonl'}:" in done.stderr
    assert json.loads(benchctl("show", "--query", "length(@)", check=True).stdout) == 4


@contextmanager
def running(home: Home) -> Iterator[None]:
    """A sweep with one job under way, and its lock held as its controller would."""
    engine = open_database(home.database_url)
    record(engine, Sweep(sweep_id="s1", suite="quick", vendors=["local"], status="running", created_at=STARTED))
    record(
        engine, Job(sweep_id="s1", job_id="j1", vendor_id="local", server_id="desk", status="running", stage="bench")
    )
    engine.dispose()
    folder = home.sweeps / "s1" / "jobs" / "j1"
    folder.mkdir(parents=True)
    progress = {
        "phase": "measuring", "model": MODEL, "task": "pp", "tokens": 512, "tokens_per_second": 260.7,
        "scenarios_done": 3, "scenarios_total": 22, "seconds_left": 40.2,
    }  # fmt: skip
    (folder / "progress.json").write_text(json.dumps(progress))
    with state.locked(home.sweeps / "s1" / "lock", {"sweep": "s1"}):
        yield


def test_last_is_the_newest_sweep(home: Home, benchctl: Benchctl) -> None:
    """Wherever a sweep is named; without any there is none of that name."""
    assert "There is no sweep" in benchctl("status", "last").stderr
    filled(home, RawRun())
    engine = open_database(home.database_url)
    for name, day in (("z-older", 1), ("a-newest", 2)):
        started = datetime(2100, 1, day, tzinfo=UTC)
        record(engine, Sweep(sweep_id=name, suite="quick", vendors=["local"], status="finished", created_at=started))
    engine.dispose()
    assert json.loads(benchctl("status", "last", "--query", "[].sweep_id", check=True).stdout) == ["a-newest"]
    for command in (("show", "--sweep", "last", "--json"), ("costs", "--sweep", "last", "--json")):
        assert json.loads(benchctl(*command, check=True).stdout) == []


def test_status_of_what_runs(home: Home, benchctl: Benchctl) -> None:
    """A running job shows its model, scenario, speed and what is left; without its controller it is interrupted."""
    with running(home):
        shown = benchctl("status", check=True).stdout
        assert f"measuring {MODEL} pp512, 260.7 tokens/s, 3 of 22, 40 s left" in shown
        (sweep,) = json.loads(benchctl("status", "s1", "--json", check=True).stdout)
        assert sweep["jobs"][0]["progress"]["tokens"] == 512
        (home.sweeps / "s1" / "jobs" / "j1" / "progress.json").write_text("{half")
        assert json.loads(benchctl("status", "--query", "[0].jobs[0].progress", check=True).stdout) is None
    assert json.loads(benchctl("status", "--query", "[0].status", check=True).stdout) == "interrupted"


@pytest.fixture
def under_way(home: Home) -> Iterator[None]:
    """A sweep that runs."""
    with running(home):
        yield


@pytest.mark.usefixtures("under_way")
def test_status_follows_to_the_end(home: Home) -> None:
    """It goes on while the sweep runs, says each change once, and ends with the sweep."""
    environment = {**os.environ, "BENCHCTL_HOME": str(home.state), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-m", "benchctl", "status", "--follow"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as following:  # fmt: skip
        try:
            assert following.stderr is not None
            assert "measuring" in following.stderr.readline()
            engine = open_database(home.database_url)
            record(engine, Sweep(sweep_id="s1", status="finished", finished_at=STARTED + DAY))
            record(engine, Job(sweep_id="s1", job_id="j1", status="finished"))
            engine.dispose()
            began = time.monotonic()
            out, rest = following.communicate(timeout=60)
            assert time.monotonic() - began < 30
        finally:
            following.kill()
    assert following.returncode == 0
    assert "finished" in out
    assert rest == ""
