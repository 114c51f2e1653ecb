"""What the emulated Azure refuses, in Azure's words, each with its source.

Sizes here are a few real ones with their capabilities as Azure's list of SKUs has them (HyperVGenerations, PremiumIO,
CpuArchitectureType), written down apart from what the product reads from names, so that one checks the other. Sizes
that are not in the table are taken as they come, as long as they have the form of a name.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emulation.refusals import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

ERRORS = "https://learn.microsoft.com/troubleshoot/azure/virtual-machines/windows/error-messages"
"""Microsoft's "Azure virtual machine error messages"."""

GROUP, NETWORK = "azure-native:resources:ResourceGroup", "azure-native:network:VirtualNetwork"
SUBNET, FIREWALL = "azure-native:network:Subnet", "azure-native:network:NetworkSecurityGroup"
ADDRESS, INTERFACE = "azure-native:network:PublicIPAddress", "azure-native:network:NetworkInterface"
SERVER = "azure-native:compute:VirtualMachine"


@dataclass(frozen=True)
class Words:
    """What Azure says: text, code, status."""

    text: str
    code: str
    status: int
    source: str

    def format(self, **values: Any) -> tuple[str, str, int]:
        """The three of them, filled in."""
        return self.text.format(**values), self.code, self.status


QUOTA = Words(
    "Operation could not be completed as it results in exceeding approved {family} Cores quota. Additional details - "
    "Deployment Model: Resource Manager, Location: {location}, Current Limit: 0, Current Usage: 0, "
    "Additional Required: "
    "4, (Minimum) New Limit Required: 4. Setup Alerts when Quota reaches threshold. Learn more at "
    "https://aka.ms/quotamonitoringalerting . Submit a request for Quota increase at https://aka.ms/ProdportalCRP/",
    "OperationNotAllowed",
    409,
    "tests/cases/refusals/vendors.yml: recorded by Spare Cores' runner, through pulumi-azure-native",
)
SOLD_OUT = Words(
    "The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: {size}' "
    "is currently not "
    "available in location '{location}'. Please try another size or deploy to a different location or different zone. "
    "See https://aka.ms/azureskunotavailable for details.",
    "SkuNotAvailable",
    409,
    "https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-sku-not-available",
)
NO_ROOM = Words(
    "Allocation failed. We do not have sufficient capacity for the requested VM size in this region. Read more about "
    "improving likelihood of allocation success at https://aka.ms/allocation-guidance",
    "AllocationFailed",
    409,
    "https://learn.microsoft.com/troubleshoot/azure/virtual-machines/windows/allocation-failure",
)
NO_ROOM_IN_ZONE = Words(
    "Allocation failed. We do not have sufficient capacity for the requested VM size in this zone. Read more about "
    "improving likelihood of allocation success at https://aka.ms/allocation-guidance",
    "ZonalAllocationFailed",
    409,
    ""
    "https://learn.microsoft.com/troubleshoot/azure/azure-kubernetes/error-codes/zonalallocation-allocationfailed-error",
)
TIMED_OUT = Words(
    "OS Provisioning for VM '{name}' did not finish in the allotted time. The VM may still finish provisioning "
    "successfully. Please check provisioning state later.",
    "OSProvisioningTimedOut",
    409,
    ERRORS,
)
THROTTLED = Words(
    "Number of 'write' requests for subscription '{subscription}' exceeded. Please try again after '10' seconds.",
    "SubscriptionRequestsThrottled",
    429,
    "https://learn.microsoft.com/troubleshoot/azure/azure-kubernetes/error-codes/subscriptionrequeststhrottled-error",
)
UNAUTHORIZED = Words(
    "The client '22222222-3333-4444-5555-666666666666' with object id '22222222-3333-4444-5555-666666666666' does not "
    "have authorization to perform action 'Microsoft.Resources/subscriptions/resourcegroups/write' over scope "
    "'/subscriptions/{subscription}' or the scope is invalid. If access was recently granted, please refresh your "
    "credentials.",
    "AuthorizationFailed",
    403,
    "https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors",
)
DOWN = Words(
    "Encountered internal server error. Diagnostic information: timestamp '20261101T000000Z', subscription id "
    "'{subscription}'.",
    "InternalServerError",
    500,
    "https://github.com/Azure/azure-sdk-for-python/issues, errors of the Resource Manager itself",
)
NO_TOKEN = Words(
    "The access token is missing or invalid.",
    "InvalidAuthenticationToken",
    401,
    "https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors",
)
BAD_LOGIN = (
    "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret "
    "value, not the client secret ID, for a secret added to app '22222222-3333-4444-5555-666666666666'."
)
"""https://learn.microsoft.com/entra/identity-platform/reference-error-codes"""

IN_USE: Mapping[str, Words] = {
    "interface": Words(
        "Network Interface {id} is used by existing resource {holder}. In order to delete the network "
        "interface, it must "
        "be dissociated from the resource. To learn more, see aka.ms/deletenic.",
        "NicInUse",
        400,
        "https://aka.ms/deletenic",
    ),
    "address": Words(
        "Public IP address {id} can not be deleted since it is still allocated to resource "
        "{holder}/ipConfigurations/first.",
        "PublicIPAddressCannotBeDeleted",
        400,
        "https://github.com/hashicorp/packer/issues, log of the azure-arm builder's clean-up",
    ),
    "disk": Words(
        "Disk {name} is attached to VM {holder}.",
        "OperationNotAllowed",
        409,
        "https://github.com/Azure/AKS/issues, log of the volume controller",
    ),
    "firewall": Words(
        "Network security group {id} cannot be deleted because it is in use by the following resources: {holder}.",
        "InUseNetworkSecurityGroupCannotBeDeleted",
        400,
        "https://aka.ms/deletensg",
    ),
    "subnet": Words(
        "Subnet {name} is in use by {holder}/ipConfigurations/first and cannot be deleted. In order to "
        "delete the subnet, "
        "delete all the resources within the subnet. See aka.ms/deletesubnet.",
        "InUseSubnetCannotBeDeleted",
        400,
        "https://aka.ms/deletesubnet",
    ),
    "network": Words(
        "Subnet {name} is in use by {holder}/ipConfigurations/first and cannot be deleted. In order to "
        "delete the subnet, "
        "delete all the resources within the subnet. See aka.ms/deletesubnet.",
        "InUseSubnetCannotBeDeleted",
        400,
        "https://aka.ms/deletesubnet",
    ),
}
"""Why a thing can't be deleted yet."""


# -- what Azure has --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sku:
    """One size, as Azure's list of SKUs has it."""

    generations: tuple[int, ...] = (1, 2)
    premium: bool = True
    architecture: str = "x64"
    confidential: bool = False
    family: str = ""


SKUS: Mapping[str, Sku] = {
    "Standard_A2_v2": Sku((1,), premium=False, family="standardAv2Family"),
    "Standard_D2_v2": Sku((1,), premium=False, family="standardDv2Family"),
    "Standard_DS2_v2": Sku(family="standardDSv2Family"),
    "Standard_D2_v3": Sku((1,), premium=False, family="standardDv3Family"),
    "Standard_D2s_v3": Sku(family="standardDSv3Family"),
    "Standard_E4_v3": Sku((1,), premium=False, family="standardEv3Family"),
    "Standard_D4_v5": Sku((1, 2), premium=False, family="standardDv5Family"),
    "Standard_D4as_v5": Sku(family="standardDASv5Family"),
    "Standard_D4s_v6": Sku((2,), family="StandardDsv6Family"),
    "Standard_D4ps_v6": Sku((2,), architecture="Arm64", family="StandardDpsv6Family"),
    "Standard_B2pts_v2": Sku((2,), architecture="Arm64", family="standardBpsv2Family"),
    "Standard_NC6": Sku((1,), premium=False, family="standardNCFamily"),
    "Standard_NC4as_T4_v3": Sku(family="Standard NCASv3_T4 Family"),
    "Standard_NC24ads_A100_v4": Sku((2,), family="StandardNCADSA100v4Family"),
    "Standard_NP10s": Sku((1,), family="standardNPSFamily"),
    "Standard_DC2as_v5": Sku((2,), confidential=True, family="standardDCASv5Family"),
    "Standard_DC2s_v3": Sku((2,), family="standardDCSv3Family"),
}

IMAGES: Mapping[tuple[str, str, str], tuple[str, int, bool]] = {
    ("Canonical", "ubuntu-24_04-lts", "server"): ("x64", 2, False),
    ("Canonical", "ubuntu-24_04-lts", "server-gen1"): ("x64", 1, False),
    ("Canonical", "ubuntu-24_04-lts", "server-arm64"): ("Arm64", 2, False),
    ("Canonical", "ubuntu-24_04-lts", "cvm"): ("x64", 2, True),
    ("Debian", "debian-12", "12"): ("x64", 1, False),
    ("Debian", "debian-12", "12-gen2"): ("x64", 2, False),
    ("Debian", "debian-12", "12-arm64"): ("Arm64", 2, False),
}
"""Architecture, generation, and whether it boots confidential VMs. All are 30 GB."""

IMAGE_GB = 30

LOCATIONS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("eastus", "eastus2", "northeurope", "westeurope", "swedencentral", "uksouth"), ("1", "2", "3")),
    **dict.fromkeys(("westus", "northcentralus", "westcentralus", "ukwest"), ()),
}
"""Regions and their zones: a selection."""

NOT_OFFERED = {("Standard_NC24ads_A100_v4", "westcentralus")}

ADMINS = frozenset(
    [
        "administrator",
        "admin",
        "user",
        "user1",
        "test",
        "user2",
        "test1",
        "user3",
        "admin1",
        "1",
        "123",
        "a",
        "actuser",
        "adm",
        "admin2",
        "aspnet",
        "backup",
        "console",
        "david",
        "guest",
        "john",
        "owner",
        "root",
        "server",
        "sql",
        "support",
        "support_388945a0",
        "sys",
        "test2",
        "test3",
        "user4",
        "user5",
    ]
)
"""Names that nobody may log in by: docstring of ``OSProfileArgs.admin_username`` in pulumi_azure_native.compute."""

SIZE_NAME = re.compile(r"(?:Standard|Basic)_[A-Z]+\d+(?:-\d+)?[a-z]*(?:_[A-Za-z0-9]+)*")


def sku(size: str) -> Sku | None:
    """What Azure knows of a size; a size that is not in the table boots anything."""
    return SKUS.get(size)


def family(size: str) -> str:
    """The family whose quota a size counts against."""
    known = SKUS.get(size)
    return known.family if known else "Total Regional"


def _size(inputs: Mapping[str, Any]) -> str:
    return str(inputs.get("hardwareProfile", {}).get("vmSize", ""))


def _image(inputs: Mapping[str, Any]) -> tuple[str, str, str]:
    reference = inputs.get("storageProfile", {}).get("imageReference", {})
    return reference.get("publisher", ""), reference.get("offer", ""), reference.get("sku", "")


def _disk(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    disk: Mapping[str, Any] = inputs.get("storageProfile", {}).get("osDisk", {})
    return disk


def _profile(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    profile: Mapping[str, Any] = inputs.get("osProfile", {})
    return profile


def _keys(inputs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    linux = _profile(inputs).get("linuxConfiguration", {})
    return list(linux.get("ssh", {}).get("publicKeys", []))


def _wrong_generation(_: Any, inputs: Mapping[str, Any]) -> bool:
    size, image = sku(_size(inputs)), IMAGES.get(_image(inputs))
    return size is not None and image is not None and image[1] not in size.generations


def _wrong_architecture(_: Any, inputs: Mapping[str, Any]) -> bool:
    size, image = sku(_size(inputs)), IMAGES.get(_image(inputs))
    return size is not None and image is not None and image[0] != size.architecture


def _wrong_disk(_: Any, inputs: Mapping[str, Any]) -> bool:
    size = sku(_size(inputs))
    return size is not None and not size.premium and _disk_type(inputs).startswith("Premium")


def _disk_type(inputs: Mapping[str, Any]) -> str:
    return str(_disk(inputs).get("managedDisk", {}).get("storageAccountType", "Standard_LRS"))


def _unprotected(_: Any, inputs: Mapping[str, Any]) -> bool:
    size = sku(_size(inputs))
    return size is not None and size.confidential and not (inputs.get("securityProfile") or {}).get("securityType")


def _bad_custom_data(_: Any, inputs: Mapping[str, Any]) -> bool:
    data = str(_profile(inputs).get("customData") or "")
    try:
        base64.b64decode(data, validate=True)
    except binascii.Error:
        return True
    return len(data) > 87380


def _bad_key(_: Any, inputs: Mapping[str, Any]) -> bool:
    return any(not re.match(r"(ssh-rsa|ssh-ed25519) [A-Za-z0-9+/=]+", one.get("keyData", "")) for one in _keys(inputs))


def _bad_key_path(_: Any, inputs: Mapping[str, Any]) -> bool:
    user = _profile(inputs).get("adminUsername")
    return any(one.get("path") != f"/home/{user}/.ssh/authorized_keys" for one in _keys(inputs))


def _bad_prefix(_: Any, inputs: Mapping[str, Any]) -> bool:
    return any(not _is_prefix(one.get("sourceAddressPrefix", "*")) for one in inputs.get("securityRules", []))


def _is_prefix(text: str) -> bool:
    if text in ("*", "Internet", "VirtualNetwork", "AzureLoadBalancer"):
        return True
    try:
        return ipaddress.ip_network(text) is not None
    except ValueError:
        return False


def _outside(vendor: Any, inputs: Mapping[str, Any]) -> bool:
    network = next((one for one in vendor.store.alive("network") if one.name == inputs.get("virtualNetworkName")), None)
    if network is None:
        return False
    space = [ipaddress.ip_network(one) for one in network.data["addressSpace"]["addressPrefixes"]]
    subnet = ipaddress.ip_network(inputs["addressPrefix"])
    return not any(subnet.subnet_of(one) for one in space)  # type: ignore[arg-type]


def _lost_reference(vendor: Any, inputs: Mapping[str, Any]) -> str:
    for one in inputs.get("ipConfigurations", []):
        for key in ("subnet", "publicIPAddress"):
            reference = (one.get(key) or {}).get("id", "")
            if reference and vendor.thing(reference) is None:
                return str(reference)
    return ""


def _changed(vendor: Any, inputs: Mapping[str, Any]) -> str:
    """Of a VM that exists already under this name, what can't be changed any more."""
    before = next((one for one in vendor.store.alive("server") if one.name == inputs.get("vmName")), None)
    if before is None or before.id.split("/")[4].lower() != str(inputs.get("resourceGroupName")).lower():
        return ""
    old, new = before.data, inputs
    pairs = {
        "imageReference": (old["storageProfile"]["imageReference"], new["storageProfile"]["imageReference"]),
        "osDisk.name": (_disk(old).get("name"), _disk(new).get("name")),
        "osProfile": (old["osProfile"], new["osProfile"]),
    }
    return next((name for name, (one, other) in pairs.items() if one != other), "")


def _bad_tags(_: Any, inputs: Mapping[str, Any]) -> bool:
    return any(re.search(r"[<>%&\\?/\x00-\x1f]", name) for name in inputs.get("tags") or {})


def _no_zones(_: Any, inputs: Mapping[str, Any]) -> bool:
    return bool(inputs.get("zones")) and not LOCATIONS.get(inputs.get("location", ""), ("1",))


def _wrong_zone(_: Any, inputs: Mapping[str, Any]) -> bool:
    there = LOCATIONS.get(inputs.get("location", ""), ())
    return bool(inputs.get("zones")) and bool(there) and any(zone not in there for zone in inputs["zones"])


def _plain(**values: Any) -> Any:
    """Values of a text: functions of the vendor and the inputs, or as they are."""
    return lambda vendor, inputs: {
        key: value(vendor, inputs) if callable(value) else value for key, value in values.items()
    }


_TAG_RULES = tuple(
    Rule(
        f"tag-characters-{kind.rpartition(':')[2]}",
        kind,
        _bad_tags,
        "The tag names '{names}' have reserved characters '<,>,%,&,\\,?,/' or control characters.",
        "https://learn.microsoft.com/cli/azure/manage-azure-groups-azure-cli (error of 'az tag')",
        "InvalidTagNameCharacters",
        400,
        _plain(names=lambda _, inputs: ", ".join(inputs["tags"])),
    )
    for kind in (GROUP, NETWORK, FIREWALL, ADDRESS, INTERFACE, SERVER)
)

RULES: tuple[Rule, ...] = (
    *_TAG_RULES,
    Rule(
        "group-location",
        GROUP,
        lambda _, inputs: inputs.get("location") not in LOCATIONS,
        "The provided location '{location}' is not available for resource group. List of available regions is "
        "'eastus,eastus2,northeurope,westeurope,swedencentral,uksouth,westus,northcentralus,westcentralus,ukwest'.",
        "https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors",
        "LocationNotAvailableForResourceGroup",
    ),
    Rule(
        "group-moved",
        GROUP,
        lambda vendor, inputs: any(
            one.name == inputs["resourceGroupName"] and one.data["location"] != inputs["location"]
            for one in vendor.store.alive("group")
        ),
        "Invalid resource group location '{location}'. The Resource group already exists in location '{there}'.",
        "https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors",
        "InvalidResourceGroupLocation",
        409,
        _plain(
            location=lambda _, inputs: inputs["location"],
            there=lambda vendor, inputs: next(
                one.data["location"] for one in vendor.store.alive("group") if one.name == inputs["resourceGroupName"]
            ),
        ),
    ),
    Rule(
        "subnet-outside",
        SUBNET,
        _outside,
        "Subnet '{subnetName}' is not valid in virtual network '{virtualNetworkName}'.",
        "https://github.com/Azure/azure-powershell, tests of virtual networks",
        "NetcfgInvalidSubnet",
    ),
    Rule(
        "ingress",
        FIREWALL,
        _bad_prefix,
        "Security rule has invalid Address prefix. Value provided: {prefix}",
        "https://learn.microsoft.com/answers (SecurityRuleInvalidAddressPrefix: an address with bits beyond its mask)",
        "SecurityRuleInvalidAddressPrefix",
        400,
        _plain(prefix=lambda _, inputs: inputs["securityRules"][0].get("sourceAddressPrefix")),
    ),
    Rule(
        "address-basic",
        ADDRESS,
        lambda _, inputs: inputs.get("sku", {}).get("name", "Basic") == "Basic",
        "Cannot create more than 0 IPv4 Basic SKU public IP addresses for this subscription in this region.",
        "https://learn.microsoft.com/azure/virtual-network/ip-services/public-ip-basic-upgrade-guidance",
        "IPv4BasicSkuPublicIpCountLimitReached",
    ),
    Rule(
        "address-dynamic",
        ADDRESS,
        lambda _, inputs: inputs.get("publicIPAllocationMethod", "Dynamic") != "Static",
        "Standard sku publicIp {publicIpAddressName} must have AllocationMethod set to Static.",
        "https://learn.microsoft.com/azure/virtual-network/ip-services/public-ip-addresses",
        "StandardAndStandardV2SkuPublicIPAddressesMustBeStatic",
    ),
    Rule(
        "address-zone",
        ADDRESS,
        _no_zones,
        "The resource 'Microsoft.Network/publicIPAddresses/{publicIpAddressName}' does not support availability zones "
        "at location '{location}'.",
        "https://learn.microsoft.com/azure/reliability/availability-zones-region-support",
        "LocationNotSupportAvailabilityZones",
    ),
    Rule(
        "interface-reference",
        INTERFACE,
        lambda vendor, inputs: bool(_lost_reference(vendor, inputs)),
        "Resource {reference} referenced by resource {networkInterfaceName} was not found. Please make sure that the "
        "referenced resource exists, and that both resources are in the same region.",
        "https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-not-found",
        "InvalidResourceReference",
        400,
        _plain(reference=_lost_reference, networkInterfaceName=lambda _, inputs: inputs["networkInterfaceName"]),
    ),
    Rule(
        "changed",
        SERVER,
        lambda vendor, inputs: bool(_changed(vendor, inputs)),
        "Changing property '{name}' is not allowed.",
        "hashicorp/terraform-provider-azurerm, virtual machine resource: why the property forces a new one",
        "PropertyChangeNotAllowed",
        409,
        _plain(name=_changed),
    ),
    Rule(
        "size",
        SERVER,
        lambda _, inputs: not SIZE_NAME.fullmatch(_size(inputs)),
        "The value {size} provided for the VM size is not valid. The valid sizes in the current region are: "
        "Standard_B1ls,Standard_B1ms,Standard_B1s,Standard_B2ms.",
        "https://learn.microsoft.com/troubleshoot/azure/virtual-machines/windows/error-messages",
        "InvalidParameter",
        400,
        _plain(size=lambda _, inputs: _size(inputs)),
    ),
    Rule(
        "not-offered",
        SERVER,
        lambda _, inputs: (_size(inputs), inputs.get("location")) in NOT_OFFERED,
        "The requested VM size {size} is not available in the current region. The sizes available in the "
        "current region "
        "are: Standard_NC4as_T4_v3,Standard_NC8as_T4_v3,Standard_B1ls. Find out more on the available VM sizes in each "
        "region at https://aka.ms/azure-regions.",
        f"{ERRORS}; tests/cases/refusals/vendors.yml",
        "InvalidParameter",
        400,
        _plain(size=lambda _, inputs: _size(inputs)),
    ),
    Rule(
        "zone",
        SERVER,
        _wrong_zone,
        "The zone(s) '{zones}' for resource 'Microsoft.Compute/virtualMachines/{vmName}' is not supported. "
        "The supported "
        "zones for location '{location}' are '1,2,3'",
        "https://learn.microsoft.com/azure/reliability/availability-zones-region-support",
        "InvalidAvailabilityZone",
        400,
        lambda _, inputs: {**inputs, "zones": ",".join(inputs["zones"])},
    ),
    Rule(
        "admin-name",
        SERVER,
        lambda _, inputs: _profile(inputs).get("adminUsername") in ADMINS,
        "The Admin Username specified is not allowed.",
        ERRORS,
        "InvalidParameter",
    ),
    Rule(
        "custom-data",
        SERVER,
        _bad_custom_data,
        "Custom data in OSProfile must be in Base64 encoding and with a maximum length of 87380 characters.",
        ERRORS,
        "InvalidParameter",
    ),
    Rule(
        "ssh-key",
        SERVER,
        _bad_key,
        "The value of parameter linuxConfiguration.ssh.publicKeys.keyData is invalid.",
        "trailofbits/algo, docs/troubleshooting.md",
        "InvalidParameter",
    ),
    Rule(
        "ssh-key-path",
        SERVER,
        _bad_key_path,
        "Destination path for SSH public keys is currently limited to its default value "
        "/home/{user}/.ssh/authorized_keys  due to a known issue in Linux provisioning agent.",
        ERRORS,
        "InvalidParameter",
        400,
        _plain(user=lambda _, inputs: _profile(inputs).get("adminUsername")),
    ),
    Rule(
        "host-name",
        SERVER,
        lambda _, inputs: not re.fullmatch(r"[A-Za-z0-9.-]{1,64}", _profile(inputs).get("computerName", "")),
        "Linux host name cannot exceed 64 characters in length or contain the following characters: ` ~ ! @ "
        "# $ % ^ & * "
        "( ) = + _ [ ] {{ }} \\ | ; : ' \" , < > / ?.",
        ERRORS,
        "InvalidParameter",
    ),
    Rule(
        "image",
        SERVER,
        lambda _, inputs: _image(inputs) not in IMAGES,
        "The platform image '{image}:latest' is not available. Verify that all fields in the storage profile are "
        "correct. For more details about storage profile information, please refer to https://aka.ms/storageprofile",
        "https://learn.microsoft.com/troubleshoot/azure/virtual-machines/windows/error-messages",
        "PlatformImageNotFound",
        404,
        _plain(image=lambda _, inputs: ":".join(_image(inputs))),
    ),
    Rule(
        "architecture",
        SERVER,
        _wrong_architecture,
        "Cannot create a VM of size '{size}' because this VM size only supports a CPU Architecture of "
        "'{wants}', but an "
        "image or disk with CPU Architecture '{has}' was given. Please check that the CPU Architecture of the image or "
        "disk is compatible with that of the VM size.",
        "https://learn.microsoft.com/azure/virtual-machines (New-AzVM of Standard_B2pts_v2 with an x64 image)",
        "BadRequest",
        400,
        _plain(
            size=lambda _, inputs: _size(inputs),
            wants=lambda _, inputs: SKUS[_size(inputs)].architecture,
            has=lambda _, inputs: IMAGES[_image(inputs)][0],
        ),
    ),
    Rule(
        "generation",
        SERVER,
        _wrong_generation,
        "The selected VM size '{size}' cannot boot Hypervisor Generation '{generation}'. If this was a "
        "Create operation "
        "please check that the Hypervisor Generation of the Image matches the Hypervisor Generation of the selected VM "
        "Size. If this was an Update operation please select a Hypervisor Generation '{generation}' VM Size. For more "
        "information, see https://aka.ms/azuregen2vm",
        "https://github.com/redhat-developer/mapt/issues/489, https://github.com/microsoft/ga4gh-tes/issues/43",
        "BadRequest",
        400,
        _plain(size=lambda _, inputs: _size(inputs), generation=lambda _, inputs: IMAGES[_image(inputs)][1]),
    ),
    Rule(
        "security-type",
        SERVER,
        _unprotected,
        "The VM size '{size}' is not supported for creation of VMs and Virtual Machine Scale Set with "
        "'<NULL>' security "
        "type.",
        "GoogleCloudPlatform/PerfKitBenchmarker, perfkitbenchmarker/providers/azure/azure_virtual_machine.py",
        "BadRequest",
        400,
        _plain(size=lambda _, inputs: _size(inputs)),
    ),
    Rule(
        "disk-type",
        SERVER,
        _wrong_disk,
        "Requested operation cannot be performed because the VM size {size} does not support the storage account type "
        "{type} of disk '{disk}'. Consider updating the VM to a size that supports Premium storage.",
        "https://github.com/Azure/AKS/issues, error of VirtualMachineScaleSetVMsClient#Update",
        "InvalidParameter",
        400,
        _plain(
            size=lambda _, inputs: _size(inputs),
            type=lambda _, inputs: _disk_type(inputs),
            disk=lambda _, inputs: _disk(inputs).get("name", ""),
        ),
    ),
    Rule(
        "disk-size",
        SERVER,
        lambda _, inputs: int(_disk(inputs).get("diskSizeGB") or IMAGE_GB) < IMAGE_GB,
        "The specified disk size {size} GB is smaller than the size of the corresponding disk in the VM image: 30 GB. "
        "This is not allowed. Please choose equal or greater size or do not specify an explicit size.",
        "hashicorp/terraform-provider-azurerm, issues on disk_size_gb",
        "OperationNotAllowed",
        409,
        _plain(size=lambda _, inputs: _disk(inputs).get("diskSizeGB")),
    ),
    Rule(
        "eviction",
        SERVER,
        lambda _, inputs: bool(inputs.get("evictionPolicy")) and inputs.get("priority") != "Spot",
        "Eviction policy can be set only on Azure Spot Virtual Machines. For more information, see "
        "http://aka.ms/AzureSpot/errormessages",
        "https://learn.microsoft.com/azure/virtual-machines/error-codes-spot",
        "InvalidParameter",
    ),
)
