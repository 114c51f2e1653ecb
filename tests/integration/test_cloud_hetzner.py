"""Hetzner's program and client, real, against an emulated Hetzner: engine, SDKs and HTTP are the real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds.cloud import CloudError
from benchctl.clouds.hetzner import CLOUD
from benchctl.refusals import Refusal, classify
from emulation import hetzner
from emulation.engine import Engine, in_the_clear, killed_in_create, said_about
from emulation.specs import SWEEP, instance_spec, key_pair, refuses_another_host_key, shared_spec, ssh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchctl.clouds.cloud import Client
    from emulation.fixtures import Emulated


@pytest.fixture
def engine(world: Emulated, tmp_path: Path) -> Engine:
    return Engine(world, tmp_path)


@pytest.fixture
def client(world: Emulated) -> Client:
    return CLOUD.client(world.environment)


def test_what_a_program_makes_is_listed_by_the_client_and_gone_after_destroy(
    world: Emulated, engine: Engine, client: Client
) -> None:
    shared, spec = shared_spec("hetzner"), instance_spec("hetzner", "cx22", "nbg1")
    outputs = engine.up("shared", lambda: CLOUD.shared_program(shared))
    got = engine.up("job", lambda: CLOUD.program(spec, outputs))

    found = {(one.kind, one.name): one for one in client.find()}
    assert set(found) == {
        *((one.kind, one.name) for one in CLOUD.resources(spec)),
        *((one.kind, one.name) for one in CLOUD.shared_resources(shared)),
    }
    server = found["server", spec.name]
    assert (server.id, server.address) == (got["ids"][spec.name], got["address"])
    assert (server.sweep, server.job, server.expires_at, server.region) == (
        *(spec.labels[one] for one in ("benchctl-sweep", "benchctl-job")), spec.expires_at, "nbg1",
    )  # fmt: skip
    assert in_the_clear(engine.folder, spec.ssh_public_key), "the state would show what is no secret"
    assert in_the_clear(engine.folder, spec.host_key.private) == []
    engine.destroy("job")
    assert [one.kind for one in client.find()] == ["firewall", "key"]
    engine.destroy("shared")
    assert client.find() == []
    assert world.alive("hetzner") == []


def test_nobody_but_the_controller_may_connect_and_only_to_ssh(world: Emulated, engine: Engine) -> None:
    import hcloud

    shared, spec = shared_spec("hetzner"), instance_spec("hetzner", "cx22", "nbg1")
    outputs = engine.up("shared", lambda: CLOUD.shared_program(shared))
    engine.up("job", lambda: CLOUD.program(spec, outputs))
    api = hcloud.Client(world.environment["HCLOUD_TOKEN"], api_endpoint=world.environment["HCLOUD_ENDPOINT"])
    (made,) = api.firewalls.get_all()
    assert [(one.direction, one.protocol, one.port, one.source_ips) for one in made.rules] == [
        ("in", "tcp", "22", [shared.ingress])
    ]
    (rented,) = api.servers.get_all()
    assert [one.firewall.id for one in rented.public_net.firewalls] == [made.id]


def server(rule: str, **wrong: Any) -> None:
    import pulumi_hcloud as hcloud

    right = {"name": rule, "server_type": "cx22", "image": "ubuntu-24.04", "location": "fsn1"}
    hcloud.Server(rule, **{**right, **wrong})


def firewall(rule: str, labels: dict[str, str] | None = None, **wrong: Any) -> None:
    import pulumi_hcloud as hcloud

    right = {"direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["203.0.113.7/32"]}
    hcloud.Firewall(rule, rules=[hcloud.FirewallRuleArgs(**{**right, **wrong})], labels=labels)


def _refused_by_the_provider() -> dict[str, Any]:
    """What never reaches the API: the provider's check ends the program."""
    return {
        "datacenter-is-gone": lambda rule: server(rule, location=None, datacenter="fsn1-dc14"),
        "firewall-source": lambda rule: firewall(rule, source_ips=["203.0.113.7"]),
    }


def _refused_by_the_api() -> dict[str, str]:
    """One resource for each rule of the emulation that refuses one; named by the rule."""
    import pulumi
    import pulumi_hcloud as hcloud

    public = key_pair("login")[0]
    first = hcloud.SshKey("first", name="first", public_key=public)
    after = pulumi.ResourceOptions(depends_on=[first])
    server("server-type-unknown", server_type="g2-standard-4")
    server("server-type-retired", server_type="cx11")
    server("server-type-retired-here", server_type="cpx31", location="fsn1")
    server("image-not-for-architecture", server_type="cax11", image="alma-9")
    server("key-not-found", ssh_keys=["nobody"])
    server("location-not-found", location="us-east1")
    server("type-not-in-location", server_type="cax11", location="ash")
    server("name-no-hostname", name="under_score")
    server("name-used", name="twice", opts=pulumi.ResourceOptions(depends_on=[_good_server("twice")]))
    server("labels", labels={"benchctl-expires": "2026-11-26T00:00:00Z"})
    server("user-data-too-long", user_data="#cloud-config\n" + "#" * 33_000)
    server("firewall-not-found", firewall_ids=[7])
    hcloud.SshKey("key-twice", name="second", public_key=public, opts=after)
    hcloud.SshKey("key-name-used", name="first", public_key=key_pair("another")[0], opts=after)
    hcloud.SshKey("key-invalid", name="invalid", public_key="ssh-dss AAAA")
    hcloud.SshKey("key-labels", name="labels", public_key=key_pair("third")[0], labels={"a b": "c"})
    firewall("firewall-port-missing", port=None)
    firewall("firewall-labels", labels={"key": "-ends-badly-"})
    return {}


def _good_server(name: str) -> Any:
    import pulumi_hcloud as hcloud

    return hcloud.Server(name, name=name, server_type="cx22", image="ubuntu-24.04", location="fsn1")


@pytest.fixture(scope="module")
def refusals(module_world: Emulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the engine says about all of them."""
    module_world.reset()
    engine = Engine(module_world, tmp_path_factory.mktemp("refusals"))
    said = [engine.refused("refusals", _refused_by_the_api)]
    for rule, make in _refused_by_the_provider().items():
        said.append(engine.refused(rule, lambda rule=rule, make=make: make(rule) or {}))
    yield "\n\n".join(said)
    module_world.reset()


WORDS = {
    "datacenter-is-gone": 'An argument named "datacenter" is not expected here',
    "server-type-unknown": "server type g2-standard-4 not found",
    "server-type-retired": 'Server Type "cx11" is unavailable in all locations and can no longer be ordered',
    "server-type-retired-here": 'Server Type "cpx31" is unavailable in "fsn1" and can no longer be ordered',
    "image-not-for-architecture": "image alma-9 not found",
    "key-not-found": "SSH key not found: nobody",
    "location-not-found": "location 'us-east1' not found (invalid_input",
    "type-not-in-location": "unsupported location for server type (invalid_input",
    "name-no-hostname": "invalid input in field 'name' (invalid_input",
    "name-used": "server name is already used (uniqueness_error",
    "labels": "invalid input in field 'labels' (invalid_input",
    "user-data-too-long": "invalid input in field 'user_data' (invalid_input",
    "firewall-not-found": "firewall not found (not_found",
    "key-twice": "SSH key not unique (uniqueness_error",
    "key-name-used": "SSH key name is already used (uniqueness_error",
    "key-invalid": "invalid input in field 'public_key' (invalid_input",
    "key-labels": "invalid input in field 'labels' (invalid_input",
    "firewall-port-missing": "invalid input in field 'rules' (invalid_input",
    "firewall-source": "invalid CIDR address: 203.0.113.7",
    "firewall-labels": "invalid input in field 'labels' (invalid_input",
}


@pytest.mark.parametrize("rule", [one.name for one in hetzner.RULES])
def test_the_emulation_refuses_what_the_vendor_refuses(refusals: str, rule: str) -> None:
    about = said_about(refusals, rule)
    assert WORDS[rule] in about
    assert next(one.source for one in hetzner.RULES if one.name == rule)


@pytest.mark.parametrize(
    ("rule", "refusal"),
    [
        ("server-type-unknown", Refusal.NOT_OFFERED),
        ("server-type-retired", Refusal.DEPRECATED),
        ("type-not-in-location", Refusal.NOT_OFFERED),
    ],
)
def test_what_the_engine_says_is_told_apart(refusals: str, rule: str, refusal: Refusal) -> None:
    assert classify(said_about(refusals, rule)) is refusal


@pytest.mark.parametrize(
    ("effect", "refusal", "words"),
    [
        ("quota", Refusal.QUOTA, "server limit exceeded (resource_limit_exceeded"),
        ("stock", Refusal.STOCK, "error during placement (resource_unavailable"),
        ("throttled", Refusal.THROTTLED, "(rate_limit_exceeded"),
        ("unauthorized", Refusal.ACCOUNT, "unable to authenticate (unauthorized"),
    ],
)
def test_scripted_refusals_reach_the_engine_and_are_told_apart(
    world: Emulated, engine: Engine, effect: str, refusal: Refusal, words: str
) -> None:
    world.fault(effect, vendor="hetzner", call="create", kind="server")
    said = engine.refused("one", lambda: {"id": _good_server("benchctl-one").id})
    assert words in said
    assert classify(said) is refusal


def test_a_token_that_may_only_read_is_an_account_matter(world: Emulated, engine: Engine) -> None:
    client = CLOUD.client({**world.environment, "HCLOUD_TOKEN": hetzner.Hetzner.READ_ONLY})
    assert client.whoami() == "a project with 6 locations"
    engine.up("one", lambda: {"id": _good_server("benchctl-one").id})
    with pytest.raises(CloudError, match="token_readonly") as caught:
        client.delete(client.find()[0])
    assert caught.value.refusal is Refusal.ACCOUNT


def test_a_wrong_token_is_one_sentence_with_its_mend(world: Emulated) -> None:
    with pytest.raises(CloudError, match="unauthorized") as caught:
        CLOUD.client({**world.environment, "HCLOUD_TOKEN": "wrong"}).whoami()
    assert caught.value.refusal is Refusal.ACCOUNT
    assert "HCLOUD_TOKEN" in caught.value.mend


def test_an_outage_is_no_empty_cloud(world: Emulated, client: Client) -> None:
    world.down("hetzner")
    with pytest.raises(CloudError) as caught:
        client.find()
    assert caught.value.refusal is Refusal.OUTAGE


def test_an_address_where_nobody_listens_is_an_outage(world: Emulated) -> None:
    client = CLOUD.client({**world.environment, "HCLOUD_ENDPOINT": "http://127.0.0.1:9/v1"})
    with pytest.raises(CloudError) as caught:
        client.find()
    assert caught.value.refusal is Refusal.OUTAGE
    assert world.environment["HCLOUD_TOKEN"] not in str(caught.value)


def test_lists_lag_and_have_pages(world: Emulated, engine: Engine, client: Client) -> None:
    names = [f"benchctl-many-{number}" for number in range(5)]
    world.lag("hetzner", appears_after_lists=1, lingers_for_lists=1)
    engine.up("many", lambda: {name: _good_server(name).id for name in names})
    assert client.find() == [], "a list that lags"
    found = client.find()
    assert sorted(one.name for one in found) == names, "three pages"
    for one in found:
        client.delete(one)
    assert world.alive("hetzner", "server") == []
    assert len(client.find()) == len(names), "deleted ones linger"
    for one in found:
        client.delete(one)  # what is gone is deleted
    assert client.find() == []


def test_a_delete_that_lies_leaves_it_listed(world: Emulated, engine: Engine, client: Client) -> None:
    engine.up("one", lambda: {"id": _good_server("benchctl-one").id})
    world.fault("lies", vendor="hetzner", call="delete")
    (server,) = client.find()
    client.delete(server)
    assert client.find() == [server]
    client.delete(server)
    assert client.find() == []


def test_a_create_that_fails_late_leaves_a_server_that_is_found(
    world: Emulated, engine: Engine, client: Client
) -> None:
    world.fault("after", vendor="hetzner", call="create", kind="server")
    engine.refused("late", lambda: {"id": _good_server("benchctl-late").id})
    engine.destroy("late")
    (left,) = client.find()
    assert left.name == "benchctl-late"
    client.delete(left)
    assert world.alive("hetzner") == []


def test_a_create_that_fails_late_with_its_state_is_destroyed_by_the_engine(world: Emulated, engine: Engine) -> None:
    world.fault("after-kept", vendor="hetzner", call="create", kind="server")
    assert "context deadline exceeded" in engine.refused("late", lambda: {"id": _good_server("benchctl-late").id})
    assert world.names("hetzner", "server") == ["benchctl-late"]
    engine.destroy("late")
    assert world.alive("hetzner") == []


def test_a_delete_that_fails_says_so_each_time(world: Emulated, engine: Engine, client: Client) -> None:
    engine.up("one", lambda: {"id": _good_server("benchctl-one").id})
    (server,) = client.find()
    world.fault("fails", vendor="hetzner", call="delete", times=2)
    for _ in range(2):
        with pytest.raises(CloudError, match="unavailable") as caught:
            client.delete(server)
        assert caught.value.refusal is Refusal.OUTAGE
    client.delete(server)
    assert client.find() == []


def test_a_server_that_vanished_is_not_found(world: Emulated, engine: Engine, client: Client) -> None:
    engine.up("one", lambda: {"id": _good_server("benchctl-one").id})
    assert world.vanish("hetzner", "benchctl-one")
    assert client.find() == []
    engine.destroy("one")  # nothing to do is no error


def test_a_firewall_waits_for_its_server_and_is_refused_while_it_lives(
    world: Emulated, engine: Engine, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchctl.clouds.hetzner.IN_USE_SECONDS", 0.0)
    shared, spec = shared_spec("hetzner"), instance_spec("hetzner", "cx22", "nbg1")
    outputs = engine.up("shared", lambda: CLOUD.shared_program(shared))
    engine.up("job", lambda: CLOUD.program(spec, outputs))
    firewall = next(one for one in client.find() if one.kind == "firewall")
    assert firewall.attached
    with pytest.raises(CloudError, match="is still in use \\(resource_in_use"):
        client.delete(firewall)
    for one in sorted(client.find(), key=lambda one: one.attached):
        client.delete(one)
    assert world.alive("hetzner") == []


def test_a_killed_engine_leaves_a_server_that_is_found_and_deleted(
    world: Emulated, tmp_path: Path, client: Client
) -> None:
    spec = instance_spec("hetzner", "cx22", "nbg1")
    killed_in_create(world, tmp_path, "hetzner", spec)
    (left,) = [one for one in world.until(client.find) if one.kind == "server"]
    assert (left.name, left.sweep, left.expires_at) == (spec.name, SWEEP, spec.expires_at)
    client.delete(left)
    assert world.alive("hetzner", "server") == []


def test_the_host_key_is_known_before_the_first_connection(backed_world: Emulated, tmp_path: Path) -> None:
    engine = Engine(backed_world, tmp_path)
    shared, spec = shared_spec("hetzner"), instance_spec("hetzner", "cx22", "nbg1")
    outputs = engine.up("shared", lambda: CLOUD.shared_program(shared))
    address = engine.up("job", lambda: CLOUD.program(spec, outputs))["address"]
    assert ssh(tmp_path, address, CLOUD.user(spec), spec.host_key.public, "id -un").stdout.strip() == "root"
    assert refuses_another_host_key(tmp_path, address, CLOUD.user(spec))
    engine.destroy("job")
    gone = ssh(tmp_path, address, CLOUD.user(spec), spec.host_key.public, "id -un", wait_seconds=5)
    assert gone.returncode == 255
