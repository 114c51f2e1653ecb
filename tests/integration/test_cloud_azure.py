"""Azure's program and clients, real, against an emulated Azure: engine, SDKs, HTTP and TLS are the real ones."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds.azure import CLOUD
from benchctl.clouds.azure_client import AzureClient
from benchctl.clouds.azure_login import login_of
from benchctl.clouds.cloud import CloudError
from benchctl.clouds.spec import ARM64
from benchctl.refusals import Refusal, classify
from emulation import azure_rules
from emulation.engine import Engine, killed_in_create, said_about
from emulation.specs import SWEEP, instance_spec, key_pair, refuses_another_host_key, ssh

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from benchctl.clouds.spec import InstanceSpec, Resource
    from emulation.fixtures import Emulated

QUICK = {"delete_seconds": 20.0, "gone_seconds": 0.2}


@pytest.fixture
def engine(world: Emulated, tmp_path: Path) -> Engine:
    return Engine(world, tmp_path)


@pytest.fixture
def client(world: Emulated) -> AzureClient:
    return AzureClient(login_of(world.environment), **QUICK)


def vm(**others: Any) -> InstanceSpec:
    return instance_spec("azure", others.pop("server_type", "Standard_D4as_v5"), "westeurope", **others)


def kinds(found: list[Resource]) -> list[str]:
    return sorted(one.kind for one in found)


def test_what_a_program_makes_is_listed_by_the_client_and_gone_after_destroy(
    world: Emulated, engine: Engine, client: AzureClient
) -> None:
    spec = vm(zone="2")
    got = engine.up("job", lambda: CLOUD.program(spec, {}))

    assert set(got["ids"]) == {one.name for one in CLOUD.resources(spec)}
    assert {(one["kind"], one["name"], one["id"]) for one in world.alive("azure")} == {
        (one.kind, one.name, got["ids"][one.name]) for one in CLOUD.resources(spec)
    }
    found = {one.name: one for one in client.find()}
    assert {(one.kind, one.name) for one in found.values()} == {
        # subnets are parts of their network
        (one.kind, one.name)
        for one in CLOUD.resources(spec)
        if one.kind != "subnet"
    }
    assert all(one.id == got["ids"][one.name] for one in found.values())
    assert {one.sweep for one in found.values()} == {SWEEP}
    assert {one.expires_at for one in found.values()} == {spec.expires_at}
    server = found[spec.name]
    assert (server.address, server.state, server.region, server.zone) == (got["address"], "running", "westeurope", "2")
    assert kinds([one for one in found.values() if not one.attached]) == ["group", "server"]
    engine.destroy("job")
    assert client.find() == []
    assert world.alive("azure") == []
    assert [one["kind"] for one in world.journal(call="delete")] == ["group"], "one deletion took everything"


def test_the_request_says_what_the_spec_does(world: Emulated, engine: Engine) -> None:
    spec = vm(server_type="Standard_D4ps_v6", architecture=ARM64, spot=True, disk_gb=120, image="debian-12")
    engine.up("job", lambda: CLOUD.program(spec, {}))
    data = {one["kind"]: one["data"] for one in world.alive("azure")}
    server = data["server"]
    disk = server["storageProfile"]["osDisk"]
    assert (disk["diskSizeGB"], disk["deleteOption"], disk["managedDisk"]["storageAccountType"]) == (
        *(120, "Delete"),
        "Premium_LRS",
    )
    assert server["storageProfile"]["imageReference"]["sku"] == "12-arm64"
    assert (server["priority"], server["evictionPolicy"]) == ("Spot", "Delete")
    assert server["billingProfile"]["maxPrice"] == -1
    assert "zones" not in server
    assert "securityProfile" not in server, "GPU drivers don't load under secure boot"
    (rule,) = data["firewall"]["securityRules"]
    assert (rule["sourceAddressPrefix"], rule["destinationPortRange"], rule["access"]) == (spec.ingress, "22", "Allow")
    assert spec.host_key.private.splitlines()[1] in base64.b64decode(server["osProfile"]["customData"]).decode()


def test_the_host_key_is_not_in_the_state_in_the_clear(engine: Engine) -> None:
    spec = vm()
    engine.up("job", lambda: CLOUD.program(spec, {}))
    written = b"".join(path.read_bytes() for path in engine.folder.rglob("*") if path.is_file())
    secret = spec.host_key.private.splitlines()[1].encode()
    assert spec.name.encode() in written
    assert secret not in written
    assert not any(base64.b64encode(b" " * shift + secret)[4:40] in written for shift in range(3))


def test_each_kind_of_size_is_asked_for_as_azure_takes_it(world: Emulated, engine: Engine) -> None:
    types = ("Standard_D2_v3", "Standard_NC24ads_A100_v4", "Standard_A2_v2", "Standard_DC2as_v5")
    specs = [vm(server_type=one) for one in types]
    engine.up("jobs", lambda: {one.name: CLOUD.program(one, {})["address"] for one in specs})
    made = {one["name"]: one["data"] for one in world.alive("azure", "server")}
    assert set(made) == {one.name for one in specs}
    secured = {data["hardwareProfile"]["vmSize"]: data.get("securityProfile") for data in made.values()}
    assert secured.pop("Standard_DC2as_v5")["securityType"] == "ConfidentialVM"
    assert set(secured.values()) == {None}


# -- refusals ---------------------------------------------------------------------------------------------------------


def group(rule: str, **wrong: Any) -> Any:
    from pulumi_azure_native import resources

    return resources.ResourceGroup(rule, **{"resource_group_name": rule, "location": "westeurope", **wrong})


def network(rule: str, home: Any, **wrong: Any) -> Any:
    from pulumi_azure_native.network import AddressSpaceArgs, VirtualNetwork

    right = {"virtual_network_name": rule, "location": "westeurope", "resource_group_name": home.name}
    space = AddressSpaceArgs(address_prefixes=["10.0.0.0/24"])
    return VirtualNetwork(rule, **{**right, "address_space": space, **wrong})


def address(rule: str, home: Any, **wrong: Any) -> Any:
    from pulumi_azure_native.network import PublicIPAddress, PublicIPAddressSkuArgs

    right = {"public_ip_address_name": rule, "location": "westeurope", "resource_group_name": home.name}
    sku = PublicIPAddressSkuArgs(name="Standard")
    return PublicIPAddress(rule, **{**right, "sku": sku, "public_ip_allocation_method": "Static", **wrong})


def server(rule: str, home: Any, **wrong: Any) -> Any:
    """A VM that Azure takes, but for what is wrong with it."""
    from pulumi_azure_native import compute

    user, disk = wrong.pop("user", "ubuntu"), wrong.pop("disk", {})
    key = wrong.pop("key", key_pair("login")[0])
    image = {"publisher": "Canonical", "offer": "ubuntu-24_04-lts", "sku": "server", **wrong.pop("image", {})}
    profile = {"computer_name": rule, "admin_username": user, "custom_data": "", **wrong.pop("profile", {})}
    path = wrong.pop("path", f"/home/{user}/.ssh/authorized_keys")
    right = {
        "vm_name": rule,
        "resource_group_name": home.name,
        "location": "westeurope",
        "hardware_profile": compute.HardwareProfileArgs(vm_size=wrong.pop("size", "Standard_D4as_v5")),
        "storage_profile": compute.StorageProfileArgs(
            image_reference=compute.ImageReferenceArgs(**image, version="latest"),
            os_disk=compute.OSDiskArgs(
                **{"name": f"{rule}-disk", "create_option": "FromImage", "delete_option": "Delete", **disk}
            ),
        ),
        "os_profile": compute.OSProfileArgs(
            **profile,
            linux_configuration=compute.LinuxConfigurationArgs(
                ssh=compute.SshConfigurationArgs(public_keys=[compute.SshPublicKeyArgs(path=path, key_data=key)])
            ),
        ),
        "network_profile": compute.NetworkProfileArgs(network_interfaces=[]),
    }
    return compute.VirtualMachine(rule, **{**right, **wrong})


def _refused() -> dict[str, str]:
    """One resource for each rule of the emulation that refuses one; named by the rule."""
    import pulumi
    from pulumi_azure_native import compute
    from pulumi_azure_native import network as net

    home, tags = group("home"), {"a/b": "c"}
    west = group("west", location="westus")
    group("tag-characters-ResourceGroup", tags=tags)
    group("group-location", location="polandcenter")
    moved = pulumi.ResourceOptions(depends_on=[home])
    group("group-moved", resource_group_name="home", location="eastus", opts=moved)
    network("tag-characters-VirtualNetwork", home, tags=tags)
    good = network("good", home)
    net.Subnet(
        "subnet-outside",
        subnet_name="subnet-outside",
        resource_group_name=home.name,
        virtual_network_name=good.name,
        address_prefix="192.168.0.0/24",
    )
    for rule, prefix, labels in (("ingress", "203.0.113.7/24", {}), ("tag-characters-NetworkSecurityGroup", "*", tags)):
        net.NetworkSecurityGroup(
            rule,
            network_security_group_name=rule,
            resource_group_name=home.name,
            location="westeurope",
            tags=labels,
            security_rules=[
                net.SecurityRuleArgs(
                    name="ssh", access="Allow", direction="Inbound", protocol="Tcp", source_address_prefix=prefix
                )
            ],
        )
    address("tag-characters-PublicIPAddress", home, tags=tags)
    address("address-basic", home, sku=net.PublicIPAddressSkuArgs(name="Basic"))
    address("address-dynamic", home, public_ip_allocation_method="Dynamic")
    address("address-zone", west, location="westus", zones=["1"])
    for rule, labels in (("interface-reference", {}), ("tag-characters-NetworkInterface", tags)):
        lost = net.SubnetArgs(id="/subscriptions/s/resourceGroups/g/providers/x/y/z/subnets/gone")
        net.NetworkInterface(
            rule,
            network_interface_name=rule,
            resource_group_name=home.name,
            location="westeurope",
            tags=labels,
            ip_configurations=[net.NetworkInterfaceIPConfigurationArgs(name="first", subnet=lost)],
        )
    before = server("before", home)
    after = pulumi.ResourceOptions(depends_on=[before])
    server("tag-characters-VirtualMachine", home, tags=tags)
    server("changed", home, vm_name="before", disk={"name": "another"}, profile={"computer_name": "before"}, opts=after)
    server("size", home, size="g2-standard-4")
    server("not-offered", west, location="westcentralus", size="Standard_NC24ads_A100_v4")
    server("zone", home, zones=["4"])
    server("admin-name", home, user="admin")
    server("custom-data", home, profile={"custom_data": "#cloud-config"})
    server("ssh-key", home, key="ssh-dss AAAA")
    server("ssh-key-path", home, path="/root/.ssh/authorized_keys")
    server("host-name", home, profile={"computer_name": "under_score"})
    server("image", home, image={"sku": "22_04-lts"})
    server("architecture", home, size="Standard_D4ps_v6")
    server("generation", home, size="Standard_D2_v3")
    server("security-type", home, size="Standard_DC2as_v5")
    premium = compute.ManagedDiskParametersArgs(storage_account_type="Premium_LRS")
    server("disk-type", home, size="Standard_D4_v5", disk={"managed_disk": premium})
    server("disk-size", home, disk={"disk_size_gb": 10})
    server("eviction", home, eviction_policy="Delete")
    return {}


@pytest.fixture(scope="module")
def refusals(module_world: Emulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the engine says about all of them."""
    module_world.reset()
    yield Engine(module_world, tmp_path_factory.mktemp("refusals")).refused("refusals", _refused)
    module_world.reset()


TAGS = 'Status=400 Code="InvalidTagNameCharacters" Message="The tag names \'a/b\' have reserved characters'
WORDS = {
    **{rule.name: TAGS for rule in azure_rules.RULES if rule.name.startswith("tag-characters-")},
    "group-location": 'Code="LocationNotAvailableForResourceGroup" Message="The provided location \'polandcenter\'',
    "group-moved": 'Status=409 Code="InvalidResourceGroupLocation" Message="Invalid resource group location \'eastus\'',
    "subnet-outside": "Subnet 'subnet-outside' is not valid in virtual network 'good'.",
    "ingress": "Security rule has invalid Address prefix. Value provided: 203.0.113.7/24",
    "address-basic": "Cannot create more than 0 IPv4 Basic SKU public IP addresses for this subscription",
    "address-dynamic": "must have AllocationMethod set to Static.",
    "address-zone": "does not support availability zones at location 'westus'",
    "interface-reference": "was not found. Please make sure that the referenced resource exists",
    "changed": 'Status=409 Code="PropertyChangeNotAllowed" Message="Changing property \'osDisk.name\' is not allowed.',
    "size": "The value g2-standard-4 provided for the VM size is not valid.",
    "not-offered": "The requested VM size Standard_NC24ads_A100_v4 is not available in the current region.",
    "zone": "The zone(s) '4' for resource",
    "admin-name": 'Code="InvalidParameter" Message="The Admin Username specified is not allowed."',
    "custom-data": "Custom data in OSProfile must be in Base64 encoding and with a maximum length of 87380 characters.",
    "ssh-key": "The value of parameter linuxConfiguration.ssh.publicKeys.keyData is invalid.",
    "ssh-key-path": "limited to its default value /home/ubuntu/.ssh/authorized_keys",
    "host-name": "Linux host name cannot exceed 64 characters in length or contain the following characters",
    "image": "The platform image 'Canonical:ubuntu-24_04-lts:22_04-lts:latest' is not available.",
    "architecture": "only supports a CPU Architecture of 'Arm64', but an image or disk with CPU Architecture 'x64'",
    "generation": "The selected VM size 'Standard_D2_v3' cannot boot Hypervisor Generation '2'.",
    "security-type": "Virtual Machine Scale Set with '<NULL>' security type.",
    "disk-type": "the VM size Standard_D4_v5 does not support the storage account type Premium_LRS of disk",
    "disk-size": "disk size 10 GB is smaller than the size of the corresponding disk in the VM image: 30 GB",
    "eviction": "Eviction policy can be set only on Azure Spot Virtual Machines.",
}


@pytest.mark.parametrize("rule", [one.name for one in azure_rules.RULES])
def test_the_emulation_refuses_what_azure_refuses(refusals: str, rule: str) -> None:
    assert WORDS[rule] in said_about(refusals, rule)
    assert next(one.source for one in azure_rules.RULES if one.name == rule)


@pytest.mark.parametrize(
    "rule",
    [
        *("group-location", "address-zone", "size", "not-offered", "zone"),
        *("architecture", "generation", "security-type", "disk-type"),
    ],
)
def test_what_azure_does_not_offer_so_is_told_apart(refusals: str, rule: str) -> None:
    assert classify(said_about(refusals, rule)) is Refusal.NOT_OFFERED


SCRIPTED: Mapping[str, tuple[str, Mapping[str, Any], Refusal, str]] = {
    "quota": ("quota", {}, Refusal.QUOTA, "exceeding approved standardDASv5Family Cores quota"),
    "stock": ("stock", {}, Refusal.STOCK, 'Code="AllocationFailed"'),
    "stock-zone": ("stock", {"zone": "1"}, Refusal.STOCK, 'Code="ZonalAllocationFailed"'),
    "stock-spot": ("stock", {"spot": True}, Refusal.STOCK, "Following SKUs have failed for Capacity Restrictions"),
    "timeout": ("timeout", {}, Refusal.TIMEOUT, 'Code="OSProvisioningTimedOut"'),
    "throttled": ("throttled", {}, Refusal.THROTTLED, 'Code="SubscriptionRequestsThrottled"'),
    "unauthorized": ("unauthorized", {}, Refusal.ACCOUNT, 'Code="AuthorizationFailed"'),
}


def test_scripted_refusals_reach_the_engine_and_are_told_apart(world: Emulated, engine: Engine) -> None:
    specs = {name: vm(job=name, **others) for name, (_, others, _, _) in SCRIPTED.items()}
    for name, (effect, _, _, _) in SCRIPTED.items():
        world.fault(effect, vendor="azure", call="create", kind="server", name=specs[name].name)
    said = engine.refused("jobs", lambda: {one.name: CLOUD.program(one, {})["address"] for one in specs.values()})
    for name, (_, _, refusal, words) in SCRIPTED.items():
        about = said_about(said, specs[name].name)
        assert words in about
        assert classify(about) is refusal, name


def test_a_login_without_its_secret_is_an_account_matter_for_the_engine(world: Emulated, tmp_path: Path) -> None:
    login = {**CLOUD.engine_environment(world.environment), "ARM_CLIENT_SECRET": "wrong"}
    said = Engine(world, tmp_path, login).refused("job", lambda: {"id": group("any").id})
    assert "AADSTS7000215" in said
    assert classify(said) is Refusal.ACCOUNT


# -- the client -------------------------------------------------------------------------------------------------------


def test_the_cheapest_call_says_whose_the_login_is(client: AzureClient) -> None:
    assert client.whoami() == "subscription Emulated (11111111-2222-3333-4444-555555555555)"


def test_a_wrong_secret_is_one_sentence_with_its_mend(world: Emulated) -> None:
    client = CLOUD.client({**world.environment, "ARM_CLIENT_SECRET": "wrong"})
    with pytest.raises(CloudError, match="AADSTS7000215") as caught:
        client.whoami()
    assert caught.value.refusal is Refusal.ACCOUNT
    assert "ARM_CLIENT_SECRET" in caught.value.mend
    assert "\n" not in str(caught.value)


def test_another_subscription_is_an_account_matter(world: Emulated) -> None:
    client = CLOUD.client({**world.environment, "ARM_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000000"})
    with pytest.raises(CloudError, match="SubscriptionNotFound") as caught:
        client.whoami()
    assert caught.value.refusal is Refusal.ACCOUNT


def test_a_client_without_a_login_says_what_to_set() -> None:
    with pytest.raises(CloudError, match="set ARM_CLIENT_ID") as caught:
        CLOUD.client({})
    assert caught.value.refusal is Refusal.ACCOUNT


def test_a_permission_that_lacks_is_an_account_matter(world: Emulated, client: AzureClient) -> None:
    world.fault("unauthorized", vendor="azure", call="list")
    with pytest.raises(CloudError, match="AuthorizationFailed") as caught:
        client.find()
    assert caught.value.refusal is Refusal.ACCOUNT


def test_an_outage_is_no_empty_cloud(world: Emulated, client: AzureClient) -> None:
    world.down("azure")
    with pytest.raises(CloudError, match="InternalServerError") as caught:
        client.find()
    assert caught.value.refusal is Refusal.OUTAGE


def test_a_throttled_client_tries_again(world: Emulated, client: AzureClient) -> None:
    world.fault("throttled", vendor="azure", call="list", times=2)
    assert client.find() == []
    assert len(world.journal(call="list")) > 2


def test_lists_lag_and_have_pages(world: Emulated, engine: Engine, client: AzureClient) -> None:
    names = sorted(f"benchctl-many-{number}" for number in range(5))
    world.lag("azure", appears_after_lists=1, lingers_for_lists=1)
    engine.up("many", lambda: {name: group(name).id for name in names})
    assert client.find() == [], "a list that lags"
    found = client.find()
    assert sorted(one.name for one in found) == names, "three pages"
    assert {one.kind for one in found} == {"group"}
    for one in found:
        client.delete(one)
    assert world.alive("azure") == []
    assert len(client.find()) == len(names), "deleted ones linger"
    for one in found:
        client.delete(one)  # what is gone is deleted
    assert client.find() == []


def test_what_is_not_ours_is_left_alone(engine: Engine, client: AzureClient) -> None:
    def others() -> dict[str, Any]:
        home = group("production", tags={"team": "web"})
        return {"id": address("web", home).id, "ours": address("benchctl-lost", home).id}

    engine.up("others", others)
    (found,) = client.find()
    assert (found.kind, found.name, found.attached) == ("address", "benchctl-lost", False)
    client.delete(found)
    assert client.find() == []


def test_a_stopped_server_is_still_there_for_it_is_still_billed(
    world: Emulated, engine: Engine, client: AzureClient
) -> None:
    spec = vm()
    engine.up("job", lambda: CLOUD.program(spec, {}))
    client._compute.virtual_machines.begin_power_off(f"{spec.name}-group", spec.name).wait()
    (server,) = [one for one in client.find() if one.kind == "server"]
    assert (server.name, server.state, server.job) == (spec.name, "stopped", spec.labels["benchctl-job"])
    client.delete(server)
    assert kinds(client.find()) == ["address", "firewall", "group", "network"], "disk and interface went with it"
    client.delete(next(one for one in client.find() if one.kind == "group"))
    assert world.alive("azure") == []


def test_what_is_still_held_can_t_be_deleted_and_says_why(engine: Engine, client: AzureClient) -> None:
    engine.up("job", lambda: CLOUD.program(vm(), {}))
    found = {one.kind: one for one in client.find()}
    for kind, code in {
        "address": "PublicIPAddressCannotBeDeleted",
        "interface": "NicInUse",
        "disk": "OperationNotAllowed",
        "firewall": "InUseNetworkSecurityGroupCannotBeDeleted",
        "network": "InUseSubnetCannotBeDeleted",
    }.items():
        with pytest.raises(CloudError, match=code):
            client.delete(found[kind])


def test_a_deletion_that_fails_says_so_and_can_be_tried_again(
    world: Emulated, engine: Engine, client: AzureClient
) -> None:
    engine.up("job", lambda: CLOUD.program(vm(), {}))
    world.fault("fails", vendor="azure", call="delete", via="api")
    home = next(one for one in client.find() if one.kind == "group")
    with pytest.raises(CloudError, match="internal server error"):
        client.delete(home)
    assert len(client.find()) == 7
    client.delete(home)
    assert world.alive("azure") == []


def test_a_deletion_that_lies_is_not_believed(world: Emulated, engine: Engine, client: AzureClient) -> None:
    engine.up("job", lambda: CLOUD.program(vm(), {}))
    found = {one.kind: one for one in client.find()}
    for kind in ("server", "group"):
        world.fault("lies", vendor="azure", call="delete", via="api")
        with pytest.raises(CloudError, match="was deleted, and still has it"):
            client.delete(found[kind])
        client.delete(found[kind])
        assert found[kind].name not in world.names("azure")


def test_a_deletion_that_takes_too_long_says_so(world: Emulated, engine: Engine) -> None:
    engine.up("one", lambda: {"id": group("benchctl-one").id})
    client = AzureClient(login_of(world.environment), delete_seconds=0.0)
    (found,) = client.find()
    with pytest.raises(CloudError, match="has not deleted benchctl-one in 0 s") as caught:
        client.delete(found)
    assert caught.value.refusal is Refusal.TIMEOUT


def test_an_evicted_spot_server_leaves_a_group_that_is_found(
    world: Emulated, engine: Engine, client: AzureClient
) -> None:
    spec = vm(spot=True)
    engine.up("job", lambda: CLOUD.program(spec, {}))
    assert world.vanish("azure", spec.name)
    assert kinds(client.find()) == ["address", "firewall", "group", "network"]
    engine.destroy("job")
    assert client.find() == []


def test_servers_that_failed_are_left_behind_and_found(world: Emulated, engine: Engine, client: AzureClient) -> None:
    effects = ("after", "after-kept", "stock")
    specs = {effect: vm(job=effect) for effect in effects}
    for effect, spec in specs.items():
        world.fault(effect, vendor="azure", call="create", kind="server", name=spec.name)
    engine.refused("jobs", lambda: {one.name: CLOUD.program(one, {})["address"] for one in specs.values()})
    left = {one.name: one.state for one in client.find() if one.kind == "server"}
    assert left == {one.name: "failed" for one in specs.values()}
    engine.destroy("jobs")
    assert client.find() == [], "the groups took them along, whether the engine knew of them or not"


def test_a_killed_engine_leaves_a_server_that_is_found_and_deleted(
    world: Emulated, tmp_path: Path, client: AzureClient
) -> None:
    spec = vm()
    killed_in_create(world, tmp_path, "azure", spec)
    found = {one.kind: one for one in world.until(client.find)}
    server = found["server"]
    assert (server.name, server.sweep, server.expires_at) == (spec.name, SWEEP, spec.expires_at)
    client.delete(found["group"])
    assert world.alive("azure") == []


def test_the_host_key_is_known_before_the_first_connection(backed_world: Emulated, tmp_path: Path) -> None:
    engine, spec = Engine(backed_world, tmp_path), vm()
    address = engine.up("job", lambda: CLOUD.program(spec, {}))["address"]
    login = ssh(tmp_path, address, CLOUD.user(spec), spec.host_key.public, "sudo id -un")
    assert login.stdout.strip() == "root", login.stderr
    assert refuses_another_host_key(tmp_path, address, CLOUD.user(spec))
    engine.destroy("job")
    gone = ssh(tmp_path, address, CLOUD.user(spec), spec.host_key.public, "id -un", wait_seconds=5)
    assert gone.returncode == 255
