"""What was measured, what was not, and why: on both databases, and as a user asks."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from answer_data import Measured, add_catalogue, add_job, add_measurements
from benchctl.db import coverage
from benchctl.db.engine import open_database, reading, writing
from benchctl.errors import UsageError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from benchctl.home import Home
    from sqlalchemy import Engine

    Benchctl = Callable[..., subprocess.CompletedProcess[str]]

QUOTA = "api error VcpuLimitExceeded: You have requested more vCPU capacity than your limit allows."
GONE = "googleapi: Error 400: The selected machine type (m2) is obsolete and cannot be used to create new instances."
SMALL, LARGE = "toy-1b", "toy-70b"
EARLIER = datetime(2025, 4, 1, tzinfo=UTC)
TRIED_AT, TRIED_LATER = "2026-11-23T18:00:00.000+00:00", "2026-11-23T18:00:01.000+00:00"


def fill(engine: Engine) -> None:
    """A server for each kind of end, at two vendors."""
    with writing(engine) as session:
        add_catalogue(
            session,
            *(
                ("aws", name, {})
                for name in ("both", "small", "quota", "tiny", "crashed", "silent", "new", "later", "cpu-only")
            ),
            ("aws", "retired", {"status": "INACTIVE"}),
            ("aws", "price-only", {"vcpus": 0, "memory_amount": 0}),
            ("gcp", "obsolete", {}),
            ("gcp", "fine", {}),
        )
        add_measurements(
            session,
            Measured("aws", "both", {("pp", 16): 90.0, ("tg", 16): 9.0}, model=SMALL),
            Measured("aws", "both", {("pp", 16): 9.0}, model=LARGE, tensor_bytes=70_000_000),
            Measured("aws", "small", {("pp", 16): 9.0}, model=SMALL),
            Measured(
                "aws", "small", {}, {("pp", 16): "timeout", ("pp", 128): "not_reached"}, model=LARGE,
                tensor_bytes=70_000_000,
            ),
            Measured("aws", "crashed", {}, {("pp", 16): "crash", ("tg", 16): "crash"}, model=SMALL),
            Measured("aws", "crashed", {}, {("pp", 16): "oom"}, model=LARGE, tensor_bytes=70_000_000),
            Measured("aws", "cpu-only", {("pp", 16): 7.0}, model=SMALL, outcome="gpu_fallback"),
            Measured("gcp", "fine", {("pp", 16): 9.0}, model=SMALL, weights="synthetic"),
        )  # fmt: skip
        add_job(session, "aws", "silent")
        add_job(session, "aws", "quota", status="failed", exit_code=-1, error=QUOTA)
        add_job(
            session, "aws", "tiny", status="failed", exit_code=-2, error="Task doesn't need to run on this instance"
        )
        add_job(session, "gcp", "obsolete", status="failed", exit_code=-1, error=GONE)
        # refused first, and tried with success of another kind later: the newest run counts
        add_job(session, "aws", "later", sweep="zero", status="failed", exit_code=-1, error=QUOTA, started_at=EARLIER)
        add_job(session, "aws", "later", status="failed", exit_code=1, error="The server could not be reached by SSH.")


def ask(engine: Engine, what: str, **asked: Any) -> list[dict[str, Any]]:
    """The rows of one of the three answers."""
    with reading(engine) as session:
        rows: list[dict[str, Any]] = getattr(coverage, what)(session, **asked).rows
        return rows


def test_vendors_with_every_reason(engine: Engine) -> None:
    """Each server is counted once: as measured, or under the one reason why not."""
    fill(engine)
    aws, gcp = ask(engine, "by_vendor")
    assert (aws["vendor_id"], aws["servers"], aws["tried"], aws["measured"]) == ("aws", 11, 8, 2)
    reasons = {
        key: aws[key]
        for key in ("quota", "memory", "crash", "no_rows", "failed", "gpu_fallback", "deprecated", "never_tried",
                    "not_described")
    }  # fmt: skip
    assert reasons == dict.fromkeys(reasons, 1)
    assert aws["measured"] + sum(reasons.values()) == aws["servers"]
    assert (gcp["measured"], gcp["deprecated"], gcp["measured_share"]) == (1, 1, 0.5)


def test_servers_with_their_largest_model_or_the_reason(engine: Engine) -> None:
    """By size of the model, not by its name; the words on record stand beside the reason."""
    fill(engine)
    rows = {row["server_id"]: row for row in ask(engine, "by_server", vendor="aws")}
    assert len(rows) == 11
    assert (rows["both"]["largest_model"], rows["both"]["models_reached"], rows["both"]["why"]) == (LARGE, 2, None)
    assert (rows["small"]["largest_model"], rows["small"]["measured"]) == (SMALL, True)
    assert rows["quota"]["detail"] == QUOTA
    assert (rows["crashed"]["why"], rows["crashed"]["detail"]) == ("crash", "it was crash")
    assert (rows["later"]["why"], rows["later"]["runs"], rows["later"]["last_exit_code"]) == ("failed", 2, 1)
    assert (rows["cpu-only"]["why"], rows["cpu-only"]["models_reached"]) == ("gpu_fallback", 1)
    assert [row["server_id"] for row in ask(engine, "by_server", why="deprecated")] == ["retired", "obsolete"]
    assert [row["server_id"] for row in ask(engine, "by_server", measured=True)] == ["both", "small", "fine"]
    assert len(ask(engine, "by_server", measured=False)) == 10


def test_models_with_every_outcome(engine: Engine) -> None:
    """The smallest model first; a server whose run went through without a word of a model is 'not recorded'."""
    fill(engine)
    small, large = ask(engine, "by_model")
    assert (small["model"], small["servers_reached"], small["only_gpu_fallback"]) == (SMALL, 4, 1)
    assert (small["servers_run"], small["crash"], small["not_recorded"]) == (6, 1, 1)
    assert (large["servers_reached"], large["timeout"], large["oom"], large["not_recorded"]) == (1, 1, 1, 3)
    for row in (small, large):
        others = ("timeout", "crash", "oom", "not_recorded")
        assert row["servers_reached"] + sum(row[key] for key in others) == row["servers_run"]
    assert [row["servers_run"] for row in ask(engine, "by_model", vendor="gcp")] == [1, 1]


def test_an_empty_database_and_wrong_names(engine: Engine) -> None:
    """Nothing is nothing, and a name that is nearly right is answered with the one that was meant."""
    assert ask(engine, "by_vendor") == []
    assert ask(engine, "by_model") == []
    fill(engine)
    with pytest.raises(UsageError, match="Did you mean 'gcp'"):
        ask(engine, "by_vendor", vendor="gpc")


def test_as_a_user_asks(home: Home, benchctl: Benchctl) -> None:
    """Tables with the reasons that there are, what they mean, and the whole of it as JSON."""
    assert "No server is known yet" in benchctl("coverage", check=True).stdout
    assert json.loads(benchctl("coverage", "--models", "--json", check=True).stdout) == []
    engine = open_database(home.database_url)
    fill(engine)
    engine.dispose()
    table = benchctl("coverage", check=True).stdout
    header, *lines = table.splitlines()
    assert header.split() == [
        "vendor", "servers", "tried", "measured", "share", "quota", "deprecated", "memory", "crash", "gpu", "fallback",
        "no", "rows", "failed", "never", "tried", "not", "described",
    ]  # fmt: skip
    assert lines[2].split()[:4] == ["all", "13", "10", "3"]
    assert "quota: the account's limit is too low" in table
    rows = json.loads(benchctl("coverage", "--json", check=True).stdout)
    assert [row["vendor_id"] for row in rows] == ["aws", "gcp"]
    assert "could not be reached by SSH" in benchctl("coverage", "--vendor", "aws", check=True).stdout
    assert json.loads(benchctl("coverage", "--why", "quota", "--query", "[].server_id", check=True).stdout) == ["quota"]
    assert "No server matches" in benchctl("coverage", "--why", "disk", check=True).stdout
    for arguments, sentence in (
        (("--why", "qouta"), "Did you mean 'quota'?"),
        (("--models", "--servers"), "--models does not go together"),
        (("--vendor", "awss"), "Did you mean 'aws'?"),
    ):
        wrong = benchctl("coverage", *arguments)
        assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
        assert sentence in wrong.stderr


def test_what_the_vendor_said_to_each_try_is_kept_and_shown(home: Home, benchctl: Benchctl) -> None:
    """The last words say why there is no server, with what the others were; every try is listed with its place."""
    from benchctl.ledger import JobState, Ledger
    from benchctl.request import SweepRequest
    from llama_bench_core.suite import Suite

    suite = Suite.from_dict({"name": "toy", "models": [SMALL], "scenarios": {"pp": {16: 2}}})
    engine = open_database(home.database_url)
    with writing(engine) as session:
        add_catalogue(session, ("gcp", "1000204", {"api_reference": "g2-standard-4"}), ("gcp", "7", {}))
    job = JobState("g2", "gcp", "g2-standard-4", "h", server_id="1000204", lifetime_seconds=600)
    book = Ledger.create(home, engine, SweepRequest(("gcp",), suite, ()), [job], sweep="s")
    tries = (
        {"region": "us-east4", "zone": "us-east4-a", "refusal": "stock", "said": "STOCKOUT in a", "at": TRIED_AT},
        {"region": "europe-west1", "zone": "", "refusal": "quota", "said": "Quota 'L4' is 0", "at": TRIED_LATER},
    )
    book.update("g2", attempts=tries[:1])
    book.update("g2", attempts=tries, status="failed", error="No server after 2 tries.")
    (row,) = [one for one in ask(engine, "by_server") if one["server_id"] == "1000204"]
    assert (row["why"], row["tries"]) == ("quota", 2)
    assert row["detail"] == "Quota 'L4' is 0 (2 tries: 1 x stock, 1 x quota)"
    engine.dispose()
    listed = json.loads(benchctl("coverage", "--tries", "--json").stdout)
    assert [(one["api_reference"], one["region"], one["zone"], one["refusal"], one["said"]) for one in listed] == [
        ("g2-standard-4", "europe-west1", None, "quota", "Quota 'L4' is 0"),
        ("g2-standard-4", "us-east4", "us-east4-a", "stock", "STOCKOUT in a"),
    ]
    assert "--tries is a list of its own" in benchctl("coverage", "--tries", "--models").stderr
