"""What measuring images costs: `collapsebench.workloads.images.metrics`."""

from __future__ import annotations

from dataclasses import dataclass

from collapsebench.authoring.estimates.costs import FLOAT
from collapsebench.authoring.estimates.layers import Layer, convolution, in_sequence
from collapsebench.task import Task
from collapsebench.workloads.images.settings import DiffusionSettings, VaeSettings
from collapsebench.workloads.work import Sizes

_FEW = 2000  # samples that are compared with every real image
_SUBSETS, _SUBSET = 50, 500  # of the kernel distance
_ROOT = 30  # · d³ FLOPs: the product of two covariances, its Schur form, the root of the triangle, the way back


@dataclass(frozen=True)
class Network:
    """An extractor of features.

    Attributes:
        features: numbers per image. flops: per image. working: bytes that a batch and the weights take.
    """

    features: int
    flops: int
    working: int


# Counted with FlopCounterMode. An image of 299 × 299 takes 5.7 · 10⁹ multiplications, as the literature says, and as
# many additions. The largest step holds 2.8 · 10⁶ numbers per image, 2.4 · 10⁶ in EfficientNet-Lite0.
NETWORKS = {
    "inception": Network(2048, 11_426_432_192, FLOAT * (23_834_568 + 64 * 2_765_952)),
    "efficientnet-lite0": Network(1280, 767_815_104, FLOAT * (4_652_008 + 8 * 2_430_048)),
}


@dataclass(frozen=True)
class Measuring:
    """Costs of measuring one generation's images.

    Attributes:
        parts: FLOPs by part. memory: bytes of the largest network at work.
        preparation: FLOPs of the features of the real test images, computed once per machine.
    """

    parts: dict[str, int]
    memory: int
    preparation: int
    notes: tuple[str, ...]


def measuring(task: Task, sizes: Sizes, samples: int) -> Measuring:
    """What it costs to measure a generation that draws so many samples."""
    settings = task.spec.workload
    assert isinstance(settings, VaeSettings | DiffusionSettings)
    n = min(samples, settings.evaluation.samples)
    networks = extractors(task, sizes.channels, n)
    few, real = min(n, _FEW), min(sizes.test, _FEW)
    width = networks[0].features if networks else 0
    neighbours = 2 * width * (few**2 + real**2 + few * real)
    nearest = 2 * few * (sizes.train or 0) * sizes.channels * settings.image_size**2
    parts = {
        "features": n * sum(network.flops for network in networks),
        "nearest neighbours": neighbours + nearest,
        "Fréchet and kernel distance": sum(_distances(network.features, n, sizes.test) for network in networks),
    }
    return Measuring(
        parts,
        max((network.working for network in networks), default=0),
        sizes.test * sum(network.flops for network in networks),
        sizes.notes,
    )


def extractors(task: Task, channels: int, n: int) -> list[Network]:
    """The networks that a task measures n images with."""
    settings = task.spec.workload
    assert isinstance(settings, VaeSettings | DiffusionSettings)
    names = dict.fromkeys([*settings.evaluation.extractors, *task.resources.features])
    small = small_classifier(channels, settings.image_size)
    batch = min(n, settings.evaluation.batch_size)
    found = NETWORKS | {"classifier": Network(64, small.flops, FLOAT * (small.parameters + 4 * batch * small.width))}
    return [found[name] for name in names if name != "inception" or task.resources.inception != "none"]


def small_classifier(channels: int, side: int) -> Layer:
    """`collapsebench.metrics.extractors.SmallClassifier` without its last layer."""
    shapes = ((channels, 16, 1), (16, 32, 1), (32, 32, 2), (32, 64, 2), (64, 64, 4))
    return in_sequence(convolution(a, b, 3, side // by, bias=False) for a, b, by in shapes)


def _distances(width: int, n: int, real: int) -> int:
    """On the processor, in double precision: two covariances and a matrix root; kernels of random subsets."""
    subset = min(n, real, _SUBSET)
    return 2 * (n + real) * width**2 + _ROOT * width**3 + _SUBSETS * 3 * 2 * subset**2 * width
