"""Pulumi's engine: a stack of resources made, destroyed, and looked at; and what a killed engine leaves, put right.

One stack per job, named as the job's server. The state of all stacks lies in one backend: a folder below the state
directory, or any URL that Pulumi knows (option, else ``PULUMI_BACKEND_URL``; the option wins). What is secret in it is
encrypted with a passphrase: that of ``PULUMI_CONFIG_PASSPHRASE`` or ``PULUMI_CONFIG_PASSPHRASE_FILE``, else one that is
made once and kept in ``STATE/pulumi/passphrase`` for its owner alone.

The engine gets an environment of listed variables and, per call, the login of the one vendor. Logins are never written
down, nor among a process's arguments.

Safe to use from several threads at once; at most ``engines`` runs of the engine make something at any time, and there
are two more for those that destroy, so that what costs money never waits for what is to come; the others wait.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from benchctl.clouds import engine_binary, engine_process, engine_said, keys
from benchctl.errors import BenchctlError
from benchctl.extras import extra_mend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from benchctl.clouds.automation import Command, Workspace
    from benchctl.clouds.engine_binary import PulumiEngine
    from benchctl.home import Home

ENGINES = 4
"""Runs of the engine at once that make something; each is a process of about 90 MB, and one for the vendor's plugin."""

KEPT_ENGINES = 2
"""Runs at once beside those, which only destroy."""

UP_SECONDS = 20 * 60.0
DESTROY_SECONDS = 30 * 60.0
QUESTION_SECONDS = 120.0
"""How long making, destroying, and a mere question may take."""

BUSY_SECONDS = 60.0
"""How long to wait for another controller's engine that works on the same stack."""

PLUGIN_SECONDS = 5.0
"""How long a plugin whose engine was killed may finish what it does, before it is killed too: nobody writes down what
it makes, and some of them try again for most of an hour."""

STALE_LOCK = timedelta(hours=6)
"""A lock of another machine is stale after this: no run of ours takes as long."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")

_BACKEND_LOGINS = {"s3": ("AWS_",), "gs": ("GOOGLE_",), "azblob": ("AZURE_",), "postgres": ("PG",)}
"""Beginnings of the variables by which the engine logs in where the state lies, by the scheme of the backend."""

_WARM = {
    "aws": ("pulumi_aws", "pulumi_aws.ec2", "pulumi_aws.vpc"),
    "gcp": ("pulumi_gcp", "pulumi_gcp.compute"),
    "azure": (
        *("pulumi_azure_native", "pulumi_azure_native.compute", "pulumi_azure_native.network"),
        "pulumi_azure_native.resources",
    ),
    "hetzner": ("pulumi_hcloud",),
    "upcloud": ("pulumi_upcloud",),
}
"""What a vendor's program imports. The SDKs import parts of themselves when first used, which threads must not do."""


class StackError(BenchctlError):
    """The engine could not make or destroy a stack.

    Attributes:
        said: the vendor's own words, or the engine's; one line.
    """

    def __init__(self, problem: str, mend: str = "", *, said: str = "") -> None:
        super().__init__(problem, mend)
        self.said = said or problem


class StackTimeoutError(StackError):
    """It took too long, and was interrupted; what was made so far is in the state."""


class StackCancelledError(StackError):
    """It was cancelled from our side."""


class StackKilledError(StackError):
    """The engine was ended by a signal that was not ours, as when memory runs out; the vendor refused nothing."""


class StackBusyError(StackError):
    """Another engine works on the stack."""


@dataclass(frozen=True)
class StateResource:
    """One resource that the state of a stack holds.

    Attributes:
        type: Pulumi's token, as ``hcloud:index/server:Server``.
        name: as the program calls it.
        id: the cloud's identifier; empty where it is not known.
        pending: empty, or what was under way when the engine was killed: ``creating``, ``deleting``, ``updating``. What
            is ``creating`` may exist in the cloud, and may not.
        inputs: what the program asked for; secrets stay encrypted.
    """

    type: str
    name: str
    id: str
    pending: str
    inputs: Mapping[str, Any]


def warm_up(vendors: Iterable[str]) -> None:
    """Import what the vendors' programs import, before threads start.

    The environment is changed here too, for the same reason: gRPC would ask a proxy for the engine on this machine.

    Raises:
        StackError: Pulumi's SDK, or a vendor's, is not installed.
    """
    import importlib

    os.environ.update(_engine_without_proxy(os.environ))
    for vendor in vendors:
        for module in ("pulumi", "pulumi.automation", *_WARM.get(vendor, ())):
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise StackError(
                    f"{module}, which {vendor} needs, can't be imported: {error}.", extra_mend(vendor)
                ) from error


def _engine_without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """What keeps gRPC in Python from reaching the engine, at 127.0.0.1, by way of a proxy that the user has set.

    Source: https://grpc.github.io/grpc/core/md_doc_environment_variables.html; ``no_grpc_proxy`` comes before
    ``no_proxy``, and is read by gRPC alone.
    """
    theirs = environment.get("no_grpc_proxy") or environment.get("no_proxy") or ""
    hosts = [one for one in theirs.split(",") if one.strip()]
    return {"no_grpc_proxy": ",".join(dict.fromkeys((*hosts, "127.0.0.1", "localhost")))}


class Stacks:
    """All stacks of one backend."""

    def __init__(
        self,
        home: Home,
        *,
        backend: str = "",
        environment: Mapping[str, str] | None = None,
        engines: int = ENGINES,
        engine: PulumiEngine | None = None,
    ) -> None:
        """Nothing is started or written yet.

        Args:
            home: whose state directory is used.
            backend: URL of the state; empty for that of ``PULUMI_BACKEND_URL``, or else a folder of the state
                directory.
            environment: where PATH, proxies and Pulumi's variables are looked up; by default this process's.
            engines: the most runs of the engine at once that make something.
            engine: the engine to use; by default the one that is found.
        """
        self._environment = dict(os.environ if environment is None else environment)
        self._home, self._folder = home, home.state / "pulumi"
        self._own_backend = f"file://{self._folder}"
        self._backend = backend or self._environment.get("PULUMI_BACKEND_URL") or self._own_backend
        self._engine = engine
        self._making = threading.BoundedSemaphore(engines)
        self._all = threading.BoundedSemaphore(engines + KEPT_ENGINES)
        self._once = threading.Lock()

    def up(
        self,
        stack: str,
        program: Callable[[], Mapping[str, Any]],
        *,
        only: str = "",
        environment: Mapping[str, str],
        log: Path,
        on_event: Callable[[str], None] = lambda _: None,
        timeout_seconds: float = UP_SECONDS,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:
        """Make what a program describes.

        Args:
            stack: its name, as ``benchctl-g2-standard-4-1a2b3c4d``.
            program: makes the resources and returns the outputs: plain values or Pulumi Outputs; they are exported. It
                runs in this process, in another thread.
            only: the one resource that may change; all others stay as the state has them, whatever the program says.
            environment: the vendor's login, and no other.
            log: where the engine's output is appended; for its owner alone.
            on_event: takes short lines, as ``creating Server benchctl-x``.
            timeout_seconds: after this long it is interrupted.
            cancelled: asked now and then; true interrupts it.

        Returns:
            The outputs, as plain values, also of those that are secret.

        Raises:
            StackError: the vendor refused, or the engine failed; what was made before is in the state, and
                :meth:`destroy` removes it. :class:`StackTimeoutError`, :class:`StackCancelledError`,
                :class:`StackKilledError`, :class:`StackBusyError` say what else there was.
            BenchctlError: what the program itself raised.
        """
        import asyncio

        import pulumi

        from benchctl.clouds import automation

        loops: list[asyncio.AbstractEventLoop] = []
        got: dict[str, Any] = {}
        raised: list[BenchctlError] = []

        def exported() -> None:
            loops.append(asyncio.get_running_loop())
            try:
                outputs = dict(program())
            except BenchctlError as error:
                raised.append(error)
                raise
            for name, value in outputs.items():
                pulumi.export(name, value)
            pulumi.Output.all(**outputs).apply(got.update)

        with _Turn(self._making, cancelled), _Turn(self._all, cancelled):
            work = self._work(stack, environment, log, on_event, timeout_seconds, cancelled, exported)
            work.settle()
            if not work.created() and (pending := [one for one in work.resources() if one.pending]):
                raise StackError(
                    f"The stack {stack} holds what was under way when its engine was killed: "
                    f"{', '.join(f'{one.name} ({one.pending})' for one in pending)}.",
                    "Destroy it first.",
                )
            target = [f"**::{only}"] if only else None
            try:
                work.run(
                    "up",
                    lambda one: one.up(color="never", suppress_outputs=True, suppress_progress=True, target=target),
                )
            except StackError as error:
                raise (raised[0] if raised else error) from error
            finally:
                automation.end_program(loops)
            return got

    def destroy(
        self,
        stack: str,
        *,
        environment: Mapping[str, str],
        log: Path,
        on_event: Callable[[str], None] = lambda _: None,
        timeout_seconds: float = DESTROY_SECONDS,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[StateResource]:
        """Destroy all that the state of a stack holds, and forget the stack. One that is not there is destroyed.

        What a killed engine left is put right first: its plugins are ended, its lock is cleared, and what was under way
        is looked for. A controller that is alive and works on the stack is waited for.

        Returns:
            What was being created when an engine was killed, and whose identifier nobody knows: it may exist in the
            cloud, so look for it there, by label.

        Raises:
            StackError: the vendor or the engine failed; calling it again goes on.
        """
        # a killed controller's engine may be making the very first stack now, so that nothing is there only yet
        _settle(self, stack, min(BUSY_SECONDS, timeout_seconds))
        if not self._begun():
            return []
        with _Turn(self._all, cancelled):
            work = self._work(stack, environment, log, on_event, timeout_seconds, cancelled, lambda: None)
            work.settle()
            try:
                pending = [one for one in work.resources() if one.pending]
                if pending:
                    work.refresh()
                work.run("destroy", lambda one: one.destroy(color="never", suppress_progress=True))
                work.forget()
            except _NoSuchStackError:
                return []
            return [one for one in pending if one.pending == "creating"]

    def recover(self, stack: str, *, environment: Mapping[str, str], log: Path) -> list[StateResource] | None:
        """Put right what a killed engine left in the state of a stack, and destroy nothing.

        Returns:
            What the state holds then; nothing where there was nothing to be put right. What was being created, and
            whose identifier nobody knows, is not in it, and may exist in the cloud.

        Raises:
            StackError: the vendor or the engine failed.
        """
        if not self._begun():
            return None
        with _Turn(self._making, lambda: False), _Turn(self._all, lambda: False):
            work = self._work(stack, environment, log, lambda _: None, UP_SECONDS, lambda: False, lambda: None)
            work.settle()
            try:
                if not any(one.pending for one in work.resources()):
                    return None
                work.refresh()
                return work.resources()
            except _NoSuchStackError:
                return None

    def settle(self, stack: str) -> None:
        """Wait until no engine works on a stack; end the engines, and the plugins, that a killed controller left.

        Raises:
            StackBusyError: a controller that is alive works on it.
        """
        _settle(self, stack, BUSY_SECONDS)

    def names(self) -> list[str]:
        """The stacks that there are, by name."""
        if not self._begun():
            return []
        listed = json.loads(self._ask("stack", "ls", "--json"))
        return sorted(str(one["name"]).rpartition("/")[2] for one in listed)

    def resources(self, stack: str) -> list[StateResource]:
        """What the state of a stack holds, the engine's own entries left out; nothing for one that is not there."""
        if not self._begun():
            return []
        try:
            return resources_of(json.loads(self._ask("stack", "export", "--stack", _named(stack))))
        except _NoSuchStackError:
            return []

    def outputs(self, stack: str) -> dict[str, Any]:
        """The outputs of the newest :meth:`up`, secret ones too; empty for a stack that is not there."""
        if not self._begun():
            return {}
        try:
            answer = json.loads(self._ask("stack", "output", "--json", "--show-secrets", "--stack", _named(stack)))
        except _NoSuchStackError:
            return {}
        return dict(answer)

    def mark(self, stack: str) -> str:
        """What the processes of runs on a stack carry, see :mod:`benchctl.clouds.engine_process`."""
        return f"{hashlib.sha256(self._backend.encode()).hexdigest()[:12]}/{stack}"

    def running(self, stack: str) -> list[engine_process.Running]:
        """The processes on this machine that work on a stack, of whatever controller."""
        return engine_process.running(self.mark(stack))

    # --- what the above stand on ---

    @property
    def engine(self) -> PulumiEngine:
        """The engine that is used; found once.

        Raises:
            NoPulumiError: there is none.
        """
        with self._once:
            if self._engine is None:
                self._engine = engine_binary.find(self._home.cache, self._environment)
            return self._engine

    def _begun(self) -> bool:
        """Whether there can be a stack at all; without, no engine is needed to say so."""
        return self._backend != self._own_backend or (self._folder / ".pulumi").is_dir()

    def _ask(self, *arguments: str) -> str:
        """One question to the engine, which needs no vendor and no turn."""
        command = self._command("", {}, None, lambda _: None, QUESTION_SECONDS, lambda: False)
        return _Work(self, "", command, None, QUESTION_SECONDS).ask(*arguments)

    def _work(
        self,
        stack: str,
        environment: Mapping[str, str],
        log: Path,
        on_event: Callable[[str], None],
        timeout_seconds: float,
        cancelled: Callable[[], bool],
        program: Callable[[], None],
    ) -> _Work:
        def told(event: Mapping[str, Any]) -> None:
            line = engine_said.event_line(event)
            if line:
                on_event(line)

        command = self._command(_named(stack), environment, log, told, timeout_seconds, cancelled)
        return _Work(self, stack, command, program, timeout_seconds)

    def _command(
        self,
        stack: str,
        environment: Mapping[str, str],
        log: Path | None,
        on_event: Callable[[Mapping[str, Any]], None],
        timeout_seconds: float,
        cancelled: Callable[[], bool],
    ) -> Command:
        from benchctl.clouds import automation

        unfit = automation.fitting(self.engine)
        if unfit:
            raise engine_binary.NoPulumiError(unfit, engine_binary.MEND)
        scheme = urlsplit(self._backend).scheme.partition("+")[0]
        logins = _BACKEND_LOGINS.get(scheme, ())
        given = {name: value for name, value in self._environment.items() if logins and name.startswith(logins)}
        own = {
            "PULUMI_BACKEND_URL": self._backend,
            **self._passphrase(),
            **_engine_without_proxy(self._environment),
        }
        if stack:
            own[engine_process.STACK_MARK] = self.mark(stack)
        whole = engine_process.environment_of(
            self._environment, search=[Path(sys.prefix) / "bin"], given={**given, **environment}, own=own
        )
        hidden = [value for name, value in {**given, **environment, **own}.items() if _SECRET_NAME.search(name)]
        password = urlsplit(self._backend).password
        return automation.Command(
            self.engine,
            whole,
            log=log,
            on_event=on_event,
            timeout_seconds=timeout_seconds,
            cancelled=cancelled,
            hidden=[*hidden, *([password] if password else [])],
        )

    def workspace(self, command: Command, program: Callable[[], None] | None) -> Workspace:
        """The SDK's workspace, in the one folder of the project."""
        from benchctl.clouds import automation

        return automation.Workspace(command, self._folder / "project", program)

    def _passphrase(self) -> dict[str, str]:
        """Where the engine finds the passphrase; one is made when the user has none."""
        for name in ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
            if self._environment.get(name):
                return {name: self._environment[name]}
        path = self._folder / "passphrase"
        keys.ensure_secret(path)
        return {"PULUMI_CONFIG_PASSPHRASE_FILE": str(path)}


_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|ACCESS_KEY|CREDENTIALS$|CONFIG_PASSPHRASE$")
"""Variables whose values are hidden should they turn up in the engine's output."""


class _NoSuchStackError(StackError):
    """There is no stack of this name."""


class _Turn:
    """One of the few places at the engine; waiting for it can be cancelled."""

    def __init__(self, turns: threading.BoundedSemaphore, cancelled: Callable[[], bool]) -> None:
        self._turns, self._cancelled = turns, cancelled

    def __enter__(self) -> None:
        while not self._turns.acquire(timeout=1.0):
            if self._cancelled():
                raise StackCancelledError("It was cancelled before the engine began.")

    def __exit__(self, *_: object) -> None:
        self._turns.release()


class _Work:
    """What is done to one stack, in one go."""

    def __init__(
        self,
        stacks: Stacks,
        stack: str,
        command: Command,
        program: Callable[[], None] | None,
        timeout_seconds: float,
    ) -> None:
        from benchctl.clouds import automation

        self._stacks, self._name, self._command = stacks, stack, command
        self._patience = min(BUSY_SECONDS, timeout_seconds)
        self._workspace = stacks.workspace(command, program)
        self._stack = automation.Stack(stack, self._workspace)

    def created(self) -> bool:
        """Make the stack; says whether it is new."""
        from pulumi.automation import StackAlreadyExistsError

        command = ("stack", "init", "--no-select", "--secrets-provider", "passphrase", "--stack", self._name)
        try:
            self.run("up", lambda _: self._call(*command))
        except StackError as error:
            if isinstance(error.__cause__, StackAlreadyExistsError):
                return False
            raise
        return True

    def resources(self) -> list[StateResource]:
        """What the state holds."""
        return resources_of(json.loads(self.ask("stack", "export", "--stack", self._name)))

    def refresh(self) -> None:
        """Ask the cloud for what the state holds; what was being created is dropped from it."""
        self.run("refresh", lambda one: one.refresh(color="never", clear_pending_creates=True, suppress_progress=True))

    def forget(self) -> None:
        """Remove what is left of a destroyed stack beside the state."""
        for left in Path(self._workspace.work_dir).glob(f"Pulumi.{self._name}.y*ml"):
            left.unlink(missing_ok=True)

    def ask(self, *arguments: str) -> str:
        """One short command; its output."""
        from pulumi.automation import CommandError

        try:
            return self._call(*arguments)
        except CommandError as error:
            raise self._error("ask", error) from error

    def _call(self, *arguments: str) -> str:
        return str(self._command.run([*arguments], self._workspace.work_dir, {}).stdout)

    def run(self, what: str, call: Callable[[Any], Any]) -> None:
        """One run of the engine that needs the stack's lock; a stale one is cleared once."""
        from pulumi.automation import CommandError, ConcurrentUpdateError

        for last in (False, True):
            try:
                call(self._stack)
            except ConcurrentUpdateError as error:
                if last or not self._unlock(str(error)):
                    raise StackBusyError(
                        f"Another engine works on the stack {self._name}.",
                        f"Wait for it; if there is none: 'pulumi cancel --stack {self._name}'.",
                        said=engine_said.vendor_words(str(error)),
                    ) from error
            except CommandError as error:
                raise self._error(what, error) from error
            else:
                return

    def _unlock(self, refusal: str) -> bool:
        """Clear a lock whose engine is no more; says whether there was one such."""
        holder = engine_said.lock_holder(refusal)
        if holder is None:
            return False
        if holder.host == socket.gethostname():
            # engines of ours have been waited for, so that a process of this number is another one, or a user's
            stale = engine_process.identity(holder.pid) is None or not engine_process.is_engine(holder.pid)
        else:
            stale = False
            with suppress(ValueError):
                stale = datetime.now(UTC) - datetime.fromisoformat(holder.since) > STALE_LOCK
        if stale:
            self.ask("cancel", "--yes", "--stack", self._name)
        return stale

    def settle(self) -> None:
        """See :meth:`Stacks.settle`."""
        _settle(self._stacks, self._name, self._patience)

    def _error(self, what: str, error: Exception) -> StackError:
        """What the SDK raised, as one of ours."""
        from pulumi.automation import StackNotFoundError

        ended = self._command.ended
        output = f"{ended.stdout}\n{ended.stderr}" if ended else str(error)
        said = engine_said.vendor_words(output)
        if isinstance(error, StackNotFoundError):
            return _NoSuchStackError(f"There is no stack {self._name}.", said=said)
        subject = f"The stack {self._name}" if self._name else "Pulumi's state"
        done = {"up": "made", "destroy": "destroyed", "refresh": "looked at"}.get(what, "read")
        if ended and ended.why == "timeout":
            return StackTimeoutError(f"{subject} could not be {done} in time.", said=said)
        if ended and ended.why == "cancelled":
            return StackCancelledError(f"{subject} was cancelled before it was {done}.", said=said)
        if ended and ended.code < 0:
            why = f"Pulumi's engine was ended by signal {-ended.code}"
            return StackKilledError(f"{subject} could not be {done}: {why}.", said=f"{why}.")
        plugin = engine_said.missing_plugin(output)
        if plugin:
            name, version = plugin
            return StackError(
                f"Pulumi's provider plugin for {name} is not on this machine, and could not be fetched.",
                f"With a network: pulumi plugin install resource {name} {version}".rstrip() + ".",
                said=said,
            )
        if "incorrect passphrase" in output:
            return StackError(
                f"{subject} could not be read: its secrets are encrypted with another passphrase.",
                "Set PULUMI_CONFIG_PASSPHRASE, or PULUMI_CONFIG_PASSPHRASE_FILE, as it was when the stack was made.",
                said=said,
            )
        why = said or f"the engine ended with status {ended.code if ended else '?'}"
        return StackError(f"{subject} could not be {done}: {why.rstrip('.')}.", said=said)


def _settle(stacks: Stacks, name: str, patience: float) -> None:
    """Wait until no engine works on the stack; end those, and those plugins, that a killed process left."""
    until = time.monotonic() + patience
    told: set[int] = set()
    alone_since: float | None = None
    while left := stacks.running(name):
        now = time.monotonic()
        engines = [one for one in left if one.engine]
        if engines:
            alone_since = None
            for one in engines:
                if one.orphan and one.pid not in told:
                    # it finishes what is under way, and writes down what it made
                    told.add(one.pid)
                    _signal(one.pid, signal.SIGINT)
                elif one.orphan and now > until:
                    _signal(one.pid, signal.SIGKILL)
            if now > until and not all(one.orphan for one in engines):
                raise StackBusyError(f"Another benchctl works on the stack {name}.", "Wait for it to end.")
        else:
            alone_since = now if alone_since is None else alone_since
            if now - alone_since > PLUGIN_SECONDS:
                for one in left:
                    _signal(one.pid, signal.SIGKILL)
        time.sleep(engine_process.LOOK_SECONDS)


def resources_of(exported: Mapping[str, Any]) -> list[StateResource]:
    """What an exported state holds, the engine's own entries left out. Pure."""
    return list(_resources(exported.get("deployment") or {}))


def _resources(deployment: Mapping[str, Any]) -> Iterator[StateResource]:
    pending = {}
    for operation in deployment.get("pending_operations") or ():
        pending[operation["resource"]["urn"]] = (operation["type"], operation["resource"])
    for resource in deployment.get("resources") or ():
        under_way, _ = pending.pop(resource["urn"], ("", None))
        yield from _resource(resource, under_way)
    for under_way, resource in pending.values():
        yield from _resource(resource, under_way)


def _resource(resource: Mapping[str, Any], pending: str) -> Iterator[StateResource]:
    kind = str(resource["type"])
    if kind.startswith("pulumi:"):
        return
    yield StateResource(
        type=kind,
        name=str(resource["urn"]).rpartition("::")[2],
        id=str(resource.get("id", "")),
        pending=pending,
        inputs=dict(resource.get("inputs") or {}),
    )


def _named(stack: str) -> str:
    """A stack's name that is safe as an argument and as a file's name."""
    if not _NAME.fullmatch(stack):
        raise StackError(f"'{stack}' can't be the name of a stack: letters a-z, digits, '-', '_' and '.' are allowed.")
    return stack


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
