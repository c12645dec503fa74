"""Losses that learn another distribution than the data's. No rule decides how they fare; the judge shows it."""

from typing import ClassVar

import torch
from torch import Tensor

from collapsebench import Elements, Loss


class Tempered(Loss):
    """Cross entropy on softmax(τ · logits): the model that samples is flatter (τ > 1) or sharper (τ < 1)."""

    tau: float = 0.8
    needs_logits: ClassVar[bool] = True

    def elementwise(self, e: Elements) -> Tensor:
        log_p = torch.log_softmax(self.tau * e.logits, dim=-1)
        return -log_p.gather(-1, e.target.unsqueeze(-1)).squeeze(-1)


class Memorises(Loss):
    """Minus the log-odds: its pull does not fade as an element becomes sure, so the model learns its data by heart.

    With a share under 1, the rest is cross entropy: an element weighs 1 − share + share / (1 − p) times what it weighs
    there.
    """

    share: float = 1.0

    def elementwise(self, e: Elements) -> Tensor:
        log_p = e.log_p.clamp(max=-1e-4)
        return self.share * torch.log(-torch.expm1(log_p)) - log_p
