from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from benchctl import lake
from benchctl.db.engine import open_database, reading
from benchctl.db.records import record
from benchctl.db.schema import Sweep
from benchctl.errors import DatabaseError
from raw_runs import RawRun

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def small_disk(tmpfs: Callable[[int], Path]) -> Path:
    """A real file system of one MiB."""
    return tmpfs(1024**2)


def fill_up(folder: Path, leave_kib: int) -> Path:
    """Take all space but ``leave_kib``."""
    ballast = folder / "ballast"
    free = os.statvfs(folder)
    ballast.write_bytes(b"x" * max(0, free.f_bavail * free.f_frsize - leave_kib * 1024))
    return ballast


def test_a_journal_on_a_full_disk_goes_on_when_there_is_room(small_disk: Path) -> None:
    """What fits is kept, the sentence says why the rest is not there, and fetching on from its end makes it whole."""
    text = "".join(RawRun().journal() for _ in range(5))
    folder = small_disk / "run"
    folder.mkdir()
    ballast = fill_up(small_disk, leave_kib=8)
    with pytest.raises(lake.LakeError, match="No space left on device"):
        lake.append_journal(folder, 0, text)
    here = lake.journal_offset(folder)
    assert here < len(text)
    assert (folder / lake.JOURNAL).read_text() == text[:here]
    ballast.unlink()
    assert lake.append_journal(folder, here, text[here:]) == len(text)
    assert (folder / lake.JOURNAL).read_text() == text


def test_meta_on_a_full_disk_keeps_the_old_one(small_disk: Path) -> None:
    """A file that is replaced whole is the old one when the new one has no room."""
    lake.write_meta(small_disk, lake.RunMeta(version="1"))
    before = (small_disk / lake.META).read_text()
    fill_up(small_disk, leave_kib=0)
    with pytest.raises(lake.LakeError, match="No space left on device"):
        lake.write_meta(small_disk, lake.RunMeta(version="2", error_msg="x" * 10_000))
    assert (small_disk / lake.META).read_text() == before
    assert sorted(path.name for path in small_disk.iterdir()) == ["ballast", lake.META]


def test_a_database_on_a_full_disk(small_disk: Path) -> None:
    """Writing is refused with one sentence, and what was there is there still."""
    engine = open_database(f"sqlite:///{small_disk / 'b.db'}")
    try:
        record(engine, Sweep(sweep_id="kept", vendors=[]))
        fill_up(small_disk, leave_kib=4)
        with pytest.raises(DatabaseError, match="the disk is full"):
            record(engine, *(Sweep(sweep_id=f"s{n}", vendors=[], error="x" * 5000) for n in range(300)))
        with reading(engine) as session:
            assert [one.sweep_id for one in session.query(Sweep)] == ["kept"]
    finally:
        engine.dispose()
