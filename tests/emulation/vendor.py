"""What one emulated vendor is: what the engine's provider asks of it, and the API that its own client calls."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from emulation.faults import OUTAGE
from emulation.refusals import Refused
from emulation.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from emulation.store import Thing
    from emulation.world import World


@dataclass(frozen=True)
class Request:
    """One HTTP request to a vendor's API.

    Attributes:
        method: ``GET``, ``POST``, ...
        path: below ``/VENDOR``, with a slash in front.
        query: the last value of each parameter.
        headers: names in lower case.
        body: raw.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""

    def json(self) -> Any:
        """The body as JSON; nothing when there is none."""
        return json.loads(self.body) if self.body else None

    @classmethod
    def of(cls, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Request:
        """Read a request's line."""
        parts = urlsplit(target)
        query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        return cls(method, parts.path, query, headers, body)


@dataclass(frozen=True)
class Response:
    """One HTTP answer: JSON, unless a body of another type is given."""

    status: int = 200
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


class Vendor:
    """One emulated vendor. Subclasses say what it sells and how it speaks.

    Attributes:
        name: as the command line calls it; its API lies below ``/NAME`` of the world.
        package: of Pulumi's plugin: ``pulumi-resource-PACKAGE``.
    """

    name = ""
    package = ""

    def __init__(self, world: World) -> None:
        self.world, self.store = world, Store()

    def start(self) -> None:
        """Start what else it needs (another server)."""

    def close(self) -> None:
        """End it again."""

    def variables(self, url: str, folder: Path) -> dict[str, str]:
        """The environment that points our programs and clients here, login included.

        Args:
            url: where this vendor's API is.
            folder: where files of a login may be written.
        """
        raise NotImplementedError

    # -- what the engine's provider asks ------------------------------------------------------------------------------

    def configure(self, settings: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """Log in, as the vendor's provider does at its start; ``environment`` is the plugin's.

        Nothing is kept: many plugins run at once, and ``world.login`` has both in every later call.

        Raises:
            Refused: it can't.
        """

    def kind_of(self, token: str) -> str:
        """The kind, in the words of all vendors, of a Pulumi type."""
        raise NotImplementedError

    def place(self, token: str, inputs: Mapping[str, Any]) -> str:  # noqa: ARG002
        """The zone, or region, that inputs or state name; for faults in one place."""
        return str(inputs.get("zone") or inputs.get("location") or inputs.get("region") or "")

    def calls_from(self) -> str:
        """The region in which the provider that calls works, where the API is one per region."""
        return ""

    def name_of(self, token: str, inputs: Mapping[str, Any]) -> str:  # noqa: ARG002
        """The name in the cloud that inputs or state give."""
        return str(inputs.get("name") or "")

    def check(self, token: str, inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What the provider refuses before the API is asked: pairs of property and reason."""
        raise NotImplementedError

    def create(self, token: str, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Make it; returns its identifier and its properties (inputs need not be repeated).

        Raises:
            Refused: the vendor does not.
        """
        raise NotImplementedError

    def read(self, token: str, identifier: str, state: Mapping[str, Any]) -> dict[str, Any] | None:
        """Its properties now; nothing when it is gone."""
        raise NotImplementedError

    def update(
        self, token: str, identifier: str, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Change it; our programs change nothing but whom a firewall lets in."""
        del state, inputs
        raise Refused(f"{token} {identifier}: nothing of ours is changed in place", status=400)

    def delete(self, token: str, identifier: str, state: Mapping[str, Any]) -> None:
        """Delete it; what is gone is deleted."""
        raise NotImplementedError

    def invoke(self, function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a function, as ``aws:ec2/getAmi:getAmi``."""
        del arguments
        raise Refused(f"{function} is not emulated", status=501)

    def engine_text(self, refused: Refused) -> str:
        """A refusal as the vendor's Pulumi provider words it to the engine."""
        return refused.text

    # -- what goes wrong ----------------------------------------------------------------------------------------------

    def words(self, effect: str, inputs: Mapping[str, Any]) -> Refused:
        """The vendor's words for a scripted refusal (``faults.QUOTA``, ...)."""
        raise NotImplementedError

    def vanish(self, thing: Thing) -> None:
        """The vendor takes a server back, or somebody deletes it behind our back."""
        self.store.remove(thing)
        self.world.backing.remove(thing.id)

    def offer(self, server_type: str) -> None:
        """One more server type, of any name."""
        raise NotImplementedError

    # -- the API ------------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Response:
        """Answer the vendor's API.

        Raises:
            Refused: the API says no.
        """
        raise NotImplementedError

    def error(self, refused: Refused) -> Response:
        """A refusal as the API words it."""
        raise NotImplementedError

    def outage(self) -> Refused:
        """The API is down."""
        return self.words(OUTAGE, {})
