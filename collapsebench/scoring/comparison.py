"""From run directories to a comparison of methods. Everything is recomputed from the raw metrics; no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from collapsebench.artifacts import RunDirectory
from collapsebench.errors import UserError
from collapsebench.methods import CONTROL
from collapsebench.metrics.catalogue import METRICS
from collapsebench.scoring.fidelity import (
    ALL,
    DIVERGED,
    Scale,
    fidelity_curves,
    incomplete_cells,
    own_scales,
    seed_scores,
    unclipped_fidelity,
)
from collapsebench.scoring.statistics import Ratio, mean_interval, paired_ratio, rank_methods
from collapsebench.task import Task, load_task, registered_tasks

THRESHOLDS = (0.9, 0.75, 0.5)
HEADLINE = 0.75
_BASELINES = ("ce", "tce")


@dataclass(frozen=True)
class Comparison:
    """Methods compared on one task.

    Attributes:
        task: the task, with the frozen scales. folder: the task's directory of runs.
        generations: last generation G of this comparison.
        raw: every metric of every generation: method, seed, generation, metric, value, n, status.
        curves: fidelities: method, seed, generation, metric, fidelity.
        scores: per method, seed, metric (``all`` is the smallest) and threshold: fi, censored, auf.
        own_scores: the same with each method's own generation 0 as the reference.
        table: one row per method, best first, the control last.
        cells: directory, ``run.json`` and seconds per phase of every cell.
        notes: what a reader of the table must know.
    """

    task: Task
    folder: Path
    generations: int
    raw: pd.DataFrame
    curves: pd.DataFrame
    scores: pd.DataFrame
    own_scores: pd.DataFrame
    table: pd.DataFrame
    cells: list[dict[str, Any]]
    notes: list[str]

    @property
    def methods(self) -> list[str]:
        """Method names in the order of the table."""
        return list(self.table["method"])


def read_comparison(
    folder: Path,
    task: Task | None = None,
    method_ids: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    generations: int | None = None,
) -> Comparison:
    """Read cells and compare their methods.

    Args:
        folder: ``<out>/<task>@<version>``.
        task: None: the registered task of that name and version, else the one of the path in ``run.json``.
        method_ids, seeds: which cells; None: all there are.
        generations: G; None: the last generation that any cell has.

    Raises:
        UserError: the task is unknown or not calibrated, or no cell is complete.
    """
    cells = _cells(folder, method_ids, seeds)
    task = task or _task_of(folder, cells)
    scales = task_scales(task)
    raw = _raw_metrics(cells, generations)
    if raw.empty:
        raise UserError(f"{folder} has no finished generation of the cells asked for; run `collapsebench compare`.")
    last = int(raw["generation"].max()) if generations is None else generations
    notes = []
    for method, seed, reached in incomplete_cells(raw, last):
        notes.append(f"{method} seed {seed} stops at generation {reached} of {last} and is left out; run it again.")
        raw = raw[~((raw["method"] == method) & (raw["seed"] == seed))]
    if raw.empty:
        raise UserError(f"no cell in {folder} reaches generation {last}. " + " ".join(notes))
    try:
        curves = fidelity_curves(raw, scales, last)
    except ValueError as error:
        raise UserError(f"{folder} cannot be scored: {error}.") from error
    scores = seed_scores(curves, THRESHOLDS)
    own = own_scales(raw, scales)
    own_curves = [fidelity_curves(raw[raw["method"] == m], own[m], last) for m in raw["method"].unique()]
    own_scores = seed_scores(pd.concat(own_curves), THRESHOLDS)
    notes += _notes(task, raw, last, cells)
    table = _table(scores, own_scores, _first_generation_costs(raw, scales), last)
    return Comparison(task, folder, last, raw, curves, scores, own_scores, table, cells, notes)


def read_all(directory: Path) -> list[Comparison]:
    """Compare the methods of every task found below a directory of runs.

    Raises:
        UserError: there are none, or one of them cannot be scored.
    """
    folders = sorted({file.parent.parent.parent for file in directory.glob("**/seed-*/run.json")}, key=str)
    if not folders:
        raise UserError(f"no runs below {directory}; give the --out directory of `collapsebench compare` or `run`.")
    return [read_comparison(folder) for folder in folders]


def raw_metrics_of(folder: Path, method_ids: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    """Every metric of every finished generation of some cells; columns as `Comparison.raw`."""
    return _raw_metrics(_cells(folder, method_ids, seeds), None)


def task_scales(task: Task) -> dict[str, Scale]:
    """The frozen scales of a task's scored metrics.

    Raises:
        UserError: the task has not been calibrated.
    """
    if not task.calibrated:
        raise UserError(f"{task.id} is not calibrated; run `collapsebench calibrate {task.path} --write`.")
    return {
        name: Scale(float(s.reference or 0), float(s.floor or 0), METRICS[name].scale)
        for name, s in task.spec.scored.items()
    }


def _cells(folder: Path, method_ids: Sequence[str] | None, seeds: Sequence[int] | None) -> list[dict[str, Any]]:
    cells = []
    for file in sorted(folder.glob("*/seed-*/run.json")):
        try:
            about = json.loads(file.read_text("utf-8"))
            wanted = (method_ids is None or about["method"]["id"] in method_ids) and (
                seeds is None or about["seed"] in seeds
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} is damaged ({error}); delete {file.parent} and run the cell again.") from error
        if wanted:
            cells.append({"path": file.parent, "about": about, "label": about["method"]["name"], "seconds": {}})
    if not cells:
        raise UserError(f"no runs in {folder}; give the --out directory of `collapsebench compare` or `run`.")
    ids_of: dict[str, set[str]] = {}
    for cell in cells:
        ids_of.setdefault(cell["label"], set()).add(cell["about"]["method"]["id"])
    for cell in cells:  # two versions of one loss file share a name but not an id
        if len(ids_of[cell["label"]]) > 1:
            cell["label"] = cell["about"]["method"]["id"]
    return cells


def _task_of(folder: Path, cells: list[dict[str, Any]]) -> Task:
    """The task of these cells: registered under the same name and version, or at the path they were run from."""
    task_id = cells[0]["about"]["task"]["id"]
    name = task_id.split("@")[0]
    _, reduced, budget = task_id.partition("+budget-")
    for candidate in (registered_tasks().get(name), Path(cells[0]["about"]["task_file"])):
        if candidate is not None and candidate.is_file():
            task = load_task(candidate, float(budget) if reduced else 1.0)
            if task.id == task_id:
                return task
    raise UserError(
        f"the task {task_id} of {folder} is neither registered here nor at {cells[0]['about']['task_file']}; "
        "its references are needed to score."
    )


def _raw_metrics(cells: list[dict[str, Any]], generations: int | None) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for cell in cells:
        store = RunDirectory(cell["path"])
        key = {"method": cell["label"], "seed": cell["about"]["seed"]}
        g = 0
        while (generations is None or g <= generations) and (state := store.state(g)) != "missing":
            if state == DIVERGED:
                rows.append({**key, "generation": g, "metric": None, "value": None, "n": None, "status": DIVERGED})
                break
            for metric, measured in store.read(g, "metrics.json")["metrics"].items():
                rows.append({**key, "generation": g, "metric": metric, **measured, "status": "ok"})
            for phase, seconds in store.seconds(g).items():
                cell["seconds"][phase] = cell["seconds"].get(phase, 0.0) + seconds
            g += 1
    return pd.DataFrame(rows, columns=["method", "seed", "generation", "metric", "value", "n", "status"])


def _notes(task: Task, raw: pd.DataFrame, last: int, cells: list[dict[str, Any]]) -> list[str]:
    notes = []
    if task.budget != 1.0:
        notes.append(f"Only {task.budget:.3g} of the task's budget: a try-out, not to be compared with other results.")
    if last < task.spec.horizon:
        notes.append(f"Only generations 0 to {last} of {task.spec.horizon}: intervals are censored early.")
    unofficial = sorted(set(raw["seed"]) - set(task.spec.seeds))
    if unofficial:
        notes.append(f"Seeds {unofficial} are not official; the official ones are {list(task.spec.seeds)}.")
    diverged = raw[raw["status"] == DIVERGED]
    for row in diverged.itertuples():
        notes.append(f"{row.method} seed {row.seed} diverged in generation {row.generation}: fidelity 0 from there.")
    versions = {json.dumps(c["about"]["circumstances"]["packages"], sort_keys=True) for c in cells}
    devices = {(c["about"]["device"], c["about"]["circumstances"]["processor"]) for c in cells}
    if len(versions) > 1 or len(devices) > 1:
        notes.append("The cells were run with different package versions or on different machines (see run.json).")
    for baseline in _BASELINES:
        if baseline not in set(raw["method"]):
            notes.append(f"No ratio to {baseline}: it is not among the methods of this comparison.")
    return notes


def _first_generation_costs(raw: pd.DataFrame, scales: dict[str, Scale]) -> dict[str, float]:
    """Fidelity that each method gives up at generation 0: on its worst metric, mean over seeds, not clipped.

    CE's is 0 on the official seeds by definition of the reference; a method that diverges there gives up all.
    """
    first = raw[raw["generation"] == 0]
    costs = {}
    for method, mine in first.groupby("method"):
        fidelities = [
            unclipped_fidelity(mine.loc[mine["metric"] == name, "value"].to_numpy(float), scale).sum()
            for name, scale in scales.items()
        ]
        costs[str(method)] = 1.0 - float(min(fidelities)) / mine["seed"].nunique()
    return costs


def _table(scores: pd.DataFrame, own_scores: pd.DataFrame, costs: dict[str, float], last: int) -> pd.DataFrame:
    headline = scores[(scores["metric"] == ALL) & (scores["threshold"] == HEADLINE)]
    ranked = rank_methods(headline[headline["method"] != CONTROL])
    order = [*ranked, *(m for m in headline["method"].unique() if m == CONTROL)]
    per_method = {str(m): frame for m, frame in headline.groupby("method")}
    rows = []
    for method in order:
        mine = per_method[method]
        fi = mean_interval(mine["fi"].to_numpy(), mine["censored"].to_numpy())
        auf = mean_interval(mine["auf"].to_numpy(), [False] * len(mine))
        row: dict[str, Any] = {
            "rank": ranked.get(method),
            "method": method,
            "seeds": fi.n,
            "fi": fi.estimate,
            "fi_low": None if fi.low is None else max(fi.low, 0.0),  # no interval is shorter than nothing,
            "fi_high": None if fi.high is None else min(fi.high, float(last)),  # or longer than the horizon
            "fi_censored": fi.censored,
        }
        for baseline in _BASELINES:
            other = per_method.get(baseline)
            ratio = Ratio(None, None, None, 0, "none") if other is None else paired_ratio(mine, other)
            row |= {
                f"ratio_{baseline}": ratio.estimate,
                f"ratio_{baseline}_low": ratio.low,
                f"ratio_{baseline}_high": ratio.high,
                f"ratio_{baseline}_bound": ratio.bound,
                f"ratio_{baseline}_tied": ratio.tied,
            }
        row |= {
            "auf": auf.estimate,
            "auf_low": auf.low,
            "auf_high": auf.high,
            "generation_0_cost": costs[method],
            **_other_intervals(scores, own_scores, method),
        }
        rows.append(row)
    return pd.DataFrame(rows).astype({"rank": "Int64"})


def _other_intervals(scores: pd.DataFrame, own_scores: pd.DataFrame, method: str) -> dict[str, Any]:
    """Mean FI per metric at the headline threshold, over all metrics at the others, and by the own reference."""
    mine = scores[scores["method"] == method]
    found: dict[str, Any] = {}
    for threshold in THRESHOLDS:
        cell = mine[(mine["metric"] == ALL) & (mine["threshold"] == threshold)]
        if threshold != HEADLINE:
            found |= {
                f"fi_{threshold:g}": cell["fi"].mean(),
                f"fi_{threshold:g}_censored": bool(cell["censored"].any()),
            }
    for metric in sorted(set(mine["metric"]) - {ALL}):
        cell = mine[(mine["metric"] == metric) & (mine["threshold"] == HEADLINE)]
        found |= {f"fi_{metric}": cell["fi"].mean(), f"fi_{metric}_censored": bool(cell["censored"].any())}
    own = own_scores[
        (own_scores["method"] == method) & (own_scores["metric"] == ALL) & (own_scores["threshold"] == HEADLINE)
    ]
    return found | {"fi_own_reference": own["fi"].mean(), "fi_own_reference_censored": bool(own["censored"].any())}
