"""A rehearsal of a sweep over several servers: each plays a run of its own; what comes home is what was recorded."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from benchctl.clouds.lab import CLOUD
from benchctl.clouds.stacks import Stacks
from emulation.engine import engine_root
from raw_runs import rows_by_scenario, write_theirs

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchctl.home import Home

pytestmark = pytest.mark.timeout(1500)  # longer than what is waited for inside, which says more

FILE = "SmolLM-135M.Q4_K_M.gguf"
SPEEDS = {"n0": 0.5, "n1": 1.0, "n2": 2.0, "n3": 4.0}
"""How many times as fast as the recorded machine each server was, by its name."""

SUITE = """\
name: three
models: [SmolLM-135M]
scenarios:
  pp: {16: 0.01, 128: 0.01}
  tg: {16: 0.01}
policy: {max_samples: 2, noise_retries: 0}
"""


@pytest.fixture
def lab() -> Iterator[dict[str, str]]:
    """A lab of its own, as variables of the environment; empty afterwards."""
    if os.geteuid() != 0 or shutil.which("podman") is None:
        pytest.skip("the lab's servers are containers: that takes podman, and root for their addresses")
    lab = {"BENCHCTL_LAB": f"lab-test-{os.getpid()}-sweep"}
    yield lab
    for one in sorted(CLOUD.client(lab).find(), key=lambda one: one.kind == "network"):
        CLOUD.client(lab).delete(one)


def test_several_servers_at_once_bring_home_what_was_recorded_of_each_and_nothing_is_left(
    benchctl: Callable[..., subprocess.CompletedProcess[str]], lab: dict[str, str], home: Home, tmp_path: Path
) -> None:
    """All alive at the same time; every row is its own server's, and marked as a rehearsal."""
    for server, speed in SPEEDS.items():
        write_theirs(tmp_path / "runs", "fleet", server, speed=speed, file=FILE)
    (tmp_path / "suite.yml").write_text(SUITE)
    environment = {**lab, "PATH": f"{os.environ['PATH']}{os.pathsep}{engine_root() / 'bin'}"}
    done = benchctl(
        *("sweep", "--vendors", "lab", "--recorded", tmp_path / "runs", "--time-scale", "40", "--servers", "lab-n*"),
        *("--suite", tmp_path / "suite.yml", "--concurrency", "4", "--per-vendor", "4", "--poll-seconds", "1", "--yes"),
        timeout=540,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    query = "SELECT server_id, task, tokens, outcome, weights, samples_ns FROM measurement ORDER BY 1, 2, 3"
    rows = json.loads(benchctl("sql", query, "--json", check=True).stdout)
    assert [(row["server_id"], row["task"], row["tokens"]) for row in rows] == [
        (f"lab-{server}", *scenario) for server in SPEEDS for scenario in (("pp", 16), ("pp", 128), ("tg", 16))
    ]
    assert {(row["outcome"], row["weights"]) for row in rows} == {("ok", "rehearsal")}
    recorded = {key: [json.loads(line)["samples_ns"][0] for line in lines] for key, lines in rows_by_scenario().items()}
    for row in rows:
        speed = SPEEDS[row["server_id"].removeprefix("lab-")]
        played = {round(one / speed) for one in recorded[row["task"], row["tokens"]]}
        samples = row["samples_ns"] if isinstance(row["samples_ns"], list) else json.loads(row["samples_ns"])
        assert len(samples) >= 2, row
        assert set(samples) <= played, row

    jobs = json.loads(benchctl("sql", "SELECT status, stage FROM job", "--json", check=True).stdout)
    assert jobs == [{"status": "finished", "stage": "gone"}] * len(SPEEDS)
    assert CLOUD.client(lab).find() == []
    assert Stacks(home, environment={**os.environ, **environment}).names() == []
    reaped = benchctl("reap", "--vendors", "lab", env=environment)
    assert reaped.returncode == 0, reaped.stdout + reaped.stderr
