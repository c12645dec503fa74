"""Checks that cross entropy is well tuned, with learning rates and training lengths around the chosen ones.

Every setting is a separate task in its own directory, but with the id of the original task. Randomness depends on the
id, so the settings are compared on the same weights, data and order. Only generation 0 is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from collapsebench.authoring.calibration_record import Grid, Tried
from collapsebench.authoring.floors import selection_metric
from collapsebench.files import write_atomically
from collapsebench.running.cells import Cell
from collapsebench.running.plan import plan
from collapsebench.running.progress import Event, Listener
from collapsebench.running.results import CALIBRATION, cells_of, raw_metrics
from collapsebench.scoring.fidelity import DIVERGED
from collapsebench.task import Task, load_task
from collapsebench.task_files import EXTENDS, as_yaml

FACTORS = (0.5, 1.0, 2.0)
SEEDS = 3


def settings_around(task: Task) -> list[Tried]:
    """The chosen setting and those around it, without duplicates and without values."""
    stage = _stage(task)
    epochs = getattr(stage, "epochs", None)
    found: dict[tuple[float, int], Tried] = {}
    for rate, length in product(FACTORS, FACTORS):
        tried = Tried(
            rate=rate,
            length=length,
            learning_rate=rate * stage.learning_rate,
            epochs=_times(epochs, length),
            updates=_times(stage.updates, length) if epochs is None else None,
        )
        key = (tried.learning_rate, tried.epochs or tried.updates or 0)
        if key not in found or length == 1.0:  # half of one epoch is one epoch
            found[key] = tried
    return list(found.values())


def _stage(task: Task) -> Any:
    """The part of the section with the training settings of generation 0."""
    training = task.spec.workload.training
    return getattr(training, "first", training)


def _times(length: int | None, factor: float) -> int | None:
    """Multiply a length by a factor, and round halves up: half of three epochs is two."""
    return None if length is None else max(1, math.floor(factor * length + 0.5))


def grid_cells(task: Task, out: Path, device: str) -> list[Cell]:
    """The cells of all settings except the chosen one, whose cells are the task's own."""
    cells = []
    for tried in settings_around(task):
        if (tried.rate, tried.length) != (1.0, 1.0):
            folder = _folder(out, tried)
            variant = load_task(_written(task, tried, folder), task.budget, task.resources)
            cells += plan(variant, ["ce"], task.spec.seeds[:SEEDS], folder, 0, device)
    return cells


def _folder(out: Path, tried: Tried) -> Path:
    return out / CALIBRATION / "grid" / f"rate-{tried.rate:g}-length-{tried.length:g}"


def _written(task: Task, tried: Tried, folder: Path) -> Path:
    """Write the task file of a setting, as a member of the task's family."""
    said = tried.model_dump(include={"learning_rate", "epochs", "updates"}, exclude_none=True)
    nested = {"first": said} if hasattr(task.spec.workload.training, "first") else said
    content = {
        EXTENDS: str(task.path),
        "name": task.spec.name,
        "version": task.spec.version,
        "title": f"Learning rate times {tried.rate:g}, length times {tried.length:g}",
        "workload": {"training": nested},
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "task.yaml"
    write_atomically(file, as_yaml(content))
    return file


def read_grid(task: Task, out: Path, floors: Collection[str]) -> Grid | None:
    """Read the grid from finished cells; None if the selection metric does not exist or has no floor."""
    metric = selection_metric(task)
    if metric is None or metric not in floors:
        return None
    seeds = task.spec.seeds[:SEEDS]
    tried = []
    for setting in settings_around(task):
        chosen = (setting.rate, setting.length) == (1.0, 1.0)
        values = _values(out if chosen else _folder(out, setting), task.id, metric, seeds)
        tried.append(setting.model_copy(update={"values": values}))
    return Grid(metric=metric, seeds=seeds, tried=tuple(tried))


def _values(out: Path, task_id: str, metric: str, seeds: Sequence[int]) -> tuple[float | None, ...]:
    raw = raw_metrics(cells_of(out / task_id, ["ce"], seeds), 0)
    ended = raw[raw["status"] == DIVERGED]["seed"].tolist()
    by_seed = raw[raw["metric"] == metric].set_index("seed")["value"]
    return tuple(None if seed in ended else float(by_seed[seed]) for seed in seeds)


def counting(cells: Sequence[Cell], told: Callable[[int, int], None]) -> Listener:
    """A listener that counts cells, for cells that share a name and whose bars would look the same."""

    def listener(event: Event) -> None:
        if event.phase in ("complete", "reused", "diverged"):
            told(1, len(cells))

    return listener
