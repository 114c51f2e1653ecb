"""The loop over models and tasks: the one place that knows the order of things.

``measure`` is what the Ansible module runs; :class:`Session` is the same with every capability passed in, so that it
runs as well over recorded times as on a machine. It ends with the journal telling all: nothing is kept in memory
that a second start would miss.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from . import command, gguf, host, leftovers, placement, policy, programs, state, supply, synthetic, web
from .measure import Bench, Place, Stopped, conclude, run_batch, settle
from .noise import NoiseMonitor, process_tree
from .paced import PacedLauncher
from .runner import Runner
from .suite import Suite, model_from_dict
from .values import TASKS, CoreError, Model, Outcome, SettingsError, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .delivery import Supplied
    from .events import Launcher, Process
    from .host import HostFacts
    from .noise import Monitor
    from .programs import Run
    from .supply import Supplier

    Placed = Callable[[Bench, Model, str, gguf.Header, HostFacts, str, Run], "Place | Verdict"]

ATTACHED_SECONDS = 1.0
"""How often one that has attached itself looks whether the measurement that runs has ended; a look costs 20 us."""

STOP_SECONDS = 10.0
"""How long :func:`stop` waits for a measurement to end before it is killed; killing llama-bench takes an instant."""

_OPTIONS = (
    "weights",
    "mirror",
    "connections",
    "threads",
    "device",
    "session_seconds",
    "sweep",
    "job",
    "token_file",
)
"""The module's options that a request takes as they are."""


@dataclass(frozen=True)
class Request:
    """What one run of the module is asked for; the fields are the module's options.

    Attributes:
        suite: what to measure.
        models: the suite's models, smallest first.
        state_dir: folder of the journal.
        models_dir: folder of the model files.
        llama_bench: path of the binary.
        weights: ``auto``, ``real`` or ``synthetic``.
        mirror: URL tried first, or empty.
        connections: connections per file.
        threads: llama-bench's threads; 0 for the number of physical cores.
        device: ``auto``, ``cpu`` or ``gpu``.
        session_seconds: the most that the measurement may take, all its starts together; 0 for no limit.
        sweep: noted in the journal.
        job: noted in the journal.
        token_file: path of a file with a Hugging Face token, or empty; the token itself is never an option.
    """

    suite: Suite
    models: tuple[Model, ...]
    state_dir: Path
    models_dir: Path
    llama_bench: str
    weights: str = "auto"
    mirror: str = ""
    connections: int = 4
    threads: int = 0
    device: str = "auto"
    session_seconds: int = 0
    sweep: str = ""
    job: str = ""
    token_file: str = ""

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Request:
        """Check the module's options and make the request of them.

        Raises:
            SettingsError: the suite or a model is not valid, or the suite names a model that is not given.
        """
        suite = Suite.from_dict(params["suite"])
        given = {model.name: model for model in map(model_from_dict, params["models"])}
        unknown = [name for name in suite.model_names if name not in given]
        if unknown:
            raise SettingsError(
                f"The suite names a model that is not given: {', '.join(unknown)}.", "Add it to models.", "models"
            )
        models = sorted(
            (given[name] for name in suite.model_names), key=lambda model: (model.size_bytes or math.inf, model.name)
        )
        return cls(
            suite=suite,
            models=tuple(models),
            state_dir=Path(params["state_dir"]),
            models_dir=Path(params["models_dir"]),
            llama_bench=params["llama_bench"],
            **{name: params[name] for name in _OPTIONS if params.get(name) is not None},
        )


def supply_of(request: Request, models: Sequence[Model], weights: str) -> Supplier:
    """What brings the models to this machine: downloads, or synthetic weights."""
    return supply.Supply(
        models,
        str(request.models_dir),
        weights=weights,
        fetch=supply.FetchSettings(
            connections=request.connections, mirror=request.mirror, token_file=request.token_file
        ),
        synthesize=synthetic.write,
    )


@dataclass
class Tools:
    """The capabilities of a session; by default the real ones.

    Attributes:
        launcher: starts llama-bench.
        run: runs a short program and waits for its end.
        clock: monotonic seconds, for waiting and for the session's limit.
        facts: what the machine is; gathered when not given.
        reachable: whether an address answers, for ``weights: auto``.
        environment: what llama-bench may inherit of.
        binary: the llama-bench; asked for its flags when not given.
        monitor: watches the machine's noise; the kernel's counters when not given.
        supply: makes what brings the models, of the request, the models and the kind of weights.
        read_header: reads what a model file says of itself.
        place: decides where a model's layers go, and proves it.
        publish: shows the live progress in the state folder; ``None`` where nobody looks.
    """

    launcher: Launcher
    run: Run = programs.run
    clock: Callable[[], float] = time.monotonic
    facts: host.HostFacts | None = None
    reachable: Callable[[str], bool] = supply.probe_reachable
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    binary: command.Binary | None = None
    monitor: Monitor | None = None
    supply: Callable[[Request, Sequence[Model], str], Supplier] = supply_of
    read_header: Callable[[str], gguf.Header] = gguf.read_header
    place: Placed = placement.place
    publish: Callable[[Path, dict[str, Any]], None] | None = state.write_progress


def measure(params: Mapping[str, Any], *, check: bool, stop: threading.Event) -> dict[str, Any]:
    """What the module does for ``state: measured``: measure all that is still open.

    Args:
        params: the module's options.
        check: only say what would be measured.
        stop: set it to end; what is finished is kept.

    Returns:
        The module's result.

    Raises:
        CoreError: one clear sentence, and the mend.
    """
    request = Request.from_params(params)
    if check:
        return _would_measure(request)
    for folder, option in ((request.state_dir, "state_dir"), (request.models_dir, "models_dir")):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise state.StateError(
                f"The folder {folder} can't be made: {error.strerror}.", f"Give another as {option}."
            ) from error
    attached = bool(params.get("attach")) and _attend(request.state_dir / state.LOCK, stop)
    history = state.read_history(request.state_dir)
    if history.ended and (not _open_scenarios(request, history) or (attached and history.ended["status"] == "stopped")):
        return {"changed": False, **_summary(request, history)}
    if stop.is_set():
        return {"changed": False, **_summary(request, history)}
    launcher = Runner(state_file=str(request.state_dir / state.CHILD))
    holder = {"sweep": request.sweep}
    # the locks come first: opening the journal drops a torn line, which may be one that is being written
    with state.locked(_machine_lock(), holder), state.locked(request.state_dir / state.LOCK, holder):
        leftovers.reap_leftover(launcher.state_file)
        journal = state.Journal(request.state_dir)
        try:
            Session(request, journal, Tools(launcher), stop).run()
        finally:
            journal.close()
        return {"changed": True, **_summary(request, journal.history)}


def _attend(lock: Path, stop: threading.Event) -> bool:
    """Wait until whoever measures on this folder has ended; returns whether somebody did."""
    attached = False
    while state.is_locked(lock) and not stop.wait(ATTACHED_SECONDS):
        attached = True
    return attached


def stop(state_dir: str, *, check: bool) -> dict[str, Any]:
    """What the module does for ``state: stopped``: end the measurement on ``state_dir``, if one runs.

    Asks it by SIGTERM, and kills it when it does not end; a llama-bench that is left then is killed too.
    """
    folder = Path(state_dir)
    lock = folder / state.LOCK
    alive = state.is_locked(lock)
    if alive and not check:
        _end_holder(lock)
    if not check:
        leftovers.reap_leftover(str(folder / state.CHILD))
    return {"changed": alive, "status": "stopped", "counts": {}, "journal": str(folder / state.JOURNAL)}


def _end_holder(lock: Path) -> None:
    """Ask whoever holds the lock to end, and kill it when it does not within :data:`STOP_SECONDS`."""
    pid = state.lock_holder(lock).get("pid")
    if not isinstance(pid, int):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + STOP_SECONDS
        while state.is_locked(lock) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not state.is_locked(lock):
            return


def _machine_lock() -> Path:
    """One measurement at a time on a machine: two would disturb each other (per user, since /tmp is shared)."""
    return Path(tempfile.gettempdir()) / f"llama_bench-{os.getuid()}.lock"


def _open_scenarios(request: Request, history: state.History) -> list[tuple[Model, str, int]]:
    return [
        (model, scenario.task, scenario.tokens)
        for model in request.models
        for scenario in request.suite.scenarios
        if (model.name, scenario.task, scenario.tokens) not in history.verdicts
    ]


def _would_measure(request: Request) -> dict[str, Any]:
    history = state.read_history(request.state_dir)
    still_open = _open_scenarios(request, history)
    return {
        "changed": bool(still_open),
        "would_measure": [f"{model.name} {task}{tokens}" for model, task, tokens in still_open],
        **_summary(request, history),
    }


def _summary(request: Request, history: state.History) -> dict[str, Any]:
    outcomes = []
    counts: dict[str, int] = {}
    for model in request.models:
        for scenario in request.suite.scenarios:
            key = (model.name, scenario.task, scenario.tokens)
            verdict = history.verdicts.get(key)
            if verdict is None:
                continue
            samples = history.samples_of(key, verdict.attempt)
            counts[str(verdict.outcome)] = counts.get(str(verdict.outcome), 0) + 1
            outcomes.append(
                {
                    "model": model.name,
                    "task": scenario.task,
                    "tokens": scenario.tokens,
                    "outcome": str(verdict.outcome),
                    "reason": verdict.reason,
                    "tokens_per_second": policy.mean_speed(scenario.tokens, samples),
                    "samples": len(samples),
                    "noisy": list(verdict.noisy),
                }
            )
    return {
        "status": "stopped" if _open_scenarios(request, history) else "finished",
        "counts": counts,
        "outcomes": outcomes,
        "journal": str(request.state_dir / state.JOURNAL),
    }


class Session:
    """One start of the module: from the first look at the machine to the journal's ``end``."""

    def __init__(self, request: Request, journal: state.Ledger, tools: Tools, stop: threading.Event) -> None:
        """Nothing is started yet."""
        self.request, self.journal, self.tools, self._stop = request, journal, tools, stop
        self.history = journal.history
        self.began = tools.clock()
        # the limit is the measurement's, however often it is started
        self.spent_before = journal.history.spent_seconds
        self.facts = tools.facts or host.gather(paths=(str(request.models_dir),))
        self.progress: dict[str, Any] = {}
        self._written = 0.0
        self.supply: Supplier | None = None
        self.monitor: Monitor = tools.monitor or NoiseMonitor(own_pids=lambda: process_tree(os.getpid()))

    def run(self) -> None:
        """Measure everything that is open; whatever happens, the journal says how it ended."""
        status, message = "failed", "ended unexpectedly"
        try:
            self._report(phase="starting")
            self._run()
            status, message = "finished", ""
        except Stopped as stopped:
            status, message = "stopped", stopped.reason
            if stopped.out_of_time:
                status = "finished"
                self._conclude_open(Verdict(Outcome.NOT_REACHED, stopped.reason))
        except CoreError as error:
            message = str(error)
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            raise
        finally:
            if self.supply is not None:
                self.supply.stop()
            self._report(phase="ended", message=message, force=True)
            self.journal.append("end", status=status, message=message)

    def _run(self) -> None:
        binary = self.tools.binary or command.probe(self.request.llama_bench, self.tools.run)
        if self.request.device == "gpu" and not self.facts.gpus:
            raise SettingsError("A GPU was asked for, and this machine shows none.", "Use device: auto.", "device")
        weights = self._weights()
        threads = self.request.threads or host.recommended_threads(self.facts)
        cpu_mask = host.affinity_mask(self.facts, threads) if binary.pins else ""
        self.journal.append(
            "session",
            session=self.history.sessions + 1,
            sweep=self.request.sweep,
            job=self.request.job,
            suite=self.request.suite.name,
            weights=weights,
            llama_bench={
                "path": binary.path,
                "version": binary.version,
                "build_number": binary.build_number,
                "build_commit": binary.build_commit,
                "help_sha256": binary.help_sha256,
                **({"replayed": binary.pace} if binary.pace else {}),
            },
            host=self.facts.to_dict(),
            threads=threads,
            pinning=cpu_mask,
        )
        if binary.pace:
            self.tools.launcher = PacedLauncher(self.tools.launcher, binary.pace)
        bench = Bench(
            binary=binary,
            start=self._start,
            journal=self.journal,
            suite=self.request.suite,
            threads=threads,
            cpu_mask=cpu_mask,
            monitor=self.monitor,
            check=self._check,
            report=self._report,
        )
        wanted = self._worth_supplying(bench)
        self.supply = self.tools.supply(self.request, wanted, weights)
        self.supply.start()
        self._measure_all(bench, wanted)

    def _start(self, argv: list[str]) -> Process:
        cpu_only = not self.facts.gpus or self.request.device == "cpu"
        return self.tools.launcher.start(
            argv,
            stderr_path=str(self.request.state_dir / state.STDERR),
            env=command.environment(self.tools.environment, cpu_only=cpu_only),
        )

    def _weights(self) -> str:
        """Real or synthetic, once for the whole folder, so that its rows never mix."""
        asked = self.request.weights
        if self.history.weights:
            if asked not in ("auto", self.history.weights):
                raise state.StateError(
                    f"The state folder {self.request.state_dir} holds measurements with {self.history.weights} "
                    f"weights, and {asked} ones are asked for.",
                    "Use another state_dir for them.",
                )
            return self.history.weights
        if asked != "auto":
            return asked
        away = [model for model in self.request.models if not model.path]
        if not away or not all(model.shape for model in away):
            return "real"
        if all((self.request.models_dir / model.file).exists() for model in away):
            return "real"
        places = web.addresses(away[0], self.request.mirror)
        answers: list[bool] = []
        # a network that swallows packets answers late: whoever wants the end must not wait for it
        asking = threading.Thread(target=lambda: answers.append(any(map(self.tools.reachable, places))), daemon=True)
        asking.start()
        while asking.is_alive():
            asking.join(0.2)
            self._check()
        return "real" if any(answers) else "synthetic"

    def _worth_supplying(self, bench: Bench) -> list[Model]:
        """The models that still have something open and may fit; those that don't fit end here."""
        wanted = []
        for model in self.request.models:
            keys = ((model.name, one.task, one.tokens) for one in bench.suite.scenarios)
            if all(key in self.history.verdicts for key in keys):
                continue
            verdict = policy.fits_memory(model, self._memory_bytes(), bench.suite.policy)
            if verdict is None:
                wanted.append(model)
            else:
                self._conclude_model(bench, model, verdict)
        return wanted

    def _memory_bytes(self) -> int:
        """RAM, and that of the GPUs where they may be used: what lies on them need not stay in RAM."""
        gpus = self.facts.gpus if self.request.device != "cpu" else ()
        return self.facts.memory_bytes + sum(one.memory_bytes for one in gpus)

    def _measure_all(self, bench: Bench, models: list[Model]) -> None:
        speeds: dict[str, dict[int, float]] = {task: {} for task in TASKS}
        previous: Model | None = None
        for position, model in enumerate(models):
            supplied = self._await(bench, model, self._patience_seconds(bench, previous, model))
            if supplied is None:
                continue
            known, place = self._placed(bench, model, supplied)
            if isinstance(place, Verdict):
                self._conclude_model(bench, known, place)
                continue
            for task in TASKS:
                guesses = policy.scale_guesses(speeds[task], previous, known) if previous else {}
                self._measure_task(bench, known, task, place, guesses)
                speeds[task] = {
                    one.scenario.tokens: one.speed
                    for one in bench.view(known, task, False, {}).observations
                    if one.speed is not None
                }
            previous = known
            if self._hopeless(bench, known):
                reason = f"{known.name}, which is smaller, missed its shortest scenarios"
                # one whose size was unknown may be smaller than it, and nothing follows for that
                larger = [one for one in models[position + 1 :] if one.size_bytes > known.size_bytes]
                self._give_up(bench, Verdict(Outcome.PREDICTED_SKIP, reason), larger)

    def _give_up(self, bench: Bench, verdict: Verdict, models: Sequence[Model]) -> None:
        """End models without a run, and stop what is still on its way for them."""
        for model in models:
            if self.supply is not None:
                self.supply.abandon(model.name, verdict.reason, verdict.outcome)
            self._conclude_model(bench, model, verdict)

    def _measure_task(self, bench: Bench, model: Model, task: str, place: Place, guesses: Mapping[int, float]) -> None:
        while True:
            self._check()
            batch = policy.next_batch(settle(bench, model, task, place, guesses))
            if batch is None:
                return
            run_batch(bench, model, task, place, batch, guesses)

    def _hopeless(self, bench: Bench, model: Model) -> bool:
        tasks = [bench.suite.of_task(task) for task in TASKS]
        return policy.hopeless([bench.observation(model, scenarios[0]) for scenarios in tasks if scenarios])

    def _patience_seconds(self, bench: Bench, smaller: Model | None, model: Model) -> float:
        seen = [bench.observation(smaller, one) for one in bench.suite.scenarios] if smaller else []
        return policy.download_patience_seconds(smaller, seen, model, bench.suite.policy)

    def _await(self, bench: Bench, model: Model, patience_seconds: float) -> Supplied | None:
        """Wait for a model's file; ``None`` when it will not come, its scenarios then have their outcome."""
        assert self.supply is not None  # noqa: S101 - made before the first call
        while True:
            self._check()
            answer = self.supply.wait(model.name, timeout=0.5)
            if isinstance(answer, supply.SupplyFailure):
                self._conclude_model(bench, model, Verdict(answer.outcome, answer.reason))
                return None
            if answer is not None:
                return answer
            self._report(phase="downloading", model=model.name, task=None, tokens=None, tokens_per_second=None)
            too_slow = self.supply.judge(model.name, patience_seconds)
            if too_slow:
                self.supply.abandon(model.name, too_slow)
                self._conclude_model(bench, model, Verdict(Outcome.DOWNLOAD_TOO_SLOW, too_slow))
                return None

    def _placed(self, bench: Bench, model: Model, supplied: Supplied) -> tuple[Model, Place | Verdict]:
        """The model with what its file says, and where it goes; a file that can't be used ends this model alone."""
        try:
            header = self.tools.read_header(supplied.path)
            known = self._with_facts(model, supplied, header)
            too_large = policy.fits_memory(known, self._memory_bytes(), bench.suite.policy)
            if too_large is not None:
                return known, too_large
            return known, self.tools.place(
                bench, known, supplied.path, header, self.facts, self.request.device, self.tools.run
            )
        except (gguf.GgufError, synthetic.SyntheticError) as error:
            return model, Verdict(Outcome.DOWNLOAD_FAILED, str(error))

    def _with_facts(self, model: Model, supplied: Supplied, header: gguf.Header) -> Model:
        """The model with what its file says of it; the file's facts go into the journal once."""
        known = replace(
            model,
            bytes=supplied.bytes,
            sha256=supplied.sha256 or model.sha256,
            parameters=header.parameters,
            tensor_bytes=header.tensor_bytes,
            layers=header.layers,
        )
        if model.name not in self.history.supplied:
            self.journal.append(
                "model",
                model=model.name,
                file=model.file,
                status="ready",
                weights="synthetic" if synthetic.is_synthetic(header) else "real",
                bytes=supplied.bytes,
                sha256=supplied.sha256,
                seconds=round(supplied.seconds, 3),
                tensor_bytes=header.tensor_bytes,
                parameters=header.parameters,
            )
        return known

    def _conclude_model(self, bench: Bench, model: Model, verdict: Verdict) -> None:
        for scenario in bench.suite.scenarios:
            bench.conclude(model, scenario, verdict)

    def _conclude_open(self, verdict: Verdict) -> None:
        for model in self.request.models:
            for scenario in self.request.suite.scenarios:
                conclude(self.journal, self.request.suite.policy, model, scenario, verdict)

    def _check(self) -> None:
        """Raise :class:`Stopped` when somebody asked for the end or the time is up."""
        if self._stop.is_set():
            raise Stopped("stopped on request")
        limit = self.request.session_seconds
        if limit and self.spent_before + self.tools.clock() - self.began > limit:
            raise Stopped(f"the session's limit of {limit} s was reached", out_of_time=True)
        self._report()

    def _report(self, *, force: bool = False, **facts: Any) -> None:
        """Refresh the live progress; at most twice a second, for a reader looks every few seconds."""
        if self.tools.publish is None:
            return
        self.progress.update(facts)
        now = self.tools.clock()
        if not (force or facts) and now - self._written < 0.5:
            return
        self._written = now
        total = len(self.request.models) * len(self.request.suite.scenarios)
        still_open = len(_open_scenarios(self.request, self.history))
        elapsed = now - self.began
        self.tools.publish(
            self.request.state_dir,
            {
                "at": state.timestamp(),
                "sweep": self.request.sweep,
                "job": self.request.job,
                "model": None,
                "task": None,
                "tokens": None,
                "sample": None,
                "tokens_per_second": None,
                "message": "",
                **self.progress,
                "scenarios_done": total - still_open,
                "scenarios_total": total,
                "seconds_elapsed": round(elapsed, 1),
                "seconds_left": self._seconds_left(),
                "downloads": self.supply.status() if self.supply else {},
            },
        )

    def _seconds_left(self) -> float:
        """What is probably left: at the best speeds seen so far, scaled to larger models; time limits where none were.

        Downloads are not in it; they have estimates of their own.
        """
        left = 0.0
        reference: dict[str, tuple[Model, float]] = {}
        for model in self.request.models:
            for scenario in self.request.suite.scenarios:
                key = (model.name, scenario.task, scenario.tokens)
                seen = policy.mean_speed(scenario.tokens, self.history.samples.get(key, ()))
                if seen is not None:
                    reference[scenario.task] = (model, seen)
                if key in self.history.verdicts:
                    continue
                speed = None
                if scenario.task in reference:
                    measured, best = reference[scenario.task]
                    speed = policy.scale_guesses({0: best}, measured, model).get(0)
                left += policy.expected_seconds(scenario, model, speed, self.request.suite.policy)
        return round(left)
