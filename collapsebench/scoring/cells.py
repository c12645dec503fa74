"""From a frame of raw metrics to the fidelity curves of its cells, as one array.

The frame is long, one row per measured metric, with the columns

- ``method``, ``seed``: the cell,
- ``generation``: 0, 1, 2, …,
- ``metric``, ``value``: a name and its raw value, NaN or ±inf where the measurement failed,
- ``status``: ``"diverged"`` on every row of a generation that diverged; anything else means the generation is fine.

A diverged generation needs at least one row; its ``metric`` and ``value`` do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from collapsebench.scoring.fidelity import DIVERGED, Array, Scale, fidelity, unclipped_fidelity

_RAW = ["method", "seed", "generation", "metric", "value", "status"]
_NAMED_IN_ERRORS = 5
_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """Fidelity curves of cells, sorted by method and seed.

    Attributes:
        methods, seeds: of every cell. metrics: the scored ones, sorted.
        fidelity: within [0, 1], cells × metrics × generations 0..G. 0 from the first diverged generation of a cell on;
            a value of NaN or ±inf is 0 in its own generation.
        start: fidelity of generation 0, not clipped to [0, 1], cells × metrics.
        diverged: whether a cell diverged in generation G or before, one per cell.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    fidelity: Array
    start: Array
    diverged: npt.NDArray[np.bool_]

    def named(self, method: str) -> Cells:
        """The same cells, all under one name of a method."""
        return replace(self, methods=(method,) * len(self.seeds))

    @property
    def horizon(self) -> int:
        """G, the last generation."""
        return self.fidelity.shape[-1] - 1

    def frame(self) -> pd.DataFrame:
        """The curves as a long frame: method, seed, generation, metric, fidelity; sorted by these."""
        cells, metrics, generations = self.fidelity.shape
        return pd.DataFrame(
            {
                "method": np.repeat(np.array(self.methods, dtype=object), generations * metrics),
                "seed": np.repeat(np.array(self.seeds, dtype=np.int64), generations * metrics),
                "generation": np.tile(np.repeat(np.arange(generations), metrics), cells),
                "metric": np.tile(np.array(self.metrics, dtype=object), cells * generations),
                "fidelity": self.fidelity.transpose(0, 2, 1).ravel(),
            }
        )


def incomplete_cells(raw: pd.DataFrame, horizon: int) -> list[tuple[str, int, int]]:
    """Cells that stop before the horizon without having diverged; they cannot be scored yet.

    Args:
        raw: raw metrics (see the module).
        horizon: G, the generation every cell should reach.

    Returns:
        (method, seed, last generation), sorted.

    Raises:
        ValueError: ``raw`` lacks columns or has impossible generations.
    """
    _check_raw(raw)
    return [] if raw.empty else _incomplete(_Rows.of(raw), horizon)


def fidelity_cells(raw: pd.DataFrame, scales: Mapping[str, Scale], horizon: int | None = None) -> Cells:
    """Fidelity of every scored metric in every generation 0..G of every cell.

    Args:
        raw: raw metrics (see the module); metrics without a scale are ignored.
        scales: scale of every scored metric.
        horizon: G; later generations are left out. None: the largest generation of any cell in ``raw``. Pass it when
            scoring only some of the cells; otherwise a cell that diverged would end early and its mean be too good.

    Raises:
        ValueError: a scored metric is missing from a generation, a cell stops before G without having diverged
            (see `incomplete_cells`), a row is duplicated, or ``raw`` lacks columns.
    """
    _check_raw(raw)
    metrics = tuple(sorted(scales))
    if raw.empty:
        return Cells((), (), metrics, np.zeros((0, len(metrics), 1)), np.zeros((0, len(metrics))), np.zeros(0, bool))
    horizon = int(raw["generation"].max()) if horizon is None else horizon
    rows = _Rows.of(raw)
    short = _incomplete(rows, horizon)
    if short:
        told = _told(f"{method} seed {seed} (last generation {last})" for method, seed, last in short)
        raise ValueError(f"cells stop before generation {horizon} without having diverged: {told}. Finish or drop them")
    values = _values(raw, rows, metrics, horizon)
    alive = np.arange(horizon + 1) < rows.diverged_from[:, None]
    missing = np.argwhere(np.isneginf(values) & alive[:, None])
    if len(missing):
        told = _told(_place(rows, metrics, place) for place in missing[np.lexsort(missing[:, [1, 2, 0]].T)])
        raise ValueError(f"scored metrics are missing from generations that did not diverge: {told}")
    return cells_of_values(rows.names, scales, values, rows.diverged_from)


def cells_of_values(
    names: Sequence[tuple[str, int]], scales: Mapping[str, Scale], values: Array, diverged_from: Array
) -> Cells:
    """Cells from raw values that are already in order.

    Args:
        names: method and seed of every cell, sorted. scales: of the scored metrics.
        values: raw values, cells × metrics (sorted by name) × generations 0..G; what is not finite counts as broken.
        diverged_from: first diverged generation of every cell; infinite if there is none.
    """
    metrics = tuple(sorted(scales))
    alive = np.arange(values.shape[-1]) < diverged_from[:, None]
    curves, start = np.zeros(values.shape), np.zeros(values.shape[:2])
    for m, name in enumerate(metrics):
        generations = np.arange(values.shape[-1])
        curves[:, m] = np.where(alive, fidelity(values[:, m], scales[name], generations), 0.0)
        start[:, m] = np.where(alive[:, 0], unclipped_fidelity(values[:, m, 0], scales[name]), 0.0)
    methods, seeds = zip(*names, strict=True)
    return Cells(methods, seeds, metrics, curves, start, diverged_from < values.shape[-1])


def joined(cells: Sequence[Cells]) -> Cells:
    """Cells of several methods of one task as one."""
    assert len({(part.metrics, part.horizon) for part in cells}) == 1
    return Cells(
        methods=tuple(method for part in cells for method in part.methods),
        seeds=tuple(seed for part in cells for seed in part.seeds),
        metrics=cells[0].metrics,
        fidelity=np.concatenate([part.fidelity for part in cells]),
        start=np.concatenate([part.start for part in cells]),
        diverged=np.concatenate([part.diverged for part in cells]),
    )


def _incomplete(rows: _Rows, horizon: int) -> list[tuple[str, int, int]]:
    last = np.full(len(rows.names), -1)
    np.maximum.at(last, rows.cell, rows.generation)
    short = np.flatnonzero((last < horizon) & (rows.diverged_from > last))
    return [(*rows.names[cell], int(last[cell])) for cell in short]


@dataclass(frozen=True)
class _Rows:
    """Which cell every row of raw metrics belongs to.

    Attributes:
        names: method and seed of every cell, sorted. cell, generation: of every row.
        diverged_from: first diverged generation of every cell; infinite if there is none.
    """

    names: list[tuple[str, int]]
    cell: _Integers
    generation: _Integers
    diverged_from: Array

    @staticmethod
    def of(raw: pd.DataFrame) -> _Rows:
        method, methods = pd.factorize(raw["method"], sort=True)
        seeds, seed = np.unique(raw["seed"].to_numpy(dtype=np.int64), return_inverse=True)
        codes, cell = np.unique(method * len(seeds) + seed, return_inverse=True)
        names = [(str(methods[code // len(seeds)]), int(seeds[code % len(seeds)])) for code in codes]
        generation = raw["generation"].to_numpy(dtype=np.int64)
        diverged = (raw["status"] == DIVERGED).to_numpy()
        first = np.full(len(names), np.inf)
        np.minimum.at(first, cell[diverged], generation[diverged])
        return _Rows(names, cell, generation, first)


def _values(raw: pd.DataFrame, rows: _Rows, metrics: tuple[str, ...], horizon: int) -> Array:
    """Raw values, cells × metrics × generations: −inf where there is no row, NaN where the value is not finite."""
    code, names = pd.factorize(raw["metric"])
    known = np.array([metrics.index(name) if name in metrics else -1 for name in names] + [-1])
    metric = known[code]  # a missing name has the code −1, which is the last of `known`
    scored = (metric >= 0) & (rows.generation <= horizon)
    shape = (len(rows.names), len(metrics), horizon + 1)
    place = np.ravel_multi_index((rows.cell[scored], metric[scored], rows.generation[scored]), shape)
    twice = np.flatnonzero(np.bincount(place) > 1)
    if len(twice):
        told = _told(_place(rows, metrics, np.array(np.unravel_index(flat, shape))) for flat in twice)
        raise ValueError(f"raw metrics have more than one row for {told}")
    given = raw["value"].to_numpy(dtype=np.float64, na_value=np.nan)[scored]
    values = np.full(shape, -np.inf)
    values.flat[place] = np.where(np.isfinite(given), given, np.nan)
    return values


def _place(rows: _Rows, metrics: tuple[str, ...], place: npt.NDArray[np.int64]) -> str:
    cell, metric, generation = (int(index) for index in place)
    method, seed = rows.names[cell]
    return f"{method} seed {seed} generation {generation}: {metrics[metric]}"


def _check_raw(raw: pd.DataFrame) -> None:
    lacking = [column for column in _RAW if column not in raw.columns]
    if lacking:
        raise ValueError(f"raw metrics lack the columns {lacking}; needed are {_RAW}")
    generations = raw["generation"].to_numpy(dtype=np.float64)
    if not ((generations >= 0) & (generations % 1 == 0)).all():
        raise ValueError("raw metrics: every generation must be one of 0, 1, 2, …")


def _told(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED_IN_ERRORS} more" if len(listed) > _NAMED_IN_ERRORS else ""
    return "; ".join(listed[:_NAMED_IN_ERRORS]) + more
