"""What the downloader is told, and what it hands over: plain values, and the clock that tests replace."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .values import CoreError, Outcome

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Any, Protocol
    from urllib.request import Request

    class Opener(Protocol):
        """What opens a request: ``urllib.request.OpenerDirector``, or something that behaves like one."""

        def open(self, fullurl: Request, data: None = None, timeout: float = ...) -> Any:
            """Return a response with ``status``, ``headers``, ``url``, ``read1`` and ``close``, or raise as urllib."""


@dataclass(frozen=True)
class FetchSettings:
    """How to download.

    Attributes:
        connections: Range connections per file; 1 where the server does not serve ranges.
        mirror: tried before a model's own URL: a URL or an absolute folder that holds files by name (``MIRROR/FILE``).
        stall_seconds: a connection that brings no byte for so long is given up and made anew.
        attempts: failures in a row, without a byte between them, after which a connection gives up.
        user_agent: what servers are told.
        token_file: path of a file that holds a bearer token (Hugging Face's ``HF_TOKEN``), or empty.
        token_host: the one host (and its subdomains) that the token is shown to, and only over TLS or on loopback.
        ca_file: PEM file of certificate authorities to trust instead of the system's, or empty.
        backoff_seconds: pause after a first failure; doubles with each further one, with jitter.
        backoff_limit_seconds: the longest such pause.
        retry_after_limit_seconds: a server that asks for a longer pause than this (``Retry-After``) has refused.
        reserve_bytes: disk space that a download must leave free, for everything else that lives on that disk.
        chunk_bytes: least size of what one connection asks for at once.
        split_bytes: what two connections share is not divided into pieces smaller than this.
    """

    connections: int = 4
    mirror: str = ""
    stall_seconds: float = 30.0
    attempts: int = 6
    user_agent: str = "benchctl (llama-bench model download)"
    token_file: str = ""
    token_host: str = "huggingface.co"  # noqa: S105 - a host, no secret
    ca_file: str = ""
    backoff_seconds: float = 1.0
    backoff_limit_seconds: float = 60.0
    retry_after_limit_seconds: float = 600.0
    reserve_bytes: int = 256 * 1024**2
    chunk_bytes: int = 64 * 1024**2
    split_bytes: int = 4 * 1024**2


@dataclass(frozen=True)
class Supplied:
    """A model that is there, whole and checked.

    Attributes:
        path: where it lies.
        bytes: size of the file.
        sha256: checksum in hex; empty for synthetic weights whose writer did not compute one.
        seconds: how long it took to get or write it; next to nothing when it was there already.
        weights: ``real`` or ``synthetic``.
    """

    path: str
    bytes: int
    sha256: str
    seconds: float
    weights: str


@dataclass(frozen=True)
class SupplyFailure:
    """A model that is not to be had; it ends that model and nothing else.

    Attributes:
        outcome: ``download_failed``, ``no_disk``, or what :meth:`Supply.abandon` was given (``download_too_slow``).
        reason: one sentence for a person.
    """

    outcome: Outcome
    reason: str


class DownloadError(CoreError):
    """The model could not be had, or was not the file it should be; what ``outcome`` says of it."""

    outcome = Outcome.DOWNLOAD_FAILED


class CorruptError(DownloadError):
    """What arrived is complete, and is not the file it should be."""


class DiskFullError(DownloadError):
    """The disk does not hold the model."""

    outcome = Outcome.NO_DISK


class CancelledError(DownloadError):
    """Somebody stopped it; what is there stays there."""


def _wait(event: threading.Event, seconds: float) -> bool:
    return event.wait(seconds)


@dataclass(frozen=True)
class Clock:
    """Time and chance, as the downloader sees them; tests pass their own.

    Attributes:
        monotonic: seconds that never jump.
        wall: seconds since the epoch, for ``Retry-After`` dates.
        wait: sleeps until the event is set or the seconds are over; returns whether it is set.
        random: a number from 0 to 1, for the jitter of pauses.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    wait: Callable[[threading.Event, float], bool] = _wait
    random: Callable[[], float] = random.random
