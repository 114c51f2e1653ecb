"""The order in which models are supplied, and that whoever waits always gets an answer."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from llama_bench_core.delivery import DiskFullError, FetchSettings, Supplied, SupplyFailure
from llama_bench_core.supply import Supply
from llama_bench_core.values import CoreError, Model, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("a", "b", "c")
MODELS = [Model("b", "b.gguf", bytes=20), Model("c", "c.gguf", bytes=30), Model("a", "a.gguf", bytes=10)]
LIMIT = 60


def write(model: Model, path: str, progress: Callable[[int], None], _stop: Callable[[], bool]) -> None:
    """A writer of very small models."""
    Path(path).write_bytes(b"GGUF" + bytes(model.bytes - 4))
    progress(model.bytes)


def is_there(model: Model, path: str) -> bool:
    """Whether :func:`write` has been here."""
    return Path(path).exists() and Path(path).stat().st_size == model.bytes


def supply_of(folder: Path, synthesize: Any = write, models: list[Model] | None = None, **more: Any) -> Supply:
    """A supply of synthetic models."""
    return Supply(
        MODELS if models is None else models,
        str(folder),
        weights="synthetic",
        synthesize=synthesize,
        present=is_there,
        **more,
    )


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_models_come_smallest_first(tmp_path: Path) -> None:
    """Whatever order they were asked in; the smallest can be measured while the others come."""
    events: list[tuple[str, str]] = []
    supply = supply_of(tmp_path, on_event=lambda kind, name, _: events.append((kind, name)))
    assert supply.order == NAMES
    supply.start()
    results = [supply.wait(name, LIMIT) for name in NAMES]
    assert all(isinstance(one, Supplied) and one.weights == "synthetic" for one in results)
    wait_until(lambda: len(events) >= 6)  # the last one is told after whoever waits has been woken
    supply.stop()
    assert events == [(kind, name) for name in NAMES for kind in ("started", "ready")]
    assert [one["status"] for one in supply.status().values()] == ["ready"] * 3


def test_unknown_sizes_come_last_in_the_order_asked(tmp_path: Path) -> None:
    """They may be large."""
    models = [Model("x", "x"), Model("y", "y"), Model("z", "z", bytes=5)]
    assert supply_of(tmp_path, models=models).order == ("z", "x", "y")


def test_a_synthetic_model_lies_apart_and_is_written_once(tmp_path: Path) -> None:
    """A real file of the same name stays what it is."""
    (tmp_path / "a.gguf").write_bytes(b"real")
    written: list[str] = []

    def note(model: Model, path: str, *more: Any) -> None:
        written.append(path)
        write(model, path, *more)

    for _ in range(2):
        supply = supply_of(tmp_path, note)
        supply.start()
        result = supply.wait("a", LIMIT)
        assert isinstance(result, Supplied)
        assert result.path == str(tmp_path / "synthetic" / "a.gguf")
        assert supply.wait("c", LIMIT)
        supply.stop()
    assert written == [str(tmp_path / "synthetic" / f"{name}.gguf") for name in NAMES]
    assert (tmp_path / "a.gguf").read_bytes() == b"real"
    assert {one.name for one in (tmp_path / "synthetic").iterdir()} == {"a.gguf", "b.gguf", "c.gguf"}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (CoreError("No shape.", "Give one."), Outcome.DOWNLOAD_FAILED),
        (DiskFullError("Full."), Outcome.NO_DISK),
        (OSError(5, "Input/output error"), Outcome.DOWNLOAD_FAILED),
    ],
)
def test_a_model_that_can_not_be_written_ends_that_model_only(
    tmp_path: Path, error: Exception, outcome: Outcome
) -> None:
    """The failure is a value with a sentence."""

    def fail(model: Model, *more: Any) -> None:
        if model.name == "b":
            raise error
        write(model, *more)

    supply = supply_of(tmp_path, fail)
    supply.start()
    failed = supply.wait("b", LIMIT)
    assert isinstance(failed, SupplyFailure)
    assert failed.outcome is outcome
    assert failed.reason
    assert isinstance(supply.wait("c", LIMIT), Supplied)
    assert supply.status()["b"]["error"] == failed.reason
    supply.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("crash", [ZeroDivisionError("surprise"), SystemExit(3)])
def test_a_crash_of_the_thread_fails_all_that_has_not_come(tmp_path: Path, crash: BaseException) -> None:
    """Nobody waits for ever."""

    def fail(model: Model, *more: Any) -> None:
        if model.name == "b":
            raise crash
        write(model, *more)

    supply = supply_of(tmp_path, fail)
    supply.start()
    results = [supply.wait(name) for name in NAMES]
    assert isinstance(results[0], Supplied)
    for one in results[1:]:
        assert isinstance(one, SupplyFailure)
        assert one.outcome is Outcome.DOWNLOAD_FAILED
        assert "unforeseen" in one.reason
    supply.stop()


def test_waiting_has_a_time_limit_and_ends_with_a_stop(tmp_path: Path) -> None:
    """``None`` says that nothing is decided."""
    writing = threading.Event()

    def slow(_model: Model, _path: str, _progress: object, stop: Callable[[], bool]) -> None:
        writing.set()
        while not stop():
            time.sleep(0.01)

    supply = supply_of(tmp_path, slow)
    supply.start()
    assert writing.wait(LIMIT)
    assert supply.wait("a", 0.05) is None
    assert supply.status()["a"]["status"] == "writing"
    stopper = threading.Timer(0.1, supply.stop)
    stopper.start()
    began = time.monotonic()
    assert supply.wait("c") is None
    assert time.monotonic() - began < LIMIT
    stopper.join()
    wait_until(lambda: not list((tmp_path / "synthetic").iterdir()))  # a stop waits a second for it, not for ever


def test_stop_before_start_is_harmless(tmp_path: Path) -> None:
    """A session that fails early stops what never began."""
    supply_of(tmp_path).stop()
    assert list(tmp_path.iterdir()) == []


def test_an_abandoned_model_is_never_begun(tmp_path: Path) -> None:
    """With the outcome and the reason that were given."""
    supply = supply_of(tmp_path)
    supply.abandon("b", "The smaller one was too slow.", Outcome.PREDICTED_SKIP)
    supply.start()
    assert supply.wait("b", 0) == SupplyFailure(Outcome.PREDICTED_SKIP, "The smaller one was too slow.")
    assert isinstance(supply.wait("c", LIMIT), Supplied)
    assert not (tmp_path / "synthetic" / "b.gguf").exists()
    assert supply.estimate_ready("b") is None
    supply.stop()


def test_a_file_name_does_not_leave_its_folder(tmp_path: Path) -> None:
    """Model files come from settings that others write."""
    for weights in ("real", "synthetic"):
        bad = Model("x", "../x.gguf", url="file:///etc/hostname")
        supply = Supply([bad], str(tmp_path / "models"), weights=weights)
        supply.start()
        result = supply.wait("x", LIMIT)
        assert isinstance(result, SupplyFailure)
        assert "not a plain file name" in result.reason
        supply.stop()


def test_a_model_without_any_address_says_so(tmp_path: Path) -> None:
    """And how to mend it."""
    supply = Supply([Model("x", "x.gguf")], str(tmp_path), fetch=FetchSettings(reserve_bytes=0))
    supply.start()
    result = supply.wait("x", LIMIT)
    assert isinstance(result, SupplyFailure)
    assert "no URL is known" in result.reason
    supply.stop()


def test_the_estimate_counts_what_stands_in_line(tmp_path: Path) -> None:
    """10 bytes of the first at a measured speed, then all of the others."""
    now = [0.0]
    from llama_bench_core.delivery import Clock

    reported, go_on = threading.Event(), threading.Event()

    def paced(model: Model, path: str, progress: Callable[[int], None], _stop: Callable[[], bool]) -> None:
        if model.name == "a":
            for second, there in ((0, 0), (4, 4), (8, 8)):
                now[0] = second
                progress(there)
            reported.set()
            go_on.wait(LIMIT)
        write(model, path, lambda _: None, _stop)

    supply = supply_of(tmp_path, paced, clock=Clock(monotonic=lambda: now[0]))
    assert supply.estimate_ready("a") is None
    supply.start()
    assert reported.wait(LIMIT)
    assert supply.estimate_ready("a") == pytest.approx(2)
    assert supply.estimate_ready("c") == pytest.approx(2 + 20 + 30)
    assert supply.status()["a"]["bytes_per_second"] == pytest.approx(1)
    assert supply.judge("c", 10) == ""  # 8 s are too short a time to judge by
    go_on.set()
    assert isinstance(supply.wait("c", LIMIT), Supplied)
    assert supply.estimate_ready("c") == 0
    assert supply.judge("c", 0) == ""
    supply.stop()
