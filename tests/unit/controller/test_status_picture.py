"""What ``status --follow`` says each second: one line that a terminal can take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from benchctl.cli.status import picture

BEGAN = datetime(2026, 11, 26, tzinfo=UTC)


def job(number: int, stage: str = "benching", status: str = "running") -> dict[str, Any]:
    started = BEGAN + timedelta(minutes=number) if status == "running" else None
    return {
        "vendor_id": "hcloud", "server_id": f"cx{number}", "stage": stage, "status": status, "started_at": started,
        "progress": None,
    }  # fmt: skip


def test_a_few_jobs_are_told_one_by_one() -> None:
    """What each is at; what has ended is left out."""
    jobs = [job(1), job(2, "planned", "waiting"), job(3, "gone", "finished")]
    assert picture([{"jobs": jobs}], 79) == "hcloud/cx1: benching; hcloud/cx2: planned"


def test_many_jobs_are_counted_and_the_newest_are_told() -> None:
    """A hundred jobs are one line still, and say how far the sweep is."""
    jobs = [*(job(one) for one in range(60)), *(job(one, "preparing") for one in range(60, 70))]
    jobs += [job(one, "planned", "waiting") for one in range(70, 100)]
    assert picture([{"jobs": jobs}], 79) == ("60 benching, 30 waiting, 10 preparing; hcloud/cx69: preparing")


@pytest.mark.parametrize("columns", [0, 1, 10, 40, 79, 200])
def test_no_line_is_longer_than_the_terminal_is_wide(columns: int) -> None:
    """However narrow it is."""
    assert len(picture([{"jobs": [job(one) for one in range(100)]}], columns)) <= columns


def test_nothing_that_runs_is_an_empty_line() -> None:
    """Between two jobs, for example."""
    assert picture([{"jobs": []}], 79) == ""
