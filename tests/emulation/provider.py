"""The program behind ``pulumi-resource-NAME`` of an emulated vendor: the engine's calls, passed on to the world.

It stands where the vendor's real plugin would. When the engine is killed it finishes the create that it is in the
middle of, as the real ones do: that is how servers leak.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from benchctl.lab.plugin import RefusedError, serve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSION = "99.0.0"
TIMEOUT_SECONDS = 3600.0


class Forwarding:
    """A provider that asks the world."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._settings: Mapping[str, Any] = {}
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PATH", "PYTHON"))
        }

    def configure(self, settings: Mapping[str, Any]) -> None:
        """The provider's own settings, and its environment, as the vendor's plugin would read it."""
        self._settings = dict(settings)
        self._ask("configure")

    def check(self, kind: str, inputs: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        return [(one, why) for one, why in self._ask("check", kind=kind, inputs=inputs)["failures"]]

    def create(self, kind: str, name: str, inputs: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        made = self._ask("create", kind=kind, name=name, inputs=inputs)
        return made["id"], {**inputs, **made["state"]}

    def read(self, kind: str, identifier: str, state: Mapping[str, Any]) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self._ask("read", kind=kind, id=identifier, state=state)["state"]
        return None if found is None else {**state, **found}

    def update(
        self, kind: str, identifier: str, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return {**inputs, **self._ask("update", kind=kind, id=identifier, state=state, inputs=inputs)["state"]}

    def delete(self, kind: str, identifier: str, state: Mapping[str, Any]) -> None:
        self._ask("delete", kind=kind, id=identifier, state=state)

    def invoke(self, function: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = self._ask("invoke", function=function, arguments=arguments)["answer"]
        return answer

    def _ask(self, call: str, **body: Any) -> dict[str, Any]:
        body |= {"settings": self._settings, "environment": self._environment}
        request = urllib.request.Request(  # noqa: S310 - the world's address, on loopback
            f"{self._url}/{call}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            refusal = json.load(error)
            made = (refusal["id"], refusal["state"]) if refusal.get("id") else None
            raise RefusedError(refusal["text"], made) from None
        except OSError as error:
            raise RefusedError(f"the emulated cloud does not answer: {error}") from None


def main() -> None:
    """``python -m emulation.provider PACKAGE URL``; the engine adds arguments of its own."""
    package, url = sys.argv[1:3]
    serve(Forwarding(url), package, VERSION)


if __name__ == "__main__":
    main()
