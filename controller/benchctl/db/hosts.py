"""The servers that a run touched: known from a catalogue, or made from what was found on the machine itself."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import or_, select, update

from benchctl.db import bulk
from benchctl.db.schema import Server, Vendor
from benchctl.prepared import document, moment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.orm import Session

    from benchctl.prepared import Prepared

OWN = ("local", "ssh")
"""Vendors without a catalogue: what was found on the machine is all that is known of it."""

VENDOR_NAMES = {
    "aws": "Amazon Web Services",
    "azure": "Microsoft Azure",
    "gcp": "Google Cloud Platform",
    "hcloud": "Hetzner Cloud",
    "upcloud": "UpCloud",
    "local": "This machine",
    "ssh": "Servers of one's own, by SSH",
    "lab": "Containers for tests",
}

_ARCHITECTURES = {"x86_64": "X86_64", "amd64": "X86_64", "aarch64": "ARM64", "arm64": "ARM64", "i686": "I386"}
_MIB = 1024 * 1024

SERVER_COLUMNS = (
    "vendor_id", "server_id", "name", "api_reference", "display_name", "description", "vcpus", "hypervisor",
    "cpu_cores", "cpu_speed", "cpu_architecture", "cpu_manufacturer", "cpu_model", "memory_amount", "gpu_count",
    "gpu_model", "gpu_memory_min", "gpu_memory_total",
)  # fmt: skip
"""What a run tells of its server, besides its GPUs."""

SERVER_CONSTANTS = {
    **dict.fromkeys(("cpu_flags", "cpus", "storages"), "'[]'"),
    **dict.fromkeys(("storage_size", "inbound_traffic", "outbound_traffic", "ipv4"), "0"),
    "cpu_allocation": "'DEDICATED'",
    "status": "'ACTIVE'",
}
"""The obligatory columns of a server of which no run tells anything, as SQL; the model's own defaults."""


def find_servers(session: Session, runs: Sequence[Prepared]) -> list[str]:
    """Make sure that the runs' servers are in the database, and give the ``server_id`` of each.

    A server of a catalogue is found by its identifier or by the vendor's own name for it, and left as it is. One that
    no catalogue lists is made from the facts, and so is one of which no more than its name was known; a machine of
    one's own is brought up to date with each run.
    """
    _vendors(session, {run.vendor for run in runs})
    known = _known(session, runs)
    new: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        key = (run.vendor, run.server)
        if key not in known:
            known[key] = run.server
            new[key] = {"vendor_id": run.vendor, "server_id": run.server, **_described(run)}
        elif run.facts:
            described = _described(run)
            if key in new:
                new[key].update(described)
                continue
            change = update(Server).filter_by(vendor_id=run.vendor, server_id=known[key]).values(**described)
            session.execute(change if run.vendor in OWN else change.where(Server.vcpus == 0))
    _add(session, list(new.values()))
    return [known[run.vendor, run.server] for run in runs]


def _add(session: Session, servers: Sequence[dict[str, Any]]) -> None:
    """New servers, as the driver takes them: a corpus without a catalogue has thousands."""
    if servers:
        now = moment(datetime.now(UTC))
        rows = [(*(one[name] for name in SERVER_COLUMNS), document(one["gpus"]), now) for one in servers]
        bulk.insert(
            session.connection(), Server, (*SERVER_COLUMNS, "gpus", "observed_at"), rows, constants=SERVER_CONSTANTS
        )


def _vendors(session: Session, wanted: set[str]) -> None:
    known = set(session.scalars(select(Vendor.vendor_id).where(Vendor.vendor_id.in_(wanted))))
    for vendor in sorted(wanted - known):
        session.add(Vendor(vendor_id=vendor, name=VENDOR_NAMES.get(vendor, vendor), observed_at=datetime.now(UTC)))
    session.flush()


def _known(session: Session, runs: Sequence[Prepared]) -> dict[tuple[str, str], str]:
    """The identifiers of the servers that are there, by vendor and by what the run calls them."""
    names = {run.server for run in runs}
    found = session.execute(
        select(Server.vendor_id, Server.server_id, Server.api_reference)
        .where(
            Server.vendor_id.in_({run.vendor for run in runs}),
            or_(Server.server_id.in_(names), Server.api_reference.in_(names)),
        )
        .order_by(Server.server_id.desc())
    ).all()
    known = {(vendor, reference): server for vendor, server, reference in found}
    return known | {(vendor, server): server for vendor, server, _ in found}


def _described(run: Prepared) -> dict[str, Any]:
    facts = run.facts
    name = run.api_reference
    gpus = [gpu for gpu in facts.get("gpus") or () if isinstance(gpu, dict)]
    cpu = str(facts.get("cpu_model") or "")
    return {
        "name": name,
        "api_reference": name,
        "display_name": _own_name(facts) if run.vendor in OWN and facts else name,
        "description": None if facts else "Known by its results alone.",
        "vcpus": int(facts.get("logical_cpus") or 0),
        "hypervisor": facts.get("hypervisor") or None,
        "cpu_cores": facts.get("physical_cores"),
        "cpu_speed": _ghz(facts),
        "cpu_architecture": _ARCHITECTURES.get(str(facts.get("architecture")), "UNKNOWN"),
        "cpu_manufacturer": next((maker for maker in ("Intel", "AMD", "Ampere", "AWS", "Apple") if maker in cpu), None),
        "cpu_model": cpu or None,
        "memory_amount": math.floor((facts.get("memory_bytes") or 0) / _MIB),
        "gpu_count": len(gpus),
        "gpu_model": next((str(gpu["name"]) for gpu in gpus if gpu.get("name")), None),
        "gpu_memory_min": _gpu_memory_mib(gpus, min),
        "gpu_memory_total": _gpu_memory_mib(gpus, sum),
        "gpus": gpus,
        "observed_at": datetime.now(UTC),
    }


def _own_name(facts: Mapping[str, Any]) -> str:
    """What a machine of one's own is: ``AMD EPYC 7763 64-Core Processor, 2 cores, 8 GiB``."""
    parts = [str(facts.get("cpu_model") or "unknown CPU"), f"{facts.get('physical_cores') or '?'} cores"]
    return ", ".join([*parts, f"{(facts.get('memory_bytes') or 0) / _MIB / 1024:.0f} GiB"])


def _ghz(facts: Mapping[str, Any]) -> float | None:
    highest = facts.get("clock_max_mhz") or facts.get("clock_mhz")
    return round(highest / 1000, 2) if highest else None


def _gpu_memory_mib(gpus: list[dict[str, Any]], fold: Any) -> int | None:
    sizes = [int(gpu["memory_bytes"]) for gpu in gpus if gpu.get("memory_bytes")]
    return int(fold(sizes) / _MIB) if sizes else None
