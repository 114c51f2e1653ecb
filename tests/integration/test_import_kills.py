"""An import that is killed, starved or doubled: whole runs only, and the next import completes it. Real signals."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from raw_runs import write_theirs

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 700
ROWS_OF_A_RUN = 4


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough runs of theirs for several batches, and so for a second process that reads them."""
    root = tmp_path_factory.mktemp("inspector")
    for number in range(RUNS):
        write_theirs(root, "hcloud", f"cpx{number}")
    return root


def start(checkout: Path, database: Path, path: Path) -> subprocess.Popen[str]:
    """The command line, in a session of its own."""
    environment = {
        **os.environ,
        "BENCHCTL_HOME": str(database.parent / "home"),
        "PYTHONPATH": os.pathsep.join((str(checkout / "controller"), str(checkout / "module_utils"))),
    }
    command = [sys.executable, "-m", "benchctl", "--db", str(database), "import", "spare-cores", str(path), "--json"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> list[dict[str, object]]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    rows: list[dict[str, object]] = json.loads(out)
    return rows


def whole_runs(database: Path) -> int:
    """Number of runs in the database, every one of which must be there with all that belongs to it."""
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - names of ours
            for table in ("raw_run", "job", "measurement", "benchmark_score")
        ]
    runs: int = counts[0]
    assert counts == [runs, runs, runs * ROWS_OF_A_RUN, runs * ROWS_OF_A_RUN]
    return runs


def children(process: subprocess.Popen[str]) -> list[int]:
    """Processes of its session that are still there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
            except (OSError, ValueError):
                continue
            if session == process.pid:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_import_leaves_whole_runs(checkout: Path, theirs: Path, tmp_path: Path, seed: int) -> None:
    """After kill -9 the database opens and holds whole runs; no process stays; the next import completes it."""
    database = tmp_path / "test.db"
    process = start(checkout, database, theirs)
    # the later the seed, the more batches are in when it dies
    wanted = seed * 200
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if database.exists() and _runs_so_far(database) >= wanted:
            break
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0, 0.15))  # noqa: S311 - a moment within the batch, no secret
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 60
    while children(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children(process) == []
    before = whole_runs(database) if _has_tables(database) else 0
    rows = finish(start(checkout, database, theirs))
    assert whole_runs(database) == RUNS
    assert sum(bool(row["unchanged"]) for row in rows) == before


def _runs_so_far(database: Path) -> int:
    if not _has_tables(database):
        return 0
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        found: int = connection.execute("SELECT count(*) FROM raw_run").fetchone()[0]
        return found


def _has_tables(database: Path) -> bool:
    if not database.exists():
        return False
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        try:
            return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'raw_run'").fetchone())
        except sqlite3.OperationalError:
            return False


def test_two_imports_at_once(checkout: Path, theirs: Path, tmp_path: Path) -> None:
    """They take turns, and together they are one import."""
    database = tmp_path / "test.db"
    first, second = start(checkout, database, theirs), start(checkout, database, theirs)
    assert len(finish(first)) == len(finish(second)) == RUNS
    assert whole_runs(database) == RUNS


def test_a_full_disk_is_one_sentence(
    checkout: Path, theirs: Path, tmp_path: Path, tmpfs: Callable[[int], Path]
) -> None:
    """What is in stays in, the rest is said; with space it completes."""
    small = tmpfs(1_500_000)
    database = small / "test.db"
    (tmp_path / "home").mkdir()
    (small / "home").symlink_to(tmp_path / "home")
    process = start(checkout, database, theirs)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "disk is full" in err
    assert len(err.strip().splitlines()) == 1
    subprocess.run(["mount", "-o", "remount,size=40m", small], check=True)
    before = whole_runs(database) if _has_tables(database) else 0
    assert before < RUNS
    finish(start(checkout, database, theirs))
    assert whole_runs(database) == RUNS
