"""Why a vendor gave no server: its recorded words are the cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from benchctl.refusals import LONGEST, REFUSAL_MEANINGS, Refusal, classify, shortened

CASES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[2] / "cases" / "refusals" / "vendors.yml").read_text()
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['refusal']}-{case['message'][:40]}")
def test_recorded_and_documented_messages(case: dict[str, Any]) -> None:
    """Each message is classified as what it means, and shown in one line that fits a table."""
    found = classify(case["message"])
    assert (str(found) if found else None) == case["refusal"]
    line = shortened(case["message"])
    assert line
    assert "\n" not in line
    assert len(line) <= LONGEST
    assert "0000" not in line
    assert line == case.get("shown", line)


def test_every_refusal_has_a_recorded_or_documented_case_and_a_meaning() -> None:
    """No kind of refusal is there that no message has shown."""
    assert {case["refusal"] for case in CASES} - {None} == set(map(str, Refusal))
    assert set(REFUSAL_MEANINGS) == set(Refusal)


def test_no_words_are_no_refusal() -> None:
    """Without a message nothing is claimed."""
    assert classify(None) is None
    assert classify("") is None
    assert shortened(None) == ""
    assert shortened("x" * 1000).endswith("...")
