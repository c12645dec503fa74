"""Measures σ, the scale of log p of a diffusion task, on CE's generation 0 before anything else is calibrated."""

from __future__ import annotations

import math
import re
from pathlib import Path

from collapsebench.errors import RunError
from collapsebench.files import write_atomically
from collapsebench.running.cells import Cell
from collapsebench.running.plan import plan
from collapsebench.running.results import CALIBRATION, raw_metrics_of
from collapsebench.task import Task


def sigma_cells(task: Task, out: Path, device: str) -> list[Cell]:
    """The cells to run before a task without a log p scale can be calibrated, i.e. CE's generation 0; otherwise none.

    CE's own training does not depend on σ beyond rounding. So these cells run without it, in a separate directory, and
    later again with it.
    """
    if task.spec.kind.unmeasured(task.spec.workload) is None:
        return []
    return plan(task, ["ce"], task.spec.seeds, out / CALIBRATION / "sigma", 0, device)


def write_sigma(cells: list[Cell]) -> float:
    """Write the scale of log p into the task file: CE's mean over seeds of its metric, with four digits.

    Raises:
        RunError: CE diverged, or the task file has no line like ``sigma: null``.
    """
    task = cells[0].task
    scale = task.spec.kind.scale
    assert scale is not None
    raw = raw_metrics_of(cells[0].out / task.id, ["ce"], task.spec.seeds)
    sigma = float(f"{raw.loc[raw['metric'] == scale.metric, 'value'].astype(float).mean():.4g}")
    text, n = re.subn(
        rf"(?m)^(\s+){scale.setting}: null",
        lambda found: f"{found[1]}{scale.setting}: {sigma!r}",
        task.path.read_text("utf-8"),
    )
    if n != 1 or not math.isfinite(sigma):
        raise RunError(
            f"{task.path}: {scale.setting} was not measured, or there is no line `{scale.setting}: null` to write it "
            "to."
        )
    write_atomically(task.path, text)
    return sigma
