"""What a command would run, which part is already there, and how long the rest takes; nothing is run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import typer

from collapsebench.authoring.rates import duration_text, read_measured
from collapsebench.running.progress_account import plan_of

if TYPE_CHECKING:
    from collapsebench.running.cells import Cell


@dataclass(frozen=True)
class Outlook:
    """What running some cells would take.

    Attributes:
        task: its id. device: where. workers: cells at once.
        cells: method, seed, number of finished generations, number of generations to run.
        hours: of computing, if cells are run one after the other; None: not known. told: the source of that number.
    """

    task: str
    device: str
    workers: int
    cells: list[tuple[str, int, int, int]]
    hours: float | None
    told: str

    def lines(self) -> list[str]:
        """For people."""
        width = max(len(method) for method, *_ in self.cells)
        lines = [f"{self.task} on {self.device}; nothing is run:"]
        for method, seed, there, left in self.cells:
            what = f"{left} generation(s) to run, {there} there" if left else f"all {there} generations are there"
            lines.append(f"  {method:<{width}} seed {seed}: {what}")
        there, left = sum(cell[2] for cell in self.cells), sum(cell[3] for cell in self.cells)
        lines.append(f"{there + left} generations, {there} there, {left} to run")
        if not left:
            return lines
        if self.hours is None:
            return [*lines, f"how long that takes is not known: {self.told}"]
        beside = f", {duration_text(self.hours / self.workers)} with {self.workers} at once" if self.workers > 1 else ""
        return [*lines, f"about {duration_text(self.hours)} of computing{beside} ({self.told})"]


def tell_outlook(cells: Sequence[Cell], engine: str, as_json: bool = False) -> None:
    """Print what running the cells would mean."""
    from collapsebench.running.engines import possible_workers

    workers = 1 if engine == "inline" else min(len(cells), possible_workers(cells[0]))
    found = outlook(cells, workers)
    typer.echo(json.dumps(asdict(found), indent=1) if as_json else "\n".join(found.lines()))


def outlook(cells: Sequence[Cell], workers: int) -> Outlook:
    """Look at what is there, and estimate the rest from the time of finished generations, or from measured rates."""
    rows, work_left, work_done, seconds = [], 0, 0, 0.0
    for cell in cells:
        plan, there, diverged = plan_of(cell), 0, False
        while there < len(plan) and not diverged and (state := cell.directory.state(there)) != "missing":
            diverged = state == "diverged"
            if spent := sum(cell.directory.seconds(there).values()):
                work_done, seconds = work_done + plan[there], seconds + spent
            there += 1
        left = 0 if diverged else len(plan) - there
        work_left += sum(plan[len(plan) - left :])
        rows.append((cell.method.name, cell.seed, there, left))
    hours, told = _hours(cells[0], work_left, work_done, seconds)
    return Outlook(cells[0].task.id, cells[0].device, workers, rows, hours, told)


def _hours(cell: Cell, work_left: int, work_done: int, seconds: float) -> tuple[float | None, str]:
    """Hours for this many planned elements, and the source of that number."""
    if work_done:
        return work_left * seconds / work_done / 3600, "as fast as the generations that are there"
    whole = read_measured().hours(cell.task)
    if whole is None:
        return None, f"`collapsebench doctor {cell.task.argument} --measure` measures how fast this machine is"
    of_task = sum(plan_of(cell, generations=cell.task.spec.horizon))
    return whole * work_left / of_task, "as measured by `collapsebench doctor --measure`"
