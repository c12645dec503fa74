"""The number of images of a task, as far as it is known without reading them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from collapsebench.data.sources import EmbeddedData, ImageSplits, LocalImages, TorchvisionData
from collapsebench.workloads.work import Sizes

if TYPE_CHECKING:
    from collapsebench.task import Task

# images outside the authors' test set, images in it, channels
_COLLECTIONS = {
    "mnist-5k": (5_000, 0, 1),
    "glyphs": (12_623, 0, 1),
    "mnist": (60_000, 10_000, 1),
    "cifar10": (50_000, 10_000, 3),
}
_GREY_MODES = ("1", "L")
_COLOURS = 3


def image_sizes(task: Task) -> Sizes:
    """Sizes known from the task file, its frozen splits and the file names of an image folder."""
    data, splits = task.spec.data, task.spec.splits
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
    """Sizes as in `_COLLECTIONS`, from the names of the files and the header of one."""
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
    """Images per split in ``splits.json``, which lists them one by one or has one entry such as "55000 images"."""
    listing = task.split_listing
    if listing is None:
        return None
    found = {}
    for split, entries in listing.items():
        title = next(iter(entries.values()), "")
        count, _, unit = title.partition(" ")
        found[split] = int(count) if len(entries) == 1 and unit == "images" else len(entries)
    return found
