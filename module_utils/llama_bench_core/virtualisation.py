"""Which hypervisor and which kind of container a process runs in, from DMI, sysfs and the marks that they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import cpu

if TYPE_CHECKING:
    from .tree import Tree

# DMI sys_vendor or product_name to the hypervisor behind it, as systemd-detect-virt knows them
# (src/basic/virt.c); cloud vendors that are not in its list run KVM.
_HYPERVISORS = (
    ("vmware", "vmware"),
    ("innotek", "oracle"),
    ("virtualbox", "oracle"),
    ("xen", "xen"),
    ("bhyve", "bhyve"),
    ("parallels", "parallels"),
    ("qemu", "kvm"),
    ("kvm", "kvm"),
    ("amazon ec2", "kvm"),
    ("google", "kvm"),
    ("hetzner", "kvm"),
    ("upcloud", "kvm"),
    ("digitalocean", "kvm"),
    ("openstack", "kvm"),
    ("red hat", "kvm"),
    ("firecracker", "kvm"),
)


def hypervisor(tree: Tree, blocks: list[dict[str, str]], vendor: str, product: str) -> str:
    """The hypervisor under this machine: ``kvm``, ``xen``, ``hyperv``, ...

    Args:
        tree: where /sys is.
        blocks: the processors of /proc/cpuinfo; x86 guests have the flag ``hypervisor``, ARM has no such thing.
        vendor: DMI sys_vendor.
        product: DMI product_name; bare-metal types of clouds end in ``metal``.

    Returns:
        Its name, ``unknown`` when there is one that does not say which, empty when none shows.
    """
    kind = tree.text("/sys/hypervisor/type")
    if kind:
        return kind
    if product.endswith((".metal", "-metal")) or ".metal-" in product:
        return ""
    if vendor == "Microsoft Corporation" and product == "Virtual Machine":
        return "hyperv"
    known = f"{vendor} {product}".lower()
    for mark, name in _HYPERVISORS:
        if mark in known:
            return name
    return "unknown" if "hypervisor" in cpu.flags(blocks) else ""


def container(tree: Tree) -> str:
    """The kind of container that this process is in, by the marks that each kind leaves; empty for none."""
    named = tree.text("/run/systemd/container")
    if named:
        return named
    for variable in (tree.text("/proc/1/environ") or "").split("\0"):
        if variable.startswith("container="):
            return variable.partition("=")[2]
    if tree.exists("/run/.containerenv"):
        return "podman"
    if tree.exists("/.dockerenv"):
        return "docker"
    groups = tree.text("/proc/1/cgroup") or ""
    for mark, name in (("kubepods", "kubernetes"), ("/docker", "docker"), ("libpod", "podman"), ("/lxc", "lxc")):
        if mark in groups:
            return name
    return ""
