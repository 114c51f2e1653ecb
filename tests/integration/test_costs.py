"""What measuring cost, and where the hours went: on both databases, and as a user asks."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from answer_data import SEEN, add_catalogue, add_job, add_price, add_rate, add_times
from benchctl.db import costs
from benchctl.db.engine import open_database, reading, writing
from benchctl.db.prices import Terms
from benchctl.db.schema import Sweep
from benchctl.errors import UsageError
from benchctl.models import load_models
from benchctl.replan import machine_from, plan_again, request_of
from benchctl.request import SweepRequest
from benchctl.suites import load_suite
from raw_runs import HOST

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from benchctl.home import Home
    from sqlalchemy import Engine

    Benchctl = Callable[..., subprocess.CompletedProcess[str]]

HOUR = timedelta(hours=1)


def fill(engine: Engine) -> None:
    """Runs with a price at launch, of the catalogue, in EUR, without one; one refused, one without an end."""
    with writing(engine) as session:
        add_catalogue(
            session, ("aws", "launched", {}), ("aws", "listed", {}), ("aws", "refused", {}), ("aws", "running", {}),
            ("hcloud", "euro", {}), ("azure", "unpriced", {}),
        )  # fmt: skip
        add_price(session, "aws", "launched", 99.0)
        add_price(session, "aws", "listed", 2.0)
        add_price(session, "aws", "refused", 50.0)
        add_price(session, "hcloud", "euro", 0.1, currency="EUR")
        one = add_job(session, "aws", "launched", ended_at=SEEN + 2 * HOUR, price_usd_per_hour=1.0, currency="USD")
        two = add_job(session, "aws", "listed", ended_at=SEEN + HOUR)
        add_job(session, "aws", "refused", ended_at=SEEN + HOUR, exit_code=-1, error="api error VcpuLimitExceeded")
        add_job(session, "aws", "running", status="running", exit_code=None)
        add_job(session, "hcloud", "euro", ended_at=SEEN + 1.5 * HOUR)
        add_job(session, "azure", "unpriced", ended_at=SEEN + HOUR)
        add_times(session, one, timeouts=3600.0, samples=3000.0, other=600.0)
        add_times(session, two, timeouts=1800.0, samples=900.0)


def ask(engine: Engine, **asked: Any) -> costs.Spending:
    """Hours and money."""
    with reading(engine) as session:
        return costs.spending(session, asked.pop("terms", Terms()), **asked)


def test_hours_and_money_by_vendor(engine: Engine) -> None:
    """The price at launch wins over the catalogue's, currencies stay apart, hours without a price are a row."""
    fill(engine)
    answer = ask(engine)
    rows = {(row["vendor_id"], row["currency"]): row for row in answer.rows}
    assert set(rows) == {("aws", "USD"), ("hcloud", "EUR"), ("azure", None)}
    aws = rows["aws", "USD"]
    assert (aws["runs"], aws["hours"]) == (2, 3.0)
    assert (aws["cost_measured"], aws["hours_measured"]) == (2.0, 2.0)
    assert (aws["cost_estimated"], aws["hours_estimated"]) == (2.0, 1.0)
    assert aws["cost"] == 4.0
    assert rows["hcloud", "EUR"]["cost"] == pytest.approx(0.15)
    assert (rows["azure", None]["cost"], rows["azure", None]["hours"]) == (None, 1.0)
    notes = " ".join(answer.notes)
    assert "1 runs got no server" in notes
    assert "1 runs have no end on record" in notes
    assert "1 runs on 1 servers, 1.0 h, have no price" in notes
    assert "hcloud bills every hour that was started: its 1.5 h are 2 h there, 0.20 EUR." in notes


def test_where_the_hours_went(engine: Engine) -> None:
    """Causes add up to the hours, with what is not on record as a cause of its own; so does the money."""
    fill(engine)
    answer = ask(engine, vendor="aws")
    (aws,) = answer.rows
    assert aws["timeouts_hours"] == 1.5
    assert aws["not_recorded_hours"] == pytest.approx(0.25)
    assert sum(value for key, value in aws.items() if key.endswith("_hours")) == pytest.approx(aws["hours"])
    assert aws["timeouts_cost"] == pytest.approx(1.0 + 1.0)
    assert sum(aws[f"{cause}_cost"] for cause in (*costs.CAUSES, costs.NOT_RECORDED)) == pytest.approx(aws["cost"])
    assert answer.hints[0].startswith("Time-outs: 55% (1.5 h, 2.00 USD). To save: ")


def test_converted_only_when_asked_for(engine: Engine) -> None:
    """With a dated rate all prices of the catalogue are in one currency, and the rate is said."""
    fill(engine)
    with writing(engine) as session:
        add_rate(session, "EUR", 1.25)
    answer = ask(engine, terms=Terms(currency="USD"))
    assert {row["vendor_id"]: row["currency"] for row in answer.rows} == {"aws": "USD", "hcloud": "USD", "azure": None}
    assert next(row["cost"] for row in answer.rows if row["vendor_id"] == "hcloud") == pytest.approx(0.1875)
    assert "Converted with 1 EUR = 1.25 USD" in " ".join(answer.notes)


def test_other_groups(engine: Engine) -> None:
    """By sweep and by server the same hours, summed up differently."""
    fill(engine)
    for by in costs.GROUPS:
        assert sum(row["hours"] for row in ask(engine, by=by).rows) == pytest.approx(5.5)
    assert {row["server_id"] for row in ask(engine, by="server").rows} == {"launched", "listed", "euro", "unpriced"}
    with pytest.raises(UsageError, match="There is no sweep 'x'"):
        ask(engine, sweep="x")


def own_sweep(engine: Engine, price: str = "2EUR/h") -> SweepRequest:
    """A sweep of benchctl's own, with its request and a machine's facts on record, priced in another currency."""
    suite = load_suite("quick")
    known = load_models()
    request = SweepRequest(
        ("ssh",), suite, tuple(known[name] for name in suite.model_names), price=price, budget="5EUR"
    )
    with writing(engine) as session:
        add_catalogue(session, ("ssh", "rack7", {}))
        session.add(Sweep(sweep_id="own", created_at=SEEN, vendors=["ssh"], request=request.public()))
        session.flush()
        job = add_job(
            session, "ssh", "rack7", sweep="own", ended_at=SEEN + HOUR / 2, currency="EUR", host=HOST,
            outcomes={"ok": 20, "timeout": 2},
        )  # fmt: skip
        add_times(session, job, samples=1200.0, timeouts=600.0)
    return request


def test_a_sweep_before_and_after(engine: Engine) -> None:
    """The plan is made again from the request and the machine; beside it stands what it came to."""
    request = own_sweep(engine)
    plan = plan_again(request, "ssh", "rack7", HOST)
    with reading(engine) as session:
        assert costs.is_planned(session, "own")
        answer = costs.of_sweep(session, Terms(), "own")
    (row,) = answer.rows
    assert (row["scenarios"], row["scenarios_ok"]) == (plan.scenarios, 20)
    assert row["expected_seconds"] == plan.expected_seconds
    assert row["limit_seconds"] == plan.limit_seconds > 0
    assert (row["billed_seconds"], row["cost"], row["currency"], row["price_basis"]) == (1800.0, 1.0, "EUR", "launch")
    assert row["limit_cost"] == pytest.approx(2.0 * plan.limit_seconds / 3600)
    assert row["timeouts_seconds"] == 600.0
    assert any("budget was 5EUR" in note for note in answer.notes)


def test_a_sweep_from_elsewhere_has_no_plan(engine: Engine) -> None:
    """Nothing is invented: the planned figures are empty, and that is said."""
    fill(engine)
    with reading(engine) as session:
        assert not costs.is_planned(session, "first")
        answer = costs.of_sweep(session, Terms(), "first", vendor="aws")
    assert {row["limit_seconds"] for row in answer.rows} == {None}
    assert {row["server_id"]: row["billed_seconds"] for row in answer.rows}["refused"] is None
    assert any("not on record" in note for note in answer.notes)


def test_a_request_of_another_version_is_none() -> None:
    """What this version can't read is no plan, and no error."""
    for stored in ({}, {"vendors": ["local"]}, {"vendors": 1, "suite": {}, "models": []}):
        assert request_of(stored) is None
    assert machine_from(None) is None
    assert machine_from({"cpu_model": "x"}) is None


def test_as_a_user_asks(home: Home, benchctl: Benchctl) -> None:
    """Both tables and the hints for people, one list for machines, sentences for mistakes."""
    assert "Nothing was billed yet" in benchctl("costs", check=True).stdout
    engine = open_database(home.database_url)
    fill(engine)
    own_sweep(engine)
    engine.dispose()
    table = benchctl("costs", check=True).stdout
    for said in ("no price", "Where the billed time went", "Time-outs: ", "Estimated: "):
        assert said in table, said
    rows = json.loads(benchctl("costs", "--json", check=True).stdout)
    assert len(rows) == 4
    sweep = benchctl("costs", "--sweep", "ow", check=True).stdout
    for said in ("rack7", "at most", "30 min", "1.00 EUR", "launch"):
        assert said in sweep, said
    jobs = json.loads(benchctl("costs", "--sweep", "own", "--json", check=True).stdout)
    assert jobs[0]["scenarios_ok"] == 20
    first = benchctl("costs", "--sweep", "first", "--by", "job", check=True).stdout
    assert "nothing can be said of its plan" in first
    for arguments, sentence in (
        (("--by", "job"), "--by job needs a sweep."),
        (("--sweep", "none"), "There is no sweep 'none'."),
        (("--vendor", "hetzer"), "Did you mean"),
        (("--currency", "XYZ"), "There is no exchange rate for XYZ."),
    ):
        wrong = benchctl("costs", *arguments)
        assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1), wrong.stderr
        assert sentence in wrong.stderr
