"""Variables and files that hold a vendor's login: whether there are any, and paths that hold good in every folder.

Whether a login is whole, and what is missing, says each vendor's :meth:`~benchctl.clouds.cloud.Cloud.login_problem`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

_AZURE = ("CLIENT_ID", "CLIENT_SECRET", "TENANT_ID", "SUBSCRIPTION_ID", "CLIENT_CERTIFICATE_PATH")

VARIABLES: Mapping[str, tuple[str, ...]] = {
    "aws": (
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
        *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    ),
    "gcp": (
        *("GOOGLE_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS"),
        *("GOOGLE_PROJECT", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT"),
    ),
    "azure": (
        *(f"{whose}_{what}" for whose in ("ARM", "AZURE") for what in _AZURE),
        *("ARM_OIDC_TOKEN", "ARM_OIDC_TOKEN_FILE_PATH", "AZURE_FEDERATED_TOKEN_FILE", "ARM_USE_MSI"),
    ),
    "hetzner": ("HCLOUD_TOKEN",),
    "upcloud": ("UPCLOUD_TOKEN", "UPCLOUD_USERNAME", "UPCLOUD_PASSWORD"),
}
"""Any of these is set by somebody who means to log in; where one of them lacks another, the login is broken."""

PATHS = (
    *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CREDENTIALS", "CLOUDSDK_CONFIG"),
    *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CA_BUNDLE"),
    *("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "ARM_CLIENT_CERTIFICATE_PATH", "AZURE_CLIENT_CERTIFICATE_PATH"),
    *("ARM_OIDC_TOKEN_FILE_PATH", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CONFIG_DIR"),
    *("PULUMI_CONFIG_PASSPHRASE_FILE", "PULUMI_HOME"),
    *("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
)
"""Variables whose value is a path."""


def some_login(vendor: str, environment: Mapping[str, str]) -> bool:
    """Whether anything at all is there that belongs to a login of this vendor, be it whole or not. No network.

    Args:
        vendor: as the command line calls it.
        environment: where the login is looked for.
    """
    if any(environment.get(name) for name in VARIABLES.get(vendor, ())):
        return True
    home = environment.get("HOME")
    if vendor == "aws":
        return home is not None and any((Path(home) / ".aws" / name).is_file() for name in ("credentials", "config"))
    if vendor == "gcp":
        folder = environment.get("CLOUDSDK_CONFIG") or (Path(home) / ".config" / "gcloud" if home else None)
        return folder is not None and (Path(folder) / "application_default_credentials.json").is_file()
    if vendor == "azure":
        folder = environment.get("AZURE_CONFIG_DIR") or (Path(home) / ".azure" if home else None)
        return folder is not None and _az_logged_in(Path(folder) / "azureProfile.json")
    return False


def make_absolute(environment: MutableMapping[str, str]) -> None:
    """Make the paths of :data:`PATHS` absolute: the engine, and a sweep that is left alone, run in other folders."""
    for name in PATHS:
        given = environment.get(name, "")
        # Google's key may stand in the variable itself
        if given.strip() and not given.lstrip().startswith("{") and not os.path.isabs(given):  # noqa: PTH117 - text
            environment[name] = os.path.abspath(Path(given).expanduser())  # noqa: PTH100 - it may not exist


def _az_logged_in(profile: Path) -> bool:
    """Whether ``az`` keeps a login; its file stays, without a subscription, after ``az logout``."""
    try:
        return bool(json.loads(profile.read_text(encoding="utf-8-sig")).get("subscriptions", True))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, AttributeError):
        return True
