"""The differences that a comparison on a task can detect, from the spread between seeds of published methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collapsebench.paths import bundled
from collapsebench.publishing.board import read_board, seed_table
from collapsebench.scoring.power import SEEDS, Detectable, Spread, detectable, spread_to
from collapsebench.scoring.table import SeedTable
from collapsebench.task import Task

BASELINE = "ce"


@dataclass(frozen=True)
class Power:
    """Differences of mFI from cross entropy that are detected with 80 % power on a task.

    Attributes:
        task: the task. spread: the spread assumed. baseline: mean mFI of cross entropy, in generations.
    """

    task: Task
    spread: Spread
    baseline: float

    def at(self, seeds: int) -> Detectable:
        """The difference that this many seeds, at least 2, can detect."""
        return detectable(self.spread.deviation, seeds, self.baseline)

    def told(self, seeds: int) -> str:
        """The same as a sentence."""
        found = self.at(seeds)
        share = "" if found.share is None else f" ({100 * found.share:.0f} % of CE's)"
        return (
            f"With {seeds} seeds, one planned comparison with CE finds a difference of {found.difference:.2f} "
            f"generations of mFI{share} with 80 % power."
        )

    def lines(self, seeds: Sequence[int] = SEEDS) -> list[str]:
        """A readable table."""
        lines = [
            f"{self.task.id}: smallest difference of mFI to CE (mFI {self.baseline:.2f}) that one planned, two-sided "
            "paired t-test at 5 % finds with 80 % power",
            "seeds  difference  of CE's mFI",
        ]
        for n in seeds:
            found = self.at(n)
            share = "n/a" if found.share is None else f"{100 * found.share:.1f} %"
            lines.append(f"{n:>5}  {found.difference:>10.2f}  {share:>11}")
        several = (
            "the only published method" if self.spread.methods == 1 else f"{self.spread.methods} published methods"
        )
        lines.append(
            f"The differences to CE are taken to vary between seeds by {self.spread.deviation:.3f}, as those of "
            f"{self.spread.of} do (of {several} the one at the upper quartile)."
        )
        return lines


def power_of(task: Task, table: SeedTable) -> Power | None:
    """Power from mFI by seed; None without CE, or without another method that shares at least two seeds with it."""
    spread, ce = spread_to(table.mfi, table.methods, BASELINE), table.row(BASELINE)
    if spread is None or ce is None:
        return None
    return Power(task, spread, float(np.nanmean(ce)))


def published_power(task: Task, folder: Path | None = None) -> Power | None:
    """Power on a task from its published entries; None if there are too few.

    Args:
        task: a calibrated task. folder: folder of submissions; None: the committed ones.
    """
    folder = bundled("submissions") if folder is None else folder
    board = read_board(folder / task.id, {task.id: task})
    return None if board.table.empty else power_of(task, seed_table(board, task.id))
