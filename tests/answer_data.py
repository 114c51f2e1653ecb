"""Small data for the tests of answers: servers, prices and measurements, written straight into a database."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from benchctl.db.schema import ExchangeRate, Job, JobTime, Measurement, Price, Region, Server, Sweep, Vendor, Zone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

SEEN = datetime(2025, 4, 28, tzinfo=UTC)
MODEL = "toy-1b"


@dataclass(frozen=True)
class Measured:
    """One run on one server, and the speeds that it found.

    Attributes:
        speeds: tokens per second by (task, tokens).
        others: further scenarios without a speed: outcome by (task, tokens).
    """

    vendor: str
    server: str
    speeds: Mapping[tuple[str, int], float] = field(default_factory=dict)
    others: Mapping[tuple[str, int], str] = field(default_factory=dict)
    sweep: str = "first"
    job: str = ""
    at: datetime = SEEN
    model: str = MODEL
    weights: str = "real"
    outcome: str = "ok"
    tensor_bytes: int = 1_000_000
    load_seconds: float | None = None
    price_usd_per_hour: float | None = None
    launch_price_per_hour: float | None = None
    currency: str | None = None


def add_catalogue(session: Session, *servers: tuple[str, str, dict[str, Any]]) -> None:
    """Servers, each as (vendor, server, what is special about it), with their vendors and a region."""
    for vendor in dict.fromkeys(vendor for vendor, _, _ in servers):
        if session.get(Vendor, vendor) is None:
            session.add(Vendor(vendor_id=vendor, name=vendor, observed_at=SEEN))
            session.flush()
            names = {"name": "here", "api_reference": "here-1", "display_name": "here"}
            session.add(Region(vendor_id=vendor, region_id="r1", observed_at=SEEN, **names))
            session.flush()
            session.add(Zone(vendor_id=vendor, region_id="r1", zone_id="*", observed_at=SEEN, **names))
    for vendor, server, special in servers:
        plain = {
            "name": server, "api_reference": server, "display_name": server, "vcpus": 4, "memory_amount": 8192,
            "cpu_architecture": "X86_64", "observed_at": SEEN,
        }  # fmt: skip
        session.add(Server(vendor_id=vendor, server_id=server, **{**plain, **special}))
    session.flush()


def add_price(
    session: Session, vendor: str, server: str, price: float, *, currency: str = "USD", allocation: str = "ONDEMAND"
) -> None:
    """A current price per hour."""
    found = Price(
        vendor_id=vendor, region_id="r1", zone_id="*", server_id=server, allocation=allocation, source="a list",
        since=SEEN, price=price, currency=currency, source_date=date(2025, 4, 28), is_current=True,
    )  # fmt: skip
    session.add(found)
    session.flush()


def add_rate(session: Session, currency: str, usd_per_unit: float) -> None:
    """An exchange rate."""
    session.add(
        ExchangeRate(currency=currency, rate_date=date(2025, 4, 28), source="a bank", usd_per_unit=usd_per_unit)
    )
    session.flush()


def add_job(session: Session, vendor: str, server: str, *, sweep: str = "first", job: str = "", **facts: Any) -> Job:
    """A run on a server; its sweep is made where there is none."""
    if session.get(Sweep, sweep) is None:
        session.add(Sweep(sweep_id=sweep, created_at=SEEN, vendors=[], status="finished"))
        session.flush()
    plain = {"status": "finished", "exit_code": 0, "started_at": SEEN, "api_reference": server}
    found = Job(
        sweep_id=sweep, job_id=job or f"{vendor}_{server}", vendor_id=vendor, server_id=server, **{**plain, **facts}
    )
    session.add(found)
    session.flush()
    return found


def add_times(session: Session, job: Job, **seconds: float) -> None:
    """Where a job's time went."""
    session.add_all(
        JobTime(sweep_id=job.sweep_id, job_id=job.job_id, cause=cause, seconds=taken)
        for cause, taken in seconds.items()
    )
    session.flush()


def add_measurements(session: Session, *runs: Measured) -> None:
    """Runs with their jobs; a job that is there already is added to."""
    for run in runs:
        job_id = run.job or f"{run.vendor}_{run.server}"
        if session.get(Job, (run.sweep, job_id)) is None:
            paid = {"launch_price_per_hour": run.launch_price_per_hour, "currency": run.currency}
            add_job(session, run.vendor, run.server, sweep=run.sweep, job=job_id, **paid)
        ends: dict[tuple[str, int], tuple[str, float | None]] = {
            **{key: (run.outcome, speed) for key, speed in run.speeds.items()},
            **{key: (outcome, None) for key, outcome in run.others.items()},
        }
        session.add_all(
            Measurement(
                sweep_id=run.sweep, job_id=job_id, model=run.model, task=task, tokens=tokens, vendor_id=run.vendor,
                server_id=run.server, outcome=outcome, reason="" if speed else f"it was {outcome}",
                tokens_per_second=speed, measured_at=run.at, weights=run.weights, model_file=f"{run.model}.gguf",
                model_tensor_bytes=run.tensor_bytes, load_seconds=run.load_seconds,
                price_usd_per_hour=run.price_usd_per_hour, launch_price_per_hour=run.launch_price_per_hour,
                currency=run.currency, raw_path="x",
            )
            for (task, tokens), (outcome, speed) in ends.items()
        )  # fmt: skip
        session.flush()
