"""The shared files that tests measure on are what they are said to be."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def bench(llama_bench: Path, model: Path) -> dict[str, object]:
    done = subprocess.run(
        [llama_bench, "-m", model, "-p", "8", "-n", "0", "-r", "1", "--no-warmup", "-o", "jsonl"],
        capture_output=True,
        text=True,
        check=True,
    )
    row: dict[str, object] = json.loads(done.stdout)
    return row


def test_the_synthetic_smollm_has_the_real_ones_size(llama_bench: Path, smollm: Path) -> None:
    """llama-bench reports the bytes and parameters that it reports for the real SmolLM-135M."""
    row = bench(llama_bench, smollm)
    assert (row["model_size"], row["model_n_params"]) == (103668480, 134515008)


def test_the_real_model_loads(llama_bench: Path, real_gguf: Path) -> None:
    """The model from the package index is gemma-3-270m, and llama-bench runs it."""
    row = bench(llama_bench, real_gguf)
    assert str(row["model_type"]).startswith("gemma3 270M")


def test_llama_bench_tells_its_build(llama_bench: Path, smollm: Path) -> None:
    """Every row names the release of llama.cpp and its commit, so that a measurement can be traced to its source."""
    if os.environ.get("BENCHCTL_TEST_LLAMA_BENCH"):
        pytest.skip("the tests run with a llama-bench that was brought along, not with the pinned one")
    row = bench(llama_bench, smollm)
    assert (row["build_number"], row["build_commit"]) == (11312, "0c1e57098")
