"""The data set's description for people: its ``README.md``. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchctl.export import package
from benchctl.export.formats import moment_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchctl.export import Written
    from benchctl.export.contents import Part
    from benchctl.export.package import About

_READ = {
    "sqlite": """\
```sh
sqlite3 benchctl.sqlite "SELECT vendor_id, server_id, score FROM benchmark_score ORDER BY score DESC LIMIT 5"
benchctl --db benchctl.sqlite show   # when all tables are in it
```

Queries written for Spare Cores' database run on it unchanged. JSON columns are text, which `json_extract` reads; times
are text in UTC.
""",
    "parquet": """\
```python
import pandas
pandas.read_parquet("{first}.parquet")
```

DuckDB, Polars and Spark read the files as they are. JSON columns are text, times are in UTC.
""",
    "csv": """\
```python
import pandas
pandas.read_csv("{first}.csv")
```

RFC 4180 with line feeds, UTF-8. An empty cell is NULL; a text column that is never NULL (datapackage.json says which
columns may be) holds empty text there. JSON columns are JSON text, times are ISO 8601 in UTC.
""",
}


def text(about: About, parts: Sequence[Part], written: Sequence[Written]) -> str:
    """The content of ``README.md``."""
    lines = [
        f"# {about.title}",
        "",
        package.DESCRIPTION,
        "",
        f"Data as of {moment_text(about.created)}, written by benchctl {about.version}. {_selected(about)}".rstrip(),
        "",
        "| table | rows | file | what it holds |",
        "| --- | ---: | --- | --- |",
        *(
            f"| {part.name} | {one.rows:,} | {one.path} | {part.table.summary.replace('|', chr(92) + '|')} |"
            for part, one in zip(parts, written, strict=True)
        ),
        "",
        "`datapackage.json` says of every column its type, unit and meaning, and how tables refer to each other.",
        "`sha256sum -c SHA256SUMS` checks that all files are whole.",
        "",
        "## How to read it",
        "",
        _READ[about.form].replace("{first}", parts[0].name).rstrip(),
        "",
        "Never mix rows with `weights` `real` and `synthetic`, prices in different currencies, or prices of different",
        "`allocation`. Prices with `flags` are doubtful. Repetitions in one run are not independent looks at a server",
        "type: instances of one type differ by more than the confidence interval of one run says.",
        "",
        "## Licences",
        "",
        *_licence_lines(about, parts),
        "",
        "Whoever passes on what contains parts under CC-BY-SA-4.0 must do so under that licence, and name the sources.",
        "",
        "## Sources",
        "",
        *(
            f"- {one['title']}" + (f": <{one['path']}>" if "path" in one else "")
            for one in package.sources_of(about) or [{"title": "none"}]
        ),
        "",
        "## What was left out",
        "",
        *(f"- {line}" for line in about.withheld),
        "",
    ]
    return "\n".join(lines)


def _selected(about: About) -> str:
    chosen = about.selection
    said = []
    if chosen.vendors:
        said.append(f"Vendors: {', '.join(chosen.vendors)}.")
    if chosen.since:
        said.append(f"Measurements and prices since {chosen.since.date().isoformat()}.")
    return " ".join(said)


def _licence_lines(about: About, parts: Sequence[Part]) -> list[str]:
    by_licences: dict[str, list[str]] = {}
    for part in parts:
        found = package.licences_of(part.name, about)
        words = ", ".join(f"[{one.title}]({one.path})" if one.path else one.title for one in found)
        by_licences.setdefault(words or "no rows", []).append(f"`{part.name}`")
    lines = [f"- {', '.join(tables)}: {words}" for words, tables in by_licences.items()]
    notes = [
        "- Results whose `sweep.source` is `benchctl` are under the publisher's own licence, those whose source is",
        "  `spare-cores` under Spare Cores' (CC BY-SA 4.0). A price's licence stands in `price.licence`.",
    ]
    return [*lines, *notes]
