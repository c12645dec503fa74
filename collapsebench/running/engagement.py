"""Engagement: how much of cross entropy's gradient the method's loss masks, and how confident the model was.

A loss that masks nothing trains like cross entropy and cannot have the effect that its name promises. Two numbers show
this: the share of elements on which the model was confident, and the share of cross entropy's gradient that the loss
masks.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from collapsebench.workloads.objective import Observed, Processes

SURE = 0.9  # the model is confident of an element if its p is above this
LITTLE = 0.05  # the loss masks an element if its gradient is at most this share of the batch's mean


class Engagement:
    """Sums over the elements of a training, kept on the device to avoid synchronisation."""

    def __init__(self, device: torch.device):
        wide = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self._elements = 0
        self._sure, self._masked = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))
        self._masked_gradient, self._gradient = (torch.zeros((), dtype=wide, device=device) for _ in range(2))

    @torch.no_grad()
    def count(self, observed: Observed, masked: Tensor) -> None:
        """Add the elements of a forward pass.

        Args:
            masked: bool in the shape of log p: which elements the loss masks, from `Pull.masked`.
        """
        size = cross_entropy_gradient(observed)
        self._elements += size.numel()
        self._sure += torch.count_nonzero(observed.log_p > math.log(SURE))
        self._masked += torch.count_nonzero(masked)
        self._gradient += size.sum()
        self._masked_gradient += (size * masked).sum()

    def shares(self, processes: Processes) -> dict[str, float]:
        """Totals over all processes, by the names of `collapsebench.scoring.engagement.SHARES`.

        Returns:
            ``confident_elements``: share of the elements with p > `SURE` under the model before the update that they
            were part of. ``masked_elements``: share of the elements to which the loss gave at most `LITTLE` of its mean
            gradient. ``masked_gradient``: these elements' share of cross entropy's gradient.
        """
        elements = torch.full_like(self._gradient, self._elements)
        parts, wholes = (self._sure, self._masked, self._masked_gradient), (elements, elements, self._gradient)
        sums = torch.stack([sum_.to(elements.dtype) for sum_ in (*parts, *wholes)])
        part, whole = processes.mean(sums).view(2, -1)
        sure, masked, gradient = (part / whole.clamp(min=torch.finfo(whole.dtype).tiny)).tolist()
        return {"confident_elements": sure, "masked_elements": masked, "masked_gradient": gradient}


def cross_entropy_gradient(observed: Observed) -> Tensor:
    """Size of cross entropy's gradient at every element's prediction, up to a factor, ≥ 0; in the shape of log p.

    For a probability it is 1 - p, the gradient at the logit of the observed class; the other logits share as much.
    For a Gaussian density relative to its peak it is the error in standard deviations, √(-2 log p). Values that are not
    finite count as 0: half precision skipped the update, or the training is found to have diverged.
    """
    log_p = observed.log_p.detach().nan_to_num(0.0, 0.0, 0.0)
    # Rounding can make log p larger than 0.
    return (2 * log_p.abs()).sqrt() if observed.density else torch.expm1(log_p).abs()


class Pull(NamedTuple):
    """The strength of a loss's gradient at every element of a pass; in the shape of log p.

    Attributes:
        loss: size of the loss's gradient. unit: size of a gradient of 1 with respect to log p. Both are taken at log p,
            or at the prediction if the loss is a function of it.
        reach: size at the prediction, up to a factor, of a gradient that has size 1 there.
    """

    loss: Tensor
    unit: Tensor
    reach: Tensor

    def masked(self) -> Tensor:
        """Which elements the loss masks, i.e. gives at most `LITTLE` of its mean gradient; all if that is 0. Bool.

        If a loss is a function of the prediction, cross entropy's own gradient there depends on p. The loss's gradient
        is then taken relative to it, so that cross entropy masks nothing, however it is implemented.
        """
        return self.loss <= LITTLE * (self.loss.sum() / self.unit.sum()) * self.unit

    def to_cross_entropy(self, weight: float) -> Tensor:
        """The factor that scales the loss's gradient to the size of cross entropy's, summed over the predictions.

        Sizes are compared at the predictions and not at log p. An element of which the model is confident has almost no
        gradient under cross entropy, whatever the weight of its log p, and a loss that masks it loses nothing.

        Args:
            weight: cross entropy's gradient with respect to the log p of one element.

        Returns:
            A scalar; 1 if the loss has no gradient.
        """
        size = (self.loss * self.reach).sum(dtype=torch.float32)
        wanted = weight * (self.unit * self.reach).sum(dtype=torch.float32)
        return torch.where(size > 0, wanted / size, 1.0)


def pull(observed: Observed, at_log_p: Tensor | None, at_prediction: Tensor | None) -> Pull:
    """Compute the strength of a loss's gradient.

    Args:
        observed: the batch with its graph. at_log_p, at_prediction: the loss's gradients; None: it has none there.
    """
    if at_prediction is None:
        assert at_log_p is not None, "a loss that has a gradient has it somewhere"
        return Pull(at_log_p.abs(), torch.ones_like(at_log_p), cross_entropy_gradient(observed))
    assert observed.prediction is not None
    ones = torch.ones_like(observed.log_p)
    (own,) = torch.autograd.grad(observed.log_p, observed.prediction, ones, retain_graph=True)
    dims = observed.log_p.dim()
    if at_log_p is not None:
        at_prediction = at_prediction + own * at_log_p.reshape(*at_log_p.shape, *[1] * (own.dim() - dims))
    size, unit = (gradient.flatten(dims).norm(dim=-1) if gradient.dim() > dims else gradient.abs()
                  for gradient in (at_prediction, own))  # fmt: skip
    return Pull(size, unit, ones)
