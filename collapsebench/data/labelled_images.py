"""Labelled images in memory, the source of the splits of image tasks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        pixels: (n, C, H, W) uint8.
        labels: (n,) int64 class numbers.
        official_test: number of images at the end that form the authors' test set.
    """

    pixels: Tensor
    labels: Tensor
    official_test: int = 0

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: list[int] | slice) -> Images:
        return Images(self.pixels[index], self.labels[index])

    @property
    def hashes(self) -> list[str]:
        """sha256 of every image's bytes."""
        return [hashlib.sha256(image.tobytes()).hexdigest() for image in self.pixels.numpy()]
