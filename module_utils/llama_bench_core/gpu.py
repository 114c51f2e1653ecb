"""The NVIDIA GPUs of a machine, as its driver's own program tells them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .tree import whole_number

if TYPE_CHECKING:
    from .programs import Run

_MIB = 1024 * 1024
_SECONDS = 30.0


@dataclass(frozen=True)
class GPU:
    """One graphics processor.

    Attributes:
        index: the driver's number of it.
        name: e.g. ``NVIDIA L4``.
        memory_bytes: its memory; where it shares the machine's (GB10) what the machine has.
        memory_free_bytes: what of it is free now.
        driver: version of the driver.
        compute_capability: e.g. ``8.9``; empty when the driver is too old to say.
    """

    index: int
    name: str
    memory_bytes: int
    memory_free_bytes: int
    driver: str
    compute_capability: str


def ask_driver(run: Run, *arguments: str) -> str | None:
    """What ``nvidia-smi`` prints for a query; ``None`` when it is missing, fails, or does not answer in time."""
    try:
        done = run(["nvidia-smi", *arguments, "--format=csv,noheader,nounits"], _SECONDS)
    except (OSError, TimeoutError):  # no driver, or one in trouble
        return None
    return done.stdout if done.returncode == 0 else None


def query(run: Run, memory_bytes: int = 0, memory_free_bytes: int = 0) -> tuple[GPU, ...]:
    """Ask ``nvidia-smi``; no GPUs when it is missing or fails.

    Args:
        run: runs the program.
        memory_bytes: the machine's memory, for GPUs that have none of their own (``[N/A]``).
        memory_free_bytes: what of it is free.
    """
    fields = ["index", "name", "memory.total", "memory.free", "driver_version", "compute_cap"]
    for wanted in (fields, fields[:-1]):  # drivers before 465 don't know compute_cap and refuse the whole query
        output = ask_driver(run, f"--query-gpu={','.join(wanted)}")
        if output is not None:
            found = (_gpu(line, memory_bytes, memory_free_bytes) for line in output.splitlines())
            return tuple(gpu for gpu in found if gpu)
    return ()


def _gpu(line: str, memory_bytes: int, memory_free_bytes: int) -> GPU | None:
    cells = [cell.strip() for cell in line.split(",")]
    index = whole_number(cells[0])
    if index is None or len(cells) < 5:
        return None
    total, free = (whole_number(cell.replace(" MiB", "")) for cell in cells[2:4])
    return GPU(
        index=index,
        name=cells[1],
        memory_bytes=memory_bytes if total is None else total * _MIB,
        memory_free_bytes=memory_free_bytes if free is None else free * _MIB,
        driver=cells[4],
        compute_capability=cells[5] if len(cells) > 5 else "",
    )
