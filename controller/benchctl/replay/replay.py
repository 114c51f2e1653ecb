"""All recorded runs of a corpus through the policy, one after the other or in several processes."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from benchctl.replay.recording import RecordingError, read_recorded
from benchctl.replay.rerun import rerun
from benchctl.replay.world import Assumptions, Hardware

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from llama_bench_core.suite import Suite
    from llama_bench_core.values import Model

    from benchctl.replay.corpus import RawRun
    from benchctl.replay.rerun import Rerun

AS_RECORDED = Assumptions()
"""Image and network as they were."""

WITH_ASSUMPTIONS = Assumptions(pull_factor=0.4, least_bytes_per_second=300e6, warmups=False)
"""The savings that are assumptions: an image of 1.5 GB (the size of theirs was not recorded; 3.75 GB are taken for it),
models at 300 MB/s or faster from a near mirror, or written on the machine, and no discarded samples."""

SENSITIVITY = {
    "loads x 0.5": Assumptions(load_factor=0.5),
    "loads x 2": Assumptions(load_factor=2.0),
    "restarts x 0": Assumptions(restart_seconds=0.0),
    "restarts x 5": Assumptions(restart_seconds=1.0),
    "downloads begin with the image pull": Assumptions(downloads_first=True),
}
"""What was assumed, otherwise."""


@dataclass(frozen=True)
class Setting:
    """What every run is replayed with.

    Attributes:
        suite: what to measure, with the policy's numbers.
        models: by name; those that the suite names.
        hardware: what a catalogue says, by vendor and ``api_reference``; a server that is missing fits every model.
        assumed: one account each.
    """

    suite: Suite
    models: Mapping[str, Model]
    hardware: Mapping[tuple[str, str], Hardware] = field(default_factory=dict)
    assumed: tuple[Assumptions, ...] = (Assumptions(),)


@dataclass(frozen=True)
class Replayed:
    """What came of one recorded run.

    Attributes:
        vendor: the vendor.
        server: the vendor's own name of the server type.
        accounts: one for each of :attr:`Setting.assumed`; empty where the run is left out.
        left_out: why it is left out; empty where it is not.
    """

    vendor: str
    server: str
    accounts: tuple[Rerun, ...] = ()
    left_out: str = ""


def replay_run(raw: RawRun, setting: Setting) -> Replayed:
    """Replay one run; runs that did not go through, or can't be read, are left out."""
    texts = raw.texts
    try:
        recorded = read_recorded(
            raw.vendor, raw.server, texts.get("meta.json", ""), texts.get("stdout", ""), texts.get("stderr", "")
        )
    except RecordingError as error:
        return Replayed(raw.vendor, raw.server, left_out=error.problem)
    if recorded.exit_code:
        return Replayed(raw.vendor, raw.server, left_out=f"it ended with exit code {recorded.exit_code}")
    hardware = setting.hardware.get((raw.vendor, raw.server), Hardware())
    accounts = tuple(rerun(recorded, setting.suite, setting.models, hardware, one) for one in setting.assumed)
    return Replayed(raw.vendor, raw.server, accounts)


def replay_all(runs: Iterable[RawRun], setting: Setting, jobs: int = 1) -> Iterator[Replayed]:
    """Replay many runs, in their order.

    Args:
        runs: the runs.
        setting: what with.
        jobs: processes; 1 for this one alone, 0 for as many as there are CPUs.
    """
    work = partial(replay_run, setting=setting)
    jobs = jobs or os.cpu_count() or 1
    if jobs == 1:
        yield from map(work, runs)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(work, runs, chunksize=8)
