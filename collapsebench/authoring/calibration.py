"""Calibration: measures a task's references and floors on CE, the control and the base model, and checks the rules.

It uses no other method. The measurements are committed next to the task, per seed, and can be checked again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
import yaml

from collapsebench.authoring.calibration_record import CONFIDENT, Curve, Record, Seconds, Values, read_record
from collapsebench.authoring.floors import looked_at, measured_floors, require_scale, unseen_floors
from collapsebench.authoring.grid import grid_cells, read_grid
from collapsebench.authoring.rules import Measured, grid_fidelities, learns_everywhere, rules_of
from collapsebench.errors import RunError, TaskError, UserError
from collapsebench.files import write_atomically
from collapsebench.methods import CONTROL
from collapsebench.metrics.scored import Scored
from collapsebench.running.cells import Cell
from collapsebench.running.plan import plan
from collapsebench.running.results import CALIBRATION, cells_of, raw_metrics
from collapsebench.task import Task, load_task
from collapsebench.task_files import EXTENDS, as_yaml, read_mapping
from collapsebench.task_spec import DIGITS, TaskSpec


@dataclass(frozen=True)
class Calibration:
    """The result of a calibration, and its task."""

    task: Task
    record: Record

    @property
    def measured(self) -> Measured:
        """The record in the form used by the rules."""
        return Measured(self.task.spec, self.record)

    @property
    def frozen(self) -> bool:
        """Whether the task file already contains these numbers."""
        return self.task.spec.scored == self.record.scored

    def lines(self) -> list[str]:
        """The outcome as readable text."""
        spec, record, measured = self.task.spec, self.record, self.measured
        lines = [f"{self.task.id}: references are CE's generation 0, mean over seeds {list(spec.seeds)}"]
        for name, scale in record.scored.items():
            later = "" if scale.later is None else f", the control's then {' '.join(f'{r:g}' for r in scale.later)}"
            floor = _floor_text(name, record)
            lines.append(f"  {name}: reference {scale.reference:g}{later}; floor {scale.floor:g} ({floor})")
        for (method, metric), curve in measured.curves.groupby(["method", "metric"]):
            mfi = measured.mfi(str(method), str(metric)).mean() / spec.horizon
            shown = " ".join(f"{f:.3f}" for f in curve["fidelity"])
            lines.append(f"  {method:<8} {metric:<22} {shown}   mFI / G {mfi:.3f}")
        for (rate, length), fidelity in grid_fidelities(measured).items():
            lines.append(f"  learning rate × {rate:g}, length × {length:g}: f(0) {fidelity:.4f}")
        lines.append(f"  seconds of a cell: {_seconds_text(record)}")
        return [*lines, *map(str, record.rules)]

    def write(self) -> list[Path]:
        """Freeze references and floors in the task file; write splits.json and calibration.{json,png} next to it."""
        from collapsebench.reports.plots import calibration_figure, save_figure
        from collapsebench.workloads import load_workload

        folder = self.task.path.parent
        splits, picture = folder / "splits.json", folder / "calibration.png"
        write_atomically(self.task.path, frozen_text(self.task, self.record))
        listing = load_workload(self.task, "cpu").listing()
        write_atomically(splits, json.dumps(listing, indent=1, ensure_ascii=False) + "\n")
        written = self.record.write(folder)
        save_figure(calibration_figure(self.task, self.measured.curves), picture)
        return [self.task.path, splits, written, picture]


def frozen_text(task: Task, record: Record) -> str:
    """The text of the task file with the record's scale, and with what it was measured on.

    A file that inherits the section ``scored`` gets its own.

    Raises:
        RunError: the sections cannot be rewritten in place.
    """
    before = task.path.read_text("utf-8")
    scored = "".join(f"  {name}: {_in_one_line(scale)}\n" for name, scale in record.scored.items())
    on = {"settings": record.sha256[:DIGITS], "data": record.data_sha256[:DIGITS]}
    line = f'calibrated_on: {{settings: "{on["settings"]}", data: "{on["data"]}"}}\n'
    own = re.sub(r"(?m)^calibrated_on:.*\n?", "", before)
    head = r"^(scored:[ \t]*(?:!replace[ \t]*)?(?:#.*)?\n)(?:[ \t#].*\n?|\n)*"
    if "scored" in read_mapping(before, task.path):
        changed, n = re.subn(head, lambda found: found[1] + scored + line, own, flags=re.MULTILINE)
    else:
        changed, n = f"{own.rstrip()}\n\nscored:\n{scored}{line}", 1
    with suppress(TaskError, KeyError):  # with another layout the text is no longer YAML, or has another meaning
        found = read_mapping(changed, task.path)
        if n == 1 and found["scored"] == yaml.safe_load(scored) and found["calibrated_on"] == on:
            return changed
    raise RunError(
        f"{task.path}: the section scored cannot be rewritten where it stands. Put its metrics on lines of "
        "their own below `scored:`, and calibrated_on on one line, and calibrate again; the runs are kept."
    )


def _in_one_line(scale: Scored) -> str:
    later = "" if scale.later is None else f", later: {list(scale.later)}"
    return f"{{reference: {scale.reference!r}, floor: {scale.floor!r}{later}}}"


def calibration_cells(task: Task, out: Path, device: str) -> list[Cell]:
    """The cells that calibration needs: ce and control on the official seeds over the full horizon."""
    return plan(task, ["ce", CONTROL], task.spec.seeds, out, None, device)


def try_out_task(
    task: Task, seeds: Sequence[int] | None, generations: int | None, budget: float, out: Path
) -> tuple[Task, Path]:
    """A member of the task's family with fewer seeds or generations, and the directory of its runs.

    Its references are only for trying out, so its runs are below `CALIBRATION`, where nothing is scored.

    Args:
        seeds, generations: those to use; None: the task's own. budget: share of its updates and samples.

    Raises:
        UserError: fewer than two seeds, or more generations than the task has.
    """
    spec = task.spec
    chosen = list(spec.seeds if seeds is None else seeds)
    last = spec.horizon if generations is None else generations
    if len(chosen) < 2:
        raise UserError(f"--seeds {','.join(map(str, chosen))}: give two at least, as noise is measured over seeds.")
    if last > spec.horizon:
        raise UserError(f"--generations {last} is not allowed; {task.id} has generations 0 to {spec.horizon}.")
    content = {EXTENDS: str(task.path), "name": spec.name, "version": spec.version, "title": "A try-out"}
    content |= {"seeds": chosen, "horizon": last}
    key = hashlib.sha256(json.dumps([content, budget]).encode()).hexdigest()[:8]
    folder = out.absolute() / CALIBRATION / f"try-out-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "task.yaml", as_yaml(content))
    return load_task(folder / "task.yaml", budget, task.resources), folder


def settings_cells(task: Task, out: Path, device: str) -> list[Cell]:
    """The cells with other settings of ce; none for a task that cannot become ranked with any settings."""
    return grid_cells(task, out, device) if learns_everywhere(task.spec) else []


def measure_calibration(cells: list[Cell]) -> Calibration:
    """Measure references, floors and rules from finished cells of `calibration_cells` and `settings_cells`.

    Raises:
        RunError: CE or the control diverged, so calibration is impossible.
    """
    task, out = cells[0].task, cells[0].out
    found = cells_of(out / task.id, ["ce", CONTROL], task.spec.seeds)
    raw = raw_metrics(found, task.spec.horizon)
    if (raw["status"] != "ok").any():
        raise RunError(f"{task.id}: ce or control diverged; lower the learning rates of the task.")
    unseen = unseen_floors(task, cells[0].device, out)
    floors, base = measured_floors(task, cells[0].device, out, unseen)
    scored = _scale(task, raw, floors)
    about = [cell["about"] for cell in found]
    (data_sha256,) = {run["task"]["data_sha256"] for run in about}
    record = Record(
        task=task.id,
        sha256=task.sha256,
        data_sha256=data_sha256,
        circumstances=tuple(
            _distinct([session for run in about for session in (run["circumstances"], *run["resumed"])])
        ),
        scored=scored,
        floors=floors,
        base=base,
        unseen=unseen,
        values=(*_values(task, raw), *_engagement(found)),
        grid=read_grid(task, out, floors) if learns_everywhere(task.spec) else None,
        seconds=tuple(
            Seconds(method=cell["label"], seed=cell["about"]["seed"], phases=_two_digits(cell["seconds"]))
            for cell in found
        ),
    )
    curves = Measured(task.spec, record).curves
    rows = curves.assign(fidelity=curves["fidelity"].round(6)).to_dict("records")
    rules = rules_of(task.spec, record)
    return Calibration(
        task, record.model_copy(update={"rules": rules, "curves": tuple(map(Curve.model_validate, rows))})
    )


def _scale(task: Task, raw: pd.DataFrame, floors: Mapping[str, float]) -> dict[str, Scored]:
    """Reference and floor of every scored metric, and references of later generations if they have their own.

    Raises:
        RunError: a floor is unknown, or equals the reference.
    """
    means = raw.groupby(["method", "metric", "generation"])["value"].mean().map(_rounded)
    rounded = {name: _rounded(floor) for name, floor in floors.items()}
    require_scale(task, {name: means["ce", name, 0] for name in task.spec.scored}, rounded)
    return {name: _scaled(task.spec, name, means, rounded[name]) for name in task.spec.scored}


def _scaled(spec: TaskSpec, name: str, means: pd.Series, floor: float) -> Scored:
    """The scale of a metric from its rounded means by method, metric and generation."""
    grows = spec.metric(name).reference == "control"
    later = tuple(means[CONTROL, name, g] for g in range(1, spec.horizon + 1)) if grows else None
    return Scored(reference=means["ce", name, 0], floor=floor, later=later)


def _scale_of(spec: TaskSpec, record: Record, name: str) -> Scored | None:
    """The scale of a metric that follows from the values of a record; None if it lacks some of them."""
    means = record.frame().groupby(["method", "metric", "generation"])["value"].mean().map(_rounded)
    measured = record.unseen.get(name) or record.base.get(name)
    floor = record.floors.get(name)
    lower = spec.metric(name).direction == "lower"  # of others, chance may be the floor
    if floor is None or (measured and lower and _rounded(fmean(measured)) != _rounded(floor)):
        return None
    try:
        return _scaled(spec, name, means, _rounded(floor))
    except KeyError:
        return None


def check(task: Task) -> list[str]:
    """The claims of a task's committed calibration that do not hold, one line each; nothing is run.

    Raises:
        TaskError: there is no committed calibration.
    """
    record = read_record(task)
    problems = [
        f"{name}: the record has {was[:DIGITS]}…, the task {now[:DIGITS]}…"
        for name, was, now in (("task", record.task, task.id), ("settings", record.sha256, task.sha256))
        if was != now
    ]
    measured_on = task.spec.calibrated_on
    if measured_on is None or measured_on.data != record.data_sha256[:DIGITS]:
        there = "nothing" if measured_on is None else f"{measured_on.data}…"
        problems.append(f"data: the record has {record.data_sha256[:DIGITS]}…, the task says {there}")
    if task.spec.scored != record.scored:
        problems.append("scored: the task has another scale than the record")
    problems += [
        f"scored: {name} does not follow from the values of the record"
        for name, scale in record.scored.items()
        if scale != _scale_of(task.spec, record, name)
    ]
    if not problems and (rules_of(task.spec, record)) != record.rules:
        problems.append("rules: they do not follow from the values of the record; calibrate again")
    return problems


def _values(task: Task, raw: pd.DataFrame) -> list[Values]:
    """The values of every metric that could be used for scoring or tuning."""
    names = {*looked_at(task), *(name for name in task.spec.metrics if task.spec.metric(name).direction)}
    mine = raw[raw["metric"].isin(names)].sort_values(["method", "metric", "seed", "generation"])
    return [
        Values(method=method, seed=seed, metric=metric, values=tuple(map(float, cell["value"])))
        for (method, metric, seed), cell in mine.groupby(["method", "metric", "seed"])
    ]


def _engagement(cells: list[dict[str, Any]]) -> list[Values]:
    found = []
    for cell in cells:
        by_generation = dict(sorted(cell["engagement"].items()))
        shares = [shares[CONFIDENT] for shares in by_generation.values() if shares]
        if len(shares) == len(by_generation) > 0:  # values are by generation, so none may be missing
            about = cell["about"]
            found.append(Values(method=cell["label"], seed=about["seed"], metric=CONFIDENT, values=tuple(shares)))
    return found


def _distinct(sessions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for session in sessions:
        if session not in found:
            found.append(session)
    return found


def _floor_text(name: str, record: Record) -> str:
    """A text that says what the floor of a scored metric was measured on."""
    if name in record.unseen:
        return "ce's generation 0 on what it never saw"
    seeds = record.base.get(name, ())
    return f"base model, {len(seeds)} seeds" if len(seeds) > 1 else "base model" if seeds else "chance"


def _seconds_text(record: Record) -> str:
    """A text with the mean seconds over the cells of a method, by phase."""
    told = []
    for method in ("ce", CONTROL):
        cells = [s for s in record.seconds if s.method == method]
        phases = {phase: sum(s.phases[phase] for s in cells) / len(cells) for phase in cells[0].phases}
        shown = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in phases.items())
        told.append(f"{method} {sum(phases.values()):.1f} ({shown})")
    return "; ".join(told)


def _two_digits(phases: dict[str, float]) -> dict[str, float]:
    return {phase: round(seconds, 2) for phase, seconds in phases.items()}


def _rounded(value: float) -> float:
    """Round to six significant digits; further digits are not reproducible on other machines."""
    return float(f"{value:.6g}")
