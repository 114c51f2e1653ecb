"""The real session over one recorded run: what it would have taken, measured and missed."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama_bench_core import policy
from llama_bench_core.noise import Undisturbed
from llama_bench_core.session import Request, Session, Tools
from llama_bench_core.state import MemoryJournal
from llama_bench_core.values import Outcome

from benchctl.replay import account
from benchctl.replay.world import BINARY, Assumptions, Downloads, Hardware, Machine, Placing, facts_of, header_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llama_bench_core.suite import Suite
    from llama_bench_core.values import Model

    from benchctl.replay.recording import Recorded


@dataclass(frozen=True)
class RowResult:
    """What became of one recorded row.

    Attributes:
        model: short name.
        task: ``pp`` or ``tg``.
        tokens: length.
        recorded_tokens_per_second: mean of their repetitions, the score.
        outcome: how our scenario ended.
        reason: our verdict's sentence.
        tokens_per_second: our score, the mean of our samples; ``None`` where there is none.
        samples: how many of ours count.
    """

    model: str
    task: str
    tokens: int
    recorded_tokens_per_second: float
    outcome: str
    reason: str = ""
    tokens_per_second: float | None = None
    samples: int = 0

    @property
    def kept(self) -> bool:
        """Whether ours has the row too."""
        return self.outcome == str(Outcome.OK)

    @property
    def shift(self) -> float | None:
        """How far our score is from theirs, as a share of theirs; ``None`` where the row was lost."""
        if not self.kept or self.tokens_per_second is None:
            return None
        return self.tokens_per_second / self.recorded_tokens_per_second - 1


@dataclass(frozen=True)
class Rerun:
    """One run, theirs and ours.

    Attributes:
        vendor: the vendor.
        server: the vendor's own name of the server type.
        half: ``tuned on`` or ``held out``.
        theirs: seconds by cause.
        ours: seconds by cause.
        rows: what became of each recorded row.
        outcomes: number of our scenarios by outcome.
        predicted: number of scenarios that ours ran and theirs never did; their time is a prediction.
        processes: how many llama-bench processes ours took.
    """

    vendor: str
    server: str
    half: str
    theirs: Mapping[str, float]
    ours: Mapping[str, float]
    rows: tuple[RowResult, ...] = ()
    outcomes: Mapping[str, int] = field(default_factory=dict)
    predicted: int = 0
    processes: int = 0

    @property
    def theirs_seconds(self) -> float:
        """Their billed time."""
        return sum(self.theirs.values())

    @property
    def ours_seconds(self) -> float:
        """Ours."""
        return sum(self.ours.values())


def half_of(vendor: str, server: str) -> str:
    """Which half of the servers one belongs to, by its name alone.

    The lowest bit of the SHA-256 of ``vendor/server``: the policy was tuned with the servers where it is 0 in sight.
    """
    digest = hashlib.sha256(f"{vendor}/{server}".encode()).digest()
    return "held out" if digest[-1] & 1 else "tuned on"


_NOWHERE = Path("/nonexistent")
"""Where a replay would write, if it did."""


def play(
    recorded: Recorded, suite: Suite, models: Sequence[Model], hardware: Hardware, assumed: Assumptions
) -> tuple[Machine, MemoryJournal]:
    """Run the real session in the recorded world; the machine with its account of the time, and the journal.

    Args:
        recorded: the run.
        suite: what to measure, with the policy's numbers.
        models: the suite's, smallest first.
        hardware: what a catalogue says of the server.
        assumed: what the recording does not say.
    """
    if not assumed.warmups:
        suite = replace(suite, policy=replace(suite.policy, warmup_seconds=0.0))
    machine = Machine(recorded, models, assumed)
    journal = MemoryJournal(machine.clock)
    machine.history = journal.history
    by_file = {model.file: model for model in models}
    request = Request(suite, tuple(models), _NOWHERE, _NOWHERE, "llama-bench", weights="real")
    tools = Tools(
        machine,
        clock=machine.clock,
        facts=facts_of(recorded, hardware),
        environment={},
        binary=BINARY,
        monitor=Undisturbed(),
        supply=lambda _request, wanted, _weights: Downloads(recorded, machine, wanted, assumed),
        read_header=lambda path: header_of(by_file[path.rpartition("/")[2]]),
        place=Placing(machine, recorded.models),
        publish=None,
    )
    Session(request, journal, tools, threading.Event()).run()
    return machine, journal


def rerun(
    recorded: Recorded, suite: Suite, models: Mapping[str, Model], hardware: Hardware, assumed: Assumptions
) -> Rerun:
    """Run the session over one recorded run, and compare; arguments as :func:`play`, models by name."""
    chosen = tuple(sorted((models[name] for name in suite.model_names), key=lambda one: one.size_bytes))
    machine, journal = play(recorded, suite, chosen, hardware, assumed)
    return Rerun(
        vendor=recorded.vendor,
        server=recorded.server,
        half=half_of(recorded.vendor, recorded.server),
        theirs=account.theirs(recorded),
        ours=_ours(recorded, machine, journal, assumed),
        rows=_rows(recorded, journal, chosen),
        outcomes=_counted(str(one.outcome) for one in journal.history.verdicts.values()),
        predicted=len(machine.predicted),
        processes=journal.history.processes,
    )


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _ours(recorded: Recorded, machine: Machine, journal: MemoryJournal, assumed: Assumptions) -> dict[str, float]:
    """Seconds by cause: what the machine passed, and around it what the recording has too."""
    seconds = dict.fromkeys(account.CAUSES, 0.0)
    seconds["image pull"] = recorded.causes.get("image pull", 0.0) * assumed.pull_factor
    seconds["other"] = recorded.causes.get("other", 0.0)
    seconds["waiting for downloads"] = machine.spent["waiting"]
    seconds["load"] = machine.spent["load"] + machine.spent["restart"]
    seconds["warm-up"] = machine.spent["warmup"]
    seconds["probing layers"] = machine.spent["probing"]
    seconds["never recorded"] = sum(machine.predicted.values())
    runs = sum(spent for cause, spent in machine.spent.items() if cause.startswith("run "))
    files = {model.name: model.file for model in machine.models}
    for record in journal.records:
        if (
            record["kind"] != "sample"
            or (files[record["model"]], record["task"], record["tokens"]) in machine.predicted
        ):
            continue
        seconds["warm-up" if record["warmup"] else "samples"] += record["ns"] / 1e9
    discarded = seconds["warm-up"] - machine.spent["warmup"]
    seconds["scenarios without a row"] = runs - seconds["never recorded"] - seconds["samples"] - discarded
    return seconds


def _rows(recorded: Recorded, journal: MemoryJournal, models: Sequence[Model]) -> tuple[RowResult, ...]:
    names = {model.file: model.name for model in models}
    found = []
    for row in recorded.rows:
        name = names.get(row.file)
        if name is None:
            continue
        key = (name, row.task, row.tokens)
        verdict = journal.history.verdicts.get(key)
        samples = journal.history.samples_of(key, verdict.attempt) if verdict else ()
        theirs = sum(row.tokens * 1e9 / ns for ns in row.samples_ns) / len(row.samples_ns)
        found.append(
            RowResult(
                model=name,
                task=row.task,
                tokens=row.tokens,
                recorded_tokens_per_second=theirs,
                outcome=str(verdict.outcome) if verdict else "not in the suite",
                reason=verdict.reason if verdict else "",
                tokens_per_second=policy.mean_speed(row.tokens, samples),
                samples=len(samples),
            )
        )
    return tuple(found)
