"""A whole rehearsal, as a user does it: engine, containers, SSH, Ansible, a played llama-bench, rows, nothing left."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from benchctl.clouds.lab import CLOUD
from emulation.engine import engine_root
from raw_runs import FILE, write_theirs

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.timeout(1500)  # longer than what is waited for inside, which says more

SUITE = """\
name: one
models: [SmolLM-135M]
scenarios:
  pp: {16: 0.5, 128: 0.5}
policy: {max_samples: 2, noise_retries: 0}
"""


def test_a_recorded_server_is_rehearsed_and_its_rows_are_in_no_ranking_unless_asked_for(
    benchctl: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    if os.geteuid() != 0 or shutil.which("podman") is None:
        pytest.skip("the lab's servers are containers: that takes podman, and root for their addresses")
    lab = {"BENCHCTL_LAB": f"lab-test-{os.getpid()}-rehearsal"}
    path = {"PATH": f"{os.environ['PATH']}{os.pathsep}{engine_root() / 'bin'}"}
    stdout = write_theirs(tmp_path / "runs", "aws", "m7i.large") / "stdout"
    stdout.write_text(stdout.read_text().replace(FILE, "SmolLM-135M.Q4_K_M.gguf"))
    (tmp_path / "one.yml").write_text(SUITE)
    asked = ["--servers", "lab-m7i.large", "--recorded", tmp_path / "runs", "--time-scale", "20"]
    try:
        done = benchctl(
            *("sweep", "--vendors", "lab", *asked, "--suite", tmp_path / "one.yml", "--budget", "1", "--yes"),
            *("--poll-seconds", "0.5"),
            env={**lab, **path},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert CLOUD.client(lab).find() == []
    finally:
        for one in sorted(CLOUD.client(lab).find(), key=lambda one: one.kind == "network"):
            CLOUD.client(lab).delete(one)
    scenario = ("--model", "SmolLM-135M", "--task", "pp", "--tokens", "128", "--json")
    assert json.loads(benchctl("top", *scenario, check=True).stdout) == []
    (row,) = json.loads(benchctl("top", *scenario, "--weights", "rehearsal", check=True).stdout)
    assert (row["vendor_id"], row["server_id"], row["weights"]) == ("lab", "lab-m7i.large", "rehearsal")
    assert "tokens/s" in done.stdout + done.stderr
    refused = benchctl("sweep", "--vendors", "lab,hetzner", *asked, "--dry-run")
    assert refused.returncode == 2
    assert "--recorded is for the lab alone" in refused.stderr
