"""The engine's output and events, read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from benchctl.clouds import engine_said
from benchctl.clouds.stacks import resources_of

CASES = yaml.safe_load((Path(__file__).parents[2] / "cases" / "engine.yml").read_text())
NOT_FETCHED = (
    "error: Could not automatically download and install resource plugin 'pulumi-resource-hcloud' at version v1.43.3, "
    "install the plugin using `pulumi plugin install resource hcloud v1.43.3`: error downloading provider hcloud"
)


@pytest.mark.parametrize("case", CASES, ids=[case["what"] for case in CASES])
def test_the_vendors_words_are_cut_out(case: dict[str, str]) -> None:
    assert engine_said.vendor_words(case["output"]) == case["words"]


def test_words_are_the_same_alone_and_in_the_engines_output() -> None:
    """So that a message is told apart by its code wherever it comes from."""
    alone = "1 error occurred:\n\t* error during placement (resource_unavailable, 1234)\n\n"
    assert engine_said.clean(alone) == engine_said.clean("error: " + alone) == CASES[0]["words"]


@pytest.mark.parametrize(
    ("said", "plugin"),
    [
        (NOT_FETCHED, ("hcloud", "1.43.3")),
        ("no resource plugin 'pulumi-resource-aws' found in the workspace at version v7.51.0", ("aws", "7.51.0")),
        ("error: could not find latest version for provider toy: Get https://...", ("toy", "")),
        ("error: 1 error occurred:\n\t* server type cx99 not found", None),
    ],
)
def test_a_plugin_that_is_missing(said: str, plugin: tuple[str, str] | None) -> None:
    assert engine_said.missing_plugin(said) == plugin


def test_who_holds_a_lock() -> None:
    said = (
        "error: the stack is currently locked by 1 lock(s). Either wait for the other process(es) to end or delete the "
        "lock file with `pulumi cancel`.\n  file:///s/.pulumi/locks/organization/benchctl/x/6d.json?no_tmp_dir=true: "
        "created by root@vm-1.example (pid 13485) at 2026-11-26T00:18:57Z\n"
    )
    assert engine_said.lock_holder(said) == engine_said.Lock("root", "vm-1.example", 13485, "2026-11-26T00:18:57Z")
    assert engine_said.lock_holder("[409] Conflict: Another update is currently in progress.") is None


def event(kind: str, operation: str, of: str = "hcloud:index/server:Server") -> dict[str, Any]:
    return {kind: {"metadata": {"op": operation, "urn": f"urn:pulumi:t::benchctl::{of}::box", "type": of}}}


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (event("resourcePreEvent", "create"), "creating Server box"),
        (event("resOutputsEvent", "create"), "created Server box"),
        (event("resOpFailedEvent", "delete"), "failed to delete Server box"),
        (event("resourcePreEvent", "same"), ""),
        (event("resourcePreEvent", "create", "pulumi:pulumi:Stack"), ""),
        (event("resourcePreEvent", "create", "pulumi:providers:hcloud"), ""),
        ({"diagnosticEvent": {"message": "x"}}, ""),
        ({"resourcePreEvent": {}}, ""),
    ],
)
def test_events_are_short_lines(told: dict[str, Any], line: str) -> None:
    assert engine_said.event_line(told) == line


def test_what_a_state_holds() -> None:
    """The engine's own entries are left out; what was under way is marked, once, and with what it was asked for."""

    def entry(token: str, name: str, **more: Any) -> dict[str, Any]:
        return {"urn": f"urn:pulumi:t::benchctl::{token}::{name}", "type": token, **more}

    state = {
        "deployment": {
            "resources": [
                entry("pulumi:pulumi:Stack", "benchctl-t"),
                entry("pulumi:providers:hcloud", "default", id="1"),
                entry("hcloud:index/sshKey:SshKey", "key", id="7"),
                entry("hcloud:index/server:Server", "old", id="8"),
            ],
            "pending_operations": [
                {"type": "creating", "resource": entry("hcloud:index/server:Server", "new", inputs={"name": "n"})},
                {"type": "deleting", "resource": entry("hcloud:index/server:Server", "old", id="8")},
            ],
        }
    }
    assert [(one.name, one.id, one.pending, dict(one.inputs)) for one in resources_of(state)] == [
        ("key", "7", "", {}),
        ("old", "8", "deleting", {}),
        ("new", "", "creating", {"name": "n"}),
    ]
    assert resources_of({"version": 3}) == []
