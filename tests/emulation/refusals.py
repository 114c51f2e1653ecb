"""Why an emulated vendor refuses, in the vendor's own words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Refused(Exception):  # noqa: N818 - what happens, in the vendor's terms
    """The vendor says no.

    Attributes:
        text: the vendor's words, with its code where it has one.
        code: the code, as the vendor's API gives it.
        status: of the HTTP answer.
        made: what exists all the same and the engine is told of: its identifier and state.
        property: of which input, when it is refused before anything is made.
    """

    def __init__(
        self,
        text: str,
        code: str = "",
        status: int = 400,
        *,
        made: tuple[str, Mapping[str, Any]] | None = None,
        refused_property: str = "",
    ) -> None:
        super().__init__(text)
        self.text, self.code, self.status, self.made, self.property = text, code, status, made, refused_property


@dataclass(frozen=True)
class Rule:
    """One refusal.

    Attributes:
        name: in a word or two; tests are called by it.
        kind: the Pulumi type that it is about.
        applies: whether the inputs are refused; given what exists (the vendor) and the inputs.
        text: the vendor's words; ``{...}`` is filled in by :attr:`values` with what ``applies`` does not carry.
        source: where the words or the rule were found: an address, or a file of the SDK or the provider.
        code: the vendor's code.
        status: of the HTTP answer.
        values: what fills the text in.
        property: where the provider refuses it before the API is asked (``check``), of which input.
    """

    name: str
    kind: str
    applies: Callable[[Any, Mapping[str, Any]], bool]
    text: str
    source: str
    code: str = ""
    status: int = 400
    values: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]] = field(default=lambda _vendor, inputs: inputs)
    property: str = ""

    def refusal(self, vendor: Any, inputs: Mapping[str, Any]) -> Refused | None:
        """The refusal, when the rule applies."""
        if not self.applies(vendor, inputs):
            return None
        text = self.text.format_map(_Plain(self.values(vendor, inputs)))
        return Refused(text, self.code, self.status, refused_property=self.property)


class _Plain(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return f"<{key}>"


def first(rules: tuple[Rule, ...], vendor: Any, kind: str, inputs: Mapping[str, Any], *, check: bool) -> Refused | None:
    """The first rule that refuses; with ``check`` of those that the provider applies before the API is asked."""
    for rule in rules:
        if rule.kind == kind and bool(rule.property) == check and (found := rule.refusal(vendor, inputs)):
            return found
    return None
