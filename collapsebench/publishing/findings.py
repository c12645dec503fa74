"""What the ranked tasks show about TCE and focal loss, task by task.

    python -m collapsebench.publishing.findings [--submissions FOLDER]

prints the first two tables of ``docs/results.md``, from the committed entries of all ranked tasks.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from collapsebench.paths import bundled
from collapsebench.publishing.board import Board, read_board
from collapsebench.publishing.validation import known_tasks
from collapsebench.scoring.columns import MASKS, RATIO_CE, START, records
from collapsebench.scoring.fidelity import ALL
from collapsebench.scoring.statistics import paired_ratio, paired_t, two_sided_p
from collapsebench.scoring.table import HEADLINE
from collapsebench.task import Task

SHOWN = ("tce", "focal")
COLUMNS = (RATIO_CE, START, MASKS)
FI = f"fi_{HEADLINE:g}"


def lines(board: Board) -> Iterator[str]:
    """The table as Markdown: a row per ranked task on which ce and the shown methods have entries."""
    titles = (f"{name}: {column.header}" for name in SHOWN for column in COLUMNS)
    yield from markdown_head("task", "policy", "CE, mFI / G", *titles)
    for task, rows in _tasks(board):
        shown = [column.text(rows[name]) for name in SHOWN for column in COLUMNS]
        yield markdown_row(task.id, task.spec.policy.name, f"{rows['ce']['mfi'] / task.spec.horizon:.2f}", *shown)


def behind(board: Board) -> Iterator[str]:
    """What the signs hide, per task: the largest ratio that mFI allows, p before correction, and ratios of FI(0.75)."""
    titles = (f"{name}: {of}" for name in SHOWN for of in ("p, uncorrected", f"FI({HEADLINE:g}), ratio to CE"))
    yield from markdown_head("task", "seeds", "G / mFI of CE", *titles)
    for task, rows in _tasks(board):
        scores = board.scores([rows[name]["digest"] for name in ("ce", *SHOWN)]).scores
        scores = scores[scores["metric"] == ALL].pivot(index="seed", columns="method")
        tests = [text for name in SHOWN for text in (_p(scores, name), _fi(scores, name))]
        yield markdown_row(task.id, str(len(scores)), f"{task.spec.horizon / rows['ce']['mfi']:.2f}", *tests)


def markdown_head(*titles: str) -> tuple[str, str]:
    """The first two lines of a table in Markdown."""
    return markdown_row(*titles), "|" + "---|" * len(titles)


def markdown_row(*cells: str) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def _tasks(board: Board) -> Iterator[tuple[Task, Mapping[str, dict[str, Any]]]]:
    """The ranked tasks on which ce and the shown methods have entries, each with its rows by method."""
    for task_id in dict.fromkeys(board.table["task"]):
        task = board.tasks[str(task_id)]
        rows = {row["method"]: row for row in records(board.table[board.table["task"] == task_id])}
        if not task.unranked and {"ce", *SHOWN} <= rows.keys():
            yield task, rows


def _p(scores: pd.DataFrame, name: str) -> str:
    """The two-sided p-value of the paired test of mFI against CE, of this one comparison."""
    ours, theirs = (scores["mfi"][method].to_numpy() for method in (name, "ce"))
    p = float(two_sided_p(*paired_t(ours[None], theirs))[0])
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _fi(scores: pd.DataFrame, name: str) -> str:
    """The ratio of FI(0.75), paired by seed; ≥ where the method never fell below in some seed."""
    if scores[f"{FI}_censored"]["ce"].any():
        return "–"
    found = paired_ratio(scores[FI][name].to_numpy(), scores[FI]["ce"].to_numpy())
    if found.estimate is None:  # below the threshold from the start: a geometric mean of nothing
        return "0" if scores[FI]["ce"].all() and not scores[FI][name].any() else "–"
    if scores[f"{FI}_censored"][name].any():
        return f"≥ {found.estimate:.2f}"
    if found.low is None or found.high is None:  # one seed
        return f"{found.estimate:.2f}"
    return f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m collapsebench.publishing.findings", description=__doc__)
    parser.add_argument("--submissions", type=Path, default=bundled("submissions"), help="folder of the entries")
    board = read_board(parser.parse_args().submissions, known_tasks())
    print("\n".join([*lines(board), "", *behind(board)]))


if __name__ == "__main__":
    main()
