"""Whether this machine can rent: SDKs, logins, Pulumi's engine. Looked at before anything is made."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from benchctl.clouds.cloud import cloud_of
from benchctl.errors import BenchctlError, UsageError
from benchctl.extras import extra_mend

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from benchctl.home import Home

MODULES: Mapping[str, tuple[str, ...]] = {
    "aws": ("pulumi_aws", "boto3"),
    "gcp": ("pulumi_gcp", "google.cloud.compute_v1"),
    "azure": ("pulumi_azure_native", "azure.identity", "azure.mgmt.compute"),
    "hetzner": ("pulumi_hcloud", "hcloud"),
    "upcloud": ("pulumi_upcloud", "upcloud_api"),
    "lab": ("pulumi", "grpc"),
}
"""What each vendor's extra brings: Pulumi's provider, and the vendor's own client."""


def problems(vendors: Iterable[str], environment: Mapping[str, str]) -> Iterator[str]:
    """What is missing to rent, one line per vendor, without asking anybody."""
    for vendor in vendors:
        lacking = [name for name in MODULES[vendor] if not there(name)]
        if lacking:
            yield f"{vendor}: {' and '.join(lacking)} can't be imported. {extra_mend(vendor)}"
            continue
        problem = cloud_of(vendor).login_problem(environment)
        if problem:
            yield f"{vendor}: {problem.removeprefix(f'{vendor}: ')}"


def require_ready(home: Home, vendors: Iterable[str], environment: Mapping[str, str]) -> None:
    """Make sure that a sweep of these vendors can begin.

    Raises:
        UsageError: a login or a package is missing; one line per vendor.
        BenchctlError: there is no engine.
    """
    found = list(problems(vendors, environment))
    if found:
        raise UsageError("\n".join(("Nothing was begun.", *found)))
    from benchctl.clouds import automation, engine_binary

    unfit = automation.fitting(engine_binary.find(home.cache, environment))
    if unfit:
        raise BenchctlError(unfit, engine_binary.MEND)


def there(name: str) -> bool:
    """Whether a module can be imported; it is not."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
