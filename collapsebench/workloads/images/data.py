"""The images of a task, split, checked against the frozen listing and resized."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from collapsebench.data.images import (
    check_image_listing,
    listing_of_images,
    load_images,
    resized,
    split_images,
)
from collapsebench.data.labelled_images import Images
from collapsebench.data.sources import EmbeddedData, ImageSplits, LocalImages, TorchvisionData
from collapsebench.seeding import Randomness
from collapsebench.task import Task
from collapsebench.workloads.images.settings import DiffusionSettings, VaeSettings

WHITE = 255


@dataclass(frozen=True)
class ImageData:
    """All data of an image task.

    Attributes:
        train, selection, test: the splits as used in training, (n, C, S, S) uint8, where S is the task's image size.
        listing: the content of ``splits.json``.
        sha256: digest of all splits as the task uses them.
    """

    train: Images
    selection: Images
    test: Images
    listing: dict[str, dict[str, str]]
    sha256: str

    @staticmethod
    def of(task: Task) -> ImageData:
        """Read and split the images of a task."""
        spec = task.spec
        assert isinstance(spec.data, EmbeddedData | LocalImages | TorchvisionData)
        assert isinstance(spec.splits, ImageSplits)
        assert isinstance(spec.workload, VaeSettings | DiffusionSettings)
        splits = split_images(load_images(spec.data, task.path.parent, task.resources.data), spec.splits)
        if task.split_listing is not None:
            check_image_listing(splits, task.split_listing)
        train, selection, test = (
            Images(_prepared(task, splits[name].pixels, name), splits[name].labels)
            for name in ("train", "selection", "test")
        )
        digest = _digest(train.pixels, selection.pixels, test.pixels)
        return ImageData(train, selection, test, listing_of_images(splits), digest)

    @property
    def channels(self) -> int:
        return self.train.pixels.shape[1]


def base_images(task: Task) -> Tensor:
    """Training images of the base model, (n, C, S, S) uint8, prepared like the task's own images."""
    base = task.spec.base
    assert base is not None
    assert isinstance(base.data, EmbeddedData | LocalImages | TorchvisionData)
    return _prepared(task, load_images(base.data, task.path.parent).pixels, "base")


def _prepared(task: Task, pixels: Tensor, split: str) -> Tensor:
    """Resize images to the task's size; make them black and white if its pixels are drawn.

    Tasks with the same data draw the same pixels.
    """
    settings = task.spec.workload
    assert isinstance(settings, VaeSettings | DiffusionSettings)
    images = resized(pixels, settings.image_size)
    if not isinstance(settings, VaeSettings) or settings.pixels == "grey":
        return images
    uniform = torch.rand(images.shape, generator=Randomness("pixels", 0).generator(0, split))
    return (uniform * WHITE < images).to(torch.uint8) * WHITE


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
