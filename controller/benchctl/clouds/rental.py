"""One job's server, from the question to the proof that it is gone.

:meth:`Rental.rent` walks the places where a type can be had until a server is there, answers SSH by the host key that
was made for it, and lets the sweep's key in. :meth:`Rental.give_back` destroys it and believes only what the vendor's
API lists afterwards. Both write down what they are about to do before they do it, so that whoever comes after a kill
knows what may exist; both may be called again at any moment.

Nothing here knows of Ansible or measurements. All methods may be called from several threads, for several jobs.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from benchctl.budget import may_start
from benchctl.clouds import ingress as addresses
from benchctl.clouds import keys, login_mark
from benchctl.clouds.cloud import DENIED, ClosedRegionError, CloudError, PartialListError, cloud_of
from benchctl.clouds.faults import fault_of
from benchctl.clouds.placement import (
    Barred,
    GiveUp,
    Later,
    StopVendor,
    TryAt,
    WaitThen,
    counts_towards,
    first_step,
    next_step,
)
from benchctl.clouds.spec import (
    FIRST,
    SHARED_JOB,
    InstanceSpec,
    Resource,
    SharedSpec,
    label_value,
    labels_of,
    resource_name,
    shared_name,
)
from benchctl.clouds.stacks import StackError, StackKilledError
from benchctl.clouds.verdicts import Book, known_logins
from benchctl.errors import BenchctlError
from benchctl.ledger import DESTROYING, GONE, PLANNED, PROVISIONING, READY
from benchctl.refusals import Refusal, classify, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchctl.clouds.cloud import Client, Cloud
    from benchctl.clouds.faults import Fault
    from benchctl.clouds.placement import Step
    from benchctl.clouds.spec import Asked
    from benchctl.clouds.stacks import Stacks
    from benchctl.ledger import JobState, Ledger

SSH_SECONDS = 420.0
"""How long a server may take from its creation to letting the sweep's key in: large machines boot for minutes."""

PROOF_SECONDS = 300.0
"""How long the vendor's API may go on listing what was destroyed before it is taken for a leak; lists lag behind."""

EXISTS_SECONDS = 5.0
"""How old a list may be that says that a server out of reach exists; that it does not is believed a new one alone."""

LOOK_SECONDS = 3.0
"""How long to wait between two looks at a vendor's list."""

CUT_SECONDS = 20.0
"""How long an empty list is not believed after an engine was killed while it asked for a server: a request that is on
its way is carried out, and lists lag."""

DESTROY_TRIES = 4
"""How often the engine is asked to destroy before the vendor's own client does it."""

ENGINE_KILLS = 3
"""How often a job's engine may be killed before the job gives up: it says nothing of the place, nor of the vendor."""

SHARED_TRIES = 4
"""How often what jobs share is asked for, where an engine was killed in the middle of it: lists lag."""

NEVER_MADE = (Refusal.QUOTA, Refusal.STOCK, Refusal.DEPRECATED, Refusal.NOT_OFFERED)
"""Refusals after which there was no server that anybody bills. After others there may have been one."""

PERHAPS_MADE = (Refusal.ACCOUNT, Refusal.THROTTLED)
"""Refusals that come before a server is made for the most part, and now and then while its making is looked at."""

OWN_SECONDS, COMING_SECONDS, GOING_SECONDS = 600.0, 60.0, 30.0
"""How long a quota is not asked for again that servers of this sweep use up: where they are there, where they are being
made, which may fail yet, and where the last of them has just gone. Where one of the vendor's servers is given back
meanwhile it is asked for at once."""

LAG_SECONDS = 180.0
"""How long a server that is gone may still count against a quota."""

INGRESS = "ingress"
"""The output of a stack with a firewall that says from where it lets SSH in."""

LET_IN_AT_ONCE = 4
"""At how many firewalls it is looked at once whom they let in; each look is a run of the engine."""

SHARED_MARGIN_SECONDS = 3600
"""How much longer a sweep's shared resources may live than the newest of its servers."""


class GaveUpError(BenchctlError):
    """There is no server for a job, in any place that was tried.

    Attributes:
        vendor_stopped: whether none of the vendor's other jobs needs to try either.
        cancelled: whether the user asked for the end meanwhile.
        later: whether it is other servers of this sweep that are in the way: there may be one when they are gone.
        money: whether it is the budget that they are in the way of.
    """

    def __init__(
        self,
        problem: str,
        *,
        vendor_stopped: bool = False,
        cancelled: bool = False,
        later: bool = False,
        money: bool = False,
    ) -> None:
        super().__init__(problem)
        self.vendor_stopped, self.cancelled, self.later, self.money = vendor_stopped, cancelled, later, money


class LeakError(BenchctlError):
    """Something of ours is listed still, although it was destroyed.

    Attributes:
        left: what.
    """

    def __init__(self, problem: str, mend: str, left: Sequence[Resource]) -> None:
        super().__init__(problem, mend)
        self.left = tuple(left)


class Listing:
    """What one vendor's API lists of ours, asked for by many threads and looked up once for all who wait."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask ``client``; nothing is asked yet."""
        self.client, self._clock = client, clock
        self._lock = threading.Lock()
        self._began = float("-inf")
        self._found: list[Resource] = []
        self._missing: Mapping[str, CloudError] = {}

    def fresh(self, older_by_seconds: float = 0.0, *, region: str = "") -> list[Resource]:
        """A list that was asked for after this call began, or at most so long before.

        Args:
            older_by_seconds: how long before.
            region: where what is looked for can be: other regions may fail to answer. Empty where it can be in any.

        Raises:
            CloudError: the API refuses, or can't be reached.
        """
        asked = self._clock() - older_by_seconds
        with self._lock:
            if self._began < asked:
                began = self._clock()
                try:
                    self._found, self._missing = self.client.find(), {}
                except PartialListError as error:
                    self._found, self._missing = error.found, error.missing
                self._began = began
            if self._missing and (not region or region in self._missing):
                raise self._missing.get(region) or next(iter(self._missing.values()))
            return list(self._found)


class Rental:
    """The servers of one sweep."""

    def __init__(
        self,
        ledger: Ledger,
        stacks: Stacks,
        *,
        ingress: Callable[[str], str],
        say: Callable[[str], None],
        budget: float | None = None,
        doing: Callable[[str, str], None] = lambda _job, _text: None,
        cancelled: threading.Event | None = None,
        environment: Mapping[str, str] | None = None,
        draw: random.Random | None = None,
    ) -> None:
        """Rent for the sweep of ``ledger``.

        Args:
            ledger: its book.
            stacks: Pulumi's engine.
            ingress: the CIDR from which a vendor's servers are reached.
            say: tells people what happens, one line.
            budget: the most that the sweep may cost; none for no limit.
            doing: tells what a job's server is at, a few words.
            cancelled: set when the user asked for the end.
            environment: where logins are, by default this process's.
            draw: of random waits.
        """
        self._ledger, self._stacks, self._ingress = ledger, stacks, ingress
        self._say, self._doing, self._budget = say, doing, budget
        self._cancelled = cancelled or threading.Event()
        self._environment = dict(os.environ if environment is None else environment)
        self._draw = draw or random.Random()  # noqa: S311 - waits, not secrets
        self._barred = Barred()
        self._lock = threading.Lock()
        self._scope_locks: dict[str, threading.Lock] = {}
        self._shared: dict[str, dict[str, str]] = {}
        self._lets_in: dict[str, str] = {}
        self._listings: dict[str, Listing] = {}
        self._logins: dict[str, str] = {}
        self._proven: set[str] = set()
        self._began: dict[str, str] = {}
        self._idle: set[str] = set()
        self._leaked: set[str] = set()

    # ── renting ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def rent(self, name: str) -> JobState:
        """Get a server for a job; it lets the sweep's key in when this returns.

        Raises:
            GaveUpError: there is none to be had. Nothing of the tries is left, or a :class:`LeakError` says so.
            LeakError: a try failed, and left something that could not be removed.
        """
        step = self._first_step(name)
        killed = 0
        while True:
            if isinstance(step, Later):
                raise self._later(name, step.reason)
            if isinstance(step, GiveUp) and self._short_of_money(name):
                raise self._later(name, _NO_MONEY, money=True)
            if isinstance(step, GiveUp | StopVendor):
                raise GaveUpError(step.reason, vendor_stopped=isinstance(step, StopVendor))
            if isinstance(step, WaitThen):
                self._doing(name, f"waits {step.seconds:.0f} s before it asks again")
                with self._without_engine(name):
                    self._cancelled.wait(step.seconds)
            if self._cancelled.is_set():
                raise GaveUpError("stopped before its server was there", cancelled=True)
            try:
                return self._try(name, step.place)
            except (StackError, CloudError, _NotReadyError) as error:
                killed += isinstance(error, StackKilledError)
                again = isinstance(error, StackKilledError) and killed < ENGINE_KILLS
                fault = self._understood(self._ledger.job(name), error)
                if fault.closed:
                    self._note_never_shared(self._ledger.job(name))
            made = self._was_made(self._ledger.job(name), fault)
            # nothing of a failed try may stay, also where the vendor says that nothing was made
            job = self.give_back(name, stage=PROVISIONING)
            if self._cancelled.is_set():
                raise GaveUpError("stopped before its server was there", cancelled=True)
            hold = self._in_our_own_way(job, fault)
            job = self._note_failure(job, fault, made=made, held=bool(hold))
            if again and self._affordable(name)(step.place):
                step = TryAt(step.place)
                continue
            step = next_step(
                fault,
                self._of_this_start(job),
                self._barred,
                random=self._draw.random,
                allowed=self._affordable(name),
                hold_seconds=hold,
            )

    def held(self, job: JobState) -> bool:
        """Whether asking for a job's server is of no use until others of the sweep are gone: they use a quota up."""
        if not self._barred.holds(job.vendor):
            return False
        return isinstance(self._first_step(job.job), Later)

    @property
    def idle(self) -> frozenset[str]:
        """Jobs that are being rented for, and need no engine now: they wait for SSH, or until they may ask again."""
        with self._lock:
            return frozenset(self._idle)

    @contextlib.contextmanager
    def _without_engine(self, name: str) -> Iterator[None]:
        with self._lock:
            self._idle.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._idle.discard(name)

    def _short_of_money(self, name: str) -> bool:
        """Whether a job could be tried in another place, were it not for what others of the sweep may cost still."""
        if self._budget is None or not any(one.alive for one in self._others(name)):
            return False
        job = self._of_this_start(self._ledger.job(name))
        return not isinstance(first_step(job, self._barred), GiveUp)

    def _others(self, name: str) -> list[JobState]:
        """The sweep's other jobs, but those whose server could not be destroyed: nobody knows when it will be gone."""
        return [one for one in self._ledger.jobs if one.job != name and one.job not in self._leaked]

    def _first_step(self, name: str) -> Step:
        job = self._ledger.job(name)
        return first_step(self._of_this_start(job), self._barred, allowed=self._affordable(name))

    def _of_this_start(self, job: JobState) -> JobState:
        """A job without the tries from before the sweep was resumed: they say nothing of today."""
        began = self._began.setdefault(job.job, _iso(datetime.now(UTC)))
        return replace(job, attempts=tuple(one for one in job.attempts if one["at"] >= began))

    def _later(self, name: str, why: str, *, money: bool = False) -> GaveUpError:
        """A job goes back to those that wait, because other servers of the sweep are in its way."""
        self._ledger.update(name, stage=PLANNED, status="waiting")
        return GaveUpError(f"waits until others of the sweep's servers are gone: {why}", later=True, money=money)

    def _in_our_own_way(self, job: JobState, fault: Fault) -> float:
        """How long a quota is not asked for again because the sweep's own servers use it up; 0 where they don't."""
        if fault.refusal is not Refusal.QUOTA:
            return 0.0
        seconds = 0.0
        lately = datetime.now(UTC) - timedelta(seconds=LAG_SECONDS)
        for one in self._others(job.job):
            if not one.launched_at or not counts_towards(fault, job, one):
                continue
            if not one.alive:
                going = one.gone_at is not None and datetime.fromisoformat(one.gone_at) > lately
                seconds = max(seconds, GOING_SECONDS if going else 0.0)
            elif one.stage == PROVISIONING:
                seconds = max(seconds, COMING_SECONDS)
            else:
                return OWN_SECONDS
        return seconds

    def _was_made(self, job: JobState, fault: Fault) -> bool:
        """Whether a failed try may have made a server that the vendor bills; where nobody knows, it may."""
        if fault.refusal not in PERHAPS_MADE:
            return fault.refusal not in NEVER_MADE
        cloud = cloud_of(job.vendor)
        try:
            held = any(one.name == job.host and one.id for one in self._stacks.resources(self.stack(job.job)))
            return held or any(one.name == job.host for one in self.listing(cloud).fresh(region=job.region))
        except BenchctlError:
            return fault.refusal is not Refusal.ACCOUNT  # who is not let in can't make anything either

    def _understood(self, job: JobState, error: BenchctlError) -> Fault:
        """What a failure means; where its words leave the login in doubt, the vendor is asked who we are."""
        said = getattr(error, "said", "") or str(error)
        known = getattr(error, "refusal", None)
        if isinstance(error, _NotReadyError):
            known = Refusal.TIMEOUT
        fault = fault_of(job.vendor, said, known)
        if not fault.doubtful:
            return fault
        try:
            self.listing(cloud_of(job.vendor)).client.whoami()
        except CloudError:
            return fault.asked(login_works=False)
        return fault.asked(login_works=True)

    def _affordable(self, name: str) -> Callable[[Mapping[str, Any]], bool]:
        """Whether the budget covers a job in a place; the first try was looked at before it was told to start."""
        if self._budget is None:
            return lambda _place: True

        def covered(place: Mapping[str, Any]) -> bool:
            with self._ledger.held():
                others = [one for one in self._ledger.jobs if one.job != name or not one.alive]
                return may_start(
                    self._ledger.job(name), others, self._budget, datetime.now(UTC), place.get("budget_per_hour")
                )

        return covered

    def _try(self, name: str, place: Mapping[str, Any]) -> JobState:
        """One try in one place."""
        ledger = self._ledger
        job = ledger.job(name)
        cloud = cloud_of(job.vendor)
        with ledger.held():
            # others may have taken the money while this one waited; asking and promising is one step
            if not self._affordable(name)(place):
                raise self._later(name, _NO_MONEY, money=True)
            now = datetime.now(UTC)
            job = ledger.update(
                name,
                stage=PROVISIONING,
                status="running",
                error=None,
                attempt=job.attempt + 1,
                host=resource_name(ledger.sweep, name, job.attempt + 1),
                region=place["region"],
                zone=place.get("zone") or "",
                price_per_hour=place.get("price_per_hour"),
                currency=place.get("currency"),
                budget_per_hour=place.get("budget_per_hour"),
                past=_with_last(job),
                launched_at=_iso(now),
                expires_at=_iso(now + timedelta(seconds=job.lifetime_seconds)),
                gone_at=None,
                address="",
                host_key="",
                user="",
                ansible_job=None,
                login="",
            )
        job = ledger.update(name, login=self._login(cloud))
        spec = self.spec(job)
        shared = self._ensure_shared(cloud, job, spec)
        asked = cloud.resources(spec)
        ledger.asked(name, asked)
        where = _where(job)
        self._doing(name, f"asking for a server in {where}")
        outputs = self._stacks.up(
            self.stack(name),
            lambda: {**cloud.program(spec, shared), INGRESS: spec.ingress},
            environment=cloud.engine_environment(self._environment),
            log=self._log(name),
            on_event=lambda text: self._doing(name, text),
            timeout_seconds=cloud.engine_seconds,
            cancelled=self._cancelled.is_set,
        )
        self._lets_in[job.host] = spec.ingress
        ids: Mapping[str, Any] = outputs.get("ids") or {}
        address = str(outputs.get("address") or "")
        for one in asked:
            ledger.resource(
                one.name, "alive", cloud_id=str(ids[one.name]) if one.name in ids else None,
                address=address if one.kind == "server" else None,
            )  # fmt: skip
        job = ledger.update(
            name,
            address=address,
            port=int(outputs.get("port") or 22),
            user=cloud.user(spec),
            host_key=spec.host_key.public,
        )
        if not address:
            raise _NotReadyError(f"The vendor gave {job.host} no address.")
        self._doing(name, "waiting for SSH")
        try:
            with self._without_engine(name):
                self._await_ssh(job)
        except _NotReadyError as error:
            moved = "" if self._cancelled.is_set() else self._moved(job.vendor, spec.ingress)
            raise _NotReadyError(f"{error} {moved}".strip()) from error
        self._doing(name, "")
        self._say(f"{name}: {job.host} is there, in {where}.")
        return ledger.update(name, stage=READY)

    def spec(self, job: JobState) -> InstanceSpec:
        """What is asked of the vendor for a job in the place that its book names."""
        request, folder = self._ledger.request, self._ledger.folder
        expires = int(datetime.fromisoformat(job.expires_at or _iso(datetime.now(UTC))).timestamp())
        return InstanceSpec(
            vendor=cloud_of(job.vendor).name,
            server_type=job.server,
            region=job.region,
            zone=job.zone,
            architecture=job.architecture or "x86_64",
            name=job.host,
            ssh_public_key=keys.ensure_login_key(folder),
            host_key=keys.ensure_host_key(folder, job.host),
            ingress=self._ingress(job.vendor),
            expires_at=expires,
            labels=labels_of(self._ledger.sweep, job.job, expires),
            gpus=job.gpus,
            image=request.image,
            disk_gb=job.disk_gb or 75,
            spot=job.allocation == "SPOT",
            memory_gib=job.memory_gib,
            settings=self._settings(),
        )

    def _settings(self) -> dict[str, Any]:
        request = self._ledger.request
        return {
            "cache": str(self._ledger.home.cache),
            "recorded": request.recorded,
            "time_scale": request.time_scale,
        }

    def _ensure_shared(
        self, cloud: Cloud, job: JobState, spec: InstanceSpec, *, standing_alone: bool = False
    ) -> dict[str, str]:
        """Make what the sweep's jobs share there, once; returns the stack's outputs.

        ``standing_alone``: change whom it lets in, where it stands as a whole, and make nothing.
        """
        scope = cloud.shared_scope(job.region)
        if scope is None:
            return {}
        key = f"{cloud.name}/{scope}"
        with self._lock:
            lock = self._scope_locks.setdefault(key, threading.Lock())
        with lock:
            if key in self._shared and self._shared[key][INGRESS] == spec.ingress:
                return self._shared[key]
            shared = self._shared_spec(cloud, scope, spec)
            asked = cloud.shared_resources(shared)
            self._doing(job.job, "asking for the sweep's key and firewall")
            outputs, standing = self._standing(cloud, shared, asked)
            if standing_alone and not outputs:
                return {}
            self._ledger.asked(job.job, asked)
            if not outputs or outputs.get(INGRESS) != shared.ingress:
                if outputs:
                    self._say(
                        f"{cloud.name}: this machine's address has changed; the sweep's firewall lets in "
                        f"{shared.ingress} from now on."
                    )
                outputs = self._make_shared(cloud, standing, asked, job)
            for one in asked:
                self._ledger.resource(one.name, "alive")
            self._shared[key] = {name: str(value) for name, value in outputs.items()}
            return self._shared[key]

    def _standing(self, cloud: Cloud, shared: SharedSpec, asked: Sequence[Asked]) -> tuple[dict[str, Any], SharedSpec]:
        """What was made before of what jobs share, where the cloud lists all of it still; and as what it was made.

        Made as ``shared`` it would be changed, because its expiry is another now, and not every resource can be. So
        the one that is returned differs from what stands in nothing but who is let in.
        """
        stack = self.shared_stack(cloud.name, shared.scope)
        names = {one.name for one in asked}
        try:
            held = self._stacks.resources(stack)
            if not held or any(one.pending for one in held):
                return {}, shared
            listed = [one for one in self.listing(cloud).fresh(region=shared.scope) if one.name in names]
            if {one.name for one in listed} != names:
                return {}, shared
            outputs = self._stacks.outputs(stack)
        except BenchctlError:
            return {}, shared  # making it says what is wrong
        expires = next((one.expires_at for one in listed if one.expires_at), shared.expires_at)
        labels = labels_of(self._ledger.sweep, SHARED_JOB, expires)
        return outputs, replace(shared, expires_at=expires, labels=labels)

    def _make_shared(self, cloud: Cloud, shared: SharedSpec, asked: Sequence[Asked], job: JobState) -> dict[str, Any]:
        """Make what jobs share. What an engine left that was killed in the middle of it is put right first."""
        stack, environment = self.shared_stack(cloud.name, shared.scope), cloud.engine_environment(self._environment)
        place = label_value(shared.scope) if shared.scope else "all"
        log = self._ledger.folder / f"{SHARED_JOB}-{cloud.name}-{place}.log"
        cut = False
        for tries_left in reversed(range(SHARED_TRIES)):
            try:
                return self._stacks.up(
                    stack,
                    lambda: {**cloud.shared_program(shared), INGRESS: shared.ingress},
                    environment=environment,
                    log=log,
                    on_event=lambda text: self._doing(job.job, text),
                    timeout_seconds=cloud.engine_seconds,
                    cancelled=self._cancelled.is_set,
                )
            except StackError as error:
                held = self._stacks.recover(stack, environment=environment, log=log)
                cut = cut or held is not None or isinstance(error, StackKilledError)
                if not cut or not tries_left or self._cancelled.is_set():
                    raise
                if held is None:
                    held = self._stacks.resources(stack)
            self._delete_unknown(cloud, shared.scope, asked, {one.name for one in held})
            self._cancelled.wait(LOOK_SECONDS)
        raise AssertionError("the last try returns or raises")  # pragma: no cover

    def _delete_unknown(self, cloud: Cloud, scope: str, asked: Sequence[Asked], known: set[str]) -> None:
        """Delete what jobs were to share and the engine does not know of: it would be in the way of its own names."""
        names = {one.name for one in asked}
        with contextlib.suppress(CloudError):  # what is in the way still is said by the next try
            for one in self.listing(cloud).fresh(region=scope):
                if one.name in names - known:
                    self.listing(cloud).client.delete(one)

    def _note_never_shared(self, job: JobState) -> None:
        """Write down that in a region that is closed to the account nothing was made that jobs would share."""
        cloud = cloud_of(job.vendor)
        scope = cloud.shared_scope(job.region)
        if scope is None or f"{cloud.name}/{scope}" in self._shared:
            return
        with contextlib.suppress(BenchctlError):
            if self._stacks.resources(self.shared_stack(cloud.name, scope)):
                return  # from before it was closed
            for one in cloud.shared_resources(self._shared_spec(cloud, scope, self.spec(job))):
                self._ledger.resource(one.name, "refused")

    def _shared_spec(self, cloud: Cloud, scope: str, spec: InstanceSpec) -> SharedSpec:
        longest = max((one.lifetime_seconds for one in self._ledger.jobs), default=0)
        jobs = sum(1 for one in self._ledger.jobs if one.rented)
        # with few at once many jobs follow each other: what they share has to outlive the last of them
        rounds = 1 + jobs // max(1, min(self._ledger.request.concurrency, self._ledger.request.per_vendor))
        expires = int(time.time()) + longest * rounds + SHARED_MARGIN_SECONDS
        return SharedSpec(
            vendor=cloud.name,
            scope=scope,
            name=shared_name(self._ledger.sweep, cloud.name, scope),
            ssh_public_key=spec.ssh_public_key,
            ingress=spec.ingress,
            expires_at=expires,
            labels=labels_of(self._ledger.sweep, SHARED_JOB, expires),
        )

    def _note_failure(self, job: JobState, fault: Fault, *, made: bool, held: bool) -> JobState:
        """Keep what was tried and what the vendor said; of a server that was never made nothing is reckoned."""
        launched = job.launched_at if made else None
        noted = {
            "region": job.region,
            "zone": job.zone,
            "refusal": str(fault.refusal or ""),
            "said": fault.said,
            "held": held,
            "at": _iso(datetime.now(UTC)),
            "launched_at": launched,
            "gone_at": job.gone_at,
            "budget_per_hour": job.budget_per_hour,
            "price_per_hour": job.price_per_hour,
            "currency": job.currency,
        }
        self._say(f"{job.job}: no server in {_where(job)} ({fault.refusal or 'unknown words'}): {fault.said}")
        return self._ledger.update(job.job, attempts=(*job.attempts, noted), launched_at=launched)

    def _await_ssh(self, job: JobState) -> None:
        """Wait until the server lets the sweep's key in, by the host key that was made for it.

        Raises:
            _NotReadyError: it does not in time.
        """
        deadline = time.monotonic() + SSH_SECONDS
        said = ""
        known = keys.keys_folder(self._ledger.folder) / f"{job.host}.known_hosts"
        place = job.address if job.port == 22 else f"[{job.address}]:{job.port}"
        known.write_text(f"{place} {job.host_key}\n")
        try:
            while True:
                said = _ssh_problem(job, str(keys.login_key(self._ledger.folder)), str(known))
                if not said:
                    return
                if self._cancelled.is_set():
                    raise _NotReadyError("stopped while it booted")
                if time.monotonic() > deadline:
                    raise _NotReadyError(
                        f"{job.host} ({job.address}) did not let us in within {SSH_SECONDS / 60:.0f} minutes: {said}"
                    )
                self._cancelled.wait(1.0)
        finally:
            known.unlink(missing_ok=True)

    def _moved(self, vendor: str, let_in: str) -> str:
        """That this machine's address is another than what a firewall lets in; empty where it is not.

        Whoever asks for the ingress afterwards gets the new one.
        """
        addresses.look_again()
        try:
            now = self._ingress(vendor)
        except BenchctlError:
            return ""
        if now == let_in:
            return ""
        return f"This machine's address has changed: the firewall lets in {let_in}, and it is {now} now."

    # ── letting in ──────────────────────────────────────────────────────────────────────────────────────────────────

    def let_in(self, jobs: Sequence[JobState], *, look_again: bool = False) -> None:
        """Where firewalls of live servers let in another address than this machine's, let this one in instead.

        The servers stay, and go on. What fails is said: whether they answer has to be looked at anyway.

        Args:
            jobs: whose servers they are.
            look_again: whether this machine's address is asked for anew.
        """
        if look_again:
            addresses.look_again()
        try:
            for vendor in {job.vendor for job in jobs}:
                self._ingress(vendor)
        except BenchctlError as error:
            self._say(f"Whom the firewalls should let in is not known: {error}")
            return
        firewalls: dict[str, JobState] = {}
        for job in jobs:
            cloud = cloud_of(job.vendor)
            scope = cloud.shared_scope(job.region)
            firewalls.setdefault(self.stack(job.job) if scope is None else self.shared_stack(cloud.name, scope), job)
        with ThreadPoolExecutor(LET_IN_AT_ONCE, thread_name_prefix="let-in") as pool:
            list(pool.map(self._let_in_by_one, firewalls.values()))

    def _let_in_by_one(self, job: JobState) -> None:
        """The one firewall that stands before a job's server."""
        cloud = cloud_of(job.vendor)
        try:
            spec = self.spec(job)
            if cloud.shared_scope(job.region) is None:
                self._let_in_by_own(cloud, job, spec)
            else:
                self._ensure_shared(cloud, job, spec, standing_alone=True)
        except BenchctlError as error:
            self._say(f"{job.job}: whom its firewall lets in could not be changed: {error}")
        finally:
            self._doing(job.job, "")

    def _let_in_by_own(self, cloud: Cloud, job: JobState, spec: InstanceSpec) -> None:
        """The firewall that is of the job's own stack, of which nothing else is changed."""
        now = self._ledger.job(job.job)
        if not now.alive or now.host != job.host or now.stage == DESTROYING:
            return  # it was given back meanwhile
        stack = self.stack(job.job)
        lets_in = self._lets_in.get(job.host)
        if lets_in is None:
            outputs = self._stacks.outputs(stack)
            if not outputs:
                return  # it was never made to its end
            lets_in = outputs.get(INGRESS)
        if lets_in != spec.ingress:
            self._say(
                f"{job.job}: this machine's address has changed; the server's firewall lets in {spec.ingress} from now "
                "on."
            )
            self._stacks.up(
                stack,
                lambda: {**cloud.program(spec, {}), INGRESS: spec.ingress},
                only=f"{job.host}-firewall",
                environment=cloud.engine_environment(self._environment),
                log=self._log(job.job),
                timeout_seconds=cloud.engine_seconds,
                cancelled=self._cancelled.is_set,
            )
        self._lets_in[job.host] = spec.ingress

    # ── giving back ─────────────────────────────────────────────────────────────────────────────────────────────────

    def give_back(self, name: str, *, stage: str = DESTROYING) -> JobState:
        """Destroy all that a job has, and wait until the vendor's API no longer lists it.

        Args:
            name: the job.
            stage: the stage that its book shows meanwhile; another than ``destroying`` where it is to be tried again.

        Raises:
            LeakError: something is listed still, or nobody could be asked.
        """
        try:
            job = self._give_back(name, stage)
        except LeakError:
            self._leaked.add(name)
            raise
        self._leaked.discard(name)
        return job

    def _give_back(self, name: str, stage: str) -> JobState:
        job = self._note(name, stage=stage)
        cloud = cloud_of(job.vendor)
        self._doing(name, "being destroyed")
        self._assure_login(cloud, job)
        trouble, cut = self._destroy_stack(
            self.stack(name), cloud, self._log(name), lambda text: self._doing(name, text)
        )
        sweep, label = label_value(self._ledger.sweep), label_value(name)

        def ours(one: Resource) -> bool:
            return (one.sweep, one.job) == (sweep, label) or one.name.startswith(job.host)

        left = self._prove_gone(cloud, ours, job, cut=cut)
        if left:
            # the API has the last word: what the engine could not do, the vendor's client may have done
            raise _leak(cloud, left, trouble, job.host)
        with contextlib.suppress(BenchctlError):
            for one in cloud.resources(self.spec(job)):
                self._ledger.resource(one.name, "gone")
        keys.forget_host_key(self._ledger.folder, job.host)
        self._doing(name, "")
        changes: dict[str, Any] = {"gone_at": _iso(datetime.now(UTC))}
        if stage == DESTROYING:
            changes["stage"] = GONE
            self._barred.freed(job.vendor)
        return self._note(name, **changes)

    def _login(self, cloud: Cloud) -> str:
        """The mark of the login at a vendor; asked for once.

        Raises:
            CloudError: only the API knows the account, and it refuses or can't be reached.
        """
        if cloud.name not in self._logins:
            client = self.listing(cloud).client
            self._logins[cloud.name] = login_mark.mark(self._ledger.home, cloud, self._environment, client)
        return self._logins[cloud.name]

    def _assure_login(self, cloud: Cloud, job: JobState, *, patient: bool = True) -> None:
        """Believe nothing that another account's list lacks, and let its engine forget nothing.

        Args:
            cloud: the vendor.
            job: whose server it is about.
            patient: whether an API that fails is asked again for a while.

        Raises:
            LeakError: the server was rented with another login, and nothing says that it is of the same account.
        """
        if not job.login or job.login in self._proven:
            return
        sweep = label_value(self._ledger.sweep)
        deadline = time.monotonic() + (PROOF_SECONDS if patient else 0.0)
        while True:
            try:
                known = {self._login(cloud)}
                if job.login not in known:
                    shown = [one.job for one in self.listing(cloud).fresh() if one.sweep == sweep]
                    book = Book(self._ledger.sweep, self._ledger.jobs)
                    known = known_logins(book, cloud.name, self._login(cloud), shown)
                break
            except CloudError as error:
                if error.refusal is Refusal.ACCOUNT or time.monotonic() >= deadline:
                    raise _cannot_ask(cloud, job, error) from error
                time.sleep(self._draw.uniform(0.5, LOOK_SECONDS))
        if job.login not in known:
            raise LeakError(
                f"{job.host} was rented at {cloud.name} with another login, and this one lists nothing of its sweep; "
                "it may be alive.",
                f"Resume with that login; {login_mark.MEND}",
                (),
            )
        self._proven.add(job.login)

    def _note(self, name: str, **changes: Any) -> JobState:
        """Write down how far giving back is; a full disk must not keep a server alive."""
        try:
            return self._ledger.update(name, **changes)
        except BenchctlError as error:
            self._say(f"{name}: {error}")
            return self._ledger.job(name)

    def _destroy_stack(self, stack: str, cloud: Cloud, log: Any, on_event: Callable[[str], None]) -> tuple[str, bool]:
        """Let the engine destroy what it knows of.

        Returns:
            What stood in the way at last, empty for nothing; and whether an engine was killed while it was making what
            may be there since, and is in no state.
        """
        trouble = ""
        for number in range(DESTROY_TRIES):
            if number:
                # full jitter: whoever fails together does not come back together
                time.sleep(self._draw.uniform(0.5, 2.0**number * 2))
            try:
                unknown = self._stacks.destroy(
                    stack,
                    environment=cloud.engine_environment(self._environment),
                    log=log,
                    on_event=on_event,
                    timeout_seconds=cloud.engine_seconds,
                )
            except BenchctlError as error:
                trouble = getattr(error, "said", "") or str(error)
                if classify(trouble) is Refusal.ACCOUNT:
                    break  # it will say the same again
            else:
                # a try before may have put the state right, and not have come to say what was missing
                return "", bool(unknown or number)
        return trouble, True

    def _prove_gone(
        self, cloud: Cloud, ours: Callable[[Resource], bool], job: JobState | None, *, cut: bool = False
    ) -> list[Resource]:
        """Delete what the API lists still, and look again until it lists nothing; returns what is left at last.

        A server whose creation failed may appear in the list only after a while: where a try failed, an empty list is
        believed the second time, and where an engine was killed (``cut``) once nothing has shown for a while. In a
        region that is closed to the account nothing can have been made, and nothing can be looked for.
        """
        believed_after = time.monotonic() + (CUT_SECONDS if cut else 0.0)
        deadline = believed_after + PROOF_SECONDS
        unsure = job is not None and not job.address
        asked_to_go: set[str] = set()
        empty = 0
        left: list[Resource] = []
        while True:
            try:
                left = [one for one in self.listing(cloud).fresh(region=job.region if job else "") if ours(one)]
            except CloudError as error:
                if isinstance(error, ClosedRegionError) and unsure:
                    return []
                if error.refusal in DENIED or time.monotonic() > deadline:
                    raise _cannot_ask(cloud, job, error, left) from error
                time.sleep(self._draw.uniform(0.5, LOOK_SECONDS))
                continue
            if not left:
                empty += 1
                # what was listed once, and was deleted, is not waited for any longer
                if not unsure or (empty > 1 and (asked_to_go or time.monotonic() >= believed_after)):
                    return []
            elif time.monotonic() > deadline:
                return left
            for one in sorted(left, key=lambda one: (one.kind not in FIRST, one.kind == "server", one.attached)):
                if one.id in asked_to_go and self._draw.random() < 0.5:
                    continue
                with contextlib.suppress(CloudError):
                    self.listing(cloud).client.delete(one)
                asked_to_go.add(one.id)
            time.sleep(min(LOOK_SECONDS, 0.3 * 2 ** min(4, len(asked_to_go) + empty)))

    def exists(self, job: JobState) -> bool:
        """Whether the vendor's API lists the job's server.

        Raises:
            CloudError: the API refuses, or can't be reached.
            LeakError: another login would have to say it.
        """
        cloud = cloud_of(job.vendor)
        self._assure_login(cloud, job, patient=False)  # whoever asks has others to look at, and asks again
        # where a network is cut, a whole fleet is asked for one by one; what a list of a moment ago lacks may be new
        return any(
            one.kind == "server" and one.name == job.host
            for older in (EXISTS_SECONDS, 0.0)
            for one in self.listing(cloud).fresh(older, region=job.region)
        )

    # ── what is where ───────────────────────────────────────────────────────────────────────────────────────────────

    def listing(self, cloud: Cloud) -> Listing:
        """What the vendor's API lists, for all threads.

        Raises:
            CloudError: there is no login.
        """
        with self._lock:
            if cloud.name not in self._listings:
                regions = sorted({one.region for one in self._ledger.jobs if one.region and _is_of(one, cloud)})
                planned = {
                    str(place["region"]) for one in self._ledger.jobs if _is_of(one, cloud) for place in one.places
                }
                self._listings[cloud.name] = Listing(cloud.client(self._environment, sorted(planned.union(regions))))
            return self._listings[cloud.name]

    def stack(self, name: str) -> str:
        """The name of a job's stack."""
        return f"{self._ledger.sweep}.{name}"

    def shared_stack(self, vendor: str, scope: str) -> str:
        """The name of the stack of what is shared."""
        return f"{self._ledger.sweep}.{SHARED_JOB}-{vendor}" + (f"-{label_value(scope)}" if scope else "")

    def _log(self, name: str) -> Any:
        return self._ledger.job_folder(name) / "engine.log"


_NO_MONEY = "they may cost what is left of the budget"


class _NotReadyError(BenchctlError):
    """A server was made, and can't be used."""


def _cannot_ask(cloud: Cloud, job: JobState | None, error: CloudError, left: Sequence[Resource] = ()) -> LeakError:
    """What is said where nobody knows what is alive still."""
    return LeakError(
        f"{cloud.name} can't be asked what is left of {job.host if job else 'the sweep'}: {error}",
        "Run 'benchctl reap' when it answers.",
        left,
    )


def _leak(cloud: Cloud, left: Sequence[Resource], trouble: str, name: str) -> LeakError:
    """What is said of what is, or may be, alive still."""
    told = ", ".join(f"{one.kind} {one.name} ({one.id})" for one in left)
    return LeakError(
        f"{cloud.name} still lists {told} of {name}, and may bill it. {shortened(trouble)}".strip(),
        "Run 'benchctl reap', and look at the vendor's console.",
        left,
    )


def _is_of(job: JobState, cloud: Cloud) -> bool:
    return job.rented and job.vendor in (cloud.name, cloud.vendor_id)


def _with_last(job: JobState) -> tuple[Mapping[str, Any], ...]:
    """The servers that a job has had, the newest among them, which makes room for the next."""
    if not job.launched_at:
        return job.past
    last = {
        "launched_at": job.launched_at,
        "gone_at": job.gone_at,
        "budget_per_hour": job.budget_per_hour,
        "price_per_hour": job.price_per_hour,
        "currency": job.currency,
    }
    return (*job.past, last)


def _where(job: JobState) -> str:
    return job.zone if job.zone.startswith(job.region) else f"{job.region} {job.zone}".strip()


def _ssh_problem(job: JobState, key: str, known_hosts: str) -> str:
    """Why the server does not let us in; empty when it does."""
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": "5",
        "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "ServerAliveInterval": "5",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": known_hosts,
    }
    command = ["ssh", "-F", "none", "-n", "-p", str(job.port), "-i", key]
    command += [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    try:
        done = subprocess.run(
            [*command, "-l", job.user, "--", job.address, "true"],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=30,
        )
    except subprocess.TimeoutExpired:
        return "no answer in 30 s"
    except OSError as error:
        raise _NotReadyError(f"ssh can't be run: {error.strerror}.") from error
    if done.returncode == 0:
        return ""
    return " ".join(done.stderr.split())[-200:] or f"ssh ended with status {done.returncode}"


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
