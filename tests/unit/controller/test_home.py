"""Where a database is, by what the user gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchctl.home import Home

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("bench.db", "sqlite:///{here}/bench.db"),
        ("sqlite:///bench.db", "sqlite:///{here}/bench.db"),
        ("sqlite+pysqlite:///data/bench.db?timeout=5", "sqlite+pysqlite:///{here}/data/bench.db?timeout=5"),
        ("sqlite:///file:bench.db?mode=ro&uri=true", "sqlite:///file:{here}/bench.db?mode=ro&uri=true"),
        ("sqlite:////data/bench.db", "sqlite:////data/bench.db"),
        ("sqlite:///file:/data/bench.db?uri=true", "sqlite:///file:/data/bench.db?uri=true"),
        ("sqlite://", "sqlite://"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite:///file::memory:?uri=true", "sqlite:///file::memory:?uri=true"),
        ("postgresql://me:secret@host/bench.db", "postgresql://me:secret@host/bench.db"),
    ],
)
def test_a_database_is_the_same_in_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    """A relative file is that of the folder where it is asked for, also when it is given as a URL."""
    monkeypatch.chdir(tmp_path)
    assert Home.at(str(tmp_path / "state"), given).database_url == meant.format(here=tmp_path)
