"""The Inception network of FID, through clean-fid: where its weights come from, and the features of images in memory.

The weights are TorchScript, which is code as much as data. So a file is opened only if it is, byte for byte, the one
that clean-fid downloads; its sha256 is also in the sources of k-diffusion, for instance.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import torch
from torch import Tensor

from collapsebench.errors import DataError
from collapsebench.paths import cache_dir

FILE = "inception-2015-12-05.pt"
URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{FILE}"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
VARIABLE = "COLLAPSEBENCH_INCEPTION"

_TIMEOUT = 5.0  # seconds without an answer
_BATCH = 64  # fixed: the last digits of features depend on it
_HELP = f"To use a copy you have, pass --inception PATH or set {VARIABLE}=PATH, where PATH is {FILE} or its folder."


def inception_file(path: Path | None = None) -> Path:
    """Return the weights of the Inception network, checked; downloads them (96 MB) once if nobody names a file.

    Args:
        path: the file, or the folder it is in. None: what ``$COLLAPSEBENCH_INCEPTION`` names, else the cached copy.

    Raises:
        DataError: there is no such file, it is not the one of FID, or it cannot be downloaded.
    """
    named = os.environ.get(VARIABLE)
    given = path or (Path(named).expanduser() if named else None)
    if given is None:
        file = cache_dir() / "inception" / FILE
        if not file.is_file():
            _download(file)
    else:
        file = given / FILE if given.is_dir() else given
        if not file.is_file() or file.name != FILE:  # clean-fid looks for a file of this name
            raise DataError(f"{given} is neither a file called {FILE} nor a folder that holds one. {_HELP}")
    _check(file)
    return file


class InceptionFeatures:
    """The 2,048 pooled features from which FID and KID are computed.

    Attributes:
        name: of the features. sha256: of the weights.
    """

    name = "inception"

    def __init__(self, path: Path | None = None, device: torch.device | str = "cpu") -> None:
        """Load the network.

        Args:
            path: as for `inception_file`. device: where the network runs.

        Raises:
            DataError: clean-fid is not installed, or there are no weights.
        """
        try:
            from cleanfid.inception_torchscript import InceptionV3W
            from cleanfid.resize import build_resizer
        except ImportError as error:
            raise DataError("features for FID need clean-fid: pip install 'collapsebench[images]'.") from error
        self.sha256 = SHA256
        self._device = torch.device(device)
        self._resize = build_resizer("clean")
        folder = inception_file(path).parent
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch.jit.load, the only way to read this file
            network = InceptionV3W(str(folder), download=False)
        self._network = network.to(self._device).eval()

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """Features as clean-fid computes them for a folder of the same images as PNG files, in its mode "clean".

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
    """Images with three channels; a grey image has the same three.

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


def _download(target: Path) -> None:
    """Fetch the weights; the target appears whole and checked, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
        partial = Path(folder) / target.name
        try:
            with urlopen(URL, timeout=_TIMEOUT) as response, partial.open("wb") as file:
                shutil.copyfileobj(response, file)
        except (OSError, http.client.HTTPException) as error:  # no network, no answer in time, refused, cut off
            raise DataError(
                f"FID needs {FILE}, which is not at {target} and could not be downloaded from {URL}: {error}. {_HELP}"
            ) from error
        _check(partial)
        os.replace(partial, target)


def _check(file: Path) -> None:
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != SHA256:
        raise DataError(
            f"{file} is not the Inception network of FID: sha256 {found[:16]}…, expected {SHA256[:16]}…. Delete it if "
            f"it is a damaged download of {URL}. {_HELP}"
        )
