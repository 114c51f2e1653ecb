"""A measurement that finds another one on its state folder, and waits for its end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from llama_bench_core import session, state

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when somebody has asked whether the lock is taken."""
    event = threading.Event()
    real = state.is_locked

    def is_locked(path: Path) -> bool:
        answer = real(path)
        event.set()
        return answer

    monkeypatch.setattr(session, "ATTACHED_SECONDS", 0.01)
    monkeypatch.setattr(state, "is_locked", is_locked)
    return event


def params(folder: Path) -> dict[str, Any]:
    return {
        "suite": {"name": "tiny", "models": ["m"], "scenarios": {"pp": {16: 1}}},
        "models": [{"name": "m", "file": "m.gguf", "url": "http://127.0.0.1:9/m.gguf"}],
        "state_dir": str(folder),
        "models_dir": str(folder / "models"),
        "llama_bench": "/nowhere/llama-bench",
        "attach": True,
    }


def test_what_was_stopped_is_not_gone_on_with(tmp_path: Path, looked: threading.Event) -> None:
    """Whoever stops a measurement stops it for all who wait for it."""
    answers: list[dict[str, Any]] = []
    waiting = threading.Thread(
        target=lambda: answers.append(session.measure(params(tmp_path), check=False, stop=threading.Event()))
    )
    with state.locked(tmp_path / state.LOCK, {"sweep": "s"}):
        journal = state.Journal(tmp_path)
        journal.append("session", session=1, weights="real")
        waiting.start()
        assert looked.wait(60)
        assert waiting.is_alive()
        journal.append("end", status="stopped", message="stopped on request")
        journal.close()
    waiting.join(60)
    assert [(one["changed"], one["status"]) for one in answers] == [(False, "stopped")]


def test_one_that_waits_can_be_told_to_end(tmp_path: Path, looked: threading.Event) -> None:
    """It leaves the other one alone."""
    stop = threading.Event()
    answers: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: answers.append(session.measure(params(tmp_path), check=False, stop=stop)))
    with state.locked(tmp_path / state.LOCK, {"sweep": "s"}):
        waiting.start()
        assert looked.wait(60)
        stop.set()
        waiting.join(60)
        assert not waiting.is_alive()
    assert [(one["changed"], one["status"]) for one in answers] == [(False, "stopped")]
    assert not (tmp_path / state.JOURNAL).exists()


def test_what_died_is_gone_on_with(tmp_path: Path, looked: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal without an end is that of a session that was killed."""
    began: list[str] = []
    monkeypatch.setattr(session, "_machine_lock", lambda: tmp_path / "machine.lock")
    monkeypatch.setattr(session.Session, "run", lambda one: began.append(one.request.sweep))
    waiting = threading.Thread(
        target=session.measure,
        args=({**params(tmp_path), "sweep": "next"},),
        kwargs={"check": False, "stop": threading.Event()},
    )
    with state.locked(tmp_path / state.LOCK, {"sweep": "s"}):
        journal = state.Journal(tmp_path)
        journal.append("session", session=1, weights="real")
        journal.close()
        waiting.start()
        assert looked.wait(60)
        assert began == []
    waiting.join(60)
    assert began == ["next"]
