"""Spoiled raw files: no crash, no wrong row, and nothing of one run in another's rows."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from benchctl.measured import BAD_LINE
from benchctl.sparecores import Log, _fast, _slow
from fuzzing import check, contents
from mutations import spoil
from raw_runs import RawRun, write_theirs

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine


@pytest.fixture
def originals(tmp_path: Path) -> list[dict[str, bytes]]:
    """A run of theirs and one of ours, whole."""
    theirs = write_theirs(tmp_path / "theirs", "hcloud", "cpx11")
    ours = RawRun(price_usd_per_hour=0.1, extra=[("tg", 4096, "timeout", "no progress")]).write(tmp_path / "ours")
    return [contents(theirs), contents(ours)]


def test_spoiled_runs_do_no_harm(engine: Engine, originals: list[dict[str, bytes]]) -> None:
    """Hundreds of spoiled runs are taken in; every row is what its raw line says, and what is wrong is named."""
    counts = check(engine, originals, range(400))
    assert counts["runs"] == 400
    assert counts["rows"] > 400
    assert counts["set_aside"] > 100


def test_the_fast_reader_reads_what_the_careful_one_reads(originals: list[dict[str, bytes]]) -> None:
    """Of thousands of spoiled rows the fast reader either gives the careful one's answer, or none."""
    compared = 0
    for seed in range(3000):
        chance = random.Random(seed)  # noqa: S311 - cases, no secrets
        for line in spoil({"stdout": originals[0]["stdout"]}, chance).get("stdout", b"").split(b"\n"):
            try:
                fast = _fast(line, 1, 0, Log())
            except BAD_LINE:
                continue
            if fast is not None:
                slow = _slow(line.decode(), 1, 0, Log())
                assert fast == slow
                compared += 1
    assert compared > 3000
