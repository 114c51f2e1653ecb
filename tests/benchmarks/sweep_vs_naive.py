"""How much sooner does the sweep end than the naive way, and does it measure the same?

The naive way is one llama-bench process per scenario with its default of five repetitions and a warm-up, killed at
the scenario's time limit, every scenario tried. Ours is ``benchctl sweep --vendors local``. Both use the same binary,
models, scenarios, time limits, threads and flags; they are run in turn, the order changing from pair to pair.

Printed: wall time of each, the ratio pair by pair, and for every scenario that both measured the ratio of the
median speeds over all pairs. Run it on a quiet machine; a pair takes some ten minutes on two cores::

    python tests/benchmarks/sweep_vs_naive.py --llama-bench PATH --pairs 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.models import load_models
from benchctl.suites import load_suite
from llama_bench_core import host, policy, synthetic

if TYPE_CHECKING:
    from llama_bench_core.suite import Suite
    from llama_bench_core.values import Model

Speeds = dict[tuple[str, str, int], list[float]]


def naive(binary: str, suite: Suite, models: list[tuple[Model, Path]], threads: int, speeds: Speeds) -> float:
    """Measure every scenario by a process of its own; wall time in seconds."""
    began = time.monotonic()
    flags = suite.flags
    for model, path in models:
        for scenario in suite.scenarios:
            wanted, other = ("-p", "-n") if scenario.task == "pp" else ("-n", "-p")
            command = [binary, "-m", str(path), wanted, str(scenario.tokens), other, "0", "-o", "jsonl", "-ngl", "0"]
            command += ["-t", str(threads), "-fa", str(int(flags.flash_attn)), "-b", str(flags.batch)]
            command += ["-ub", str(flags.ubatch), "-sm", flags.split_mode]
            limit = policy.time_limit_seconds(scenario, model, suite.policy)
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=True)
            except subprocess.TimeoutExpired:
                continue
            row = json.loads(done.stdout)
            speeds[model.name, scenario.task, scenario.tokens] += row["samples_ts"]
    return time.monotonic() - began


def ours(binary: str, suite_name: str, folder: Path, speeds: Speeds) -> float:
    """Run the sweep as a user does; wall time in seconds. Models are there already, as for the naive way."""
    began = time.monotonic()
    command = [sys.executable, "-m", "benchctl", "--state-dir", str(folder / "state"), "sweep", "--vendors", "local"]
    command += ["--suite", suite_name, "--weights", "synthetic", "--llama-bench", binary, "--yes", "--json"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "BENCHCTL_CACHE": str(folder)}
    )
    seconds = time.monotonic() - began
    for row in json.loads(done.stdout)["measurements"]:
        if row["outcome"] == "ok":
            tokens = row["tokens"]
            taken = [tokens * 1e9 / nanoseconds for nanoseconds in row["samples_ns"]]
            speeds[row["model"], row["task"], tokens] += taken
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-bench", required=True, help="path of the llama-bench that both use")
    parser.add_argument("--suite", default="quick")
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()

    suite = load_suite(options.suite)
    threads = host.recommended_threads(host.gather())
    known = load_models()
    theirs: Speeds = defaultdict(list)
    mine: Speeds = defaultdict(list)
    ratios, walls = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = []
        for name in suite.model_names:
            path = folder / "naive" / known[name].file
            path.parent.mkdir(exist_ok=True)
            synthetic.write(known[name], str(path))
            models.append((known[name], path))
        for pair in range(options.pairs):
            sides = [
                lambda: naive(options.llama_bench, suite, models, threads, theirs),
                lambda: ours(options.llama_bench, options.suite, folder, mine),
            ]
            if pair % 2:
                mine_seconds, naive_seconds = sides[1](), sides[0]()
            else:
                naive_seconds, mine_seconds = sides[0](), sides[1]()
            walls.append((naive_seconds, mine_seconds))
            ratios.append(mine_seconds / naive_seconds)
            print(
                f"pair {pair + 1}: naive {naive_seconds:.0f} s, ours {mine_seconds:.0f} s, "
                f"ratio {mine_seconds / naive_seconds:.3f}",
                file=sys.stderr,
            )

    print(f"wall time ours / naive: median {statistics.median(ratios):.3f} over {len(ratios)} pairs")
    print("| model | scenario | naive, median t/s | ours, median t/s | ours / naive |")
    print("| --- | --- | ---: | ---: | ---: |")
    changes = []
    for key in sorted(theirs.keys() | mine.keys()):
        model, task, tokens = key
        if not theirs.get(key) or not mine.get(key):
            print(
                f"| {model} | {task}{tokens} | {'measured' if theirs.get(key) else '-'} | "
                f"{'measured' if mine.get(key) else '-'} | |"
            )
            continue
        a, b = statistics.median(theirs[key]), statistics.median(mine[key])
        changes.append(b / a)
        print(f"| {model} | {task}{tokens} | {a:.1f} | {b:.1f} | {b / a:.3f} |")
    if changes:
        print(f"\nmedian of the ratios of medians: {statistics.median(changes):.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
