"""What a VAE task costs; the network is `collapsebench.workloads.images.vae.Vae`."""

from __future__ import annotations

import itertools

from collapsebench.authoring.estimates.costs import FLOAT, Costs, adam_memory
from collapsebench.authoring.estimates.image_metrics import measuring
from collapsebench.authoring.estimates.layers import (
    Layer,
    backward_flops,
    convolution,
    in_sequence,
    linear,
    transposed_convolution,
)
from collapsebench.task import Task
from collapsebench.workloads.images.settings import ConvVae, VaeSettings
from collapsebench.workloads.pictures import SHOWN
from collapsebench.workloads.work import Sizes

_PER_PIXEL = 6  # numbers per pixel that focal loss keeps; cross entropy keeps one


def encoder(model: ConvVae, channels: int, side: int) -> list[Layer]:
    """Convolutions that halve the image, then the code's means and log variances."""
    widths = [channels, *model.channels]
    convolutions = [
        convolution(a, b, 4, side >> level, stride=2) for level, (a, b) in enumerate(itertools.pairwise(widths), 1)
    ]
    flat = widths[-1] * (side >> len(model.channels)) ** 2
    return [
        *convolutions,
        linear(flat, model.latent),
        Layer(flat * model.latent + model.latent, 2 * flat * model.latent),
    ]


def decoder(model: ConvVae, channels: int, side: int) -> list[Layer]:
    """The code's expansion, then transposed convolutions that double the image."""
    widths = [channels, *model.channels]
    flat = widths[-1] * (side >> len(model.channels)) ** 2
    pairs = list(enumerate(itertools.pairwise(widths), 1))
    return [
        linear(model.latent, flat),
        *(transposed_convolution(b, a, 4, side >> level, stride=2) for level, (a, b) in reversed(pairs)),
    ]


def vae_costs(task: Task, sizes: Sizes, samples: int) -> Costs:
    """Costs of a task whose workload is a VAE.

    Args:
        samples: that a generation draws.
    """
    settings = task.spec.workload
    assert isinstance(settings, VaeSettings)
    channels, side = sizes.channels, settings.image_size
    encoding, decoding = encoder(settings.model, channels, side), decoder(settings.model, channels, side)
    whole, decoded = in_sequence([*encoding, *decoding]), in_sequence(decoding)
    pixels = channels * side**2
    measured = measuring(task, sizes, samples)
    batch = settings.training.batch_size
    working = 4 * FLOAT * whole.width
    measured_together = min(settings.evaluation.batch_size, max(sizes.test, sizes.selection))
    return Costs(
        parameters=whole.parameters,
        update=batch * (whole.flops + backward_flops(whole, encoding[0])),
        sample=decoded.flops,
        evaluation={"images of the real splits": (sizes.test + sizes.selection) * whole.flops, **measured.parts},
        gallery=SHOWN * decoded.flops,
        memory=adam_memory(
            whole.parameters,
            batch * FLOAT * (whole.saved + _PER_PIXEL * pixels),
            (min(samples, settings.sampler.batch_size) * working, max(measured_together * working, measured.memory)),
        ),
        model_bytes=FLOAT * whole.parameters,
        item_bytes=pixels,
        preparation=measured.preparation,
        notes=measured.notes,
    )
