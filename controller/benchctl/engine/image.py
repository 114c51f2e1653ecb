"""llama-bench out of a container image: taken from it, not run in it.

A program inside a container outlives the ``podman run`` that started it, is not in the caller's process group, and sees
the model only through a mount. So the image is unpacked instead: its llama-bench, the libraries beside it, and the C
library it was linked with, because the machine's own may be older. The image's dynamic loader is put into the same
folder and started with the program as its argument: llama.cpp looks for its CPU backends beside ``/proc/self/exe``,
which then is the loader.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from benchctl.engine.source import PINNED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

IMAGE_VARIABLE = "BENCHCTL_LLAMA_IMAGE"
"""Environment variable: the image to take llama-bench from; empty for none."""

DEFAULT_IMAGE = f"ghcr.io/ggml-org/llama.cpp:full-b{PINNED.build_number}"
"""llama.cpp's own image of the pinned release; "full" is the one that holds llama-bench."""

PULL_SECONDS = 900.0
REACH_SECONDS = 20.0
"""How long to wait for a registry's first answer before it counts as not reachable."""

_LIBRARY_FOLDERS = re.compile(r"^(usr/)?(local/)?lib(64|/[a-z0-9_]+-linux-gnu[a-z0-9_]*)?$")


def image_name() -> str:
    """The image to look for; empty when the user wants none."""
    return os.environ.get(IMAGE_VARIABLE, DEFAULT_IMAGE)


def engines() -> list[str]:
    """Docker and Podman, those that are installed and answer."""
    found = []
    for name in ("docker", "podman"):
        path = shutil.which(name)
        if path and _succeeds([path, "info"], REACH_SECONDS):
            found.append(path)
    return found


def cached(cache: Path, image: str) -> Path | None:
    """The llama-bench that was taken from this image earlier, or ``None``."""
    binary = _folder(cache, image) / "llama-bench"
    return binary if os.access(binary, os.X_OK) else None


def extract(cache: Path, image: str, report: Callable[[str], None]) -> Path | None:
    """Take llama-bench out of an image, pulling it if need be; ``None``, and a line that says why, when that fails."""
    if not image:
        return None
    programs = engines()
    if not programs:
        report("No container image: neither Docker nor Podman runs here.")
        return None
    for program in programs:
        name = Path(program).name
        if not _succeeds([program, "image", "inspect", image], REACH_SECONDS):
            if not _succeeds([program, "manifest", "inspect", image], REACH_SECONDS):
                report(f"No container image: {name} has no {image} and can't reach it.")
                continue
            report(f"Pulling {image} with {name}.")
            if not _succeeds([program, "pull", "--quiet", image], PULL_SECONDS):
                report(f"No container image: {name} could not pull {image}.")
                continue
        report(f"Taking llama-bench out of {image} with {name}.")
        binary = _take(program, image, _folder(cache, image))
        if binary is not None:
            return binary
        report(f"No container image: {image} holds no llama-bench.")
    return None


def _take(program: str, image: str, target: Path) -> Path | None:
    """Unpack what llama-bench needs from the image's file system into ``target``, in one rename."""
    created = subprocess.run(
        [program, "create", image, "true"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    container = created.stdout.strip().splitlines()[-1:] if created.returncode == 0 else []
    if not container:
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix="image-"))
    try:
        with subprocess.Popen(
            [program, "export", container[0]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as export:
            assert export.stdout is not None  # noqa: S101 - a pipe was asked for
            found = _unpack(export.stdout, scratch)
        if not found:
            return None
        shutil.rmtree(target, ignore_errors=True)
        scratch.replace(target)
        return target / "llama-bench"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        subprocess.run([program, "rm", "-f", container[0]], capture_output=True, check=False)


def _unpack(stream: IO[bytes], folder: Path) -> bool:
    """From an exported file system into ``folder/lib``: llama-bench, shared libraries, loader; writes the starter."""
    lib = folder / "lib"
    lib.mkdir()
    links: dict[str, str] = {}
    home = ""
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            path = PurePosixPath(member.name.lstrip("./"))
            if path.name == "llama-bench" and member.isfile():
                home = str(path.parent)
            elif ".so" not in path.name or not (home == str(path.parent) or _holds_libraries(path)):
                continue
            if member.issym() or member.islnk():
                links.setdefault(path.name, PurePosixPath(member.linkname).name)
            elif member.isfile() and not (lib / path.name).exists():
                data = tar.extractfile(member)
                if data is not None:
                    with (lib / path.name).open("wb") as file:
                        shutil.copyfileobj(data, file)
                    (lib / path.name).chmod(0o755)
    _resolve(links.items(), lib)
    loaders = sorted(lib.glob("ld-linux*.so*"))
    if not home or not loaders:
        return False
    starter = folder / "llama-bench"
    starter.write_text(
        "#!/bin/sh\n# Starts the image's llama-bench with the image's own C library.\n"
        'here=$(dirname "$(readlink -f "$0")")/lib\n'
        f'exec "$here/{loaders[0].name}" --library-path "$here" "$here/llama-bench" "$@"\n'
    )
    starter.chmod(0o755)
    return True


def _holds_libraries(path: PurePosixPath) -> bool:
    """Whether a file lies in a folder where programs look for libraries; llama.cpp's images use ``/app``."""
    return bool(_LIBRARY_FOLDERS.match(str(path.parent))) or str(path.parent) == "app"


def _resolve(links: Iterable[tuple[str, str]], lib: Path) -> None:
    """Make the links whose targets were unpacked; all lie in one folder now."""
    for name, target in links:
        if name != target and not (lib / name).exists():
            (lib / name).symlink_to(target)


def _folder(cache: Path, image: str) -> Path:
    return cache / "llama-bench" / ("image-" + re.sub(r"[^A-Za-z0-9._-]+", "-", image))


def _succeeds(command: list[str], timeout_seconds: float) -> bool:
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=timeout_seconds, stdin=subprocess.DEVNULL
        )
    except (subprocess.TimeoutExpired, OSError):
        return False
    return done.returncode == 0
