"""How long does an answer take, as the command that a user types?

Each run is a fresh process on a database that holds, say, all of Spare Cores' results; the first run of each is
thrown away. Beside the time on the wall stands the processor time, which other programs on the machine change less::

    python tests/benchmarks/answers_time.py DATABASE --runs 10
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "top by speed": "top --model phi-4 --task pp --tokens 512",
    "top by money": "top --model SmolLM-135M --task pp --tokens 16 --by usd-per-mtok",
    "top with filters": "top --model phi-4 --task tg --tokens 128 --gpu none --vendor aws --min-speed 5 --max-price 2",
    "show": "show aws/g6e.xlarge",
    "show with sources": "show aws/g6e.xlarge --source --all-outcomes",
    "compare two GPU servers": "compare aws/g6e.xlarge aws/g5.xlarge",
    "compare two CPU servers": "compare aws/m7i.xlarge aws/m5.xlarge",
    "compare three large CPU servers": "compare Standard_D96ds_v6 c7a.24xlarge n2d-standard-80",
    "compare one scenario": "compare aws/m7i.xlarge aws/m5.xlarge --model gemma-2b --task tg --tokens 128",
    "a name with a mistake": "show aws/g6e.xlarg",
}


def run(database: str, command: list[str]) -> tuple[float, float]:
    """Seconds on the wall and of the processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchctl", "--db", database, *command], capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 2):
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("database", help="path of an SQLite file, or the URL of a database")
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed benchctl is compiled
    for name, command in COMMANDS.items():
        taken = [run(options.database, command.split()) for _ in range(options.runs + 1)][1:]
        wall, processor = ([one[place] for one in taken] for place in (0, 1))
        print(
            f"{name:32} wall: median {statistics.median(wall):.2f} s, from {min(wall):.2f} to {max(wall):.2f}; "
            f"processor: median {statistics.median(processor):.2f} s"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
