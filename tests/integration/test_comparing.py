"""``compare``: where the variance between instances comes from, and what it makes of a difference."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from answer_data import MODEL, Measured, add_catalogue, add_measurements, add_price
from benchctl.db.comparing import SideBySide, side_by_side
from benchctl.db.engine import open_database, reading, writing
from benchctl.db.queries import Question, find_server
from benchctl.errors import UsageError
from benchctl.ingest import ingest_run
from raw_runs import RawRun

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from benchctl.home import Home
    from sqlalchemy import Engine

    Benchctl = Callable[..., subprocess.CompletedProcess[str]]

PP, TG = ("pp", 512), ("tg", 128)
M5 = {"hypervisor": "nitro", "cpu_manufacturer": "Intel", "cpu_model": "8259CL", "vcpus": 2, "cpu_cores": 1}
FAMILY = {"m5.large": 100.0, "m5d.large": 102.0, "m5n.large": 98.0, "m5dn.large": 101.0}


def compared(engine: Engine, *names: str, **asked: Any) -> SideBySide:
    """The servers side by side."""
    with reading(engine) as session:
        servers = [find_server(session, name) for name in names]
        return side_by_side(session, [one for one in servers if one], Question(**asked))


def fill(engine: Engine, *more: Measured) -> None:
    """A family of four that scatters by 1.7 %, and a server twice as fast that is like nothing else."""
    with writing(engine) as session:
        add_catalogue(
            session,
            *(("aws", name, M5) for name in FAMILY),
            ("aws", "c9.large", {**M5, "cpu_model": "new"}),
            ("azure", "alone", {}),
        )
        add_price(session, "aws", "m5.large", 0.1)
        add_price(session, "aws", "c9.large", 0.1)
        runs = [Measured("aws", name, {PP: speed, TG: speed / 10}) for name, speed in FAMILY.items()]
        add_measurements(session, *runs, Measured("aws", "c9.large", {PP: 200.0}, others={TG: "timeout"}), *more)


def test_the_same_hardware_and_another(engine: Engine) -> None:
    """Members of a family don't differ by what they differ by; twice the speed is a difference; the source is named."""
    fill(engine)
    same = compared(engine, "m5.large", "m5d.large", task="pp").rows
    assert [row["verdict"] for row in same] == ["no difference shown"]
    (row,) = compared(engine, "m5.large", "c9.large", task="pp").rows
    assert (row["verdict"], row["ratio"]) == ("B faster", pytest.approx(2))
    assert row["ratio_ci_low"] > 1.5
    assert (row["between_source_a"], row["between_source_b"]) == ("family", "pool")
    assert row["between_from_a"] == "server types that are the same hardware (aws m5 8259CL 2 vCPUs)"
    assert row["between_instances_cv_a"] == pytest.approx(0.017, abs=0.001)
    assert row["cost_ratio"] == pytest.approx(0.5)
    (turned,) = compared(engine, "c9.large", "m5.large", task="pp").rows
    assert (turned["verdict"], turned["ratio"]) == ("A faster", pytest.approx(0.5))


def test_a_scenario_without_a_score(engine: Engine) -> None:
    """What one of the two lacks is not compared, and the outcome says why."""
    fill(engine)
    answer = compared(engine, "m5.large", "c9.large")
    missing = next(row for row in answer.rows if row["task"] == "tg")
    assert (missing["verdict"], missing["outcome_b"], missing["ratio"]) == ("no score of B", "timeout", None)
    assert {row["comparisons"] for row in answer.rows} == {1}
    assert {point["server"] for point in answer.points} == {"aws/m5.large", "aws/c9.large"}


def test_replicas_come_before_families(engine: Engine) -> None:
    """Several instances of the type itself tell its variance, and make its mean better known."""
    replicas = [Measured("aws", "c9.large", {PP: speed}, job=f"j{speed}") for speed in (196.0, 202.0, 204.0)]
    fill(engine, *replicas)
    (row,) = compared(engine, "m5.large", "c9.large", task="pp").rows
    assert (row["between_source_a"], row["between_source_b"]) == ("family", "replicas")
    assert row["instances_b"] == 4
    assert row["between_from_b"] == "instances of aws/c9.large"


def test_nothing_to_learn_from(engine: Engine) -> None:
    """Where no instance has a like, the value of Spare Cores' data stands in, and says so."""
    with writing(engine) as session:
        add_catalogue(session, ("local", "one", {}), ("local", "two", {}))
        add_measurements(session, Measured("local", "one", {PP: 100.0}), Measured("local", "two", {PP: 110.0}))
    answer = compared(engine, "local/one", "local/two")
    assert [row["between_source_a"] for row in answer.rows] == ["default"]
    assert answer.rows[0]["verdict"] == "no difference shown"
    assert any("Between instances: 14.0%, from Spare Cores' data for CPUs" in note for note in answer.notes)


def test_three_servers_are_held_against_the_first(engine: Engine) -> None:
    """A with B and A with C, each counted as a comparison; letters say who is who."""
    fill(engine)
    answer = compared(engine, "m5.large", "m5d.large", "c9.large", task="pp")
    assert [(row["letter_b"], row["server_id_b"], row["verdict"]) for row in answer.rows] == [
        ("B", "m5d.large", "no difference shown"),
        ("C", "c9.large", "C faster"),
    ]
    assert {row["comparisons"] for row in answer.rows} == {2}
    assert [one["letter"] for one in answer.servers] == ["A", "B", "C"]


def test_weights_are_not_mixed(engine: Engine) -> None:
    """A server measured with real weights and one with synthetic ones have nothing to compare."""
    fill(engine, Measured("azure", "alone", {PP: 300.0}, weights="synthetic"))
    answer = compared(engine, "m5.large", "alone", task="pp")
    assert [row["verdict"] for row in answer.rows] == ["no score of B"]
    assert any("synthetic" in note for note in answer.notes)


def test_a_gpu_that_idled(engine: Engine) -> None:
    """A fallback is no score unless it is asked for, and then it is marked."""
    fill(engine, Measured("azure", "alone", {PP: 300.0}, outcome="gpu_fallback"))
    (row,) = compared(engine, "m5.large", "alone", task="pp").rows
    assert (row["verdict"], row["outcome_b"]) == ("no score of B", "gpu_fallback")
    (row,) = compared(engine, "m5.large", "alone", task="pp", fallback=True).rows
    assert (row["verdict"], row["outcome_b"]) == ("B faster", "gpu_fallback")


def test_what_can_not_be_compared(engine: Engine) -> None:
    """One server, or one twice, is a mistake."""
    fill(engine)
    for names, sentence in ((("m5.large",), "One server alone"), (("m5.large", "aws/M5.LARGE"), "named twice")):
        with pytest.raises(UsageError, match=sentence):
            compared(engine, *names)


def test_scatter_within_the_runs_counts(engine: Engine, tmp_path: Path) -> None:
    """Runs of a real llama-bench: the samples' scatter is part of what is reported."""
    for sweep, server, speed in (("a", "desk", 1.0), ("b", "tower", 50.0)):
        ingest_run(engine, RawRun(sweep=sweep, server=server, job=f"local_{server}", speed=speed).write(tmp_path))
    rows = compared(engine, "desk", "tower").rows
    assert {row["verdict"] for row in rows} == {"B faster"}
    assert all(row["within_run_cv_a"] and row["within_run_cv_a"] > 0 for row in rows)
    assert all(row["ratio"] == pytest.approx(50, rel=1e-3) for row in rows)


def filled(home: Home) -> None:
    """The family in the home of a user."""
    engine = open_database(home.database_url)
    fill(engine)
    engine.dispose()


def test_compare_as_a_user_asks(home: Home, benchctl: Benchctl, tmp_path: Path) -> None:
    """Side by side in a table, as JSON, as CSV and as a picture, with who is who and how sure it is."""
    filled(home)
    picture = tmp_path / "both.svg"
    shown = benchctl("compare", "m5.large", "aws/c9.large", "--plot", picture, check=True).stdout
    lines = shown.splitlines()
    assert lines[0].startswith("A  aws/m5.large · measured 2025-04-28 · 0.1000 USD/h on demand in here-1")
    assert lines[1].startswith("B  aws/c9.large")
    assert "B faster" in shown
    assert "timeout" in shown
    assert "A difference is shown in 1 of 1 comparisons" in shown
    assert "Between instances: 1.7%, from server types that are the same hardware" in shown
    drawn = picture.read_text()
    for text in ("aws/m5.large", "aws/c9.large", f"{MODEL} · prompt processing", "differences between instances"):
        assert text in drawn
    rows = json.loads(benchctl("compare", "m5.large", "c9.large", "--json", check=True).stdout)
    assert {row["task"] for row in rows} == {"pp", "tg"}
    done = benchctl("compare", "m5.large", "m5d.large", "c9.large", "--csv", "--task", "pp", check=True)
    table = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["verdict"] for row in table] == ["no difference shown", "C faster"]
    assert "Bonferroni for 2" in done.stderr
    empty = benchctl("compare", "m5.large", "c9.large", "--tokens", "7", check=True).stdout
    assert "Nothing measured on these servers matches this question." in empty


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("m5.large",), "One server alone can't be compared."),
        (("m5.large", "m5d.larg"), "Did you mean 'm5d.large'"),
        (("m5.large", "aws/m5.large"), "named twice"),
        (("m5.large", "c9.large", "--model", "toy"), "No model 'toy' was measured"),
        (("m5.large", "c9.large", "--plot", "x.doc"), "its extension names no format"),
        (("m5.large", "azure/alone"), "is in the catalogue, but no measurement of it"),
    ],
)
def test_mistakes_are_one_sentence(home: Home, benchctl: Benchctl, arguments: tuple[str, ...], sentence: str) -> None:
    """A mistake is one line on stderr with a non-zero exit status."""
    filled(home)
    done = benchctl("compare", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_before_anything_was_measured(benchctl: Benchctl) -> None:
    """An empty place says what to do, and gives valid JSON."""
    assert "run 'benchctl sweep" in benchctl("compare", "a", "b", check=True).stdout
    assert json.loads(benchctl("compare", "a", "b", "--json", check=True).stdout) == []


def test_the_raw_file_of_a_row(home: Home, benchctl: Benchctl) -> None:
    """The row's source leads to the very line of the raw file, by number and by byte offset."""
    engine = open_database(home.database_url)
    ingest_run(engine, RawRun().write(home.lake))
    engine.dispose()
    rows = json.loads(benchctl("show", "--source", "--json", check=True).stdout)
    assert len(rows) == 4
    for row in rows:
        with open(f"{row['raw_origin']}/{row['raw_file']}", "rb") as file:  # noqa: PTH123 - as a user would
            line = file.read().splitlines()[row["raw_line"] - 1]
            file.seek(row["raw_offset"])
            assert file.readline().rstrip() == line
        found = json.loads(line)
        assert (found["task"], found["tokens"]) == (row["task"], row["tokens"])
    shown = benchctl("show", "--source", check=True).stdout
    assert f"{rows[0]['raw_origin']}/{rows[0]['raw_file']}:{rows[0]['raw_line']} @{rows[0]['raw_offset']}" in shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("benchctl show m5", ["m5.large", "m5d.large", "m5dn.large", "m5n.large"]),
        ("benchctl show aws/C9", ["aws/c9.large"]),
        ("benchctl compare m5.large c", ["c9.large"]),
        ("benchctl show aw", [f"aws/{name}" for name in ("c9.large", *sorted(FAMILY))]),
        ("benchctl show --model t", [MODEL]),
        ("benchctl --db /no/such/place/x.db show m", []),
        ("benchctl comp", ["compare"]),
    ],
)
def test_the_shell_completes_names(home: Home, benchctl: Benchctl, words: str, expected: list[str]) -> None:
    """What was measured is completed, in any case; a database that is not there completes nothing and says nothing."""
    filled(home)
    count = len(words.split()) - 1
    done = benchctl(env={"_BENCHCTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)})
    found = [line.partition(",")[2] for line in done.stdout.splitlines() if line]
    assert sorted(found) == sorted(expected)
    assert done.stderr == ""
