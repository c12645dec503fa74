"""Estimates the cost of a task before it is run: elements, FLOPs, memory, disk, hours. No data, weights or network.

``authoring/estimates`` counts the cost of a unit of work by running the workload's own code on tensors without
content. `collapsebench.workloads.work` gives the amount of work. ``docs/estimate.md`` compares estimates with real
runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from collapsebench.authoring.estimates.costs import Costs, Memory
from collapsebench.authoring.estimates.counting import counted_costs
from collapsebench.authoring.estimates.sizes import known_sizes
from collapsebench.authoring.rates import Rate, duration_text, short_text
from collapsebench.errors import UserError
from collapsebench.task import Task
from collapsebench.workloads.work import Sizes, Work, least_work

_GAP = "  "


@dataclass(frozen=True)
class Spent:
    """The cost of one generation, or of several together.

    Attributes:
        trained: elements trained on, counted as often as they are seen. sampled: elements generated.
        training, sampling, evaluation, gallery: FLOPs of the phases; the gallery is the samples kept for display.
        disk: bytes of weights and samples.
    """

    trained: int
    sampled: int
    training: int
    sampling: int
    evaluation: int
    gallery: int
    disk: int

    @property
    def flops(self) -> int:
        """FLOPs of all phases."""
        return self.training + self.sampling + self.evaluation + self.gallery


@dataclass(frozen=True)
class Estimate:
    """The cost of one cell: one task, one method, one seed.

    Attributes:
        task: id of the task. unit: name of the elements.
        parameters: number of learned parameters of the model.
        generations: cost of each generation, from 0.
        memory: bytes on the model's device.
        evaluation_parts: FLOPs of the last generation's evaluation, by part.
        preparation: FLOPs spent once per machine and task, outside the generations.
        notes: assumptions, and which numbers are bounds.
    """

    task: str
    unit: str
    parameters: int
    generations: tuple[Spent, ...]
    memory: Memory
    evaluation_parts: dict[str, int]
    preparation: int
    notes: tuple[str, ...]

    @property
    def total(self) -> Spent:
        """The cost of all generations."""
        return _sum(self.generations)

    def hours(self, tflops: float | Rate) -> float:
        """Hours at a sustained rate.

        Args:
            tflops: sustained rate of the device in such work, in 10¹² FLOP/s, for every phase or by phase.

        Raises:
            UserError: the rate is not above 0.
        """
        return _hours(self.total, _rate(tflops))

    def lines(self, tflops: float | Rate | None = None) -> list[str]:
        """The estimate as readable text.

        Args:
            tflops: sustained rate for the hours; None: 1 TFLOP/s, given as an example.
        """
        rate = _rate(1.0 if tflops is None else tflops)
        header = ["generation", f"{self.unit} trained", f"{self.unit} sampled"]
        header += [f"{phase} FLOP" for phase in ("training", "sampling", "evaluation", "gallery", "all")]
        rows = [[*header, "time", "disk"]]
        rows += [_row(label, spent, rate) for label, spent in self._groups()]
        rows.append(_row("total", self.total, rate))
        m = self.memory
        if tflops is None:
            told = "1 TFLOP/s; `collapsebench doctor --measure` measures yours, --device-tflops X gives it"
        else:
            told = f"{tflops:g} TFLOP/s" if isinstance(tflops, float | int) else f"{rate} (doctor --measure)"
        return [
            f"{self.task}: {self.parameters:,} parameters, one method and one seed, "
            f"generations 0 to {len(self.generations) - 1}",
            *_aligned(rows),
            f"time    {duration_text(self.hours(rate))} at a sustained {told}",
            f"memory  {_bytes(m.peak)} at most: training {_bytes(m.training)} (weights {_bytes(m.weights)}, gradients "
            f"{_bytes(m.gradients)}, optimiser {_bytes(m.optimiser)}, activations {_bytes(m.activations)}); besides "
            f"the weights, sampling {_bytes(m.sampling)} and evaluation {_bytes(m.evaluation)}",
            f"disk    {_bytes(self.total.disk)}, weights and samples of every generation",
            *([f"once    {_counted(self.preparation)}FLOP per machine, then cached"] if self.preparation else []),
            *(f"note    {note}" for note in self.notes),
        ]

    def as_json(self, tflops: float | Rate | None = None) -> dict[str, Any]:
        """The estimate as JSON.

        Args:
            tflops: sustained rate for the hours; None: no hours.
        """
        found = asdict(self)
        for spent, shown in zip(self.generations, found["generations"], strict=True):
            shown["flops"] = spent.flops
        found["generations"] = list(found["generations"])
        found["notes"] = list(self.notes)
        found["total"] = asdict(self.total) | {"flops": self.total.flops}
        found["memory"] |= {"training": self.memory.training, "peak": self.memory.peak}
        if tflops is not None:
            shown = tflops.model_dump() if isinstance(tflops, Rate) else tflops
            found |= {"tflops": shown, "hours": self.hours(tflops)}
        return found

    def _groups(self) -> Iterable[tuple[str, Spent]]:
        """Group consecutive generations with the same cost under one label."""
        for spent, group in itertools.groupby(enumerate(self.generations), key=lambda pair: pair[1]):
            numbers = [g for g, _ in group]
            several = len(numbers) > 1
            yield (f"{numbers[0]} to {numbers[-1]}, each" if several else str(numbers[0])), spent


def estimate(task: Task, generations: int | None = None, sizes: Sizes | None = None) -> Estimate:
    """Estimate the cost of one cell of a task.

    Args:
        task: a loaded task, with its ``--budget`` and resources.
        generations: the last generation; None: the task's horizon.
        sizes: sizes of the data, if more is known than `collapsebench.authoring.estimates.sizes.known_sizes` finds.

    Raises:
        UserError: the task has fewer generations.
    """
    spec = task.spec
    last = spec.horizon if generations is None else generations
    if not 0 <= last <= spec.horizon:
        raise UserError(f"--generations {last} is not allowed; {task.id} has generations 0 to {spec.horizon}.")
    known = known_sizes(task) if sizes is None else sizes
    work = [least_work(spec, g, known.train) for g in range(last + 1)]
    costs = counted_costs(task, known, [done.drawn or 0 for done in work])
    elements = spec.kind.item_elements(spec.workload, known.channels)
    final = costs[-1]
    return Estimate(
        task=task.id,
        unit=spec.kind.element,
        parameters=final.parameters,
        generations=tuple(_spent(*found, elements) for found in zip(work, costs, strict=True)),
        memory=final.memory,
        evaluation_parts=final.evaluation,
        preparation=final.preparation,
        notes=final.notes,
    )


def _spent(work: Work, costs: Costs, elements: int) -> Spent:
    """The cost of a generation whose items have `elements` elements."""
    assert work.updates is not None
    assert work.trained is not None
    assert work.drawn is not None
    return Spent(
        trained=work.trained * elements,
        sampled=work.drawn * elements,
        training=work.updates * costs.update,
        sampling=round(work.drawn * costs.sample),
        evaluation=sum(costs.evaluation.values()),
        gallery=costs.gallery,
        disk=costs.model_bytes + work.drawn * costs.item_bytes,
    )


def _sum(generations: Iterable[Spent]) -> Spent:
    found = [asdict(spent) for spent in generations]
    return Spent(**{name: sum(spent[name] for spent in found) for name in found[0]})


def _rate(given: float | Rate) -> Rate:
    if isinstance(given, Rate):
        return given
    if not given > 0:
        raise UserError(f"--device-tflops {given:g} is not allowed; give what the device sustains, in TFLOP/s.")
    return Rate.given(given)


def _hours(spent: Spent, rate: Rate) -> float:
    return rate.hours(spent.training, spent.sampling + spent.gallery, spent.evaluation)


def _row(label: str, spent: Spent, rate: Rate) -> list[str]:
    phases = (spent.training, spent.sampling, spent.evaluation, spent.gallery, spent.flops)
    return [
        label,
        _counted(spent.trained),
        _counted(spent.sampled),
        *(_counted(flops) for flops in phases),
        duration_text(_hours(spent, rate)),
        _bytes(spent.disk),
    ]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        _GAP.join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _scaled(value: float, units: Iterable[str]) -> str:
    """Format with three digits, in the unit that leaves at most three digits before the decimal point."""
    shown = ""
    for power, unit in enumerate(units):
        shown = f"{short_text(value / 1000**power)} {unit}"
        if value < 999.5 * 1000**power:
            break
    return shown


def _counted(value: int) -> str:
    return _scaled(value, (" ", "k", "M", "G", "T", "P", "E", "Z"))


def _bytes(value: int) -> str:
    return _scaled(value, ("B", "kB", "MB", "GB", "TB", "PB"))
