"""What their log says of scenarios without a row, and of the time; recorded lines of April 2025, abridged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from benchctl.results import read_run
from llama_bench_core.values import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from benchctl.results import Run

SMOLLM, QWEN = "SmolLM-135M.Q4_K_M.gguf", "qwen1_5-0_5b-chat-q4_k_m.gguf"

LOG = """\
2025-04-17 07:43:23,709 - INFO - Using CPU-build of llama.cpp
2025-04-17 07:43:23,737 - INFO - Benchmarking model SmolLM-135M.Q4_K_M.gguf ...
2025-04-17 07:43:23,740 - DEBUG - Downloading model SmolLM-135M.Q4_K_M.gguf from https://huggingface.co/x
2025-04-17 07:43:24,202 - DEBUG - Downloaded model SmolLM-135M.Q4_K_M.gguf (100.57 MB) in 0.46 sec (218.18 MB/s)
2025-04-17 07:43:25,737 - DEBUG - Model SmolLM-135M.Q4_K_M.gguf found at /models/SmolLM-135M.Q4_K_M.gguf (0.10 GB)
2025-04-17 07:43:28,737 - DEBUG - Using ngl 0 for model SmolLM-135M.Q4_K_M.gguf
2025-04-17 07:43:30,000 - DEBUG - Benchmarking prompt processing with 16 tokens for max 41 sec
load_backend: loaded CPU backend from ./libggml-cpu-skylakex.so
2025-04-17 07:43:33,500 - DEBUG - Benchmarking prompt processing with 128 tokens for max 65 sec
main: error: CPU backend is not loaded
2025-04-17 07:43:35,000 - DEBUG - Benchmarking prompt processing with 512 tokens for max 104 sec
2025-04-17 07:45:19,000 - ERROR - Error: Command '['./llama-bench', '-p', '512']' timed out after 104 seconds
2025-04-17 07:45:19,000 - INFO - Skipping prompt processing benchmarks with 512+ tokens due to time constraints.
2025-04-17 07:45:20,000 - DEBUG - Benchmarking text generation with 16 tokens for max 81 sec
2025-04-17 07:45:22,000 - ERROR - Skipping text generation benchmarks with 16+ tokens as it's unlikely to hit the \
expected 5 tokens/sec.
2025-04-17 07:45:22,000 - INFO - Benchmarking model qwen1_5-0_5b-chat-q4_k_m.gguf ...
2025-04-17 08:00:22,000 - ERROR - qwen1_5-0_5b-chat-q4_k_m.gguf was not downloaded in time.
2025-04-17 08:00:23,000 - INFO - Received interrupt signal, cleaning up...
"""


def row(task: str, tokens: int, samples_ns: list[int], **changes: object) -> str:
    fields = {
        "build_commit": "51f311e0", "build_number": 4753, "cpu_info": "CPU", "gpu_info": "", "backends": "CPU",
        "model_filename": f"/models/{SMOLLM}", "model_type": "llama ?B Q4_K - Medium", "model_size": 103668480,
        "model_n_params": 134515008, "n_threads": 2, "n_gpu_layers": 0, "n_prompt": tokens if task == "pp" else 0,
        "n_gen": tokens if task == "tg" else 0, "test_time": "2025-04-17T07:43:30Z", "samples_ns": samples_ns,
    }  # fmt: skip
    return json.dumps({**fields, **changes})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = tmp_path / "data" / "aws" / "m5.large" / "llm"
    folder.mkdir(parents=True)
    (folder / "stdout").write_text(row("pp", 16, [500_000_000] * 5) + "\n" + row("tg", 16, [200_000_000] * 5) + "\n")
    (folder / "stderr").write_text(LOG)
    meta = {"start": "2025-04-17T07:42:00.000000", "end": "2025-04-17T08:00:30.000000", "exit_code": 0}
    (folder / "meta.json").write_text(json.dumps(meta))
    return read_run(folder)


def test_every_scenario_of_the_log_has_its_outcome(run: Run) -> None:
    """Measured, crashed, timed out, not worth trying, not there: each once, with the reason that the log gives."""
    found = {(one.model_file, one.task, one.tokens): (one.outcome, one.reason) for one in run.measured}
    assert found == {
        (SMOLLM, "pp", 16): (Outcome.OK, ""),
        (SMOLLM, "tg", 16): (Outcome.OK, ""),
        (SMOLLM, "pp", 128): (Outcome.CRASH, "main: error: CPU backend is not loaded"),
        (SMOLLM, "pp", 512): (Outcome.TIMEOUT, "no row within its limit; ended after 104 s"),
        (SMOLLM, "tg", 128): (
            Outcome.PREDICTED_SKIP,
            "this and longer: as it's unlikely to hit the expected 5 tokens/sec",
        ),
        (QWEN, "pp", 16): (Outcome.DOWNLOAD_TOO_SLOW, "it did not arrive in time"),
        (QWEN, "tg", 16): (Outcome.DOWNLOAD_TOO_SLOW, "it did not arrive in time"),
    }
    assert not run.damage


def test_models_have_our_names(run: Run) -> None:
    """Their file is our model, so that one name finds both."""
    assert {one.model for one in run.measured} == {"SmolLM-135M", "Qwen1.5-0.5B-Chat"}


def test_each_outcome_leads_to_its_line(run: Run) -> None:
    """File, line and offset point at the line that the outcome was read from."""
    for one in run.measured:
        content = (run.folder / one.file).read_bytes()
        line = content[one.offset :].split(b"\n")[0]
        assert content.split(b"\n")[(one.line or 0) - 1] == line
        assert str(one.tokens).encode() in line or one.outcome is Outcome.DOWNLOAD_TOO_SLOW or b"16+" in line


def test_where_the_time_went(run: Run) -> None:
    """All causes add up to the time from start to end; loading is what is left of a process without its samples."""
    assert run.times == {
        "image": 83.709,
        "download_wait": pytest.approx(2.0 + 900.0),
        "probing": 3.0,
        "load": pytest.approx(1.0 + 1.0),
        "samples": pytest.approx(2.5 + 1.0),
        "timeouts": 104.0,
        "other": pytest.approx(1110 - 83.709 - 902 - 3 - 2 - 3.5 - 104, abs=0.01),
    }
    load = next(one.load_seconds for one in run.measured if (one.task, one.tokens) == ("pp", 16))
    assert load == pytest.approx(3.5 - 2.5 - 0.5)


def test_a_broken_download_is_named(tmp_path: Path) -> None:
    """Where the log shows the network's error, that is the reason."""
    folder = tmp_path / "data" / "aws" / "c5.9xlarge" / "llm"
    folder.mkdir(parents=True)
    (folder / "stderr").write_text(
        "2025-04-14 08:52:33,232 - INFO - Benchmarking model SmolLM-135M.Q4_K_M.gguf ...\n"
        "urllib.error.HTTPError: HTTP Error 500: Internal Server Error\n"
        "2025-04-14 09:07:33,235 - ERROR - SmolLM-135M.Q4_K_M.gguf was not downloaded in time.\n"
    )
    (folder / "meta.json").write_text('{"exit_code": 0}')
    found = {(one.outcome, one.reason) for one in read_run(folder).measured}
    assert found == {(Outcome.DOWNLOAD_FAILED, "HTTP Error 500: Internal Server Error")}


@pytest.mark.parametrize(
    ("changes", "outcome", "device"),
    [
        ({"backends": "CUDA", "gpu_info": "NVIDIA H100", "n_gpu_layers": 0}, Outcome.GPU_FALLBACK, "CPU"),
        ({"backends": "CUDA", "gpu_info": "NVIDIA L4, NVIDIA L4", "n_gpu_layers": 999}, Outcome.OK, "2x NVIDIA L4"),
        ({"backends": "CPU", "gpu_info": "", "n_gpu_layers": 0}, Outcome.OK, "CPU"),
    ],
)
def test_a_gpu_that_was_not_used_is_a_fallback(
    tmp_path: Path, changes: dict[str, object], outcome: Outcome, device: str
) -> None:
    """CUDA without a layer on the GPU ran on the CPU, whatever the row's backend says; its samples are kept."""
    folder = tmp_path / "data" / "azure" / "x" / "llm"
    folder.mkdir(parents=True)
    (folder / "stdout").write_text(row("pp", 16, [10, 20], **changes))
    (folder / "meta.json").write_text('{"exit_code": 0}')
    (one,) = read_run(folder).measured
    assert (one.outcome, one.device, one.samples_ns) == (outcome, device, (10, 20))


def test_a_run_that_never_began(tmp_path: Path) -> None:
    """A refused server has no rows, its exit code and the vendor's message, and no files but meta.json."""
    folder = tmp_path / "data" / "azure" / "Standard_DC1s_v2" / "llm"
    folder.mkdir(parents=True)
    meta = {"start": "2025-04-28T00:00:00", "end": "2025-04-28T00:00:09", "exit_code": -1, "error_msg": "quota"}
    (folder / "meta.json").write_text(json.dumps(meta))
    run = read_run(folder)
    assert (run.measured, run.status, run.message, run.meta.exit_code) == ((), "failed", "quota", -1)
    assert run.times == {"image": 9.0}
