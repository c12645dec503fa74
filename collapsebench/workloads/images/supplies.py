"""External requirements of an image task. No torch here: they are checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from collapsebench.data.image_files import image_place
from collapsebench.data.sources import TorchvisionData
from collapsebench.metrics.inception_weights import inception_file
from collapsebench.task import Task
from collapsebench.workloads.images.settings import ImageSettings
from collapsebench.workloads.kind import Supply


def image_supplies(task: Task) -> Iterator[Supply]:
    """The images and the network of FID, unless they ship inside packages or are not needed."""
    settings, data = task.spec.workload, task.spec.data
    assert isinstance(settings, ImageSettings)
    if isinstance(data, TorchvisionData):
        yield Supply("images", lambda: image_place(data.dataset, task.resources.data))
    networks = (*settings.evaluation.extractors, *task.resources.features)
    if "inception" in networks and task.resources.inception != "none":
        yield Supply("Inception", lambda: _inception_place(task))


def _inception_place(task: Task) -> str:
    given = task.resources.inception
    return str(inception_file(Path(given) if given else None))
