"""``top``: who is ranked, by what, at which price; on both databases, and as a user asks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from answer_data import MODEL, SEEN, Measured, add_catalogue, add_measurements, add_price, add_rate
from benchctl.db.engine import open_database, reading, writing
from benchctl.db.prices import Terms
from benchctl.db.ranking import Ranking, top
from benchctl.errors import UsageError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from benchctl.db.queries import Answer
    from benchctl.home import Home
    from sqlalchemy import Engine

    Benchctl = Callable[..., subprocess.CompletedProcess[str]]

PP = ("pp", 512)


def fill(engine: Engine) -> None:
    """Five servers with speeds from 50 to 1000, a price each but for one, and one whose GPU idled."""
    with writing(engine) as session:
        add_catalogue(
            session,
            ("aws", "gpu", {"gpu_count": 1, "gpu_model": "L40S"}),
            ("aws", "cpu", {}),
            ("azure", "idle", {"gpu_count": 1, "gpu_model": "H100"}),
            ("azure", "free", {}),
            ("hcloud", "euro", {}),
        )
        add_price(session, "aws", "gpu", 3.6)
        add_price(session, "aws", "gpu", 1.8, allocation="SPOT")
        add_price(session, "aws", "cpu", 0.09)
        add_price(session, "azure", "idle", 7.2)
        add_price(session, "hcloud", "euro", 0.18, currency="EUR")
        add_measurements(
            session,
            Measured("aws", "gpu", {PP: 1000.0}),
            Measured("aws", "cpu", {PP: 50.0}),
            Measured("azure", "idle", {PP: 200.0}, outcome="gpu_fallback"),
            Measured("azure", "free", {PP: 60.0}),
            Measured("hcloud", "euro", {PP: 100.0}, others={("pp", 4096): "timeout"}),
        )


def ask(engine: Engine, limit: int | None = None, **asked: Any) -> Answer:
    """The ranking of prompts of 512 tokens."""
    with reading(engine) as session:
        return top(session, Ranking(MODEL, *PP, **asked), limit)


def names(answer: Answer) -> list[str]:
    """The servers in order."""
    return [row["server_id"] for row in answer.rows]


def test_by_speed_with_what_tokens_cost(engine: Engine) -> None:
    """The fastest first, priced or not; 3.6 USD/h at 1000 tokens/s is a million tokens for 1 USD."""
    fill(engine)
    answer = ask(engine)
    assert names(answer) == ["gpu", "euro", "free", "cpu"]
    first = answer.rows[0]
    assert first["cost_per_million_tokens"] == first["usd_per_million_tokens"] == pytest.approx(1)
    assert first["tokens_per_currency_unit"] == pytest.approx(1e6)
    assert (first["price_source"], str(first["price_source_date"])) == ("a list", "2025-04-28")
    assert (first["price_region"], first["price_allocation"], first["price_currency"]) == ("here-1", "ONDEMAND", "USD")
    assert (first["rank"], first["instances"], first["instance_spread"], first["gpu_model"]) == (1, 1, None, "L40S")
    assert answer.rows[2]["price_per_hour"] is answer.rows[2]["cost_per_million_tokens"] is None


def test_by_money(engine: Engine) -> None:
    """Cheapest tokens first, by either name of it; what has no price is left out, and said so."""
    fill(engine)
    for by in ("price-performance", "usd-per-mtok"):
        answer = ask(engine, by=by)
        assert names(answer) == ["cpu", "gpu"]
        assert [row["cost_per_million_tokens"] for row in answer.rows] == pytest.approx([0.5, 1.0])
        assert answer.hidden == {"without a price": 2}
        assert any("EUR" in note for note in answer.notes)


def test_another_currency_and_allocation(engine: Engine) -> None:
    """With a rate all are in one currency, and that rate is shown; spot prices are never mixed with others."""
    fill(engine)
    with writing(engine) as session:
        add_rate(session, "EUR", 1.2)
    answer = ask(engine, by="usd-per-mtok", terms=Terms(currency="EUR"))
    assert {row["server_id"]: round(row["cost_per_million_tokens"], 6) for row in answer.rows} == {
        "cpu": 0.416667, "euro": 0.5, "gpu": 0.833333,
    }  # fmt: skip
    assert {row["price_currency"] for row in answer.rows} == {"EUR"}
    assert all(row["usd_per_million_tokens"] is None for row in answer.rows)
    assert any("1 EUR = 1.2 USD" in note for note in answer.notes)
    spot = ask(engine, by="usd-per-mtok", terms=Terms(allocation="SPOT"))
    assert [(row["server_id"], row["price_per_hour"]) for row in spot.rows] == [("gpu", 1.8)]


def test_a_gpu_that_idled_is_not_ranked(engine: Engine) -> None:
    """gpu_fallback is left out and counted; asked for, it is there with its outcome."""
    fill(engine)
    assert any("1 where the CPU did the GPU's work" in note for note in ask(engine).notes)
    answer = ask(engine, fallback=True)
    assert names(answer)[:2] == ["gpu", "idle"]
    assert [row["outcome"] for row in answer.rows[:2]] == ["ok", "gpu_fallback"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"vendors": ["aws"]}, ["gpu", "cpu"]),
        ({"vendors": ["hetzner", "AWS"]}, ["gpu", "euro", "cpu"]),
        ({"gpu": "any"}, ["gpu"]),
        ({"gpu": "l40s"}, ["gpu"]),
        ({"gpu": "none"}, ["euro", "free", "cpu"]),
        ({"min_speed": 60}, ["gpu", "euro", "free"]),
        ({"max_price": 1.0}, ["cpu"]),
        ({"terms": Terms(region="here-1")}, ["gpu", "cpu"]),
        ({"gpu": "none", "min_speed": 55, "limit": 1}, ["euro"]),
    ],
)
def test_filters(engine: Engine, asked: dict[str, Any], expected: list[str]) -> None:
    """Vendors by any name, GPUs, a least speed, a highest price, a region."""
    fill(engine)
    assert names(ask(engine, **asked)) == expected


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"vendors": ["asw"]}, "Did you mean 'aws'"),
        ({"gpu": "L40"}, "Did you mean 'L40S'"),
        ({"terms": Terms(region="her-1")}, "Did you mean 'here-1'"),
        ({"terms": Terms(currency="CHF")}, "no exchange rate for CHF"),
    ],
)
def test_names_that_are_nearly_right(engine: Engine, asked: dict[str, Any], sentence: str) -> None:
    """A mistyped vendor, GPU or region is answered with the one that was meant."""
    fill(engine)
    with pytest.raises(UsageError, match=sentence):
        ask(engine, **asked)


def test_the_price_at_launch_where_no_catalogue_has_one(engine: Engine) -> None:
    """The catalogue's price ranks a cloud's server; one that it lacks has the price at which it was rented."""
    with writing(engine) as session:
        add_catalogue(session, ("local", "desk", {}), ("aws", "cpu", {}))
        add_price(session, "aws", "cpu", 0.09)
        add_measurements(
            session,
            Measured("local", "desk", {PP: 100.0}, price_usd_per_hour=0.36),
            Measured("aws", "cpu", {PP: 50.0}, price_usd_per_hour=9.0),
        )
    answer = ask(engine, by="usd-per-mtok")
    assert [(row["server_id"], row["price_per_hour"], row["price_source"]) for row in answer.rows] == [
        ("cpu", 0.09, "a list"),
        ("desk", 0.36, "at launch"),
    ]
    spot = ask(engine, terms=Terms(allocation="SPOT"))
    assert [row["price_per_hour"] for row in spot.rows] == [None, None]


def test_a_price_at_launch_in_another_currency(engine: Engine) -> None:
    """It is converted where a currency is asked for, with a rate that is said; else it is left out, which is said."""
    with writing(engine) as session:
        add_catalogue(session, ("hcloud", "cx22", {}), ("aws", "m7i", {}), ("upcloud", "yen", {}))
        add_measurements(
            session,
            Measured("hcloud", "cx22", {PP: 100.0}, launch_price_per_hour=0.36, currency="EUR"),
            Measured("aws", "m7i", {PP: 50.0}, launch_price_per_hour=0.36, currency="USD", price_usd_per_hour=0.36),
            Measured("upcloud", "yen", {PP: 20.0}, launch_price_per_hour=36.0, currency="JPY"),
        )
        add_rate(session, "EUR", 1.25)
    plain = ask(engine)
    assert {row["server_id"]: row["price_per_hour"] for row in plain.rows} == {"cx22": None, "m7i": 0.36, "yen": None}
    assert (
        "1 server was rented at a price in EUR, and without a price here (--currency USD converts them)." in plain.notes
    )
    for currency, prices in (
        ("EUR", {"cx22": 0.36, "m7i": 0.288, "yen": None}),
        ("USD", {"cx22": 0.45, "m7i": 0.36, "yen": None}),
    ):
        answer = ask(engine, terms=Terms(currency=currency))
        found = {row["server_id"]: row["price_per_hour"] for row in answer.rows}
        assert found == {key: price and pytest.approx(price) for key, price in prices.items()}
        assert {row["price_currency"] for row in answer.rows if row["price_per_hour"]} == {currency}
        assert answer.notes.count("Converted with 1 EUR = 1.25 USD (a bank, 2025-04-28).") == 1
        assert (
            "1 server was rented at a price in JPY, and without a price here (no rate for it is known)." in answer.notes
        )


def test_show_keeps_each_rows_own_currency(home: Home, benchctl: Benchctl) -> None:
    """Where no price option is given, a row has the price that was paid, in the currency in which it was."""
    engine = open_database(home.database_url)
    with writing(engine) as session:
        add_catalogue(session, ("hcloud", "cx22", {}), ("aws", "m7i", {}))
        add_measurements(
            session,
            Measured("hcloud", "cx22", {PP: 100.0}, launch_price_per_hour=0.36, currency="EUR"),
            Measured("aws", "m7i", {PP: 50.0}, launch_price_per_hour=0.72, currency="USD"),
        )
    engine.dispose()
    one = benchctl("show", "cx22", check=True).stdout
    assert "EUR/1M tokens" in one
    assert "Price: 0.3600 EUR/h (at launch)" in one
    both = benchctl("show", "--sweep", "first", check=True).stdout
    assert "price/1M tokens" in both
    for said in ("1.000 EUR", "4.000 USD"):
        assert said in both, said


def test_instances_are_their_median_with_their_spread(engine: Engine) -> None:
    """Three instances of 90, 100 and 120: ranked at 100, scattering by 14.8 %."""
    with writing(engine) as session:
        add_catalogue(session, ("aws", "cpu", {}))
        add_measurements(
            session, *(Measured("aws", "cpu", {PP: speed}, job=f"j{speed}") for speed in (90.0, 120.0, 100.0))
        )
    (row,) = ask(engine).rows
    assert (row["tokens_per_second"], row["instances"], row["job_id"]) == (100.0, 3, "j100.0")
    assert row["instance_spread"] == pytest.approx(15.2753 / 103.3333, rel=1e-4)


def filled(home: Home) -> None:
    """The same servers in the home of a user."""
    engine = open_database(home.database_url)
    fill(engine)
    engine.dispose()


def test_top_as_a_user_asks(home: Home, benchctl: Benchctl) -> None:
    """The table names speed, samples, cost and where each price comes from; the JSON has the very same rows."""
    filled(home)
    asked = ("top", "--model", MODEL, "--task", "pp", "--tokens", "512")
    shown = benchctl(*asked, "--by", "price-performance", check=True).stdout
    assert "USD/1M tokens" in shown
    assert "M tokens/USD" in shown
    assert "[1] a list, 2025-04-28" in shown
    assert "Left out: 2 without a price." in shown
    rows = json.loads(benchctl(*asked, "--json", "--include-fallback", "--vendor", "azure,aws", check=True).stdout)
    assert [row["outcome"] for row in rows] == ["ok", "gpu_fallback", "ok", "ok"]
    assert rows[0]["measured_at"] == SEEN.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert "gpu_fallback" in benchctl(*asked, "--include-fallback", check=True).stdout
    assert json.loads(benchctl(*asked, "--gpu", "--query", "[].server_id", check=True).stdout) == ["gpu"]
    nothing = benchctl(*asked, "--min-speed", "1e6", check=True).stdout
    assert nothing.splitlines()[:2] == ["No server is left.", "Left out: 4 slower than asked."]


def test_show_with_the_catalogues_price(home: Home, benchctl: Benchctl) -> None:
    """A server's cost is at its offer, which is named; a fallback is shown, and said to be one."""
    filled(home)
    shown = benchctl("show", "gpu", check=True).stdout
    assert "Price: 3.600 USD/h on demand in here-1 (a list, 2025-04-28)" in shown
    assert "1.000" in shown
    assert "1.800 USD/h spot in here-1" in benchctl("show", "gpu", "--allocation", "spot", check=True).stdout
    idle = benchctl("show", "azure/idle", check=True).stdout
    assert "gpu_fallback" in idle
    assert "1 scenarios ran on the CPU instead of the GPU" in idle
    assert "priced in EUR only" in benchctl("show", "hetzner/euro", check=True).stdout
