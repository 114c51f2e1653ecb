"""Where everything of one user lives: one state directory, one cache, one database."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from benchctl.errors import BenchctlError

_RELATIVE_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///(?:file:)?)(?!/|:memory:|file:)([^/?][^?]*)(.*)", re.DOTALL)


def _absolute(url: str) -> str:
    """A database's URL that means the same in every folder: a detached sweep runs in another."""
    found = _RELATIVE_SQLITE.fullmatch(url)
    return f"{found[1]}{Path.cwd() / found[2]}{found[3]}" if found else url


@dataclass(frozen=True)
class Home:
    """The directories of one benchctl installation's user.

    Attributes:
        state: sweeps, ledger, lake and (by default) the database.
        cache: what can be fetched or built again: models, llama-bench.
        database_url: SQLAlchemy URL.
    """

    state: Path
    cache: Path
    database_url: str

    @classmethod
    def at(cls, state_dir: str | None = None, database: str | None = None) -> Home:
        """The home at ``state_dir`` or, by default, in the XDG directories; nothing is created yet."""
        import platformdirs

        state = Path(state_dir).expanduser().absolute() if state_dir else Path(platformdirs.user_data_dir("benchctl"))
        cache = (
            Path(os.environ.get("BENCHCTL_CACHE") or platformdirs.user_cache_dir("benchctl")).expanduser().absolute()
        )
        if not database:
            url = f"sqlite:///{state / 'benchctl.db'}"
        elif "://" in database:
            url = _absolute(database)
        else:
            url = f"sqlite:///{Path(database).expanduser().absolute()}"
        return cls(state=state, cache=cache, database_url=url)

    @property
    def lake(self) -> Path:
        """The raw results, as they came."""
        return self.state / "lake"

    @property
    def sweeps(self) -> Path:
        """One folder per sweep: its request, its jobs, the runs of Ansible."""
        return self.state / "sweeps"

    def ensure(self) -> Home:
        """Create the directories; a read-only place is one clear error."""
        for folder in (self.state, self.cache, self.lake, self.sweeps):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BenchctlError(
                    f"The directory {folder} can't be written: {error.strerror}.",
                    "Choose another with --state-dir or BENCHCTL_HOME (cache: BENCHCTL_CACHE).",
                ) from error
        if not os.access(self.state, os.W_OK):
            raise BenchctlError(
                f"The state directory {self.state} is read-only.", "Choose another with --state-dir or BENCHCTL_HOME."
            )
        return self
