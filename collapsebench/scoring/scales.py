"""The frozen scales of a task, and raw metrics scored on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from collapsebench.scoring.fidelity import Scale
from collapsebench.scoring.table import Scores, score_methods

if TYPE_CHECKING:
    from collapsebench.metrics.catalogue import Metric
    from collapsebench.metrics.scored import Scored
    from collapsebench.task import Task


def task_scales(task: Task) -> dict[str, Scale]:
    """The frozen scales of a task's scored metrics.

    Raises:
        TaskError: the task has not been calibrated, or on other settings.
    """
    task.require_scale()
    return {name: scale_of(scored, task.spec.metric(name)) for name, scored in task.spec.scored.items()}


def scale_of(scored: Scored, metric: Metric) -> Scale:
    """The scale of a metric that has been measured."""
    assert scored.reference is not None
    assert scored.floor is not None
    return Scale(scored.reference, scored.floor, metric.scale, scored.later or ())


def score_raw(task: Task, raw: pd.DataFrame) -> Scores:
    """Score raw metrics on the task's scales over its whole horizon."""
    return score_methods(raw, task_scales(task), task.spec.horizon)
