"""Which servers meet a need, and what they cost: on both databases, and as a user asks."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest
from answer_data import Measured, add_catalogue, add_measurements, add_price, add_rate
from benchctl.db.engine import open_database, reading, writing
from benchctl.db.prices import Terms
from benchctl.db.recommendations import Need, recommend
from benchctl.economics import Workload
from benchctl.errors import UsageError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from benchctl.home import Home
    from sqlalchemy import Engine

    Benchctl = Callable[..., subprocess.CompletedProcess[str]]

MODEL = "toy-1b"
APRIL = datetime(2025, 4, 20, tzinfo=UTC)
MAY = datetime(2025, 5, 20, tzinfo=UTC)


def fill(engine: Engine) -> None:
    """Three clouds: a quick GPU server, a slow cheap one, one priced in EUR, one retired, one whose GPU idled."""
    with writing(engine) as session:
        add_catalogue(
            session,
            ("aws", "quick", {"gpu_count": 1, "gpu_model": "L40S"}),
            ("aws", "slow", {}),
            ("gcp", "gone", {"status": "INACTIVE"}),
            ("gcp", "unused", {"gpu_count": 8, "gpu_model": "H100"}),
            ("hcloud", "euro", {}),
            ("azure", "unpriced", {}),
        )
        add_price(session, "aws", "quick", 3.6)
        add_price(session, "aws", "quick", 1.8, allocation="SPOT")
        add_price(session, "aws", "slow", 0.4)
        add_price(session, "gcp", "gone", 0.01)
        add_price(session, "gcp", "unused", 0.5)
        add_price(session, "hcloud", "euro", 0.30, currency="EUR")
        add_measurements(
            session,
            Measured("aws", "quick", {("pp", 128): 900.0, ("pp", 512): 1000.0, ("tg", 128): 100.0}, load_seconds=4.0),
            Measured("aws", "slow", {("pp", 128): 100.0, ("pp", 512): 100.0, ("tg", 128): 10.0}),
            Measured("gcp", "gone", {("pp", 512): 500.0, ("tg", 128): 50.0}),
            Measured("gcp", "unused", {("pp", 512): 90.0, ("tg", 128): 9.0}, outcome="gpu_fallback"),
            Measured("hcloud", "euro", {("pp", 512): 120.0, ("tg", 128): 12.0}),
            Measured("azure", "unpriced", {("pp", 512): 130.0, ("tg", 128): 13.0}),
        )


def ask(engine: Engine, **asked: Any) -> Any:
    """The answer to a need for the toy model."""
    with reading(engine) as session:
        return recommend(session, Need(MODEL, **asked))


def names(answer: Any) -> list[str]:
    """The servers, in order."""
    return [row["server_id"] for row in answer.rows]


def test_the_cheapest_server_that_is_quick_enough(engine: Engine) -> None:
    """By blended cost without a load; the figures are those of the formulas."""
    fill(engine)
    answer = ask(engine)
    assert names(answer) == ["quick", "slow"]
    by_name = {row["server_id"]: row for row in answer.rows}
    quick = by_name["quick"]
    assert quick["cost_per_million_tokens_in"] == pytest.approx(3.6 / (1000 * 3600) * 1e6)
    assert quick["cost_per_million_tokens_out"] == pytest.approx(3.6 / (100 * 3600) * 1e6)
    assert quick["time_to_first_token_seconds"] == pytest.approx(0.512)
    assert quick["load_seconds"] == 4.0
    assert by_name["slow"]["load_seconds"] is None
    costs = [row["cost_per_million_tokens"] for row in answer.rows]
    assert costs == sorted(costs)
    assert names(ask(engine, min_pp=200.0)) == ["quick"]
    assert names(ask(engine, min_tg=11.0)) == ["quick"]


def test_a_load_is_ranked_by_the_month(engine: Engine) -> None:
    """With requests a day whole servers are counted, and the month decides."""
    fill(engine)
    answer = ask(engine, workload=Workload(512, 128, 1000, 1.0))
    assert names(answer) == ["slow", "quick"]
    slow, quick = answer.rows
    assert slow["request_seconds"] == pytest.approx(5.12 + 12.8)
    assert (slow["servers"], quick["servers"]) == (1, 1)
    assert slow["cost_per_month"] == pytest.approx(0.4 * 730)
    crowd = ask(engine, workload=Workload(512, 128, 100_000, 0.5))
    assert [(row["server_id"], row["servers"]) for row in crowd.rows] == [("slow", 42), ("quick", 5)]
    assert crowd.rows[1]["cost_per_month"] == pytest.approx(5 * 3.6 * 730)


def test_lengths_between_and_beyond_those_measured_say_so(engine: Engine) -> None:
    """Interpolated within and marked; beyond a server is left out and counted, or marked where it was asked for."""
    fill(engine)
    long = Workload(4096, 128)
    row = ask(engine, at_pp=256, workload=long, gpu="L40s", beyond=True).rows[0]
    assert row["pp_basis"] == "interpolated"
    assert row["pp_tokens_per_second"] == pytest.approx((900.0 * 1000.0) ** 0.5)
    assert (row["tokens_in_basis"], row["tokens_in_per_second"]) == ("beyond", 1000.0)
    none = ask(engine, workload=long)
    assert none.rows == []
    assert "5 not measured up to these lengths (--beyond" in none.why_empty
    some = ask(engine, at_tg=100)
    assert names(some) == []  # 128 alone was measured of text generation
    with writing(engine) as session:
        add_measurements(session, Measured("aws", "slow", {("tg", 16): 12.0}))
    some = ask(engine, at_tg=100)
    assert [(row["server_id"], row["tg_basis"]) for row in some.rows] == [("slow", "interpolated")]
    assert any("4 servers were not measured up to these lengths" in note for note in some.notes)


def test_fallback_is_counted_only_when_asked_for(engine: Engine) -> None:
    """A GPU server that ran on its CPU is left out and said; asked for, it is there and marked."""
    fill(engine)
    answer = ask(engine)
    assert "unused" not in names(answer)
    assert any("1 GPU servers ran it on the CPU" in note for note in answer.notes)
    shown = ask(engine, fallback=True, gpu="any")
    assert {row["server_id"]: row["gpu_fallback"] for row in shown.rows} == {"quick": False, "unused": True}


def test_terms_filters_and_what_is_left_out(engine: Engine) -> None:
    """Allocation, currency, vendor, GPU and price narrow the answer; what fell out for want of a price is counted."""
    fill(engine)
    with writing(engine) as session:
        add_rate(session, "EUR", 1.25)
    spot = ask(engine, terms=Terms(allocation="SPOT"))
    assert [(row["server_id"], row["price_per_hour"]) for row in spot.rows] == [("quick", 1.8)]
    euros = ask(engine, terms=Terms(currency="EUR"))
    assert {row["server_id"]: round(row["price_per_hour"], 3) for row in euros.rows} == {
        "quick": 2.88, "slow": 0.32, "euro": 0.3,
    }  # fmt: skip
    assert euros.currency == "EUR"
    assert any("1 EUR = 1.25 USD" in note for note in euros.notes)
    assert names(ask(engine, vendors=("hetzner",), terms=Terms(currency="EUR"))) == ["euro"]
    assert names(ask(engine, gpu="none")) == ["slow"]
    assert names(ask(engine, max_price_per_hour=1.0)) == ["slow"]
    notes = " ".join(ask(engine).notes)
    assert "2 servers meet the need and have no price on these terms." in notes
    assert "1 servers meet the need and are no longer rented" in notes


def test_the_newest_sweep_counts_and_instances_give_their_median(engine: Engine) -> None:
    """An older sweep's speed is replaced, another length's is kept; two instances count as one server."""
    fill(engine)
    with writing(engine) as session:
        add_measurements(
            session,
            Measured("aws", "slow", {("pp", 512): 200.0, ("tg", 128): 20.0}, sweep="later", at=MAY),
            Measured("aws", "slow", {("pp", 512): 220.0, ("tg", 128): 40.0}, sweep="later", at=MAY, job="again"),
        )
    row = ask(engine, gpu="none").rows[0]
    assert (row["pp_tokens_per_second"], row["tg_tokens_per_second"], row["instances"]) == (210.0, 30.0, 2)
    assert row["measured_at"] == MAY
    assert ask(engine, gpu="none", at_pp=128).rows[0]["pp_tokens_per_second"] == 100.0


def test_real_and_synthetic_weights_are_never_mixed(engine: Engine) -> None:
    """Real ones where there are any, synthetic ones alone or when asked for, and always said."""
    with writing(engine) as session:
        add_catalogue(session, ("aws", "a", {}), ("aws", "b", {}))
        add_price(session, "aws", "a", 1.0)
        add_price(session, "aws", "b", 1.0)
        add_measurements(session, Measured("aws", "a", {("pp", 512): 9.0, ("tg", 128): 9.0}, weights="synthetic"))
    answer = ask(engine)
    assert (names(answer), answer.weights) == (["a"], "synthetic")
    assert any("synthetic" in note for note in answer.notes)
    with writing(engine) as session:
        add_measurements(session, Measured("aws", "b", {("pp", 512): 5.0, ("tg", 128): 5.0}))
    assert names(ask(engine)) == ["b"]
    assert names(ask(engine, weights="synthetic")) == ["a"]


def test_a_machine_of_ones_own_has_the_price_that_was_given(engine: Engine) -> None:
    """It is in no catalogue; what was said with --price counts, for what it was said."""
    with writing(engine) as session:
        add_catalogue(session, ("local", "desk", {}))
        add_measurements(
            session, Measured("local", "desk", {("pp", 512): 9.0, ("tg", 128): 9.0}, price_usd_per_hour=0.05)
        )
    row = ask(engine).rows[0]
    assert (row["price_per_hour"], row["price_source"]) == (0.05, "given when it was measured")
    assert ask(engine, terms=Terms(allocation="SPOT")).rows == []


def test_an_answer_without_servers_says_why(engine: Engine) -> None:
    """How quick the quickest are, or what became of those that are quick enough; and names that are nearly right."""
    fill(engine)
    assert ask(engine, min_pp=5000.0).why_empty == (
        "None of the 5 servers measured with toy-1b reaches pp512 5000 tokens/s. "
        "Fastest: pp512 1000 tokens/s (aws/quick); tg128 100 tokens/s (aws/quick)."
    )
    assert ask(engine, gpu="T4").why_empty == "No server that matches was measured with toy-1b."
    assert ask(engine, min_pp=900.0, max_price_per_hour=0.1).why_empty.endswith(
        "none of which counts: 1 over --max-price."
    )
    with reading(engine) as session:
        for need, sentence in (
            (Need("toi-1b"), "Did you mean 'toy-1b'"),
            (Need(MODEL, vendors=("awz",)), "Did you mean 'aws'"),
            (Need(MODEL, terms=Terms(currency="XXX")), "no exchange rate for XXX"),
            (Need(MODEL, terms=Terms(region="nowhere")), "There is no region"),
        ):
            with pytest.raises(UsageError, match=sentence):
                recommend(session, need)


def test_as_a_user_asks(home: Home, benchctl: Benchctl) -> None:
    """A table with every unit said, the same rows as JSON and CSV, and a sentence before anything was measured."""
    empty = benchctl("recommend", "--model", MODEL, check=True)
    assert "Nothing measured yet" in empty.stdout
    engine = open_database(home.database_url)
    fill(engine)
    engine.dispose()
    asked = ("recommend", "--model", MODEL, "--min-pp", "50", "--requests-per-day", "1000", "--utilisation", "0.5")
    table = benchctl(*asked, check=True).stdout
    assert "1000 requests of 512 tokens in and 128 out a day" in table
    for said in ("Single stream", "50% utilisation", "730 hours", "USD/month", "unknown", "quick", "slow"):
        assert said in table, said
    rows = json.loads(benchctl(*asked, "--json", check=True).stdout)
    assert [row["rank"] for row in rows] == [1, 2]
    assert rows[0]["price_date"] == date(2025, 4, 28).isoformat()
    again = list(csv.DictReader(io.StringIO(benchctl(*asked, "--csv", check=True).stdout)))
    assert [float(row["cost_per_month"]) for row in again] == [row["cost_per_month"] for row in rows]
    best = benchctl(*asked, "--query", "[0].server_id", check=True).stdout
    assert json.loads(best) == rows[0]["server_id"]
    assert "100 % utilisation, which is a bound" in benchctl("recommend", "--model", MODEL, check=True).stdout
    wrong = benchctl("recommend", "--model", MODEL, "--utilisation", "2")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
