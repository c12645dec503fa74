"""Part ``cells`` of `benchmarks/gpu.py`: cells that are too small to fill a GPU.

Launching kernels takes longer than computing. Two remedies are measured: several cells side by side, and CUDA graphs,
which launch a whole pass at once. The user's loss stays outside the graphs; if captured, it would see a constant
`e.step`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from gpu_parts import Bench

_SIDE_BY_SIDE = 4
_PATIENCE = 240


def small_cells(bench: Bench) -> Iterator[str]:
    """One cell alone, four at once, and updates with and without CUDA graphs."""
    from gpu_cases import Case

    more = {} if bench.quick else {"policy.size": 320}
    file = Case("text", "text-bytes-micro").write(bench.folder / "cells", **more)
    alone = _at_once(bench, file, 1)
    yield f"one cell alone: {alone:.1f} s for generations 0 and 1, without the start of Python"
    together = _at_once(bench, file, 2 if bench.quick else _SIDE_BY_SIDE)
    n = 2 if bench.quick else _SIDE_BY_SIDE
    yield f"{n} cells at once: {together:.1f} s, {n * alone / together:.2f}x the work of one"
    eager, graphed, apart = _updates(bench, file)
    how = "CUDA graphs" if bench.on_cuda else "the same passes, not captured: there are no graphs on a processor"
    yield f"an update: {1e3 * eager:.2f} ms; with {how}: {1e3 * graphed:.2f} ms, {eager / graphed:.2f}x"
    yield f"weights after both: {apart:.1e} apart, relative"


def _at_once(bench: Bench, file: Path, n: int) -> float:
    """Seconds of the slowest of n processes with one cell each, counted from when all are ready."""
    command = [sys.executable, __file__, str(file), bench.device, str(bench.folder)]
    processes = [
        subprocess.Popen([*command, str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for seed in range(n)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # wait until it is ready
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        told = [process.communicate(timeout=_PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return max(json.loads(line)["seconds"] for line in told)


def _cell(file: str, device: str, folder: str, seed: str) -> None:
    """The work of each process."""
    from collapsebench.api import run

    if device.startswith("cuda"):
        torch.zeros((), device=device)
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    out = Path(folder) / f"runs-{time.time_ns()}-{seed}"
    run(file, "ce", seed=int(seed), out=out, device=device, generations=1)
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


def _updates(bench: Bench, file: Path) -> tuple[float, float, float]:
    """Seconds of an update without and with CUDA graphs, and the difference between their results."""
    from collapsebench.seeding import Randomness
    from collapsebench.task import load_task
    from collapsebench.workloads import load_workload

    task = load_task(file)
    workload: Any = load_workload(task, bench.device)
    size = task.spec.workload.training.batch_size
    batches = workload.real.items.long().split(size)
    batches = [batch.to(bench.device) for batch in batches if len(batch) == size]
    n = 3 if bench.quick else 100
    ends, seconds = [], []
    for make in (_eager, _graphed):
        model = workload.new_model(Randomness("benchmark", 0))
        update = make(bench, model, batches[0].clone())
        for i in range(3):
            update(batches[i % len(batches)])
        bench.wait()
        start = time.perf_counter()
        for i in range(n):
            update(batches[i % len(batches)])
        bench.wait()
        seconds.append((time.perf_counter() - start) / n)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    return seconds[0], seconds[1], float((ends[0] - ends[1]).norm() / ends[0].norm())


class _LogP(nn.Module):
    """Log-probabilities from full logits, since selecting the tokens with a gradient cannot be captured."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        from collapsebench.workloads.text.observed import one_text_per_row

        with one_text_per_row():
            hidden = self.model.base_model(tokens, use_cache=False).last_hidden_state[:, :-1]
        logits = hidden @ self.model.get_output_embeddings().weight.T
        return logits.log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)


def _loss(log_p: Tensor, step: int) -> Tensor:
    """An example of a user's loss that depends on the step."""
    return -(log_p * (1 + 0.01 * (step % 7))).mean()


def _finish(model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=False)  # a graph refers to the gradients by address


def _optimiser(bench: Bench, model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True, **({"capturable": True} if bench.on_cuda else {}))


def _stepper(log_p_of: Callable[[Tensor], Tensor], finish: Callable[[], None]) -> Callable[[Tensor], None]:
    """An update with an eager loss on a leaf, as in the training loop."""
    step = 0

    def update(tokens: Tensor) -> None:
        nonlocal step
        log_p = log_p_of(tokens)
        leaf = log_p.detach().requires_grad_()
        (grad,) = torch.autograd.grad(_loss(leaf, step), leaf)
        log_p.backward(grad)
        finish()
        step += 1

    return update


def _eager(bench: Bench, model: Any, _: Tensor) -> Callable[[Tensor], None]:
    module, optimiser = _LogP(model), _optimiser(bench, model)
    return _stepper(module, lambda: _finish(model, optimiser))


def _graphed(bench: Bench, model: Any, tokens: Tensor) -> Callable[[Tensor], None]:
    """One graph each for the forward pass, the backward pass, and clipping with the optimiser's step."""
    if not bench.on_cuda:
        return _eager(bench, model, tokens)
    module, optimiser = _LogP(model), _optimiser(bench, model)
    weights = [p.detach().clone() for p in model.parameters()]
    graphed = torch.cuda.make_graphed_callables(module, (tokens,))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # a graph uses the existing moments, so they must exist
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        _finish(model, optimiser)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        _finish(model, optimiser)
    with torch.no_grad():  # restore the state before these trials
        for p, weight in zip(model.parameters(), weights, strict=True):
            p.copy_(weight)
        for state in optimiser.state.values():
            for value in state.values():
                value.zero_()
    return _stepper(graphed, graph.replay)


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(root))
    _cell(*sys.argv[1:])
