"""The memory that a generation takes on the GPU, against what `collapsebench estimate` says beforehand."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import needed  # noqa: F401  it skips this module where a package is missing
import pytest
import torch
from gpu_cases import CASES, Case
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from collapsebench.authoring.estimate import estimate
from collapsebench.methods import load_method
from collapsebench.policies import first_training_set, prompts
from collapsebench.running.cells import fix_arithmetic
from collapsebench.running.training import train
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.workloads import load_workload

pytestmark = pytest.mark.gpu

WITHIN = 0.2
GREEDIEST = "focal"  # of the baselines, the loss that keeps most for the backward pass
# The others are so small that the allocator's steps of 512 bytes are most of what they take.
LARGE = [case for case in CASES if case.kind in ("text", "vae", "diffusion")]


class _Held(TorchDispatchMode):
    """Bytes of the live tensors created by operations, for tests with the CPU as the device."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.paused = False
        self._bytes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.paused:
            return out
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor) and not func.is_view:
                storage = tensor.untyped_storage()
                if storage._cdata not in self._bytes:
                    self._bytes[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._free, storage._cdata)
        self.most = max(self.most, self.now)
        return out

    def without(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its own tensors are not counted."""

        def unseen(*args: Any, **kwargs: Any) -> Any:
            self.paused = True
            try:
                return function(*args, **kwargs)
            finally:
                self.paused = False

        return unseen

    def _free(self, key: int) -> None:
        self.now -= self._bytes.pop(key, 0)


def most_bytes(device: str, work: Callable[[], None]) -> int:
    """Peak bytes that a piece of work holds on the device, above those held before."""
    gc.collect()
    if device == "cpu":
        with pytest.MonkeyPatch.context() as patch, _Held() as held:
            module = sys.modules.get("collapsebench.workloads.images.metrics")
            for name in () if module is None else ("manifold_metrics", "nearest_distances"):
                patch.setattr(module, name, held.without(getattr(module, name)))  # on the processor, on any machine
            work()
        return held.most
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) - before


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_a_generation_takes_the_memory_that_is_estimated(case: Case, device: str, tmp_path: Path) -> None:
    if case.missing:
        pytest.skip(f"{case} needs {', '.join(case.missing)}")
    task = load_task(case.write(tmp_path))
    fix_arithmetic(1, device)
    workload, randomness = load_workload(task, device), Randomness(task.id, 0)
    data = first_training_set(task.spec.policy, workload.real, task.spec.horizon)
    starts = prompts(task.spec.policy, data, randomness.generator(0, "prompts"))
    loss = load_method(GREEDIEST, case.kind).make_loss()

    def generation() -> None:
        model = workload.new_model(randomness)
        train(workload, model, data, loss, 0, randomness, lambda _: None)
        workload.evaluate(model, workload.sample(model, starts, 0, randomness, lambda _: None), lambda _: None)

    if device != "cpu":
        generation()  # libraries take their own memory, once
    assert most_bytes(device, generation) == pytest.approx(estimate(task, 0).memory.peak, rel=WITHIN)
