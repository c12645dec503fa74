"""Raw metrics to fidelity curves, and curves to fidelity intervals.

A fidelity is 1 at the reference (what the cross-entropy model reaches at generation 0) and 0 at the floor (what a model
that knows nothing reaches). The fidelity interval FI(λ) is the first generation at which a curve falls below λ.

The frame of raw metrics is long, one row per measured metric, with the columns

- ``method``, ``seed``: the cell,
- ``generation``: 0, 1, 2, …,
- ``metric``, ``value``: a name and its raw value, NaN or ±inf where the measurement broke,
- ``status``: ``"diverged"`` on every row of a generation that diverged; anything else means the generation is fine.

A diverged generation needs a row to be seen; its ``metric`` and ``value`` do not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

ALL = "all"
"""Name, in the column ``metric``, of the score over all scored metrics of a task."""

DIVERGED = "diverged"
"""Content of the column ``status`` of a generation that diverged."""

_CELL = ["method", "seed"]
_KEYS = [*_CELL, "generation", "metric"]
_RAW = [*_KEYS, "value", "status"]
_CURVES = [*_KEYS, "fidelity"]
_SCORES = [*_CELL, "metric", "threshold", "fi", "censored", "auf"]
_NAMED_IN_ERRORS = 5


@dataclass(frozen=True)
class Scale:
    """How a raw metric becomes a fidelity. The order of reference and floor says which direction is better.

    Attributes:
        reference: raw value with fidelity 1, in the metric's unit.
        floor: raw value with fidelity 0, in the metric's unit.
        kind: ``log``: equal ratios of the raw metric are equal steps of fidelity; ``linear``: equal differences are.

    Raises:
        ValueError: a number is not finite, the two are equal, or one is not positive on a log scale.
    """

    reference: float
    floor: float
    kind: Literal["log", "linear"]

    def __post_init__(self) -> None:
        if self.kind not in ("log", "linear"):
            raise ValueError(f"scale: kind is {self.kind!r}; allowed are 'log' and 'linear'")
        if self.reference is None or self.floor is None:
            raise ValueError("scale: reference or floor is not measured; calibrate the task first")
        if not np.isfinite([self.reference, self.floor]).all():
            raise ValueError(f"scale: reference {self.reference} and floor {self.floor} must be finite numbers")
        if self.kind == "log" and min(self.reference, self.floor) <= 0:
            raise ValueError(f"log scale: reference {self.reference} and floor {self.floor} must be positive")
        if _position(self.reference, self.kind) == _position(self.floor, self.kind):
            raise ValueError(f"scale: reference and floor are both {self.floor}, fidelity would be undefined")


@dataclass(frozen=True)
class FidelityInterval:
    """First generation at which a fidelity curve falls below a threshold.

    Attributes:
        generations: in generations, interpolated; G, the last generation, when the curve never falls below.
        censored: True when the curve never falls below: the true interval is at least ``generations``.
    """

    generations: float
    censored: bool


def fidelity(value: npt.ArrayLike, scale: Scale) -> npt.NDArray[np.float64]:
    """Map raw values to fidelities in [0, 1].

    ``log``: log(floor / m) / log(floor / reference). ``linear``: (m − floor) / (reference − floor). Both are clipped,
    and both work whether lower or higher is better.

    Args:
        value: raw values m of any shape, in the unit of the scale.
        scale: reference and floor.

    Returns:
        Array of the shape of ``value`` (0-d for a number). NaN and ±inf give 0, as does m ≤ 0 on a log scale.
    """
    return np.asarray(np.clip(unclipped_fidelity(value, scale), 0.0, 1.0))


def unclipped_fidelity(value: npt.ArrayLike, scale: Scale) -> npt.NDArray[np.float64]:
    """As `fidelity`, but above 1 for what is better than the reference and below 0 for what is worse than the floor.

    NaN, ±inf and, on a log scale, m ≤ 0 give 0. Used to look at the control; scores use the clipped one.
    """
    raw = np.asarray(value, dtype=np.float64)
    valid = np.isfinite(raw) & (raw > 0 if scale.kind == "log" else True)
    safe = np.where(valid, raw, scale.floor)
    floor = _position(scale.floor, scale.kind)
    with np.errstate(over="ignore"):  # a huge raw value becomes ±inf here, and a clip makes it 0 or 1
        share = (_position(safe, scale.kind) - floor) / (_position(scale.reference, scale.kind) - floor)
    return np.asarray(np.where(valid, share, 0.0))


def fidelity_interval(curve: Sequence[float] | npt.NDArray[np.float64], threshold: float) -> FidelityInterval:
    """First generation at which a curve is strictly below the threshold, interpolated linearly between generations.

    Args:
        curve: fidelities of generations 0..G.
        threshold: λ, in (0, 1].

    Returns:
        0 and not censored for a curve that starts below; G and censored for one that never is below. Touching the
        threshold is not below; a curve that touches at g and is below at g + 1 has FI = g.

    Raises:
        ValueError: the curve is empty, is not one-dimensional or holds NaN, or the threshold is not in (0, 1].
    """
    values = np.asarray(curve, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"fidelity curve of shape {values.shape}: give one fidelity per generation, at least one")
    if np.isnan(values).any():
        raise ValueError("fidelity curve holds NaN; a missing fidelity is 0, see fidelity()")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold} is not in (0, 1]")
    below = np.flatnonzero(values < threshold)
    if below.size == 0:
        return FidelityInterval(float(values.size - 1), censored=True)
    first = int(below[0])
    if first == 0:
        return FidelityInterval(0.0, censored=False)
    before, after = values[first - 1], values[first]
    return FidelityInterval(float(first - 1 + (before - threshold) / (before - after)), censored=False)


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
    cells = raw.groupby(_CELL).agg(last=("generation", "max")).join(_diverged_from(raw))
    short = cells[(cells["last"] < horizon) & cells["diverged_from"].isna()]
    rows = short["last"].reset_index()
    return sorted(zip(rows["method"].map(str), rows["seed"].map(int), rows["last"].map(int), strict=True))


def fidelity_curves(raw: pd.DataFrame, scales: Mapping[str, Scale], horizon: int | None = None) -> pd.DataFrame:
    """Fidelity of every scored metric in every generation 0..G of every cell.

    Args:
        raw: raw metrics (see the module); metrics without a scale are ignored.
        scales: scale of every scored metric.
        horizon: G; later generations are left out. None: the largest generation in ``raw``, of any cell. Give it
            when scoring a part of the cells, or a cell that diverged would end early and its mean be too good.

    Returns:
        Columns method, seed, generation, metric, fidelity; sorted. From the first diverged generation of a cell up to
        G the fidelity is 0, whatever was measured. A value of NaN or ±inf is 0 in its own generation.

    Raises:
        ValueError: a scored metric is missing from a generation, a cell stops before G without having diverged
            (see `incomplete_cells`), a row is there twice, or ``raw`` lacks columns.
    """
    _check_raw(raw)
    if raw.empty:
        return pd.DataFrame(columns=_CURVES)
    horizon = int(raw["generation"].max()) if horizon is None else horizon
    short = incomplete_cells(raw, horizon)
    if short:
        told = _told(f"{method} seed {seed} (last generation {last})" for method, seed, last in short)
        raise ValueError(f"cells stop before generation {horizon} without having diverged: {told}. Finish or drop them")
    grid = raw[_CELL].drop_duplicates()
    for column, values in (("generation", range(horizon + 1)), ("metric", scales)):
        grid = grid.merge(pd.DataFrame({column: list(values)}), how="cross")
    rows = grid.merge(_diverged_from(raw), how="left", left_on=_CELL, right_index=True)
    rows = rows.merge(_scored_values(raw, scales), how="left", on=_KEYS, indicator="found")
    alive = ~(rows["generation"] >= rows["diverged_from"])  # NaN, never diverged, compares False
    missing = rows[alive & (rows["found"] != "both")]
    if not missing.empty:
        told = _told(f"{r.method} seed {r.seed} generation {r.generation}: {r.metric}" for r in missing.itertuples())
        raise ValueError(f"scored metrics are missing from generations that did not diverge: {told}")
    rows["fidelity"] = 0.0
    for metric, scale in scales.items():
        scored = alive & (rows["metric"] == metric)
        rows.loc[scored, "fidelity"] = fidelity(rows.loc[scored, "value"].to_numpy(), scale)
    return rows[_CURVES].sort_values(_KEYS, ignore_index=True)


def seed_scores(curves: pd.DataFrame, thresholds: Sequence[float] = (0.9, 0.75, 0.5)) -> pd.DataFrame:
    """Fidelity intervals and mean fidelity of every cell, for each metric and over all of them.

    Args:
        curves: what `fidelity_curves` returns.
        thresholds: the λ, each in (0, 1].

    Returns:
        One row per method, seed, metric and threshold; sorted. ``fi``: FI(λ) in generations, ``censored``: whether it
        is a lower bound, ``auf``: mean fidelity over generations 0..G (the same for every threshold). In the rows with
        metric `ALL`, ``fi`` is the smallest over the metrics, ``censored`` says that every metric is censored, and
        ``auf`` is the mean over generations of the smallest fidelity.

    Raises:
        ValueError: a cell lacks a generation or a metric, or a metric is named like `ALL`.
    """
    if (curves["metric"] == ALL).any():
        raise ValueError(f"a metric is named {ALL!r}, which is kept for the score over all metrics")
    if curves.empty:
        return pd.DataFrame(columns=_SCORES)
    wide = curves.pivot(index=[*_CELL, "generation"], columns="metric", values="fidelity").sort_index()
    rows = []
    for (method, seed), table in wide.groupby(level=_CELL):
        cell = table.set_index(table.index.get_level_values("generation"))
        if list(cell.index) != list(range(len(cell))):
            raise ValueError(f"{method} seed {seed}: generations {list(cell.index)} are not 0..G without gaps")
        for threshold in thresholds:
            rows += [{"method": method, "seed": seed, **score} for score in _cell_scores(cell, threshold)]
    return pd.DataFrame(rows, columns=_SCORES).sort_values([*_CELL, "metric", "threshold"], ignore_index=True)


def own_scales(raw: pd.DataFrame, scales: Mapping[str, Scale]) -> dict[str, dict[str, Scale]]:
    """Scales with each method's own generation 0 as the reference; the floors stay.

    The reference is the arithmetic mean of the raw metric over the method's seeds. The shared reference is kept where
    that mean says nothing: a seed diverged or has NaN or ±inf at generation 0, or the mean is no better than the floor
    (the scale would turn around).

    Args:
        raw: raw metrics (see the module).
        scales: the shared scales.

    Returns:
        {method: {metric: scale}}. `fidelity_curves` takes those of one method, with that method's rows and the horizon.

    Raises:
        ValueError: ``raw`` lacks columns, has impossible generations or a row twice.
    """
    _check_raw(raw)
    start = raw[raw["generation"] == 0]
    values = _scored_values(start, scales)
    own: dict[str, dict[str, Scale]] = {str(method): dict(scales) for method in sorted(raw["method"].unique())}
    diverged = set(start.loc[start["status"] == DIVERGED, "method"])
    for (method, metric), group in values.groupby(["method", "metric"]):
        scale = scales[str(metric)]
        reference = float(group["value"].mean(skipna=False))
        if method not in diverged and float(fidelity(reference, scale)) > 0:
            own[str(method)][str(metric)] = Scale(reference, scale.floor, scale.kind)
    return own


def _position(value: Any, kind: Literal["log", "linear"]) -> Any:
    return np.log(value) if kind == "log" else value


def _cell_scores(cell: pd.DataFrame, threshold: float) -> list[dict[str, Any]]:
    """Scores of one cell; ``cell`` has a row per generation and a column per metric."""
    scores: list[dict[str, Any]] = []
    for metric in cell.columns:
        found = fidelity_interval(cell[metric].to_numpy(), threshold)
        scores.append(
            {"metric": metric, "fi": found.generations, "censored": found.censored, "auf": cell[metric].mean()}
        )
    smallest = {
        "metric": ALL,
        "fi": min(score["fi"] for score in scores),
        "censored": all(score["censored"] for score in scores),
        "auf": cell.min(axis=1).mean(),
    }
    return [{**score, "threshold": threshold} for score in (*scores, smallest)]


def _check_raw(raw: pd.DataFrame) -> None:
    lacking = [column for column in _RAW if column not in raw.columns]
    if lacking:
        raise ValueError(f"raw metrics lack the columns {lacking}; needed are {_RAW}")
    generations = raw["generation"].astype(float)
    if not ((generations >= 0) & (generations % 1 == 0)).all():
        raise ValueError("raw metrics: every generation must be one of 0, 1, 2, …")


def _diverged_from(raw: pd.DataFrame) -> pd.Series:
    """First diverged generation of the cells that diverged, by (method, seed)."""
    diverged = raw[raw["status"] == DIVERGED]
    return diverged.groupby(_CELL)["generation"].min().rename("diverged_from")


def _scored_values(raw: pd.DataFrame, scales: Mapping[str, Scale]) -> pd.DataFrame:
    values = raw.loc[raw["metric"].isin(list(scales)), [*_KEYS, "value"]].astype({"value": float})
    twice = values[values.duplicated(_KEYS)]
    if not twice.empty:
        told = _told(f"{r.method} seed {r.seed} generation {r.generation}: {r.metric}" for r in twice.itertuples())
        raise ValueError(f"raw metrics have more than one row for {told}")
    return values


def _told(names: Any) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED_IN_ERRORS} more" if len(listed) > _NAMED_IN_ERRORS else ""
    return "; ".join(listed[:_NAMED_IN_ERRORS]) + more
