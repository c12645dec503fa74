"""Interface between workload and training loop: the schedule of a generation, and a model's view of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from collapsebench.seeding import Randomness
from collapsebench.workloads.training_settings import Stage, Training

Model = TypeVar("Model", bound=nn.Module)


class Observed(NamedTuple):
    """A batch of n items under the model.

    Attributes:
        log_p: log-probability of every element in nats, (n, …), with its graph; the method's loss is computed from it.
        scale: the objective is the mean loss times this, plus `term`.
        term: the workload's own term of the objective, a scalar with its graph, such as a VAE's KL; None: no such
            term. The method never sees it.
        target: the observed elements. prediction: the model's output for each, with its graph. logits: the prediction
            again, if it consists of unnormalised class scores. Only losses with ``needs_logits`` see these three.
        density: whether p is a density relative to the peak of a Gaussian instead of a probability.
    """

    log_p: Tensor
    scale: float = 1.0
    term: Tensor | None = None
    target: Tensor | None = None
    prediction: Tensor | None = None
    logits: Tensor | None = None
    density: bool = False


@dataclass(frozen=True)
class Schedule:
    """The training schedule of a generation.

    Attributes:
        updates: optimiser steps. rate: learning rate of each step, by its index.
        batch_size: items per update. micro_batch: items per forward pass; None: the whole batch.
        betas, weight_decay: parameters of AdamW. clip_norm: maximum gradient norm; None: no clipping.
        rescale: scale the loss's gradient, in every pass, to the mean size of cross entropy's gradient.
        ema_decay: decay of the exponential moving average of the weights, which is then the trained model; None: use
            the last weights.
        elements: elements per item. progress: progress per item trained on, in the unit of the progress bar.
    """

    updates: int
    rate: Callable[[int], float]
    batch_size: int
    betas: tuple[float, float]
    weight_decay: float
    clip_norm: float | None
    elements: int
    progress: int
    micro_batch: int | None = None
    ema_decay: float | None = None
    rescale: bool = False


def stage_schedule(
    training: Training, generation: int, updates: int, elements: int, progress: int, ema_decay: float | None = None
) -> Schedule:
    """The schedule of a generation for a task with fixed stages.

    Args:
        updates: optimiser steps. Other arguments as in `Schedule`.
    """
    stage = training.stage(generation)
    return Schedule(
        updates=updates,
        rate=lambda step: stage.learning_rate * _rate(stage, step, updates),
        batch_size=training.batch_size,
        betas=training.betas,
        weight_decay=training.weight_decay,
        clip_norm=training.clip_norm,
        elements=elements,
        progress=progress,
        ema_decay=ema_decay,
        rescale=training.rescale,
    )


def _rate(stage: Stage, step: int, updates: int) -> float:
    """Learning-rate factor of an update: linear warm-up, then the stage's decay to 0."""
    warmup = max(1, min(50, updates // 10))
    rising = min(1.0, (step + 1) / warmup)
    if stage.decay == "linear":
        return rising * (1 - step / updates)
    if stage.decay == "cosine":
        return rising * 0.5 * (1 + math.cos(math.pi * step / updates))
    return rising


class Processes(Protocol):
    """The processes that compute an update: this one alone, or several that divide the batch.

    Attributes:
        rank, size: index of this process, and number of processes.
    """

    rank: int
    size: int

    def training(
        self, module: nn.Module, optimiser: torch.optim.Optimizer
    ) -> AbstractContextManager[tuple[nn.Module, torch.optim.Optimizer]]:
        """Wrap module and optimiser as the loop should call them, for the duration of a training."""
        ...

    def optimiser(self, parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
        """Create AdamW; the loop sets the learning rate."""
        ...

    def accumulating(self, module: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Context for the passes of a micro-batch; gradients are exchanged after the `last` one."""
        ...

    def backward(self, tensors: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Backpropagate the given gradients from tensors through their graphs."""
        ...

    def clip(self, module: nn.Module, limit: float) -> Tensor:
        """Clip gradients to a norm, and return their norm before clipping."""
        ...

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        ...

    def skipped(self, optimiser: torch.optim.Optimizer) -> bool:
        """Whether the last step was skipped because half precision overflowed: not a divergence, the scaler adapts."""
        ...


class Alone:
    """A single process; see `Processes`."""

    rank, size = 0, 1

    @contextmanager
    def training(
        self, module: nn.Module, optimiser: torch.optim.Optimizer
    ) -> Iterator[tuple[nn.Module, torch.optim.Optimizer]]:
        yield module, optimiser

    def optimiser(self, parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameters, lr=0.0, betas=schedule.betas, weight_decay=schedule.weight_decay, fused=True
        )

    def accumulating(self, module: nn.Module, last: bool) -> nullcontext[None]:
        return nullcontext()

    def backward(self, tensors: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        torch.autograd.backward(tensors, gradients)

    def clip(self, module: nn.Module, limit: float) -> Tensor:
        return torch.nn.utils.clip_grad_norm_(module.parameters(), limit)

    def mean(self, value: Tensor) -> Tensor:
        return value

    def skipped(self, optimiser: torch.optim.Optimizer) -> bool:
        return False


def initialised(make: Callable[[], Model], randomness: Randomness, device: torch.device) -> Model:
    """Create a model whose initial weights depend only on the seed; the global random state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(randomness.number(0, "init"))  # `torch.manual_seed` would seed GPUs too
        return make().to(device)


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the model's device without synchronising a GPU; the copy is queued there.

    Do not write into the tensor afterwards unless it is pageable memory, which is read before this function returns.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")
