"""How long does ``benchctl --help`` take, and how much of it is Python's own start?

Each run is a fresh process; runs of benchctl and of ``python -c pass`` alternate::

    python tests/benchmarks/help_time.py --runs 20
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time


def seconds(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    ours, bare = [], []
    for _ in range(options.runs):
        ours.append(seconds("-m", "benchctl", "--help"))
        bare.append(seconds("-c", "pass"))
    for name, taken in (("benchctl --help", ours), ("python -c pass", bare)):
        print(f"{name}: median {statistics.median(taken):.3f} s, from {min(taken):.3f} to {max(taken):.3f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
