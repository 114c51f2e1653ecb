"""What the fuzz tests and the fuzz benchmark share: spoiled runs go into a database, and every row is checked."""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING

from benchctl import ingest
from benchctl.db.engine import reading
from benchctl.db.schema import Measurement
from benchctl.prepared import prepare
from benchctl.rawfiles import NAMES, RunFiles
from benchctl.results import read_run
from mutations import spoil
from sqlalchemy import select

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Engine


def contents(folder: Path) -> dict[str, bytes]:
    """A run's raw files by name."""
    return {name: (folder / name).read_bytes() for name in NAMES if (folder / name).exists()}


def spoiled_runs(originals: list[dict[str, bytes]], seeds: range) -> Iterator[tuple[RunFiles, Mapping[str, bytes]]]:
    """One spoiled run a seed, each in a place of its own."""
    for seed in seeds:
        chance = random.Random(seed)  # noqa: S311 - cases, no secrets
        files = spoil(chance.choice(originals), chance)
        yield RunFiles("/lake", f"fuzz/data/vendor{seed % 3}/server{seed}/llm", str(seed), files.get), files


def check(engine: Engine, originals: list[dict[str, bytes]], seeds: range) -> dict[str, int]:
    """Take spoiled runs in, and check all that the database then says of them.

    Returns:
        How many runs, rows, and things set aside there were.

    Raises:
        AssertionError: a row is not what its raw line says.
    """
    counts = {"runs": 0, "rows": 0, "set_aside": 0}
    batch, files_of = [], {}
    for run, files in spoiled_runs(originals, seeds):
        batch.append(prepare(read_run(run)))
        files_of[run.path] = files
    for summary in ingest.write(engine, batch):
        counts["runs"] += 1
        counts["set_aside"] += len(summary.damage)
    paths = {(one.sweep, one.job): one.path for one in batch}
    with reading(engine) as session:
        for row in session.scalars(select(Measurement)):
            path = paths.get((row.sweep_id, row.job_id))
            if path is not None and row.raw_path.startswith(f"{path}/"):
                _check_row(row, files_of[path])
                counts["rows"] += 1
    return counts


def _check_row(row: Measurement, files: Mapping[str, bytes]) -> None:
    """The row's samples are those of the raw line that it points to, and its figures follow from them."""
    name = row.raw_path.rpartition("/")[2]
    assert row.raw_offset is not None
    assert row.raw_line is not None
    content = files[name]
    line = content[row.raw_offset :].split(b"\n")[0]
    assert content.count(b"\n", 0, row.raw_offset) == row.raw_line - 1
    assert row.samples == len(row.samples_ns)
    if name == "stdout":
        raw = json.loads(line)
        assert int(raw["n_prompt" if row.task == "pp" else "n_gen"]) == row.tokens
        # versions that print no samples have their mean alone
        samples = [raw["avg_ns"]] if raw.get("samples_ns") is None else raw["samples_ns"]
        assert [int(one) for one in samples] == row.samples_ns
    if row.samples:
        speeds = [row.tokens * 1e9 / one for one in row.samples_ns]
        assert row.tokens_per_second is not None
        assert math.isclose(row.tokens_per_second, sum(speeds) / len(speeds), rel_tol=1e-9)
    else:
        assert row.tokens_per_second is None
        assert row.outcome != "ok" or name != "stdout"
