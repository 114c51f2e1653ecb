"""Building a llama-bench: the machinery, on a C++ project that compiles in a second."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from benchctl.engine import build, source, tools
from benchctl.engine.progress import Steps, eta_text
from benchctl.engine.source import PINNED, EngineError

CPUINFO = (
    "processor\t: 0\nmodel name\t: EPYC\ncpu MHz\t: 2300.1\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nmodel name\t: EPYC\n"
)

PROJECT = """cmake_minimum_required(VERSION 3.18)
project(small CXX)
add_executable(llama-bench main.cpp {sources})
target_include_directories(llama-bench PRIVATE ${{LLAMA_SOURCE}}/include)
"""


def small_recipe(folder: Path, *, files: int = 3, main: str = "int main() { return VALUE; }") -> build.Recipe:
    """A recipe that compiles a few small files against a header from a small source archive."""
    root = "small-1.0/llama.cpp"
    archive = folder / "small-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in (("include/value.h", "#define VALUE 0\n"), ("docs/unwanted.md", "not for a build\n")):
            data = text.encode()
            member = tarfile.TarInfo(f"{root}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    project = folder / "project"
    project.mkdir()
    names = [f"part{number}.cpp" for number in range(files)]
    for name in names:
        (project / name).write_text(f"#include <regex>\nint {name[:-4]}() {{ return 0; }}\n")
    (project / "main.cpp").write_text(f"#include <value.h>\n{main}\n")
    (project / "CMakeLists.txt").write_text(PROJECT.format(sources=" ".join(names)))
    pinned = replace(
        PINNED,
        project="small",
        version="1.0",
        sha256=sha256(archive.read_bytes()).hexdigest(),
        archive=archive.name,
        folder=root,
    )
    return build.Recipe(source=pinned, folder=project, flags=("-DCMAKE_BUILD_TYPE=Release",))


@pytest.fixture
def recipe(tmp_path: Path) -> build.Recipe:
    """The small recipe, its archive already in the cache."""
    made = small_recipe(tmp_path)
    (tmp_path / "cache/llama-bench").mkdir(parents=True)
    (tmp_path / made.source.archive).replace(tmp_path / "cache/llama-bench" / made.source.archive)
    return made


def build_quietly(cache: Path, recipe: build.Recipe, lines: list[str] | None = None) -> Path:
    said: list[str] = [] if lines is None else lines
    return build.build(cache, said.append, Steps(io.StringIO(), said.append), recipe)


def test_a_build_lands_in_the_cache_whole_with_an_account_of_itself(tmp_path: Path, recipe: build.Recipe) -> None:
    """The binary runs, is found again, and says what it was made of; nothing half-made is left."""
    binary = build_quietly(tmp_path / "cache", recipe)
    assert subprocess.run([binary], check=False).returncode == 0
    assert build.cached(tmp_path / "cache", recipe) == binary
    assert {file.name for file in binary.parent.iterdir()} == {"llama-bench", "build.json", "build.log"}
    assert f'"source_sha256": "{recipe.source.sha256}"' in (binary.parent / "build.json").read_text()
    left = {entry.name for entry in (tmp_path / "cache/llama-bench").iterdir()}
    assert left == {binary.parent.name, recipe.source.archive, "build.lock"}


def test_the_second_build_is_the_first_one(tmp_path: Path, recipe: build.Recipe) -> None:
    """What is in the cache is not built again."""
    first = build_quietly(tmp_path / "cache", recipe)
    made = first.stat().st_mtime_ns
    lines: list[str] = []
    assert build_quietly(tmp_path / "cache", recipe, lines).stat().st_mtime_ns == made
    assert lines == []


def test_a_compiler_error_is_one_sentence_and_the_log_stays(tmp_path: Path) -> None:
    """The first error line is quoted, the log is named, and nothing is in the cache."""
    broken = small_recipe(tmp_path, main="int main() { return VALUE }")
    cache = tmp_path / "cache"
    (cache / "llama-bench").mkdir(parents=True)
    (tmp_path / broken.source.archive).replace(cache / "llama-bench" / broken.source.archive)
    with pytest.raises(EngineError, match=r"Building llama-bench failed: .*error: expected ';'") as caught:
        build_quietly(cache, broken)
    log = Path(caught.value.mend.removeprefix("The whole log: "))
    assert "main.cpp" in log.read_text()
    assert build.cached(cache, broken) is None


def killed_in_the_middle(big: build.Recipe, cache: Path) -> bool:
    """Build in a process of its own and kill it when four objects are noted; whether it was killed before its end."""
    program = (
        "import io, sys\nfrom pathlib import Path\nfrom benchctl.engine import build, source\n"
        "from benchctl.engine.progress import Steps\n"
        f"recipe = build.Recipe(source=source.PinnedSource(**{vars(big.source)!r}), folder=Path({str(big.folder)!r}), "
        f"flags={big.flags!r})\nbuild.build(Path({str(cache)!r}), print, Steps(io.StringIO(), print), recipe)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    builder = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL)
    log = cache / "llama-bench" / f"build-{build.key(big)}.log"
    deadline = time.monotonic() + 120
    try:
        while builder.poll() is None and compiled_so_far(big, cache) < 4:
            assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
            time.sleep(0.05)
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    assert builder.returncode in (0, -signal.SIGKILL), log.read_text() if log.exists() else "no log"
    return builder.returncode != 0


def compiled_so_far(big: build.Recipe, cache: Path) -> int:
    """Objects that Ninja has noted as done: one that lies there without a note is compiled again."""
    noted = cache / "llama-bench" / f"build-{build.key(big)}" / "out" / ".ninja_log"
    try:
        return sum(".cpp.o\t" in line for line in noted.read_text().splitlines())
    except FileNotFoundError:
        return 0


def test_a_killed_build_goes_on_where_it_was(tmp_path: Path) -> None:
    """After kill -9 of the builder, what was compiled is not compiled again, and the compilers have ended first."""
    big = small_recipe(tmp_path, files=10)
    for number in range(10):
        cache = tmp_path / f"cache{number}"
        (cache / "llama-bench").mkdir(parents=True)
        shutil.copy(tmp_path / big.source.archive, cache / "llama-bench")
        if killed_in_the_middle(big, cache):
            break
    else:
        pytest.fail("the build always ended before it could be killed")
    lines: list[str] = []
    binary = build_quietly(cache, big, lines)
    assert subprocess.run([binary], check=False).returncode == 0
    compiled = (binary.parent / "build.log").read_text().count("Building CXX object")
    assert compiled <= 10 + 1 - 4


def test_archives_that_are_not_the_pinned_one_are_refused(tmp_path: Path) -> None:
    """A copy with another checksum is an error that gives both checksums, and is not kept."""
    other = tmp_path / "other.tar.gz"
    other.write_bytes(b"not it")
    with pytest.raises(EngineError, match=f"is not the pinned one: its SHA-256 is {sha256(b'not it').hexdigest()}"):
        source.fetch(tmp_path / "cache", print, place=str(other))
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_source_that_is_not_where_it_was_said_to_be_is_one_sentence(tmp_path: Path) -> None:
    """A wrong path names the path and the variable to correct."""
    with pytest.raises(EngineError, match=r"could not be had from /nowhere/x\.tar\.gz") as caught:
        source.fetch(tmp_path, print, place="/nowhere/x.tar.gz")
    assert source.SOURCE_VARIABLE in caught.value.mend


def test_only_what_a_build_reads_is_unpacked(tmp_path: Path, recipe: build.Recipe) -> None:
    """The header is there, the documentation is not; unpacking again changes nothing."""
    archive = tmp_path / "cache/llama-bench" / recipe.source.archive
    folder = source.unpack(archive, tmp_path / "work/source", recipe.source)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["value.h"]
    before = folder.stat().st_mtime_ns
    assert source.unpack(archive, tmp_path / "work/source", recipe.source) == folder
    assert folder.stat().st_mtime_ns == before


def test_the_name_of_a_build_tells_cpus_apart_and_not_their_clock() -> None:
    """Model and features count; the momentary clock and the other cores do not."""
    assert build.cpu_identity(CPUINFO) == "EPYC\nfpu avx2"
    assert build.cpu_identity(CPUINFO.replace("2300.1", "3100.9")) == build.cpu_identity(CPUINFO)
    assert build.cpu_identity(CPUINFO.replace("avx2", "avx2 avx512f")) != build.cpu_identity(CPUINFO)


def test_a_changed_flag_is_another_build(recipe: build.Recipe) -> None:
    """The cache never serves a binary that was built with other flags."""
    assert build.key(replace(recipe, flags=(*recipe.flags, "-DX=1"))) != build.key(recipe)


@pytest.mark.parametrize(
    ("cores", "gib", "expected"), [(2, 16.0, 2), (64, 4.0, 5), (8, 0.5, 1)], ids=["cores", "memory", "at least one"]
)
def test_compilers_run_as_many_as_cores_and_memory_allow(cores: int, gib: float, expected: int) -> None:
    """One per core, fewer where memory is short, never none."""
    assert build.jobs(cores, int(gib * 2**30)) == expected


def test_the_rest_of_the_time_is_told_once_it_can_be() -> None:
    """Nothing for the first steps, then seconds or minutes, nothing at the end."""
    assert eta_text(4, 2, 80) == ""
    assert eta_text(40, 20, 80) == ", about 2 min left"
    assert eta_text(60, 60, 80) == ", about 20 s left"
    assert eta_text(90, 80, 80) == ""


def test_without_a_terminal_a_line_comes_now_and_then() -> None:
    """Steps that follow each other quickly make no lines; after fifteen seconds there is one."""
    now = [0.0]
    lines: list[str] = []
    with Steps(io.StringIO(), lines.append, lambda: now[0]) as steps:
        for done in range(1, 41):
            now[0] += 1.0
            steps.show(done, 80, f"object {done}")
    assert lines == ["  15/80 steps, about 65 s left", "  30/80 steps, about 50 s left"]


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_is_drawn_over_and_taken_away() -> None:
    """Every step redraws the same line, which fits the terminal; at the end it is empty, and no lines were reported."""
    terminal = Terminal()
    lines: list[str] = []
    with Steps(terminal, lines.append) as steps:
        for done in range(1, 9):
            steps.show(done, 8, f"Building CXX object a/very/long/path/{'x' * 200}.cpp.o")
    drawn = terminal.getvalue().split("\r")[1:]
    assert drawn[-2].startswith("  [########################] 8/8 steps")
    assert drawn[-1] == "\x1b[K"
    assert all(len(line.removesuffix("\x1b[K")) < 200 for line in drawn)
    assert "\n" not in terminal.getvalue()
    assert lines == []


def test_the_tools_of_this_machine_are_found(tmp_path: Path) -> None:
    """Where compiler, CMake and Ninja are installed, nothing is fetched."""
    lines: list[str] = []
    found = tools.find(tmp_path / "tools", lines.append)
    assert Path(found.cmake).is_file()
    assert Path(found.ninja).is_file()
    assert lines == []
