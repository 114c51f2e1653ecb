"""Controllers that tests may kill: processes of their own that rent servers as a sweep does, and then only live.

The product's own renting, ledger and engine; what is left out is SSH, so that nothing need be behind a server.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from typing import TYPE_CHECKING, Any, Self

from benchctl.clouds import rental
from benchctl.clouds.cloud import vendor_id
from benchctl.clouds.stacks import Stacks, warm_up
from benchctl.db.engine import open_database
from benchctl.ledger import JobState, Ledger
from benchctl.request import SweepRequest
from llama_bench_core import state
from llama_bench_core.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchctl.home import Home

SUITE = Suite.from_dict({"name": "some", "models": ["m"], "scenarios": {"pp": {16: 2}}})

PLACES = {
    "hetzner": ("cx22", "fsn1", ""),
    "upcloud": ("2xCPU-4GB", "fi-hel1", "fi-hel1"),
}
"""A server type of each vendor, and where it is rented."""


class Controller:
    """A process that rents a server at each of some vendors and then waits to be killed."""

    def __init__(self, home: Home, environment: Mapping[str, str], vendors: tuple[str, ...], hook: str = "") -> None:
        self.home, self.sweep = home, f"20261126-0000-{'-'.join(vendors)}"
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_rent, args=(home, dict(environment), vendors, self.sweep, hook))

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """The jobs as its book has them."""
        from benchctl.ledger import read_book

        found: list[dict[str, Any]] = read_book(self.home, self.sweep)["jobs"]
        return found

    def until(self, stage: str, seconds: float = 400.0) -> None:
        """Wait until all its jobs are at a stage."""
        deadline = time.monotonic() + seconds
        while not self._at(stage):
            assert time.monotonic() < deadline, "the controller did not get so far"
            assert self._process.is_alive(), "the controller has died"
            assert not self._at("failed", "status"), self.jobs
            time.sleep(0.05)

    def _at(self, word: str, key: str = "stage") -> bool:
        if not (self.home.sweeps / self.sweep / "sweep.json").exists():
            return False
        return all(job[key] == word for job in self.jobs)

    def kill(self) -> None:
        """SIGKILL: no last words."""
        if self._process.is_alive() and self._process.pid:
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()


def _rent(home: Home, environment: dict[str, str], vendors: tuple[str, ...], sweep: str, hook: str) -> None:
    import threading

    os.environ.update(environment)
    rental.Rental._await_ssh = lambda *_: None  # type: ignore[method-assign]
    engine = open_database(home.ensure().database_url)
    request = SweepRequest(vendors=vendors, suite=SUITE, models=(), hook=hook)
    jobs = []
    for vendor in vendors:
        server, region, zone = PLACES[vendor]
        place = {"region": region, "zone": zone, "price_per_hour": 0.5, "currency": "EUR", "budget_per_hour": 0.5}
        jobs.append(
            JobState(
                f"job-{vendor}", vendor_id(vendor), server, "", architecture="x86_64", memory_gib=4.0, disk_gb=75,
                places=(place,), lifetime_seconds=3600,
            )
        )  # fmt: skip
    book = Ledger.create(home, engine, request, jobs, sweep=sweep)
    warm_up(vendors)
    with state.locked(book.folder / "lock", {"sweep": sweep}):
        its = rental.Rental(book, Stacks(home), ingress=lambda _: "203.0.113.7/32", say=print)
        threads = [threading.Thread(target=_rent_one, args=(its, book, job.job)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(600)


def _rent_one(its: rental.Rental, book: Ledger, job: str) -> None:
    try:
        its.rent(job)
    except Exception as error:  # noqa: BLE001 - the test says it
        book.update(job, status="failed", error=repr(error))
