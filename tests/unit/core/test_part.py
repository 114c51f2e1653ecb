"""The unfinished file, its account and its lock; and checksums that are remembered."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from typing import TYPE_CHECKING

import pytest
from llama_bench_core import checksum
from llama_bench_core.delivery import CancelledError, Clock, CorruptError
from llama_bench_core.part import Account, Part, account_path, part_path, read_account

if TYPE_CHECKING:
    from pathlib import Path

HALF = Account("http://host/f", '"one"', "", 100, [(50, 100)])


def acquire(path: Path, cancel: threading.Event | None = None) -> Part:
    """The part of a file, locked."""
    return Part.acquire(path, Clock(), cancel or threading.Event(), lambda: None)


def test_an_account_survives_its_writer(tmp_path: Path) -> None:
    """What is missing is what the next one reads."""
    path = tmp_path / "f"
    with acquire(path) as part:
        os.ftruncate(part.handle, 100)
        part.write_account(HALF)
    assert read_account(path) == HALF
    assert HALF.bytes_there == 50


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"missing": 3}', json.dumps({**HALF.__dict__, "missing": [[50, 200]]}), json.dumps({"total": 1})],
)
def test_an_account_that_is_not_sound_is_no_account(tmp_path: Path, text: str) -> None:
    """Better to begin anew than to believe it."""
    path = tmp_path / "f"
    part_path(path).write_bytes(bytes(100))
    account_path(path).write_text(text)
    assert read_account(path) is None


def test_an_account_of_another_file_is_no_account(tmp_path: Path) -> None:
    """The sizes must agree."""
    path = tmp_path / "f"
    account_path(path).write_text(json.dumps(HALF.__dict__))
    assert read_account(path) is None
    part_path(path).write_bytes(bytes(99))
    assert read_account(path) is None


@pytest.mark.parametrize(
    ("left", "address", "sha256", "expected"),
    [
        (HALF, "http://host/f", "", True),
        (HALF, "http://other/f", "", False),
        (Account("http://host/f", "", "", 100), "http://host/f", "", False),
        (Account("http://host/f", "", "ab", 100), "http://other/f", "ab", True),
        (Account("http://host/f", '"one"', "ab", 100), "http://host/f", "cd", False),
        (HALF, "http://host/f", "cd", False),
    ],
)
def test_only_what_is_surely_the_same_file_is_gone_on_with(
    left: Account, address: str, sha256: str, expected: bool
) -> None:
    """By checksum from anywhere, without one only where the server can tell versions apart."""
    assert left.continues(address, sha256) is expected


def test_the_second_waits_and_finds_what_the_first_finished(tmp_path: Path) -> None:
    """The lock follows the file, and nothing is left behind."""
    path = tmp_path / "f"
    first = acquire(path)
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        acquire(path, cancel)
    os.write(first.handle, b"whole")
    first.finish()
    with acquire(path) as second:
        assert os.fstat(second.handle).st_size == 0
    first.close()
    assert {one.name for one in tmp_path.iterdir()} == {"f"}
    assert path.read_bytes() == b"whole"


def test_a_checksum_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    """By its size and time."""
    path, memory = tmp_path / "f", tmp_path / "f.sha256.json"
    path.write_bytes(b"GGUF")
    assert checksum.remembered_sha256(path, memory) == ""
    checksum.remember(path, memory, "ab")
    assert checksum.remembered_sha256(path, memory) == "ab"
    path.write_bytes(b"GGUF!")
    assert checksum.remembered_sha256(path, memory) == ""
    memory.write_text("{")
    assert checksum.remembered_sha256(path, memory) == ""


def test_hashing_can_be_stopped(tmp_path: Path) -> None:
    """42 GB take a while."""
    path = tmp_path / "f"
    path.write_bytes(b"GGUF")
    assert checksum.file_sha256(path, lambda _: None, lambda: False) == hashlib.sha256(b"GGUF").hexdigest()
    with pytest.raises(CancelledError):
        checksum.file_sha256(path, lambda _: None, lambda: True)


def test_what_does_not_begin_as_a_gguf_is_none(tmp_path: Path) -> None:
    """An empty file neither."""
    path = tmp_path / "f"
    for content in (b"", b"GGU", b"<html>"):
        path.write_bytes(content)
        with pytest.raises(CorruptError, match="not a GGUF file"):
            checksum.require_gguf(path)


def test_a_growing_file_is_hashed_as_it_grows(tmp_path: Path) -> None:
    """Also when it begins anew in the middle."""
    path = tmp_path / "f"
    path.write_bytes(b"wrong")
    reach = [(0, 5, False)]
    with path.open("r+b") as stream:
        follower = checksum.Follower(stream.fileno(), lambda: reach[0])
        stream.write(b"right, and more")
        stream.flush()
        reach[0] = (1, 5, False)
        reach[0] = (1, 15, True)
        assert follower.finish(threading.Event()) == hashlib.sha256(b"right, and more").hexdigest()
        follower.stop()
