"""Results and how far they depend on the scoring: the page has what the commands print, and the variants are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest

from collapsebench.paths import bundled
from collapsebench.publishing import findings, sensitivity
from collapsebench.publishing.board import Board, read_board
from collapsebench.publishing.sensitivity import MOVED, VARIANTS, scored
from collapsebench.publishing.validation import known_tasks
from collapsebench.scoring.fidelity import Scale, fidelity

ROOT = bundled("tasks").resolve().parent
VALUES = [20.0, 35.0, 60.0]


@pytest.fixture(scope="module")
def board() -> Board:
    return read_board(bundled("submissions"), known_tasks())


@pytest.mark.parametrize("lines", [findings.lines, findings.behind, sensitivity.lines])
def test_page_has_the_tables_that_the_commands_print(board: Board, lines: Callable[[Board], Iterator[str]]) -> None:
    page = ROOT / "docs" / "results.md"
    if not page.is_file():
        pytest.skip("the documentation is not part of the wheel")
    assert "\n".join(lines(board)) in page.read_text("utf-8")


def test_first_way_to_score_is_that_of_the_board(board: Board) -> None:
    ranked = [t for t in dict.fromkeys(board.table["task"]) if not board.tasks[t].unranked]
    assert ranked
    for name in ranked:
        published = board.table[board.table["task"] == name].set_index("method")
        mine = scored(board, board.tasks[name], VARIANTS[0]).set_index("method")
        pd.testing.assert_series_equal(mine["mfi"], published["mfi"], check_dtype=False)
        assert mine["verdict_ce"].dropna().to_dict() == published["verdict_ce"].dropna().to_dict()


def test_references_of_later_generations_move_as_the_first_one() -> None:
    scale = Scale(20.0, 80.0, "linear", later=(10.0,))
    far = VARIANTS[1].scales({"m": scale})["m"]
    assert (far.reference, far.floor, *far.later) == pytest.approx((20.0 - 60 * MOVED, 80.0, 10.0 - 70 * MOVED))


@pytest.mark.parametrize("kind", ["log", "linear"])
def test_ends_of_a_scale_move_by_a_tenth_of_fidelity(kind: str) -> None:
    scale = Scale(reference=20.0, floor=80.0, kind=kind)  # type: ignore[arg-type]
    moved = {v.name: v.scales({"m": scale})["m"] for v in VARIANTS[1:5]}
    far, near, lower, higher = moved.values()
    plain = fidelity(VALUES, scale)
    assert fidelity(VALUES, far) == pytest.approx(plain / (1 + MOVED))
    assert fidelity(VALUES, near) == pytest.approx(np.minimum(1, plain / (1 - MOVED)))
    assert fidelity(VALUES, lower) == pytest.approx((plain + MOVED) / (1 + MOVED))
    assert fidelity(VALUES, higher) == pytest.approx((plain - MOVED) / (1 - MOVED))


def test_a_part_of_the_lambdas_and_half_of_the_horizon(board: Board) -> None:
    """A method that is perfect for a generation and nothing after has the same FI at every λ."""
    by_name = {variant.name: variant for variant in VARIANTS}
    within = next(v for name, v in by_name.items() if name.startswith("λ from"))
    curve = pd.DataFrame(
        {"method": "x", "seed": 0, "metric": "m", "generation": [0, 1, 2], "fidelity": [1.0, 1.0, 0.0]}
    )
    row = pd.DataFrame({"method": ["x"], "seed": [0], "binds": ["m"], "mfi": [1.5]})
    assert within.score is not None
    # FI(λ) = 1 + (1 - λ), which over λ from 0.25 to 0.9 is 2 - 0.575 in the mean.
    assert within.score(row, curve)["mfi"].item() == pytest.approx(1.425, abs=0.01)
    assert by_name["half of the horizon, rounded up"].last(5) == 3
