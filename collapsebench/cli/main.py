"""The command line. Thin: every command resolves its arguments and calls one function; torch is imported late."""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from collapsebench import __version__
from collapsebench.cli import authoring as authoring_commands
from collapsebench.cli import costs as cost_commands
from collapsebench.cli import listing
from collapsebench.cli import submissions as submission_commands
from collapsebench.cli import tuning as tuning_commands
from collapsebench.cli.dry_run import tell_outlook
from collapsebench.cli.options import (
    AS_USUAL,
    Comparing,
    DeviceOption,
    DirectoryArgument,
    DryRunOption,
    GenerationsOption,
    JsonOption,
    OutOption,
    QuietOption,
    grouped,
    integers,
    on_task,
)
from collapsebench.cli.watched import run_watched, watched
from collapsebench.errors import CollapsebenchError
from collapsebench.running.library_warnings import keep_off_the_screen

if TYPE_CHECKING:
    from collapsebench.reports.comparison import Comparison
    from collapsebench.reports.raw_comparison import RawComparison
    from collapsebench.running.cells import Cell
    from collapsebench.task import Task

_DEBUG = "--debug"
_INTERRUPTED = 130
_OF_THE_USER = (errno.ENAMETOOLONG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR)
_HOW_TO_GO_ON = "\nstopped. Finished generations are kept; run the same command again to resume."

app = typer.Typer(
    name="collapsebench",
    help="How long does a generative model trained on its own samples stay faithful to the real data?",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[  # noqa: ARG001  (`main` takes it out, wherever on the line it stands)
        bool, typer.Option(_DEBUG, help="On an error, also print the traceback; can be anywhere on the line.")
    ] = False,
) -> None:
    if version:
        typer.echo(f"collapsebench {__version__}")
        raise typer.Exit


@app.command()
@on_task
def run(
    task: Task,
    method: Annotated[str, typer.Option(help="tce, tce:gamma=0.8, my_loss.py:MyLoss, package.module:MyLoss")],
    seed: Annotated[int, typer.Option(help="Any integer from 0 to 2147483647.")] = 0,
    out: OutOption = Path("runs"),
    generations: GenerationsOption = None,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Run one chain of generations: one task, one method, one seed."""
    from collapsebench.running.plan import plan

    cells = plan(task, [method], [seed], out, generations, device)
    if dry_run:
        tell_outlook(cells, "inline")
        return
    run_watched(cells, "inline", quiet)
    _print_last_metrics(cells[0])
    typer.echo(f"Artefacts: {cells[0].directory.path}")


@app.command()
@on_task
@grouped(how=Comparing)
def compare(
    task: Task,
    methods: Annotated[
        str | None,
        typer.Option(help="Comma-separated; default: ce,focal,tce. A method's parameters may contain commas."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Comma-separated; default: the official seeds.")] = None,
    out: OutOption = Path("runs"),
    generations: GenerationsOption = None,
    device: DeviceOption = "auto",
    how: Comparing = AS_USUAL,
) -> None:
    """Run the missing cells of methods × seeds, then compare the methods."""
    from collapsebench.api import prepare

    wanted = None if methods is None else split_methods(methods)
    chosen = None if seeds is None else integers(seeds)
    trial = prepare(task, wanted, chosen, out, generations, device, how.against.value)
    if how.dry_run:
        tell_outlook(trial.cells, how.engine.value, how.as_json)
        return
    with watched(trial.cells, how.quiet) as listener:
        trial.run(how.engine.value, listener)
    _report(trial.comparison(), how.as_json)


@app.command()
def score(directory: DirectoryArgument, as_json: JsonOption = False) -> None:
    """Recompute all scores below DIR from the raw metrics on disk."""
    from collapsebench import api
    from collapsebench.cli.terminal import print_comparison
    from collapsebench.reports.any_comparison import any_as_json
    from collapsebench.running.progress_display import plain_console

    comparisons = api.score(directory)
    if as_json:
        typer.echo(json.dumps([any_as_json(c) for c in comparisons], indent=1, allow_nan=False))
        return
    for comparison in comparisons:
        print_comparison(comparison, plain_console())


@app.command()
def report(directory: DirectoryArgument) -> None:
    """Recompute all scores below DIR and write csv, json, plot and HTML report."""
    from collapsebench import api

    for comparison in api.score(directory):
        _report(comparison)


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


def _report(comparison: Comparison | RawComparison, as_json: bool = False) -> None:
    from collapsebench.cli.terminal import print_comparison
    from collapsebench.reports.any_comparison import any_as_json, write_any
    from collapsebench.running.progress_display import plain_console

    paths = write_any(comparison)
    if as_json:
        typer.echo(json.dumps(any_as_json(comparison), indent=1, allow_nan=False))
        return
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


app.command("list")(listing.list_)
for _command in (
    listing.show,
    listing.cite,
    cost_commands.estimate,
    cost_commands.doctor,
    authoring_commands.init,
    authoring_commands.base,
    authoring_commands.classifier,
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
    """Entry point: our own errors and the disk's become one line and an exit code; Ctrl-C says how to resume."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    debug = _DEBUG in sys.argv
    if not debug:
        keep_off_the_screen()
    sys.argv[:] = [argument for argument in sys.argv if argument != _DEBUG]
    try:
        app()
    except CollapsebenchError as error:
        if debug:
            traceback.print_exception(error)
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if debug:
            traceback.print_exception(error)
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}.", file=sys.stderr)
        raise SystemExit(2 if error.errno in _OF_THE_USER else 1) from None
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:  # typer has caught Ctrl-C
            print(_HOW_TO_GO_ON, file=sys.stderr)
        raise
    except KeyboardInterrupt:  # Ctrl-C while typer was not yet, or no longer, at work
        print(_HOW_TO_GO_ON, file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
