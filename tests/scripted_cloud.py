"""A cloud that is told how to behave: a fake of :class:`benchctl.clouds.cloud.Client`, in this process.

It keeps what it is given in a dictionary, and lags, lies and fails as the test says. No vendor's API is behind it: the
emulations of those are in ``tests/emulation``.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from benchctl.clouds.cloud import CloudError
from benchctl.clouds.spec import Resource, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchctl.refusals import Refusal


class ScriptedClient:
    """One vendor's API.

    Attributes:
        things: what exists, by kind and id.
        calls: every call, in order: ``("find", "")`` or ``("delete", name)``.
    """

    def __init__(self, things: Iterable[Resource] = ()) -> None:
        """Everything works, at once, until something else is said."""
        self.things = {(one.kind, one.id): one for one in things}
        self.calls: list[tuple[str, str]] = []
        self.find_problems: list[CloudError] = []
        self.delete_problems: dict[str, list[CloudError | None]] = {}
        self.lies: dict[str, int] = {}
        self.lag: dict[str, int] = {}  # how often a thing that is gone is listed still
        self.late: list[tuple[int, Resource]] = []  # (number of lists before it shows, thing)
        self.needs: dict[str, str] = {}  # a name that can't go while the other is there
        self.hangs: dict[str, threading.Event] = {}  # a name whose delete waits for the event
        self.before_find: Callable[[], None] = lambda: None
        self._ghosts: dict[tuple[str, str], Resource] = {}
        self._mutex = threading.Lock()

    def whoami(self) -> str:
        return "the tests"

    def find(self) -> list[Resource]:
        self.before_find()
        with self._mutex:
            self.calls.append(("find", ""))
            if self.find_problems:
                raise self.find_problems.pop(0)
            for number, thing in list(self.late):
                if self.calls.count(("find", "")) > number:
                    self.late.remove((number, thing))
                    self.things[thing.kind, thing.id] = thing
            ghosts = []
            for key, thing in list(self._ghosts.items()):
                left = self.lag.get(thing.name, 0)
                self.lag[thing.name] = left - 1
                if left > 0:
                    ghosts.append(thing)
                else:
                    del self._ghosts[key]
            return [*self.things.values(), *ghosts]

    def delete(self, resource: Resource) -> None:
        if resource.name in self.hangs:
            self.hangs[resource.name].wait(60)
        with self._mutex:
            self.calls.append(("delete", resource.name))
            problems = self.delete_problems.get(resource.name)
            problem = problems.pop(0) if problems else None
            if problem is not None:
                raise problem
            if self.needs.get(resource.name) in {one.name for one in self.things.values()}:
                raise CloudError(f"{resource.name} is in use (resource_in_use)")
            if self.lies.get(resource.name, 0):
                self.lies[resource.name] -= 1
                return
            gone = self.things.pop((resource.kind, resource.id), None)
            if gone is not None and resource.name in self.lag:
                self._ghosts[resource.kind, resource.id] = gone

    @property
    def deleted(self) -> list[str]:
        """Names in the order in which their end was asked for."""
        return [name for call, name in self.calls if call == "delete"]

    @property
    def looks(self) -> int:
        """How often it was listed."""
        return sum(1 for call, _ in self.calls if call == "find")


def thing(
    name: str,
    sweep: str = "",
    job: str = "",
    *,
    expires_at: int | None = None,
    kind: str = "server",
    vendor: str = "hetzner",
    **more: object,
) -> Resource:
    """One thing with our labels, as a vendor's client would list it."""
    labels = labels_of(sweep, job, expires_at or 0) if sweep else {}
    return replace(
        Resource(vendor, kind, f"id-{kind}-{name}", name),
        sweep=labels.get("benchctl-sweep", ""),
        job=labels.get("benchctl-job", ""),
        expires_at=expires_at,
        **more,
    )


def refused(words: str, refusal: Refusal | None = None) -> CloudError:
    """What a vendor says no with."""
    return CloudError(f"The vendor said: {words}.", refusal=refusal, said=words)
