"""Supplies the models of a session, one after the other, smallest first, in a thread of its own.

While one model is measured the next one arrives. :class:`Supply` knows the order and the state of each model;
:mod:`fetch` gets one model, :mod:`transfer` one file from one server. Failures are values: a corrupt or missing model
ends that model, never the rest, and :meth:`Supply.wait` always comes back.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from . import synthetic
from .delivery import CancelledError, Clock, DownloadError, FetchSettings, Supplied, SupplyFailure
from .fetch import Fetch, plain_name
from .pace import Pace, too_slow
from .part import Part
from .values import CoreError, Model, Outcome
from .web import Web, probe_reachable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from .delivery import Opener

    class Supplier(Protocol):
        """What brings a session's models, one after the other: :class:`Supply`, or a replay's simulated one."""

        def start(self) -> None:
            """Begin."""

        def wait(self, name: str, timeout: float | None = None) -> Supplied | SupplyFailure | None:
            """Wait for a model for so many seconds; ``None`` when it is still on its way then."""

        def status(self) -> dict[str, dict[str, Any]]:
            """Where each model is on its way."""

        def judge(self, name: str, patience_seconds: float) -> str:
            """Why a model will come too late; empty if it will not."""

        def abandon(self, name: str, reason: str, outcome: Outcome = Outcome.DOWNLOAD_TOO_SLOW) -> None:
            """Give up a model that will not be used."""

        def stop(self) -> None:
            """End all downloads."""

    Synthesize = Callable[[Model, str, Callable[[int], None], Callable[[], bool]], object]
    OnEvent = Callable[[str, str, str], None]

__all__ = ["Clock", "FetchSettings", "Supplied", "Supply", "SupplyFailure", "probe_reachable", "too_slow"]

GOODBYE_SECONDS = 0.9
FIRST_PACE_SECONDS = 2.0
"""Until a model has been on its way for so long, the speed of the one before it is the better estimate."""


class _Order:
    """One model's way through the supply."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.status = "waiting"
        self.bytes_there = 0
        self.bytes_total = model.bytes
        self.result: Supplied | SupplyFailure | None = None
        self.cancel = threading.Event()
        self.pace = Pace()

    @property
    def bytes_left(self) -> int | None:
        """What has still to come; ``None`` when the size is not known."""
        if self.result is not None:
            return 0
        return max(0, self.bytes_total - self.bytes_there) if self.bytes_total else None


class Supply:
    """The models of one session, on their way.

    Args:
        models: what to supply. Models with a ``path`` are only checked, where they lie.
        directory: where downloads go (made if missing); synthetic models go to ``synthetic`` below it, so that one
            can't be taken for the other.
        weights: ``real`` (download) or ``synthetic`` (write).
        fetch: how to download.
        opener: what opens requests; by default urllib's with the environment's proxies.
        clock: time and chance.
        synthesize: ``synthesize(model, path, progress, stop)`` writes a synthetic model to ``path`` (and removes it
            again when it fails or ``stop()`` is true); it calls ``progress(bytes_so_far)`` now and then.
        present: ``present(model, path)`` says whether ``path`` is that model's synthetic file already.
        on_event: ``on_event(kind, model_name, sentence)`` with kind ``started``, ``reused``, ``retry``,
            ``restarted``, ``ready``, ``failed`` or ``abandoned``; called in the threads of the download.
    """

    def __init__(
        self,
        models: Sequence[Model],
        directory: str,
        *,
        weights: str = "real",
        fetch: FetchSettings | None = None,
        opener: Opener | None = None,
        clock: Clock | None = None,
        synthesize: Synthesize = synthetic.write,
        present: Callable[[Model, str], bool] = synthetic.present,
        on_event: OnEvent | None = None,
    ) -> None:
        self._directory = Path(directory)
        self._weights = weights
        self._settings = fetch or FetchSettings()
        self._opener = opener
        self._clock = clock or Clock()
        self._synthesize, self._present = synthesize, present
        self._on_event = on_event or (lambda _kind, _model, _sentence: None)
        in_order = sorted(models, key=lambda model: _size(model) or float("inf"))
        self._orders = {model.name: _Order(model) for model in in_order}
        self._changed = threading.Condition()  # of all orders
        self._stopped = False
        self._speed: float | None = None
        self._measured_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="supply", daemon=True)

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the models in the order in which they are supplied: by size, unknown sizes last."""
        return tuple(self._orders)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def wait(self, name: str, timeout: float | None = None) -> Supplied | SupplyFailure | None:
        """Wait until a model is there or is known not to come.

        Args:
            name: which model.
            timeout: how long at most, in seconds; ``None``: until it is decided.

        Returns:
            The model, or why it does not come, or ``None`` when the time is over or :meth:`stop` was called.
        """
        order = self._orders[name]
        with self._changed:
            self._changed.wait_for(lambda: order.result is not None or self._stopped, timeout)
            return order.result

    def status(self) -> dict[str, dict[str, Any]]:
        """For each model: status, bytes, bytes_total, bytes_per_second, eta_seconds, error (as progress.json has it).

        ``status`` is waiting, downloading, writing, ready, failed or abandoned; ``bytes_per_second`` and
        ``eta_seconds`` are ``None`` when unknown; ``bytes_total`` is 0 when unknown; ``error`` is empty if all is well.
        """
        with self._changed:
            return {
                name: {
                    "status": order.status,
                    "bytes": order.bytes_there,
                    "bytes_total": order.bytes_total,
                    "bytes_per_second": order.pace.bytes_per_second if order.status in _UNDER_WAY else None,
                    "eta_seconds": self._estimate(name),
                    "error": order.result.reason if isinstance(order.result, SupplyFailure) else "",
                }
                for name, order in self._orders.items()
            }

    def estimate_ready(self, name: str) -> float | None:
        """Seconds until the model will be ready, from measured bandwidth and what stands in line; ``None``: unknown."""
        with self._changed:
            return self._estimate(name)

    def judge(self, name: str, patience_seconds: float) -> str:
        """Say whether a model will come too late: :func:`too_slow` with what was measured; empty if it will not."""
        with self._changed:
            left = self._left_until(name)
            if left is None or self._orders[name].result is not None:
                return ""
            speed, measured_seconds = self._measured()
        return too_slow(
            bytes_left=left,
            bytes_per_second=speed,
            measured_seconds=measured_seconds,
            patience_seconds=patience_seconds,
        )

    def abandon(self, name: str, reason: str, outcome: Outcome = Outcome.DOWNLOAD_TOO_SLOW) -> None:
        """Give up a model that will not be used; nothing happens when it is ready or has failed already.

        A download that is under way stops at once, and what has arrived is removed: the models that are still to come
        are larger and need the disk. :meth:`wait` then returns a failure with this outcome and reason.
        """
        order = self._orders[name]
        if self._settle(order, SupplyFailure(outcome, reason), "abandoned"):
            order.cancel.set()

    def stop(self) -> None:
        """Stop within a second; what has arrived stays, and is gone on with by the next session."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for order in self._orders.values():
            order.cancel.set()
        if self._thread.ident is not None:
            self._thread.join(GOODBYE_SECONDS)

    # --- estimates; the caller holds the lock ---

    def _left_until(self, name: str) -> int | None:
        """Bytes that have to come until this model is there; ``None`` when a size is not known."""
        left = 0
        for order in self._orders.values():
            if order.bytes_left is None:
                return None
            left += 0 if order.model.path else order.bytes_left
            if order.model.name == name:
                break
        return left

    def _measured(self) -> tuple[float | None, float]:
        """Bandwidth now, and for how long it has been measured in all."""
        for order in self._orders.values():
            if order.status in _UNDER_WAY:
                seconds = order.pace.measured_seconds
                young = seconds < FIRST_PACE_SECONDS and self._speed is not None
                return self._speed if young else order.pace.bytes_per_second, self._measured_seconds + seconds
        return self._speed, self._measured_seconds

    def _estimate(self, name: str) -> float | None:
        order = self._orders[name]
        if order.result is not None:
            return 0.0 if isinstance(order.result, Supplied) else None
        left, (speed, _) = self._left_until(name), self._measured()
        if left == 0:
            return 0.0
        return left / speed if left is not None and speed else None

    # --- in the supply's thread ---

    def _run(self) -> None:
        failure = "The download thread ended unforeseen."
        try:
            self._supply_all()
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            failure = f"The download thread ended unforeseen: {error!r}."
        finally:
            if not self._stopped:
                for order in self._orders.values():
                    self._settle(order, SupplyFailure(Outcome.DOWNLOAD_FAILED, failure), "failed", silent=True)

    def _supply_all(self) -> None:
        for order in self._orders.values():
            if self._stopped:
                return
            with self._changed:
                if order.result is not None:
                    continue
                real = self._weights == "real" or bool(order.model.path)
                order.status = "downloading" if real else "writing"
            try:
                supplied = self._fetch(order) if real else self._write(order)
            except CancelledError:
                if not self._stopped:
                    self._remove_abandoned(order)
            except CoreError as error:
                outcome = error.outcome if isinstance(error, DownloadError) else Outcome.DOWNLOAD_FAILED
                self._settle(order, SupplyFailure(outcome, str(error)), "failed")
            else:
                self._settle(order, supplied, "ready")
            self._keep_pace(order)

    def _fetch(self, order: _Order) -> Supplied:
        def notice(kind: str, sentence: str) -> None:
            self._on_event(kind, order.model.name, sentence)

        return Fetch(
            order.model,
            self._directory,
            Web(self._settings, self._opener),
            self._settings,
            clock=self._clock,
            cancel=order.cancel,
            progress=lambda there, total: self._progress(order, there, total),
            checking=lambda done, total: self._progress(order, done, total, arriving=False),
            notice=notice,
        ).run()

    def _write(self, order: _Order) -> Supplied:
        model, began = order.model, self._clock.monotonic()
        path = self._directory / "synthetic" / plain_name(model.file)
        try:
            if not self._present(model, str(path)):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._write_locked(order, path)
            size = path.stat().st_size
        except OSError as error:
            raise DownloadError(f"{path} can't be written: {error.strerror or error}.", "Check models_dir.") from error
        return Supplied(str(path), size, "", self._clock.monotonic() - began, "synthetic")

    def _write_locked(self, order: _Order, path: Path) -> None:
        with Part.acquire(path, self._clock, order.cancel, lambda: None):
            if self._present(order.model, str(path)):  # another session wrote it meanwhile
                return
            self._on_event("started", order.model.name, f"Writing {path}.")
            self._synthesize(
                order.model,
                str(path),
                lambda there: self._progress(order, there, order.model.bytes),
                order.cancel.is_set,
            )
        if order.cancel.is_set():
            raise CancelledError(f"The writing of {path} was stopped.")

    def _remove_abandoned(self, order: _Order) -> None:
        """Free the disk of what will not be used."""
        if order.model.path or self._weights != "real":
            return
        path = self._directory / plain_name(order.model.file)
        try:
            with Part.acquire(path, self._clock, _NOW, lambda: None) as part:
                part.remove()
        except (OSError, CancelledError):
            return  # another session holds it, and uses it

    def _progress(self, order: _Order, there: int, total: int, *, arriving: bool = True) -> None:
        with self._changed:
            order.bytes_there = there
            order.bytes_total = total or order.bytes_total
            if arriving:
                order.pace.mark(self._clock.monotonic(), there)

    def _keep_pace(self, order: _Order) -> None:
        with self._changed:
            if order.pace.bytes_per_second:
                self._speed = order.pace.bytes_per_second
            self._measured_seconds += order.pace.measured_seconds

    def _settle(self, order: _Order, result: Supplied | SupplyFailure, status: str, *, silent: bool = False) -> bool:
        """Decide a model, once; return whether this was the decision."""
        with self._changed:
            if order.result is not None:
                return False
            order.result, order.status = result, status
            if isinstance(result, Supplied):
                order.bytes_there = order.bytes_total = result.bytes
            self._changed.notify_all()
        if not silent:
            sentence = result.reason if isinstance(result, SupplyFailure) else f"{result.path} is ready."
            self._on_event(status, order.model.name, sentence)
        return True


_UNDER_WAY = ("downloading", "writing")

_NOW = threading.Event()
_NOW.set()


def _size(model: Model) -> int:
    if not model.path:
        return model.bytes
    try:
        return Path(model.path).stat().st_size
    except OSError:
        return 1  # it is not there, and that is soon said
