"""What can be said before anything is run: what a task will cost, and whether it can run here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from collapsebench.cli.options import (
    BudgetOption,
    DataOption,
    GenerationsOption,
    InceptionOption,
    JsonOption,
    ModelOption,
    TaskArgument,
    resources_of,
)

if TYPE_CHECKING:
    from collapsebench.resources import Resources


def estimate(
    task: TaskArgument,
    generations: GenerationsOption = None,
    device_tflops: Annotated[
        float | None,
        typer.Option(
            "--device-tflops", help="Sustained TFLOP/s of your device; default: as measured by doctor --measure."
        ),
    ] = None,
    as_json: JsonOption = False,
    budget: BudgetOption = 1.0,
    train_items: Annotated[
        int | None, typer.Option(min=1, help="Number of training items, if the task cannot know it.")
    ] = None,
) -> None:
    """Estimate the cost of one chain: parameters, FLOPs, memory, disk, hours. Nothing is loaded or run."""
    from collapsebench.authoring.estimate import estimate
    from collapsebench.authoring.estimates.sizes import known_sizes
    from collapsebench.authoring.rates import read_measured
    from collapsebench.task import load_task

    loaded = load_task(task, budget)
    found = estimate(loaded, generations, known_sizes(loaded, train_items))
    rate = read_measured().rate(loaded.spec.workload.kind) if device_tflops is None else device_tflops
    if as_json:
        typer.echo(json.dumps(found.as_json(rate), indent=1))
    else:
        typer.echo("\n".join(found.lines(rate)))


def doctor(
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="Also check that this task can run.")] = None,
    data: DataOption = None,
    model: ModelOption = None,
    inception: InceptionOption = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure how fast this machine is, for the hours in list and estimate.")
    ] = False,
) -> None:
    """Check the installation: versions, device; for a task its data, weights, memory and disk."""
    resources = resources_of(data, inception, model=model)
    if measure:
        _measure(task, resources)
        return
    from collapsebench.authoring.doctor import diagnose

    problems = 0
    for finding in diagnose(task, resources):
        typer.echo(f"{'ok  ' if finding.fine else 'WARN' if finding.usable else 'FAIL'}  {finding.text}")
        problems += not finding.usable
    if problems:
        raise typer.Exit(1)


def _measure(task: str | None, resources: Resources) -> None:
    from collapsebench.authoring.measuring import measure

    _, file = measure(task, typer.echo, resources)
    typer.echo(f"kept in {file}; `collapsebench list` and `estimate` compute hours from it")
