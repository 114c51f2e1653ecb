"""The real llama-bench loads synthetic weights and reports of them what it reports of the real files."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.models import load_models
from llama_bench_core import synthetic
from llama_bench_core.values import Model

if TYPE_CHECKING:
    from pathlib import Path

KINDS = [
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "IQ4_NL",
    "IQ4_XS",
    "F16",
    "BF16",
]

# model_type, model_size, model_n_params in the rows of the real files (sc-inspector-data, 2025-04-30). llama-bench has
# since learned to name the smallest: "llama ?B" is "llama 256M" today.
RECORDED = {
    "SmolLM-135M": ("llama", 103668480, 134515008),
    "Qwen1.5-0.5B-Chat": ("qwen2 0.5B", 401210368, 619570176),
    "gemma-2b": ("gemma 2B", 1489055744, 2506172416),
    "LLaMA-7b": ("llama 7B", 4080263168, 6738415616),
    "phi-4": ("phi3 14B", 9049559040, 14659507200),
    "Llama-3.3-70B-Instruct": ("llama 70B", 42512531712, 70553706560),
}


def bench(llama_bench: Path, model: Path, *arguments: str) -> list[dict[str, Any]]:
    command = [str(llama_bench), "-m", str(model), "-r", "1", "--no-warmup", "-ngl", "0", "-o", "jsonl", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(row: dict[str, Any], name: str) -> None:
    kind, size, parameters = RECORDED[name]
    assert row["model_type"].startswith(kind)
    assert row["model_type"].endswith("Q4_K - Medium")
    assert (row["model_size"], row["model_n_params"]) == (size, parameters)
    assert row["avg_ts"] > 0


@pytest.mark.parametrize("name", ["SmolLM-135M", "Qwen1.5-0.5B-Chat"])
def test_measured_like_the_real_file(llama_bench: Path, tmp_path: Path, name: str) -> None:
    """Whole synthetic files of the two smallest models run prompts and answers, under the real model's figures."""
    model = load_models()[name]
    path = tmp_path / model.file
    synthetic.write(model, path)
    rows = bench(llama_bench, path, "-p", "16", "-n", "4", "-fa", "1")
    assert [(row["n_prompt"], row["n_gen"]) for row in rows] == [(16, 0), (0, 4)]
    for row in rows:
        check(row, name)
    path.unlink()


@pytest.mark.parametrize("name", ["gemma-2b", "LLaMA-7b", "phi-4", "Llama-3.3-70B-Instruct"])
def test_the_larger_ones_by_their_headers(llama_bench: Path, tmp_path: Path, name: str) -> None:
    """A sparse file is enough for llama-bench to load, to compute one token, and to report the figures.

    Mapped, and not repacked for the processor, it takes nothing but page cache, which gives way to whoever needs it:
    so this works on a machine with half the memory that the model would need.
    """
    text = subprocess.run([str(llama_bench), "--help"], capture_output=True, text=True, check=False).stdout
    if "--repack" not in text or "--load-mode" not in text:
        pytest.skip("this llama-bench can't be told to leave the weights where they are")
    model = load_models()[name]
    path = tmp_path / model.file
    synthetic.write(model, path, sparse=True)
    (row,) = bench(llama_bench, path, "-p", "1", "-n", "0", "--repack", "0", "-lm", "mmap")
    check(row, name)
    path.unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_of_block_computes(llama_bench: Path, tmp_path: Path, kind: str) -> None:
    """A file whose matrices are all of one type loads and runs: its blocks have the size that llama.cpp expects."""
    width, vocabulary = 256, 512
    tensors = [["token_embd.weight", [width, vocabulary], kind], ["output_norm.weight", [width], "F32"]]
    for part, rows in (("attn_q", width), ("attn_k", width), ("attn_v", width), ("attn_output", width)):
        tensors.append([f"blk.0.{part}.weight", [width, rows], kind])
    for part, shape in (("ffn_gate", [width, 512]), ("ffn_up", [width, 512]), ("ffn_down", [512, width])):
        tensors.append([f"blk.0.{part}.weight", shape, kind])
    tensors += [["blk.0.attn_norm.weight", [width], "F32"], ["blk.0.ffn_norm.weight", [width], "F32"]]
    numbers = {
        "context_length": 256,
        "embedding_length": width,
        "block_count": 1,
        "feed_forward_length": 512,
        "attention.head_count": 4,
        "vocab_size": vocabulary,
    }
    metadata: list[list[Any]] = [[f"llama.{key}", "u32", value] for key, value in numbers.items()]
    metadata.append(["llama.attention.layer_norm_rms_epsilon", "f32", 1e-5])
    shape_of_one_kind = {"architecture": "llama", "metadata": metadata, "tensors": tensors}
    model = Model("one", "one.gguf", shape=shape_of_one_kind)
    path = tmp_path / model.file
    synthetic.write(model, path)
    (row,) = bench(llama_bench, path, "-p", "8", "-n", "0")
    assert row["model_n_params"] == sum(one[1][0] * (one[1] + [1])[1] for one in tensors)
