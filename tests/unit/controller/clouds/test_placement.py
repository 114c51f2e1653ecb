"""What follows on each refusal, and that every job's search ends."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from benchctl.clouds.faults import ACCOUNT, Fault, fault_of
from benchctl.clouds.placement import (
    LONGEST_WAIT,
    MOST_TRIES,
    MOST_WAITS,
    Barred,
    GiveUp,
    Later,
    StopVendor,
    TryAt,
    WaitThen,
    counts_towards,
    first_step,
    next_step,
)
from benchctl.ledger import JobState
from benchctl.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

EAST = [("us-east-1", f"us-east-1{zone}") for zone in "abc"]
WEST = [("us-west-2", f"us-west-2{zone}") for zone in "ab"]
NORTH = [("eu-north-1", "eu-north-1a")]


def a_job(
    places: Iterable[tuple[str, str]] = (*EAST, *WEST, *NORTH), server: str = "m5.xlarge", vcpus: int = 4, **more: Any
) -> JobState:
    """A job that may be rented in these places, each a little dearer than the one before."""
    listed = tuple(
        {
            "region": region,
            "zone": zone,
            "price_per_hour": 1.0 + index / 100,
            "currency": "USD",
            "budget_per_hour": None,
        }
        for index, (region, zone) in enumerate(places)
    )
    return JobState("j", "aws", server, "h", places=listed, vcpus=vcpus, lifetime_seconds=3600, **more)


def failed(job: JobState, place: tuple[str, str], fault: Fault) -> JobState:
    """The job after a try there failed, as the rental notes it."""
    tried = {"region": place[0], "zone": place[1], "refusal": str(fault.refusal or ""), "said": fault.said}
    return replace(job, region=place[0], zone=place[1], attempts=(*job.attempts, tried))


def a_fault(refusal: Refusal | None, **more: Any) -> Fault:
    return Fault(refusal, f"the vendor said {refusal}", **more)


def where(step: object) -> tuple[str, str]:
    """The place of a step that tries one."""
    assert isinstance(step, TryAt | WaitThen), step
    return step.place["region"], step.place["zone"]


def follow(job: JobState, faults: Iterable[Fault], barred: Barred | None = None) -> list[object]:
    """The steps of a job to whose tries these faults come."""
    barred = barred or Barred()
    step: object = first_step(job, barred)
    steps = [step]
    for fault in faults:
        if not isinstance(step, TryAt | WaitThen):
            break
        job = failed(job, where(step), fault)
        step = next_step(fault, job, barred, random=lambda: 0.5)
        steps.append(step)
    return steps


def test_the_cheapest_place_is_tried_first() -> None:
    """Places come in the order of their prices."""
    assert where(first_step(a_job(), Barred())) == EAST[0]


def test_stock_goes_to_the_next_zone_then_to_the_next_region() -> None:
    """All zones of a region before another region; then it gives up and says what was tried."""
    steps = follow(a_job(), [a_fault(Refusal.STOCK)] * 6)
    assert [where(one) for one in steps[:-1]] == [*EAST, *WEST, *NORTH]
    last = steps[-1]
    assert isinstance(last, GiveUp)
    assert "6 tries in 3 regions (6 x stock)" in last.reason


def test_zones_that_the_vendor_names_come_first() -> None:
    """AWS and GCP say where there is room."""
    words = (
        "api error InsufficientInstanceCapacity: ... You can currently get m5.xlarge capacity by not specifying an "
        "Availability Zone in your request or choosing us-east-1c."
    )
    assert [where(one) for one in follow(a_job(), [fault_of("aws", words)])] == [EAST[0], EAST[2]]


def test_a_quota_goes_to_the_next_region_and_is_remembered() -> None:
    """No other zone of the region is asked, by this job or another one of the family; another family's may."""
    barred = Barred()
    quota = a_fault(Refusal.QUOTA, family=True, sized=True)
    steps = follow(a_job(), [quota, quota, quota], barred)
    assert [where(one) for one in steps[:-1]] == [EAST[0], WEST[0], NORTH[0]]
    assert isinstance(steps[-1], GiveUp)
    larger, smaller = a_job(server="c5.4xlarge", vcpus=16), a_job(server="m5.large", vcpus=2)
    assert isinstance(first_step(larger, barred), GiveUp)
    assert "the vendor said quota" in getattr(first_step(larger, barred), "reason", "")
    assert where(first_step(smaller, barred)) == EAST[0]
    assert where(first_step(a_job(server="g6.xlarge"), barred)) == EAST[0]


def test_a_quota_that_the_sweep_itself_uses_up_is_waited_for() -> None:
    """Another region first; then it waits, as do others that the quota counts, until a server of the sweep is gone."""
    now = [0.0]
    barred = Barred(lambda: now[0])
    quota = a_fault(Refusal.QUOTA, family=True, sized=True)
    job = failed(a_job((*EAST, *NORTH)), EAST[0], quota)
    job = replace(job, attempts=({**job.attempts[0], "held": True},))
    step = next_step(quota, job, barred, random=random.random, hold_seconds=600)
    assert where(step) == NORTH[0]
    job = failed(job, NORTH[0], a_fault(Refusal.STOCK))
    step = next_step(a_fault(Refusal.STOCK), job, barred, random=random.random)
    assert isinstance(step, Later)
    assert "said quota" in step.reason
    # what waits is not tried, neither this one nor its like; what is smaller is
    assert isinstance(first_step(job, barred), Later)
    assert isinstance(first_step(a_job(EAST), barred), Later)
    assert where(first_step(a_job(EAST, "m5.large", vcpus=2), barred)) == EAST[0]
    barred.freed("aws")
    # the region that was sold out is not tried again
    assert where(first_step(job, barred)) == EAST[0]


def test_a_place_that_was_only_busy_is_tried_by_who_has_waited_since() -> None:
    """Throttled there, then out of money until another server was gone: the place is none the worse for it."""
    job = failed(a_job(NORTH), NORTH[0], a_fault(Refusal.THROTTLED))
    assert where(first_step(job, Barred())) == NORTH[0]


def test_a_quota_that_is_used_up_for_a_while_is_tried_again_after_it() -> None:
    """Nobody may say that a server is gone; and what turns out to hold without any of ours holds for good."""
    now = [0.0]
    barred = Barred(lambda: now[0])
    quota = a_fault(Refusal.QUOTA)
    job = failed(a_job(EAST), EAST[0], quota)
    held = replace(job, attempts=({**job.attempts[0], "held": True},))
    assert isinstance(next_step(quota, held, barred, random=random.random, hold_seconds=60), Later)
    now[0] = 59
    assert isinstance(first_step(held, barred), Later)
    now[0] = 61
    assert where(first_step(held, barred)) == EAST[0]
    assert isinstance(next_step(quota, job, barred, random=random.random), GiveUp)
    barred.freed("aws")
    assert isinstance(first_step(a_job(EAST), barred), GiveUp)


@pytest.mark.parametrize(
    ("fault", "other", "counts"),
    [
        ({}, {}, True),
        ({}, {"region": "us-west-2"}, False),
        ({"scope": ACCOUNT}, {"region": "us-west-2"}, True),
        ({}, {"vendor": "gcp"}, False),
        ({}, {"allocation": "SPOT"}, False),
        ({"family": True}, {"server": "c5.large"}, True),
        ({"family": True}, {"server": "g6.xlarge"}, False),
        ({"gpus": True}, {"gpus": 1}, True),
        ({"gpus": True}, {}, False),
    ],
)
def test_which_servers_use_a_quota_up(fault: dict[str, Any], other: dict[str, Any], counts: bool) -> None:
    """The same vendor and market, the same region but for a quota of the account, and what it counts."""
    job = replace(a_job(), region="us-east-1")
    assert counts_towards(a_fault(Refusal.QUOTA, **fault), job, replace(job, **other)) is counts


def test_a_quota_of_the_account_ends_it_at_once_for_whatever_it_counts() -> None:
    """GPUs in all regions: no other region helps; servers without a GPU go on."""
    barred = Barred()
    first = replace(a_job(), gpus=1)
    steps = follow(first, [a_fault(Refusal.QUOTA, scope=ACCOUNT, gpus=True)], barred)
    assert isinstance(steps[-1], GiveUp)
    assert isinstance(first_step(replace(a_job(server="p4d.24xlarge"), gpus=8), barred), GiveUp)
    assert where(first_step(a_job(), barred)) == EAST[0]


def test_what_is_not_offered_is_looked_for_elsewhere_unless_it_is_the_same_everywhere() -> None:
    """A disk that the type does not take is refused in each zone; a type that a zone lacks is not."""
    assert where(follow(a_job(), [a_fault(Refusal.NOT_OFFERED)])[-1]) == EAST[1]
    assert isinstance(follow(a_job(), [a_fault(Refusal.NOT_OFFERED, everywhere=True)])[-1], GiveUp)


def test_a_closed_region_is_left_at_once_and_by_every_job() -> None:
    """No other zone of it is asked, whatever the server; the vendor goes on."""
    barred = Barred()
    closed = a_fault(Refusal.NOT_OFFERED, closed=True)
    assert [where(one) for one in follow(a_job(), [closed, closed], barred)] == [EAST[0], WEST[0], NORTH[0]]
    assert where(first_step(a_job(server="g6.xlarge"), barred)) == NORTH[0]


@pytest.mark.parametrize(
    ("vendor", "words", "refused", "other"),
    [
        ("aws", "MaxSpotInstanceCountExceeded: Max spot instance count exceeded", "m5.xlarge", "g6.xlarge"),
        ("gcp", "Quota 'NVIDIA_A100_GPUS' exceeded.  Limit: 0.0 in region r.", "a2-highgpu-1g", "g2-standard-4"),
    ],
)
def test_a_quota_of_one_family_bars_no_other(vendor: str, words: str, refused: str, other: str) -> None:
    """Another family of the region has a quota of its own."""
    barred = Barred()
    first = replace(a_job(EAST, refused, gpus=1), vendor=vendor)
    assert isinstance(follow(first, [fault_of(vendor, words)], barred)[-1], GiveUp)
    assert isinstance(first_step(first, barred), GiveUp)
    assert where(first_step(replace(a_job(EAST, other, gpus=1), vendor=vendor), barred)) == EAST[0]


def test_throttling_backs_off_in_the_same_place_and_not_for_ever() -> None:
    """Longer and longer up to a limit, at random below it; the same place each time."""
    steps = follow(a_job(), [a_fault(Refusal.THROTTLED)] * (MOST_WAITS + 1))
    waits = [one for one in steps if isinstance(one, WaitThen)]
    assert {where(one) for one in waits} == {EAST[0]}
    seconds = [one.seconds for one in waits]
    assert seconds == sorted(seconds)
    assert seconds[0] < seconds[-1] <= LONGEST_WAIT
    assert isinstance(steps[-1], GiveUp)
    job = failed(a_job(), EAST[0], a_fault(Refusal.THROTTLED))
    drawn = {getattr(next_step(a_fault(Refusal.THROTTLED), job, Barred(), random=lambda n=n: n), "seconds", -1)
             for n in (0.0, 0.25, 1.0)}  # fmt: skip
    assert drawn == {0.0, 3.75, 15.0}


def test_an_outage_is_waited_for_and_then_left_behind() -> None:
    """A few waits in the place, then another region."""
    steps = follow(a_job(), [a_fault(Refusal.OUTAGE)] * 5)
    assert [type(one) for one in steps[1:5]] == [WaitThen, WaitThen, WaitThen, TryAt]
    assert where(steps[4]) == WEST[0]


def test_a_bad_login_stops_the_vendor_and_no_other() -> None:
    """Other jobs of the vendor are not begun; those of another vendor are."""
    barred = Barred()
    assert isinstance(follow(a_job(), [a_fault(Refusal.ACCOUNT)], barred)[-1], StopVendor)
    assert isinstance(first_step(a_job(server="g6.xlarge"), barred), StopVendor)
    assert where(first_step(replace(a_job(), vendor="gcp"), barred)) == EAST[0]


def test_a_vendor_that_was_stopped_meanwhile_is_asked_no_more() -> None:
    """Another thread's bad login ends this job at its next step."""
    barred = Barred()
    barred.stop("aws", "InvalidClientTokenId")
    job = failed(a_job(), EAST[0], a_fault(Refusal.STOCK))
    assert isinstance(next_step(a_fault(Refusal.STOCK), job, barred, random=random.random), StopVendor)


def test_a_time_out_is_tried_once_more_elsewhere() -> None:
    """In another region; where there is only one place, there."""
    steps = follow(a_job(), [a_fault(Refusal.TIMEOUT)] * 2)
    assert [type(one) for one in steps] == [TryAt, TryAt, GiveUp]
    assert where(steps[1]) == WEST[0]
    alone = follow(a_job(NORTH), [a_fault(Refusal.TIMEOUT)] * 2)
    assert [type(one) for one in alone] == [TryAt, TryAt, GiveUp]


def test_an_interrupted_spot_server_is_tried_in_another_zone_twice() -> None:
    """The pool of the zone was wanted by others."""
    steps = follow(a_job(), [a_fault(Refusal.INTERRUPTED)] * 3)
    assert [where(one) for one in steps[:3]] == EAST
    assert isinstance(steps[3], GiveUp)


def test_unknown_words_are_tried_once_more_in_another_region() -> None:
    """They may mean anything; the last words are in the reason."""
    steps = follow(a_job(), [fault_of("aws", "a wholly new sentence")] * 2)
    assert [type(one) for one in steps] == [TryAt, TryAt, GiveUp]
    assert "a wholly new sentence" in getattr(steps[2], "reason", "")


def test_places_that_may_not_be_tried_are_passed_over() -> None:
    """What the budget does not pay for, for one; the next step respects it, too."""
    cheap = first_step(a_job(), Barred(), allowed=lambda place: place["region"] != "us-east-1")
    assert where(cheap) == WEST[0]
    assert isinstance(first_step(a_job(), Barred(), allowed=lambda _: False), GiveUp)
    job = failed(a_job(), EAST[0], a_fault(Refusal.STOCK))
    step = next_step(
        a_fault(Refusal.STOCK), job, Barred(), random=random.random, allowed=lambda p: p["zone"] == WEST[1][1]
    )
    assert where(step) == WEST[1]
    assert isinstance(first_step(a_job(()), Barred()), GiveUp)


@pytest.mark.parametrize("seed", range(40))
def test_every_search_ends(seed: int) -> None:
    """Whatever a vendor says, in whatever order, to several jobs: there is an end, and no place that was not given."""
    draw = random.Random(seed)  # noqa: S311 - a test's dice
    barred = Barred()
    kinds = [*Refusal, None, Refusal.STOCK, Refusal.THROTTLED, Refusal.OUTAGE]
    kinds = [one for one in kinds if one is not Refusal.ACCOUNT]
    for server in ("m5.xlarge", "g6.xlarge", "m5.large"):
        places = [(f"r{n // 3}", f"r{n // 3}{'abc'[n % 3]}") for n in range(draw.randint(1, 60))]
        job = a_job(places, server)
        step: object = first_step(job, barred)
        tries = 0
        while isinstance(step, TryAt | WaitThen):
            tries += 1
            assert tries <= MOST_TRIES
            assert where(step) in places
            fault = a_fault(
                draw.choice(kinds), family=draw.random() < 0.5, sized=draw.random() < 0.5,
                scope=draw.choice(["region", "region", ACCOUNT]),
            )  # fmt: skip
            job = failed(job, where(step), fault)
            step = next_step(fault, job, barred, random=draw.random)
        assert isinstance(step, GiveUp)
        assert step.reason
