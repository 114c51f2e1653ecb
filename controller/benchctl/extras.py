"""How to install what not everyone needs: benchctl's extras.

benchctl is installed from its checkout. No command here fetches a package of that name from an index, where it could be
anybody's.
"""

from __future__ import annotations

import sys
from pathlib import Path


def install_command(extra: str) -> str:
    """The command that installs benchctl with an extra, run in its checkout, in the way it is installed now."""
    prefix = Path(sys.prefix)
    if (prefix / "uv-receipt.toml").is_file():
        way = "uv tool install"
    elif (prefix / "pipx_metadata.json").is_file():
        way = "pipx install --force"
    else:
        way = "pip install"
    return f"{way} '.[{extra}]'"


def extra_mend(extra: str) -> str:
    """What to do about an extra that is not installed, as one sentence."""
    return f"Install benchctl with the extra '{extra}': {install_command(extra)} (in benchctl's checkout)."
