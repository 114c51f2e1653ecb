"""The lab as fixtures: what a test starts is gone when it ends, also when it fails."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from lab.hosts import Lab, lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def ssh_lab(cache: Path) -> Iterator[Lab]:
    """A network for SSH hosts, for the tests of one file."""
    if os.geteuid() != 0:
        pytest.skip("the lab makes root file systems and networks, which only root may")
    if shutil.which("podman") is None:
        pytest.skip("the lab's hosts are containers, and podman is not installed; ./script/test installs it")
    with lab(cache) as running:
        yield running


@pytest.fixture(scope="module")
def ssh_hosts(ssh_lab: Lab) -> Callable[..., Path]:
    """Start SSH hosts and get their inventory: ``ssh_hosts(2, python="3.9")``; pythons are 3.9, 3.11 and 3.13."""
    return ssh_lab.hosts
