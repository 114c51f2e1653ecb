"""The plugin ``pulumi-resource-toy``: things are files in a folder, and files there tell it how to behave.

::

    things/NAME         what exists; its text is what was asked for
    refuse              text of a refusal of every thing that a program calls "server"
    hold-create         every create waits while this exists; hold-delete likewise
    delay               how long every create and delete takes, seconds
    creating/NAME       a create is under way; deleting/NAME likewise
    environment.json    what the plugin found in its environment
"""

# ruff: noqa: ARG002 - the protocol's signatures

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.lab import plugin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOLD_SECONDS = 600.0
"""A test that died does not hold a plugin for ever."""


class Toy:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "environment.json").write_text(json.dumps(dict(os.environ)))

    def configure(self, settings: Mapping[str, Any]) -> None:
        pass

    def check(self, kind: str, inputs: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        return []

    def create(self, kind: str, name: str, inputs: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        self._under_way("create", "creating", name)
        refusal = self.folder / "refuse"
        if refusal.exists() and name == "server":
            raise plugin.RefusedError(refusal.read_text())
        named = str(inputs["name"])
        (self.folder / "things" / named).write_text(json.dumps(dict(inputs)))
        return f"id-{named}", {**inputs, "address": "192.0.2.7"}

    def read(self, kind: str, identifier: str, state: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return state if (self.folder / "things" / identifier.removeprefix("id-")).exists() else None

    def update(
        self, kind: str, identifier: str, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return inputs

    def delete(self, kind: str, identifier: str, state: Mapping[str, Any]) -> None:
        named = identifier.removeprefix("id-")
        self._under_way("delete", "deleting", named)
        (self.folder / "things" / named).unlink(missing_ok=True)

    def invoke(self, function: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return {}

    def _under_way(self, verb: str, mark: str, name: str) -> None:
        path = self.folder / mark / name
        path.touch()
        delay = self.folder / "delay"
        time.sleep(float(delay.read_text()) if delay.exists() else 0)
        until = time.monotonic() + HOLD_SECONDS
        while (self.folder / f"hold-{verb}").exists() and time.monotonic() < until:
            time.sleep(0.02)
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    plugin.serve(Toy(Path(os.environ["TOY_FOLDER"])), "toy", "1.0.0")
    sys.exit(0)
