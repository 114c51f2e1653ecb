"""What planning a sweep over clouds reads: servers, places and prices of a catalogue, and what was measured before.

Plain rows of whole vendors at once: a plan over two thousand types must not ask two thousand questions.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from benchctl.db.prices import HOURS
from benchctl.db.schema import Job, JobAttempt, Measurement, Price, Region, Server, Zone

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

Key = tuple[str, str]
"""``(vendor_id, server_id)``."""

ANY = "*"
"""The region or zone of a price whose source names none."""

ACTIVE = "ACTIVE"
_FAILED = "failed"
_MANY = 500
"""So many identifiers are asked for by name; more are read with all of their vendor's."""


@dataclass(frozen=True)
class RegionRow:
    """A region, with its zones.

    Attributes:
        region_id: the database's identifier.
        api_reference: what the catalogue says that the API calls it.
        names: all other names of it.
        zones: names of its zones with the API, by the database's identifier.
    """

    region_id: str
    api_reference: str
    names: tuple[str, ...]
    zones: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PriceRow:
    """What a server costs in a region or a zone.

    Attributes:
        region_id: the region; ``*`` for all.
        zone_id: the zone; ``*`` for all of the region.
        per_hour: in ``currency``.
        currency: ISO 4217 code.
        doubtful: whether the import doubted it.
    """

    region_id: str
    zone_id: str
    per_hour: float
    currency: str
    doubtful: bool


def server_rows(session: Session, vendor_ids: Collection[str]) -> Sequence[Any]:
    """The server types that these vendors rent, by vendor and name."""
    return session.execute(
        select(
            Server.vendor_id, Server.server_id, Server.api_reference, Server.name, Server.display_name, Server.vcpus,
            Server.cpu_cores, Server.cpu_architecture, Server.memory_amount, Server.gpu_count, Server.gpu_memory_total,
            Server.storage_size,
        )
        .where(Server.vendor_id.in_(vendor_ids), Server.status == ACTIVE)
        .order_by(Server.vendor_id, Server.api_reference)
    ).all()  # fmt: skip


def region_rows(session: Session, vendor_id: str) -> dict[str, RegionRow]:
    """A vendor's regions and zones that are in use, by identifier; ``*`` is none of them."""
    zones: dict[str, dict[str, str]] = defaultdict(dict)
    for region, zone, name in session.execute(
        select(Zone.region_id, Zone.zone_id, Zone.api_reference)
        .where(Zone.vendor_id == vendor_id, Zone.status == ACTIVE, Zone.zone_id != ANY)
        .order_by(Zone.region_id, Zone.api_reference)
    ):
        zones[region][zone] = name
    found = session.execute(
        select(Region.region_id, Region.api_reference, Region.name, Region.aliases)
        .where(Region.vendor_id == vendor_id, Region.status == ACTIVE, Region.region_id != ANY)
        .order_by(Region.api_reference)
    )
    return {
        region: RegionRow(region, reference, (region, name, *aliases), zones.get(region, {}))
        for region, reference, name, aliases in found
    }


def price_rows(
    session: Session, vendor_id: str, server_ids: Collection[str], allocation: str
) -> dict[str, list[PriceRow]]:
    """The current prices of a vendor's servers, by server."""
    query = select(
        Price.server_id, Price.region_id, Price.zone_id, Price.price, Price.currency, Price.unit, Price.flags
    ).where(Price.vendor_id == vendor_id, Price.allocation == allocation, Price.is_current, Price.until.is_(None))
    if len(server_ids) <= _MANY:
        query = query.where(Price.server_id.in_(server_ids))
    wanted = set(server_ids)
    found: dict[str, list[PriceRow]] = defaultdict(list)
    for server, region, zone, price, currency, unit, flags in session.execute(query):
        if server in wanted and unit in HOURS:
            found[server].append(PriceRow(region, zone, price / HOURS[unit], currency, bool(flags)))
    return found


def known_speeds(session: Session, servers: Collection[Key]) -> dict[Key, dict[tuple[str, str, int], float]]:
    """Tokens per second by (model, task, tokens), for each of these servers that was measured; the newest counts."""
    columns = Measurement.__table__.c
    query = (
        select(
            columns.vendor_id, columns.server_id, columns.model, columns.task, columns.tokens,
            columns.tokens_per_second,
        )
        .where(columns.outcome == "ok", columns.tokens_per_second > 0)
        .order_by(columns.measured_at)
    )  # fmt: skip
    query = query.where(columns.vendor_id.in_({vendor for vendor, _ in servers}))
    if len(servers) <= _MANY:
        query = query.where(columns.server_id.in_({server for _, server in servers}))
    wanted = set(servers)
    found: dict[Key, dict[tuple[str, str, int], float]] = {}
    for vendor, server, model, task, tokens, speed in session.execute(query):
        if (vendor, server) in wanted:
            found.setdefault((vendor, server), {})[model, task, tokens] = speed
    return found


def newest_measurements(
    session: Session, vendor_ids: Collection[str], files: Collection[str], lengths: Collection[tuple[str, int]]
) -> dict[Key, datetime | None]:
    """Of each server when it was last measured with one of these models and lengths, whatever came of it.

    Args:
        session: the database.
        vendor_ids: the vendors.
        files: names of model files.
        lengths: (task, tokens).
    """
    columns = Measurement.__table__.c
    found = session.execute(
        select(columns.vendor_id, columns.server_id, columns.task, columns.tokens, func.max(Measurement.measured_at))
        .where(columns.vendor_id.in_(vendor_ids), columns.model_file.in_(files), columns.outcome != "not_reached")
        .group_by(columns.vendor_id, columns.server_id, columns.task, columns.tokens)
    )
    newest: dict[Key, datetime | None] = {}
    for vendor, server, task, tokens, at in found:
        if (task, tokens) not in lengths:
            continue
        before = newest.get((vendor, server))
        newest[vendor, server] = at if before is None or (at is not None and at > before) else before
    return newest


def failed_last(session: Session, vendor_ids: Collection[str]) -> set[Key]:
    """The servers whose newest job failed."""
    return {key for key, job in _newest_jobs(session, vendor_ids).items() if job.status == _FAILED}


def refused_last(session: Session, vendor_ids: Collection[str], refusal: str) -> set[Key]:
    """The servers whose newest job got no server, and was refused for this reason at its last try."""
    last: dict[tuple[str, str], str | None] = {}
    for sweep, job, why in session.execute(
        select(JobAttempt.sweep_id, JobAttempt.job_id, JobAttempt.refusal).order_by(JobAttempt.tried_at)
    ):
        last[sweep, job] = why
    if not last:
        return set()
    return {
        key
        for key, job in _newest_jobs(session, vendor_ids).items()
        if job.status == _FAILED and last.get((job.sweep_id, job.job_id)) == refusal
    }


def _newest_jobs(session: Session, vendor_ids: Collection[str]) -> dict[Key, Any]:
    """Of each server the job that began last."""
    found = session.execute(
        select(Job.vendor_id, Job.server_id, Job.status, Job.sweep_id, Job.job_id)
        .where(Job.vendor_id.in_(vendor_ids))
        .order_by(func.coalesce(Job.started_at, Job.ended_at).nulls_first(), Job.sweep_id, Job.job_id)
    )
    return {(job.vendor_id, job.server_id): job for job in found}
