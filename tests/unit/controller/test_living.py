"""What is rented now, and its money, by the sweeps' books."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from benchctl.ledger import JobState
from benchctl.living import account, total_per_hour

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def job(name: str, **changes: Any) -> JobState:
    plain: dict[str, Any] = {
        "job": name, "vendor": "aws", "server": name, "host": f"benchctl-{name}", "lifetime_seconds": 7200,
        "stage": "benching", "status": "running", "launched_at": (NOW - timedelta(hours=1)).isoformat(),
        "expires_at": (NOW + timedelta(hours=1)).isoformat(), "price_per_hour": 2.0, "currency": "USD", **changes,
    }  # fmt: skip
    return JobState(**plain)


def test_what_lives_is_counted_and_priced() -> None:
    """Two servers in two currencies: what they cost per hour, have cost, and can cost."""
    found = account("s", [job("a"), job("b", currency="EUR", price_per_hour=0.5)], {}, NOW)
    assert [row["job_id"] for row in found["alive"]] == ["a", "b"]
    assert found["per_hour"] == {"EUR": 0.5, "USD": 2.0}
    assert found["spent"] == {"EUR": 0.5, "USD": 2.0}
    assert found["committed"] == {"EUR": 1.0, "USD": 4.0}
    assert found["budget"] is None
    assert found["expires_at"] == NOW + timedelta(hours=1)


def test_what_is_gone_costs_nothing_more() -> None:
    """A server that was returned is not alive; what it cost stays spent."""
    found = account("s", [job("a", gone_at=(NOW - timedelta(minutes=30)).isoformat())], {}, NOW)
    assert found["alive"] == []
    assert found["per_hour"] == {}
    assert found["spent"] == found["committed"] == {"USD": 1.0}


def test_a_budget_has_one_currency() -> None:
    """With a budget all is reckoned in its currency, at the price that was converted at the plan."""
    found = account("s", [job("a", budget_per_hour=1.8)], {"budget": "5EUR"}, NOW)
    assert (found["budget"], found["budget_currency"]) == (5.0, "EUR")
    assert found["spent"] == {"EUR": 1.8}
    assert found["committed"] == {"EUR": 3.6}
    own = job("o", lifetime_seconds=0, launched_at=None, session_seconds=3600, price_per_hour=1.0, currency="EUR")
    shared = account("s", [job("a", budget_per_hour=1.8), own], {"budget": "5EUR"}, NOW)
    assert shared["committed"] == {"EUR": 4.6}, "what is set aside for a server of one's own is no other's"


def test_what_is_over_is_marked() -> None:
    """A server that lives past its end is said to be expired; one without a price is not reckoned as free."""
    (row,) = account("s", [job("a", expires_at=NOW.isoformat(), price_per_hour=None)], {}, NOW)["alive"]
    assert row["expired"]
    assert row["cost"] is None
    assert total_per_hour([row]) == {}


def test_own_servers_are_not_rented() -> None:
    """A job on a server of one's own is none of this."""
    assert account("s", [job("a", lifetime_seconds=0)], {}, NOW)["alive"] == []


def test_earlier_servers_of_a_job_are_paid_for() -> None:
    """One that was lost before a resume, one that was tried in vain, at their own prices and in their own currency."""
    earlier = {
        "launched_at": (NOW - timedelta(hours=5)).isoformat(), "gone_at": (NOW - timedelta(hours=4)).isoformat(),
        "budget_per_hour": None, "price_per_hour": 3.0, "currency": "USD",
    }  # fmt: skip
    tried = {
        **earlier, "launched_at": (NOW - timedelta(hours=3)).isoformat(),
        "gone_at": (NOW - timedelta(hours=2)).isoformat(), "price_per_hour": 0.5, "currency": "EUR",
    }  # fmt: skip
    found = account("s", [job("a", past=(earlier,), attempts=(tried,))], {}, NOW)
    assert found["spent"] == {"EUR": 0.5, "USD": 5.0}
    assert found["committed"] == {"EUR": 0.5, "USD": 7.0}


def test_older_books_say_one_price() -> None:
    """Where an earlier server's price is not written down, that of its job stands for it."""
    earlier = {
        "launched_at": (NOW - timedelta(hours=5)).isoformat(), "gone_at": (NOW - timedelta(hours=4)).isoformat(),
        "budget_per_hour": None,
    }  # fmt: skip
    assert account("s", [job("a", past=(earlier,))], {}, NOW)["spent"] == {"USD": 4.0}
