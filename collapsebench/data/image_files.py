"""Locates the files of torchvision's datasets, or says why they are unavailable. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from collapsebench.data.web_files import silence
from collapsebench.errors import DataError
from collapsebench.paths import cache_dir

Dataset = Literal["mnist", "cifar10"]

# torchvision's name of a dataset
_NAMES: dict[Dataset, str] = {"mnist": "MNIST", "cifar10": "CIFAR10"}
_URLS: dict[Dataset, str] = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "cifar10": "https://www.cs.toronto.edu/~kriz/",
}


def torchvision_cache() -> Path:
    """Folder of torchvision's downloads for this package."""
    return cache_dir() / "torchvision"


def image_place(dataset: Dataset, root: Path | None) -> str:
    """Location of a dataset, now or after its download; does not check that its files are complete.

    Args:
        root: the folder named by the user, if any.

    Raises:
        DataError: the dataset is missing and cannot be downloaded.
    """
    folder = root or torchvision_cache()
    if (root is not None and has_image_folders(root)) or _holds(folder, dataset):
        return str(folder)
    if root is not None:
        raise not_held(root, _NAMES[dataset])
    if reason := silence(_URLS[dataset]):
        raise not_downloaded(_NAMES[dataset], reason)
    return f"to be downloaded into {folder}"


def _holds(folder: Path, dataset: Dataset) -> bool:
    if dataset == "mnist":
        return mnist_folder(folder) is not None
    return (folder / "cifar-10-batches-py").is_dir()


def has_image_folders(root: Path) -> bool:
    """Whether a folder contains images in train/<class>/ and test/<class>/."""
    return (root / "train").is_dir() and (root / "test").is_dir()


def mnist_folder(root: Path) -> Path | None:
    """The folder with MNIST's files, plain or compressed: root itself, or torchvision's folder below it."""
    file = "train-images-idx3-ubyte"
    for folder in (root, root / "MNIST" / "raw", root / "raw"):
        if (folder / file).is_file() or (folder / f"{file}.gz").is_file():
            return folder
    return None


def not_held(root: Path, name: str) -> DataError:
    """The error for a user's folder that does not contain the dataset."""
    return DataError(
        f"--data {root} does not hold {name} as torchvision stores it; point to its root folder, or to one with image "
        "files in train/<class>/ and test/<class>/."
    )


def not_downloaded(name: str, reason: str) -> DataError:
    """The error for a dataset that is neither here nor can be downloaded."""
    return DataError(
        f"{name} is not in {torchvision_cache()} and cannot be downloaded ({reason}). Without a network, give a folder "
        "that holds it with --data PATH."
    )
