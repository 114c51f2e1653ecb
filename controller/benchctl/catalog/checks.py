"""Doubts about prices. Pure: prices of one vendor in, what is doubtful about each out.

Every check has one limit, with the reason for it. The figures in the reasons come from 91,578 published prices of five
vendors (2024-02 to 2026-06), and docs/catalog.md says how many of these each check flags. A doubtful price is kept and
marked; answers leave it out unless they are asked for it.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from benchctl.catalog.currencies import is_currency

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

UNKNOWN_CURRENCY = "unknown_currency"
GPU_PRICED_LIKE_CPU = "gpu_priced_like_cpu"
OFF_FAMILY = "off_family"
SPOT_ABOVE_ONDEMAND = "spot_above_ondemand"

MEANINGS = {
    GPU_PRICED_LIKE_CPU: "costs no more than CPU servers of its size: the GPU seems to be left out",
    OFF_FAMILY: "is an order of magnitude off the servers of its family",
    SPOT_ABOVE_ONDEMAND: "is a spot price above the on-demand price",
    UNKNOWN_CURRENCY: "is in a currency that is not in ISO 4217",
}
"""The checks, each with what a price does that it flags."""

GPU_GIB_IN_VCPUS = 0.1
"""A GiB of GPU memory costs at least this share of a vCPU, over what CPU servers of the size cost.

Where a source leaves the GPU out (Spare Cores' prices for Google's A2, A3 and G2) next to nothing remains: of 844 such
prices, made up from what Google asks for vCPUs and memory in each region, 836 are below. Of true on-demand prices one
is below, AWS's g3.4xlarge in Ireland with a Tesla M60 of 2015 (0.075). An L4, the cheapest GPU of today, is above 0.28,
an A100 above 0.51.
"""

NEIGHBOUR_FACTOR = 2.0
"""A server is of another's size when vCPUs and memory are both within this factor: one step up or down in every
vendor's range. With 1.5 the A100 servers of some regions have no three neighbours."""

NEIGHBOURS = 3
"""Fewer CPU servers than this say nothing about what the size costs."""

UNKNOWN_GPU_GIB = 8.0
"""Memory of a GPU that the catalogue does not know: that of the smallest which is still rented out, the Tesla M60."""

NOMINAL_VCPU_USD, NOMINAL_GIB_USD = 0.031611, 0.004237
"""What a vCPU and a GiB cost an hour on demand where no CPU server is priced to compare with: Google's list price of
N1 in us-central1, https://cloud.google.com/compute/all-pricing, from which AWS's M5 and Azure's Dsv5 differ by 10 %."""

SPOT_DISCOUNT = 0.09
"""A spot price of less than this share of the on-demand price can't be true: vendors promise up to 90 or 91 % off."""

OFF_FACTOR = 8.0
"""A slip of the decimal point is a factor of 10, and within a family prices per size scatter a little around their
median. The furthest that a true price lies off is 6.7 (AWS spot, g5.xlarge in sa-east-1)."""

FAMILY_MEMBERS = 3
"""Of fewer server types the median says nothing."""

ROUNDING = 1.0001
"""Spot prices equal to on-demand are common on AWS; rounding must not make them doubtful."""

_HIGH = float("inf")


@dataclass(frozen=True, slots=True)
class Priced:
    """An hourly price and what is to be had for it.

    Attributes:
        server: the server type.
        family: the vendor's family of server types, where known.
        region: where.
        allocation: ``ONDEMAND``, ``SPOT`` or ``RESERVED``.
        price: per hour, in ``currency``.
        currency: ISO 4217 code, or what stands in its place.
        vcpus: logical CPUs; 0 where nothing is known of the server.
        memory_gib: memory.
        gpu_count: number of GPUs.
        gpu_memory_gib: memory of all of them, where known.
        source: where the price was read.
    """

    server: str
    family: str | None
    region: str
    allocation: str
    price: float
    currency: str
    vcpus: int
    memory_gib: float
    gpu_count: int
    gpu_memory_gib: float | None
    source: str = ""

    @property
    def size(self) -> float:
        """One number for how large it is: the geometric mean of vCPUs and GiB.

        Per vCPU alone the smallest burstable types (two vCPUs, half a GiB) are 12 times cheaper than their family.
        """
        return sqrt(self.vcpus * self.memory_gib)


def doubts(prices: Sequence[Priced]) -> list[tuple[str, ...]]:
    """What is doubtful about each price, in the order given; an empty tuple for most.

    Args:
        prices: all open prices of one vendor, of all regions, allocations and currencies.
    """
    found: list[set[str]] = [set() for _ in prices]
    for i, one in enumerate(prices):
        if not is_currency(one.currency):
            found[i].add(UNKNOWN_CURRENCY)
    for i in _off_family(prices):
        found[i].add(OFF_FAMILY)
    without_gpu = _Neighbours(prices).priced_like_cpu()
    honest = _highest_ondemand(one for i, one in enumerate(prices) if not found[i] and i not in without_gpu)
    elsewhere = _lowest_elsewhere(honest)
    for i in without_gpu:
        one = prices[i]
        listed = honest.get((one.server, one.region, one.currency)) or elsewhere.get((one.server, one.currency), _HIGH)
        if one.allocation != "SPOT" or one.price < SPOT_DISCOUNT * listed:
            found[i].add(GPU_PRICED_LIKE_CPU)
    incomplete = {
        (one.server, one.region, one.source) for i, one in _of(prices, "ONDEMAND") if GPU_PRICED_LIKE_CPU in found[i]
    }
    for i, one in _of(prices, "SPOT"):
        # a source that leaves the GPU out on demand does so for spot, where little can be told from the price
        if (one.server, one.region, one.source) in incomplete:
            found[i].add(GPU_PRICED_LIKE_CPU)
        listed = honest.get((one.server, one.region, one.currency), _HIGH)
        if one.price > listed * ROUNDING:
            found[i].add(SPOT_ABOVE_ONDEMAND)
    return [tuple(sorted(some)) for some in found]


def _of(prices: Sequence[Priced], allocation: str) -> list[tuple[int, Priced]]:
    return [(i, one) for i, one in enumerate(prices) if one.allocation == allocation]


def _highest_ondemand(prices: Iterable[Priced]) -> dict[tuple[str, str, str], float]:
    """By server, region and currency; of several sources the highest, so that no doubt comes from one that is low."""
    highest: dict[tuple[str, str, str], float] = {}
    for one in prices:
        if one.allocation == "ONDEMAND":
            key = (one.server, one.region, one.currency)
            highest[key] = max(one.price, highest.get(key, 0.0))
    return highest


def _lowest_elsewhere(highest: Mapping[tuple[str, str, str], float]) -> dict[tuple[str, str], float]:
    """Of the regions the cheapest, for those in which no on-demand price is known."""
    lowest: dict[tuple[str, str], float] = {}
    for (server, _, currency), price in highest.items():
        lowest[server, currency] = min(price, lowest.get((server, currency), _HIGH))
    return lowest


def _off_family(prices: Sequence[Priced]) -> list[int]:
    families: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, one in enumerate(prices):
        if one.family and one.size:
            families[one.region, one.allocation, one.currency, one.family].append(i)
    off = []
    for members in families.values():
        if len({prices[i].server for i in members}) < FAMILY_MEMBERS:
            continue
        usual = statistics.median(prices[i].price / prices[i].size for i in members)
        off += [i for i in members if not 1 / OFF_FACTOR < prices[i].price / prices[i].size / usual < OFF_FACTOR]
    return off


class _Neighbours:
    """What CPU servers of a size cost: in the region, else anywhere with the vendor, else by a list price."""

    def __init__(self, prices: Sequence[Priced]) -> None:
        self._prices = prices
        self._by_region: dict[tuple[str, ...], list[Priced]] = defaultdict(list)
        self._anywhere: dict[tuple[str, ...], list[Priced]] = defaultdict(list)
        for one in prices:
            if not one.gpu_count and one.size:
                self._by_region[one.region, one.allocation, one.currency].append(one)
                self._anywhere[one.allocation, one.currency].append(one)
        self._vcpu_price: dict[int, float] = {}

    def priced_like_cpu(self) -> set[int]:
        """The prices that leave nothing for the GPU."""
        return {i for i, one in enumerate(self._prices) if one.gpu_count and one.size and self._leaves_nothing(one)}

    def _leaves_nothing(self, one: Priced) -> bool:
        expected = self._expected(one)
        if expected is None:
            return False
        server, vcpu = expected
        memory = one.gpu_memory_gib or UNKNOWN_GPU_GIB * one.gpu_count
        return (one.price - server) / memory < GPU_GIB_IN_VCPUS * vcpu

    def _expected(self, one: Priced) -> tuple[float, float] | None:
        """What a CPU server of this size costs, and a vCPU of such servers; nothing where nobody knows.

        The lower quartile of the neighbours, each brought to the size of this one: special families (much storage,
        a fast network) cost more, and a server with a GPU is built from plain ones.
        """
        for group in (
            self._by_region.get((one.region, one.allocation, one.currency)),
            self._anywhere.get((one.allocation, one.currency)),
        ):
            near = sorted(other.price * one.size / other.size for other in group or () if _same_size(one, other))
            if group and len(near) >= NEIGHBOURS:
                return _lower_quartile(near), self._vcpu(group)
        if one.currency == "USD" and one.allocation == "ONDEMAND":
            return NOMINAL_VCPU_USD * one.vcpus + NOMINAL_GIB_USD * one.memory_gib, NOMINAL_VCPU_USD
        return None

    def _vcpu(self, group: list[Priced]) -> float:
        if id(group) not in self._vcpu_price:
            self._vcpu_price[id(group)] = _lower_quartile(sorted(other.price / other.vcpus for other in group))
        return self._vcpu_price[id(group)]


def _same_size(one: Priced, other: Priced) -> bool:
    return (
        one.vcpus <= other.vcpus * NEIGHBOUR_FACTOR
        and other.vcpus <= one.vcpus * NEIGHBOUR_FACTOR
        and one.memory_gib <= other.memory_gib * NEIGHBOUR_FACTOR
        and other.memory_gib <= one.memory_gib * NEIGHBOUR_FACTOR
    )


def _lower_quartile(ordered: Sequence[float]) -> float:
    return ordered[(len(ordered) - 1) // 4]
