"""Tables named and keyed as in Spare Cores' database (sc-crawler), so that queries written for it run on ours.

Names, types and keys follow https://github.com/SpareCores/sc-crawler as of April 2025. They hold the present only and
are derived: prices and servers from a catalogue, scores from ``measurement``. Two columns that are obligatory there are
optional here, because a machine on somebody's desk has neither: the country and the founding year of its vendor.
Columns that describe what no measurement of ours tells are kept, so that a catalogue can fill them.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from benchctl.db.columns import Base, CanonicalJson, Config, ConfigJson, Utc


class Observed:
    """What every row of theirs carries: whether it is current, and when it was seen."""

    status: Mapped[str] = mapped_column(String(8), default="ACTIVE", sort_order=98, doc="``ACTIVE`` or ``INACTIVE``")
    observed_at: Mapped[datetime] = mapped_column(Utc, sort_order=99, doc="when this was last seen, UTC")


class Country(Observed, Base):
    """Countries, by ISO 3166 code."""

    __tablename__ = "country"

    country_id: Mapped[str] = mapped_column(primary_key=True, doc="ISO 3166 alpha-2 code")
    continent: Mapped[str] = mapped_column(doc="continent's name")


class Vendor(Observed, Base):
    """Who rents servers out. ``local`` and ``ssh`` are machines of one's own."""

    __tablename__ = "vendor"

    vendor_id: Mapped[str] = mapped_column(primary_key=True, doc="e.g. ``aws``, ``hcloud``, ``local``")
    name: Mapped[str] = mapped_column(doc="full name")
    logo: Mapped[str | None] = mapped_column(doc="URL of the logo")
    homepage: Mapped[str | None] = mapped_column(doc="URL of the vendor")
    country_id: Mapped[str | None] = mapped_column(ForeignKey("country.country_id"), doc="where its head office is")
    state: Mapped[str | None] = mapped_column(doc="state of its head office")
    city: Mapped[str | None] = mapped_column(doc="city of its head office")
    address_line: Mapped[str | None] = mapped_column(doc="street and number of its head office")
    zip_code: Mapped[str | None] = mapped_column(doc="postal code of its head office")
    founding_year: Mapped[int | None] = mapped_column(doc="year in which it was founded")
    status_page: Mapped[str | None] = mapped_column(doc="URL of its status page")


class Region(Observed, Base):
    """A vendor's region."""

    __tablename__ = "region"

    vendor_id: Mapped[str] = mapped_column(ForeignKey("vendor.vendor_id"), primary_key=True, doc="the vendor")
    region_id: Mapped[str] = mapped_column(primary_key=True, doc="the vendor's identifier")
    name: Mapped[str] = mapped_column(doc="human-friendly name")
    api_reference: Mapped[str] = mapped_column(doc="how the vendor's API calls it")
    display_name: Mapped[str] = mapped_column(doc="name with place")
    aliases: Mapped[list[str]] = mapped_column(CanonicalJson, default=list, doc="other names")
    country_id: Mapped[str | None] = mapped_column(ForeignKey("country.country_id"), doc="where it is")
    state: Mapped[str | None] = mapped_column(doc="where it is")
    city: Mapped[str | None] = mapped_column(doc="where it is")
    address_line: Mapped[str | None] = mapped_column(doc="where it is")
    zip_code: Mapped[str | None] = mapped_column(doc="where it is")
    lon: Mapped[float | None] = mapped_column(doc="longitude in degrees")
    lat: Mapped[float | None] = mapped_column(doc="latitude in degrees")
    founding_year: Mapped[int | None] = mapped_column(doc="year in which it opened")
    green_energy: Mapped[bool | None] = mapped_column(doc="whether it runs on renewable energy only")


class Zone(Observed, Base):
    """A zone of a region."""

    __tablename__ = "zone"
    __table_args__ = (ForeignKeyConstraint(["vendor_id", "region_id"], ["region.vendor_id", "region.region_id"]),)

    vendor_id: Mapped[str] = mapped_column(ForeignKey("vendor.vendor_id"), primary_key=True, doc="the vendor")
    region_id: Mapped[str] = mapped_column(primary_key=True, doc="the region")
    zone_id: Mapped[str] = mapped_column(primary_key=True, doc="the vendor's identifier")
    name: Mapped[str] = mapped_column(doc="human-friendly name")
    api_reference: Mapped[str] = mapped_column(doc="how the vendor's API calls it")
    display_name: Mapped[str] = mapped_column(doc="name with place")


class Server(Observed, Base):
    """A server type; for ``local`` and ``ssh`` a machine, known by its CPU model, cores and memory."""

    __tablename__ = "server"

    vendor_id: Mapped[str] = mapped_column(ForeignKey("vendor.vendor_id"), primary_key=True, doc="the vendor")
    server_id: Mapped[str] = mapped_column(primary_key=True, doc="the vendor's identifier")
    name: Mapped[str] = mapped_column(doc="human-friendly name")
    api_reference: Mapped[str] = mapped_column(index=True, doc="how the vendor's API calls it")
    display_name: Mapped[str] = mapped_column(doc="name to show")
    description: Mapped[str | None] = mapped_column(doc="the vendor's description")
    family: Mapped[str | None] = mapped_column(doc="the vendor's family of server types")
    vcpus: Mapped[int] = mapped_column(doc="logical CPUs")
    hypervisor: Mapped[str | None] = mapped_column(doc="what it runs on")
    cpu_allocation: Mapped[str] = mapped_column(String(9), default="DEDICATED", doc="SHARED, BURSTABLE or DEDICATED")
    cpu_cores: Mapped[int | None] = mapped_column(doc="physical cores")
    cpu_speed: Mapped[float | None] = mapped_column(doc="highest clock in GHz")
    cpu_architecture: Mapped[str] = mapped_column(String(10), doc="``X86_64``, ``ARM64``, ...")
    cpu_manufacturer: Mapped[str | None] = mapped_column(doc="e.g. ``AMD``")
    cpu_family: Mapped[str | None] = mapped_column(doc="e.g. ``EPYC``")
    cpu_model: Mapped[str | None] = mapped_column(doc="e.g. ``7763``")
    cpu_l1_cache: Mapped[int | None] = mapped_column(doc="bytes of L1 cache")
    cpu_l2_cache: Mapped[int | None] = mapped_column(doc="bytes of L2 cache")
    cpu_l3_cache: Mapped[int | None] = mapped_column(doc="bytes of L3 cache")
    cpu_flags: Mapped[list[str]] = mapped_column(CanonicalJson, default=list, doc="the CPU's features")
    cpus: Mapped[list[dict[str, Any]]] = mapped_column(CanonicalJson, default=list, doc="each CPU, where they differ")
    memory_amount: Mapped[int] = mapped_column(doc="memory in MiB")
    memory_generation: Mapped[str | None] = mapped_column(String(4), doc="e.g. ``DDR5``")
    memory_speed: Mapped[int | None] = mapped_column(doc="clock of the memory in MHz")
    memory_ecc: Mapped[bool | None] = mapped_column(doc="whether errors are corrected")
    gpu_count: Mapped[int] = mapped_column(default=0, doc="number of GPUs")
    gpu_memory_min: Mapped[int | None] = mapped_column(doc="memory of the smallest GPU in MiB")
    gpu_memory_total: Mapped[int | None] = mapped_column(doc="memory of all GPUs in MiB")
    gpu_manufacturer: Mapped[str | None] = mapped_column(doc="e.g. ``NVIDIA``")
    gpu_family: Mapped[str | None] = mapped_column(doc="e.g. ``Ada Lovelace``")
    gpu_model: Mapped[str | None] = mapped_column(doc="e.g. ``L40S``")
    gpus: Mapped[list[dict[str, Any]]] = mapped_column(CanonicalJson, default=list, doc="each GPU")
    storage_size: Mapped[int] = mapped_column(default=0, doc="disk in GB")
    storage_type: Mapped[str | None] = mapped_column(String(8), doc="e.g. ``NVME_SSD``")
    storages: Mapped[list[dict[str, Any]]] = mapped_column(CanonicalJson, default=list, doc="each disk")
    network_speed: Mapped[float | None] = mapped_column(doc="Gbit/s")
    inbound_traffic: Mapped[float] = mapped_column(default=0.0, doc="GB a month that the price contains")
    outbound_traffic: Mapped[float] = mapped_column(default=0.0, doc="GB a month that the price contains")
    ipv4: Mapped[int] = mapped_column(default=0, doc="number of IPv4 addresses that the price contains")


class ServerPrice(Observed, Base):
    """What a server costs in a zone. Never compare across ``currency`` or ``allocation``."""

    __tablename__ = "server_price"
    __table_args__ = (
        ForeignKeyConstraint(["vendor_id", "region_id"], ["region.vendor_id", "region.region_id"]),
        ForeignKeyConstraint(
            ["vendor_id", "region_id", "zone_id"],
            ["zone.vendor_id", "zone.region_id", "zone.zone_id"],
            name="fk_server_price_vendor_id_zone",
        ),
        ForeignKeyConstraint(["vendor_id", "server_id"], ["server.vendor_id", "server.server_id"]),
    )

    vendor_id: Mapped[str] = mapped_column(ForeignKey("vendor.vendor_id"), primary_key=True, doc="the vendor")
    region_id: Mapped[str] = mapped_column(primary_key=True, doc="the region")
    zone_id: Mapped[str] = mapped_column(primary_key=True, doc="the zone")
    server_id: Mapped[str] = mapped_column(primary_key=True, doc="the server type")
    operating_system: Mapped[str] = mapped_column(default="Linux", doc="what runs on it")
    allocation: Mapped[str] = mapped_column(String(8), primary_key=True, doc="``ONDEMAND``, ``SPOT`` or ``RESERVED``")
    unit: Mapped[str] = mapped_column(String(8), default="HOUR", doc="what the price is for")
    price: Mapped[float] = mapped_column(doc="price of one unit")
    price_upfront: Mapped[float] = mapped_column(default=0.0, doc="price of starting")
    price_tiered: Mapped[list[dict[str, Any]]] = mapped_column(CanonicalJson, default=list, doc="prices by volume")
    currency: Mapped[str] = mapped_column(default="USD", doc="ISO 4217 code")


class Benchmark(Observed, Base):
    """What a score is a score of."""

    __tablename__ = "benchmark"

    benchmark_id: Mapped[str] = mapped_column(primary_key=True, doc="e.g. ``llm_speed:prompt_processing``")
    name: Mapped[str] = mapped_column(doc="human-friendly name")
    description: Mapped[str | None] = mapped_column(doc="what is measured and how")
    framework: Mapped[str] = mapped_column(doc="e.g. ``llm_speed``")
    config_fields: Mapped[dict[str, str]] = mapped_column(CanonicalJson, default=dict, doc="meaning of config's keys")
    measurement: Mapped[str | None] = mapped_column(doc="e.g. ``prompt_processing``")
    unit: Mapped[str | None] = mapped_column(doc="unit of the score")
    higher_is_better: Mapped[bool] = mapped_column(default=True, doc="whether more is better")


class BenchmarkScore(Observed, Base):
    """The one number of a server for a benchmark and its settings, as a page or a ranking shows it.

    For ``llm_speed`` it is derived from ``measurement``: of the newest sweep that ended ``ok`` with real weights, the
    median over the instances measured. Synthetic weights never come here.
    """

    __tablename__ = "benchmark_score"
    __table_args__ = (ForeignKeyConstraint(["vendor_id", "server_id"], ["server.vendor_id", "server.server_id"]),)

    vendor_id: Mapped[str] = mapped_column(ForeignKey("vendor.vendor_id"), primary_key=True, doc="the vendor")
    server_id: Mapped[str] = mapped_column(primary_key=True, doc="the server type")
    benchmark_id: Mapped[str] = mapped_column(
        ForeignKey("benchmark.benchmark_id"), primary_key=True, doc="the benchmark"
    )
    config: Mapped[Config] = mapped_column(
        ConfigJson, primary_key=True, doc='settings as canonical JSON: ``{"model": file name, "tokens": n}``'
    )
    score: Mapped[float] = mapped_column(doc="tokens/s for ``llm_speed``: mean of the samples' speeds")
    note: Mapped[str | None] = mapped_column(doc="where the score comes from")
