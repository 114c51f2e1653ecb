"""How many layers a GPU holds, checked against what llama.cpp's logs recorded."""

from __future__ import annotations

import pytest
from llama_bench_core.memory import compute_buffer_bytes, gpu_layers, kv_bytes_per_token

MIB = 1 << 20
GIB = 1 << 30


def k_quant(values: int, bytes_per_256: int) -> int:
    """Bytes of a K-quantised tensor: 144 per 256 values for Q4_K, 210 for Q6_K (ggml-common.h)."""
    return values // 256 * bytes_per_256


def q4_k_m_layers(layers: int, width: int, kv_width: int, feed_forward: int) -> list[int]:
    """Bytes of each layer of a llama in Q4_K_M: attn_v and ffn_down are Q6_K in some layers (use_more_bits)."""
    sizes = []
    for index in range(layers):
        more = index < layers // 8 or index >= 7 * layers // 8 or (index - layers // 8) % 3 == 2
        down = 210 if more else 144
        sizes.append(
            k_quant(2 * width * width + kv_width * width + 2 * feed_forward * width, 144)
            + k_quant(kv_width * width + feed_forward * width, down)
            + 2 * width * 4
        )
    return sizes


MISTRAL = {
    # Mistral-7B-Instruct-v0.1 Q4_K_M: 32 layers, width 4096, KV width 1024, feed-forward 14336, vocabulary 32000.
    "layer_bytes": q4_k_m_layers(32, 4096, 1024, 14336),
    "output_bytes": k_quant(32000 * 4096, 210) + 4096 * 4,
    "kv_bytes_per_token": kv_bytes_per_token(32, 1024, 1024),
    "context_tokens": 768,
    "compute_bytes": compute_buffer_bytes(32000, 4096, 768),
}


def test_twenty_layers_of_mistral_take_what_the_log_says():
    """tests/cases/load_logs/2025-08-partial-mistral-7b.txt: CUDA0 model buffer size = 2495.31 MiB for the last 20."""
    assert sum(MISTRAL["layer_bytes"][-20:]) / MIB == pytest.approx(2495.31, abs=0.005)


@pytest.mark.parametrize(
    ("layers", "width", "tokens", "mebibytes"),
    [
        (32, 1024, 768, 96.0),  # Mistral-7B, the log above: 60.00 on CUDA0 and 36.00 on the CPU
        (40, 8192, 4096, 5120.0),  # Command-R, 2024-03-two-gpus-command-r.txt: 1536 and 3584
        (28, 512, 128000, 7000.0),  # Qwen2.5-7B, 2025-09-cpu-only-build.txt
        (12, 384, 512, 9.0),  # bge-small, 2025-03-full-v100-b4893.txt
    ],
)
def test_the_kv_cache_takes_what_the_logs_say(layers, width, tokens, mebibytes):
    """The KV buffers of four models, in all devices together."""
    assert kv_bytes_per_token(layers, width, width) * tokens / MIB == mebibytes


@pytest.mark.parametrize(
    ("vocabulary", "width", "mebibytes"),
    [
        (32000, 4096, 70.5),  # a 7B llama in f16 on the V100 of llama.cpp's continuous integration
        (128256, 4096, 258.5),  # Llama-3-8B, a public log of 2024 with n_ctx 512
        (152064, 3584, 304.0),  # Qwen2.5-7B in f16, a public log of 2025 (29/29 layers, 14531.94 MiB)
    ],
)
def test_the_compute_buffer_covers_what_the_logs_say(vocabulary, width, mebibytes):
    """The estimate is the recorded size and the mask of the context over it, never less."""
    mask = 4096 * 512 * 4
    assert compute_buffer_bytes(vocabulary, width, 4096) == mebibytes * MIB + mask


def test_a_partial_offload_copies_the_output_matrix():
    """The Mistral log's 137.79 MiB of compute buffer with -ub 256: logits, hidden state, and a copy of the output."""
    copy = MISTRAL["output_bytes"] - 4096 * 4
    logits = compute_buffer_bytes(32000, 4096, 0, ubatch=256)
    assert (copy + logits) / MIB == pytest.approx(137.79, abs=0.005)


def test_everything_fits_on_a_large_gpu():
    """-1 is all layers."""
    assert gpu_layers(**MISTRAL, gpus_free_bytes=[24 * GIB]) == -1


def test_no_gpu_and_a_full_gpu_hold_nothing():
    """0 without a GPU, and where the free memory does not even cover the reserve."""
    assert gpu_layers(**MISTRAL, gpus_free_bytes=[]) == 0
    assert gpu_layers(**MISTRAL, gpus_free_bytes=[GIB]) == 0
    assert gpu_layers(**MISTRAL, gpus_free_bytes=[0, 0]) == 0
    assert gpu_layers(**{**MISTRAL, "layer_bytes": []}, gpus_free_bytes=[GIB]) == 0


def test_a_small_gpu_holds_some_layers_and_what_it_holds_fits():
    """With 4 GiB free, the answer fits and one layer more would not."""
    free = 4 * GIB
    layers = gpu_layers(**MISTRAL, gpus_free_bytes=[free])
    assert 0 < layers < 32

    def needed(count: int) -> int:
        kv = MISTRAL["kv_bytes_per_token"] * 768 // 32 * count
        return sum(MISTRAL["layer_bytes"][-count:]) + MISTRAL["output_bytes"] + kv + MISTRAL["compute_bytes"] + GIB

    assert needed(layers) <= free < needed(layers + 1)


def test_more_memory_never_means_fewer_layers():
    """The answer grows with the free memory, up to all."""
    answers = [gpu_layers(**MISTRAL, gpus_free_bytes=[mebibytes * MIB]) for mebibytes in range(0, 8192, 64)]
    ranks = [33 if answer == -1 else answer for answer in answers]
    assert ranks == sorted(ranks)
    assert {0, 33} < set(ranks)


def test_a_longer_context_leaves_room_for_fewer_layers():
    """The KV cache lies with its layers."""
    short = gpu_layers(**MISTRAL, gpus_free_bytes=[5 * GIB])
    long = gpu_layers(
        **{**MISTRAL, "context_tokens": 16384, "compute_bytes": compute_buffer_bytes(32000, 4096, 16384)},
        gpus_free_bytes=[5 * GIB],
    )
    assert 0 < long < short


# Llama-3.3-70B Q4_K_M: 80 layers, width 8192, KV width 1024, feed-forward 28672, vocabulary 128256.
LLAMA_70B = {
    "layer_bytes": q4_k_m_layers(80, 8192, 1024, 28672),
    "output_bytes": k_quant(128256 * 8192, 210) + 8192 * 4,
    "kv_bytes_per_token": kv_bytes_per_token(80, 1024, 1024),
    "context_tokens": 16384,
    "compute_bytes": compute_buffer_bytes(128256, 8192, 16384),
}


def test_the_layers_of_the_70b_are_near_the_recorded_size_of_the_model():
    """The recorded model_size 42512531712 is layers, output and embedding; the 70B's attn_v (Q5_K) aside."""
    embedding = k_quant(128256 * 8192, 144)
    total = sum(LLAMA_70B["layer_bytes"]) + LLAMA_70B["output_bytes"] + embedding
    assert total == pytest.approx(42512531712, rel=0.01)


@pytest.mark.parametrize(
    ("gpus", "everything"),
    [
        ([80], True),  # one H100
        ([44.5], False),  # one L40S
        ([44.5, 44.5], True),
        ([22.5] * 4, True),  # four L4: half of each is left
        ([15.5] * 4, True),  # four T4: 48 GiB of 62, with a reserve on each
        ([15.5] * 2, False),
    ],
)
def test_several_gpus_share_the_layers(gpus, everything):
    """All layers of the 70B where the GPUs together and each by itself have room, else some."""
    answer = gpu_layers(**LLAMA_70B, gpus_free_bytes=[round(free * GIB) for free in gpus])
    assert (answer == -1) is everything
    assert answer != 0


def test_each_gpu_must_hold_its_own_share():
    """A second GPU without room for its reserve takes no part of the reckoning's optimism: its share must fit, too."""
    one = gpu_layers(**LLAMA_70B, gpus_free_bytes=[30 * GIB])
    nearly_empty = gpu_layers(**LLAMA_70B, gpus_free_bytes=[30 * GIB, GIB])
    assert 0 <= nearly_empty <= one
