"""Azure: one resource group a job, with everything in it, so that one deletion takes all of it.

Nothing is shared between jobs. The cloud has no time limit of its own: a VM that shuts itself down is Stopped, and is
billed on until it is deallocated or deleted. Resources and their arguments:
https://www.pulumi.com/registry/packages/azure-native/.
"""

from __future__ import annotations

import base64
import threading
from typing import TYPE_CHECKING, Any

from benchctl.clouds import azure_sizes as sizes
from benchctl.clouds import boot
from benchctl.clouds.azure_login import engine_environment, login_of, problem_of
from benchctl.clouds.cloud import CloudError
from benchctl.clouds.spec import Asked
from benchctl.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchctl.clouds.cloud import Client
    from benchctl.clouds.spec import InstanceSpec, SharedSpec

CREATE_TIME = "30m"
DELETE_TIME = "30m"
"""How long the engine waits for a VM and for the deletion of a group; PerfKitBenchmarker's create time-out."""

NETWORK = "10.0.0.0/24"
SUBNET = "10.0.0.0/28"
"""Networks of jobs never meet, so all of them have the same addresses; 16 is the least that holds Azure's own five."""

_LOADING = threading.Lock()
"""The SDK's modules load when they are first looked into, and not safely in several threads at once."""

_SUFFIXES = {
    "group": "-group",
    "network": "-network",
    "subnet": "-subnet",
    "firewall": "-firewall",
    "address": "-address",
    "interface": "-interface",
    "disk": "-disk",
}


def name_of(spec: InstanceSpec, kind: str) -> str:
    """What a job's resource of a kind is called."""
    return f"{spec.name}{_SUFFIXES.get(kind, '')}"


def zones_of(zone: str) -> list[str] | None:
    """The zone as a list, as Azure takes it; nothing where the region has none, which the catalogue calls ``0``."""
    return [zone] if zone not in ("", "0") else None


class Azure:
    """The vendor, see :class:`benchctl.clouds.cloud.Cloud`."""

    name = "azure"
    vendor_id = "azure"
    limits_itself = False
    engine_seconds = 2400.0

    def user(self, spec: InstanceSpec) -> str:
        """The image's own user, whom Azure makes; it refuses ``root`` and ``admin``."""
        return boot.login_user(self.name, spec.image)

    def login_problem(self, environment: Mapping[str, str]) -> str:
        """What is missing to log in; empty when something is there."""
        return problem_of(environment)

    def account(self, environment: Mapping[str, str], client: Client) -> str:  # noqa: ARG002
        """The subscription."""
        return login_of(environment).subscription

    def engine_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """What Pulumi's provider reads."""
        return engine_environment(environment)

    def shared_scope(self, region: str) -> str | None:  # noqa: ARG002 - the protocol's
        """Nothing is shared: a network costs nothing, and so one deletion takes all that is a job's."""
        return None

    def shared_resources(self, spec: SharedSpec) -> tuple[Asked, ...]:  # noqa: ARG002 - the protocol's
        """Nothing."""
        return ()

    def shared_program(self, spec: SharedSpec) -> dict[str, Any]:  # noqa: ARG002 - the protocol's
        """Nothing."""
        return {}

    def resources(self, spec: InstanceSpec) -> tuple[Asked, ...]:
        """The server, the group that everything is in, and what else is in it."""
        return Asked("server", spec.name), *(Asked(kind, name_of(spec, kind)) for kind in _SUFFIXES)

    def program(self, spec: InstanceSpec, shared: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG002 - the protocol's
        """A group, a network that admits SSH from one address, a static address, and a VM."""
        import pulumi

        with _LOADING:
            from pulumi_azure_native import compute, network, resources

            group_class, network_class, vm_class = (
                resources.ResourceGroup,
                network.VirtualNetwork,
                compute.VirtualMachine,
            )
        tags = dict(spec.labels)
        patience = pulumi.CustomTimeouts(create=CREATE_TIME, delete=DELETE_TIME)
        group = group_class(
            name_of(spec, "group"),
            resource_group_name=name_of(spec, "group"),
            location=spec.region,
            tags=tags,
            opts=pulumi.ResourceOptions(custom_timeouts=patience),
        )
        # whatever is in the group goes with it: no order of deletions, nothing that is still held by something else
        inside = pulumi.ResourceOptions(deleted_with=group, custom_timeouts=patience)
        net = network_class(
            name_of(spec, "network"),
            virtual_network_name=name_of(spec, "network"),
            resource_group_name=group.name,
            location=spec.region,
            address_space=network.AddressSpaceArgs(address_prefixes=[NETWORK]),
            tags=tags,
            opts=inside,
        )
        subnet = network.Subnet(
            name_of(spec, "subnet"),
            subnet_name=name_of(spec, "subnet"),
            resource_group_name=group.name,
            virtual_network_name=net.name,
            address_prefix=SUBNET,
            opts=inside,
        )
        firewall = network.NetworkSecurityGroup(
            name_of(spec, "firewall"),
            network_security_group_name=name_of(spec, "firewall"),
            resource_group_name=group.name,
            location=spec.region,
            security_rules=[
                # the rest of inbound traffic is dropped by Azure's own last rule
                network.SecurityRuleArgs(
                    name="ssh",
                    priority=100,
                    direction=network.SecurityRuleDirection.INBOUND,
                    access=network.SecurityRuleAccess.ALLOW,
                    protocol=network.SecurityRuleProtocol.TCP,
                    source_address_prefix=spec.ingress,
                    source_port_range="*",
                    destination_address_prefix="*",
                    destination_port_range="22",
                )
            ],
            tags=tags,
            opts=inside,
        )
        address = network.PublicIPAddress(
            name_of(spec, "address"),
            public_ip_address_name=name_of(spec, "address"),
            resource_group_name=group.name,
            location=spec.region,
            zones=zones_of(spec.zone),
            # Basic addresses can't be had any more, and Standard ones are static
            sku=network.PublicIPAddressSkuArgs(name=network.PublicIPAddressSkuName.STANDARD),
            public_ip_allocation_method=network.IPAllocationMethod.STATIC,
            tags=tags,
            opts=inside,
        )
        interface = network.NetworkInterface(
            name_of(spec, "interface"),
            network_interface_name=name_of(spec, "interface"),
            resource_group_name=group.name,
            location=spec.region,
            ip_configurations=[
                network.NetworkInterfaceIPConfigurationArgs(
                    name="first",
                    subnet=network.SubnetArgs(id=subnet.id),
                    public_ip_address=network.PublicIPAddressArgs(id=address.id),
                    private_ip_allocation_method=network.IPAllocationMethod.DYNAMIC,
                )
            ],
            network_security_group=network.NetworkSecurityGroupArgs(id=firewall.id),
            tags=tags,
            opts=inside,
        )
        image = sizes.image(spec.image, spec.server_type, spec.architecture)
        confidential = sizes.confidential(spec.server_type)
        user = self.user(spec)
        custom_data = base64.b64encode(boot.user_data(spec).encode()).decode()
        server = vm_class(
            spec.name,
            vm_name=spec.name,
            resource_group_name=group.name,
            location=spec.region,
            zones=zones_of(spec.zone),
            hardware_profile=compute.HardwareProfileArgs(vm_size=spec.server_type),
            storage_profile=compute.StorageProfileArgs(
                image_reference=compute.ImageReferenceArgs(
                    publisher=image.publisher, offer=image.offer, sku=image.sku, version="latest"
                ),
                os_disk=compute.OSDiskArgs(
                    name=name_of(spec, "disk"),
                    create_option=compute.DiskCreateOptionTypes.FROM_IMAGE,
                    delete_option=compute.DiskDeleteOptionTypes.DELETE,
                    disk_size_gb=spec.disk_gb,
                    managed_disk=compute.ManagedDiskParametersArgs(
                        storage_account_type=sizes.disk_type(spec.server_type),
                        security_profile=compute.VMDiskSecurityProfileArgs(
                            security_encryption_type=compute.SecurityEncryptionTypes.VM_GUEST_STATE_ONLY
                        )
                        if confidential
                        else None,
                    ),
                ),
            ),
            # without a type it is a standard VM, without secure boot, so that drivers of GPUs load
            security_profile=compute.SecurityProfileArgs(
                security_type=compute.SecurityTypes.CONFIDENTIAL_VM,
                uefi_settings=compute.UefiSettingsArgs(secure_boot_enabled=False, v_tpm_enabled=True),
            )
            if confidential
            else None,
            os_profile=compute.OSProfileArgs(
                computer_name=spec.name,
                admin_username=user,
                custom_data=pulumi.Output.secret(custom_data),
                linux_configuration=compute.LinuxConfigurationArgs(
                    disable_password_authentication=True,
                    ssh=compute.SshConfigurationArgs(
                        public_keys=[
                            compute.SshPublicKeyArgs(
                                path=f"/home/{user}/.ssh/authorized_keys", key_data=spec.ssh_public_key
                            )
                        ]
                    ),
                ),
            ),
            network_profile=compute.NetworkProfileArgs(
                network_interfaces=[
                    compute.NetworkInterfaceReferenceArgs(
                        id=interface.id, primary=True, delete_option=compute.DeleteOptions.DELETE
                    )
                ]
            ),
            priority=compute.VirtualMachinePriorityTypes.SPOT if spec.spot else None,
            # Deallocate, the default, would keep the disk, and the bill for it
            eviction_policy=compute.VirtualMachineEvictionPolicyTypes.DELETE if spec.spot else None,
            billing_profile=compute.BillingProfileArgs(max_price=-1) if spec.spot else None,
            tags=tags,
            opts=inside,
        )
        made = {
            "group": group.id,
            "network": net.id,
            "subnet": subnet.id,
            "firewall": firewall.id,
            "address": address.id,
            "interface": interface.id,
            "disk": pulumi.Output.concat(group.id, f"/providers/Microsoft.Compute/disks/{name_of(spec, 'disk')}"),
        }
        # the engine may know the address before the VM is there; whoever gets it wants to log in
        reachable = pulumi.Output.all(address.ip_address, server.id).apply(lambda got: got[0])
        ids = {spec.name: server.id, **{name_of(spec, kind): identifier for kind, identifier in made.items()}}
        return {"address": reachable, "ids": ids}

    def client(self, environment: Mapping[str, str], regions: Sequence[str] = ()) -> Client:  # noqa: ARG002
        """The vendor's own client; one API serves all regions."""
        from benchctl.clouds.azure_client import AzureClient

        problem = problem_of(environment)
        if problem:
            raise CloudError(problem, refusal=Refusal.ACCOUNT)
        return AzureClient(login_of(environment))


CLOUD = Azure()
