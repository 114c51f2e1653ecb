"""The image of the lab's servers: Debian with sshd and Python, made here once.

The base is made by ``debootstrap`` where root has it (from the machine's own package mirror, no registry is needed),
and else pulled: ``docker.io/library/debian``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchctl.lab.podman import LabError, podman, with_own_settings

RECIPE = Path(__file__).with_name("image")
PACKAGES = ("ca-certificates", "iproute2", "openssh-server", "procps", "python3", "python3-apt", "sudo")
SUITE = "bookworm"
"""Debian's release of the servers, unless another is asked for."""

PULLED = "docker.io/library/debian"
BUILD_SECONDS = 1800.0


def image_name(suite: str = SUITE) -> str:
    """The name of the image, which changes with its recipe; whether it is there is not looked at."""
    recipe = "\n".join((*PACKAGES, *(file.read_text() for file in sorted(RECIPE.iterdir()))))
    return f"localhost/benchctl-lab/host:{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def host_image(cache: Path, suite: str = SUITE) -> str:
    """The image of an SSH host of a Debian release; made unless podman has it (a minute).

    Args:
        cache: where the base is kept.
        suite: name of the release.

    Raises:
        LabError: there is no way to make it.
    """
    image = image_name(suite)
    (cache / "lab").mkdir(parents=True, exist_ok=True)
    with (cache / "lab" / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if image not in podman("images", "--format", "{{.Repository}}:{{.Tag}}").split():
            settings = {"BASE": _base(cache, suite), "PACKAGES": " ".join(PACKAGES)}
            options = [word for key, value in settings.items() for word in ("--build-arg", f"{key}={value}")]
            arguments = ("build", *options, "-t", image, str(RECIPE))
            try:
                podman(*arguments, timeout=BUILD_SECONDS)
            except LabError as error:
                if not with_own_settings(error):
                    raise
                podman(*arguments, timeout=BUILD_SECONDS)
    return image


def _base(cache: Path, suite: str) -> str:
    """The image to build on: made of Debian's packages, or pulled by podman when it builds."""
    archive = _archive(cache, suite)
    if not archive.is_file():
        program = shutil.which("debootstrap", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if program is None or os.geteuid() != 0:
            return f"{PULLED}:{suite}-slim"
        _make_archive(program, suite, archive)
    base = f"localhost/benchctl-lab/root:{archive.stem}"
    podman("import", archive, base, timeout=BUILD_SECONDS)
    return base


def _archive(cache: Path, suite: str) -> Path:
    kind = hashlib.sha256("\n".join((suite, *PACKAGES)).encode()).hexdigest()[:12]
    return cache / "lab" / f"{suite}-{kind}.tar"


def _make_archive(program: str, suite: str, archive: Path) -> None:
    """A minimal root file system of a Debian release, as a tar."""
    with tempfile.TemporaryDirectory(prefix="benchctl-lab-") as scratch:
        root = Path(scratch) / "root"
        fresh = archive.with_suffix(".new")
        for command in (
            [program, "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(root)],
            ["tar", "-C", str(root), "-cf", str(fresh), "."],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            if done.returncode != 0:
                said = (done.stderr.strip() or done.stdout.strip())[-2000:]
                raise LabError(
                    f"The lab's image could not be made: {command[0]} ended with status {done.returncode}: "
                    f"{said.splitlines()[-1] if said else 'it said nothing'}.",
                    "Check the package mirror, or pull the image with a podman that reaches a registry.",
                    said=said,
                )
        fresh.replace(archive)
