"""The SSH keys of a sweep: one pair that may log in, and one host key for each instance, made before it exists.

::

    STATE/sweeps/SWEEP/keys/id_ed25519 (.pub)      logs in to all servers of the sweep
    STATE/sweeps/SWEEP/keys/NAME.host (.pub)       what the instance NAME calls itself by

All of it is readable by its owner alone. A host key is known here before the first connection, so that nothing is
trusted on first use.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

from benchctl.clouds.spec import HostKey
from benchctl.errors import BenchctlError

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "keys"
LOGIN = "id_ed25519"

_MAKING = threading.Lock()


def keys_folder(sweep_folder: Path) -> Path:
    """Where a sweep's keys lie."""
    return sweep_folder / FOLDER


def login_key(sweep_folder: Path) -> Path:
    """The private key that may log in; its public half lies beside it with the suffix ``.pub``."""
    return keys_folder(sweep_folder) / LOGIN


def ensure_login_key(sweep_folder: Path) -> str:
    """Make the sweep's pair unless it is there; returns the public key, without a comment.

    Raises:
        BenchctlError: ``ssh-keygen`` is missing, or the folder can't be written.
    """
    return _pair(login_key(sweep_folder))


def ensure_host_key(sweep_folder: Path, name: str) -> HostKey:
    """Make the host key of the instance ``name`` unless it is there.

    Raises:
        BenchctlError: ``ssh-keygen`` is missing, or the folder can't be written.
    """
    path = keys_folder(sweep_folder) / f"{name}.host"
    public = _pair(path)
    return HostKey(public, path.read_text())


def forget_host_key(sweep_folder: Path, name: str) -> None:
    """Remove the private half of a host key, whose instance is gone."""
    (keys_folder(sweep_folder) / f"{name}.host").unlink(missing_ok=True)


def ensure_secret(path: Path) -> str:
    """Make a random secret for its owner alone, unless it is there; returns it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(32))
        # whoever comes first: a second one must not replace what was used already
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_text()


def _pair(path: Path) -> str:
    # Jobs that start together want the sweep's key together, and must not each make one.
    with _MAKING:
        return _made_pair(path)


def _made_pair(path: Path) -> str:
    public = path.with_name(f"{path.name}.pub")
    try:
        if not (path.is_file() and public.is_file()):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if shutil.which("ssh-keygen") is None:
                raise BenchctlError("ssh-keygen is not installed.", "Install the OpenSSH client.")
            # made aside, so that a pair is there whole or not at all
            draft = path.with_name(f"{path.name}.{os.getpid()}.new")
            draft.unlink(missing_ok=True)
            done = subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "benchctl", "-f", str(draft)],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode != 0:
                raise BenchctlError(f"ssh-keygen could not make a key: {' '.join(done.stderr.split())[-200:]}")
            draft.with_name(f"{draft.name}.pub").replace(public)
            draft.replace(path)
        return " ".join(public.read_text().split()[:2])
    except OSError as error:
        raise BenchctlError(
            f"{path} can't be written: {error.strerror}.", "Free some space there, or choose another --state-dir."
        ) from error
