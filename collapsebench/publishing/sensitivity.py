"""How much ranks depend on choices in the score: reference, floor, range of λ, minimum over metrics, horizon.

    python -m collapsebench.publishing.sensitivity [--submissions FOLDER]

prints the tables of ``docs/results.md``, from the committed entries of all ranked tasks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from collapsebench.paths import bundled
from collapsebench.publishing.board import Board, read_board
from collapsebench.publishing.submission import raw_frame
from collapsebench.publishing.validation import known_tasks
from collapsebench.scoring.cells import fidelity_cells
from collapsebench.scoring.columns import RANK, records
from collapsebench.scoring.fidelity import ALL, Scale, non_increasing
from collapsebench.scoring.scales import task_scales
from collapsebench.scoring.seed_scores import seed_scores
from collapsebench.scoring.table import ranked_table
from collapsebench.task import Task

MOVED = 0.1  # share of the distance between floor and reference
LAMBDAS = (0.25, 0.9)
_STEPS = 200  # points between two generations, for areas within a range of λ
_SAME = "nothing"
_SIGNS = {"better": "▲", "worse": "▼", "tied": "≈"}

Scales = dict[str, Scale]


@dataclass(frozen=True)
class Variant:
    """A variant of the score.

    Attributes:
        name: name for display. scales: from the task's scales to those of the variant. last: from the task's G to that
            of the variant.
        score: from the standard scores to those of the variant; None: unchanged.
    """

    name: str
    scales: Callable[[Scales], Scales] = dict
    last: Callable[[int], int] = int
    score: Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame] | None = None


def _moved(end: str, factor: float) -> Callable[[Scales], Scales]:
    """Move the reference or floor by a share of the distance between them, in terms of fidelity."""

    def moved(scales: Scales) -> Scales:
        found = {}
        for name, scale in scales.items():
            low = np.log(scale.floor) if scale.kind == "log" else scale.floor
            references = np.array((scale.reference, *scale.later))
            highs = np.log(references) if scale.kind == "log" else references
            if end == "floor":
                low = low + factor * (highs[0] - low)
            else:
                highs = highs + factor * (highs - low)
            first, *later = np.exp(highs) if scale.kind == "log" else highs
            floor = float(np.exp(low)) if scale.kind == "log" else float(low)
            found[name] = Scale(float(first), floor, scale.kind, tuple(map(float, later)))
        return found

    return moved


def _mean_over_metrics(scores: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
    """mFI as the mean over metrics instead of the smallest."""
    each = scores[scores["metric"] != ALL]
    mean = each.groupby(["method", "seed"])["mfi"].mean()
    keys = pd.MultiIndex.from_frame(scores[["method", "seed"]])
    return scores.assign(mfi=np.where(scores["metric"] == ALL, mean.reindex(keys).to_numpy(), scores["mfi"]))


def _within_lambdas(scores: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """FI(λ) averaged over only a part of the range of λ, in the binding metric."""
    low, high = LAMBDAS
    found = {}
    for key, curve in curves.groupby(["method", "seed", "metric"]):
        fitted = non_increasing(curve.sort_values("generation")["fidelity"].to_numpy(float))
        at = np.linspace(0, len(fitted) - 1, _STEPS * (len(fitted) - 1) + 1)
        height = np.clip((np.interp(at, np.arange(len(fitted)), fitted) - low) / (high - low), 0, 1)
        found[key] = float(np.trapezoid(height, at))
    values = [found[key] for key in zip(scores["method"], scores["seed"], scores["binds"], strict=True)]
    return scores.assign(mfi=values)


VARIANTS = (
    Variant("as the board scores"),
    Variant(f"reference {MOVED:.0%} further from the floor", _moved("reference", MOVED)),
    Variant(f"reference {MOVED:.0%} nearer", _moved("reference", -MOVED)),
    Variant(f"floor {MOVED:.0%} further from the reference", _moved("floor", -MOVED)),
    Variant(f"floor {MOVED:.0%} nearer", _moved("floor", MOVED)),
    Variant(f"λ from {LAMBDAS[0]} to {LAMBDAS[1]} alone", score=_within_lambdas),
    Variant("mean over metrics, not the smallest", score=_mean_over_metrics),
    Variant("half of the horizon, rounded up", last=lambda last: (last + 1) // 2),
)


def scored(board: Board, task: Task, variant: Variant) -> pd.DataFrame:
    """The ranked table of a task's entries under one variant of the score."""
    entries = board.table[board.table["task"] == task.id]
    last = variant.last(task.spec.horizon)
    labels = {digest: board.label(digest) for digest in entries["digest"]}
    raw = pd.concat([raw_frame(board.entries[d].submission, label) for d, label in labels.items()])
    cells = fidelity_cells(raw[raw["generation"] <= last], variant.scales(dict(task_scales(task))), last)
    scores = seed_scores(cells)
    if variant.score is not None:
        scores = variant.score(scores, cells.frame())
    tracks = {labels[row.digest]: str(row.track) for row in entries.itertuples()}
    return ranked_table(scores, last, tracks)


@dataclass(frozen=True)
class Row:
    """A ranked task under one variant of the score.

    Attributes:
        told: mFI / G of every method and its verdict against CE, best first. changes: in comparison with the board.
    """

    task: str
    variant: str
    told: str
    changes: str


def rows(board: Board) -> Iterator[Row]:
    """All ranked tasks under all variants; of every task, the first row is what the board shows."""
    for task_id in dict.fromkeys(board.table["task"]):
        task = board.tasks[str(task_id)]
        if task.unranked:
            continue
        before: dict[str, tuple[str, str]] | None = None
        for variant in VARIANTS:
            if variant.name.startswith("mean over") and len(task.spec.scored) == 1:
                continue
            last = variant.last(task.spec.horizon)
            found = records(scored(board, task, variant))
            standing = {row["method"]: (_SIGNS.get(row["verdict_ce"], ""), RANK.text(row)) for row in found}
            told = ", ".join(
                f"{row['method']} {row['mfi'] / last:.2f} {standing[row['method']][0]}".rstrip() for row in found
            )
            before = before or standing
            yield Row(task.id, variant.name, told, _changes(before, standing))


def lines(board: Board) -> Iterator[str]:
    """Two tables as Markdown: what changes per task, and, folded, every task under every variant."""
    found = list(rows(board))
    yield "| task | mFI / G as the board scores, and against CE | what the variants change |"
    yield "|---|---|---|"
    for task in dict.fromkeys(row.task for row in found):
        first, *others = (row for row in found if row.task == task)
        moved = [f"{row.variant}: {row.changes}" for row in others if row.changes != _SAME]
        yield f"| {task} | {first.told} | {'<br>'.join(moved) or f'{_SAME}, in all {len(others)}'} |"
    yield from ("", "<details><summary>Every task under every variant</summary>", "")
    yield "| task | scored | mFI / G, and against CE | what changes |"
    yield "|---|---|---|---|"
    yield from (f"| {row.task} | {row.variant} | {row.told} | {row.changes} |" for row in found)
    yield from ("", "</details>")


def _changes(before: dict[str, tuple[str, str]], now: dict[str, tuple[str, str]]) -> str:
    """Which verdicts against CE, ranks and places in the order are others than before."""
    moved = [f"{name}: {sign} → {now[name][0]}" for name, (sign, _) in before.items() if now[name][0] != sign]
    moved += [f"{name}: rank {rank} → {now[name][1]}" for name, (_, rank) in before.items() if now[name][1] != rank]
    order = "" if list(before) == list(now) else "the order of the means"
    return "; ".join([*moved, *([order] if order else [])]) or _SAME


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m collapsebench.publishing.sensitivity", description=__doc__)
    parser.add_argument("--submissions", type=Path, default=bundled("submissions"), help="folder of the entries")
    given = parser.parse_args()
    print("\n".join(lines(read_board(given.submissions, known_tasks()))))


if __name__ == "__main__":
    main()
