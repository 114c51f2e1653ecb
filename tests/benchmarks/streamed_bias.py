"""Do streamed samples differ from llama-bench's own warm repetitions?

Two ways to measure the same scenarios with the same binary and model, interleaved so that a drift of the
machine hits both alike:

* streamed: ``-p 16,16,... -r 1``; one row per sample, prompts with ``--no-warmup``, as the sweep does it;
* warm: ``-p 16,... -r N`` with llama-bench's own warm-up pass; one row of N samples per scenario.

Both processes begin with some short values whose rows are ignored, because processors that idled take a while to reach
their speed, which is no property of either way.

For every task and token count it prints the median over pairs of the ratio of the median speeds
(streamed / warm), with the spread of that ratio, so that the bias stands apart from the noise.

Run it on a quiet machine::

    python tests/benchmarks/streamed_bias.py --llama-bench PATH --model FILE.gguf --pairs 10
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict

Scenario = tuple[str, int]

IGNORED = 8
"""Short values at the beginning of each process."""


def rows(binary: str, model: str, task: str, values: list[int], extra: list[str], threads: int) -> list[dict]:
    """The rows that one llama-bench process prints for the given values of one task."""
    wanted, other = ("-p", "-n") if task == "pp" else ("-n", "-p")
    command = [binary, "-m", model, wanted, ",".join(map(str, values)), other, "0", "-o", "jsonl"]
    command += ["-t", str(threads), "-fa", "1", "-ub", "512", "-b", "2048", *extra]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def tokens_of(row: dict) -> int:
    return row["n_prompt"] or row["n_gen"]


def streamed(binary: str, model: str, task: str, tokens: list[int], samples: int, threads: int) -> dict[int, list[int]]:
    """Nanoseconds per sample by token count, each sample a test of its own."""
    values = [16] * IGNORED + [value for value in tokens for _ in range(samples)]
    found: dict[int, list[int]] = defaultdict(list)
    way = ["-r", "1"] if task == "tg" else ["-r", "1", "--no-warmup"]
    for row in rows(binary, model, task, values, way, threads)[IGNORED:]:
        found[tokens_of(row)] += row["samples_ns"]
    return found


def warm(binary: str, model: str, task: str, tokens: list[int], samples: int, threads: int) -> dict[int, list[int]]:
    """Nanoseconds per sample by token count, as llama-bench takes them by default."""
    return {
        tokens_of(row): row["samples_ns"] for row in rows(binary, model, task, tokens, ["-r", str(samples)], threads)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-bench", required=True, help="path of the llama-bench to run")
    parser.add_argument("--model", required=True, help="path of a GGUF file")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--samples", type=int, default=3, help="samples per scenario and side of a pair")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pp", default="16,128,512,1024")
    parser.add_argument("--tg", default="16,128")
    options = parser.parse_args()

    ratios: dict[Scenario, list[float]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    plan = {"pp": [int(v) for v in options.pp.split(",") if v], "tg": [int(v) for v in options.tg.split(",") if v]}
    for pair in range(options.pairs):
        for task, tokens in plan.items():
            if not tokens:
                continue
            found = {}
            ways = [("streamed", streamed), ("warm", warm)]
            for name, way in ways if pair % 2 == 0 else reversed(ways):
                began = time.monotonic()
                found[name] = way(options.llama_bench, options.model, task, tokens, options.samples, options.threads)
                seconds[name] += time.monotonic() - began
            for value in tokens:
                ratios[task, value].append(
                    statistics.median(found["warm"][value]) / statistics.median(found["streamed"][value])
                )
        print(f"pair {pair + 1}/{options.pairs}", file=sys.stderr)

    print("| task | tokens | speed streamed / warm, median | quartiles | pairs |")
    print("| --- | ---: | ---: | --- | ---: |")
    for (task, value), found_ratios in ratios.items():
        low, mid, high = statistics.quantiles(found_ratios, n=4) if len(found_ratios) > 1 else found_ratios * 3
        print(f"| {task} | {value} | {mid:.4f} | {low:.4f} .. {high:.4f} | {len(found_ratios)} |")
    print(f"\nwall time streamed / warm: {seconds['streamed'] / seconds['warm']:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
