"""Reading the lake: one way for Spare Cores' raw results and ours.

A run with a journal is read from it; one without (theirs) from the rows on its stdout. Either way the answer is a
:class:`Run` of frozen records. A damaged line or file is set aside with path, line and reason; it never stops the rest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from llama_bench_core.rows import RowError, parse_row
from llama_bench_core.values import TASKS, Outcome

from benchctl.lake import FACTS, JOURNAL, META, STDOUT, RunMeta

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UNJUDGED = "samples were taken, but no end of the scenario is on record"
"""Reason of a scenario whose journal breaks off in the middle of it."""


@dataclass(frozen=True)
class Damage:
    """Something in the lake that can't be read.

    Attributes:
        path: the file.
        line: its line, counted from 1; nothing for the file as a whole.
        reason: what is wrong with it.
    """

    path: Path
    line: int | None
    reason: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {self.reason}"


@dataclass(frozen=True)
class Measured:
    """How one scenario of one model ended. Names and units as in the table ``measurement``.

    Attributes:
        discarded: samples that don't count: ``{"attempt", "ns", "warmup"}``.
        file: name of the raw file that it was read from.
        line: line of that file which ended the scenario.
    """

    model: str
    task: str
    tokens: int
    model_file: str
    weights: str
    outcome: Outcome
    reason: str = ""
    noisy: tuple[str, ...] = ()
    attempt: int = 1
    evidence_seconds: float | None = None
    samples_ns: tuple[int, ...] = ()
    discarded: tuple[Mapping[str, Any], ...] = ()
    measured_at: datetime | None = None
    model_sha256: str | None = None
    model_bytes: int | None = None
    model_tensor_bytes: int | None = None
    model_parameters: int | None = None
    device: str | None = None
    threads: int | None = None
    pinning: str | None = None
    gpu_layers_asked: int | None = None
    gpu_layers: int | None = None
    layers_total: int | None = None
    offload_proof: str | None = None
    gpu_memory_bytes: int | None = None
    load_seconds: float | None = None
    llama_cpp_build_number: int | None = None
    llama_cpp_commit: str | None = None
    file: str = JOURNAL
    line: int | None = None


@dataclass(frozen=True)
class Run:
    """All that the lake knows of one job.

    Attributes:
        folder: where its raw files lie.
        sweep: its sweep's identifier.
        job: its identifier in the sweep.
        vendor: the vendor.
        server: the server, as the path calls it.
        meta: ``meta.json``.
        facts: facts of the machine: of ``facts.json`` and of the journal.
        suite: name of the suite.
        status: ``finished``, ``stopped``, ``failed`` or ``running`` (no end on record).
        message: why it failed.
        measured: how each scenario ended.
        damage: what could not be read.
    """

    folder: Path
    sweep: str
    job: str
    vendor: str
    server: str
    meta: RunMeta
    facts: Mapping[str, Any]
    suite: str | None
    status: str
    message: str
    measured: tuple[Measured, ...]
    damage: tuple[Damage, ...]


def run_folders(path: Path) -> Iterator[Path]:
    """Every folder at or below ``path`` that holds the raw files of a run, in order."""
    found = {file.parent for name in (META, JOURNAL) for file in path.rglob(name)}
    yield from sorted(found)


def read_run(folder: Path) -> Run:
    """Read one run; what is damaged is in its ``damage``."""
    damage: list[Damage] = []
    meta = _meta(folder / META, damage)
    facts = _object(folder / FACTS, damage) or {}
    if (folder / JOURNAL).exists():
        journal = _Journal(meta)
        _each_line(folder / JOURNAL, journal.take, damage)
        measured, session, end = journal.measured(), journal.session, journal.end
        facts = {**session.get("host", {}), **facts}
    else:
        rows = _Rows()
        _each_line(folder / STDOUT, rows.take, damage)
        measured, session = tuple(rows.measured.values()), {}
        end = {"status": "finished" if meta.exit_code == 0 else "failed", "message": meta.error_msg or ""}
    ours = meta.benchctl
    vendor = str(ours.get("vendor") or folder.parent.parent.name)
    server = str(ours.get("server") or folder.parent.name)
    sweep = str(ours.get("sweep") or session.get("sweep") or _sweep_of(folder))
    return Run(
        folder=folder,
        sweep=sweep,
        job=str(ours.get("job") or session.get("job") or f"{vendor}_{server}"),
        vendor=vendor,
        server=server,
        meta=meta,
        facts=facts,
        suite=ours.get("suite") or session.get("suite"),
        status=end["status"] if end else "running",
        message=str(end.get("message") or "") if end else "",
        measured=measured,
        damage=tuple(damage),
    )


def parse_time(text: str | None) -> datetime | None:
    """An ISO time; without a zone it means UTC, as Spare Cores writes it.

    Raises:
        ValueError: it is not one.
    """
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@dataclass
class _Open:
    """A scenario while its records are read."""

    samples: list[Mapping[str, Any]] = field(default_factory=list)
    session: Mapping[str, Any] = field(default_factory=dict)
    process: int | None = None
    row: str = ""
    end: Mapping[str, Any] | None = None
    line: int | None = None


class _Journal:
    """Folds the records of a journal into measurements."""

    def __init__(self, meta: RunMeta) -> None:
        self._files: Mapping[str, str] = meta.benchctl.get("models") or {}
        self._scenarios: dict[tuple[str, str, int], _Open] = {}
        self._models: dict[str, Mapping[str, Any]] = {}
        self._processes: dict[int, Mapping[str, Any]] = {}
        self._loads: dict[int, Mapping[str, Any]] = {}
        self.session: Mapping[str, Any] = {}
        self.end: Mapping[str, Any] | None = None

    def take(self, number: int, line: str) -> None:
        """Take in one line.

        Raises:
            ValueError, KeyError, TypeError: it is no record of a journal.
        """
        record = json.loads(line)
        kind = record["kind"]
        if kind == "session":
            self.session, self.end = record, None
        elif kind == "model":
            self._models[record["model"]] = record
        elif kind == "process":
            self._processes[int(record["process"])] = record
        elif kind == "load":
            self._loads[int(record["process"])] = record
        elif kind == "sample":
            if int(record["ns"]) <= 0:
                raise ValueError("a sample took no time")
            scenario = self._scenario(record)
            scenario.samples.append(record)
            scenario.session, scenario.process, scenario.line = self.session, int(record["process"]), number
            scenario.row = record.get("row") or scenario.row
        elif kind == "outcome":
            Outcome(record["outcome"])
            scenario = self._scenario(record)
            scenario.end, scenario.line = record, number
            scenario.session = scenario.session or self.session
        elif kind == "end":
            self.end = {"status": str(record["status"]), "message": record.get("message")}

    def _scenario(self, record: Mapping[str, Any]) -> _Open:
        parse_time(record["at"])
        if record["task"] not in TASKS:
            raise ValueError(f"unknown task {record['task']!r}")
        return self._scenarios.setdefault((record["model"], record["task"], int(record["tokens"])), _Open())

    def measured(self) -> tuple[Measured, ...]:
        """Every scenario that ended, or that has samples."""
        return tuple(self._close(*key, scenario) for key, scenario in self._scenarios.items() if self._is_one(scenario))

    @staticmethod
    def _is_one(scenario: _Open) -> bool:
        """A warm-up of its own length alone is not a scenario."""
        return scenario.end is not None or any(not sample.get("warmup") for sample in scenario.samples)

    def _close(self, model: str, task: str, tokens: int, scenario: _Open) -> Measured:
        end = scenario.end or {}
        timed = [sample for sample in scenario.samples if not sample.get("warmup")]
        attempt = int(end.get("attempt") or max((int(sample.get("attempt", 1)) for sample in timed), default=1))
        counting = [sample for sample in timed if int(sample.get("attempt", 1)) == attempt]
        rest = [sample for sample in scenario.samples if sample.get("warmup") or sample not in counting]
        supplied = self._models.get(model, {})
        process = self._processes.get(scenario.process or -1, {})
        load = self._loads.get(scenario.process or -1, {})
        offload = load.get("offload") or {}
        row = parse_row(scenario.row).fields if scenario.row else {}
        binary = scenario.session.get("llama_bench") or {}
        last = scenario.end or scenario.samples[-1]
        weights = supplied.get("weights") or scenario.session.get("weights")
        return Measured(
            model=model,
            task=task,
            tokens=tokens,
            model_file=supplied.get("file") or _file_name(row) or self._files.get(model) or model,
            weights="synthetic" if weights == "synthetic" else "real",
            outcome=Outcome(end["outcome"]) if end else Outcome.NOT_REACHED,
            reason=end.get("reason") or "" if end else UNJUDGED,
            noisy=tuple(end.get("noisy") or ()),
            attempt=attempt,
            evidence_seconds=end.get("evidence_seconds"),
            samples_ns=tuple(int(sample["ns"]) for sample in counting),
            discarded=tuple(
                {"attempt": sample.get("attempt", 1), "ns": sample["ns"], "warmup": bool(sample.get("warmup"))}
                for sample in rest
            ),
            measured_at=parse_time(last["at"]),
            model_sha256=supplied.get("sha256") or None,
            model_bytes=supplied.get("bytes") or None,
            model_tensor_bytes=row.get("model_size") or supplied.get("tensor_bytes") or None,
            model_parameters=row.get("model_n_params") or supplied.get("parameters") or None,
            device=offload.get("device"),
            threads=row.get("n_threads") or scenario.session.get("threads"),
            pinning=scenario.session.get("pinning"),
            gpu_layers_asked=offload.get("asked", process.get("gpu_layers")),
            gpu_layers=offload.get("layers"),
            layers_total=offload.get("layers_total"),
            offload_proof=offload.get("proof"),
            gpu_memory_bytes=offload.get("gpu_memory_bytes"),
            load_seconds=load.get("seconds"),
            llama_cpp_build_number=row.get("build_number", binary.get("build_number")),
            llama_cpp_commit=row.get("build_commit") or binary.get("build_commit"),
            line=scenario.line,
        )


class _Rows:
    """Takes llama-bench's rows for measurements, as Spare Cores' raw results hold them."""

    def __init__(self) -> None:
        self.measured: dict[tuple[str, str, int], Measured] = {}

    def take(self, number: int, line: str) -> None:
        """Take in one row; a later row of the same scenario replaces the earlier.

        Raises:
            RowError: it is none.
            ValueError: it is a row of something that we don't measure.
        """
        row = parse_row(line)
        if row.task not in TASKS:
            raise ValueError(f"a row of '{row.task}', which is no scenario")
        file = PurePosixPath(row.model_filename).name
        model = file.removesuffix(".gguf")
        self.measured[model, row.task, row.tokens] = Measured(
            model=model,
            task=row.task,
            tokens=row.tokens,
            model_file=file,
            weights="real",
            outcome=Outcome.OK,
            samples_ns=row.samples_ns,
            measured_at=parse_time(row.test_time),
            model_tensor_bytes=row.model_size or None,
            model_parameters=row.model_n_params or None,
            threads=row.n_threads or None,
            gpu_layers_asked=row.n_gpu_layers,
            llama_cpp_build_number=row.build_number or None,
            llama_cpp_commit=row.build_commit or None,
            file=STDOUT,
            line=number,
        )


def _each_line(path: Path, take: Any, damage: list[Damage]) -> None:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        damage.append(Damage(path, None, f"it can't be read: {error.strerror}"))
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            take(number, line.decode())
        except KeyError as error:
            damage.append(Damage(path, number, f"the key {error} is missing"))
        except (RowError, ValueError, TypeError, AttributeError, RecursionError) as error:
            damage.append(Damage(path, number, " ".join(str(error).split())[:200]))


def _meta(path: Path, damage: list[Damage]) -> RunMeta:
    found = _object(path, damage)
    if found is None:
        return RunMeta()
    known = {item.name for item in fields(RunMeta)}
    values = {key: value for key, value in found.items() if key in known and value is not None}
    if not isinstance(values.get("benchctl", {}), dict):
        damage.append(Damage(path, None, "its 'benchctl' is no object"))
        del values["benchctl"]
    ours = values.get("benchctl", {})
    for key, kind in (("price_usd_per_hour", float), ("replica", int)):
        try:
            kind(ours.get(key) or 0)
        except (ValueError, TypeError):
            damage.append(Damage(path, None, f"its '{key}' is no number: {ours.pop(key)!r}"))
    for key in ("start", "end"):
        try:
            parse_time(values.get(key))
        except (ValueError, TypeError):
            damage.append(Damage(path, None, f"its '{key}' is no time: {values.pop(key)!r}"))
    return RunMeta(**{**values, "outputs": tuple(values.get("outputs", ()))})


def _object(path: Path, damage: list[Damage]) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        damage.append(Damage(path, None, f"it can't be read: {error.strerror}"))
        return None
    except ValueError as error:
        damage.append(Damage(path, None, f"it is not JSON: {error}"))
        return None
    if not isinstance(found, dict):
        damage.append(Damage(path, None, "it is no JSON object"))
        return None
    return found


def _file_name(row: Mapping[str, Any]) -> str:
    return PurePosixPath(str(row.get("model_filename") or "")).name


def _sweep_of(folder: Path) -> str:
    """The folder above ``data``, or above VENDOR where a path is not laid out so."""
    above = folder.absolute().parents
    return above[3].name if len(above) > 3 and above[2].name == "data" else above[2].name
