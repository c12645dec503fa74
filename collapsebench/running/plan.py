"""Resolves all input into cells and checks it before the first step; no torch until then."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

from collapsebench.errors import UserError
from collapsebench.files import require_folder
from collapsebench.methods import CONTROL, Contestant, load_method, require_known
from collapsebench.running.cells import Cell
from collapsebench.running.environment import resolve_device
from collapsebench.running.preflight import check_supplies
from collapsebench.running.tracking import check_tracker
from collapsebench.task import Task
from collapsebench.task_spec import LARGEST_SEED
from collapsebench.workloads.kind import imported

if TYPE_CHECKING:
    from collapsebench.methods import AnyMethod


def plan(
    task: Task,
    methods: Iterable[AnyMethod],
    seeds: Iterable[int],
    out: str | Path,
    generations: int | None,
    device: str,
) -> list[Cell]:
    """Resolve everything before the first step; return the cells, seed by seed.

    Args:
        task: the task to run. methods: names, `Loss` objects or classes. seeds: distinct integers from 0 to 2³¹ − 1.
        out: directory of all runs. generations: the last generation; None: the task's horizon.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        UserError: an argument is invalid.
    """
    folder = Path(out)
    require_folder(folder, "--out")
    check_supplies(task)
    check_tracker(task.resources.track)
    last = task.spec.horizon if generations is None else generations
    if not 0 <= last <= task.spec.horizon:
        raise UserError(f"--generations {last} is not allowed; {task.id} has generations 0 to {task.spec.horizon}.")
    seeds = _seeds(seeds)
    wanted = _several(methods)
    for name in wanted:  # check all names before the first one imports torch
        if isinstance(name, str):
            require_known(name)
    resolved = [load_method(method, task.spec.workload.kind, task.id) for method in wanted]
    doubled = {m.name for m in resolved if [n.id for n in resolved].count(m.id) > 1}
    if not resolved or doubled:
        raise UserError(f"methods given twice: {', '.join(sorted(doubled))}." if doubled else "no methods given.")
    _require_scale(task, resolved)
    chosen = resolve_device(device)
    cells = [Cell(task, method, seed, folder, last, chosen) for seed in seeds for method in resolved]
    if task.spec.kind.check_room is not None:
        missing = sum(not (c.directory.path / f"gen-{g}").is_dir() for c in cells for g in range(last + 1))
        imported(task.spec.kind.check_room)(task, chosen, folder, missing)
    return cells


def _seeds(given: Iterable[int]) -> list[int]:
    seeds = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else None
    whole = seeds is not None and all(isinstance(seed, Integral) and not isinstance(seed, bool) for seed in seeds)
    if not seeds or not whole or min(seeds) < 0 or max(seeds) > LARGEST_SEED or len(set(seeds)) != len(seeds):
        shown = given if seeds is None else seeds
        raise UserError(
            f"seeds {shown!r} are not allowed; give different integers from 0 to {LARGEST_SEED}, such as 0,1,2: a list "
            "or range."
        )
    return [int(seed) for seed in seeds]


def _several(methods: Iterable[AnyMethod]) -> list[AnyMethod]:
    if isinstance(methods, str) or not isinstance(methods, Iterable):
        raise UserError(f"methods={methods!r} is not allowed; give a list, also of one: methods=[{methods!r}].")
    return list(methods)


def _require_scale(task: Task, methods: list[Contestant]) -> None:
    """Raise `UserError` for methods that need log p if its scale is not yet measured; ce and control do not need it."""
    scale = task.spec.kind.unmeasured(task.spec.workload)
    others = [m.name for m in methods if m.name not in ("ce", CONTROL)]
    if scale is not None and others:
        raise UserError(
            f"{task.id} has no {scale.setting} yet, so log p is undefined for {', '.join(others)}. Measure it with "
            f"`collapsebench calibrate {task.argument} --write`."
        )
