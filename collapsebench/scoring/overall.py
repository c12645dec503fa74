"""Scores of methods over several tasks, from mFI / G of every task and seed, after rliable (Agarwal et al., 2021).

There is no geometric mean, because a single zero would decide it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from collapsebench.scoring.fidelity import Array
from collapsebench.scoring.statistics import Estimate

_RESAMPLES = 2000
_CONFIDENCE = 0.95
LEVELS = tuple(round(0.05 * step, 2) for step in range(21))
"""The τ of a performance profile."""


def missing_tasks(mine: Mapping[str, Array], tasks: Sequence[str]) -> list[str]:
    """The tasks without a result, in the order given; an overall score needs all."""
    return [task for task in tasks if task not in mine]


def mean_over_tasks(mine: Mapping[str, Array], tasks: Sequence[str]) -> Estimate | None:
    """Mean over tasks of the mean over seeds, with a bootstrap interval over seeds within tasks.

    Args:
        mine: mFI / G by task, one value per seed. tasks: all that count, each with the same weight.

    Returns:
        None if a task is missing. No interval where a task has a single seed.
    """
    if not tasks or missing_tasks(mine, tasks):
        return None
    estimate = float(np.mean([mine[task].mean() for task in tasks]))
    draws = np.mean([_resampled(mine[task], position).mean(axis=1) for position, task in enumerate(tasks)], axis=0)
    return _with_interval(estimate, draws, [mine[task] for task in tasks])


def probability_of_improvement(
    mine: Mapping[str, Array], baseline: Mapping[str, Array], tasks: Sequence[str]
) -> Estimate | None:
    """Probability that a run of the method beats one of the baseline, mean over tasks; ties count half.

    Args:
        mine, baseline: mFI / G by task, one value per seed. tasks: all that count, each with the same weight.

    Returns:
        None if either lacks a task. No interval where a task has a single seed.
    """
    if not tasks or missing_tasks(mine, tasks) or missing_tasks(baseline, tasks):
        return None
    estimate = float(np.mean([_better(mine[t][None], baseline[t][None])[0] for t in tasks]))
    draws = [
        _better(_resampled(mine[task], 2 * position), _resampled(baseline[task], 2 * position + 1))
        for position, task in enumerate(tasks)
    ]
    return _with_interval(estimate, np.mean(draws, axis=0), [side[task] for task in tasks for side in (mine, baseline)])


def performance_profile(
    mine: Mapping[str, Array], tasks: Sequence[str], levels: Sequence[float] = LEVELS
) -> Array | None:
    """Share of runs with mFI / G ≥ τ for every τ, mean over tasks; None if a task is missing."""
    if not tasks or missing_tasks(mine, tasks):
        return None
    limits = np.asarray(levels, dtype=np.float64)
    return np.asarray(np.mean([(mine[task][:, None] >= limits).mean(axis=0) for task in tasks], axis=0))


def _resampled(values: Array, stream: int) -> Array:
    """Resamples × (n − 1) draws with replacement of a task's seeds.

    One draw fewer than there are seeds: the variance of such a mean is that of the mean itself, where n draws give
    (n − 1) / n of it, which over three seeds is a third too little (McCarthy and Snowden, 1985). The draws depend on
    the position of the task only, so that the same input gives the same interval.
    """
    n = len(values)
    draw = np.random.default_rng([stream, n])
    return np.asarray(values[draw.integers(n, size=(_RESAMPLES, max(1, n - 1)))])


def _better(mine: Array, theirs: Array) -> Array:
    """Share of pairs in which mine is larger, by resample (first axis)."""
    above = (mine[:, :, None] > theirs[:, None, :]).mean(axis=(1, 2))
    equal = (mine[:, :, None] == theirs[:, None, :]).mean(axis=(1, 2))
    return np.asarray(above + equal / 2)


def _with_interval(estimate: float, draws: Array, values: Sequence[Array]) -> Estimate:
    n = sum(len(v) for v in values)
    if min(len(v) for v in values) < 2:
        return Estimate(estimate, None, None, n)
    low, high = np.quantile(draws, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Estimate(estimate, float(low), float(high), n)
