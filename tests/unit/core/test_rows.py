"""Rows and progress lines of several versions, and what is neither."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llama_bench_core.rows import Progress, RowError, parse_progress, parse_row

CASES = Path(__file__).parents[2] / "cases" / "rows"
LINES = [(path.stem, line) for path in sorted(CASES.glob("*.jsonl")) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("line", [line for _, line in LINES], ids=[name for name, _ in LINES])
def test_rows_of_all_versions_are_read(line):
    """Whatever fields a version has, the test, the model and the times are found, and agree with its own summary."""
    row, fields = parse_row(line + "\n"), json.loads(line)
    assert (row.task, row.tokens) == (("pp", fields["n_prompt"]) if fields["n_prompt"] else ("tg", fields["n_gen"]))
    assert list(row.samples_ns) == fields["samples_ns"]
    assert row.samples_ts == pytest.approx(fields["samples_ts"], rel=1e-3)
    assert sum(row.samples_ts) / len(row.samples_ts) == pytest.approx(row.avg_ts, rel=1e-4)
    assert (row.model_size, row.model_n_params) == (fields["model_size"], fields["model_n_params"])
    assert (row.build_commit, row.build_number) == (fields["build_commit"], fields["build_number"])
    assert row.n_threads == fields["n_threads"]
    assert row.raw == line


def test_backends_before_they_were_named():
    """The rows of old versions had one flag for each backend."""
    line = (CASES / "b1275.jsonl").read_text().splitlines()[0]
    assert parse_row(line).backends == "CUDA"


def test_a_row_without_samples_counts_its_mean():
    """A row that knows its mean only is one repetition."""
    row = parse_row('{"n_prompt": 0, "n_gen": 10, "avg_ns": 2000000000, "build_number": null, "model_size": "x"}')
    assert (row.samples_ns, row.avg_ts, row.stddev_ts) == ((2_000_000_000,), 5.0, 0.0)
    assert (row.build_number, row.model_size, row.backends, row.test_time) == (0, 0, "CPU", "")


def test_a_prompt_followed_by_generation_is_told_apart():
    """Rows of -pg, which we never ask for, can't be mistaken for a scenario."""
    row = parse_row('{"n_prompt": 512, "n_gen": 128, "samples_ns": [1]}')
    assert (row.task, row.tokens) == ("pg", 640)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "garbage",
        "[1, 2]",
        "null",
        '{"n_prompt": 16',
        "{}",
        '{"n_prompt": 0, "n_gen": 0, "samples_ns": [1]}',
        '{"n_prompt": -5, "n_gen": 10, "samples_ns": [1]}',
        '{"n_prompt": 16, "n_gen": 0}',
        '{"n_prompt": 16, "n_gen": 0, "samples_ns": []}',
        '{"n_prompt": 16, "n_gen": 0, "samples_ns": [5, 0]}',
        '{"n_prompt": 16, "n_gen": 0, "samples_ns": [5, null]}',
        '{"n_prompt": 16, "n_gen": 0, "samples_ns": 5}',
        '{"n_prompt": true, "n_gen": 0, "samples_ns": [5]}',
        '{"n_prompt": 16, "n_gen": 0, "samples_ns": [Infinity]}',
        '{"n_prompt": 16, "n_gen": 0, "samples_ns": [NaN]}',
        "[" * 100_000,
        '{"n_prompt": 1' + "0" * 5000 + ', "n_gen": 0}',
        "| model | size | params | backend |",
    ],
    ids=lambda line: line[:40],
)
def test_what_is_no_row_is_refused(line):
    """Nothing but a row is a row; the error shows the beginning of the line."""
    with pytest.raises(RowError, match="no row") as refused:
        parse_row(line)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("llama-bench: benchmark 1/2: starting", Progress("starting", 1, 2)),
        ("llama-bench: benchmark 3/14: warmup prompt run", Progress("warmup", 3, 14, "pp")),
        ("llama-bench: benchmark 3/14: warmup generation run", Progress("warmup", 3, 14, "tg")),
        ("llama-bench: benchmark 3/14: prompt run 1/1", Progress("run", 3, 14, "pp", 1, 1)),
        ("llama-bench: benchmark 14/14: generation run 2/5\r", Progress("run", 14, 14, "tg", 2, 5)),
        ("llama-bench: benchmark 1/18: depth run 1/5", Progress("depth", 1, 18, "", 1, 5)),
        ("llama-bench: benchmark 1/18: depth run 2/5 (cached)", Progress("depth", 1, 18, "", 2, 5)),
        ("llama-bench: benchmark 1/18: dancing", None),
        ("load_backend: loaded CPU backend", None),
        ("", None),
    ],
)
def test_progress_lines(line, expected):
    """Every line of --progress is understood, and no other."""
    assert parse_progress(line) == expected
