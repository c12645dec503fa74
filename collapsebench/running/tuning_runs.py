"""How many runs were spent on tuning a method, counted from what is on disk (protocol 4.3); no torch."""

from __future__ import annotations

import json
from pathlib import Path

from collapsebench.running.artifacts import RunDirectory

LIMIT = 20
"""Runs of a task that may be spent on tuning a method for it, all its variants together."""


def tuning_runs(folder: Path, horizon: int, method: str) -> float:
    """Runs of one method, with any parameters and any version of its source.

    Args:
        folder: of a task, below the one that tuning writes to. horizon: generation G.
        method: its name, with parameters or without.

    Returns:
        A chain over all generations counts 1, a shorter one by its share of them, and of a reduced budget by that.
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
