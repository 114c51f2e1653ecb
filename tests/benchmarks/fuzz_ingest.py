"""Tens of thousands of spoiled runs through the ingest: no crash, no wrong row.

    python tests/benchmarks/fuzz_ingest.py [RUNS] [FOLDER ...]

FOLDERs are raw runs to spoil besides the two of the tests, for instance some of Spare Cores' data.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "controller"), str(HERE.parents[1] / "module_utils")]

BATCH = 1000


def main() -> None:
    from benchctl.db.engine import open_database
    from fuzzing import check, contents
    from raw_runs import RawRun, write_theirs

    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        theirs = write_theirs(root / "theirs", "hcloud", "cpx11")
        ours = RawRun(extra=[("tg", 4096, "timeout", "no progress")]).write(root / "ours")
        originals = [contents(theirs), contents(ours), *(contents(Path(one)) for one in sys.argv[2:])]
        began = time.monotonic()
        totals = {"runs": 0, "rows": 0, "set_aside": 0}
        for first in range(0, runs, BATCH):
            for old in root.glob("fuzz.db*"):
                old.unlink()
            engine = open_database(f"sqlite:///{root / 'fuzz.db'}")
            counts = check(engine, originals, range(first, min(runs, first + BATCH)))
            engine.dispose()
            totals = {key: totals[key] + counts[key] for key in totals}
            print(f"{first + counts['runs']} runs ...", file=sys.stderr)
        seconds = time.monotonic() - began
    print(
        f"{totals['runs']} spoiled runs in {seconds:.0f} s: no crash, {totals['rows']} rows checked against their raw "
        f"lines, none wrong, {totals['set_aside']} lines and files set aside"
    )


if __name__ == "__main__":
    main()
