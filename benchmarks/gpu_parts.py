"""The parts of `benchmarks/gpu.py`: each takes the bench and yields lines as soon as they are available.

tasks and trainer need pydantic and PyYAML; images also need diffusers and clean-fid, and trainer accelerate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gpu_small_cells import small_cells
from gpu_trainer import against_trainer
from torch import Tensor
from torch.nn import functional as F

from collapsebench.token_log_probs import token_log_probs

if TYPE_CHECKING:
    from collapsebench.task import Task

Lines = Iterator[str]


@dataclass
class Bench:
    """The device and the sizes of the measurements.

    Attributes:
        device: torch device. quick: use small sizes. folder: folder for files.
        rates: FLOP/s of the plain matrix product by precision, from part ``rate``.
    """

    device: str
    quick: bool
    folder: Path
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.on_cuda else "processor"

    @property
    def on_cuda(self) -> bool:
        return self.device.startswith("cuda")

    def wait(self) -> None:
        """Wait until the device has finished its work."""
        if self.on_cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], Any], repeats: int = 3) -> float:
        """Median seconds of some repeats, after a warm-up."""
        work()
        found = []
        for _ in range(1 if self.quick else repeats):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            found.append(time.perf_counter() - start)
        return statistics.median(found)

    def peak(self, work: Callable[[], Any]) -> int | None:
        """Peak bytes added by a piece of work; None on a CPU, where it is unknown."""
        if not self.on_cuda:
            work()
            return None
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        self.wait()
        return torch.cuda.max_memory_allocated(self.device) - before

    def share(self, flops: float, seconds: float, precision: str = "float32") -> str:
        """The rate as a share of the plain matrix product's."""
        if precision not in self.rates:
            return "share unknown: part rate was left out"
        return f"{flops / seconds / self.rates[precision]:.1%} of the {precision} product"


def rate(bench: Bench) -> Lines:
    """FLOP/s of the plain matrix product in every precision, and bytes/s of a copy."""
    n = 512 if bench.quick else 8192
    for precision, matmul, dtype in (
        ("float32", "highest", torch.float32),
        ("tf32", "high", torch.float32),
        ("bfloat16", "highest", torch.bfloat16),
    ):
        torch.set_float32_matmul_precision(matmul)
        a, b = (torch.randn(n, n, device=bench.device, dtype=dtype) for _ in range(2))
        seconds = bench.seconds(lambda a=a, b=b: a @ b, repeats=10)
        bench.rates[precision] = 2 * n**3 / seconds
        yield f"{precision}: {bench.rates[precision] / 1e12:.2f} TFLOP/s, product of {n} x {n} x {n}"
    torch.set_float32_matmul_precision("highest")
    numbers = torch.randn((2**20 if bench.quick else 2**28), device=bench.device)
    seconds = bench.seconds(numbers.clone, repeats=10)
    yield f"copy: {2 * numbers.nbytes / seconds / 1e9:.0f} GB/s, read and written"


def tasks(bench: Bench) -> Lines:
    """Training, sampling and evaluation of generation 0 for every case of tests/gpu, larger if there is a GPU."""
    from gpu_cases import CASES

    for case in CASES:
        if case.missing:
            yield f"{case}: skipped, it needs {', '.join(case.missing)}"
            continue
        more = {} if bench.quick else LARGER.get(case.kind, {})
        yield from _phases(bench, case.write(bench.folder / str(case), **more))


LARGER: dict[str, dict[str, Any]] = {
    "text": {"policy.size": 320, "workload.evaluation.test_windows": 320},
    "vae": {"policy.size": 2000},
    "diffusion": {"policy.size": 200},
    "gmm": {"workload.training.first.updates": 200},
    "markov": {"policy.size": 512},
}


def _phases(bench: Bench, file: Path) -> Lines:
    from collapsebench.authoring.estimate import estimate
    from collapsebench.task import load_task

    task = load_task(file)
    found = measured_phases(task, bench, 1)
    for phase in found:
        yield f"{task.id} {phase}, {bench.share(phase.flops, phase.seconds)}"
    if bench.on_cuda:
        memory = estimate(task, 0).memory
        peak, estimated = max(phase.held for phase in found), memory.peak - memory.weights
        yield f"{task.id} memory: {peak / 1e6:.1f} MB beside the weights, estimated {estimated / 1e6:.1f} MB"


@dataclass(frozen=True)
class Phase:
    """The cost of one phase of a task's generation 0.

    Attributes:
        name: training, sampling or evaluation. items: number of elements processed (images, if these are sampled); 0:
            not reported in items. unit: unit of the items. flops: FLOPs as counted by `estimate`. held: peak bytes.
    """

    name: str
    seconds: float
    flops: float
    items: float
    unit: str
    held: int = 0

    def __str__(self) -> str:
        rate_ = f"{self.items / self.seconds:,.0f} {self.unit}/s" if self.items else f"{self.seconds:.2f} s"
        return f"{self.name}: {rate_}"


def measured_phases(task: Task, bench: Bench, repeats: int) -> list[Phase]:
    """Training, sampling and evaluation of generation 0 of ce, after a warm-up of each."""
    from collapsebench.authoring.estimate import estimate
    from collapsebench.methods import load_method
    from collapsebench.policies import prompts
    from collapsebench.running.artifacts import RunDirectory
    from collapsebench.running.loop import Chain
    from collapsebench.running.training import train
    from collapsebench.workloads import load_workload

    workload, method = load_workload(task, bench.device), load_method("ce", task.spec.workload.kind)
    chain = Chain(task, method, 0, workload, RunDirectory.of(bench.folder, task.id, method.id, 0))
    data, randomness = chain.training_set(0), chain.randomness
    starts = prompts(task.spec.policy, data, randomness.generator(0, "prompts"))
    model = workload.new_model(randomness) if task.spec.init != "base" else workload.load_model(task.base_weights())
    loss = method.make_loss()
    made: list[Tensor] = []
    phases: dict[str, Callable[[], Any]] = {
        "training": lambda: train(workload, model, data, loss, 0, randomness, lambda _: None),
        "sampling": lambda: made.append(workload.sample(model, starts, 0, randomness, lambda _: None)),
        "evaluation": lambda: workload.evaluate(model, made[-1], lambda _: None),
    }
    known, images = estimate(task, 0), task.spec.kind.samples == "images"
    spent, per = known.generations[0], workload.real.items[0].numel() if images else 1
    items = {"training": spent.trained / per, "sampling": spent.sampled / per, "evaluation": 0.0}
    found = []
    for name, work in phases.items():
        held = bench.peak(work) or 0
        seconds = bench.seconds(work, repeats)
        unit = "images" if images else known.unit
        found.append(Phase(name, seconds, getattr(spent, name), items[name], unit, held))
    return found


def loss_memory(bench: Bench) -> Lines:
    """Forward and backward of the loss at the size of a large model's micro-batch: full logits against slices."""
    tokens, width, vocabulary = (256, 64, 2048) if bench.quick else (8192, 2048, 128_256)
    needed = 3.5 * tokens * vocabulary * 4 + 3 * vocabulary * width * 2
    if bench.on_cuda and needed > (free := torch.cuda.mem_get_info(bench.device)[0]):
        tokens = int(tokens * free / needed) // 256 * 256
        yield f"scaled to {tokens} tokens: full logits would not fit"
    hidden = torch.randn(tokens, width, device=bench.device, dtype=torch.bfloat16).requires_grad_()
    weight = (torch.randn(vocabulary, width, device=bench.device, dtype=torch.bfloat16) * 0.02).requires_grad_()
    target = torch.randint(vocabulary, (tokens,), device=bench.device)

    def full() -> Tensor:
        return -F.cross_entropy((hidden @ weight.T).float(), target, reduction="none")

    def sliced() -> Tensor:
        return token_log_probs(hidden, weight, target)

    torch.use_deterministic_algorithms(False)  # as somebody would who writes the loss on full logits
    for masked in (0.0, 0.8):
        kept = (torch.rand(tokens, device=bench.device) >= masked).float()
        found = {}
        for name, log_p in (("full logits", full), ("token_log_probs", sliced)):

            def step(log_p: Callable[[], Tensor] = log_p, kept: Tensor = kept) -> None:
                torch.autograd.grad(-(log_p() * kept).mean(), (hidden, weight))

            held, seconds = bench.peak(step), bench.seconds(step)
            found[name] = seconds, held
            products = 2 * 3 * tokens * width * vocabulary  # FLOPs of full logits: one product forward, two backward
            size = "" if held is None else f", {held / 1e9:.2f} GB"
            yield f"{masked:.0%} masked, {name}: {seconds:.3f} s{size}, {bench.share(products, seconds, 'bfloat16')}"
        (a, held_a), (b, held_b) = found["full logits"], found["token_log_probs"]
        memory = "" if held_a is None or held_b is None else f", memory {held_b / held_a:.2f}x"
        yield f"{masked:.0%} masked: time {b / a:.2f}x{memory} of full logits; {tokens} x {width} x {vocabulary}"
    torch.use_deterministic_algorithms(True, warn_only=not bench.on_cuda)

    def as_in_a_run() -> None:
        torch.autograd.grad(-sliced().mean(), (hidden, weight))

    yield f"token_log_probs with deterministic algorithms, as in a run: {bench.seconds(as_in_a_run):.3f} s"


PARTS: dict[str, Callable[[Bench], Lines]] = {
    "rate": rate,
    "loss": loss_memory,
    "tasks": tasks,
    "trainer": against_trainer,
    "cells": small_cells,
}
