"""Leave a sweep running by itself: a process of its own, whose output is a file in the sweep's folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from llama_bench_core import state

from benchctl.errors import BenchctlError

if TYPE_CHECKING:
    from pathlib import Path

    from benchctl.home import Home

LOG = "log"
"""What the detached process says, in the sweep's folder."""

START_SECONDS = 60.0
"""How long it may take to take up the sweep."""


def detach(home: Home, sweep: str) -> Path:
    """Go on with a sweep in a process that outlives this one and its terminal; returns the path of its log.

    Raises:
        BenchctlError: it ended before it had taken up the sweep, or did not in time.
    """
    folder = home.sweeps / sweep
    log = folder / LOG
    # by the environment, because a database's URL may hold a password, and arguments are for everybody to see
    environment = {
        **os.environ,
        "BENCHCTL_HOME": str(home.state),
        "BENCHCTL_CACHE": str(home.cache),
        "BENCHCTL_DB": home.database_url,
    }
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "benchctl", "sweep", "--resume", sweep],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while not state.is_locked(folder / "lock"):
        ended = child.poll()
        if ended == 0:
            return log  # a short sweep
        if ended is not None:
            raise BenchctlError(f"The sweep {sweep} did not go on: {_last_line(log)}", f"All that it said is in {log}.")
        if time.monotonic() > deadline:
            raise BenchctlError(f"The sweep {sweep} has not begun after {START_SECONDS:.0f} s.", f"See {log}.")
        time.sleep(0.05)
    return log


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing."
