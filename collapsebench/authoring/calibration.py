"""Calibration: measure a task's references and floors on CE and the control alone, and check the rule.

Diffusion tasks have a scale σ to be measured first, on CE's generation 0.

The rule (fixed before any other method is run): CE falls through fidelity 0.75 between generations 2 and 5, and the
control, trained on real data with the same budget, keeps every scored fidelity within 0.95 and 1.05.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from collapsebench.errors import RunError, TaskError
from collapsebench.files import write_atomically
from collapsebench.methods import CONTROL
from collapsebench.running.cells import Cell
from collapsebench.running.plan import plan
from collapsebench.running.results import raw_metrics_of
from collapsebench.scoring.fidelity import Scale, fidelity_interval, unclipped_fidelity
from collapsebench.scoring.table import HEADLINE
from collapsebench.task import Task
from collapsebench.task_files import read_mapping

CE_INTERVAL = (2.0, 5.0)
CONTROL_RANGE = (0.95, 1.05)


@dataclass(frozen=True)
class Calibration:
    """What calibration measured.

    Attributes:
        task: the task. scales: reference and floor of every scored metric.
        curves: mean over seeds of the fidelity, not clipped: method (ce, control), metric, generation, fidelity.
        interval: CE's FI(0.75) on the mean curves, the smallest over the metrics; None when it never falls.
    """

    task: Task
    scales: dict[str, Scale]
    curves: pd.DataFrame
    interval: float | None

    @property
    def frozen(self) -> bool:
        """Whether the task already holds these numbers."""
        return all(
            (self.task.spec.scored[name].reference, self.task.spec.scored[name].floor) == (s.reference, s.floor)
            for name, s in self.scales.items()
        )

    @property
    def control_range(self) -> tuple[float, float]:
        """Smallest and largest mean fidelity of the control, over metrics and generations."""
        control = self.curves[self.curves["method"] == CONTROL]["fidelity"]
        return float(control.min()), float(control.max())

    def lines(self) -> list[str]:
        """The outcome for people."""
        lines = [f"{self.task.id}: references are CE's generation 0, mean over seeds {list(self.task.spec.seeds)}"]
        for name, scale in self.scales.items():
            lines.append(f"  {name}: reference {scale.reference:g}, floor {scale.floor:g}")
        for (method, metric), curve in self.curves.groupby(["method", "metric"]):
            lines.append(f"  {method:<8} {metric:<22} " + " ".join(f"{f:.2f}" for f in curve["fidelity"]))
        low, high = self.control_range
        kept = low >= CONTROL_RANGE[0] and high <= CONTROL_RANGE[1]
        fell = self.interval is not None and CE_INTERVAL[0] <= self.interval <= CE_INTERVAL[1]
        told = "never falls below" if self.interval is None else f"FI({HEADLINE}) = {self.interval:.2f}"
        lines.append(
            f"{'kept  ' if fell else 'BROKEN'}  CE: {told}; the rule asks for {CE_INTERVAL[0]:g} to {CE_INTERVAL[1]:g}"
        )
        lines.append(
            f"{'kept  ' if kept else 'BROKEN'}  control: {low:.3f} to {high:.3f}; the rule asks for "
            f"{CONTROL_RANGE[0]} to {CONTROL_RANGE[1]}"
        )
        return lines

    def write(self) -> list[Path]:
        """Freeze references and floors in the task file; write splits.json and calibration.{json,png} beside it."""
        from collapsebench.reports.plots import calibration_figure, save_figure
        from collapsebench.workloads import load_workload

        folder = self.task.path.parent
        files = [self.task.path, *(folder / name for name in ("splits.json", "calibration.json", "calibration.png"))]
        write_atomically(files[0], self._with_scales(files[0].read_text("utf-8")))
        listing = load_workload(self.task, "cpu").listing()
        write_atomically(files[1], json.dumps(listing, indent=1, ensure_ascii=False) + "\n")
        curves = self.curves.assign(fidelity=self.curves["fidelity"].round(6))
        content = {"task": self.task.id, "curves": curves.to_dict("records"), "ce_interval": self.interval}
        write_atomically(files[2], json.dumps(content, indent=1) + "\n")
        save_figure(calibration_figure(self), files[3])
        return files

    def _with_scales(self, text: str) -> str:
        """The text of the task file with these scales; a file that takes over the section gets one of its own."""
        block = "".join(
            f"  {name}: {{reference: {scale.reference!r}, floor: {scale.floor!r}}}\n"
            for name, scale in self.scales.items()
        )
        section = re.compile(r"^(scored:[ \t]*(?:!replace[ \t]*)?(?:#.*)?\n)(?:[ \t#].*\n?|\n)*", re.MULTILINE)
        if "scored" in read_mapping(text, self.task.path):
            changed, n = section.subn(lambda found: found[1] + block, text)
        else:
            changed, n = f"{text.rstrip()}\n\nscored:\n{block}", 1
        with suppress(TaskError, KeyError):  # a file of another layout is no longer YAML, or says something else
            if n == 1 and read_mapping(changed, self.task.path)["scored"] == yaml.safe_load(block):
                return changed
        raise RunError(
            f"{self.task.path}: the section scored cannot be rewritten where it stands. Put its metrics on lines of "
            "their own below `scored:` and calibrate again; the runs are kept."
        )


def calibration_cells(task: Task, out: Path, device: str) -> list[Cell]:
    """The cells that calibration needs: ce and control on the official seeds, full horizon."""
    return plan(task, ["ce", CONTROL], task.spec.seeds, out, None, device)


def sigma_cells(task: Task, out: Path, device: str) -> list[Cell]:
    """What has to run before a task without the scale of its log p can be calibrated: CE's generation 0. Else nothing.

    CE's own training does not depend on σ beyond rounding: these cells run without one, in a directory of their own,
    and later again with it.
    """
    if task.spec.kind.unmeasured(task.spec.workload) is None:
        return []
    return plan(task, ["ce"], task.spec.seeds, out / "sigma", 0, device)


def write_sigma(cells: list[Cell]) -> float:
    """Write the scale of log p into the task file: the mean over seeds of CE's metric for it, four digits.

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


def measure_calibration(cells: list[Cell]) -> Calibration:
    """Measure references, floors and curves from finished cells.

    Raises:
        RunError: CE or the control diverged, so there is nothing to calibrate on.
    """
    from collapsebench.workloads import load_workload

    task = cells[0].task
    raw = raw_metrics_of(cells[0].out / task.id, ["ce", CONTROL], task.spec.seeds)
    if (raw["status"] != "ok").any():
        raise RunError(f"{task.id}: ce or control diverged; lower the learning rates of the task.")
    floors = load_workload(task, "cpu").floors()
    first = raw[(raw["method"] == "ce") & (raw["generation"] == 0)].groupby("metric")["value"].mean()
    scales = {
        name: Scale(_rounded(float(first[name])), _rounded(floors[name]), task.spec.metric(name).scale)
        for name in task.spec.scored
    }
    rows = []
    for name, scale in scales.items():
        values = raw[raw["metric"] == name]
        fidelities = values.assign(fidelity=unclipped_fidelity(values["value"].to_numpy(float), scale))
        rows.append(fidelities.groupby(["method", "metric", "generation"])[["fidelity"]].mean().reset_index())
    curves = pd.concat(rows, ignore_index=True)
    intervals = [
        fidelity_interval(curve["fidelity"].clip(0, 1).to_numpy(), HEADLINE)
        for _, curve in curves[curves["method"] == "ce"].groupby("metric")
    ]
    fallen = [i.generations for i in intervals if not i.censored]
    return Calibration(task, scales, curves, min(fallen) if fallen else None)


def _rounded(value: float) -> float:
    """Six significant digits: more would pretend to be reproducible on other machines."""
    return float(f"{value:.6g}")
