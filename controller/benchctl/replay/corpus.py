"""Finds recorded runs: below a folder, or in a tar archive, which is read as a stream and never unpacked."""

from __future__ import annotations

import fnmatch
import re
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FILES = ("meta.json", "stdout", "stderr")

MAX_FILE_BYTES = 16 * 1024**2
"""A file of one run has some 50 KiB; what is larger than this is no such file and is left out."""

_MEMBER = re.compile(r"(?:^|/)([A-Za-z0-9_-]{1,64})/([A-Za-z0-9._-]{1,128})/llm/(meta\.json|stdout|stderr)$")


@dataclass(frozen=True)
class RawRun:
    """The files of one run, unread.

    Attributes:
        vendor: from the folder's name.
        server: from the folder's name.
        texts: by file name; a file that is not there is missing.
    """

    vendor: str
    server: str
    texts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """Which runs to read.

    Attributes:
        vendor: only this vendor; empty for all.
        servers: patterns of server names, as ``m5.*``; empty for all.
    """

    vendor: str = ""
    servers: Sequence[str] = ()

    def __contains__(self, name: tuple[str, str]) -> bool:
        """Whether (vendor, server) is one."""
        vendor, server = name
        if self.vendor and vendor != self.vendor:
            return False
        return not self.servers or any(fnmatch.fnmatchcase(server, pattern) for pattern in self.servers)


def raw_runs(path: Path, wanted: Wanted | None = None) -> Iterator[RawRun]:
    """The runs of a folder (sorted by name) or of a tar archive, compressed or not (in its order).

    Raises:
        UsageError: there is no such path, or it is neither.
    """
    wanted = wanted or Wanted()
    if path.is_dir():
        yield from _of_folder(path, wanted)
    elif path.is_file():
        yield from _of_archive(path, wanted)
    else:
        raise UsageError(f"There is no {path}.", "Give a folder of recorded runs, or a tar archive of one.")


def _of_folder(path: Path, wanted: Wanted) -> Iterator[RawRun]:
    metas = [path / "meta.json"] if (path / "meta.json").is_file() else sorted(path.glob("**/llm/meta.json"))
    for meta in metas:
        server = meta.parent.parent
        if (server.parent.name, server.name) not in wanted:
            continue
        texts = {}
        for name in FILES:
            file = meta.parent / name
            if file.is_file() and file.stat().st_size <= MAX_FILE_BYTES:
                texts[name] = file.read_text(errors="replace")
        yield RawRun(server.parent.name, server.name, texts)


def _of_archive(path: Path, wanted: Wanted) -> Iterator[RawRun]:
    run: RawRun | None = None
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                match = _MEMBER.search(member.name)
                if match is None or not member.isreg() or member.size > MAX_FILE_BYTES:
                    continue
                vendor, server, name = match.groups()
                if (vendor, server) not in wanted:
                    continue
                if run is None or (run.vendor, run.server) != (vendor, server):
                    if run is not None and "meta.json" in run.texts:
                        yield run
                    run = RawRun(vendor, server)
                stream = archive.extractfile(member)
                if stream is not None:
                    run.texts[name] = stream.read().decode(errors="replace")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UsageError(
            f"{path} can't be read as a tar archive: {error}.", "Give a folder, or a .tar or .tar.xz."
        ) from error
    if run is not None and "meta.json" in run.texts:
        yield run
