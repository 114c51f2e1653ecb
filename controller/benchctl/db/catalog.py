"""Questions about the catalogue: its servers, regions, zones, prices and exchange rates."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, func, literal, null, or_, select

from benchctl.catalog.checks import MEANINGS
from benchctl.catalog.values import VENDOR_ALIASES
from benchctl.db.prices import USD, Rate, factors, newest_rates, regions_meant, require_rate
from benchctl.db.schema import ExchangeRate, Price, Region, Server, Vendor, Zone
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.orm import Session

    Row = dict[str, Any]

MIB_PER_GIB = 1024
ANY_GPU = "any"


@dataclass(frozen=True)
class Wanted:
    """What of the catalogue is asked for; nothing means all.

    Attributes:
        vendor: identifier of the vendor.
        server: name of a server type with ``*`` and ``?``; its vendor and a slash may stand before it.
        gpu: a GPU model, or :data:`ANY_GPU`.
        min_gpu_memory_gib: memory of all GPUs together.
        min_memory_gib: memory.
        min_vcpus: logical CPUs.
        arch: CPU architecture, e.g. ``ARM64``.
        status: ``ACTIVE`` or ``INACTIVE``.
        region: identifier or API name of a region.
        allocation: ``ONDEMAND``, ``SPOT`` or ``RESERVED``.
        currency: prices are converted into it; without it each is as it is listed.
        flagged: only prices that an import found doubtful.
        history: also prices that are closed.
        limit: so many rows at most; nothing for all.
    """

    vendor: str | None = None
    server: str | None = None
    gpu: str | None = None
    min_gpu_memory_gib: float | None = None
    min_memory_gib: float | None = None
    min_vcpus: int | None = None
    arch: str | None = None
    status: str | None = None
    region: str | None = None
    allocation: str | None = None
    currency: str | None = None
    flagged: bool = False
    history: bool = False
    limit: int | None = None


@dataclass(frozen=True)
class Listing:
    """Rows, and what a reader of them must know.

    Attributes:
        rows: the objects.
        total: how many there are; more than ``rows`` where the limit cut them.
        notes: sentences that belong to the answer.
    """

    rows: list[Row]
    total: int
    notes: tuple[str, ...] = ()


def servers(session: Session, wanted: Wanted) -> Listing:
    """Server types, by vendor, family and size.

    Raises:
        UsageError: a name asked for is not in the catalogue.
    """
    wanted = _checked(session, wanted)
    query = select(
        Server.vendor_id,
        Server.server_id,
        Server.api_reference,
        Server.family,
        Server.vcpus,
        Server.cpu_cores,
        Server.cpu_architecture,
        Server.cpu_manufacturer,
        Server.cpu_model,
        _gib(Server.memory_amount).label("memory_gib"),
        Server.storage_size.label("storage_gb"),
        Server.storage_type,
        Server.gpu_count,
        Server.gpu_model,
        _gib(Server.gpu_memory_min).label("gpu_memory_gib"),
        _gib(Server.gpu_memory_total).label("gpu_memory_total_gib"),
        Server.status,
        Server.description,
    ).where(*_server_terms(session, wanted))
    if wanted.region:
        query = query.where(_offered_in(session, wanted.region))
    order = (Server.vendor_id, Server.family, Server.gpu_count, Server.vcpus, Server.memory_amount, Server.server_id)
    return _listing(session, query, order, wanted.limit)


def regions(session: Session, wanted: Wanted) -> Listing:
    """Regions, with the number of server types that have a price there.

    Raises:
        UsageError: the vendor or region asked for is not in the catalogue.
    """
    wanted = _checked(session, wanted)
    priced = (
        select(Price.vendor_id, Price.region_id, func.count(Price.server_id.distinct()).label("servers"))
        .where(Price.is_current)
        .group_by(Price.vendor_id, Price.region_id)
        .subquery()
    )
    query = (
        select(
            Region.vendor_id,
            Region.region_id,
            Region.api_reference,
            Region.display_name,
            Region.country_id,
            Region.city,
            func.coalesce(priced.c.servers, 0).label("priced_servers"),
            Region.status,
        )
        .outerjoin(priced, (priced.c.vendor_id == Region.vendor_id) & (priced.c.region_id == Region.region_id))
        .where(*_place_terms(session, wanted))
    )
    if wanted.status:
        query = query.where(Region.status == wanted.status)
    return _listing(session, query, (Region.vendor_id, Region.api_reference), wanted.limit)


def zones(session: Session, wanted: Wanted) -> Listing:
    """Zones of the regions; ``*`` stands for any.

    Raises:
        UsageError: the vendor or region asked for is not in the catalogue.
    """
    wanted = _checked(session, wanted)
    query = (
        select(
            Zone.vendor_id,
            Zone.region_id,
            Region.api_reference.label("region"),
            Zone.zone_id,
            Zone.api_reference,
            Zone.status,
        )
        .join(Region, (Region.vendor_id == Zone.vendor_id) & (Region.region_id == Zone.region_id))
        .where(*_place_terms(session, wanted))
    )
    if wanted.status:
        query = query.where(Zone.status == wanted.status)
    return _listing(session, query, (Zone.vendor_id, Region.api_reference, Zone.api_reference), wanted.limit)


def prices(session: Session, wanted: Wanted) -> Listing:
    """Prices of all sources, the cheapest first; without a currency to convert into, one currency after the other.

    Raises:
        UsageError: a name asked for is not in the catalogue, or there is no rate for the currency.
    """
    wanted = _checked(session, wanted)
    rates = newest_rates(session)
    used: list[Rate] = []
    price: Any = Price.price
    currency: Any = Price.currency
    terms = [*_price_terms(session, wanted), *_server_terms(session, wanted)]
    notes: list[str] = []
    if wanted.currency:
        require_rate(wanted.currency, rates)
        into = factors(wanted.currency, rates)
        terms_before = list(terms)
        terms.append(Price.currency.in_(into))
        price = Price.price * case(*((Price.currency == code, factor) for code, factor in into.items()))
        currency = literal(wanted.currency)
        notes += _unconverted(session, terms_before, into)
        listed = session.scalars(_priced(select(Price.currency)).where(*terms).distinct())
        used = [
            rates[code]
            for code in sorted({wanted.currency, *_others(listed, wanted.currency)} - {USD})
            if code in rates
        ]
    query = _priced(
        select(
            Price.vendor_id,
            Price.server_id,
            Server.api_reference,
            Price.region_id,
            func.coalesce(Region.api_reference, Price.region_id).label("region"),
            Price.zone_id,
            Price.allocation,
            price.label("price"),
            currency.label("currency"),
            Price.unit,
            (Price.price if wanted.currency else null()).label("listed_price"),
            (Price.currency if wanted.currency else null()).label("listed_currency"),
            Price.operating_system,
            Price.source,
            Price.source_date,
            Price.licence,
            Price.since,
            Price.until,
            Price.is_current,
            Price.flags,
        )
    ).where(*terms)
    order = (
        currency,
        Price.allocation,
        price,
        Price.vendor_id,
        Server.api_reference,
        Region.api_reference,
        Price.since,
    )
    found = _listing(session, query, order, wanted.limit)
    for row in found.rows:
        row["doubts"] = [MEANINGS.get(flag, flag) for flag in row["flags"]]
    converted = any(row["listed_currency"] not in (None, row["currency"]) for row in found.rows)
    notes += [f"Converted with {rate}." for rate in used] if converted else []
    return replace(found, notes=(*found.notes, *notes))


def rates(session: Session, wanted: Wanted) -> Listing:
    """Exchange rates, the newest of each currency first."""
    query = select(ExchangeRate.currency, ExchangeRate.rate_date, ExchangeRate.usd_per_unit, ExchangeRate.source)
    if wanted.currency:
        query = query.where(ExchangeRate.currency == wanted.currency.upper())
    order = (ExchangeRate.currency, ExchangeRate.rate_date.desc(), ExchangeRate.source)
    return _listing(session, query, order, wanted.limit)


def gpu_models(session: Session) -> list[str]:
    """All GPU models of the catalogue."""
    return sorted(one for one in session.scalars(select(Server.gpu_model).distinct()) if one)


def is_empty(session: Session) -> bool:
    """Whether nothing was ever taken in."""
    return session.scalars(select(Server.server_id).limit(1)).first() is None


def _listing(session: Session, query: Select[*tuple[Any, ...]], order: Sequence[Any], limit: int | None) -> Listing:
    total = None
    if limit is not None:
        total = session.scalar(select(func.count()).select_from(query.order_by(None).subquery()))
        query = query.limit(limit)
    rows = [dict(row) for row in session.execute(query.order_by(*order)).mappings()]
    return Listing(rows, len(rows) if total is None else total)


def _priced(query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    return query.join(Server, (Server.vendor_id == Price.vendor_id) & (Server.server_id == Price.server_id)).outerjoin(
        Region, (Region.vendor_id == Price.vendor_id) & (Region.region_id == Price.region_id)
    )


def _price_terms(session: Session, wanted: Wanted) -> list[ColumnElement[bool]]:
    terms: list[ColumnElement[bool]] = []
    if not wanted.history:
        terms.append(Price.until.is_(None))
    if wanted.allocation:
        terms.append(Price.allocation == wanted.allocation)
    if wanted.flagged:
        terms.append(Price.flags != [])
    if wanted.region:
        terms.append(_in_region(session, Price, wanted.region))
    return terms


def _server_terms(session: Session, wanted: Wanted) -> list[ColumnElement[bool]]:
    terms: list[ColumnElement[bool]] = []
    if wanted.vendor:
        terms.append(Server.vendor_id == wanted.vendor)
    if wanted.server:
        pattern = _like(wanted.server)
        terms.append(
            or_(Server.api_reference.ilike(pattern, escape="\\"), Server.server_id.ilike(pattern, escape="\\"))
        )
    if wanted.gpu == ANY_GPU:
        terms.append(Server.gpu_count > 0)
    elif wanted.gpu:
        terms.append(Server.gpu_model.in_(_models_meant(session, wanted.gpu)))
    if wanted.min_gpu_memory_gib is not None:
        terms.append(Server.gpu_memory_total >= wanted.min_gpu_memory_gib * MIB_PER_GIB)
    if wanted.min_memory_gib is not None:
        terms.append(Server.memory_amount >= wanted.min_memory_gib * MIB_PER_GIB)
    if wanted.min_vcpus is not None:
        terms.append(Server.vcpus >= wanted.min_vcpus)
    if wanted.arch:
        terms.append(Server.cpu_architecture == wanted.arch)
    if wanted.status:
        terms.append(Server.status == wanted.status)
    return terms


def _place_terms(session: Session, wanted: Wanted) -> list[ColumnElement[bool]]:
    terms: list[ColumnElement[bool]] = [Region.vendor_id == wanted.vendor] if wanted.vendor else []
    return [*terms, _in_region(session, Region, wanted.region)] if wanted.region else terms


def _in_region(session: Session, of: Any, name: str) -> ColumnElement[bool]:
    """Whether a row of ``of``, which has a vendor and a region, is in the region that ``name`` means."""
    regions = regions_meant(session, name)
    return or_(*(and_(of.vendor_id == vendor, of.region_id == region) for vendor, region in regions))


def _offered_in(session: Session, region: str) -> ColumnElement[bool]:
    return (
        select(literal(1))
        .where(Price.vendor_id == Server.vendor_id, Price.server_id == Server.server_id, Price.is_current)
        .where(_in_region(session, Price, region))
        .exists()
    )


def _like(glob: str) -> str:
    """A pattern with ``*`` and ``?`` as LIKE writes it."""
    return "".join({"*": "%", "?": "_"}.get(c, f"\\{c}" if c in "%_\\" else c) for c in glob)


def _models_meant(session: Session, name: str) -> list[str]:
    """The models that ``name`` means: whole words of it, so that L4 is no L40S.

    Raises:
        UsageError: there is none.
    """
    known = gpu_models(session)
    words = _words(name)
    found = [model for model in known if words <= _words(model)]
    if not found:
        raise _unknown("GPU", name, known)
    return found


def _words(text: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", text.lower())) - {""}


def _checked(session: Session, wanted: Wanted) -> Wanted:
    """``wanted`` with the names that the database has.

    Raises:
        UsageError: a vendor or region that it does not have.
    """
    if wanted.server and "/" in wanted.server and not wanted.vendor:
        vendor, _, server = wanted.server.partition("/")
        wanted = replace(wanted, vendor=vendor, server=server)
    if wanted.vendor:
        vendor = VENDOR_ALIASES.get(wanted.vendor.lower(), wanted.vendor.lower())
        known = list(session.scalars(select(Vendor.vendor_id)))
        if known and vendor not in known:
            raise _unknown("vendor", wanted.vendor, known)
        wanted = replace(wanted, vendor=vendor)
    return replace(wanted, currency=wanted.currency.upper() if wanted.currency else None)


def _unknown(what: str, name: str, known: Sequence[str]) -> UsageError:
    spelled = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=0.5)
    if near:
        mend = f"Did you mean '{spelled[near[0]]}'?"
    else:
        mend = f"There are: {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}." if known else ""
    return UsageError(f"There is no {what} '{name}' in the catalogue.", mend)


def _others(listed: Iterable[str], into: str) -> list[str]:
    return [code for code in listed if code != into]


def _unconverted(session: Session, terms: Sequence[ColumnElement[bool]], into: Mapping[str, float]) -> list[str]:
    counted = session.execute(
        _priced(select(Price.currency, func.count()))
        .where(*terms, Price.currency.not_in(into))
        .group_by(Price.currency)
    )
    return [f"{count} prices in {currency} are left out: no rate for it is known." for currency, count in counted.all()]


def _gib(mib: Any) -> Any:
    return mib / float(MIB_PER_GIB)
