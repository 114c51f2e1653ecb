"""UpCloud's program and client, real, against an emulated UpCloud: engine, SDKs and HTTP are the real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds.cloud import CloudError
from benchctl.clouds.upcloud import CLOUD
from benchctl.clouds.upcloud_client import UpCloudClient
from benchctl.refusals import Refusal, classify
from emulation import upcloud as emulated_upcloud
from emulation.engine import Engine, killed_in_create, nothing_written_holds, said_about
from emulation.provider import Forwarding
from emulation.specs import SWEEP, instance_spec, refuses_another_host_key, ssh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from emulation.fixtures import Emulated
    from emulation.refusals import Rule

GPU_PLAN = "GPU-8xCPU-64GB-1xL40S"


@pytest.fixture
def engine(world: Emulated, tmp_path: Path) -> Engine:
    return Engine(world, tmp_path)


@pytest.fixture
def client(world: Emulated) -> UpCloudClient:
    return UpCloudClient(world.environment, wait_seconds=20, poll_seconds=0.05)


def test_what_a_program_makes_is_listed_by_the_client_and_gone_after_destroy(
    world: Emulated, engine: Engine, client: UpCloudClient
) -> None:
    spec = instance_spec("upcloud", "4xCPU-8GB", "de-fra1", disk_gb=90)
    got = engine.up("job", lambda: CLOUD.program(spec, {}))

    found = {(one.kind, one.name): one for one in client.find()}
    assert set(found) == {
        *((one.kind, one.name) for one in CLOUD.resources(spec)),
        ("address", f"{spec.name}-address"),
    }
    server, disk = found["server", spec.name], found["disk", f"{spec.name}-disk"]
    assert got["ids"] == {spec.name: server.id, f"{spec.name}-disk": disk.id}
    assert server.address == got["address"]
    for one in found.values():
        assert (one.sweep, one.expires_at, one.zone) == (SWEEP, spec.expires_at, "de-fra1"), one
    assert [one.attached for one in found.values()] == [False, True, True]
    assert server.created_at
    assert disk.created_at
    (made,) = world.alive("upcloud", "disk")
    assert (made["data"]["size"], made["data"]["tier"]) == (90, "maxiops")
    nothing_written_holds(engine.folder, spec, world.environment["UPCLOUD_TOKEN"])
    engine.destroy("job")
    assert client.find() == []
    assert world.alive("upcloud") == []


def test_only_the_controller_may_connect_and_names_and_time_still_work(world: Emulated, engine: Engine) -> None:
    spec = instance_spec("upcloud", "4xCPU-8GB", "de-fra1", ingress="203.0.113.0/29")
    engine.up("job", lambda: CLOUD.program(spec, {}))
    (server,) = world.alive("upcloud", "server")
    assert server["data"]["firewall"] is True
    rules = server["data"]["firewall_rules"]
    (login,) = [one for one in rules if one.get("destinationPortStart")]
    assert (login["sourceAddressStart"], login["sourceAddressEnd"]) == ("203.0.113.0", "203.0.113.7")
    assert (login["destinationPortStart"], login["destinationPortEnd"]) == ("22", "22")
    assert {one["sourcePortStart"] for one in rules if one.get("sourcePortStart")} == {"53", "123"}
    assert rules[-1] == {"action": "drop", "direction": "in"}


def _server(name: str, template: dict[str, Any] | None = None, **others: Any) -> Any:
    import pulumi_upcloud as upcloud

    right: dict[str, Any] = {
        "hostname": name,
        "title": name,
        "zone": "de-fra1",
        "plan": "1xCPU-1GB",
        "metadata": True,
        "network_interfaces": [upcloud.ServerNetworkInterfaceArgs(type="public")],
        "template": upcloud.ServerTemplateArgs(
            **{"storage": "Debian GNU/Linux 12 (Bookworm)", "size": 20, "title": f"{name}-disk", **(template or {})}
        ),
    }
    return upcloud.Server(name, **{**right, **others})


def _bad_resources() -> dict[str, str]:
    """One resource for each rule of the emulation; named by the rule."""
    import pulumi
    import pulumi_upcloud as upcloud

    def rules(name: str, server: Any, **wrong: Any) -> None:
        upcloud.ServerFirewallRules(
            name,
            server_id=server,
            firewall_rules=[
                upcloud.ServerFirewallRulesFirewallRuleArgs(**{"action": "accept", "direction": "in", **wrong})
            ],
        )

    good = _server("good")
    _server("template-unknown", template={"storage": "Ubuntu Server 99.04"})
    _server("tier-unknown", template={"tier": "gp3"})
    _server("metadata-off", metadata=False)
    _server("gpu-not-in-zone", plan=GPU_PLAN)
    after = pulumi.ResourceOptions(depends_on=[_server(f"dev-{one}", plan="DEV-1xCPU-1GB-10GB") for one in (1, 2)])
    _server("developer-plan-twice-only", plan="DEV-1xCPU-1GB-10GB", opts=after)
    rules("firewall-half-a-range", good.id, source_address_start="203.0.113.7")
    rules("firewall-port-without-protocol", good.id, destination_port_start="22", destination_port_end="22")
    rules("firewall-without-server", "00af0f73-7082-4283-b925-811d1585774b")
    return {}


# what the provider itself refuses ends the engine's run at the first, so one goes through the engine (below) and all of
# them the way that the engine asks the plugin
UNCHECKED: dict[str, dict[str, Any]] = {
    "hostname-too-long": {"hostname": "h" * 129},
    "hostname-no-domain": {"hostname": "under_score"},
    "title-too-long": {"title": "t" * 256},
    "plan-unknown": {"plan": "g2-standard-4"},
    "zone-unknown": {"zone": "us-east1-b"},
    "disk-size": {"template": {"size": 4096}},
    "interface-type": {"networkInterfaces": [{"type": "internet"}]},
    "label": {"labels": {"_reserved": "x"}},
    "firewall-action": {"firewallRules": [{"action": "reject", "direction": "in"}]},
    "firewall-protocol": {"firewallRules": [{"action": "accept", "direction": "in", "protocol": "sctp"}]},
    "firewall-address-no-address": {
        "firewallRules": [{"action": "accept", "direction": "in", "sourceAddressStart": "203.0.113.7/32"}]
    },
}


@pytest.fixture(scope="module")
def refusals(module_world: Emulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the engine says about all of them."""
    module_world.reset()
    yield Engine(module_world, tmp_path_factory.mktemp("refusals")).refused("refusals", _bad_resources)
    module_world.reset()


WORDS = {
    "hostname-too-long": "Attribute hostname string length must be between 1 and 128, got: 129",
    "hostname-no-domain": "Attribute hostname is not a valid domain name, got: under_score",
    "title-too-long": "Attribute title string length must be between 1 and 255, got: 256",
    "plan-unknown": "got g2-standard-4",
    "zone-unknown": "got us-east1-b",
    "disk-size": "Attribute template[0].size value must be between 10 and 2048, got: 4096",
    "interface-type": 'value must be one of: ["private" "utility" "public"], got: "internet"',
    "label": "Attribute labels: keys must have 2 to 32 characters",
    "template-unknown": "(type=STORAGE_INVALID, status=400",
    "tier-unknown": "(type=TIER_INVALID, status=400",
    "metadata-off": "Metadata must be enabled when cloning a cloud-init template (type=METADATA_DISABLED_ON_CLOUD-INIT",
    "gpu-not-in-zone": "(type=SERVER_RESOURCES_UNAVAILABLE, status=409",
    "developer-plan-twice-only": "restricted to 2 instances per account",
    "firewall-action": 'value must be one of: ["accept" "drop"], got: "reject"',
    "firewall-protocol": 'value must be one of: ["" "tcp" "udp" "icmp"], got: "sctp"',
    "firewall-address-no-address": "to contain a valid IPv4 address, got: 203.0.113.7/32",
    "firewall-half-a-range": "IP address and port ranges must have both start and end values specified",
    "firewall-port-without-protocol": "can only be set if the protocol is TCP or UDP",
    "firewall-without-server": "Unable to create firewall rules: Error: The server 00af0f73",
}


@pytest.mark.parametrize("rule", [one.name for one in emulated_upcloud.RULES if not one.property])
def test_the_emulation_refuses_what_the_vendor_refuses(refusals: str, rule: str) -> None:
    assert WORDS[rule] in said_about(refusals, rule)
    assert next(one.source for one in emulated_upcloud.RULES if one.name == rule)


@pytest.mark.parametrize("rule", [one for one in emulated_upcloud.RULES if one.property], ids=lambda one: one.name)
def test_the_emulated_provider_refuses_what_the_vendors_provider_refuses(world: Emulated, rule: Rule) -> None:
    right = {
        "hostname": "benchctl-a",
        "zone": "de-fra1",
        "plan": "1xCPU-1GB",
        "networkInterfaces": [{"type": "public"}],
    }
    plugin = Forwarding(f"{world.url}/engine/upcloud")
    inputs = right if rule.kind == emulated_upcloud.SERVER else {"serverId": "x"}
    assert not plugin.check(rule.kind, inputs)
    ((wrong, why),) = plugin.check(rule.kind, {**inputs, **UNCHECKED[rule.name]})
    assert wrong == rule.property
    assert WORDS[rule.name] in why
    assert rule.source


def test_what_the_provider_refuses_is_told_apart(engine: Engine) -> None:
    said = engine.refused("one", lambda: {"id": _server("benchctl-one", plan="g2-standard-4").id})
    assert "Invalid plan: expected plan to be one of" in said
    assert classify(said) is Refusal.NOT_OFFERED


@pytest.mark.parametrize(
    ("rule", "refusal"),
    [
        ("gpu-not-in-zone", Refusal.STOCK),
        ("developer-plan-twice-only", Refusal.QUOTA),
    ],
)
def test_what_the_engine_says_is_told_apart(refusals: str, rule: str, refusal: Refusal) -> None:
    assert classify(said_about(refusals, rule)) is refusal


def test_scripted_refusals_reach_the_engine_and_are_told_apart(world: Emulated, engine: Engine) -> None:
    expected = {
        "quota": (Refusal.QUOTA, "type=SERVER_CORE_LIMIT_REACHED"),
        "stock": (Refusal.STOCK, "type=SERVER_RESOURCES_UNAVAILABLE"),
        "throttled": (Refusal.THROTTLED, "status=429"),
        "unauthorized": (Refusal.ACCOUNT, "type=AUTHENTICATION_FAILED"),
        "outage": (Refusal.OUTAGE, "type=SERVICE_UNAVAILABLE"),
    }
    for effect in expected:
        world.fault(effect, vendor="upcloud", call="create", kind="server", name=f"benchctl-{effect}")
    said = engine.refused("all", lambda: {one: _server(f"benchctl-{one}").id for one in expected})
    for effect, (refusal, words) in expected.items():
        about = said_about(said, f"benchctl-{effect}")
        assert words in about
        assert classify(about) is refusal


def test_a_gpu_is_rented_where_there_are_gpus_and_on_the_spot_market_by_its_own_plan(
    world: Emulated, engine: Engine
) -> None:
    spec = instance_spec("upcloud", GPU_PLAN, "fi-hel2", gpus=1, spot=True)
    engine.up("job", lambda: CLOUD.program(spec, {}))
    (server,) = world.alive("upcloud", "server")
    assert server["data"]["plan"] == "GPU-SPOT-8xCPU-64GB-1xL40S"


def test_a_server_is_stopped_before_it_is_deleted_and_takes_its_disk_along(
    world: Emulated, engine: Engine, client: UpCloudClient
) -> None:
    engine.up("one", lambda: {"id": _server("benchctl-one").id})
    server = next(one for one in client.find() if one.kind == "server")
    client.delete(server)
    assert world.alive("upcloud") == []
    calls = [one["call"] for one in world.journal(via="api", kind="server") if one["call"] in ("stop", "delete")]
    assert calls[0] == "stop"
    assert calls[-1] == "delete"
    client.delete(server)  # what is gone is deleted


def test_a_disk_that_its_server_left_behind_says_whose_it_was(
    world: Emulated, engine: Engine, client: UpCloudClient
) -> None:
    spec = instance_spec("upcloud", "4xCPU-8GB", "de-fra1")
    engine.up("job", lambda: CLOUD.program(spec, {}))
    assert world.vanish("upcloud", spec.name)
    (disk,) = client.find()
    assert (disk.kind, disk.name, disk.attached) == ("disk", f"{spec.name}-disk", False)
    assert (disk.sweep, disk.job, disk.expires_at) == (SWEEP, spec.labels["benchctl-job"], spec.expires_at)
    client.delete(disk)
    assert world.alive("upcloud") == []


def test_an_attached_disk_is_not_deleted_but_waited_for(world: Emulated, engine: Engine) -> None:
    hasty = UpCloudClient(world.environment, wait_seconds=0.3, poll_seconds=0.05)
    engine.up("one", lambda: {"id": _server("benchctl-one").id})
    disk = next(one for one in hasty.find() if one.kind == "disk")
    with pytest.raises(CloudError, match="STORAGE_IN_USE"):
        hasty.delete(disk)
    assert world.alive("upcloud", "disk")


def test_lists_lag_and_have_pages(world: Emulated, engine: Engine, client: UpCloudClient) -> None:
    names = [f"benchctl-many-{number}" for number in range(5)]
    engine.up("many", lambda: {name: _server(name).id for name in names})
    world.lag("upcloud", lingers_for_seconds=3600)
    found = [one for one in client.find() if one.kind == "server"]
    assert sorted(one.name for one in found) == names, "three pages"
    for one in found:
        client.delete(one)
    assert world.alive("upcloud") == []
    assert sorted(one.name for one in client.find() if one.kind == "server") == names, "deleted ones linger"
    world.lag("upcloud")
    assert client.find() == []


def test_a_delete_that_lies_is_asked_for_again(world: Emulated, engine: Engine, client: UpCloudClient) -> None:
    engine.up("one", lambda: {"id": _server("benchctl-one").id})
    world.fault("lies", vendor="upcloud", call="delete", times=2)
    client.delete(next(one for one in client.find() if one.kind == "server"))
    assert world.alive("upcloud") == []
    assert len(world.journal(vendor="upcloud", call="delete", via="api")) == 3


def test_a_delete_that_never_comes_true_is_an_error(world: Emulated, engine: Engine) -> None:
    hasty = UpCloudClient(world.environment, wait_seconds=0.5, poll_seconds=0.05)
    engine.up("one", lambda: {"id": _server("benchctl-one").id})
    world.fault("lies", vendor="upcloud", call="delete", times=1000)
    with pytest.raises(CloudError, match="is not gone after") as caught:
        hasty.delete(next(one for one in hasty.find() if one.kind == "server"))
    assert caught.value.refusal is Refusal.TIMEOUT
    assert world.alive("upcloud", "server")


def test_throttling_is_waited_out(world: Emulated, client: UpCloudClient) -> None:
    world.fault("throttled", vendor="upcloud", call="list", times=3)
    assert client.find() == []


def test_an_outage_is_no_empty_cloud(world: Emulated, client: UpCloudClient) -> None:
    world.down("upcloud")
    with pytest.raises(CloudError) as caught:
        client.find()
    assert caught.value.refusal is Refusal.OUTAGE


def test_an_address_where_nobody_listens_is_an_outage(world: Emulated) -> None:
    client = UpCloudClient({**world.environment, "UPCLOUD_DEBUG_API_BASE_URL": "http://127.0.0.1:9"}, poll_seconds=0.01)
    with pytest.raises(CloudError) as caught:
        client.find()
    assert caught.value.refusal is Refusal.OUTAGE
    assert world.environment["UPCLOUD_TOKEN"] not in str(caught.value)


def test_the_login_is_that_of_the_environment_given(world: Emulated, client: UpCloudClient) -> None:
    assert client.whoami() == "user emulated"
    with pytest.raises(CloudError, match="AUTHENTICATION_FAILED") as caught:
        UpCloudClient({**world.environment, "UPCLOUD_TOKEN": "wrong"}).whoami()
    assert caught.value.refusal is Refusal.ACCOUNT
    with pytest.raises(CloudError, match="Set UPCLOUD_TOKEN") as caught:
        UpCloudClient({}).whoami()
    assert caught.value.refusal is Refusal.ACCOUNT


def test_a_create_that_fails_late_leaves_a_server_that_is_found(
    world: Emulated, engine: Engine, client: UpCloudClient
) -> None:
    world.fault("after", vendor="upcloud", call="create", kind="server")
    engine.refused("late", lambda: {"id": _server("benchctl-late").id})
    engine.destroy("late")
    left = client.find()
    assert {one.kind for one in left} == {"server", "disk", "address"}
    client.delete(next(one for one in left if one.kind == "server"))
    assert world.alive("upcloud") == []


def test_a_killed_engine_leaves_a_server_that_is_found_and_deleted(
    world: Emulated, tmp_path: Path, client: UpCloudClient
) -> None:
    spec = instance_spec("upcloud", "4xCPU-8GB", "de-fra1")
    killed_in_create(world, tmp_path, "upcloud", spec)
    left = next(one for one in world.until(client.find) if one.kind == "server")
    assert (left.name, left.sweep, left.expires_at) == (spec.name, SWEEP, spec.expires_at)
    client.delete(left)
    assert world.alive("upcloud") == []


def test_the_host_key_is_known_before_the_first_connection(backed_world: Emulated, tmp_path: Path) -> None:
    engine = Engine(backed_world, tmp_path)
    spec = instance_spec("upcloud", "4xCPU-8GB", "de-fra1")
    address = engine.up("job", lambda: CLOUD.program(spec, {}))["address"]
    assert ssh(tmp_path, address, CLOUD.user(spec), spec.host_key.public, "id -un").stdout.strip() == "root"
    assert refuses_another_host_key(tmp_path, address, CLOUD.user(spec))
    engine.destroy("job")
