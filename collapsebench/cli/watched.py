"""Running cells, and their progress in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collapsebench.running.cells import Cell
    from collapsebench.running.engines import Engine
    from collapsebench.running.progress import Listener


def run_watched(cells: list[Cell], engine: Engine, quiet: bool = False) -> None:
    """Run cells and show their progress."""
    from collapsebench.running.engines import run_cells

    with watched(cells, quiet) as listener:
        run_cells(cells, engine, None, listener)


@contextmanager
def watched(cells: list[Cell], quiet: bool = False) -> Iterator[Listener]:
    """Show what the block runs; of several processes on the same cells, only the first one goes on to report."""
    from collapsebench.running.progress import silent
    from collapsebench.running.progress_display import cell_progress, plain_console
    from collapsebench.workloads.processes import is_first

    if quiet:
        yield silent
    else:
        console = plain_console(stderr=True)
        if is_first():
            console.print("preparing data and models …", style="dim")
        with cell_progress(cells, console) as listener:
            yield listener
    if not is_first():
        raise typer.Exit
