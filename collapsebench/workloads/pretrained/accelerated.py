"""Updates through Accelerate: mixed precision on a GPU, gradient checkpointing, data parallelism.

The batch is a fixed set of windows for any number of processes. Process r of R takes every R-th window, and gradients
are averaged. So one or several processes give the same losses up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn

from collapsebench.workloads.objective import Schedule
from collapsebench.workloads.pretrained.settings import FineTuning
from collapsebench.workloads.processes import world_size

HALF_PRECISION_ON = ("cuda",)  # device types; on others float32 replaces the task's half precision
_PATIENCE = timedelta(hours=12)  # timeout of processes that wait while the first one evaluates


def accelerator_for(device: torch.device, training: FineTuning) -> Accelerator:
    """An `Accelerator` for this device, with the task's precision on CUDA and float32 elsewhere."""
    if world_size() == 1:  # a second task in this process may need another device or precision
        AcceleratorState._reset_state(reset_partial_state=True)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # Accelerate uses the current device
    precision = {"float32": "no", "bf16": "bf16", "fp16": "fp16"}[training.precision]
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision if device.type in HALF_PRECISION_ON else "no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )


class Accelerated:
    """See `collapsebench.workloads.objective.Processes`.

    Args:
        checkpointing: recompute the activations of the model's layers in backward.
    """

    def __init__(self, accelerator: Accelerator, checkpointing: bool):
        self.accelerator = accelerator
        self.checkpointing = checkpointing
        self.rank = accelerator.process_index
        self.size = accelerator.num_processes

    @contextmanager
    def training(
        self, module: nn.Module, optimiser: torch.optim.Optimizer
    ) -> Iterator[tuple[nn.Module, torch.optim.Optimizer]]:
        if self.checkpointing:
            checkpointed(module.model, on=True)
        wrapped, prepared = self.accelerator.prepare(module, optimiser)
        try:
            yield wrapped, prepared
        finally:
            if self.checkpointing:
                checkpointed(module.model, on=False)
            self.accelerator.free_memory(wrapped, prepared)

    def optimiser(self, parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
        # Not fused: a fused step skips overflowed gradients by itself, and Accelerate would not notice.
        return torch.optim.AdamW(parameters, betas=schedule.betas, weight_decay=schedule.weight_decay)

    def accumulating(self, module: nn.Module, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self.accelerator.no_sync(module)

    def backward(self, tensors: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        # Build a scalar with these gradients, since Accelerate scales a scalar in half precision.
        products = [(tensor * gradient).sum() for tensor, gradient in zip(tensors, gradients, strict=True)]
        self.accelerator.backward(torch.stack(products).sum())

    def clip(self, module: nn.Module, limit: float) -> Tensor:
        norm = self.accelerator.clip_grad_norm_(module.parameters(), limit)
        return torch.zeros(()) if norm is None else norm

    def mean(self, value: Tensor) -> Tensor:
        return self.accelerator.reduce(value, "mean")

    def skipped(self, optimiser: torch.optim.Optimizer) -> bool:
        return bool(getattr(optimiser, "step_was_skipped", False))


def checkpointed(model: Any, on: bool) -> None:
    """Switch gradient checkpointing of a model's layers on or off."""
    # transformers 6 removes the older name.
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if on:
        arguments = {f"{kind}_checkpointing_kwargs": {"use_reentrant": False}}
        getattr(model, f"{kind}_checkpointing_enable")(**arguments)
    else:
        getattr(model, f"{kind}_checkpointing_disable")()
