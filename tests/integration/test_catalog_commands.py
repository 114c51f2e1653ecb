"""``benchctl catalog import`` and ``list`` as a user runs them."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pytest
from catalog_files import A2, KINDS, Line, cpu_lines, write_database, write_prices, write_rates

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from benchctl.home import Home
    from click.testing import Result


@pytest.fixture
def run(home: Home) -> Callable[..., Result]:
    """Run the command line in this process: these tests ask many small questions."""
    from benchctl.cli import cli
    from click.testing import CliRunner

    def call(*arguments: str | Path) -> Result:
        return CliRunner().invoke(
            cli, ["--state-dir", str(home.state), *map(str, arguments)], env={"BENCHCTL_DB": None}
        )

    return call


@pytest.fixture
def filled(run: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    """The same with a catalogue."""
    lines = [
        *cpu_lines(),
        Line(A2.name, 0.739),
        Line("g2-standard-4", 0.706832),
        Line("n2-standard-2", 0.02, allocation="SPOT"),
        Line("cx22", 0.005, vendor="hetzner", region="fsn1", currency="EUR"),
        Line("n2-standard-2", "cheap", region="europe-west1"),
    ]
    rates = write_rates(tmp_path / "r.csv", "EUR,2025-04-28,1.25,ECB")
    done = run(
        "catalog",
        "import",
        write_database(tmp_path / "a.db"),
        write_prices(tmp_path / "p.csv", *lines),
        "--rates",
        rates,
    )
    assert done.exit_code == 0, done.output
    return run


def rows(done: Result) -> list[dict[str, object]]:
    """The objects that --json printed."""
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def names(done: Result, key: str = "api_reference") -> list[object]:
    """One value of each object."""
    return [row[key] for row in rows(done)]


def test_an_import_says_what_it_did(run: Callable[..., Result], tmp_path: Path) -> None:
    """A table of what is new, the doubtful prices by check, and each damaged line with its reason."""
    prices = write_prices(tmp_path / "p.csv", *cpu_lines(), Line(A2.name, 0.739), Line("n2-standard-2", "cheap"))
    done = run("catalog", "import", write_database(tmp_path / "a.db"), prices)
    assert done.exit_code == 0
    assert f"servers {len(KINDS):4d}" in done.stdout
    assert (
        "Doubtful prices: 1 gpu_priced_like_cpu ('benchctl catalog list prices --flagged' shows them)." in done.stdout
    )
    assert f"set aside: {prices}, line 13: the price 'cheap' is not a number above 0" in done.stderr
    again = run("catalog", "import", prices)
    assert again.stdout.endswith("Nothing changed: the catalogue held all of it already.\n")


def test_an_import_as_json(run: Callable[..., Result], tmp_path: Path) -> None:
    """One object per kind of rows, with every damaged line and the doubts."""
    prices = write_prices(tmp_path / "p.csv", *cpu_lines(), Line("n2-standard-2", "cheap", region="europe-west1"))
    found = rows(run("catalog", "import", prices, write_database(tmp_path / "a.db"), "--json"))
    assert [row["what"] for row in found] == ["servers", "regions", "zones", "prices"]
    assert found[-1] == {
        "what": "prices", "new": 10, "changed": 0, "closed": 0, "unchanged": 0, "older": 0, "flagged": {},
        "set_aside": [f"{prices}, line 12: the price 'cheap' is not a number above 0"],
    }  # fmt: skip


def test_servers_and_their_filters(filled: Callable[..., Result]) -> None:
    """Each filter selects what it says; --gpu L4 is no L40S, and a price in a region makes a server offered there."""
    listed = ("catalog", "list", "--json")
    assert len(rows(filled(*listed))) == len(KINDS)
    assert names(filled(*listed, "--gpu")) == ["a2-highgpu-1g", "g2-standard-4"]
    assert names(filled(*listed, "--gpu", "l4")) == ["g2-standard-4"]
    assert names(filled(*listed, "--min-gpu-memory", "40")) == ["a2-highgpu-1g"]
    assert names(filled(*listed, "--vendor", "hetzner")) == ["cx22"]
    assert names(filled(*listed, "--server", "n2-highmem-?")) == ["n2-highmem-2", "n2-highmem-4", "n2-highmem-8"]
    assert names(filled(*listed, "--min-memory", "200", "--min-vcpus", "32")) == ["n2-highmem-32"]
    assert names(filled(*listed, "--arch", "arm64")) == []
    assert names(filled(*listed, "--region", "fsn1")) == ["cx22"]
    assert len(rows(filled(*listed, "--status", "active"))) == len(KINDS)
    one = rows(filled(*listed, "--gpu", "A100"))[0]
    assert (one["vcpus"], one["cpu_cores"], one["memory_gib"], one["gpu_count"]) == (12, 6, 85.0, 1)
    assert (one["gpu_model"], one["gpu_memory_gib"], one["cpu_architecture"], one["status"]) == (
        "A100",
        40.0,
        "X86_64",
        "ACTIVE",
    )


def test_prices_and_their_filters(filled: Callable[..., Result]) -> None:
    """As they are listed, the cheapest first, each with currency, allocation, unit, source and date."""
    listed = ("catalog", "list", "prices", "--json")
    found = rows(filled(*listed, "--server", "n2-standard-2"))
    assert [(row["allocation"], row["price"]) for row in found] == [("ONDEMAND", 0.09712), ("SPOT", 0.02)]
    assert names(filled(*listed, "--allocation", "spot")) == ["n2-standard-2"]
    one = rows(filled(*listed, "--vendor", "hcloud"))[0]
    assert (one["price"], one["currency"], one["unit"], one["region"]) == (0.005, "EUR", "HOUR", "fsn1-dc14")
    assert (one["source"], one["source_date"]) == ("prices/list@abcdef1 prices.yml", "2025-04-28")
    flagged = rows(filled(*listed, "--flagged"))
    assert [(row["api_reference"], row["flags"]) for row in flagged] == [("a2-highgpu-1g", ["gpu_priced_like_cpu"])]
    assert "the GPU seems to be left out" in filled("catalog", "list", "prices", "--flagged").stdout


def test_prices_in_one_currency(filled: Callable[..., Result]) -> None:
    """--currency converts with a rate that is shown, and the listed price stays beside it."""
    done = filled("catalog", "list", "prices", "--currency", "eur", "--json")
    found = {(row["api_reference"], row["allocation"]): row for row in rows(done)}
    assert {row["currency"] for row in found.values()} == {"EUR"}
    assert found["n2-standard-2", "SPOT"]["price"] == pytest.approx(0.016)
    assert found["n2-standard-2", "SPOT"]["listed_price"] == 0.02
    assert found["cx22", "ONDEMAND"]["price"] == 0.005
    assert "Converted with 1 EUR = 1.25 USD (ECB, 2025-04-28)." in done.stderr
    refused = filled("catalog", "list", "prices", "--currency", "CHF")
    assert "There is no exchange rate for CHF" in str(refused.exception)


def test_closed_prices_are_shown_with_their_time(filled: Callable[..., Result], tmp_path: Path) -> None:
    """--history has what a newer list closed; without it only what is open."""
    newer = write_prices(tmp_path / "q.csv", Line("n2-standard-2", 0.1, day="2025-06-01"))
    assert filled("catalog", "import", newer).exit_code == 0
    open_ones = rows(filled("catalog", "list", "prices", "--server", "n2-standard-2", "--json"))
    assert [(row["price"], row["until"]) for row in open_ones] == [(0.1, None)]
    everything = rows(filled("catalog", "list", "prices", "--server", "n2-standard-2", "--history", "--json"))
    assert sorted((row["price"], row["until"] is None) for row in everything) == [
        (0.02, False),
        (0.09712, False),
        (0.1, True),
    ]


def test_regions_zones_and_rates(filled: Callable[..., Result]) -> None:
    """Each kind has its list; a region says how many servers have a price there."""
    regions = {
        row["api_reference"]: row["priced_servers"] for row in rows(filled("catalog", "list", "regions", "--json"))
    }
    assert regions == {"us-east-1": 0, "europe-west1": 0, "us-central1": 12, "fsn1-dc14": 1}
    assert names(filled("catalog", "list", "zones", "--vendor", "gcp", "--json")) == ["*", "us-central1-a"]
    assert rows(filled("catalog", "list", "rates", "--json")) == [
        {"currency": "EUR", "rate_date": "2025-04-28", "usd_per_unit": 1.25, "source": "ECB"}
    ]


def test_tables_csv_and_jmespath(filled: Callable[..., Result]) -> None:
    """A table is cut at its limit and says so; CSV and JSON are whole; --query selects."""
    table = filled("catalog", "list", "--limit", "3").stdout
    assert f"3 of {len(KINDS)} servers (--limit 0 shows all)." in table
    assert "1x A100" in filled("catalog", "list", "--gpu", "A100").stdout
    parsed = list(csv.DictReader(io.StringIO(filled("catalog", "list", "prices", "--csv").stdout)))
    assert len(parsed) == 14
    done = filled("catalog", "list", "--query", "[?gpu_count > `0`].[api_reference, gpu_model] | [0]")
    assert json.loads(done.stdout) == ["a2-highgpu-1g", "A100"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "--vendor", "gpc"], "no vendor 'gpc' in the catalogue. Did you mean 'gcp'?"),
        (["list", "--gpu", "H1000"], "no GPU 'H1000' in the catalogue"),
        (
            ["list", "prices", "--region", "us-centra1"],
            "no region 'us-centra1' in the catalogue. Did you mean 'us-central1'?",
        ),
        (["list", "regions", "--gpu", "L4"], "--gpu means nothing for regions. It selects prices"),
        (["list", "servers", "--currency", "EUR"], "--currency means nothing for servers. It selects prices"),
        (["list", "--query", "[?"], "--query:"),
        (["import"], "There is no file to import."),
        (["import", "/no/such/file.csv"], "There is no file /no/such/file.csv."),
        (["pull", "--url", "ftp://x/y"], "'ftp://x/y' is not an address that can be fetched."),
    ],
)
def test_wrong_usage_is_one_sentence(filled: Callable[..., Result], arguments: list[str], words: str) -> None:
    """What is not there is named, with what is; the exit status is that of wrong usage."""
    done = filled("catalog", *arguments)
    assert words in str(done.exception)
    assert getattr(done.exception, "exit_code", None) == 2


def test_an_empty_catalogue_says_how_to_fill_it(run: Callable[..., Result]) -> None:
    """Every list of an empty catalogue is a sentence, not an error; a filter without a match as well."""
    for what in ("servers", "regions", "zones", "prices"):
        done = run("catalog", "list", what)
        assert (done.exit_code, done.output) == (
            0, "The catalogue is empty: fill it with 'benchctl catalog pull' or 'benchctl catalog import FILE'.\n",
        )  # fmt: skip
    assert "benchctl catalog import --rates FILE" in run("catalog", "list", "rates").output


def test_nothing_matches(filled: Callable[..., Result]) -> None:
    """A filter that nothing passes is said, and the exit status is 0."""
    done = filled("catalog", "list", "--min-vcpus", "1000")
    assert (done.exit_code, done.output) == (0, "No server matches.\n")


def test_the_whole_way_in_a_shell(benchctl: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """As a program: a damaged file ends with its sentence and status 2, and nothing is taken in."""
    bad = tmp_path / "bad.db"
    bad.write_bytes(write_database(tmp_path / "a.db").read_bytes()[:5000])
    done = benchctl("catalog", "import", bad, write_prices(tmp_path / "p.csv", *cpu_lines()))
    assert done.returncode == 2
    assert str(bad) in done.stderr
    assert "Traceback" not in done.stderr
    assert "The catalogue is empty" in benchctl("catalog", "list", check=True).stdout
