"""What measuring cost, and where the hours went: on both databases, and as a user asks."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from answer_data import SEEN, add_catalogue, add_job, add_price, add_rate, add_times
from benchctl import budget
from benchctl.db import costs
from benchctl.db.engine import open_database, reading, writing
from benchctl.db.prices import Terms
from benchctl.db.schema import Job, JobServer, Sweep
from benchctl.errors import UsageError
from benchctl.ledger import JobState, Ledger, servers_from_books
from benchctl.living import account
from benchctl.models import load_models
from benchctl.replan import machine_from, plan_again, request_of
from benchctl.request import SweepRequest
from benchctl.suites import load_suite
from raw_runs import HOST, RawRun
from sqlalchemy import delete, update

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


class Clock:
    """A day of a sweep, that goes on as the test says."""

    def __init__(self) -> None:
        self.now = SEEN

    def __call__(self) -> datetime:
        return self.now

    def text(self, **later: float) -> str:
        """Now, or later, as a book says it."""
        return (self.now + timedelta(**later)).isoformat(timespec="milliseconds")


def rented_sweep(home: Home, engine: Engine, clock: Clock) -> Ledger:
    """Two days of a sweep, told to its book as renting does.

    ``again`` was retried in another place at another price after its first server was there for 20 s, and was refused
    once; ``resumed`` was killed, and went on a day later; ``hourly`` is billed by the hour, in EUR, and was resumed,
    too; ``quota`` waited and got nothing, for reasons that no rule knows; ``alive`` is measured still.
    """
    suite = load_suite("quick")
    known = load_models()
    request = SweepRequest(("aws", "hetzner"), suite, tuple(known[name] for name in suite.model_names))

    def rented(job: str, vendor: str = "aws", price: float = 3.6, currency: str = "USD") -> JobState:
        return JobState(job, vendor, job, job, lifetime_seconds=7200, price_per_hour=price, currency=currency)

    jobs = [
        rented("again"),
        rented("resumed"),
        rented("hourly", "hcloud", 0.5, "EUR"),
        rented("quota"),
        rented("alive"),
    ]
    ledger = Ledger.create(home, engine, request, jobs, clock=clock, sweep="rented")

    def launch(*names: str, **changes: Any) -> None:
        for name in names:
            ledger.update(
                name, status="running", stage="provisioning", launched_at=clock.text(), gone_at=None,
                expires_at=clock.text(hours=2), **changes,
            )  # fmt: skip

    def life(name: str) -> dict[str, Any]:
        job = ledger.job(name)
        keys = ("launched_at", "gone_at", "price_per_hour", "currency")
        return {key: getattr(job, key) for key in keys}

    ledger.update("quota", status="running")
    clock.now += timedelta(minutes=5)
    launch("again", "resumed", "hourly")
    clock.now += timedelta(seconds=20)
    ledger.update("again", gone_at=clock.text())
    ledger.update("again", attempts=({**life("again"), "at": clock.text(), "refusal": "stock", "said": "no"},))
    # a refusal by which no server was made leaves the book without the one that was asked for
    launch("again")
    clock.now += timedelta(seconds=10)
    refused = {**life("again"), "launched_at": None, "gone_at": clock.text(), "at": clock.text(), "said": "no"}
    ledger.update("again", attempts=(*ledger.job("again").attempts, refused), launched_at=None, gone_at=clock.text())
    launch("again", price_per_hour=7.2)
    clock.now += timedelta(minutes=10)
    for name in ("again", "resumed", "hourly"):
        done = {} if name != "again" else {"status": "finished"}
        ledger.update(name, stage="gone", gone_at=clock.text(), **{"status": "stopped", **done})
    ledger.update("quota", status="failed", error="No server after 3 tries in 1 region: words that no rule knows")
    ledger.close("stopped")
    clock.now += timedelta(days=1)
    ledger.reopen()
    for name in ("resumed", "hourly"):
        launch(name, past=(life(name),))
    clock.now += timedelta(minutes=50)
    for name in ("resumed", "hourly"):
        ledger.update(name, status="finished", stage="ingesting")
    clock.now += timedelta(minutes=15)
    for name in ("resumed", "hourly"):
        ledger.update(name, stage="gone", gone_at=clock.text())
    launch("alive")
    clock.now += timedelta(minutes=30)
    return ledger


def test_a_sweep_is_billed_by_the_lives_of_its_servers(home: Home, engine: Engine) -> None:
    """Every server from its launch to its end in its vendor's unit: what the sweep itself says that it spent."""
    clock = Clock()
    ledger = rented_sweep(home, engine, clock)
    with reading(engine) as session:
        answer = costs.of_sweep(session, Terms(), "rented", now=clock.now)
        vendors = costs.spending(session, Terms(), sweep="rented", now=clock.now)
    rows = {row["job_id"]: row for row in answer.rows}
    billed = {
        "again": 60 + 600,  # a minute at least
        "resumed": 630 + 65 * 60,
        "hourly": 3600 + 2 * 3600,  # each try by itself
        "quota": None,
        "alive": 1800,
    }
    assert {name: row["billed_seconds"] for name, row in rows.items()} == billed
    assert {name: row["cost"] for name, row in rows.items()} == {
        "again": pytest.approx(0.06 + 1.2),
        "resumed": pytest.approx(3.6 * (630 + 3900) / 3600),
        "hourly": pytest.approx(0.5 * 3),
        "quota": None,
        "alive": pytest.approx(1.8),
    }
    assert {row["billed_by"] for row in answer.rows} == {"servers", None}
    spent = account("rented", ledger.jobs, ledger.request.public(), clock.now)["spent"]
    assert {row["currency"]: row["cost"] for row in vendors.rows} == pytest.approx(spent)
    notes = " ".join(answer.notes)
    assert "1 runs got no server" in notes
    assert "1 servers may be alive, and are billed until now." in notes
    assert "an estimate" not in notes
    assert "bills every hour" not in notes
    # the budget of a sweep counts the same
    dollars = [job for job in ledger.jobs if job.currency == "USD"]
    assert sum(row["cost"] or 0.0 for row in answer.rows if row["currency"] == "USD") == pytest.approx(
        budget.spent([in_its_currency(job) for job in dollars], clock.now)
    )


def in_its_currency(job: JobState) -> JobState:
    """A job whose servers' prices are those of the budget."""
    from dataclasses import replace

    def priced(life: Any) -> dict[str, Any]:
        return {**life, "budget_per_hour": life["price_per_hour"]}

    return replace(
        job, budget_per_hour=job.price_per_hour, past=tuple(map(priced, job.past)),
        attempts=tuple(map(priced, job.attempts)),
    )  # fmt: skip


def test_the_night_between_two_days_is_no_cause(home: Home, engine: Engine) -> None:
    """What passed while no server existed is in no row of where the time went."""
    clock = Clock()
    rented_sweep(home, engine, clock)
    with writing(engine) as session:
        add_catalogue(session, ("aws", "resumed", {}))
        job = session.get_one(Job, ("rented", "resumed"))
        add_times(session, job, image=86400.0, samples=2400.0, other=300.0)
    with reading(engine) as session:
        answer = costs.of_sweep(session, Terms(), "rented", now=clock.now)
        (vendor,) = costs.spending(session, Terms(), sweep="rented", vendor="aws", now=clock.now).rows
    (row,) = (row for row in answer.rows if row["job_id"] == "resumed")
    assert row["samples_seconds"] == 2400.0
    assert row["image_seconds"] == pytest.approx(630 + 3900 - 2400)
    assert row["not_recorded_seconds"] == pytest.approx(0.0)
    assert vendor["not_recorded_hours"] >= 0


def test_prices_at_launch_in_one_currency(home: Home, engine: Engine) -> None:
    """What was paid in another currency is converted where one is asked for, with a rate that is said."""
    clock = Clock()
    rented_sweep(home, engine, clock)
    with writing(engine) as session:
        add_rate(session, "EUR", 1.25)
    answer = ask(engine, terms=Terms(currency="EUR"), sweep="rented", now=clock.now)
    assert {row["currency"] for row in answer.rows} == {"EUR"}
    assert sum(row["cost"] for row in answer.rows) == pytest.approx(1.5 + (1.26 + 4.53 + 1.8) / 1.25)
    assert "Converted with 1 EUR = 1.25 USD (a bank, 2025-04-28)." in answer.notes


def test_sweeps_that_kept_no_servers(home: Home, engine: Engine) -> None:
    """They are billed from start to end, which is said to be an estimate, until an ingest finds their books."""
    clock = Clock()
    ledger = rented_sweep(home, engine, clock)
    expected = ask(engine, sweep="rented", now=clock.now).rows
    with writing(engine) as session:
        session.execute(delete(JobServer))
        session.execute(update(Job).values(servers_rented=None))
    answer = ask(engine, sweep="rented", now=clock.now)
    assert any("billed from their start to their end, an estimate" in note for note in answer.notes)
    assert sum(row["hours"] for row in answer.rows) > 48
    servers_from_books(home, engine)
    assert ask(engine, sweep="rented", now=clock.now).rows == expected
    # a book that is gone, and one that is damaged, tell nothing
    with writing(engine) as session:
        session.execute(update(Job).values(servers_rented=None))
    (ledger.folder / "sweep.json").write_text("[")
    servers_from_books(home, engine)
    (ledger.folder / "sweep.json").unlink()
    servers_from_books(home, engine)
    assert any("an estimate" in note for note in ask(engine, sweep="rented", now=clock.now).notes)


def test_an_ingest_reads_the_books(home: Home, benchctl: Benchctl) -> None:
    """As a user does it: raw results are taken in, and the sweeps that lie beside them say what they rented."""
    engine = open_database(home.database_url)
    rented_sweep(home, engine, Clock())
    with writing(engine) as session:
        session.execute(delete(JobServer))
        session.execute(update(Job).values(servers_rented=None))
    benchctl("ingest", RawRun().write(home.lake), check=True)
    rows = json.loads(benchctl("costs", "--sweep", "rented", "--by", "job", "--json", check=True).stdout)
    engine.dispose()
    assert {row["job_id"]: row["billed_seconds"] for row in rows}["hourly"] == 3 * 3600


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
