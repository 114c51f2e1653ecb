"""The errors that a user sees, and the exit status that each one means.

::

    BenchctlError            1  something went wrong: one sentence, and the mend
    ├── UsageError           2  the command or a file given to it is wrong
    │   └── SettingsFileError    ... and here are file, key and line
    ├── DatabaseError        1  the database can't be opened, or is newer than this benchctl
    ├── PlaybookError        1  Ansible could not be run, or a task failed
    ├── SweepBusyError       1  another sweep holds what this one needs
    └── JobsFailedError      3  the sweep ended, but some jobs failed

:func:`benchctl.cli.main` is the one place that turns them into text and an exit status.
"""

from __future__ import annotations

INTERRUPTED = 130
"""Exit status of what its user ended, as shells give it for Ctrl-C: 128 and the signal's number."""


class BenchctlError(Exception):
    """What went wrong, as one sentence, and what mends it."""

    exit_code = 1

    def __init__(self, problem: str, mend: str = "") -> None:
        super().__init__(f"{problem} {mend}".strip())
        self.problem = problem
        self.mend = mend


def told(error: Exception) -> str:
    """What a person is told of an error that ends one job, and not the command."""
    return str(error) if isinstance(error, BenchctlError) else f"unexpected {type(error).__name__}: {error}"


class UsageError(BenchctlError):
    """The command line, or a file named on it, asks for something that is not there or not possible."""

    exit_code = 2


class SettingsFileError(UsageError):
    """A YAML file of settings is wrong; the sentence names file, key and line."""

    def __init__(self, path: str, key: str, line: int | None, problem: str, mend: str = "") -> None:
        place = f"{path}:{line}" if line else path
        super().__init__(f"{place}: {key + ': ' if key else ''}{problem}", mend)
        self.path, self.key, self.line = path, key, line


class DatabaseError(BenchctlError):
    """The database can't be opened, read or written."""


class PlaybookError(BenchctlError):
    """Ansible could not be started, or ended with a failure that is not a job's."""


class SweepBusyError(BenchctlError):
    """Another sweep holds the machine or the state that this one needs."""


class JobsFailedError(BenchctlError):
    """The sweep ended, but some of its jobs failed."""

    exit_code = 3
