"""What a sweep has spent and promised."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from benchctl.budget import (
    billed_seconds,
    budget_price,
    committed,
    convert,
    may_start,
    promise,
    spent,
    used_fraction,
)
from benchctl.db.prices import Rate
from benchctl.errors import UsageError
from benchctl.ledger import JobState
from benchctl.plan import Place, Price

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
RATES = {"EUR": Rate("EUR", 1.25, date(2026, 11, 1), "ECB")}


def at(hours: float) -> str:
    return (NOW + timedelta(hours=hours)).isoformat()


def a_job(
    launched: float | None = None, expires: float | None = None, gone: float | None = None, **more: Any
) -> JobState:
    """A job of 1.00 an hour, with times in hours from now."""
    given: dict[str, Any] = {"vendor": "gcp", "lifetime_seconds": 7200, "budget_per_hour": 1.0} | more
    return JobState(
        job="j", server="s", host="h", launched_at=None if launched is None else at(launched),
        expires_at=None if expires is None else at(expires), gone_at=None if gone is None else at(gone), **given,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("vendor", "seconds", "billed"),
    [
        ("aws", 10, 60), ("gcp", 10, 60), ("aws", 61, 61), ("azure", 10, 10), ("hcloud", 1, 3600),
        ("hetzner", 3601, 7200), ("upcloud", 3600, 3600), ("aws", 0, 0), ("hcloud", -5, 0),
    ],
)  # fmt: skip
def test_vendors_bill_in_their_own_steps(vendor: str, seconds: float, billed: float) -> None:
    """A minute at least on AWS and GCP; hours that were begun on Hetzner and UpCloud."""
    assert billed_seconds(vendor, seconds) == billed


@pytest.mark.parametrize(
    ("job", "promised", "so_far"),
    [
        (a_job(), 0.0, 0.0),  # never asked for
        (a_job(-0.5, 1.5), 2.0, 0.5),  # alive: to its expiry
        (a_job(-3, -1, -2), 1.0, 1.0),  # gone before its expiry: as long as it lived
        (a_job(-3, -1), 3.0, 3.0),  # overdue, and not seen gone: it costs still
        (a_job(-0.5, 1.2, vendor="hcloud"), 2.0, 1.0),  # begun hours
        (a_job(-0.001, None, -0.0005, vendor="aws"), 1 / 60, 1 / 60),
        (a_job(-1, 1, budget_per_hour=None), 0.0, 0.0),
    ],
)
def test_a_server_is_reckoned_by_how_long_it_may_and_did_live(job: JobState, promised: float, so_far: float) -> None:
    """Committed is what it can cost at most, spent what it has cost."""
    assert committed([job], NOW) == pytest.approx(promised)
    assert spent([job], NOW) == pytest.approx(so_far)


def test_failed_tries_that_had_a_server_cost_too() -> None:
    """A try whose server never answered was billed."""
    tried = {"launched_at": at(-3), "gone_at": at(-2.5), "budget_per_hour": 4.0}
    refused = {"launched_at": None, "gone_at": None}
    job = a_job(-0.5, 1.5, attempts=(tried, refused))
    assert spent([job], NOW) == pytest.approx(2.5)
    # the newest try is noted twice, in the job and among its tries, and counts once
    again = a_job(-3, -1, -2.5, attempts=({**tried, "budget_per_hour": 1.0},))
    assert spent([again], NOW) == pytest.approx(0.5)


def test_servers_from_before_a_resume_cost_too() -> None:
    """A sweep that was killed and goes on has spent what its first servers cost; each counts once."""
    past = {"launched_at": at(-5), "gone_at": at(-4), "budget_per_hour": 3.0}
    tried = {"launched_at": at(-3), "gone_at": at(-2.5), "budget_per_hour": 4.0}
    job = a_job(-0.5, 1.5, past=(past, tried), attempts=(tried,))
    assert spent([job], NOW) == pytest.approx(3.0 + 2.0 + 0.5)
    assert committed([job], NOW) == pytest.approx(3.0 + 2.0 + 2.0)


def test_the_share_of_a_server_of_ones_own_is_committed_all_along() -> None:
    """Whether it runs, has ended or goes on after a resume: nobody else gets what the plan has set aside for it."""
    own = JobState("o", "ssh", "o", "o", price_per_hour=2.0, currency="USD", session_seconds=1800)
    new = a_job()
    for one in (own, replace(own, status="running"), replace(own, status="finished", ended_at=at(-1))):
        assert committed([one], NOW) == pytest.approx(1.0)
        assert may_start(new, [one, new], 3.0, NOW)
        assert not may_start(new, [one, new], 2.9, NOW)
    assert committed([replace(own, price_per_hour=None)], NOW) == 0.0


def test_nothing_starts_that_could_pass_the_budget() -> None:
    """The whole lifetime of the new one is reckoned with, beside what the others are promised."""
    new, alive = a_job(), a_job(-0.5, 1.5)
    assert promise(new) == 2.0
    assert may_start(new, [new, alive], 4.0, NOW)
    assert not may_start(new, [new, alive], 3.9, NOW)
    assert may_start(new, [new, a_job(-3, -1, -2.9)], 3.9, NOW)
    assert may_start(new, [new, alive], None, NOW)
    assert not may_start(a_job(budget_per_hour=0.0), [], 0.0, NOW)
    assert not may_start(new, [new, alive], 4.0, NOW, per_hour=1.5)


def test_a_price_that_is_unknown_is_no_price() -> None:
    """With a budget nothing starts blindly; the cheapest place says what a job costs before it has one."""
    with pytest.raises(UsageError, match="what s costs is unknown"):
        may_start(a_job(budget_per_hour=None), [], 5.0, NOW)
    place = {"region": "r", "zone": "", "budget_per_hour": 0.5}
    assert promise(a_job(budget_per_hour=None, places=(place,))) == 1.0


def test_a_job_without_a_server_is_judged_by_its_cheapest_place() -> None:
    """Its last server may have stood in a dear place, which says nothing of where the next one can."""
    places = ({"region": "a", "budget_per_hour": 2.0}, {"region": "b", "budget_per_hour": 1.0}, {"region": "c"})
    job = a_job(-3, -1, -2.9, budget_per_hour=10.0, places=places)
    assert promise(job) == 2.0
    assert promise(job, 10.0) == 20.0
    assert may_start(job, [job], 5.0, NOW)
    assert not may_start(job, [job], 5.0, NOW, per_hour=10.0)


def test_the_used_share_counts_promises() -> None:
    """So that the warning comes before the money is gone."""
    assert used_fraction([a_job(-0.5, 1.5)], 2.5, NOW) == pytest.approx(0.8)
    assert used_fraction([a_job(-0.5, 1.5)], None, NOW) == 0.0


def test_money_is_converted_with_a_dated_rate_or_not_at_all() -> None:
    """Without a rate there is one sentence, with the mend."""
    assert convert(Price(2.0, "EUR"), "USD", RATES) == pytest.approx(2.5)
    assert convert(Price(2.5, "USD"), "EUR", RATES) == pytest.approx(2.0)
    assert convert(Price(2.0, "SEK"), "SEK", {}) == 2.0
    with pytest.raises(UsageError, match="no exchange rate for SEK"):
        convert(Price(2.0, "SEK"), "USD", RATES)
    place = Place("fsn1", "", Price(2.0, "EUR"))
    assert budget_price(place, "USD", RATES) == pytest.approx(2.5)
    assert budget_price(place, None, {}) is None
