"""``benchctl ingest`` and ``import`` as a user calls them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from raw_runs import RawRun, write_theirs

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from benchctl.home import Home

    Cli = Callable[..., subprocess.CompletedProcess[str]]


def measurements(home: Home) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(home.state / "benchctl.db")) as connection:
        return connection.execute("SELECT * FROM measurement ORDER BY sweep_id, job_id, task, tokens").fetchall()


def test_a_summary_by_sweep_and_what_is_set_aside(benchctl: Cli, home: Home) -> None:
    """A table with a line per sweep and vendor, damage named on stderr with file and line, and the totals below."""
    RawRun().write(home.lake)
    folder = write_theirs(home.lake / "inspector", "hcloud", "cpx11")
    with (folder / "stdout").open("a") as stdout:
        stdout.write("Segmentation fault\n")
    done = benchctl("ingest", home.lake)
    assert done.returncode == 0, done.stderr
    assert "spare-cores-2025-04-16" in done.stdout
    assert "2 runs: 2 read, 0 unchanged; 1 lines or files set aside." in done.stdout
    assert f"set aside: {folder / 'stdout'}:5: " in done.stderr
    again = benchctl("ingest", home.lake)
    assert "2 runs: 0 read, 2 unchanged; 1 lines or files set aside." in again.stdout


def test_json_has_every_run(benchctl: Cli, home: Home) -> None:
    """One object a run, with outcomes and what was set aside."""
    RawRun().write(home.lake)
    (row,) = json.loads(benchctl("ingest", home.lake, "--json", check=True).stdout)
    assert row["outcomes"] == {"ok": 4}
    assert row["measurements"] == 4
    assert row["unchanged"] is False
    assert row["set_aside"] == []


def test_rebuild_makes_the_rows_again(benchctl: Cli, home: Home, tmp_path: Path) -> None:
    """After somebody spoiled the database, --rebuild reads lake and imports again, and the rows are as they were."""
    RawRun().write(home.lake)
    theirs = tmp_path / "inspector"
    write_theirs(theirs, "hcloud", "cpx11")
    benchctl("ingest", home.lake, check=True)
    benchctl("import", "spare-cores", theirs, check=True)
    before = measurements(home)
    assert len(before) == 8
    with closing(sqlite3.connect(home.state / "benchctl.db")) as connection, connection:
        connection.execute("UPDATE measurement SET tokens_per_second = 1e9")
        connection.execute("DELETE FROM benchmark_score")
    assert "2 unchanged" not in benchctl("ingest", "--rebuild", check=True).stdout
    assert measurements(home) == before
    with closing(sqlite3.connect(home.state / "benchctl.db")) as connection:
        assert connection.execute("SELECT count(*), max(score) < 1e6 FROM benchmark_score").fetchone() == (8, 1)


def test_rebuild_without_the_raw_files_is_refused(benchctl: Cli, home: Home, tmp_path: Path) -> None:
    """What can't be read again is not thrown away; the sentence names what is gone."""
    theirs = tmp_path / "inspector"
    write_theirs(theirs, "hcloud", "cpx11")
    benchctl("import", "spare-cores", theirs, check=True)
    shutil.rmtree(theirs)
    done = benchctl("ingest", "--rebuild")
    assert done.returncode == 2
    assert "is gone" in done.stderr
    assert len(measurements(home)) == 4


def test_without_a_path(benchctl: Cli) -> None:
    """The sentence says what to give."""
    done = benchctl("ingest")
    assert done.returncode == 2
    assert "There is no PATH." in done.stderr
