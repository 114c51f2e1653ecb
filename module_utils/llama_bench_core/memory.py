"""GPU memory arithmetic: how many of a model's layers a GPU holds. Pure, in plain numbers.

How llama.cpp spends GPU memory (src/llama-model.cpp ``load_tensors``, src/llama-kv-cache.cpp, src/llama-context.cpp;
each formula was checked against recorded load logs, see tests/unit/core/test_memory.py):

- ``-ngl N`` counts the repeating layers from the last one backwards, and the output matrix as one layer more. Versions
  before the end of 2025 put the output on the GPU last (N > layers), later ones first. Where it stays on the CPU it is
  still copied into the compute buffer, so it is counted here whenever anything is offloaded: right for both.
- the token embedding stays on the CPU; where the output is tied to it, the GPU gets a copy that counts as the output.
- the KV cache of a layer lies where the layer lies; per token and layer it is K and V of f16.
- the compute buffer holds, for one ``-ub`` batch, the logits and the hidden state as f32:
  ``ubatch * (vocabulary + embedding) * 4`` bytes, which is what logs of a 7B llama (70.50 MiB), Llama-3-8B (258.50)
  and Qwen2.5-7B (304.00) say to the last digit, and the mask over the context. Right with flash attention only, which
  is what the suites use: without it long contexts need room for all attention scores.
- with several GPUs (``-sm layer``) contiguous runs of layers go to the devices in proportion to their free memory.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

GPU_RESERVE_BYTES = 1 << 30
"""Left free on each GPU for the CUDA context, cuBLAS and fragmentation: llama.cpp's own margin (``-fitt``)."""

ALL_LAYERS = -1
"""What :func:`gpu_layers` says when the whole model fits."""


def kv_bytes_per_token(layers: int, key_width: int, value_width: int, element_bytes: int = 2) -> int:
    """Bytes that one token takes in the KV cache of all layers.

    Args:
        layers: number of repeating layers.
        key_width: KV heads times the length of a key (``n_embd_k_gqa``).
        value_width: KV heads times the length of a value (``n_embd_v_gqa``).
        element_bytes: 2 for f16, llama-bench's default.
    """
    return layers * (key_width + value_width) * element_bytes


def compute_buffer_bytes(vocabulary: int, embedding: int, context_tokens: int, ubatch: int = 512) -> int:
    """What one GPU needs for computing a batch with flash attention: logits, hidden state, and the mask.

    Args:
        vocabulary: number of tokens that the model knows.
        embedding: width of the hidden state.
        context_tokens: longest context, prompt and generated tokens together.
        ubatch: llama-bench's ``-ub``.
    """
    padded = -(-context_tokens // 256) * 256
    return ubatch * 4 * (vocabulary + embedding + padded)


def gpu_layers(
    *,
    layer_bytes: Sequence[int],
    output_bytes: int,
    kv_bytes_per_token: int,
    context_tokens: int,
    compute_bytes: int,
    gpus_free_bytes: Sequence[int],
    reserve_bytes: int = GPU_RESERVE_BYTES,
) -> int:
    """How many layers to ask for with ``-ngl``.

    Args:
        layer_bytes: weights of each repeating layer, first to last.
        output_bytes: weights of the output matrix and its norm (the token embedding's when they are tied).
        kv_bytes_per_token: see :func:`kv_bytes_per_token`; of all layers.
        context_tokens: longest context of the run.
        compute_bytes: see :func:`compute_buffer_bytes`; needed on every GPU.
        gpus_free_bytes: free memory of each GPU.
        reserve_bytes: left free on each.

    Returns:
        -1 when all layers and the output fit, 0 when there is no GPU or nothing fits, else the number of layers.
    """
    layers = len(layer_bytes)
    budgets = [free - reserve_bytes - compute_bytes for free in gpus_free_bytes]
    if not budgets or not layers:
        return 0
    padded = -(-context_tokens // 256) * 256
    kv_bytes = -(-kv_bytes_per_token * padded // layers)
    for offloaded in range(layers, 0, -1):
        items = [weights + kv_bytes for weights in layer_bytes[layers - offloaded :]]
        if _fit([*items, output_bytes], budgets, gpus_free_bytes):
            return ALL_LAYERS if offloaded == layers else offloaded
    return 0


def _fit(items: Sequence[int], budgets: Sequence[int], free_bytes: Sequence[int]) -> bool:
    """Whether every device holds the run of items that llama.cpp gives it (``get_layer_buft_list``)."""
    bounds = [sum_so_far / sum(free_bytes) for sum_so_far in accumulate(free_bytes)] if sum(free_bytes) else []
    if not bounds:
        return False
    used = [0] * len(budgets)
    for position, size in enumerate(items):
        device = min(bisect_right(bounds, position / len(items)), len(budgets) - 1)
        used[device] += size
    return all(taken <= budget for taken, budget in zip(used, budgets) if taken)
