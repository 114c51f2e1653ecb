"""Podman as the lab calls it: what it refuses becomes one sentence, and where its defaults don't work others are tried.

Where a container can't be started with podman's own settings (no systemd, control groups of the first version, a
machine that may not raise limits), the settings in ``containers.conf`` beside this file are tried: runc and plain
cgroupfs. What worked is noted in the cache, so that it is found out once. Who sets ``CONTAINERS_CONF`` has the last
word.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.errors import BenchctlError
from benchctl.home import Home

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTINGS = Path(__file__).with_name("containers.conf")
VARIABLE = "CONTAINERS_CONF"
CALL_SECONDS = 300.0
"""How long one call of podman may take; a build of an image may take longer and says so itself."""

_NO_RUNTIME = ("rlimit", "oci runtime", "oci permission", "crun", "cgroup", "systemd", "runc: ")


class LabError(BenchctlError):
    """Podman is not there, or refuses.

    Attributes:
        said: podman's own words.
        own: whether it was called with the settings that ship with benchctl.
    """

    def __init__(self, problem: str, mend: str = "", *, said: str = "", own: bool = False) -> None:
        super().__init__(problem, mend)
        self.said, self.own = said or problem, own


def podman(*arguments: str | Path, check: bool = True, timeout: float = CALL_SECONDS) -> str:
    """Run podman; returns what it printed, without the last newline.

    Args:
        arguments: never a secret: everybody on the machine can read them.
        check: raise when it fails; otherwise what it printed until then is returned.
        timeout: seconds.

    Raises:
        LabError: it is not there, fails, or hangs.
    """
    words = [str(one) for one in arguments]
    name = " ".join(words[:2])
    own = _own()
    try:
        done = subprocess.run(
            ["podman", *words],
            env=_environment(own),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise LabError(
            f"podman can't be started: {error.strerror}.", "Install it: the lab's servers are containers."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"podman {name} did not end within {timeout:g} s.", "Look at 'podman ps' by hand.") from error
    if check and done.returncode != 0:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        raise LabError(f"podman {name} failed: {said.splitlines()[-1]}.", said=said, own=own)
    return done.stdout.rstrip("\n")


def problem(environment: Mapping[str, str]) -> str:
    """Why no lab can be made on this machine, and what to do, as one sentence; empty when nothing is missing."""
    if shutil.which("podman", path=environment.get("PATH")) is None:
        return "The lab's servers are containers, and podman is not installed: apt-get install podman."
    return ""


def with_own_settings(error: LabError) -> bool:
    """Whether to try again: the machine's settings could not run a container, and those that ship with benchctl may.

    They are then used by this and later calls. Another call may have noted them while this one failed without them.
    """
    refused = any(word in error.said.lower() for word in _NO_RUNTIME)
    if not refused or os.environ.get(VARIABLE) or shutil.which("runc") is None or error.own:
        return False
    _noted().parent.mkdir(parents=True, exist_ok=True)
    _noted().touch()
    return True


def _own() -> bool:
    """Whether the settings that ship with benchctl are used now."""
    return not os.environ.get(VARIABLE) and _noted().exists()


def _environment(own: bool) -> dict[str, str]:
    return {**os.environ, VARIABLE: str(SETTINGS)} if own else dict(os.environ)


def _noted() -> Path:
    return Home.at().cache / "lab" / "own-settings"
