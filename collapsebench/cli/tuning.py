"""Tuning a method on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from collapsebench.cli.options import DeviceOption, GenerationsOption, OutOption, integers, on_task
from collapsebench.cli.watched import run_watched

if TYPE_CHECKING:
    from collapsebench.authoring.tuning import Tuned, Variant
    from collapsebench.task import Task


@on_task
def tune(
    task: Task,
    method: Annotated[str, typer.Option(help="tce, my_loss.py:MyLoss, package.module:MyLoss")],
    tried: Annotated[
        list[str], typer.Option("--try", help="A parameter and its values: gamma=0.5,0.7. Repeat for a grid.")
    ],
    seeds: Annotated[
        str | None, typer.Option(help="Comma-separated, no official ones; default: 1000,1001,1002.")
    ] = None,
    out: OutOption = Path("runs"),
    generations: GenerationsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Compare parameters of a method on the selection split, on seeds that are not official, and count the runs."""
    from collapsebench.authoring.tuning import read_tuning, tuning_cells, variants_of

    chosen = None if seeds is None else integers(seeds)
    cells = tuning_cells(task, variants_of(method, tried), chosen, out, generations, device)
    run_watched(cells, "auto")
    _report(read_tuning(cells), cells[0].out / task.id / "tuning.png")


def _report(tuned: Tuned, picture: Path) -> None:
    from rich.table import Table

    from collapsebench.reports.plots import save_figure, tuning_figure
    from collapsebench.running.progress_display import plain_console

    table = Table(
        title=f"{tuned.task.id}, selection split, seeds {', '.join(map(str, tuned.seeds))}", title_justify="left"
    )
    for header in ("method", "mFI [95 %]", "minus ce [95 %]", "masks", "fidelity by generation"):
        table.add_column(header, justify="left" if header == "method" else "right")
    for variant in tuned.variants:
        table.add_row(*_row(variant))
    console = plain_console()
    console.print(table)
    for line in tuned.lines():
        console.print(line, markup=False, highlight=False, style="dim")
    curves = {v.method: v.curve for v in tuned.variants}
    save_figure(tuning_figure(f"{tuned.task.id}: tuning", {"selection split": curves}, tuned.metric), picture)
    typer.echo(f"Wrote {picture}")


def _row(variant: Variant) -> tuple[str, ...]:
    from rich.markup import escape

    from collapsebench.scoring.columns import interval_text
    from collapsebench.scoring.engagement import percent_text

    row = variant.row
    return (
        escape(variant.method),
        interval_text(row, "mfi"),
        "–" if variant.against_ce is None else interval_text(row, "difference_ce"),
        "–" if variant.masks is None else percent_text(variant.masks),
        " ".join(f"{f:.2f}" for f in variant.curve),
    )
