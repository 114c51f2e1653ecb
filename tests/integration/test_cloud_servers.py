"""Servers of clouds for a sweep, from the catalogue to the plan that a user reads; on a small one and the real one."""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import corpus
import pytest
from answer_data import Measured, add_job, add_measurements
from benchctl.cli.sweep import jobs_of_plan, plan_of, request_from
from benchctl.cloud_servers import MOST_PLACES, binary_architecture, find_cloud_servers
from benchctl.db.engine import open_database, reading, writing
from benchctl.db.prices import newest_rates
from benchctl.db.schema import JobAttempt
from benchctl.errors import UsageError
from catalog_files import CX22, G2, KINDS, REGIONS, Kind, Line, cpu_lines, write_database, write_prices, write_rates
from click import Context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchctl.home import Home
    from benchctl.plan import Server
    from benchctl.request import SweepRequest
    from click.testing import Result

    Run = Callable[..., Result]

MODEL = "SmolLM-135M.Q4_K_M"
ARM = Kind("gcp", "t2a-standard-4", 4, 16, identifier="999")
OLD = Kind("gcp", "n0-standard-4", 4, 16, status="INACTIVE", identifier="998")
DEAR = Kind("gcp", "dear-1", 4, 16, identifier="997")


@pytest.fixture
def run(home: Home) -> Run:
    """Run the command line in this process, on a catalogue of a few types."""
    from benchctl.cli import cli
    from click.testing import CliRunner

    def call(*arguments: str | Path) -> Result:
        return CliRunner().invoke(
            cli, ["--state-dir", str(home.state), *map(str, arguments)], env={"BENCHCTL_DB": None}
        )

    return call


@pytest.fixture
def filled(run: Run, tmp_path: Path) -> Run:
    """The same with a catalogue: Google's in two regions, of which one has a zone, AWS's and Hetzner's."""
    lines = [
        *cpu_lines(),
        *cpu_lines(region="europe-west1"),
        Line(G2.name, 0.70),
        Line(ARM.name, 0.10),
        Line(OLD.name, 0.10),
        Line(DEAR.name, 90.0),
        Line(CX22.name, 0.008, vendor="hetzner", region="fsn1", currency="EUR"),
        Line("m5.xlarge", 0.192, vendor="aws", region="us-east-1"),
        Line("m5.xlarge", 0.07, vendor="aws", region="us-east-1", allocation="SPOT"),
    ]
    catalogue = write_database(tmp_path / "a.db", (*KINDS, ARM, OLD, DEAR))
    done = run("catalog", "import", catalogue, write_prices(tmp_path / "p.csv", *lines))
    assert done.exit_code == 0, done.output
    return run


def asked(**options: Any) -> SweepRequest:
    """A request as the command line makes it of these options."""
    from benchctl.cli import cli
    from benchctl.cli.sweep import plan

    arguments = []
    for name, value in ({"vendors": "gcp,hetzner,aws"} | options).items():
        arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    # below the whole command line, whose settings the command keeps once it was used
    parent = Context(cli, **cli.context_settings)
    return request_from(plan.make_context("plan", arguments, parent=parent).params)


def found(home: Home, **options: Any) -> dict[str, Server]:
    """What is found in the catalogue, by name; second instances have their number behind it."""
    engine = open_database(home.database_url, create=False)
    try:
        with reading(engine) as session:
            servers = find_cloud_servers(session, asked(**options), newest_rates(session)).servers
    finally:
        engine.dispose()
    return {f"{one.name}" if one.replica == 1 else f"{one.name} {one.replica}": one for one in servers}


def places(server: Server) -> list[tuple[str, str]]:
    return [(one.region, one.zone) for one in server.places]


@pytest.mark.usefixtures("filled")
def test_places_have_the_names_that_the_vendors_apis_want(home: Home) -> None:
    """A location, not a data centre, at Hetzner; a zone at Google and AWS; the database's identifier is kept."""
    servers = found(home)
    assert places(servers["cx22"]) == [("fsn1", "")]
    assert places(servers["g2-standard-4"]) == [("us-central1", "us-central1-a")]
    assert places(servers["m5.xlarge"]) == [("us-east-1", "us-east-1a")]
    # the catalogue knows no zone of europe-west1, so that nothing can be made there
    assert places(servers["n2-standard-4"]) == [("us-central1", "us-central1-a")]
    g2, cx22 = servers["g2-standard-4"], servers["cx22"]
    assert (g2.vendor, g2.name, g2.key, g2.gpus, g2.vcpus) == ("gcp", "g2-standard-4", ("gcp", "1000204"), 1, 4)
    assert g2.machine is not None
    assert (g2.machine.physical_cores, g2.machine.gpu_memory_bytes) == (2, 24 * 1024**3)
    assert (cx22.vendor, str(cx22.price)) == ("hcloud", "0.008EUR/h")


@pytest.mark.usefixtures("filled")
def test_what_cannot_be_measured_is_left_out_with_the_reason(home: Home, tmp_path: Path) -> None:
    """Another architecture than llama-bench's, no price; what the vendor rents no more is not there at all."""
    servers = found(home)
    assert "arm64" in servers["t2a-standard-4"].left_out
    assert "n0-standard-4" not in servers
    assert "no current price" in servers["m5.2xlarge"].left_out
    assert servers["n2-standard-4"].left_out == ""
    for_arm = tmp_path / "llama-bench"
    for_arm.write_bytes(b"\x7fELF\x02\x01" + bytes(12) + struct.pack("<H", 0xB7))
    servers = found(home, llama_bench=str(for_arm))
    assert servers["t2a-standard-4"].left_out == ""
    assert "x86_64" in servers["n2-standard-4"].left_out
    assert binary_architecture(tmp_path / "none") == ""


@pytest.mark.usefixtures("filled")
def test_servers_and_regions_are_chosen_by_patterns(home: Home) -> None:
    """In any case of letters; a region by each of its names; what is not rented there is left out."""
    assert set(found(home, servers="G2-*,cx*")) == {"g2-standard-4", "cx22"}
    assert found(home, servers="cx22", regions="fsn1*")["cx22"].left_out == ""
    assert found(home, servers="m5.xlarge", regions="us-east-1a")["m5.xlarge"].left_out == ""
    assert "in these regions" in found(home, servers="m5.xlarge", regions="eu-*")["m5.xlarge"].left_out
    spot = found(home, servers="m5.*", spot=True)
    assert spot["m5.xlarge"].price is not None
    assert (spot["m5.xlarge"].price.per_hour, spot["m5.xlarge"].allocation) == (0.07, "SPOT")
    assert "spot price" in spot["m5.2xlarge"].left_out


@pytest.mark.usefixtures("filled")
def test_several_instances_of_a_type_are_jobs_of_their_own(home: Home) -> None:
    """Numbered; what is left out is so once."""
    servers = found(home, servers="g2-standard-4,t2a-*", replicas=3)
    assert set(servers) == {"g2-standard-4", "g2-standard-4 2", "g2-standard-4 3", "t2a-standard-4"}
    plan = plan_of(asked(servers="g2-standard-4", replicas=2), home)
    assert [job.job for job in plan.running] == ["g2-standard-4", "g2-standard-4-2"]


@pytest.mark.usefixtures("filled")
def test_servers_are_chosen_by_what_the_database_lacks(home: Home) -> None:
    """Not measured, failed last, or measured long ago; together what fits one of them."""
    now = datetime.now(UTC)
    engine = open_database(home.database_url)
    with writing(engine) as session:
        for server, days in (("204", 10), ("208", 200)):  # n2-standard-4 and -8, as Google numbers them
            run = Measured("gcp", server, {("pp", 16): 90.0}, model=MODEL, at=now - timedelta(days=days))
            add_measurements(session, run)
        add_job(session, "gcp", "2016", sweep="one", status="failed", started_at=now - timedelta(days=9))
        add_job(session, "gcp", "2032", sweep="one", status="failed", started_at=now - timedelta(days=9))
        add_job(session, "gcp", "2032", sweep="two", status="finished", started_at=now - timedelta(days=8))
    engine.dispose()
    every = {"servers": "n2-standard-*", "vendors": "gcp"}
    assert set(found(home, **every, missing=True)) == {"n2-standard-2", "n2-standard-16", "n2-standard-32"}
    assert set(found(home, **every, failed=True)) == {"n2-standard-16"}
    assert set(found(home, **every, older_than="90d")) == {"n2-standard-8"}
    assert set(found(home, **every, failed=True, older_than="90d")) == {"n2-standard-8", "n2-standard-16"}
    with pytest.raises(UsageError, match="the database lacks nothing"):
        plan_of(asked(**{**every, "servers": "n2-standard-4"}, missing=True), home)


@pytest.mark.usefixtures("filled")
def test_a_quota_that_is_known_is_told(home: Home) -> None:
    """What was refused for it last time is named, and tried all the same: the limit may have been raised."""
    engine = open_database(home.database_url)
    with writing(engine) as session:
        for server, refusal in (("1000204", "quota"), ("204", "stock")):
            job = add_job(session, "gcp", server, sweep="s", status="failed")
            at = datetime(2026, 1, 1, tzinfo=UTC)
            session.add(JobAttempt(sweep_id="s", job_id=job.job_id, tried_at=at, refusal=refusal, said="no"))
    engine.dispose()
    plan = plan_of(asked(vendors="gcp", servers="g2-standard-4,n2-standard-4"), home)
    assert len(plan.running) == 2
    (note,) = [one for one in plan.notes if "want of quota" in one]
    assert "g2-standard-4 (" in note
    assert "n2-standard-4" not in note


def test_a_plan_says_what_it_would_cost_and_commit(filled: Run) -> None:
    """A line per server; totals per vendor in the currency of its prices; what is left out and why. Without a login."""
    done = filled("plan", "--vendors", "gcp,hetzner", "--servers", "g2-standard-4,cx22,t2a-*")
    assert done.exit_code == 0, done.output
    # names in their own lines: cheap information first, the vendors taking turns
    lines = [line.split()[:3] for line in done.output.splitlines() if line.startswith(("gcp  ", "hcloud  "))]
    assert lines == [["gcp", "g2-standard-4", "us-central1-a"], ["hcloud", "cx22", "fsn1"]]
    assert re.search(r"hcloud: 1 server, about 0\.0080 EUR; committed, .* 0\.0080 EUR\.", done.output)
    assert re.search(r"gcp: 1 server, about [\d.]+ USD; committed", done.output)
    assert "Left out: gcp/t2a-standard-4: its CPU is arm64" in done.output
    assert "1 server has a GPU" in done.output


def test_a_plan_says_what_the_dearest_places_would_cost(filled: Run, tmp_path: Path) -> None:
    """Where a server is sold out dearer places follow: that figure, too, is what a person says yes to."""
    cheap = Line(CX22.name, 0.008, vendor="hetzner", region="fsn1", currency="EUR")
    lines = (cheap, replace(cheap, region="nbg1", price=0.08))
    catalogue = write_database(
        tmp_path / "b.db", (CX22,), regions=(*REGIONS, ("hcloud", "3", "nbg1", "Nuremberg", "[]"))
    )
    done = filled("catalog", "import", catalogue, write_prices(tmp_path / "q.csv", *lines))
    assert done.exit_code == 0, done.output
    asked_for = ("plan", "--vendors", "hetzner", "--servers", "cx22")
    said = filled(*asked_for).output
    assert re.search(r"committed, if all live to their end, 0\.0080 EUR, or 0\.080 EUR where each is dearest", said)
    assert "only --budget is a limit of the whole" in said
    (row, *_) = json.loads(filled(*asked_for, "--json").stdout)
    assert (row["job_committed_cost"], row["job_dearest_cost"]) == (0.008, 0.08)


def test_a_plan_for_machines_has_every_figure(filled: Run) -> None:
    """One object per model of each job, and those left out."""
    done = filled("plan", "--vendors", "gcp", "--servers", "g2-standard-4,t2a-*", "--json")
    rows = json.loads(done.stdout)
    g2 = [row for row in rows if row["server"] == "g2-standard-4"]
    assert len(g2) == 2
    first = g2[0]
    assert first["lifetime_seconds"] > first["session_seconds"] > 0
    assert (first["disk_gb"], first["places"], first["region"], first["gpus"]) == (75, 1, "us-central1", 1)
    assert first["job_committed_cost"] == pytest.approx(0.70 * first["lifetime_seconds"] / 3600)
    assert 0 < first["job_expected_cost"] < first["job_committed_cost"] == first["job_dearest_cost"]
    (arm,) = [row for row in rows if row["server"] == "t2a-standard-4"]
    assert arm["left_out"].startswith("its CPU is arm64")
    assert arm["model"] is None


def test_a_disk_that_the_price_has_in_it_is_taken_as_it_is(run: Run, home: Home, tmp_path: Path) -> None:
    """At UpCloud no more is asked for than the plan has, where that suffices; what it lacks keeps no model away."""
    small = Kind("upcloud", "2xCPU-64GB", 2, 64, identifier="u1", disk_gb=30)
    large = Kind("upcloud", "4xCPU-64GB", 4, 64, identifier="u2", disk_gb=160)
    catalogue = write_database(
        tmp_path / "a.db", (small, large), vendors=("upcloud",), zones=(),
        regions=(("upcloud", "de-fra1", "de-fra1", "Frankfurt (DE)", "[]"),),
    )  # fmt: skip
    lines = [Line(one.name, 0.1, vendor="upcloud", region="de-fra1", currency="EUR") for one in (small, large)]
    done = run("catalog", "import", catalogue, write_prices(tmp_path / "p.csv", *lines))
    assert done.exit_code == 0, done.output
    jobs = {one.server.name: one for one in plan_of(asked(vendors="upcloud", suite="default"), home).running}
    needed = jobs[small.name].fetch_bytes / 1e9 + 20
    assert 30 < needed < 160, "the models need more than the small plan has"
    assert not any(one.left_out for one in jobs[small.name].models if "disk" in one.left_out)
    assert jobs[small.name].disk_gb == math.ceil(needed)
    assert jobs[large.name].disk_gb == 160
    assert plan_of(asked(vendors="upcloud", disk_gb=500), home).running[0].disk_gb == 500


def test_a_budget_counts_in_its_own_currency_with_a_dated_rate(filled: Run, home: Home, tmp_path: Path) -> None:
    """Without a rate one sentence with the mend; with one the price is converted, and what is too dear left out."""
    done = filled("plan", "--vendors", "gcp,hetzner", "--budget", "5USD")
    assert isinstance(done.exception, UsageError)
    assert "no exchange rate for EUR" in str(done.exception)
    assert "catalog import --rates" in str(done.exception)
    rates = write_rates(tmp_path / "r.csv", "EUR,2025-04-28,1.25,ECB")
    assert filled("catalog", "import", "--rates", rates).exit_code == 0
    plan = plan_of(asked(budget="5USD"), home)
    said = filled("plan", "--vendors", "gcp,hetzner", "--servers", "g2-standard-4,cx22", "--budget", "5USD").output
    assert re.search(r"Budget: 0\.\d+ of 5 USD committed at the planned places, about 0\.\d+ expected; 1 EUR is", said)
    assert "1 EUR is reckoned as 1.250 USD." in said
    assert re.search(
        r"All together: 2 servers, about 0\.0080 EUR \+ 0\.\d+ USD, in about \d+ min.* with 8 at once", said
    )
    cx22 = next(job for job in plan.running if job.server.name == "cx22")
    assert cx22.server.places[0].budget_per_hour == pytest.approx(0.01)
    (dear,) = [job for job in plan.jobs if job.server.name == "dear-1"]
    assert "could cost" in dear.left_out
    (job,) = [one for one in jobs_of_plan(plan) if one.server == "cx22"]
    assert job.places[0]["budget_per_hour"] == pytest.approx(0.01)
    assert (job.server_id, job.vendor, job.lifetime_seconds) == ("104", "hcloud", cx22.lifetime_seconds)


def test_one_budget_is_for_the_servers_of_an_inventory_and_for_rented_ones(
    filled: Run, home: Home, tmp_path: Path
) -> None:
    """What the own one may cost is taken off first, and the plan says how much of the whole is committed."""
    hosts = tmp_path / "hosts.yml"
    hosts.write_text("bench:\n  hosts:\n    mine: {benchctl_price: 1USD/h}\n")
    mixed = {"vendors": "ssh,gcp", "inventory": hosts, "servers": "mine,g2-standard-4"}
    plan = plan_of(asked(**mixed, budget="5USD"), home)
    mine, rented = plan.running
    share = mine.session_seconds / 3600
    assert 0 < share < 4
    least = share + 0.70 * rented.lifetime_seconds / 3600
    options = [word for name, value in mixed.items() for word in (f"--{name}", value)]
    said = filled("plan", *options, "--budget", f"{least + 0.01:.3f}USD").output
    assert re.search(rf"Budget: {least:.2f} of [\d.]+ USD committed", said), said
    said = filled("plan", *options, "--budget", f"{least - 0.01:.3f}USD").output
    assert "gcp/g2-standard-4: each could cost more than all that the budget has for it" in said


def test_a_budget_of_nothing_plans_and_begins_nothing(filled: Run, home: Home) -> None:
    """The plan shows what everything would cost; no sweep is made, and nobody is asked."""
    done = filled("sweep", "--vendors", "gcp", "--servers", "g2-standard-4", "--budget", "0")
    assert done.exit_code == 0, done.output
    assert "gcp: 1 server" in done.output
    assert "Nothing is begun with a budget of 0." in done.output
    assert not list(home.sweeps.iterdir())


@pytest.mark.skipif(bool(corpus.MISSING), reason=corpus.MISSING)
def test_every_type_of_the_real_catalogue_can_be_planned(run: Run, home: Home) -> None:
    """Places as each vendor wants them, no more than are tried, the cheapest first; China's regions are left out."""
    done = run("catalog", "import", corpus.CATALOGUE, corpus.PRICES)
    assert done.exit_code == 0, done.output
    servers = list(found(home, vendors="aws,gcp,azure,hetzner,upcloud").values())
    assert len(servers) > 2000
    for server in servers:
        prices = [place.price.per_hour for place in server.places if place.price]
        assert prices == sorted(prices)
        assert len(server.places) <= MOST_PLACES
        assert len(set(places(server))) == len(server.places)
        for region, zone in places(server):
            assert not region.startswith(("cn-", "china", "*"))
            if server.vendor in ("aws", "gcp"):
                assert zone.startswith(region)
            if server.vendor == "hcloud":
                assert re.fullmatch(r"[a-z]{3}\d?", region)
    rented = [one for one in servers if not one.left_out]
    assert {one.vendor for one in rented} == {"aws", "gcp", "azure", "hcloud", "upcloud"}
    upcloud = next(one for one in rented if one.vendor == "upcloud")
    assert ("de-fra1", "") in places(upcloud)
    plan = plan_of(asked(vendors="aws,gcp"), home)
    assert len(plan.running) > 900
