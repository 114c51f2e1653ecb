"""``benchctl replay`` on a sample of the recorded corpus: real runs, the real policy, the goals at their looser end.

The corpus is not part of the project: it lies in the folder that BENCHCTL_TEST_CORPUS names, else in one beside the
checkout (tests/corpus.py). Where it is not there its test skips and says so. All of it is in
tests/benchmarks/replay_goals.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from corpus import FOLDER, MISSING

CASES = Path(__file__).parents[1] / "cases" / "replay"


@pytest.fixture(scope="module")
def corpus() -> Path:
    if MISSING:
        pytest.skip(MISSING)
    return FOLDER


def test_a_sample_of_the_corpus_costs_less_than_half_and_keeps_its_rows(benchctl, corpus):
    """Every 40th server: most hours saved, nearly every row kept, scores where they were, both halves shown."""
    done = benchctl(
        "replay", str(corpus / "inspector-2025-04-30.tar.xz"), "--every", "40", "--json",
        "--prices", str(corpus / "prices.csv.xz"), "--catalog", str(next(corpus.glob("sc-data-priceless-*.db.xz"))),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    summary = {(row["account"], row["group"]): row for row in answer["summary"]}
    whole = summary["as recorded", "all"]
    assert whole["runs"] > 40
    assert whole["hours_ratio"] < 0.5
    assert whole["rows_kept_share"] > 0.98
    assert whole["median_shift"] < 0.001
    assert whole["p95_shift"] < 0.04
    assert whole["ours_cost"]["USD"] < whole["theirs_cost"]["USD"]
    assert summary["with assumptions", "all"]["hours_ratio"] < whole["hours_ratio"]
    assert {("as recorded", "held out"), ("as recorded", "tuned on")} <= set(summary)
    theirs = sum(row["theirs_hours"] for row in answer["causes"] if row["account"] == "as recorded")
    assert theirs == pytest.approx(whole["theirs_hours"], abs=0.02)


def test_the_tables_say_hours_money_rows_and_losses(benchctl):
    """What a person reads; and what is left out, or not known, is said."""
    done = benchctl("replay", str(CASES / "data"), "--prices", str(CASES / "prices.csv"), "--sensitivity")
    assert done.returncode == 0, done.stderr
    for expected in ("as recorded", "with assumptions", "held out", "loads x 2", "EUR", "USD", "image pull"):
        assert expected in done.stdout
    assert "1 runs are left out" in done.stdout
    assert "memory is unknown" in done.stdout


def test_csv_has_one_line_per_server_and_account(benchctl):
    """For a spreadsheet; two processes give the same as one."""
    one, two = (benchctl("replay", str(CASES / "data"), "--csv", "--jobs", jobs) for jobs in ("1", "2"))
    assert len(one.stdout.splitlines()) == 1 + 2 * 2
    assert one.stdout == two.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["nowhere"], "There is no nowhere"), ([str(CASES / "data"), "--vendor", "aws"], "no recorded run"),
     ([str(CASES / "README.md")], "tar archive"), ([str(CASES / "data"), "--catalog", "nowhere.db"], "catalogue")],
)  # fmt: skip
def test_wrong_usage_ends_in_a_sentence(benchctl, arguments, says):
    """And in exit status 2, never in a traceback."""
    done = benchctl("replay", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
