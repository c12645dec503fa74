"""Feature extractors for images: a small protocol, the task's own classifier, and a cache for the real images."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from collapsebench.errors import DataError
from collapsebench.paths import cache_dir

FEATURES = 64


class Extractor(Protocol):
    """Something that turns images into features.

    Attributes:
        name: as in the task file. sha256: digest of its weights.
    """

    name: str
    sha256: str

    def features(self, images: Tensor) -> Tensor:
        """(n, C, H, W) uint8 to (n, d) float32 on the CPU."""
        ...


class SmallClassifier(nn.Module):
    """Five 3 × 3 convolutions and one linear layer; the 64 averaged channels before it are the features.

    Args:
        channels: channels of the images. classes: number of classes.
    """

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.body = nn.Sequential(
            *_block(channels, 16), *_block(16, 32), nn.MaxPool2d(2),
            *_block(32, 32), *_block(32, FEATURES), nn.MaxPool2d(2),
            *_block(FEATURES, FEATURES), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1] to logits (n, classes)."""
        return self.head(self.body(images))


def _block(before: int, after: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()


class ClassifierFeatures:
    """The task's classifier as an extractor."""

    name = "classifier"

    def __init__(self, model: SmallClassifier, sha256: str, batch_size: int, device: torch.device):
        self.sha256 = sha256
        self.batch_size = batch_size
        self.device = device
        self.model = model.to(device)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.model.head.out_features

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        batches = [self.model.body(_unit(b, self.device)).cpu() for b in images.split(self.batch_size)]
        return torch.cat(batches)

    @torch.inference_mode()
    def class_probabilities(self, features: Tensor) -> Tensor:
        """(n, classes) float64 from features."""
        return self.model.head(features.to(self.device)).cpu().double().softmax(-1)


def _unit(images: Tensor, device: torch.device) -> Tensor:
    return images.to(device).float() / 255


def load_classifier(path: Path, sha256: str) -> SmallClassifier:
    """Load a classifier's weights, checked against their hash.

    Raises:
        DataError: the file is missing, or its hash differs.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256:
            raise DataError(f"{path} is not this task's classifier: sha256 {found[:16]}…, expected {sha256[:16]}….")
        weights = load_file(path)
        model = SmallClassifier(weights["body.0.weight"].shape[1], weights["head.weight"].shape[0])
        model.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise DataError(
            f"the task's classifier {path} cannot be read ({' '.join(str(error).split())}). Make it with "
            "`collapsebench classifier TASK`."
        ) from error
    return model.eval()


def cached_features(extractor: Extractor, images: Tensor, device: torch.device) -> Tensor:
    """Features of real images, computed once per machine, extractor and content.

    The thread count is part of the key because the last bits depend on it.
    """
    key = hashlib.sha256(images.contiguous().numpy().tobytes())
    circumstances = f"{tuple(images.shape)}|{extractor.name}|{extractor.sha256}|{torch.__version__}"
    key.update(f"{circumstances}|{device.type}|{torch.get_num_threads()}".encode())
    file = cache_dir() / "features" / f"{extractor.name}-{key.hexdigest()[:32]}.safetensors"
    try:
        return load_file(file)["features"]
    except (OSError, SafetensorError, KeyError):
        found = extractor.features(images)
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=file.parent, suffix=".partial")
    os.close(handle)
    save_file({"features": found}, partial)
    os.replace(partial, file)
    return found
