"""Build llama-bench for this machine's CPU from the pinned source, once, into the cache.

A build is kept in ``CACHE/llama-bench/KEY/``, where KEY names everything that decides what comes out: source, recipe,
flags and CPU. It appears there in one rename, so what is there is whole. An interrupted build goes on where it was.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.engine import source, tools
from benchctl.engine.source import PINNED, EngineError, PinnedSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchctl.engine.progress import Steps

FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DGGML_OPENMP=ON",
    "-DGGML_CCACHE=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_ALL_WARNINGS=OFF",
    f"-DLLAMA_BUILD_NUMBER={PINNED.build_number}",
    f"-DLLAMA_BUILD_COMMIT={PINNED.build_commit}",
)
"""Everything else is llama.cpp's own default. Native: the fastest code that this very CPU runs."""

NEEDED_BYTES = 1 << 30
"""Disk for archive (73 MiB), source and objects, with room to spare."""

JOB_BYTES = 700 << 20
"""Memory that one compiler process may need; with less per core, fewer run at a time."""

_STEP = re.compile(r"^\[(\d+)/(\d+)\] (.*)")


def cpu_identity(cpuinfo: str) -> str:
    """What of ``/proc/cpuinfo`` decides the code that a native build emits: model and features of the first CPU."""
    wanted = ("model name", "flags", "CPU implementer", "CPU part", "CPU variant", "Features")
    first = cpuinfo.strip().split("\n\n", 1)[0]
    fields = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    return "\n".join(value.strip() for key, value in fields.items() if key.strip() in wanted)


PROJECT = Path(__file__).with_name("recipe")
"""The CMake project that travels with benchctl."""


@dataclass(frozen=True)
class Recipe:
    """What is built, and how.

    Attributes:
        source: the archive that holds the source.
        folder: the CMake project that is configured with LLAMA_SOURCE set, and has a target ``llama-bench``.
        flags: of CMake.
    """

    source: PinnedSource = PINNED
    folder: Path = PROJECT
    flags: tuple[str, ...] = FLAGS

    def files(self) -> list[Path]:
        """The project's files, in a fixed order."""
        return sorted(file for file in self.folder.iterdir() if file.is_file())


RECIPE = Recipe()


def key(recipe: Recipe = RECIPE) -> str:
    """The name of this machine's build: 16 hex digits over source, recipe, flags and CPU."""
    digest = hashlib.sha256()
    with contextlib.suppress(OSError):
        digest.update(cpu_identity(Path("/proc/cpuinfo").read_text()).encode())
    for text in (platform.machine(), recipe.source.sha256, *recipe.flags, *(f.read_text() for f in recipe.files())):
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()[:16]


def cached(cache: Path, recipe: Recipe = RECIPE) -> Path | None:
    """The llama-bench that was built for this machine earlier, or ``None``."""
    binary = cache / "llama-bench" / key(recipe) / "llama-bench"
    return binary if os.access(binary, os.X_OK) else None


def build(cache: Path, report: Callable[[str], None], steps: Steps, recipe: Recipe = RECIPE) -> Path:
    """Build it; returns the binary's path.

    Args:
        cache: the cache directory.
        report: takes one line for a person.
        steps: shows how far the build is.
        recipe: what to build.

    Raises:
        EngineError: something that a build needs is missing, or the compiler failed.
    """
    folder = cache / "llama-bench"
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / "build.lock", report) as lock:
        # another process may have built it while this one waited for the lock
        ready = cached(cache, recipe)
        if ready is not None:
            return ready
        programs = tools.find(folder / "tools", report)
        free = shutil.disk_usage(folder).free
        if free < NEEDED_BYTES:
            raise EngineError(
                f"Building llama-bench needs 1 GiB of disk in {folder}, and {free / 2**30:.2f} GiB are free.",
                "Make room, or choose another place with BENCHCTL_CACHE.",
            )
        archive = source.fetch(folder, report, recipe.source)
        name = key(recipe)
        work = folder / f"build-{name}"
        llama = source.unpack(archive, work / "source", recipe.source)
        log = folder / f"build-{name}.log"
        report(f"Building llama-bench (llama.cpp b{recipe.source.build_number}) for this CPU. Log: {log}")
        started = time.monotonic()
        binary = _compile(programs, recipe, llama, work, log, steps, lock)
        done = _install(recipe, binary, folder / name, log, time.monotonic() - started)
        shutil.rmtree(work, ignore_errors=True)
        report(f"Built llama-bench in {time.monotonic() - started:.0f} s: {done}")
        return done


def jobs(cores: int, available_bytes: int) -> int:
    """How many compilers run at a time: one per core, fewer where memory is short."""
    return max(1, min(cores, available_bytes // JOB_BYTES))


def _compile(
    programs: tools.Tools, recipe: Recipe, llama: Path, work: Path, log: Path, steps: Steps, lock: int
) -> Path:
    """Configure and compile in ``work``; returns the fresh binary."""
    out = work / "out"
    configure = [programs.cmake, "-G", "Ninja", "-S", str(recipe.folder), "-B", str(out), f"-DLLAMA_SOURCE={llama}"]
    configure += [f"-DCMAKE_MAKE_PROGRAM={programs.ninja}", *recipe.flags]
    compile_ = [programs.ninja, "-C", str(out), "-j", str(jobs(len(os.sched_getaffinity(0)), _available_bytes()))]
    with log.open("w", encoding="utf-8") as said, steps:
        for command in (configure, [*compile_, "llama-bench"]):
            said.write(f"$ {' '.join(command)}\n")
            status = _watch(command, said.write, steps, lock)
            if status != 0:
                said.flush()
                raise EngineError(f"Building llama-bench failed: {_complaint(log)}.", f"The whole log: {log}")
    return out / "llama-bench"


def _watch(command: list[str], write: Callable[[str], object], steps: Steps, lock: int) -> int:
    """Run one command of the build, log what it prints, and show its steps; ends it if this process is interrupted."""
    environment = {**os.environ, "NINJA_STATUS": "[%f/%t] ", "LC_ALL": "C"}
    # The lock's descriptor is inherited: should this process be killed, whoever comes next waits for the compilers.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        pass_fds=(lock,),
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    try:
        for line in process.stdout:
            write(line)
            step = _STEP.match(line)
            if step:
                steps.show(int(step[1]), int(step[2]), step[3].strip())
        return process.wait()
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def _install(recipe: Recipe, binary: Path, target: Path, log: Path, seconds: float) -> Path:
    """Put binary, log and an account of the build into the cache, in one rename."""
    fresh = target.with_name(f"{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    shutil.copy2(binary, fresh / "llama-bench")
    strip = shutil.which("strip")
    if strip:
        subprocess.run([strip, str(fresh / "llama-bench")], check=False, capture_output=True)
    account = {
        "source": f"{recipe.source.project} {recipe.source.version}",
        "source_sha256": recipe.source.sha256,
        "build_number": recipe.source.build_number,
        "build_commit": recipe.source.build_commit,
        "flags": list(recipe.flags),
        "seconds": round(seconds, 1),
        "built": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (fresh / "build.json").write_text(json.dumps(account, indent=1) + "\n")
    log.replace(fresh / "build.log")
    shutil.rmtree(target, ignore_errors=True)
    fresh.replace(target)
    return target / "llama-bench"


@contextlib.contextmanager
def _lock(path: Path, report: Callable[[str], None]) -> Iterator[int]:
    """Hold the lock file while building; a second builder waits, and says so. Yields the descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("Another process is building llama-bench; waiting for it.")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _available_bytes() -> int:
    """Memory that new processes may take, as Linux estimates it; plenty where it does not say."""
    with contextlib.suppress(OSError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) << 10
    return 1 << 62


def _complaint(log: Path) -> str:
    """The line of a build log that says what went wrong."""
    lines = log.read_text(errors="replace").splitlines()
    telling = [line for line in lines if re.search(r"\berror\b|CMake Error|fatal:|[Kk]illed", line)]
    return (telling or lines or ["it printed nothing"])[0].strip().rstrip(".")
