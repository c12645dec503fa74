"""How much data a task has, as far as that is known without reading it."""

from __future__ import annotations

from dataclasses import replace

from collapsebench.task import Task
from collapsebench.workloads.work import Sizes, known_items


def known_sizes(task: Task, train: int | None = None) -> Sizes:
    """What is known from the task file, its frozen splits and a look at a folder of images.

    Args:
        train: items of the real training split, as given by the user.
    """
    sizes = task.spec.kind.sizes(task)
    if train is not None:
        return replace(sizes, train=train)
    effects = {
        "accumulate": "training grows with it and is a lower bound here",
        "regenerate-fresh": "a generation writes as much as it reads, so samples are a lower bound here",
    }
    if known_items(task.spec, sizes.train) is None and task.spec.policy.name in effects:
        note = f"the size of the training split is not known without the data; {effects[task.spec.policy.name]}"
        sizes = replace(sizes, train=None, notes=(*sizes.notes, note))
    return sizes
