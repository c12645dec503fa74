"""Checks a task's external requirements before anything heavy is imported, and names everything missing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from collapsebench.errors import DataError
from collapsebench.task import Task
from collapsebench.workloads.kind import Supply


class Found(NamedTuple):
    """The location of a requirement, or the reason why it is unavailable."""

    text: str
    there: bool


def check_supplies(task: Task) -> None:
    """Raise `DataError` that names all requirements of a task that are unavailable here."""
    problems = [found.text for _, found in look_for_supplies(task) if not found.there]
    if problems:
        raise DataError(problems[0] if len(problems) == 1 else "\n".join(["", *(f"  {p}" for p in problems)]))


def look_for_supplies(task: Task) -> list[tuple[str, Found]]:
    """All requirements of a task, by name, in its order."""
    wanted = [*_base_model(task), *task.spec.kind.supplies_of(task)]
    with ThreadPoolExecutor(max_workers=16) as pool:  # each may wait for the network
        return list(zip((supply.name for supply in wanted), pool.map(_found, wanted), strict=True))


def _base_model(task: Task) -> list[Supply]:
    return [] if task.spec.base is None else [Supply("base model", lambda: str(task.base_weights()))]


def _found(supply: Supply) -> Found:
    try:
        return Found(supply.find(), there=True)
    except DataError as error:
        return Found(str(error), there=False)
