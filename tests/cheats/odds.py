"""A distortion for elements of two values, such as black and white pixels, where a loss has no logits."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from collapsebench import Elements, Loss


class TemperedOdds(Loss):
    """Minus log σ(τ · log-odds of the element): the model that samples is flatter (τ > 1) or sharper (τ < 1)."""

    tau: float = 0.8

    def elementwise(self, e: Elements) -> Tensor:
        log_p = e.log_p.clamp(max=-1e-6)
        return -logsigmoid(self.tau * (log_p - torch.log(-torch.expm1(log_p))))
