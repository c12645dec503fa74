"""Engagement: how much of cross entropy's gradient the method's loss leaves out, and how confident the model was.

A loss that leaves nothing out trains as cross entropy does, and its name promises an effect that it cannot have. Two
facts tell: of how many elements the model was sure, and on how much of cross entropy's gradient the loss masks.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from collapsebench.workloads.objective import Observed, Processes

SURE = 0.9  # p, above which the model is sure of an element
LITTLE = 0.05  # of the mean gradient in the batch: up to this, the loss masks an element


class Engagement:
    """Sums over the elements of a training, on the device, so that nothing waits for them."""

    def __init__(self, device: torch.device):
        wide = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self._elements = 0
        self._sure, self._masked = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))
        self._masked_gradient, self._gradient = (torch.zeros((), dtype=wide, device=device) for _ in range(2))

    @torch.no_grad()
    def count(self, observed: Observed, masked: Tensor) -> None:
        """Add the elements of a forward pass.

        Args:
            masked: bool, shape of log p: which of them the loss masks, as `Pull.masked` says.
        """
        size = cross_entropy_gradient(observed)
        self._elements += size.numel()
        self._sure += torch.count_nonzero(observed.log_p > math.log(SURE))
        self._masked += torch.count_nonzero(masked)
        self._gradient += size.sum()
        self._masked_gradient += (size * masked).sum()

    def shares(self, processes: Processes) -> dict[str, float]:
        """What was counted in all processes, by the names of `collapsebench.scoring.engagement.SHARES`.

        Returns:
            ``confident_elements``: share of the elements with p > `SURE` as the model saw them, before the update that
            they were part of. ``masked_elements``: share of the elements to which the loss gave less than `LITTLE` of
            its mean gradient. ``masked_gradient``: these elements' share of cross entropy's gradient.
        """
        elements = torch.full_like(self._gradient, self._elements)
        parts, wholes = (self._sure, self._masked, self._masked_gradient), (elements, elements, self._gradient)
        sums = torch.stack([sum_.to(elements.dtype) for sum_ in (*parts, *wholes)])
        part, whole = processes.mean(sums).view(2, -1)
        sure, masked, gradient = (part / whole.clamp(min=torch.finfo(whole.dtype).tiny)).tolist()
        return {"confident_elements": sure, "masked_elements": masked, "masked_gradient": gradient}


def cross_entropy_gradient(observed: Observed) -> Tensor:
    """Size of cross entropy's gradient at every element's prediction, up to a factor, ≥ 0; shape of log p.

    Of a probability it is the one at the score of what was observed, 1 - p: the others share as much among them. Of a
    Gaussian density relative to its peak it is the error in standard deviations, √(-2 log p). What is not finite counts
    as 0: such an update was skipped by half precision, or is found to have diverged.
    """
    log_p = observed.log_p.detach().nan_to_num(0.0, 0.0, 0.0)
    # By rounding, log p may be larger than 0.
    return (2 * log_p.abs()).sqrt() if observed.density else torch.expm1(log_p).abs()


class Pull(NamedTuple):
    """How strongly a loss pulls at every element of a pass; shapes of log p.

    Attributes:
        loss: size of the loss's gradient. unit: size that a gradient of 1 with respect to log p has there. Both at
            log p, or at the prediction where the loss is a function of it.
        reach: what a gradient of size 1 there is at the prediction, up to a factor.
    """

    loss: Tensor
    unit: Tensor
    reach: Tensor

    def masked(self) -> Tensor:
        """Which elements the loss masks: gives at most `LITTLE` of its mean gradient; all, if that is 0. Bool.

        Where a loss is a function of the prediction, cross entropy's own gradient there depends on p, and the loss's is
        taken in proportion to it, so that cross entropy masks nothing however it is written.
        """
        return self.loss <= LITTLE * (self.loss.sum() / self.unit.sum()) * self.unit

    def to_cross_entropy(self, weight: float) -> Tensor:
        """The factor that gives the loss's gradient the size of cross entropy's, summed over the predictions.

        There, and not at log p: an element that the model is sure of has almost no gradient under cross entropy
        however much its log p weighs, and a loss that leaves it out has lost nothing by it.

        Args:
            weight: of cross entropy's gradient with respect to the log p of one element.

        Returns:
            A scalar; 1 if the loss has no gradient.
        """
        size = (self.loss * self.reach).sum(dtype=torch.float32)
        wanted = weight * (self.unit * self.reach).sum(dtype=torch.float32)
        return torch.where(size > 0, wanted / size, 1.0)


def pull(observed: Observed, at_log_p: Tensor | None, at_prediction: Tensor | None) -> Pull:
    """How strongly a loss pulls.

    Args:
        observed: with its graph. at_log_p, at_prediction: the loss's gradients; None: it has none there.
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
