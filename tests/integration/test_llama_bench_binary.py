"""The real llama-bench: what it says of itself, and a real run through the runner."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest
from llama_bench_core.command import arguments, environment, probe
from llama_bench_core.endings import classify_exit
from llama_bench_core.events import Exited, ProgressLine, RowLine
from llama_bench_core.programs import run
from llama_bench_core.runner import Runner
from llama_bench_core.values import Outcome

if TYPE_CHECKING:
    from pathlib import Path

EMBEDDING, HIDDEN, HEADS, LAYERS, VOCABULARY = 64, 128, 2, 2, 256
"""The shape of a model of 0.2 million parameters."""


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A GGUF file of a tiny llama in 32-bit floats, written by hand: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""
    key_values = [_string("general.architecture") + struct.pack("<I", 8) + _string("llama")]
    for key, value in {
        "block_count": LAYERS,
        "context_length": 2048,
        "embedding_length": EMBEDDING,
        "feed_forward_length": HIDDEN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": HEADS,
        "rope.dimension_count": EMBEDDING // HEADS,
        "vocab_size": VOCABULARY,
    }.items():
        key_values.append(_string(f"llama.{key}") + struct.pack("<II", 4, value))
    key_values.append(_string("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5))
    key_values.append(_string("tokenizer.ggml.model") + struct.pack("<I", 8) + _string("none"))

    tensors = {"token_embd.weight": (EMBEDDING, VOCABULARY), "output_norm.weight": (EMBEDDING,)}
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"blk.{layer}.{name}.weight"] = (EMBEDDING, EMBEDDING)
        for name, shape in {"ffn_gate": (EMBEDDING, HIDDEN), "ffn_up": (EMBEDDING, HIDDEN)}.items():
            tensors[f"blk.{layer}.{name}.weight"] = shape
        tensors[f"blk.{layer}.ffn_down.weight"] = (HIDDEN, EMBEDDING)
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{layer}.{name}.weight"] = (EMBEDDING,)

    infos, body = b"", b""
    for name, shape in tensors.items():
        infos += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(body))
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        body += struct.pack(f"<{count}f", *((index % 7 - 3) / 100 for index in range(count)))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(key_values)) + b"".join(key_values) + infos
    path: Path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    path.write_bytes(head + bytes(-len(head) % 32) + body)
    return path


@pytest.fixture(scope="module")
def binary(llama_bench):
    """The real binary, probed."""
    return probe(str(llama_bench), run)


def measured(binary, model, tmp_path, task, values, **changes):
    """All events of one real process, and the process."""
    usual = {
        "repetitions": 1,
        "warmup": False,
        "threads": 1,
        "flags": {"flash_attn": True, "split_mode": "layer"},
        **changes,
    }
    argv = arguments(binary, str(model), task, values, **usual)
    env = environment(os.environ, cpu_only=True)
    with Runner(str(tmp_path / "note")).start(argv, stderr_path=str(tmp_path / "stderr"), env=env) as process:
        return list(process.events()), process


def test_the_real_binary_is_understood(binary):
    """It is what it says, and knows all that the quick way of measuring needs."""
    assert (binary.streams, binary.reports_progress, binary.pins) == (True, True, True)
    assert {"-fa", "-b", "-ub", "-sm", "-ngl"} <= binary.flags
    assert len(binary.help_sha256) == 64
    assert binary.devices is not None
    assert binary.build_commit


@pytest.mark.parametrize("task", ["pp", "tg"])
def test_repeated_values_stream_one_row_each(binary, model, tmp_path, task):
    """Each value gives one row of one sample, announced before it begins, and nothing of the other task is run."""
    for _ in range(5):
        events, _ = measured(binary, model, tmp_path, task, (16, 16, 32), cpu_mask="0x1")
        rows = [event for event in events if isinstance(event, RowLine)]
        assert [(row.row.task, row.row.tokens, len(row.row.samples_ns)) for row in rows] == [
            (task, 16, 1),
            (task, 16, 1),
            (task, 32, 1),
        ]
        assert rows[0].row.build_commit == binary.build_commit
        assert rows[0].row.model_filename == str(model)
        runs = [event for event in events if isinstance(event, ProgressLine) and event.progress.kind == "run"]
        assert [run_.progress.task for run_ in runs] == [task] * 3
        assert events[-1] == Exited(events[-1].at, events[-1].elapsed, 0, None)
        # stdout and stderr are two pipes, so a row can be told up to one reading before the next line of progress
        announced = all(row.at >= run_.at - 0.1 for row, run_ in zip(rows, runs))  # noqa: B905  (Python 3.9 has no strict)
        if announced:  # else the machine may have stood still between the two
            break
    assert announced


def test_its_own_warmup_and_repetitions(binary, model, tmp_path):
    """The other way of measuring: one row of several samples, after a warm-up."""
    events, _ = measured(binary, model, tmp_path, "pp", (16,), repetitions=3, warmup=True)
    (row,) = [event.row for event in events if isinstance(event, RowLine)]
    assert len(row.samples_ns) == 3
    assert "warmup" in [event.progress.kind for event in events if isinstance(event, ProgressLine)]


def test_the_load_log_is_kept(binary, model, tmp_path):
    """With -v the log of the load stands at the beginning of stderr, and rows come as ever."""
    events, process = measured(binary, model, tmp_path, "tg", (1,), verbose=True)
    assert sum(isinstance(event, RowLine) for event in events) == 1
    assert "load_tensors" in process.log_head


def test_a_truncated_model_is_a_crash_in_words(binary, model, tmp_path):
    """Half a model can't be loaded; that is no want of memory."""
    half = tmp_path / "half.gguf"
    half.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    events, process = measured(binary, half, tmp_path, "pp", (16,), verbose=True)
    end = events[-1]
    assert isinstance(end, Exited)
    outcome, reason = classify_exit(end.returncode, end.signal, process.log_tail, oom_kills=end.oom_kills)
    assert outcome is Outcome.CRASH
    assert "load" in reason
