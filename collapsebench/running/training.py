"""The training of one generation: a single loop for all workloads, including the order of the data.

The method's loss sees log p as a leaf. Its result is differentiated there, and the loop passes the gradient on to the
model. So a loss cannot access the model's weights, and the loop knows which elements it masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Generator, Tensor, nn

from collapsebench.errors import Diverged, LossError, UserError
from collapsebench.losses import Declared, Elements, Loss, loss_of_elements, told_with_place
from collapsebench.policies import REAL, TrainingSet
from collapsebench.running.engagement import Engagement, pull
from collapsebench.seeding import Randomness
from collapsebench.workloads import Workload
from collapsebench.workloads.objective import Observed, Processes, Schedule, on_device

_HEALTH_CHECK = 25  # updates between checks that training is still finite


@dataclass(frozen=True)
class Trained:
    """The outcome of a training.

    Attributes:
        elements: elements trained on, counted as often as they were seen.
        losses: the objective of every update, in the loss's unit.
        engagement: the result of `Engagement.shares`.
    """

    elements: int
    losses: list[float]
    engagement: dict[str, float]


def train(
    workload: Workload,
    model: nn.Module,
    data: TrainingSet,
    loss: Loss,
    generation: int,
    randomness: Randomness,
    on_progress: Callable[[int], None],
) -> Trained:
    """Train a model in place.

    Args:
        data: the generation's training set. loss: the method's loss, newly created.
        on_progress: called with the work of every update, in the unit of the progress bar.

    Raises:
        Diverged: loss or gradient is not finite. LossError: the loss breaks its contract, or raises.
    """
    schedule = workload.schedule(generation, len(data))
    processes = workload.processes
    forward = _Forward(workload, model)
    optimiser = processes.optimiser(list(model.parameters()), schedule)
    average = _average(model, schedule)
    order = epochs_of(len(data), schedule.updates * schedule.batch_size, randomness.generator(generation, "order"))
    noise = randomness.generator(generation, "noise")
    device = next(model.parameters()).device
    tally = _Tally(device)
    model.train()
    with processes.training(forward, optimiser) as (module, stepper), _dropout_noise(device, randomness, generation):
        update = _Update(module, stepper, processes, schedule, loss, Declared.of(loss), noise, tally)
        for step, batch in enumerate(order.split(schedule.batch_size)):
            update(data, batch, Clock(generation, step, schedule.updates))
            if (step + 1) % _HEALTH_CHECK == 0 or step + 1 == schedule.updates:
                tally.require_health(generation, step + 1)
            if average is not None:
                average.step(model.parameters())
            on_progress(len(batch) * schedule.progress)
    if average is not None:
        average.copy_to(model.parameters())
    return tally.trained(schedule, processes)


@dataclass(frozen=True)
class Clock:
    """The position in training: the generation, the update within it, and the number of updates."""

    generation: int
    step: int
    total_steps: int


class _Forward(nn.Module):
    """A workload's view of a batch as a module, so that data parallelism and autocast can wrap it."""

    def __init__(self, workload: Workload, model: nn.Module):
        super().__init__()
        self.model = model
        self._observe = workload.observe

    def forward(self, items: Tensor, noise: Generator, full: bool) -> Observed:
        return self._observe(self.model, items, noise, full)


@dataclass
class _Tally:
    """Counts over the updates, kept on the device to avoid synchronisation."""

    device: torch.device
    losses: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.healthy = torch.ones((), dtype=torch.bool, device=self.device)
        self.engagement = Engagement(self.device)

    def require_health(self, generation: int, updates: int) -> None:
        if not self.healthy:
            raise Diverged(f"loss or gradient of generation {generation} not finite by update {updates}")

    def trained(self, schedule: Schedule, processes: Processes) -> Trained:
        items = schedule.updates * schedule.batch_size
        losses = torch.stack(self.losses).tolist()
        return Trained(items * schedule.elements, losses, self.engagement.shares(processes))


@dataclass(frozen=True)
class _Update:
    """One optimiser step over a batch, in micro-batches that are divided among the processes."""

    module: nn.Module
    optimiser: torch.optim.Optimizer
    processes: Processes
    schedule: Schedule
    loss: Loss
    declared: Declared
    noise: Generator
    tally: _Tally

    def __call__(self, data: TrainingSet, batch: Tensor, clock: Clock) -> None:
        processes, schedule, tally = self.processes, self.schedule, self.tally
        for group in self.optimiser.param_groups:
            group["lr"] = schedule.rate(clock.step)
        parts = batch[processes.rank :: processes.size].split(schedule.micro_batch or schedule.batch_size)
        values = []
        for i, part in enumerate(parts):
            with processes.accumulating(self.module, last=i == len(parts) - 1):
                # Gradients are averaged over the processes, which may have different numbers of items.
                share = len(part) * processes.size / len(batch)
                values.append(self._passed(data[part], clock, share))
        norm = processes.clip(self.module, math.inf if schedule.clip_norm is None else schedule.clip_norm)
        self.optimiser.step()
        self.optimiser.zero_grad()
        value = processes.mean(reduce(torch.add, values))
        tally.losses.append(value)
        if not processes.skipped(self.optimiser):
            tally.healthy &= torch.isfinite(value) & torch.isfinite(norm)

    def _passed(self, batch: TrainingSet, clock: Clock, share: float) -> Tensor:
        """Run forward, the loss on a leaf, and backward from there; return this part of the objective."""
        if Declared.of(self.loss) != self.declared:
            name = type(self.loss).__name__
            raise LossError(f"{name} changed its track, needs_logits or reduction by update {clock.step}.")
        observed = self.module(batch.items, self.noise, self.declared.needs_logits)
        seen, pairs = _cut(observed, self.declared.needs_logits)
        value = observed.scale * share * method_loss(self.loss, seen, batch, clock)
        if not value.requires_grad:
            raise LossError(f"{type(self.loss).__name__}.elementwise has no gradient in update {clock.step}.")
        found = torch.autograd.grad(value, [leaf for leaf, _ in pairs], allow_unused=True)
        pulling = pull(observed, found[0], found[1] if found[1:] else None)
        self.tally.engagement.count(observed, pulling.masked())
        if self.schedule.rescale:
            factor = pulling.to_cross_entropy(observed.scale * share / observed.log_p.numel())
            found = tuple(None if g is None else g * factor for g in found)
        passed = [(graph, g) for g, (_, graph) in zip(found, pairs, strict=True) if g is not None]
        value = value.detach()
        if observed.term is not None:
            term = observed.term * share
            passed.append((term, torch.ones_like(term)))
            value = value + term.detach()
        self.processes.backward(*zip(*passed, strict=True))
        return value


def _cut(observed: Observed, full: bool) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
    """The tensors the loss may see, by name, and the pairs of each leaf and the tensor it was copied from.

    Copies, as a loss that writes into what it is given would otherwise write into what engagement and the size of
    cross entropy's gradient are computed from.
    """
    names = ("log_p", "prediction", "logits") if full else ("log_p",)
    graphs = {name: graph for name in names if (graph := getattr(observed, name)) is not None}
    # A tensor with two names gets one leaf: the logits of a language model are its prediction.
    pairs = {id(graph): (graph.detach().clone().requires_grad_(), graph) for graph in graphs.values()}
    seen = {name: pairs[id(graph)][0] for name, graph in graphs.items()}
    if full and observed.target is not None:
        seen["target"] = observed.target.detach().clone()
    return seen, list(pairs.values())


def method_loss(loss: Loss, seen: dict[str, Tensor], batch: TrainingSet, clock: Clock) -> Tensor:
    """The method's loss on a batch, reduced as it declares.

    Args:
        seen: the tensors it may see, by name, including ``log_p``; all are leaves.
        batch: the items; their provenance becomes `Elements.synthetic` for losses of that track.

    Raises:
        LossError: the loss breaks its contract, or raises.
    """
    log_p = seen["log_p"]
    restricted = {name: tensor for name, tensor in seen.items() if name != "log_p"}
    if Declared.of(loss).track == "provenance":
        restricted["synthetic"] = _by_item(batch.made_by != REAL, log_p)
    weights = None if batch.weights is None else _by_item(batch.weights, log_p)
    elements = Elements(log_p, clock.generation, clock.step, clock.total_steps, restricted)
    try:
        return loss_of_elements(loss, elements, weights=weights)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise LossError(
            f"{type(loss).__name__}.elementwise failed in generation {clock.generation}, update {clock.step}: "
            f"{told_with_place(error, loss)}."
        ) from error


def _by_item(values: Tensor, log_p: Tensor) -> Tensor:
    """Values of items (n,), repeated for their elements in the shape of log p, on its device."""
    return on_device(values, log_p.device).view(-1, *[1] * (log_p.dim() - 1)).expand_as(log_p)


def _average(model: nn.Module, schedule: Schedule) -> Any:
    """The moving average of the weights over the updates, if the schedule has one."""
    if schedule.ema_decay is None:
        return None
    from diffusers.training_utils import EMAModel

    return EMAModel(model.parameters(), decay=schedule.ema_decay)


@contextmanager
def _dropout_noise(device: torch.device, randomness: Randomness, generation: int) -> Iterator[None]:
    """Seed the global random state, the only one that dropout uses, and restore it afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(randomness.number(generation, "dropout"))
        yield


def epochs_of(n: int, total: int, generator: Generator) -> Tensor:
    """Indices of `total` items: shuffled epochs, one after another."""
    epochs = [torch.randperm(n, generator=generator) for _ in range(-(-total // n))]
    return torch.cat(epochs)[:total]
