"""Synthetic weights: the real models' exact shapes, valid blocks, nothing left behind when writing ends early."""

from __future__ import annotations

import math
import struct
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.models import load_models
from llama_bench_core import gguf, synthetic
from llama_bench_core.delivery import DiskFullError
from llama_bench_core.gguf_format import TENSOR_TYPES, header_bytes
from llama_bench_core.values import Model, SettingsError

if TYPE_CHECKING:
    from pathlib import Path

SHAPE: dict[str, Any] = {
    "architecture": "llama",
    "layers": 4,
    "embedding": 256,
    "feed_forward": 512,
    "heads": 4,
    "heads_kv": 2,
    "vocabulary": 1000,
    "context": 128,
    "tied": True,
}
TINY = Model("tiny", "tiny.gguf", shape=SHAPE)

# model_size and model_n_params in llama-bench's rows of the real files (sc-inspector-data, 2025-04-30)
RECORDED = {
    "SmolLM-135M": (103668480, 134515008),
    "Qwen1.5-0.5B-Chat": (401210368, 619570176),
    "gemma-2b": (1489055744, 2506172416),
    "LLaMA-7b": (4080263168, 6738415616),
    "phi-4": (9049559040, 14659507200),
    "Llama-3.3-70B-Instruct": (42512531712, 70553706560),
}


@pytest.mark.parametrize("name", RECORDED)
def test_header_gives_the_recorded_figures(name: str, tmp_path: Path) -> None:
    """Bytes and parameters are exactly those that llama-bench recorded of the real file; a header is enough."""
    model = load_models()[name]
    path = tmp_path / model.file
    synthetic.write(model, path, sparse=True)
    header = gguf.read_header(path)
    assert (header.tensor_bytes, header.parameters) == RECORDED[name]
    assert header.layers == model.layers
    assert path.stat().st_blocks * 512 < 1 << 20
    assert synthetic.is_synthetic(header)
    assert synthetic.is_sparse(header)


def test_a_file_says_that_it_is_synthetic(tmp_path: Path) -> None:
    """Mark, name and size; a whole file is not sparse."""
    path = tmp_path / "tiny.gguf"
    synthetic.write(TINY, path)
    header = gguf.read_header(path)
    assert synthetic.is_synthetic(header)
    assert not synthetic.is_sparse(header)
    assert header.name == "tiny (synthetic)"
    assert header.file_bytes == synthetic.file_bytes(TINY)
    assert header.metadata["llama.vocab_size"] == 1000
    assert header.metadata["tokenizer.ggml.model"] == "none"


def test_same_seed_same_file(tmp_path: Path) -> None:
    """A seed determines every byte; another one gives other weights."""
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        synthetic.write(TINY, path, seed=seed)
    first, second, third = (path.read_bytes() for path in paths)
    assert first == second
    assert first != third
    assert synthetic.present(TINY, paths[0], seed=1)
    assert not synthetic.present(TINY, paths[0], seed=2)
    assert not synthetic.present(TINY, tmp_path / "missing")


def half(data: bytes) -> float:
    return float(struct.unpack("<e", data)[0])


@pytest.mark.parametrize("kind", [name for name in TENSOR_TYPES if name not in ("I8", "I16", "I32", "I64", "F64")])
def test_blocks_of_every_type_are_written(kind: str, tmp_path: Path) -> None:
    """Any quantisation that a user's own model has can be imitated, to the byte."""
    shape = {"architecture": "x", "metadata": [], "tensors": [["w.weight", [512, 3], kind], ["v.weight", [512], kind]]}
    path = tmp_path / "m.gguf"
    synthetic.write(Model("m", "m.gguf", shape=shape), path)
    header = gguf.read_header(path)
    body = path.read_bytes()[header.data_offset :][: header.tensors[0].bytes]
    assert len(body) == header.tensors[0].bytes
    if kind not in ("Q8_1", "Q8_K"):
        assert len(set(body)) > 20


def test_scales_are_those_of_real_weights(tmp_path: Path) -> None:
    """Every block of the types of a Q4_K_M file gives finite values of a few hundredths; norms are one."""
    kinds = ["Q4_K", "Q5_K", "Q6_K", "Q5_0", "Q8_0", "F32", "F16", "BF16"]
    shape = {
        "architecture": "x",
        "metadata": [],
        "tensors": [[f"{kind}.weight", [4096, 40], kind] for kind in kinds] + [["norm.weight", [300], "F32"]],
    }
    path = tmp_path / "m.gguf"
    synthetic.write(Model("m", "m.gguf", shape=shape), path)
    header = gguf.read_header(path)
    data = path.read_bytes()
    for one in header.tensors:
        begin = header.data_offset + one.offset
        body = data[begin : begin + one.bytes]
        _, _, size = TENSOR_TYPES[one.type]
        blocks = [body[at : at + size] for at in range(0, len(body), size)]
        if one.name == "norm.weight":
            assert struct.unpack("<300f", body) == (1.0,) * 300
        elif one.type == "F32":
            assert all(0.005 < abs(struct.unpack("<f", block)[0]) < 0.04 for block in blocks)
        elif one.type == "F16":
            assert all(0.005 < abs(half(block)) < 0.04 for block in blocks)
        elif one.type == "BF16":
            assert all(0.005 < abs(struct.unpack("<f", b"\0\0" + block)[0]) < 0.04 for block in blocks)
        else:
            where = 208 if one.type == "Q6_K" else 0
            scales = {half(block[where : where + 2]) for block in blocks}
            assert all(2**-14 <= scale <= 2**-8 for scale in scales)
            assert len({bytes(block) for block in blocks}) == len(blocks)


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    """Progress rises and ends at the file's size."""
    seen: list[int] = []
    synthetic.write(TINY, tmp_path / "m", seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == synthetic.file_bytes(TINY)


def test_stop_leaves_nothing(tmp_path: Path) -> None:
    """Writing ends when it is told to; what was there stays, and no part is left."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"old")
    calls = iter([False, False, True])
    synthetic.write(TINY, path, stop=lambda: next(calls))
    assert [one.name for one in tmp_path.iterdir()] == ["m.gguf"]
    assert path.read_bytes() == b"old"


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    """An exception in the middle, as Ctrl-C raises one, leaves no part."""

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.write(TINY, tmp_path / "m.gguf", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_said_at_once(tmp_path: Path) -> None:
    """Seventy billion parameters times a thousand layers don't fit anywhere; nothing is written before it is said."""
    huge = replace(TINY, shape={**SHAPE, "layers": 400, "embedding": 2**20, "heads": 4096, "feed_forward": 2**22})
    with pytest.raises(DiskFullError, match="does not hold"):
        synthetic.write(huge, tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """A disk that is full in the middle is no_disk, and the part is gone."""
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(mount)], capture_output=True).returncode:
        pytest.skip("a tmpfs needs root")
    try:
        size = synthetic.file_bytes(TINY)
        filler = mount / "filler"

        def fill(done: int) -> None:
            if done > 10_000 and not filler.exists():
                filler.write_bytes(bytes(mount_free(mount) - 8192))

        assert size < 2 << 20
        with pytest.raises(DiskFullError):
            synthetic.write(TINY, mount / "m.gguf", fill)
        assert [one.name for one in mount.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def mount_free(path: Path) -> int:
    import os

    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    """A file where a folder should be is one clear sentence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(synthetic.SyntheticError, match="can't be written"):
        synthetic.write(TINY, tmp_path / "file" / "m.gguf")


def test_a_model_without_a_shape_is_refused(tmp_path: Path) -> None:
    """Where nothing is known, nothing can be imitated."""
    with pytest.raises(synthetic.SyntheticError, match="shape of m is not known"):
        synthetic.write(Model("m", "m.gguf"), tmp_path / "m.gguf")


def test_any_real_file_can_be_imitated(tmp_path: Path) -> None:
    """Tensors and what decides speed are taken over; the tokenizer becomes its size."""
    metadata: list[tuple[str, str, Any]] = [
        ("general.architecture", "str", "gemma3"),
        ("general.name", "str", "Real"),
        ("general.file_type", "u32", 15),
        ("general.alignment", "u32", 64),
        ("gemma3.block_count", "u32", 1),
        ("gemma3.rope.freq_base", "f32", 1e6),
        ("gemma3.pattern", "[bool]", [True, False]),
        ("tokenizer.ggml.model", "str", "llama"),
        ("tokenizer.ggml.tokens", "[str]", ["x"] * 5000),
    ]
    tensors = [("a.weight", (32, 3), "Q8_0"), ("b.weight", (7,), "F32"), ("c.weight", (64, 2), "Q5_0")]
    header, _, size = header_bytes(metadata, tensors, 64)
    real = tmp_path / "real.gguf"
    real.write_bytes(header + bytes(size))
    shape = synthetic.shape_of(gguf.read_header(real))
    path = tmp_path / "m.gguf"
    synthetic.write(Model("m", "m.gguf", shape=shape), path)
    found = gguf.read_header(path)
    assert [(one.name, one.shape, one.type) for one in found.tensors] == tensors
    assert found.alignment == 64
    assert found.metadata["gemma3.vocab_size"] == 5000
    assert found.metadata["gemma3.pattern"] == (True, False)
    assert found.value_types["gemma3.rope.freq_base"] == "f32"
    assert math.isclose(found.metadata["gemma3.rope.freq_base"], 1e6)
    assert found.metadata["general.name"] == "m (synthetic)"
    assert "tokenizer.ggml.tokens" not in found.metadata
    assert not synthetic.is_synthetic(gguf.read_header(real))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"architecture": "mamba"}, "shape.architecture"),
        ({"layers": 0}, "shape.layers"),
        ({"layers": "4"}, "shape.layers"),
        ({"heads_kv": 3}, "shape.heads_kv"),
        ({"hed": 3}, "shape.hed"),
        ({"rope_base": -1}, "shape.rope_base"),
        ({"types": {"attn_v": "Q9_K"}}, "shape.types.attn_v"),
        ({"types": [1]}, "shape.types.types"),
    ],
)
def test_a_wrong_shape_is_refused(change: dict[str, Any], key: str, tmp_path: Path) -> None:
    """The error names the key of the shape."""
    with pytest.raises(SettingsError) as caught:
        synthetic.write(replace(TINY, shape={**SHAPE, **change}), tmp_path / "m.gguf")
    assert caught.value.key == key
