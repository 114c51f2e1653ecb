"""One run of Pulumi's engine as a process: its environment, its log, its events, its end. Knows nothing of the SDK.

The engine writes into the job's log, not into a pipe of ours: an engine whose controller was killed goes on, finishes
the call to the cloud that is under way, and writes down what it made. Every process of a run, the providers' plugins
included, carries two variables by which a later controller finds what is left of it (:data:`STACK_MARK`,
:data:`CONTROLLER_MARK`).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

STACK_MARK = "BENCHCTL_STACK"
"""On every process of a run: which stack of which backend it works on."""

CONTROLLER_MARK = "BENCHCTL_CONTROLLER"
"""On every process of a run: process number and start time of the controller that started it."""

GRACE_SECONDS = 30.0
"""How long an interrupted engine may take to finish the calls that are under way, and to write down what they made."""

TERMINATE_SECONDS = 10.0
"""How long an engine may take to end after it was told to leave calls unfinished."""

LOOK_SECONDS = 0.2
"""How often events are read, and is looked whether the run is cancelled."""

_PASSED_ON = (
    *("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    *("PULUMI_HOME", "PULUMI_ACCESS_TOKEN", "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"),
    *("GOMEMLIMIT", "GOGC", "GOMAXPROCS"),
)
"""What the engine gets of a user's environment. Logins of vendors come per call, and no others do."""


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: exit status of the engine; negative for a signal.
        stdout: what it printed; with a log, both streams.
        stderr: what it printed; empty with a log.
        why: empty when it ended by itself, else ``cancelled`` or ``timeout``.
    """

    code: int
    stdout: str
    stderr: str
    why: str = ""


@dataclass(frozen=True)
class Running:
    """A process of a run of the engine, of whatever controller.

    Attributes:
        pid: its number.
        stack: the mark of its stack.
        engine: whether it is the engine itself, and no plugin.
        orphan: whether its controller is no more.
    """

    pid: int
    stack: str
    engine: bool
    orphan: bool


def environment_of(
    theirs: Mapping[str, str], *, search: Sequence[Path], given: Mapping[str, str], own: Mapping[str, str]
) -> dict[str, str]:
    """The engine's environment, from a list of what is allowed.

    Args:
        theirs: the user's environment.
        search: folders that programs are looked for in before those of PATH.
        given: what the call needs besides, the vendor's login.
        own: what we say to the engine; stronger than all others.
    """
    environment = {name: theirs[name] for name in _PASSED_ON if name in theirs} | dict(given)
    path = environment.get("PATH", theirs.get("PATH", os.defpath))
    environment["PATH"] = os.pathsep.join((*map(str, search), path))
    return environment | {
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_AUTOMATION_API": "true",
        # one older copy of the state is kept beside it; a copy for every change is not needed
        "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
        CONTROLLER_MARK: identity(os.getpid()) or "",
        **own,
    }


def run(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    log: Path | None = None,
    on_event: Callable[[Mapping[str, Any]], None] = lambda _: None,
    timeout_seconds: float = 3600.0,
    cancelled: Callable[[], bool] = lambda: False,
    hidden: Sequence[str] = (),
) -> Ended:
    """Run the engine once and wait for its end.

    Args:
        command: program and arguments; no secrets, everybody can read them.
        folder: where it runs.
        environment: all of its environment.
        log: where both of its streams are appended, for its owner alone; without one they are returned, and there are
            no events.
        on_event: takes each of the engine's events.
        timeout_seconds: after this long it is interrupted.
        cancelled: asked now and then; true interrupts it.
        hidden: what is starred out in the output, should a vendor's plugin repeat it in an error.
    """
    if log is None:
        return _short(command, folder, environment, timeout_seconds, hidden)
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    # a file without a name: nothing is left of it, whoever is killed
    with tempfile.TemporaryFile(prefix="benchctl-events-") as events:
        try:
            start = os.lseek(handle, 0, os.SEEK_END)
            process = subprocess.Popen(
                [*command, "--event-log", f"/proc/self/fd/{events.fileno()}"],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                pass_fds=(events.fileno(),),
                # Ctrl-C is the controller's to hear; it then tells the engine
                start_new_session=True,
            )
        finally:
            os.close(handle)
        reader = _Events(events.fileno(), on_event)
        try:
            why = _wait(process, reader, timeout_seconds, cancelled)
        except BaseException:
            _interrupt(process, reader)
            raise
        finally:
            reader.read()
    return Ended(process.returncode, _hide(log, start, hidden), "", why)


def _hide(log: Path, start: int, hidden: Sequence[str]) -> str:
    """What a run added to the log, with secrets starred out, there too; stars take the same room."""
    with log.open("r+b") as file:
        file.seek(start)
        said = file.read()
        clean = said
        for secret in _worth_hiding(hidden):
            clean = clean.replace(secret.encode(), b"*" * len(secret.encode()))
        if clean != said:
            file.seek(start)
            file.write(clean)
    return clean.decode(errors="replace")


def _starred(text: str, hidden: Sequence[str]) -> str:
    for secret in _worth_hiding(hidden):
        text = text.replace(secret, "*" * len(secret))
    return text


def _worth_hiding(hidden: Sequence[str]) -> list[str]:
    """Secrets long enough that they are not found in everything; the lines of a file, where one is of several."""
    lines = [line for secret in hidden for line in secret.splitlines()]
    return sorted({line for line in (*hidden, *lines) if len(line) >= 6}, key=len, reverse=True)


def _short(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    timeout_seconds: float,
    hidden: Sequence[str],
) -> Ended:
    """A question that is answered at once, as the list of stacks."""
    try:
        done = subprocess.run(
            list(command),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        return Ended(-signal.SIGKILL, "", str(error), "timeout")
    return Ended(done.returncode, _starred(done.stdout, hidden), _starred(done.stderr, hidden))


def _wait(
    process: subprocess.Popen[bytes], reader: _Events, timeout_seconds: float, cancelled: Callable[[], bool]
) -> str:
    """Wait for the end, or bring it about; says why."""
    deadline = time.monotonic() + timeout_seconds
    while not _ends_within(process, LOOK_SECONDS):
        reader.read()
        why = "cancelled" if cancelled() else "timeout" if time.monotonic() > deadline else ""
        if why:
            _interrupt(process, reader)
            return why
    return ""


def _interrupt(process: subprocess.Popen[bytes], reader: _Events) -> None:
    """Ask it to stop; then to leave what is under way; then kill it."""
    for number, patience in ((signal.SIGINT, GRACE_SECONDS), (signal.SIGINT, TERMINATE_SECONDS)):
        with suppress(ProcessLookupError):
            process.send_signal(number)
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if _ends_within(process, LOOK_SECONDS):
                return
            reader.read()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait a moment for the end of a process, without asking again and again."""
    if process.poll() is not None:
        return True
    handle = os.pidfd_open(process.pid)
    try:
        select.select([handle], [], [], seconds)
    finally:
        os.close(handle)
    return process.poll() is not None


class _Events:
    """Reads what was added to the engine's file of events; a line that is not whole yet waits."""

    def __init__(self, handle: int, on_event: Callable[[Mapping[str, Any]], None]) -> None:
        self._handle, self._on_event, self._at, self._rest = handle, on_event, 0, b""

    def read(self) -> None:
        """Hand on every new event."""
        while fresh := os.pread(self._handle, 1 << 20, self._at):
            self._at += len(fresh)
            *lines, self._rest = (self._rest + fresh).split(b"\n")
            for line in lines:
                with suppress(ValueError):
                    self._on_event(json.loads(line))


def identity(pid: int) -> str | None:
    """A process told apart from a later one with the same number: its number and when it started; nothing if gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else f"{pid}-{fields[19].decode()}"


def running(stack: str | None = None) -> list[Running]:
    """The processes of runs of the engine on this machine, of this user: of one stack, by its mark, or of all."""
    return [one for one in _marked() if stack is None or one.stack == stack]


def is_engine(pid: int) -> bool:
    """Whether a process is an engine of Pulumi's, anybody's."""
    return _program(_words(pid)) == "pulumi"


def _marked() -> Iterator[Running]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        pairs = dict(word.decode(errors="replace").partition("=")[::2] for word in words)
        stack, controller = pairs.get(STACK_MARK), pairs.get(CONTROLLER_MARK, "")
        program = _program(_words(int(entry.name)))
        if not stack or not program or identity(int(entry.name)) is None:
            continue
        pid = controller.partition("-")[0]
        alive = pid.isdigit() and identity(int(pid)) == controller
        yield Running(int(entry.name), stack, program == "pulumi", not alive)


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def _program(words: Sequence[str]) -> str:
    """``pulumi``, or the name of a plugin, also of one that an interpreter runs; else empty.

    What a plugin starts has its environment too, as a container's keeper has, and is not ours to end.
    """
    names = [word.rpartition("/")[2] for word in words[:3]]
    if "pulumi" in names[:2]:  # the second where a script of this name starts it
        return "pulumi"
    return next((name for name in names if name.startswith(("pulumi-resource-", "pulumi-language-"))), "")
