"""The results of 2,145 real servers, imported by the command line: the figures that are known of them come out."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import corpus
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.skipif(bool(corpus.MISSING), reason=corpus.MISSING), pytest.mark.timeout(900)]

SERVERS_PER_MODEL = [
    ("SmolLM-135M.Q4_K_M.gguf", 2085),
    ("qwen1_5-0_5b-chat-q4_k_m.gguf", 1961),
    ("gemma-2b.Q4_K_M.gguf", 1882),
    ("llama-7b.Q4_K_M.gguf", 1712),
    ("phi-4-q4.gguf", 1447),
    ("Llama-3.3-70B-Instruct-Q4_K_M.gguf", 1228),
]

SPEED_FOR_THE_MONEY = [
    ("g6e.xlarge", 2504.5),
    ("g6e.2xlarge", 2086.4),
    ("g5.xlarge", 1875.8),
    ("g2-standard-4", 1695.6),
    ("g5.2xlarge", 1557.0),
    ("g6e.4xlarge", 1537.0),
    ("g6.xlarge", 1439.7),
    ("g2-standard-8", 1336.9),
    ("g6.2xlarge", 1191.9),
    ("g4dn.xlarge", 1174.5),
]


class Cli:
    """The command line on one database."""

    def __init__(self, checkout: Path, state: Path, database: str) -> None:
        self.database = database
        path = os.pathsep.join((str(checkout / "controller"), str(checkout / "module_utils")))
        self._environment = {**os.environ, "BENCHCTL_HOME": str(state), "PYTHONPATH": path}

    def __call__(self, *arguments: str | Path) -> str:
        command = [sys.executable, "-m", "benchctl", "--db", self.database, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self._environment, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self(*arguments, "--json"))

    def fill(self) -> None:
        """Runs, catalogue and prices, as a user takes them in."""
        self("import", "spare-cores", corpus.RUNS)
        self("catalog", "import", corpus.CATALOGUE, corpus.PRICES)


@pytest.fixture(scope="module")
def sqlite(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The whole corpus in SQLite."""
    folder = tmp_path_factory.mktemp("corpus")
    cli = Cli(checkout, folder / "state", str(folder / "corpus.db"))
    cli.fill()
    return cli


@pytest.fixture(scope="module")
def postgresql(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, new_postgres_database: Callable[[], str]
) -> Cli:
    """The whole corpus in PostgreSQL."""
    cli = Cli(checkout, tmp_path_factory.mktemp("corpus") / "state", new_postgres_database())
    cli.fill()
    return cli


@pytest.fixture
def connection(sqlite: Cli) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{sqlite.database}?mode=ro", uri=True)) as opened:
        yield opened


def statements() -> list[str]:
    """Spare Cores' users' statements, verbatim."""
    found: list[str] = []
    text = ""
    for line in corpus.QUERIES.read_text().splitlines(keepends=True):
        if line.startswith("--") and not text.strip():
            continue
        text += line
        if sqlite3.complete_statement(text):
            found.append(text)
            text = ""
    return found


def test_their_statements_give_their_figures(connection: sqlite3.Connection) -> None:
    """The three statements, unchanged: servers per model, the 564 servers and the fastest, speed for the money."""
    per_model, fast, for_the_money = (connection.execute(one).fetchall() for one in statements())
    assert per_model == SERVERS_PER_MODEL
    assert len(fast) == 564
    assert fast[0][1] == "g6e.24xlarge"
    assert round(fast[0][4], 2) == 4768.60
    assert [(row[1], pytest.approx(row[-1], abs=0.06)) for row in for_the_money] == SPEED_FOR_THE_MONEY


def test_runs_and_rows(connection: sqlite3.Connection) -> None:
    """2,106 runs went through, by vendor; 21 of them have no row; 66,303 rows, 331 of them on the CPU by mistake."""
    runs = Counter(dict(connection.execute("SELECT vendor_id, count(*) FROM job WHERE exit_code = 0 GROUP BY 1")))
    assert runs == {"aws": 890, "azure": 822, "gcp": 299, "upcloud": 78, "hcloud": 17}
    assert dict(connection.execute("SELECT exit_code, count(*) FROM job GROUP BY 1")) == {0: 2106, -1: 27, -2: 12}
    rows = "SELECT sweep_id, job_id FROM measurement WHERE samples > 0"
    empty = f"SELECT count(*) FROM job WHERE exit_code = 0 AND (sweep_id, job_id) NOT IN ({rows})"  # noqa: S608
    assert connection.execute(empty).fetchone() == (21,)
    assert connection.execute("SELECT count(*) FROM measurement WHERE samples > 0").fetchone() == (66303,)
    assert connection.execute("SELECT count(*) FROM benchmark_score").fetchone() == (66303,)
    fallback = "SELECT count(*), count(DISTINCT server_id) FROM measurement WHERE outcome = 'gpu_fallback'"
    assert connection.execute(fallback).fetchone() == (331, 30)


def test_billed_hours_and_where_they_went(connection: sqlite3.Connection) -> None:
    """1,104.8 hours, 44 % of them time-outs and 40 % samples; the causes add up to the whole."""
    hours = "SELECT sum(julianday(ended_at) - julianday(started_at)) * 24 FROM job WHERE exit_code = 0"
    (total,) = connection.execute(hours).fetchone()
    assert total == pytest.approx(1104.8, abs=0.05)
    causes = (
        "SELECT cause, sum(seconds) / 3600 FROM job_time JOIN job USING (sweep_id, job_id) "
        "WHERE exit_code = 0 GROUP BY 1"
    )
    where = dict(connection.execute(causes))
    assert sum(where.values()) == pytest.approx(total, rel=1e-4)
    shares = {cause: round(100 * part / total) for cause, part in where.items()}
    assert shares["timeouts"] == 44
    assert shares["samples"] == 40
    assert shares["load"] == 6
    assert shares["image"] == 6
    assert shares["download_wait"] == 2
    assert where["probing"] / total == pytest.approx(0.005, abs=0.001)


def test_the_archive_twice_is_once(sqlite: Cli) -> None:
    """A second import reads nothing."""
    again = sqlite.json("import", "spare-cores", corpus.RUNS)
    assert len(again) == 2145
    assert all(row["unchanged"] for row in again)


def test_postgresql_gives_the_same(postgresql: Cli) -> None:
    """The same import, and the equivalents of their statements, give the same figures on PostgreSQL."""
    psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    with psycopg.connect(re.sub(r"\+psycopg", "", postgresql.database)) as opened:
        per_model = opened.execute(
            "SELECT config->>'model', count(DISTINCT (vendor_id, server_id)) FROM benchmark_score "
            "GROUP BY 1 ORDER BY 2 DESC"
        ).fetchall()
        fast = opened.execute(
            "SELECT count(*), max(score) FROM benchmark_score WHERE benchmark_id = 'llm_speed:prompt_processing' "
            "AND config->>'model' = 'phi-4-q4.gguf' AND (config->>'tokens')::int = 512 AND score >= 50"
        ).fetchone()
    assert per_model == SERVERS_PER_MODEL
    assert fast is not None
    assert (fast[0], round(fast[1], 2)) == (564, 4768.60)
