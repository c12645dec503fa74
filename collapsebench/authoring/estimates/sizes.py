"""How much data a task has, as far as that is known without reading it, and what its policy makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from collapsebench.data.sources import EmbeddedData, ImageSplits, LocalImages, MixtureData, TorchvisionData
from collapsebench.task import Policy, Task
from collapsebench.workloads.pretrained.settings import FineTuning, PretrainedSettings
from collapsebench.workloads.text.settings import TextSettings

# images besides the test set that the authors fixed, images in it, channels
_COLLECTIONS = {"mnist-5k": (5_000, 0, 1), "mnist": (60_000, 10_000, 1), "cifar10": (50_000, 10_000, 3)}
_GREY_MODES = ("1", "L")
_COLOURS = 3


@dataclass(frozen=True)
class Sizes:
    """Items of the real splits: windows of text, images, points.

    Attributes:
        train: None: not known without the data. selection, test: as many as are evaluated.
        channels: of images.
        notes: what was assumed.
    """

    train: int | None
    selection: int
    test: int
    channels: int = 1
    notes: tuple[str, ...] = ()


def known_sizes(task: Task, train: int | None = None) -> Sizes:
    """What is known from the task file, its frozen splits and a look at a folder of images.

    Args:
        train: items of the real training split, for who knows them.
    """
    sizes = _sizes(task)
    if train is not None:
        return replace(sizes, train=train)
    effects = {
        "accumulate": "training grows with it and is a lower bound here",
        "regenerate-fresh": "a generation writes as much as it reads, so samples are a lower bound here",
    }
    if sizes.train is None and task.spec.policy.name in effects:
        note = f"the size of the training split is not known without the data; {effects[task.spec.policy.name]}"
        sizes = replace(sizes, train=None, notes=(*sizes.notes, note))
    return sizes


def updates(task: Task, generation: int, train: int | None) -> int:
    """Optimiser steps of a generation; see `collapsebench.workloads.training.Schedule`."""
    policy, training = task.spec.policy, task.spec.workload.training
    if isinstance(training, FineTuning):
        return training.updates(samples(policy, generation, task.spec.horizon, train))
    steps = training.stage(generation).updates
    if policy.name == "accumulate" and generation > 0:
        return round(steps * ((train or 0) + generation * policy.size) / policy.size)
    return steps


def samples(policy: Policy, generation: int, horizon: int, train: int | None) -> int:
    """Samples that a generation draws; see `collapsebench.policies.prompts`."""
    if policy.name != "regenerate-fresh":
        return policy.size
    least = horizon + 1  # one item per fraction
    return (least if train is None else train) * (generation + 1) // (horizon + 1)


def _sizes(task: Task) -> Sizes:
    settings, data, splits = task.spec.workload, task.spec.data, task.spec.splits
    if isinstance(settings, TextSettings):
        evaluation = settings.evaluation
        return Sizes(None, evaluation.selection_windows, evaluation.test_windows)
    if isinstance(settings, PretrainedSettings):
        found = settings.evaluation
        return Sizes(task.spec.policy.size, found.selection_windows + found.oldest_windows, found.test_windows)
    if isinstance(data, MixtureData):
        return Sizes(data.points, 0, 0)
    assert isinstance(splits, ImageSplits)
    assert isinstance(data, EmbeddedData | TorchvisionData | LocalImages)
    notes: tuple[str, ...] = ()
    if isinstance(data, LocalImages):
        others, fixed, channels = _in_folder(task.path.parent / Path(data.path).expanduser())
        if others == 0:
            notes = ("no images found: three channels assumed",)
        elif task.split_listing is None:
            notes = ("images are counted as files: those that occur twice are used once",)
    else:
        others, fixed, channels = _COLLECTIONS[data.corpus if isinstance(data, EmbeddedData) else data.dataset]
    listed = _listed(task)
    if listed is not None:
        return Sizes(listed["train"], listed["selection"], listed["test"], channels, notes)
    test = fixed if splits.test_images is None else splits.test_images
    rest = others + fixed - test if splits.test_images is not None else others
    train = max(0, rest - splits.selection_images)
    train = train if splits.train_images is None else min(train, splits.train_images)
    return Sizes(train if others else None, splits.selection_images, test, channels, notes)


def _in_folder(folder: Path) -> tuple[int, int, int]:
    """As in `_COLLECTIONS`, from the names of the files and the header of one."""
    from PIL import Image, UnidentifiedImageError

    files = [file for pattern in ("png", "jpg", "jpeg") for file in folder.glob(f"*/*.{pattern}")]
    if not files:
        return 0, 0, _COLOURS
    try:
        with Image.open(files[0]) as image:  # the pixels are not read
            return len(files), 0, 1 if image.mode in _GREY_MODES else _COLOURS
    except (UnidentifiedImageError, OSError):
        return len(files), 0, _COLOURS


def _listed(task: Task) -> dict[str, int] | None:
    """Images per split in ``splits.json``, which lists them one by one or as one entry "55000 images"."""
    listing = task.split_listing
    if listing is None:
        return None
    found = {}
    for split, entries in listing.items():
        title = next(iter(entries.values()), "")
        count, _, unit = title.partition(" ")
        found[split] = int(count) if len(entries) == 1 and unit == "images" else len(entries)
    return found
