"""Why a server has no speed on record, from what is on record: exit codes, outcomes, the catalogue. Pure.

Codes come first; a vendor's own words are read by :mod:`benchctl.refusals` alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from llama_bench_core.values import OUTCOME_MEANINGS, Outcome

from benchctl.refusals import REFUSAL_MEANINGS, Refusal, classify, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOT_ELIGIBLE = -2
"""Exit code of Spare Cores' inspector for a server that does not meet a task's own conditions."""

_EXISTED = (Refusal.TIMEOUT, Refusal.INTERRUPTED)
"""Refusals after which a server may have existed, and was billed."""

NOT_STARTED = -1
"""Exit code of Spare Cores' inspector for a server that could not be had."""


class Why(StrEnum):
    """Why there is no speed; in the order in which a table shows them."""

    QUOTA = "quota"
    STOCK = "stock"
    DEPRECATED = "deprecated"
    NOT_OFFERED = "not_offered"
    ACCOUNT = "account"
    THROTTLED = "throttled"
    OUTAGE = "outage"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    VENDOR_ERROR = "vendor_error"
    MEMORY = "memory"
    DISK = "disk"
    DOWNLOAD = "download"
    CRASH = "crash"
    TOO_SLOW = "too_slow"
    GPU_FALLBACK = "gpu_fallback"
    NOT_REACHED = "not_reached"
    NO_ROWS = "no_rows"
    FAILED = "failed"
    STOPPED = "stopped"
    RUNNING = "running"
    NEVER_TRIED = "never_tried"
    NOT_DESCRIBED = "not_described"


WHY_MEANINGS: dict[Why, str] = {
    **{Why(str(refusal)): meaning for refusal, meaning in REFUSAL_MEANINGS.items()},
    Why.DEPRECATED: "the vendor no longer rents it, by its answer or by the catalogue",
    Why.VENDOR_ERROR: "the vendor did not give it, with words that no rule knows",
    Why.DISK: "no model fits the disk",
    Why.DOWNLOAD: "no model could be had in time",
    Why.CRASH: "llama-bench ended by itself each time",
    Why.TOO_SLOW: "no scenario came to an end within its time limit",
    Why.GPU_FALLBACK: "only speeds that it reached on the CPU although a GPU was asked for",
    Why.NOT_REACHED: "the run ended before the first scenario",
    Why.NO_ROWS: "the run ended well and left nothing that says why there is no row",
    Why.FAILED: "the run failed",
    Why.STOPPED: "the run was stopped by whoever started it",
    Why.RUNNING: "it is being measured, or waits for it",
    Why.NEVER_TRIED: "in the catalogue, and no run on record",
    Why.NOT_DESCRIBED: "no run on record, and no catalogue describes it: known by a price alone",
}

VENDORS_ANSWERS = (
    Why.QUOTA, Why.STOCK, Why.DEPRECATED, Why.NOT_OFFERED, Why.ACCOUNT, Why.THROTTLED, Why.OUTAGE, Why.VENDOR_ERROR,
)  # fmt: skip
"""Reasons that are the vendor's: no server was had, and nothing was billed."""

OF_OUTCOME: dict[Outcome, Why] = {
    Outcome.OOM: Why.MEMORY,
    Outcome.NO_DISK: Why.DISK,
    Outcome.DOWNLOAD_FAILED: Why.DOWNLOAD,
    Outcome.DOWNLOAD_TOO_SLOW: Why.DOWNLOAD,
    Outcome.CRASH: Why.CRASH,
    Outcome.TIMEOUT: Why.TOO_SLOW,
    Outcome.BELOW_THRESHOLD: Why.TOO_SLOW,
    Outcome.PREDICTED_SKIP: Why.TOO_SLOW,
    Outcome.GPU_FALLBACK: Why.GPU_FALLBACK,
    Outcome.NOT_REACHED: Why.NOT_REACHED,
}

_FOLLOWS_FROM_ANOTHER = (Outcome.NOT_REACHED, Outcome.PREDICTED_SKIP)
"""Outcomes of scenarios that were not run because of others: these tell more."""


@dataclass(frozen=True)
class LastRun:
    """How the newest run on a server ended.

    Attributes:
        status: of its job: ``finished``, ``failed``, ``stopped``, ``running`` or ``waiting``.
        exit_code: of its ``meta.json``; nothing where none is on record.
        error: what it, or the vendor, said.
        tries: the tries to rent a server that failed, in order: why (nothing for words that no rule knows), and the
            vendor's words.
        rented: whether there was a server in the end.
    """

    status: str
    exit_code: int | None = None
    error: str | None = None
    tries: Sequence[tuple[str | None, str]] = ()
    rented: bool = False


@dataclass(frozen=True)
class Verdict:
    """Why there is no speed.

    Attributes:
        why: the kind of reason.
        detail: the words on record as they are, or one sentence of ours where there are none.
    """

    why: Why
    detail: str


def was_billed(exit_code: int | None, error: str | None) -> bool:
    """Whether a server existed: not where the vendor refused it, nor where nobody asked for one."""
    refusal = classify(error)
    return exit_code not in (NOT_STARTED, NOT_ELIGIBLE) and (refusal is None or refusal in _EXISTED)


def why_unmeasured(
    last: LastRun | None,
    outcomes: Mapping[str, int],
    reasons: Mapping[str, str] | None = None,
    *,
    active: bool = True,
    described: bool = True,
) -> Verdict:
    """Why a server has no speed on record.

    Args:
        last: how its newest run ended; nothing where there was none.
        outcomes: how many of its scenarios ended how, in all runs; none of them ``ok``.
        reasons: a sentence for each of these outcomes, where one is on record.
        active: whether the vendor still rents it, by the catalogue.
        described: whether a catalogue describes it.
    """
    if last is None:
        if not active:
            return Verdict(Why.DEPRECATED, "INACTIVE in the catalogue.")
        why = Why.NEVER_TRIED if described else Why.NOT_DESCRIBED
        return Verdict(why, _sentence(WHY_MEANINGS[why]))
    if last.status in ("waiting", "running"):
        return Verdict(Why.RUNNING, _sentence(WHY_MEANINGS[Why.RUNNING]))
    outcome = telling_outcome(outcomes)
    if outcome is not None:
        said = (reasons or {}).get(str(outcome)) or _sentence(OUTCOME_MEANINGS[outcome])
        return Verdict(OF_OUTCOME[outcome], said)
    return _by_words(last)


def telling_outcome(outcomes: Mapping[str, int]) -> Outcome | None:
    """Of the outcomes of a server's scenarios, or of one model's on it, the one that says why there is no speed.

    A speed of the CPU where the GPU was to be used comes first, because it is on record; else the most frequent one,
    apart from those that only follow from another.
    """
    if outcomes.get(str(Outcome.GPU_FALLBACK)):
        return Outcome.GPU_FALLBACK
    known = Counter({Outcome(name): count for name, count in outcomes.items() if count and name != str(Outcome.OK)})
    first = {outcome: count for outcome, count in known.items() if outcome not in _FOLLOWS_FROM_ANOTHER}
    order = list(OF_OUTCOME)
    chosen = first or dict(known)
    return max(chosen, key=lambda one: (chosen[one], -order.index(one)), default=None)


def _by_words(last: LastRun) -> Verdict:
    """From the words of the vendor, or of whoever ran it."""
    if last.tries and not last.rented and last.status != "stopped":
        return _by_tries(last.tries)
    refusal = classify(last.error)
    said = shortened(last.error)
    if last.exit_code == NOT_ELIGIBLE or refusal is Refusal.MEMORY:
        return Verdict(Why.MEMORY, "The benchmark's own conditions leave it out: too little memory.")
    if refusal is not None:
        return Verdict(Why(str(refusal)), said)
    if last.exit_code == NOT_STARTED:
        return Verdict(Why.VENDOR_ERROR, said or "No words are on record.")
    if last.status == "stopped":
        return Verdict(Why.STOPPED, said or _sentence(WHY_MEANINGS[Why.STOPPED]))
    if last.status == "failed" or last.exit_code:
        return Verdict(Why.FAILED, said or "No words are on record.")
    return Verdict(Why.NO_ROWS, _sentence(WHY_MEANINGS[Why.NO_ROWS]))


def _by_tries(tries: Sequence[tuple[str | None, str]]) -> Verdict:
    """From what the vendor said to each try: the last one tells why there were no more."""
    refusal, said = tries[-1]
    why = Why(refusal) if refusal else Why.VENDOR_ERROR
    if len(tries) == 1:
        return Verdict(why, said)
    counted = Counter(str(Why(one) if one else Why.VENDOR_ERROR).replace("_", " ") for one, _ in tries)
    told = ", ".join(f"{count} x {name}" for name, count in counted.items())
    return Verdict(why, f"{said} ({len(tries)} tries: {told})")


def _sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return text[0].upper() + text[1:] + "."
