"""The emulated clouds end with whoever started them, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from emulation.engine import starts_a_server_and_waits
from lab.podman import LABEL, podman

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("podman"), reason="needs root, and podman")
def test_a_killed_test_leaves_no_world_and_no_container(cache: Path, tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=starts_a_server_and_waits, args=(cache, tmp_path, True, there)
    )
    child.start()
    try:
        assert here.poll(120), "it did not start"
        whose, url = here.recv()
        assert len(_containers(whose)) == 1
    finally:
        child.kill()
        child.join()
    deadline = time.monotonic() + 60
    while _answers(url) or _containers(whose) or _networks(whose):
        assert time.monotonic() < deadline, "something is left"
        time.sleep(0.2)


def _containers(whose: str) -> list[str]:
    return podman("ps", "-a", "--filter", f"label={LABEL}={whose}", "--format", "{{.Names}}").split()


def _networks(whose: str) -> list[str]:
    return podman("network", "ls", "--filter", f"label={LABEL}={whose}", "--format", "{{.Name}}").split()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/hetzner/v1/servers", timeout=2).close()  # noqa: S310 - loopback
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
