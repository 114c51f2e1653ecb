"""docs/cli.md says what ``--help`` says."""

from __future__ import annotations

from benchctl.cli import COMMANDS, reference


def test_the_reference_is_up_to_date() -> None:
    """The page in docs/ is the page that the commands' help makes now."""
    assert reference.TARGET.read_text(encoding="utf-8") == reference.reference(), (
        "run 'python -m benchctl.cli.reference' and look at what changed"
    )


def test_every_command_has_its_section_and_a_sentence() -> None:
    """No command is left out, and none is without help."""
    pages = dict(reference._pages(reference.cli, "benchctl", None))
    assert {f"benchctl {name}" for name in COMMANDS} <= set(pages)
    for name, text in pages.items():
        assert len(text.splitlines()) > 4, f"{name} has no help"
