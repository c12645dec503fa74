"""What makers of tasks run: base models and calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from collapsebench.cli.options import (
    DataOption,
    DeviceOption,
    InceptionOption,
    ModelOption,
    OutOption,
    TaskArgument,
    load,
    resources_of,
)
from collapsebench.cli.watched import run_watched
from collapsebench.errors import UserError


def base(
    task: TaskArgument,
    out: Annotated[
        Path | None, typer.Option(help="Another file for the weights than the task's own: to train them once more.")
    ] = None,
    device: DeviceOption = "auto",
    data: DataOption = None,
) -> None:
    """Train the base model that every generation of a task starts from, and write it beside the task."""
    from collapsebench.authoring.base import check_task, train_base
    from collapsebench.cli.terminal import plain_console, work_progress
    from collapsebench.running.environment import resolve_device

    loaded = load(task, 1.0, resources_of(data, None))
    file = check_task(loaded, out)
    with work_progress("training the base model", plain_console(stderr=True)) as on_progress:
        sha256 = train_base(loaded, file, resolve_device(device), on_progress)
    wanted = loaded.spec.base.sha256 if loaded.spec.base else None
    told = "" if wanted is None else ", as the task says" if wanted == sha256 else f"; the task's own has {wanted}"
    typer.echo(f"wrote {file}: {file.stat().st_size:,} bytes, sha256 {sha256}{told}")


def calibrate(
    task: TaskArgument,
    out: OutOption = Path("runs"),
    write: Annotated[bool, typer.Option("--write", help="Freeze references, floors and splits in the task.")] = False,
    device: DeviceOption = "auto",
    data: DataOption = None,
    model: ModelOption = None,
    inception: InceptionOption = None,
) -> None:
    """Measure a task's references and floors on ce and control, and check the calibration rule."""
    from collapsebench.authoring.calibration import calibration_cells, measure_calibration, sigma_cells, write_sigma
    from collapsebench.cli.terminal import plain_console

    resources = resources_of(data, inception, model=model)
    loaded = load(task, 1.0, resources)
    if needed := sigma_cells(loaded, out, device):
        if not write:
            raise UserError(
                f"{loaded.id} has no sigma yet; --write measures it first and writes it into the task file."
            )
        run_watched(needed, "auto")
        typer.echo(f"sigma = {write_sigma(needed)}, measured on ce at generation 0 and written into {loaded.path}")
        loaded = load(task, 1.0, resources)
    cells = calibration_cells(loaded, out, device)
    run_watched(cells, "auto")
    outcome = measure_calibration(cells)
    console = plain_console()
    for line in outcome.lines():
        console.print(line, markup=False, highlight=False)
    if write:
        for path in outcome.write():
            console.print(f"wrote {path}", markup=False, highlight=False)
    elif not outcome.frozen:
        console.print("Nothing was written; --write freezes these numbers in the task.", style="yellow")
