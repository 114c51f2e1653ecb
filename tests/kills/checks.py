"""Whether a sweep that was cut and went on has every row once, and has left nothing beside the clouds either."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchctl import lake

if TYPE_CHECKING:
    from pathlib import Path

    from benchctl.home import Home

    from kills.play import Result

EXPECTED = {("pp", 16): 1, ("tg", 16): 1}
"""Measurements of the tiny suite on one server."""


@dataclass(frozen=True)
class Seen:
    """What had come home when the kill came.

    Attributes:
        lines: the whole lines of the journal in the lake.
        outcomes: the lines of it that end a scenario.
    """

    lines: tuple[str, ...]
    outcomes: tuple[str, ...]

    @classmethod
    def of(cls, home: Home) -> Seen:
        """As it is now."""
        lines = tuple(line for path in _journals(home) for line in path.read_text().splitlines(keepends=True))
        whole = tuple(line for line in lines if line.endswith("\n"))
        return cls(whole, tuple(line for line in whole if _record(line).get("kind") == "outcome"))


def problems(home: Home, before: Seen, result: Result) -> None:
    """Count what is lost and what is doubled, and say what else is wrong."""
    _rows(home, result)
    after = Seen.of(home)
    gone = Counter(before.lines) - Counter(after.lines)
    if gone:
        result.lost += sum(gone.values())
        result.problems.append(f"{sum(gone.values())} lines of the journal that had come home are gone")
    _lake(home, result)
    _book(home, result)
    stacks = home.state / "pulumi" / ".pulumi"
    left = [str(path.relative_to(stacks)) for path in _states(stacks)]
    if left:
        result.problems.append(f"Pulumi's state still has {', '.join(left)}")


def outcomes_at(home: Home) -> list[str]:
    """How the jobs stand, as the database says."""
    return [f"{one[0]} {one[1]}" for one in _ask(home, "SELECT status, stage FROM job")]


def _rows(home: Home, result: Result) -> None:
    """The database: each scenario once, and well."""
    counted = {
        (task, tokens): count
        for task, tokens, count in _ask(home, "SELECT task, tokens, count(*) FROM measurement GROUP BY 1, 2")
    }
    for key in EXPECTED.keys() | counted.keys():
        wanted, there = EXPECTED.get(key, 0), counted.get(key, 0)
        if there != wanted:
            result.problems.append(f"{there} measurements of {key[0]} {key[1]}, not {wanted}")
        result.lost += max(0, wanted - there)
        result.doubled += max(0, there - wanted)
    bad = _ask(home, "SELECT task, outcome FROM measurement WHERE outcome <> 'ok'")
    if bad:
        result.problems.append(f"not measured: {bad}")


def _lake(home: Home, result: Result) -> None:
    """The lake: a row in ``stdout`` for each sample in the journal, and each scenario has one outcome there."""
    for path in _journals(home):
        records = [_record(line) for line in path.read_text().splitlines()]
        ended = Counter(f"{one.get('task')} {one.get('tokens')}" for one in records if one.get("kind") == "outcome")
        for scenario, count in ended.items():
            if count > 1:
                result.doubled += count - 1
                result.problems.append(f"{count} outcomes of {scenario} in the journal")
        samples = Counter(one["row"] for one in records if one.get("kind") == "sample" and not one.get("warmup"))
        rows = Counter((path.parent / lake.STDOUT).read_text().splitlines())
        missing, more = samples - rows, rows - samples
        result.lost += sum(missing.values())
        result.doubled += sum(more.values()) + sum(count - 1 for count in samples.values())
        if missing or more or any(count > 1 for count in samples.values()):
            result.problems.append(f"{sum(rows.values())} rows in the lake, {len(samples)} different samples")


def _book(home: Home, result: Result) -> None:
    """The ledger: everything is gone, and says so."""
    jobs = _ask(home, "SELECT status, stage FROM job")
    if jobs != [("finished", "gone")]:
        result.problems.append(f"the jobs stand at {jobs}")
    sweeps = _ask(home, "SELECT status FROM sweep")
    if sweeps != [("finished",)]:
        result.problems.append(f"the sweeps stand at {sweeps}")
    alive = _ask(home, "SELECT instance_id, state FROM instance WHERE state NOT IN ('gone', 'refused')")
    if alive:
        result.problems.append(f"the ledger still has {alive}")


def _states(folder: Path) -> list[Path]:
    """Stacks with something in them, and locks."""
    locks = [one for one in folder.glob("locks/**/*.json") if one.is_file()]
    return [*(one for one in folder.glob("stacks/**/*.json") if one.is_file()), *locks]


def _journals(home: Home) -> list[Path]:
    return sorted(home.lake.glob(f"*/data/*/*/*/{lake.JOURNAL}"))


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _ask(home: Home, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home.database_url.removeprefix("sqlite:///"))) as database:
        return list(database.execute(query))
