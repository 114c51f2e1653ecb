"""llama-bench out of a real container image: what is taken from it runs here, with the image's own C library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from benchctl.lab.images import host_image
from lab.podman import SETTINGS, podman

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARY = 'extern "C" const char * part() { return "the library beside it"; }\n'
PROGRAM = """
#include <cstdio>
#include <unistd.h>
#include <gnu/libc-version.h>
extern "C" const char * part();
int main() {
    char path[4096] = {0};
    readlink("/proc/self/exe", path, sizeof path - 1);
    printf("%s\\n%s\\n%s\\n", part(), gnu_get_libc_version(), path);
}
"""


@pytest.fixture
def image(cache: Path, tmp_path: Path) -> Iterator[str]:
    """An image laid out as llama.cpp's own: the program and its libraries in /app, on another release of Debian."""
    if os.geteuid() != 0 or shutil.which("podman") is None:
        pytest.skip("making an image takes root and podman")
    app = tmp_path / "context" / "app"
    app.mkdir(parents=True)
    (tmp_path / "part.cpp").write_text(LIBRARY)
    (tmp_path / "main.cpp").write_text(PROGRAM)
    compiler = ["g++", "-O0"]
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", app / "libpart.so.1", tmp_path / "part.cpp"], check=True)
    (app / "libpart.so").symlink_to("libpart.so.1")
    subprocess.run([*compiler, "-o", app / "llama-bench", tmp_path / "main.cpp", f"-L{app}", "-lpart"], check=True)
    (tmp_path / "context/Containerfile").write_text(f"FROM {host_image(cache, 'trixie')}\nCOPY app /app\n")
    name = f"localhost/benchctl-lab/engine:{os.getpid()}"
    podman("build", "-t", name, tmp_path / "context")
    yield name
    podman("rmi", "-f", name, check=False)


def extract(image: str, cache: Path) -> list[str]:
    """What :func:`benchctl.engine.image.extract` says and returns, in a process with the lab's podman."""
    program = (
        "import sys; from pathlib import Path; from benchctl.engine import image\n"
        "print(image.extract(Path(sys.argv[1]), sys.argv[2], print))\n"
        "print(image.cached(Path(sys.argv[1]), sys.argv[2]))"
    )
    settings = {
        "CONTAINERS_CONF": str(SETTINGS),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", program, str(cache), image],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_the_program_of_an_image_runs_here_without_the_image(image: str, tmp_path: Path) -> None:
    """It finds the library beside it, uses the image's C library, and sees itself in the folder of its backends."""
    *_, taken, cached = extract(image, tmp_path / "cache")
    assert cached == taken
    said = subprocess.run([taken], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0] == "the library beside it"
    assert said[1] == "2.41", "Debian 13's, not this machine's"
    assert Path(said[2]).parent == Path(taken).parent / "lib"
    assert podman("ps", "-aq", "--filter", f"ancestor={image}") == ""


def test_an_image_that_can_not_be_had_is_passed_over_with_a_line(tmp_path: Path) -> None:
    """No network, no image: a line says so, and nothing is left in the cache."""
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    lines = extract("registry.invalid/nobody/llama.cpp:full", tmp_path / "cache")
    assert "podman has no registry.invalid/nobody/llama.cpp:full and can't reach it." in lines[0]
    assert lines[1:] == ["None", "None"]
    assert not (tmp_path / "cache").exists()
