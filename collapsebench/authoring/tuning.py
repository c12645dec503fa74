"""Tunes a method: compares its parameters on the selection split, on seeds that no entry uses.

Test metrics of these runs are on disk as for all runs, but nothing reads them. The budget spent is counted from the
runs on disk, so settings that were tried and discarded count as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from collapsebench.authoring.floors import measured_floors, selection_metric
from collapsebench.errors import UserError
from collapsebench.methods import CONTROL
from collapsebench.running.plan import plan
from collapsebench.running.results import TUNING, cells_of, raw_metrics
from collapsebench.running.tuning_runs import LIMIT, named, tuning_runs
from collapsebench.scoring.columns import Row
from collapsebench.scoring.engagement import engagement_frame, masked_gradients
from collapsebench.scoring.fidelity import Scale
from collapsebench.scoring.statistics import NOTHING, mean_interval, paired_difference
from collapsebench.scoring.table import Scores, SeedTable, score_methods
from collapsebench.task import CALIBRATION_FILE, Task

if TYPE_CHECKING:
    from collapsebench.running.cells import Cell
    from collapsebench.scoring.statistics import Estimate

FIRST_SEED = 1000
SEEDS = 3


@dataclass(frozen=True)
class Variant:
    """The result of one choice of parameters on the selection split.

    Attributes:
        method: name with parameters. mfi: mFI in generations. against_ce: mFI minus that of ce on the same seeds.
        curve: mean fidelity by generation. masks: share of ce's gradient that it masks; None: not measured.
    """

    method: str
    mfi: Estimate
    against_ce: Estimate | None
    curve: tuple[float, ...]
    masks: float | None

    @property
    def row(self) -> Row:
        """mFI and the difference from ce with their intervals, in the format of `collapsebench.scoring.columns`."""
        found: dict[str, float | str | None] = {"method": self.method}
        for name, estimate in (("mfi", self.mfi), ("difference_ce", self.against_ce or NOTHING)):
            found |= {name: estimate.estimate, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        return found


@dataclass(frozen=True)
class Tuned:
    """The result of tuning.

    Attributes:
        metric: metric on the selection split. seeds: seeds of every variant. variants: sorted by mFI, largest first,
            including ce.
        spent: runs spent on each method so far (protocol 4.3), by its name.
    """

    task: Task
    metric: str
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    spent: dict[str, float]

    def lines(self) -> list[str]:
        """The result as readable text."""
        told = [
            f"{name}: {runs:g} of {LIMIT} runs of {self.task.id} spent on tuning (protocol 4.3)"
            + ("; an entry must not have more." if runs > LIMIT else ".")
            for name, runs in self.spent.items()
        ]
        return [
            f"Fidelity in {self.metric}, on data of its own; reference: ce at generation 0, mean over these seeds.",
            *told,
            "The best of several is too good by luck: run it once more on the official seeds, and report that.",
        ]


def variants_of(method: str, tried: Sequence[str]) -> list[str]:
    """All variants of a method, one for every combination of parameter values.

    Args:
        method: e.g. ``tce`` or ``my_loss.py:MyLoss:alpha=1``. tried: each ``parameter=value,value,…``.

    Raises:
        UserError: an item of `tried` is malformed, or a parameter is named twice.
    """
    names, choices = [], []
    for text in tried:
        name, equals, values = text.partition("=")
        found = [value.strip() for value in values.split(",") if value.strip()]
        if not (name.strip() and equals and found):
            raise UserError(f"--try {text!r} is not allowed; give a parameter and its values, such as gamma=0.5,0.7.")
        names.append(name.strip())
        choices.append(list(dict.fromkeys(found)))
    if len(set(names)) < len(names):
        raise UserError(f"--try names a parameter twice: {', '.join(names)}; give all its values in one.")
    target, given = _parted(method)
    found = []
    for choice in product(*choices):
        chosen = given + [f"{name}={value}" for name, value in zip(names, choice, strict=True)]
        found.append(f"{target}:{','.join(chosen)}" if chosen else target)
    return found


def _parted(method: str) -> tuple[str, list[str]]:
    target, colon, rest = method.rpartition(":")
    return (target, rest.split(",")) if colon and "=" in rest else (method, [])


def tuning_cells(
    task: Task, methods: Sequence[str], seeds: Sequence[int] | None, out: Path, generations: int | None, device: str
) -> list[Cell]:
    """The cells of the variants, and of ce on the same seeds, in a separate folder.

    Raises:
        UserError: a seed is official, the task has no selection metric, or a method cannot be tuned.
    """
    if selection_metric(task) is None:
        raise UserError(
            f"{task.id} measures nothing on selection data, so nothing can be tuned on it; take parameters from "
            "another task, a paper or an argument (protocol 4.2)."
        )
    if CONTROL in methods:
        raise UserError("control has nothing to tune: it is ce on real data.")
    chosen = default_seeds(task) if seeds is None else list(seeds)
    official = sorted(set(chosen) & set(task.spec.seeds))
    if official:
        raise UserError(
            f"seeds {official} are official ones of {task.id}: methods tuned on them are no entries (protocol 4.2). "
            f"Leave --seeds out, or give others, such as {','.join(map(str, default_seeds(task)))}."
        )
    wanted = list(dict.fromkeys(["ce", *methods]))
    return plan(task, wanted, chosen, out / TUNING, generations, device)


def default_seeds(task: Task, n: int = SEEDS) -> list[int]:
    """The first n non-official seeds from `FIRST_SEED` on."""
    official = set(task.spec.seeds)
    return [seed for seed in range(FIRST_SEED, FIRST_SEED + n + len(official)) if seed not in official][:n]


def read_tuning(cells: Sequence[Cell]) -> Tuned:
    """Compare finished cells of `tuning_cells` on the selection split."""
    first = cells[0]
    task, metric = first.task, selection_metric(first.task)
    assert metric is not None
    seeds = tuple(dict.fromkeys(cell.seed for cell in cells))
    found = cells_of(first.out / task.id, list(dict.fromkeys(cell.method.id for cell in cells)), seeds)
    raw = raw_metrics(found, first.generations)
    at_start = raw[(raw["method"] == "ce") & (raw["generation"] == 0) & (raw["metric"] == metric)]
    scale = Scale(float(at_start["value"].mean()), _floor(first, metric), task.spec.metric(metric).scale)
    wanted = raw[(raw["metric"] == metric) | raw["metric"].isna()]
    scores = score_methods(wanted, {metric: scale}, first.generations)
    engaged = pd.concat(
        engagement_frame(c["label"], [(c["about"]["seed"], g, shares) for g, shares in c["engagement"].items()])
        for c in found
    )
    masks = masked_gradients(engaged)
    variants = [_variant(scores, method, masks) for method in scores.scores["method"].unique()]
    mine = dict.fromkeys(named(cell.method.name) for cell in cells if cell.method.name != "ce")
    spent = {name: tuning_runs(first.out / task.id, task.spec.horizon, name) for name in mine}
    return Tuned(task, metric, seeds, tuple(sorted(variants, key=lambda v: -(v.mfi.estimate or 0.0))), spent)


def _variant(scores: Scores, method: str, masks: pd.Series) -> Variant:
    table = SeedTable.of(scores.scores)
    ours, ce = table.row(method), table.row("ce")
    assert ours is not None
    assert ce is not None
    cells = scores.cells
    mine = [i for i, name in enumerate(cells.methods) if name == method]
    return Variant(
        method,
        mean_interval(ours),
        None if method == "ce" else paired_difference(ours, ce),
        tuple(map(float, cells.fidelity[mine, 0].mean(axis=0))),
        float(masks[method]) if method in masks.index and method != "ce" else None,
    )


def _floor(cell: Cell, metric: str) -> float:
    """The floor of the selection metric: from the calibration record if it has it, otherwise measured now."""
    from collapsebench.authoring.calibration_record import read_record

    if (cell.task.path.parent / CALIBRATION_FILE).is_file():
        record = read_record(cell.task)
        if record.sha256 == cell.task.sha256 and metric in record.floors:
            return record.floors[metric]
    floors, _ = measured_floors(cell.task, cell.device, cell.out)
    if metric not in floors:
        raise UserError(f"{cell.task.id}: no floor of {metric} is known, so its fidelity is not defined.")
    return floors[metric]
