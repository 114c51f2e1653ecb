"""What is rented now, by the sweeps' books: what is alive, until when, and what it costs.

This is what benchctl believes. What the clouds say is asked by ``benchctl reap --dry-run`` and ``status --check``.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benchctl import budget
from benchctl.errors import BenchctlError, UsageError
from benchctl.ledger import jobs_of, read_book, sweep_names
from benchctl.plan import parse_budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from benchctl.home import Home
    from benchctl.ledger import JobState


MEND = "What it rented is not known: run 'benchctl reap'."
"""What to do about a book that can't be read."""


def rented(home: Home, now: datetime | None = None) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What :func:`account` says of each sweep that rents, by its name; and of each book that can't be read why."""
    now = now or datetime.now(UTC)
    found, problems = {}, {}
    for name in sweep_names(home):
        try:
            book = read_book(home, name)
            jobs = jobs_of(book)
            if any(job.rented for job in jobs):
                found[name] = account(name, jobs, book.get("request") or {}, now)
        except BenchctlError as error:
            problems[name] = f"{error.problem} {MEND}"
        except (KeyError, TypeError, AttributeError, ValueError):
            problems[name] = f"The book of {name} is damaged. {MEND}"
    return found, problems


def account(sweep: str, jobs: Iterable[JobState], request: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """What one sweep has alive, and its money. Pure.

    Returns:
        ``alive``: a row per server that exists or may exist; ``per_hour``: what they cost together by currency;
        ``expires_at``: when the last of them must be gone; ``spent``, ``committed``: what all its servers have cost and
        can cost at most, by currency, under a budget with what is set aside for servers of one's own; ``budget``,
        ``budget_currency``: as it was given, nothing without one.
    """
    every = list(jobs)
    jobs = [job for job in every if job.rented]
    alive = [_row(sweep, job, now) for job in jobs if job.alive]
    limit, currency = _budget(str(request.get("budget") or ""))
    return {
        "alive": alive,
        "per_hour": total_per_hour(alive),
        "expires_at": max((row["expires_at"] for row in alive if row["expires_at"]), default=None),
        "spent": _by_currency(jobs, now, currency, budget.spent),
        "committed": _by_currency(every if currency else jobs, now, currency, budget.committed),
        "budget": limit,
        "budget_currency": currency,
    }


def total_per_hour(alive: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """What servers cost together per hour, by currency; those without a known price are left out."""
    total: dict[str, float] = {}
    for row in alive:
        if row["price_per_hour"] is not None:
            currency = row["currency"] or "?"
            total[currency] = total.get(currency, 0.0) + row["price_per_hour"]
    return dict(sorted(total.items()))


def _row(sweep: str, job: JobState, now: datetime) -> dict[str, Any]:
    launched, expires = _moment(job.launched_at), _moment(job.expires_at)
    age = (now - launched).total_seconds() if launched else None
    return {
        "sweep_id": sweep,
        "job_id": job.job,
        "vendor_id": job.vendor,
        "server_id": job.server,
        "name": job.host,
        "region": job.region,
        "zone": job.zone,
        "address": job.address,
        "stage": job.stage,
        "status": job.status,
        "launched_at": launched,
        "expires_at": expires,
        "expired": expires is not None and expires <= now,
        "price_per_hour": job.price_per_hour,
        "currency": job.currency,
        "cost": (
            budget.cost(job.vendor, job.price_per_hour, age) if age is not None and job.price_per_hour is not None
            else None
        ),
    }  # fmt: skip


def _by_currency(jobs: Iterable[JobState], now: datetime, currency: str | None, reckon: Any) -> dict[str, float]:
    """With a budget all is in its currency; without one each server is in that of its own price."""
    if currency is not None:
        return {currency: reckon(jobs, now)}
    total: dict[str, float] = {}
    for job in jobs:
        own = (job.price_per_hour, job.currency)
        lives = [own, *(_price(one, own) for one in (*job.past, *job.attempts))]
        for name in {name for price, name in lives if price is not None and name is not None}:
            total[name] = total.get(name, 0.0) + reckon([_priced_in(job, name)], now)
    return dict(sorted(total.items()))


def _price(life: Mapping[str, Any], own: tuple[float | None, str | None]) -> tuple[float | None, str | None]:
    """What an earlier server of a job cost per hour; older books say it of the newest alone."""
    return (life["price_per_hour"], life.get("currency")) if "price_per_hour" in life else own


def _priced_in(job: JobState, currency: str) -> JobState:
    """A job whose servers have the prices of this currency for those of the budget, and no others."""
    own = (job.price_per_hour, job.currency)

    def priced(life: Mapping[str, Any]) -> dict[str, Any]:
        price, its_own = _price(life, own)
        return {**life, "budget_per_hour": price if its_own == currency else None}

    return replace(
        job,
        budget_per_hour=job.price_per_hour if job.currency == currency else None,
        past=tuple(map(priced, job.past)),
        attempts=tuple(map(priced, job.attempts)),
    )


def _budget(text: str) -> tuple[float | None, str | None]:
    try:
        return parse_budget(text) if text else (None, None)
    except UsageError:
        return None, None


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
