"""The records of image tasks: variational autoencoders and diffusion models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collapsebench.data.sources import ImageSplits
from collapsebench.workloads.images.settings import DiffusionSettings, ImageSettings, VaeSettings
from collapsebench.workloads.images.sizes import image_sizes
from collapsebench.workloads.kind import Kind, MeasuredScale, Option, Passes

if TYPE_CHECKING:
    from collapsebench.task_spec import TaskSpec

LOOKS = 2  # noise levels at which the error on each selection image is measured
_SOURCES = ("mnist-5k", "glyphs", "local-images", "torchvision")
_SUPPLIES = "collapsebench.workloads.images.supplies:image_supplies"
_METRICS = (
    "fd_classifier", "kd_classifier", "fid", "kid", "fd_efficientnet_lite0", "kd_efficientnet_lite0", "class_coverage",
    "class_entropy", "classifier_confidence", "density", "coverage", "precision", "recall", "nearest_training_distance",
)  # fmt: skip


def _options(spec: TaskSpec) -> frozenset[Option]:
    assert isinstance(spec.workload, ImageSettings)
    options: set[Option] = {"features"}
    options |= {"data"} if spec.data.source == "torchvision" else set()
    options |= {"inception"} if "inception" in spec.workload.evaluation.extractors else set()
    return frozenset(options)


def _pixels(settings: ImageSettings, channels: int) -> int:
    return channels * settings.image_size**2


def _measured(spec: TaskSpec) -> int:
    assert isinstance(spec.workload, ImageSettings)
    return spec.workload.evaluation.samples


def _looked_at(spec: TaskSpec) -> int:
    assert isinstance(spec.splits, ImageSplits)
    return LOOKS * min(_measured(spec), spec.splits.selection_images)


VAE = Kind(
    name="vae",
    label="images (VAE)",
    settings=VaeSettings,
    workload="collapsebench.workloads.images.vae:VaeWorkload",
    extra="micro",
    known_elements="collapsebench.workloads.images.known_elements:known_pixels",
    samples="images",
    unit="images",
    element="pixels",
    item_elements=_pixels,
    passes=lambda _: Passes(),
    evaluated=_measured,
    sizes=image_sizes,
    blank="collapsebench.workloads.images.blank:blank_vae",
    sources=_SOURCES,
    splits=ImageSplits,
    metrics=(*_METRICS, "negative_elbo", "selection_negative_elbo", "reconstruction", "kl"),
    options=_options,
    supplies=_SUPPLIES,
    symbols=lambda settings: settings.pixels == "drawn",
    base="shipped",
)

DIFFUSION = Kind(
    name="diffusion",
    label="images (diffusion)",
    settings=DiffusionSettings,
    workload="collapsebench.workloads.images.diffusion:DiffusionWorkload",
    extra="micro",
    known_elements="collapsebench.workloads.images.known_elements:known_noise",
    samples="images",
    unit="image passes",
    element="pixels",
    item_elements=_pixels,
    passes=lambda settings: Passes(trained=3, drawn=settings.schedule.sample_steps),
    evaluated=_looked_at,
    sizes=image_sizes,
    blank="collapsebench.workloads.images.blank:blank_diffusion",
    sources=_SOURCES,
    splits=ImageSplits,
    metrics=(*_METRICS, "noise_rms", "denoising_loss", "selection_denoising_loss"),
    options=_options,
    supplies=_SUPPLIES,
    steps="schedule.sample_steps",
    scale=MeasuredScale("sigma", "noise_rms"),
    base="shipped",
)
