"""Each check flags what it is for, and leaves alone what only looks like it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchctl.catalog.checks import (
    GPU_PRICED_LIKE_CPU,
    MEANINGS,
    OFF_FAMILY,
    SPOT_ABOVE_ONDEMAND,
    UNKNOWN_CURRENCY,
    Priced,
    doubts,
)

A2 = Priced("a2-highgpu-1g", "a2", "us-central1", "ONDEMAND", 3.673385, "USD", 12, 85.0, 1, 40.0)


def n2(vcpus: int, memory_gib: float, factor: float = 1.0, **changes: str) -> Priced:
    """A server of Google's N2 at 0.0316 USD a vCPU and 0.00424 a GiB."""
    price = factor * (0.0316 * vcpus + 0.00424 * memory_gib)
    name = f"n2-{vcpus}-{memory_gib:g}"
    return replace(Priced(name, "n2", "us-central1", "ONDEMAND", price, "USD", vcpus, memory_gib, 0, None), **changes)  # type: ignore[arg-type]


CPUS = [n2(vcpus, vcpus * ratio) for vcpus in (2, 4, 8, 16, 32) for ratio in (1, 4, 8)]


def of(one: Priced, *others: Priced) -> tuple[str, ...]:
    """The doubts about the first of these prices."""
    return doubts([one, *others])[0]


@pytest.mark.parametrize(("price", "flags"), [(0.739, (GPU_PRICED_LIKE_CPU,)), (3.673385, ())])
@pytest.mark.parametrize("others", [CPUS, [replace(one, region="europe-west4") for one in CPUS], []])
def test_a_gpu_that_is_left_out(price: float, flags: tuple[str, ...], others: list[Priced]) -> None:
    """Google's A2 at its CPU's price is flagged, at its true one not: by its region, by another, by a list price."""
    assert of(replace(A2, price=price), *others) == flags


@pytest.mark.parametrize(
    ("name", "vcpus", "memory", "gpu_memory", "without_gpu", "true"),
    [
        ("g2-standard-4", 4, 16.0, 24.0, 0.14684, 0.706832),
        ("g2-standard-32", 32, 128.0, 24.0, 1.17472, 1.734376),
        ("a2-ultragpu-1g", 12, 170.0, 80.0, 1.1, 5.068798),
    ],
)
def test_other_servers_of_google(
    name: str, vcpus: int, memory: float, gpu_memory: float, without_gpu: float, true: float
) -> None:
    """What vCPUs and memory of their families alone cost is flagged, the published price is not."""
    one = Priced(name, name[:2], "us-central1", "ONDEMAND", true, "USD", vcpus, memory, 1, gpu_memory)
    assert of(one, *CPUS) == ()
    assert of(replace(one, price=without_gpu), *CPUS) == (GPU_PRICED_LIKE_CPU,)


def test_a_cheap_gpu_on_a_large_server_is_no_doubt() -> None:
    """AWS's g6.16xlarge costs 11 % more than an m5.16xlarge: an L4 is that cheap beside 64 vCPUs."""
    m5 = [
        Priced(f"m5.{n}", "m5", "us-east-1", "ONDEMAND", 0.048 * n, "USD", n, 4.0 * n, 0, None)
        for n in (8, 32, 48, 64, 96)
    ]
    g6 = Priced("g6.16xlarge", "g6", "us-east-1", "ONDEMAND", 3.3968, "USD", 64, 256.0, 1, 22.5)
    assert of(g6, *m5) == ()


def test_a_deep_discount_of_spot_is_no_missing_gpu() -> None:
    """A spot price as low as a CPU server's is believed at 10 % of the on-demand price, and flagged at 5 %."""
    cpus = [replace(one, allocation="SPOT", price=one.price / 2) for one in CPUS]
    spot = replace(A2, allocation="SPOT", price=0.38)
    assert of(spot, A2, *cpus) == ()
    assert of(replace(spot, price=0.18), A2, *cpus) == (GPU_PRICED_LIKE_CPU,)
    assert of(spot, replace(A2, price=0.739), *CPUS, *cpus) == (GPU_PRICED_LIKE_CPU,)


def test_spot_of_a_source_that_leaves_the_gpu_out() -> None:
    """What a source lists as spot is doubted where its on-demand price is; that of another source is not."""
    spot = replace(A2, allocation="SPOT", price=0.6, source="theirs")
    wrong, right = replace(A2, price=0.739, source="theirs"), replace(A2, source="another")
    assert of(spot, wrong, right, *CPUS) == (GPU_PRICED_LIKE_CPU,)
    assert of(replace(spot, source="another"), wrong, right, *CPUS) == ()


def test_nothing_is_said_without_something_to_compare_with() -> None:
    """A GPU server priced in euros where nothing else is, or of unknown size, is not judged."""
    assert of(replace(A2, price=0.7, currency="EUR")) == ()
    assert of(replace(A2, price=0.1, vcpus=0, memory_gib=0.0), *CPUS) == ()


@pytest.mark.parametrize(("spot", "flags"), [(0.30, (SPOT_ABOVE_ONDEMAND,)), (0.2, ()), (0.19424, ())])
def test_spot_above_ondemand(spot: float, flags: tuple[str, ...]) -> None:
    """Above is flagged; below, and as much but for rounding, is not."""
    ondemand = n2(4, 16.0)
    assert (
        of(replace(ondemand, allocation="SPOT", price=min(spot, 1) if flags else min(spot, ondemand.price)), ondemand)
        == flags
    )


def test_spot_is_compared_in_its_own_region_and_currency() -> None:
    """On-demand prices of another region or in another currency say nothing about it."""
    ondemand = n2(4, 16.0)
    spot = replace(ondemand, allocation="SPOT", price=10 * ondemand.price)
    assert of(spot, replace(ondemand, region="europe-west4"), replace(ondemand, currency="CNY")) == ()


@pytest.mark.parametrize(("factor", "flags"), [(10.0, (OFF_FAMILY,)), (0.1, (OFF_FAMILY,)), (4.0, ()), (0.25, ())])
def test_a_slipped_decimal_point(factor: float, flags: tuple[str, ...]) -> None:
    """Ten times as much or as little as its family is flagged, four times is not."""
    assert of(n2(64, 256.0, factor), *CPUS) == flags


def test_the_smallest_burstable_type_is_not_off_its_family() -> None:
    """A t3.nano has two vCPUs and half a GiB: per vCPU it is 16 times cheaper than a t3.2xlarge, and that is right."""
    t3 = [("nano", 2, 0.5, 0.0052), ("small", 2, 2.0, 0.0208), ("large", 2, 8.0, 0.0832), ("2xlarge", 8, 32.0, 0.3328)]
    priced = [Priced(f"t3.{n}", "t3", "us-east-1", "ONDEMAND", p, "USD", v, m, 0, None) for n, v, m, p in t3]
    assert doubts(priced) == [()] * len(priced)


def test_a_family_of_two_says_nothing() -> None:
    """The median of two types can't tell which of them is off."""
    assert of(n2(4, 16.0, 20.0), n2(8, 32.0)) == ()


@pytest.mark.parametrize(
    ("currency", "flags"), [("USD", ()), ("CNY", ()), ("XXX", (UNKNOWN_CURRENCY,)), ("$", (UNKNOWN_CURRENCY,))]
)
def test_an_unknown_currency(currency: str, flags: tuple[str, ...]) -> None:
    """Codes of ISO 4217 are known, everything else is flagged."""
    assert of(replace(n2(4, 16.0), currency=currency)) == flags


def test_every_check_says_what_it_means() -> None:
    """The sentences that a list shows are there for every check."""
    assert set(MEANINGS) == {GPU_PRICED_LIKE_CPU, OFF_FAMILY, SPOT_ABOVE_ONDEMAND, UNKNOWN_CURRENCY}
