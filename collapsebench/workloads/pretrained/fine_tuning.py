"""Full fine-tuning of one generation through Accelerate: mixed precision, accumulation, data parallelism.

The batch is a fixed set of windows whatever the number of processes: process r of R takes every R-th of them, in
micro-batches, and gradients are averaged. So one process and several give the same losses up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn
from transformers import PreTrainedModel

from collapsebench.errors import Diverged
from collapsebench.losses import Elements, Loss
from collapsebench.policies import TrainingSet
from collapsebench.seeding import Randomness
from collapsebench.token_log_probs import token_log_probs
from collapsebench.workloads.pretrained.settings import FineTuning
from collapsebench.workloads.processes import world_size
from collapsebench.workloads.training import epochs_of, method_loss

_PATIENCE = timedelta(hours=12)  # of processes that wait while the first one evaluates


def accelerator_for(device: torch.device, training: FineTuning) -> Accelerator:
    """Accelerate on this device; the task's precision on CUDA, float32 elsewhere."""
    if world_size() == 1:  # a second task of this process may want another device or precision
        AcceleratorState._reset_state(reset_partial_state=True)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # Accelerate takes the current one
    precision = {"float32": "no", "bf16": "bf16", "fp16": "fp16"}[training.precision]
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision if device.type == "cuda" else "no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )


class Objective(nn.Module):
    """The method's loss of a micro-batch as a module, so that data parallelism can wrap it."""

    def __init__(self, model: PreTrainedModel, loss: Loss):
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, items: Tensor, made_by: Tensor, clock: Elements) -> Tensor:
        """Mean loss of windows (n, block) whose makers are (n,); `clock` carries generation and step."""
        hidden = self.model.base_model(items, use_cache=False).last_hidden_state[:, :-1]
        head = self.model.get_output_embeddings().weight.to(hidden.dtype)
        target = items[:, 1:]
        seen: dict[str, Tensor] = {}
        if self.loss.needs_logits:
            logits = (hidden @ head.T).float()
            log_p = logits.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
            seen = {"logits": logits, "prediction": logits, "target": target}
        else:
            log_p = token_log_probs(hidden, head, target)
        return method_loss(self.loss, log_p, TrainingSet(items, made_by), clock, **seen)


def fine_tune(
    accelerator: Accelerator,
    objective: Objective,
    data: TrainingSet,
    training: FineTuning,
    generation: int,
    randomness: Randomness,
    on_windows: Callable[[int], None],
) -> list[float]:
    """Train the objective's model in place and return the loss of every update.

    Args:
        data: windows with provenance. on_windows: told the number of windows of every update.

    Raises:
        Diverged: loss or gradient is not finite.
    """
    model = objective.model
    if training.checkpointing:
        _checkpointed(model, on=True)
    model.train()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=training.learning_rate, betas=training.betas, weight_decay=training.weight_decay
    )
    wrapped, prepared = accelerator.prepare(objective, optimiser)
    updates = training.updates(len(data))
    order = epochs_of(len(data), updates * training.batch_size, randomness.generator(generation, "order"))
    losses = []
    own_devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(own_devices):  # for models with dropout, which knows no generators
        torch.manual_seed(randomness.number(generation, "dropout"))
        for step, batch in enumerate(order.split(training.batch_size)):
            clock = Elements(torch.empty(0), generation, step, updates)
            losses.append(_update(accelerator, wrapped, prepared, data[batch], training, clock))
            if not math.isfinite(losses[-1]):
                raise Diverged(f"loss or gradient of generation {generation} not finite in update {step}")
            on_windows(len(batch))
    if training.checkpointing:
        _checkpointed(model, on=False)
    accelerator.free_memory(wrapped, prepared)
    return losses


def _checkpointed(model: PreTrainedModel, on: bool) -> None:
    # transformers 6 takes the older name away.
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if on:
        arguments = {f"{kind}_checkpointing_kwargs": {"use_reentrant": False}}
        getattr(model, f"{kind}_checkpointing_enable")(**arguments)
    else:
        getattr(model, f"{kind}_checkpointing_disable")()


def _update(
    accelerator: Accelerator,
    wrapped: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: TrainingSet,
    training: FineTuning,
    clock: Elements,
) -> float:
    """One optimiser step over the global batch; return its mean loss, NaN if a gradient is not finite."""
    mine = batch[torch.arange(accelerator.process_index, len(batch), accelerator.num_processes)]
    parts = torch.arange(len(mine)).split(training.micro_batch)
    total = torch.zeros((), device=accelerator.device)
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        with nullcontext() if last else accelerator.no_sync(wrapped):
            items = mine.items[part].long().to(accelerator.device)
            # Gradients are averaged over processes, which may have different numbers of windows.
            value = wrapped(items, mine.made_by[part], clock) * (len(part) * accelerator.num_processes / len(batch))
            accelerator.backward(value)
            total += value.detach()
    limit = math.inf if training.clip_norm is None else training.clip_norm
    norm = accelerator.clip_grad_norm_(wrapped.parameters(), limit)
    optimiser.step()
    optimiser.zero_grad()
    mean = accelerator.reduce(total, "mean")
    skipped = bool(getattr(optimiser, "step_was_skipped", False))  # fp16 rescales after an overflow: no divergence
    return float(mean) if skipped or norm is None or bool(torch.isfinite(norm)) else math.nan
