"""Sweeps over emulated clouds in processes of their own, and the small things that tests of them share."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import catalog_files as files
from benchctl import lake
from benchctl.clouds.stacks import Stacks
from benchctl.inventory import read_live

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchctl.home import Home
    from benchctl.ledger import JobState

    Benchctl = Callable[..., subprocess.CompletedProcess[str]]

SYNTHETIC = ("--yes", "--weights", "synthetic", "--ingress", "203.0.113.7/32", "--poll-seconds", "2")
"""Options of a sweep that downloads nothing and asks nobody."""

PRICE = 0.0066


class Running:
    """A sweep in a process of its own, in the middle of which a test does something."""

    def __init__(
        self, home: Home, environment: Mapping[str, str], arguments: tuple[str, ...], folder: Path, checkout: Path
    ) -> None:
        self._home = home
        self.log = folder / f"sweep-{len(list(folder.glob('sweep-*.log')))}.log"
        paths = os.pathsep.join((str(checkout / "controller"), str(checkout / "module_utils")))
        own = {"BENCHCTL_HOME": str(home.state), "NO_COLOR": "1", "COLUMNS": "160", "PYTHONPATH": paths}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchctl", *arguments],
                env={**environment, **own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        """All that it has said."""
        return self.log.read_text()

    def until(self, words: str, seconds: float = 400) -> None:
        """Wait until it has said that."""
        self.until_true(lambda: words in self.said(), f"it said '{words}'", seconds)

    def until_true(self, what: Callable[[], bool], meaning: str, seconds: float = 400) -> None:
        """Wait until ``what()`` is true; ``meaning`` says what that is."""
        deadline = time.monotonic() + seconds
        while True:
            ended = self.process.poll() is not None  # before the look, which then sees the last that it did
            if what():
                return
            assert not ended, f"it ended before {meaning}:\n{self.said()}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {meaning}:\n{self.said()}"
            time.sleep(0.05)

    def wait(self, seconds: float = 900) -> int:
        """Wait for its end; returns the exit status."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End it, if it has not ended, and what goes on without it: engines, their plugins, Ansible, SSH."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        end_all(self._home)


def end_all(home: Home, patience: float = 10.0) -> list[str]:
    """End whatever still runs of a home's; says what there was, once it had ``patience`` seconds to end by itself."""
    deadline = time.monotonic() + patience
    while (left := processes(home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [f"left running: {', '.join(left.values())}"] if left else []


def processes(home: Home) -> dict[int, str]:
    """Processes that have the state directory in their environment or arguments."""
    found: dict[int, str] = {}
    wanted = str(home.state).encode()
    mark = Stacks(home).mark("").encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes() if words else b""
            if wanted in words or wanted in environment or mark in environment:
                found[int(entry.name)] = words.replace(b"\0", b" ").decode(errors="replace")[:120].strip()
    return found


def hetzner_catalogue(benchctl: Benchctl, folder: Path, *servers: str, price: float = PRICE) -> None:
    """A catalogue with some of Hetzner's types of 2 vCPUs and 4 GiB, all at one price."""
    kinds = tuple(
        files.Kind("hcloud", name, 2, 4, family="cx", identifier=str(200 + at)) for at, name in enumerate(servers)
    )
    files.write_database(folder / "catalogue.db", kinds)
    lines = [
        files.Line(name, price, vendor="hcloud", region="fsn1-dc14", currency="EUR") for name in servers
    ]  # fmt: skip
    files.write_prices(folder / "prices.csv", *lines)
    benchctl("catalog", "import", folder / "catalogue.db", folder / "prices.csv", check=True)


def write_suite(folder: Path, name: str, scenarios: str) -> Path:
    """A suite of one model; ``scenarios`` is YAML, as ``{pp: {16: 0.01}}``."""
    path = folder / f"{name}.yml"
    path.write_text(
        f"name: {name}\nmodels: [SmolLM-135M]\nscenarios: {scenarios}\npolicy: {{max_samples: 2, noise_retries: 0}}\n"
    )
    return path


def rows(benchctl: Benchctl, query: str) -> list[dict[str, Any]]:
    """What the database says."""
    answer: list[dict[str, Any]] = json.loads(benchctl("sql", query, "--json", check=True).stdout)
    return answer


def jobs(benchctl: Benchctl, sweep: str) -> list[dict[str, Any]]:
    """The jobs of a sweep as the database has them, by vendor and replica."""
    found = rows(benchctl, "SELECT * FROM job ORDER BY vendor_id, replica")
    return [one for one in found if one["sweep_id"] == sweep]


def standing(home: Home) -> dict[str, JobState]:
    """The jobs, by vendor, that have a server which can be worked on, as the books say."""
    return {one.job.vendor: one.job for one in read_live(home).servers}


def measures(home: Home, vendor_id: str) -> bool:
    """Whether a measurement at this vendor has begun, and the first of its journal has come home."""
    return any(path.stat().st_size for path in home.lake.glob(f"*/data/{vendor_id}/*/*/{lake.JOURNAL}"))


def write_paced_llama_bench(path: Path, seconds: Mapping[str, float]) -> Path:
    """A llama-bench that plays tests of so many seconds each (``{"pp16": 0.2}``): how long it takes is known.

    It is the lab's, with its recording inside: on a busy machine a real one would take minutes, and differ each time.
    """
    from benchctl.lab.recordings import PROGRAM

    played = {
        "format": 1, "vendor": "tests", "server": "paced", "time_scale": 1.0,
        "models": {
            "SmolLM-135M.Q4_K_M.gguf": {
                "load_seconds": [0.2, 0.2],
                "fields": {"build_commit": "0c1e570", "build_number": 11312, "backends": "CPU", "cpu_info": "paced",
                           "gpu_info": "", "model_type": "llama ?B Q4_K - Medium", "n_threads": 1,
                           "model_size": 103668480, "model_n_params": 134515008},
                "samples_ns": {name: [int(one * 1e9)] * 2 for name, one in seconds.items()},
            }
        },
    }  # fmt: skip
    text, main, call = PROGRAM.read_text().partition('\nif __name__ == "__main__":')
    assert main
    path.write_text(
        f"{text}\ndef recording():\n    return json.loads({json.dumps(json.dumps(played))})\n\n{main}{call}"
    )
    path.chmod(0o755)
    return path


class Watcher(ABC):
    """Looks again and again, in a thread, for as long as its ``with`` block lasts; that it did so is asserted."""

    def __init__(self, pause_seconds: float) -> None:
        self._pause_seconds, self._ended = pause_seconds, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @abstractmethod
    def look(self) -> None:
        """Look once."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        watched = self._thread.is_alive()
        self._ended.set()
        self._thread.join()
        assert watched or kind, "the watcher had ended before"

    def _watch(self) -> None:
        while not self._ended.wait(self._pause_seconds):
            self.look()
