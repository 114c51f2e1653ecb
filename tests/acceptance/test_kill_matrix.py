"""The short form of the kill matrix, at two vendors.

One kill in the middle of each of the vendor's calls that matter, and one while it measures. All of it is
``python tests/benchmarks/kill_matrix.py``; docs/teardown.md has its figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kills.cases import CONTROLLER, CREATE, DESTROY, ENGINE, Case, case
from kills.play import play, template

if TYPE_CHECKING:
    from pathlib import Path

    from emulation.fixtures import Emulated

pytestmark = pytest.mark.timeout(1500)  # longer than what is waited for inside, which says more

TRIES = 3
"""A kill that came too early or too late on a busy machine is tried again."""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with a catalogue, to begin with."""
    return template(tmp_path_factory.mktemp("kills"))


@pytest.mark.parametrize(
    "chosen",
    [
        case(CONTROLLER, CREATE, 0),  # reaped, then resumed
        case(CONTROLLER, DESTROY, 3),  # resumed at once
        case(CONTROLLER, "collecting", 2),  # resumed at once, on the server that measures
        case(ENGINE, CREATE, 1),
        case(ENGINE, DESTROY, 2),
    ],
    ids=lambda one: one.name,
)
@pytest.mark.usefixtures("llama_bench")
def test_after_a_kill_nothing_is_left_lost_or_doubled(
    chosen: Case, backed_world: Emulated, state: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle; the clouds are empty after, and each scenario has its one row."""
    for number in range(TRIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        result = play(chosen, backed_world, state, folder)
        if result.hit:
            break
    assert result.hit, result
    assert (result.problems, result.leaks, result.lost, result.doubled) == ([], 0, 0, 0), (
        f"{result}\n{(folder / 'said.log').read_text()}"
    )
