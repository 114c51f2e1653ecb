from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from benchctl import lake
from benchctl.db.engine import reading
from benchctl.db.records import record
from benchctl.db.schema import Benchmark, BenchmarkScore, Job, Measurement, Server, Sweep, Vendor, metadata
from benchctl.errors import UsageError
from benchctl.ingest import ingest_run, ingest_tree
from raw_runs import FILE, STARTED, RawRun, faster, rows_by_scenario, write_theirs
from sqlalchemy import select

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine


def dump(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables, but for when a row was last seen."""
    with engine.connect() as connection:
        return {
            name: sorted(
                (tuple(row) for row in connection.execute(select(*(c for c in t.columns if c.name != "observed_at")))),
                key=repr,
            )
            for name, t in metadata.tables.items()
        }


def scores(engine: Engine) -> dict[tuple[str, str, int], float]:
    """Score by server, benchmark and tokens; of the one model file of these tests."""
    with reading(engine) as session:
        found = session.scalars(select(BenchmarkScore)).all()
        assert {one.config["model"] for one in found} <= {FILE}
        return {(one.server_id, one.benchmark_id.split(":")[1], one.config["tokens"]): one.score for one in found}


def mean_speed(task: str, tokens: int, factor: float = 1.0) -> float:
    """What the recorded samples say, but for the warm-up that comes first of its task."""
    import json

    rows = rows_by_scenario()[task, tokens]
    rows = rows[1:] if tokens == 16 else rows
    return factor * sum(json.loads(row)["avg_ts"] for row in rows) / len(rows)


def test_twice_is_once(engine: Engine, tmp_path: Path) -> None:
    """A whole lake ingested again changes not one row."""
    RawRun(price_usd_per_hour=0.046, extra=[("tg", 4096, "timeout", "no progress")]).write(tmp_path)
    RawRun(sweep="b", started=STARTED + timedelta(days=1)).write(tmp_path)
    write_theirs(tmp_path / "inspector", "hcloud", "cpx11")
    first = list(ingest_tree(engine, tmp_path))
    before = dump(engine)
    again = list(ingest_tree(engine, tmp_path))
    assert first == again
    assert dump(engine) == before
    assert [one.measurements for one in first] == [5, 4, 4]


def test_a_measurement_and_where_it_comes_from(engine: Engine, tmp_path: Path) -> None:
    """The row holds every sample, the speeds, what it ran on, the price at launch and its place in the raw file."""
    folder = RawRun(price_usd_per_hour=0.046).write(tmp_path)
    ingest_run(engine, folder)
    with reading(engine) as session:
        one = session.scalars(select(Measurement).filter_by(task="pp", tokens=128)).one()
        assert one.samples == len(one.samples_ns) == 3
        assert one.tokens_per_second == pytest.approx(mean_speed("pp", 128), rel=1e-6)
        assert one.tokens_per_second_ci_low is not None
        assert one.tokens_per_second_ci_high is not None
        assert one.tokens_per_second_ci_low < one.tokens_per_second < one.tokens_per_second_ci_high
        assert (one.price_usd_per_hour, one.currency, one.weights, one.device) == (0.046, "USD", "real", "CPU")
        assert (one.llama_cpp_commit, one.threads, one.layers_total) == ("0c1e570", 2, 19)
        assert one.measured_at is not None
        assert one.measured_at > STARTED
        assert (tmp_path / one.raw_path).read_text().splitlines()[(one.raw_line or 0) - 1].count('"tokens":128')
        assert session.scalars(select(Measurement.noisy).filter_by(task="tg", tokens=64)).one() == ["cv"]
        server = session.get(Server, ("local", "desk"))
        assert server is not None
        assert (server.vcpus, server.cpu_cores, server.memory_amount) == (4, 2, 8192)
        assert server.cpu_architecture == "X86_64"


def test_the_price_at_launch_in_its_own_currency(engine: Engine, tmp_path: Path) -> None:
    """A job and its rows keep what was paid where it was paid in EUR; older runs in USD have another key for it."""
    euros = RawRun(vendor="hcloud", server="cx22", job="cx22", price_per_hour=0.0066, currency="EUR")
    older = RawRun(sweep="b", price_usd_per_hour=0.046)
    broken = RawRun(sweep="c", vendor="hcloud", server="cx32", job="cx32", price_per_hour=-1.0, currency="EUR")
    for run in (euros, older):
        ingest_run(engine, run.write(tmp_path))
    (damage,) = ingest_run(engine, broken.write(tmp_path)).damage
    assert str(damage).endswith("meta.json: its 'price_per_hour' is no number: '-1.0'")
    for table in (Job, Measurement):
        prices = (table.price_usd_per_hour, table.launch_price_per_hour, table.currency)
        with reading(engine) as session:
            found = {tuple(row) for row in session.execute(select(*prices))}
        assert found == {(None, 0.0066, "EUR"), (0.046, 0.046, "USD"), (None, None, "EUR")}


def test_scores_are_of_the_newest_real_sweep(engine: Engine, tmp_path: Path) -> None:
    """A later sweep replaces a score, in whatever order they are ingested; a later synthetic one never does."""
    newer = RawRun(sweep="b", started=STARTED + timedelta(days=1), speed=1.5).write(tmp_path)
    older = RawRun(sweep="a").write(tmp_path)
    synthetic = RawRun(sweep="c", started=STARTED + timedelta(days=2), weights="synthetic", speed=9).write(tmp_path)
    for folder in (newer, older, synthetic):
        ingest_run(engine, folder)
    found = scores(engine)
    assert len(found) == len(rows_by_scenario())
    assert found["desk", "prompt_processing", 128] == pytest.approx(mean_speed("pp", 128, 1.5), rel=1e-6)
    assert found["desk", "text_generation", 64] == pytest.approx(mean_speed("tg", 64, 1.5), rel=1e-6)


def test_synthetic_weights_make_no_score(engine: Engine, tmp_path: Path) -> None:
    """Alone they leave the scores empty, with the measurements there."""
    summary = ingest_run(engine, RawRun(weights="synthetic").write(tmp_path))
    assert summary.outcomes == {"ok": 4}
    assert scores(engine) == {}


def test_several_instances_give_their_median(engine: Engine, tmp_path: Path) -> None:
    """Three instances of one type in one sweep: the score is the middle one's, and the note says so."""
    for replica, speed in enumerate((1.0, 3.0, 2.0), 1):
        run = RawRun(vendor="gcp", server="n2", job=f"gcp_n2_{replica}", replica=replica, speed=speed)
        ingest_run(engine, run.write(tmp_path))
    assert scores(engine)["n2", "prompt_processing", 128] == pytest.approx(mean_speed("pp", 128, 2.0), rel=1e-6)
    with reading(engine) as session:
        assert "median of 3 instances" in (session.scalars(select(BenchmarkScore.note)).first() or "")


def test_an_outcome_without_score(engine: Engine, tmp_path: Path) -> None:
    """What was not measured has its outcome and its reason, no speed, and makes no score."""
    reason = "at 90 tokens/s it would take 182 s, the limit is 87 s"
    ingest_run(engine, RawRun(extra=[("pp", 16384, "predicted_skip", reason)]).write(tmp_path))
    with reading(engine) as session:
        one = session.scalars(select(Measurement).filter_by(tokens=16384)).one()
        assert (one.outcome, one.reason, one.samples, one.tokens_per_second) == ("predicted_skip", reason, 0, None)
        job = session.scalars(select(Job)).one()
        assert job.outcomes == {"ok": 4, "predicted_skip": 1}
    assert ("desk", "prompt_processing", 16384) not in scores(engine)


def test_a_run_that_goes_on(engine: Engine, tmp_path: Path) -> None:
    """A run ingested in the middle and again at its end is the run ingested once."""
    whole = RawRun().journal()
    lines = whole.splitlines(keepends=True)
    folder = RawRun().write(tmp_path)
    (folder / lake.JOURNAL).write_text("".join(lines[:8]))
    assert ingest_run(engine, folder).measurements < 4
    lake.append_journal(folder, len("".join(lines[:8])), "".join(lines[8:]))
    assert ingest_run(engine, folder).outcomes == {"ok": 4}


def test_what_the_pipeline_wrote_stays(engine: Engine, tmp_path: Path) -> None:
    """Ingest adds outcomes to a job that the pipeline keeps, and does not speak for it."""
    run = RawRun()
    record(engine, Sweep(sweep_id=run.sweep, suite="quick", vendors=["local"], status="running", request={"x": 1}))
    job = Job(sweep_id=run.sweep, job_id=run.job, vendor_id="local", server_id="desk", status="running", stage="bench")
    record(engine, job)
    ingest_run(engine, run.write(tmp_path))
    with reading(engine) as session:
        sweep, job_now = session.scalars(select(Sweep)).one(), session.scalars(select(Job)).one()
        assert (sweep.status, sweep.request) == ("running", {"x": 1})
        assert (job_now.status, job_now.stage, job_now.outcomes) == ("running", "bench", {"ok": 4})


def test_damage_does_not_stop_the_rest(engine: Engine, tmp_path: Path) -> None:
    """Of a damaged run what can be read comes in, the damage is named, and the next run comes in whole."""
    folder = RawRun().write(tmp_path)
    with (folder / lake.JOURNAL).open("a") as journal:
        journal.write('{"kind":"sample","mod')
    (folder / lake.META).write_text("nonsense")
    RawRun(sweep="b").write(tmp_path)
    damaged, whole = ingest_tree(engine, tmp_path)
    assert [(damage.path.name, damage.line is None) for damage in damaged.damage] == [
        (lake.META, True),
        (lake.JOURNAL, False),
    ]
    assert (damaged.measurements, whole.measurements, whole.damage) == (4, 4, ())
    assert (damaged.sweep, damaged.vendor, damaged.server) == ("20260131-120000-a", "local", "desk")


def test_a_server_of_a_catalogue_is_found_by_its_name(engine: Engine, tmp_path: Path) -> None:
    """Where a catalogue knows the server by another identifier, that is the one that measurements refer to."""
    record(
        engine,
        Vendor(vendor_id="gcp", name="Google", observed_at=STARTED),
        Server(
            vendor_id="gcp", server_id="4711", name="n2", api_reference="n2", display_name="n2", vcpus=99,
            cpu_architecture="X86_64", memory_amount=1, observed_at=STARTED,
        ),
    )  # fmt: skip
    summary = ingest_run(engine, write_theirs(tmp_path / "inspector", "gcp", "n2"))
    assert summary.server == "4711"
    with reading(engine) as session:
        assert [server.vcpus for server in session.scalars(select(Server))] == [99]
    assert {server for server, _, _ in scores(engine)} == {"4711"}


def test_a_server_known_by_its_name_alone_gets_the_facts(engine: Engine, tmp_path: Path) -> None:
    """What a price list knew by name is described by the first run that looked at the machine."""
    record(
        engine,
        Vendor(vendor_id="gcp", name="Google", observed_at=STARTED),
        Server(
            vendor_id="gcp", server_id="n2", name="n2", api_reference="n2", display_name="n2", vcpus=0,
            cpu_architecture="UNKNOWN", memory_amount=0, observed_at=STARTED,
        ),
    )  # fmt: skip
    ingest_run(engine, RawRun(vendor="gcp", server="n2", job="gcp_n2").write(tmp_path))
    with reading(engine) as session:
        assert [(one.vcpus, one.memory_amount) for one in session.scalars(select(Server))] == [(4, 8192)]


def test_a_run_of_theirs_scores_as_theirs(engine: Engine, tmp_path: Path) -> None:
    """The score of a run of Spare Cores' is the avg_ts of its row."""
    import json

    folder = write_theirs(tmp_path / "inspector", "hcloud", "cpx11")
    ingest_run(engine, folder)
    rows = [json.loads(line) for line in (folder / "stdout").read_text().splitlines()]
    expected = {row["n_prompt"]: row["avg_ts"] for row in rows if row["n_prompt"]}
    found = {n: score for (_, name, n), score in scores(engine).items() if name == "prompt_processing"}
    assert found == {tokens: pytest.approx(speed, rel=1e-6) for tokens, speed in expected.items()}


def test_benchmarks_are_named_as_spare_cores_does(engine: Engine, tmp_path: Path) -> None:
    """The two benchmarks are there with their unit as soon as there is a score."""
    ingest_run(engine, RawRun().write(tmp_path))
    with reading(engine) as session:
        found = {one.benchmark_id: one.unit for one in session.scalars(select(Benchmark))}
    unit = "tokens/second (t/s)"
    assert found == {"llm_speed:prompt_processing": unit, "llm_speed:text_generation": unit}


def test_nothing_to_ingest(engine: Engine, tmp_path: Path) -> None:
    """An empty folder, and one that isn't there, are said so."""
    with pytest.raises(UsageError, match="no raw results"):
        list(ingest_tree(engine, tmp_path))
    with pytest.raises(UsageError, match="There is no"):
        list(ingest_tree(engine, tmp_path / "nowhere"))


def test_faster_rows_are_faster() -> None:
    """The cases are what they say: a machine twice as fast takes half the time."""
    import json

    row = rows_by_scenario()["pp", 128][0]
    assert json.loads(faster(row, 2))["samples_ns"][0] == pytest.approx(json.loads(row)["samples_ns"][0] / 2, rel=1e-6)
