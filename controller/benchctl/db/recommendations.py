"""Which servers meet a need, and what they cost: speeds from the measurements, prices from the catalogue.

One pass over the measurements of one model; what a speed means in time and money is :mod:`benchctl.economics`.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from llama_bench_core.values import Outcome
from sqlalchemy import func, select

from benchctl.db.hosts import OWN
from benchctl.db.naming import find_model, find_vendor
from benchctl.db.prices import USD, Offer, Terms, offers
from benchctl.db.schema import Measurement, Server
from benchctl.economics import Basis, Economics, Reading, Workload, economics, speed_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

Row = dict[str, Any]
Key = tuple[str, str]
"""``(vendor_id, server_id)``."""

MIB_PER_GIB = 1024
OK = str(Outcome.OK)
FALLBACK = str(Outcome.GPU_FALLBACK)
ANY_GPU = "any"
NO_GPU = "none"


@dataclass(frozen=True)
class Need:
    """What is asked for.

    Attributes:
        model: short name or file of the model.
        min_pp: tokens per second that processing a prompt of ``at_pp`` tokens must reach.
        min_tg: tokens per second that generating ``at_tg`` tokens must reach.
        at_pp: prompt length at which ``min_pp`` is judged.
        at_tg: number of generated tokens at which ``min_tg`` is judged.
        workload: the requests.
        terms: on what terms servers are rented.
        weights: ``real`` or ``synthetic``; nothing means real where there are any, else synthetic.
        vendors: these vendors alone; none for all.
        gpu: part of a GPU's name, ``any``, or ``none`` for servers without one; nothing for all servers.
        max_price_per_hour: in the answer's currency; nothing for no limit.
        fallback: whether speeds count that a GPU server reached on its CPU, because its GPU was not used.
        beyond: whether servers count, too, whose speed is not known up to the lengths asked for, at the speed of the
            nearest length that was measured. That is too good, and where the asked length was tried and failed it is
            wrong; so not by default.
    """

    model: str
    min_pp: float = 0.0
    min_tg: float = 0.0
    at_pp: int = 512
    at_tg: int = 128
    workload: Workload = field(default_factory=lambda: Workload(512, 128))
    terms: Terms = field(default_factory=Terms)
    weights: str | None = None
    vendors: tuple[str, ...] = ()
    gpu: str | None = None
    max_price_per_hour: float | None = None
    fallback: bool = False
    beyond: bool = False


@dataclass(frozen=True)
class Recommendation:
    """The servers that meet a need, the cheapest first.

    Attributes:
        rows: the objects, one per server, as many as were asked for.
        more: how many further servers meet the need.
        notes: sentences that belong to the answer.
        model: the model's short name, as measured; nothing where nothing was measured.
        weights: which weights the speeds were measured with.
        currency: of all money in the rows.
        why_empty: one sentence, when there are no rows.
    """

    rows: list[Row]
    more: int = 0
    notes: tuple[str, ...] = ()
    model: str | None = None
    weights: str = "real"
    currency: str = USD
    why_empty: str = ""


Readings = tuple[Reading, Reading, Reading, Reading]
"""Speed at: ``at_pp``, ``at_tg``, the workload's prompts, the workload's generated tokens."""


@dataclass(frozen=True)
class _Price:
    """Price per hour in the answer's currency, and the offer that it is from; nothing when the user gave it."""

    per_hour: float
    offer: Offer | None


@dataclass(frozen=True)
class _Choice:
    """A server that meets the need."""

    server: Any
    measured: _Measured
    readings: Readings
    price: _Price
    money: Economics


@dataclass
class _Measured:
    """The speeds of one server, of the newest sweep that has them."""

    speeds: dict[str, dict[int, float]]
    measured_at: datetime | None
    instances: int
    load_seconds: list[float]
    usd_per_hour_at_launch: float | None
    fallback: bool


def recommend(session: Session, need: Need, limit: int | None = None) -> Recommendation:
    """The servers that meet ``need``: by cost per month where a number of requests is given, else by cost per token.

    Args:
        session: the database.
        need: what is asked for.
        limit: how many servers; nothing for all.

    Raises:
        UsageError: the model, a vendor, the region or the currency is unknown.
    """
    vendors = {find_vendor(session, name) for name in need.vendors}
    model = find_model(session, need.model)
    if model is None:
        return Recommendation([])
    weights = need.weights or _weights(session, model.files)
    measured, fallbacks = _measured(session, model.files, weights, need.fallback)
    found = offers(session, need.terms)
    currency = (need.terms.currency or USD).upper()
    left_out: Counter[str] = Counter()
    fastest: dict[str, tuple[float, str]] = {}
    choices: list[_Choice] = []
    for server in _servers(session, vendors):
        key = (server.vendor_id, server.server_id)
        one = measured.get(key)
        if one is None or not _has_gpu(server, need.gpu):
            continue
        readings = _readings(one, need)
        if readings is None:
            left_out["lacking"] += 1
            continue
        _remember(fastest, readings, f"{key[0]}/{server.api_reference}")
        price = _price(key, one, found.by_server, need.terms, currency)
        why = _why_left_out(need, server, readings, price)
        if why or price is None:
            left_out[why] += 1
        else:
            choices.append(_Choice(server, one, readings, price, _money(need, readings, price)))
    choices.sort(key=_order)
    rows = [_row(place, choice, need, model.name, weights) for place, choice in enumerate(choices[:limit], 1)]
    return Recommendation(
        rows,
        len(choices) - len(rows),
        (*_notes(rows, left_out, 0 if need.fallback else fallbacks, weights), *found.notes),
        model.name,
        weights,
        currency,
        "" if rows else _why_empty(need, model.name, left_out, fastest, bool(found.by_server)),
    )


def _why_left_out(need: Need, server: Any, readings: Readings, price: _Price | None) -> str:
    """Why a server that was measured is not in the answer; empty when it is."""
    if readings[0].tokens_per_second < need.min_pp or readings[1].tokens_per_second < need.min_tg:
        return "slow"
    if not need.beyond and any(reading.basis is Basis.BEYOND for reading in readings):
        return "beyond"
    if server.status != "ACTIVE":
        return "inactive"
    if price is None:
        return "unpriced"
    if need.max_price_per_hour is not None and price.per_hour > need.max_price_per_hour:
        return "dear"
    return ""


def _money(need: Need, readings: Readings, price: _Price) -> Economics:
    return economics(need.workload, readings[2].tokens_per_second, readings[3].tokens_per_second, price.per_hour)


def _order(choice: _Choice) -> tuple[float, float, str, str]:
    """The month where whole servers are counted, else the token."""
    token = choice.money.cost_per_million_tokens or 0.0
    month = choice.money.cost_per_month
    return token if month is None else month, token, choice.server.vendor_id, choice.server.server_id


def _weights(session: Session, files: Sequence[str]) -> str:
    """Real, unless speeds are there with synthetic weights alone."""
    for kind in ("real", "synthetic"):
        of_kind = select(Measurement.sweep_id).where(
            Measurement.model_file.in_(files), Measurement.outcome == OK, Measurement.weights == kind
        )
        if session.execute(of_kind.limit(1)).first() is not None:
            return kind
    return "real"


def _measured(session: Session, files: Sequence[str], weights: str, fallback: bool) -> tuple[dict[Key, _Measured], int]:
    """Of every server the speeds at each length; and how many servers have speeds of a GPU that was not used."""
    columns = Measurement.__table__.c
    wanted = (
        columns.model_file.in_(files),
        columns.weights == weights,
        columns.outcome.in_((OK, FALLBACK)),
        columns.tokens_per_second > 0,
    )
    ages: dict[Key, list[_Age]] = defaultdict(list)
    for vendor, server, sweep, newest in session.execute(
        select(columns.vendor_id, columns.server_id, columns.sweep_id, func.max(columns.measured_at))
        .where(*wanted)
        .group_by(columns.vendor_id, columns.server_id, columns.sweep_id)
    ):
        ages[vendor, server].append((newest is not None, newest, sweep))
    by_server: dict[Key, list[Any]] = defaultdict(list)
    fallbacks = set()
    rows = session.execute(
        select(
            columns.vendor_id, columns.server_id, columns.task, columns.tokens, columns.tokens_per_second,
            columns.sweep_id, columns.job_id, columns.load_seconds, columns.price_usd_per_hour, columns.outcome,
        ).where(*wanted)
    ).all()  # at once: one by one takes a tenth of a second more on two thousand servers  # fmt: skip
    for row in rows:
        key = (row[0], row[1])
        if row[9] == FALLBACK:
            fallbacks.add(key)
            if not fallback:
                continue
        by_server[key].append(row)
    return {key: _fold(its, sorted(ages[key])) for key, its in by_server.items()}, len(fallbacks)


_Age = tuple[bool, Any, str]
"""Of a sweep on one server: whether a time is on record, the time of the newest measurement, the sweep."""


def _fold(rows: Sequence[Any], ages: Sequence[_Age]) -> _Measured:
    """Of each length the newest sweep that has it, and of its instances the median."""
    place = {sweep: number for number, (_, _, sweep) in enumerate(ages)}
    speeds: dict[str, dict[int, list[float]]] = {"pp": {}, "tg": {}}
    newest: dict[tuple[str, int], int] = {}
    jobs: dict[int, set[str]] = defaultdict(set)
    loads: dict[int, list[float]] = defaultdict(list)
    prices: dict[int, float] = {}
    fallback = False
    for _, _, task, tokens, speed, sweep, job, load, price, outcome in rows:
        age = place[sweep]
        if age > newest.get((task, tokens), -1):
            newest[task, tokens] = age
            speeds[task][tokens] = [speed]
        elif age == newest[task, tokens]:
            speeds[task][tokens].append(speed)
        jobs[age].add(job)
        if load is not None:
            loads[age].append(load)
        if price is not None:
            prices[age] = price
        fallback = fallback or outcome == FALLBACK
    last = max(jobs)
    return _Measured(
        speeds={
            task: {tokens: one[0] if len(one) == 1 else statistics.median(one) for tokens, one in of_task.items()}
            for task, of_task in speeds.items()
        },
        measured_at=ages[last][1],
        instances=len(jobs[last]),
        load_seconds=loads[last],
        usd_per_hour_at_launch=prices.get(last),
        fallback=fallback,
    )


def _servers(session: Session, vendors: Iterable[str]) -> Sequence[Any]:
    query = select(
        Server.vendor_id, Server.server_id, Server.api_reference, Server.display_name, Server.vcpus, Server.cpu_cores,
        Server.cpu_architecture, Server.memory_amount, Server.gpu_count, Server.gpu_model, Server.gpu_memory_total,
        Server.status,
    )  # fmt: skip
    wanted = list(vendors)
    if wanted:
        query = query.where(Server.vendor_id.in_(wanted))
    return session.execute(query).all()


def _has_gpu(server: Any, wanted: str | None) -> bool:
    if wanted is None:
        return True
    if wanted.lower() == NO_GPU:
        return not server.gpu_count
    if wanted.lower() == ANY_GPU:
        return bool(server.gpu_count)
    return wanted.lower() in (server.gpu_model or "").lower()


def _readings(one: _Measured, need: Need) -> Readings | None:
    pp, tg = one.speeds["pp"], one.speeds["tg"]
    found = (
        speed_at(pp, need.at_pp),
        speed_at(tg, need.at_tg),
        speed_at(pp, need.workload.tokens_in),
        speed_at(tg, need.workload.tokens_out),
    )
    judged_pp, judged_tg, prompt, generated = found
    if judged_pp is None or judged_tg is None or prompt is None or generated is None:
        return None
    return judged_pp, judged_tg, prompt, generated


def _remember(fastest: dict[str, tuple[float, str]], readings: Readings, name: str) -> None:
    for task, reading in (("pp", readings[0]), ("tg", readings[1])):
        fastest[task] = max(fastest.get(task, (0.0, "")), (reading.tokens_per_second, name))


def _price(key: Key, one: _Measured, prices: Mapping[Key, Offer], terms: Terms, currency: str) -> _Price | None:
    """What the server costs: by the catalogue, and a machine of one's own by what was said when it was measured."""
    offer = prices.get(key)
    if offer is not None:
        return _Price(offer.price_per_hour, offer)
    plain = terms.allocation == "ONDEMAND" and terms.region is None and currency == USD
    if key[0] not in OWN or one.usd_per_hour_at_launch is None or not plain:
        return None
    return _Price(one.usd_per_hour_at_launch, None)


def _price_keys(choice: _Choice, need: Need) -> Row:
    offer = choice.price.offer
    if offer is not None:
        return {
            "price_per_hour": offer.price_per_hour,
            "currency": offer.currency,
            "allocation": offer.allocation,
            "price_region": offer.region,
            "price_source": offer.source,
            "price_date": offer.source_date,
            "price_flags": list(offer.flags),
            "listed_price": offer.listed_price,
            "listed_currency": offer.listed_currency,
        }
    measured_at = choice.measured.measured_at
    return {
        "price_per_hour": choice.price.per_hour,
        "currency": USD,
        "allocation": need.terms.allocation,
        "price_region": None,
        "price_source": "given when it was measured",
        "price_date": measured_at.date() if measured_at else None,
        "price_flags": [],
        "listed_price": choice.price.per_hour,
        "listed_currency": USD,
    }


def _row(rank: int, choice: _Choice, need: Need, model: str, weights: str) -> Row:
    server, one = choice.server, choice.measured
    judged_pp, judged_tg, prompt, generated = choice.readings
    return {
        "rank": rank,
        "vendor_id": server.vendor_id,
        "server_id": server.server_id,
        "api_reference": server.api_reference,
        "display_name": server.display_name,
        "vcpus": server.vcpus,
        "cpu_cores": server.cpu_cores,
        "cpu_architecture": server.cpu_architecture,
        "memory_gib": server.memory_amount / MIB_PER_GIB,
        "gpu_count": server.gpu_count,
        "gpu_model": server.gpu_model,
        "gpu_memory_gib": None if server.gpu_memory_total is None else server.gpu_memory_total / MIB_PER_GIB,
        "model": model,
        "weights": weights,
        "gpu_fallback": one.fallback,
        "pp_tokens": judged_pp.tokens,
        "pp_tokens_per_second": judged_pp.tokens_per_second,
        "pp_basis": str(judged_pp.basis),
        "tg_tokens": judged_tg.tokens,
        "tg_tokens_per_second": judged_tg.tokens_per_second,
        "tg_basis": str(judged_tg.basis),
        "tokens_in": prompt.tokens,
        "tokens_in_per_second": prompt.tokens_per_second,
        "tokens_in_basis": str(prompt.basis),
        "tokens_out": generated.tokens,
        "tokens_out_per_second": generated.tokens_per_second,
        "tokens_out_basis": str(generated.basis),
        "instances": one.instances,
        "measured_at": one.measured_at,
        "load_seconds": statistics.median(one.load_seconds) if one.load_seconds else None,
        "requests_per_day": need.workload.requests_per_day,
        "utilisation": need.workload.utilisation,
        **_price_keys(choice, need),
        **asdict(choice.money),
    }


def _notes(rows: Sequence[Row], left_out: Counter[str], fallbacks: int, weights: str) -> Iterable[str]:
    if weights == "synthetic" and rows:
        yield "Weights: synthetic (random blocks in the real model's shapes)."
    bases = {row[key] for row in rows for key in ("pp_basis", "tg_basis", "tokens_in_basis", "tokens_out_basis")}
    if str(Basis.INTERPOLATED) in bases:
        yield "~ interpolated between the measured lengths on both sides."
    if str(Basis.BEYOND) in bases:
        yield (
            "* beyond the measured lengths: the speed at the nearest one stands in; the true one is mostly lower, and "
            "may be none at all."
        )
    if any(row["gpu_fallback"] for row in rows):
        yield "Some speeds were reached on the CPU of a GPU server (gpu_fallback): the GPU was not used."
    told = {
        "unpriced": "{} servers meet the need and have no price on these terms.",
        "dear": "{} servers meet the need and cost more than --max-price.",
        "inactive": "{} servers meet the need and are no longer rented, by the catalogue.",
        "beyond": "{} servers were not measured up to these lengths, and are left out (--beyond takes the nearest).",
        "lacking": "{} servers lack prompt processing or text generation, and are left out.",
    }
    for reason, sentence in told.items():
        if rows and left_out[reason]:  # without rows the one sentence says it
            yield sentence.format(left_out[reason])
    if fallbacks:
        yield (
            f"{fallbacks} GPU servers ran it on the CPU (gpu_fallback); those speeds don't count (--include-fallback)."
        )


def _why_empty(
    need: Need, model: str, left_out: Counter[str], fastest: Mapping[str, tuple[float, str]], priced: bool
) -> str:
    """The one sentence that stands where no server does."""
    meet = {reason: left_out[reason] for reason in ("beyond", "unpriced", "dear", "inactive") if left_out[reason]}
    if meet:
        words = {
            "unpriced": "without a price on these terms",
            "dear": "over --max-price",
            "inactive": "no longer rented",
            "beyond": "not measured up to these lengths (--beyond takes the nearest)",
        }
        counted = ", ".join(f"{count} {words[reason]}" for reason, count in meet.items())
        mend = "" if priced else " No price at all fits these terms: 'benchctl catalog import' brings prices."
        return f"{sum(meet.values())} servers may meet the need with {model}, none of which counts: {counted}.{mend}"
    if not fastest:
        return f"No server that matches was measured with {model}."
    best = "; ".join(
        f"{task}{tokens} {fastest[task][0]:.4g} tokens/s ({fastest[task][1]})"
        for task, tokens in (("pp", need.at_pp), ("tg", need.at_tg))
    )
    asked = " and ".join(
        f"{task}{tokens} {least:g}"
        for task, tokens, least in (("pp", need.at_pp, need.min_pp), ("tg", need.at_tg, need.min_tg))
        if least
    )
    return f"None of the {left_out['slow']} servers measured with {model} reaches {asked} tokens/s. Fastest: {best}."
