"""Progress of running cells: bars in a terminal, one line in a notebook, a line per generation elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from collapsebench.running.progress import Event, Listener, silent
from collapsebench.running.progress_account import ENDS, Account
from collapsebench.running.progress_lines import line_per_generation
from collapsebench.workloads.processes import is_first

if TYPE_CHECKING:
    from collapsebench.running.cells import Cell


class _Rate(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {self.unit}/s" if task.speed else "", style="dim")


class Eta(ProgressColumn):
    def render(self, task: Task) -> Text:
        seconds = task.time_remaining
        return Text("" if seconds is None else f"{seconds // 60:.0f}:{seconds % 60:02.0f} left", style="cyan")


def plain_console(stderr: bool = False) -> Console:
    """A console that is wide and has no colours if the output is not a terminal."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=176, color_system=None)


@contextmanager
def cell_progress(cells: Sequence[Cell], console: Console) -> Iterator[Listener]:
    """Show one line for all cells together and one per running cell; in a pipe, one line per finished generation.

    Yields:
        The listener for the engine.
    """
    if not console.is_terminal:
        yield line_per_generation(cells, console)
        return
    unit = cells[0].task.spec.kind.unit if cells else ""
    columns = [TextColumn("{task.description}"), BarColumn(bar_width=24), _Rate(unit), TimeElapsedColumn(), Eta()]
    with Progress(*columns, console=console, speed_estimate_period=120, transient=True) as progress:
        board = _Board(cells, progress)
        yield board.update


@contextmanager
def shown_progress(cells: Sequence[Cell]) -> Iterator[Listener]:
    """Show the cells of a script or notebook on stderr; only in the first of several processes.

    Yields:
        The listener for the engine.
    """
    console = plain_console(stderr=True)
    if not is_first():
        yield silent
    elif console.is_jupyter:
        line = _OneLine(cells)
        yield line.update
        line.end()
    else:
        with cell_progress(cells, console) as listener:
            yield listener


class _OneLine:
    """A line that is overwritten repeatedly, for notebooks without widgets."""

    def __init__(self, cells: Sequence[Cell]):
        self.generations = {(c.method.name, c.seed): c.generations + 1 for c in cells}
        self.all, self.done, self.reused = sum(self.generations.values()), 0, 0
        self.began, self.width = time.monotonic(), 0

    def update(self, event: Event) -> None:
        """Show an event."""
        count = self.generations[event.method, event.seed]
        if event.phase in ENDS:
            ended = count - event.generation if event.phase == "diverged" else 1
            self.done += ended
            self.reused += event.phase == "reused"
        ran, left = self.done - self.reused, self.all - self.done
        seconds = (time.monotonic() - self.began) * left / ran if ran and left else 0
        remaining = f", about {seconds // 60:.0f}:{seconds % 60:02.0f} left" if seconds else ""
        where = f"{event.method} seed {event.seed}, generation {event.generation}/{count - 1} {event.phase}"
        self._write(f"{self.done} of {self.all} generations{remaining}: {where}")

    def end(self) -> None:
        """Show that everything is done."""
        seconds = time.monotonic() - self.began
        reused = f", {self.reused} of them from before" if self.reused else ""
        self._write(f"{self.done} of {self.all} generations{reused}, {seconds // 60:.0f}:{seconds % 60:02.0f} min\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(f"\r{text.ljust(self.width)}")
        sys.stdout.flush()
        self.width = len(text)


class _Board:
    """Bars counted in planned elements."""

    def __init__(self, cells: Sequence[Cell], progress: Progress):
        self.progress = progress
        self.account = Account(cells)
        self.overall = progress.add_task(f"[bold]{len(cells)} cell(s)", total=self.account.total)
        self.bars: dict[tuple[str, int], TaskID] = {}

    def update(self, event: Event) -> None:
        """Show an event."""
        key, step = (event.method, event.seed), self.account.take(event)
        self.progress.update(self.overall, total=self.account.total, completed=self.account.done)
        if event.phase == "prepared":
            return
        plan = self.account.plan[key]
        if key not in self.bars:
            self.bars[key] = self.progress.add_task("", total=sum(plan))
        self.progress.advance(self.bars[key], step)
        last = len(plan) - 1
        text = f"  {escape(event.method)} seed {event.seed}  generation {event.generation}/{last} {event.phase}"
        finished = event.phase == "diverged" or (event.phase in ENDS and event.generation == last)
        self.progress.update(self.bars[key], description=text, visible=not finished)
