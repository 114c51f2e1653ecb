"""Where the billed time of measuring goes, and what of it can be saved. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CAUSES: dict[str, str] = {
    "samples": "samples",
    "timeouts": "time-outs",
    "load": "loading and warming up",
    "image": "before the benchmark's first word: the image",
    "download_wait": "waiting for downloads",
    "probing": "probing how many layers fit a GPU",
    "other": "other",
}
"""Causes of the table ``job_time``, and how a sentence calls them."""

WORTH_A_HINT = 0.03
"""A share of the hours below this is left alone: no hint could save more than it."""

ADVICE: dict[str, str] = {
    "timeouts": "benchctl's own sweeps skip what must miss its limit and stop early ('benchctl replay' shows how much)",
    "samples": "a shorter suite (--suite quick, fewer models or lengths) takes fewer; they are what is paid for",
    "load": "one llama-bench process for all lengths of a task, as benchctl's own sweeps do, loads a model once",
    "image": "a machine image or a registry near the servers, with the benchmark's image in it",
    "download_wait": "--mirror near the servers, more --connections, or --weights synthetic, which downloads nothing",
    "probing": "layers from memory arithmetic, as in benchctl's own sweeps, need no trial",
}
"""What helps against each cause."""


def hints(seconds: Mapping[str, float], costs: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """One sentence for each cause that takes enough of the time, the largest first.

    Args:
        seconds: billed time by cause.
        costs: what that cost, by cause and currency; as far as prices are known.
    """
    total = sum(seconds.values())
    for cause, taken in sorted(seconds.items(), key=lambda item: -item[1]):
        if total <= 0 or taken / total < WORTH_A_HINT or cause not in ADVICE:
            continue
        money = [f"{amount:.2f} {currency}" for currency, amount in sorted(costs.get(cause, {}).items()) if amount]
        paid = f", {' and '.join(money)}" if money else ""
        what = CAUSES[cause][0].upper() + CAUSES[cause][1:]
        yield f"{what}: {taken / total:.0%} ({taken / 3600:.1f} h{paid}). To save: {ADVICE[cause]}."
