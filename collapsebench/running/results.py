"""Reads run directories into a data frame of raw metrics; no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from collapsebench.errors import UserError
from collapsebench.running.artifacts import RunDirectory
from collapsebench.scoring.fidelity import DIVERGED
from collapsebench.task import Task, load_task, registered_tasks

CALIBRATION = "calibration"
"""Folder below ``--out`` for calibration runs other than ce and the control. Nothing in it is scored."""

TUNING = "tuning"
"""Folder below ``--out`` for tuning runs. Nothing in it is scored, because its test metrics must not be looked at."""


def run_folders(directory: Path) -> list[Path]:
    """The folders ``<task>@<version>`` below a directory of runs, except those in `CALIBRATION` and `TUNING`.

    Raises:
        UserError: there are none, or `directory` is a file.
    """
    if directory.is_file():
        raise UserError(f"{directory} is a file; give the --out directory of `collapsebench compare` or `run`.")
    found = {file.parents[2] for file in directory.glob("**/seed-*/run.json")}
    folders = sorted((f for f in found if not {CALIBRATION, TUNING} & {*f.relative_to(directory).parts}), key=str)
    if not folders:
        raise UserError(f"no runs below {directory}; give the --out directory of `collapsebench compare` or `run`.")
    return folders


def cells_of(folder: Path, method_ids: Sequence[str] | None, seeds: Sequence[int] | None) -> list[dict[str, Any]]:
    """Directory, ``run.json`` and label of the cells in a task's folder; None selects all methods or seeds.

    `raw_metrics` adds their seconds and engagement.
    """
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
            cells.append(
                {"path": file.parent, "about": about, "label": about["method"]["name"], "seconds": {}, "engagement": {}}
            )
    if not cells:
        raise UserError(f"no runs in {folder}; give the --out directory of `collapsebench compare` or `run`.")
    ids_of: dict[str, set[str]] = {}
    for cell in cells:
        ids_of.setdefault(cell["label"], set()).add(cell["about"]["method"]["id"])
    for cell in cells:  # two versions of a loss file share a name but not an id
        if len(ids_of[cell["label"]]) > 1:
            cell["label"] = cell["about"]["method"]["id"]
    return cells


def task_of(folder: Path, cells: list[dict[str, Any]]) -> Task:
    """The task of these cells: the one registered under that name and version, or the task file they were run from."""
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


def raw_metrics_of(folder: Path, method_ids: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    """Every metric of every finished generation of the selected cells; columns as in `Comparison.raw`."""
    return raw_metrics(cells_of(folder, method_ids, seeds), None)


def raw_metrics(cells: list[dict[str, Any]], generations: int | None) -> pd.DataFrame:
    """Every metric of every finished generation of the given cells, up to a generation.

    Adds to the cells their seconds by phase, and their engagement by generation (None where it was not measured).
    """
    rows: list[dict[str, Any]] = []
    for cell in cells:
        store = RunDirectory(cell["path"])
        key = {"method": cell["label"], "seed": cell["about"]["seed"]}
        g = 0
        while (generations is None or g <= generations) and (state := store.state(g)) != "missing":
            if state == DIVERGED:
                rows.append({**key, "generation": g, "metric": None, "value": None, "n": None, "status": DIVERGED})
                break
            found = store.read(g, "metrics.json")
            cell["engagement"][g] = found.get("engagement")
            for metric, measured in found["metrics"].items():
                rows.append({**key, "generation": g, "metric": metric, **measured, "status": "ok"})
            for phase, seconds in store.seconds(g).items():
                cell["seconds"][phase] = cell["seconds"].get(phase, 0.0) + seconds
            g += 1
    return pd.DataFrame(rows, columns=["method", "seed", "generation", "metric", "value", "n", "status"])
