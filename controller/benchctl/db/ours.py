"""benchctl's own tables: sweeps, jobs, what they asked a cloud for, every measurement, and the history of prices."""

from __future__ import annotations

from datetime import date, datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from benchctl.db.columns import Base, CanonicalJson, Utc
from benchctl.lake import BENCHCTL


class Sweep(Base):
    """One call of ``benchctl sweep``: a request, and what became of it."""

    __tablename__ = "sweep"

    sweep_id: Mapped[str] = mapped_column(primary_key=True, doc="identifier; also the folder's name in the lake")
    created_at: Mapped[datetime | None] = mapped_column(Utc, index=True, doc="when it was asked for, UTC")
    finished_at: Mapped[datetime | None] = mapped_column(Utc, doc="when its last job ended, UTC")
    suite: Mapped[str | None] = mapped_column(doc="name of the suite")
    vendors: Mapped[list[str]] = mapped_column(CanonicalJson, default=list, doc="vendors asked for")
    weights: Mapped[str | None] = mapped_column(doc="weights asked for: ``auto``, ``real`` or ``synthetic``")
    source: Mapped[str] = mapped_column(
        default=BENCHCTL, server_default=BENCHCTL, doc="who measured: ``benchctl`` or ``spare-cores``"
    )
    status: Mapped[str] = mapped_column(default="running", doc="``running``, ``finished``, ``stopped`` or ``failed``")
    request: Mapped[dict[str, Any]] = mapped_column(CanonicalJson, default=dict, doc="all that was asked for")
    error: Mapped[str | None] = mapped_column(doc="why it failed, one sentence")


class Job(Base):
    """One server in one sweep."""

    __tablename__ = "job"
    __table_args__ = (Index("ix_job_server", "vendor_id", "server_id"),)

    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweep.sweep_id"), primary_key=True, doc="the sweep")
    job_id: Mapped[str] = mapped_column(primary_key=True, doc="identifier, unique in its sweep")
    vendor_id: Mapped[str] = mapped_column(doc="the vendor")
    server_id: Mapped[str] = mapped_column(doc="the server type, or the machine")
    api_reference: Mapped[str | None] = mapped_column(doc="how the vendor's API calls the server type")
    replica: Mapped[int] = mapped_column(default=1, doc="1, 2, ... where several instances of a type are measured")
    stage: Mapped[str | None] = mapped_column(doc="the stage that it is in, or ended in")
    status: Mapped[str] = mapped_column(
        default="waiting", doc="``waiting``, ``running``, ``finished``, ``stopped``, ``failed``"
    )
    outcomes: Mapped[dict[str, int]] = mapped_column(CanonicalJson, default=dict, doc="scenarios by outcome")
    started_at: Mapped[datetime | None] = mapped_column(Utc, doc="when its first stage began, UTC")
    ended_at: Mapped[datetime | None] = mapped_column(Utc, doc="when its last stage ended, UTC")
    region: Mapped[str | None] = mapped_column(doc="where it ran")
    zone: Mapped[str | None] = mapped_column(doc="where it ran")
    price_usd_per_hour: Mapped[float | None] = mapped_column(doc="price at launch in USD per hour; none if unknown")
    launch_price_per_hour: Mapped[float | None] = mapped_column(
        doc="price at launch per hour, in ``currency``; none if unknown"
    )
    currency: Mapped[str | None] = mapped_column(doc="currency in which the vendor lists the price")
    servers_rented: Mapped[int | None] = mapped_column(
        doc="servers that it had, each a row of ``job_server``; none where nothing is rented, or nothing on record"
    )
    host: Mapped[dict[str, Any] | None] = mapped_column(CanonicalJson, doc="facts of the machine, as found on it")
    exit_code: Mapped[int | None] = mapped_column(doc="how the run ended, by its ``meta.json``; 0 is well")
    error: Mapped[str | None] = mapped_column(doc="why it failed, one sentence")


class JobAttempt(Base):
    """Every try to rent a server for a job that failed: where, and what the vendor said."""

    __tablename__ = "job_attempt"
    __table_args__ = (ForeignKeyConstraint(["sweep_id", "job_id"], ["job.sweep_id", "job.job_id"]),)

    sweep_id: Mapped[str] = mapped_column(primary_key=True, doc="the sweep")
    job_id: Mapped[str] = mapped_column(primary_key=True, doc="the job")
    tried_at: Mapped[datetime] = mapped_column(Utc, primary_key=True, doc="when it had failed, UTC")
    region: Mapped[str | None] = mapped_column(doc="where it was tried")
    zone: Mapped[str | None] = mapped_column(doc="where it was tried; none where the vendor chose")
    refusal: Mapped[str | None] = mapped_column(doc="why, as ``quota`` or ``stock``; none for words that no rule knows")
    said: Mapped[str] = mapped_column(doc="the vendor's words, in one line")


class JobServer(Base):
    """Every server that a job had, from when to when and at what price: what its vendor bills.

    A try that failed has one where the server was made, and a sweep that was resumed has those from before it. The
    vendor's unit (a begun hour, a minute at least) is not in it.
    """

    __tablename__ = "job_server"
    __table_args__ = (ForeignKeyConstraint(["sweep_id", "job_id"], ["job.sweep_id", "job.job_id"]),)

    sweep_id: Mapped[str] = mapped_column(primary_key=True, doc="the sweep")
    job_id: Mapped[str] = mapped_column(primary_key=True, doc="the job")
    launched_at: Mapped[datetime] = mapped_column(Utc, primary_key=True, doc="when it was asked for, UTC")
    gone_at: Mapped[datetime | None] = mapped_column(
        Utc, doc="when the cloud said that it is gone, UTC; none while it may be alive"
    )
    price_per_hour: Mapped[float | None] = mapped_column(doc="price at launch per hour, in ``currency``")
    currency: Mapped[str | None] = mapped_column(doc="currency of the price")


class JobTime(Base):
    """Where the time of a job went, of what was billed: one row per cause; the rest has none."""

    __tablename__ = "job_time"
    __table_args__ = (ForeignKeyConstraint(["sweep_id", "job_id"], ["job.sweep_id", "job.job_id"]),)

    sweep_id: Mapped[str] = mapped_column(primary_key=True, doc="the sweep")
    job_id: Mapped[str] = mapped_column(primary_key=True, doc="the job")
    cause: Mapped[str] = mapped_column(
        primary_key=True,
        doc="``image`` (before the first word of the benchmark), ``download_wait``, ``load`` (with warm-up), "
        "``samples``, ``timeouts``, ``probing`` (how many layers fit a GPU) or ``other``",
    )
    seconds: Mapped[float] = mapped_column(doc="how long, seconds")


class RawRun(Base):
    """The raw files of one run as they were when they were taken in: what makes a second ingest quick.

    Every measurement leads back to its raw file: ``origin`` of its job's raw run, then ``measurement.raw_path``.
    """

    __tablename__ = "raw_run"
    __table_args__ = (
        ForeignKeyConstraint(["sweep_id", "job_id"], ["job.sweep_id", "job.job_id"]),
        Index("ix_raw_run_job", "sweep_id", "job_id"),
    )

    origin: Mapped[str] = mapped_column(primary_key=True, doc="absolute path of the lake, the folder or the archive")
    path: Mapped[str] = mapped_column(primary_key=True, doc="the run's folder, relative to ``origin``")
    fingerprint: Mapped[str] = mapped_column(doc="sizes and times of the files; the same means nothing is new")
    sweep_id: Mapped[str] = mapped_column(doc="the sweep that it belongs to")
    job_id: Mapped[str] = mapped_column(doc="the job that it is")
    ingested_at: Mapped[datetime] = mapped_column(Utc, doc="when it was taken in, UTC")
    damage: Mapped[list[dict[str, Any]]] = mapped_column(
        CanonicalJson, default=list, doc="what was set aside: ``{path, line, reason}``"
    )


class Price(Base):
    """Every price that was ever seen, with where and when: the history behind ``server_price``.

    ``server_price`` is derived from the rows that are open: of each of its keys the one with the newest
    ``source_date`` that no check doubts (the newest at all where all are), which is marked ``is_current`` here.
    """

    __tablename__ = "price"
    __table_args__ = (
        ForeignKeyConstraint(["vendor_id", "server_id"], ["server.vendor_id", "server.server_id"]),
        ForeignKeyConstraint(
            ["vendor_id", "region_id", "zone_id"],
            ["zone.vendor_id", "zone.region_id", "zone.zone_id"],
            name="fk_price_vendor_id_zone",
        ),
        Index("ix_price_server", "vendor_id", "server_id"),
    )

    vendor_id: Mapped[str] = mapped_column(primary_key=True, doc="the vendor")
    region_id: Mapped[str] = mapped_column(primary_key=True, doc="the region; ``*`` where the source names none")
    zone_id: Mapped[str] = mapped_column(primary_key=True, doc="the zone; ``*`` where the source names none")
    server_id: Mapped[str] = mapped_column(primary_key=True, doc="the server type")
    allocation: Mapped[str] = mapped_column(String(8), primary_key=True, doc="``ONDEMAND``, ``SPOT`` or ``RESERVED``")
    source: Mapped[str] = mapped_column(primary_key=True, doc="where the price was read")
    since: Mapped[datetime] = mapped_column(Utc, primary_key=True, doc="when it was first seen, UTC")
    until: Mapped[datetime | None] = mapped_column(Utc, doc="when it was seen to be gone or changed; none while open")
    price: Mapped[float] = mapped_column(doc="price of one unit")
    currency: Mapped[str] = mapped_column(doc="ISO 4217 code")
    unit: Mapped[str] = mapped_column(String(8), default="HOUR", doc="what the price is for")
    operating_system: Mapped[str] = mapped_column(default="Linux", doc="what runs on it")
    source_date: Mapped[date | None] = mapped_column(doc="the day of which the source says that it is the price")
    licence: Mapped[str | None] = mapped_column(doc="licence of the source")
    is_current: Mapped[bool] = mapped_column(default=False, doc="whether it is the one that ``server_price`` holds")
    flags: Mapped[list[str]] = mapped_column(
        CanonicalJson,
        default=list,
        doc="doubts: ``gpu_priced_like_cpu``, ``spot_above_ondemand``, ``off_family``, ``unknown_currency``",
    )


class ServerHistory(Base):
    """Server types as catalogues described them, from when to when: a type that vanishes is closed, never deleted."""

    __tablename__ = "server_history"
    __table_args__ = (ForeignKeyConstraint(["vendor_id", "server_id"], ["server.vendor_id", "server.server_id"]),)

    vendor_id: Mapped[str] = mapped_column(primary_key=True, doc="the vendor")
    server_id: Mapped[str] = mapped_column(primary_key=True, doc="the server type")
    since: Mapped[datetime] = mapped_column(Utc, primary_key=True, doc="when it was first seen so, UTC")
    until: Mapped[datetime | None] = mapped_column(Utc, doc="when it was seen gone or changed; none while it is so")
    status: Mapped[str] = mapped_column(String(8), doc="``ACTIVE`` or ``INACTIVE``")
    source: Mapped[str] = mapped_column(doc="the catalogue that said so")
    facts: Mapped[dict[str, Any]] = mapped_column(CanonicalJson, doc="its row in ``server`` as it was")


class ExchangeRate(Base):
    """What a currency was worth on a day. Money is converted with one of these, which is shown, or not at all."""

    __tablename__ = "exchange_rate"

    currency: Mapped[str] = mapped_column(primary_key=True, doc="ISO 4217 code")
    rate_date: Mapped[date] = mapped_column(primary_key=True, doc="the day of the rate")
    source: Mapped[str] = mapped_column(primary_key=True, doc="who says so")
    usd_per_unit: Mapped[float] = mapped_column(doc="US dollars for one unit of the currency")


class CatalogSource(Base):
    """What was taken into the catalogue from where: what makes a second ``catalog pull`` cheap."""

    __tablename__ = "catalog_source"

    url: Mapped[str] = mapped_column(primary_key=True, doc="address, or absolute path of a file")
    kind: Mapped[str] = mapped_column(
        doc="``database``, ``prices``, ``rates``, or ``results`` for an archive of raw runs"
    )
    etag: Mapped[str | None] = mapped_column(doc="the server's mark of this version")
    sha256: Mapped[str] = mapped_column(doc="checksum of what was read, hex")
    size_bytes: Mapped[int] = mapped_column(BigInteger, doc="size of what was read")
    imported_at: Mapped[datetime] = mapped_column(Utc, doc="when it was taken in, UTC")


class Instance(Base):
    """Every cloud resource ever asked for, written before the call that asks for it."""

    __tablename__ = "instance"
    __table_args__ = (ForeignKeyConstraint(["sweep_id", "job_id"], ["job.sweep_id", "job.job_id"]),)

    instance_id: Mapped[str] = mapped_column(primary_key=True, doc="our name for it, also its name in the cloud")
    sweep_id: Mapped[str] = mapped_column(doc="the sweep")
    job_id: Mapped[str] = mapped_column(doc="the job")
    vendor_id: Mapped[str] = mapped_column(doc="the vendor")
    kind: Mapped[str] = mapped_column(doc="e.g. ``server``, ``firewall``, ``key``")
    cloud_id: Mapped[str | None] = mapped_column(doc="the cloud's identifier; none until it answered")
    region: Mapped[str | None] = mapped_column(doc="where it was asked for")
    zone: Mapped[str | None] = mapped_column(doc="where it was asked for")
    address: Mapped[str | None] = mapped_column(doc="where SSH reaches it")
    state: Mapped[str] = mapped_column(default="asked", doc="``asked``, ``alive``, ``gone`` or ``refused``")
    asked_at: Mapped[datetime] = mapped_column(Utc, doc="when it was asked for, UTC")
    expires_at: Mapped[datetime | None] = mapped_column(Utc, doc="when it must be gone, UTC")
    gone_at: Mapped[datetime | None] = mapped_column(Utc, doc="when the cloud said that it is gone, UTC")


class Measurement(Base):
    """How one scenario of one model ended in one job, with every repetition and where it comes from.

    One row per (job, model, task, tokens). Where a noisy measurement was repeated, ``attempt`` says which try counts:
    ``samples_ns`` and all speeds are that try's; the other samples are in ``discarded``.
    """

    __tablename__ = "measurement"
    __table_args__ = (
        ForeignKeyConstraint(["sweep_id", "job_id"], ["job.sweep_id", "job.job_id"]),
        ForeignKeyConstraint(["vendor_id", "server_id"], ["server.vendor_id", "server.server_id"]),
        Index("ix_measurement_server", "vendor_id", "server_id"),
        Index("ix_measurement_scenario", "model_file", "task", "tokens"),
    )

    sweep_id: Mapped[str] = mapped_column(primary_key=True, doc="the sweep")
    job_id: Mapped[str] = mapped_column(primary_key=True, doc="the job")
    model: Mapped[str] = mapped_column(primary_key=True, doc="the model's short name")
    task: Mapped[str] = mapped_column(primary_key=True, doc="``pp`` (prompt processing) or ``tg`` (text generation)")
    tokens: Mapped[int] = mapped_column(primary_key=True, doc="prompt length, or number of tokens generated")
    vendor_id: Mapped[str] = mapped_column(doc="the vendor")
    server_id: Mapped[str] = mapped_column(doc="the server type, or the machine")

    outcome: Mapped[str] = mapped_column(doc="``ok``, ``below_threshold``, ``predicted_skip``, ...")
    reason: Mapped[str] = mapped_column(default="", doc="why, in one sentence; empty for an unremarkable ``ok``")
    noisy: Mapped[list[str]] = mapped_column(CanonicalJson, default=list, doc="limits of noise that were broken")
    attempt: Mapped[int] = mapped_column(default=1, doc="the try that counts")
    evidence_seconds: Mapped[float | None] = mapped_column(doc="how long a cut sample had been running, seconds")

    samples: Mapped[int] = mapped_column(default=0, doc="number of samples")
    samples_ns: Mapped[list[int]] = mapped_column(CanonicalJson, default=list, doc="time of every sample, ns")
    discarded: Mapped[list[dict[str, Any]]] = mapped_column(
        CanonicalJson, default=list, doc="samples that don't count: ``{attempt, ns, warmup}``"
    )
    tokens_per_second: Mapped[float | None] = mapped_column(doc="mean of the samples' speeds, tokens/s: the score")
    tokens_per_second_median: Mapped[float | None] = mapped_column(doc="median of the samples' speeds, tokens/s")
    tokens_per_second_stddev: Mapped[float | None] = mapped_column(doc="their sample standard deviation, tokens/s")
    tokens_per_second_ci_low: Mapped[float | None] = mapped_column(doc="95 % confidence interval of the mean, tokens/s")
    tokens_per_second_ci_high: Mapped[float | None] = mapped_column(
        doc="95 % confidence interval of the mean, tokens/s"
    )
    measured_at: Mapped[datetime | None] = mapped_column(Utc, doc="when the scenario ended, UTC")

    weights: Mapped[str] = mapped_column(
        doc="``real``, ``synthetic``, or ``rehearsal``: measured on a container, or played"
    )
    model_file: Mapped[str] = mapped_column(doc="name of the GGUF file")
    model_sha256: Mapped[str | None] = mapped_column(doc="checksum of the file, hex")
    model_bytes: Mapped[int | None] = mapped_column(BigInteger, doc="size of the file")
    model_tensor_bytes: Mapped[int | None] = mapped_column(BigInteger, doc="bytes of the tensors, as llama-bench says")
    model_parameters: Mapped[int | None] = mapped_column(BigInteger, doc="parameters, as llama-bench says")

    device: Mapped[str | None] = mapped_column(doc="what did the work, e.g. ``CPU`` or ``NVIDIA L4``")
    threads: Mapped[int | None] = mapped_column(doc="threads of llama-bench")
    pinning: Mapped[str | None] = mapped_column(doc="CPU mask that the threads were bound to; empty for none")
    gpu_layers_asked: Mapped[int | None] = mapped_column(doc="layers asked to be on the GPU; -1 is all")
    gpu_layers: Mapped[int | None] = mapped_column(doc="layers proven to be on the GPU")
    layers_total: Mapped[int | None] = mapped_column(doc="layers that can be offloaded")
    offload_proof: Mapped[str | None] = mapped_column(doc="``log``, ``memory`` or ``none``")
    gpu_memory_bytes: Mapped[int | None] = mapped_column(BigInteger, doc="GPU memory that the process held")
    load_seconds: Mapped[float | None] = mapped_column(doc="how long loading the model took")
    driver: Mapped[str | None] = mapped_column(doc="version of the GPU's driver")
    image_digest: Mapped[str | None] = mapped_column(doc="digest of the container image")
    llama_cpp_build_number: Mapped[int | None] = mapped_column(doc="llama.cpp's build number")
    llama_cpp_commit: Mapped[str | None] = mapped_column(doc="llama.cpp's commit")

    region: Mapped[str | None] = mapped_column(doc="where it ran")
    zone: Mapped[str | None] = mapped_column(doc="where it ran")
    price_usd_per_hour: Mapped[float | None] = mapped_column(doc="price at launch in USD per hour; none if unknown")
    launch_price_per_hour: Mapped[float | None] = mapped_column(
        doc="price at launch per hour, in ``currency``; none if unknown"
    )
    currency: Mapped[str | None] = mapped_column(doc="currency in which the vendor lists the price")
    raw_path: Mapped[str] = mapped_column(doc="raw file, relative to the folder that holds the sweep's")
    raw_line: Mapped[int | None] = mapped_column(doc="line of the raw file that ended the scenario")
    raw_offset: Mapped[int | None] = mapped_column(BigInteger, doc="where that line begins in the file, bytes")
