"""Progress without a terminal: one line per generation, with the time, its fidelity and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from collapsebench.running.progress import Event, Listener
from collapsebench.running.progress_account import ENDS, Account

if TYPE_CHECKING:
    from collapsebench.running.cells import Cell
    from collapsebench.task import Task


def line_per_generation(
    cells: Sequence[Cell], console: Console, clock: Callable[[], float] = time.monotonic
) -> Listener:
    """A listener that prints ``0:42 tce seed 1: generation 3/10 complete, fidelity 0.81, about 5:10 left``.

    The fidelity is the smallest of the scored metrics, if the task has a scale.
    """
    account, start = Account(cells), clock()
    begun: float | None = None  # when the first cell was ready; the time before says nothing about later cells

    def listener(event: Event) -> None:
        nonlocal begun
        now = clock()
        begun = now if begun is None else begun
        account.take(event)
        if event.phase not in ENDS:
            return
        cell = account.cells[event.method, event.seed]
        told = [f"{event.method} seed {event.seed}: generation {event.generation}/{cell.generations} {event.phase}"]
        if event.metrics and (smallest := _fidelity(cell.task, event.metrics, event.generation)) is not None:
            told.append(f"fidelity {smallest:.2f}")
        left = account.total - account.done
        if account.done and left > 0 and event.phase != "reused":
            told.append(f"about {_minutes((now - begun) * left / account.done)} left")
        console.print(f"{_minutes(now - start)} {', '.join(told)}", markup=False, highlight=False)

    return listener


def _fidelity(task: Task, metrics: Mapping[str, float], generation: int) -> float | None:
    """The smallest fidelity of the scored metrics; None without a scale, or if a metric was not measured."""
    from collapsebench.scoring.fidelity import fidelity
    from collapsebench.scoring.scales import task_scales

    if not task.calibrated or not metrics.keys() >= task.spec.scored.keys():
        return None
    return min(float(fidelity(metrics[name], scale, generation)) for name, scale in task_scales(task).items())


def _minutes(seconds: float) -> str:
    """Format a duration: ``5:10``, ``2:05:10``."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
