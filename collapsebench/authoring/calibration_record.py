"""The record of a calibration, stored in ``calibration.json`` next to the task file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field, ValidationError

from collapsebench.errors import TaskError
from collapsebench.files import write_atomically
from collapsebench.frozen import Frozen
from collapsebench.metrics.scored import Scored
from collapsebench.scoring.fidelity import Scale
from collapsebench.scoring.scales import scale_of
from collapsebench.task import CALIBRATION_FILE, PROCESSOR_FILE, Task
from collapsebench.task_files import own_file
from collapsebench.task_spec import TaskSpec

CONFIDENT = "confident_elements"
"""Listed among the metrics: the share of training elements with p > 0.9 (`collapsebench.scoring.engagement`)."""


class Values(Frozen):
    """The values of a raw metric of one cell, from generation 0 on."""

    method: str
    seed: int
    metric: str
    values: tuple[float, ...]


class Tried(Frozen):
    """A setting of the grid: learning rate and length of training, and the selection metric at generation 0.

    Attributes:
        rate, length: factors relative to the task's settings. learning_rate: the rate itself.
        epochs, updates: the length itself, in the task's own unit.
        values: one per seed, in the order of `Grid.seeds`; None where it diverged.
    """

    rate: float
    length: float
    learning_rate: float
    epochs: int | None = None
    updates: int | None = None
    values: tuple[float | None, ...] = ()


class Grid(Frozen):
    """The settings around the chosen one, which is included.

    Attributes:
        metric: metric on the selection split. seeds: seeds of the cells that were run.
    """

    metric: str
    seeds: tuple[int, ...]
    tried: tuple[Tried, ...]


class Seconds(Frozen):
    """Wall time of a cell by phase."""

    method: str
    seed: int
    phases: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.phases.values())


class Rule(Frozen):
    """A rule of a ranked task, whether the task meets it, and its numbers in a sentence."""

    rule: str
    kept: bool
    told: str

    def __str__(self) -> str:
        return f"{'kept  ' if self.kept else 'BROKEN'}  {self.told}"


class Curve(Frozen):
    """Fidelity of one method in one metric and generation: mean over seeds, not clipped."""

    method: str
    metric: str
    generation: int
    fidelity: float


class Record(Frozen):
    """All measurements of a calibration, and the results derived from them.

    Attributes:
        task: id of the task. sha256, data_sha256: digests of its settings and of the data prepared from it.
        circumstances: circumstances of the cells, as in ``run.json``: versions, machine, commit.
        scored: reference and floor of every scored metric.
        floors: floor of every calibrated metric, before rounding. base: metrics of the untouched base model, by seed;
            one value if two seeds agree to the last bit; empty without a base model.
        unseen: values of ce's generation 0 on later generations' data, by seed, for the metrics with this floor.
        values: values of ce and the control. grid: the grid around ce's settings; None: not run, or there is no
            selection metric.
        rules: outcome of every rule. curves: curves for the picture and the site.
    """

    schema_version: Literal[2] = 2
    task: str
    sha256: str
    data_sha256: str
    circumstances: tuple[dict[str, Any], ...]
    scored: dict[str, Scored]
    floors: dict[str, float]
    base: dict[str, tuple[float, ...]]
    unseen: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    values: tuple[Values, ...]
    grid: Grid | None = None
    seconds: tuple[Seconds, ...]
    rules: tuple[Rule, ...] = ()
    curves: tuple[Curve, ...] = ()

    def frame(self) -> pd.DataFrame:
        """The values in long format: method, seed, metric, generation, value."""
        rows = [(v.method, v.seed, v.metric, g, x) for v in self.values for g, x in enumerate(v.values)]
        return pd.DataFrame(rows, columns=["method", "seed", "metric", "generation", "value"])

    def scales(self, spec: TaskSpec) -> dict[str, Scale]:
        """The scales of the scored metrics."""
        return {name: scale_of(scored, spec.metric(name)) for name, scored in self.scored.items()}

    def write(self, folder: Path) -> Path:
        """Write the record next to a task file, with one table row per line."""
        file = folder / CALIBRATION_FILE
        content = self.model_dump(mode="json", exclude_none=True)
        parts = [f' "{key}": {_laid_out(value)}' for key, value in content.items()]
        write_atomically(file, "{\n" + ",\n".join(parts) + "\n}\n")
        return file


def read_record(task: Task) -> Record:
    """Read the record committed next to a task file.

    Raises:
        TaskError: there is no record, or it is invalid.
    """
    file = own_file(task.path, CALIBRATION_FILE)
    remedy = f"Measure it: collapsebench calibrate {task.argument} --write."
    if not file.is_file():
        raise TaskError(f"{task.id} has no {CALIBRATION_FILE} beside {task.path}. {remedy}")
    try:
        return Record.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "content"
        raise TaskError(f"{file} is not what this version writes ({place}: {first['msg']}). {remedy}") from error


def processor_rules(task: Task) -> list[Rule]:
    """Rules from a task's committed processor test (`collapsebench.authoring.processor_test`); empty without one.

    Raises:
        TaskError: the test was made with other settings.
    """
    file = own_file(task.path, PROCESSOR_FILE)
    if not file.is_file():
        return []
    content = json.loads(file.read_text("utf-8"))
    if content["sha256"] != task.sha256:
        raise TaskError(f"{file} is of other settings of {task.id}; run the test again, or remove the file.")
    return [Rule.model_validate(rule) for rule in content["rules"]]


def _laid_out(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in value) + "\n ]"
    return json.dumps(value, ensure_ascii=False)
