"""What this machine has and lacks for each vendor, and how to mend it.

Every check looks, and changes nothing. Values of credentials are never read, only whether a variable is set.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.errors import BenchctlError
from benchctl.extras import extra_mend
from benchctl.request import CLOUDS

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


DISK_BYTES = 3 << 30
"""The quick suite's two models take 0.5 GiB, a build of llama-bench 1 GiB; the rest is room for results."""

MEMORY_BYTES = 2 << 30
"""The quick suite's larger model takes 0.4 GiB, and 16384 tokens of context as much again."""


def examine(home: Home, environment: Mapping[str, str] | None = None) -> list[Finding]:
    """Look at everything; ``environment`` is where credentials are looked for, by default this process's."""
    environment = os.environ if environment is None else environment
    found = list(_local(home))
    found += _ssh()
    engine = _engine(home, environment)
    for name in CLOUDS:
        found += _cloud(name, engine, environment)
    return found


def usable(findings: list[Finding], vendor: str) -> bool:
    """Whether nothing that this vendor needs is missing."""
    return not any(finding.vendor == vendor and finding.state is State.MISSING for finding in findings)


def fix(home: Home, findings: list[Finding], report: Callable[[str], None]) -> list[str]:
    """Mend what benchctl can mend itself: llama-bench, and Pulumi's engine where a vendor's packages are installed.

    Returns:
        The commands that are left to the user.
    """
    from benchctl.clouds import engine_binary
    from benchctl.llama_bench_binary import resolve

    packages = sorted({package for finding in findings for package in finding.packages})
    left = [f"{_as_root()}apt-get install {' '.join(packages)}"] if packages else []
    lacking = any(f.check == "llama-bench" and f.state is not State.OK for f in findings)
    if lacking and not any(f.check == "compiler" and f.state is State.MISSING for f in findings):
        report(resolve(home, report=report).describe())
    rentable = {f.vendor for f in findings if f.check == "sdk" and f.state is State.OK}
    if any(f.check == "pulumi" and f.state is State.MISSING and f.vendor in rentable for f in findings):
        try:
            report(f"Pulumi's engine {engine_binary.install(home.cache, report).describe()}")
        except engine_binary.NoPulumiError as error:
            # what does not need it is ready all the same
            report(str(error))
            left.append("install Pulumi's engine, https://www.pulumi.com/docs/install/")
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


def _engine(home: Home, environment: Mapping[str, str]) -> tuple[bool, str, str]:
    """Pulumi's engine: whether it can be used, what there is, and the mend."""
    from benchctl.clouds import engine_binary

    try:
        return True, engine_binary.find(home.cache, environment).describe(), ""
    except engine_binary.NoPulumiError as error:
        return False, error.problem, error.mend


def _cloud(name: str, engine: tuple[bool, str, str], environment: Mapping[str, str]) -> Iterator[Finding]:
    """What renting takes: Pulumi's engine, the provider's SDK and plugin, the vendor's own client, a login."""
    from benchctl.clouds.cloud import cloud_of
    from benchctl.clouds.ready import MODULES, there

    good, found, mend = engine
    yield _finding(name, "pulumi", good, found, mend)
    sdk, *clients = MODULES[name]
    install = extra_mend(name)
    for check, modules in (("sdk", [sdk]), ("client", clients)):
        lacking = [module for module in modules if not there(module)]
        said = f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed"
        yield _finding(name, check, not lacking, said if lacking else ", ".join(modules), install)
    if there(sdk):
        yield _plugin(name, sdk, environment)
    problem = cloud_of(name).login_problem(environment).removeprefix(f"{name}: ")
    yield _finding(name, "login", not problem, "none, or half of one" if problem else "found", problem)


def _plugin(name: str, sdk: str, environment: Mapping[str, str]) -> Finding:
    """The provider's plugin: on PATH, or fetched by the engine; which it does by itself when first needed."""
    from importlib import metadata

    provider = "benchlab" if name == "lab" else sdk.removeprefix("pulumi_").replace("_", "-")
    program = f"pulumi-resource-{provider}"
    beside = Path(sys.prefix) / "bin" / program
    path = str(beside) if beside.is_file() else shutil.which(program, path=environment.get("PATH", os.defpath))
    if name == "lab":
        return _finding(name, "plugin", path is not None, path or f"no {program}", "Install benchctl again.")
    if path:
        return Finding(name, "plugin", State.OK, path)
    version = metadata.version(sdk.replace("_", "-"))
    own = Path(environment.get("PULUMI_HOME") or Path(environment.get("HOME") or Path.home()) / ".pulumi")
    folder = own / "plugins" / f"resource-{provider}-v{version}"
    if folder.is_dir():
        return Finding(name, "plugin", State.OK, str(folder))
    fetch = f"pulumi plugin install resource {provider} v{version}"
    return Finding(name, "plugin", State.WARNING, "not fetched yet", f"The first sweep fetches it, or: {fetch}")


def _finding(vendor: str, check: str, good: bool, found: str, mend: str, packages: tuple[str, ...] = ()) -> Finding:
    """A check whose failing rules the vendor out."""
    if good:
        return Finding(vendor, check, State.OK, found)
    return Finding(vendor, check, State.MISSING, found, mend, packages)


def _as_root() -> str:
    return "" if os.geteuid() == 0 else "sudo "
