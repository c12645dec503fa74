"""Floors: the values of a model that learned nothing from the real data, i.e. the untouched base model, or chance.

Of what is new to a generation: the values of a model that has learned from real data, but never saw this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING

from collapsebench.errors import RunError
from collapsebench.task import Task

if TYPE_CHECKING:
    from collapsebench.running.loop import Chain

Measured = dict[str, tuple[float, ...]]


def looked_at(task: Task) -> list[str]:
    """The metrics to calibrate: the scored ones, and that of the selection split if there is one."""
    selection = selection_metric(task)
    return [*task.spec.scored, *([] if selection is None or selection in task.spec.scored else [selection])]


def selection_metric(task: Task) -> str | None:
    """The metric on the selection split, which is used to compare settings."""
    found = [name for name in task.spec.metrics if name.startswith("selection_") and task.spec.metric(name).direction]
    return found[0] if found else None


def knows_base(task: Task) -> bool:
    """Whether there is a model that learned nothing from the real data, whose metrics are the floors."""
    return task.spec.init == "base" or task.spec.kind.base == "given"


def measured_floors(
    task: Task, device: str, out: Path, unseen: Mapping[str, Sequence[float]] = MappingProxyType({})
) -> tuple[dict[str, float], Measured]:
    """Floors of the metrics to calibrate, and the base model's values by metric and seed.

    The base model is that of the task, or its given pretrained weights, for any ``init``. The floor of an accuracy is
    chance if the measured value is below chance.

    Args:
        device: the resolved device. out: directory of runs, to which nothing is written.
        unseen: what `unseen_floors` returned; without it, metrics with that floor have none.
    """
    from collapsebench.workloads import load_workload

    chance = load_workload(task, "cpu").floors()
    base = base_metrics(task, device, out) if knows_base(task) else {}
    ignorant = base or {name: (chance[name],) for name in looked_at(task) if name in chance}
    measured = {name: found for name, found in ignorant.items() if task.spec.metric(name).floor == "ignorant"}
    floors = {name: fmean(found) for name, found in {**measured, **unseen}.items()}
    for name, value in chance.items():
        if name in floors and task.spec.metric(name).direction == "higher":
            floors[name] = max(floors[name], value)
    return floors, base


def base_metrics(task: Task, device: str, out: Path) -> Measured:
    """Metrics of the untouched base model, with its own samples from the prompts of generation 0.

    Metrics of real text do not depend on the seed. If the first two seeds agree to the last bit, one value is used for
    all seeds. Otherwise there is a value per official seed.
    """
    names = looked_at(task)
    seeds = task.spec.seeds
    found = [_base_with(task, seed, device, out) for seed in seeds[:2]]
    if all(found[0][name] == found[-1][name] for name in names):
        return {name: (found[0][name],) for name in names}
    found += [_base_with(task, seed, device, out) for seed in seeds[2:]]
    return {name: tuple(values[name] for values in found) for name in names}


def unseen_floors(task: Task, device: str, out: Path) -> Measured:
    """Metrics of cross entropy's generation 0 on the data of later generations, which it never saw, by seed.

    Covers the scored metrics that have this floor; each value is the mean over generations 1 to G. Needs finished cells
    of ce.
    """
    names = [name for name in task.spec.scored if task.spec.metric(name).floor == "unseen"]
    if not names:
        return {}
    found = [_unseen_by(task, seed, device, out) for seed in task.spec.seeds]
    return {name: tuple(values[name] for values in found) for name in names}


def _unseen_by(task: Task, seed: int, device: str, out: Path) -> Mapping[str, float]:
    chain = _chain(task, seed, device, out)
    model = chain.workload.load_model(chain.store.generation(0) / "model.safetensors")
    later = [chain.measured_fractions(g, model, _unwatched) for g in range(1, task.spec.horizon + 1)]
    return {name: fmean(measured[name].value for measured in later) for name in later[0]}


def _base_with(task: Task, seed: int, device: str, out: Path) -> Mapping[str, float]:
    from collapsebench.policies import prompts

    chain = _chain(task, seed, device, out)
    starts = prompts(task.spec.policy, chain.training_set(0), chain.randomness.generator(0, "prompts"))
    model = chain.base_model()
    samples = chain.workload.sample(model, starts, 0, chain.randomness, _unwatched)
    return {name: m.value for name, m in chain.measured(0, model, samples, _unwatched).items()}


def _chain(task: Task, seed: int, device: str, out: Path) -> Chain:
    """The chain of cross entropy; it is not run."""
    from collapsebench.methods import load_method
    from collapsebench.running.artifacts import RunDirectory
    from collapsebench.running.cells import fix_arithmetic
    from collapsebench.running.loop import Chain
    from collapsebench.workloads import load_workload

    fix_arithmetic(task.spec.threads)
    method = load_method("ce", task.spec.workload.kind)
    return Chain(task, method, seed, load_workload(task, device), RunDirectory.of(out, task.id, method.id, seed))


def _unwatched(_: int) -> None:
    """Ignore the progress."""


def require_scale(task: Task, references: Mapping[str, float], floors: Mapping[str, float]) -> None:
    """Raise `RunError` for scored metrics whose floor is not measured or equals the value of cross entropy."""
    missing = [name for name in task.spec.scored if name not in floors]
    same = [name for name in task.spec.scored if name not in missing and references[name] == floors[name]]
    problems: Sequence[str] = [
        *(f"no floor of {name} is known" for name in missing),
        *(f"cross entropy at generation 0 has the floor of {name}, {floors[name]:g}" for name in same),
    ]
    if problems:
        raise RunError(f"{task.id} has no scale: {'; '.join(problems)}. Score other metrics, or train longer.")
