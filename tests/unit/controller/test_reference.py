"""docs/cli.md says what ``--help`` says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchctl.cli import COMMANDS, reference


def test_the_reference_is_up_to_date() -> None:
    """The page in docs/ is the page that the commands' help makes now."""
    # in a process of its own: click keeps how a command was first asked for its help
    command = [sys.executable, "-m", "benchctl.cli.reference", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr


def test_every_command_has_its_section_and_a_sentence() -> None:
    """No command is left out, and none is without help."""
    pages = dict(reference._pages(reference.cli, "benchctl", None))
    assert {f"benchctl {name}" for name in COMMANDS} <= set(pages)
    for name, text in pages.items():
        assert len(text.splitlines()) > 4, f"{name} has no help"
