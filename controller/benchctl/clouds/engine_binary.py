"""Which Pulumi engine drives the vendors' programs: the ``pulumi`` command, a Go program that pip can't install.

In this order: the one on PATH; the one where Pulumi's own installer puts it; one that ``benchctl doctor --fix`` put
into benchctl's cache. One that is too old for the Python SDK is passed over, and said so when there is no other.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.errors import BenchctlError
from benchctl.extras import extra_mend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MINIMUM = (3, 181, 0)
"""The oldest engine that destroys and refreshes a stack of an inline program (``--client``), as the SDK says."""

CONNECT_SECONDS = 30.0
"""How long the host of Pulumi's installer may be silent."""

MEND = "'benchctl doctor --fix' installs it, or see https://www.pulumi.com/docs/install/."


class NoPulumiError(BenchctlError):
    """There is no Pulumi engine that can be used, or none could be installed."""


@dataclass(frozen=True)
class PulumiEngine:
    """A ``pulumi`` that was found and answered.

    Attributes:
        path: absolute.
        version: as ``(3, 200, 0)``.
    """

    path: Path
    version: tuple[int, int, int]

    @property
    def version_text(self) -> str:
        """As ``3.200.0``."""
        return ".".join(map(str, self.version))

    def describe(self) -> str:
        """One line for a person, as ``3.200.0, /usr/bin/pulumi``."""
        return f"{self.version_text}, {self.path}"


def find(cache: Path, environment: Mapping[str, str] | None = None) -> PulumiEngine:
    """The engine to use.

    Args:
        cache: benchctl's cache.
        environment: where PATH, HOME and PULUMI_HOME are looked up; by default this process's.

    Raises:
        NoPulumiError: there is none, or none that is new enough.
    """
    environment = os.environ if environment is None else environment
    unfit: list[str] = []
    for path in _candidates(cache, environment):
        try:
            version = _version(path, path.stat().st_mtime_ns)
        except NoPulumiError as error:
            unfit.append(error.problem)
            continue
        if version[0] != MINIMUM[0] or version < MINIMUM:
            wanted = f"{'.'.join(map(str, MINIMUM))} or newer (but {MINIMUM[0]}.x) is needed"
            unfit.append(f"Pulumi's engine {path} is version {'.'.join(map(str, version))}; {wanted}.")
            continue
        return PulumiEngine(path, version)
    raise NoPulumiError(unfit[0] if unfit else "Pulumi's engine (the command 'pulumi') is not on this machine.", MEND)


def install(cache: Path, report: Callable[[str], None]) -> PulumiEngine:
    """Install the engine into benchctl's cache by Pulumi's own way, in the version that fits the Python SDK.

    Raises:
        NoPulumiError: the SDK is not installed, or the installer could not download it.
    """
    try:
        from pulumi import automation
        from pulumi._version import version
    except ImportError as error:
        raise NoPulumiError(
            "Pulumi's Python SDK is not installed.", f"It comes with a vendor. {extra_mend('hetzner')}"
        ) from error
    root = cache / "pulumi" / f"v{version}"
    root.parent.mkdir(parents=True, exist_ok=True)
    report(f"Installing Pulumi's engine {version} into {root}, about 100 MB to download.")
    patience = socket.getdefaulttimeout()
    try:
        # the SDK fetches the installer without one
        socket.setdefaulttimeout(CONNECT_SECONDS)
        automation.PulumiCommand.install(root=str(root), version=version)
    except subprocess.CalledProcessError as error:
        said = (error.output or b"").decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"its installer ended with status {error.returncode}"
        raise NoPulumiError(f"Pulumi's engine could not be installed: {why}.".replace("..", "."), _by_hand()) from error
    except OSError as error:  # URLError is one: no network, no certificate, a proxy that refuses
        why = getattr(error, "reason", error)
        said = getattr(why, "strerror", None) or why
        raise NoPulumiError(f"Pulumi's installer could not be fetched: {said}.", _by_hand()) from error
    finally:
        socket.setdefaulttimeout(patience)
    return find(cache, {"PATH": str(root / "bin"), "HOME": os.devnull})


def _by_hand() -> str:
    return "Is there a network, and a proxy to be set (HTTPS_PROXY)? By hand: https://www.pulumi.com/docs/install/."


def _candidates(cache: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Where an engine may be, the first to be taken first."""
    on_path = shutil.which("pulumi", path=environment.get("PATH", os.defpath))
    if on_path:
        yield Path(on_path).absolute()
    own = Path(environment.get("PULUMI_HOME") or Path(environment.get("HOME") or Path.home()) / ".pulumi")
    yield from (path for path in [own / "bin" / "pulumi"] if _runs(path))
    for folder in (cache / "pulumi", own / "versions"):
        yield from (path for path in sorted(folder.glob("*/bin/pulumi"), key=_newest, reverse=True) if _runs(path))


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _newest(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", path.parent.parent.name))


@lru_cache(maxsize=16)
def _version(path: Path, changed: int) -> tuple[int, int, int]:  # noqa: ARG001 - a new file is asked again
    """Ask an engine what it is; the answer is kept, because every question starts an 80 MB program."""
    try:
        done = subprocess.run(
            [str(path), "version"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(Path.home()), "PULUMI_SKIP_UPDATE_CHECK": "1"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoPulumiError(f"Pulumi's engine {path} does not run: {error}.") from error
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", done.stdout.strip())
    if done.returncode != 0 or found is None:
        raise NoPulumiError(f"{path} does not say which version of Pulumi's engine it is.")
    return int(found[1]), int(found[2]), int(found[3])
