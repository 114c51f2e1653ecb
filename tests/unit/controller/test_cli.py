"""The command line as a whole: quick, documented, and wrong usage ends in a sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from benchctl.cli import COMMANDS, cli
from benchctl.cli.sweep import request_from, request_options
from benchctl.db.engine import open_database
from benchctl.errors import UsageError
from benchctl.ledger import JobState, Ledger, read_book
from benchctl.request import SweepRequest
from click.testing import CliRunner
from llama_bench_core.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchctl.home import Home

    Run = Callable[..., subprocess.CompletedProcess[str]]

HEAVY = ("pandas", "sqlalchemy", "ansible", "ansible_runner", "alembic", "matplotlib", "yaml", "rich", "pulumi")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    """Each command says in its own words what it does, and each of its options has a help text."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"


@pytest.mark.parametrize("name", ["sweep", "plan"])
def test_the_many_options_of_a_sweep_stand_under_headings(name: str) -> None:
    """Each under one, so that its help can be read in parts; only those of every command are left for the end."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    context = click.Context(command, info_name=name)
    said = command.get_help(context)
    assert "\nWhat to measure:\n" in said
    assert "\nWhere:\n" in said
    assert "\nOptions:\n" not in said
    others = said.partition("\nOther options:\n")[2]
    assert set(re.findall(r"--[\w-]+", others)) <= {"--json", "--csv", "--query", "--help"}
    for parameter in command.get_params(context):
        assert len(re.findall(rf"^  {parameter.opts[0]}[ ,\n]", said, re.MULTILINE)) == 1, parameter.opts[0]


@pytest.mark.parametrize("arguments", [["--help"], ["sweep", "--help"], ["plan", "--help"], ["playbook", "--help"]])
def test_help_imports_nothing_heavy(checkout: Path, arguments: list[str]) -> None:
    """Help needs click, and none of the libraries that take a second to import."""
    program = (
        "import sys, json\n"
        "from benchctl.cli import main\n"
        "try:\n main(sys.argv[1:])\n"
        "except SystemExit:\n pass\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)\n"
    )
    path = os.pathsep.join((str(checkout / "controller"), str(checkout / "module_utils")))
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert "Usage:" in done.stdout
    assert json.loads(done.stderr) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--vendors", "aws,hcloud", "--budget", "0"], ["lists no server of aws, hetzner", "benchctl catalog pull"]),
        (["--vendors", "hetzner,local"], ["two sweeps"]),
        (["--vendors", "hetzer"], ["Did you mean 'hetzner'?"]),
        (["--replicas", "3"], ["--replicas belongs to vendors whose servers are rented"]),
        (["--replicas", "1"], ["--replicas belongs"]),
        (["--image", "debian-12"], ["--image belongs"]),
        (["--vendors", "ssh", "--inventory", "hosts.yml", "--max-hours", "2"], ["--max-hours belongs"]),
        (["--vendors", "gcp", "--time-scale", "2"], ["--time-scale is for the lab alone"]),
        (["--vendors", "gcp", "--max-hours", "nan"], ["'nan' is no finite number"]),
        (["--vendors", "lab", "--time-scale", "nan"], ["'nan' is no finite number"]),
        (["--vendors", "lab", "--time-scale", "inf"], ["'inf' is no finite number"]),
        (["--vendors", "google,local"], ["two sweeps"]),
        (["--missing"], ["--missing belongs to vendors whose servers are rented"]),
        (["--vendors", "gcp", "--older-than", "3x"], ["'3x' is no age", "90d"]),
        (["--vendors", "gcp", "--price", "1USD/h"], ["--price is for servers of one's own"]),
        (["--vendors", "locla"], ["no vendor 'locla'", "Did you mean 'local'?"]),
        (["--vendors", ","], ["names no vendor"]),
        (["--vendors", "local,ssh"], ["two sweeps"]),
        (["--vendors", "ssh"], ["--inventory"]),
        (["--vendors", "ssh", "--inventory", "/no/such/hosts.yml"], ["no inventory /no/such/hosts.yml"]),
        (["--inventory", "hosts.yml"], ["--vendors ssh"]),
        (["--suite", "quik"], ["no suite 'quik'", "Did you mean 'quick'?"]),
        (["--model", "SmolLM-135"], ["no model 'SmolLM-135'", "Did you mean 'SmolLM-135M'?"]),
        (["--price", "cheap"], ["'cheap' is not a price"]),
        (["--budget", "5"], ["--price"]),
        (["--price", "1EUR/h", "--budget", "5USD"], ["priced in EUR"]),
        (["--servers", "no-such-*"], ["No server matches no-such-*"]),
        (["--weights", "fake"], ["'fake' is not one of"]),
        (["--mirror", "http://me:secret@[x/"], ["--mirror is no address", "https://HOST/FOLDER"]),
        (["--mirror", "http://me:secret@mirror.example:port/"], ["--mirror is no address"]),
        (["--mirror", "models"], ["--mirror is no address"]),
    ],
)
@pytest.mark.parametrize("command", ["sweep", "plan"])
def test_wrong_usage_is_one_sentence_and_status_2(
    benchctl: Run, home: Home, command: str, arguments: list[str], words: list[str]
) -> None:
    """What is not there is named, with what is; nothing is written down."""
    done = benchctl(command, *arguments)
    assert done.returncode == 2, done.stderr
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
    assert not list(home.sweeps.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--patience", "nan"], "'nan' is no finite number"),
        (["--patience", "inf"], "'inf' is no finite number"),
        (["--poll-seconds", "inf"], "'inf' is no finite number"),
        (["--concurrency", "3"], "--concurrency belongs to vendors whose servers are rented"),
        (["--vendors", "lab", "--hook", "tell 'me"], "The hook can't be split into words"),
        (["--vendors", "lab", "--hook", "https://me:secret@[x/"], "The hook's address is not valid"),
        (["--vendors", "lab", "--hook", "https://"], "The hook's address is not valid"),
        (["--vendors", "lab", "--backend", "https://me:secret@[x/"], "--backend is no address"),
    ],
)
def test_what_a_sweep_alone_asks_for_is_checked_at_its_start(
    benchctl: Run, home: Home, arguments: list[str], words: str
) -> None:
    """Said in one sentence, before anything is begun."""
    done = benchctl("sweep", "--dry-run", *arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
    assert not list(home.sweeps.iterdir())


def test_what_is_no_address_of_a_database_or_a_catalogue_is_said_in_a_sentence(benchctl: Run) -> None:
    """Without the password that may stand in it."""
    for arguments, words in (
        (["--db", "postgresql://me:secret@host:port/x", "status"], "is not the URL of a database"),
        (["catalog", "pull", "--url", "https://[x/"], "is not an address that can be fetched"),
    ):
        done = benchctl(*arguments)
        assert done.returncode in (1, 2), done.stderr
        assert words in done.stderr
        assert "unexpected" not in done.stderr
        assert "secret" not in done.stderr


@pytest.mark.parametrize("vendors", [["hetzner"], ["ssh", "--inventory", "hosts.yml"], ["lab"]])
def test_a_model_on_this_machine_is_refused_for_servers(benchctl: Run, smollm: Path, vendors: list[str]) -> None:
    """The servers don't have the file: said before anything is rented."""
    done = benchctl("plan", "--vendors", *vendors, "--model", smollm)
    assert done.returncode == 2
    assert "is a file on this machine, and the servers don't have it" in done.stderr


def test_resume_takes_no_other_option(benchctl: Run) -> None:
    """A sweep goes on as it was begun; another model beside --resume is refused, an unknown sweep as well."""
    done = benchctl("sweep", "--resume", "last", "--model", "gemma-2b")
    assert done.returncode == 2
    assert "--model does not go together with --resume" in done.stderr
    done = benchctl("sweep", "--resume", "last")
    assert done.returncode == 2
    assert "no sweep yet" in done.stderr


@pytest.mark.parametrize(
    ("vendor", "before", "given", "words"),
    [
        ("gcp", "1USD", "7", ""),
        ("gcp", "1USD", "7USD", ""),
        ("gcp", "1USD", "7EUR", "begun with one in USD"),
        ("gcp", "", "7USD", "begun with none"),
        ("gcp", "1USD", "0", "With a budget of 0 nothing goes on"),
        ("gcp", "1USD", "much", "'much' is not an amount of money"),
        ("ssh", "1USD", "7USD", "this one rents nothing"),
    ],
)
def test_a_sweep_goes_on_with_another_budget(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, before: str, given: str, words: str
) -> None:
    """Its book has it from then on, so that what follows, also in another process, keeps to it."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr("benchctl.detach.sys.executable", str(program))
    suite = Suite.from_dict({"name": "some", "models": ["m"], "scenarios": {"pp": {16: 2}}})
    engine = open_database(home.database_url)
    job = JobState("j", vendor, "t", "h", status="failed", lifetime_seconds=60 if vendor == "gcp" else 0)
    Ledger.create(home, engine, SweepRequest((vendor,), suite, (), budget=before), [job], sweep="s1")
    engine.dispose()
    arguments = ["--state-dir", str(home.state), "sweep", "--resume", "s1", "--budget", given, "--detach"]
    done = CliRunner().invoke(cli, arguments, env={"BENCHCTL_DB": None})
    kept = read_book(home, "s1")["request"]["budget"]
    if words:
        assert isinstance(done.exception, UsageError)
        assert words in str(done.exception)
        assert kept == before
    else:
        assert done.exit_code == 0, done.output
        assert kept == given


def test_money_is_asked_for(benchctl: Run, home: Home) -> None:
    """With a price and nobody there to say yes, nothing is begun."""
    done = benchctl("sweep", "--price", "0.046USD/h")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert not list(home.sweeps.iterdir())


def test_nobody_says_yes_to_what_was_not_shown(home: Home, checkout: Path) -> None:
    """With --json on a terminal the plan and its cost are on stderr before the question; stdout is for the answer."""
    ours, theirs = os.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "benchctl", "--state-dir", home.state, "sweep", "--price", "0.05USD/h", "--json"],
        cwd=checkout, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.write(ours, b"n\n")
    said, asked = done.communicate(timeout=120)
    os.close(theirs)
    os.close(ours)
    assert said == ""
    plan, question, _ = asked.partition("Go on?")
    assert question
    assert "SmolLM-135M" in plan
    assert re.search(r"about [\d.]+ USD at 0\.05USD/h", plan)
    assert done.returncode == 130
    assert not list(home.sweeps.iterdir())


@pytest.mark.parametrize(
    ("arguments", "concurrency", "per_vendor"),
    [
        (["--vendors", "gcp"], 8, 8),
        (["--vendors", "gcp", "--concurrency", "5"], 5, 5),
        (["--vendors", "gcp,hetzner", "--concurrency", "5"], 5, 3),
        (["--vendors", "ssh,hetzner", "--inventory", "hosts.yml"], 8, 8),
        (["--vendors", "gcp", "--per-vendor", "2"], 8, 2),
    ],
)
def test_one_vendor_alone_gets_all_the_servers_at_once(arguments: list[str], concurrency: int, per_vendor: int) -> None:
    """Half of them is for one of several, so that no vendor takes all the room."""
    sweep = cli.get_command(click.Context(cli), "sweep")
    assert sweep is not None
    request = request_from(sweep.make_context("sweep", arguments, parent=click.Context(cli)).params)
    assert (request.concurrency, request.per_vendor) == (concurrency, per_vendor)


def test_the_plan_is_a_list_of_objects(benchctl: Run) -> None:
    """The JSON says per model what would be measured, how long it takes and what it costs, with units in the keys."""
    done = benchctl("plan", "--suite", "default", "--price", "0.05USD/h", "--json", check=True)
    rows = json.loads(done.stdout)
    assert {row["model"] for row in rows} >= {"SmolLM-135M", "Llama-3.3-70B-Instruct"}
    first = rows[0]
    assert first["scenarios"] == 11
    assert first["limit_seconds"] > first["expected_seconds"] > 0
    assert first["limit_cost"] == pytest.approx(0.05 * first["limit_seconds"] / 3600)
    assert benchctl("plan", "--query", "length(@)", check=True).stdout.strip() == "2"


def test_a_dry_run_is_the_plan(benchctl: Run) -> None:
    """A sweep with --dry-run --json answers what plan --json answers."""
    dry = json.loads(benchctl("sweep", "--dry-run", "--json", check=True).stdout)
    alone = json.loads(benchctl("plan", "--json", check=True).stdout)
    assert [row["model"] for row in dry] == [row["model"] for row in alone]


def test_the_servers_of_an_inventory_are_planned(benchctl: Run, tmp_path: Path) -> None:
    """Hosts of the group bench, each at its own price, narrowed by --servers; other groups are left alone."""
    hosts = tmp_path / "hosts.yml"
    hosts.write_text(
        "bench:\n  hosts:\n    big-1: {benchctl_price: 2EUR/h}\n    small-1: {}\nother:\n  hosts: {database: {}}\n"
    )
    asked = ("plan", "--vendors", "ssh", "--inventory", hosts, "--price", "1USD/h", "--json")
    rows = json.loads(benchctl(*asked, check=True).stdout)
    assert {(row["server"], row["currency"]) for row in rows} == {("big-1", "EUR"), ("small-1", "USD")}
    rows = json.loads(benchctl(*asked, "--servers", "BIG-*", check=True).stdout)
    assert {row["server"] for row in rows} == {"big-1"}
    hosts.write_text("bench: [not, hosts\n")
    done = benchctl(*asked)
    assert done.returncode == 2
    assert "can't read the inventory" in done.stderr


def test_playbooks_are_listed_and_run_from_any_folder(
    benchctl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a name they are listed; a mistyped one is answered with the nearest; a real one runs from elsewhere."""
    listed = benchctl("playbook", check=True).stdout
    assert {line.split()[0] for line in listed.splitlines()} >= {"bench", "prepare", "site", "collect", "stop"}
    done = benchctl("playbook", "bnech")
    assert done.returncode == 2
    assert "Did you mean 'bench'?" in done.stderr
    monkeypatch.chdir(tmp_path)
    done = benchctl("playbook", "collect", "-e", f"llama_bench_state_dir={tmp_path}", check=True)
    assert "localhost" in done.stdout
    assert "failed=0" in done.stdout


def test_sweep_and_plan_share_their_options() -> None:
    """What can be planned can be swept: one set of options serves both."""

    @click.command()
    @request_options
    def shared() -> None:
        pass

    names = {parameter.name for parameter in shared.params}
    for command in ("sweep", "plan"):
        found = cli.get_command(click.Context(cli), command)
        assert found is not None
        assert names <= {parameter.name for parameter in found.params}
