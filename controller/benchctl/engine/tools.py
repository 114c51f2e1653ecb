"""The programs that a build needs: a compiler from the system, CMake and Ninja from the system or from PyPI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.engine.source import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

CMAKE_NEEDED = (3, 18)
"""The recipe sets properties of another directory's files, which CMake can since 3.18."""


@dataclass(frozen=True)
class Tools:
    """Paths of what a build runs."""

    cmake: str
    ninja: str


def compiler() -> str | None:
    """The C++ compiler that CMake would take, or ``None``."""
    return next(
        (path for name in (os.environ.get("CXX"), "c++", "g++", "clang++") if name and (path := shutil.which(name))),
        None,
    )


def system_cmake() -> str | None:
    """A CMake on PATH that is new enough, or ``None``."""
    path = shutil.which("cmake")
    if path is None:
        return None
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d+)\.(\d+)", said)
    return path if found and (int(found[1]), int(found[2])) >= CMAKE_NEEDED else None


def system_ninja() -> str | None:
    """A Ninja on PATH, or ``None``."""
    return shutil.which("ninja") or shutil.which("ninja-build")


def find(folder: Path, report: Callable[[str], None]) -> Tools:
    """Compiler, CMake and Ninja; the latter two are fetched from PyPI into ``folder`` where the system lacks them.

    Raises:
        EngineError: there is no compiler, or the others can't be fetched.
    """
    if compiler() is None:
        raise EngineError(
            "Building llama-bench needs a C++ compiler, and there is none on PATH.",
            "Install one (Debian, Ubuntu: sudo apt-get install g++), or name a llama-bench with --llama-bench PATH.",
        )
    cmake, ninja = system_cmake(), system_ninja()
    if cmake and ninja:
        return Tools(cmake, ninja)
    fetched = Tools(str(folder / "cmake/data/bin/cmake"), str(folder / "bin/ninja"))
    lacking = [name for name, path in (("cmake", cmake), ("ninja", ninja)) if path is None]
    if not all(Path(getattr(fetched, name)).is_file() for name in lacking):
        report(f"Fetching {' and '.join(lacking)} from PyPI, because the system has none.")
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--upgrade",
            "--target",
            str(folder),
        ]
        done = subprocess.run(
            [*command, "cmake<4", "ninja"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            raise EngineError(
                f"Building llama-bench needs {' and '.join(lacking)}, and pip could not fetch them.",
                "Install them (Debian, Ubuntu: sudo apt-get install cmake ninja-build).",
            )
    return Tools(cmake or fetched.cmake, ninja or fetched.ninja)
