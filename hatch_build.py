"""Puts what Ansible needs into the wheel, under benchctl/_content.

A hook and not a table in pyproject.toml, because playbooks/ holds links to roles/, library/ and module_utils/ (so that
plain ansible-playbook works in a checkout), which a table would follow and pack twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("image", "inventories", "module_utils", "roles")
FILES = ("ansible.cfg", "library/*.py", "playbooks/*.yml")


class ContentHook(BuildHookInterface[Any]):
    """Names whole folders, and single files of those that hold something else besides."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built; an editable install finds the content in the checkout."""
        if version == "editable":
            return
        root = Path(self.root)
        content = [root / folder for folder in FOLDERS if (root / folder).is_dir()]
        content += sorted(file for pattern in FILES for file in root.glob(pattern))
        for path in content:
            build_data["force_include"][str(path)] = f"benchctl/_content/{path.relative_to(root).as_posix()}"
