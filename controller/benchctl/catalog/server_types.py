"""Servers, regions and zones of a Spare Cores database, brought into ours, with the history of the servers.

A row that was made before the catalogue came, from results or from a price, is known by the vendor's own name. It gets
the catalogue's identifier, together with all that refers to it, so that the order of imports does not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from benchctl.catalog.merging import filled, merge, update_rows
from benchctl.catalog.values import Tally
from benchctl.db.schema import Region, Server, ServerHistory, Zone, metadata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from benchctl.catalog.values import Snapshot, Summary

    Row = Mapping[str, Any]

ACTIVE, INACTIVE = "ACTIVE", "INACTIVE"


def take_snapshot(connection: Connection, snapshot: Snapshot, now: datetime, summary: Summary) -> set[str]:
    """Bring a snapshot's servers and places into the database.

    Args:
        connection: in a transaction.
        snapshot: what was read.
        now: when changes are said to have been seen.
        summary: is told what was done.

    Returns:
        The vendors that were brought up to date. One of which a newer snapshot is known is left as it is.
    """
    vendors = _not_older(connection, snapshot, summary)
    rows = {
        table: [row for row in found if row.get("vendor_id", "") in vendors or "vendor_id" not in row]
        for table, found in snapshot.rows.items()
    }
    if not vendors:
        return vendors
    merge(connection, metadata.tables["country"], rows["country"])
    merge(connection, metadata.tables["vendor"], rows["vendor"])
    _adopt_regions(connection, rows["region"], vendors, now)
    summary.tallies["regions"] = merge(connection, metadata.tables["region"], rows["region"], vendors=vendors)
    _adopt_zones(connection, rows["zone"], vendors, now)
    summary.tallies["zones"] = merge(connection, metadata.tables["zone"], rows["zone"], vendors=vendors)
    _adopt_servers(connection, rows["server"], vendors)
    merge(connection, metadata.tables["server"], rows["server"], vendors=vendors)
    summary.tallies["servers"] = _write_history(connection, rows["server"], snapshot.name, vendors, now)
    return vendors


def _not_older(connection: Connection, snapshot: Snapshot, summary: Summary) -> set[str]:
    newest: dict[str, datetime] = dict(
        connection.execute(
            select(Server.vendor_id, func.max(Server.observed_at))
            .join(
                ServerHistory,
                (ServerHistory.vendor_id == Server.vendor_id) & (ServerHistory.server_id == Server.server_id),
            )
            .where(ServerHistory.until.is_(None))
            .group_by(Server.vendor_id)
        ).all()
    )
    older = {vendor for vendor, seen in snapshot.as_of.items() if vendor in newest and seen < newest[vendor]}
    for vendor in sorted(older):
        summary.notes.append(
            f"{snapshot.name} shows {vendor} as of {snapshot.as_of[vendor]:%Y-%m-%d %H:%M}; its servers are left as "
            f"they are, because they are known as of {newest[vendor]:%Y-%m-%d %H:%M}."
        )
    return set(snapshot.as_of) - older


def _write_history(
    connection: Connection, servers: Sequence[Row], source: str, vendors: set[str], now: datetime
) -> Tally:
    table = metadata.tables["server_history"]
    known = {
        (row.vendor_id, row.server_id): row
        for row in connection.execute(select(table).where(table.c.until.is_(None), table.c.vendor_id.in_(vendors)))
    }
    tally = Tally()
    opened: list[dict[str, Any]] = []
    closed: list[dict[str, Any]] = []
    for server in servers:
        key = (server["vendor_id"], server["server_id"])
        facts = {name: value for name, value in server.items() if name != "observed_at"}
        before = known.pop(key, None)
        if before is not None and before.facts == facts:
            tally.unchanged += 1
            continue
        if before is None:
            tally.new += 1
        else:
            closed.append({"vendor_id": key[0], "server_id": key[1], "since": before.since, "until": now})
            if before.status == ACTIVE and server["status"] == INACTIVE:
                tally.closed += 1
            else:
                tally.changed += 1
        opened.append(
            {
                "vendor_id": key[0],
                "server_id": key[1],
                "since": now,
                "status": server["status"],
                "source": source,
                "facts": facts,
            }
        )
    # what is still in ``known`` is in the newer catalogue no more
    tally.closed += len(known)
    closed += [
        {"vendor_id": vendor, "server_id": server, "since": row.since, "until": now}
        for (vendor, server), row in known.items()
    ]
    update_rows(connection, table, closed)
    update_rows(
        connection,
        metadata.tables["server"],
        [{"vendor_id": vendor, "server_id": server, "status": INACTIVE} for vendor, server in known],
    )
    if opened:
        connection.execute(insert(table), opened)
    return tally


def _adopt_servers(connection: Connection, servers: Sequence[Row], vendors: set[str]) -> None:
    """Give servers that were made by their name the catalogue's identifier."""
    table = metadata.tables["server"]
    known = {
        (row["vendor_id"], row["server_id"]): {str(name): row[name] for name in row}
        for row in connection.execute(select(table).where(table.c.vendor_id.in_(vendors))).mappings()
    }
    theirs = {(row["vendor_id"], row["server_id"]) for row in servers}
    adopted = [
        filled(row, known[row["vendor_id"], row["api_reference"]])
        for row in servers
        if (row["vendor_id"], row["server_id"]) not in known
        and (row["vendor_id"], row["api_reference"]) in known.keys() - theirs
    ]
    if not adopted:
        return
    connection.execute(insert(table), adopted)
    renamed = [{"of": row["vendor_id"], "old": row["api_reference"], "new": row["server_id"]} for row in adopted]
    for other in metadata.sorted_tables:
        if other is not table and {"vendor_id", "server_id"} <= set(other.c.keys()):
            connection.execute(
                update(other)
                .where(other.c.vendor_id == bindparam("of"), other.c.server_id == bindparam("old"))
                .values(server_id=bindparam("new")),
                renamed,
            )
    connection.execute(
        delete(Server).where(Server.vendor_id == bindparam("of"), Server.server_id == bindparam("old")),
        [{"of": one["of"], "old": one["old"]} for one in renamed],
    )


def _adopt_regions(connection: Connection, regions: Sequence[Row], vendors: set[str], now: datetime) -> None:
    """Give regions that were made by their name the catalogue's identifier."""
    places = select(Region.vendor_id, Region.region_id).where(Region.vendor_id.in_(vendors))
    known = {(vendor, region) for vendor, region in connection.execute(places).all()}
    theirs = {(row["vendor_id"], row["region_id"]) for row in regions}
    for row in regions:
        vendor, new = row["vendor_id"], row["region_id"]
        names = (row["api_reference"], row["name"], *(row["aliases"] or ()))
        for old in dict.fromkeys(names):
            if (vendor, new) in known or (vendor, old) not in known - theirs:
                continue
            connection.execute(insert(Region), dict(row))
            zones = [
                {**one, "region_id": new, "observed_at": now}
                for one in connection.execute(
                    select(metadata.tables["zone"]).where(Zone.vendor_id == vendor, Zone.region_id == old)
                ).mappings()
            ]
            if zones:
                connection.execute(insert(Zone), zones)
            for name in ("price", "server_price"):
                table = metadata.tables[name]
                connection.execute(
                    update(table).where(table.c.vendor_id == vendor, table.c.region_id == old).values(region_id=new)
                )
            connection.execute(delete(Zone).where(Zone.vendor_id == vendor, Zone.region_id == old))
            connection.execute(delete(Region).where(Region.vendor_id == vendor, Region.region_id == old))
            known = (known - {(vendor, old)}) | {(vendor, new)}


def _adopt_zones(connection: Connection, zones: Sequence[Row], vendors: set[str], now: datetime) -> None:
    """Give zones that were made by their name the catalogue's identifier."""
    places = select(Zone.vendor_id, Zone.region_id, Zone.zone_id).where(Zone.vendor_id.in_(vendors))
    known = {(vendor, region, zone) for vendor, region, zone in connection.execute(places).all()}
    theirs = {(row["vendor_id"], row["region_id"], row["zone_id"]) for row in zones}
    for row in zones:
        vendor, region, new = row["vendor_id"], row["region_id"], row["zone_id"]
        for old in dict.fromkeys((row["api_reference"], row["name"])):
            if (vendor, region, new) in known or (vendor, region, old) not in known - theirs:
                continue
            connection.execute(insert(Zone), {**row, "observed_at": now})
            for name in ("price", "server_price"):
                table = metadata.tables[name]
                connection.execute(
                    update(table)
                    .where(table.c.vendor_id == vendor, table.c.region_id == region, table.c.zone_id == old)
                    .values(zone_id=new)
                )
            connection.execute(
                delete(Zone).where(Zone.vendor_id == vendor, Zone.region_id == region, Zone.zone_id == old)
            )
            known = (known - {(vendor, region, old)}) | {(vendor, region, new)}
