"""Tokens that a loss is tested on before any training."""

from __future__ import annotations

import torch

from collapsebench.workloads.kind import KnownElements


def known_tokens() -> KnownElements:
    """The first of three tokens, from almost impossible to certain; for the last element all tokens are equal."""
    logits = torch.cat([torch.linspace(-20.0, 20.0, 63), torch.zeros(1)])[:, None] * torch.tensor([1.0, 0.0, -0.5])
    logits.requires_grad_(True)
    target = torch.zeros(64, dtype=torch.int64)
    log_p = torch.log_softmax(logits, dim=-1).gather(-1, target[:, None]).squeeze(-1)
    return KnownElements(logits, log_p, {"logits": logits, "prediction": logits, "target": target})
