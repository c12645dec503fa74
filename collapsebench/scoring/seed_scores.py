"""Scores of single cells: mFI and the numbers shown beside it, per metric and over all metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from collapsebench.scoring.cells import Cells
from collapsebench.scoring.fidelity import (
    ALL,
    Array,
    first_below,
    losses_by_generation,
    mean_fidelity_interval,
    non_increasing,
)

THRESHOLDS = (0.9, 0.75, 0.5)
"""The λ of the fidelity intervals that are shown beside mFI."""

_SHOWN = 0.005  # generations: what is lost below that rounds to nothing


def seed_scores(cells: Cells, thresholds: Sequence[float] = THRESHOLDS) -> pd.DataFrame:
    """Scores of every cell, for each metric and over all of them.

    An entry is a method with all its seeds, and **its mFI is that of the binding metric, the one with the smallest
    mean over seeds**. A seed's score is its mFI in that metric, so that the mean of the seeds' scores is the entry's
    mFI and pairs of seeds can be compared. The other order, the mean over seeds of each seed's smallest metric, would
    mistake noise for loss. With two independent metrics of equal mFI, it is too low by .56 standard deviations of a
    seed, however many seeds there are; and in a paired test with ten seeds, a method with three times the noise of
    another is found to be worse in 22 % of the cases in which they are equal. With the smallest mean, the error is .18
    at ten seeds and vanishes with more, and the same test errs in 3 %.

    Args:
        cells: fidelity curves.
        thresholds: the λ, each in (0, 1].

    Returns:
        One row per method, seed and metric, sorted, with

        - ``mfi``: of the non-increasing fit, in generations, and ``share``, mFI / G (NaN where G is 0),
        - ``start``: f(0) in [0, 1], ``start_uncapped``, and ``retention``, mFI / (G f(0)), NaN where f(0) is 0; above
          1 when a curve rises,
        - ``generation``: the one that costs this mFI most (−1: nothing is lost that two digits would show),
        - ``binds``: the metric itself; ``smallest``: the one with the smallest mFI in this seed,
        - ``diverged``: whether the cell did,
        - ``fi_0.9``, … : FI(λ) of the curve itself, in generations, ``fi_0.9_censored``: it is a lower bound.

        The rows with metric `ALL` repeat those of the entry's binding metric (the first by name in a tie), except for
        FI, which is the smallest over the metrics, and censored if all of them are.

    Raises:
        ValueError: a metric is named like `ALL`, or a threshold is not in (0, 1].
    """
    if ALL in cells.metrics:
        raise ValueError(f"a metric is named {ALL!r}, which is kept for the score over all metrics")
    if not all(0 < threshold <= 1 for threshold in thresholds):
        raise ValueError(f"thresholds {list(thresholds)} are not all in (0, 1]")
    fitted = non_increasing(cells.fidelity)
    losses = losses_by_generation(fitted)
    mfi = mean_fidelity_interval(fitted)
    start = cells.fidelity[..., 0]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        share = mfi / cells.horizon if cells.horizon else np.full_like(mfi, np.nan)
        retention = np.where(start > 0, share / start, np.nan)
    columns: dict[str, Array] = {
        "mfi": mfi,
        "share": share,
        "start": start,
        "start_uncapped": cells.start,
        "retention": retention,
    }
    columns["generation"] = np.where(losses.sum(axis=-1) >= _SHOWN, losses.argmax(axis=-1), -1)
    binding = _binding(cells, mfi)
    with_all = {name: _append(values, binding) for name, values in columns.items()}
    for threshold in thresholds:
        interval, censored = first_below(cells.fidelity, threshold)
        with_all[f"fi_{threshold:g}"] = np.column_stack([interval, interval.min(axis=1)])
        with_all[f"fi_{threshold:g}_censored"] = np.column_stack([censored, censored.all(axis=1)])
    return _long(cells, {**_words(cells, mfi, binding), **with_all})


def entry_mfi(cells: Cells) -> Array:
    """mFI of every cell in its method's binding metric: as `seed_scores` over all metrics, but faster."""
    mfi = mean_fidelity_interval(non_increasing(cells.fidelity))
    return np.asarray(mfi[np.arange(len(mfi)), _binding(cells, mfi)])


def _binding(cells: Cells, mfi: Array) -> npt.NDArray[np.int64]:
    """Index of the binding metric of a cell's method: the smallest mean over the method's seeds."""
    names, method = np.unique(np.array(cells.methods, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), mfi.shape[1]))
    np.add.at(sums, method, mfi)  # all metrics of a method have the same seeds: the smallest sum is the smallest mean
    return np.asarray(sums.argmin(axis=1)[method])


def _words(cells: Cells, mfi: Array, binding: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.object_]]:
    """The binding metric, and the one that is smallest in the seed, for every metric and over all."""
    names = np.array(cells.metrics, dtype=object)
    each = np.tile(names, (len(cells.seeds), 1))
    smallest = np.repeat(names[mfi.argmin(axis=1)], len(names) + 1)
    return {"binds": np.column_stack([each, names[binding]]), "smallest": smallest}


def _append(values: Array, binding: npt.NDArray[np.int64]) -> Array:
    """A column for all metrics: the value of the binding one."""
    return np.column_stack([values, values[np.arange(len(values)), binding]])


def _long(cells: Cells, columns: Mapping[str, npt.NDArray[Any]]) -> pd.DataFrame:
    rows = len(cells.metrics) + 1
    return pd.DataFrame(
        {
            "method": np.repeat(np.array(cells.methods, dtype=object), rows),
            "seed": np.repeat(np.array(cells.seeds, dtype=np.int64), rows),
            "metric": np.tile(np.array([*cells.metrics, ALL], dtype=object), len(cells.seeds)),
            "diverged": np.repeat(cells.diverged, rows),
            **{name: values.ravel() for name, values in columns.items()},
        }
    )
