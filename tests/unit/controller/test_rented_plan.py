"""What renting adds to a plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from benchctl.ledger import JobState
from benchctl.plan import JobPlan, Machine, Place, Plan, Price, Server, make_plan
from benchctl.rented_plan import (
    END_SECONDS,
    PREPARE_SECONDS,
    SESSION_AT_LEAST,
    USUAL_SECONDS,
    committed_cost,
    dearest_cost,
    disk_needed,
    expected_cost,
    of_budget,
    session_left,
    whole_seconds,
)
from llama_bench_core.suite import Suite
from llama_bench_core.values import Model

GIB = 1024**3
SUITE = Suite.from_dict({"name": "some", "models": ["small"], "scenarios": {"pp": {16: 2, 512: 25}, "tg": {16: 1}}})
SMALL = Model("small", "small.gguf", bytes=GIB // 10, parameters=134_515_008, tensor_bytes=103_668_480)
LARGE = Model("large", "large.gguf", bytes=40 * GIB, parameters=70_000_000_000, tensor_bytes=40 * GIB)
MACHINE = Machine(physical_cores=8, memory_bytes=128 * GIB)


def a_server(name: str, per_hour: float = 1.0, vendor: str = "gcp", **more: object) -> Server:
    price = Price(per_hour, "USD")
    place = Place("r", "r-a", price, per_hour)
    one = Server(vendor, name, name, MACHINE, price, (place,), "x86_64", rented=True)
    return replace(one, **more)  # type: ignore[arg-type]


def planned(*servers: Server, models: tuple[Model, ...] = (SMALL,), **more: object) -> Plan:
    return make_plan(SUITE, models, servers, **more)  # type: ignore[arg-type]


def the_job(plan: Plan) -> JobPlan:
    (job,) = plan.jobs
    return job


def test_a_lifetime_holds_preparing_measuring_and_returning() -> None:
    """A short measurement gets its limits, or a quarter of an hour where they are longer; the allowances on top."""
    job = the_job(planned(a_server("a")))
    limits = sum(one.limit_seconds for one in job.models)
    assert limits < job.session_seconds < limits + 120 < SESSION_AT_LEAST
    assert job.lifetime_seconds == PREPARE_SECONDS + job.session_seconds + END_SECONDS
    longer = the_job(planned(a_server("a"), models=tuple(replace(SMALL, name=n, file=n) for n in "abcdef")))
    assert longer.session_seconds == SESSION_AT_LEAST
    azure = the_job(planned(a_server("a", vendor="azure")))
    assert azure.lifetime_seconds > job.lifetime_seconds


def test_what_preparing_took_too_long_is_taken_from_the_measurement() -> None:
    """The server's expiry stands: a measurement ends so long before it that its results can be fetched."""
    now = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
    job = JobState(
        job="a", vendor="gcp", server="a", host="a", session_seconds=900,
        expires_at=(now + timedelta(seconds=END_SECONDS + 1200)).isoformat(),
    )  # fmt: skip
    assert session_left(job, now) == 900
    assert session_left(job, now + timedelta(seconds=700)) == 500
    # the module counts what earlier starts have taken
    assert session_left(job, now + timedelta(seconds=700), spent_seconds=300) == 800
    assert session_left(job, now + timedelta(hours=2)) == 1
    assert session_left(replace(job, session_seconds=0), now) == 1200
    assert session_left(replace(job, expires_at=None), now) == 900


def test_a_long_measurement_gets_three_times_what_is_expected_but_no_more_than_its_limits() -> None:
    """The expectation is a guess good to a factor of three."""
    job = the_job(planned(a_server("a"), models=(SMALL, LARGE)))
    assert job.expected_seconds is not None
    assert SESSION_AT_LEAST < job.session_seconds <= 3 * job.expected_seconds + 1


def test_a_server_lives_no_longer_than_it_may() -> None:
    """--max-hours cuts the session; where nothing is left of it the server is left out, and the reason says why."""
    free = the_job(planned(a_server("a"), models=(SMALL, LARGE)))
    hours = (PREPARE_SECONDS + END_SECONDS + SESSION_AT_LEAST + 60) / 3600
    cut = the_job(planned(a_server("a"), models=(SMALL, LARGE), max_hours=hours))
    assert cut.session_seconds == SESSION_AT_LEAST + 60 < free.session_seconds
    assert cut.lifetime_seconds == pytest.approx(hours * 3600)
    none = the_job(planned(a_server("a"), max_hours=0.5))
    assert "0.5 hours leave no time to measure" in none.left_out


def test_the_disk_holds_what_is_fetched() -> None:
    """75 GB, or the models and room beside them; a size that was asked for is taken."""
    assert the_job(planned(a_server("a"))).disk_gb == 75
    assert the_job(planned(a_server("a"), models=(LARGE, replace(LARGE, name="b", file="b")))).disk_gb == 106
    assert the_job(planned(a_server("a"), disk_gb=40)).disk_gb == 40
    assert disk_needed(0) == 75


def test_a_disk_that_the_price_has_in_it_is_taken_as_it_is_unless_the_models_need_more() -> None:
    """UpCloud bills by the hour what is above the plan's own; --disk-gb has the last word."""
    small, large = a_server("a", vendor="upcloud", own_disk_gb=30), a_server("b", vendor="upcloud", own_disk_gb=160)
    assert [one.disk_gb for one in planned(small, large).jobs] == [30, 160]
    job = the_job(planned(small, models=(SMALL, LARGE)))
    assert job.disk_gb == 64
    assert not any(one.left_out for one in job.models)
    assert the_job(planned(large, disk_gb=200)).disk_gb == 200


def test_costs_are_billed_as_the_vendor_bills() -> None:
    """A begun hour at Hetzner is an hour; committed is never less than expected."""
    google, hetzner = (the_job(planned(a_server("a", vendor=vendor))) for vendor in ("gcp", "hcloud"))
    assert (expected_cost(hetzner), committed_cost(hetzner)) == (1.0, 1.0)
    low, high = expected_cost(google), committed_cost(google)
    assert low is not None
    assert high == pytest.approx(google.lifetime_seconds / 3600)
    assert 0 < low < high


def test_what_a_job_costs_where_it_is_dearest_is_told_apart() -> None:
    """Committed is for the planned place; the others follow where that is sold out."""
    server = a_server("a", 1.0)
    places = (*server.places, Place("s", "", Price(3.0, "USD")), Place("t", "", Price(900.0, "SEK")), Place("u"))
    job = the_job(planned(replace(server, places=places)))
    cheapest = committed_cost(job)
    assert cheapest is not None
    assert dearest_cost(job) == pytest.approx(3 * cheapest)
    assert dearest_cost(the_job(planned(server))) == cheapest
    assert dearest_cost(the_job(planned(replace(server, price=None, places=(Place("r"),))))) is None


def test_one_budget_is_reckoned_in_one_currency() -> None:
    """What is expected and committed over all vendors, and as what each other currency counts."""
    euros = Price(0.4, "EUR")
    server = a_server("b", vendor="hcloud", price=euros, places=(Place("f", "", euros, 0.5),))
    plan = planned(a_server("a", 1.0), server, budget=(9.0, "USD"))
    expected, committed, rates = of_budget(plan.running, "USD")
    one = next(job for job in plan.running if job.server.name == "a")
    assert expected == pytest.approx((expected_cost(one) or 0) + 0.5)
    assert committed == pytest.approx((committed_cost(one) or 0) + 0.5)
    assert rates == {"EUR": pytest.approx(1.25)}
    assert plan.budget == (9.0, "USD")


def test_how_long_a_sweep_takes_counts_how_many_run_at_once() -> None:
    """So many in all and of one vendor; servers of one's own beside them."""
    google = [a_server(f"g{number}") for number in range(4)]
    first, *_ = planned(*google).running
    one = USUAL_SECONDS + (first.expected_seconds or 0)
    jobs = planned(*google, a_server("h", vendor="hcloud")).running
    assert whole_seconds(jobs, 8, 8) == pytest.approx(one)
    assert whole_seconds(jobs, 8, 2) == pytest.approx(2 * one)
    assert whole_seconds(jobs, 2, 2) == pytest.approx(3 * one)
    assert whole_seconds(jobs, 1, 1) == pytest.approx(5 * one)
    slow = Server("ssh", "mine", "mine", Machine(1, 8 * GIB))
    (own,) = planned(slow).running
    assert whole_seconds([own], 1, 1) == own.expected_seconds
    assert whole_seconds([], 8, 4) == 0.0


def test_cheap_information_comes_first_and_vendors_take_turns() -> None:
    """One vendor's many cheap servers do not keep another's waiting; second instances come after all first ones."""
    plan = planned(
        a_server("g-dear", 9), a_server("g-cheap", 1), a_server("g-cheap", 1, replica=2), a_server("g-mid", 2),
        a_server("a-dear", 50, "aws"), a_server("a-cheap", 40, "aws"), a_server("out", 0.1, left_out="no image"),
    )  # fmt: skip
    assert [(job.server.name, job.server.replica) for job in plan.jobs] == [
        ("a-cheap", 1), ("g-cheap", 1), ("a-dear", 1), ("g-mid", 1), ("g-dear", 1), ("g-cheap", 2), ("out", 1),
    ]  # fmt: skip
    assert plan.jobs[-1].left_out == "no image"


def test_a_budget_leaves_out_what_it_does_not_pay_for() -> None:
    """What could cost more than all of it, and what comes when it is used up; cheaper ones behind still run."""
    servers = [a_server("a", 1), a_server("b", 1.1), a_server("c", 1.2), a_server("huge", 30)]
    one = expected_cost(planned(servers[0]).jobs[0])
    assert one is not None
    plan = planned(*servers, budget=(max(2.4 * one, 0.95), "USD"))
    reasons = {job.server.name: job.left_out for job in plan.jobs}
    assert "could cost" in reasons["huge"]
    assert reasons["a"] == ""
    small = planned(*servers[:3], budget=(0.95, "USD"))
    spent = sum(expected_cost(job) or 0 for job in small.running)
    assert spent <= 0.95
    unknown = planned(replace(a_server("x"), places=(Place("r"),), price=None), budget=(5.0, "USD"))
    assert "unknown" in unknown.jobs[0].left_out


@pytest.mark.parametrize(
    ("amount", "runs"),
    [(0.1, ["mine"]), (0.3, ["mine", "a"]), (0.5, ["mine", "a"]), (1.0, ["mine", "a", "b"]), (9.0, ["mine", "a", "b"])],
)
def test_a_budget_is_one_for_own_and_rented_servers(amount: float, runs: list[str]) -> None:
    """What servers of one's own may cost is taken off before anything is rented; what they can't use is not theirs."""
    own = Server("ssh", "mine", "mine", Machine(2, 8 * GIB), Price(2.0, "USD"))
    plan = planned(own, a_server("a", 0.2), a_server("b", 1.0), budget=(amount, "USD"))
    assert [job.job for job in plan.running] == runs
    mine, *rented = plan.running
    share = Price(2.0).cost(mine.session_seconds)
    assert committed_cost(mine) == pytest.approx(share)
    assert share <= min(amount, 0.2)
    assert share + sum(expected_cost(job) or 0 for job in rented) <= amount
    for job in rented:
        assert share + (committed_cost(job) or 0) <= amount, "it could never start"


def test_an_expensive_place_is_reckoned_in_the_budgets_currency() -> None:
    """The converted price counts, not the listed one."""
    price = Price(0.1, "EUR")
    server = replace(a_server("a"), price=price, places=(Place("r", "", price, 100.0),))
    assert "could cost" in planned(server, budget=(5.0, "USD")).jobs[0].left_out
