"""Counts the runs spent on tuning a method from the files on disk (protocol 4.3); no torch."""

from __future__ import annotations

import json
from pathlib import Path

from collapsebench.running.artifacts import RunDirectory

LIMIT = 20
"""Maximum number of runs for tuning a method on a task, all its variants together."""


def tuning_runs(folder: Path, horizon: int, method: str) -> float:
    """Runs of one method, with any parameters and any version of its source.

    Args:
        folder: the task's folder, below the one that tuning writes to. horizon: the last generation G.
        method: name of the method, with or without parameters.

    Returns:
        The number of runs. A chain over all generations counts 1. A shorter chain counts its share of the generations,
        and a chain with a reduced budget that share.
    """
    _, _, budget = folder.name.partition("+budget-")
    spent = 0.0
    for file in sorted(folder.glob("*/seed-*/run.json")):
        if named(json.loads(file.read_text("utf-8"))["method"]["name"]) == named(method):
            store = RunDirectory(file.parent)
            made = sum(store.state(g) != "missing" for g in range(horizon + 1))
            spent += made / (horizon + 1) * float(budget or 1)
    return round(spent, 2)


def named(method: str) -> str:
    """The name of a method without its parameters."""
    return method.partition(":")[0]
