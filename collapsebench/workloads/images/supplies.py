"""What an image task needs from outside: images that are downloaded, and the Inception network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from collapsebench.data.sources import TorchvisionData
from collapsebench.task import Task
from collapsebench.workloads.images.settings import ImageSettings
from collapsebench.workloads.kind import Supply


def image_supplies(task: Task) -> Iterator[Supply]:
    """Nothing for tasks whose images come inside packages or from a folder, and that measure no FID."""
    settings, data = task.spec.workload, task.spec.data
    assert isinstance(settings, ImageSettings)
    if isinstance(data, TorchvisionData):
        from collapsebench.data.image_files import image_place

        yield Supply("images", lambda: image_place(data.dataset, task.resources.data))
    if "inception" in settings.evaluation.extractors and task.resources.inception != "none":
        yield Supply("Inception", lambda: _inception_place(task))


def _inception_place(task: Task) -> str:
    from collapsebench.metrics.inception_weights import inception_file

    given = task.resources.inception
    return str(inception_file(Path(given) if given else None))
