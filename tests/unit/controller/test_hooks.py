"""Hooks: a real command and a real web server are told; what fails is said without its secret."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from benchctl import hooks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLANTED = "s3cr3t-t0ken"


class Listener:
    """A web server on this machine that keeps what it is sent."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, Any]] = []
        self.status, self.hold = 200, threading.Event()
        self.hold.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.hold.wait(20)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((self.path, self.headers["Content-Type"], json.loads(body)))
                self.send_response(outer.status)
                if outer.status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{PLANTED}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def test_a_web_address_is_told(listener: Listener) -> None:
    """It gets the event and the facts as JSON."""
    assert hooks.tell(listener.url, hooks.ENDED, {"sweep": "s1", "status": "finished"}) == ""
    assert listener.got == [
        (f"/{PLANTED}", "application/json", {"event": "ended", "sweep": "s1", "status": "finished"})
    ]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_address_that_refuses_is_said(listener: Listener, status: int) -> None:
    """The answer's status is told, the address is not; nobody is sent elsewhere."""
    listener.status = status
    said = hooks.tell(listener.url, hooks.LEAK, {})
    assert str(status) in said
    assert PLANTED not in said


def test_an_address_that_hangs_is_left(listener: Listener) -> None:
    """It has so long and no longer."""
    listener.hold.clear()
    said = hooks.tell(listener.url, hooks.LEAK, {}, timeout_seconds=0.2)
    assert "did not answer in 0.2 s" in said


@pytest.mark.parametrize(
    "url", [f"http://127.0.0.1:1/{PLANTED}", f"http://no-such-host.invalid/{PLANTED}", f"http://[{PLANTED}", f"https://{PLANTED}:x/"]
)  # fmt: skip
def test_an_address_that_is_not_there_is_said(url: str) -> None:
    """Also one that is no address; none of its words is repeated."""
    said = hooks.tell(url, hooks.ENDED, {})
    assert said.startswith("The hook was not told of 'ended'")
    assert PLANTED not in said


def test_a_command_is_told(tmp_path: Path) -> None:
    """It gets the facts on its input and the event in its environment; its words reach no shell."""
    kept = tmp_path / "kept"
    program = (
        "import os, sys; open(sys.argv[1], 'w').write(os.environ['BENCHCTL_EVENT'] + sys.stdin.read() + sys.argv[2])"
    )
    hook = f"{sys.executable} -c \"{program}\" {kept} '$(touch {tmp_path}/no)'"
    assert hooks.tell(hook, hooks.BUDGET, {"committed": 4.2}) == ""
    text = kept.read_text()
    assert text.startswith('budget-80-percent{"event": "budget-80-percent", "committed": 4.2}')
    assert text.endswith(f"$(touch {tmp_path}/no)")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("hook", "word"),
    [
        (f"/no/such/program {PLANTED}", "can't be run"),
        (f"false {PLANTED}", "exit status 1"),
        (f"{sys.executable} -c 'import time; time.sleep(60)' {PLANTED}", "did not end in"),
        (f"'{PLANTED}", "quotation mark"),
        (f"echo {PLANTED}\0", "no command may"),
    ],
)
def test_a_command_that_fails_is_said(hook: str, word: str) -> None:
    """Not there, not well, never ending, not a command: one sentence, without its arguments."""
    said = hooks.tell(hook, hooks.ENDED, {}, timeout_seconds=1 if "sleep" in hook else 20)
    assert word in said
    assert PLANTED not in said


def test_a_command_that_reads_nothing_is_well() -> None:
    """Whoever does not care for the facts need not read them, however many they are."""
    assert hooks.tell("true", hooks.ENDED, {"much": "x" * 1_000_000}) == ""


def test_without_a_hook_nobody_is_told() -> None:
    """No hook, no complaint."""
    assert hooks.tell("", hooks.ENDED, {}) == ""


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("./tell.sh --to 'some one'", "{here}/tell.sh --to 'some one'"),
        ("'my hooks/tell.sh'", "'{here}/my hooks/tell.sh'"),
        ("/usr/bin/tell  me", "/usr/bin/tell  me"),
        ("tell ./me", "tell ./me"),
        ("https://host/./path 'x", "https://host/./path 'x"),
        ("", ""),
    ],
)
def test_a_command_is_the_same_in_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    """A detached sweep, and a reaper later, run it from another one."""
    monkeypatch.chdir(tmp_path)
    assert hooks.settled(given) == meant.format(here=tmp_path)


def test_a_relative_command_is_told_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is run, whatever the folder is by then."""
    program = tmp_path / "tell.sh"
    program.write_text(f"#!/bin/sh\ncat > '{tmp_path}/told'\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    hook = hooks.settled("./tell.sh")
    monkeypatch.chdir("/")
    assert hooks.tell(hook, hooks.LEAK, {"sweep": "s1"}) == ""
    assert "s1" in (tmp_path / "told").read_text()
