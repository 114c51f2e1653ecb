"""How far instances of one server type lie apart, learned from what the database holds."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, or_, select, tuple_

from benchctl.comparison import Between, Scatter, between_instances
from benchctl.db.queries import OK, Row
from benchctl.db.schema import Measurement, Server
from benchctl.hardware import Facts, Family, family_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.orm import Session

CPU = "CPU"
"""``device`` of what ran on no GPU."""

ALL_LAYERS = 99
"""As many layers as nobody asks for but to say "all": what counts where the layers on the GPU are not on record."""

Scenario = tuple[str, str, int, str]
"""A model's file, a task, a length, and the weights."""

Key = tuple[str, str]
"""A server: vendor_id and server_id."""


def on_gpu(row: Mapping[str, Any]) -> bool:
    """Whether the work was done on a GPU; where no device is on record, whether layers were asked to be there."""
    return bool(row["gpu_layers_asked"]) if row["device"] is None else row["device"] != CPU


class Variances:
    """The variance between instances, learned from all measurements of the same scenarios in the database.

    Of one server type several jobs of the same llama.cpp and weights are replicas. Of one family each type counts once.
    """

    def __init__(self, families: Mapping[tuple[Key, bool], Family | None], facts: Mapping[Key, Facts]) -> None:
        self._families, self._facts = families, facts
        self._own: dict[tuple[Any, ...], list[Scatter]] = defaultdict(list)
        self._pools: dict[tuple[Scenario, bool], Scatter] = {}

    @classmethod
    def of(cls, session: Session, scored: Mapping[Scenario, Mapping[Key, Sequence[Row]]]) -> Variances:
        """Learn from the database what the comparison of these rows needs."""
        places = {(scenario, on_gpu(rows[0])) for scenario, found in scored.items() for rows in found.values() if rows}
        devices = {gpu for _, gpu in places}
        facts = _facts(session)
        found = cls({(key, gpu): family_of(one, gpu) for key, one in facts.items() for gpu in devices}, facts)
        # two flat lists a group: tens of thousands of little tuples would keep the garbage collector busy
        groups: dict[tuple[Any, ...], tuple[list[Key], list[float]]] = defaultdict(lambda: ([], []))
        keys = {key: key for key in facts}
        units = {place: family.key if family else place[0] for place, family in found._families.items()}
        for file, task, tokens, weights, vendor, server, gpu, commit, speed in _speeds(
            session, {scenario for scenario, _ in places}, devices
        ):
            key = keys[vendor, server]
            members, logarithms = groups[file, task, tokens, weights, gpu, commit, units[key, gpu]]
            members.append(key)
            logarithms.append(math.log(speed))
        for (*scenario, gpu, _, unit), (members, logarithms) in groups.items():
            if len(members) > 1:
                found._learn(tuple(scenario), gpu, unit, members, logarithms)
        pools: dict[tuple[Scenario, bool], list[Scatter]] = defaultdict(list)
        for (scenario, gpu, _, _), scatters in found._own.items():
            pools[scenario, gpu] += scatters
        found._pools = {place: Scatter.pooled(scatters) for place, scatters in pools.items()}
        return found

    def _learn(self, scenario: Any, gpu: bool, unit: Any, members: Sequence[Key], logarithms: Sequence[float]) -> None:
        """Take in what the members of one family, or the instances of one server type, say of one scenario."""
        if len(set(members)) == len(members):  # nearly always: each server type once
            self._own[scenario, gpu, "family", unit].append(Scatter.of(logarithms))
            return
        by_type: dict[Key, list[float]] = defaultdict(list)
        for key, logarithm in zip(members, logarithms, strict=True):
            by_type[key].append(logarithm)
        for key, of_key in by_type.items():
            if len(of_key) > 1:
                self._own[scenario, gpu, "replicas", key].append(Scatter.of(of_key))
        if len(by_type) > 1:
            means = [sum(found) / len(found) for found in by_type.values()]
            self._own[scenario, gpu, "family", unit].append(Scatter.of(means))

    def of_server(self, scenario: Scenario, server: Key, on_gpu: bool) -> tuple[Between, str]:
        """The variance between instances of a server type, and what a reader knows its source by."""
        device = "gpu" if on_gpu else "cpu"
        pool = self._pools.get((scenario, on_gpu), Scatter())
        own = Scatter.pooled(self._own.get((scenario, on_gpu, "replicas", server), ()))
        if own.degrees_of_freedom:
            name = f"{server[0]}/{self._facts[server].name}"
            return between_instances(own, pool, "replicas", device), f"instances of {name}"
        family = self._families.get((server, on_gpu))
        if family is not None:
            own = Scatter.pooled(self._own.get((scenario, on_gpu, "family", family.key), ()))
        between = between_instances(own, pool, "family", device)
        if between.source == "family" and family is not None:
            return between, f"server types that are the same hardware ({family.label})"
        if between.source == "pool":
            return between, f"all replicas and families on {device.upper()}s, having none of its own"
        return between, f"Spare Cores' data for {device.upper()}s, as nothing in this database tells it"


def _facts(session: Session) -> dict[Key, Facts]:
    columns = (
        Server.vendor_id, Server.server_id, Server.api_reference, Server.hypervisor, Server.cpu_manufacturer,
        Server.cpu_model, Server.vcpus, Server.cpu_cores, Server.cpu_allocation, Server.gpu_model, Server.gpu_count,
        Server.gpu_memory_min,
    )  # fmt: skip
    return {(vendor, server): Facts(vendor, *facts) for vendor, server, *facts in session.execute(select(*columns))}


def _speeds(session: Session, scenarios: set[Scenario], devices: set[bool]) -> Iterable[Any]:
    """Every score of these scenarios on these devices, of whatever server, as a plain tuple: they are many."""
    if not scenarios:
        return ()
    table = Measurement.__table__.c
    # of a model that is on the GPU in part, how fast it is depends on how large a part
    whole = or_(
        table.gpu_layers_asked.is_(None), table.gpu_layers_asked < 1, table.gpu_layers >= table.layers_total,
        table.gpu_layers_asked >= ALL_LAYERS,
    )  # fmt: skip
    gpu = case((table.device.is_(None), func.coalesce(table.gpu_layers_asked, 0) != 0), else_=table.device != CPU)
    query = select(
        table.model_file, table.task, table.tokens, table.weights, table.vendor_id, table.server_id, gpu,
        table.llama_cpp_commit, table.tokens_per_second,
    ).where(
        tuple_(table.model_file, table.task, table.tokens).in_({scenario[:3] for scenario in scenarios}),
        table.weights.in_({weights for _, _, _, weights in scenarios}),
        table.outcome == OK,
        table.tokens_per_second > 0,
        whole,
    )  # fmt: skip
    if len(devices) == 1:
        query = query.where(gpu if True in devices else ~gpu)
    return session.execute(query.execution_options(yield_per=1000))
