"""What all reruns add up to: hours, money, rows, shifts. Pure.

An amount of money is a price times hours, in the currency of the price; different currencies are never added.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchctl.replay.account import CAUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchctl.replay.rerun import Rerun, RowResult

    Prices = Mapping[tuple[str, str], tuple[float, str]]

ALL = "all"


@dataclass(frozen=True)
class Summary:
    """Some runs together, theirs against ours.

    Attributes:
        runs: how many.
        theirs_hours: billed by theirs.
        ours_hours: by ours.
        theirs_cost: by currency; of the runs with a price.
        ours_cost: by currency; of the same runs.
        unpriced: runs without a price.
        rows: recorded rows.
        kept: those that ours has too.
        predicted: scenarios that ours ran though theirs never did; their time is a prediction.
        median_shift: median of the scores' shifts regardless of sign, as a share; ``None`` without a kept row.
        p95_shift: the shift that 95 % of the kept rows stay within.
    """

    runs: int
    theirs_hours: float
    ours_hours: float
    theirs_cost: Mapping[str, float]
    ours_cost: Mapping[str, float]
    unpriced: int
    rows: int
    kept: int
    predicted: int
    median_shift: float | None
    p95_shift: float | None

    @property
    def ratio(self) -> float | None:
        """Our hours as a share of theirs."""
        return self.ours_hours / self.theirs_hours if self.theirs_hours else None

    @property
    def kept_share(self) -> float | None:
        """Kept rows as a share of all."""
        return self.kept / self.rows if self.rows else None

    def to_row(self, **labels: Any) -> dict[str, Any]:
        """As an answer shows it: plain values with units in the keys."""
        return {
            **labels,
            "runs": self.runs,
            "theirs_hours": round(self.theirs_hours, 3),
            "ours_hours": round(self.ours_hours, 3),
            "hours_ratio": _rounded(self.ratio),
            "theirs_cost": money_of(self.theirs_cost),
            "ours_cost": money_of(self.ours_cost),
            "runs_without_price": self.unpriced,
            "rows": self.rows,
            "rows_kept": self.kept,
            "rows_kept_share": _rounded(self.kept_share),
            "scenarios_never_recorded": self.predicted,
            "median_shift": _rounded(self.median_shift, 6),
            "p95_shift": _rounded(self.p95_shift),
        }


def summarise(reruns: Sequence[Rerun], prices: Prices | None = None) -> Summary:
    """Add up some runs.

    Args:
        reruns: the runs.
        prices: price per hour and its currency, by vendor and ``api_reference``.
    """
    theirs_cost: dict[str, float] = defaultdict(float)
    ours_cost: dict[str, float] = defaultdict(float)
    unpriced = 0
    for one in reruns:
        price = (prices or {}).get((one.vendor, one.server))
        if price is None:
            unpriced += 1
            continue
        theirs_cost[price[1]] += price[0] * one.theirs_seconds / 3600
        ours_cost[price[1]] += price[0] * one.ours_seconds / 3600
    rows = [row for one in reruns for row in one.rows]
    shifts = sorted(abs(row.shift) for row in rows if row.shift is not None)
    return Summary(
        runs=len(reruns),
        theirs_hours=sum(one.theirs_seconds for one in reruns) / 3600,
        ours_hours=sum(one.ours_seconds for one in reruns) / 3600,
        theirs_cost=dict(theirs_cost),
        ours_cost=dict(ours_cost),
        unpriced=unpriced,
        rows=len(rows),
        kept=sum(row.kept for row in rows),
        predicted=sum(one.predicted for one in reruns),
        median_shift=statistics.median(shifts) if shifts else None,
        p95_shift=quantile(shifts, 0.95),
    )


def by(reruns: Iterable[Rerun], key: Callable[[Rerun], str]) -> dict[str, list[Rerun]]:
    """The runs in groups, in the order of the groups' names."""
    groups: defaultdict[str, list[Rerun]] = defaultdict(list)
    for one in reruns:
        groups[key(one)].append(one)
    return dict(sorted(groups.items()))


def by_cause(reruns: Sequence[Rerun]) -> list[dict[str, Any]]:
    """Hours by cause, theirs and ours, and as a share of all of theirs."""
    whole = sum(one.theirs_seconds for one in reruns) or 1.0
    found = []
    for cause in CAUSES:
        theirs = sum(one.theirs.get(cause, 0.0) for one in reruns)
        ours = sum(one.ours.get(cause, 0.0) for one in reruns)
        found.append(
            {
                "cause": cause,
                "theirs_hours": round(theirs / 3600, 3),
                "ours_hours": round(ours / 3600, 3),
                "theirs_share": _rounded(theirs / whole),
                "ours_share": _rounded(ours / whole),
            }
        )
    return found


def worst_losses(reruns: Iterable[Rerun], limit: int) -> list[dict[str, Any]]:
    """The lost rows, the highest recorded speeds first."""
    lost = [(one, row) for one in reruns for row in one.rows if not row.kept]
    lost.sort(key=lambda pair: (-pair[1].recorded_tokens_per_second, pair[0].vendor, pair[0].server))
    return [_loss(one, row) for one, row in lost[:limit]]


def losses_by_outcome(reruns: Iterable[Rerun]) -> dict[str, int]:
    """Lost rows by how our scenario ended, most first."""
    return dict(Counter(row.outcome for one in reruns for row in one.rows if not row.kept).most_common())


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The value that ``share`` of the ordered values do not exceed (the next higher one, no interpolation)."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _loss(one: Rerun, row: RowResult) -> dict[str, Any]:
    return {
        "vendor": one.vendor,
        "server": one.server,
        "model": row.model,
        "task": row.task,
        "tokens": row.tokens,
        "recorded_tokens_per_second": row.recorded_tokens_per_second,
        "outcome": row.outcome,
        "reason": row.reason,
    }


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)


def money_of(amounts: Mapping[str, float]) -> dict[str, float]:
    """Amounts by currency, rounded to cents."""
    return {currency: round(amount, 2) for currency, amount in sorted(amounts.items())}
