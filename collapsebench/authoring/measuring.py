"""Measures the speed of this machine on generation 0 of small tasks, with a part of their budget."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from collapsebench.authoring.estimate import estimate
from collapsebench.authoring.rates import Cost, Measured, Rate, read_measured, write_measured
from collapsebench.errors import CollapsebenchError
from collapsebench.resources import NOTHING_GIVEN, Resources
from collapsebench.running.cells import run_cell
from collapsebench.running.environment import resolve_device
from collapsebench.running.plan import plan
from collapsebench.running.preflight import look_for_supplies
from collapsebench.task import Task, load_task, registered_tasks

_SHARE = {"micro": 0.1, "standard": 0.02}
"""Share of a task's budget, by tier, that takes seconds on the hardware that the task is for."""

_SEEDS = (1, 2)
"""The first run is a warm-up, so that the second one does not compile or load anything for the first time."""


def measure(
    name: str | None, on_found: Callable[[str], None], resources: Resources = NOTHING_GIVEN
) -> tuple[Measured, Path]:
    """Measure rates and store them; return all rates known so far, and their file.

    Args:
        name: the task to measure on; None: one micro task of every kind whose data is available.
        on_found: called with a line for every rate, and for every kind that could not be measured.

    Raises:
        CollapsebenchError: the named task cannot be run.
    """
    device = resolve_device("auto")
    names = [name] if name is not None else _one_of_each_kind()
    rates: dict[str, Rate] = {}
    for task in names:
        try:
            loaded = load_task(task, resources=resources)
            rates[loaded.spec.workload.kind] = rate = measured_rate(loaded, device)
        except CollapsebenchError as error:
            if name is not None:
                raise
            on_found(f"{task}: not measured; {error}")
        else:
            on_found(f"{loaded.spec.kind.name}: {rate}, measured on {loaded.id}")
    before = read_measured()
    wanted = {*registered_tasks(), *([] if name is None else [name])}
    costs = _costs([load_task(task) for task in sorted(wanted)], {*rates}, before)
    found = before.with_rates(_device_name(device), rates, costs)
    return found, write_measured(found)


def measured_rate(task: Task, device: str) -> Rate:
    """Run generation 0 of ce in a separate folder, and divide FLOPs by seconds."""
    part = load_task(task.path, _SHARE[task.spec.tier], task.resources)
    with tempfile.TemporaryDirectory(prefix="collapsebench-measure-") as folder:
        cells = plan(part, ["ce"], _SEEDS, folder, 0, device)
        for cell in cells:
            run_cell(cell)
        seconds = json.loads((cells[-1].directory.generation(0) / "timing.json").read_text("utf-8"))
    spent = estimate(part, 0).generations[0]
    phases = {"training": "train", "sampling": "sample", "evaluation": "evaluate"}
    return Rate(
        **{name: max(getattr(spent, name), 1) / max(seconds[phase], 1e-4) / 1e12 for name, phase in phases.items()},
        measured_on=task.id,
        device=_device_name(device),
    )


def _one_of_each_kind() -> list[str]:
    """Names of one micro task per kind whose data is available, preferring ranked tasks."""
    tasks = [load_task(name) for name in registered_tasks()]
    micro = [t for t in tasks if t.spec.tier == "micro" and all(there for _, (_, there) in look_for_supplies(t))]
    chosen: dict[str, str] = {}
    for task in sorted(micro, key=lambda t: (not t.calibrated, bool(t.mark), t.id)):
        chosen.setdefault(task.spec.workload.kind, task.path.parent.name)
    return list(chosen.values())


def _costs(tasks: list[Task], kinds: set[str], before: Measured) -> dict[str, Cost]:
    """FLOPs per cell for tasks of these kinds, where they are not known yet."""
    wanted = [t for t in tasks if t.spec.workload.kind in kinds and t.sha256 not in before.costs]
    totals = {task.sha256: estimate(task).total for task in wanted}
    return {
        digest: Cost(training=t.training, sampling=t.sampling + t.gallery, evaluation=t.evaluation)
        for digest, t in totals.items()
    }


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
