"""The lab's images, made from Debian's packages alone: no image is pulled from anywhere."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lab.podman import HERE, podman

PACKAGES = ("ca-certificates", "iproute2", "openssh-server", "procps", "python3", "python3-apt", "sudo")

SUITES = {"3.9": "bullseye", "3.11": "bookworm", "3.13": "trixie"}
"""Debian's release by the version of its ``/usr/bin/python3``: the lowest and highest of targets, and one."""


def root_archive(cache: Path, suite: str) -> Path:
    """A minimal root file system of a Debian release, as a tar; made once, by debootstrap, and kept in the cache."""
    kind = hashlib.sha256("\n".join((suite, *PACKAGES)).encode()).hexdigest()[:12]
    archive = cache / "lab" / f"{suite}-{kind}.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (archive.parent / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.is_file():
            with tempfile.TemporaryDirectory(prefix="benchctl-lab-") as scratch:
                root = Path(scratch) / "root"
                _debootstrap(suite, root)
                fresh = archive.with_suffix(".new")
                subprocess.run(["tar", "-C", root, "-cf", fresh, "."], check=True)
                fresh.replace(archive)
    return archive


def host_image(cache: Path, suite: str) -> str:
    """The image of an SSH host of a Debian release; built unless podman has it."""
    archive = root_archive(cache, suite)
    recipe = "".join((HERE / name).read_text() for name in ("Containerfile.host", "sshd.conf"))
    kind = hashlib.sha256(f"{archive.name}\n{recipe}".encode()).hexdigest()[:12]
    image = f"localhost/benchctl-lab/host:{suite}-{kind}"
    with (cache / "lab" / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if image not in podman("images", "--format", "{{.Repository}}:{{.Tag}}").split():
            podman("import", archive, f"localhost/benchctl-lab/root:{suite}")
            podman("build", "--build-arg", f"SUITE={suite}", "-f", HERE / "Containerfile.host", "-t", image, HERE)
    return image


def _debootstrap(suite: str, root: Path) -> None:
    program = shutil.which("debootstrap", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        raise RuntimeError("debootstrap is not installed; ./script/test installs it")
    command = [program, "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
