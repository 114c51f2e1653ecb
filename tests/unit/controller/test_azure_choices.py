"""What Azure's sizes ask for, read from their names, and how one logs in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from benchctl.clouds import azure_sizes as sizes
from benchctl.clouds.azure import CLOUD, zones_of
from benchctl.clouds.azure_login import credential_of, endpoints_of, engine_environment, login_of, problem_of
from benchctl.clouds.cloud import CloudError, cloud_of
from benchctl.clouds.spec import ARM64, X86_64
from benchctl.errors import BenchctlError
from emulation import azure_rules
from emulation.specs import instance_spec, shared_spec

if TYPE_CHECKING:
    from pathlib import Path

PRINCIPAL = {"ARM_CLIENT_ID": "c", "ARM_CLIENT_SECRET": "hush", "ARM_TENANT_ID": "t", "ARM_SUBSCRIPTION_ID": "s"}


@pytest.mark.parametrize(
    ("server_type", "generation"),
    [
        # PerfKitBenchmarker's list of sizes that boot generation 1 alone
        *((name, 1) for name in ("Standard_A1_v2", "Standard_A8m_v2", "Standard_D1_v2", "Standard_D15_v2")),
        *((name, 1) for name in ("Standard_D2_v3", "Standard_D64_v3", "Standard_E2_v3", "Standard_E64i_v3")),
        # refused with 2: skypilot-org/skypilot#133, jenkinsci/azure-vm-agents-plugin#305
        *((name, 1) for name in ("Standard_NC6_Promo", "Standard_NC24r", "Basic_A0", "Standard_A0")),
        *((name, 1) for name in ("Standard_NV12", "Standard_H16mr", "Standard_F16s", "Standard_G5", "Standard_NP40s")),
        # refused with 1: loft-sh/devpod#731, redhat-developer/mapt#489, hashicorp/terraform-provider-azurerm#7454
        *((name, 2) for name in ("Standard_NC24ads_A100_v4", "Standard_D16ads_v6", "Standard_DC4s_v2")),
        *((name, 2) for name in ("Standard_D2s_v3", "Standard_D4_v5", "Standard_E104i_v5", "Standard_DS2_v2")),
        *((name, 2) for name in ("Standard_B1s", "Standard_F8s_v2", "Standard_M416s_v2", "Standard_HB120rs_v3")),
        *(
            (name, 2)
            for name in ("Standard_NC4as_T4_v3", "Standard_NV12s_v3", "Standard_ND96asr_v4", "Standard_L8s_v3")
        ),
    ],
)
def test_old_families_boot_images_of_generation_1(server_type: str, generation: int) -> None:
    assert sizes.generation(server_type) == generation


@pytest.mark.parametrize(
    ("server_type", "disk"),
    [
        *((name, "Premium_LRS") for name in ("Standard_D4as_v5", "Standard_DS2_v2", "Standard_GS1", "Standard_B1ls")),
        *((name, "Premium_LRS") for name in ("Standard_NC24ads_A100_v4", "Standard_ND96isr_MI300X_v5")),
        *((name, "Premium_LRS") for name in ("Standard_E96-48s_v5", "Standard_M896ixds_32_v3", "Standard_D4ps_v6")),
        *(
            (name, "StandardSSD_LRS")
            for name in ("Standard_D2_v3", "Standard_A2m_v2", "Standard_D4d_v5", "Standard_NC6")
        ),
        *((name, "StandardSSD_LRS") for name in ("Standard_H16r", "Standard_D4a_v4", "Basic_A1", "nonsense")),
    ],
)
def test_only_sizes_with_premium_storage_get_a_premium_disk(server_type: str, disk: str) -> None:
    assert sizes.disk_type(server_type) == disk


@pytest.mark.parametrize(
    ("server_type", "confidential"),
    [
        *((name, True) for name in ("Standard_DC2as_v5", "Standard_EC128ieds_v5", "Standard_NCC40ads_H100_v5")),
        *((name, False) for name in ("Standard_DC2s_v3", "Standard_DC8_v2", "Standard_DC4as_cc_v5", "Standard_D4s_v5")),
    ],
)
def test_confidential_sizes_are_known(server_type: str, confidential: bool) -> None:
    assert sizes.confidential(server_type) is confidential


@pytest.mark.parametrize(
    ("name", "server_type", "architecture", "sku"),
    [
        ("ubuntu-24.04", "Standard_D4s_v5", X86_64, "server"),
        ("ubuntu-24.04", "Standard_D2_v3", X86_64, "server-gen1"),
        ("ubuntu-24.04", "Standard_D4ps_v6", ARM64, "server-arm64"),
        ("ubuntu-24.04", "Standard_DC2as_v5", X86_64, "cvm"),
        ("debian-12", "Standard_D4s_v5", X86_64, "12-gen2"),
        ("debian-12", "Standard_A2_v2", X86_64, "12"),
        ("debian-12", "Standard_B2pts_v2", ARM64, "12-arm64"),
    ],
)
def test_the_image_follows_architecture_and_generation(
    name: str, server_type: str, architecture: str, sku: str
) -> None:
    chosen = sizes.image(name, server_type, architecture)
    assert chosen.sku == sku
    assert (chosen.publisher, chosen.offer, chosen.sku) in azure_rules.IMAGES


def test_an_image_that_is_not_there_is_said_before_anything_is_made() -> None:
    with pytest.raises(BenchctlError, match="boots confidential images alone"):
        sizes.image("debian-12", "Standard_DC2as_v5", X86_64)
    with pytest.raises(BenchctlError, match="'plan9' is no image"):
        sizes.image("plan9", "Standard_D4s_v5", X86_64)


@pytest.mark.parametrize("server_type", list(azure_rules.SKUS))
def test_what_is_read_from_names_suits_azure_s_own_list(server_type: str) -> None:
    """The emulation's table has the capabilities as Azure lists them."""
    known = azure_rules.SKUS[server_type]
    architecture = ARM64 if known.architecture == "Arm64" else X86_64
    chosen = sizes.image("ubuntu-24.04", server_type, architecture)
    boots, generation, confidential = azure_rules.IMAGES[chosen.publisher, chosen.offer, chosen.sku]
    assert boots == known.architecture
    assert generation in known.generations
    assert confidential is known.confidential
    assert known.premium or sizes.disk_type(server_type) != "Premium_LRS"


def test_regions_without_zones_get_none() -> None:
    assert (zones_of(""), zones_of("0"), zones_of("2")) == (None, None, ["2"])


def test_everything_is_a_job_s_own_and_named_after_its_server() -> None:
    spec = instance_spec("azure", "Standard_D4as_v5", "westeurope", job="a" * 60)
    resources = CLOUD.resources(spec)
    assert resources[0].kind == "server"
    assert resources[0].name == spec.name
    assert len({one.name for one in resources}) == len(resources)
    assert all(one.name.startswith(spec.name) and len(one.name) <= 80 for one in resources)
    assert CLOUD.shared_scope("westeurope") is None
    assert CLOUD.shared_resources(shared_spec("azure")) == ()
    assert CLOUD.user(spec) not in azure_rules.ADMINS
    assert cloud_of("azure") is CLOUD


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        (PRINCIPAL, ""),
        ({name.replace("ARM_", "AZURE_"): value for name, value in PRINCIPAL.items()}, ""),
        ({"ARM_USE_MSI": "true", "ARM_SUBSCRIPTION_ID": "s"}, ""),
        ({"ARM_USE_OIDC": "true", "ARM_OIDC_TOKEN": "hush", **PRINCIPAL, "ARM_CLIENT_SECRET": ""}, ""),
        ({"ARM_USE_MSI": "true"}, "lacks ARM_SUBSCRIPTION_ID"),
        ({**PRINCIPAL, "ARM_TENANT_ID": ""}, "lacks ARM_TENANT_ID: set it"),
        ({"ARM_CLIENT_SECRET": "hush"}, "lacks ARM_CLIENT_ID and ARM_TENANT_ID and ARM_SUBSCRIPTION_ID: set them"),
        ({**PRINCIPAL, "ARM_CLIENT_SECRET": ""}, "lacks ARM_CLIENT_SECRET"),
        ({}, "no login found: set ARM_CLIENT_ID, ARM_CLIENT_SECRET, ARM_TENANT_ID and ARM_SUBSCRIPTION_ID"),
        ({**PRINCIPAL, "ARM_ENVIRONMENT": "mars"}, "Azure's clouds are public, usgovernment, china"),
    ],
)
def test_what_lacks_for_a_login_is_one_sentence_with_what_to_set(environment: dict[str, str], problem: str) -> None:
    said = problem_of(environment)
    assert (problem in said) if problem else said == ""
    assert "hush" not in said
    assert bool(CLOUD.login_problem(environment)) is bool(problem)


def test_the_login_of_az_is_enough(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": str(tmp_path)}
    assert "az login" in problem_of(environment)
    profile = tmp_path / ".azure" / "azureProfile.json"
    profile.parent.mkdir()
    subscriptions = [{"id": "other", "isDefault": False}, {"id": "mine", "isDefault": True}]
    profile.write_text(json.dumps({"subscriptions": subscriptions}), encoding="utf-8-sig")
    assert "there is no 'az' on PATH" in problem_of(environment)
    (tmp_path / "az").touch(mode=0o755)
    assert problem_of(environment) == ""
    assert login_of(environment).subscription == "mine"
    assert engine_environment(environment) == {"ARM_SUBSCRIPTION_ID": "mine"}
    profile.write_text("[")
    assert "left no subscription" in problem_of(environment)


def test_the_engine_gets_what_its_provider_reads_and_nothing_else() -> None:
    names = {name.replace("ARM_", "AZURE_"): value for name, value in PRINCIPAL.items()}
    given = {**names, "ARM_METADATA_HOSTNAME": "local", "AWS_SECRET_ACCESS_KEY": "hush", "HOME": "/root"}
    assert CLOUD.engine_environment(given) == {**PRINCIPAL, "ARM_METADATA_HOSTNAME": "local"}


def test_a_login_does_not_show_its_secrets() -> None:
    login = login_of({**PRINCIPAL, "ARM_CLIENT_CERTIFICATE_PASSWORD": "hush"})
    assert login.secret == PRINCIPAL["ARM_CLIENT_SECRET"]
    assert "hush" not in repr(login)


@pytest.mark.parametrize(
    ("cloud", "manager", "authority"),
    [
        ("public", "https://management.azure.com/", "https://login.microsoftonline.com"),
        ("usgovernment", "https://management.usgovcloudapi.net/", "https://login.microsoftonline.us"),
        ("china", "https://management.chinacloudapi.cn/", "https://login.chinacloudapi.cn"),
    ],
)
def test_azure_s_own_clouds_are_known_without_asking(cloud: str, manager: str, authority: str) -> None:
    found = endpoints_of(login_of({**PRINCIPAL, "ARM_ENVIRONMENT": cloud}))
    assert (found.manager, found.scope, found.authority) == (manager, f"{manager}.default", authority)


def test_a_cloud_that_does_not_tell_where_it_is_is_an_error_with_its_mend() -> None:
    with pytest.raises(CloudError, match="does not tell where its cloud is") as caught:
        endpoints_of(login_of({**PRINCIPAL, "ARM_METADATA_HOSTNAME": "127.0.0.1:9"}))
    assert "ARM_METADATA_HOSTNAME" in caught.value.mend


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        (PRINCIPAL, "ClientSecretCredential"),
        ({"ARM_USE_MSI": "true", "ARM_SUBSCRIPTION_ID": "s"}, "ManagedIdentityCredential"),
        (
            {**PRINCIPAL, "ARM_CLIENT_SECRET": "", "ARM_USE_OIDC": "1", "ARM_OIDC_TOKEN": "x"},
            "ClientAssertionCredential",
        ),
        ({}, "DefaultAzureCredential"),
    ],
)
def test_the_login_picks_azure_s_credential(environment: dict[str, str], kind: str) -> None:
    login = login_of(environment)
    assert type(credential_of(login, endpoints_of(login))).__name__ == kind
