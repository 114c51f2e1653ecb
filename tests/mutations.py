"""Spoils raw files in every way that a bad disk, a bad network or bad will can: the mutator of the fuzz tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

DEEP = "[" * 2000 + "]" * 2000
"""Nests deeper than Python's own parser follows."""

ODD_VALUES: tuple[str, ...] = (
    "null", "true", "false", "0", "-1", "1.5", "1e999", "-1e999", "NaN", "Infinity", str(2**31), str(2**63), str(2**64),
    str(10**40), '"text"', '""', r'"\u0000"', r'"\ud800"', '"' + "x" * 5000 + '"', "[]", "{}", "[null]", "[[1]]",
    '{"a": {"b": [1, 2, {"c": null}]}}', DEEP, "[1, -1, 0]", "[0.5, 1]", '["1"]', "[1e300]", f"[{2**63}]",
)  # fmt: skip
"""JSON that a field should not hold, as text."""


def spoil(files: Mapping[str, bytes], chance: random.Random) -> dict[str, bytes]:
    """The same files, one to three of them changed somewhere.

    Args:
        files: a run's raw files by name.
        chance: decides everything, so that a seed repeats a case.
    """
    spoiled = dict(files)
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(sorted(spoiled))
        spoiled[name] = chance.choice(_WAYS)(spoiled[name], chance)
    if chance.random() < 0.05:
        del spoiled[chance.choice(sorted(spoiled))]
    return spoiled


def _truncate(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randint(0, len(content))]


def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 20)):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _insert(content: bytes, chance: random.Random) -> bytes:
    place = chance.randint(0, len(content))
    return content[:place] + chance.randbytes(chance.randint(1, 200)) + content[place:]


def _lines(content: bytes, chance: random.Random) -> bytes:
    lines = content.split(b"\n")
    first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
    match chance.randrange(4):
        case 0:
            del lines[first]
        case 1:
            lines.insert(second, lines[first])
        case 2:
            lines[first], lines[second] = lines[second], lines[first]
        case _:
            lines[first] += lines[second]
    return b"\n".join(lines)


def _encode(content: bytes, chance: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    how = chance.choice(["utf-16", "utf-32", "latin-1", "utf-8-sig", "cp037"])
    return text.encode(how, "replace")


def _zeros(content: bytes, chance: random.Random) -> bytes:
    place = chance.randint(0, len(content))
    return content[:place] + bytes(chance.randint(1, 4096)) + content[place:]


def _value(content: bytes, chance: random.Random) -> bytes:
    """Another value for one key of one JSON object, or the key once more."""
    lines = content.split(b"\n")
    candidates = [index for index, line in enumerate(lines) if line.lstrip().startswith(b"{")]
    if not candidates:
        return content
    index = chance.choice(candidates)
    try:
        record: dict[str, Any] = json.loads(lines[index])
    except (ValueError, RecursionError):
        return content
    holder, key = _somewhere(record, chance)
    if holder is None:
        return content
    mark = "\0mark\0"
    if chance.random() < 0.15:
        pairs = ", ".join(f"{json.dumps(one)}: {json.dumps(record[one])}" for one in record)
        lines[index] = f"{{{pairs}, {json.dumps(key)}: {chance.choice(ODD_VALUES)}}}".encode()
    elif chance.random() < 0.1:
        del holder[key]
        lines[index] = json.dumps(record).encode()
    else:
        holder[key] = mark
        lines[index] = json.dumps(record).replace(json.dumps(mark), chance.choice(ODD_VALUES)).encode()
    return b"\n".join(lines)


def _somewhere(record: dict[str, Any], chance: random.Random) -> tuple[dict[str, Any] | None, str]:
    """An object in the record, and one of its keys."""
    holder = record
    while holder:
        key = chance.choice(sorted(holder))
        below = holder[key]
        if not isinstance(below, dict) or not below or chance.random() < 0.5:
            return holder, key
        holder = below
    return None, ""


_WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _truncate, _flip, _insert, _lines, _encode, _zeros, _value, _value, _value, _value,
)  # fmt: skip
