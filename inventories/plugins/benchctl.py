"""Ansible inventory plugin: the rented servers that are alive now."""

# Copyright: (c) 2026, the benchctl authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
name: benchctl
short_description: Rented servers that are alive now
description:
  - Reads the books of benchctl's sweeps, and lists every rented server that is alive and lets us in.
  - Groups are C(bench) and C(rented), vendors, C(VENDOR_TYPE), regions, zones, server types as the vendor spells them,
    architectures, C(gpu) and C(cpu), and sweeps.
  - Variables say how a server is reached, by which host key, and what its sweep measures on it. What comes from a
    catalogue is never taken for a template. Private keys are named by their path.
options:
  plugin:
    description: Says that a file is for this plugin.
    required: true
    choices: [benchctl]
  state_dir:
    description: The state directory of benchctl; by default the user's.
    type: path
    env:
      - name: BENCHCTL_HOME
  cache_dir:
    description: The cache of benchctl, where llama-bench lies; by default the user's.
    type: path
    env:
      - name: BENCHCTL_CACHE
author:
  - The benchctl authors (@benchctl)
"""

EXAMPLES = r"""
# inventories/live/benchctl.yml
plugin: benchctl
"""

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin


class InventoryModule(BaseInventoryPlugin):
    """Fills the inventory from :mod:`benchctl.inventory`."""

    NAME = "benchctl"

    def verify_file(self, path: str) -> bool:
        """Whether a file may be for this plugin; what it says is looked at later."""
        return super().verify_file(path) and path.endswith((".yml", ".yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add what is alive. Texts are not tagged as templates, so that Ansible takes all of them as they are."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        groups_of, read_live, home = _benchctl(self.get_option("state_dir"), self.get_option("cache_dir"))
        alive = read_live(home)
        for problem in alive.problems:
            self.display.warning(problem)
        groups = groups_of(alive.servers, alive.sweeps)
        for name in groups:
            inventory.add_group(name)
        for name, group in groups.items():
            for host in group.hosts:
                inventory.add_host(host, name)
            for child in group.children:
                inventory.add_child(name, child)
            for key, value in group.variables.items():
                inventory.set_variable(name, key, value)
        for one in alive.servers:
            for key, value in one.variables.items():
                inventory.set_variable(one.job.host, key, value)


def _benchctl(state_dir: str | None, cache_dir: str | None) -> tuple[Any, Any, Any]:
    """Benchctl's own code: installed beside Ansible, or in the checkout or the package that this file is in."""
    content = Path(__file__).resolve().parents[2]
    checkout = (content / "controller", content / "module_utils")
    sys.path += map(str, checkout if (content / "controller").is_dir() else [content.parents[1]])
    try:
        from benchctl.home import Home
        from benchctl.inventory import groups_of, read_live
    except ImportError as error:
        raise AnsibleParserError(
            f"benchctl can't be used by this Ansible's Python, {sys.executable}: {error}. "
            "Run the ansible-playbook that was installed with benchctl, or 'benchctl playbook'."
        ) from error
    home = Home.at(state_dir)
    if cache_dir:
        from dataclasses import replace

        home = replace(home, cache=Path(cache_dir))
    return groups_of, read_live, home
