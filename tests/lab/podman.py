"""The containers and networks of the tests: labels by which what a killed run left is found and removed."""

from __future__ import annotations

import os
from pathlib import Path

from benchctl.lab.podman import SETTINGS, podman

LABEL = "benchctl-lab"
"""On every container and network of the tests; its value names the process that owns it."""

__all__ = ["LABEL", "SETTINGS", "owner", "podman", "remove_stale"]


def owner() -> str:
    """This process, told apart from a later one with the same number by its start time."""
    return f"{os.getpid()}-{_start_time(os.getpid())}"


def remove_stale() -> None:
    """Remove what an earlier run of the tests left because it was killed."""
    for kind in ("container", "network"):
        listed = podman(
            *("ps", "-a") if kind == "container" else ("network", "ls"),
            "--filter",
            f"label={LABEL}",
            "--format",
            "{{.ID}}",
        )
        for name in listed.split():
            value = podman(kind, "inspect", "--format", f'{{{{index .{_labels(kind)} "{LABEL}"}}}}', name, check=False)
            # nothing is said of one that went meanwhile, nor where podman could not look: nobody's is not known to be
            if value and not _alive(value):
                podman(*("rm", "-f", "-t", "0") if kind == "container" else ("network", "rm", "-f"), name, check=False)


def _labels(kind: str) -> str:
    return "Config.Labels" if kind == "container" else "Labels"


def _alive(value: str) -> bool:
    number, _, started = value.partition("-")
    return number.isdigit() and _start_time(int(number)) == started


def _start_time(process: int) -> str:
    """Field 22 of ``/proc/PID/stat``: clock ticks after boot; empty when there is no such process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
