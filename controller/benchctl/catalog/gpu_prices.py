"""Prices that contain the GPU, from the catalogue that dstack's gpuhunt publishes. Needs the extra ``gpuhunt``.

gpuhunt itself reads two variables: ``GPUHUNT_CATALOG_URL`` (another place where such catalogues are published) and
``GPUHUNT_CATALOG_DIR`` (a folder with ``aws.csv``, ``azure.csv`` and ``gcp.csv``; nothing is then downloaded).
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.catalog.values import ListedPrice, PriceList, SetAside
from benchctl.errors import BenchctlError
from benchctl.extras import extra_mend

if TYPE_CHECKING:
    from collections.abc import Iterator

VENDORS = ("aws", "azure", "gcp")
"""Vendors of ours that gpuhunt publishes prices of."""

LICENCE = "none stated (facts from the vendors' price lists, collected by dstackai/gpuhunt)"

_DAY = re.compile(r"(20\d\d)(\d\d)(\d\d)")


def read_gpu_prices(today: date) -> PriceList:
    """Fetch the current prices of servers with GPUs.

    A price is for a server with so many GPUs: Google's N1 with and without a T4 have one name, so the number goes with
    the price, and only where it is the server's own is the price taken in.

    Args:
        today: the day of the prices where gpuhunt does not say it.

    Raises:
        BenchctlError: gpuhunt is not installed, or nothing can be fetched.
    """
    try:
        import gpuhunt
    except ImportError as error:
        raise BenchctlError("gpuhunt is not installed.", extra_mend("gpuhunt")) from error
    catalog = gpuhunt.Catalog(balance_resources=False, auto_reload=False)
    folder = os.environ.get("GPUHUNT_CATALOG_DIR")
    prices: list[ListedPrice] = []
    lacking: list[SetAside] = []
    with _silent():
        try:
            if not folder:
                catalog.load()
            for vendor in VENDORS:
                day = _day(vendor, catalog, folder, today)
                if day is None:
                    lacking.append(SetAside(f"gpuhunt, {vendor}", "its catalogue can't be fetched"))
                    continue
                # offers that need a flag are reservations for some days or weeks, not what a sweep can rent
                items = catalog.query(provider=vendor, min_gpu_count=1, allowed_flags=())
                prices += _listed(vendor, items, day)
        except (OSError, ValueError, KeyError, gpuhunt.GPUHuntError) as error:
            place = folder or os.environ.get("GPUHUNT_CATALOG_URL") or "dstack's catalogue"
            raise BenchctlError(f"gpuhunt can't read {place}: {error}.", "Check the network, and run again.") from error
    if not prices:
        raise BenchctlError("gpuhunt has no prices of servers with GPUs.", "Check the network, and run again.")
    return PriceList("gpuhunt", tuple(prices), tuple(lacking))


def _day(vendor: str, catalog: Any, folder: str | None, today: date) -> date | None:
    """The day of a vendor's prices; nothing where they are not to be had."""
    if folder:
        file = Path(folder) / f"{vendor}.csv"
        return datetime.fromtimestamp(file.stat().st_mtime, tz=UTC).date() if file.is_file() else None
    loaded = catalog.catalog.get(vendor)
    if loaded is None:
        return None
    found = _DAY.search(loaded.version.replace("-", ""))
    try:
        return date(*map(int, found.groups())) if found else today
    except ValueError:
        return today


def _listed(vendor: str, items: Any, day: date) -> list[ListedPrice]:
    """Of several offers of one server in one place the cheapest."""
    cheapest: dict[tuple[str, str, bool], ListedPrice] = {}
    for item in items:
        # Google is listed by zone, the others by region
        region, zone = (item.location.rpartition("-")[0], item.location) if vendor == "gcp" else (item.location, "")
        key = (item.instance_name, item.location, item.spot)
        if item.price > 0 and (key not in cheapest or item.price < cheapest[key].price):
            cheapest[key] = ListedPrice(
                vendor_id=vendor,
                server=item.instance_name,
                region=region,
                zone=zone,
                allocation="SPOT" if item.spot else "ONDEMAND",
                price=float(item.price),
                currency="USD",
                unit="HOUR",
                source=f"dstackai/gpuhunt {vendor}",
                source_date=day,
                licence=LICENCE,
                gpu_count=int(item.gpu_count),
            )
    return list(cheapest.values())


@contextmanager
def _silent() -> Iterator[None]:
    """Keep gpuhunt from logging a traceback for every catalogue that it can't fetch; the sentence of ours is enough."""
    logger = logging.getLogger("gpuhunt")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
