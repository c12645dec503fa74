"""What a comparison of methods has, whether its task has references or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from collapsebench.publishing.entries import Entry
from collapsebench.task import Task


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Methods compared on one task.

    Attributes:
        task: the task. folder: its directory of runs.
        generations: last generation G of this comparison.
        raw: every metric of every generation: method, seed, generation, metric, value, n, status.
        engagement: of the same cells, where it was measured: method, seed, generation, metric, value.
        table: what was compared, with a column ``method``.
        cells: directory, ``run.json`` and seconds per phase of every cell that was run here.
        notes: what a reader of the table must know.
        published: submissions whose curves are shown beside those of the cells.
    """

    task: Task
    folder: Path
    generations: int
    raw: pd.DataFrame
    engagement: pd.DataFrame
    table: pd.DataFrame
    cells: list[dict[str, Any]]
    notes: list[str]
    published: tuple[Entry, ...] = ()

    @property
    def methods(self) -> list[str]:
        """Method names in the order of the table."""
        return list(self.table["method"].unique())

    @property
    def seeds(self) -> list[int]:
        """The seeds of all methods."""
        return sorted({int(seed) for seed in self.raw["seed"]})

    @property
    def is_part(self) -> bool:
        """Whether only a part of the task was run: of its budget or of its generations."""
        return self.task.budget != 1.0 or self.generations < self.task.spec.horizon

    def shown_name(self, method: str) -> str:
        """What tables call a method: published results are marked."""
        names = {entry.name for entry in self.published}
        return f"{method} (published)" if method in names else method
