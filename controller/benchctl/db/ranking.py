"""``top``: the servers ranked by speed or by money, for one model, task and length."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import func, select

from benchctl.db.naming import find_vendor
from benchctl.db.priced import pricing
from benchctl.db.prices import Terms
from benchctl.db.queries import FALLBACK, OK, Answer, by_weights, files_of, newest, rows_of
from benchctl.db.schema import Measurement, Server
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

    from benchctl.db.priced import Pricing
    from benchctl.db.queries import Row

By = Literal["speed", "price-performance", "usd-per-mtok"]
ORDERS: tuple[By, ...] = ("speed", "price-performance", "usd-per-mtok")

ANY_GPU = "any"
NO_GPU = "none"


@dataclass(frozen=True)
class Ranking:
    """Which servers are ranked, and by what.

    Attributes:
        model: the model's short name, or the name of its file.
        task: ``pp`` or ``tg``.
        tokens: the length.
        by: ``speed`` in tokens/s; ``price-performance``, the tokens that one unit of money buys; or
            ``usd-per-mtok``, what a million tokens cost.
        vendors: these alone; nothing for all.
        gpu: ``any`` for servers with a GPU, ``none`` for those without, or a GPU's model; nothing for all.
        min_speed: the least speed in tokens/s.
        max_price: the highest price of an hour, in the currency of the terms.
        terms: on which terms servers are priced.
        weights: as in :class:`~benchctl.db.queries.Question`.
        fallback: rank what ran on the CPU instead of the GPU too.
    """

    model: str
    task: str
    tokens: int
    by: By = "speed"
    vendors: Sequence[str] = ()
    gpu: str | None = None
    min_speed: float | None = None
    max_price: float | None = None
    terms: Terms = field(default_factory=Terms)
    weights: str | None = None
    fallback: bool = False


def top(session: Session, ranking: Ranking, limit: int | None = None) -> Answer:
    """The servers in order; several instances of one server are their median.

    The rows are those of :func:`benchctl.db.queries.measurements`, with ``rank``, ``instances``, ``instance_spread``
    (relative standard deviation of the instances' speeds), the server's hardware, and its price.

    Raises:
        UsageError: the model was never measured, a name is unknown, or the terms can't be met.
    """
    rows, notes = by_weights(_candidates(session, ranking), ranking.weights)
    scored = newest(row for row in rows if row["outcome"] == OK or ranking.fallback)
    fallbacks = 0 if ranking.fallback else _fallbacks(rows)
    ranked = [_median(group) for group in _by_server(scored)]
    left_out: Counter[str] = Counter()
    if ranking.min_speed is not None:
        ranked = _keep(ranked, lambda row: row["tokens_per_second"] >= ranking.min_speed, left_out, "slower than asked")
    ranked.sort(key=lambda row: -row["tokens_per_second"])
    needs_prices = ranking.by != "speed" or ranking.max_price is not None or ranking.terms.region is not None
    shown = ranked if needs_prices or limit is None else ranked[:limit]
    prices = pricing(session, ranking.terms, {(row["vendor_id"], row["server_id"]) for row in shown})
    if needs_prices:
        shown = _by_money([prices.of(row) for row in shown], ranking, left_out)
        shown = shown if limit is None else shown[:limit]
    return Answer(
        _whole(session, shown, prices),
        (*notes, *_notes(left_out, fallbacks), *prices.notes),
        dict(left_out),
    )


def _candidates(session: Session, ranking: Ranking) -> list[Row]:
    """What the ranking needs of every measurement that may be in it; the whole rows of the winners come later."""
    columns: tuple[Any, ...] = (
        Measurement.sweep_id, Measurement.job_id, Measurement.model, Measurement.task, Measurement.tokens,
        Measurement.vendor_id, Measurement.server_id, Measurement.model_file, Measurement.weights, Measurement.outcome,
        Measurement.tokens_per_second, Measurement.measured_at, Measurement.region, Measurement.price_usd_per_hour,
        Measurement.launch_price_per_hour, Measurement.currency,
    )  # fmt: skip
    query: Select[Any] = (
        select(*columns)
        .join(Server, (Server.vendor_id == Measurement.vendor_id) & (Server.server_id == Measurement.server_id))
        .where(
            Measurement.model_file.in_(files_of(session, ranking.model)),
            Measurement.task == ranking.task,
            Measurement.tokens == ranking.tokens,
            Measurement.outcome.in_((OK, FALLBACK)),
            Measurement.tokens_per_second > 0,
        )
        .order_by(Measurement.vendor_id, Measurement.server_id, Measurement.job_id)
    )
    if ranking.vendors:
        query = query.where(Measurement.vendor_id.in_([find_vendor(session, name) for name in ranking.vendors]))
    return [dict(row) for row in session.execute(_with_gpu(session, query, ranking.gpu)).mappings()]


def _with_gpu(session: Session, query: Select[Any], gpu: str | None) -> Select[Any]:
    if gpu is None:
        return query
    if gpu.lower() in (ANY_GPU, NO_GPU):
        return query.where(Server.gpu_count > 0 if gpu.lower() == ANY_GPU else Server.gpu_count == 0)
    known = session.scalars(select(Server.gpu_model).where(Server.gpu_model.is_not(None)).distinct())
    names = {name.lower(): name for name in known if name}
    if gpu.lower() not in names:
        import difflib

        near = difflib.get_close_matches(gpu.lower(), names, n=1)
        mend = f"Did you mean '{names[near[0]]}'?" if near else f"There are: {', '.join(sorted(names.values()))}."
        raise UsageError(f"There is no server with a GPU '{gpu}'.", mend)
    return query.where(func.lower(Server.gpu_model) == gpu.lower())


def _by_server(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["vendor_id"], row["server_id"], row["weights"]), []).append(row)
    return list(groups.values())


def _median(rows: list[Row]) -> Row:
    """One server's place: the row in the middle, with the median speed and the number and spread of the instances."""
    speeds = [row["tokens_per_second"] for row in rows]
    speed = statistics.median(speeds)
    middle = min(rows, key=lambda row: abs(row["tokens_per_second"] - speed))
    spread = statistics.stdev(speeds) / statistics.fmean(speeds) if len(speeds) > 1 else None
    return {**middle, "tokens_per_second": speed, "instances": len(rows), "instance_spread": spread}


def _by_money(rows: list[Row], ranking: Ranking, left_out: Counter[str]) -> list[Row]:
    """The rows that can be had on the terms, in the order asked for."""
    if ranking.terms.region is not None:
        rows = _keep(rows, lambda row: row["price_per_hour"] is not None, left_out, "not offered on these terms")
    else:
        rows = _keep(rows, lambda row: row["price_per_hour"] is not None, left_out, "without a price")
    if ranking.max_price is not None:
        rows = _keep(rows, lambda row: row["price_per_hour"] <= ranking.max_price, left_out, "dearer than asked")
    if ranking.by == "speed":
        return rows
    return sorted(rows, key=lambda row: row["cost_per_million_tokens"])


def _keep(rows: Sequence[Row], fits: Any, left_out: Counter[str], reason: str) -> list[Row]:
    kept = [row for row in rows if fits(row)]
    if len(kept) < len(rows):
        left_out[reason] += len(rows) - len(kept)
    return kept


def _fallbacks(rows: Sequence[Row]) -> int:
    """Servers that have no other score than one on the CPU instead of the GPU."""
    good = {(row["vendor_id"], row["server_id"]) for row in rows if row["outcome"] == OK}
    return len({(row["vendor_id"], row["server_id"]) for row in rows if row["outcome"] == FALLBACK} - good)


def _whole(session: Session, shown: Sequence[Row], prices: Pricing) -> list[Row]:
    """The ranked rows with everything that is known of them."""
    keys = {_key(row): row for row in shown}
    whole = rows_of(session, keys)
    hardware = _hardware(session, {(row["vendor_id"], row["server_id"]) for row in shown})
    of_place = ("tokens_per_second", "instances", "instance_spread")
    return [
        prices.of(
            {
                "rank": rank,
                **whole[_key(row)],
                **hardware[row["vendor_id"], row["server_id"]],
                **{name: row[name] for name in of_place},
            }
        )
        for rank, row in enumerate(shown, 1)
    ]


def _key(row: Row) -> tuple[str, str, str, str, int]:
    return (row["sweep_id"], row["job_id"], row["model"], row["task"], row["tokens"])


def _hardware(session: Session, servers: set[tuple[str, str]]) -> dict[tuple[str, str], Row]:
    columns = (Server.vcpus, Server.memory_amount, Server.gpu_model, Server.gpu_count)
    found = session.execute(
        select(Server.vendor_id, Server.server_id, *columns).where(
            Server.vendor_id.in_({vendor for vendor, _ in servers}),
            Server.server_id.in_({server for _, server in servers}),
        )
    )
    names = ("vcpus", "memory_amount", "gpu_model", "gpu_count")
    return {(vendor, server): dict(zip(names, facts, strict=True)) for vendor, server, *facts in found}


def _notes(left_out: Counter[str], fallbacks: int) -> list[str]:
    notes = []
    if left_out:
        counted = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        notes.append(f"Left out: {counted}.")
    if fallbacks:
        notes.append(
            f"Left out: {fallbacks} where the CPU did the GPU's work (gpu_fallback); --include-fallback shows them."
        )
    return notes
