from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchctl.db.readonly import Limits, ask
from benchctl.ingest import ingest_run
from raw_runs import STARTED, RawRun

if TYPE_CHECKING:
    from sqlalchemy import Engine

PAGE = Path(__file__).resolve().parents[2] / "docs" / "queries.md"
_BLOCK = re.compile(
    r"^### (?P<title>[^\n]+)\n|^```sql\n-- (?P<dialects>[^\n]+)\n(?P<sql>.*?)^```\n", re.MULTILINE | re.DOTALL
)
ANSWERED = (
    "Servers per model",
    "How measurements ended",
    "Where billed time went",
    "From a number back to its raw file",
)
"""Headings whose statements have an answer wherever something was measured."""


def statements(dialect: str) -> dict[str, str]:
    """The statements of docs/queries.md for one database, by their heading."""
    found, title = {}, ""
    for match in _BLOCK.finditer(PAGE.read_text()):
        title = match["title"] or title
        if dialect in (match["dialects"] or "").lower().split(" and "):
            found[title] = match["sql"]
    return found


def test_every_statement_of_the_page_runs(engine: Engine, tmp_path: Path) -> None:
    """The page's statements are understood by the database that they are written for, and answered."""
    ingest_run(engine, RawRun().write(tmp_path))
    ingest_run(engine, RawRun(sweep="b", started=STARTED + timedelta(days=1), speed=2).write(tmp_path))
    for title, sql in statements(engine.dialect.name).items():
        reply = ask(engine, sql, Limits(seconds=20))
        assert reply.columns, title
        assert reply.rows or title not in ANSWERED, title


def test_each_statement_is_there_for_both() -> None:
    """What is told for SQLite is told for PostgreSQL."""
    assert statements("sqlite").keys() == statements("postgresql").keys() >= set(ANSWERED)
