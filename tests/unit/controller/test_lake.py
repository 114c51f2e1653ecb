from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from benchctl import lake
from benchctl.rawfiles import runs_in
from benchctl.results import UNJUDGED, read_run
from llama_bench_core.values import Outcome
from raw_runs import FILE, MODEL, SHA256, RawRun, rows_by_scenario, write_theirs

if TYPE_CHECKING:
    from pathlib import Path


def test_pieces_of_a_journal_are_appended_once(tmp_path: Path) -> None:
    """Pieces that overlap what is there, cut anywhere, add up to the journal byte for byte."""
    text = RawRun().journal()
    offset = 0
    for end in (100, 90, 101, 5000, 4000, len(text)):
        begin = max(0, offset - 50)
        offset = lake.append_journal(tmp_path, begin, text[begin:end])
    assert (tmp_path / lake.JOURNAL).read_text() == text
    assert offset == lake.journal_offset(tmp_path) == len(text)


def test_a_gap_is_refused(tmp_path: Path) -> None:
    """A piece that does not follow is refused, and the sentence says where to fetch on."""
    lake.append_journal(tmp_path, 0, '{"kind":"session"}\n')
    with pytest.raises(lake.LakeError, match="Fetch again from byte 19"):
        lake.append_journal(tmp_path, 30, "{}\n")
    assert (tmp_path / lake.JOURNAL).read_text() == '{"kind":"session"}\n'


def test_another_runs_journal_is_refused(tmp_path: Path) -> None:
    """A piece that contradicts what is there does not overwrite it."""
    lake.append_journal(tmp_path, 0, '{"kind":"session"}\n')
    with pytest.raises(lake.LakeError, match="another run's journal"):
        lake.append_journal(tmp_path, 0, '{"kind":"outcome"}\n')
    assert (tmp_path / lake.JOURNAL).read_text() == '{"kind":"session"}\n'


def test_stderr_keeps_the_machines_offsets(tmp_path: Path) -> None:
    """Text that lost bytes on the way is followed by the offsets of the machine, and a repeat is ignored."""
    assert lake.append_stderr(tmp_path, 0, "caf\ufffd\n", 5) == 5
    assert lake.append_stderr(tmp_path, 0, "caf\ufffd\n", 5) == 5
    assert lake.append_stderr(tmp_path, 5, "more\n", 10) == 10
    assert (tmp_path / lake.STDERR).read_text() == "caf\ufffd\nmore\n"
    with pytest.raises(lake.LakeError, match="does not follow"):
        lake.append_stderr(tmp_path, 11, "x", 12)


def test_stdout_holds_the_rows_verbatim(tmp_path: Path) -> None:
    """The file stdout is every row of the journal but warm-ups, character for character."""
    folder = RawRun().write(tmp_path)
    rows = [row for rows in rows_by_scenario().values() for row in rows]
    written = (folder / lake.STDOUT).read_text().splitlines()
    assert len(written) == len(rows) - 2  # one warm-up a task
    assert {json.loads(line)["n_prompt"] for line in written} == {0, 16, 128}


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\nb", "\x1b[2J", "\ud800", "x" * 256, "a\u2028b"])
def test_no_folder_outside_the_lake(tmp_path: Path, name: str) -> None:
    """A name that would lead out of the lake is refused."""
    with pytest.raises(lake.LakeError):
        lake.run_folder(tmp_path, "s", "local", name)


def test_replicas_have_folders_of_their_own(tmp_path: Path) -> None:
    """The first instance lies where Spare Cores' would; a second one does not overwrite it."""
    assert lake.run_folder(tmp_path, "s", "gcp", "n2") == tmp_path / "s/data/gcp/n2/llm"
    assert lake.run_folder(tmp_path, "s", "gcp", "n2", 2) == tmp_path / "s/data/gcp/n2/llm.2"


def test_a_run_of_ours(tmp_path: Path) -> None:
    """Every scenario comes with samples, weights, file, checksum, device, build and the line it was read from."""
    run = read_run(RawRun(extra=[("tg", 4096, "predicted_skip", "too slow")]).write(tmp_path))
    assert not run.damage
    assert (run.sweep, run.job, run.vendor, run.server) == ("20260131-120000-a", "local_desk", "local", "desk")
    assert (run.status, run.suite, run.facts["physical_cores"]) == ("finished", "quick", 2)
    by_name = {(one.task, one.tokens): one for one in run.measured}
    assert set(by_name) == {*rows_by_scenario(), ("tg", 4096)}
    first = by_name["pp", 16]
    assert (len(first.samples_ns), len(first.discarded)) == (2, 1)
    assert (first.model, first.model_file, first.model_sha256, first.weights) == (MODEL, FILE, SHA256, "real")
    assert (first.device, first.gpu_layers, first.layers_total, first.threads) == ("CPU", 0, 19, 2)
    assert (first.llama_cpp_commit, first.llama_cpp_build_number) == ("0c1e570", 1)
    line = (run.folder / first.file).read_text().splitlines()[(first.line or 0) - 1]
    assert json.loads(line)["kind"] == "outcome"
    assert by_name["tg", 4096].outcome is Outcome.PREDICTED_SKIP


def test_a_run_of_theirs(tmp_path: Path) -> None:
    """A run without a journal is read from its rows by the same way."""
    run = read_run(write_theirs(tmp_path / "inspector", "hcloud", "cpx11"))
    assert not run.damage
    assert (run.sweep, run.vendor, run.server, run.status) == ("spare-cores-2025-04-16", "hcloud", "cpx11", "finished")
    assert {(one.task, one.tokens): len(one.samples_ns) for one in run.measured} == {
        key: len(rows) for key, rows in rows_by_scenario().items()
    }
    assert all(one.outcome is Outcome.OK and one.weights == "real" for one in run.measured)


def test_damaged_lines_are_set_aside(tmp_path: Path) -> None:
    """Torn, alien and impossible lines are named with their number; everything else is read."""
    whole = read_run(RawRun().write(tmp_path / "whole"))
    folder = RawRun().write(tmp_path / "damaged")
    lines = RawRun().journal().splitlines()
    bad = [
        '{"kind":"sample","model":',
        "Segmentation fault",
        "[1,2]",
        '{"kind":"sample","model":"m","task":"pp"}',
        '{"kind":"outcome","at":"2026-01-31T12:00:00.000Z","model":"m","task":"pp","tokens":1,"outcome":"fine"}',
        b"\xff\xfe".decode("latin-1"),
    ]
    for index, line in enumerate(bad):
        lines.insert(3 + 2 * index, line)
    (folder / lake.JOURNAL).write_bytes("\n".join(lines).encode("latin-1"))
    (folder / lake.META).write_text("{half")
    run = read_run(folder)
    assert [damage.line for damage in run.damage] == [None, 4, 6, 8, 10, 12, 14]
    assert all(damage.reason for damage in run.damage)
    assert [(one.task, one.tokens, one.samples_ns) for one in run.measured] == [
        (one.task, one.tokens, one.samples_ns) for one in whole.measured
    ]


def test_a_journal_that_breaks_off(tmp_path: Path) -> None:
    """Samples of a scenario without an end are kept, and never taken for a score."""
    folder = RawRun(ended=False).write(tmp_path)
    lines = (folder / lake.JOURNAL).read_text().splitlines()
    last = max(index for index, line in enumerate(lines) if '"kind":"outcome"' in line)
    (folder / lake.JOURNAL).write_text("\n".join(lines[:last]) + "\n")
    run = read_run(folder)
    assert run.status == "running"
    open_one = run.measured[-1]
    assert (open_one.outcome, open_one.reason) == (Outcome.NOT_REACHED, UNJUDGED)
    assert open_one.samples_ns


def test_the_attempt_that_counts(tmp_path: Path) -> None:
    """Of a noisy measurement that was repeated only the attempt named by the outcome counts; the other is kept."""
    lines = [json.loads(line) for line in RawRun().journal().splitlines()]
    samples = [line for line in lines if line["kind"] == "sample" and (line["task"], line["tokens"]) == ("pp", 128)]
    second = [{**line, "attempt": 2, "ns": line["ns"] + 7} for line in samples]
    outcome = next(
        line for line in lines if line["kind"] == "outcome" and (line["task"], line["tokens"]) == ("pp", 128)
    )
    place = lines.index(outcome)
    lines[place : place + 1] = [*second, {**outcome, "attempt": 2}]
    folder = RawRun().write(tmp_path)
    (folder / lake.JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
    one = next(one for one in read_run(folder).measured if (one.task, one.tokens) == ("pp", 128))
    assert one.samples_ns == tuple(line["ns"] for line in second)
    assert [dict(sample)["attempt"] for sample in one.discarded] == [1] * len(samples)


def test_all_runs_below_a_folder(tmp_path: Path) -> None:
    """Runs are found by their files, whatever lies between."""
    ours, theirs = RawRun().write(tmp_path), write_theirs(tmp_path / "inspector", "hcloud", "cpx11")
    assert [one.folder for one in runs_in(tmp_path)] == sorted([ours, theirs])
    assert [one.folder for one in runs_in(ours)] == [ours]


def test_a_run_goes_on_on_another_machine(tmp_path: Path) -> None:
    """A line that was cut is dropped, as the new machine drops it; its stderr begins anew, and follows the old one."""
    lake.append_journal(tmp_path, 0, '{"kind": "session"}\n{"kind": "sam')
    lake.append_stderr(tmp_path, 0, "old\n", 4)
    lake.go_on_elsewhere(tmp_path)
    assert (tmp_path / lake.JOURNAL).read_text() == '{"kind": "session"}\n'
    assert lake.append_journal(tmp_path, lake.journal_offset(tmp_path), "new\n") == 24
    assert lake.append_stderr(tmp_path, 0, "new\n", 4) == 4
    assert (tmp_path / lake.STDERR).read_text() == "old\nnew\n"


def test_a_run_that_has_not_begun_goes_on_with_nothing(tmp_path: Path) -> None:
    """There is no journal to hand to the first machine, nor an error."""
    lake.go_on_elsewhere(tmp_path)
    assert lake.journal_to_go_on_from(tmp_path) is None
