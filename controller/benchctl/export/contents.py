"""What leaves in an export, and what does not: addresses, paths on this machine, and what a sweep was asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from benchctl.db.dictionary import MODELS, Dictionary, describe, table_of
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from benchctl.db.dictionary import Field

WITHHELD_TABLES = {
    "instance": "addresses and identifiers of cloud resources",
    "job_attempt": "what vendors said of one's own account",
}
"""Tables that never leave, and why."""

WITHHELD_COLUMNS = {
    "sweep.request": "what was asked for, with inventories, addresses and paths on one's own machines",
}
"""Columns that never leave, and why. Where a format must have them (SQLite), they are empty."""

REDUCED_COLUMNS = {
    "raw_run.origin": "the last part of the path alone, numbered where several end alike",
    "catalog_source.url": "of a file on one's own machine the name alone",
    "server_history.source": "of a file on one's own machine the name alone",
    "price.source": "of a file on one's own machine the name alone",
    "exchange_rate.source": "of a file on one's own machine the name alone",
}
"""Columns that leave in part."""

SCRUBBED_COLUMNS = {
    "sweep": ("error",),
    "job": ("job_id", "server_id", "api_reference", "error", "host"),
    "job_server": ("job_id",),
    "job_time": ("job_id",),
    "raw_run": ("path", "job_id", "damage"),
    "measurement": ("job_id", "server_id", "reason", "raw_path"),
    "server": ("server_id", "name", "api_reference", "display_name", "description"),
    "benchmark_score": ("server_id", "note"),
}
"""Columns in whose text IP addresses become ``host-1``, ``host-2``, ..., and absolute paths and passwords vanish."""

_ADDRESS = re.compile(
    r"""(?<![0-9A-Za-z.:])(?:
        (?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)  # IPv4
        | (?:[0-9a-fA-F]{1,4}:){3,7}(?::?[0-9a-fA-F]{1,4}|:)                 # IPv6, and addresses of network cards
        | (?:[0-9a-fA-F]{1,4}:){1,6}(?::[0-9a-fA-F]{1,4}){1,6}               # IPv6 with zeros left out
    )(?!\.?[0-9A-Za-z])""",
    re.VERBOSE,
)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_PATH = re.compile(r"(?<![\w.:/~-])(?:/[\w.@+~-]+){2,}/?")


@dataclass(frozen=True)
class Part:
    """One table of the data set.

    Attributes:
        table: what it means.
        fields: the columns that leave.
        places: where these stand among all columns.
    """

    table: Dictionary
    fields: tuple[Field, ...]
    places: tuple[int, ...]

    @property
    def name(self) -> str:
        """The table's name."""
        return self.table.name


def parts(names: Iterable[str]) -> list[Part]:
    """The tables of these names, in an order in which each can be filled; without names all that may leave.

    Raises:
        UsageError: there is none of that name, or it never leaves.
    """
    wanted = list(names)
    for name in wanted:
        table_of(name)
        if name in WITHHELD_TABLES:
            raise UsageError(
                f"The table '{name}' is never exported: it holds {WITHHELD_TABLES[name]}.", "Leave it out."
            )
    return [_part(name) for name in MODELS if name not in WITHHELD_TABLES and (not wanted or name in wanted)]


def withheld(exported: Iterable[Part]) -> list[str]:
    """In sentences: what of these tables, and what besides, did not leave."""
    names = {part.name for part in exported}
    lines = [f"The table `{name}`: {why}." for name, why in WITHHELD_TABLES.items()]
    lines += [f"`{column}`: {why}." for column, why in WITHHELD_COLUMNS.items() if column.split(".")[0] in names]
    lines += [
        f"`{column}` in part: {what}." for column, what in REDUCED_COLUMNS.items() if column.split(".")[0] in names
    ]
    if names & SCRUBBED_COLUMNS.keys():
        lines.append("In names and messages, IP addresses are `host-1`, `host-2`, ..., and paths lack their folders.")
    return lines


class Cleaner:
    """Takes out of rows what must not leave; the same address becomes the same word everywhere."""

    def __init__(self, raw_origins: Iterable[str]) -> None:
        self._hosts: dict[str, str] = {}
        self._origins = _short_names(raw_origins)

    def cleaned(self, part: Part, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """The rows, with the columns that leave."""
        cleaners = [self._cleaner(part.name, field.name) for field in part.fields]
        if not any(cleaners) and len(part.places) == len(part.table.fields):
            yield from rows
            return
        for row in rows:
            yield tuple(
                clean(row[place]) if clean else row[place] for place, clean in zip(part.places, cleaners, strict=True)
            )

    def text(self, value: str) -> str:
        """Words without addresses, passwords and paths."""
        if "/" in value:
            value = _PATH.sub(lambda match: f".../{PurePath(match.group()).name}", _CREDENTIALS.sub("", value))
        return _ADDRESS.sub(self._host, value)

    def _cleaner(self, table: str, column: str) -> Callable[[Any], Any] | None:
        if (table, column) == ("raw_run", "origin"):
            return lambda origin: self._origins.get(origin, PurePath(origin).name)
        if f"{table}.{column}" in REDUCED_COLUMNS:
            return _public_source
        if column in SCRUBBED_COLUMNS.get(table, ()):
            return self._scrubbed
        return None

    def _scrubbed(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._scrubbed(one) for one in value]
        if isinstance(value, dict):
            return {key: self._scrubbed(one) for key, one in value.items()}
        return value

    def _host(self, match: re.Match[str]) -> str:
        return self._hosts.setdefault(match.group(), f"host-{len(self._hosts) + 1}")


@lru_cache(maxsize=1024)
def _public_source(source: str) -> str:
    return PurePath(source).name if source.startswith(("/", "file:")) else _CREDENTIALS.sub("", source)


def _short_names(origins: Iterable[str]) -> dict[str, str]:
    """The last part of each path; the second that ends alike gets a number."""
    short: dict[str, str] = {}
    for origin in sorted(origins):
        name, number = PurePath(origin).name or "root", 1
        while (f"{name}-{number}" if number > 1 else name) in short.values():
            number += 1
        short[origin] = f"{name}-{number}" if number > 1 else name
    return short


def _part(name: str) -> Part:
    table = describe(name)
    kept = [
        (place, field) for place, field in enumerate(table.fields) if f"{name}.{field.name}" not in WITHHELD_COLUMNS
    ]
    return Part(table, tuple(field for _, field in kept), tuple(place for place, _ in kept))
