"""Reading the lake: one way for Spare Cores' raw results and ours.

A run with a journal is read from it; one without (theirs) from the rows on its stdout and the log on its stderr. Either
way the answer is a :class:`Run` of frozen records. A damaged line or file is set aside with path, line and reason; it
never stops the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from llama_bench_core.rows import parse_row
from llama_bench_core.values import TASKS, Outcome

from benchctl.lake import BENCHCTL, FACTS, JOURNAL, META, SPARE_CORES, STDERR, STDOUT, RunMeta
from benchctl.measured import (
    BAD_LINE,
    LARGEST_INTEGER,
    LONGEST_NAME,
    REHEARSAL,
    Lines,
    Measured,
    clean,
    file_name,
    name,
    parse_time,
    whole,
)
from benchctl.rawfiles import Damage, RunFiles, run_files
from benchctl.request import LAB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

UNJUDGED = "samples were taken, but no end of the scenario is on record"
"""Reason of a scenario whose journal breaks off in the middle of it."""

DEEPEST = 64
"""How deep a record may nest; llama-bench's rows and our journal have three levels."""


@dataclass(frozen=True)
class Run:
    """All that the lake knows of one job.

    Attributes:
        files: its raw files.
        source: who measured: ``benchctl`` or ``spare-cores``.
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
        times: where its time went, seconds by cause; empty where nothing is known of it.
        damage: what could not be read.
    """

    files: RunFiles
    source: str
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
    times: Mapping[str, float]
    damage: tuple[Damage, ...]

    @property
    def folder(self) -> Path:
        """Where its raw files lie."""
        return self.files.folder


def read_run(where: Path | RunFiles) -> Run:
    """Read one run; what is damaged is in its ``damage``.

    Args:
        where: the folder of its raw files, or the files themselves.
    """
    files = run_files(where) if isinstance(where, Path) else where
    lines = Lines(f"{files.origin}/{files.path}")
    meta = _meta(_content(files, META, lines), lines)
    journal_text = _content(files, JOURNAL, lines)
    if journal_text is not None or meta.benchctl:
        return _ours(files, meta, journal_text or b"", lines)
    from benchctl import sparecores

    stdout, stderr = _content(files, STDOUT, lines) or b"", _content(files, STDERR, lines) or b""
    start, end = parse_time(meta.start), parse_time(meta.end)
    measured, times = sparecores.read(stdout, stderr, start, end, lines)
    vendor, server = _names_in(files)
    return Run(
        files=files,
        source=SPARE_CORES,
        # by the day of the run: the same from wherever it is imported, and a later run of the server is another one
        sweep=f"{SPARE_CORES}-{start:%Y-%m-%d}" if start else SPARE_CORES,
        job=f"{vendor}_{server}",
        vendor=vendor,
        server=server,
        meta=meta,
        facts={},
        suite=None,
        status="finished" if meta.exit_code == 0 else "failed",
        message=meta.error_msg or "",
        measured=measured,
        times=times,
        damage=tuple(lines.damage),
    )


def _ours(files: RunFiles, meta: RunMeta, journal_text: bytes, lines: Lines) -> Run:
    facts = _object(_content(files, FACTS, lines), FACTS, lines) or {}
    journal = _Journal(meta)
    _each_line(JOURNAL, journal_text, journal.take, lines)
    session, end = journal.session, journal.end
    ours = meta.benchctl
    vendor, server = _names_in(files)
    vendor, server = _text(ours.get("vendor")) or vendor, _text(ours.get("server")) or server
    return Run(
        files=files,
        source=BENCHCTL,
        sweep=_text(ours.get("sweep")) or _text(session.get("sweep")) or _sweep_of(files),
        job=_text(ours.get("job")) or _text(session.get("job")) or f"{vendor}_{server}",
        vendor=vendor,
        server=server,
        meta=meta,
        facts=_facts({**session.get("host", {}), **facts}, lines),
        suite=_text(ours.get("suite")) or _text(session.get("suite")) or None,
        status=end["status"] if end else "running",
        message=clean(end.get("message")) if end else "",
        measured=journal.measured(lines, rehearsal=vendor == LAB),
        times=journal.times(meta),
        damage=tuple(lines.damage),
    )


@dataclass
class _Open:
    """A scenario while its records are read."""

    samples: list[Mapping[str, Any]] = field(default_factory=list)
    session: Mapping[str, Any] = field(default_factory=dict)
    process: int | None = None
    row: str = ""
    end: Mapping[str, Any] | None = None
    line: int | None = None
    offset: int | None = None


class _Journal:
    """Folds the records of a journal into measurements."""

    def __init__(self, meta: RunMeta) -> None:
        self._files: Mapping[str, Any] = _mapping(meta.benchctl.get("models"))
        self._scenarios: dict[tuple[str, str, int], _Open] = {}
        self._models: dict[str, Mapping[str, Any]] = {}
        self._processes: dict[int, Mapping[str, Any]] = {}
        self._loads: dict[int, Mapping[str, Any]] = {}
        self._clock = _Clock()
        self.session: Mapping[str, Any] = {}
        self.end: Mapping[str, Any] | None = None

    def take(self, line: bytes, number: int, offset: int) -> None:
        """Take in one line.

        Raises:
            One of ``BAD_LINE``: it is no record of a journal.
        """
        record = tidy(orjson.loads(line))
        kind = record["kind"]
        self._clock.take(kind, record)
        if kind == "session":
            self.session, self.end = {**record, "host": _mapping(record.get("host"))}, None
        elif kind == "model":
            self._models[name(record["model"])] = record
        elif kind == "process":
            self._processes[int(record["process"])] = record
        elif kind == "load":
            self._loads[int(record["process"])] = {**record, "offload": _mapping(record.get("offload"))}
        elif kind == "sample":
            if not 0 < int(record["ns"]) <= LARGEST_INTEGER:
                raise ValueError("a sample took no time, or longer than any can")
            if record.get("row"):
                parse_row(record["row"])
            scenario = self._scenario(record)
            scenario.samples.append({**record, "ns": int(record["ns"]), "attempt": int(record.get("attempt", 1))})
            scenario.session, scenario.process = self.session, int(record["process"])
            scenario.line, scenario.offset = number, offset
            scenario.row = record.get("row") or scenario.row
        elif kind == "outcome":
            Outcome(record["outcome"])
            scenario = self._scenario(record)
            scenario.end, scenario.line, scenario.offset = record, number, offset
            scenario.session = scenario.session or self.session
        elif kind == "end":
            self.end = {"status": _status(record["status"]), "message": record.get("message")}

    def _scenario(self, record: Mapping[str, Any]) -> _Open:
        parse_time(record["at"])
        if record["task"] not in TASKS:
            raise ValueError(f"unknown task {record['task']!r}")
        tokens = int(record["tokens"])
        if not 0 < tokens < 2**31:
            raise ValueError(f"{tokens} is no number of tokens")
        return self._scenarios.setdefault((name(record["model"]), record["task"], tokens), _Open())

    def measured(self, lines: Lines, *, rehearsal: bool) -> tuple[Measured, ...]:
        """Every scenario that ended, or that has samples; one whose records contradict the format is set aside.

        What was measured in a rehearsal, or played, says so in the place of its weights.
        """
        found = []
        for key, scenario in self._scenarios.items():
            if self._is_one(scenario):
                try:
                    one = self._close(*key, scenario)
                    played = rehearsal or bool(_mapping(scenario.session.get("llama_bench")).get("replayed"))
                    found.append(one._replace(weights=REHEARSAL) if played else one)
                except BAD_LINE as error:
                    lines.failed(JOURNAL, scenario.line, error)
        return tuple(found)

    def times(self, meta: RunMeta) -> dict[str, float]:
        """Where the time of the run went, seconds by cause; nothing where its start or end is unknown."""
        start, end = parse_time(meta.start), parse_time(meta.end)
        if start is None or end is None or end < start:
            return {}
        return self._clock.times(start, (end - start).total_seconds())

    @staticmethod
    def _is_one(scenario: _Open) -> bool:
        """A warm-up of its own length alone is not a scenario."""
        return scenario.end is not None or any(not sample.get("warmup") for sample in scenario.samples)

    def _close(self, model: str, task: str, tokens: int, scenario: _Open) -> Measured:
        end = scenario.end or {}
        timed = [sample for sample in scenario.samples if not sample.get("warmup")]
        attempt = int(end.get("attempt") or max((sample["attempt"] for sample in timed), default=1))
        counting = [sample for sample in timed if sample["attempt"] == attempt]
        rest = [sample for sample in scenario.samples if sample.get("warmup") or sample["attempt"] != attempt]
        supplied = self._models.get(model, {})
        process = self._processes.get(scenario.process or -1, {})
        load = self._loads.get(scenario.process or -1, {})
        offload = load.get("offload") or {}
        row = parse_row(scenario.row).fields if scenario.row else {}
        binary = _mapping(scenario.session.get("llama_bench"))
        last = scenario.end or scenario.samples[-1]
        weights = supplied.get("weights") or scenario.session.get("weights")
        return Measured(
            model=model,
            task=task,
            tokens=tokens,
            model_file=name(supplied.get("file") or _row_file(row) or self._files.get(model) or model),
            weights="synthetic" if weights == "synthetic" else "real",
            outcome=Outcome(end["outcome"]) if end else Outcome.NOT_REACHED,
            reason=clean(end.get("reason")) if end else UNJUDGED,
            noisy=tuple(clean(one) for one in end.get("noisy") or ()),
            attempt=attempt,
            evidence_seconds=_number(end.get("evidence_seconds")),
            samples_ns=tuple(sample["ns"] for sample in counting),
            discarded=tuple(
                {"attempt": sample["attempt"], "ns": sample["ns"], "warmup": bool(sample.get("warmup"))}
                for sample in rest
            ),
            measured_at=parse_time(last["at"]),
            model_sha256=_text(supplied.get("sha256")) or None,
            model_bytes=whole(supplied.get("bytes")),
            model_tensor_bytes=whole(row.get("model_size")) or whole(supplied.get("tensor_bytes")),
            model_parameters=whole(row.get("model_n_params")) or whole(supplied.get("parameters")),
            device=_text(offload.get("device")) or None,
            threads=_small(row.get("n_threads")) or _small(scenario.session.get("threads")),
            pinning=_optional(scenario.session.get("pinning")),
            gpu_layers_asked=_small(offload.get("asked", process.get("gpu_layers"))),
            gpu_layers=_small(offload.get("layers")),
            layers_total=_small(offload.get("layers_total")),
            offload_proof=_optional(offload.get("proof")),
            gpu_memory_bytes=whole(offload.get("gpu_memory_bytes")),
            load_seconds=_number(load.get("seconds")),
            llama_cpp_build_number=_small(row.get("build_number", binary.get("build_number"))),
            llama_cpp_commit=_text(row.get("build_commit")) or _text(binary.get("build_commit")) or None,
            file=JOURNAL,
            line=scenario.line,
            offset=scenario.offset,
        )


class _Clock:
    """Follows where the time of a journal goes."""

    def __init__(self) -> None:
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._spent = {"download_wait": 0.0, "load": 0.0, "samples": 0.0, "timeouts": 0.0}

    def take(self, kind: str, record: Mapping[str, Any]) -> None:
        """Take in one record: a model's comes when it is there, right after what was waited for it."""
        at = parse_time(record.get("at"))
        if at is None:
            return
        if self._first is None:
            self._first = at
        if kind == "model" and self._last is not None:
            self._spent["download_wait"] += max(0.0, (at - self._last).total_seconds())
        elif kind == "load":
            self._spent["load"] += max(0.0, _number(record.get("seconds")) or 0.0)
        elif kind == "sample":
            self._spent["load" if record.get("warmup") else "samples"] += int(record["ns"]) / 1e9
        elif kind == "outcome" and record.get("outcome") in (str(Outcome.TIMEOUT), str(Outcome.BELOW_THRESHOLD)):
            self._spent["timeouts"] += max(0.0, _number(record.get("evidence_seconds")) or 0.0)
        self._last = at

    def times(self, start: datetime, total: float) -> dict[str, float]:
        """Seconds by cause, adding up to ``total`` seconds from ``start``."""
        before = total if self._first is None else min(total, max(0.0, (self._first - start).total_seconds()))
        times = {"image": before, **self._spent, "probing": 0.0}
        times["other"] = max(0.0, total - sum(times.values()))
        return {cause: round(seconds, 3) for cause, seconds in times.items() if seconds}


def tidy(value: Any, depth: int = 0) -> Any:
    """JSON as every database can hold it: clean text, whole numbers of 64 bits, and not too deep.

    Raises:
        ValueError: it nests deeper than a record does.
    """
    if depth > DEEPEST:
        raise ValueError(f"it nests deeper than {DEEPEST} levels")
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): tidy(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list):
        return [tidy(one, depth + 1) for one in value]
    return value


def _each_line(file: str, content: bytes, take: Callable[[bytes, int, int], None], lines: Lines) -> None:
    offset = 0
    for number, line in enumerate(content.split(b"\n"), 1):
        if line and not line.isspace():
            try:
                take(line, number, offset)
            except BAD_LINE as error:
                lines.failed(file, number, error)
        offset += len(line) + 1


def _content(files: RunFiles, file: str, lines: Lines) -> bytes | None:
    try:
        return files.read(file)
    except OSError as error:
        lines.set_aside(file, None, f"it can't be read: {error.strerror}")
    except ValueError as error:
        lines.set_aside(file, None, str(error))
    return b""


def _meta(content: bytes | None, lines: Lines) -> RunMeta:
    found = _object(content, META, lines)
    if found is None:
        return RunMeta()
    values = {key: value for key, value in found.items() if key in _META_KINDS and value is not None}
    for key, kind in _META_KINDS.items():
        if key in values and (not isinstance(values[key], kind) or isinstance(values[key], bool)):
            lines.set_aside(META, None, f"its '{key}' is not what it should be: {clean(values.pop(key))[:80]!r}")
    if abs(values.get("exit_code", 0)) > 2**31 - 1:
        lines.set_aside(META, None, f"its 'exit_code' is none: {values.pop('exit_code')}")
    ours = values.get("benchctl", {})
    for key in ("price_usd_per_hour", "price_per_hour", "replica"):
        number = ours.get(key)
        if number is not None and not (_number(number) is not None and 0 <= number < 2**31):
            lines.set_aside(META, None, f"its '{key}' is no number: {clean(ours.pop(key))[:80]!r}")
    for key in ("start", "end"):
        try:
            parse_time(values.get(key))
        except (ValueError, TypeError):
            lines.set_aside(META, None, f"its '{key}' is no time: {values.pop(key)!r}")
    return RunMeta(**{**values, "outputs": tuple(values.get("outputs", ()))})


_META_KINDS: dict[str, type | tuple[type, ...]] = {
    "start": str,
    "end": str,
    "exit_code": int,
    "error_msg": str,
    "task_hash": str,
    "version": str,
    "stdout_bytes": int,
    "stderr_bytes": int,
    "outputs": list,
    "benchctl": dict,
}


def _object(content: bytes | None, file: str, lines: Lines) -> dict[str, Any] | None:
    if content is None:
        return None
    try:
        found = tidy(orjson.loads(content))
    except BAD_LINE as error:
        lines.set_aside(file, None, f"it is not JSON: {clean(str(error))[:200]}")
        return None
    if not isinstance(found, dict):
        lines.set_aside(file, None, "it is no JSON object")
        return None
    return found


_FACT_TEXTS = ("cpu_model", "architecture", "hypervisor", "machine")
_FACT_NUMBERS = ("logical_cpus", "physical_cores", "memory_bytes", "clock_mhz", "clock_max_mhz")


def _facts(found: Mapping[str, Any], lines: Lines) -> dict[str, Any]:
    """Facts of a machine, less those that are not what they should be."""
    facts = dict(found)
    for key in (*_FACT_TEXTS, *_FACT_NUMBERS):
        value = facts.get(key)
        fits = isinstance(value, str) if key in _FACT_TEXTS else 0 <= (_number(value) or 0.0) < 2**53
        if value is not None and not (fits and (key in _FACT_TEXTS or _number(value) is not None)):
            lines.set_aside(FACTS, None, f"its '{key}' is not what it should be: {clean(facts.pop(key))[:80]!r}")
    gpus = facts.get("gpus")
    if gpus is not None:
        facts["gpus"] = [one for one in gpus if _is_gpu(one)] if isinstance(gpus, list) else []
        if facts["gpus"] != gpus:
            lines.set_aside(FACTS, None, "its 'gpus' are not what they should be")
    for key in ("logical_cpus", "physical_cores"):
        if facts.get(key) is not None and _small(facts[key]) is None:
            lines.set_aside(FACTS, None, f"its '{key}' is not what it should be: {facts.pop(key)}")
    return facts


def _is_gpu(value: Any) -> bool:
    memory = value.get("memory_bytes") if isinstance(value, dict) else None
    return isinstance(value, dict) and (memory is None or (whole(memory) is not None and memory < 2**53))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """A string that may be part of a key; empty for anything else."""
    return value if isinstance(value, str) and len(value) <= LONGEST_NAME else ""


def _optional(value: Any) -> str | None:
    return clean(value) if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _small(value: Any) -> int | None:
    """A whole number of 32 bits, of either sign."""
    return value if value.__class__ is int and -(2**31) <= value < 2**31 else None


def _status(value: Any) -> str:
    if value not in ("finished", "stopped", "failed", "running"):
        raise ValueError(f"unknown status {value!r}")
    return str(value)


def _row_file(row: Mapping[str, Any]) -> str:
    file = row.get("model_filename")
    return file_name(file) if isinstance(file, str) and file else ""


def _names_in(files: RunFiles) -> tuple[str, str]:
    """Vendor and server, as keys can hold them."""
    vendor, server = files.names
    return clean(vendor)[:LONGEST_NAME], clean(server)[:LONGEST_NAME]


def _sweep_of(files: RunFiles) -> str:
    """The folder above ``data``, or above VENDOR where a path is not laid out so."""
    parts = files.parts
    if len(parts) > 4 and parts[-4] == "data":
        return clean(parts[-5])
    return clean(parts[-4]) if len(parts) > 3 else "unknown"
