"""Where the corpus of real raw results lies: Spare Cores' data of April 2025, which is no part of the project."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(os.environ.get("BENCHCTL_TEST_CORPUS") or Path(__file__).resolve().parents[2] / "shared" / "corpus")
RUNS = FOLDER / "inspector-2025-04-30.tar.xz"
CATALOGUE = FOLDER / "sc-data-priceless-2025-04-28.db.xz"
PRICES = FOLDER / "prices.csv.xz"
QUERIES = FOLDER / "queries.sql"

MISSING = (
    f"the corpus of real results is not at {FOLDER} (BENCHCTL_TEST_CORPUS names another folder)"
    if not all(path.is_file() for path in (RUNS, CATALOGUE, PRICES, QUERIES))
    else ""
)
"""Why tests that need the corpus can't run; empty where they can."""
