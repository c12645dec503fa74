"""Tracks how much work of several cells is done, in planned elements, as their events arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from collapsebench.running.progress import Event
from collapsebench.workloads.work import planned_elements

if TYPE_CHECKING:
    from collapsebench.running.cells import Cell

ENDS = ("complete", "reused", "diverged")
"""Phases that end a generation."""

Key = tuple[str, int]


class Account:
    """Planned elements of cells; elements that a finished generation did not report are added at its end.

    Attributes:
        cells: the cells by method and seed. plan: elements of every generation of each cell. done: computed elements.
        total: elements to compute. Reused generations cost nothing and are subtracted, or the time left would be too
            short.
    """

    def __init__(self, cells: Sequence[Cell]):
        self.cells: dict[Key, Cell] = {(c.method.name, c.seed): c for c in cells}
        self.plan = {key: plan_of(cell) for key, cell in self.cells.items()}
        self.total = sum(sum(plan) for plan in self.plan.values())
        self.done = 0
        self._within: dict[Key, int] = dict.fromkeys(self.plan, 0)

    def take(self, event: Event) -> int:
        """Count an event; return the number of elements by which its cell has advanced."""
        key = (event.method, event.seed)
        if event.phase == "prepared":
            before, self.plan[key] = self.plan[key], plan_of(self.cells[key], event.real_items)
            self.total += sum(self.plan[key]) - sum(before)
            return 0
        plan = self.plan[key]
        step = min(event.elements, plan[event.generation] - self._within[key])
        self._within[key] += step
        if event.phase in ENDS:
            ended = plan[event.generation :] if event.phase == "diverged" else [plan[event.generation]]
            step += sum(ended) - self._within[key]
            self._within[key] = 0
        if event.phase == "reused":
            self.total -= step
        else:
            self.done += step
        return step


def plan_of(cell: Cell, real_items: int | None = None, generations: int | None = None) -> list[int]:
    """Elements that each generation of a cell will process; a lower bound if that depends on data not yet read.

    Args:
        real_items: number of real training items; None: the task's own number, if known.
        generations: the last generation; None: that of the cell.
    """
    last = cell.generations if generations is None else generations
    real = cell.task.spec.kind.sizes(cell.task).train if real_items is None else real_items
    return [planned_elements(cell.task.spec, g, real) for g in range(last + 1)]
