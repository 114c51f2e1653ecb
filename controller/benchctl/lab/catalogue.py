"""The lab's catalogue: its server types and made-up prices, brought into the database as any vendor's.

Everything says of itself that it is a rehearsal: the vendor's name, each type's description, each price's source. What
is measured on the lab's servers is marked besides (weights ``rehearsal``), and is in no ranking unless asked for.
"""

from __future__ import annotations

import os
import platform
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.lab.types import PRICE_SOURCE, ZONES, Size, plain_types

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine

    from benchctl.catalog.values import Snapshot

VENDOR = "lab"
REGION = "here"
NAME = "the lab's catalogue"
DESCRIPTION = "a rehearsal: a container on this machine, at a price that is made up"
PRICED = date(2026, 1, 1)
"""The prices were made up once."""


def ensure_catalogue(engine: Engine, cache: Path, recorded: str = "") -> None:
    """Bring the lab's types into the database; what is there already stays as it is.

    Args:
        engine: the database.
        cache: where recordings are kept.
        recorded: archive or folder of recorded runs, each of which is then a type of its own; empty for none.

    Raises:
        UsageError: nothing in ``recorded`` can be played.
        DatabaseError: the database can't be written.
    """
    from sqlalchemy import select

    from benchctl.catalog.store import take_in
    from benchctl.catalog.values import Delivery
    from benchctl.db.engine import reading
    from benchctl.db.schema import Server

    wanted = types(cache, recorded)
    with reading(engine) as session:
        known = dict(
            session.execute(
                select(Server.api_reference, Server.description).filter_by(vendor_id=VENDOR, status="ACTIVE")
            ).all()
        )
    # types of another recording may stay beside them; only a list that brings something new closes what it lacks
    if any(known.get(name) != description for name, (_, description) in wanted.items()):
        now = datetime.now(UTC)
        take_in(engine, [Delivery(snapshot(wanted, now))], now)


def types(cache: Path, recorded: str = "") -> dict[str, tuple[Size, str]]:
    """The types with their sizes and descriptions, by name."""
    found = {name: (size, DESCRIPTION) for name, size in plain_types().items()}
    if recorded:
        from benchctl.lab import recordings

        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2
        for name, one in recordings.playable(cache, Path(recorded)).items():
            about = f"{DESCRIPTION}; plays what was recorded on {one.vendor}/{one.server}"
            found[name] = (Size(one.threads, memory), about)
    return found


def snapshot(found: Mapping[str, tuple[Size, str]], now: datetime) -> Snapshot:
    """The types as a catalogue lists them. Pure but for this machine's architecture."""
    from benchctl.catalog.values import ListedPrice, Snapshot

    architecture = {"x86_64": "X86_64", "aarch64": "ARM64", "arm64": "ARM64"}.get(platform.machine(), "X86_64")
    servers = []
    for name, (size, description) in found.items():
        cpus = {"vcpus": size.vcpus, "cpu_cores": size.vcpus, "cpu_architecture": architecture}
        servers.append(
            _row("server", now, server_id=name, name=name, api_reference=name, display_name=name, family="lab",
                 description=description, memory_amount=size.memory_mib, cpu_allocation="SHARED", storage_size=75,
                 **cpus)
        )  # fmt: skip
    prices = tuple(
        ListedPrice(VENDOR, name, REGION, "", "ONDEMAND", size.usd_per_hour, "USD", "HOUR", PRICE_SOURCE, PRICED, None)
        for name, (size, _) in found.items()
    )
    region = {"region_id": REGION, "name": REGION, "api_reference": REGION, "display_name": "this machine"}
    zones = tuple(
        _row("zone", now, region_id=REGION, zone_id=one, name=one, api_reference=one, display_name=one) for one in ZONES
    )
    rows = {
        "country": (),
        "vendor": (_row("vendor", now, name="Lab (rehearsals on this machine)"),),
        "region": (_row("region", now, **region),),
        "zone": zones,
        "server": tuple(servers),
    }
    return Snapshot(NAME, rows, {VENDOR: now}, prices)


def _row(table: str, now: datetime, **values: Any) -> dict[str, Any]:
    """A row of a table with all its columns; those that are not given have the column's default, or nothing."""
    from benchctl.db.schema import metadata

    made: dict[str, Any] = {}
    for column in metadata.tables[table].columns:
        default = getattr(column.default, "arg", None) if column.default is None or column.default.is_scalar else None
        empty = [] if default is None and not column.nullable else default
        made[column.name] = values.get(column.name, empty)
    return {**made, "vendor_id": VENDOR, "status": "ACTIVE", "observed_at": now}
