"""Which llama-bench measures this machine.

In this order: the one that the user names; one on PATH; one built or unpacked earlier; one out of a container image;
one built now from the pinned source. Whatever is found is asked for its ``--help`` before it is relied on.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.engine.source import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_bench_core.command import Binary

    from benchctl.home import Home

__all__ = ["EngineError", "Origin", "ResolvedBinary", "resolve"]


class Origin(StrEnum):
    """Where a llama-bench came from."""

    EXPLICIT = "explicit"
    PATH = "path"
    CACHE = "cache"
    CONTAINER = "container"
    BUILD = "build"


@dataclass(frozen=True)
class ResolvedBinary:
    """A llama-bench that was found and answered.

    Attributes:
        path: absolute.
        origin: where it came from.
        binary: what it is and understands.
    """

    path: Path
    origin: Origin
    binary: Binary

    def describe(self) -> str:
        """One line for a person, as ``b11312-0c1e57098 (built here), /root/.cache/...``."""
        name = self.binary.version or "of a version that it does not tell"
        if self.binary.build_commit:
            name = f"b{self.binary.build_number}-{self.binary.build_commit}"
        return f"llama-bench {name} ({_ORIGIN_WORDS[self.origin]}): {self.path}"


_ORIGIN_WORDS = {
    Origin.EXPLICIT: "named on the command line",
    Origin.PATH: "found on PATH",
    Origin.CACHE: "from the cache",
    Origin.CONTAINER: "out of a container image",
    Origin.BUILD: "built here",
}


def resolve(
    home: Home,
    explicit: str | Path | None = None,
    *,
    report: Callable[[str], None],
    allow_build: bool = True,
    alone: bool = False,
) -> ResolvedBinary:
    """The llama-bench to measure with, made if need be.

    Args:
        home: whose cache is used.
        explicit: the path that the user gave, which then is the only one tried.
        report: takes one line for a person.
        allow_build: whether to pull an image or build; without it only what is there already is taken.
        alone: only one that is a single file without libraries of its own, fit to be copied to other machines: our
            own static build.

    Raises:
        NotLlamaBenchError: the explicit one is no llama-bench.
        EngineError: none is there, and none can be made.
    """
    from benchctl.engine import build, image

    if explicit is not None:
        return _checked(Path(explicit).expanduser().absolute(), Origin.EXPLICIT)
    wanted_image = "" if alone else image.image_name()
    found = (
        _usable(None if alone else shutil.which("llama-bench"), Origin.PATH, report)
        or _usable(build.cached(home.cache), Origin.CACHE, report)
        or _usable(image.cached(home.cache, wanted_image), Origin.CACHE, report)
    )
    if found is not None:
        return found
    if not allow_build:
        raise EngineError(
            "There is no llama-bench on this machine yet.",
            "'benchctl doctor --fix' builds one; or name one with --llama-bench PATH.",
        )
    home.ensure()
    taken = _usable(image.extract(home.cache, wanted_image, report), Origin.CONTAINER, report)
    if taken is not None:
        return taken
    from benchctl.engine.progress import Steps

    return _checked(build.build(home.cache, report, Steps(sys.stderr, report)), Origin.BUILD)


def _checked(path: Path, origin: Origin) -> ResolvedBinary:
    """Ask a binary what it is; refuses what is no llama-bench."""
    from llama_bench_core import command, programs

    return ResolvedBinary(path, origin, command.probe(str(path), programs.run))


def _usable(path: str | Path | None, origin: Origin, report: Callable[[str], None]) -> ResolvedBinary | None:
    """A candidate, if it is there and is a llama-bench; else says why it is passed over."""
    from llama_bench_core.command import NotLlamaBenchError

    if path is None:
        return None
    try:
        return _checked(Path(path).absolute(), origin)
    except NotLlamaBenchError as error:
        report(f"Passing over {path}: {error.problem}")
        return None
