"""The servers that a run touched: known from a catalogue, or made from what was found on the machine itself."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from benchctl.db.schema import Server, Vendor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from benchctl.results import Run

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


def refresh_server(session: Session, run: Run) -> str:
    """Make sure that the run's server is in the database, and give its ``server_id``.

    A server of a catalogue is found by its identifier or by the vendor's own name for it, and left as it is. One that
    no catalogue lists is made from the facts; a machine of one's own is brought up to date with each run.
    """
    if session.get(Vendor, run.vendor) is None:
        name = VENDOR_NAMES.get(run.vendor, run.vendor)
        session.add(Vendor(vendor_id=run.vendor, name=name, observed_at=datetime.now(UTC)))
        session.flush()
    known = (
        session.get(Server, (run.vendor, run.server))
        or session.scalars(
            select(Server).filter_by(vendor_id=run.vendor, api_reference=run.server).order_by(Server.server_id)
        ).first()
    )
    if known is None:
        known = Server(vendor_id=run.vendor, server_id=run.server, **_described(run))
        session.add(known)
    elif run.vendor in OWN and run.facts:
        for key, value in _described(run).items():
            setattr(known, key, value)
    session.flush()
    return known.server_id


def _described(run: Run) -> dict[str, Any]:
    facts = run.facts
    name = str(run.meta.benchctl.get("api_reference") or run.server)
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
