"""Google Cloud's program and client against an emulated Google: engine, SDKs, login and HTTP are the real ones."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds.cloud import CloudError, PartialListError
from benchctl.clouds.gcp import CLOUD
from benchctl.clouds.reaper import Patience, reap
from benchctl.clouds.rental import Listing
from benchctl.refusals import Refusal, classify
from emulation import gcp
from emulation.engine import Engine, in_the_clear, killed_in_create, said_about
from emulation.specs import SWEEP, instance_spec, shared_spec, ssh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchctl.clouds.cloud import Client
    from benchctl.home import Home
    from emulation.fixtures import Emulated


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchctl.clouds.gcp.RETRY_SECONDS", 0.2)


@pytest.fixture
def engine(world: Emulated, tmp_path: Path) -> Engine:
    return Engine(world, tmp_path)


@pytest.fixture
def client(world: Emulated) -> Client:
    return CLOUD.client(world.environment)


def test_what_a_program_makes_is_listed_by_the_client_and_gone_after_destroy(
    world: Emulated, engine: Engine, client: Client
) -> None:
    shared = shared_spec("gcp")
    spec = instance_spec("gcp", "g2-standard-4", "us-central1", zone="us-central1-a", gpus=1)
    outputs = engine.up("shared", lambda: CLOUD.shared_program(shared))
    began = time.time()
    got = engine.up("job", lambda: CLOUD.program(spec, outputs))
    ended = time.time()

    found = {(one.kind, one.name): one for one in client.find()}
    assert set(found) == {
        ("disk", spec.name),
        *((one.kind, one.name) for one in CLOUD.resources(spec)),
        *((one.kind, one.name) for one in CLOUD.shared_resources(shared)),
    }
    server = found["server", spec.name]
    assert (server.id, server.address) == (got["ids"][spec.name], got["address"])
    for one in found.values():
        assert (one.sweep, one.expires_at) == (SWEEP, pytest.approx(spec.expires_at, abs=120))
    assert {kind for (kind, _), one in found.items() if one.attached} == {"disk", "network"}
    (made,) = world.alive("gcp", "server")
    limit = made["data"]["scheduling"]
    assert limit["instanceTerminationAction"] == "DELETE"
    # from when it was asked for, somewhere in between
    assert spec.expires_at - ended - 1 <= limit["maxRunDuration"]["seconds"] <= spec.expires_at - began + 1
    (rule,) = world.alive("gcp", "firewall")
    assert (rule["data"]["ranges"], rule["data"]["tags"]) == ([spec.ingress], made["data"]["tags"])

    assert in_the_clear(engine.folder, spec.host_key.private) == []
    engine.up("job", lambda: CLOUD.program(spec, outputs))  # again: the same server, though less time is left
    assert [one["id"] for one in world.alive("gcp", "server")] == [made["id"]]
    engine.destroy("job")
    assert sorted(one.kind for one in client.find()) == ["firewall", "network"]
    engine.destroy("shared")
    assert client.find() == []
    assert world.alive("gcp") == []


def good(name: str, **changed: Any) -> dict[str, Any]:
    """Arguments of an instance that Google takes."""
    from pulumi_gcp import compute

    disk = {"image": "debian-cloud/debian-12", "type": "pd-balanced", "architecture": "X86_64", "size": 10}
    disk.update(changed.pop("disk", {}))
    arguments: dict[str, Any] = {
        "name": name,
        "machine_type": "n2-standard-2",
        "zone": "us-central1-a",
        "network_interfaces": [compute.InstanceNetworkInterfaceArgs(network=changed.pop("network", "net"))],
        "boot_disk": compute.InstanceBootDiskArgs(
            initialize_params=compute.InstanceBootDiskInitializeParamsArgs(**disk)
        ),
    }
    return {**arguments, **changed}


def _refused_by_the_api() -> dict[str, str]:
    """One resource for each rule of the emulation that refuses one; named by the rule."""
    import pulumi
    from pulumi_gcp import compute

    network = compute.Network("net", name="net", auto_create_subnetworks=True)
    after = pulumi.ResourceOptions(depends_on=[network])

    def server(rule: str, opts: Any = after, **wrong: Any) -> Any:
        return compute.Instance(
            rule, opts=opts, **{**good(rule), **wrong} if "disk" not in wrong else good(rule, **wrong)
        )

    stays = compute.InstanceSchedulingArgs(on_host_maintenance="TERMINATE", automatic_restart=True, preemptible=True)
    moves = compute.InstanceSchedulingArgs(on_host_maintenance="MIGRATE", automatic_restart=False, preemptible=True)
    server("zone-unknown", zone="us-central1-z")
    server("image-unknown", disk={"image": "ubuntu-24.04"})
    server("machine-type-not-in-zone", machine_type="cx22")
    server("network-unknown", network_interfaces=[compute.InstanceNetworkInterfaceArgs(network="nobody")])
    server("persistent-disk-on-new-series", machine_type="c4-standard-4", disk={})
    server("hyperdisk-on-old-series", machine_type="n2-standard-4", disk={"type": "hyperdisk-balanced"})
    server("disk-architecture", disk={"architecture": "ARM64"})
    server("machine-architecture", machine_type="t2a-standard-4")
    server("disk-too-small", disk={"size": 5})
    tpu = compute.InstanceGuestAcceleratorArgs(type="nvidia-h100", count=1)
    server("accelerator-unknown", machine_type="n1-standard-8", guest_accelerators=[tpu])
    server("gpu-may-not-migrate", machine_type="g2-standard-4")
    server("spot-may-not-restart", scheduling=stays)
    server("spot-may-not-migrate", scheduling=moves)
    server("label-value", labels={"benchctl-expires": "2026-11-26T00:00:00Z"})
    server("metadata-too-large", metadata={"user-data": "#" * 262_145})
    first = compute.Instance("twice", opts=after, **good("twice"))
    server("name-used", name="twice", opts=pulumi.ResourceOptions(depends_on=[first]))
    compute.Network("network-name-used", name="net", opts=after)
    more = [compute.Network(f"more-{one}", name=f"more-{one}", opts=after) for one in range(4)]
    compute.Network("networks-quota", name="sixth", opts=pulumi.ResourceOptions(depends_on=more))
    compute.Firewall("source-range", name="source-range", network="net", source_ranges=["somewhere"], opts=after)
    return {}


def _refused_by_the_provider() -> dict[str, Any]:
    from pulumi_gcp import compute

    return {
        "name-server": lambda rule: compute.Instance(rule, **good("Upper_Case")),
        "name-network": lambda rule: compute.Network(rule, name="1-begins-with-a-digit"),
        "name-firewall": lambda rule: compute.Firewall(rule, name="x" * 64, network="net"),
    }


@pytest.fixture(scope="module")
def refusals(module_world: Emulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the engine says about all of them."""
    module_world.reset()
    engine = Engine(module_world, tmp_path_factory.mktemp("refusals"))
    said = [engine.refused("refusals", _refused_by_the_api)]
    for rule, make in _refused_by_the_provider().items():
        said.append(engine.refused(rule, lambda rule=rule, make=make: {"id": make(rule).id}))
    yield "\n\n".join(said)
    module_world.reset()


WORDS = {
    "name-server": 'doesn\'t match regexp "^(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)$"',
    "name-network": '"name" ("1-begins-with-a-digit") doesn\'t match regexp',
    "name-firewall": "doesn't match regexp",
    "zone-unknown": "Error loading zone 'us-central1-z': googleapi: Error 404",
    "image-unknown": "Could not find image or family ubuntu-24.04",
    "machine-type-not-in-zone": "Machine type with name 'cx22' does not exist in zone 'us-central1-a'.",
    "network-unknown": "The referenced network resource cannot be found.",
    "persistent-disk-on-new-series": "[pd-balanced, c4-standard-4] features are not compatible for creating instance.",
    "hyperdisk-on-old-series": "hyperdisk-balanced disk type cannot be used by n2-standard-4 machine type.",
    "disk-architecture": "Requested architecture must be the same as the source resource architecture (X86_64).",
    "machine-architecture": "boot disk architecture (X86_64) is not compatible with machine type architecture (ARM64)",
    "disk-too-small": "Requested disk size cannot be smaller than the image size (10 GB)",
    "accelerator-unknown": "acceleratorTypes/nvidia-h100' was not found",
    "gpu-may-not-migrate": "Instances with guest accelerators do not support live migration.",
    "spot-may-not-restart": "Scheduling must have preemptible be false when AutomaticRestart is true.",
    "spot-may-not-migrate": "Scheduling must have preemptible be false when OnHostMaintenance isn't TERMINATE.",
    "label-value": "Label value '2026-11-26T00:00:00Z' violates format constraints.",
    "metadata-too-large": "maximum size 262144 character(s); actual size 262145.",
    "name-used": "googleapi: Error 409: The resource 'projects/emulated-project/zones/us-central1-a/instances/twice'",
    "network-name-used": "global/networks/net' already exists, alreadyExists",
    "networks-quota": "Quota 'NETWORKS' exceeded.  Limit: 5.0 globally.",
    "source-range": "'somewhere'. Must be a CIDR address range.",
}


@pytest.mark.parametrize("rule", [one.name for one in gcp.RULES])
def test_the_emulation_refuses_what_the_vendor_refuses(refusals: str, rule: str) -> None:
    assert WORDS[rule] in said_about(refusals, rule)
    assert next(one.source for one in gcp.RULES if one.name == rule)


@pytest.mark.parametrize(
    ("rule", "refusal"),
    [("machine-type-not-in-zone", Refusal.NOT_OFFERED), ("networks-quota", Refusal.QUOTA)],
)
def test_what_the_engine_says_is_told_apart(refusals: str, rule: str, refusal: Refusal) -> None:
    assert classify(said_about(refusals, rule)) is refusal


@pytest.mark.parametrize(
    ("effect", "refusal", "words"),
    [
        ("quota", Refusal.QUOTA, "Quota 'CPUS' exceeded.  Limit: 24.0 in region us-central1."),
        ("stock", Refusal.STOCK, "zones/us-central1-a' does not have enough resources available"),
        ("throttled", Refusal.THROTTLED, "Rate Limit Exceeded"),
    ],
)
def test_scripted_refusals_reach_the_engine_and_are_told_apart(
    world: Emulated, engine: Engine, effect: str, refusal: Refusal, words: str
) -> None:
    from pulumi_gcp import compute

    world.fault(effect, vendor="gcp", call="create", kind="server", place="us-central1")
    said = engine.refused("one", lambda: {"id": compute.Instance("one", **good("one")).id})
    assert words in said
    assert classify(said) is refusal


# every series that Google sells and the catalogue names, with what it needs
FAMILIES = [
    *(
        ("X86_64", "pd-balanced", one, 0)
        for one in ("e2", "n1", "n2", "n2d", "t2d", "c2", "c2d", "c3", "c3d", "m1", "m3")
    ),
    *(("X86_64", "pd-balanced", one, 1) for one in ("g2", "a2")),
    *(("X86_64", "hyperdisk-balanced", one, 0) for one in ("c4", "c4d", "c4n", "n4", "n4d", "m4", "h3", "h4d", "x4")),
    *(("X86_64", "hyperdisk-balanced", one, 8) for one in ("a3", "a4", "g4")),
    ("ARM64", "pd-balanced", "t2a", 0),
    *(("ARM64", "hyperdisk-balanced", one, 0) for one in ("c4a", "n4a")),
    ("ARM64", "hyperdisk-balanced", "a4x", 4),
]


def test_every_machine_series_gets_what_it_takes(world: Emulated, engine: Engine) -> None:
    """One server of each in one run: disk, image, architecture and scheduling are right, or the emulation refuses."""
    outputs = engine.up("shared", lambda: CLOUD.shared_program(shared_spec("gcp")))
    specs = [
        instance_spec("gcp", f"{series}-standard-8", "us-central1", zone="us-central1-a", gpus=gpus, job=f"j-{series}",
                      spot=series in ("n2", "g2"), image="debian-12" if series == "e2" else "ubuntu-24.04")
        for _, _, series, gpus in FAMILIES
    ]  # fmt: skip
    engine.up("fleet", lambda: {spec.name: CLOUD.program(spec, outputs)["address"] for spec in specs})
    disks = {one["name"]: one["data"]["type"] for one in world.alive("gcp", "disk")}
    assert disks == {spec.name: disk for spec, (_, disk, _, _) in zip(specs, FAMILIES, strict=True)}
    servers = {one["name"]: one["data"]["scheduling"] for one in world.alive("gcp", "server")}
    assert [servers[spec.name].get("provisioningModel") == "SPOT" for spec in specs] == [spec.spot for spec in specs]


def test_lists_lag_and_have_pages(world: Emulated, engine: Engine, client: Client) -> None:
    from pulumi_gcp import compute

    names = [f"benchctl-many-{number}" for number in range(5)]

    def program() -> dict[str, Any]:
        import pulumi

        options = pulumi.ResourceOptions(depends_on=[compute.Network("benchctl-net", name="benchctl-net")])
        return {name: compute.Instance(name, opts=options, **good(name, network="benchctl-net")).id for name in names}

    world.lag("gcp", appears_after_lists=1, lingers_for_lists=1)
    engine.up("many", program)
    assert client.find() == [], "a list that lags"
    found = client.find()
    assert sorted(one.name for one in found if one.kind == "server") == names, "three pages"
    for one in sorted(found, key=lambda one: one.attached):
        client.delete(one)
    assert world.alive("gcp") == []
    assert len(client.find()) == len(found), "deleted ones linger"
    for one in found:
        client.delete(one)  # what is gone is deleted
    assert client.find() == []


def test_what_is_not_ours_is_left_alone(world: Emulated, engine: Engine, client: Client) -> None:
    from pulumi_gcp import compute

    engine.up("theirs", lambda: {"id": compute.Network("default", name="default").id})
    assert client.find() == []
    assert world.names("gcp") == ["default"]


def test_a_delete_that_lies_leaves_it_listed(world: Emulated, engine: Engine, client: Client) -> None:
    from pulumi_gcp import compute

    engine.up("one", lambda: {"id": compute.Network("benchctl-net", name="benchctl-net").id})
    world.fault("lies", vendor="gcp", call="delete")
    (network,) = client.find()
    client.delete(network)
    assert client.find() == [network]
    client.delete(network)
    assert client.find() == []


def test_a_network_in_use_is_refused_at_the_operations_end(engine: Engine, client: Client) -> None:
    shared = shared_spec("gcp")
    engine.up("shared", lambda: CLOUD.shared_program(shared))
    network = next(one for one in client.find() if one.kind == "network")
    with pytest.raises(CloudError, match="is already being used by 'projects/emulated-project/global/firewalls"):
        client.delete(network)


def test_a_killed_engine_leaves_a_server_that_is_found_and_deleted(
    world: Emulated, tmp_path: Path, client: Client
) -> None:
    spec = instance_spec("gcp", "n2-standard-2", "us-central1", zone="us-central1-a")
    killed_in_create(world, tmp_path, "gcp", spec)
    (left,) = [one for one in client.find() if one.kind == "server"]
    assert (left.name, left.sweep, left.expires_at, left.zone) == (spec.name, SWEEP, spec.expires_at, spec.zone)
    client.delete(left)
    assert world.alive("gcp", "server") == []
    assert world.alive("gcp", "disk") == []


def test_an_outage_is_no_empty_cloud(world: Emulated, client: Client) -> None:
    world.down("gcp")
    with pytest.raises(CloudError) as caught:
        client.find()
    assert caught.value.refusal is Refusal.OUTAGE


def in_zones(*zones: str) -> dict[str, Any]:
    """A program of one server in each zone, named by it, whose time is over."""
    import pulumi
    from pulumi_gcp import compute

    options = pulumi.ResourceOptions(depends_on=[compute.Network("net", name="net", auto_create_subnetworks=True)])
    labels = {"benchctl-sweep": "of-another-machine", "benchctl-job": "j", "benchctl-expires": "1700000000"}
    return {
        one: compute.Instance(one, opts=options, **good(f"benchctl-{one}", zone=one, labels=labels)).id for one in zones
    }


def test_a_zone_that_cannot_be_reached_hides_no_other(world: Emulated, engine: Engine, client: Client) -> None:
    """The list says what the others have, and of which region it lacks something; others' clients are content."""
    engine.up("two", lambda: in_zones("us-central1-a", "us-central1-b"))
    before = {one.name: one for one in client.find() if one.kind == "server"}
    world.fault("unreachable", vendor="gcp", call="list", place="us-central1-b", times=1000)
    with pytest.raises(PartialListError) as caught:
        client.find()
    assert [one.name for one in caught.value.found if one.kind == "server"] == ["benchctl-us-central1-a"]
    assert {region: one.refusal for region, one in caught.value.missing.items()} == {"us-central1": Refusal.OUTAGE}
    assert caught.value.answered
    assert {name: caught.value.hides(one) for name, one in before.items()} == {
        "benchctl-us-central1-a": False,
        "benchctl-us-central1-b": True,
    }
    listing = Listing(CLOUD.client(world.environment))
    assert listing.fresh(region="europe-west1")
    with pytest.raises(CloudError, match="zones/us-central1-b can't be reached"):
        listing.fresh(region="us-central1")
    assert CLOUD.client(world.environment, ("europe-west1",)).find()
    world.fault("unreachable", vendor="gcp", call="list", times=1000)
    with pytest.raises(CloudError, match="can't be reached") as nowhere:
        client.find()
    assert not isinstance(nowhere.value, PartialListError)


def test_a_zone_that_cannot_be_reached_keeps_no_other_from_being_cleaned(
    world: Emulated, engine: Engine, home: Home, client: Client
) -> None:
    """The reaper destroys what the others list, also in the same region, and does not call that clean."""
    engine.up("three", lambda: in_zones("us-central1-a", "us-central1-b", "us-east1-b"))
    world.fault("unreachable", vendor="gcp", call="list", place="us-central1-b", times=1000)
    patience = Patience(300, 0.01, 0.05, settle_seconds=0, tries=3)
    report = reap(home, None, clients={"gcp": client}, environment=world.environment, patience=patience)
    assert {one.verdict.resource.name for one in report.destroyed} == {"benchctl-us-central1-a", "benchctl-us-east1-b"}
    assert "us-central1" in report.problems["gcp"]
    assert not report.clean
    assert world.names("gcp", "server") == ["benchctl-us-central1-b"]
    world.mend()
    assert reap(home, None, clients={"gcp": client}, environment=world.environment, patience=patience).clean
    assert world.names("gcp", "server") == []


def test_throttling_is_told_apart(world: Emulated, client: Client) -> None:
    assert client.find() == []
    world.fault("throttled", vendor="gcp", call="list")
    with pytest.raises(CloudError, match="Rate Limit Exceeded") as caught:
        client.find()
    assert caught.value.refusal is Refusal.THROTTLED


def test_a_login_that_google_does_not_take_is_one_sentence(world: Emulated, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    assert CLOUD.client(world.environment).whoami() == "project emulated-project"
    another = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    document = json.loads(Path(world.environment["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    (tmp_path / "key.json").write_text(json.dumps({**document, "private_key": another.decode()}))
    client = CLOUD.client({**world.environment, "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")})
    with pytest.raises(CloudError, match="Google says: Request had invalid authentication credentials") as caught:
        client.whoami()
    assert caught.value.refusal is Refusal.ACCOUNT
    assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.mend


def test_the_host_key_is_known_before_the_first_connection(backed_world: Emulated, tmp_path: Path) -> None:
    engine = Engine(backed_world, tmp_path)
    where: dict[str, Any] = {"region": "us-central1", "zone": "us-central1-a"}
    specs = [
        instance_spec("gcp", "n2-standard-2", job=image, image=image, **where)
        for image in ("ubuntu-24.04", "debian-12")
    ]
    outputs = engine.up("shared", lambda: CLOUD.shared_program(shared_spec("gcp")))
    addresses = engine.up("jobs", lambda: {spec.name: CLOUD.program(spec, outputs)["address"] for spec in specs})
    asked = "sudo id -un; cat /etc/default/instance_configs.cfg"
    for spec in specs:
        ran = ssh(tmp_path, addresses[spec.name], CLOUD.user(spec), spec.host_key.public, asked)
        assert ran.stdout.splitlines() == ["root", "[InstanceSetup]", "set_host_keys = false"], ran.stderr
    engine.destroy("jobs")
    gone = ssh(tmp_path, addresses[spec.name], CLOUD.user(spec), spec.host_key.public, "id", wait_seconds=5)
    assert gone.returncode == 255
