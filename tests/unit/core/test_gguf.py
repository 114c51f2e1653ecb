"""Reading GGUF headers: what is right is read, what is wrong is said, and no length in a file is believed."""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest
from llama_bench_core import gguf
from llama_bench_core.gguf_format import Skipped, header_bytes

if TYPE_CHECKING:
    from pathlib import Path

METADATA: list[tuple[str, str, Any]] = [
    ("general.architecture", "str", "llama"),
    ("general.name", "str", "Tiny — ü"),
    ("llama.block_count", "u32", 2),
    ("llama.embedding_length", "u32", 64),
    ("llama.attention.head_count", "u32", 4),
    ("llama.attention.head_count_kv", "u32", 2),
    ("llama.rope.freq_base", "f32", 10000.0),
    ("some.flag", "bool", True),
    ("some.numbers", "[i32]", [1, -2, 3]),
    ("tokenizer.ggml.tokens", "[str]", ["a", "bc", ""]),
]
TENSORS = [("token_embd.weight", (256, 10), "Q4_K"), ("output_norm.weight", (256,), "F32")]


def model(path: Path, metadata: list[tuple[str, str, Any]] | None = None, body: bool = True) -> Path:
    header, _, size = header_bytes(METADATA if metadata is None else metadata, TENSORS)
    path.write_bytes(header + bytes(size if body else 0))
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return model(tmp_path / "tiny.gguf")


def test_reads_back_what_was_written(tiny: Path) -> None:
    """Metadata, tensors, offsets and sizes survive writing and reading."""
    header = gguf.read_header(tiny)
    assert header.architecture == "llama"
    assert header.name == "Tiny — ü"
    assert header.metadata["some.flag"] is True
    assert header.metadata["some.numbers"] == (1, -2, 3)
    assert header.metadata["tokenizer.ggml.tokens"] == ("a", "bc", "")
    assert header.value_types["some.numbers"] == "[i32]"
    assert [(one.name, one.shape, one.type) for one in header.tensors] == TENSORS
    assert header.tensors[1].offset == 10 * 144
    assert header.parameters == 256 * 10 + 256
    assert header.tensor_bytes == 10 * 144 + 256 * 4
    assert header.layers == 2
    assert header.expected_file_bytes == header.file_bytes == tiny.stat().st_size
    assert header.data_offset % header.alignment == 0


def test_cache_size_counts_key_value_heads_only(tiny: Path) -> None:
    """Two layers x two key-value heads x (16 + 16) values x two bytes."""
    assert gguf.read_header(tiny).kv_bytes_per_token == 2 * 2 * 32 * 2


def test_cache_size_takes_heads_by_layer_and_own_lengths(tmp_path: Path) -> None:
    """Models say the number of heads layer by layer, and the length of a head apart from the width."""
    metadata = [pair for pair in METADATA if pair[0] != "llama.attention.head_count_kv"]
    metadata += [
        ("llama.attention.head_count_kv", "[u32]", [1, 3]),
        ("llama.attention.key_length", "u32", 8),
        ("llama.attention.value_length", "u32", 4),
    ]
    assert gguf.read_header(model(tmp_path / "m.gguf", metadata)).kv_bytes_per_token == 2 * (8 + 4) * (1 + 3)


def test_big_arrays_are_walked_over_quickly(tmp_path: Path) -> None:
    """A vocabulary of 300,000 texts costs a fraction of a second and is not kept."""
    words = [f"word{number}" for number in range(300_000)]
    path = model(tmp_path / "m.gguf", [*METADATA, ("vocabulary", "[str]", words), ("scores", "[f32]", [0.5] * 300_000)])
    begin = time.process_time()
    header = gguf.read_header(path)
    assert time.process_time() - begin < 2
    assert header.metadata["vocabulary"] == Skipped(300_000)
    assert header.metadata["scores"] == Skipped(300_000)
    assert len(header.tensors) == 2


def test_every_cut_is_noticed(tmp_path: Path, tiny: Path) -> None:
    """Wherever a file ends too early, that is the error, and never another one."""
    whole = tiny.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in range(4, len(whole) - 1):
        if length > 600 and length % 97:
            continue
        cut.write_bytes(whole[:length])
        with pytest.raises(gguf.GgufError, match="is cut short"):
            gguf.read_header(cut)


def test_a_cut_in_a_long_array_is_noticed(tmp_path: Path) -> None:
    """The quick walk over texts ends at the end of the file too."""
    header, _, _ = header_bytes([("v", "[str]", ["word"] * 200_000)], [])
    path = tmp_path / "m.gguf"
    for length in (3000, len(header) // 2, len(header) - 40):
        path.write_bytes(header[:length])
        with pytest.raises(gguf.GgufError, match="is cut short"):
            gguf.read_header(path)


def test_a_body_that_is_short_says_by_how_much(tmp_path: Path) -> None:
    """A download that broke off is told from a whole file by its header."""
    with pytest.raises(gguf.GgufError, match=r"2464 of \d+ bytes are missing"):
        gguf.read_header(model(tmp_path / "m.gguf", body=False))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a GGUF file"),
        (b"GG", "is not a GGUF file"),
        (b"ggml" + bytes(100), "is not a GGUF file"),
        (b"<!DOCTYPE html><html>" + bytes(100), "is not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "has GGUF version 1; known are 2 to 3"),
        (b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "has GGUF version 4"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "for big-endian machines"),
    ],
)
def test_what_is_no_known_gguf_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    """One sentence says which of the possible reasons it is."""
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(gguf.GgufError, match=said) as caught:
        gguf.read_header(path)
    assert str(path) in caught.value.problem
    assert caught.value.mend


def test_no_such_file(tmp_path: Path) -> None:
    """A path that leads nowhere is an error of ours, not of Python's."""
    with pytest.raises(gguf.GgufError, match="There is no file"):
        gguf.read_header(tmp_path / "missing.gguf")


def test_a_folder_can_not_be_read(tmp_path: Path) -> None:
    """A folder is no file; the system's words are kept."""
    with pytest.raises(gguf.GgufError, match="can't be read: Is a directory"):
        gguf.read_header(tmp_path)


HUGE = 2**63


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<QQ", HUGE, 0),
        struct.pack("<QQ", 0, HUGE),
        struct.pack("<QQ", 0, 1) + struct.pack("<Q", HUGE),
        struct.pack("<QQ", 0, 1) + struct.pack("<Q1sIQ", 1, b"k", 8, HUGE),
        struct.pack("<QQ", 0, 1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 4, HUGE),
        struct.pack("<QQ", 0, 1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 8, HUGE),
        struct.pack("<QQ", 0, 1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 8, 5000) + struct.pack("<Q", HUGE) * 5000,
        struct.pack("<QQ", 0, 1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 1),
        struct.pack("<QQ", 0, 1) + struct.pack("<Q1sI", 1, b"k", 77),
        struct.pack("<QQ", 1, 0) + struct.pack("<Q1sI", 1, b"t", 4_000_000_000),
        struct.pack("<QQ", 1, 0) + struct.pack("<Q1sIQQIQ", 1, b"t", 2, HUGE, HUGE, 0, 0),
        struct.pack("<QQ", 1, 0) + struct.pack("<Q1sIQIQ", 1, b"t", 1, 257, 12, 0),
        struct.pack("<QQ", 1, 0) + struct.pack("<Q1sIQIQ", 1, b"t", 1, 256, 99, 0),
        struct.pack("<QQ", 1, 0) + struct.pack("<Q1sIQIQ", 1, b"t", 1, 256, 0, HUGE),
        struct.pack("<QQ", 2, 0) + struct.pack("<Q1sIQIQ", 1, b"t", 1, 0, 0, 0) * 2,
        struct.pack("<QQ", 0, 2) + struct.pack("<Q1sII", 1, b"k", 4, 1) * 2,
        struct.pack("<QQ", 0, 1) + struct.pack("<Q17sII", 17, b"general.alignment", 4, 3),
        struct.pack("<QQ", 0, 1) + struct.pack("<Q17sII", 17, b"general.alignment", 4, 0),
    ],
    ids=range(18),
)
def test_hostile_lengths_are_refused_at_once(tmp_path: Path, content: bytes) -> None:
    """Lengths that no file has lead to an error, not to memory or time being spent."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + content + bytes(64))
    begin = time.process_time()
    with pytest.raises(gguf.GgufError):
        gguf.read_header(path)
    assert time.process_time() - begin < 1


def test_a_hostile_number_of_layers_costs_nothing(tmp_path: Path) -> None:
    """Four billion layers are a number, not a list."""
    metadata = [("llama.block_count", "u32", 2**32 - 1) if one[0] == "llama.block_count" else one for one in METADATA]
    header = gguf.read_header(model(tmp_path / "m.gguf", metadata))
    assert header.kv_bytes_per_token == (2**32 - 1) * 2 * 32 * 2


def test_random_damage_never_escapes(tmp_path: Path, tiny: Path) -> None:
    """Whatever bytes of a header are changed: it is read, or refused with a GgufError."""
    import random

    whole = tiny.read_bytes()
    chance = random.Random(7)  # noqa: S311 - a fixed sequence
    path = tmp_path / "m.gguf"
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(4, 700)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        path.write_bytes(damaged)
        try:
            header = gguf.read_header(path)
        except gguf.GgufError:
            continue
        assert header.kv_bytes_per_token >= 0


def test_unreadable_file(tiny: Path) -> None:
    """A file that may not be read says so."""
    tiny.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything: be nobody for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(gguf.GgufError, match="Permission denied"):
            gguf.read_header(tiny)
    finally:
        os.seteuid(user)
