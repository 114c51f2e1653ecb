"""A recorded run becomes values, and every second of it has a cause."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from benchctl.errors import UsageError
from benchctl.replay import account, corpus, listed
from benchctl.replay.recording import Recorded, RecordingError, read_recorded

CASES = Path(__file__).parents[3] / "cases" / "replay"
SMOL = "SmolLM-135M.Q4_K_M.gguf"


def recorded(server: str) -> Recorded:
    (raw,) = corpus.raw_runs(CASES / "data", corpus.Wanted(servers=[server]))
    return read_recorded(raw.vendor, raw.server, raw.texts["meta.json"], raw.texts["stdout"], raw.texts["stderr"])


def test_rows_time_outs_downloads_and_layers_are_read():
    """Each process of theirs is one value: what it tried, how long it took, and what came of it."""
    run = recorded("cpu-2")
    assert (run.vendor, run.exit_code, run.gpu) == ("lab", 0, False)
    assert len(run.rows) == 14
    assert [(one.task, one.tokens) for one in run.tried if one.timed_out] == [("pp", 4096), ("tg", 512)]
    assert run.models[SMOL].bytes_per_second == pytest.approx(100.57 / 2 * 1024**2, rel=1e-6)
    assert run.models[SMOL].gpu_layers == 0
    assert run.rows[0].load_seconds == pytest.approx(0.5, abs=0.01)


def test_probing_is_seen_where_there_is_a_gpu():
    """The time from the model's file to the number of layers."""
    run = recorded("gpu-1")
    assert run.gpu
    assert run.models[SMOL].probe_seconds == pytest.approx(3.0)


@pytest.mark.parametrize("server", ["cpu-2", "gpu-1"])
def test_the_account_of_their_hours_adds_up(server):
    """Every second of the billed time has a cause, and little has none."""
    run = recorded(server)
    theirs = account.theirs(run)
    assert set(theirs) == set(account.CAUSES)
    assert sum(theirs.values()) == pytest.approx(run.seconds)
    assert theirs["other"] < 3
    assert theirs["image pull"] == pytest.approx(80 if run.gpu else 60)


def test_a_run_without_a_log_is_all_other():
    """Nothing is known of its time but how much it was."""
    run = read_recorded(
        "lab", "x", '{"start": "2025-04-01T00:00:00", "end": "2025-04-01T00:01:00", "exit_code": 0}', "", ""
    )
    assert account.theirs(run)["other"] == 60


@pytest.mark.parametrize("meta", ["", "[]", '{"start": "yesterday"}', '{"start": null, "end": null, "exit_code": 0}'])
def test_a_damaged_meta_is_one_sentence(meta):
    """It names the run."""
    with pytest.raises(RecordingError, match="lab/x"):
        read_recorded("lab", "x", meta, "", "")


def test_an_archive_is_read_like_the_folder(tmp_path):
    """Compressed or not, and what is no run's file is passed over, wherever it would like to go."""
    archive = tmp_path / "runs.tar.xz"
    with tarfile.open(archive, "w:xz") as packed:
        packed.add(CASES / "data", "data")
        for name in ("../../etc/passwd", "data/lab/evil/llm/../../../stdout"):
            member = tarfile.TarInfo(name)
            member.size = 4
            packed.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("data/lab/link/llm/meta.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    found = {(raw.vendor, raw.server): raw.texts for raw in corpus.raw_runs(archive)}
    assert found == {(raw.vendor, raw.server): raw.texts for raw in corpus.raw_runs(CASES / "data")}


def test_vendor_and_server_patterns_choose():
    """Shell patterns, on the server's name."""
    assert [raw.server for raw in corpus.raw_runs(CASES, corpus.Wanted("lab", ["gpu-*"]))] == ["gpu-1"]
    assert list(corpus.raw_runs(CASES, corpus.Wanted("aws"))) == []


@pytest.mark.parametrize("name", ["nothing", "README.md"])
def test_what_is_no_corpus_is_refused(name):
    """One sentence, not a traceback."""
    with pytest.raises(UsageError):
        list(corpus.raw_runs(CASES / name))


def test_prices_are_the_cheapest_on_demand_ones_in_their_currency():
    """Spot prices don't count, and currencies stay apart."""
    assert listed.read_prices(CASES / "prices.csv") == {
        ("lab", "cpu-2"): (0.10, "USD"),
        ("lab", "gpu-1"): (0.60, "EUR"),
    }


@pytest.mark.parametrize(
    "content",
    ["a,b\n1,2\n", "", "vendor_id,api_reference,allocation,price,currency,unit\nx,y,ONDEMAND,free,USD,HOUR\n"],
)
def test_a_file_that_is_no_price_list_is_refused(tmp_path, content):
    """The sentence says what is missing, or where."""
    path = tmp_path / "prices.csv"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"no column|line 2"):
        listed.read_prices(path)


def test_a_file_that_is_no_catalogue_is_refused(tmp_path):
    """Neither one that is not there nor one that is none."""
    for path in (tmp_path / "none.db", CASES / "prices.csv"):
        with pytest.raises(UsageError, match="catalogue"):
            listed.read_hardware(path)
