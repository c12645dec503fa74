"""The Inception network of FID, through clean-fid: the features of images in memory."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collapsebench.errors import DataError
from collapsebench.metrics import inception_weights

_BATCH = 64  # fixed, because the last digits of the features depend on it


class InceptionFeatures:
    """The 2,048 pooled features from which FID and KID are computed.

    Attributes:
        name: name of the features. sha256: digest of the weights.
    """

    name = "inception"

    def __init__(self, path: Path | None = None, device: torch.device | str = "cpu") -> None:
        """Load the network.

        Args:
            path: as for `inception_file`. device: device the network runs on.

        Raises:
            DataError: clean-fid is not installed, or the weights are missing.
        """
        try:
            from cleanfid.inception_torchscript import InceptionV3W
            from cleanfid.resize import build_resizer
        except ImportError as error:
            raise DataError("features for FID need clean-fid: pip install 'collapsebench[images]'.") from error
        self.sha256 = inception_weights.SHA256
        self._device = torch.device(device)
        self._resize = build_resizer("clean")
        folder = inception_weights.inception_file(path).parent
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch.jit.load, the only way to read this file
            network = InceptionV3W(str(folder), download=False)
        self._network = network.to(self._device).eval()

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """The features that clean-fid's mode "clean" computes for a folder with the same images as PNG files.

        Args:
            images: (n, C, H, W) uint8 with C 1 or 3, on the CPU; any size, resized to 299 × 299 without rounding.

        Returns:
            (n, 2048) float32 on the CPU.

        Raises:
            ValueError: not such images.
        """
        parts = []
        for batch in rgb(images).split(_BATCH):
            resized = np.stack([self._resize(image) for image in batch.permute(0, 2, 3, 1).numpy()])
            parts.append(self._network(torch.from_numpy(resized).permute(0, 3, 1, 2).to(self._device)).float().cpu())
        return torch.cat(parts)


def rgb(images: Tensor) -> Tensor:
    """Convert images to three channels; a grey image gets three equal ones.

    Args:
        images: (n, C, H, W) uint8 with C 1 or 3, n ≥ 1.

    Raises:
        ValueError: not such images.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; wanted uint8 of shape (n, 1 or 3, H, W), n ≥ 1."
        )
    return images.expand(-1, 3, -1, -1)
