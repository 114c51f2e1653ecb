"""What a sweep was asked for and how far each of its jobs is, written through at every step.

``STATE/sweeps/SWEEP/sweep.json`` is what resuming reads, and beside it ``jobs/JOB/job.json`` for each job that has
changed since: a sweep of two thousand jobs would else write its whole book at every step of each. The tables ``sweep``
and ``job`` say the same to everybody else. Files are written first: a controller that dies between the two is put right
by the next start. What a request holds of secrets lies beside the keys, in ``keys/request.json``: a book may be shown
to somebody. Threads may write at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benchctl import budget
from benchctl.errors import BenchctlError, UsageError
from benchctl.names import LAST, sweep_meant
from benchctl.plan import slug
from benchctl.request import SweepRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Engine

    from benchctl.clouds.spec import Asked
    from benchctl.db.columns import Base
    from benchctl.db.schema import JobServer
    from benchctl.home import Home

FILE = "sweep.json"
JOB_FILE = "job.json"
SECRETS = "keys/request.json"

ENDED = ("finished", "stopped", "failed")

PLANNED, PROVISIONING, READY = "planned", "provisioning", "ready"
PREPARING, BENCHING, COLLECTING, INGESTING = "preparing", "benching", "collecting", "ingesting"
DESTROYING, GONE, DONE = "destroying", "gone", "done"

STAGES = (PLANNED, PROVISIONING, READY, PREPARING, BENCHING, COLLECTING, INGESTING, DESTROYING, GONE)
"""The stages of a job on a rented server. On one's own nothing is provisioned, and ``done`` follows ingesting."""

_OLD_STAGES = {
    "plan": PLANNED, "prepare": PREPARING, "bench": BENCHING, "collect": COLLECTING, "ingest": INGESTING
}  # fmt: skip
"""Stages as books up to version 0.1 call them."""


@dataclass(frozen=True)
class JobState:
    """How far one job is.

    Attributes:
        job: identifier in the sweep, made of ``a-z0-9-``.
        vendor: the vendor, as the database calls it.
        server: identifier of the server; of a rented one the type as the vendor's API calls it.
        host: its name in the inventory; of a rented one also its name in the cloud.
        price_per_hour: what it costs, in ``currency``, where it was launched; nothing when unknown.
        currency: of the price.
        session_seconds: the most that measuring may take; 0 for no limit.
        stage: the stage that it is in, or ended in.
        status: ``waiting``, ``running``, ``finished``, ``stopped`` or ``failed``.
        started_at: when its first stage began, ISO time in UTC.
        ended_at: when its last one ended.
        error: why it failed, one sentence.
        ansible_job: Ansible's number of the detached task, to ask how it ended.
        restarts: how often the measurement died and was started again.
        server_id: the database's identifier of the server, where it is another than ``server``.
        replica: 1, 2, ... where several instances of a type are measured.
        architecture: ``x86_64`` or ``arm64``; empty when unknown.
        gpus: number of GPUs.
        vcpus: number of vCPUs, which quotas count; 0 when unknown.
        memory_gib: RAM of the type, GiB; 0 when unknown.
        disk_gb: size of the boot disk that the suite needs, GB; 0 when nothing is rented.
        allocation: ``ONDEMAND`` or ``SPOT``.
        places: where it can be rented, the cheapest first: ``{region, zone, price_per_hour, currency,
            budget_per_hour}``.
        region: where it was launched, as the vendor's API calls it.
        zone: where it was launched.
        lifetime_seconds: how long a rented server may exist from its launch to its expiry.
        budget_per_hour: the price in the currency of the budget; nothing without a budget.
        attempt: number of the newest try to rent; 0 before the first.
        attempts: the tries that failed: ``{region, zone, refusal, said, at}``, the vendor's own words in ``said``,
            and of the server, if there was one, what ``past`` has.
        past: servers that the job had before the newest one: ``{launched_at, gone_at, budget_per_hour,
            price_per_hour, currency}``.
        launched_at: when the server that is alive, or was last, was asked for, ISO time in UTC.
        expires_at: when it must be gone, ISO time in UTC.
        gone_at: when the cloud said that it is gone.
        address: where SSH reaches it.
        port: of SSH.
        user: who logs in.
        host_key: its public host key.
        login: mark of the login with which the newest server was asked for, see :mod:`benchctl.clouds.logins`; empty
            where nothing tells.
    """

    job: str
    vendor: str
    server: str
    host: str
    price_per_hour: float | None = None
    currency: str | None = None
    session_seconds: int = 0
    stage: str = PLANNED
    status: str = "waiting"
    started_at: str | None = None
    ended_at: str | None = None
    error: str | None = None
    ansible_job: str | None = None
    restarts: int = 0
    server_id: str = ""
    replica: int = 1
    architecture: str = ""
    gpus: int = 0
    vcpus: int = 0
    memory_gib: float = 0.0
    disk_gb: int = 0
    allocation: str = "ONDEMAND"
    places: tuple[Mapping[str, Any], ...] = ()
    region: str = ""
    zone: str = ""
    lifetime_seconds: int = 0
    budget_per_hour: float | None = None
    attempt: int = 0
    attempts: tuple[Mapping[str, Any], ...] = ()
    past: tuple[Mapping[str, Any], ...] = ()
    launched_at: str | None = None
    expires_at: str | None = None
    gone_at: str | None = None
    address: str = ""
    port: int = 22
    user: str = ""
    host_key: str = ""
    login: str = ""

    @property
    def rented(self) -> bool:
        """Whether its server is one that has to be given back."""
        return self.lifetime_seconds > 0

    @property
    def alive(self) -> bool:
        """Whether a server of this job exists, or may exist, and costs money."""
        return self.rented and self.launched_at is not None and self.gone_at is None

    @property
    def price_usd_per_hour(self) -> float | None:
        """The price, where it is in USD."""
        return self.price_per_hour if self.currency == "USD" else None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it by itself."""
        return self.status in ENDED


class Ledger:
    """One sweep's book, open for writing."""

    def __init__(
        self,
        home: Home,
        engine: Engine,
        sweep: str,
        request: SweepRequest,
        jobs: Iterable[JobState],
        *,
        created_at: str,
        status: str = "running",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Nothing is written yet; see :meth:`create` and :meth:`open`."""
        self.home, self._engine, self.sweep, self.request = home, engine, sweep, request
        self.created_at, self.status = created_at, status
        self.error: str | None = None
        self.finished_at: str | None = None
        self._clock = clock
        self._jobs = {one.job: one for one in jobs}
        self._lock = threading.RLock()

    @classmethod
    def create(
        cls,
        home: Home,
        engine: Engine,
        request: SweepRequest,
        jobs: Sequence[JobState],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sweep: str | None = None,
    ) -> Ledger:
        """Begin the book of a new sweep, under the name ``sweep`` or one made now.

        Raises:
            BenchctlError: the state directory can't be written.
            DatabaseError: the database can't be written.
        """
        now = clock()
        ledger = cls(
            home, engine, sweep or sweep_name(request.vendors, now), request, jobs, created_at=_iso(now), clock=clock
        )
        ledger._write()
        return ledger

    @classmethod
    def open(
        cls, home: Home, engine: Engine, sweep: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> Ledger:
        """Open the book of a sweep that was begun before.

        Raises:
            BenchctlError: the book can't be read.
        """
        book = read_book(home, sweep)
        try:
            jobs = jobs_of(book)
            request = SweepRequest.from_dict(book["request"])
            created_at = book["created_at"]
        except (KeyError, TypeError) as error:
            raise _damaged(home, sweep, str(error)) from error
        ledger = cls(home, engine, sweep, request, jobs, created_at=created_at, status=book["status"], clock=clock)
        ledger.finished_at = book.get("finished_at")
        return ledger

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return self.home.sweeps / self.sweep

    @property
    def jobs(self) -> tuple[JobState, ...]:
        """All jobs as they are now."""
        return tuple(self._jobs.values())

    def job(self, name: str) -> JobState:
        """One job as it is now."""
        return self._jobs[name]

    def job_folder(self, name: str) -> Path:
        """Where a job's live progress lies, and for this machine the state folder of its measurement."""
        return self.folder / "jobs" / name

    def update(self, name: str, **changes: Any) -> JobState:
        """Change a job, and write it through. Its start and end are noted by themselves."""
        with self._lock:
            before = self._jobs[name]
            after = replace(before, **changes)
            if after.status == "running" and not after.started_at:
                after = replace(after, started_at=_iso(self._clock()))
            if after.ended and not before.ended:
                after = replace(after, ended_at=_iso(self._clock()))
            if not after.ended:
                after = replace(after, ended_at=None)
            self._jobs[name] = after
            self._save(self.job_folder(name) / JOB_FILE, asdict(after))
            self._record([after])
            return after

    def ask_otherwise(self, request: SweepRequest) -> None:
        """The sweep goes on with another request than it was begun with."""
        self.request = request
        self._write()

    def reopen(self) -> None:
        """The sweep goes on."""
        self.status, self.finished_at, self.error = "running", None, None
        self._write()

    def close(self, status: str, error: str | None = None) -> None:
        """The sweep ended."""
        self.status, self.error, self.finished_at = status, error, _iso(self._clock())
        self._write()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other threads from writing meanwhile, where one step reads and then writes."""
        with self._lock:
            yield

    def asked(self, name: str, resources: Iterable[Asked]) -> None:
        """Note what a cloud is about to be asked for, before the call; it is ``asked`` until the cloud answers."""
        from benchctl.db.schema import Instance

        job = self._jobs[name]
        self._note(
            *(
                Instance(
                    instance_id=one.name,
                    sweep_id=self.sweep,
                    job_id=job.job,
                    vendor_id=job.vendor,
                    kind=one.kind,
                    region=job.region or None,
                    zone=job.zone or None,
                    state="asked",
                    asked_at=self._clock(),
                    expires_at=_moment(job.expires_at),
                    gone_at=None,
                )
                for one in resources
            ),
        )

    def resource(self, name: str, state: str, *, cloud_id: str | None = None, address: str | None = None) -> None:
        """Note what became of a resource that was asked for: ``alive``, ``gone`` or ``refused``."""
        from benchctl.db.schema import Instance

        row = Instance(instance_id=name, state=state)
        if cloud_id is not None:
            row.cloud_id = cloud_id
        if address is not None:
            row.address = address
        if state == "gone":
            row.gone_at = self._clock()
        self._note(row)

    def _note(self, *rows: Base) -> None:
        from benchctl.db.records import record

        with self._lock:
            record(self._engine, *rows)

    def _write(self) -> None:
        """The whole book."""
        with self._lock:
            document = {
                "sweep": self.sweep,
                "created_at": self.created_at,
                "finished_at": self.finished_at,
                "status": self.status,
                "error": self.error,
                "request": self.request.without_secrets(),
                "jobs": [asdict(one) for one in self.jobs],
            }
            held, path = self.request.secrets(), self.folder / SECRETS
            if held and not path.exists():
                self._save(path, held)
            self._save(self.folder / FILE, document)
            self._record(self.jobs)

    @staticmethod
    def _save(path: Path, document: Mapping[str, Any]) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = path.with_suffix(".part")
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(document, file, indent=1)
            draft.replace(path)
        except OSError as error:
            raise BenchctlError(
                f"{path} can't be written: {error.strerror}.", "Free some space there, or choose another --state-dir."
            ) from error

    def _record(self, jobs: Iterable[JobState]) -> None:
        from sqlalchemy import delete

        from benchctl.db.records import record
        from benchctl.db.schema import Job, JobAttempt, JobServer, Sweep

        jobs = list(jobs)
        sweep = Sweep(
            sweep_id=self.sweep,
            created_at=datetime.fromisoformat(self.created_at),
            finished_at=_moment(self.finished_at),
            suite=self.request.suite.name,
            vendors=sorted(self.request.vendors),
            weights=self.request.weights,
            status=self.status,
            request=self.request.public(),
            error=self.error,
        )
        servers = {one.job: servers_of(self.sweep, one) for one in jobs}
        rows = [
            Job(
                sweep_id=self.sweep,
                job_id=one.job,
                vendor_id=one.vendor,
                server_id=one.server_id or one.server,
                api_reference=one.server,
                replica=one.replica,
                region=one.region or None,
                zone=one.zone or None,
                stage=one.stage,
                status=one.status,
                started_at=_moment(one.started_at),
                ended_at=_moment(one.ended_at),
                price_usd_per_hour=one.price_usd_per_hour,
                launch_price_per_hour=one.price_per_hour,
                currency=one.currency,
                servers_rented=len(servers[one.job]) if one.rented else None,
                error=one.error,
            )
            for one in jobs
        ]
        tries = [
            JobAttempt(
                sweep_id=self.sweep,
                job_id=one.job,
                tried_at=datetime.fromisoformat(tried["at"]),
                region=tried.get("region") or None,
                zone=tried.get("zone") or None,
                refusal=tried.get("refusal") or None,
                said=str(tried.get("said") or ""),
            )
            for one in jobs
            for tried in one.attempts
            if tried.get("at")
        ]
        # a server that turned out never to have been made leaves the book again
        stale = delete(JobServer).where(JobServer.sweep_id == self.sweep)
        if len(jobs) < len(self._jobs):
            stale = stale.where(JobServer.job_id.in_([one.job for one in jobs]))
        lives = [row for of_job in servers.values() for row in of_job]
        record(self._engine, sweep, *rows, *tries, *lives, first=stale)


def servers_of(sweep: str, job: JobState) -> list[JobServer]:
    """The rows of the servers that a job had."""
    from benchctl.db.schema import JobServer

    return [
        JobServer(
            sweep_id=sweep,
            job_id=job.job,
            launched_at=life.launched_at,
            gone_at=life.gone_at,
            price_per_hour=life.price_per_hour,
            currency=life.currency,
        )
        for life in budget.lives(job)
    ]


def servers_from_books(home: Home, engine: Engine) -> None:
    """Note the servers of jobs that rented theirs when the database did not keep them yet, as far as there are books.

    Raises:
        DatabaseError: the database can't be read or written.
    """
    from sqlalchemy import select

    from benchctl.db.engine import reading
    from benchctl.db.hosts import OWN
    from benchctl.db.records import record
    from benchctl.db.schema import Job

    lacking: dict[str, set[str]] = {}
    with reading(engine) as session:
        wanted = Job.servers_rented.is_(None), Job.vendor_id.not_in(OWN)
        for sweep, job in session.execute(select(Job.sweep_id, Job.job_id).where(*wanted)):
            lacking.setdefault(sweep, set()).add(job)
    for sweep, names in lacking.items():
        if not (home.sweeps / sweep / FILE).is_file():
            continue
        try:
            jobs = [one for one in jobs_of(read_book(home, sweep)) if one.job in names and one.rented]
            servers = {one.job: servers_of(sweep, one) for one in jobs}
        except (BenchctlError, KeyError, TypeError, AttributeError, ValueError):
            continue  # a damaged book tells nothing: 'benchctl status' says so
        rows = [Job(sweep_id=sweep, job_id=name, servers_rented=len(its)) for name, its in servers.items()]
        record(engine, *rows, *(one for its in servers.values() for one in its))


def sweep_name(vendors: Iterable[str], now: datetime, token: str | None = None) -> str:
    """A sweep's identifier, as ``20261123-1830-local-ab12``: sorted by time, and allowed as a label in every cloud."""
    return f"{now:%Y%m%d-%H%M}-{slug('-'.join(vendors), 24)}-{token or secrets.token_hex(2)}"


def sweep_names(home: Home) -> list[str]:
    """The sweeps that have a book, the oldest first."""
    return sorted((path.parent.name for path in home.sweeps.glob(f"*/{FILE}")), key=lambda one: _age(home, one))


def find_sweep(home: Home, name: str) -> str:
    """The sweep that ``name``, the beginning of it, or ``last`` means.

    Raises:
        UsageError: there is none, or several.
    """
    known = sweep_names(home)
    if name == LAST and known:
        return known[-1]
    meant = sweep_meant(name, known)
    if meant is not None:
        return meant
    newest = ", ".join(reversed(known[-5:]))
    raise UsageError(
        "There is no sweep yet." if not known else f"There is no sweep '{name}'.",
        f"The newest are: {newest}." if known else "Begin one with 'benchctl sweep --vendors local'.",
    )


def read_book(home: Home, sweep: str) -> dict[str, Any]:
    """A sweep's file as it is, with the newest of its jobs and the secrets of its request.

    Raises:
        BenchctlError: it can't be read.
    """
    path = home.sweeps / sweep / FILE
    try:
        book = json.loads(path.read_text())
    except OSError as error:
        raise BenchctlError(f"{path} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise _damaged(home, sweep, str(error)) from error
    if not isinstance(book, dict):
        raise _damaged(home, sweep, "it is no object")
    if isinstance(book.get("jobs"), list):
        book["jobs"] = [_newest(home.sweeps / sweep, one) for one in book["jobs"]]
    if isinstance(book.get("request"), dict):
        # a sweep without any has no such file
        with contextlib.suppress(OSError, ValueError):
            book["request"].update(json.loads((home.sweeps / sweep / SECRETS).read_text()))
    return book


def _newest(folder: Path, job: Any) -> Any:
    """A job as it was last written."""
    name = job.get("job") if isinstance(job, dict) else None
    if isinstance(name, str) and slug(name, len(name) or 1) == name:
        with contextlib.suppress(OSError, ValueError):
            newest = json.loads((folder / "jobs" / name / JOB_FILE).read_text())
            if isinstance(newest, dict) and newest.get("job") == name:
                return newest
    return job


def jobs_of(book: Mapping[str, Any]) -> list[JobState]:
    """The jobs of a book as :func:`read_book` gives it; what another version wrote besides is left out."""
    known = {one.name for one in fields(JobState)}
    return [_job({key: value for key, value in one.items() if key in known}) for one in book.get("jobs", ())]


def _job(plain: dict[str, Any]) -> JobState:
    plain["stage"] = _OLD_STAGES.get(plain.get("stage", PLANNED), plain.get("stage", PLANNED))
    for name in ("places", "attempts", "past"):
        plain[name] = tuple(plain.get(name, ()))
    return JobState(**plain)


def _damaged(home: Home, sweep: str, why: str) -> BenchctlError:
    return BenchctlError(
        f"{home.sweeps / sweep / FILE} is damaged: {why}.",
        "Its raw results are in the lake still: 'benchctl ingest' reads them.",
    )


def _age(home: Home, sweep: str) -> tuple[str, str]:
    """Two sweeps may begin in one minute: the book knows the millisecond."""
    try:
        return str(read_book(home, sweep).get("created_at")), sweep
    except BenchctlError:
        return "", sweep


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
