"""The vendor lab with the real engine, the real plugin and real containers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds.lab import CLOUD
from benchctl.clouds.stacks import Stacks
from benchctl.lab import containers
from benchctl.lab.images import image_name
from emulation.specs import instance_spec, shared_spec, ssh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchctl.clouds.cloud import Client
    from benchctl.home import Home

SECONDS = 240.0


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A lab of its own, empty afterwards."""
    if os.geteuid() != 0 or shutil.which("podman") is None:
        pytest.skip("the lab's servers are containers: that takes podman, and root for their addresses")
    name = f"lab-test-{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv("BENCHCTL_LAB", name)
    client = CLOUD.client(os.environ)
    yield client
    for resource in sorted(client.find(), key=lambda one: one.kind == "network"):
        client.delete(resource)


@pytest.fixture
def stacks(home: Home) -> Stacks:
    from emulation.engine import engine_root

    return Stacks(home, environment={**os.environ, "PATH": f"{engine_root() / 'bin'}{os.pathsep}{os.environ['PATH']}"})


def test_a_server_is_made_by_the_engine_answers_with_its_known_key_and_is_gone_after_destroy(
    home: Home, stacks: Stacks, client: Client, tmp_path: Path
) -> None:
    shared, spec = shared_spec("lab"), instance_spec("lab", "lab-a1-1", "here")
    spec = replace(spec, settings={"cache": str(home.cache)})
    environment, log = CLOUD.engine_environment(os.environ), tmp_path / "log"
    outputs = stacks.up(shared.name, lambda: CLOUD.shared_program(shared), environment=environment, log=log)
    got = stacks.up(spec.name, lambda: CLOUD.program(spec, outputs), environment=environment, log=log)
    containers.wait_for_ssh(got["address"], int(got["port"]), SECONDS)

    found = {(one.kind, one.name): one for one in client.find()}
    assert set(found) == {(one.kind, one.name) for one in (*CLOUD.resources(spec), *CLOUD.shared_resources(shared))}
    server = found["server", spec.name]
    assert (server.id, server.address, server.state) == (got["ids"][spec.name], got["address"], "running")
    assert (server.sweep, server.job, server.expires_at) == (
        *(spec.labels[one] for one in ("benchctl-sweep", "benchctl-job")), spec.expires_at,
    )  # fmt: skip
    assert found["network", shared.name].attached
    said = ssh(tmp_path, got["address"], "root", spec.host_key.public, "hostname; ls .local/share/llama_bench").stdout
    assert said.splitlines() == [spec.name, "models"], "the folder of models is this machine's"

    written = b"".join(file.read_bytes() for file in (*home.state.rglob("*"), log) if file.is_file())
    key_text = spec.host_key.private.splitlines()[2].encode()
    assert spec.name.encode() in written
    assert key_text not in written, "the host key is in the state in the clear"

    stacks.destroy(spec.name, environment=environment, log=log)
    assert [one.kind for one in client.find()] == ["network"]
    stacks.destroy(shared.name, environment=environment, log=log)
    assert client.find() == []


@pytest.fixture
def wanted(client: Client) -> Callable[..., dict[str, Any]]:  # noqa: ARG001 - what it makes is removed there
    """Inputs of a server on a network that is there."""
    lab = os.environ["BENCHCTL_LAB"]
    network = containers.make_network(f"benchctl-{lab}", {containers.LABEL_CLOUD: lab})
    spec = instance_spec("lab", "lab-a1-1", "here")

    def inputs(**other: Any) -> dict[str, Any]:
        return {
            "name": f"benchctl-{lab}-1", "network": network.name, "image": image_name(),
            "hostKey": spec.host_key.private, "authorizedKeys": spec.ssh_public_key,
            "labels": {**spec.labels, containers.LABEL_CLOUD: lab}, "lifetimeSeconds": 600, **other,
        }  # fmt: skip

    return inputs


def test_podman_ends_a_server_by_itself_when_its_time_is_over(
    client: Client, wanted: Callable[..., dict[str, Any]]
) -> None:
    from benchctl.lab.provider import SERVER, LabProvider

    _, made = LabProvider().create(SERVER, "x", wanted(lifetimeSeconds=30))
    assert made["address"], "it never ran"
    until(lambda: "server" not in [one.kind for one in client.find()])


PARENT = """
import subprocess, sys, time
plugin = subprocess.Popen([sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(plugin.stdout.readline().strip(), plugin.pid, flush=True)
time.sleep(600)
"""


def test_a_plugin_whose_engine_is_killed_finishes_the_server_and_the_client_finds_it(
    client: Client, wanted: Callable[..., dict[str, Any]]
) -> None:
    """The engine is killed while a create is on its way: nobody notes the server, so it must be found by label."""
    import grpc
    from google.protobuf import struct_pb2
    from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

    plugin = Path(sys.executable).with_name("pulumi-resource-benchlab")
    with subprocess.Popen([sys.executable, "-c", PARENT, str(plugin)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        port, pid = parent.stdout.readline().split()
        properties = struct_pb2.Struct()
        properties.update(wanted())
        asked = provider_pb2.CreateRequest(
            urn="urn:pulumi:s::p::benchlab:index:Server::x", properties=properties, timeout=60
        )
        cut = threading.Event()

        def create() -> None:
            channel = grpc.insecure_channel(f"127.0.0.1:{port}")
            try:
                provider_pb2_grpc.ResourceProviderStub(channel).Create(asked)
            except grpc.RpcError:
                cut.set()

        caller = threading.Thread(target=create)
        caller.start()
        keys = containers._keys() / wanted()["name"]
        until(keys.exists)  # it has begun
        parent.send_signal(signal.SIGKILL)
    caller.join(SECONDS)
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert [one.name for one in client.find() if one.kind == "server"] == [wanted()["name"]]


def test_a_name_that_is_taken_is_refused_and_the_server_of_that_name_stays(
    client: Client, wanted: Callable[..., dict[str, Any]]
) -> None:
    from benchctl.lab.plugin import RefusedError
    from benchctl.lab.provider import SERVER, LabProvider

    LabProvider().create(SERVER, "x", wanted())
    with pytest.raises(RefusedError, match="already in use"):
        LabProvider().create(SERVER, "x", wanted())
    assert [one.state for one in client.find() if one.kind == "server"] == ["running"]
