"""The data set's description for programs: a Data Package (https://specs.frictionlessdata.io, version 1). Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchctl.export import licences
from benchctl.export.formats import moment_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from benchctl.db.dictionary import Field
    from benchctl.db.extract import Origins, Selection
    from benchctl.export import Written
    from benchctl.export.contents import Part
    from benchctl.export.licences import Licence

NAME = "llm-inference-servers"

DESCRIPTION = (
    "Speed of LLM inference, measured with llama.cpp's llama-bench on servers that can be rented and on machines of "
    "one's own, with every repetition, what the servers are, and what they cost."
)

MEDIA_TYPES = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "sqlite": "application/vnd.sqlite3",
}

SPARE_CORES = {"title": "Spare Cores", "path": "https://sparecores.com"}

_MOMENTS = {"csv": "any", "sqlite": "%Y-%m-%d %H:%M:%S.%f"}
"""How times are written; Parquet has a type for them. CSV's are ISO 8601, with a fraction only where there is one."""

MEASURED = ("sweep", "job", "job_server", "job_time", "raw_run", "measurement")
"""Tables with results: one's own, and those that Spare Cores published."""


@dataclass(frozen=True)
class About:
    """What is true of the whole data set.

    Attributes:
        title: its title.
        form: ``sqlite``, ``parquet`` or ``csv``.
        version: of benchctl.
        created: of when the data are.
        licence: identifier of the licence of one's own results.
        selection: which rows were meant.
        origins: where they come from.
        withheld: what did not leave, in sentences.
    """

    title: str
    form: str
    version: str
    created: datetime
    licence: str
    selection: Selection
    origins: Origins
    withheld: Sequence[str]


def text(about: About, parts: Sequence[Part], written: Sequence[Written]) -> str:
    """The content of ``datapackage.json``."""
    return json.dumps(describe(about, parts, written), indent=2, ensure_ascii=False) + "\n"


def describe(about: About, parts: Sequence[Part], written: Sequence[Written]) -> dict[str, Any]:
    """The description as plain data."""
    names = {part.name for part in parts}
    everything = [one for part in parts for one in licences_of(part.name, about)]
    described: dict[str, Any] = {
        "profile": "tabular-data-package" if about.form == "csv" else "data-package",
        "name": NAME,
        "title": about.title,
        "description": DESCRIPTION,
        "created": moment_text(about.created),
        "keywords": ["llm", "benchmark", "llama.cpp", "cloud", "servers", "prices"],
        "licenses": _unique(everything),
        "sources": sources_of(about),
        "benchctl": {"version": about.version, "selection": _selection(about), "withheld": list(about.withheld)},
        "resources": [_resource(about, part, one, names) for part, one in zip(parts, written, strict=True)],
    }
    return described


def licences_of(table: str, about: About) -> list[Licence]:
    """Under which licences the rows of a table are, one's own first."""
    origins = about.origins
    own, theirs = licences.known(about.licence), licences.known(licences.SPARE_CORES)
    if table in ("price", "server_price"):
        return list(dict.fromkeys(licences.named(licence) for _, licence, *_ in origins.prices))
    if table == "exchange_rate":
        return [licences.named(None)] if origins.rates else []
    measured = [licence for source, licence in (("benchctl", own), ("spare-cores", theirs)) if _measured(about, source)]
    if table in MEASURED or table == "benchmark_score":
        return measured
    if table == "server":
        return [*([own] if origins.own_servers else []), *([theirs] if origins.cloud_servers else [])]
    if table == "catalog_source":
        return [own]
    return [theirs] if origins.cloud_servers else [own]


def sources_of(about: About) -> list[dict[str, str]]:
    """Who measured, and where servers, prices and rates come from, with dates."""
    origins = about.origins
    found: list[dict[str, str]] = []
    for source, jobs, first, last in origins.sweeps:
        when = _span(first and first.date(), last and last.date())
        if source == "spare-cores":
            title = f"Spare Cores inspector data: {jobs} runs{when}"
            found.append({"title": title, "path": "https://github.com/SpareCores/sc-inspector-data"})
        else:
            found.append({"title": f"Measured with benchctl {about.version}: {jobs} runs{when}"})
    if any(kind == "database" for _, kind, *_ in origins.catalogues):
        found.append({"title": "Spare Cores' catalogue of servers", "path": "https://github.com/SpareCores/sc-data"})
    for source, licence, count, oldest, newest in origins.prices:
        stated = licences.named(licence)
        title = f"Prices: {_public(source)}: {count:,}{_span(oldest, newest)}; {_called(stated)}"
        found.append({"title": title} | ({"path": source} if _is_address(source) else {}))
    for source, oldest, newest in origins.rates:
        found.append({"title": f"Exchange rates: {_public(source)}{_span(oldest, newest)}"})
    for url, kind, sha256, at in origins.catalogues:
        title = f"Taken in as {kind}: {_public(url)}, {at.date().isoformat()}, SHA-256 {sha256}"
        found.append({"title": title} | ({"path": url} if _is_address(url) else {}))
    return found


def _measured(about: About, source: str) -> bool:
    return any(one == source for one, *_ in about.origins.sweeps)


def _resource(about: About, part: Part, written: Written, names: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": part.name,
        "profile": "tabular-data-resource" if about.form == "csv" else "data-resource",
        "title": part.name,
        "description": part.table.meaning,
        "path": written.path,
        "format": about.form,
        "mediatype": MEDIA_TYPES[about.form],
        "bytes": written.size_bytes,
        "hash": f"sha256:{written.sha256}",
        "rows": written.rows,
        "licenses": _unique(licences_of(part.name, about)),
        "schema": _schema(part, names, about.form),
    }
    if not found["licenses"]:
        del found["licenses"]
    if about.form == "csv":
        found |= {"encoding": "utf-8", "dialect": {"delimiter": ",", "lineTerminator": "\n", "header": True}}
    if about.form == "sqlite":
        found["dialect"] = {"sql": {"table": part.name}}
    return found


def _schema(part: Part, names: set[str], form: str) -> dict[str, Any]:
    leaving = {field.name for field in part.fields}
    keys = [
        {
            "fields": list(one.columns),
            "reference": {"resource": one.table, "fields": list(one.their_columns)},
        }
        for one in part.table.references
        if one.table in names and leaving.issuperset(one.columns)
    ]
    schema: dict[str, Any] = {
        "fields": [_field(field, form) for field in part.fields],
        "primaryKey": [field.name for field in part.fields if field.key],
        "missingValues": [""],
    }
    return schema | ({"foreignKeys": keys} if keys else {})


def _field(field: Field, form: str) -> dict[str, Any]:
    is_json = field.type in ("object", "array")
    # a key is compared, and JSON as a key is compared by its canonical text
    found: dict[str, Any] = {"name": field.name, "type": "string" if is_json and field.key else field.type}
    if field.type == "datetime" and form != "parquet":
        found["format"] = _MOMENTS[form]
    found["description"] = f"{field.meaning} (JSON)" if is_json else field.meaning
    if field.unit:
        found["unit"] = field.unit
    # in CSV an empty text and NULL look the same, so that only what can't be empty is required
    if field.required and (form != "csv" or field.type != "string" or field.key):
        found["constraints"] = {"required": True}
    return found


def _selection(about: About) -> dict[str, Any]:
    since = about.selection.since
    return {"vendors": list(about.selection.vendors), "since": moment_text(since) if since else None}


def _unique(found: Iterable[Licence]) -> list[dict[str, str]]:
    return [
        {"name": one.name, "title": one.title} | ({"path": one.path} if one.path else {})
        for one in dict.fromkeys(found)
    ]


def _called(licence: Licence) -> str:
    return licence.title if licence.name == "notspecified" else licence.name


def _span(first: Any, last: Any) -> str:
    if first is None:
        return ""
    return f", {first.isoformat()}" if first == last else f", {first.isoformat()} to {last.isoformat()}"


def _is_address(source: str) -> bool:
    return source.startswith(("https://", "http://")) and "@" not in source


def _public(source: str) -> str:
    return source.rsplit("/", 1)[-1] if source.startswith(("/", "file:")) else source
