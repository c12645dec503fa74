"""Data policies: how the training set of a generation is composed from real data and earlier samples.

Pure functions on datasets with provenance. Replacement, accumulation and fixed shares of old or new real data lead to
very different collapse (arXiv 2404.01413, 2410.16713, 2307.01850), so the policy belongs to the task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Generator, Tensor

from collapsebench.errors import DataError

if TYPE_CHECKING:
    from collapsebench.task_spec import Policy

REAL = -1


@dataclass(frozen=True)
class TrainingSet:
    """Items with provenance.

    Attributes:
        items: (n, …) one row per item: token windows, images, points.
        made_by: (n,) int16, the generation whose model made the item; `REAL` for real data.
        weights: (n,) float32 ≥ 0, multiplied with the items' losses; None: all are 1.
    """

    items: Tensor
    made_by: Tensor
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        assert len(self.items) == len(self.made_by), "every item has a provenance"
        assert self.weights is None or len(self.weights) == len(self.items), "every item has a weight, or none has"

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Tensor | slice) -> TrainingSet:
        weights = None if self.weights is None else self.weights[index]
        return TrainingSet(self.items[index], self.made_by[index], weights)

    @staticmethod
    def of(items: Tensor, made_by: int) -> TrainingSet:
        """All items from one source: a generation, or `REAL`."""
        return TrainingSet(items, torch.full((len(items),), made_by, dtype=torch.int16))


def concatenate(parts: list[TrainingSet]) -> TrainingSet:
    """Join training sets in order, before items get weights."""
    assert all(part.weights is None for part in parts)
    return TrainingSet(torch.cat([p.items for p in parts]), torch.cat([p.made_by for p in parts]))


def choose(data: TrainingSet, n: int, generator: Generator) -> TrainingSet:
    """Draw n items without replacement; if there are fewer than n, repeat the whole set as often as needed."""
    if n == 0:
        return data[:0]
    rounds = [torch.randperm(len(data), generator=generator) for _ in range(-(-n // len(data)))]
    return data[torch.cat(rounds)[:n]]


def known_real(real: TrainingSet, n: int, generator: Generator) -> TrainingSet:
    """Return the n real items that a chain knows, drawn without replacement.

    Raises:
        DataError: there are fewer.
    """
    if len(real) < n:
        raise DataError(
            f"the training split has {len(real)} items, fewer than the {n} that a chain knows; give more data "
            "or a smaller policy.size."
        )
    return choose(real, n, generator)


def fraction(real: TrainingSet, index: int, parts: int) -> TrainingSet:
    """Part `index` of `parts` contiguous, disjoint, nearly equal parts of the real data."""
    bounds = [len(real) * i // parts for i in (index, index + 1)]
    return real[slice(*bounds)]


class Fractions(NamedTuple):
    """The real data of ``regenerate-fresh`` that is looked at again: how well does a generation know it?

    Attributes:
        generation: the one that knows them.
        oldest: what generation 0 was trained on. newest: what the generation itself was the first to be trained on;
            the same in generation 0.
    """

    generation: int
    oldest: TrainingSet
    newest: TrainingSet


def known_fractions(real: TrainingSet, generation: int, horizon: int) -> Fractions:
    """The oldest and the newest fraction of a generation under ``regenerate-fresh``."""
    return Fractions(generation, *(fraction(real, index, horizon + 1) for index in (0, generation)))


def first_training_set(policy: Policy, real: TrainingSet, horizon: int) -> TrainingSet:
    """Return the training set of generation 0: all real data except what is reserved as new for later generations.

    Under ``regenerate-fresh`` it is the oldest fraction; under ``fresh-mix`` it is everything but the new items of
    generations 1 to `horizon`.

    Raises:
        DataError: there are too few real items: less than one per generation under ``regenerate-fresh``, or less than
            `policy.size` besides the new ones under ``fresh-mix``.
    """
    needed = policy.size + policy.reserved(horizon)
    if policy.name == "fresh-mix" and len(real) < needed:
        raise DataError(
            f"policy fresh-mix needs {policy.size} real items for generation 0 and {policy.real_items} new ones for "
            f"each of generations 1 to {horizon}, {needed} in all, but the training split has only {len(real)}; give "
            "more data, or a smaller size, real_share or horizon."
        )
    if policy.name != "regenerate-fresh":
        return real[: len(real) - policy.reserved(horizon)]
    if len(real) <= horizon:
        raise DataError(
            f"policy regenerate-fresh divides the training split into {horizon + 1} fractions, but it has only "
            f"{len(real)} items; give more text or a smaller horizon."
        )
    return fraction(real, 0, horizon + 1)


def _new_items(policy: Policy, real: TrainingSet, generation: int, horizon: int) -> TrainingSet:
    """The new items of generation g ≥ 1 under ``fresh-mix``, which no earlier generation was given."""
    start = len(real) - policy.reserved(horizon) + (generation - 1) * policy.real_items
    return real[start : start + policy.real_items]


def control_training_set(
    policy: Policy, generation: int, horizon: int, real: TrainingSet, generator: Generator
) -> TrainingSet:
    """Return the control's training set of generation g ≥ 1: as many items as under the policy, all of them real."""
    if policy.name == "accumulate":
        return choose(real, len(real) + generation * policy.size, generator)
    if policy.name == "regenerate-fresh":
        return concatenate([fraction(real, i, horizon + 1) for i in range(generation + 1)])
    if policy.name == "fresh-mix":
        new, known = _new_items(policy, real, generation, horizon), first_training_set(policy, real, horizon)
        return concatenate([new, choose(known, policy.size - len(new), generator)])
    return choose(real, policy.size, generator)


def generations_read(policy: Policy, generation: int) -> range:
    """The earlier generations whose samples `next_training_set` uses."""
    if policy.name in ("accumulate", "accumulate-subsample"):
        return range(generation)
    return range(max(0, generation - 1), generation)


def next_training_set(
    policy: Policy,
    generation: int,
    horizon: int,
    real: TrainingSet,
    samples_of: Callable[[int], TrainingSet],
    generator: Generator,
) -> TrainingSet:
    """Compose the training set of generation g ≥ 1.

    Args:
        policy: ``replace``: the last generation's samples. ``accumulate``: all real data and all samples so far.
            ``accumulate-subsample``: `policy.size` of those. ``mix``: a fixed share of real items, the rest from
            the last generation. ``fresh-mix``: the same, with real items that are new in every generation (the fresh
            data loop of arXiv 2307.01850; 2602.16601). ``regenerate-fresh``: everything the last generation was
            trained on, rewritten by it, and a new fraction of real data (the protocol of ForTIFAI, arXiv 2509.08972).
        generation: g. horizon: G; it sets the size of the fractions of ``regenerate-fresh``, and what ``fresh-mix``
            withholds from generation 0.
        real: the real training data.
        samples_of: the samples of an earlier generation.
        generator: for policies that draw items.
    """
    assert generation >= 1
    last = generation - 1
    if policy.name == "replace":
        return samples_of(last)
    if policy.name == "accumulate":
        return concatenate([real, *(samples_of(g) for g in range(generation))])
    if policy.name == "accumulate-subsample":
        pool = concatenate([real, *(samples_of(g) for g in range(generation))])
        return choose(pool, policy.size, generator)
    if policy.name in ("mix", "fresh-mix"):
        fresh = policy.name == "fresh-mix"
        kept = _new_items(policy, real, generation, horizon) if fresh else choose(real, policy.real_items, generator)
        return concatenate([kept, choose(samples_of(last), policy.size - len(kept), generator)])
    assert policy.name == "regenerate-fresh"
    return concatenate([samples_of(last), fraction(real, generation, horizon + 1)])


def prompts(policy: Policy, data: TrainingSet, generator: Generator) -> TrainingSet:
    """Return the items of a generation's own training set that its model continues, one per sample.

    ``regenerate-fresh`` rewrites every item once, in order; the other policies draw `policy.size` items.
    """
    if policy.name == "regenerate-fresh":
        return data
    return choose(data, policy.size, generator)
