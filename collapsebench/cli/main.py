"""The command line. Thin: every command resolves its arguments and calls one function; torch is imported late."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from collapsebench import __version__
from collapsebench.cli import authoring as authoring_commands
from collapsebench.cli import submissions as submission_commands
from collapsebench.cli import tuning as tuning_commands
from collapsebench.cli.options import (
    Against,
    BudgetOption,
    DataOption,
    DeviceOption,
    DirectoryArgument,
    EngineName,
    GenerationsOption,
    InceptionOption,
    ModelOption,
    OutOption,
    TaskArgument,
    What,
    integers,
    on_task,
    resources_of,
)
from collapsebench.cli.watched import run_watched, watched
from collapsebench.errors import CollapsebenchError

if TYPE_CHECKING:
    from collapsebench.reports.comparison import Comparison
    from collapsebench.running.cells import Cell
    from collapsebench.task import Task

_DEBUG = "--debug"
_INTERRUPTED = 130
_HOW_TO_GO_ON = "\nstopped. Finished generations are kept; run the same command again to go on where it stopped."

app = typer.Typer(
    name="collapsebench",
    help="How long does a generative model trained on its own samples stay faithful to the real data?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[  # noqa: ARG001  (`main` takes it out, wherever on the line it stands)
        bool, typer.Option(_DEBUG, help="On an error, print the traceback too; can stand anywhere on the line.")
    ] = False,
) -> None:
    if version:
        typer.echo(f"collapsebench {__version__}")
        raise typer.Exit


@app.command("list")
def list_(what: Annotated[What | None, typer.Argument(help="tasks or methods; both when absent.")] = None) -> None:
    """List the registered tasks and methods."""
    from collapsebench.methods import CONTROL, registered_methods
    from collapsebench.task import load_task, registered_tasks

    if what in (None, What.TASKS):
        typer.echo("tasks")
        tasks = [load_task(name) for name in registered_tasks()]
        width = max(len(task.id) for task in tasks)
        for task in tasks:
            mark = f"{task.mark}: " if task.mark else ""
            typer.echo(f"  {task.id:<{width}} {task.spec.tier:<9} {mark}{task.spec.title}")
    if what in (None, What.METHODS):
        typer.echo("methods")
        for name, path in registered_methods().items():
            title = (path.parent / "card.md").read_text("utf-8").splitlines()[0].lstrip("# ")
            typer.echo(f"  {name:<24} {title}")
        typer.echo(f"  {CONTROL:<24} ce on real data in every generation: what is not collapse")


@app.command()
def show(task: TaskArgument) -> None:
    """Print a task: its card and everything it fixes."""
    from collapsebench.task import load_task
    from collapsebench.task_files import as_yaml, own_file, read_task_file

    loaded = load_task(task)
    card = own_file(loaded.path, "card.md")
    if card.is_file():
        typer.echo(card.read_text("utf-8"))
    typer.echo(f"--- {loaded.path.name} (digest {loaded.sha256[:16]}) ---")
    typer.echo(loaded.path.read_text("utf-8"))
    if loaded.extended:
        typer.echo(f"--- with what it takes over from {', '.join(map(str, loaded.extended))} ---")
        typer.echo(as_yaml(read_task_file(loaded.path).content))


@app.command()
@on_task
def run(
    task: Task,
    method: Annotated[str, typer.Option(help="tce, tce:gamma=0.8, my_loss.py:MyLoss, package.module:MyLoss")],
    seed: Annotated[int, typer.Option(help="Any integer ≥ 0.")] = 0,
    out: OutOption = Path("runs"),
    generations: GenerationsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Run one chain of generations: one task, one method, one seed."""
    from collapsebench.running.plan import plan

    cells = plan(task, [method], [seed], out, generations, device)
    run_watched(cells, "inline")
    _print_last_metrics(cells[0])
    typer.echo(f"Artefacts: {cells[0].directory.path}")


@app.command()
@on_task
def compare(
    task: Task,
    methods: Annotated[
        str | None,
        typer.Option(help="Comma-separated; ce,focal,tce when absent. A parameter's comma joins its method."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Comma-separated; the official seeds when absent.")] = None,
    out: OutOption = Path("runs"),
    generations: GenerationsOption = None,
    device: DeviceOption = "auto",
    engine: Annotated[
        EngineName, typer.Option(help="Where cells run: this process, local workers, or Ray ($RAY_ADDRESS).")
    ] = (EngineName.AUTO),
    against: Annotated[
        Against, typer.Option(help="published: take the baselines' curves from the committed submissions.")
    ] = (Against.RUN),
) -> None:
    """Run the missing cells of methods × seeds, then compare the methods."""
    from collapsebench.api import prepare

    wanted = None if methods is None else split_methods(methods)
    chosen = None if seeds is None else integers(seeds)
    trial = prepare(task, wanted, chosen, out, generations, device, against.value)
    with watched(trial.cells) as listener:
        trial.run(engine.value, listener)
    _report(trial.comparison())


@app.command()
def score(directory: DirectoryArgument) -> None:
    """Recompute all scores below DIR from the raw metrics on disk."""
    from collapsebench import api
    from collapsebench.cli.terminal import print_comparison
    from collapsebench.running.progress_display import plain_console

    for comparison in api.score(directory):
        print_comparison(comparison, plain_console())


@app.command()
def report(directory: DirectoryArgument) -> None:
    """Recompute all scores below DIR and write csv, json, plot and HTML report."""
    from collapsebench import api

    for comparison in api.score(directory):
        _report(comparison)


@app.command()
def estimate(
    task: TaskArgument,
    generations: GenerationsOption = None,
    device_tflops: Annotated[
        float | None, typer.Option("--device-tflops", help="Sustained TFLOP/s of your device: also print hours.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it for programs.")] = False,
    budget: BudgetOption = 1.0,
    train_items: Annotated[
        int | None, typer.Option(min=1, help="Items of the training split, where the task cannot know their number.")
    ] = None,
) -> None:
    """Estimate what one chain takes: parameters, FLOPs, memory, disk, hours. Nothing is loaded or run."""
    import json

    from collapsebench.authoring.estimate import estimate
    from collapsebench.authoring.estimates.sizes import known_sizes
    from collapsebench.task import load_task

    loaded = load_task(task, budget)
    found = estimate(loaded, generations, known_sizes(loaded, train_items))
    if as_json:
        typer.echo(json.dumps(found.as_json(device_tflops), indent=1))
    else:
        typer.echo("\n".join(found.lines(device_tflops)))


@app.command()
def doctor(
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="Also check that this task can run.")] = None,
    data: DataOption = None,
    model: ModelOption = None,
    inception: InceptionOption = None,
) -> None:
    """Check the installation: versions, device; for a task its data, weights, memory and disk."""
    from collapsebench.authoring.doctor import diagnose

    problems = 0
    for finding in diagnose(task, resources_of(data, inception, model=model)):
        typer.echo(f"{'ok  ' if finding.fine else 'WARN' if finding.usable else 'FAIL'}  {finding.text}")
        problems += not finding.usable
    if problems:
        raise typer.Exit(1)


def split_methods(text: str) -> list[str]:
    """Split ``tce:gamma=0.8,reduction=kept,ce`` into methods: a piece ``key=value`` belongs to the one before."""
    methods: list[str] = []
    for piece in text.split(","):
        is_parameter = "=" in piece and ":" not in piece
        if is_parameter and methods and "=" in methods[-1]:
            methods[-1] += f",{piece}"
        elif piece.strip():
            methods.append(piece.strip())
    return methods


def _report(comparison: Comparison) -> None:
    from collapsebench.cli.terminal import print_comparison
    from collapsebench.reports.report import write_report
    from collapsebench.running.progress_display import plain_console

    paths = write_report(comparison)
    print_comparison(comparison, plain_console())
    typer.echo("Wrote " + ", ".join(str(path) for path in paths))


def _print_last_metrics(cell: Cell) -> None:
    store = cell.directory
    reached = [g for g in range(cell.generations + 1) if store.state(g) == "ok"]
    for g in sorted({reached[0], reached[-1]} if reached else set()):
        metrics = store.read(g, "metrics.json")["metrics"]
        shown = "  ".join(f"{name} {metrics[name]['value']:.4g}" for name in cell.task.spec.scored if name in metrics)
        typer.echo(f"generation {g}: {shown}")
    if len(reached) <= cell.generations:
        typer.echo(f"diverged in generation {len(reached)}")


for _command in (
    authoring_commands.base,
    authoring_commands.calibrate,
    tuning_commands.tune,
    submission_commands.submit,
    submission_commands.validate,
    submission_commands.verify,
    submission_commands.leaderboard,
    submission_commands.power,
):
    app.command()(_command)


def main() -> None:
    """Entry point: errors of ours become one line and an exit code, Ctrl-C says how to go on."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    debug = _DEBUG in sys.argv
    sys.argv[:] = [argument for argument in sys.argv if argument != _DEBUG]
    try:
        app()
    except CollapsebenchError as error:
        if debug:
            traceback.print_exception(error)
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:  # typer has caught Ctrl-C
            print(_HOW_TO_GO_ON, file=sys.stderr)
        raise
    except KeyboardInterrupt:  # Ctrl-C while typer was not yet, or no longer, at work
        print(_HOW_TO_GO_ON, file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
