"""Kills a sweep over clouds in all its stages, and counts what is left, lost or doubled after them.

    python tests/benchmarks/kill_matrix.py [--folder FOLDER] [--workers 2] [CASE ...]

The emulated clouds, the real engine, SSH, Ansible and llama-bench: 20 kills of the controller and 20 of the engine in
the middle of the vendor's call that makes a server, as many in the middle of the one that destroys it, 3 at every other
boundary; at two vendors. Each run is one line of ``FOLDER/results.jsonl``; a second start goes on with what is missing,
a run that failed included. SIGTERM to a worker ends it after its run. At the end (or with ``--report`` at once) it says
how many runs there were and what came of them: of all of them, also of those that failed and went well when they were
tried again. Exit status 1 where anything leaked, was lost or doubled, failed otherwise, or is missing.

``CASE`` is the beginning of a case's name, as ``engine-create`` or ``controller-gone-02``.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import multiprocessing
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("controller", "module_utils", "tests")]

from benchctl.clouds.engine_binary import find  # noqa: E402
from benchctl.home import Home  # noqa: E402
from emulation.fixtures import emulated  # noqa: E402
from kills.cases import Case, all_cases  # noqa: E402
from kills.play import Result, play, template  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable

MISSES = 3
"""How often a run is tried whose kill came too early or too late."""


def main() -> int:
    """Run what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("kill-matrix"), help="results, and what failed runs left")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [one for one in all_cases() if not given.cases or one.name.startswith(tuple(given.cases))]
    done = read(folder / "results.jsonl")
    missing = [one for one in wanted if not done[one.name] or done[one.name][-1]["problems"]]
    if missing and not given.report:
        run(missing, folder, given.workers)
    return report(wanted, read(folder / "results.jsonl"))


def run(cases: list[Case], folder: Path, workers: int) -> None:
    """Run cases, several at once, each worker in a world of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    for one in cases:
        queue.put(one)
    for _ in range(workers):
        queue.put(None)
    processes = [context.Process(target=work, args=(queue, folder, number)) for number in range(workers)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        for process in processes:
            process.join()


def work(queue: Any, folder: Path, number: int) -> None:
    """One worker: cases until there are none."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    here = folder / f"worker-{number}"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    cache = Home.at().cache
    state = template(here)
    try:
        with emulated(cache, containers=True, engine=find(cache).path) as world:
            while not stop.is_set() and (case := queue.get()) is not None:
                for _ in range(MISSES):
                    place = here / case.name
                    shutil.rmtree(place, ignore_errors=True)
                    place.mkdir()
                    try:
                        result = play(case, world, state, place)
                    except Exception:  # noqa: BLE001 - one run that fails must not end the others
                        result = Result(case.name, hit=True, problems=[traceback.format_exc()])
                    if result.hit:
                        break
                append(folder / "results.jsonl", result)
                keep(place, folder / "failed" / case.name, bool(result.problems))
    except KeyboardInterrupt:
        pass
    finally:
        shutil.rmtree(here, ignore_errors=True)


def append(path: Path, result: Result) -> None:
    """One more line, whole, and on the screen."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(result.line() + "\n")
    ended = "; ".join(result.problems) or ("well" if result.hit else "missed the moment")
    cost = f"{result.seconds:5.0f} s {result.cpu_seconds:4.0f} CPU-s"
    print(f"{time.strftime('%H:%M:%S')} {result.case:28} {cost}  {ended}", flush=True)


def keep(place: Path, target: Path, failed: bool) -> None:
    """What a run that failed left, to be looked at; the newest."""
    shutil.rmtree(target, ignore_errors=True)
    if failed:
        target.parent.mkdir(exist_ok=True)
        shutil.move(place, target)
    else:
        shutil.rmtree(place, ignore_errors=True)


def read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The results of each case, the newest last."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            one = json.loads(line)
        except ValueError:
            continue  # cut by a kill of this script
        if one.get("hit"):
            found[one["case"]].append(one)
    return found


def report(wanted: Iterable[Case], done: dict[str, list[dict[str, Any]]]) -> int:
    """A table by victim and moment; returns the exit status."""
    table: dict[tuple[str, str], Counter[str]] = {}
    for one in wanted:
        line = table.setdefault((one.victim, one.point), Counter())
        line["wanted"] += 1
        line["cases"] += bool(done[one.name])
        for result in done[one.name]:
            line += Counter(n=1, **{one.vendor: 1}, failed=bool(result["problems"]))
            for what in ("leaks", "lost", "doubled", "cpu_seconds", "seconds"):
                line[what] += result[what]
    print("| killed | where | runs | hetzner, upcloud | leaks | rows lost | rows doubled | failed | CPU-s a run |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    total: Counter[str] = Counter()
    for (victim, point), line in table.items():
        total += line
        print(row(victim, point, line))
    print(row("all", "", total))
    bad = total["leaks"] or total["lost"] or total["doubled"] or total["failed"] or total["cases"] < total["wanted"]
    return 1 if bad else 0


def row(victim: str, point: str, line: Counter[str]) -> str:
    """One line of the table."""
    runs = f"{line['n']}" + (f" ({line['cases']} of {line['wanted']} cases)" if line["cases"] < line["wanted"] else "")
    return (
        f"| {victim} | {point} | {runs} | {line['hetzner']}, {line['upcloud']} | {line['leaks']} | {line['lost']} | "
        f"{line['doubled']} | {line['failed']} | {line['cpu_seconds'] / max(1, line['n']):.0f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
