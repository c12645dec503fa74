"""Sentences about the board, derived from its data."""

from __future__ import annotations

import pandas as pd

from collapsebench.methods import BASELINES
from collapsebench.publishing.board import Board
from collapsebench.task import load_task, registered_tasks

_DEVICES = {"cpu": "a CPU", "cuda": "a CUDA GPU", "mps": "an Apple GPU"}


def standing(board: Board, machines: pd.DataFrame) -> str:
    """Who ran which methods on which devices, and whether others have verified the entries.

    Args:
        machines: the result of `collapsebench.publishing.board.machines`.
    """
    table = board.table
    if table.empty:
        return "There are no entries yet."
    n, tasks, methods = len(table), table["task"].nunique(), table["what"].nunique()
    counts = f"{_count(n, 'entry', 'entries')}: {_count(methods, 'method')} on {_count(tasks, 'task')}."
    verified = int((table["verified"] == "verified").sum())
    told = f"{verified} verified by others." if verified else "None has been verified by others yet."
    return f"{counts} {_origin(board, machines)} {told}"


def _origin(board: Board, machines: pd.DataFrame) -> str:
    """The machines that the entries ran on, and whether anyone except the baselines' authors made an entry."""
    digests = set(board.table["digest"])
    project = {a for d in digests if board.entries[d].name in BASELINES for a in board.entries[d].authors}
    own = all(set(board.entries[d].authors) <= project for d in digests)
    by_whom = " by the project itself, the authors of the baselines" if own and project else ""
    devices = machines[machines["digest"].isin(digests)].groupby("device")["digest"].nunique()
    if len(devices) == 1:
        return f"All were run on {_DEVICES.get(str(devices.index[0]), str(devices.index[0]))}{by_whom}."
    on = ", ".join(f"{n} on {_DEVICES.get(str(device), str(device))}" for device, n in devices.items())
    return f"Run{by_whom}: {on}." if on else ""


def uncalibrated(tier: str) -> list[str]:
    """Registered tasks of a tier that cannot have entries yet because they are not calibrated."""
    tasks = [load_task(path) for path in registered_tasks().values()]
    return sorted(task.id for task in tasks if task.spec.tier == tier and not task.calibrated)


def missing_tasks(overall: pd.DataFrame, tasks: int) -> str:
    """What the methods lack for an overall score; empty if every method has one."""
    if overall.empty or not overall["missing"].map(len).any():
        return ""
    everywhere = set.intersection(*map(set, overall["missing"]))
    if everywhere:
        return f"No method has an overall score yet: nobody has an entry on {', '.join(sorted(everywhere))}."
    lacking = int(overall["missing"].map(bool).sum())
    verb = "has" if lacking == 1 else "have"
    return f"{_count(lacking, 'method')} {verb} no overall score, because not all {tasks} tasks are covered."


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"
