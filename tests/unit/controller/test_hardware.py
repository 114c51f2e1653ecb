from __future__ import annotations

from dataclasses import replace

import pytest
from benchctl.hardware import Facts, family_of, series_of

M5 = Facts("aws", "m5.large", "nitro", "Intel", "8259CL", 2, 1, "DEDICATED", None, 0)
L40S = Facts("aws", "g6e.xlarge", "nitro", "AMD", "7R13", 4, 2, "DEDICATED", "L40S", 1, 46068)


@pytest.mark.parametrize(
    ("vendor", "name", "series"),
    [
        ("aws", "m5dn.2xlarge", "m5"),
        ("aws", "m5.metal", "m5"),
        ("aws", "m7i-flex.large", "m7-flex"),
        ("aws", "u-6tb1.metal", None),
        ("azure", "Standard_D96lds_v6", "D_v6"),
        ("azure", "Standard_E64-32ds_v4", "E_v4"),
        ("azure", "Standard_DS13_v2", "DS_v2"),
        ("azure", "Standard_DC16as_cc_v5", "DC_cc_v5"),
        ("azure", "Standard_NC24ads_A100_v4", "NC_A100_v4"),
        ("azure", "Standard_F8s", "F"),
        ("gcp", "n2d-highmem-8", "n2d"),
        ("gcp", "c4a-standard-4", "c4a"),
        ("upcloud", "HIMEM-8xCPU-192GB", "HIMEM"),
        ("upcloud", "8xCPU-32GB", ""),
        ("hcloud", "cpx31", "cpx"),
        ("local", "desk", None),
    ],
)
def test_series(vendor: str, name: str, series: str | None) -> None:
    """The name of a server type says series and generation, whatever disk, network or memory is sold with it."""
    assert series_of(vendor, name) == series


@pytest.mark.parametrize("name", ["m5d.large", "m5n.large", "m5dn.large"])
def test_more_disk_or_network_is_the_same_hardware(name: str) -> None:
    """m5, m5d, m5n and m5dn are one family on the CPU."""
    assert family_of(replace(M5, name=name), on_gpu=False) == family_of(M5, on_gpu=False)


@pytest.mark.parametrize(
    "other",
    [
        replace(M5, name="m6i.large"),
        replace(M5, vcpus=4),
        replace(M5, cpu_cores=2),
        replace(M5, cpu_model="8275CL"),
        replace(M5, hypervisor=None),
        replace(M5, cpu_allocation="BURSTABLE"),
        replace(M5, vendor="azure", name="Standard_M5_v1"),
    ],
)
def test_other_hardware(other: Facts) -> None:
    """Another generation, CPU, size, hypervisor, kind of allocation or vendor is another family."""
    assert family_of(other, on_gpu=False) != family_of(M5, on_gpu=False)


def test_a_gpu_is_the_same_in_hosts_of_all_sizes() -> None:
    """On the GPU the host does not count; the number of GPUs and their memory do."""
    family = family_of(L40S, on_gpu=True)
    assert family is not None
    assert family.label == "aws 1x L40S 45 GiB"
    assert family_of(replace(L40S, name="g6e.16xlarge", vcpus=64, cpu_cores=32), on_gpu=True) == family
    assert family_of(replace(L40S, gpu_count=4), on_gpu=True) != family
    assert family_of(replace(L40S, gpu_memory_mib=92_000), on_gpu=True) != family
    assert family_of(L40S, on_gpu=False) != family


@pytest.mark.parametrize(
    ("facts", "on_gpu"),
    [
        (replace(M5, vendor="local", name="desk"), False),
        (replace(M5, cpu_model=None), False),
        (replace(M5, vcpus=0), False),
        (M5, True),
        (replace(M5, vendor="newcloud"), False),
    ],
)
def test_what_nothing_else_is_like(facts: Facts, on_gpu: bool) -> None:
    """A machine of one's own, and a type of which the catalogue knows too little, have no family."""
    assert family_of(facts, on_gpu) is None
