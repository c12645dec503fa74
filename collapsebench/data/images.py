"""Loads the labelled images of a task's data section, and divides them into disjoint splits by hash."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from collapsebench.data.documents import SPLITS, compare_listings
from collapsebench.data.embedded import load_embedded_images
from collapsebench.data.image_files import (
    has_image_folders,
    mnist_folder,
    not_downloaded,
    not_held,
    torchvision_cache,
)
from collapsebench.data.labelled_images import Images
from collapsebench.errors import DataError

if TYPE_CHECKING:
    from collapsebench.data.sources import ImageSource, ImageSplits

_LISTED_ONE_BY_ONE = 10_000  # larger collections are listed by one digest per split
_MNIST_FILES = {"train": "train", "test": "t10k"}


def load_images(data: ImageSource, base: Path, root: Path | None = None) -> Images:
    """Load the images of a data section without exact duplicates (test images are kept, and their copies dropped).

    Args:
        data: the section. base: folder that relative paths refer to.
        root: folder of an existing torchvision dataset; None: download it into the cache.

    Raises:
        DataError: a package, file or dataset is missing, or not the expected one.
    """
    if data.source == "embedded":
        images = load_embedded_images(data.corpus)
    elif data.source == "local-images":
        images = _image_folder(base / Path(data.path).expanduser())
    elif root is not None and has_image_folders(root):
        train, test = _image_folder(root / "train"), _image_folder(root / "test")
        images = Images(
            torch.cat([train.pixels, test.pixels]), torch.cat([train.labels, test.labels]), official_test=len(test)
        )
    elif data.dataset == "mnist":
        images = _mnist(root)
    else:
        images = _cifar10(root)
    last_place = {sha: i for i, sha in enumerate(images.hashes)}
    kept = sorted(last_place.values())
    first_test = len(images) - images.official_test
    return Images(images.pixels[kept], images.labels[kept], sum(i >= first_test for i in kept))


def split_images(images: Images, splits: ImageSplits) -> dict[str, Images]:
    """Assign every image to ``test``, ``selection`` or ``train``, in the order of a salted hash of its pixels.

    Raises:
        DataError: there are not enough images.
    """
    n = len(images)
    keys = [hashlib.sha256(b"split|" + image.tobytes()).digest() for image in images.pixels.numpy()]
    first_test = n - images.official_test
    if splits.test_images is None:
        if not images.official_test:
            raise DataError("splits.test_images is missing: this data has no test set of its own.")
        test, rest = list(range(first_test, n)), sorted(range(first_test), key=keys.__getitem__)
    else:
        order = sorted(range(n), key=keys.__getitem__)
        test, rest = order[: splits.test_images], order[splits.test_images :]
    selection, train = rest[: splits.selection_images], rest[splits.selection_images :][: splits.train_images]
    if not train:
        raise DataError(f"the data has {n} different images, too few for the splits; give more, or hold out fewer.")
    return {"test": images[test], "selection": images[selection], "train": images[train]}


def listing_of_images(splits: Mapping[str, Images]) -> dict[str, dict[str, str]]:
    """The content of ``splits.json``: {split: {first 16 digits of the image's sha256: class}}.

    Large collections have one entry per split: the digest of all their images' digests.
    """
    hashes = {name: splits[name].hashes for name in SPLITS}
    if sum(map(len, hashes.values())) > _LISTED_ONE_BY_ONE:
        return {
            name: {hashlib.sha256("".join(sorted(found)).encode()).hexdigest(): f"{len(found)} images"}
            for name, found in hashes.items()
        }
    return {
        name: {
            sha[:16]: f"class {label}" for sha, label in sorted(zip(found, splits[name].labels.tolist(), strict=True))
        }
        for name, found in hashes.items()
    }


def check_image_listing(splits: Mapping[str, Images], listing: Mapping[str, Mapping[str, str]]) -> None:
    """Compare the splits with the task's frozen listing.

    Raises:
        DataError: images differ.
    """
    compare_listings(listing_of_images(splits), listing, "image(s)")


def resized(pixels: Tensor, size: int) -> Tensor:
    """Resize images, (n, C, H, W) uint8, to ``size`` × ``size`` pixels; bilinear with anti-aliasing.

    Of bytes, torch computes this with whole numbers, so every processor gives the same bytes. (`resize` of torchvision
    does so only on processors with AVX2. On others it rounds floats: of MNIST at 16 × 16, 4 % of the bytes differ.)
    """
    if pixels.shape[-2:] == (size, size):
        return pixels
    return interpolate(pixels, (size, size), mode="bilinear", antialias=True)


def _image_folder(folder: Path) -> Images:
    from PIL import Image, UnidentifiedImageError

    classes = sorted(path for path in folder.glob("*/") if path.is_dir())
    if not classes:
        raise DataError(f"{folder}: no such folder, or no sub-folders in it; give one sub-folder of images per class.")
    pixels, labels = [], []
    for label, path in enumerate(classes):
        for file in sorted([*path.glob("*.png"), *path.glob("*.jpg"), *path.glob("*.jpeg")]):
            try:
                with Image.open(file) as image:
                    array = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
            except (UnidentifiedImageError, OSError) as error:
                raise DataError(f"{file} cannot be read as an image: {error}.") from error
            pixels.append(torch.tensor(array).reshape(*array.shape[:2], -1).permute(2, 0, 1))
            labels.append(label)
    shapes = {tuple(image.shape) for image in pixels}
    if len(shapes) != 1:
        raise DataError(f"{folder}: images of different shapes, {sorted(shapes)[:3]}; all must have one size and mode.")
    return Images(torch.stack(pixels), torch.tensor(labels))


def _mnist(root: Path | None) -> Images:
    folder = mnist_folder(root) if root else None
    if folder is None:
        folder = mnist_folder(_downloaded("MNIST", root))
    assert folder is not None
    parts = [
        Images(
            _read_idx(folder, f"{prefix}-images-idx3-ubyte")[:, None],
            _read_idx(folder, f"{prefix}-labels-idx1-ubyte").long(),
        )
        for prefix in _MNIST_FILES.values()
    ]
    return Images(
        torch.cat([p.pixels for p in parts]), torch.cat([p.labels for p in parts]), official_test=len(parts[1])
    )


def _read_idx(folder: Path, name: str) -> Tensor:
    """Read an array in MNIST's idx format: two zero bytes, type 8, number of dimensions, sizes, data."""
    file = folder / name if (folder / name).is_file() else folder / f"{name}.gz"
    try:
        content = file.read_bytes()
        if file.suffix == ".gz":
            content = gzip.decompress(content)
        if content[:3] != b"\x00\x00\x08":
            raise ValueError("not an idx file of bytes")
        shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
        array = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} cannot be read as MNIST: {error}.") from error
    return torch.tensor(array)


def _cifar10(root: Path | None) -> Images:
    from torchvision.datasets import CIFAR10

    folder = root or torchvision_cache()
    parts = []
    for train in (True, False):
        try:
            parts.append(CIFAR10(str(folder), train=train))
        except RuntimeError:
            _downloaded("CIFAR10", root)
            parts.append(CIFAR10(str(folder), train=train))
    pixels = torch.tensor(np.concatenate([part.data for part in parts])).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor([label for part in parts for label in part.targets])
    return Images(pixels, labels, official_test=len(parts[1].data))


def _downloaded(name: str, root: Path | None) -> Path:
    """Let torchvision download a dataset into the cache; never write into the user's folder."""
    from torchvision import datasets

    if root is not None:
        raise not_held(root, name)
    folder = torchvision_cache()
    try:
        getattr(datasets, name)(str(folder), train=True, download=True)
    except (OSError, RuntimeError) as error:
        raise not_downloaded(name, " ".join(str(error).split())) from error
    return folder
