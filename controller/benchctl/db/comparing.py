"""``compare``: servers side by side, each against the first, in every scenario."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchctl import stats
from benchctl.comparison import Look, compare
from benchctl.db.priced import PRICE_COLUMNS, pricing
from benchctl.db.prices import Terms
from benchctl.db.queries import FALLBACK, OK, Row, by_weights, newest, rows_of_servers
from benchctl.db.variances import Variances, on_gpu
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.orm import Session

    from benchctl.comparison import Between
    from benchctl.db.priced import Pricing
    from benchctl.db.queries import Question, ServerName
    from benchctl.db.variances import Key, Scenario

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class SideBySide:
    """Servers side by side.

    Attributes:
        rows: one object per scenario and per server other than the first, which is what each is held against.
        points: one object per scenario and server: its speed, and an interval for what another instance may show.
        servers: what each server is and costs, in the order of the letters A, B, ...
        notes: sentences that belong to the answer.
    """

    rows: list[Row]
    points: list[Row]
    servers: list[Row]
    notes: tuple[str, ...]


def side_by_side(
    session: Session, servers: Sequence[ServerName], question: Question, terms: Terms | None = None
) -> SideBySide:
    """Compare the first server with each of the others, in every scenario.

    Args:
        session: the database.
        servers: two or more.
        question: the scenarios that count, and the weights; its vendor, server and sweep say nothing here.
        terms: on which terms the servers are priced.

    Raises:
        UsageError: fewer than two servers, more than the alphabet has letters, or one twice.
    """
    _check(servers)
    keys = [(one.vendor, one.server) for one in servers]
    found = rows_of_servers(session, keys, question)
    chosen, notes = by_weights(found, question.weights)
    runs: dict[Scenario, dict[Key, list[Row]]] = {}
    for row in newest(chosen):
        scenario = (row["model_file"], row["task"], row["tokens"], row["weights"])
        runs.setdefault(scenario, {}).setdefault((row["vendor_id"], row["server_id"]), []).append(row)
    scored = {
        scenario: {key: _scored(rows, question.fallback) for key, rows in of_servers.items()}
        for scenario, of_servers in runs.items()
    }
    variances = Variances.of(session, scored)
    looks = {
        (scenario, key): _look(rows, variances.of_server(scenario, key, on_gpu(rows[0])))
        for scenario, of_servers in scored.items()
        for key, rows in of_servers.items()
        if rows
    }
    comparisons = sum(
        (scenario, keys[0]) in looks and (scenario, other) in looks for scenario in runs for other in keys[1:]
    )
    prices = pricing(session, terms or Terms(), keys)
    rows = [
        _compared(scenario, servers, index, runs[scenario], looks, comparisons, prices)
        for scenario in runs
        for index in range(1, len(servers))
    ]
    points = [
        _point(scenario, server, runs[scenario][keys[index]][0], looks[scenario, keys[index]])
        for scenario in runs
        for index, server in enumerate(servers)
        if (scenario, keys[index]) in looks
    ]
    described = [_described(index, one, found, prices) for index, one in enumerate(servers)]
    return SideBySide(
        rows, points, described, (*notes, *_notes(rows, chosen, comparisons, looks, question.fallback), *prices.notes)
    )


def _check(servers: Sequence[ServerName]) -> None:
    if len(servers) < 2:
        raise UsageError("One server alone can't be compared.", "Name two or more.")
    if len(servers) > len(LETTERS):
        raise UsageError(f"{len(servers)} servers are too many to compare.", f"Name up to {len(LETTERS)}.")
    twice = next((one for index, one in enumerate(servers) if one in servers[:index]), None)
    if twice:
        raise UsageError(f"{twice} is named twice.", "Name each server once.")


def _scored(rows: Iterable[Row], fallback: bool) -> list[Row]:
    wanted = (OK, FALLBACK) if fallback else (OK,)
    return [row for row in rows if row["outcome"] in wanted and row["tokens_per_second"]]


def _look(rows: Sequence[Row], between: tuple[Between, str]) -> tuple[Look, str]:
    runs = [(row["tokens_per_second"], row["tokens"], row["samples_ns"]) for row in rows]
    return Look.at(runs, between[0]), between[1]


def _compared(
    scenario: Scenario,
    servers: Sequence[ServerName],
    index: int,
    runs: Mapping[Key, Sequence[Row]],
    looks: Mapping[tuple[Scenario, Key], tuple[Look, str]],
    comparisons: int,
    prices: Pricing,
) -> Row:
    """One server against the first in one scenario; where one of them has no score, the verdict says so."""
    a, b = ((servers[place].vendor, servers[place].server) for place in (0, index))
    first = next(iter(runs.values()))[0]
    row: Row = {
        "model": first["model"], "model_file": scenario[0], "task": scenario[1], "tokens": scenario[2],
        "weights": scenario[3], "letter_b": LETTERS[index],
    }  # fmt: skip
    for side, key, server in (("a", a, servers[0]), ("b", b, servers[index])):
        row |= _side(side, server, runs.get(key, ()), looks.get((scenario, key)), prices)
    result = None
    if (scenario, a) in looks and (scenario, b) in looks:
        result = compare(looks[scenario, a][0], looks[scenario, b][0], comparisons)
    missing = [letter for letter, key in (("A", a), (LETTERS[index], b)) if (scenario, key) not in looks]
    verdict = result.verdict.replace("B", LETTERS[index]) if result else f"no score of {' and '.join(missing)}"
    costs = (row["cost_per_million_tokens_a"], row["cost_per_million_tokens_b"])
    return {
        **row,
        "ratio": result.ratio if result else None,
        "ratio_ci_low": result.ratio_low if result else None,
        "ratio_ci_high": result.ratio_high if result else None,
        "p_value": result.p_value if result else None,
        "comparisons": comparisons,
        "verdict": verdict,
        "cost_ratio": costs[1] / costs[0] if costs[0] and costs[1] else None,
    }


def _side(side: str, server: ServerName, runs: Sequence[Row], looked: tuple[Look, str] | None, prices: Pricing) -> Row:
    """What is known of one of the two, with the side's letter behind each key."""
    look, source = looked or (None, None)
    price = prices.of(
        {
            "vendor_id": server.vendor,
            "server_id": server.server,
            **{key: runs[0][key] if runs else None for key in PRICE_COLUMNS},
            "tokens_per_second": look.speed if look else None,
        }
    )
    values = {
        "vendor_id": server.vendor,
        "server_id": server.server,
        "api_reference": server.api_reference,
        "outcome": runs[0]["outcome"] if runs else None,
        "device": runs[0]["device"] if runs else None,
        "tokens_per_second": look.speed if look else None,
        "samples": sum(row["samples"] for row in runs),
        "instances": look.instances if look else 0,
        "within_run_cv": _within_cv(runs) if look else None,
        "between_instances_cv": look.between.stddev if look else None,
        "between_source": look.between.source if look else None,
        "between_from": source,
        "price_per_hour": price["price_per_hour"],
        "price_currency": price["price_currency"],
        "price_source": price["price_source"],
        "cost_per_million_tokens": price["cost_per_million_tokens"],
    }
    return {f"{key}_{side}": value for key, value in values.items()}


def _within_cv(runs: Sequence[Row]) -> float | None:
    """How far single samples of a run scatter: standard deviation of the log speed, of several runs the mean square."""
    found = [stats.log_variance(row["tokens"], row["samples_ns"]) for row in runs]
    known = [variance for variance in found if variance is not None]
    return math.sqrt(statistics.fmean(known)) if known else None


def _point(scenario: Scenario, server: ServerName, row: Row, looked: tuple[Look, str]) -> Row:
    low, high = looked[0].interval()
    return {
        "server": str(server), "model": row["model"], "task": scenario[1], "tokens": scenario[2],
        "weights": scenario[3], "outcome": row["outcome"], "tokens_per_second": looked[0].speed,
        "low": low, "high": high,
    }  # fmt: skip


def _described(index: int, server: ServerName, found: Sequence[Row], prices: Pricing) -> Row:
    """What a server is: its devices, its llama.cpp, when it was measured, and its price."""
    rows = [row for row in found if (row["vendor_id"], row["server_id"]) == (server.vendor, server.server)]
    empty = {"vendor_id": server.vendor, "server_id": server.server, **dict.fromkeys(PRICE_COLUMNS)}
    return {
        "letter": LETTERS[index],
        "server": str(server),
        "devices": sorted({row["device"] for row in rows if row["device"]}),
        "builds": sorted({row["llama_cpp_commit"] for row in rows if row["llama_cpp_commit"]}),
        "measured_at": max((row["measured_at"] for row in rows if row["measured_at"]), default=None),
        **prices.of({**(rows[0] if rows else empty), "tokens_per_second": None}),
    }


def _notes(
    rows: Sequence[Row],
    chosen: Sequence[Row],
    comparisons: int,
    looks: Mapping[tuple[Scenario, Key], tuple[Look, str]],
    included: bool,
) -> Iterable[str]:
    if comparisons:
        shown = sum(row["verdict"].endswith("faster") for row in rows)
        yield (
            f"A difference is shown in {shown} of {comparisons} comparisons; the intervals hold together with 95 % "
            f"confidence (Bonferroni for {comparisons})."
        )
        compared = {(row["model_file"], row["task"], row["tokens"], row["weights"]) for row in rows if row["ratio"]}
        sources: dict[str, list[Between]] = {}
        for (scenario, _), (look, source) in looks.items():
            if scenario in compared:
                sources.setdefault(source, []).append(look.between)
        for source, found in sources.items():
            counted = {one.own.members or one.pool.groups for one in found}
            counts = f" ({_span(counted)} {'of them' if found[0].own.members else 'groups'})" if any(counted) else ""
            yield f"Between instances: {_percents([one.stddev for one in found])}, from {source}{counts}."
    fallbacks = sum(row["outcome"] == FALLBACK for row in chosen)
    if fallbacks:
        mend = "marked 'CPU'" if included else "--include-fallback compares them"
        yield f"{fallbacks} scores are of the CPU instead of the GPU (gpu_fallback): {mend}."
    builds = {row["llama_cpp_commit"] for row in chosen if row["outcome"] == OK and row["llama_cpp_commit"]}
    if len(builds) > 1:
        listed = ", ".join(sorted(builds))
        yield f"Measured with different llama.cpp ({listed}): a difference may be that of the builds."


def _percents(figures: Sequence[float]) -> str:
    low, high = f"{min(figures):.1%}", f"{max(figures):.1%}"
    return low if low == high else f"{low} to {high}"


def _span(counts: Iterable[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
