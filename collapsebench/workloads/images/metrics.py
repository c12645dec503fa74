"""Metrics of a generation's images: distances to the real test images, classes, diversity, memorisation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collapsebench.errors import TaskError
from collapsebench.metrics.coverage import manifold_metrics, nearest_distances
from collapsebench.metrics.extractors import ClassifierFeatures, Extractor, cached_features, load_classifier
from collapsebench.metrics.frechet import frechet_distance, kernel_distance
from collapsebench.seeding import Randomness
from collapsebench.task import Task
from collapsebench.workloads import Measurement
from collapsebench.workloads.images.data import ImageData
from collapsebench.workloads.images.settings import ImageEvaluation, ImageSettings

_NAMES = {  # extractor: Fréchet distance, kernel distance
    "classifier": ("fd_classifier", "kd_classifier"),
    "inception": ("fid", "kid"),
    "efficientnet-lite0": ("fd_efficientnet_lite0", "kd_efficientnet_lite0"),
}
_FEW = 2000  # images for metrics that compare every sample with every real image


class ImageMetrics:
    """Measures samples of one task.

    Attributes:
        data: the task's images. extractors: the extractors by name, in the order of the task file.

    Args:
        extractors: the extractors to use; None: those that the task names, with their weights.
    """

    def __init__(
        self, task: Task, data: ImageData, device: torch.device, extractors: dict[str, Extractor] | None = None
    ):
        settings = task.spec.workload
        assert isinstance(settings, ImageSettings)
        self.data = data
        self.settings: ImageEvaluation = settings.evaluation
        self.extractors = load_extractors(task, self.settings, device) if extractors is None else extractors
        self._real = {name: self._features_of_real(e, device) for name, e in self.extractors.items()}
        self._task_id = task.id

    def _features_of_real(self, extractor: Extractor, device: torch.device) -> Tensor:
        return cached_features(extractor, self.data.test.pixels, device)

    def measure(self, samples: Tensor) -> dict[str, Measurement]:
        """All metrics that are computed from images alone.

        Args:
            samples: (n, C, S, S) uint8; only the first ones are measured, up to the task's number.
        """
        images = samples[: self.settings.samples]
        n = len(images)
        features = {name: extractor.features(images) for name, extractor in self.extractors.items()}
        found: dict[str, Measurement] = {}
        for name, generated in features.items():
            distance, kernel = _NAMES[name]
            found[distance], found[kernel] = self._distances(self._real[name], generated)
        first = next(iter(features))
        manifold = manifold_metrics(self._real[first][:_FEW], features[first][:_FEW])
        few, real_few = min(n, _FEW), min(len(self.data.test.pixels), _FEW)
        found |= {
            "precision": Measurement(manifold.precision, few),
            "density": Measurement(manifold.density, few),
            "recall": Measurement(manifold.recall, real_few),  # shares of the real images
            "coverage": Measurement(manifold.coverage, real_few),
        }
        nearest = nearest_distances(_flat(images[:_FEW]), _flat(self.data.train.pixels))
        found["nearest_training_distance"] = Measurement(float(nearest.median()) / images[0].numel() ** 0.5, few)
        if "classifier" in features:
            found |= self._classes(features["classifier"])
        return found

    def _distances(self, real: Tensor, generated: Tensor) -> tuple[Measurement, Measurement]:
        """Fréchet and kernel distance of features, computed on the CPU."""
        a, b = real.double().numpy(), generated.double().numpy()
        kernel = kernel_distance(a, b, np.random.default_rng(0))
        return Measurement(frechet_distance(a, b), len(b)), Measurement(kernel, len(b))

    def _classes(self, features: Tensor) -> dict[str, Measurement]:
        classifier = self.extractors["classifier"]
        assert isinstance(classifier, ClassifierFeatures)
        probabilities = classifier.class_probabilities(features)
        n = len(features)
        share = _shares(probabilities.argmax(1), classifier.classes)
        real = _shares(self.data.train.labels, classifier.classes)
        present = real > 0
        kept = (share[present] / real[present]).clamp(max=1)
        return {
            "class_coverage": Measurement(float(kept.mean()), n),
            "class_entropy": Measurement(max(0.0, -float(torch.xlogy(share, share).sum())), n),
            "classifier_confidence": Measurement(float(probabilities.max(1).values.mean()), n),
        }

    def floors(self) -> dict[str, float]:
        """Metrics of images whose pixels are drawn independently, each from its values in the real training set."""
        pixels = self.data.train.pixels
        n = self.settings.samples
        generator = Randomness(self._task_id, 0).generator(0, "floor")
        rows = torch.randint(len(pixels), (n, pixels[0].numel()), generator=generator)
        noise = pixels.flatten(1).gather(0, rows).view(n, *pixels.shape[1:])
        return {name: m.value for name, m in self.measure(noise).items()}


def load_extractors(task: Task, settings: ImageEvaluation, device: torch.device) -> dict[str, Extractor]:
    """The extractors that a task names.

    Raises:
        TaskError: the task names its classifier as an extractor but has none, or nothing is left to measure with.
        DataError: weights are missing.
    """
    found: dict[str, Extractor] = {}
    for name in dict.fromkeys([*settings.extractors, *task.resources.features]):
        if name == "classifier":
            if settings.classifier is None:
                raise TaskError("the task has no classifier yet; make it with `collapsebench classifier TASK`.")
            file, sha256 = task.path.parent / settings.classifier.file, settings.classifier.sha256
            found[name] = ClassifierFeatures(load_classifier(file, sha256), sha256, settings.batch_size, device)
        elif name == "inception" and task.resources.inception != "none":
            from collapsebench.metrics.inception import InceptionFeatures

            given = None if task.resources.inception is None else Path(task.resources.inception)
            found[name] = InceptionFeatures(given, device)
        elif name == "efficientnet-lite0":
            from collapsebench.metrics.efficientnet import EfficientNetLite0Features

            found[name] = EfficientNetLite0Features(device)
    if not found:
        raise TaskError("nothing is left to measure images with; --inception none needs a task with other extractors.")
    return found


def _flat(images: Tensor) -> Tensor:
    return images.flatten(1).float() / 255


def _shares(labels: Tensor, classes: int) -> Tensor:
    return torch.bincount(labels, minlength=classes).double() / len(labels)
