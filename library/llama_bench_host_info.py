#!/usr/bin/python
"""Ansible module: what the target machine is."""

# Copyright: (c) 2026, the benchctl authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: llama_bench_host_info
short_description: Tell what a machine is, as far as it decides the speed of LLMs
version_added: "0.1.0"
description:
  - Reads CPU, physical cores, control group limits, memory, NUMA nodes, frequency governor, hypervisor, container and
    NVIDIA GPUs of the target. Host name, addresses and serial numbers are not among the facts, which can be published.
  - Says how many threads llama-bench should get, and to which CPUs they would be pinned.
options:
  paths:
    description: Folders whose file systems' room is wanted. They need not exist yet.
    type: list
    elements: path
    default: []
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It changes nothing.
requirements:
  - Linux, Python 3.9 or newer
seealso:
  - module: llama_bench
author:
  - The benchctl authors (@benchctl)
"""

EXAMPLES = r"""
- name: Find out what the machine is
  llama_bench_host_info:
    paths:
      - /var/lib/llama_bench/models
  register: machine

- name: Show how many threads a measurement would use
  ansible.builtin.debug:
    msg: "{{ machine.threads }} threads on {{ machine.host.cpu_model }}"
"""

RETURN = r"""
host:
  description: The facts. Empty text and null mean that something could not be read.
  returned: success
  type: dict
  contains:
    cpu_model:
      description: Name of the CPU, for ARM made from the numbers of its core.
      type: str
      sample: AWS Graviton3 (Neoverse-V1)
    architecture:
      description: Machine architecture.
      type: str
      sample: aarch64
    logical_cpus:
      description: Hardware threads that a process may use.
      type: int
      sample: 16
    physical_cores:
      description: Cores that these belong to.
      type: int
      sample: 8
    cores:
      description: The logical CPUs by core.
      type: list
      elements: list
    smt:
      description: Whether two usable hardware threads share a core.
      type: bool
    cpu_quota:
      description: Limit of the control group in cores, or null.
      type: float
    numa_nodes:
      description: The memory nodes with C(node), C(cpus) and C(memory_bytes).
      type: list
      elements: dict
    memory_bytes:
      description: The machine's memory or the control group's limit, whichever is less.
      type: int
    memory_available_bytes:
      description: What of it can be had now without swapping.
      type: int
    swap_bytes:
      description: Size of the swap space.
      type: int
    governor:
      description: Frequency governor(s).
      type: str
    clock_mhz:
      description: Clock of the first usable CPU now, or null.
      type: float
    clock_max_mhz:
      description: Its highest clock, or null.
      type: float
    turbo:
      description: C(on), C(off) or empty.
      type: str
    hypervisor:
      description: C(kvm), C(xen), C(hyperv), ..., C(unknown), or empty for none.
      type: str
    machine:
      description: DMI vendor and product.
      type: str
      sample: Amazon EC2 c7g.large
    container:
      description: C(docker), C(podman), C(lxc), ..., or empty.
      type: str
    kernel:
      description: Release of the kernel.
      type: str
    os:
      description: Name and version of the distribution.
      type: str
      sample: Debian GNU/Linux 12 (bookworm)
    python:
      description: Version of the Python that looked.
      type: str
    gpus:
      description: The GPUs with C(index), C(name), C(memory_bytes), C(memory_free_bytes), C(driver) and
        C(compute_capability).
      type: list
      elements: dict
    transparent_hugepages:
      description: The setting in force.
      type: str
      sample: madvise
    load1:
      description: Load average over one minute.
      type: float
    disks:
      description: Room for each of O(paths), with C(path), C(total_bytes) and C(free_bytes).
      type: list
      elements: dict
threads:
  description: Threads that llama-bench should get.
  returned: success
  type: int
  sample: 8
cpu_mask:
  description: Hex mask of the CPUs that they are pinned to; empty when they are not pinned.
  returned: success
  type: str
  sample: "0xff"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llama_bench_core import host


def main() -> None:
    """Look, and answer."""
    module = AnsibleModule(
        argument_spec={"paths": {"type": "list", "elements": "path", "default": []}},
        supports_check_mode=True,
    )
    facts = host.gather(paths=module.params["paths"])
    module.exit_json(
        changed=False,
        host=facts.to_dict(),
        threads=host.recommended_threads(facts),
        cpu_mask=host.affinity_mask(facts),
    )


if __name__ == "__main__":
    main()
