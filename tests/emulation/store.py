"""What exists in an emulated cloud, and lists that lag behind it, as the real ones do."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = 2
"""Things in a page of a list, however many were asked for: whoever reads one page only is found out."""


_NUMBERS = itertools.count(1001)


@dataclass
class Lag:
    """How lists lag. Both counts and times are lived through before a change shows.

    Attributes:
        appears_after_lists: lists of its kind that do not show a new thing yet.
        appears_after_seconds: for how long lists do not show it.
        lingers_for_lists: lists of its kind that still show a deleted thing.
        lingers_for_seconds: for how long lists still show it.
    """

    appears_after_lists: int = 0
    appears_after_seconds: float = 0.0
    lingers_for_lists: int = 0
    lingers_for_seconds: float = 0.0


@dataclass
class Thing:
    """One resource.

    Attributes:
        kind: as in :class:`benchctl.clouds.spec.Asked`.
        id: by which the API knows it.
        name: its name.
        data: whatever the vendor's module keeps of it.
        made_at: seconds since 1970.
        gone_at: the same, when it was deleted.
        lists: lists of its kind since it was made, or since it was deleted.
    """

    kind: str
    id: str
    name: str
    data: dict[str, Any] = field(default_factory=dict)
    made_at: float = field(default_factory=time.time)
    gone_at: float | None = None
    lists: int = 0


class Store:
    """All resources of one emulated vendor."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.lag = Lag()
        self._things: list[Thing] = []

    @staticmethod
    def number() -> int:
        """A number that nothing else has, at any vendor: what is behind a server is found by it."""
        return next(_NUMBERS)

    def add(self, kind: str, identifier: str, name: str, **data: Any) -> Thing:
        """Something new."""
        with self.lock:
            thing = Thing(kind, identifier, name, data)
            self._things.append(thing)
            return thing

    def get(self, kind: str, identifier: str) -> Thing | None:
        """What exists under an identifier; reads by identifier do not lag."""
        with self.lock:
            return next((one for one in self.alive(kind) if one.id == identifier), None)

    def alive(self, kind: str = "") -> list[Thing]:
        """What exists in truth, oldest first."""
        with self.lock:
            return [one for one in self._things if one.gone_at is None and kind in ("", one.kind)]

    def remove(self, thing: Thing) -> None:
        """Delete it in truth; lists may go on showing it."""
        with self.lock:
            if thing.gone_at is None:
                thing.gone_at, thing.lists = time.time(), 0

    def listed(self, kind: str, wanted: Callable[[Thing], bool] = lambda _: True) -> list[Thing]:
        """What a list shows now; counts as one list."""
        now, shown = time.time(), []
        with self.lock:
            for one in self._things:
                if one.kind != kind:
                    continue
                if self._shows(one, now) and wanted(one):
                    shown.append(one)
                one.lists += 1
        return shown

    def _shows(self, one: Thing, now: float) -> bool:
        lag = self.lag
        if one.gone_at is None:
            return one.lists >= lag.appears_after_lists and now - one.made_at >= lag.appears_after_seconds
        return one.lists < lag.lingers_for_lists or now - one.gone_at < lag.lingers_for_seconds

    def clear(self) -> None:
        """Forget everything."""
        with self.lock:
            self._things.clear()
            self.lag = Lag()
