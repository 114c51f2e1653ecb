"""What is read of a vendor's words besides the kind of refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from benchctl.clouds.faults import ACCOUNT, REGION, Fault, family_of, fault_of
from benchctl.refusals import Refusal

CASES: list[dict[str, Any]] = [
    case
    for case in yaml.safe_load((Path(__file__).parents[3] / "cases" / "refusals" / "vendors.yml").read_text())
    if "vendor" in case
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['vendor']}-{case['message'][:40]}")
def test_scope_and_zones_are_read_of_recorded_messages(case: dict[str, Any]) -> None:
    """Where a quota holds, which zones the vendor names, and whether another place would help."""
    fault = fault_of(case["vendor"], case["message"])
    assert str(fault.refusal) == case["refusal"]
    assert list(fault.zones) == case.get("zones", [])
    assert fault.everywhere == case.get("everywhere", False)
    assert fault.gpus == case.get("gpus", False)
    for key in ("scope", "family"):
        if key in case:
            assert getattr(fault, key) == case[key]


@pytest.mark.parametrize(
    ("vendor", "message", "scope", "family", "sized"),
    [
        ("aws", "api error VcpuLimitExceeded: your current vCPU limit of 0 allows for", REGION, True, False),
        ("aws", "api error VcpuLimitExceeded: your current vCPU limit of 32 allows for", REGION, True, True),
        ("aws", "MaxSpotInstanceCountExceeded: Max spot instance count exceeded", REGION, True, True),
        ("gcp", "Quota 'N2_CPUS' exceeded.  Limit: 8.0 in region us-east1.", REGION, True, True),
        ("gcp", "Quota 'N2_CPUS' exceeded.  Limit: 0.0 in region us-east1.", REGION, True, False),
        ("gcp", "Quota 'CPUS_ALL_REGIONS' exceeded.  Limit: 12.0 globally.", ACCOUNT, False, True),
        ("gcp", "Quota 'NVIDIA_L4_GPUS' exceeded.  Limit: 1.0 in region us-east1.", REGION, True, False),
        ("gcp", "Quota 'PREEMPTIBLE_NVIDIA_A100_GPUS' exceeded.  Limit: 0.0 in region us-east1.", REGION, True, False),
        ("gcp", "Quota 'GPUS_PER_GPU_FAMILY' exceeded.  Limit: 0.0 in region us-east1.", REGION, True, False),
        ("gcp", "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 1.0 globally.", ACCOUNT, False, True),
        ("gcp", "Quota 'NETWORKS' exceeded.  Limit: 5.0 globally.", ACCOUNT, False, False),
        ("azure", "OperationNotAllowed: exceeding approved Total Regional Cores quota.", REGION, False, True),
        ("azure", "OperationNotAllowed: exceeding approved standardDASv5Family Cores quota.", REGION, True, True),
        ("azure", "PublicIPCountLimitReached: Cannot create more than 10 public IP addresses", REGION, False, False),
        ("hcloud", "server limit exceeded (resource_limit_exceeded)", ACCOUNT, False, False),
        ("hcloud", "dedicated core limit exceeded (resource_limit_exceeded)", ACCOUNT, True, True),
        ("upcloud", "Core limit reached (type=SERVER_CORE_LIMIT_REACHED, status=403)", ACCOUNT, False, True),
    ],
)
def test_a_quota_holds_for_what_it_counts(vendor: str, message: str, scope: str, family: bool, sized: bool) -> None:
    """Of a region or of the account; of a family or of all; a limit above nothing may have room for a smaller one."""
    fault = fault_of(vendor, message)
    assert (fault.refusal, fault.scope, fault.family, fault.sized) == (Refusal.QUOTA, scope, family, sized)


DENIED = (
    "operation error EC2: CreateSecurityGroup, api error UnauthorizedOperation: You are not authorized to perform this "
    "operation. User: u is not authorized to perform: ec2:CreateSecurityGroup on resource: r with an explicit deny in "
    "a service control policy"
)


@pytest.mark.parametrize(
    "words",
    [
        "api error AuthFailure: AWS was not able to validate the provided access credentials",
        "retrieving caller identity from STS: api error InvalidClientTokenId: The security token is invalid.",
        "pulumi:providers:aws resource 'default_6_18_2' has a problem: Invalid credentials configured.",
        "unable to validate AWS AccessKeyID and/or SecretAccessKey",
        DENIED,
    ],
)
def test_a_login_is_in_doubt_until_the_vendor_is_asked_who_we_are(words: str) -> None:
    """AWS refuses good keys where a region is not opted into, or is denied by an organisation; only AWS does."""
    fault = fault_of("aws", words)
    assert (fault.refusal, fault.doubtful) == (Refusal.ACCOUNT, True)
    good, bad = fault.asked(login_works=True), fault.asked(login_works=False)
    assert (good.refusal, good.closed, good.doubtful) == (Refusal.NOT_OFFERED, True, False)
    assert (bad.refusal, bad.closed, bad.doubtful) == (Refusal.ACCOUNT, False, False)
    assert not fault_of("lab", words).doubtful


def test_a_policy_against_one_type_closes_no_region() -> None:
    """Who may make all but the server is denied this server."""
    words = (
        "operation error EC2: RunInstances, api error UnauthorizedOperation: User: u is not authorized to perform: "
        "ec2:RunInstances on resource: r with an explicit deny in a service control policy"
    )
    good = fault_of("aws", words).asked(login_works=True)
    assert (good.refusal, good.closed) == (Refusal.NOT_OFFERED, False)


def test_a_permission_that_nobody_gave_is_the_accounts_trouble() -> None:
    """Without an explicit deny it is missing in every region; so is a login that is not there."""
    missing = (
        "UnauthorizedOperation: User: u is not authorized to perform: ec2:RunInstances on resource: r because no "
        "identity-based policy allows the ec2:RunInstances action"
    )
    for words in (missing, "No valid credential sources found"):
        assert fault_of("aws", words).asked(login_works=True).refusal is Refusal.ACCOUNT


def test_a_kind_that_is_known_is_not_guessed_from_the_words() -> None:
    """Who waited in vain knows that it was a time-out."""
    assert fault_of("gcp", "Quota 'CPUS' exceeded.", Refusal.TIMEOUT) == Fault(
        Refusal.TIMEOUT, "Quota 'CPUS' exceeded."
    )
    assert fault_of("gcp", "something new").refusal is None


@pytest.mark.parametrize(
    ("vendor", "several", "other"),
    [
        ("aws", ["m5.large", "c7g.xlarge", "t3.micro", "i4i.metal"], "g6.xlarge"),
        ("aws", ["g6.xlarge", "g4dn.metal", "gr6.4xlarge", "vt1.3xlarge"], "p4d.24xlarge"),
        ("aws", ["u-18tb1.112xlarge", "u7i-6tb.112xlarge"], "x1e.32xlarge"),
        ("azure", ["Standard_D4as_v5", "Standard_D96as_v5"], "Standard_D4s_v5"),
        ("azure", ["Standard_E96-48s_v5", "Standard_E8s_v5"], "Standard_E8as_v5"),
        ("gcp", ["n2-standard-4", "n2-highmem-80"], "n2d-standard-4"),
        ("hcloud", ["ccx13", "ccx63"], "cx22"),
        ("upcloud", ["DEV-1xCPU-1GB", "DEV-2xCPU-4GB"], "GPU-8xCPU-64GB-1xL40S"),
    ],
)
def test_families_hold_what_a_quota_counts_together(vendor: str, several: list[str], other: str) -> None:
    """Sizes of a family are one; another family is not."""
    assert len({family_of(vendor, one) for one in several}) == 1
    assert family_of(vendor, other) != family_of(vendor, several[0])
