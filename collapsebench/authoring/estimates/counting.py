"""Counts the cost of a task per unit of work, by running its workload's own code without data or weights.

It runs one update of the training loop, a few samples, evaluations and the gallery. Proportional costs are counted
once, since all updates cost the same and so do all samples. The cost of a sample drawn in steps is a polynomial in the
number of steps, of degree at most two because a token attends to the tokens before it. Samples of one, two and three
steps determine it.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from collapsebench.authoring.estimates.costs import Costs, Memory
from collapsebench.authoring.estimates.dry_run import Cost, DryRun
from collapsebench.methods import load_method
from collapsebench.policies import REAL, Fractions, TrainingSet
from collapsebench.running.training import train
from collapsebench.seeding import Randomness
from collapsebench.task import Task
from collapsebench.workloads import Workload
from collapsebench.workloads.kind import Blank, Kind, imported
from collapsebench.workloads.objective import Observed, Schedule
from collapsebench.workloads.work import Sizes, fraction_items

_SHORT = (1, 2, 3)  # steps of the counted samples
_FEW = 12  # samples drawn for each number of steps; a stream of 12 divides into sequences of each length
_AT_ONCE = 10**9  # batch size where only FLOPs are counted, which do not depend on it
_BATCHES = ("evaluation.batch_size", "sampler.batch_size")
_REPEATED = {"evaluation.pairs": 8}  # short sequences; memory does not depend on their number
_GREEDIEST = "focal"  # the baseline loss that keeps the most memory for the backward pass


def counted_costs(task: Task, sizes: Sizes, samples: Sequence[int]) -> list[Costs]:
    """Costs of generations that draw these numbers of samples.

    The cost of an evaluation lies between those of the smallest and the largest number.

    Args:
        sizes: sizes of the data.
    """
    kind = task.spec.kind
    blank, once = _blank(_changed(task, dict.fromkeys(_BATCHES, _AT_ONCE)), sizes)
    bench = _Bench(kind, blank, fraction_items(task.spec, sizes.train) or 1)
    update = bench.update(_GREEDIEST)
    flops: Callable[[Cost], int] = (lambda c: c.products) if update.cost.products else (lambda c: c.elementwise)
    once_again = update if update.cost.products else bench.update("ce")  # matrix products are the same for any loss
    drawing = bench.drawing(max(samples), flops)
    parts = {n: bench.evaluation(n, flops) for n in {min(samples), max(samples)}}
    held = replace(
        update.memory,
        sampling=round(drawing.bytes_per_sequence * _together(task, max(samples) * kind.sequences(task.spec.workload))),
        evaluation=bench.evaluation_bytes(_one_batch(task, sizes), max(samples)),
    )
    model, item = bench.model, blank.workload.real.items[0]
    costs = Costs(
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        update=round(flops(once_again.cost) * once_again.repeated),
        sample=drawing.flops_per_sample,
        evaluation={},
        gallery=bench.gallery(flops),
        memory=held,
        model_bytes=sum({t.untyped_storage()._cdata: t.nbytes for t in model.state_dict().values()}.values()),
        item_bytes=item.nbytes,
        preparation=once,
        notes=blank.notes,
    )
    return [replace(costs, evaluation=_between(parts, n)) for n in samples]


@dataclass(frozen=True)
class _Update:
    """An update: the cost of one micro-batch, their number, and the memory of training."""

    cost: Cost
    repeated: Fraction
    memory: Memory


@dataclass(frozen=True)
class _Drawing:
    flops_per_sample: Fraction
    bytes_per_sequence: Fraction


class _Bench:
    """A blank workload and its model, and methods that run pieces of their work.

    Args:
        fraction: items in a fraction of the real data, if generations are measured on fractions.
    """

    def __init__(self, kind: Kind, blank: Blank, fraction: int):
        self.kind = kind
        self.fraction = fraction
        self.blank = blank
        self.workload: Any = blank.workload
        self.device: torch.device = self.workload.device
        self.randomness = Randomness("estimate", 0)
        with self.device:
            self.model: nn.Module = self.workload.new_model(self.randomness)

    def update(self, loss: str) -> _Update:
        """Count one update of generation 0 with a baseline's loss, on one micro-batch."""
        model = self.model
        shortened: Any = _OneUpdate(self.workload)
        items = _items(self.workload, shortened.micro_batch)
        made = load_method(loss, self.kind.name).make_loss()
        run = DryRun(model, self.device)
        shortened.before_first_batch = run.from_here
        stopping = register_optimizer_step_pre_hook(run.until_here)
        try:
            with run:
                train(shortened, model, items, made, 0, self.randomness, lambda _: None)
        finally:
            stopping.remove()
        weights = sum(p.nbytes for p in model.parameters())
        learned = sum(p.nbytes for p in model.parameters() if p.requires_grad)
        moments = shortened.moments + (weights if shortened.averaged else 0)
        return _Update(run.cost, shortened.repeated, Memory(weights, learned, moments, run.cost.peak))

    def drawing(self, samples: int, flops: Callable[[Cost], int]) -> _Drawing:
        """Count the sampling of a generation that draws `samples` samples."""
        settings, steps = self.workload.settings, self.kind.steps
        n = _FEW if steps else samples
        prompts = _items(self.workload, n)

        def drawn(workload: Any) -> tuple[Fraction, Fraction]:
            cost = self._counted(lambda: workload.sample(self.model, prompts, 0, self.randomness, lambda _: None))
            sequences = n * self.kind.sequences(workload.settings)
            return Fraction(flops(cost)) / sequences, Fraction(cost.peak) / sequences

        if steps is None:
            return _Drawing(*drawn(self.workload))
        found = [drawn(_with_steps(self.workload, steps, k)) for k in _SHORT]
        wanted = _value(settings, steps)
        per_sequence = _polynomial([f for f, _ in found], wanted)
        growth = max(Fraction(0), found[-1][1] - found[-2][1])
        held = found[-1][1] + growth * max(0, wanted - _SHORT[-1])
        return _Drawing(per_sequence * self.kind.sequences(settings), held)

    def gallery(self, flops: Callable[[Cost], int]) -> int:
        """Count the samples kept for display."""
        prompts, steps = _items(self.workload, _FEW), self.kind.steps
        samples = prompts.items

        def shown(workload: Any) -> Fraction:
            with tempfile.TemporaryDirectory() as folder:
                work = (Path(folder), self.model, samples, prompts, self.randomness)
                return Fraction(flops(self._counted(lambda: workload.show(*work))))

        if steps is None:
            return round(shown(self.workload))
        found = [shown(_with_steps(self.workload, steps, k)) for k in _SHORT]
        return round(_polynomial(found, _value(self.workload.settings, steps)))

    def evaluation(self, samples: int, flops: Callable[[Cost], int]) -> dict[str, int]:
        """Count an evaluation of `samples` samples, by part."""
        self.blank.outside.clear()
        made = _items(self.workload, samples).items
        cost = self._counted(lambda: self._evaluate(self.workload, made))
        return {"models and distances": flops(cost), **self.blank.outside}

    def evaluation_bytes(self, blank: Blank, samples: int) -> int:
        """Memory of an evaluation by another blank workload of the same task, besides the weights."""
        workload, made = blank.workload, _items(self.workload, samples).items
        return self._counted(lambda: self._evaluate(workload, made)).peak

    def _evaluate(self, workload: Any, samples: Tensor) -> None:
        """Run everything that a generation is evaluated on."""
        workload.evaluate(self.model, samples, lambda _: None)
        if workload.settings.measures_fractions:
            part = _items(workload, self.fraction)
            workload.evaluate_fractions(self.model, Fractions(0, part, part), lambda _: None)

    def _counted(self, work: Callable[[], Any]) -> Cost:
        run = DryRun(self.model, self.device)
        with run:
            work()
        return run.cost


class _OneUpdate:
    """A workload whose generations consist of one update on one micro-batch."""

    def __init__(self, workload: Any):
        schedule: Schedule = workload.schedule(0, len(workload.real))
        self.micro_batch = schedule.micro_batch or schedule.batch_size
        self.repeated = Fraction(schedule.batch_size, self.micro_batch)
        self.averaged = schedule.ema_decay is not None
        self.before_first_batch: Callable[[], None] = lambda: None
        # The moving average has no matrix products and is left out; the optimiser's memory includes its bytes.
        self._schedule = replace(schedule, updates=1, batch_size=self.micro_batch, ema_decay=None)
        self._workload = workload
        self._optimiser: torch.optim.Optimizer | None = None
        self.processes = copy.copy(workload.processes)
        self.processes.optimiser = self._make_optimiser
        self.processes.backward = _backward

    def schedule(self, *_: int) -> Schedule:
        return self._schedule

    def observe(self, *arguments: Any) -> Observed:
        self.before_first_batch()
        found: Observed = self._workload.observe(*arguments)
        return found

    def _make_optimiser(self, parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
        # Not fused: the meta device has no such kernel.
        self._optimiser = torch.optim.AdamW(parameters, betas=schedule.betas, weight_decay=schedule.weight_decay)
        return self._optimiser

    @property
    def moments(self) -> int:
        """Bytes of the optimiser's state."""
        assert self._optimiser is not None
        states = self._optimiser.state.values()
        return sum(value.nbytes for state in states for name, value in state.items() if name != "step")


def _backward(tensors: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """`torch.autograd.backward` with the replaced torch functions still active, as checkpointing calls them again."""
    run: Any = torch.autograd.Variable._execution_engine.run_backward
    run(tuple(tensors), tuple(gradients), False, False, (), allow_unreachable=True, accumulate_grad=True)


def _one_batch(task: Task, sizes: Sizes) -> Blank:
    """A blank workload that evaluates one batch per split, since each batch reuses the memory of the previous one."""
    few = _value(task.spec.workload, _BATCHES[0])
    if few is not None:
        sizes = replace(sizes, test=min(sizes.test, few), selection=min(sizes.selection, 2 * few))
    return _blank(_changed(task, _REPEATED), sizes)[0]


def _blank(task: Task, sizes: Sizes) -> tuple[Blank, int]:
    """A task's blank workload, and the FLOPs computed once when it is created."""
    with DryRun(None, torch.device("meta")) as run:
        blank: Blank = imported(task.spec.kind.blank)(task, sizes)
    return blank, run.cost.products + sum(blank.outside.values())


def _items(workload: Workload, n: int) -> TrainingSet:
    """n items like those of the training data."""
    like = workload.real.items
    device = workload.device
    return TrainingSet.of(torch.zeros((n, *like.shape[1:]), dtype=like.dtype, device=device), REAL)


def _together(task: Task, sequences: Fraction) -> Fraction:
    """Number of sequences drawn in one batch."""
    sampler = getattr(task.spec.workload, "sampler", None)
    return min(sequences, Fraction(getattr(sampler, "batch_size", sequences)))


def _between(parts: dict[int, dict[str, int]], samples: int) -> dict[str, int]:
    low, high = min(parts), max(parts)
    share = Fraction(samples - low, max(1, high - low))
    return {name: round(parts[low][name] + share * (parts[high][name] - parts[low][name])) for name in parts[low]}


def _polynomial(values: list[Fraction], at: int) -> Fraction:
    """Evaluate the parabola through the values at 1, 2 and 3."""
    first, second = values[1] - values[0], values[2] - 2 * values[1] + values[0]
    return values[0] + first * (at - 1) + second * Fraction((at - 1) * (at - 2), 2)


# --- settings, changed ----------------------------------------------------------------------------------------------


def _with_steps(workload: Any, steps: str, number: int) -> Any:
    changed = copy.copy(workload)
    changed.settings = _set(workload.settings, steps, number)
    return changed


def _changed(task: Task, values: dict[str, int]) -> Task:
    """The task with changed settings in its workload section, where these exist."""
    settings = task.spec.workload
    for place, value in values.items():
        if _value(settings, place) is not None:
            settings = _set(settings, place, value)
    changed = copy.copy(task)
    changed.spec = task.spec.model_copy(update={"workload": settings})
    return changed


def _value(settings: Any, place: str) -> Any:
    for name in place.split("."):
        settings = getattr(settings, name, None)
    return settings


def _set(settings: Any, place: str, value: int) -> Any:
    name, _, rest = place.partition(".")
    return settings.model_copy(update={name: _set(getattr(settings, name), rest, value) if rest else value})
