"""The amount of data of a task, as far as it is known without reading it."""

from __future__ import annotations

from dataclasses import replace

from collapsebench.task import Task
from collapsebench.workloads.work import Sizes, known_items


def known_sizes(task: Task, train: int | None = None) -> Sizes:
    """Sizes known from the task file, its frozen splits and the file names of an image folder.

    Args:
        train: number of items in the real training split, as given by the user.
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
