"""Which server types of which clouds a sweep means, and where each can be rented for how much, by the catalogue.

The catalogue's names become those of the vendors' APIs here, in :func:`_locations`: what a price calls
``fsn1-dc14`` is Hetzner's location ``fsn1``; GCP and AWS want a zone; on Azure and UpCloud the region is enough.
"""

from __future__ import annotations

import fnmatch
import platform
from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from benchctl.budget import convert
from benchctl.clouds.cloud import vendor_id
from benchctl.clouds.placement import MOST_TRIES
from benchctl.clouds.spec import ARM64, X86_64
from benchctl.db import selection
from benchctl.errors import UsageError
from benchctl.lake import may_be_folder
from benchctl.plan import Found, Machine, Place, Price, Server, parse_budget
from benchctl.refusals import Refusal
from benchctl.request import LAB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy.orm import Session

    from benchctl.db.prices import Rate
    from benchctl.request import SweepRequest

MISSING, FAILED = "missing", "failed"
"""Words of :attr:`~benchctl.request.SweepRequest.only`."""

MOST_PLACES = MOST_TRIES
"""Places of one server that are kept, the cheapest: no more are tried."""

OWN_DISK_GB = 8
"""Of a disk that comes with the type, what the system itself takes, GB."""

DISK_BY_TYPE = ("hcloud",)
"""Vendors (as the database calls them) whose boot disk has the size that the type has."""

DISK_FROM_TYPE = ("upcloud",)
"""Vendors whose boot disk costs nothing up to the size that the type has, and may be larger."""

_ARCHITECTURES = {"X86_64": X86_64, "I386": X86_64, "ARM64": ARM64}
"""The catalogue's word and ours. AWS lists types that take both as I386; Macs, rented by the day, are left out."""

_ARM = {"gcp": ("t2a-*", "c4a-*", "n4a-*", "a4x-*")}
"""Types that are ARM's although the catalogue says otherwise; Google's documentation of its machine families."""

_ZONE_WANTED = ("aws", "gcp")
"""Vendors whose servers are made in a zone that is named."""

_OTHER_PARTITIONS = {"aws": ("cn-*", "us-gov-*", "us-iso*"), "azure": ("china*", "usgov*", "usdod*")}
"""Regions that want an account of their own: rented in only where ``--regions`` names them."""

_MIB = 1024**2
_ELF_MACHINES = {0x3E: X86_64, 0xB7: ARM64}


def find_cloud_servers(session: Session, request: SweepRequest, rates: Mapping[str, Rate] | None = None) -> Found:
    """The servers of a catalogue that a request means, with what they cost and where.

    Args:
        session: the database.
        request: what was asked for.
        rates: what currencies are worth, see :func:`benchctl.db.prices.newest_rates`.

    Raises:
        UsageError: the catalogue has no server of a vendor, or a price can't be converted into the budget's currency.
    """
    vendors = {vendor_id(one): one for one in request.clouds}
    rows = list(selection.server_rows(session, list(vendors)))
    _require_catalogue(rows, vendors)
    chosen = [row for row in rows if _matches(row, request.servers)]
    chosen = _by_record(session, request, chosen)
    allocation = "SPOT" if request.spot else "ONDEMAND"
    ours = _architecture_of(request)
    currency = parse_budget(request.budget)[1] if request.budget and parse_budget(request.budget)[0] else None
    servers: list[Server] = []
    counts: Counter[str] = Counter()
    for vendor in vendors:
        of_vendor = [row for row in chosen if row.vendor_id == vendor]
        if not of_vendor:
            continue
        regions = selection.region_rows(session, vendor)
        prices = selection.price_rows(session, vendor, [row.server_id for row in of_vendor], allocation)
        where = {one.region_id: _locations(vendor, one, request.regions) for one in regions.values()}
        for row in of_vendor:
            places, doubtful = _places(prices.get(row.server_id, ()), where, currency, rates or {})
            server = _server(row, places, allocation)
            left_out = _left_out(row, server, request, ours)
            counts["gpus"] += bool(server.gpus and not left_out)
            counts["doubtful"] += bool(doubtful and not left_out)
            server = replace(server, left_out=left_out)
            replicas = 1 if left_out else request.replicas
            servers += [replace(server, replica=number) for number in range(1, replicas + 1)]
    quota = selection.refused_last(session, list(vendors), str(Refusal.QUOTA))
    refused = sorted({one.name for one in servers if one.key in quota and not one.left_out})
    notes = (*_notes(counts, request), *_quota_notes(refused))
    return Found(servers, notes, tuple(row.api_reference for row in rows))


def _require_catalogue(rows: Sequence[Any], vendors: Mapping[str, str]) -> None:
    there = {row.vendor_id for row in rows}
    missing = [name for vendor, name in vendors.items() if vendor not in there]
    if missing:
        raise UsageError(
            f"The catalogue lists no server of {', '.join(missing)}.",
            "Fetch it with 'benchctl catalog pull', or take in a file with 'benchctl catalog import'.",
        )


def _matches(row: Any, patterns: Sequence[str]) -> bool:
    names = {str(one).lower() for one in (row.api_reference, row.name, row.display_name) if one}
    return not patterns or any(fnmatch.fnmatchcase(name, one.lower()) for one in patterns for name in names)


def _by_record(session: Session, request: SweepRequest, rows: list[Any]) -> list[Any]:
    """Those alone that the database lacks, where that was asked for: what fits one of the conditions is chosen."""
    only = {one for one in request.only.split(",") if one}
    if not only and not request.older_than:
        return rows
    vendors = {row.vendor_id for row in rows}
    newest = selection.newest_measurements(
        session,
        vendors,
        [model.file for model in request.models],
        {(one.task, one.tokens) for one in request.suite.scenarios},
    )
    failed = selection.failed_last(session, vendors) if FAILED in only else set()
    before = datetime.fromisoformat(request.older_than) if request.older_than else None
    chosen = []
    for row in rows:
        key = (row.vendor_id, row.server_id)
        at = newest.get(key)
        if (
            (MISSING in only and key not in newest)
            or key in failed
            or (before is not None and at is not None and at < before)
        ):
            chosen.append(row)
    return chosen


def _locations(vendor: str, region: selection.RegionRow, patterns: Sequence[str]) -> list[tuple[str, str, str]]:
    """Region and zone as the vendor's API wants them, and the database's identifier of the zone, in order.

    Args:
        vendor: the vendor, as the database calls it.
        region: the region.
        patterns: those of ``--regions``.
    """
    name = region.api_reference
    zones = [(zone, one) for zone, one in region.zones.items()]
    if vendor == "hcloud":
        # the catalogue lists data centres, which the API no longer takes: fsn1-dc14 is in fsn1
        name, zones = name.split("-dc")[0], []
    elif vendor == "upcloud":
        zones = []
    elif vendor == "azure":
        # zones 1 to 3; 0 stands for a region without any. Without a zone Azure chooses, which mostly works
        zones = [("", ""), *((zone, one) for zone, one in zones if one != "0")]
    if not zones:
        if vendor in _ZONE_WANTED:
            return []  # known by a price alone, as AWS's local zones are, which have no network of their own
        zones = [("", "")]
    names = (name, region.api_reference, *region.names)
    if not patterns:
        if any(fnmatch.fnmatchcase(name, one) for one in _OTHER_PARTITIONS.get(vendor, ())):
            return []
        return [(name, zone, zone_id) for zone_id, zone in zones]
    if _any_fits(names, patterns):
        return [(name, zone, zone_id) for zone_id, zone in zones]
    return [(name, zone, zone_id) for zone_id, zone in zones if zone and _any_fits((zone,), patterns)]


def _any_fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), one.lower()) for one in patterns for name in names)


def _places(
    prices: Sequence[selection.PriceRow],
    where: Mapping[str, Sequence[tuple[str, str, str]]],
    currency: str | None,
    rates: Mapping[str, Rate],
) -> tuple[tuple[Place, ...], bool]:
    """Where a server can be rented, the cheapest first, and whether all that is known of its price is doubtful."""
    sure = [one for one in prices if not one.doubtful]
    doubtful = bool(prices) and not sure
    taken: dict[tuple[str, str], Place] = {}
    for one in sorted(sure or prices, key=lambda price: price.per_hour):
        listed = Price(one.per_hour, one.currency)
        for region, zone in _spots(one, where):
            if len(taken) >= MOST_PLACES:
                break
            if (region, zone) not in taken:
                money = convert(listed, currency, rates) if currency else None
                taken[region, zone] = Place(region, zone, listed, money)
    return tuple(taken.values()), doubtful


def _spots(price: selection.PriceRow, where: Mapping[str, Sequence[tuple[str, str, str]]]) -> Iterator[tuple[str, str]]:
    regions = list(where) if price.region_id == selection.ANY else [price.region_id]
    for region_id in regions:
        for region, zone, zone_id in where.get(region_id, ()):
            if price.zone_id in (selection.ANY, zone_id) or not zone_id:
                yield region, zone


def _server(row: Any, places: tuple[Place, ...], allocation: str) -> Server:
    memory = int(row.memory_amount or 0) * _MIB
    machine = None
    if memory:
        machine = Machine(
            # catalogues that know no cores mean vCPUs, of which two share a core on most servers
            physical_cores=row.cpu_cores or max(1, (row.vcpus or 2) // 2),
            memory_bytes=memory,
            gpu_memory_bytes=int(row.gpu_memory_total or 0) * _MIB,
            disk_free_bytes=_disk_free(row),
        )
    return Server(
        vendor=row.vendor_id,
        name=row.api_reference,
        host=row.api_reference,
        machine=machine,
        price=places[0].price if places else None,
        places=places,
        architecture=_architecture(row),
        gpus=int(row.gpu_count or 0),
        vcpus=int(row.vcpus or 0),
        allocation=allocation,
        server_id=row.server_id,
        own_disk_gb=int(row.storage_size or 0) if row.vendor_id in DISK_FROM_TYPE else 0,
        rented=True,
    )


def _architecture(row: Any) -> str:
    if any(fnmatch.fnmatchcase(row.api_reference, one) for one in _ARM.get(row.vendor_id, ())):
        return ARM64
    return _ARCHITECTURES.get(row.cpu_architecture, str(row.cpu_architecture).lower())


def _disk_free(row: Any) -> int | None:
    """Free space on the disk that comes with the type; nothing where its size is chosen, or unknown."""
    if row.vendor_id not in DISK_BY_TYPE or not row.storage_size:
        return None
    return max(0, int(row.storage_size) - OWN_DISK_GB) * 10**9


def _left_out(row: Any, server: Server, request: SweepRequest, ours: str) -> str:
    """Why a server can't be measured at all; empty when it can."""
    if not may_be_folder(server.name):
        return "its name can't be the name of a folder, in which its results would lie"
    if server.architecture not in (X86_64, ARM64):
        return f"its architecture is {row.cpu_architecture}, for which there is no image"
    recorded = LAB in request.clouds and bool(request.recorded)
    if server.architecture != ours and not recorded:
        return f"its CPU is {server.architecture}, and the llama-bench that would be copied to it is for {ours}"
    if not server.places:
        what = "spot price" if request.spot else "price"
        there = " in these regions" if request.regions else ""
        return f"the catalogue knows no current {what} of it{there}, and so no place to rent it"
    return ""


def _architecture_of(request: SweepRequest) -> str:
    """For which CPUs the llama-bench of a request is: that of the file, or else of this machine."""
    from pathlib import Path

    found = binary_architecture(Path(request.llama_bench).expanduser()) if request.llama_bench else ""
    return found or (ARM64 if platform.machine().lower() in ("aarch64", "arm64") else X86_64)


def binary_architecture(path: Path) -> str:
    """For which CPUs a program is: ``x86_64``, ``arm64``, or empty for what is no such program.

    Read from the file's head: bytes 18 and 19 of an ELF file name the machine.
    """
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError:
        return ""
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return ""
    return _ELF_MACHINES.get(int.from_bytes(head[18:20], "little" if head[5] == 1 else "big"), "")


def _notes(counts: Counter[str], request: SweepRequest) -> Iterator[str]:
    if counts["gpus"] and request.device != "cpu":
        yield (
            f"{_counted(counts['gpus'], 'has a GPU', 'have GPUs')}: with a llama-bench that is built without CUDA, or "
            "without a driver on the image, they are measured on the CPU, and say so (gpu_fallback)."
        )
    if counts["doubtful"]:
        yield (
            f"{_counted(counts['doubtful'], 'has', 'have')} only prices that the import found doubtful; they are "
            "reckoned with all the same ('benchctl catalog list prices --flagged' shows them)."
        )
    if request.spot:
        yield "Spot prices change by the hour; the catalogue's are those of its day."


def _quota_notes(refused: Sequence[str]) -> Iterator[str]:
    """A limit may have been raised since, so that these are tried again; who knows better leaves them out."""
    if refused:
        named = ", ".join(refused[:3]) + (f" and {len(refused) - 3} more" if len(refused) > 3 else "")
        yield f"Refused for want of quota last time: {named} ('benchctl coverage --why quota' says more)."


def _counted(count: int, one: str, several: str) -> str:
    return f"1 server {one}" if count == 1 else f"{count} servers {several}"
