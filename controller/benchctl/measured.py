"""How one scenario ended, as raw files tell it: the one value that every reader of them makes.

Raw files come from anywhere. What a database can't hold (numbers beyond 64 bits, characters that are no text) is
refused or cleaned here, before it is a value.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llama_bench_core.rows import RowError
from llama_bench_core.values import Outcome  # noqa: TC002 - NamedTuple reads the annotations

from benchctl.rawfiles import Damage

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST_INTEGER = 2**63 - 1
"""The largest whole number of SQLite and of PostgreSQL's ``bigint``."""

LONGEST_NAME = 255
"""The longest name of a file, a model or a server, characters: they are in keys, which are limited in PostgreSQL."""

FALLBACK_REASON = "llama-bench had loaded its CUDA backend, and no layer went to a GPU: it ran on the CPU"


BAD_LINE = (RowError, KeyError, ValueError, TypeError, AttributeError, RecursionError, OverflowError)
"""What a line can raise that is not what it should be; it ends that line alone."""

REHEARSAL = "rehearsal"
"""In the place of the weights: measured on a container, or played from a recording; never among real measurements."""


class Measured(NamedTuple):
    """How one scenario of one model ended. Names and units as in the table ``measurement``.

    A named tuple, because a corpus has a hundred thousand of them and they are made ten times as fast as dataclasses.

    Attributes:
        discarded: samples that don't count: ``{"attempt", "ns", "warmup"}``.
        file: name of the raw file that it was read from.
        line: line of that file which ended the scenario.
        offset: where that line begins, bytes.
    """

    model: str
    task: str
    tokens: int
    model_file: str
    weights: str
    outcome: Outcome
    reason: str = ""
    noisy: tuple[str, ...] = ()
    attempt: int = 1
    evidence_seconds: float | None = None
    samples_ns: tuple[int, ...] = ()
    discarded: tuple[Mapping[str, Any], ...] = ()
    measured_at: datetime | None = None
    model_sha256: str | None = None
    model_bytes: int | None = None
    model_tensor_bytes: int | None = None
    model_parameters: int | None = None
    device: str | None = None
    threads: int | None = None
    pinning: str | None = None
    gpu_layers_asked: int | None = None
    gpu_layers: int | None = None
    layers_total: int | None = None
    offload_proof: str | None = None
    gpu_memory_bytes: int | None = None
    load_seconds: float | None = None
    llama_cpp_build_number: int | None = None
    llama_cpp_commit: str | None = None
    file: str = ""
    line: int | None = None
    offset: int | None = None


class Lines:
    """Takes the lines of a run's files that can't be read."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.damage: list[Damage] = []

    def set_aside(self, file: str, line: int | None, reason: str) -> None:
        """Note that a line, or a whole file, can't be read."""
        self.damage.append(Damage(Path(self._folder, file), line, reason))

    def failed(self, file: str, line: int | None, error: BaseException) -> None:
        """The same, with what :data:`BAD_LINE` was raised for it."""
        if isinstance(error, KeyError):
            self.set_aside(file, line, f"the key {error} is missing")
        else:
            self.set_aside(file, line, clean(" ".join(str(error).split())[:200]) or type(error).__name__)


def clean(text: Any) -> str:
    """Text that every database can hold: without NUL and without halves of characters; nothing for ``None``."""
    if text is None:
        return ""
    found = str(text)
    if found.isprintable():
        return found
    return found.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def whole(value: Any, largest: int = LARGEST_INTEGER) -> int | None:
    """A positive whole number that a database can hold; nothing for zero and for what is none."""
    return value if value.__class__ is int and 0 < value <= largest else None


def name(text: Any) -> str:
    """A name that can be part of a key.

    Raises:
        ValueError: it is empty, too long, or no text.
    """
    if not isinstance(text, str) or not text or len(text) > LONGEST_NAME:
        raise ValueError(f"a name is empty or longer than {LONGEST_NAME} characters")
    return clean(text)


@lru_cache(maxsize=4096)
def file_name(path: str) -> str:
    """The last part of a path on the machine measured, as a key can hold it.

    Raises:
        ValueError: there is none.
    """
    return name(path.rpartition("/")[2])


def parse_time(text: Any) -> datetime | None:
    """An ISO time; without a zone it means UTC, as Spare Cores writes it.

    Raises:
        ValueError: it is not one.
    """
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is UTC:
        return moment
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is out of the calendar") from error
