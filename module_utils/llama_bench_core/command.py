"""The llama-bench binary: what it is, what it understands, and the arguments of one process of it.

Users bring their own llama-bench, from September 2024 to today, and its flags come and go. So the flags are read from
the binary's own ``--help``, and only those are ever passed. What a missing flag means:

===================  =====================================================================================
``-o jsonl``, ``-m``, ``-p``, ``-n``, ``-r``  refused: without them nothing can be measured
``--no-warmup``      :attr:`Binary.streams` is false: every row is preceded by a warm-up pass, which on prompts is a
                     whole pass; so prompts are measured with ``-r N``, one row per scenario
``--progress``       :attr:`Binary.reports_progress` is false: the load time and early verdicts come from rows only
``-ngl`` default     99 in old versions, where -1 meant *no* layer; there "all layers" is passed as 999
``-dev``, ``-nopo``  without them a CPU run of a GPU build is kept off the GPU by :func:`environment` alone
===================  =====================================================================================
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .help_text import Device, parse_devices, parse_help, parse_pace, parse_version
from .values import CoreError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .programs import Run

NEEDED = ("-m", "-p", "-n", "-r", "-o")
"""The flags without which nothing can be measured."""

ALL_LAYERS = -1
"""What callers say for "all layers on the GPU"."""

SETTINGS = {"flash_attn": "-fa", "batch": "-b", "ubatch": "-ub", "split_mode": "-sm"}
"""The keys that a suite's ``flags`` may have, with llama-bench's flag for each."""

_HARMLESS = {"flash_attn": False, "batch": 2048, "ubatch": 512, "split_mode": "layer"}
"""What a binary without the flag does anyway."""

PROBE_SECONDS = 60.0
"""``--help`` loads all backends first, and a CUDA driver that sleeps takes many seconds to wake."""


class NotLlamaBenchError(CoreError):
    """The file is not a llama-bench that can measure: not there, not executable, something else, or too old."""


@dataclass(frozen=True)
class Binary:
    """A llama-bench and what it understands.

    Attributes:
        path: where it is.
        version: what ``--version`` says, e.g. ``0.5.0-dev``; empty for older ones, which don't know it.
        build_number: 0 when ``--version`` does not say; rows carry it too.
        build_commit: empty when ``--version`` does not say; rows carry it too.
        flags: every spelling of every flag.
        help_sha256: checksum of the help text without the program's path: names the set of flags and defaults.
        devices: what ``--list-devices`` shows besides the CPU; ``None`` for versions that don't know it.
        hints: by flag, what its value may be, e.g. ``0|1`` or ``on|off|auto``.
        defaults: by flag, its default as the help prints it.
        pace: how many recorded seconds pass in one, of a llama-bench that plays a recording; 0 for a real one.
    """

    path: str
    version: str
    build_number: int
    build_commit: str
    flags: frozenset[str]
    help_sha256: str
    devices: tuple[Device, ...] | None = None
    hints: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    defaults: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    pace: float = 0.0

    @property
    def streams(self) -> bool:
        """Whether repeated values with ``-r 1`` give plain samples, one row each."""
        return "--no-warmup" in self.flags

    @property
    def reports_progress(self) -> bool:
        """Whether the load time and the beginning of each sample can be seen."""
        return "--progress" in self.flags

    @property
    def pins(self) -> bool:
        """Whether its threads can be bound to CPUs."""
        return "-C" in self.flags


def probe(path: str, run: Run, *, timeout_seconds: float = PROBE_SECONDS) -> Binary:
    """Find out what a binary is and understands; starts it up to three times, for a moment each.

    Args:
        path: of the binary.
        run: starts a program and waits for its end, as :func:`programs.run`.
        timeout_seconds: how long each start may take.

    Raises:
        NotLlamaBenchError: it can't be started, hangs, is something else, or is too old.
    """
    text = _help_text(path, run, timeout_seconds)
    flags, hints, defaults = parse_help(text)
    _check(path, flags, hints)
    version, build_number, build_commit, pace = "", 0, "", 0.0
    if "--version" in flags:
        said = _said(path, "--version", run, timeout_seconds)
        version, build_number, build_commit = parse_version(said)
        pace = parse_pace(said)
    devices = None
    if "--list-devices" in flags:
        devices = parse_devices(_said(path, "--list-devices", run, timeout_seconds))
    plain = re.sub(r"(?m)^usage: .*$", "usage:", text)
    return Binary(
        path=path,
        version=version,
        build_number=build_number,
        build_commit=build_commit,
        flags=flags,
        help_sha256=hashlib.sha256(plain.encode()).hexdigest(),
        devices=devices,
        hints=hints,
        defaults=defaults,
        pace=pace,
    )


def _help_text(path: str, run: Run, timeout_seconds: float) -> str:
    """What the binary prints for ``--help``."""
    try:
        done = run([path, "--help"], timeout_seconds)
    except TimeoutError as error:
        raise NotLlamaBenchError(
            f"{path} --help did not end within {timeout_seconds:g} s.",
            "Run it by hand; a GPU driver that hangs is the usual cause.",
        ) from error
    except FileNotFoundError as error:
        raise NotLlamaBenchError(
            f"{path} is not there, or the interpreter it was built for is not.", "Give the path of a llama-bench."
        ) from error
    except PermissionError as error:
        raise NotLlamaBenchError(f"{path} is not executable.", f"Try chmod +x {path}.") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise NotLlamaBenchError(
            f"{path} can't be run on this machine: {reason}.", "It may have been built for another kind of CPU."
        ) from error
    missing = re.search(r"error while loading shared libraries: ([^:]+):|symbol lookup error: (.+)", done.stderr)
    if missing:
        raise NotLlamaBenchError(
            f"{path} lacks a shared library: {(missing[1] or missing[2]).strip()}.",
            "Set LD_LIBRARY_PATH to where it lies, or use a llama-bench that was built on this machine.",
        )
    if done.returncode < 0:
        raise NotLlamaBenchError(
            f"{path} --help was ended by signal {-done.returncode}.",
            "It was built for another CPU (signal 4) or is broken; use one that was built for this machine.",
        )
    return done.stdout or done.stderr


def _said(path: str, flag: str, run: Run, timeout_seconds: float) -> str:
    """What the binary prints for a flag that only shows something; nothing when it fails at that."""
    try:
        done = run([path, flag], timeout_seconds)
    except (OSError, TimeoutError):
        return ""
    return done.stdout + done.stderr if done.returncode == 0 else ""


def _check(path: str, flags: frozenset[str], hints: Mapping[str, str]) -> None:
    """Refuse what is no llama-bench, and what is too old."""
    if not {"--n-prompt", "--n-gen"} <= flags:
        raise NotLlamaBenchError(f"{path} is not a llama-bench.", "Give the path of llama.cpp's llama-bench.")
    lacking = [flag for flag in NEEDED if flag not in flags]
    if "-o" in flags and "jsonl" not in hints.get("-o", "").split("|"):
        lacking.append("-o jsonl")
    if lacking:
        raise NotLlamaBenchError(
            f"{path} is too old: it does not know {', '.join(lacking)}.",
            "Use a llama-bench from September 2024 or newer.",
        )


def arguments(
    binary: Binary,
    model_path: str,
    task: str,
    values: Sequence[int],
    *,
    repetitions: int,
    warmup: bool,
    threads: int,
    cpu_mask: str = "",
    gpu_layers: int = 0,
    flags: Mapping[str, object] | None = None,
    verbose: bool = False,
    progress: bool = True,
) -> list[str]:
    """The command of one llama-bench process: only flags that the binary knows.

    The other task is set to 0, because llama-bench otherwise measures its default of 512 or 128 tokens too.
    ``gpu_layers=0`` keeps a GPU build off the GPU as far as flags can: with ``-ngl 0`` alone it still copies the
    weights of large batches there and computes them on the GPU (operation offload), so ``-dev none`` is added, or
    ``-nopo 1`` where only that is known. :func:`environment` hides the devices besides.

    Args:
        binary: what :func:`probe` found.
        model_path: the GGUF file.
        task: ``pp`` or ``tg``.
        values: token counts in order; repeated values give one row each.
        repetitions: ``-r``.
        warmup: whether llama-bench makes its own warm-up pass before each row.
        threads: ``-t``.
        cpu_mask: CPUs to bind the threads to, as ``0x3``; empty for none. Strict, one thread per CPU.
        gpu_layers: 0 for the CPU, -1 for all layers, else that number of layers.
        flags: settings of the suite, keys as in :data:`SETTINGS`.
        verbose: ``-v``: llama.cpp's log on stderr, wherein the proof of the offload stands.
        progress: announce every run on stderr, if the binary can.

    Raises:
        SettingsError: a key of ``flags`` is unknown.
    """
    wanted, other = ("-p", "-n") if task == "pp" else ("-n", "-p")
    argv = [binary.path, "-m", model_path, wanted, ",".join(map(str, values)), other, "0"]
    argv += ["-r", str(repetitions), "-o", "jsonl"]

    def add(flag: str, *value: str) -> None:
        if flag in binary.flags:
            argv.extend((flag, *value))

    if not warmup:
        add("--no-warmup")
    if progress:
        add("--progress")
    if verbose:
        add("-v")
    add("-t", str(threads))
    if cpu_mask:
        add("-C", cpu_mask)
        add("--cpu-strict", "1")
    add("-ngl", str(_layers(binary, gpu_layers)))
    if gpu_layers == 0:
        add(*(("-dev", "none") if "-dev" in binary.flags else ("-nopo", "1")))
    for key, value in (flags or {}).items():
        argv += _setting(binary, key, value)
    return argv


def unsupported(binary: Binary, flags: Mapping[str, object]) -> tuple[str, ...]:
    """The settings that this binary can't honour, so that :func:`arguments` leaves them out and results differ."""
    return tuple(key for key, value in flags.items() if not _setting(binary, key, value) and _HARMLESS[key] != value)


def _setting(binary: Binary, key: str, value: object) -> list[str]:
    """One setting as arguments; nothing when the binary has no flag for it."""
    if key not in SETTINGS:
        raise SettingsError(
            f"{key!r} is not a flag that a suite can set.", f"Known are {', '.join(SETTINGS)}.", f"flags.{key}"
        )
    flag = SETTINGS[key]
    if flag not in binary.flags:
        return []
    # 1 and 0 are understood by every version, also by those whose help says on|off|auto.
    return [flag, str(int(value)) if isinstance(value, bool) else str(value)]


def _layers(binary: Binary, gpu_layers: int) -> int:
    """The number for ``-ngl``; old versions, whose default is 99, took -1 for no layer at all."""
    if gpu_layers != ALL_LAYERS or binary.defaults.get("-ngl", "").startswith("-"):
        return gpu_layers
    return 999


_PASSED = re.compile(
    r"PATH|HOME|TMPDIR|LD_LIBRARY_PATH|TZ"
    r"|(?:CUDA|NVIDIA|GGML|OMP|GOMP|KMP|HIP|HSA|ROCR|ROCM|VK|SYCL|ONEAPI|ZE)_\w+"
)
_HIDDEN = {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1"}


def environment(base: Mapping[str, str], *, cpu_only: bool = False) -> dict[str, str]:
    """The environment for llama-bench: an allow-list of ``base``, so that no secret travels into a log or a core.

    Args:
        base: usually ``os.environ``.
        cpu_only: hide the GPUs, so that a GPU build neither wakes nor uses one. Works for every version of it.
    """
    passed = {name: value for name, value in base.items() if _PASSED.fullmatch(name)}
    passed["LANG"] = passed["LC_ALL"] = "C"
    if cpu_only:
        passed.update(_HIDDEN)
    return passed
