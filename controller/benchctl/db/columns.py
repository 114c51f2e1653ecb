"""What the tables are built from: their base class, times in UTC, JSON as canonical text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import JSON, DateTime, Float, MetaData
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect


class Utc(TypeDecorator[datetime]):
    """A moment, stored in UTC without a zone as Spare Cores does, and read back with the zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """To UTC; a time without a zone is refused, because nobody can know what it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone can't be stored: {value}")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """With its zone."""
        return None if value is None else value.replace(tzinfo=UTC)


class CanonicalJson(TypeDecorator[Any]):
    """JSON whose text is the same for the same value: keys in order at every level.

    SQLite compares the text, so the canonical form is what makes a JSON column usable in a key. PostgreSQL's plain
    ``json`` has no equality; ``jsonb`` has.
    """

    impl = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """With keys in order."""
        return _ordered(value)


class Config(Mapping[str, Any]):
    """The settings of a benchmark: a mapping that can't change, so that it can be part of a row's key."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = dict(settings)

    def __getitem__(self, key: str) -> Any:
        return self._settings[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def __hash__(self) -> int:
        return hash(json.dumps(_ordered(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self) == dict(other)

    def __repr__(self) -> str:
        return f"Config({self._settings!r})"


class ConfigJson(CanonicalJson):
    """Canonical JSON that comes back as a :class:`Config`."""

    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Config | None:  # noqa: ARG002
        """As a key can hold it."""
        return None if value is None else Config(value)


def _ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _ordered(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in value]
    return value


class Base(DeclarativeBase):
    """Base of all tables; constraints are named, so that a migration can address them."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {float: Float()}
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
