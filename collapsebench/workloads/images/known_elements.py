"""Pixels and noise components that a loss is tested on before any training."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from collapsebench.workloads.kind import KnownElements


def known_pixels() -> KnownElements:
    """White pixels, from almost impossible to certain."""
    logits = torch.linspace(-30.0, 10.0, 64).requires_grad_(True)
    target = torch.ones(64)
    log_p = -F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return KnownElements(logits, log_p, {"prediction": logits, "target": target})


def known_noise() -> KnownElements:
    """Noise of 0, predicted as 0 to 7.7 in units of σ."""
    predicted = torch.linspace(0.0, 7.7, 64).requires_grad_(True)
    target = torch.zeros(64)
    return KnownElements(predicted, -0.5 * (predicted - target).square(), {"prediction": predicted, "target": target})
