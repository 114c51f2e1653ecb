from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from benchctl.cli.render import Column, Output, cell, emit, emit_json, number, select
from benchctl.errors import UsageError

ROWS = [{"name": "a[b]", "speed": 1.5, "when": datetime(2026, 1, 31, 12, tzinfo=UTC), "list": [1, 2]}]
COLUMNS = [Column("name", "name"), Column("speed", "tokens/s", "right")]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0123, "0.01230"), (12345.6, "12346"), (4.5678, "4.568"), (0.0, "0"), (None, ""), (1e-9, "0.000000001000")],
)
def test_numbers_are_plain_digits(value: float | None, shown: str) -> None:
    """Four significant digits, never in powers of ten."""
    assert number(value) == shown


def test_cells() -> None:
    """Nothing, truth, times and lists have one form each; a time of another zone is shown in UTC."""
    east = datetime(2026, 1, 31, 14, tzinfo=timezone(timedelta(hours=2)))
    assert [cell(value) for value in (None, True, False, east, ["cv", "steal"])] == [
        "", "yes", "no", "2026-01-31 12:00:00", "cv,steal",
    ]  # fmt: skip


def test_plain_columns_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe gets columns that line up, and brackets as they are."""
    emit([*ROWS, {**ROWS[0], "name": "longer", "speed": 1234.5}], COLUMNS, Output())
    assert capsys.readouterr().out == "name    tokens/s\na[b]       1.500\nlonger      1234\n"


def test_json_has_every_key_and_times_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON is the whole object, also what no column shows; notes don't stand in it."""
    emit(ROWS, COLUMNS, Output(as_json=True), notes=["mind this"])
    captured = capsys.readouterr()
    assert json.loads(captured.out) == [
        {"name": "a[b]", "speed": 1.5, "when": "2026-01-31T12:00:00.000Z", "list": [1, 2]}
    ]
    assert captured.err == "mind this\n"


def test_csv_has_a_header_also_when_empty(capsys: pytest.CaptureFixture[str]) -> None:
    """A list becomes JSON in its cell; without rows the header stands alone."""
    emit(ROWS, COLUMNS, Output(as_csv=True))
    assert capsys.readouterr().out == 'name,speed,when,list\na[b],1.5,2026-01-31T12:00:00.000Z,"[1, 2]"\n'
    emit([], COLUMNS, Output(as_csv=True))
    assert capsys.readouterr().out == "name,speed\n"


def test_jmespath(capsys: pytest.CaptureFixture[str]) -> None:
    """The expression works on the JSON, times as text; what it does not find is null."""
    emit_json(ROWS, "[0].when")
    assert json.loads(capsys.readouterr().out) == "2026-01-31T12:00:00.000Z"
    assert select([], "[0].nothing") is None


@pytest.mark.parametrize("query", ["[?", "length(`1`)", "nosuch(@)", ""])
def test_a_bad_expression_is_one_sentence(query: str) -> None:
    """Syntax, types, unknown functions and nothing at all are refused by a usage error on one line."""
    with pytest.raises(UsageError, match="--query: ") as raised:
        select([], query)
    assert "\n" not in str(raised.value)


def test_two_forms_at_once_are_refused() -> None:
    """CSV is no JSON."""
    with pytest.raises(UsageError, match="--csv does not go together"):
        Output(as_csv=True, query="[0]")
