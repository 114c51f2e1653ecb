"""Whole tables, row by row and in one order, narrowed to vendors and to a time: what leaves in an export."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import ColumnElement, String, and_, cast, collate, exists, func, or_, select

from benchctl.db.columns import CanonicalJson
from benchctl.db.dictionary import table_of
from benchctl.db.schema import (
    BenchmarkScore,
    CatalogSource,
    ExchangeRate,
    Job,
    Measurement,
    Price,
    RawRun,
    Server,
    ServerHistory,
    Sweep,
    Vendor,
)
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from sqlalchemy import Column, Select, Table
    from sqlalchemy.orm import Session

    Query = TypeVar("Query", bound="Select[*tuple[Any, ...]]")

BATCH = 2000
"""Rows that are in memory at once."""

PER_JOB = ("job_server", "job_time", "raw_run", "measurement")
"""Tables whose rows go with their job."""


@dataclass(frozen=True)
class Selection:
    """Which rows are meant; nothing means all.

    Attributes:
        vendors: identifiers of vendors.
        since: what was measured, and what was a price, at this time or later.
    """

    vendors: tuple[str, ...] = ()
    since: datetime | None = None

    @classmethod
    def checked(cls, session: Session, vendors: Iterable[str], since: datetime | None) -> Selection:
        """A selection of vendors that are there.

        Raises:
            UsageError: one of them is not in the database.
        """
        known = list(session.scalars(select(Vendor.vendor_id).order_by(Vendor.vendor_id)))
        for vendor in vendors:
            if vendor not in known:
                near = difflib.get_close_matches(vendor, known, n=1)
                mend = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(known) or 'none'}."
                raise UsageError(f"There is no vendor '{vendor}' in the database.", mend)
        return cls(tuple(dict.fromkeys(vendors)), since)


@dataclass(frozen=True)
class Origins:
    """Where the rows of a selection come from.

    Attributes:
        sweeps: who measured (``benchctl`` or ``spare-cores``), with the number of jobs and the first and last day.
        own_servers: whether there are machines that no cloud rents out.
        cloud_servers: whether there are servers out of a catalogue.
        scores: whether there are scores.
        prices: source, licence, number of prices, first and last day.
        rates: source, first and last day.
        catalogues: address, kind, checksum, and when it was taken in.
        newest: the last time that any of it was taken in or measured; nothing when the database is empty.
    """

    sweeps: tuple[tuple[str, int, datetime | None, datetime | None], ...]
    own_servers: bool
    cloud_servers: bool
    scores: bool
    prices: tuple[tuple[str, str | None, int, Any, Any], ...]
    rates: tuple[tuple[str, Any, Any], ...]
    catalogues: tuple[tuple[str, str, str, datetime], ...]
    newest: datetime | None


OWN_VENDORS = ("local", "ssh")
"""Vendors that are no vendors."""


def rows(session: Session, name: str, selection: Selection) -> Iterator[tuple[Any, ...]]:
    """The table's rows in the order of its primary key, the same on every database; a few are in memory at a time."""
    table = table_of(name)
    query = _narrowed(select(*table.columns), table, selection).order_by(
        *(_ordering(session, column) for column in table.primary_key.columns)
    )
    for row in session.execute(query, execution_options={"yield_per": BATCH}):
        yield tuple(row)


def one_state(session: Session) -> None:
    """See one state of the database from here on, whatever is written meanwhile: SQLite does so anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


def raw_origins(session: Session) -> list[str]:
    """Where raw files lie or lay on this machine, in order."""
    return list(session.scalars(select(RawRun.origin).distinct().order_by(RawRun.origin)))


def origins(session: Session, selection: Selection) -> Origins:
    """Where the rows come from."""
    jobs = _narrowed(select(Job.sweep_id, Job.job_id, Job.started_at), table_of("job"), selection).subquery()
    day = func.min(jobs.c.started_at), func.max(jobs.c.started_at)
    sweeps = session.execute(
        select(Sweep.source, func.count(), *day)
        .join(jobs, jobs.c.sweep_id == Sweep.sweep_id)
        .group_by(Sweep.source)
        .order_by(Sweep.source)
    )
    prices = session.execute(
        _narrowed(
            select(Price.source, Price.licence, func.count(), func.min(Price.source_date), func.max(Price.source_date)),
            table_of("price"),
            selection,
        )
        .group_by(Price.source, Price.licence)
        .order_by(Price.source, Price.licence)
    )
    rates = session.execute(
        select(ExchangeRate.source, func.min(ExchangeRate.rate_date), func.max(ExchangeRate.rate_date))
        .group_by(ExchangeRate.source)
        .order_by(ExchangeRate.source)
    )
    catalogues = session.execute(
        select(CatalogSource.url, CatalogSource.kind, CatalogSource.sha256, CatalogSource.imported_at).order_by(
            CatalogSource.url
        )
    )
    own = Server.vendor_id.in_(OWN_VENDORS)
    return Origins(
        sweeps=tuple((source, count, first, last) for source, count, first, last in sweeps),
        own_servers=_any(session, _narrowed(select(Server.server_id), table_of("server"), selection).where(own)),
        cloud_servers=_any(session, _narrowed(select(Server.server_id), table_of("server"), selection).where(~own)),
        scores=_any(session, _narrowed(select(BenchmarkScore.score), table_of("benchmark_score"), selection)),
        prices=tuple((source, licence, count, first, last) for source, licence, count, first, last in prices),
        rates=tuple((source, first, last) for source, first, last in rates),
        catalogues=tuple((url, kind, sha256, at) for url, kind, sha256, at in catalogues),
        newest=_newest(session),
    )


def _any(session: Session, query: Select[*tuple[Any, ...]]) -> bool:
    return session.execute(query.limit(1)).first() is not None


def _newest(session: Session) -> datetime | None:
    moments = (
        session.scalar(select(func.max(column)))
        for column in (
            RawRun.ingested_at, CatalogSource.imported_at, Sweep.finished_at, Measurement.measured_at, Price.since,
            ServerHistory.since,
        )
    )  # fmt: skip
    return max((moment for moment in moments if moment is not None), default=None)


def _ordering(session: Session, column: Column[Any]) -> ColumnElement[Any]:
    """Text by its bytes, as SQLite has it; JSON by its text."""
    if session.get_bind().dialect.name != "postgresql":
        return column
    if isinstance(column.type, CanonicalJson):
        return collate(cast(column, String), "C")
    return collate(column, "C") if isinstance(column.type, String) else column


def _narrowed(query: Query, table: Table, selection: Selection) -> Query:
    """The rows of the selection; what hangs on a job goes with it, and a sweep with any of its jobs."""
    if selection == Selection():
        return query
    if table.name not in ("sweep", *PER_JOB):
        return query.where(*_conditions(table, selection))
    same = [Job.sweep_id == table.c.sweep_id]
    if table.name != "sweep":
        same.append(Job.job_id == table.c.job_id)
    return query.where(exists().where(and_(*same, *_conditions(table_of("job"), selection))))


def _conditions(table: Table, selection: Selection) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if selection.vendors and "vendor_id" in table.c:
        found.append(table.c.vendor_id.in_(selection.vendors))
    since = selection.since
    if since is not None and table.name == "job":
        found.append(func.coalesce(table.c.ended_at, table.c.started_at) >= since)
    elif since is not None and table.name == "benchmark_score":
        found.append(table.c.observed_at >= since)
    elif since is not None and table.name in ("price", "server_history"):
        found.append(or_(table.c.until.is_(None), table.c.until >= since))
    elif since is not None and table.name == "exchange_rate":
        found.append(table.c.rate_date >= since.date())
    return found
