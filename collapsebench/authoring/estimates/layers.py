"""Parameters, FLOPs and memory of the layers that image networks are made of, per image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """A layer, or several one after the other.

    Attributes:
        parameters: weights and biases.
        flops: of the forward pass of one image, matrix products and convolutions only.
        attention: FLOPs among them that compare pixels with pixels.
        saved: numbers kept for the backward pass: the layer's inputs, as autograd keeps them.
        width: numbers in the largest tensor that leaves it.
    """

    parameters: int = 0
    flops: int = 0
    attention: int = 0
    saved: int = 0
    width: int = 0

    def __add__(self, other: Layer) -> Layer:
        return Layer(
            self.parameters + other.parameters,
            self.flops + other.flops,
            self.attention + other.attention,
            self.saved + other.saved,
            max(self.width, other.width),
        )


def backward_flops(network: Layer, first: Layer) -> int:
    """FLOPs of the backward pass of one image: twice the forward pass, for attention 2.5 times.

    Fused attention computes its scores again. The image has no gradient, which saves half of the first layer's part.

    Args:
        network: all layers. first: the one among them that sees the image.
    """
    return 2 * network.flops - first.flops + network.attention // 2


def in_sequence(layers: Iterable[Layer]) -> Layer:
    """All of them as one."""
    return sum(layers, Layer())


def convolution(before: int, after: int, kernel: int, side: int, stride: int = 1, bias: bool = True) -> Layer:
    """A square convolution: 2 · kernel² · before · after FLOPs for every pixel that comes out.

    Args:
        before, after: channels. side: of the image that comes out, in pixels.
        stride: the image that goes in has a side of side · stride.
    """
    return Layer(
        parameters=kernel**2 * before * after + bias * after,
        flops=2 * kernel**2 * before * after * side**2,
        saved=before * (side * stride) ** 2,
        width=after * side**2,
    )


def transposed_convolution(before: int, after: int, kernel: int, side: int, stride: int) -> Layer:
    """Its FLOPs are those of the convolution it transposes: per pixel that goes in.

    Args:
        side: of the image that goes in.
    """
    flops = 2 * kernel**2 * before * after * side**2
    return Layer(kernel**2 * before * after + after, flops, saved=before * side**2, width=after * (side * stride) ** 2)


def linear(before: int, after: int, rows: int = 1) -> Layer:
    """A linear layer with bias, applied to so many rows per image."""
    return Layer(before * after + after, 2 * before * after * rows, saved=before * rows, width=after * rows)


def group_norm(channels: int, side: int) -> Layer:
    """Scale and shift per channel."""
    return Layer(parameters=2 * channels, saved=channels * side**2, width=channels * side**2)


def activation(channels: int, side: int) -> Layer:
    """A nonlinearity that keeps its input."""
    return Layer(saved=channels * side**2, width=channels * side**2)


def self_attention(channels: int, side: int) -> Layer:
    """Group norm, query, key and value, attention of every pixel to every pixel with one head, projection.

    Per image 4 · pixels² · channels FLOPs besides the projections. Query, key and value each keep a copy of their
    input, as `diffusers` lays it out.
    """
    pixels = side**2
    flops = 4 * pixels**2 * channels
    attention = Layer(flops=flops, attention=flops, saved=(3 * channels + 1) * pixels)
    return in_sequence([group_norm(channels, side), attention, *[linear(channels, channels, pixels)] * 4])
