"""All tables in one place: theirs (:mod:`sparecores`) and ours (:mod:`ours`).

Importing this module makes :data:`metadata` complete, which migrations and the documentation rely on.
"""

from __future__ import annotations

from benchctl.db.columns import Base
from benchctl.db.ours import (
    CatalogSource,
    ExchangeRate,
    Instance,
    Job,
    JobAttempt,
    JobServer,
    JobTime,
    Measurement,
    Price,
    RawRun,
    ServerHistory,
    Sweep,
)
from benchctl.db.sparecores import Benchmark, BenchmarkScore, Country, Region, Server, ServerPrice, Vendor, Zone

metadata = Base.metadata

THEIRS = (Country, Vendor, Region, Zone, Server, ServerPrice, Benchmark, BenchmarkScore)
"""Tables that Spare Cores' database has too, in an order in which each can be filled."""

OURS = (
    Sweep,
    Job,
    JobAttempt,
    JobServer,
    JobTime,
    RawRun,
    Instance,
    Measurement,
    Price,
    ServerHistory,
    ExchangeRate,
    CatalogSource,
)
"""Tables that are benchctl's own, in an order in which each can be filled."""

__all__ = [
    "OURS",
    "THEIRS",
    "Base",
    "Benchmark",
    "BenchmarkScore",
    "CatalogSource",
    "Country",
    "ExchangeRate",
    "Instance",
    "Job",
    "JobAttempt",
    "JobServer",
    "JobTime",
    "Measurement",
    "Price",
    "RawRun",
    "Region",
    "Server",
    "ServerHistory",
    "ServerPrice",
    "Sweep",
    "Vendor",
    "Zone",
    "metadata",
]
