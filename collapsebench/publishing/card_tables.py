"""The table under *First results* in the card of every ranked task, from the committed entries.

    python -m collapsebench.publishing.card_tables [--submissions FOLDER] [--write]

prints the tables, or writes them into the cards.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from collapsebench.files import write_atomically
from collapsebench.paths import bundled
from collapsebench.publishing.board import Board, read_board
from collapsebench.publishing.findings import markdown_head, markdown_row
from collapsebench.publishing.validation import known_tasks
from collapsebench.scoring.columns import MASKS, MFI, RATIO_CE, records
from collapsebench.task import Task

HEADING = "## First results"
_ALL_SHOWN = 8  # of longer chains, generations 0, 1 and every fifth are shown
_EVERY = 5
_TABLE = re.compile(rf"(?<=^{HEADING}\n\n)(\|.*\n)+", re.MULTILINE)


def tasks_with_results(board: Board) -> list[Task]:
    """The ranked tasks that have entries, in the order of the board."""
    tasks = [board.tasks[str(name)] for name in dict.fromkeys(board.table["task"])]
    return [task for task in tasks if not task.unranked]


def lines(board: Board, task: Task) -> Iterator[str]:
    """The table as Markdown: a row per entry, with the mean fidelity in every scored metric by generation."""
    entries = board.table[board.table["task"] == task.id]
    curves = board.scores(entries["digest"]).curves
    means = curves.groupby(["method", "metric", "generation"])["fidelity"].mean()
    metrics, last = sorted(task.spec.scored), task.spec.horizon
    shown = [g for g in range(last + 1) if last <= _ALL_SHOWN or g == 1 or g % _EVERY == 0]
    when = f"0 to {last}" if len(shown) == last + 1 else ", ".join(map(str, shown))
    fidelity = ["f" if len(metrics) == 1 else f"f, {task.spec.metric(name).title}" for name in metrics]
    titles = (f"{f}, generations {when}" for f in fidelity)
    yield from markdown_head("method", MFI.header, RATIO_CE.header, *titles, MASKS.header)
    for row in records(entries):
        by_metric = [
            ", ".join(f"{value:.2f}" for value in np.asarray(means[row["method"], name])[shown]) for name in metrics
        ]
        yield markdown_row(
            f"`{row['method']}`", MFI.text(row), RATIO_CE.text(row).replace("–", ""), *by_metric, MASKS.text(row)
        )


def with_table(card: str, table: str) -> str:
    """The card with this table in the place of the one under its heading.

    Raises:
        ValueError: the card has no table there.
    """
    if not _TABLE.search(card):
        raise ValueError(f"the card has no table under {HEADING!r}")
    return _TABLE.sub(lambda _: table, card, count=1)


def main() -> None:
    """Print or write the tables."""
    parser = argparse.ArgumentParser(prog="python -m collapsebench.publishing.card_tables", description=__doc__)
    parser.add_argument("--submissions", type=Path, default=bundled("submissions"), help="folder of the entries")
    parser.add_argument("--write", action="store_true", help="write them into the cards")
    given = parser.parse_args()
    board = read_board(given.submissions, known_tasks())
    for task in tasks_with_results(board):
        table = "\n".join(lines(board, task)) + "\n"
        if not given.write:
            print(f"{task.id}\n\n{table}")
            continue
        card = task.path.with_name("card.md")
        write_atomically(card, with_table(card.read_text("utf-8"), table))


if __name__ == "__main__":
    main()
