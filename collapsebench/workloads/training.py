"""The training of one generation: the same for every modality, down to the order of the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from collapsebench.errors import Diverged, LossError, UserError
from collapsebench.losses import Elements, Loss, loss_of_elements
from collapsebench.policies import REAL, TrainingSet
from collapsebench.seeding import Randomness
from collapsebench.task import Policy
from collapsebench.workloads.training_settings import Stage, Training

_HEALTH_CHECK = 25  # updates between looks at whether training is still finite

BatchLoss = Callable[[TrainingSet, Elements], Tensor]
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Schedule:
    """How a generation is trained.

    Attributes:
        training: the task's section. policy: decides how updates grow with the data. generation: which one.
    """

    training: Training
    policy: Policy
    generation: int

    @property
    def stage(self) -> Stage:
        """The stage of this generation."""
        return self.training.stage(self.generation)

    def updates(self, items: int) -> int:
        """Optimiser steps on a training set of so many items."""
        updates = self.training.updates(self.policy, self.generation, items)
        assert updates is not None
        return updates


def train_model(
    model: nn.Module,
    data: TrainingSet,
    schedule: Schedule,
    batch_loss: BatchLoss,
    randomness: Randomness,
    after_update: Callable[[int], None],
) -> int:
    """Train a model in place and return the number of items trained on.

    Args:
        batch_loss: the loss of a batch of items; its `Elements` carry generation and step, no log-probabilities.
        after_update: called with the number of items of every update.

    Raises:
        Diverged: loss or gradient is not finite.
    """
    training, stage, generation = schedule.training, schedule.stage, schedule.generation
    updates = schedule.updates(len(data))
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=0.0, betas=training.betas, weight_decay=training.weight_decay, fused=True
    )
    limit = math.inf if training.clip_norm is None else training.clip_norm
    order = epochs_of(len(data), updates * training.batch_size, randomness.generator(generation, "order"))
    healthy = torch.ones((), dtype=torch.bool, device=next(model.parameters()).device)
    model.train()
    for step, batch in enumerate(order.split(training.batch_size)):
        for group in optimiser.param_groups:
            group["lr"] = stage.learning_rate * _rate(stage, step, updates)
        value = batch_loss(data[batch], Elements(torch.empty(0), generation, step, updates))
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        optimiser.step()
        optimiser.zero_grad()
        healthy &= torch.isfinite(value) & torch.isfinite(norm)
        if (step + 1) % _HEALTH_CHECK == 0 or step + 1 == updates:
            if not healthy:
                raise Diverged(f"loss or gradient of generation {generation} not finite by update {step + 1}")
        after_update(len(batch))
    return updates * training.batch_size


def method_loss(loss: Loss, log_p: Tensor, batch: TrainingSet, clock: Elements, **seen: Tensor) -> Tensor:
    """The method's loss on a batch, reduced as it declares.

    Args:
        log_p: of the elements of the batch, first dimension (n,) items.
        batch: the items, whose provenance becomes `Elements.synthetic` for losses of that track.
        clock: generation and step, as `train_model` gives them.
        seen: what losses with ``needs_logits`` may look at: ``prediction``, ``target``, ``logits``.

    Raises:
        LossError: the loss breaks its contract, or raises.
    """
    restricted = dict(seen) if loss.needs_logits else {}
    if loss.track == "provenance":
        made = (batch.made_by != REAL).to(log_p.device)
        restricted["synthetic"] = made.view(-1, *[1] * (log_p.dim() - 1)).expand_as(log_p)
    try:
        return loss_of_elements(loss, Elements(log_p, clock.generation, clock.step, clock.total_steps, restricted))
    except UserError:
        raise
    except Exception as error:
        raise LossError(
            f"{type(loss).__name__}.elementwise failed in generation {clock.generation}, update {clock.step}: "
            f"{type(error).__name__}: {error}."
        ) from error


def initialised(make: Callable[[], Model], randomness: Randomness, device: torch.device) -> Model:
    """A model as `make` makes it, with initial weights that depend on the seed alone; global state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.number(0, "init"))
        return make().to(device)


def epochs_of(n: int, total: int, generator: torch.Generator) -> Tensor:
    """Indices of `total` items: shuffled epochs, one after the other."""
    epochs = [torch.randperm(n, generator=generator) for _ in range(-(-total // n))]
    return torch.cat(epochs)[:total]


def _rate(stage: Stage, step: int, updates: int) -> float:
    """Learning-rate factor of an update: linear warm-up, then the stage's decay to 0."""
    warmup = max(1, min(50, updates // 10))
    rising = min(1.0, (step + 1) / warmup)
    if stage.decay == "linear":
        return rising * (1 - step / updates)
    if stage.decay == "cosine":
        return rising * 0.5 * (1 + math.cos(math.pi * step / updates))
    return rising
