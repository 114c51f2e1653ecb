"""The files of the independent reaper: systemd takes them, and the line for cron runs what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from benchctl.clouds.reaper import STACK_SECONDS, Patience

if TYPE_CHECKING:
    from pathlib import Path


def test_systemd_takes_the_units(checkout: Path) -> None:
    """Unit and timer have no mistake that systemd's own check finds."""
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd is not installed")
    units = [str(one) for one in sorted((checkout / "contrib" / "systemd").iterdir())]
    done = subprocess.run([verify, "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_line_for_cron_runs_the_reaper(checkout: Path, tmp_path: Path) -> None:
    """With the logins of the file in its environment; what it prints on standard error is passed on, and its status."""
    (line,) = [
        one for one in (checkout / "contrib/cron/benchctl-reap").read_text().splitlines() if not one.startswith("#")
    ]
    command = line.split(None, 5)[5]
    assert "%" not in command  # cron makes a new line of it
    config, programs = tmp_path / ".config/benchctl", tmp_path / ".local/bin"
    config.mkdir(parents=True)
    programs.mkdir(parents=True)
    (config / "clouds.env").write_text("REAP_VENDORS='hetzner,upcloud'\nHCLOUD_TOKEN='a$b&c d #e'\n")
    program = programs / "benchctl"
    program.write_text('#!/bin/sh\necho "$@ with $HCLOUD_TOKEN" >&2\necho chatter\nexit 1\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env={"HOME": str(tmp_path), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "reap --vendors hetzner,upcloud --grace 30m with a$b&c d #e\n",
    )


@pytest.mark.parametrize(
    "name", ["docs/teardown.md", "contrib/cron/benchctl-reap", "contrib/systemd/benchctl-reap.service"]
)
def test_a_password_of_the_example_is_one_for_the_shell_too(checkout: Path, name: str) -> None:
    """Its odd characters come through, as in systemd, which takes single quotes alike."""
    given = re.findall(r"^(?:#| ) +((?:REAP_VENDORS|UPCLOUD_\w+)=.*)$", (checkout / name).read_text(), re.MULTILINE)
    script = "\n".join(["set -a", *given, "env"])
    done = subprocess.run(["/bin/sh", "-c", script], env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "REAP_VENDORS=upcloud,gcp" in done.stdout.splitlines()
    assert "UPCLOUD_PASSWORD=a$b&c d" in done.stdout.splitlines()


def test_the_unit_asks_the_vendors_of_the_file(checkout: Path) -> None:
    """It names them, so that one that can't be asked is an error, and waits longer than a reap may take."""
    text = (checkout / "contrib/systemd/benchctl-reap.service").read_text()
    assert "reap --vendors ${REAP_VENDORS} --grace" in text
    (minutes,) = re.findall(r"^TimeoutStartSec=(\d+)min$", text, re.MULTILINE)
    assert int(minutes) * 60 > Patience().deadline_seconds + STACK_SECONDS
