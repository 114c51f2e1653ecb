"""From raw files into the database: one way for our lake and for Spare Cores' results. Doing it twice is doing it once.

Runs are read one after the other and written in batches, each in one transaction: of every run all or nothing is there,
whatever kills the program. What a run measured replaces what the same job measured before, and the scores of the
servers that it touches are made anew. A run whose files have not changed since is not read again.
"""

from __future__ import annotations

import gc
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from benchctl.db import batch
from benchctl.db.engine import reading, writing
from benchctl.db.schema import CatalogSource, Job, RawRun
from benchctl.errors import UsageError
from benchctl.prepared import Prepared, prepare, prepared_aside
from benchctl.rawfiles import ArchiveError, Damage, RunFiles, run_files, runs_in
from benchctl.results import read_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Engine

BATCH_RUNS = 200
"""Runs in one transaction: large enough that commits cost nothing, small enough that another writer's turn comes."""

FIRST_BATCHES = (25, 75)
"""Sizes of the first batches."""

SECOND_PROCESS_BATCHES = 4
"""From so many batches on a second process reads while this one writes; for fewer it does not pay to start it."""

ARCHIVE = "results"
"""Kind of an archive among the sources that were taken in."""


@dataclass(frozen=True)
class IngestSummary:
    """What came of one run.

    Attributes:
        folder: of its raw files.
        sweep: its sweep.
        job: its job.
        vendor: the vendor.
        server: the server's identifier in the database.
        measurements: rows that the database now holds of it.
        outcomes: these by outcome.
        damage: what was set aside.
        unchanged: whether it was there already, so that its files were not read.
    """

    folder: Path
    sweep: str
    job: str
    vendor: str
    server: str
    measurements: int
    outcomes: dict[str, int]
    damage: tuple[Damage, ...]
    unchanged: bool = field(default=False, compare=False)


class Ingest:
    """Ingests every run at or below a path, or in an archive; iterate over it to make it happen.

    Attributes:
        total: number of runs; nothing where that is known only at the end (an archive).
        damage: what is wrong with an archive as such.
    """

    def __init__(
        self, engine: Engine, path: Path, *, again: bool = False, folders: Sequence[Path] | None = None
    ) -> None:
        """Look for the runs; nothing is written yet.

        Args:
            engine: the database.
            path: the folder of a run, of a sweep, a lake, or an archive.
            again: read also what has not changed.
            folders: the very runs to read, instead of looking for them at ``path``.

        Raises:
            UsageError: there is nothing to ingest.
        """
        self._engine, self._path, self._again = engine, path, again
        self.damage: list[Damage] = []
        self._runs: list[RunFiles] | None = None
        self.total: int | None = None
        if folders is not None:
            self._runs = [run_files(folder) for folder in folders]
            self.total = len(self._runs)
        elif path.is_dir() or not path.exists():
            self._runs = list(runs_in(path))
            self.total = len(self._runs)
            if not self._runs:
                raise UsageError(
                    f"There are no raw results at or below {path}.",
                    "They are folders VENDOR/SERVER/llm with a meta.json, or a tar archive of such folders.",
                )

    def __iter__(self) -> Iterator[IngestSummary]:
        """The runs, each as soon as it is in the database.

        Raises:
            UsageError: the path is no archive, or there is no run in it.
            ArchiveError: the archive breaks off; what came before is kept.
            DatabaseError: the database can't be written.
        """
        if self._runs is not None:
            yield from self._each(iter(self._runs))
            return
        mark = _checksum(self._path)
        origin = str(self._path.absolute())
        known = _known(self._engine, origin) if not self._again and self._knows(origin, mark) else {}
        if known:
            yield from (self._summary(origin, path, row) for (_, path), row in known.items())
            return
        found = 0
        for summary in self._each(runs_in(self._path, self.damage)):
            found += 1
            yield summary
        if not found:
            raise UsageError(
                f"There are no raw results in {self._path}.",
                "They are folders VENDOR/SERVER/llm with a meta.json, or a tar archive of such folders.",
            )
        self._remember(origin, mark)

    def _each(self, runs: Iterator[RunFiles]) -> Iterator[IngestSummary]:
        known = {} if self._again else _known(self._engine)
        new: list[RunFiles] = []
        broken: ArchiveError | None = None
        try:
            for one in runs:
                row = known.get((one.origin, one.path))
                if row is not None and row.fingerprint == one.fingerprint:
                    yield self._summary(one.origin, one.path, row)
                    continue
                new.append(one)
                if self._runs is None and len(new) == BATCH_RUNS:  # an archive's content is in memory
                    yield from write(self._engine, [prepare(read_run(one)) for one in new])
                    new.clear()
        except ArchiveError as error:
            broken = error  # what came before is taken in first
        # what is read becomes long-lived at once: looking for garbage in it is a fifth of the time
        gc.freeze()
        try:
            for batch in self._prepared(new):
                yield from write(self._engine, batch)
        finally:
            gc.unfreeze()
        if broken is not None:
            raise broken

    def _prepared(self, runs: list[RunFiles]) -> Iterator[list[Prepared]]:
        batches = _batches(runs)
        if self._runs is None or len(batches) < SECOND_PROCESS_BATCHES:
            yield from ([prepare(read_run(one)) for one in batch] for batch in batches)
            return
        done = 0
        try:
            for batch in prepared_aside(batches):
                yield batch
                done += 1
        except OSError:
            # without a second process it only takes longer
            yield from ([prepare(read_run(one)) for one in batch] for batch in batches[done:])

    @staticmethod
    def _summary(origin: str, path: str, row: _KnownRun) -> IngestSummary:
        return IngestSummary(
            folder=Path(origin) / path,
            sweep=row.sweep,
            job=row.job,
            vendor=row.vendor,
            server=row.server,
            measurements=sum(row.outcomes.values()),
            outcomes=row.outcomes,
            damage=row.damage,
            unchanged=True,
        )

    def _knows(self, origin: str, mark: tuple[str, int]) -> bool:
        with reading(self._engine) as session:
            found = session.get(CatalogSource, origin)
            return found is not None and found.kind == ARCHIVE and (found.sha256, found.size_bytes) == mark

    def _remember(self, origin: str, mark: tuple[str, int]) -> None:
        with writing(self._engine) as session:
            now = datetime.now(UTC)
            session.merge(CatalogSource(url=origin, kind=ARCHIVE, sha256=mark[0], size_bytes=mark[1], imported_at=now))


def ingest_tree(engine: Engine, path: Path) -> Iterator[IngestSummary]:
    """Ingest every run at or below ``path``, one after the other; see :class:`Ingest`."""
    yield from Ingest(engine, path)


def ingest_run(engine: Engine, folder: Path) -> IngestSummary:
    """Bring one run into the database, in one transaction, whether or not its files have changed.

    Args:
        engine: the database.
        folder: holds the run's raw files, e.g. ``LAKE/SWEEP/data/local/SERVER/llm``.

    Raises:
        DatabaseError: the database can't be written.
    """
    (summary,) = write(engine, [prepare(read_run(folder))])
    return summary


def write(engine: Engine, runs: list[Prepared]) -> list[IngestSummary]:
    """Bring runs into the database, all of them in one transaction.

    Raises:
        DatabaseError: the database can't be written.
    """
    with writing(engine) as session:
        servers = batch.write(session, runs)
    return [
        IngestSummary(
            folder=Path(run.origin) / run.path,
            sweep=run.sweep,
            job=run.job,
            vendor=run.vendor,
            server=server,
            measurements=len(run.rows),
            outcomes=run.outcomes,
            damage=tuple(Damage(Path(path), line, reason) for path, line, reason in run.damage),
        )
        for run, server in zip(runs, servers, strict=True)
    ]


def known_places(engine: Engine) -> tuple[list[Path], list[Path]]:
    """Where runs were taken in from: the folders of runs, and archives."""
    folders: list[Path] = []
    archives: set[Path] = set()
    with reading(engine) as session:
        known = set(session.scalars(select(CatalogSource.url).where(CatalogSource.kind == ARCHIVE)))
        for origin, path in session.execute(select(RawRun.origin, RawRun.path).order_by(RawRun.origin, RawRun.path)):
            if origin in known or Path(origin).is_file():
                archives.add(Path(origin))
            else:
                folders.append(Path(origin) / path)
    return folders, sorted(archives)


def _batches(runs: list[RunFiles]) -> list[list[RunFiles]]:
    """All runs in batches; the first ones are small, so that writing begins soon after reading."""
    found, first = [], 0
    for size in (*FIRST_BATCHES, *[BATCH_RUNS] * len(runs)):
        if first >= len(runs):
            break
        found.append(runs[first : first + size])
        first += size
    return found


@dataclass(frozen=True)
class _KnownRun:
    """What the database knows of a run's raw files."""

    fingerprint: str
    sweep: str
    job: str
    vendor: str
    server: str
    outcomes: dict[str, int]
    damage: tuple[Damage, ...]


def _known(engine: Engine, origin: str | None = None) -> dict[tuple[str, str], _KnownRun]:
    """All runs that were taken in, by origin and path."""
    query = (
        select(
            RawRun.origin, RawRun.path, RawRun.fingerprint, RawRun.sweep_id, RawRun.job_id, RawRun.damage,
            Job.vendor_id, Job.server_id, Job.outcomes,
        )
        .join(Job, (Job.sweep_id == RawRun.sweep_id) & (Job.job_id == RawRun.job_id))
        .order_by(RawRun.origin, RawRun.path)
    )  # fmt: skip
    if origin is not None:
        query = query.where(RawRun.origin == origin)
    with reading(engine) as session:
        return {
            (place, path): _KnownRun(
                mark, sweep, job, vendor, server, outcomes,
                tuple(Damage(Path(one["path"]), one["line"], one["reason"]) for one in damage),
            )
            for place, path, mark, sweep, job, damage, vendor, server, outcomes in session.execute(query)
        }  # fmt: skip


def _checksum(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file.

    Raises:
        UsageError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}.", "Check who may read it.") from error
