"""An image task without images, for cost estimates: pixels without values, and networks known only by their size."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from collapsebench.data.labelled_images import Images
from collapsebench.metrics.extractors import ClassifierFeatures, Extractor, SmallClassifier
from collapsebench.metrics.frechet import distance_flops
from collapsebench.task import Task
from collapsebench.workloads import Measurement
from collapsebench.workloads.images.data import ImageData
from collapsebench.workloads.images.diffusion import DiffusionWorkload
from collapsebench.workloads.images.metrics import ImageMetrics
from collapsebench.workloads.images.settings import ImageSettings
from collapsebench.workloads.images.vae import VaeWorkload
from collapsebench.workloads.kind import Blank
from collapsebench.workloads.work import Sizes

_META = torch.device("meta")
_FLOAT = 4  # bytes
_CLASSES = 10  # another number makes no difference, because the classification layer is negligible
# Features per image, FLOPs per image and working memory in bytes, counted with FlopCounterMode. An image of 299 × 299
# takes 5.7 · 10⁹ multiplications, as in the literature, and as many additions. The bytes are those of the weights and
# of a batch, whose largest step holds 2.8 · 10⁶ numbers per image (2.4 · 10⁶ in EfficientNet-Lite0).
NETWORKS = {
    "inception": (2048, 11_426_432_192, _FLOAT * (23_834_568 + 64 * 2_765_952)),
    "efficientnet-lite0": (1280, 767_815_104, _FLOAT * (4_652_008 + 8 * 2_430_048)),
}


def blank_vae(task: Task, sizes: Sizes) -> Blank:
    """The workload of a VAE task."""
    data, metrics, outside = _prepared(task, sizes)
    return Blank(VaeWorkload(task, "meta", data, metrics), outside, sizes.notes)


def blank_diffusion(task: Task, sizes: Sizes) -> Blank:
    """The workload of a diffusion task."""
    data, metrics, outside = _prepared(task, sizes)
    return Blank(DiffusionWorkload(task, "meta", data, metrics), outside, sizes.notes)


def _prepared(task: Task, sizes: Sizes) -> tuple[ImageData, ImageMetrics, dict[str, int]]:
    settings = task.spec.workload
    assert isinstance(settings, ImageSettings)
    shape = (sizes.channels, settings.image_size, settings.image_size)
    train, selection, test = (
        Images(torch.empty((n, *shape), dtype=torch.uint8, device=_META), torch.zeros(n, dtype=torch.int64))
        for n in (sizes.train or 1, sizes.selection, sizes.test)
    )
    data = ImageData(train, selection, test, listing={}, sha256="")
    outside: Counter[str] = Counter()
    return data, _Metrics(task, data, outside), outside


class _Metrics(ImageMetrics):
    """Image metrics; a formula counts the part computed by NumPy."""

    def __init__(self, task: Task, data: ImageData, outside: Counter[str]):
        settings = task.spec.workload
        assert isinstance(settings, ImageSettings)
        self.outside = outside
        evaluation = settings.evaluation
        extractors: dict[str, Extractor] = {}
        for name in dict.fromkeys([*evaluation.extractors, *task.resources.features]):
            if name == "classifier":
                with _META:
                    model = SmallClassifier(data.channels, _CLASSES).eval()
                extractors[name] = ClassifierFeatures(model, "", evaluation.batch_size, _META)
            elif name != "inception" or task.resources.inception != "none":
                extractors[name] = _Network(name, outside)
        super().__init__(task, data, _META, extractors)

    def _features_of_real(self, extractor: Extractor, device: torch.device) -> Tensor:
        return extractor.features(self.data.test.pixels)

    def _distances(self, real: Tensor, generated: Tensor) -> tuple[Measurement, Measurement]:
        self.outside["Fréchet and kernel distance"] += distance_flops(len(generated), len(real), real.shape[1])
        return Measurement(0.0, len(generated)), Measurement(0.0, len(generated))


class _Network:
    """One of `NETWORKS`, neither loaded nor run. See `collapsebench.metrics.extractors.Extractor`."""

    sha256 = ""

    def __init__(self, name: str, outside: Counter[str]):
        self.name = name
        self.outside = outside

    def features(self, images: Tensor) -> Tensor:
        width, flops, working = NETWORKS[self.name]
        self.outside["features"] += len(images) * flops
        torch.empty(working, dtype=torch.uint8, device=_META)
        return torch.empty((len(images), width), device=_META)
