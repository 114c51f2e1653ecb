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
        ("gcp", "Quota 'N2_CPUS' exceeded.  Limit: 8.0 in region us-east1.", REGION, True, True),
        ("gcp", "Quota 'N2_CPUS' exceeded.  Limit: 0.0 in region us-east1.", REGION, True, False),
        ("gcp", "Quota 'CPUS_ALL_REGIONS' exceeded.  Limit: 12.0 globally.", ACCOUNT, False, True),
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


def test_auth_failure_is_in_doubt_until_the_vendor_is_asked_who_we_are() -> None:
    """AWS says so to good keys in a region that the account has not opted into; only there, and only AWS."""
    words = "api error AuthFailure: AWS was not able to validate the provided access credentials"
    fault = fault_of("aws", words)
    assert (fault.refusal, fault.doubtful) == (Refusal.ACCOUNT, True)
    assert fault.asked(login_works=True).refusal is Refusal.NOT_OFFERED
    assert fault.asked(login_works=False).refusal is Refusal.ACCOUNT
    assert not fault.asked(login_works=False).doubtful
    sure = fault_of("aws", "InvalidClientTokenId: The security token included in the request is invalid.")
    assert sure.asked(login_works=True).refusal is Refusal.ACCOUNT
    assert not fault_of("lab", words).doubtful


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
