"""The public functions: run one cell, compare methods, score what is on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from collapsebench.errors import UserError
from collapsebench.methods import BASELINES, CONTROL, load_method
from collapsebench.publishing.entries import Entry
from collapsebench.publishing.validation import published_entries
from collapsebench.reports.comparison import Comparison, read_all, read_comparison
from collapsebench.running.engines import Cell, Engine, run_cell, run_cells
from collapsebench.running.environment import resolve_device
from collapsebench.running.preflight import check_supplies
from collapsebench.running.progress import Listener, silent
from collapsebench.running.tracking import check_tracker
from collapsebench.task import Task, load_task
from collapsebench.workloads.kind import imported

if TYPE_CHECKING:
    from collapsebench.methods import AnyMethod


def run(
    task: str | Path | Task,
    method: AnyMethod,
    seed: int = 0,
    out: str | Path = "runs",
    generations: int | None = None,
    device: str = "auto",
    listener: Listener = silent,
) -> Path:
    """Run one cell, or what is missing of it, and return its directory.

    Args:
        task: a registered name, the path of a task.yaml, or a loaded task.
        method: a method name (``tce:gamma=0.8``, ``my_loss.py:MyLoss``), a `Loss` object or class.
        seed: any integer ≥ 0; the official ones are the task's.
        out: directory of all runs.
        generations: the last generation; None: the task's horizon.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        listener: called with `collapsebench.running.progress.Event`.

    Raises:
        UserError: something given cannot be used. RunError: the run directory is locked, the disk is full.
    """
    (cell,) = plan(load_task(task), [method], [seed], out, generations, device)
    run_cell(cell, listener)
    return cell.directory.path


def compare(
    task: str | Path | Task,
    methods: Iterable[AnyMethod] = BASELINES,
    seeds: Iterable[int] | None = None,
    out: str | Path = "runs",
    generations: int | None = None,
    device: str = "auto",
    engine: Engine = "auto",
    against: Literal["run", "published"] = "run",
    listener: Listener = silent,
) -> Comparison:
    """Run the missing cells of methods × seeds and compare the methods.

    Args:
        seeds: None: the task's official seeds. Other arguments as in `run`.
        engine: ``inline``, ``local`` (worker processes), ``ray``, or ``auto``: ``local`` where it can help.
        against: ``published`` adds the committed submissions of the baselines, which are then not run here.

    Returns:
        The comparison; `collapsebench.reports.report.write_report` writes its files.
    """
    loaded = load_task(task)
    require_calibrated(loaded)
    published = published_baselines(loaded) if against == "published" else []
    cells = plan(loaded, methods, loaded.spec.seeds if seeds is None else seeds, out, generations, device)
    run_cells(cells, engine, None, listener)
    return comparison_of(cells, published)


def score(directory: str | Path) -> list[Comparison]:
    """Recompute the comparison of every task found below a directory of runs, from the raw metrics alone."""
    return read_all(Path(directory))


def plan(
    task: Task,
    methods: Iterable[AnyMethod],
    seeds: Iterable[int],
    out: str | Path,
    generations: int | None,
    device: str,
) -> list[Cell]:
    """Resolve everything before the first step; return the cells, seed by seed.

    Raises:
        UserError: anything given cannot be used.
    """
    check_supplies(task)
    check_tracker(task.resources.track)
    last = task.spec.horizon if generations is None else generations
    if not 0 <= last <= task.spec.horizon:
        raise UserError(f"--generations {last} is not allowed; {task.id} has generations 0 to {task.spec.horizon}.")
    seeds = list(seeds)
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise UserError(f"seeds {seeds} are not allowed; give different integers ≥ 0, such as 0,1,2.")
    resolved = [load_method(method, task.spec.workload.kind) for method in methods]
    doubled = {m.name for m in resolved if [n.id for n in resolved].count(m.id) > 1}
    if not resolved or doubled:
        raise UserError(f"methods given twice: {', '.join(sorted(doubled))}." if doubled else "no methods given.")
    scale = task.spec.kind.unmeasured(task.spec.workload)
    if scale is not None:
        others = [m.name for m in resolved if m.name not in ("ce", CONTROL)]
        if others:
            raise UserError(
                f"{task.id} has no {scale.setting} yet, so log p is undefined for {', '.join(others)}. Measure it with "
                f"`collapsebench calibrate {task.path} --write`."
            )
    chosen = resolve_device(device)
    cells = [Cell(task, method, seed, Path(out), last, chosen) for seed in seeds for method in resolved]
    if task.spec.kind.check_room is not None:
        missing = sum(not (c.directory.path / f"gen-{g}").is_dir() for c in cells for g in range(last + 1))
        imported(task.spec.kind.check_room)(task, chosen, Path(out), missing)
    return cells


def require_calibrated(task: Task) -> None:
    """Raise `UserError` unless the scored metrics have their references and floors, and will be measured."""
    if not task.calibrated:
        raise UserError(
            f"{task.id} has no references yet, so fidelity is undefined. Measure them with "
            f"`collapsebench calibrate {task.path} --write`, or use `collapsebench run` for raw metrics."
        )
    if task.resources.inception == "none" and "fid" in task.spec.scored:
        raise UserError(
            f"{task.id} scores FID, so --inception none leaves nothing to compare; use `collapsebench run`."
        )


def published_baselines(task: Task) -> list[Entry]:
    """The committed submissions of the baselines on a task.

    Raises:
        UserError: there are none.
    """
    entries = [e for e in published_entries(tasks={task.id: task}) if e.task_id == task.id]
    replaced = {entry.supersedes for entry in entries}
    found = [e for e in entries if e.name in BASELINES and e.digest not in replaced]
    if not found:
        raise UserError(f"no baseline of {task.id} is published; leave out --against published to run them here.")
    return sorted(found, key=lambda entry: BASELINES.index(entry.name))


def comparison_of(cells: list[Cell], published: Sequence[Entry] = ()) -> Comparison:
    """Compare cells that have been run, also with published submissions."""
    first = cells[0]
    methods = list(dict.fromkeys(cell.method.id for cell in cells))
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    return read_comparison(first.out / first.task.id, first.task, methods, seeds, first.generations, published)
