"""Methods compared on raw metrics, where a task has no references yet: no fidelity, no score, no rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from collapsebench.methods import CONTROL
from collapsebench.reports.compared import Compared
from collapsebench.reports.comparison import complete_cells, engagement_of, measured_metrics, notes_on_runs
from collapsebench.reports.raw_numbers import BASELINE
from collapsebench.running.results import cells_of
from collapsebench.scoring.fidelity import DIVERGED, Array
from collapsebench.scoring.statistics import NOTHING, Estimate, mean_interval, paired_difference
from collapsebench.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class RawComparison(Compared):
    """Methods compared on one task without a scale; nothing is ranked.

    Attributes:
        metrics: those of the table: the task's scored ones that were measured, or all that have a direction.
        table: one row per metric and method: ``metric``, ``method``, ``seeds``; of the metric, means over seeds with
            Student t intervals ``_low`` and ``_high``: ``first`` (generation 0), ``last`` (generation G) and
            ``difference_ce`` (``last`` minus that of ce, paired by seed). No number if a seed has diverged. ce comes
            first, the control last.
    """

    metrics: tuple[str, ...]

    def to_pandas(self) -> pd.DataFrame:
        """A copy of the table."""
        return self.table.copy()

    def plot(self) -> Figure:
        """A matplotlib figure of the metrics by generation."""
        from collapsebench.reports.plots import raw_figure

        return raw_figure(self)

    def report(self, folder: str | Path | None = None) -> Path:
        """Write the report and the files beside it, and return the path of ``report.html``.

        Args:
            folder: where to; None: the task's directory of runs.
        """
        from collapsebench.reports.raw_report import write_raw_report

        paths = write_raw_report(self, None if folder is None else Path(folder))
        return next(path for path in paths if path.name == "report.html")

    def _repr_html_(self) -> str:
        """What a notebook shows: what was measured, the table, the curves."""
        from collapsebench.reports.raw_page import raw_notebook_page

        return raw_notebook_page(self)


def read_raw_comparison(
    folder: Path,
    task: Task,
    method_ids: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    generations: int | None = None,
) -> RawComparison:
    """Read cells of a task without references and compare their methods on raw metrics.

    Arguments and errors as in `collapsebench.reports.comparison.read_comparison`.
    """
    cells = cells_of(folder, method_ids, seeds)
    raw = measured_metrics(folder, cells, generations)
    last = int(raw["generation"].max()) if generations is None else generations
    raw, notes = complete_cells(folder, raw, last)
    metrics = _compared_metrics(task, raw)
    notes += _notes(task, raw, last, metrics) + notes_on_runs(task, raw, cells)
    table = _table(raw, metrics, last)
    return RawComparison(
        task=task, folder=folder, generations=last, raw=raw, engagement=engagement_of(raw, cells), table=table,
        cells=cells, notes=notes, metrics=metrics,
    )  # fmt: skip


def _in_order(methods: pd.Series) -> list[str]:
    """Different methods: ce first, the control last, the others by name."""
    return sorted({str(m) for m in methods}, key=lambda m: (m == CONTROL, m != BASELINE, m))


def _compared_metrics(task: Task, raw: pd.DataFrame) -> tuple[str, ...]:
    there = set(raw["metric"])
    scored = tuple(name for name in task.spec.scored if name in there)
    return scored or tuple(n for n in task.spec.metrics if n in there and task.spec.metric(n).direction)


def _table(raw: pd.DataFrame, metrics: Sequence[str], last: int) -> pd.DataFrame:
    methods, seeds = _in_order(raw["method"]), sorted(set(raw["seed"]))
    ran = {m: np.isin(seeds, list(set(raw.loc[raw["method"] == m, "seed"]))) for m in methods}
    rows = []
    for metric in metrics:
        values = {m: [_by_seed(raw, m, metric, g, seeds) for g in (0, last)] for m in methods}
        for method in methods:
            first, final = values[method]
            here = ran[method]
            row: dict[str, Any] = {"metric": metric, "method": method, "seeds": int(here.sum())}
            row |= _interval("first", _mean(first[here])) | _interval("last", _mean(final[here]))
            difference = NOTHING
            if BASELINE in methods and method != BASELINE:
                both = here & ran[BASELINE]
                ours, theirs = final[both], values[BASELINE][1][both]
                if not np.isnan(ours - theirs).any():
                    difference = paired_difference(ours, theirs)
            rows.append(row | _interval("difference_ce", difference))
    return pd.DataFrame(rows)


def _by_seed(raw: pd.DataFrame, method: str, metric: str, generation: int, seeds: Sequence[int]) -> Array:
    """Values by seed; NaN where there is none, or none that is finite."""
    chosen = (raw["method"] == method) & (raw["metric"] == metric) & (raw["generation"] == generation)
    found = dict(zip(raw.loc[chosen, "seed"], raw.loc[chosen, "value"].astype(float), strict=True))
    values = np.array([found.get(seed, np.nan) for seed in seeds], dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _mean(values: Array) -> Estimate:
    return NOTHING if np.isnan(values).any() else mean_interval(values)


def _interval(name: str, found: Estimate) -> dict[str, float | None]:
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _notes(task: Task, raw: pd.DataFrame, last: int, metrics: Sequence[str]) -> list[str]:
    notes = [
        f"{task.id} is not calibrated: raw metrics are compared, and nothing is scored or ranked. `collapsebench "
        f"calibrate {task.shown_argument} --write` measures its references."
    ]
    absent = [name for name in task.spec.scored if name not in metrics]
    if absent:
        notes.append(f"Not measured here: {', '.join(absent)}.")
    if last < task.spec.horizon:
        notes.append(f"Only generations 0 to {last} of {task.spec.horizon}.")
    for row in raw[raw["status"] == DIVERGED].itertuples():
        notes.append(f"{row.method} seed {row.seed} diverged in generation {row.generation}: it has no number there.")
    return notes
