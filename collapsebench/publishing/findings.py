"""What the ranked tasks show about TCE and focal loss, task by task.

    python -m collapsebench.publishing.findings [--submissions FOLDER]

prints the first table of ``docs/results.md``, from the committed entries of all ranked tasks.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from collapsebench.paths import bundled
from collapsebench.publishing.board import Board, read_board
from collapsebench.publishing.validation import known_tasks
from collapsebench.scoring.columns import MASKS, RATIO_CE, START, records

SHOWN = ("tce", "focal")
COLUMNS = (RATIO_CE, START, MASKS)


def lines(board: Board) -> Iterator[str]:
    """The table as Markdown: a row per ranked task on which ce and the shown methods have entries."""
    titles = ["task", "policy", "CE, mFI / G", *(f"{name}: {column.header}" for name in SHOWN for column in COLUMNS)]
    yield f"| {' | '.join(titles)} |"
    yield "|" + "---|" * len(titles)
    for task_id in dict.fromkeys(board.table["task"]):
        task = board.tasks[str(task_id)]
        rows = {row["method"]: row for row in records(board.table[board.table["task"] == task_id])}
        if not task.unranked and {"ce", *SHOWN} <= rows.keys():
            shown = [column.text(rows[name]) for name in SHOWN for column in COLUMNS]
            share = f"{rows['ce']['mfi'] / task.spec.horizon:.2f}"
            yield f"| {' | '.join([task.id, task.spec.policy.name, share, *shown])} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m collapsebench.publishing.findings", description=__doc__)
    parser.add_argument("--submissions", type=Path, default=bundled("submissions"), help="folder of the entries")
    print("\n".join(lines(read_board(parser.parse_args().submissions, known_tasks()))))


if __name__ == "__main__":
    main()
