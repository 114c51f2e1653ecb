"""Which recorded runs to replay: those below a folder or in a tar archive that fit what is wanted."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchctl import rawfiles
from benchctl.lake import META, STDERR, STDOUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FILES = (META, STDOUT, STDERR)


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

    A file that can't be read, or is larger than a raw file can be, is missing from its run.

    Raises:
        UsageError: there is no such path, or it is neither.
        ArchiveError: the archive breaks off.
    """
    wanted = wanted or Wanted()
    for files in rawfiles.runs_in(path):
        vendor, server = files.names
        if (vendor, server) in wanted:
            texts = {name: text for name in FILES if (text := _text(files, name)) is not None}
            if META in texts:
                yield RawRun(vendor, server, texts)


def _text(files: rawfiles.RunFiles, name: str) -> str | None:
    try:
        content = files.read(name)
    except (OSError, ValueError):
        return None
    return None if content is None else content.decode(errors="replace")
