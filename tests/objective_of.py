"""The objective of a batch as one graph, as in a script without our training loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from collapsebench.losses import Elements, Loss, loss_of_elements
from collapsebench.policies import TrainingSet
from collapsebench.workloads import Workload


def objective_of(workload: Workload, model: Any, batch: TrainingSet, loss: Loss, seed: int = 1) -> Tensor:
    """The loss's mean on the workload's scale, plus the workload's own term; a scalar with its graph."""
    observed = workload.observe(model, batch.items, torch.Generator().manual_seed(seed), loss.needs_logits)
    names = ("prediction", "target", "logits") if loss.needs_logits else ()
    seen = {name: found for name in names if (found := getattr(observed, name)) is not None}
    value = observed.scale * loss_of_elements(loss, Elements(observed.log_p, _restricted=seen))
    return value if observed.term is None else value + observed.term
