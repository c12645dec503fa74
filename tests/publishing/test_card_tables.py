"""The tables of first results: the cards have what the command prints, and it changes nothing else of a card."""

from __future__ import annotations

import sys

import pytest

from collapsebench.paths import bundled
from collapsebench.publishing import card_tables
from collapsebench.publishing.board import Board, read_board
from collapsebench.publishing.card_tables import HEADING, lines, tasks_with_results, with_table
from collapsebench.publishing.submission import raw_frame
from collapsebench.publishing.validation import known_tasks

CARD = f"# x\n\n| not | this |\n\n{HEADING}\n\n| old |\n|---|\n| 1 |\n\nText.\n\n| nor | this |\n"


@pytest.fixture(scope="module")
def board() -> Board:
    return read_board(bundled("submissions"), known_tasks())


def test_cards_have_the_tables_that_the_command_prints(board: Board) -> None:
    tasks = tasks_with_results(board)
    assert len(tasks) >= 7
    for task in tasks:
        card = task.path.with_name("card.md").read_text("utf-8")
        assert with_table(card, "\n".join(lines(board, task)) + "\n") == card, task.id


def test_a_table_has_the_mean_of_every_scored_metric_by_generation(board: Board) -> None:
    """Against the raw metrics, by hand: the rare mass is a share, so its fidelity is its ratio to the reference."""
    task = board.tasks["markov-micro@2"]
    digest = board.table[(board.table["task"] == task.id) & (board.table["method"] == "ce")]["digest"].item()
    raw = raw_frame(board.entries[digest].submission, "ce")
    last = raw[(raw["metric"] == "rare_mass") & (raw["generation"] == task.spec.horizon)]["value"]
    reference = task.spec.scored["rare_mass"].reference
    assert reference is not None
    assert len(last) == 30
    row = next(line for line in lines(board, task) if line.startswith("| `ce`"))
    assert f", {last.mean() / reference:.2f} |" in row


def test_only_the_table_under_the_heading_is_replaced() -> None:
    assert with_table(CARD, "| new |\n") == CARD.replace("| old |\n|---|\n| 1 |\n", "| new |\n")
    with pytest.raises(ValueError, match="no table under '## First results'"):
        with_table("# x\n\n| not | this |\n", "| new |\n")


def test_the_command_prints_every_table(
    board: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["card_tables"])
    card_tables.main()
    out = capsys.readouterr().out
    for task in tasks_with_results(board):
        assert "\n".join([task.id, "", *lines(board, task), ""]) in out
