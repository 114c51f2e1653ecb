"""What Pulumi's engine says, read: the vendor's words in its output, and its events as short lines. Pure.

The forms are those of real output: of bridged Terraform providers (AWS, GCP, Hetzner, UpCloud), whose text is
``1 error occurred:`` and a starred line; of the Terraform SDK's own log lines (Hetzner); of azure-native, whose text is
``Status=409 Code="X" Message="..."``; and of the engine itself. ``tests/cases/engine`` holds examples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OWN = ("update failed", "destroy failed", "refresh failed", "an unhandled error occurred", "Program exited with")
"""What the engine says besides the reason."""

_MESSAGE = re.compile(r"^ {4}(error|warning|info|debug|info#err): ?(.*)$")
_BLOCK = re.compile(r"^ {2}(\S+) \((.*)\):$")
_SECTION = re.compile(r"^(\w[\w ]*):")
_PROGRESS = re.compile(r"^.*\*\*(?:creating|updating|deleting|replacing)? ?failed\*\* (?:error: )?(.+)$")
_SDK_LOG = re.compile(
    r"^\s*sdk-v2/\S+?\.go:\d+: sdk\.[\w.]+: (?P<words>.*?)(?:: (?:provider|tf_\w+)=\S+)*\s*$", re.DOTALL
)
_SEVERAL = re.compile(r"^\s*\d+ errors? occurred:\s*", re.DOTALL)
_NO_PLUGIN = re.compile(
    r"(?:resource plugin 'pulumi-resource-|could not find latest version for provider )([\w-]+)'?"
    r"(?: found in the workspace)?(?: at version v?([\w.+-]+))?"
)
_MARK_UP = re.compile(r"<\{%.*?%\}>|\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Lock:
    """Who holds a stack, as the engine tells it.

    Attributes:
        user: who started the engine.
        host: the name of the machine that it runs on.
        pid: its process number there.
        since: when, as ``2026-11-26T00:04:38Z``.
    """

    user: str
    host: str
    pid: int
    since: str


def vendor_words(output: str) -> str:
    """The vendor's own words in the engine's output, on one line; empty when there are none.

    Args:
        output: what the engine printed, both streams, without colours.
    """
    text = _MARK_UP.sub("", output)
    resources: list[str] = []
    stack: list[str] = []
    for kind, message in _diagnostics(text):
        words = clean(message)
        if words and not words.startswith(_OWN):
            (stack if kind.startswith("pulumi:pulumi:") else resources).append(words)
    found = resources or stack or _elsewhere(text)
    return "; ".join(dict.fromkeys(found))


def clean(message: str) -> str:
    """One message without what the engine and the providers wrap around the vendor's words."""
    message = _MARK_UP.sub("", message).strip().removeprefix("error:").strip()
    if message.startswith("python inline source runtime error:"):
        # the program itself raised: the first line is the reason, the rest a traceback for the log
        message = message.partition("\nTraceback")[0].removeprefix("python inline source runtime error:").strip()
    several = _SEVERAL.match(message)
    if several:
        starred = re.split(r"(?:^|\n)\s*\* ", message[several.end() :].replace("\t", " "))
        message = "; ".join(clean(one) for one in starred if one.strip())
    logged = _SDK_LOG.match(message)
    if logged:
        return clean(logged["words"])
    return re.sub(r"\s+", " ", message).strip()


def lock_holder(output: str) -> Lock | None:
    """Who holds the stack, when the engine refused because somebody does (backends other than Pulumi's service)."""
    found = re.search(r"created by (\S+?)@(\S+) \(pid (\d+)\) at (\S+)", output)
    return Lock(found[1], found[2], int(found[3]), found[4]) if found else None


def missing_plugin(output: str) -> tuple[str, str] | None:
    """Name and version of a provider's plugin that the engine has not got and could not fetch."""
    if not re.search(r"Could not automatically download|no resource plugin|could not find latest version", output):
        return None
    found = _NO_PLUGIN.search(output)
    return (found[1], found[2] or "") if found else None


def event_line(event: Mapping[str, Any]) -> str:
    """One event of the engine as a short line, as ``creating Server benchctl-x``; empty for what is not worth one."""
    for key, words in (("resourcePreEvent", _BEGINS), ("resOutputsEvent", _ENDS), ("resOpFailedEvent", _FAILS)):
        if key not in event:
            continue
        metadata = event[key].get("metadata") or {}
        kind, operation = str(metadata.get("type", "")), str(metadata.get("op", ""))
        if kind.startswith("pulumi:") or operation not in words:
            return ""
        name = str(metadata.get("urn", "")).rpartition("::")[2]
        return f"{words[operation]} {kind.rpartition(':')[2]} {name}"
    return ""


_BEGINS = {"create": "creating", "delete": "deleting", "refresh": "looking at", "update": "changing", "read": "reading"}
_ENDS = {"create": "created", "delete": "deleted", "update": "changed"}
_FAILS = {
    "create": "failed to create",
    "delete": "failed to delete",
    "update": "failed to change",
    "refresh": "failed to look at",
}


def _diagnostics(text: str) -> Iterator[tuple[str, str]]:
    """The errors in the section "Diagnostics:", each with the type of the resource that it is about."""
    inside, kind, message = False, "", None
    for line in [*text.splitlines(), "End:"]:
        section, block, start = _SECTION.match(line), _BLOCK.match(line), _MESSAGE.match(line)
        if inside and (section or block or start) and message is not None:
            yield kind, message
            message = None
        if section:
            inside = section[1] == "Diagnostics"
        elif not inside:
            continue
        elif block:
            kind = block[1]
        elif start:
            message = start[2] if start[1] == "error" else None
        elif message is not None:
            message += "\n" + line.removeprefix("    ")


def _elsewhere(text: str) -> list[str]:
    """Errors outside of the section: of an engine that ended before it wrote one, or of one line of progress alone."""
    found = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("error: "):
            rest = []
            for more in lines[number + 1 :]:
                if not more.startswith((" ", "\t")):
                    break
                rest.append(more)
            found.append(clean("\n".join([line, *rest])))
        elif progress := _PROGRESS.match(line):
            found.append(clean(progress[1]))
    return [words for words in found if words and not words.startswith(_OWN)]
