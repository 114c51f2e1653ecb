"""What a sweep would do, how long it should take, what it costs, and what it leaves out and why. Pure.

Two times are given. The *limit* is the sum of the time limits of all scenarios: no measurement takes longer. The
*expected* time walks the policy's own rules over speeds that are known from earlier measurements of the same server,
or, where there are none, guessed from its cores (:data:`FLOPS_PER_CORE`, :data:`BYTES_PER_SECOND_PER_CORE`): a guess
that is good to a factor of three, no more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llama_bench_core import policy
from llama_bench_core.values import TASKS

from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_bench_core.suite import Suite
    from llama_bench_core.values import Model, PolicySettings, Scenario

Speeds = Mapping[tuple[str, str, int], float]
"""Tokens per second by (model name, task, tokens)."""

FLOPS_PER_CORE = 40e9
"""What a core does on prompts, floating-point operations per second: a round figure for current x86 and ARM servers."""

BYTES_PER_SECOND_PER_CORE = 6e9
"""How fast a core reads weights while it generates, up to :data:`BYTES_PER_SECOND`."""

BYTES_PER_SECOND = 60e9
"""What all cores together read, bytes per second: some channels of DDR memory."""

GPU_SPEEDUP = 20.0
"""How much faster both are with a GPU; only so that a plan for a GPU machine is not absurd."""

DOWNLOAD_BYTES_PER_SECOND = 30e6
"""What is assumed of the network."""

SYNTHESIS_BYTES_PER_SECOND = 400e6
"""How fast synthetic weights are assumed to be written."""

GIB = 1024**3

_HOURS = {"h": 1.0, "hour": 1.0, "hr": 1.0, "day": 24.0, "month": 730.0}
_PRICE = re.compile(r"\s*(?P<amount>\d+(?:\.\d+)?|\.\d+)\s*(?P<currency>[A-Za-z]{3})?\s*(?:/\s*(?P<unit>[a-z]+))?\s*")


@dataclass(frozen=True)
class Price:
    """What a server costs while it exists.

    Attributes:
        per_hour: amount per hour, in ``currency``.
        currency: three letters, e.g. ``USD``.
    """

    per_hour: float
    currency: str = "USD"

    @property
    def usd_per_hour(self) -> float | None:
        """The same in USD; nothing for another currency, because no rate of exchange is known here."""
        return self.per_hour if self.currency == "USD" else None

    def cost(self, seconds: float) -> float:
        """What so many seconds cost, in ``currency``."""
        return self.per_hour * seconds / 3600

    def __str__(self) -> str:
        return f"{self.per_hour:g}{self.currency}/h"


def parse_price(text: str) -> Price:
    """Read ``0.046USD/h``, ``33.5EUR/month`` (730 hours) or ``0.046`` (USD per hour).

    Raises:
        UsageError: it is no price.
    """
    found = _PRICE.fullmatch(text)
    unit = (found["unit"] or "h") if found else ""
    if found is None or unit not in _HOURS:
        raise UsageError(f"'{text}' is not a price.", "Give an amount, a currency and a time, as 0.046USD/h.")
    return Price(float(found["amount"]) / _HOURS[unit], (found["currency"] or "USD").upper())


def parse_budget(text: str) -> tuple[float, str]:
    """Read ``5`` (USD), ``5USD`` or ``5 EUR`` as amount and currency.

    Raises:
        UsageError: it is no amount of money.
    """
    found = _PRICE.fullmatch(text)
    if found is None or found["unit"]:
        raise UsageError(f"'{text}' is not an amount of money.", "Give an amount and a currency, as 5USD.")
    return float(found["amount"]), (found["currency"] or "USD").upper()


@dataclass(frozen=True)
class Place:
    """Where a server type can be rented.

    Attributes:
        region: the region as the vendor's API calls it.
        zone: the zone as the vendor's API calls it; empty where the vendor chooses.
        price: what it costs there; nothing when unknown.
        budget_per_hour: the same in the currency of the budget; nothing without a budget.
    """

    region: str
    zone: str = ""
    price: Price | None = None
    budget_per_hour: float | None = None


@dataclass(frozen=True)
class Machine:
    """What is known of a server before it is measured.

    Attributes:
        physical_cores: number of physical cores.
        memory_bytes: RAM.
        gpu_memory_bytes: memory of all GPUs together; 0 without one.
        disk_free_bytes: free space where models are kept; nothing when unknown.
        files: names of the model files that are there already.
    """

    physical_cores: int
    memory_bytes: int
    gpu_memory_bytes: int = 0
    disk_free_bytes: int | None = None
    files: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Server:
    """One server that can be measured.

    Attributes:
        vendor: the vendor.
        name: identifier of the server at the vendor; the row in the database.
        host: its name in the inventory.
        machine: what is known of it, or nothing before somebody looked.
        price: what it costs, or nothing.
        places: where it can be rented, the cheapest first; none for servers that are there already.
        architecture: ``x86_64`` or ``arm64``; empty when unknown.
        gpus: number of GPUs.
        vcpus: number of vCPUs; 0 when unknown.
        replica: 1, 2, ... where several instances of a type are measured.
        allocation: ``ONDEMAND`` or ``SPOT``.
        server_id: the database's identifier, where it is another than the name.
        own_disk_gb: size of the disk whose price is in the type's, where it may be larger at a price of its own, GB.
        rented: whether it is rented for the sweep, and given back.
        left_out: why it can't be measured at all; empty when it can.
    """

    vendor: str
    name: str
    host: str
    machine: Machine | None = None
    price: Price | None = None
    places: tuple[Place, ...] = ()
    architecture: str = ""
    gpus: int = 0
    vcpus: int = 0
    replica: int = 1
    allocation: str = "ONDEMAND"
    server_id: str = ""
    own_disk_gb: int = 0
    rented: bool = False
    left_out: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Its key in the database's table of servers."""
        return self.vendor, self.server_id or self.name


@dataclass(frozen=True)
class Found:
    """The servers that a request means, and what a reader of a plan of them must know.

    Attributes:
        servers: the servers.
        notes: sentences.
        names: names of servers that there are, for whoever asked for one that is not.
    """

    servers: Sequence[Server]
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelPlan:
    """One model on one server.

    Attributes:
        model: the model.
        scenarios: number of scenarios.
        left_out: why it is not measured; empty when it is.
        fetch_bytes: what has to be downloaded or written for it.
        expected_seconds: how long measuring it should take; nothing when the server is unknown.
        limit_seconds: how long it can take at most.
        expected_skips: number of scenarios that will probably be too slow.
    """

    model: Model
    scenarios: int
    left_out: str = ""
    fetch_bytes: int = 0
    expected_seconds: float | None = None
    limit_seconds: float = 0.0
    expected_skips: int = 0


@dataclass(frozen=True)
class JobPlan:
    """One server in one sweep.

    Attributes:
        job: identifier of the job in its sweep, made of ``a-z0-9-``.
        server: the server.
        models: its models, smallest first.
        left_out: why nothing is measured on it; empty when something is.
        measured_before: whether the expected time rests on measurements of this server.
        expected_seconds: how long it should take, from start to end; nothing when the server is unknown.
        session_seconds: the most that it may take for the budget; 0 for no limit.
        lifetime_seconds: how long a rented server may exist; 0 for what is not rented.
        disk_gb: size of a rented server's boot disk, GB.
    """

    job: str
    server: Server
    models: tuple[ModelPlan, ...] = ()
    left_out: str = ""
    measured_before: bool = False
    expected_seconds: float | None = None
    session_seconds: int = 0
    lifetime_seconds: int = 0
    disk_gb: int = 0

    @property
    def runs(self) -> bool:
        """Whether anything is measured."""
        return not self.left_out

    @property
    def limit_seconds(self) -> float:
        """How long measuring can take at most, downloads apart."""
        limit = sum(one.limit_seconds for one in self.models)
        return min(limit, self.session_seconds) if self.session_seconds else limit

    @property
    def scenarios(self) -> int:
        """Number of scenarios to measure."""
        return sum(one.scenarios for one in self.models if not one.left_out)

    @property
    def fetch_bytes(self) -> int:
        """What has to be downloaded or written."""
        return sum(one.fetch_bytes for one in self.models)


@dataclass(frozen=True)
class Plan:
    """All that a sweep would do.

    Attributes:
        suite: what is measured.
        jobs: one per server, those that are left out among them.
        weights: ``auto``, ``real`` or ``synthetic``.
        notes: sentences that a reader of the plan must not miss.
        budget: the most that it may cost, amount and currency; nothing without one.
        at_once: how many rented servers may exist at once, in all and of one vendor.
    """

    suite: Suite
    jobs: tuple[JobPlan, ...]
    weights: str
    notes: tuple[str, ...] = field(default=())
    budget: tuple[float, str] | None = None
    at_once: tuple[int, int] = (8, 4)

    @property
    def running(self) -> tuple[JobPlan, ...]:
        """The jobs that measure something."""
        return tuple(job for job in self.jobs if job.runs)


def make_plan(
    suite: Suite,
    models: Sequence[Model],
    servers: Sequence[Server],
    *,
    weights: str = "auto",
    known: Mapping[tuple[str, str], Speeds] | None = None,
    budget: tuple[float, str] | None = None,
    max_hours: float = 6.0,
    disk_gb: int = 0,
    at_once: tuple[int, int] = (8, 4),
    notes: Sequence[str] = (),
) -> Plan:
    """Plan a sweep.

    Args:
        suite: what to measure.
        models: the suite's models.
        servers: on which servers.
        weights: which weights.
        known: speeds measured earlier, by the server's key.
        budget: the most that it may cost, amount and currency.
        max_hours: how long a rented server may exist at most.
        disk_gb: size of a rented server's disk, GB; 0 for what the models need.
        at_once: how many rented servers may exist at once, in all and of one vendor.
        notes: what else a reader must know.

    Raises:
        UsageError: there is a budget, and the price of a server of one's own is unknown or in another currency.
    """
    from benchctl import rented_plan

    jobs = []
    for server, name in zip(servers, job_names(servers), strict=True):
        if server.left_out:
            jobs.append(JobPlan(name, server, left_out=server.left_out))
            continue
        job = _plan_job(name, server, suite, models, weights, (known or {}).get(server.key, {}))
        jobs.append(rented_plan.lived(job, max_hours, disk_gb) if server.rented else job)
    own = tuple(job for job in jobs if not job.server.rented)
    rented = rented_plan.in_order([job for job in jobs if job.server.rented])
    notes = list(notes)
    if weights == "auto":
        notes.append("Weights: real where the first model's address answers, else synthetic (marked as such).")
    if any(job.runs and job.server.machine is None for job in jobs):
        notes.append("What a server has is looked up when it is prepared; until then nothing is left out for it.")
    if budget is not None:
        amount, currency = budget
        own = _within(own, amount, currency, alone=not any(job.runs for job in rented))
        rented = rented_plan.within(rented, max(0.0, amount - sum(map(_share, own))), currency)
    return Plan(suite, (*own, *rented), weights, tuple(notes), budget, at_once)


def job_names(servers: Sequence[Server]) -> list[str]:
    """Identifiers for the jobs, unique and made of ``a-z0-9-``: the host's name, and a number where two are alike."""
    names: dict[str, None] = {}
    for server in servers:
        plain = slug(server.host if server.vendor != "local" else "local")
        name, number = plain, 1
        while name in names:
            number += 1
            name = f"{plain}-{number}"
        names[name] = None
    return list(names)


def slug(text: str, limit: int = 40) -> str:
    """``text`` in the letters that every cloud allows in a label: ``a-z0-9-``, beginning and ending with no hyphen."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return plain[:limit].strip("-") or "x"


def _plan_job(name: str, server: Server, suite: Suite, models: Sequence[Model], weights: str, known: Speeds) -> JobPlan:
    machine = server.machine
    settings = suite.policy
    planned: list[ModelPlan] = []
    free = machine.disk_free_bytes if machine else None
    clock = ready = 0.0
    hopeless = False
    for model in sorted(map(_sized, models), key=lambda one: (one.bytes, one.name)):
        plan = ModelPlan(model, len(suite.scenarios))
        if machine is not None:
            verdict = policy.fits_memory(model, max(machine.memory_bytes, machine.gpu_memory_bytes), settings)
            if verdict is not None:
                planned.append(replace(plan, left_out=verdict.reason))
                continue
        fetch = 0 if model.path or (machine and model.file in machine.files) else model.bytes
        if free is not None:
            if fetch > free:
                planned.append(
                    replace(plan, left_out=f"needs {fetch / GIB:.1f} GiB of disk, {free / GIB:.1f} are free")
                )
                continue
            free -= fetch
        limit = sum(policy.time_limit_seconds(one, model, settings) for one in suite.scenarios)
        plan = replace(plan, fetch_bytes=fetch, limit_seconds=limit)
        if machine is not None:
            ready += fetch / (SYNTHESIS_BYTES_PER_SECOND if weights == "synthetic" else DOWNLOAD_BYTES_PER_SECOND)
            if hopeless:
                plan = replace(plan, expected_seconds=0.0, expected_skips=plan.scenarios)
            else:
                seconds, skips, hopeless = expect(suite, model, machine, known)
                plan = replace(plan, expected_seconds=seconds, expected_skips=skips)
                clock = max(clock, ready) + seconds
        planned.append(plan)
    left_out = ""
    if all(one.left_out for one in planned):
        left_out = "none of the models fits"
    return JobPlan(
        job=name,
        server=server,
        models=tuple(planned),
        left_out=left_out,
        measured_before=bool(known),
        expected_seconds=clock if machine is not None else None,
    )


def _sized(model: Model) -> Model:
    """The model with a size to reckon with: where that of the file is unknown, it is little more than its tensors'."""
    return model if model.bytes else replace(model, bytes=model.tensor_bytes)


def expect(suite: Suite, model: Model, machine: Machine, known: Speeds) -> tuple[float, int, bool]:
    """Walk the policy's rules over known or guessed speeds of one model.

    Returns:
        Seconds that measuring should take, the number of scenarios that will probably be too slow, and whether larger
        models would then not be tried.
    """
    settings = suite.policy
    seconds, skips, missed_first = 0.0, 0, []
    for task in TASKS:
        scenarios = suite.of_task(task)
        if not scenarios:
            continue
        seconds += policy.load_allowance_seconds(model, settings)
        best = 0.0
        for position, scenario in enumerate(scenarios):
            speed = known.get((model.name, task, scenario.tokens)) or guess(model, scenario, machine)
            limit = policy.sample_limit_seconds(scenario, model, None, settings)
            sample = scenario.tokens / speed
            if position == 0:
                missed_first.append(sample > limit)
                seconds += min(sample, limit)  # the discarded first sample
            if best and scenario.tokens / best > limit:
                skips += 1
            elif sample > limit:
                skips += 1
                seconds += limit
            else:
                seconds += sample * _expected_samples(sample, settings)
            best = max(best, min(speed, 1e12))
    return seconds, skips, bool(missed_first) and all(missed_first)


def guess(model: Model, scenario: Scenario, machine: Machine) -> float:
    """A rough speed in tokens per second: prompts by arithmetic, generation by the bytes that each token reads."""
    cores = max(1, machine.physical_cores)
    factor = GPU_SPEEDUP if machine.gpu_memory_bytes else 1.0
    if scenario.task == "pp":
        # a multiplication and an addition for each parameter and token; Q4_K_M files have about 0.6 bytes per parameter
        parameters = model.parameters or model.bytes / 0.6 or 1.0
        return factor * cores * FLOPS_PER_CORE / (2 * parameters)
    weights = model.tensor_bytes or model.bytes or 1
    return factor * min(cores * BYTES_PER_SECOND_PER_CORE, BYTES_PER_SECOND) / weights


def _expected_samples(sample_seconds: float, settings: PolicySettings) -> float:
    """Long ones are taken ``min_samples`` times, short ones mostly until there is the most that is taken."""
    if sample_seconds > settings.long_sample_seconds:
        return settings.min_samples
    return (settings.min_samples + settings.max_samples) / 2


def _within(jobs: tuple[JobPlan, ...], amount: float, currency: str, *, alone: bool) -> tuple[JobPlan, ...]:
    """Divide the budget among servers of one's own: jobs in order while it lasts, each ends when its share is spent.

    A job commits what it is expected to cost (at most the limit), so that as many start as can end; the shares are in
    proportion, and a share is a limit of time that the module itself keeps. Where servers are rented as well
    (not ``alone``), no share is more than the session that a rented server would get: the rest is for them.
    """
    from benchctl.rented_plan import session_of

    for job in jobs:
        price = job.server.price
        if job.runs and (price is None or price.currency != currency):
            said = "has no price" if price is None else f"is priced in {price.currency}"
            raise UsageError(
                f"The budget is in {currency}, and the server {job.server.name} {said}.",
                f"Give its price with --price, as 0.046{currency}/h.",
            )
    chosen: list[JobPlan] = []
    committed = 0.0
    for job in jobs:
        cost = _committed_cost(job)
        if job.runs and committed + cost > amount:
            chosen.append(replace(job, left_out=f"would cost {cost:.4g} {currency}, {amount - committed:.4g} are left"))
            continue
        committed += cost if job.runs else 0.0
        chosen.append(job)
    shares = []
    for job in chosen:
        price = job.server.price
        if job.runs and price is not None and price.per_hour:
            share = amount * _committed_cost(job) / committed if committed else amount
            seconds = share / price.per_hour * 3600
            job = replace(job, session_seconds=max(1, int(seconds if alone else min(seconds, session_of(job)))))
        shares.append(job)
    return tuple(shares)


def _share(job: JobPlan) -> float:
    """What is set aside of the budget for a server of one's own."""
    return job.server.price.cost(job.session_seconds) if job.runs and job.server.price else 0.0


def _committed_cost(job: JobPlan) -> float:
    if job.server.price is None:
        return 0.0
    seconds = job.limit_seconds if job.expected_seconds is None else job.expected_seconds
    return job.server.price.cost(seconds)
