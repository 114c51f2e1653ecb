"""Names to identifiers: which vendor, region, zone and server a price is for. What the catalogue lacks is made.

No price is dropped because its region is new, or because it came before the catalogue did; such a row holds its name
and nothing else, and a catalogue that comes later fills it, or gives it another identifier (:mod:`server_types`).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select

from benchctl.db.hosts import OWN, VENDOR_NAMES
from benchctl.db.schema import Region, Server, Vendor, Zone

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

ANY = "*"
"""The region or zone of a price whose source names none."""

BY_PRICE_ALONE = "Known by its price alone."
"""Description of a server that no catalogue and no measurement has told more of."""


class Places:
    """The places and servers of one vendor.

    Args:
        connection: in a transaction.
        vendor_id: the vendor.
        now: what made rows say of when they were seen.
    """

    def __init__(self, connection: Connection, vendor_id: str, now: datetime) -> None:
        self._connection = connection
        self._vendor = vendor_id
        self._now = now
        self._made: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        self.gpus: dict[str, int] = {}
        self._regions: dict[str, str] = {}
        self._zones: dict[tuple[str, str], str] = {}
        self._servers: dict[str, str] = {}
        self._vendor_known = bool(connection.scalar(select(Vendor.vendor_id).filter_by(vendor_id=vendor_id)))
        self._load()

    def _load(self) -> None:
        rows = self._connection.execute(
            select(Region.region_id, Region.api_reference, Region.name, Region.aliases).filter_by(
                vendor_id=self._vendor
            )
        ).all()
        # the less a name is the region's own, the earlier it comes, so that its own wins
        for names in (lambda row: row.aliases, lambda row: (row.name,), lambda row: (row.api_reference,)):
            for row in rows:
                self._regions.update(dict.fromkeys(names(row), row.region_id))
        self._regions.update({row.region_id: row.region_id for row in rows})
        zones = self._connection.execute(
            select(Zone.region_id, Zone.zone_id, Zone.api_reference, Zone.name).filter_by(vendor_id=self._vendor)
        ).all()
        for region, zone, api_reference, name in zones:
            self._zones[region, name] = self._zones[region, api_reference] = zone
        self._zones.update({(row.region_id, row.zone_id): row.zone_id for row in zones})
        servers = self._connection.execute(
            select(Server.server_id, Server.api_reference, Server.gpu_count).filter_by(vendor_id=self._vendor)
        ).all()
        self._servers = {row.server_id: row.server_id for row in servers}
        self._servers |= {row.api_reference: row.server_id for row in servers}
        self.gpus = {row.server_id: row.gpu_count for row in servers}

    def region(self, name: str) -> str:
        """The identifier of the region called ``name``."""
        name = name or ANY
        if name not in self._regions:
            self._regions[name] = name
            self._make(Region, region_id=name, **self._named(name, "any region"))
        return self._regions[name]

    def zone(self, region_id: str, name: str) -> str:
        """The identifier of the zone called ``name`` in a region."""
        name = name or ANY
        if (region_id, name) not in self._zones:
            self._zones[region_id, name] = name
            self._make(Zone, region_id=region_id, zone_id=name, **self._named(name, "any zone"))
        return self._zones[region_id, name]

    def known_server(self, name: str) -> str | None:
        """The identifier of the server type called ``name``, if there is one."""
        return self._servers.get(name)

    def server(self, name: str) -> str | None:
        """The identifier of the server type called ``name``; nothing for a machine of one's own that nobody knows."""
        if name not in self._servers:
            if self._vendor in OWN:
                return None
            self._servers[name] = name
            self._make(
                Server,
                server_id=name,
                vcpus=0,
                memory_amount=0,
                cpu_architecture="UNKNOWN",
                description=BY_PRICE_ALONE,
                **self._named(name, name),
            )
        return self._servers[name]

    @property
    def made_servers(self) -> int:
        """How many servers were made."""
        return len(self._made[Server])

    def write(self) -> None:
        """Insert what was made."""
        if not self._vendor_known and any(self._made.values()):
            name = VENDOR_NAMES.get(self._vendor, self._vendor)
            self._connection.execute(
                insert(Vendor), {"vendor_id": self._vendor, "name": name, "observed_at": self._now}
            )
            self._vendor_known = True
        for model in (Region, Zone, Server):
            if self._made[model]:
                self._connection.execute(insert(model), self._made[model])
        self._made.clear()

    def _make(self, model: type, **values: Any) -> None:
        self._made[model].append({"vendor_id": self._vendor, "observed_at": self._now, **values})

    @staticmethod
    def _named(name: str, shown: str) -> dict[str, str]:
        return {"name": name, "api_reference": name, "display_name": shown if name == ANY else name}
