"""What the tables and columns mean, for whoever asks them or gets them: names, types, units, keys, in plain words.

All of it comes from the models, but the units, which stand here.
"""

from __future__ import annotations

import difflib
import re
import typing
from dataclasses import dataclass
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Boolean, Date, DateTime, Float, Integer, func, select
from sqlalchemy.orm import Mapped

from benchctl.db.columns import CanonicalJson
from benchctl.db.schema import OURS, THEIRS
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Column, Table
    from sqlalchemy.orm import Session

    from benchctl.db.columns import Base

MODELS: dict[str, type[Base]] = {str(model.__tablename__): model for model in (*THEIRS, *OURS)}
"""Every table's model, in an order in which each can be filled."""

UNITS: dict[str, str] = {
    "job.price_usd_per_hour": "USD/h",
    "job.launch_price_per_hour": "see the column currency",
    "job_server.price_per_hour": "see the column currency",
    "job_time.seconds": "s",
    "measurement.evidence_seconds": "s",
    "measurement.samples_ns": "ns",
    "measurement.tokens": "token",
    "measurement.tokens_per_second": "token/s",
    "measurement.tokens_per_second_median": "token/s",
    "measurement.tokens_per_second_stddev": "token/s",
    "measurement.tokens_per_second_ci_low": "token/s",
    "measurement.tokens_per_second_ci_high": "token/s",
    "measurement.model_bytes": "byte",
    "measurement.model_tensor_bytes": "byte",
    "measurement.gpu_memory_bytes": "byte",
    "measurement.load_seconds": "s",
    "measurement.price_usd_per_hour": "USD/h",
    "measurement.launch_price_per_hour": "see the column currency",
    "measurement.raw_offset": "byte",
    "price.price": "see the columns currency and unit",
    "exchange_rate.usd_per_unit": "USD",
    "catalog_source.size_bytes": "byte",
    "region.lon": "degree",
    "region.lat": "degree",
    "server.cpu_speed": "GHz",
    "server.cpu_l1_cache": "byte",
    "server.cpu_l2_cache": "byte",
    "server.cpu_l3_cache": "byte",
    "server.memory_amount": "MiB",
    "server.memory_speed": "MHz",
    "server.gpu_memory_min": "MiB",
    "server.gpu_memory_total": "MiB",
    "server.storage_size": "GB",
    "server.network_speed": "Gbit/s",
    "server.inbound_traffic": "GB/month",
    "server.outbound_traffic": "GB/month",
    "server_price.price": "see the columns currency and unit",
    "server_price.price_upfront": "see the column currency",
    "benchmark_score.score": "see the column unit of the table benchmark",
}
"""Unit of each column that has one."""

COUNTS = frozenset(
    {
        "job.replica", "job.exit_code", "job.servers_rented", "measurement.attempt", "measurement.samples",
        "measurement.model_parameters", "measurement.threads", "measurement.gpu_layers_asked",
        "measurement.gpu_layers", "measurement.layers_total", "measurement.llama_cpp_build_number",
        "measurement.raw_line", "vendor.founding_year", "region.founding_year", "server.vcpus", "server.cpu_cores",
        "server.gpu_count", "server.ipv4",
    }
)  # fmt: skip
"""Columns with numbers that have none: they count, or number."""


@dataclass(frozen=True)
class Field:
    """One column.

    Attributes:
        name: its name.
        type: ``string``, ``integer``, ``number``, ``boolean``, ``date``, ``datetime``, ``object`` or ``array``, as
            Table Schema (https://datapackage.org) calls them.
        unit: the unit; empty where it has none.
        required: whether it is never NULL.
        key: whether it is part of the primary key.
        meaning: what it says.
    """

    name: str
    type: str
    unit: str
    required: bool
    key: bool
    meaning: str


@dataclass(frozen=True)
class Reference:
    """A foreign key: columns that name a row of another table."""

    columns: tuple[str, ...]
    table: str
    their_columns: tuple[str, ...]


@dataclass(frozen=True)
class Dictionary:
    """One table.

    Attributes:
        name: its name.
        theirs: whether Spare Cores' database has it too.
        summary: its meaning in one sentence.
        meaning: the whole text.
        fields: its columns.
        references: its foreign keys.
    """

    name: str
    theirs: bool
    summary: str
    meaning: str
    fields: tuple[Field, ...]
    references: tuple[Reference, ...]


def table_of(name: str) -> Table:
    """The table itself.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name.lower(), MODELS, n=1, cutoff=0.5)
        mend = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(MODELS)}."
        raise UsageError(f"There is no table '{name}'.", mend)
    return typing.cast("Table", MODELS[name].__table__)


def describe(name: str) -> Dictionary:
    """What the table and its columns mean.

    Raises:
        UsageError: there is none of that name.
    """
    table, model = table_of(name), MODELS[name]
    meaning = _plain(cleandoc(model.__doc__ or ""))
    hints = typing.get_type_hints(model, localns={"Mapped": Mapped})
    references = sorted(
        (
            Reference(
                tuple(element.parent.name for element in key.elements),
                key.referred_table.name,
                tuple(element.column.name for element in key.elements),
            )
            for key in table.foreign_key_constraints
        ),
        key=lambda reference: (reference.table, reference.columns),
    )
    return Dictionary(
        name=name,
        theirs=model in THEIRS,
        summary=" ".join(meaning.split("\n\n")[0].split()),
        meaning=meaning,
        fields=tuple(_field(table, column, hints[column.name]) for column in table.columns),
        references=tuple(references),
    )


def sizes(session: Session) -> dict[str, int]:
    """How many rows each table has."""
    return {name: session.scalar(select(func.count()).select_from(table_of(name))) or 0 for name in MODELS}


def _field(table: Table, column: Column[Any], hint: Any) -> Field:
    return Field(
        name=column.name,
        type=_type(column, hint),
        unit=UNITS.get(f"{table.name}.{column.name}", ""),
        required=not column.nullable,
        key=column.primary_key,
        meaning=_plain(column.doc or ""),
    )


def _type(column: Column[Any], hint: Any) -> str:
    kind = column.type
    if isinstance(kind, CanonicalJson):
        inner = typing.get_args(hint)[0]
        return "array" if list in (typing.get_origin(inner), inner) else "object"
    if isinstance(getattr(kind, "impl", kind), DateTime):
        return "datetime"
    for of, name in (
        (Date, "date"),
        (Boolean, "boolean"),
        (BigInteger, "integer"),
        (Integer, "integer"),
        (Float, "number"),
    ):
        if isinstance(kind, of):
            return name
    return "string"


def _plain(text: str) -> str:
    """Without the marks of reStructuredText."""
    return re.sub(r":\w+:`([^`]*)`", r"\1", text.replace("``", "`"))
