"""Importing raw results against just reading them: interleaved pairs, with peak memory.

    python tests/benchmarks/import_speed.py FOLDER [PAIRS]

FOLDER holds extracted raw results, for instance Spare Cores' data/VENDOR/SERVER/llm/{meta.json,stdout,stderr}. (A) is a
process that opens a new SQLite database and imports the folder; (B) one that reads all files and calls json.loads on
every line of stdout and meta.json. Both clocks run inside the process, around the work alone: starting Python and
importing modules is in neither.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

OURS = """
import json, resource, sys, time
from pathlib import Path
import orjson, sqlalchemy, alembic.command
from benchctl.db import batch, upgrade
from benchctl.db.engine import open_database
from benchctl.ingest import Ingest
engine = open_database(f"sqlite:///{sys.argv[2]}")
began = time.perf_counter()
runs = sum(1 for _ in Ingest(engine, Path(sys.argv[1])))
seconds = time.perf_counter() - began
again = time.perf_counter()
assert all(one.unchanged for one in Ingest(engine, Path(sys.argv[1])))
again = time.perf_counter() - again
peak = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({"seconds": seconds, "again": again, "runs": runs, "mib": sum(peak)}))
"""

THEIRS = """
import json, os, sys, time
began = time.perf_counter()
lines = 0
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            content = file.read()
        if name in ("stdout", "meta.json"):
            for line in content.split(b"\\n"):
                if line.strip():
                    json.loads(line)
                    lines += 1
print(json.dumps({"seconds": time.perf_counter() - began, "lines": lines}))
"""


def run(code: str, *arguments: str) -> dict[str, float]:
    path = [str(ROOT / "controller"), str(ROOT / "module_utils")]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {path}\n{code}", *arguments]
    environment = {"PYTHONPATH": ":".join(path)}

    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment})
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def main() -> None:
    folder = sys.argv[1]
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    run(THEIRS, folder)  # the files are in the page cache for both
    ratios, again, memory = [], [], []
    for number in range(pairs):
        with tempfile.TemporaryDirectory() as scratch:
            ours = run(OURS, folder, f"{scratch}/test.db")
        theirs = run(THEIRS, folder)
        ratios.append(ours["seconds"] / theirs["seconds"])
        again.append(ours["again"])
        memory.append(ours["mib"])
        print(
            f"pair {number + 1}: import {ours['seconds']:.2f} s, reading {theirs['seconds']:.2f} s "
            f"({theirs['lines']:.0f} lines), ratio {ratios[-1]:.2f}, second import "
            f"{again[-1]:.2f} s, {memory[-1]:.0f} MiB"
        )
    print(
        f"median ratio {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f}), second import "
        f"{statistics.median(again):.2f} s, peak {max(memory):.0f} MiB in both processes together"
    )


if __name__ == "__main__":
    main()
