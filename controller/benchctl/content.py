"""Where the carried content lies: playbooks, roles, library, module_utils, inventories."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from benchctl.errors import BenchctlError


@cache
def content_root() -> Path:
    """The folder that holds ``roles/``: inside the installed package, or else the checkout.

    Raises:
        BenchctlError: neither is there; the installation is broken.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "_content", package.parent.parent):
        if (candidate / "roles").is_dir():
            return candidate
    raise BenchctlError(
        f"The playbooks and roles that belong to benchctl are not beside {package}.",
        "Install it again, from a wheel or a whole checkout.",
    )
