"""FLOPs as counted by torch for each phase of a real generation, to compare estimates with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from collapsebench.authoring.estimate import Estimate
from collapsebench.methods import load_method
from collapsebench.policies import first_training_set, known_fractions
from collapsebench.running.training import train
from collapsebench.seeding import Randomness
from collapsebench.task import Task, load_task
from collapsebench.workloads import FractionWorkload, Workload, load_workload

aten = torch.ops.aten
EXACT, CLOSE = 0.001, 0.1
IN_NUMPY = "Fréchet and kernel distance"  # the one part of an evaluation that torch does not see


def _attention(query: Tensor, key: Tensor, _value: Tensor, dropout: float = 0.0, causal: bool = False, **_: Any) -> int:
    """FLOPs of the attention kernel of the CPU, which skips the blocks that a causal mask hides."""
    batch, heads, tokens, width = query.shape
    seen = (tokens + 1) / 2 if causal else key.shape[2]
    return round(4 * batch * heads * tokens * seen * width)


def _attention_backward(
    _grad: Tensor, q: Tensor, k: Tensor, v: Tensor, _out: Tensor, _lse: Tensor, dropout: float, causal: bool, **_: Any
) -> int:
    return round(2.5 * _attention(q, k, v, dropout, causal))


_attention._get_raw = _attention_backward._get_raw = True  # type: ignore[attr-defined]


def flop_counter() -> FlopCounterMode:
    """torch's counter, which has no formula for the attention kernel of the CPU and would count it as nothing."""
    kernels = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=kernels)


class ElementwiseCounter(TorchDispatchMode):
    """One FLOP per number for every operation on floats that computes: the only work of a mixture or a table."""

    MOVED = (
        "clone",
        "copy",
        "index",
        "expand",
        "empty",
        "zeros",
        "ones",
        "full",
        "detach",
        "cat",
        "unsqueeze",
        "arange",
    )

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::").strip("_")
        tensors = [t for t in tree_leaves((args, out)) if isinstance(t, Tensor)]
        if not func.is_view and not name.startswith(self.MOVED) and any(t.is_floating_point() for t in tensors):
            self.flops += max(t.numel() for t in tensors)
        return out

    def get_total_flops(self) -> int:
        return self.flops


def counted(kind: str, work: Callable[[], Any]) -> tuple[int, Any]:
    """FLOPs of a piece of work, and what it returns."""
    counter = ElementwiseCounter() if kind in ("gmm", "markov") else flop_counter()
    with counter:
        out = work()
    return counter.get_total_flops(), out


@dataclasses.dataclass(frozen=True)
class Measured:
    """What generation 0 of a task spent, phase by phase."""

    task: Task
    workload: Workload
    training: int
    sampling: int
    evaluation: int
    gallery: int


def measured(file: Path, folder: Path) -> Measured:
    task = load_task(file)
    kind = task.spec.workload.kind
    workload, randomness = load_workload(task, "cpu"), Randomness(task.id, 0)
    model, loss = workload.new_model(randomness), load_method("ce", kind).make_loss()
    data = first_training_set(task.spec.policy, workload.real, task.spec.horizon)
    n = len(data) if task.spec.policy.name == "regenerate-fresh" else task.spec.policy.size
    prompts = data[torch.arange(n) % len(data)]
    training, _ = counted(kind, lambda: train(workload, model, data, loss, 0, randomness, lambda _: None))
    sampling, made = counted(kind, lambda: workload.sample(model, prompts, 0, randomness, lambda _: None))

    def evaluate() -> None:
        workload.evaluate(model, made, lambda _: None)
        if task.spec.workload.measures_fractions:
            known = known_fractions(workload.real, 0, task.spec.horizon)
            cast("FractionWorkload", workload).evaluate_fractions(model, known, lambda _: None)

    evaluation, _ = counted(kind, evaluate)
    gallery, _ = counted(kind, lambda: workload.show(folder, model, made, prompts, randomness))
    return Measured(task, workload, training, sampling, evaluation, gallery)


def agrees(found: Estimate, real: Measured, within: float = CLOSE) -> None:
    first = found.generations[0]
    seen_by_torch = first.evaluation - found.evaluation_parts.get(IN_NUMPY, 0)
    assert first.training == pytest.approx(real.training, rel=within)
    assert first.sampling == pytest.approx(real.sampling, rel=within)
    assert seen_by_torch == pytest.approx(real.evaluation, rel=CLOSE)
    assert first.gallery == pytest.approx(real.gallery, rel=CLOSE)
