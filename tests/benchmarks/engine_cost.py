"""What Pulumi's engine costs the controller: CPU time of making and destroying a stack, memory of runs at once.

    python tests/benchmarks/engine_cost.py [RUNS AT ONCE ...]

The stacks are of the toy cloud (one server, a plugin in Python of our own), so that the figures are of the engine, the
SDK and us; a vendor's own plugin comes on top. Memory is PSS, which counts what processes share once.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("controller", "module_utils", "tests")]

from benchctl.clouds import engine_process  # noqa: E402
from benchctl.clouds.engine_binary import find  # noqa: E402
from benchctl.clouds.stacks import warm_up  # noqa: E402
from benchctl.home import Home  # noqa: E402
from toy.cloud import ToyCloud, thing, wait_until  # noqa: E402


def main(counts: list[int]) -> None:
    """Measure, for each number of runs at once."""
    print("runs at once | CPU-s per up (children, own) | CPU-s per destroy | MB: engines, plugins, we | MB per run")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), count)


def measure(folder: Path, count: int) -> None:
    """One line of the table."""
    cache = Home.at().cache
    cloud = ToyCloud.at(folder, Home(folder / "state", cache, ""), find(cache).path)
    stacks = cloud.stacks(engines=count)
    warm_up([])
    before = pss([os.getpid()])
    cloud.tell("hold-create")
    start = cpu()
    with ThreadPoolExecutor(count) as pool:
        made = [
            pool.submit(cloud.up, stacks, f"x-{number}", lambda number=number: {"id": thing(f"server-{number}").id})
            for number in range(count)
        ]
        wait_until(lambda: len(list((cloud.folder / "creating").iterdir())) == count, "all are under way", 300)
        time.sleep(1.0)
        running = [one for one in engine_process.running() if one.stack.startswith(stacks.mark(""))]
        engines = pss([one.pid for one in running if one.engine])
        plugins = pss([one.pid for one in running if not one.engine])
        ours = pss([os.getpid()])
        cloud.untell("hold-create")
        for one in made:
            one.result()
        made_cpu = cpu()
        list(pool.map(lambda number: cloud.destroy(stacks, f"x-{number}"), range(count)))
    end = cpu()
    up = [(b - a) / count for a, b in zip(start, made_cpu, strict=True)]
    down = [(b - a) / count for a, b in zip(made_cpu, end, strict=True)]
    print(
        f"{count:12} | {up[0]:.2f}, {up[1]:.2f} | {down[0]:.2f}, {down[1]:.2f} | {engines:.0f}, {plugins:.0f}, "
        f"{ours:.0f} ({before:.0f} before) | {(engines + plugins + ours - before) / count:.0f}",
        flush=True,
    )


def cpu() -> tuple[float, float]:
    """CPU-seconds of ended children with theirs, and of this process."""
    children, own = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    return children.ru_utime + children.ru_stime, own.ru_utime + own.ru_stime


def pss(pids: list[int]) -> float:
    """Proportional set size of processes, MB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1000


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [1, 4, 8])
