"""What this machine has and lacks for each vendor, and how to mend it.

Every check looks, and changes nothing. Values of credentials are never read, only whether a variable is set.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.errors import BenchctlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchctl.home import Home


class State(StrEnum):
    """What a check found."""

    OK = "ok"
    MISSING = "missing"
    """Without it this vendor can't be used."""
    WARNING = "warning"
    """It works without, but less well."""


@dataclass(frozen=True)
class Finding:
    """The answer of one check.

    Attributes:
        vendor: what needs it: ``local``, ``ssh``, or a cloud.
        check: what was looked for.
        state: whether it is there.
        found: what there is, one phrase.
        mend: what to do; empty when all is well.
        packages: Debian packages that would mend it.
    """

    vendor: str
    check: str
    state: State
    found: str
    mend: str = ""
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cloud:
    """What a cloud vendor takes.

    Attributes:
        sdk: the Python module of its Pulumi provider.
        logins: the sets of environment variables, each of which is a login.
        or_else: another way to log in, in words; empty for none.
        or_else_file: where that other way leaves its mark, below the home directory.
    """

    sdk: str
    logins: tuple[tuple[str, ...], ...]
    or_else: str = ""
    or_else_file: str = ""


# What the vendors' Pulumi providers read, as their documentation lists it.
CLOUDS: Mapping[str, Cloud] = {
    "aws": Cloud(
        "pulumi_aws",
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_PROFILE",)),
        "'aws configure'",
        ".aws/credentials",
    ),
    "gcp": Cloud(
        "pulumi_gcp",
        (("GOOGLE_CREDENTIALS",), ("GOOGLE_APPLICATION_CREDENTIALS",)),
        "'gcloud auth application-default login'",
        ".config/gcloud/application_default_credentials.json",
    ),
    "azure": Cloud(
        "pulumi_azure_native",
        (("ARM_CLIENT_ID", "ARM_CLIENT_SECRET", "ARM_TENANT_ID", "ARM_SUBSCRIPTION_ID"),),
        "'az login'",
        ".azure/azureProfile.json",
    ),
    "hetzner": Cloud("pulumi_hcloud", (("HCLOUD_TOKEN",),)),
    "upcloud": Cloud("pulumi_upcloud", (("UPCLOUD_TOKEN",), ("UPCLOUD_USERNAME", "UPCLOUD_PASSWORD"))),
}

DISK_BYTES = 3 << 30
"""The quick suite's two models take 0.5 GiB, a build of llama-bench 1 GiB; the rest is room for results."""

MEMORY_BYTES = 2 << 30
"""The quick suite's larger model takes 0.4 GiB, and 16384 tokens of context as much again."""


def examine(home: Home, environment: Mapping[str, str] | None = None) -> list[Finding]:
    """Look at everything; ``environment`` is where credentials are looked for, by default this process's."""
    environment = os.environ if environment is None else environment
    found = list(_local(home))
    found += _ssh()
    engine = shutil.which("pulumi")
    for name, cloud in CLOUDS.items():
        found += _cloud(name, cloud, engine, environment)
    return found


def usable(findings: list[Finding], vendor: str) -> bool:
    """Whether nothing that this vendor needs is missing."""
    return not any(finding.vendor == vendor and finding.state is State.MISSING for finding in findings)


def fix(home: Home, findings: list[Finding], report: Callable[[str], None]) -> list[str]:
    """Mend what benchctl can mend itself, which is llama-bench; returns the commands that are left to the user."""
    from benchctl.llama_bench_binary import resolve

    packages = sorted({package for finding in findings for package in finding.packages})
    left = [f"{_as_root()}apt-get install {' '.join(packages)}"] if packages else []
    lacking = any(f.check == "llama-bench" and f.state is not State.OK for f in findings)
    if lacking and not any(f.check == "compiler" and f.state is State.MISSING for f in findings):
        report(resolve(home, report=report).describe())
    return left


def _local(home: Home) -> Iterator[Finding]:
    """What measuring this very machine takes."""
    yield Finding("local", "python", State.OK, platform.python_version())
    yield _ansible("local")
    yield from _llama_bench(home)
    yield _disk("state", home.state, 64 << 20)
    yield _disk("cache", home.cache, DISK_BYTES)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding(
        "local",
        "memory",
        State.OK if total >= MEMORY_BYTES else State.WARNING,
        f"{total / 2**30:.1f} GiB",
        "" if total >= MEMORY_BYTES else "Models that don't fit are left out, and said so.",
    )


def _ansible(vendor: str) -> Finding:
    """ansible-playbook, beside this Python first: under pipx and uv tool it is not on PATH."""
    beside = Path(sys.prefix) / "bin" / "ansible-playbook"
    path = str(beside) if beside.is_file() else shutil.which("ansible-playbook")
    mend = "Install benchctl again; ansible-core comes with it."
    return _finding(vendor, "ansible-playbook", path is not None, path or "not found", mend)


def _llama_bench(home: Home) -> Iterator[Finding]:
    """A llama-bench, or else what building one takes."""
    from benchctl.engine import tools
    from benchctl.llama_bench_binary import resolve

    remarks: list[str] = []
    try:
        there = resolve(home, report=remarks.append, allow_build=False)
    except BenchctlError:
        pass
    else:
        yield Finding("local", "llama-bench", State.OK, there.describe().removeprefix("llama-bench "))
        return
    compiler = tools.compiler()
    yield Finding(
        "local",
        "llama-bench",
        State.WARNING if compiler else State.MISSING,
        "; ".join(remarks) or "none yet",
        "'benchctl doctor --fix' or the first sweep builds it, in a few minutes."
        if compiler
        else "Install a compiler, or name a llama-bench with --llama-bench PATH.",
    )
    yield Finding(
        "local",
        "compiler",
        State.OK if compiler else State.MISSING,
        compiler or "no C++ compiler on PATH",
        "" if compiler else f"{_as_root()}apt-get install g++",
        () if compiler else ("g++",),
    )
    for name, path, package in (
        ("cmake", tools.system_cmake(), "cmake"),
        ("ninja", tools.system_ninja(), "ninja-build"),
    ):
        yield Finding(
            "local",
            name,
            State.OK if path else State.WARNING,
            path or "not found, or too old; the build fetches it from PyPI",
            "" if path else f"{_as_root()}apt-get install {package}",
            () if path else (package,),
        )


def _disk(name: str, folder: Path, wanted_bytes: int) -> Finding:
    """Room, and the right to write, on the file system that a folder is or will be on."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    variable = "BENCHCTL_HOME" if name == "state" else "BENCHCTL_CACHE"
    if not os.access(existing, os.W_OK):
        return Finding("local", name, State.MISSING, f"{existing} is read-only", f"Set {variable} to another place.")
    state = State.OK if free >= wanted_bytes else State.WARNING
    mend = "" if state is State.OK else f"Make room, or set {variable} to another place."
    return Finding("local", name, state, f"{folder}, {free / 2**30:.1f} GiB free", mend)


def _ssh() -> Iterator[Finding]:
    """What measuring one's own servers takes."""
    yield _ansible("ssh")
    for program in ("ssh", "ssh-keygen"):
        path = shutil.which(program)
        mend = f"{_as_root()}apt-get install openssh-client"
        yield _finding("ssh", program, path is not None, path or "not found", mend, ("openssh-client",))


def _cloud(name: str, cloud: Cloud, engine: str | None, environment: Mapping[str, str]) -> Iterator[Finding]:
    """What renting servers of a cloud takes: Pulumi's engine, the provider's SDK, a login."""
    yield _finding(
        name,
        "pulumi",
        engine is not None,
        engine or "not on PATH",
        "Install Pulumi's engine: https://www.pulumi.com/docs/install/",
    )
    there = importlib.util.find_spec(cloud.sdk) is not None
    yield _finding(
        name,
        "sdk",
        there,
        cloud.sdk if there else f"{cloud.sdk} is not installed",
        f"pip install 'benchctl[{name}]'",
    )
    login = next((names for names in cloud.logins if all(environment.get(variable) for variable in names)), None)
    elsewhere = bool(cloud.or_else_file) and (Path.home() / cloud.or_else_file).is_file()
    ways = [" and ".join(names) for names in cloud.logins] + ([f"use {cloud.or_else}"] if cloud.or_else else [])
    found = f"{' and '.join(login)} set" if login else f"~/{cloud.or_else_file}" if elsewhere else "none found"
    yield _finding(name, "login", bool(login or elsewhere), found, f"Set {', or '.join(ways)}.")


def _finding(vendor: str, check: str, good: bool, found: str, mend: str, packages: tuple[str, ...] = ()) -> Finding:
    """A check whose failing rules the vendor out."""
    if good:
        return Finding(vendor, check, State.OK, found)
    return Finding(vendor, check, State.MISSING, found, mend, packages)


def _as_root() -> str:
    return "" if os.geteuid() == 0 else "sudo "
