"""Small catalogues for tests: Spare Cores databases and lists of prices, as files."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from benchctl.db.schema import THEIRS
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

if TYPE_CHECKING:
    from pathlib import Path

DAY = date(2025, 4, 28)
SEEN = datetime(2025, 4, 28, 20, 30, tzinfo=UTC)
HEADER = "vendor_id,api_reference,region,zone,allocation,price,currency,unit,source,source_date,licence"


@dataclass(frozen=True)
class Kind:
    """A server type of the small catalogue; ``identifier`` is Spare Cores', which is the name but with Google."""

    vendor: str
    name: str
    vcpus: int
    memory_gib: float
    gpus: int = 0
    gpu_model: str | None = None
    gpu_memory_gib: float = 0
    family: str = ""
    status: str = "ACTIVE"
    identifier: str = ""
    disk_gb: int = 0

    @property
    def server_id(self) -> str:
        return self.identifier or self.name


N2 = tuple(Kind("gcp", f"n2-standard-{n}", n, 4 * n, family="n2", identifier=f"20{n}") for n in (2, 4, 8, 16, 32))
N2_HIGHMEM = tuple(
    Kind("gcp", f"n2-highmem-{n}", n, 8 * n, family="n2", identifier=f"21{n}") for n in (2, 4, 8, 16, 32)
)
A2 = Kind("gcp", "a2-highgpu-1g", 12, 85, 1, "A100", 40, "a2", identifier="1000012")
G2 = Kind("gcp", "g2-standard-4", 4, 16, 1, "L4", 24, "g2", identifier="1000204")
M5 = tuple(Kind("aws", f"m5.{2**i if i else ''}xlarge", 4 * 2**i, 16 * 2**i, family="m5") for i in range(4))
CX22 = Kind("hcloud", "cx22", 2, 4, family="cx", identifier="104")
KINDS = (*N2, *N2_HIGHMEM, A2, G2, *M5, CX22)

REGIONS = (
    ("gcp", "1000", "us-central1", "Council Bluffs (US)", "[]"),
    ("gcp", "1100", "europe-west1", "St. Ghislain (BE)", "[]"),
    ("aws", "us-east-1", "us-east-1", "Northern Virginia (US)", "[]"),
    ("hcloud", "4", "fsn1-dc14", "Falkenstein (DE)", '["fsn1"]'),
)
ZONES = (("gcp", "1000", "2000", "us-central1-a"), ("aws", "us-east-1", "use1-az1", "us-east-1a"))


def write_database(
    path: Path,
    kinds: tuple[Kind, ...] = KINDS,
    seen: datetime = SEEN,
    prices: tuple[Any, ...] = (),
    *,
    vendors: tuple[str, ...] = ("aws", "gcp", "hcloud"),
    regions: tuple[tuple[str, ...], ...] = REGIONS,
    zones: tuple[tuple[str, ...], ...] = ZONES,
) -> Path:
    """A Spare Cores database with these server types, as SQLite file.

    ``prices`` are (vendor, region_id, zone_id, server_id, allocation, price, currency).
    """
    at = seen.replace(tzinfo=None).isoformat(" ")
    with closing(sqlite3.connect(path)) as db, db:
        for model in THEIRS:
            db.execute(str(CreateTable(model.__table__).compile(dialect=sqlite.dialect())))  # type: ignore[arg-type]
        db.execute("INSERT INTO country VALUES ('US', 'North America', 'ACTIVE', ?)", (at,))
        for vendor in vendors:
            db.execute(
                "INSERT INTO vendor (vendor_id, name, country_id, status, observed_at) "
                "VALUES (?, ?, 'US', 'ACTIVE', ?)",
                (vendor, vendor.upper(), at),
            )
        db.executemany(
            "INSERT INTO region (vendor_id, region_id, name, api_reference, display_name, aliases, country_id, status,"
            " observed_at) VALUES (?, ?, ?, ?, ?, ?, 'US', 'ACTIVE', ?)",
            [(vendor, region, name, name, shown, aliases, at) for vendor, region, name, shown, aliases in regions],
        )
        db.executemany(
            "INSERT INTO zone (vendor_id, region_id, zone_id, name, api_reference, display_name, status, observed_at)"
            " VALUES (?, ?, ?, ?, ?, ?, 'ACTIVE', ?)",
            [(vendor, region, zone, name, name, name, at) for vendor, region, zone, name in zones],
        )
        for kind in kinds:
            _insert(db, "server", _server(kind, at))
        for vendor, region, zone, server, allocation, price, currency in prices:
            db.execute(
                "INSERT INTO server_price VALUES (?, ?, ?, ?, 'Linux', ?, 'HOUR', ?, 0, '[]', ?, 'ACTIVE', ?)",
                (vendor, region, zone, server, allocation, price, currency, at),
            )
    return path


def _server(kind: Kind, at: str) -> dict[str, Any]:
    return {
        "vendor_id": kind.vendor, "server_id": kind.server_id, "name": kind.name, "api_reference": kind.name,
        "display_name": kind.name, "family": kind.family, "vcpus": kind.vcpus, "cpu_allocation": "DEDICATED",
        "cpu_cores": max(1, kind.vcpus // 2), "cpu_architecture": "X86_64", "cpu_flags": '["avx2"]', "cpus": "[]",
        "memory_amount": int(kind.memory_gib * 1024), "gpu_count": kind.gpus, "gpu_model": kind.gpu_model,
        "gpu_memory_min": int(kind.gpu_memory_gib * 1024) or None,
        "gpu_memory_total": int(kind.gpu_memory_gib * 1024 * kind.gpus) or None, "gpus": "[]",
        "storage_size": kind.disk_gb, "storages": "[]", "inbound_traffic": 0.0, "outbound_traffic": 0.0, "ipv4": 0,
        "status": kind.status, "observed_at": at,
    }  # fmt: skip


def _insert(db: sqlite3.Connection, table: str, values: dict[str, Any]) -> None:
    marks = ", ".join("?" * len(values))
    db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))  # noqa: S608


@dataclass(frozen=True)
class Line:
    """A line of a list of prices."""

    server: str
    price: float | str
    vendor: str = "gcp"
    region: str = "us-central1"
    zone: str = ""
    allocation: str = "ONDEMAND"
    currency: str = "USD"
    unit: str = "HOUR"
    source: str = "prices/list@abcdef1 prices.yml"
    day: date | str = field(default=DAY)
    licence: str = "Apache-2.0"

    def __str__(self) -> str:
        return ",".join(
            map(
                str,
                (
                    self.vendor, self.server, self.region, self.zone, self.allocation, self.price, self.currency,
                    self.unit, self.source, self.day, self.licence,
                ),
            )
        )  # fmt: skip


def cpu_lines(source: str = "prices/list@abcdef1 prices.yml", region: str = "us-central1") -> list[Line]:
    """What Google's N2 servers cost: 0.0316 USD a vCPU, 0.00424 a GiB."""
    return [
        Line(kind.name, round(0.0316 * kind.vcpus + 0.00424 * kind.memory_gib, 6), source=source, region=region)
        for kind in (*N2, *N2_HIGHMEM)
    ]


def write_prices(path: Path, *lines: Line | str, header: str = HEADER) -> Path:
    """A list of prices as CSV."""
    path.write_text("\n".join([header, *map(str, lines), ""]), encoding="utf-8")
    return path


def write_rates(path: Path, *lines: str) -> Path:
    """A list of exchange rates as CSV."""
    path.write_text("\n".join(["currency,rate_date,usd_per_unit,source", *lines, ""]), encoding="utf-8")
    return path
