"""The public functions: run one cell, compare methods, score the runs on disk. Torch and pandas are imported late."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from collapsebench.errors import UserError
from collapsebench.methods import BASELINES
from collapsebench.running.cells import Cell, run_cell
from collapsebench.running.engines import Engine, run_cells
from collapsebench.running.plan import plan
from collapsebench.running.progress import Listener, silent
from collapsebench.running.progress_display import shown_progress
from collapsebench.task import Task, load_task

if TYPE_CHECKING:
    from collapsebench.methods import AnyMethod
    from collapsebench.publishing.entries import Entry
    from collapsebench.reports.comparison import Comparison
    from collapsebench.reports.raw_comparison import RawComparison

Against = Literal["run", "published"]


def run(
    task: str | Path | Task,
    method: AnyMethod,
    seed: int = 0,
    out: str | Path = "runs",
    generations: int | None = None,
    device: str = "auto",
    listener: Listener | None = None,
) -> Path:
    """Run one cell, or its missing generations, and return its directory.

    Args:
        task: a registered name, the path of a task.yaml, or a loaded task.
        method: a method name (``tce:gamma=0.8``, ``my_loss.py:MyLoss``), a `Loss` object or class.
        seed: any integer ≥ 0; the task lists the official ones.
        out: directory of all runs.
        generations: the last generation; None: the task's horizon.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        listener: called with `collapsebench.running.progress.Event`; None: progress is shown.

    Raises:
        UserError: something given cannot be used. RunError: the run directory is locked, the disk is full.
    """
    (cell,) = plan(load_task(task), [method], [seed], out, generations, device)
    with shown_progress([cell]) if listener is None else nullcontext(listener) as told:
        run_cell(cell, told)
    return cell.directory.path


def compare(
    task: str | Path | Task,
    methods: Iterable[AnyMethod] | None = None,
    seeds: Iterable[int] | None = None,
    out: str | Path = "runs",
    generations: int | None = None,
    device: str = "auto",
    engine: Engine = "auto",
    against: Against = "run",
) -> Comparison | RawComparison:
    """Run the missing cells of methods × seeds, show their progress, and compare the methods.

    Use `prepare` to watch with your own listener, or to run silently.

    Args:
        methods: None: the baselines. seeds: None: the task's official seeds. Other arguments as in `run`.
        engine: ``inline``, ``local`` (worker processes), ``ray``, or ``auto``: ``local`` where it can help.
        against: ``published`` adds the committed submissions of the baselines, which are then not run here.

    Returns:
        The comparison; of raw metrics if the task has no references yet. A notebook shows its table and curves. Use
        ``plot()`` and ``to_pandas()`` to get them, and ``report()`` to write the files.
    """
    trial = prepare(task, methods, seeds, out, generations, device, against)
    with shown_progress(trial.cells) as listener:
        trial.run(engine, listener)
    return trial.comparison()


@dataclass(frozen=True)
class Trial:
    """A comparison that is fully resolved but not yet run.

    Attributes:
        cells: what to run, seed by seed. published: entries to compare with.
    """

    cells: list[Cell]
    published: Sequence[Entry] = ()

    def run(self, engine: Engine = "auto", listener: Listener = silent) -> None:
        """Run the missing cells; `listener` is called with `collapsebench.running.progress.Event`.

        Raises:
            UserError: the task's references were measured on other data.
        """
        _require_own_data(self.cells[0].task)
        run_cells(self.cells, engine, None, listener)

    def comparison(self) -> Comparison | RawComparison:
        """Compare the finished runs and the published entries."""
        from collapsebench.reports.any_comparison import read_any

        first = self.cells[0]
        methods = list(dict.fromkeys(cell.method.id for cell in self.cells))
        seeds = list(dict.fromkeys(cell.seed for cell in self.cells))
        folder = first.out / first.task.id
        return read_any(folder, first.task, methods, seeds, first.generations, self.published)


def prepare(
    task: str | Path | Task,
    methods: Iterable[AnyMethod] | None = None,
    seeds: Iterable[int] | None = None,
    out: str | Path = "runs",
    generations: int | None = None,
    device: str = "auto",
    against: Against = "run",
) -> Trial:
    """Resolve and check everything that `compare` would run; same arguments.

    Raises:
        UserError: something given cannot be used, or the task's references were measured on other settings.
    """
    loaded = load_task(task)
    _require_measurable(loaded)
    published = _published_baselines(loaded) if against == "published" else ()
    if published and methods is None:
        raise UserError("--against published runs no baselines: name your own loss with --methods.")
    wanted = BASELINES if methods is None else methods
    cells = plan(loaded, wanted, loaded.spec.seeds if seeds is None else seeds, out, generations, device)
    return Trial(cells, published)


def score(directory: str | Path) -> list[Comparison | RawComparison]:
    """Recompute the comparison of every task found below a directory of runs, from the raw metrics alone."""
    from collapsebench.reports.any_comparison import read_any
    from collapsebench.running.results import run_folders

    return [read_any(folder) for folder in run_folders(Path(directory))]


def _require_measurable(task: Task) -> None:
    """Raise `UserError` if the references are for other settings, or if a scored metric will not be measured."""
    if not task.has_references:
        return
    task.require_scale()
    if task.resources.inception == "none" and "fid" in task.spec.scored:
        raise UserError(
            f"{task.id} scores FID, so --inception none leaves nothing to compare; use `collapsebench run`."
        )


def _require_own_data(task: Task) -> None:
    """Raise `UserError`, before anything is run, if the references were measured on other data than is prepared here.

    Where preparing the data is too expensive, scoring checks it from ``run.json``.
    """
    from collapsebench.workloads import load_workload

    if task.has_references and task.spec.calibrated_on is not None and task.spec.kind.prepare is None:
        task.require_scale(load_workload(task, "cpu").data_sha256)


def _published_baselines(task: Task) -> list[Entry]:
    """Return the committed submissions of the baselines on a task.

    Raises:
        UserError: there are none.
    """
    from collapsebench.publishing.validation import published_entries

    entries = [e for e in published_entries(tasks={task.id: task}) if e.task_id == task.id]
    replaced = {entry.supersedes for entry in entries}
    found = [e for e in entries if e.name in BASELINES and e.digest not in replaced]
    if not found:
        raise UserError(f"no baseline of {task.id} is published; leave out --against published to run them here.")
    return sorted(found, key=lambda entry: BASELINES.index(entry.name))
