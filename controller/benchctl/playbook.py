"""The seam to Ansible: run one carried playbook over some hosts, and get back what its tasks said.

Everything of one run lies in one folder (inventory, variables, what Ansible printed), readable by its owner alone, and
the next run of the same kind takes its place, so that polling for hours does not fill the disk.

ansible-runner writes the environment that it hands to Ansible to the disk. So Ansible gets the few variables that it
needs, by name (:data:`PASSED_ON`), and never whatever keys and tokens the user's shell holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from benchctl.content import content_root
from benchctl.errors import PlaybookError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PASSED_ON = (
    *("HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSH_AUTH_SOCK"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "no_proxy", "NO_PROXY"),
    # what a llama-bench of the user's own may need to find its libraries and its GPUs
    *("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
)
"""Variables of the user's environment that Ansible, and what it runs on this machine, may see."""

PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
"""Passed on too, unless they hold a password: what Ansible sees is written to the disk."""

RUNNERS_OWN = (
    *("ANSIBLE_CALLBACK_PLUGINS", "ANSIBLE_STDOUT_CALLBACK", "ANSIBLE_RETRY_FILES_ENABLED", "AWX_ISOLATED_DATA_DIR"),
    *("RUNNER_OMIT_EVENTS", "RUNNER_ONLY_FAILED_EVENTS"),
)
"""What ansible-runner sets for its callback, through which the events come."""

LARGEST_RESULT = 8_000_000
"""Results longer than this are dropped by ansible-runner's callback, characters; a poll brings up to two MiB."""

CONTROL_SECONDS = 0.5
"""How often a run looks whether it is to be cancelled."""

CANCEL_SECONDS = 60.0
"""How long a run that was cancelled, or has said its end, may take to go before it is killed."""

FORKS = 8
"""Hosts that one run works on at once. Each takes a process of some 13 MB, and a sweep runs two playbooks at a time."""

FORKS_IN_A_HURRY = 24
"""The same for ``stop``, which has seconds for all hosts, and beside which nothing else is prepared or looked at."""

KEPT_ARTIFACTS = 1
"""Runs of one kind whose output stays on the disk, beside the running one."""

_SAID_LENGTH = 500
"""How much of what Ansible printed a message quotes, characters."""


@dataclass(frozen=True)
class TaskResult:
    """What one task said of one host.

    Attributes:
        task: the task's name.
        action: the module, without its collection.
        status: ``ok``, ``failed`` or ``unreachable``.
        result: what the module returned.
    """

    task: str
    action: str
    status: str
    result: Mapping[str, Any]


@dataclass(frozen=True)
class PlaybookResult:
    """What came of one run.

    Attributes:
        rc: Ansible's exit status; 0 is success.
        cancelled: whether it was ended because somebody asked for it.
        hosts: what the tasks said, by host, in order.
        failures: one sentence for every host on which a task failed.
        unreachable: one sentence for every host that could not be reached.
        killed: whether it broke off before its end, and nobody asked for it: what tasks would have come is unknown.
    """

    rc: int
    cancelled: bool = False
    hosts: Mapping[str, tuple[TaskResult, ...]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    unreachable: Mapping[str, str] = field(default_factory=dict)
    killed: bool = False

    def of(self, host: str, action: str) -> Mapping[str, Any] | None:
        """What the last task with this module said of ``host``, or nothing if none did."""
        found = [one.result for one in self.hosts.get(host, ()) if one.action == action and one.status == "ok"]
        return found[-1] if found else None


class Playbook(Protocol):
    """Runs a carried playbook."""

    def run(
        self,
        name: str,
        *,
        inventory: Sequence[Path | Mapping[str, Any]],
        extra_vars: Mapping[str, Any] | None = None,
        limit: Sequence[str] = (),
        on_event: Callable[[Mapping[str, Any]], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> PlaybookResult:
        """Run the playbook ``name`` over the hosts.

        Args:
            name: of the playbook, without its suffix.
            inventory: files, and inventories as plain values; a later one adds to an earlier one.
            extra_vars: variables for all hosts.
            limit: names of the hosts to run on; none for all of the inventory.
            on_event: called with each event of ansible-runner.
            cancelled: asked twice a second; true ends the run.

        Raises:
            PlaybookError: Ansible could not be run at all. A host that fails is in the result instead.
        """
        ...


class AnsiblePlaybook:
    """The real one, on ansible-runner."""

    def __init__(self, runs: Path, content: Path | None = None) -> None:
        """Keep the runs below ``runs``; the playbooks are those of ``content`` (by default the carried ones)."""
        self.runs = runs
        self.content = content or content_root()

    def run(
        self,
        name: str,
        *,
        inventory: Sequence[Path | Mapping[str, Any]],
        extra_vars: Mapping[str, Any] | None = None,
        limit: Sequence[str] = (),
        on_event: Callable[[Mapping[str, Any]], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> PlaybookResult:
        """See :class:`Playbook`."""
        environment = ansible_environment(self.content)
        require_ansible(environment)
        folder = self.runs / name
        try:
            sources = self._write(folder, inventory, extra_vars or {})
        except OSError as error:
            raise PlaybookError(
                f"The folder {folder} can't be written: {error.strerror}.", "Choose another with --state-dir."
            ) from error
        asked = {
            "config": {
                "private_data_dir": str(folder),
                "project_dir": str(self.content),
                "playbook": str(self.content / "playbooks" / f"{name}.yml"),
                "inventory": sources,
                "limit": ",".join(limit) or None,
                "forks": FORKS_IN_A_HURRY if name == "stop" else FORKS,
            },
            "environment": environment,
            "runners_own": RUNNERS_OWN,
        }
        heard = _Events(on_event)
        try:
            ended = _run(asked, environment, heard, cancelled or (lambda: False))
        finally:
            # what was handed over may hold a password, and nothing reads it again
            shutil.rmtree(folder / "env", ignore_errors=True)
        self._prune(folder)
        if ended.rc != 0 and not ended.cancelled and not heard.hosts:
            raise PlaybookError(
                f"Ansible could not run the playbook '{name}' (exit status {ended.rc}): "
                f"{(ended.artifacts and _said(Path(ended.artifacts))) or ended.said}",
                f"All that it printed is in {ended.artifacts}." if ended.artifacts else "",
            )
        return PlaybookResult(
            rc=ended.rc,
            cancelled=ended.cancelled,
            hosts={host: tuple(results) for host, results in heard.hosts.items()},
            failures=heard.failures,
            unreachable=heard.unreachable,
            killed=not ended.cancelled and not heard.summed_up,
        )

    def _write(
        self, folder: Path, inventory: Sequence[Path | Mapping[str, Any]], extra_vars: Mapping[str, Any]
    ) -> list[str]:
        """The run's folder: settings, variables and inventories, for its owner alone."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(folder / "env", ignore_errors=True)
        _write_private(folder / "env" / "settings", {"pexpect_timeout": CONTROL_SECONDS})
        _write_private(folder / "env" / "extravars", dict(extra_vars))
        sources = []
        for number, one in enumerate(inventory):
            if isinstance(one, Path):
                sources.append(str(one.absolute()))
                continue
            path = folder / "inventory" / f"{number}.json"
            _write_private(path, dict(one))
            sources.append(str(path))
        return sources

    @staticmethod
    def _prune(folder: Path) -> None:
        """Remove the output of earlier runs of this kind; a later one has taken their place."""
        runs = sorted((folder / "artifacts").iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in runs[1 + KEPT_ARTIFACTS :]:
            shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True)
class _Ended:
    """How a run ended."""

    rc: int
    cancelled: bool
    artifacts: str
    said: str


def _run(
    asked: Mapping[str, Any], environment: Mapping[str, str], heard: _Events, cancelled: Callable[[], bool]
) -> _Ended:
    """Run ansible-runner in a process of its own, and hear it to its end; see :mod:`benchctl.playbook_process`."""
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            # -P: this package's modules must not stand before Python's own
            [sys.executable, "-P", str(Path(__file__).with_name("playbook_process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=dict(environment),
            # Ctrl-C in the terminal is for us, who cancel the run
            start_new_session=True,
        )
        try:
            end = _hear(process, asked, heard, cancelled)
        finally:
            if process.stdin:
                with contextlib.suppress(OSError):
                    process.stdin.close()
            try:
                process.wait(timeout=CANCEL_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()
        errors.seek(0)
        said = " ".join(errors.read().split())[-_SAID_LENGTH:]
    rc = end.get("rc")
    return _Ended(
        rc=rc if isinstance(rc, int) else process.returncode or 1,
        cancelled=bool(end.get("cancelled")),
        artifacts=str(end.get("artifacts") or ""),
        said=said or "it ended without a word.",
    )


def _hear(
    process: subprocess.Popen[bytes], asked: Mapping[str, Any], heard: _Events, cancelled: Callable[[], bool]
) -> dict[str, Any]:
    """Give the run its order, take its lines, and close its input when it is to end; returns what it said last."""
    end: dict[str, Any] = {}
    if process.stdin is None or process.stdout is None:
        return end
    with contextlib.suppress(OSError):
        process.stdin.write(json.dumps(asked, default=str).encode() + b"\n")
        process.stdin.flush()
    output = process.stdout.fileno()
    pieces: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while True:
            ready = selector.select(CONTROL_SECONDS)
            if not process.stdin.closed and cancelled():
                with contextlib.suppress(OSError):
                    process.stdin.close()
            if not ready:
                continue
            piece = os.read(output, 1 << 20)
            *lines, rest = piece.split(b"\n")
            for line in lines:
                _take(b"".join((*pieces, line)), heard, end)
                pieces.clear()
            if rest:
                pieces.append(rest)
            if not piece:
                return end


def _take(line: bytes, heard: _Events, end: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):  # a line of somebody else's, or one that was cut by a kill
        said = json.loads(line)
        if "event" in said:
            heard(said["event"])
        else:
            end.update(said)


class _Events:
    """Takes ansible-runner's events, keeps what tasks said, and lets none of them be written to the disk."""

    def __init__(self, on_event: Callable[[Mapping[str, Any]], None] | None) -> None:
        self._on_event = on_event
        self.hosts: dict[str, list[TaskResult]] = {}
        self.failures: dict[str, str] = {}
        self.unreachable: dict[str, str] = {}
        self.summed_up = False

    def __call__(self, event: Mapping[str, Any]) -> bool:
        """Take one event; the answer says that it need not be written."""
        kinds = {
            "runner_on_ok": "ok",
            "runner_on_failed": "failed",
            "runner_on_unreachable": "unreachable",
        }
        data = event.get("event_data") or {}
        # the last word of every run that comes to its end, whatever failed on the way
        self.summed_up = self.summed_up or event.get("event") == "playbook_on_stats"
        status = kinds.get(str(event.get("event")))
        if status and data.get("host"):
            self._take(str(data["host"]), status, data)
        if self._on_event is not None:
            self._on_event(event)
        return False

    def _take(self, host: str, status: str, data: Mapping[str, Any]) -> None:
        result = data.get("res") or {}
        action = str(data.get("resolved_action") or data.get("task_action") or "").rpartition(".")[2]
        task = str(data.get("task") or action)
        self.hosts.setdefault(host, []).append(TaskResult(task, action, status, result))
        if status == "unreachable":
            self.unreachable[host] = f"{host} can't be reached: {_sentence(result)}"
        elif status == "failed" and not data.get("ignore_errors"):
            self.failures[host] = _sentence(result)


def ansible_environment(content: Path) -> dict[str, str]:
    """The environment in which Ansible runs the playbooks of ``content``, from whatever folder it is called."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    passed |= {name: os.environ[name] for name in PROXIES if name in os.environ and "@" not in os.environ[name]}
    return {
        "LANG": "C.UTF-8",
        **passed,
        "PATH": os.pathsep.join([*map(str, _script_folders()), os.environ.get("PATH") or os.defpath]),
        "ANSIBLE_CONFIG": str(content / "ansible.cfg"),
        "ANSIBLE_LIBRARY": str(content / "library"),
        "ANSIBLE_MODULE_UTILS": str(content / "module_utils"),
        "ANSIBLE_ROLES_PATH": str(content / "roles"),
        "ANSIBLE_INVENTORY_PLUGINS": str(content / "inventories" / "plugins"),
        "ANSIBLE_FORCE_COLOR": "0",
        # Ansible's own processes look for each other's news a hundred times a second, not a thousand times
        "ANSIBLE_INTERNAL_POLL_INTERVAL": "0.01",
        # ansible-runner turns the check off where this is not said
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "MAX_EVENT_RES": str(LARGEST_RESULT),
        "PYTHONUNBUFFERED": "1",
    }


def require_ansible(environment: Mapping[str, str]) -> str:
    """The path of ``ansible-playbook`` in this environment.

    Raises:
        PlaybookError: there is none.
    """
    found = shutil.which("ansible-playbook", path=environment["PATH"])
    if found is None:
        raise PlaybookError(
            f"ansible-playbook is neither beside {sys.executable} nor on PATH.",
            "Install benchctl again: ansible-core comes with it.",
        )
    return found


def _script_folders() -> list[Path]:
    """Where the scripts of this Python's packages lie: under pipx or uv they are not on PATH."""
    folders = [Path(sys.prefix) / "bin", Path(sysconfig.get_path("scripts"))]
    user_scheme = sysconfig.get_preferred_scheme("user")
    folders.append(Path(sysconfig.get_path("scripts", user_scheme)))
    return [folder for position, folder in enumerate(folders) if folder not in folders[:position]]


def _write_private(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON (which is YAML too) that its owner alone can read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(content, file, default=str)


def _sentence(result: Mapping[str, Any]) -> str:
    """What a failed task says, in one line."""
    said = [result.get("msg"), result.get("module_stderr"), result.get("stderr") if not result.get("msg") else None]
    text = " ".join(" ".join(str(one) for one in said if one).split()) or "the task failed without a word."
    return text if len(text) <= _SAID_LENGTH else f"{text[: _SAID_LENGTH - 4]} ..."


def _said(artifacts: Path) -> str:
    """The end of what Ansible printed, in one line."""
    for name in ("stderr", "stdout"):
        try:
            text = " ".join((artifacts / name).read_text(errors="replace").split())
        except OSError:
            continue
        if text:
            return text if len(text) <= _SAID_LENGTH else f"... {text[-_SAID_LENGTH:]}"
    return "it printed nothing."
