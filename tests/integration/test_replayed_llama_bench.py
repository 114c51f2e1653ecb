"""The llama-bench of a rehearsal, driven by the real module's session in a process of its own, as on a server."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from benchctl import lake
from benchctl.db.engine import open_database
from benchctl.errors import UsageError
from benchctl.ingest import ingest_run
from benchctl.lab import recordings
from llama_bench_core import command, programs, session
from raw_runs import FILE as RECORDED_FILE
from raw_runs import rows_by_scenario, write_theirs

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchctl.home import Home

FILE = "SmolLM-135M.Q4_K_M.gguf"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder with one recorded run; as a server's program would find it."""
    stdout = write_theirs(tmp_path / "runs", "aws", "m7i.large") / "stdout"
    stdout.write_text(stdout.read_text().replace(RECORDED_FILE, FILE))
    return tmp_path / "runs"


def installed(cache: Path, recorded: Path, scale: float, folder: Path) -> Path:
    """The program and its recording beside each other."""
    folder.mkdir()
    program = folder / "llama-bench"
    program.write_bytes(recordings.program(cache).read_bytes())
    program.chmod(0o755)
    recording = recordings.prepare(cache, recorded, "lab-m7i.large", scale)
    (folder / "recording.json").write_text(recording.read_text())
    return program


def times() -> dict[tuple[str, int], set[int]]:
    """What was recorded."""
    return {
        key: {one for row in rows for one in json.loads(row)["samples_ns"]} for key, rows in rows_by_scenario().items()
    }


def test_the_program_is_a_llama_bench_to_the_module_that_says_it_is_played(tmp_path: Path, recorded: Path) -> None:
    program = installed(tmp_path, recorded, 60, tmp_path / "bin")
    found = command.probe(str(program), programs.run)
    assert found.streams
    assert found.reports_progress
    assert (found.version, found.pace) == ("replayed", 60.0)


def test_without_a_recording_it_says_so_and_measures_nothing(tmp_path: Path) -> None:
    program = recordings.program(tmp_path)
    done = subprocess.run([program, "-m", "x.gguf", "-o", "jsonl"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there is no recording to play" in done.stderr
    assert done.stdout == ""
    assert command.probe(str(program), programs.run).version == "replayed"


def test_a_server_that_was_not_recorded_is_refused(tmp_path: Path, recorded: Path) -> None:
    with pytest.raises(UsageError, match=r"No recorded run of m7i\.metal"):
        recordings.prepare(tmp_path, recorded, "lab-m7i.metal", 1)


def measure(tmp_path: Path, program: Path, suite: dict[str, Any]) -> dict[str, Any]:
    from benchctl.models import load_models
    from llama_bench_core.suite import model_to_dict

    model = load_models()["SmolLM-135M"]
    params = {
        "suite": {"name": "played", "models": [model.name], **suite},
        "models": [model_to_dict(model)],
        "state_dir": str(tmp_path / "state"),
        "models_dir": str(recordings.hollow_models(tmp_path)),
        "llama_bench": str(program),
        "weights": "synthetic",
        "device": "cpu",
        "sweep": "s1",
        "job": "j1",
    }
    return session.measure(params, check=False, stop=threading.Event())


PATIENT = {"max_other_cores": 1000, "max_steal": 1, "min_clock_ratio": 0.0001}
"""The machine that runs this test may be busy."""


def test_a_session_gets_the_recorded_times_and_what_was_never_recorded_ends_by_its_limit(
    tmp_path: Path,
    recorded: Path,
    home: Home,
    benchctl: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All times in the rows are recorded ones, in a hundredth of their time; and no answer takes them for measured."""
    # other measurements on this machine are none of this test's business
    monkeypatch.setattr(session, "_machine_lock", lambda: tmp_path / "machine.lock")
    task, tokens = next(key for key in times() if key[0] == "pp")
    program = installed(tmp_path, recorded, 100, tmp_path / "bin")
    never = 300
    assert ("tg", never) not in times()
    monkeypatch.setattr(session, "_machine_lock", lambda: tmp_path / "machine.lock")
    # A pause of this machine counts a hundredfold: what must be measured may take more than a minute.
    scenarios = {task: {tokens: 0.002}, "tg": {never: 5}}
    result = measure(tmp_path, program, {"scenarios": scenarios, "policy": PATIENT})
    outcomes = {one["tokens"]: one for one in result["outcomes"]}
    assert outcomes[tokens]["outcome"] == "ok"
    assert outcomes[never]["outcome"] == "timeout"

    journal = [json.loads(line) for line in Path(result["journal"]).read_text().splitlines()]
    assert ("process", "tg") in [(one["kind"], one.get("task")) for one in journal], "it was played"
    samples = [one for one in journal if one["kind"] == "sample"]
    assert samples
    assert {one["ns"] for one in samples if one["tokens"] == tokens} <= times()[task, tokens]
    assert next(one for one in journal if one["kind"] == "session")["llama_bench"]["replayed"] == 100

    folder = lake.run_folder(home.lake, "s1", "aws", "m7i.large")
    lake.append_journal(folder, 0, Path(result["journal"]).read_text())
    engine = open_database(home.database_url)
    ingest_run(engine, folder)
    engine.dispose()
    asked = ("top", "--model", "SmolLM-135M", "--task", task, "--tokens", str(tokens), "--json")
    assert json.loads(benchctl(*asked, check=True).stdout) == []
    assert json.loads(benchctl(*asked, "--weights", "all", check=True).stdout) == []
    rows = json.loads(benchctl(*asked, "--weights", "rehearsal", check=True).stdout)
    assert [(row["server_id"], row["weights"]) for row in rows] == [("m7i.large", "rehearsal")]
