"""Counts the work of a generation: updates, and items trained on, drawn and evaluated.

This is the only place that counts them. The loop, the progress bar, the estimate and the validation of submissions use
these numbers. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collapsebench.task_spec import Policy, TaskSpec
    from collapsebench.workloads.settings import WorkloadSettings


@dataclass(frozen=True)
class Sizes:
    """Items of the real splits: windows of text, images, points.

    Attributes:
        train: number of training items; None: unknown without the data. selection, test: numbers of evaluation items.
        channels: channels of the images.
        notes: assumptions made.
    """

    train: int | None
    selection: int
    test: int
    channels: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Work:
    """The work of one generation, in items: windows of text, images, points. None: depends on the data.

    Attributes:
        items: size of its training set. updates: optimiser steps.
        trained: items trained on, counted as often as they are seen. drawn: samples drawn.
        evaluated: evaluation items that count as progress.
    """

    items: int | None
    updates: int | None
    trained: int | None
    drawn: int | None
    evaluated: int


def work_of(spec: TaskSpec, generation: int, real: int | None = None) -> Work:
    """The work of a generation of a task, for every method and for the control.

    Args:
        real: number of real training items; None: the number in the task file, if any.
    """
    real = known_items(spec, spec.kind.real_items(spec) if real is None else real)
    items = training_items(spec.policy, generation, spec.horizon, real)
    updates = spec.workload.updates(spec.policy, generation, items)
    return Work(
        items=items,
        updates=updates,
        trained=None if updates is None else updates * spec.workload.training.batch_size,
        drawn=items if spec.policy.name == "regenerate-fresh" else spec.policy.size,
        evaluated=spec.kind.evaluated(spec),
    )


def known_items(spec: TaskSpec, real: int | None) -> int | None:
    """Number of real items that a chain can use: all `real` ones, or those drawn for it if generations start anew.

    Generation 0 is trained on `policy.size` of them, so that its budget equals that of every other generation. The rest
    is kept for later generations, for policies that add new real items.
    """
    return spec.policy.size + spec.policy.reserved(spec.horizon) if spec.starts_anew else real


def fraction_items(spec: TaskSpec, real: int | None = None) -> int | None:
    """Size of the smallest fraction of the real data under ``regenerate-fresh``; None: depends on the data.

    Args:
        real: number of real training items.
    """
    known = known_items(spec, real)
    return None if known is None else known // (spec.horizon + 1)


def updates_of(settings: WorkloadSettings, policy: Policy, generation: int, items: int) -> int:
    """Optimiser steps of a generation on a training set of this many items."""
    updates = settings.updates(policy, generation, items)
    assert updates is not None
    return updates


def training_items(policy: Policy, generation: int, horizon: int, real: int | None) -> int | None:
    """Size of a generation's training set, as `collapsebench.policies` composes it from `real` items."""
    if policy.name == "regenerate-fresh":
        return None if real is None else real * (generation + 1) // (horizon + 1)
    if generation == 0:
        return None if real is None else real - policy.reserved(horizon)
    if policy.name == "accumulate":
        return None if real is None else real + generation * policy.size
    return policy.size


def real_share(spec: TaskSpec, generation: int, real: int | None = None) -> float | None:
    """Share of real items in a method's training set of a generation; None: depends on chance or the data.

    Args:
        real: number of real training items; None: the number in the task file, if any.
    """
    policy = spec.policy
    if generation == 0:
        return 1.0
    if policy.name == "replace":
        return 0.0
    if policy.name in ("mix", "fresh-mix"):
        return policy.real_items / policy.size
    before, items = (work_of(spec, g, real).items for g in (generation - 1, generation))
    if policy.name == "accumulate-subsample" or before is None or items is None:
        return None
    synthetic = before if policy.name == "regenerate-fresh" else generation * policy.size
    return (items - synthetic) / items


def planned_elements(spec: TaskSpec, generation: int, real: int | None = None) -> int:
    """Total progress of a generation, in the unit of its kind; a lower bound if `real` is unknown."""
    work = least_work(spec, generation, real)
    assert work.trained is not None
    assert work.drawn is not None
    passes = spec.kind.passes(spec.workload)
    return work.trained * passes.trained + work.drawn * passes.drawn + work.evaluated * passes.evaluated


def least_work(spec: TaskSpec, generation: int, real: int | None = None) -> Work:
    """Like `work_of`, assuming the least real data that the task can have if its size is unknown."""
    found = work_of(spec, generation, real)
    if found.trained is not None and found.drawn is not None:
        return found
    least = spec.horizon + 1 if spec.policy.name == "regenerate-fresh" else spec.policy.reserved(spec.horizon)
    return work_of(spec, generation, least)
