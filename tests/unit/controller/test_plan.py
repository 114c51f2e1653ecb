"""The plan is pure: what runs, what is left out and why, how long it takes and what it costs."""

from __future__ import annotations

import pytest
from benchctl.errors import UsageError
from benchctl.plan import Machine, Price, Server, job_names, make_plan, parse_budget, parse_price, slug
from llama_bench_core import policy
from llama_bench_core.suite import Suite
from llama_bench_core.values import Model

GIB = 1024**3

SUITE = Suite.from_dict(
    {"name": "some", "models": ["small", "large"], "scenarios": {"pp": {16: 2, 512: 25}, "tg": {16: 1}}}
)
SMALL = Model("small", "small.gguf", bytes=GIB // 10, parameters=134_515_008, tensor_bytes=103_668_480)
LARGE = Model("large", "large.gguf", bytes=40 * GIB, parameters=70_000_000_000, tensor_bytes=40 * GIB)
MODELS = (LARGE, SMALL)
MACHINE = Machine(physical_cores=2, memory_bytes=24 * GIB, disk_free_bytes=100 * GIB)
LOCAL = Server("local", "amd-2c-24g", "localhost", MACHINE)


def priced(name: str, price: Price | None, machine: Machine | None = MACHINE) -> Server:
    return Server("ssh", name, name, machine, price)


@pytest.mark.parametrize(
    ("text", "per_hour", "currency"),
    [
        ("0.046USD/h", 0.046, "USD"),
        ("0.046", 0.046, "USD"),
        ("2 eur / hour", 2.0, "EUR"),
        ("730EUR/month", 1.0, "EUR"),
        ("24USD/day", 1.0, "USD"),
        (".5/h", 0.5, "USD"),
    ],
)
def test_prices_are_read_with_their_currency(text: str, per_hour: float, currency: str) -> None:
    """A price is an amount, a currency and a time; USD and an hour where nothing is said."""
    price = parse_price(text)
    assert price.per_hour == pytest.approx(per_hour)
    assert price.currency == currency
    assert price.usd_per_hour == (price.per_hour if currency == "USD" else None)


@pytest.mark.parametrize("text", ["", "free", "-1USD/h", "1USD/minute", "1e3USD/h", "USD/h", "1USDOLLAR/h"])
def test_what_is_no_price_is_refused(text: str) -> None:
    """Anything else is wrong usage, said in one sentence."""
    with pytest.raises(UsageError, match=r"0\.046USD/h"):
        parse_price(text)


def test_a_budget_has_no_time() -> None:
    """Money is an amount and a currency; a price per hour is none."""
    assert parse_budget("5 eur") == (5.0, "EUR")
    with pytest.raises(UsageError):
        parse_budget("5USD/h")


def test_a_price_makes_a_cost() -> None:
    """An hour costs what an hour costs."""
    assert Price(0.5).cost(1800) == pytest.approx(0.25)


def test_what_exceeds_the_memory_is_left_out_with_the_policys_reason() -> None:
    """A model larger than 0.8 of the memory is not measured, and the plan says so; the small one is."""
    (job,) = make_plan(SUITE, MODELS, [LOCAL]).jobs
    small, large = job.models
    assert (small.model.name, small.left_out) == ("small", "")
    assert "24.0 GiB of memory" in large.left_out
    assert job.runs
    assert job.scenarios == 3
    assert job.fetch_bytes == SMALL.bytes


def test_graphics_memory_counts_as_memory() -> None:
    """A model that the RAM does not hold is tried where the GPUs hold it, as the module does."""
    big = Server("local", "x", "localhost", Machine(2, 24 * GIB, gpu_memory_bytes=60 * GIB, disk_free_bytes=100 * GIB))
    (job,) = make_plan(SUITE, MODELS, [big]).jobs
    assert not any(one.left_out for one in job.models)


def test_what_the_disk_does_not_hold_is_left_out() -> None:
    """A model that needs more than the free space is named with both figures; one that lies there needs none."""
    full = Server("local", "x", "localhost", Machine(2, 100 * GIB, disk_free_bytes=GIB))
    (job,) = make_plan(SUITE, MODELS, [full]).jobs
    assert job.models[1].left_out == "needs 40.0 GiB of disk, 0.9 are free"
    there = Machine(2, 100 * GIB, disk_free_bytes=GIB, files=frozenset({"large.gguf"}))
    (job,) = make_plan(SUITE, MODELS, [Server("local", "x", "localhost", there)]).jobs
    assert job.models[1].left_out == ""
    assert job.models[1].fetch_bytes == 0


def test_a_server_where_nothing_fits_is_left_out() -> None:
    """A job without a model does not run."""
    tiny = Server("local", "x", "localhost", Machine(1, GIB // 100, disk_free_bytes=GIB))
    planned = make_plan(SUITE, MODELS, [tiny])
    assert planned.running == ()
    assert planned.jobs[0].left_out == "none of the models fits"


def test_the_limit_is_the_sum_of_the_policys_time_limits() -> None:
    """No more is promised as the most than the policy itself allows."""
    (job,) = make_plan(SUITE, [SMALL], [LOCAL]).jobs
    assert job.limit_seconds == sum(policy.time_limit_seconds(one, SMALL, SUITE.policy) for one in SUITE.scenarios)
    assert job.expected_seconds is not None
    assert 0 < job.expected_seconds < job.limit_seconds


def test_earlier_speeds_replace_the_guess() -> None:
    """Where a server was measured, its own speeds give the expected time."""
    fast = {("small", "pp", 16): 1e6, ("small", "pp", 512): 1e6, ("small", "tg", 16): 1e6}
    slow = {("small", "pp", 16): 20.0, ("small", "pp", 512): 30.0, ("small", "tg", 16): 5.0}
    (quick,) = make_plan(SUITE, [SMALL], [LOCAL], known={LOCAL.key: fast}).jobs
    (long,) = make_plan(SUITE, [SMALL], [LOCAL], known={LOCAL.key: slow}).jobs
    assert quick.measured_before
    assert quick.expected_seconds is not None
    assert long.expected_seconds is not None
    assert quick.expected_seconds < 10 < long.expected_seconds


def test_what_will_be_too_slow_is_counted() -> None:
    """A scenario that earlier speeds rule out costs nothing and is said to be expected too slow."""
    crawl = {("small", "pp", 16): 2.5, ("small", "pp", 512): 2.5, ("small", "tg", 16): 5.0}
    (job,) = make_plan(SUITE, [SMALL], [LOCAL], known={LOCAL.key: crawl}).jobs
    assert job.models[0].expected_skips == 1


def test_an_unknown_server_has_no_expected_time() -> None:
    """Before somebody looked at a server nothing is left out for it, and the plan says that it does not know."""
    planned = make_plan(SUITE, MODELS, [priced("far", None, None)])
    (job,) = planned.jobs
    assert job.expected_seconds is None
    assert not any(one.left_out for one in job.models)
    assert any("looked up" in note for note in planned.notes)


def test_a_budget_leaves_out_what_it_does_not_pay_for() -> None:
    """Jobs are taken in order while the money lasts; the rest is left out with the figures."""
    servers = [priced(name, Price(3.0)) for name in ("a", "b", "c")]
    (alone,) = make_plan(SUITE, [SMALL], servers[:1]).jobs
    assert alone.expected_seconds is not None
    cost = Price(3.0).cost(alone.expected_seconds)
    planned = make_plan(SUITE, [SMALL], servers, budget=(2.5 * cost, "USD"))
    assert [job.runs for job in planned.jobs] == [True, True, False]
    assert "are left" in planned.jobs[2].left_out
    spent = sum(Price(3.0).cost(job.session_seconds) for job in planned.running)
    assert spent <= 2.5 * cost
    assert all(job.limit_seconds <= job.session_seconds for job in planned.running)


@pytest.mark.parametrize("price", [None, Price(1.0, "EUR")])
def test_a_budget_needs_prices_in_its_own_currency(price: Price | None) -> None:
    """Currencies are never mixed, and an unknown price is none."""
    with pytest.raises(UsageError, match="--price"):
        make_plan(SUITE, [SMALL], [priced("a", price)], budget=(5.0, "USD"))


def test_job_names_are_unique_labels() -> None:
    """Two hosts whose names differ only in what a label can't hold get different job names."""
    servers = [priced("Big_1.example", None), priced("big-1-example", None), LOCAL]
    assert job_names(servers) == ["big-1-example", "big-1-example-2", "local"]


def test_slugs_hold_what_every_cloud_allows() -> None:
    """Lower case, digits and inner hyphens, never empty."""
    assert slug("AMD EPYC(tm) 7763 @ 2.45GHz") == "amd-epyc-tm-7763-2-45ghz"
    assert slug("***") == "x"
    assert len(slug("y" * 99)) == 40
