"""What a model reaches that learned nothing from the real data: the untouched base model, or chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from collapsebench.errors import RunError
from collapsebench.task import Task

Measured = dict[str, tuple[float, ...]]


def looked_at(task: Task) -> list[str]:
    """The scored metrics, and that of the selection split if there is one."""
    selection = selection_metric(task)
    return [*task.spec.scored, *([] if selection is None or selection in task.spec.scored else [selection])]


def selection_metric(task: Task) -> str | None:
    """The metric on the selection split, on which settings are compared."""
    found = [name for name in task.spec.metrics if name.startswith("selection_") and task.spec.metric(name).direction]
    return found[0] if found else None


def knows_base(task: Task) -> bool:
    """Whether there is a model that learned nothing from the real data, and floors are what it measures."""
    return task.spec.init == "base" or task.spec.kind.base == "given"


def unseen_floors(task: Task, first: Mapping[str, float], chance: Mapping[str, float]) -> dict[str, float]:
    """Floors of metrics of text that is new to a generation: what a model has that learned only the oldest.

    Args:
        first: means over seeds of cross entropy's generation 0, which measures such text. chance: floors without it.
    """
    found = {}
    for name, instead in task.spec.workload.unseen().items():
        if instead in first:
            higher = task.spec.metric(name).direction == "higher"
            found[name] = max(first[instead], chance.get(name, 0.0)) if higher else first[instead]
    return found


def measured_floors(task: Task, device: str, out: Path) -> tuple[dict[str, float], Measured]:
    """Floors of the metrics that are looked at, and what the base model measured, by metric and seed.

    The base model is that of the task, or the pretrained weights that it is given, whatever its ``init``.

    Of an accuracy the floor is chance where the base model has less.

    Args:
        device: resolved. out: directory of runs, where nothing is written.
    """
    from collapsebench.workloads import load_workload

    chance = load_workload(task, "cpu").floors()
    if not knows_base(task):
        return {name: chance[name] for name in looked_at(task) if name in chance}, {}
    base = base_metrics(task, device, out)
    floors = {name: fmean(values) for name, values in base.items()}
    for name, value in chance.items():
        if name in floors and task.spec.metric(name).direction == "higher":
            floors[name] = max(floors[name], value)
    return floors, base


def base_metrics(task: Task, device: str, out: Path) -> Measured:
    """What the untouched base model measures, with samples that it draws itself from the prompts of generation 0.

    Metrics of real text do not depend on the seed: where the first two agree to the last bit, they stand for all, as
    one value. Else there is a value per official seed.
    """
    names = looked_at(task)
    seeds = task.spec.seeds
    found = [_base_with(task, seed, device, out) for seed in seeds[:2]]
    if all(found[0][name] == found[-1][name] for name in names):
        return {name: (found[0][name],) for name in names}
    found += [_base_with(task, seed, device, out) for seed in seeds[2:]]
    return {name: tuple(values[name] for values in found) for name in names}


def _base_with(task: Task, seed: int, device: str, out: Path) -> Mapping[str, float]:
    from collapsebench.methods import load_method
    from collapsebench.policies import prompts
    from collapsebench.running.artifacts import RunDirectory
    from collapsebench.running.cells import fix_arithmetic
    from collapsebench.running.loop import Chain
    from collapsebench.workloads import load_workload

    fix_arithmetic(task.spec.threads)
    workload = load_workload(task, device)
    method = load_method("ce", task.spec.workload.kind)
    chain = Chain(task, method, seed, workload, RunDirectory.of(out, task.id, method.id, seed))
    starts = prompts(task.spec.policy, chain.training_set(0), chain.randomness.generator(0, "prompts"))
    model = chain.base_model()
    samples = workload.sample(model, starts, 0, chain.randomness, _unwatched)
    return {name: m.value for name, m in workload.evaluate(model, samples, _unwatched).items()}


def _unwatched(_: int) -> None:
    """Nobody follows the progress."""


def require_scale(task: Task, references: Mapping[str, float], floors: Mapping[str, float]) -> None:
    """Raise `RunError` for scored metrics whose floor is not measured, or is what cross entropy reaches."""
    missing = [name for name in task.spec.scored if name not in floors]
    same = [name for name in task.spec.scored if name not in missing and references[name] == floors[name]]
    problems: Sequence[str] = [
        *(f"no floor of {name} is known" for name in missing),
        *(f"cross entropy at generation 0 has the floor of {name}, {floors[name]:g}" for name in same),
    ]
    if problems:
        raise RunError(f"{task.id} has no scale: {'; '.join(problems)}. Score other metrics, or train longer.")
