"""How fast are synthetic weights written, against ``dd`` on the same disk?

Pairs, interleaved and in alternating order: our writer makes a model's file (rename and fsync of the folder
included), and ``dd if=/dev/zero bs=1M conv=fsync`` makes one of the same size beside it. Both files are removed, and
the disk synced, before each turn. Prints the median over pairs of the ratio of the speeds (writer / dd), and quartiles.

Run it on a quiet machine::

    python tests/benchmarks/writer_vs_dd.py --folder /path/on/the/disk --model gemma-2b --pairs 9
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "controller"), str(ROOT / "module_utils")]

from benchctl.models import resolve_model  # noqa: E402 - runs from a checkout, without installation
from llama_bench_core import synthetic  # noqa: E402


def settle(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)
    os.sync()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="a folder on the disk to measure")
    parser.add_argument("--model", default="gemma-2b", help="name of a listed model, or a GGUF file")
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args()
    model = resolve_model(options.model)
    size = synthetic.file_bytes(model)
    print(f"{model.name}: {size / 1e6:.0f} MB, {options.pairs} pairs in {options.folder}")
    ratios, speeds = [], {"writer": [], "dd": []}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        ours, theirs = Path(folder) / "writer.gguf", Path(folder) / "dd.bin"

        def writer() -> float:
            begin = time.perf_counter()
            synthetic.write(model, ours)
            return time.perf_counter() - begin

        def dd() -> float:
            command = [
                "dd",
                "if=/dev/zero",
                f"of={theirs}",
                "bs=1M",
                f"count={size}",
                "iflag=count_bytes",
                "conv=fsync",
            ]
            begin = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            return time.perf_counter() - begin

        for pair in range(options.pairs):
            seconds = {}
            for one in (writer, dd) if pair % 2 == 0 else (dd, writer):
                settle(ours, theirs)
                seconds[one.__name__] = one()
            for name, taken in seconds.items():
                speeds[name].append(size / taken / 1e6)
            ratios.append(seconds["dd"] / seconds["writer"])
            print(f"  writer {speeds['writer'][-1]:7.0f} MB/s   dd {speeds['dd'][-1]:7.0f} MB/s   {ratios[-1]:.3f}")
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    print(f"writer {statistics.median(speeds['writer']):.0f} MB/s, dd {statistics.median(speeds['dd']):.0f} MB/s")
    print(f"median ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
