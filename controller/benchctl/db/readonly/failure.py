"""How a statement fails, between the process that runs it and the one that asked."""

from __future__ import annotations


class Failure(Exception):  # noqa: N818 - it is the answer
    """A way to fail that the asking process has a sentence for.

    Attributes:
        kind: ``time``, ``memory``, ``value`` (too large), ``refused``, ``database`` (it can't be used) or ``sql`` (the
            statement is wrong).
        text: what the database said, or what was refused.
    """

    def __init__(self, kind: str, text: str = "") -> None:
        super().__init__(text)
        self.kind, self.text = kind, text
