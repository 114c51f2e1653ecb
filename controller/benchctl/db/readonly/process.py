"""The process that runs a stranger's statement: ``python -m benchctl.db.readonly.process``.

It reads one request, a JSON object, from stdin, and writes JSON lines to stdout: ``{"columns": [...]}``, a list for
each row, and ``{"end": "all"}`` or ``{"end": "more"}``; or ``{"error": kind, "text": ...}``, a
:class:`~benchctl.db.readonly.failure.Failure`.

It imports as little as it can: it is started for every question.
"""

from __future__ import annotations

import json
import math
import resource
import signal
import sys
from typing import TYPE_CHECKING, Any

from benchctl.db.readonly.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Answer = tuple[list[str], Iterator[tuple[Any, ...]]]


def main() -> None:
    """Serve one request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the asking process ends this one
    request = json.loads(sys.stdin.readline())
    _confine(request)
    try:
        try:
            for record in _answer(request):
                sys.stdout.write(record + "\n")
        except MemoryError:
            raise Failure("memory") from None
    except Failure as failure:
        text = " ".join(failure.text.split()).rstrip(".")
        sys.stdout.write(json.dumps({"error": failure.kind, "text": text}) + "\n")
    sys.stdout.flush()


def _confine(request: dict[str, Any]) -> None:
    """Limits that the kernel keeps: no file is written, memory and CPU time end somewhere, no core is dumped."""
    for what, limit in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, int(request["memory_bytes"])),
        (resource.RLIMIT_CPU, math.ceil(request["seconds"]) + 1),
    ):
        _, hard = resource.getrlimit(what)
        least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (least, least))


def _answer(request: dict[str, Any]) -> Iterator[str]:
    columns, rows = _reader(request["dialect"])(request)
    yield json.dumps({"columns": columns})
    limit = request["rows"]
    for number, row in enumerate(rows):
        if limit is not None and number == limit:
            yield '{"end": "more"}'
            return
        yield json.dumps([plain(value) for value in row])
    yield '{"end": "all"}'


def _reader(dialect: str) -> Callable[[dict[str, Any]], Answer]:
    if dialect == "sqlite":
        from benchctl.db.readonly import sqlite

        return sqlite.run
    from benchctl.db.readonly import postgres

    return postgres.run


def plain(value: Any) -> Any:
    """A value as JSON can hold it: bytes in hexadecimal, no infinities, exact numbers as numbers."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return str(value)


if __name__ == "__main__":
    main()
