"""Archives of raw runs are read as a stream: the same rows as from the folder, and nothing ever leaves the archive."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from benchctl import rawfiles
from benchctl.db.engine import reading
from benchctl.db.schema import Measurement, RawRun
from benchctl.errors import UsageError
from benchctl.ingest import Ingest
from benchctl.rawfiles import ArchiveError
from raw_runs import write_theirs
from sqlalchemy import select

if TYPE_CHECKING:
    from sqlalchemy import Engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three runs of theirs."""
    for server in ("cpx11", "cpx21", "cpx31"):
        write_theirs(tmp_path / "inspector", "hcloud", server)
    return tmp_path / "inspector"


def pack(folder: Path, target: Path, mode: str = "w:xz") -> Path:
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
        archive.add(folder / "data", "data")
    return target


def member(archive: tarfile.TarFile, name: str, content: bytes = b"{}", kind: bytes = tarfile.REGTYPE) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content) if kind == tarfile.REGTYPE else 0, kind
    info.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
    archive.addfile(info, io.BytesIO(content))


def samples(engine: Engine) -> list[tuple[object, ...]]:
    with reading(engine) as session:
        query = select(Measurement.sweep_id, Measurement.server_id, Measurement.tokens, Measurement.samples_ns)
        return sorted((tuple(row) for row in session.execute(query)), key=repr)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_gives_what_the_folder_gives(engine: Engine, folder: Path, tmp_path: Path, mode: str) -> None:
    """Packed in whatever way, the rows are the folder's, and importing the folder after it doubles none."""
    archive = pack(folder, tmp_path / "runs.tar", mode)
    summaries = list(Ingest(engine, archive))
    assert [one.server for one in summaries] == ["cpx11", "cpx21", "cpx31"]
    before = samples(engine)
    assert len(before) == 12
    list(Ingest(engine, folder))
    assert samples(engine) == before


def test_an_archive_is_not_read_twice(engine: Engine, folder: Path, tmp_path: Path) -> None:
    """The second time nothing is read; once the archive has another content, what is new in it is."""
    archive = pack(folder, tmp_path / "runs.tar.xz")
    assert not any(one.unchanged for one in Ingest(engine, archive))
    again = list(Ingest(engine, archive))
    assert [one.unchanged for one in again] == [True] * 3
    write_theirs(folder, "hcloud", "cpx41")
    pack(folder, archive)
    assert [one.unchanged for one in Ingest(engine, archive)] == [True, True, True, False]


def test_rows_lead_into_the_archive(engine: Engine, folder: Path, tmp_path: Path) -> None:
    """Origin, path and offset of a row lead to its very line."""
    archive = pack(folder, tmp_path / "runs.tar.xz")
    list(Ingest(engine, archive))
    with reading(engine) as session:
        one = session.scalars(select(Measurement).filter_by(server_id="cpx21", task="pp", tokens=128)).one()
        origin = session.scalars(select(RawRun.origin).filter_by(job_id=one.job_id)).one()
        assert origin == str(archive)
        with tarfile.open(origin) as opened:
            content = opened.extractfile(one.raw_path).read()  # type: ignore[union-attr]
        assert one.raw_offset is not None
        assert b'"n_prompt": 128' in content[one.raw_offset :].split(b"\n")[0]


def test_members_that_lead_out_are_set_aside(engine: Engine, folder: Path, tmp_path: Path) -> None:
    """Names with .., absolute names, links and devices are named and not followed; the rest comes in."""
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as opened:
        member(opened, "../../outside/llm/meta.json")
        member(opened, "/tmp/outside/llm/stdout")
        member(opened, "data/aws/link/llm/meta.json", kind=tarfile.SYMTYPE)
        member(opened, "data/aws/hard/llm/stdout", kind=tarfile.LNKTYPE)
        member(opened, "data/aws/device/llm/stderr", kind=tarfile.CHRTYPE)
        opened.add(folder / "data", "data")
    before = sorted(tmp_path.rglob("*"))
    work = Ingest(engine, archive)
    assert len(list(work)) == 3
    assert len(work.damage) == 5
    assert sorted(path for path in tmp_path.rglob("*") if "test.db" not in path.name) == [
        path for path in before if "test.db" not in path.name
    ]
    assert not Path("/tmp/outside").exists()


def test_a_bomb_is_given_up(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that unpacks to gigabytes is never held; an archive that unpacks to more than any sweep is refused."""
    archive = tmp_path / "bomb.tar.xz"
    with tarfile.open(archive, "w:xz", preset=0) as opened:
        member(opened, "data/aws/small/llm/meta.json", b'{"exit_code": 0}')
        member(opened, "data/aws/bomb/llm/stdout", bytes(rawfiles.LARGEST_MEMBER_BYTES + 1))
        member(opened, "data/aws/bomb/llm/meta.json", b'{"exit_code": 0}')
    work = Ingest(engine, archive)
    assert [(one.server, one.measurements) for one in work] == [("small", 0), ("bomb", 0)]
    assert "larger than 32 MiB" in str(work.damage[0])
    monkeypatch.setattr(rawfiles, "LARGEST_ARCHIVE_BYTES", 1024**2)
    with pytest.raises(ArchiveError, match="unpacks to more than"):
        list(Ingest(engine, archive, again=True))


def test_an_archive_that_breaks_off(engine: Engine, folder: Path, tmp_path: Path) -> None:
    """What came before the damage is kept, the sentence says so, and the whole archive completes it."""
    archive = pack(folder, tmp_path / "runs.tar", "w")
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2 - 100])
    with pytest.raises(ArchiveError, match="is damaged"):
        list(Ingest(engine, archive))
    assert 0 < len(samples(engine)) < 12
    archive.write_bytes(whole)
    list(Ingest(engine, archive))
    assert len(samples(engine)) == 12


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"\x1f\x8b\x08\x00broken", b"\xfd7zXZ\x00broken"])
def test_what_is_no_archive(engine: Engine, tmp_path: Path, content: bytes) -> None:
    """Any other file is one clear sentence."""
    path = tmp_path / "thing.tar.xz"
    path.write_bytes(content)
    with pytest.raises((UsageError, ArchiveError)) as caught:
        list(Ingest(engine, path))
    assert str(path) in str(caught.value)


def test_files_that_come_late_are_set_aside(
    engine: Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of a folder that was taken in long ago does not make a second, half run of it."""
    monkeypatch.setattr(rawfiles, "PENDING_BYTES", 1)
    archive = tmp_path / "late.tar"
    with tarfile.open(archive, "w") as opened:
        opened.add(folder / "data" / "hcloud" / "cpx11", "data/hcloud/cpx11")
        opened.add(folder / "data" / "hcloud" / "cpx21", "data/hcloud/cpx21")
        member(opened, "data/hcloud/cpx11/llm/journal.jsonl", b"{}")
    work = Ingest(engine, archive)
    list(work)
    assert any("too long after" in str(one) for one in work.damage)
