"""How to log in to Azure: from the variables that Pulumi's provider reads, or as ``az login`` left it.

The engine's provider reads ``ARM_*`` (https://www.pulumi.com/registry/packages/azure-native/installation-configuration),
Azure's own Python clients read ``AZURE_*`` for the same. Either will do here, and both get what they want.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.clouds.cloud import CloudError
from benchctl.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from azure.core.credentials import TokenCredential

PUBLIC = "public"

_ENGINE = (
    *("ARM_CLIENT_ID", "ARM_CLIENT_SECRET", "ARM_TENANT_ID", "ARM_SUBSCRIPTION_ID", "ARM_AUXILIARY_TENANT_IDS"),
    *("ARM_CLIENT_CERTIFICATE_PATH", "ARM_CLIENT_CERTIFICATE_PASSWORD", "ARM_USE_MSI", "ARM_MSI_ENDPOINT"),
    *("ARM_USE_OIDC", "ARM_OIDC_TOKEN", "ARM_OIDC_TOKEN_FILE_PATH", "ARM_ENVIRONMENT", "ARM_METADATA_HOSTNAME"),
    *("ARM_DISABLE_INSTANCE_DISCOVERY", "ARM_PARTNER_ID", "ARM_DISABLE_PULUMI_PARTNER_ID"),
    *("AZURE_CONFIG_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)
"""What the provider, a Go program, reads; ``AZURE_CONFIG_DIR`` is for the ``az`` that it calls."""

_ALSO = {
    name: f"AZURE_{name.removeprefix('ARM_')}"
    for name in (
        *("ARM_CLIENT_ID", "ARM_CLIENT_SECRET", "ARM_TENANT_ID", "ARM_SUBSCRIPTION_ID"),
        *("ARM_CLIENT_CERTIFICATE_PATH", "ARM_CLIENT_CERTIFICATE_PASSWORD"),
    )
}
"""Azure's own names for the same."""

_CLOUDS = {
    PUBLIC: ("https://management.azure.com/", "https://login.microsoftonline.com"),
    "usgovernment": ("https://management.usgovcloudapi.net/", "https://login.microsoftonline.us"),
    "china": ("https://management.chinacloudapi.cn/", "https://login.chinacloudapi.cn"),
}
"""Azure's clouds as ``ARM_ENVIRONMENT`` calls them: where resources are managed, and where one logs in."""

METADATA_SECONDS = 30.0


@dataclass(frozen=True)
class Login:
    """Who logs in, and how.

    Attributes:
        subscription: whose resources they are, and who pays.
        tenant: the directory of the application that logs in.
        client: the application, or the user-assigned identity of the machine.
        secret: of the application.
        certificate: path of its certificate, instead of a secret.
        certificate_password: of that file.
        token: one signed by somebody whom the application trusts (OIDC), instead of a secret.
        token_file: where such a token lies, fresh at every reading.
        managed: the machine itself has an identity.
        cloud: as ``ARM_ENVIRONMENT`` calls it.
        metadata_host: where another cloud (Azure Stack, an emulation) tells its addresses; empty for Azure's own.
        authorities: path of a file with the certificate authorities to trust; empty for the usual ones.
    """

    subscription: str
    tenant: str = ""
    client: str = ""
    secret: str = field(default="", repr=False)
    certificate: str = ""
    certificate_password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    token_file: str = ""
    managed: bool = False
    cloud: str = PUBLIC
    metadata_host: str = ""
    authorities: str = ""


@dataclass(frozen=True)
class Endpoints:
    """Where a cloud is.

    Attributes:
        manager: where resources are managed, with a slash at the end.
        scope: what the login has to be good for.
        authority: where one logs in.
        known: whether Azure's own directory of clouds knows it.
    """

    manager: str
    scope: str
    authority: str
    known: bool = True


def login_of(environment: Mapping[str, str]) -> Login:
    """What ``environment``, or ``az login``, says; no network."""
    value = _reader(environment)
    oidc = _yes(environment.get("ARM_USE_OIDC"))
    return Login(
        subscription=value("ARM_SUBSCRIPTION_ID") or _default_subscription(environment),
        tenant=value("ARM_TENANT_ID"),
        client=value("ARM_CLIENT_ID"),
        secret=value("ARM_CLIENT_SECRET"),
        certificate=value("ARM_CLIENT_CERTIFICATE_PATH"),
        certificate_password=value("ARM_CLIENT_CERTIFICATE_PASSWORD"),
        token=environment.get("ARM_OIDC_TOKEN", "") if oidc else "",
        token_file=environment.get("ARM_OIDC_TOKEN_FILE_PATH", "") if oidc else "",
        managed=_yes(environment.get("ARM_USE_MSI")),
        cloud=environment.get("ARM_ENVIRONMENT", "") or PUBLIC,
        metadata_host=environment.get("ARM_METADATA_HOSTNAME", ""),
        authorities=environment.get("REQUESTS_CA_BUNDLE", ""),
    )


def problem_of(environment: Mapping[str, str]) -> str:
    """What is missing to log in, and what to set, as one sentence; empty when something is there. No network."""
    login = login_of(environment)
    mend = "set ARM_CLIENT_ID, ARM_CLIENT_SECRET, ARM_TENANT_ID and ARM_SUBSCRIPTION_ID, or run 'az login'"
    if login.cloud not in _CLOUDS and not login.metadata_host:
        return f"ARM_ENVIRONMENT is '{login.cloud}', and Azure's clouds are {', '.join(_CLOUDS)}: correct or unset it."
    if login.secret or login.certificate or login.token or login.token_file:
        wanted = {
            "ARM_CLIENT_ID": login.client,
            "ARM_TENANT_ID": login.tenant,
            "ARM_SUBSCRIPTION_ID": login.subscription,
        }
        missing = [name for name, given in wanted.items() if not given]
        return f"The login at Azure lacks {' and '.join(missing)}: set {_it(missing)}." if missing else ""
    if login.managed:
        return "" if login.subscription else "The login at Azure lacks ARM_SUBSCRIPTION_ID: set it."
    if login.client and login.tenant:
        return f"The login at Azure lacks ARM_CLIENT_SECRET: {mend}."
    if not _profile(environment).is_file():
        return f"azure: no login found: {mend}."
    if shutil.which("az", path=environment.get("PATH")) is None:
        return "'az login' was done, but there is no 'az' on PATH to ask for its login: install the Azure CLI."
    return "" if login.subscription else "'az login' left no subscription: run 'az account set --subscription NAME'."


def engine_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What the provider of the engine reads, by its own names."""
    value = _reader(environment)
    found = {name: value(name) for name in _ENGINE}
    if not found["ARM_SUBSCRIPTION_ID"]:
        found["ARM_SUBSCRIPTION_ID"] = _default_subscription(environment)
    return {name: given for name, given in found.items() if given}


def endpoints_of(login: Login) -> Endpoints:
    """Where the cloud is; asks ``metadata_host``, where there is one.

    Raises:
        CloudError: it does not answer, or with something else.
    """
    if not login.metadata_host:
        manager, authority = _CLOUDS[login.cloud]
        return Endpoints(manager, f"{manager}.default", authority)
    import ssl
    import urllib.request

    url = f"https://{login.metadata_host}/metadata/endpoints?api-version=2022-09-01"
    context = ssl.create_default_context(cafile=login.authorities or None)
    try:
        with urllib.request.urlopen(url, timeout=METADATA_SECONDS, context=context) as answer:
            told: Any = json.load(answer)
        manager = told["resourceManager"].rstrip("/") + "/"
        audience = (told["authentication"]["audiences"] or [manager])[0].rstrip("/")
        return Endpoints(manager, f"{audience}/.default", told["authentication"]["loginEndpoint"], known=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CloudError(
            f"{login.metadata_host} does not tell where its cloud is: {error}.",
            "Check ARM_METADATA_HOSTNAME; unset it for Azure itself.",
            refusal=Refusal.OUTAGE,
        ) from error


def credential_of(login: Login, endpoints: Endpoints) -> TokenCredential:
    """What Azure's clients log in with. The SDK is imported here."""
    from azure import identity

    if login.managed:
        return identity.ManagedIdentityCredential(client_id=login.client or None)
    options: dict[str, Any] = {
        "authority": endpoints.authority,
        "disable_instance_discovery": not endpoints.known,
        "connection_verify": login.authorities or True,
    }
    if login.secret:
        return identity.ClientSecretCredential(login.tenant, login.client, login.secret, **options)
    if login.certificate:
        password = login.certificate_password or None
        return identity.CertificateCredential(
            login.tenant, login.client, login.certificate, password=password, **options
        )
    if login.token or login.token_file:
        return identity.ClientAssertionCredential(login.tenant, login.client, lambda: _assertion(login), **options)
    # az login, azd, PowerShell, a managed identity; nothing that would open a browser
    return identity.DefaultAzureCredential(exclude_interactive_browser_credential=True, authority=endpoints.authority)


def _assertion(login: Login) -> str:
    return Path(login.token_file).read_text().strip() if login.token_file else login.token


def _reader(environment: Mapping[str, str]) -> Callable[[str], str]:
    def value(name: str) -> str:
        return environment.get(name) or environment.get(_ALSO.get(name, name)) or ""

    return value


def _yes(value: str | None) -> bool:
    return (value or "").lower() in ("1", "true")


def _it(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"


def _profile(environment: Mapping[str, str]) -> Path:
    folder = environment.get("AZURE_CONFIG_DIR") or Path(environment.get("HOME", "/nonexistent")) / ".azure"
    return Path(folder) / "azureProfile.json"


def _default_subscription(environment: Mapping[str, str]) -> str:
    """The subscription that ``az account set`` chose; empty where az was never used, or its file can't be read."""
    try:
        profile = json.loads(_profile(environment).read_text(encoding="utf-8-sig"))
        return next((str(one["id"]) for one in profile["subscriptions"] if one.get("isDefault")), "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
