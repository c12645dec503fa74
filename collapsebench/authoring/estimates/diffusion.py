"""What a diffusion task costs; the network is the `diffusers` U-Net that its workload makes."""

from __future__ import annotations

from dataclasses import dataclass

from collapsebench.authoring.estimates.costs import FLOAT, Costs, adam_memory
from collapsebench.authoring.estimates.image_metrics import measuring
from collapsebench.authoring.estimates.layers import (
    Layer,
    activation,
    backward_flops,
    convolution,
    group_norm,
    in_sequence,
    linear,
    self_attention,
)
from collapsebench.task import Task
from collapsebench.workloads.images.settings import DiffusionSettings, UNet
from collapsebench.workloads.pictures import SHOWN
from collapsebench.workloads.work import Sizes

_LOOKS = 2  # noise levels at which each selection image is measured
_PER_PIXEL = 6  # numbers per pixel that focal loss keeps; cross entropy keeps one


@dataclass(frozen=True)
class Network:
    """A U-Net.

    Attributes:
        first: the layer that sees the image. layers: all of them as one, that one too.
        skipped: numbers that wait for the way up.
    """

    first: Layer
    layers: Layer
    skipped: int


def unet(model: UNet, channels: int, side: int) -> Network:
    """The U-Net of a task.

    Args:
        channels, side: of the images.
    """
    widths, n = model.channels, len(model.channels)
    embedding = 4 * widths[0]
    attending = [i in model.attention for i in range(n)]
    first = convolution(channels, widths[0], 3, side)
    time = [linear(widths[0], embedding), activation(embedding, 1), linear(embedding, embedding)]
    layers, waiting = [first, *time], [(widths[0], side)]
    before = widths[0]
    for i, width in enumerate(widths):
        here = side >> i
        for _ in range(model.layers):
            layers += [_residual(before, width, embedding, here), *_attention(attending[i], width, here)]
            waiting.append((width, here))
            before = width
        if i < n - 1:
            layers.append(convolution(width, width, 3, here // 2, stride=2))
            waiting.append((width, here // 2))
    bottom = side >> (n - 1)
    middle = _residual(before, before, embedding, bottom)
    layers += [middle, *_attention(model.mid_attention, before, bottom), middle]
    skipped = sum(width * here**2 for width, here in waiting)
    for i, width in reversed(list(enumerate(widths))):
        here = side >> i
        for _ in range(model.layers + 1):
            skip, _ = waiting.pop()
            layers += [_residual(before + skip, width, embedding, here), *_attention(attending[i], width, here)]
            before = width
        if i > 0:
            layers.append(convolution(width, width, 3, 2 * here))
    layers += [group_norm(before, side), activation(before, side), convolution(before, channels, 3, side)]
    return Network(first, in_sequence(layers), skipped)


def _attention(wanted: bool, channels: int, side: int) -> list[Layer]:
    return [self_attention(channels, side)] if wanted else []


def _residual(before: int, after: int, embedding: int, side: int) -> Layer:
    """Two normalised convolutions, the time in between, and a shortcut where the channels change."""
    layers = [
        group_norm(before, side),
        activation(before, side),
        convolution(before, after, 3, side),
        activation(embedding, 1),
        linear(embedding, after),
        group_norm(after, side),
        activation(after, side),
        convolution(after, after, 3, side),
    ]
    if before != after:
        shortcut = convolution(before, after, 1, side)
        layers.append(Layer(shortcut.parameters, shortcut.flops))  # what it keeps is what the first norm keeps
    return in_sequence(layers)


def diffusion_costs(task: Task, sizes: Sizes, samples: int) -> Costs:
    """Costs of a task whose workload is a diffusion model.

    Args:
        samples: that a generation draws.
    """
    settings = task.spec.workload
    assert isinstance(settings, DiffusionSettings)
    network = unet(settings.model, sizes.channels, settings.image_size)
    forward, parameters = network.layers.flops, network.layers.parameters
    pixels = sizes.channels * settings.image_size**2
    steps, evaluated = settings.schedule.sample_steps, settings.evaluation
    measured = measuring(task, sizes, samples)
    batch = settings.training.batch_size
    working = FLOAT * (network.skipped + 4 * network.layers.width)
    looked_at = min(sizes.selection, evaluated.samples)
    return Costs(
        parameters=parameters,
        update=batch * (forward + backward_flops(network.layers, network.first)),
        sample=steps * forward,
        evaluation={
            "noise on selection images": _LOOKS * looked_at * forward,
            **measured.parts,
        },
        gallery=min(SHOWN, evaluated.samples) * steps * forward,
        memory=adam_memory(
            parameters,
            batch * FLOAT * (network.layers.saved + _PER_PIXEL * pixels),
            (
                min(samples, settings.sampler.batch_size) * working,
                max(min(evaluated.batch_size, looked_at) * working, measured.memory),
            ),
            averaged=settings.ema_decay is not None,
        ),
        model_bytes=FLOAT * parameters,
        item_bytes=pixels,
        preparation=measured.preparation,
        notes=measured.notes,
    )
