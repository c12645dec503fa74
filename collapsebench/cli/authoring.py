"""Commands for task authors: new tasks, base models, classifiers and calibration."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from collapsebench.cli.options import (
    BudgetOption,
    DataOption,
    DeviceOption,
    InceptionOption,
    ModelOption,
    OutOption,
    TaskArgument,
    grouped,
    integers,
    load,
    resources_of,
)
from collapsebench.cli.watched import run_watched
from collapsebench.errors import RunError, UserError

if TYPE_CHECKING:
    from collapsebench.authoring.calibration import Calibration
    from collapsebench.task import Task


class Modality(StrEnum):
    """What a new task's data is."""

    TEXT = "text"
    IMAGES = "images"


@dataclass(frozen=True)
class TryOut:
    """How much a try-out of calibration is reduced."""

    seeds: Annotated[str | None, typer.Option(help="Comma-separated, for a try-out; default: the official seeds.")] = (
        None
    )
    generations: Annotated[int | None, typer.Option(min=1, help="Last generation, for a try-out.")] = None
    budget: BudgetOption = 1.0


@dataclass(frozen=True)
class Supplied:
    """What the user already has."""

    data: DataOption = None
    model: ModelOption = None
    inception: InceptionOption = None


WHOLE, NOTHING = TryOut(), Supplied()


def base(
    task: TaskArgument,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the weights to another file than the task's own, to train them once more."),
    ] = None,
    device: DeviceOption = "auto",
    data: DataOption = None,
) -> None:
    """Train the base model that every generation of a task starts from, and write it beside the task."""
    from collapsebench.authoring.base import check_task, train_base
    from collapsebench.cli.terminal import work_progress
    from collapsebench.running.environment import resolve_device
    from collapsebench.running.progress_display import plain_console

    loaded = load(task, 1.0, resources_of(data, None))
    file = check_task(loaded, out)
    with work_progress("training the base model", plain_console(stderr=True)) as on_progress:
        sha256 = train_base(loaded, file, resolve_device(device), on_progress)
    wanted = loaded.spec.base.sha256 if loaded.spec.base else None
    told = "" if wanted is None else ", as the task says" if wanted == sha256 else f"; the task's own has {wanted}"
    typer.echo(f"wrote {file}: {file.stat().st_size:,} bytes, sha256 {sha256}{told}")


def init(
    what: Annotated[Modality, typer.Argument(help="Kind of data: text or images.")],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="A text file or folder of *.txt; or a folder of images with one sub-folder per class."
        ),
    ],
    task: Annotated[
        Path | None, typer.Option("--task", help="Folder of the new task; default: DATA's name with -task.")
    ] = None,
) -> None:
    """Write a task for your own data, with sizes that fit it, and say what to run next."""
    from collapsebench.authoring.new_task import new_image_task, new_text_task
    from collapsebench.files import require_folder

    if not (data.exists() if what is Modality.TEXT else data.is_dir()):
        raise UserError(f"{data}: no such {'file or folder' if what is Modality.TEXT else 'folder'}.")
    folder = data.with_name(f"{data.stem}-task") if task is None else task
    require_folder(folder, "--task")
    made = new_text_task(data, folder) if what is Modality.TEXT else new_image_task(data, folder)
    file = folder / "task.yaml"
    typer.echo(f"wrote {file} ({made.id})")
    if what is Modality.IMAGES:
        typer.echo(f"next:  collapsebench classifier {file}    # a network to measure the images with: minutes")
    typer.echo(f"{'then' if what is Modality.IMAGES else 'next'}:  collapsebench compare {file} --seeds 0,1 --dry-run")
    typer.echo(f"       collapsebench compare {file} --seeds 0,1    # raw metrics, until it is calibrated")
    typer.echo(f"       collapsebench calibrate {file} --write      # then scores")


def classifier(
    task: TaskArgument,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs over the real training images.")] = 12,
    data: DataOption = None,
) -> None:
    """Train the classifier that measures an image task's samples, and write it beside the task."""
    from collapsebench.authoring.train_classifier import write_classifier
    from collapsebench.cli.terminal import work_progress
    from collapsebench.running.progress_display import plain_console

    loaded = load(task, 1.0, resources_of(data, None))
    with work_progress("training the classifier", plain_console(stderr=True)) as on_progress:
        told = write_classifier(loaded, epochs, on_progress)
    typer.echo(f"wrote {told}")


@grouped(less=TryOut, given=Supplied)
def calibrate(
    task: TaskArgument,
    out: OutOption = Path("runs"),
    write: Annotated[bool, typer.Option("--write", help="Freeze references, floors and splits in the task.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="With --write: write even if rules are broken. Methods on it are then not ranked."
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Run nothing: check the committed calibration against the task and the rules."),
    ] = False,
    less: TryOut = WHOLE,
    device: DeviceOption = "auto",
    given: Supplied = NOTHING,
) -> None:
    """Measure a task's references and floors on ce, control and the base model, and check the rules."""
    from collapsebench.authoring.sigma import sigma_cells, write_sigma

    resources = resources_of(given.data, given.inception, model=given.model)
    loaded = load(task, 1.0, resources)
    if less != WHOLE:
        if write or check:
            raise UserError(
                "--seeds, --generations and --budget are for a try-out: give them without --write, --check."
            )
        _try_out(loaded, less, out, device)
        return
    if check and write:
        raise UserError("--check runs and writes nothing: give it without --write.")
    if force and not write:
        raise UserError("--force is for --write, which it lets write where rules are broken: give both or neither.")
    if check:
        _check(loaded)
        return
    if needed := sigma_cells(loaded, out, device):
        if not write:
            raise UserError(
                f"{loaded.id} has no sigma yet; --write measures it first and writes it into the task file."
            )
        run_watched(needed, "auto")
        typer.echo(f"sigma = {write_sigma(needed)}, measured on ce at generation 0 and written into {loaded.path}")
        loaded = load(task, 1.0, resources)
    outcome = _calibrated(loaded, out, device)
    for line in outcome.lines():
        typer.echo(line)
    if write:
        _require_rules(outcome, force)
        for path in outcome.write():
            typer.echo(f"wrote {path}")
    elif not outcome.frozen:
        typer.echo("Nothing was written; --write freezes these numbers in the task.")


def _try_out(task: Task, less: TryOut, out: Path, device: str) -> None:
    """Calibrate on less, in a separate folder, and print the result."""
    from collapsebench.authoring.calibration import try_out_task

    seeds = None if less.seeds is None else integers(less.seeds)
    variant, folder = try_out_task(task, seeds, less.generations, less.budget, out)
    for line in _calibrated(variant, folder, device).lines():
        typer.echo(line)
    typer.echo(f"A try-out in {folder}: nothing was written. To calibrate the task in full, leave out these options.")


def _calibrated(task: Task, out: Path, device: str) -> Calibration:
    """Run what is missing, show progress, and measure."""
    from collapsebench.authoring.calibration import calibration_cells, measure_calibration, settings_cells
    from collapsebench.authoring.floors import knows_base
    from collapsebench.authoring.grid import counting
    from collapsebench.cli.terminal import work_progress
    from collapsebench.running.engines import run_cells
    from collapsebench.running.progress_display import plain_console

    cells = calibration_cells(task, out, device)
    run_watched(cells, "auto")
    console = plain_console(stderr=True)
    settings = settings_cells(task, out, device)
    with work_progress("other settings of ce", console) as on_cell:
        run_cells(settings, "auto", None, counting(settings, on_cell))
    if knows_base(task):
        console.print("measuring the untouched base model …", style="dim")
    return measure_calibration(cells)


def _require_rules(outcome: Calibration, force: bool) -> None:
    """Refuse to freeze numbers that break rules of a ranked task, unless forced to."""
    broken = [rule.rule for rule in outcome.record.rules if not rule.kept]
    if broken and not force:
        raise RunError(
            f"nothing was written: {outcome.task.id} breaks rules of a ranked task ({', '.join(broken)}; see above). "
            "Change the task (docs/adding-a-task.md, 3), or write it with --write --force: its methods are then not "
            "ranked, and every table says so. The runs are kept."
        )


def _check(task: Task) -> None:
    """Check the committed calibration; exit with 1 if a rule is broken or it belongs to another task."""
    from collapsebench.authoring.calibration import check
    from collapsebench.authoring.calibration_record import processor_rules, read_record

    problems, record = check(task), read_record(task)
    for rule in (*record.rules, *processor_rules(task)):
        typer.echo(str(rule))
    for problem in problems:
        typer.echo(f"BROKEN  {problem}")
    if problems or task.broken_rules:
        raise typer.Exit(1)
