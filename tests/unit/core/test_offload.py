"""Where the work ran, proven by recorded load logs, recorded rows and a real llama-bench."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llama_bench_core.gpu import GPU
from llama_bench_core.offload import LoadLog, is_gpu, parse_load_log, process_gpu_memory, prove
from llama_bench_core.programs import Finished

CASES = Path(__file__).parents[2] / "cases" / "load_logs"
MIB = 1 << 20
H100 = GPU(0, "NVIDIA H100 80GB HBM3", 80 << 30, 79 << 30, "570.124.06", "9.0")


def log_of(name: str) -> LoadLog:
    return parse_load_log((CASES / f"{name}.txt").read_text())


@pytest.mark.parametrize(
    ("name", "asked", "outcome", "layers", "total", "device"),
    [
        ("2024-01-cpu-mixtral-b1971", 0, "cpu", 0, 33, "CPU"),
        ("2024-03-two-gpus-command-r", -1, "gpu", 41, 41, "CUDA0,CUDA1"),
        ("2024-04-gpu-present-none-offloaded", 90, "fallback", 0, 33, "CPU"),
        ("2024-10-claims-13-without-device", 13, "fallback", 0, 33, "CPU"),
        ("2025-03-full-v100-b4893", 99, "gpu", 13, 13, "CUDA0"),
        ("2025-03-backend-without-device", -1, "fallback", 0, None, "CPU"),
        ("2025-08-partial-mistral-7b", 20, "partial", 20, 33, "CUDA0"),
        ("2025-08-three-gpus-two-used", -1, "gpu", 81, 81, "CUDA0,CUDA2"),
        ("2025-09-cpu-only-build", -1, "fallback", 0, None, "CPU"),
        ("2026-cpu-gemma-270m", -1, "fallback", 0, 19, "CPU"),
    ],
)
def test_recorded_logs_prove_where_the_work_ran(name, asked, outcome, layers, total, device):
    """On a machine with a GPU, each recorded load is what it was, whatever it claims."""
    proof = prove(asked, log_of(name), None, [H100])
    assert (proof.outcome, proof.layers, proof.layers_total, proof.device) == (outcome, layers, total, device)
    assert proof.proof == "log"
    assert bool(proof.reason) is (outcome in ("fallback", "partial"))


@pytest.mark.parametrize("name", ["2025-09-cpu-only-build", "2026-cpu-gemma-270m"])
def test_without_a_gpu_nobody_expected_one(name):
    """-1 is llama-bench's own default; on a machine without a GPU the CPU is no fallback."""
    assert prove(-1, log_of(name), None, []).outcome == "cpu"


@pytest.mark.parametrize("name", ["2024-10-claims-13-without-device", "2025-03-backend-without-device"])
def test_a_driver_that_shows_no_gpu_is_a_fallback_all_the_same(name):
    """A CUDA build that finds no device says why, and the reason reaches the user."""
    proof = prove(-1, log_of(name), None, [])
    assert proof.outcome == "fallback"
    assert "no CUDA-capable device is detected" in proof.reason


def test_buffers_are_read_by_device_and_kind():
    """Weights, KV cache and compute buffers of the partial offload, in bytes."""
    log = log_of("2025-08-partial-mistral-7b")
    assert log.model == {"CUDA0": round(2495.31 * MIB), "CPU_Mapped": round(4165.37 * MIB)}
    assert log.kv == {"CUDA0": 60 * MIB, "CPU": 36 * MIB}
    assert log.compute == {"CUDA0": round(137.79 * MIB), "CUDA_Host": round(4.76 * MIB)}
    assert [log.layer_devices[layer] for layer in (11, 12, 31, 32)] == ["CPU", "CUDA0", "CUDA0", "CPU"]


def test_devices_and_backends_have_names():
    """From "using device" where it is said, else from the list of CUDA devices; backends in order."""
    assert log_of("2025-03-full-v100-b4893").devices == {"CUDA0": "Tesla V100-PCIE-16GB"}
    assert log_of("2024-03-two-gpus-command-r").devices["CUDA1"] == "NVIDIA GeForce RTX 3090 Ti"
    assert log_of("2025-03-backend-without-device").backends == ("CUDA", "CPU")


def test_a_cache_in_two_parts_is_added_up():
    """Gemma's sliding-window and full caches are printed apart."""
    assert log_of("2026-cpu-gemma-270m").kv == {"CPU": round(0.75 * MIB) + round(3.75 * MIB)}


def test_the_last_load_and_the_last_context_count():
    """llama-bench makes a context per test, and may load the model again with fewer layers."""
    full = "llama_model_loader: loaded meta data\nload_tensors: offloaded 33/33 layers to GPU\n"
    first = f"{full}load_tensors: CUDA0 model buffer size = 10.00 MiB\n"
    context = "llama_context: constructing llama_context\nllama_kv_cache: CUDA0 KV buffer size = 8.00 MiB\n"
    log = parse_load_log(first + context + context + first + context)
    assert (log.model, log.kv) == ({"CUDA0": 10 * MIB}, {"CUDA0": 8 * MIB})
    again = parse_load_log(
        first + "llama_model_loader: loaded meta data\nload_tensors: CPU model buffer size = 1.00 MiB\n"
    )
    assert again.layers_really_offloaded == 0


def test_the_process_without_gpu_memory_refutes_the_log():
    """A log that puts layers on a GPU that the process does not use is not believed."""
    log = log_of("2025-03-full-v100-b4893")
    proof = prove(-1, log, 0, [H100])
    assert (proof.outcome, proof.proof) == ("fallback", "memory")
    assert prove(-1, log, 500 * MIB, [H100]).outcome == "gpu"


def test_without_a_log_memory_must_hold_the_weights():
    """A CUDA context alone is hundreds of MiB; only what holds the weights proves that they are there."""
    weights = 4 << 30
    assert prove(-1, None, weights, [H100], weights).outcome == "gpu"
    assert prove(-1, None, 500 * MIB, [H100], weights).outcome == "fallback"
    assert prove(-1, None, None, [H100], weights).outcome == "fallback"
    assert prove(12, None, 2 << 30, [H100], weights).outcome == "partial"
    assert prove(-1, None, 0, [], weights).outcome == "cpu"


@pytest.mark.parametrize("row", (CASES / "cuda-rows-on-the-cpu.jsonl").read_text().splitlines())
def test_rows_that_say_cuda_prove_nothing(row):
    """Two of the 331 recorded rows: backend CUDA, a GPU's name, no layer on it. As an answer to "all" a fallback."""
    fields = json.loads(row)
    assert (fields["backends"], fields["n_gpu_layers"]) == ("CUDA", 0)
    assert fields["gpu_info"].startswith("NVIDIA")
    assert prove(-1, None, None, [H100], fields["model_size"]).outcome == "fallback"
    assert prove(fields["n_gpu_layers"], None, None, [H100]).outcome == "cpu"


def test_a_gpu_that_helps_without_holding_layers_is_named():
    """-ngl 0 with a GPU: the weights are on the CPU, but long prompts are computed on the GPU."""
    log = parse_load_log("llama_context: CUDA0 compute buffer size = 70.50 MiB\n")
    proof = prove(0, log, None, [H100])
    assert proof.outcome == "cpu"
    assert "long prompts" in proof.reason


@pytest.mark.parametrize(
    ("buffer", "gpu"),
    [("CUDA0", True), ("ROCm1", True), ("Vulkan0", True), ("Metal", True), ("CPU", False), ("CPU_Mapped", False),
     ("CPU_REPACK", False), ("CUDA_Host", False), ("AMX", False), ("BLAS", False)],
)  # fmt: skip
def test_buffers_of_the_machines_own_memory_are_no_gpu(buffer, gpu):
    """Names of llama.cpp's buffers."""
    assert is_gpu(buffer) is gpu


APPS = "4242, 17024\n5151, 512\n"


@pytest.mark.parametrize(
    ("pids", "output", "status", "sees", "held"),
    [
        ([4242], APPS, 0, True, 17024 * MIB),
        ([4242, 5151], APPS, 0, False, 17536 * MIB),
        ([99], APPS, 0, True, 0),
        ([99], APPS, 0, False, None),  # in a container the driver's numbers are not ours
        ([99], "", 0, True, 0),
        ([4242], "4242, [N/A]\n", 0, True, None),
        ([4242], "", 9, True, None),
    ],
)
def test_gpu_memory_of_a_process_tree(pids, output, status, sees, held):
    """Bytes where the driver lists us, 0 where it would and does not, None where it can't be told."""
    assert process_gpu_memory(pids, lambda *_: Finished(status, output, ""), sees) == held


def test_a_machine_without_the_driver_tells_nothing():
    """No program, no answer; looked up for real, whose process numbers we see is a plain yes or no."""

    def absent(argv, _timeout_seconds):
        raise FileNotFoundError(argv[0])

    assert process_gpu_memory([1], absent) is None
    assert process_gpu_memory([99], lambda *_: Finished(0, "", "")) in (0, None)
