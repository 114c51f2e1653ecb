"""The emulated clouds end with whoever started them, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from emulation import hetzner
from emulation.engine import starts_a_server_and_waits
from emulation.faults import Call, Fault
from emulation.provider import Forwarding
from emulation.specs import key_pair
from emulation.world import World
from lab.podman import LABEL, podman

if TYPE_CHECKING:
    from pathlib import Path

    from emulation.fixtures import Emulated


def test_what_is_under_way_at_a_reset_is_forgotten_too(world: Emulated) -> None:
    """Else the next test finds a server that it never asked for."""
    plugin = Forwarding(f"{world.url}/engine/hetzner")
    plugin.configure({"token": hetzner.Hetzner.TOKEN})
    world.fault("hold", call="create")
    world.fault("slow", call="create", seconds=0.5)
    wanted = {"name": "late", "publicKey": key_pair("login")[0]}
    made: list[str] = []
    creating = threading.Thread(target=lambda: made.append(plugin.create(hetzner.KEY, "late", wanted)[0]))
    creating.start()
    world.until(lambda: world.journal(call="create"))
    world.reset()
    creating.join()
    assert made, "the vendor did not make it"
    assert world.alive() == []
    assert world.journal() == []


def test_what_the_journal_shows_can_be_let_go(tmp_path: Path) -> None:
    """Also in the moment before it begins to wait."""
    world, call = World(tmp_path, False, ""), Call("hetzner", "create")
    world.faults.add(Fault("hold"))

    def create() -> None:
        with world.noted(call):
            world.control("release", {})
            world.strike(call, {})

    creating = threading.Thread(target=create, daemon=True)
    creating.start()
    creating.join(60)
    world.backing.close()
    assert not creating.is_alive()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("podman"), reason="needs root, and podman")
def test_a_killed_test_leaves_no_world_and_no_container(cache: Path, tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=starts_a_server_and_waits, args=(cache, tmp_path, True, there)
    )
    child.start()
    try:
        assert here.poll(400), "it did not start"
        whose, url = here.recv()
        assert len(_containers(whose)) == 1
    finally:
        child.kill()
        child.join()
    deadline = time.monotonic() + 240
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
