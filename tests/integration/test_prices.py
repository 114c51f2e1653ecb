"""What servers cost, as every answer with prices takes it: the terms, one currency, and what is said with it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from benchctl.catalog.files import read_file
from benchctl.catalog.store import take_in
from benchctl.db.engine import reading
from benchctl.db.prices import Offers, Terms, offers
from benchctl.errors import UsageError
from catalog_files import A2, DAY, Line, cpu_lines, write_database, write_prices, write_rates

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CX22 = ("hcloud", "104")
N2 = ("gcp", "202")
M5 = ("aws", "m5.xlarge")


@pytest.fixture
def filled(engine: Engine, tmp_path: Path) -> Engine:
    """A catalogue with prices in three currencies, two regions, on demand and spot, one of them doubtful."""
    lines = [
        *cpu_lines(),
        Line("n2-standard-2", 0.08, region="europe-west1"),
        Line("n2-standard-2", 0.02, allocation="SPOT"),
        Line("n2-standard-4", 70.08, region="europe-west1", unit="MONTH", source="by the month"),
        Line(A2.name, 0.739),
        Line("cx22", 0.005, vendor="hcloud", region="fsn1", currency="EUR"),
        Line("m5.xlarge", 1.4, vendor="aws", region="us-east-1", currency="CNY"),
        Line("m5.2xlarge", 0.4, vendor="aws", region="us-east-1"),
        Line("m5.2xlarge", 1.0, vendor="aws", region="cn-north-1", currency="CNY"),
    ]
    take_in(
        engine, [read_file(write_database(tmp_path / "a.db")), read_file(write_prices(tmp_path / "p.csv", *lines))], NOW
    )
    return engine


def add_rates(engine: Engine, folder: Path, *lines: str) -> None:
    """Take exchange rates in."""
    take_in(engine, [read_file(write_rates(folder / "r.csv", *lines))], NOW)


def ask(engine: Engine, terms: Terms) -> Offers:
    """The offers on these terms."""
    with reading(engine) as session:
        return offers(session, terms)


def test_the_cheapest_region_and_where_it_is_from(filled: Engine) -> None:
    """Of the current prices the lowest, with region, source, date and the price as it is listed."""
    one = ask(filled, Terms()).by_server[N2]
    assert (one.price_per_hour, one.currency, one.region_id, one.region) == (0.08, "USD", "1100", "europe-west1")
    assert (one.zone_id, one.source, one.source_date, one.flags) == ("*", "prices/list@abcdef1 prices.yml", DAY, ())
    assert (one.listed_price, one.listed_currency) == (0.08, "USD")


def test_allocations_are_never_mixed(filled: Engine) -> None:
    """Spot has spot prices alone, and reserved has none here."""
    assert {key: one.price_per_hour for key, one in ask(filled, Terms(allocation="SPOT")).by_server.items()} == {
        N2: 0.02
    }
    assert ask(filled, Terms(allocation="RESERVED")).by_server == {}


@pytest.mark.parametrize("name", ["us-central1", "1000", "US-Central1"])
def test_in_one_region(filled: Engine, name: str) -> None:
    """By the API's name or the identifier; servers without a price there have no offer."""
    found = ask(filled, Terms(region=name))
    assert found.by_server[N2].price_per_hour == 0.09712
    assert {vendor for vendor, _ in found.by_server} == {"gcp"}


def test_a_region_by_another_name(filled: Engine, tmp_path: Path) -> None:
    """Hetzner's fsn1 is Spare Cores' fsn1-dc14."""
    add_rates(filled, tmp_path, "EUR,2025-04-28,1.1388,ECB")
    assert set(ask(filled, Terms(region="fsn1", currency="EUR")).by_server) == {CX22}


def test_an_unknown_region(filled: Engine) -> None:
    """One sentence with what was probably meant."""
    with pytest.raises(UsageError, match=r"There is no region 'us-centrall1'.*Did you mean 'us-central1'\?"):
        ask(filled, Terms(region="us-centrall1"))
    with pytest.raises(UsageError, match="catalog list regions"):
        ask(filled, Terms(region="atlantis"))


def test_nothing_is_converted_unasked(filled: Engine) -> None:
    """In USD only what is listed in USD; what is not is counted by currency, and no number of it is shown."""
    found = ask(filled, Terms())
    assert CX22 not in found.by_server
    assert M5 not in found.by_server
    assert {one.currency for one in found.by_server.values()} == {"USD"}
    assert {one.listed_currency for one in found.by_server.values()} == {"USD"}
    assert found.rates == ()
    assert "1 server is priced in EUR only, and without a price here (--currency USD converts them)." in found.notes
    assert "1 server is priced in CNY only, and without a price here (--currency USD converts them)." in found.notes


def test_conversion_with_a_dated_rate(filled: Engine, tmp_path: Path) -> None:
    """Everything is in euros, by the newest rate, which is part of the answer with its source and date."""
    add_rates(filled, tmp_path, "EUR,2024-01-01,1.5,old", "EUR,2025-04-28,1.25,ECB", "CNY,2025-04-28,0.14,ECB")
    found = ask(filled, Terms(currency="eur"))
    assert {one.currency for one in found.by_server.values()} == {"EUR"}
    assert found.by_server[CX22].price_per_hour == 0.005
    assert found.by_server[N2].price_per_hour == pytest.approx(0.08 / 1.25)
    assert found.by_server[M5].price_per_hour == pytest.approx(1.4 * 0.14 / 1.25)
    assert (found.by_server[M5].listed_price, found.by_server[M5].listed_currency) == (1.4, "CNY")
    assert found.by_server["aws", "m5.2xlarge"].listed_currency == "CNY", "0.14 USD is less than 0.40 USD"
    assert [(one.currency, str(one.rate_date), one.source) for one in found.rates] == [
        ("CNY", "2025-04-28", "ECB"), ("EUR", "2025-04-28", "ECB"),
    ]  # fmt: skip
    assert "Converted with 1 EUR = 1.25 USD (ECB, 2025-04-28)." in found.notes


def test_conversion_into_dollars(filled: Engine, tmp_path: Path) -> None:
    """USD asked for by name converts the others; what has no rate stays out, and is said."""
    add_rates(filled, tmp_path, "EUR,2025-04-28,1.25,ECB")
    found = ask(filled, Terms(currency="USD"))
    assert found.by_server[CX22].price_per_hour == pytest.approx(0.00625)
    assert M5 not in found.by_server
    assert "1 server is priced in CNY only, and without a price here (no rate for it is known)." in found.notes
    assert [one.currency for one in found.rates] == ["EUR"]


def test_a_currency_without_a_rate(filled: Engine, tmp_path: Path) -> None:
    """It is refused, with the mend and what there is."""
    with pytest.raises(UsageError, match=r"no exchange rate for EUR.*catalog import --rates"):
        ask(filled, Terms(currency="EUR"))
    add_rates(filled, tmp_path, "EUR,2025-04-28,1.25,ECB")
    with pytest.raises(UsageError, match="There are rates for: EUR"):
        ask(filled, Terms(currency="CHF"))


def test_doubtful_prices(filled: Engine) -> None:
    """They don't count unless asked for, and then the offer carries the doubt."""
    key = ("gcp", "1000012")
    found = ask(filled, Terms())
    assert key not in found.by_server
    assert "1 server has only prices that the import found doubtful, and no price here (--flagged)." in found.notes
    one = ask(filled, Terms(flagged=True)).by_server[key]
    assert (one.price_per_hour, one.flags) == (0.739, ("gpu_priced_like_cpu",))


def test_a_price_by_the_month(filled: Engine) -> None:
    """A month has 730 hours; the listed price is by the hour too."""
    one = ask(filled, Terms(region="europe-west1")).by_server["gcp", "204"]
    assert one.price_per_hour == pytest.approx(0.096)
    assert one.listed_price == pytest.approx(0.096)


def test_an_empty_catalogue(engine: Engine) -> None:
    """No offers, and nothing to say about them."""
    assert ask(engine, Terms()) == Offers({})
