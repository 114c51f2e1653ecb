"""AWS's programs and client, real, against an emulated AWS (moto): engine, SDKs, boto3 and HTTP are the real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds.aws import CLOUD
from benchctl.clouds.aws_client import AwsClient
from benchctl.clouds.cloud import ClosedRegionError, CloudError, PartialListError
from benchctl.clouds.reaper import Outcome, Patience, reap
from benchctl.clouds.spec import SHARED_JOB
from benchctl.clouds.verdicts import Book, Owners
from benchctl.db.engine import open_database
from benchctl.ledger import JobState, Ledger
from benchctl.refusals import Refusal, classify
from benchctl.request import SweepRequest
from emulation import aws as emulated_aws
from emulation.engine import Engine, killed_in_create, nothing_written_holds, said_about
from emulation.provider import Forwarding
from emulation.specs import SWEEP, instance_spec, key_pair, refuses_another_host_key, shared_spec, ssh
from llama_bench_core.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from benchctl.clouds.spec import InstanceSpec
    from benchctl.home import Home
    from emulation.fixtures import Emulated
    from emulation.refusals import Rule

REGION = "us-east-1"


@pytest.fixture
def engine(world: Emulated, tmp_path: Path) -> Engine:
    return Engine(world, tmp_path)


def client_of(world: Emulated, *regions: str, **options: Any) -> AwsClient:
    return AwsClient(world.environment, regions or (REGION,), **{"wait_seconds": 20, "poll_seconds": 0.05, **options})


@pytest.fixture
def client(world: Emulated) -> AwsClient:
    return client_of(world)


def rent(engine: Engine, spec: InstanceSpec) -> dict[str, Any]:
    """The two programs, as a sweep runs them."""
    shared = engine.up(f"shared-{spec.region}", lambda: CLOUD.shared_program(shared_spec("aws", spec.region)))
    return engine.up("job", lambda: CLOUD.program(spec, shared))


def test_what_the_programs_make_is_listed_by_the_client_and_gone_after_destroy(
    world: Emulated, engine: Engine, client: AwsClient
) -> None:
    shared, spec = shared_spec("aws", REGION), instance_spec("aws", "m7i.large", REGION, zone="us-east-1b", disk_gb=90)
    got = rent(engine, spec)

    found = {(one.kind, one.name): one for one in client.find() if one.kind != "interface"}
    assert set(found) == {
        *((one.kind, one.name) for one in CLOUD.resources(spec)),
        *((one.kind, one.name) for one in CLOUD.shared_resources(shared)),
    }
    server, disk = found["server", spec.name], found["disk", f"{spec.name}-disk"]
    assert got["ids"] == {spec.name: server.id, f"{spec.name}-disk": disk.id}
    assert (server.address, server.zone, server.region) == (got["address"], "us-east-1b", REGION)
    for one in (server, disk):
        assert (one.sweep, one.job, one.expires_at) == (SWEEP, spec.labels["benchctl-job"], spec.expires_at), one
    assert disk.attached
    assert not server.attached
    assert server.created_at
    (interface,) = [one for one in client.find() if one.kind == "interface"]
    assert interface.attached

    (made,) = world.alive("aws", "server")
    assert made["data"]["shutdown"] == "terminate", "AWS ends it when it switches itself off"
    assert made["data"]["options"]["httpTokens"] == "required"
    (volume,) = world.alive("aws", "disk")
    assert volume["data"]["gb"] == {"volumeSize": 90, "volumeType": "gp3", "deleteOnTermination": True}

    nothing_written_holds(engine.folder, spec, world.environment["AWS_SECRET_ACCESS_KEY"])
    engine.destroy("job")
    assert {one.kind for one in client.find()} == {"firewall", "key"}
    engine.destroy(f"shared-{REGION}")
    assert client.find() == []
    assert world.alive("aws") == []


def test_only_the_controller_may_connect_to_ssh_and_the_server_may_reach_out(world: Emulated, engine: Engine) -> None:
    import boto3

    spec = instance_spec("aws", "m7i.large", REGION)
    rent(engine, spec)
    login = {
        "aws_access_key_id": world.environment["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": world.environment["AWS_SECRET_ACCESS_KEY"],
    }
    api = boto3.client("ec2", REGION, endpoint_url=world.environment["AWS_ENDPOINT_URL_EC2"], **login)
    (rented,) = (one for held in api.describe_instances()["Reservations"] for one in held["Instances"])
    (group,) = (one["GroupId"] for held in rented["NetworkInterfaces"] for one in held["Groups"])
    asked = [{"Name": "group-id", "Values": [group]}]
    rules = api.describe_security_group_rules(Filters=asked)["SecurityGroupRules"]
    (into,) = [one for one in rules if not one["IsEgress"]]
    assert (into["IpProtocol"], into["FromPort"], into["ToPort"], into["CidrIpv4"]) == ("tcp", 22, 22, spec.ingress)
    assert [(one["IpProtocol"], one["CidrIpv4"]) for one in rules if one["IsEgress"]] == [("-1", "0.0.0.0/0")]


def test_the_newest_image_of_the_right_owner_and_architecture_is_booted(world: Emulated, engine: Engine) -> None:
    wanted = {
        "m7i.large": instance_spec("aws", "m7i.large", REGION),
        "m7g.large": instance_spec("aws", "m7g.large", REGION, architecture="arm64"),
        "t3.micro": instance_spec("aws", "t3.micro", REGION, image="debian-12"),
    }
    shared = engine.up("shared", lambda: CLOUD.shared_program(shared_spec("aws", REGION)))
    engine.up("jobs", lambda: {key: CLOUD.program(spec, shared)["address"] for key, spec in wanted.items()})
    names = {one["ami_id"]: one["name"] for one in emulated_aws.IMAGES}
    booted = {one["data"]["type"]: names[one["data"]["image"]] for one in world.alive("aws", "server")}
    assert booted == {
        "m7i.large": "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261101",
        "m7g.large": "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-20261101",
        "t3.micro": "debian-12-amd64-20261001-2252",
    }


def test_a_region_without_a_default_network_is_one_sentence(engine: Engine) -> None:
    said = engine.refused("shared", lambda: CLOUD.shared_program(shared_spec("aws", emulated_aws.WITHOUT_DEFAULT_VPC)))
    assert "The AWS region eu-north-1 has no default VPC. Make one: aws ec2 create-default-vpc" in said
    assert "Traceback" not in said
    assert classify(said) is Refusal.NOT_OFFERED


def test_a_zone_without_a_default_subnet_and_an_image_that_is_not_there_are_sentences(engine: Engine) -> None:
    shared = {"group": "sg-0", "key": "k"}
    nowhere = instance_spec("aws", "m7i.large", REGION, zone="us-east-1x")
    said = engine.refused("one", lambda: CLOUD.program(nowhere, shared))
    assert "The AWS zone us-east-1x has no default subnet." in said
    assert "Traceback" not in said
    assert classify(said) is Refusal.NOT_OFFERED


def _instance(name: str, **others: Any) -> Any:
    """An instance as a test wants it; without key and group."""
    from pulumi_aws import ec2

    image = next(one["ami_id"] for one in emulated_aws.IMAGES if one["architecture"] == "x86_64")
    right = {"ami": image, "instance_type": "t3.micro", "tags": {"Name": name, "benchctl-sweep": "s"}}
    return ec2.Instance(name, **{**right, **others})


def _bad_resources() -> dict[str, str]:
    """One resource for each rule of the emulation that the API has; named by the rule."""
    import pulumi
    from pulumi_aws import ec2

    def group(rule: str, name: str, description: str = "d", **others: Any) -> Any:
        network = ec2.get_vpc(default=True).id
        return ec2.SecurityGroup(rule, name=name, description=description, vpc_id=network, **others)

    public = key_pair("login")[0]
    in_d = ec2.get_subnets(filters=[ec2.GetSubnetsFilterArgs(name="availability-zone", values=["us-east-1e"])]).ids[0]
    _instance("type-unknown", instance_type="g2-standard-4")
    _instance("architecture", instance_type="m7g.large")
    _instance("type-not-in-zone", instance_type="m7i.large", subnet_id=in_d)
    _instance("disk-too-small", root_block_device=ec2.InstanceRootBlockDeviceArgs(volume_size=4))
    _instance("user-data-too-long", user_data="#" * 16385)
    _instance("tag-reserved", tags={"aws:created-by": "us"})
    _instance("tags-too-many", tags={f"tag-{number}": "x" for number in range(51)})
    _instance("group-not-found", vpc_security_group_ids=["sg-0123456789"])
    _instance("key-not-found", key_name="nobody")
    after_key = pulumi.ResourceOptions(depends_on=[ec2.KeyPair("first-key", key_name="twice", public_key=public)])
    ec2.KeyPair("key-twice", key_name="twice", public_key=public, opts=after_key)
    ec2.KeyPair("key-format", key_name="other", public_key="ssh-dss AAAA")
    group("group-twice", "twice", opts=pulumi.ResourceOptions(depends_on=[group("first-group", "twice")]))
    group("group-description", "described", "SSH — from the controller")
    return {}


UNCHECKED: Mapping[str, dict[str, Any]] = {
    "volume-type": {"rootBlockDevice": {"volumeType": "hyperdisk-balanced"}},
    "shutdown-behaviour": {"instanceInitiatedShutdownBehavior": "delete"},
    "group-name-like-an-id": {"name": "sg-ours"},
    "cidr-no-network": {"cidrIpv4": "203.0.113.7/29"},
}


@pytest.fixture(scope="module")
def refusals(module_world: Emulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the engine says about all of them."""
    module_world.reset()
    login = {**module_world.environment, "AWS_REGION": REGION}
    engine = Engine(module_world, tmp_path_factory.mktemp("refusals"), login)
    yield engine.refused("refusals", _bad_resources)
    module_world.reset()


WORDS = {
    "volume-type": "expected root_block_device.0.volume_type to be one of",
    "shutdown-behaviour": 'to be one of ["stop" "terminate"], got delete',
    "group-name-like-an-id": "invalid value for name (cannot begin with sg-)",
    "cidr-no-network": "must be a valid IPv4 CIDR that represents a network address, got: 203.0.113.7/29",
    "type-unknown": "api error InvalidParameterValue: Invalid value 'g2-standard-4' for InstanceType.",
    "architecture": "The architecture 'arm64' of the specified instance type does not match the architecture 'x86_64'",
    "type-not-in-zone": "Your requested instance type (m7i.large) is not supported in your requested Availability Zone",
    "disk-too-small": "api error InvalidBlockDeviceMapping: Volume of size 4GB is smaller than snapshot",
    "user-data-too-long": "api error InvalidParameterValue: User data is limited to 16384 bytes",
    "tag-reserved": "Tag keys starting with 'aws:' are reserved for internal use",
    "tags-too-many": "api error TagLimitExceeded",
    "group-not-found": "api error InvalidGroup.NotFound: The security group 'sg-0123456789' does not exist",
    "key-not-found": "api error InvalidKeyPair.NotFound: The key pair 'nobody' does not exist",
    "key-twice": "importing EC2 Key Pair (twice): operation error EC2: ImportKeyPair",
    "key-format": "Key is not in valid OpenSSH public key format",
    "group-twice": "creating Security Group (twice): operation error EC2: CreateSecurityGroup",
    "group-description": "Character sets beyond ASCII are not supported",
}


@pytest.mark.parametrize("rule", [one.name for one in emulated_aws.RULES if not one.property])
def test_the_emulation_refuses_what_the_vendor_refuses(refusals: str, rule: str) -> None:
    assert WORDS[rule] in said_about(refusals, rule)
    assert next(one.source for one in emulated_aws.RULES if one.name == rule)


@pytest.mark.parametrize("rule", [one for one in emulated_aws.RULES if one.property], ids=lambda one: one.name)
def test_the_emulated_provider_refuses_what_the_vendors_provider_refuses(world: Emulated, rule: Rule) -> None:
    plugin = Forwarding(f"{world.url}/engine/aws")
    assert not plugin.check(rule.kind, {"name": "ours", "cidrIpv4": "203.0.113.0/29"})
    ((wrong, why),) = plugin.check(rule.kind, UNCHECKED[rule.name])
    assert wrong == rule.property
    assert WORDS[rule.name] in why
    assert rule.source


@pytest.mark.parametrize(
    ("rule", "refusal"),
    [
        ("type-unknown", Refusal.NOT_OFFERED),
        ("type-not-in-zone", Refusal.NOT_OFFERED),
        ("architecture", Refusal.NOT_OFFERED),
    ],
)
def test_what_the_engine_says_is_told_apart(refusals: str, rule: str, refusal: Refusal) -> None:
    assert classify(said_about(refusals, rule)) is refusal


def test_scripted_refusals_reach_the_engine_and_are_told_apart(world: Emulated, tmp_path: Path) -> None:
    engine = Engine(world, tmp_path, {**world.environment, "AWS_REGION": REGION})
    expected = {
        "quota": (Refusal.QUOTA, "api error VcpuLimitExceeded"),
        "stock": (Refusal.STOCK, "api error InsufficientInstanceCapacity"),
        "throttled": (Refusal.THROTTLED, "api error RequestLimitExceeded"),
        "unauthorized": (Refusal.ACCOUNT, "api error AuthFailure"),
        "outage": (Refusal.OUTAGE, "api error Unavailable"),
    }
    for effect in expected:
        world.fault(effect, vendor="aws", call="create", kind="server", name=f"benchctl-{effect}")
    said = engine.refused("all", lambda: {one: _instance(f"benchctl-{one}").id for one in expected})
    for effect, (refusal, words) in expected.items():
        about = said_about(said, f"benchctl-{effect}")
        assert words in about
        assert classify(about) is refusal


def test_everything_is_deleted_whatever_the_order(world: Emulated, engine: Engine, client: AwsClient) -> None:
    """The group is refused while the server's interface lives; a spot server has a request besides."""
    spec = instance_spec("aws", "m7i.large", REGION, spot=True)
    rent(engine, spec)
    hasty = client_of(world, wait_seconds=0.3)
    group = next(one for one in client.find() if one.kind == "firewall")
    with pytest.raises(CloudError, match="DependencyViolation"):
        hasty.delete(group)
    found = client.find()
    kinds = ("spot-request", "server", "disk", "interface", "firewall", "key")
    assert {one.kind for one in found} == set(kinds)
    for kind in kinds:
        for one in found:
            if one.kind == kind:
                client.delete(one)
                client.delete(one)  # what is gone is deleted
    assert client.find() == []
    assert world.alive("aws") == []


def test_a_spot_request_is_of_its_servers_job(world: Emulated, engine: Engine, client: AwsClient) -> None:
    """Nobody tags it: its server says whose it is and, once that is gone, the sweep's key, or the key's mere name."""
    spec = instance_spec("aws", "m7i.large", REGION, spot=True)
    rent(engine, spec)

    def listed(kind: str) -> Any:
        return next(one for one in client.find() if one.kind == kind)

    request = listed("spot-request")
    assert (request.sweep, request.job, request.expires_at) == (SWEEP, spec.labels["benchctl-job"], spec.expires_at)
    assert request.name == f"{spec.name}-{request.id}"
    world.lag("aws", lingers_for_lists=1000)
    client.delete(listed("server"))
    request = listed("spot-request")
    assert (request.sweep, request.job) == (SWEEP, SHARED_JOB)
    assert request.expires_at
    client.delete(listed("key"))
    request = listed("spot-request")
    assert request.sweep == ""
    waits = JobState("m7i", "aws", "m7i.large", "h", lifetime_seconds=3600, region=REGION, attempt=1)
    assert Owners([Book(SWEEP, (waits,))]).of(request) == (SWEEP, SHARED_JOB)


def test_a_reaper_ends_a_spot_request_before_its_server(
    world: Emulated, engine: Engine, client: AwsClient, home: Home
) -> None:
    """Of a sweep that nobody runs, and without --all: nothing that could start the server again is left."""
    spec = instance_spec("aws", "m7i.large", REGION, spot=True)
    rent(engine, spec)
    database = open_database(home.ensure().database_url)
    job = JobState(
        job=spec.labels["benchctl-job"], vendor="aws", server="m7i.large", host=spec.name, lifetime_seconds=3600,
        attempt=1, stage="benching", status="running", region=REGION,
    )  # fmt: skip
    suite = Suite.from_dict({"name": "some", "models": ["m"], "scenarios": {"pp": {16: 2}}})
    Ledger.create(home, database, SweepRequest(("aws",), suite, ()), [job], sweep=SWEEP)
    patience = Patience(300, 0.01, 0.05, settle_seconds=0)
    report = reap(home, database, clients={"aws": client}, environment=world.environment, patience=patience)
    database.dispose()
    assert report.clean
    assert {one.outcome for one in report.findings} == {Outcome.DESTROYED}
    assert {one.verdict.resource.kind for one in report.findings} >= {"spot-request", "server"}
    ended = [one["kind"] for one in world.journal(vendor="aws", call="delete", via="api")]
    assert ended[:2] == ["spot-request", "server"]
    assert world.alive("aws") == []


def test_regions_are_those_that_the_account_has_enabled(world: Emulated, tmp_path: Path) -> None:
    engine = Engine(world, tmp_path, {**world.environment, "AWS_REGION": "eu-west-1"})
    engine.up("one", lambda: {"id": _instance("benchctl-one").id})
    everywhere = AwsClient(world.environment)
    assert {one.region for one in everywhere.find()} == {"eu-west-1"}
    assert client_of(world, REGION).find() == []


def test_a_region_that_the_account_has_not_opted_into_holds_nothing_of_ours(world: Emulated) -> None:
    assert client_of(world, REGION, emulated_aws.NOT_OPTED_INTO).find() == []


def test_who_we_are_is_asked_where_every_login_is_known(world: Emulated) -> None:
    """Not in the first of the planned regions: its STS may not know the keys."""
    assert client_of(world, emulated_aws.NOT_OPTED_INTO, REGION).whoami()
    assert client_of(world, emulated_aws.NOT_OPTED_INTO).find() == []


@pytest.mark.parametrize(("effect", "refusal"), [("denied", Refusal.NOT_OFFERED), ("outage", Refusal.OUTAGE)])
def test_a_region_that_does_not_answer_hides_no_other(
    world: Emulated, engine: Engine, effect: str, refusal: Refusal
) -> None:
    """An organisation's policy, or an outage: the list says what the other regions have, and which it lacks."""
    engine.up("one", lambda: {"id": _instance("benchctl-one").id})
    world.fault(effect, vendor="aws", call="list", place="eu-west-1", times=1000)
    with pytest.raises(PartialListError) as caught:
        AwsClient(world.environment, attempts=1).find()
    assert ("server", "benchctl-one") in [(one.kind, one.name) for one in caught.value.found]
    assert {region: one.refusal for region, one in caught.value.missing.items()} == {"eu-west-1": refusal}
    assert isinstance(caught.value.missing["eu-west-1"], ClosedRegionError) == (effect == "denied")
    assert caught.value.answered


def test_where_no_region_answers_nothing_is_known(world: Emulated) -> None:
    """An account that may not look anywhere has no empty cloud."""
    world.fault("denied", vendor="aws", call="list", times=1000)
    with pytest.raises(PartialListError) as caught:
        AwsClient(world.environment).find()
    assert (caught.value.answered, caught.value.refusal) == (False, Refusal.ACCOUNT)


def test_the_list_of_regions_is_asked_for_where_the_organisation_allows_it(world: Emulated, tmp_path: Path) -> None:
    """An organisation in Europe may deny its accounts us-east-1 altogether."""
    engine = Engine(world, tmp_path, {**world.environment, "AWS_REGION": "eu-west-1"})
    engine.up("one", lambda: {"id": _instance("benchctl-one").id})
    world.fault("denied", vendor="aws", place="us-east-1", via="api", times=1000)
    with pytest.raises(PartialListError) as caught:
        AwsClient(world.environment).find()
    assert list(caught.value.missing) == ["us-east-1"]
    assert {one.region for one in caught.value.found} == {"eu-west-1"}


def test_a_wrong_login_is_no_empty_cloud(world: Emulated) -> None:
    wrong = AwsClient({**world.environment, "AWS_ACCESS_KEY_ID": "AKIAWRONG"}, (REGION,))
    with pytest.raises(CloudError, match="AuthFailure") as caught:
        wrong.find()
    assert caught.value.refusal is Refusal.ACCOUNT
    with pytest.raises(CloudError, match="InvalidClientTokenId"):
        wrong.whoami()


def test_whoami_names_the_account(client: AwsClient) -> None:
    assert client.whoami().startswith(f"account {emulated_aws.ACCOUNT}, arn:aws:")


def test_lists_lag_and_have_pages(world: Emulated, tmp_path: Path, client: AwsClient) -> None:
    engine = Engine(world, tmp_path, {**world.environment, "AWS_REGION": REGION})
    names = [f"benchctl-many-{number}" for number in range(5)]
    world.lag("aws", appears_after_lists=1)
    engine.up("many", lambda: {name: _instance(name).id for name in names})
    # the label is asked for in one list, the name in the next: the first does not show them yet
    found = [one for one in client.find() if one.kind == "server"]
    assert sorted(one.name for one in found) == names, "three pages, in the second list"
    for one in found:
        client.delete(one)
    assert world.names("aws", "server") == []
    assert [one for one in client.find() if one.kind == "server"] == [], "terminated ones are listed, and left out"


def test_a_delete_that_lies_is_asked_for_again(world: Emulated, tmp_path: Path, client: AwsClient) -> None:
    engine = Engine(world, tmp_path, {**world.environment, "AWS_REGION": REGION})
    engine.up("one", lambda: {"id": _instance("benchctl-one").id})
    world.fault("lies", vendor="aws", call="delete", kind="server", times=2)
    client.delete(next(one for one in client.find() if one.kind == "server"))
    assert world.names("aws", "server") == []
    engine.up("one", lambda: {"id": _instance("benchctl-two").id})
    world.fault("lies", vendor="aws", call="delete", kind="server", times=1000)
    hasty = client_of(world, wait_seconds=0.3)
    with pytest.raises(CloudError, match="is not gone after") as caught:
        hasty.delete(next(one for one in client.find() if one.kind == "server"))
    assert caught.value.refusal is Refusal.TIMEOUT
    assert world.names("aws", "server") == ["benchctl-two"]


def test_throttling_is_waited_out_and_an_outage_is_no_empty_cloud(world: Emulated, client: AwsClient) -> None:
    world.fault("throttled", vendor="aws", call="list", times=2)
    assert client.find() == []
    world.down("aws")
    with pytest.raises(CloudError) as caught:
        client_of(world, attempts=2).find()
    assert caught.value.refusal is Refusal.OUTAGE
    away = {**world.environment, "AWS_ENDPOINT_URL_EC2": "http://127.0.0.1:9"}
    with pytest.raises(CloudError) as caught:
        AwsClient(away, (REGION,), attempts=1).find()
    assert caught.value.refusal is Refusal.OUTAGE


def test_a_create_that_fails_late_leaves_a_server_that_is_found(
    world: Emulated, tmp_path: Path, client: AwsClient
) -> None:
    engine = Engine(world, tmp_path, {**world.environment, "AWS_REGION": REGION})
    world.fault("after", vendor="aws", call="create", kind="server")
    engine.refused("late", lambda: {"id": _instance("benchctl-late").id})
    engine.destroy("late")
    (left,) = [one for one in client.find() if one.kind == "server"]
    client.delete(left)
    assert world.names("aws", "server") == []


def test_a_killed_engine_leaves_a_server_that_is_found_and_deleted(
    world: Emulated, tmp_path: Path, client: AwsClient
) -> None:
    spec = instance_spec("aws", "m7i.large", REGION)
    killed_in_create(world, tmp_path, "aws", spec)
    left = world.until(lambda: [one for one in client.find() if one.kind == "server"])[0]
    assert (left.name, left.sweep, left.expires_at) == (spec.name, SWEEP, spec.expires_at)
    client.delete(left)
    assert world.names("aws", "server") == world.names("aws", "disk") == []


def test_the_host_key_is_known_before_the_first_connection(backed_world: Emulated, tmp_path: Path) -> None:
    engine = Engine(backed_world, tmp_path)
    spec = instance_spec("aws", "m7i.large", REGION)
    address = rent(engine, spec)["address"]
    said = ssh(tmp_path, address, CLOUD.user(spec), spec.host_key.public, "id -un; cat /var/lib/cloud-commands.json")
    assert said.stdout.startswith("ubuntu\n"), said.stderr
    assert "poweroff" in said.stdout, "it switches itself off, and AWS ends it then"
    assert str(spec.expires_at) in said.stdout
    assert refuses_another_host_key(tmp_path, address, CLOUD.user(spec))
    engine.destroy("job")
