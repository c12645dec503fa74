"""The table of a comparison: methods on one task, with rank intervals, ratios, verdicts and explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from collapsebench.methods import CONTROL
from collapsebench.scoring.cells import Cells, fidelity_cells
from collapsebench.scoring.fidelity import ALL, Array, Scale
from collapsebench.scoring.ranks import rank_intervals, verdicts
from collapsebench.scoring.seed_scores import THRESHOLDS, seed_scores
from collapsebench.scoring.statistics import NOTHING, Estimate, mean_interval, paired_difference, paired_ratio

HEADLINE = 0.75
"""The λ of the fidelity interval that people quote."""

RATIO_BASELINES = ("ce", "tce")
_VERDICTS = {1: "better", 0: "tied", -1: "worse"}


@dataclass(frozen=True)
class Scores:
    """Methods scored, not yet compared.

    Attributes:
        cells: fidelity curves.
        scores: as `collapsebench.scoring.seed_scores.seed_scores` has them.
    """

    cells: Cells
    scores: pd.DataFrame

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The curves as a frame: method, seed, generation, metric, fidelity."""
        return self.cells.frame()


@dataclass(frozen=True)
class SeedTable:
    """mFI of entries by seed.

    Attributes:
        methods: names, in the order in which they first appear. seeds: sorted.
        mfi: methods × seeds, in generations; NaN for a seed that a method does not have.
        diverged: methods × seeds: whether that cell diverged.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    mfi: Array
    diverged: npt.NDArray[np.bool_]

    @staticmethod
    def of(scores: pd.DataFrame) -> SeedTable:
        """From scores as in `Scores`.

        Raises:
            ValueError: a method has a seed twice.
        """
        over_all = scores[scores["metric"] == ALL]
        row, methods = pd.factorize(over_all["method"])
        seeds, column = np.unique(over_all["seed"].to_numpy(dtype=np.int64), return_inverse=True)
        mfi = np.full((len(methods), len(seeds)), np.nan)
        mfi[row, column] = over_all["mfi"].to_numpy(dtype=np.float64)
        diverged = np.zeros(mfi.shape, dtype=bool)
        diverged[row, column] = over_all["diverged"].to_numpy(dtype=bool)
        if int((~np.isnan(mfi)).sum()) < len(over_all):
            raise ValueError("scores have more than one row for a method and seed")
        return SeedTable(tuple(map(str, methods)), tuple(map(int, seeds)), mfi, diverged)

    def rows(self, methods: Sequence[str]) -> tuple[Array, npt.NDArray[np.bool_]]:
        """mFI of these methods by seed, and which of their cells diverged."""
        places = [self.methods.index(method) for method in methods]
        return self.mfi[places], self.diverged[places]

    def row(self, method: str) -> Array | None:
        """mFI of a method by seed; None if it is not there."""
        return self.mfi[self.methods.index(method)] if method in self.methods else None


def score_methods(raw: pd.DataFrame, scales: Mapping[str, Scale], last: int) -> Scores:
    """Score methods from their raw metrics.

    Args:
        raw: as `collapsebench.scoring.cells` describes it; every cell reaches `last` or has diverged.
        scales: of the scored metrics. last: generation G.

    Raises:
        ValueError: a cell lacks a metric or a generation, or has one twice.
    """
    cells = fidelity_cells(raw, scales, last)
    return Scores(cells, seed_scores(cells))


def ranked_table(scores: pd.DataFrame, last: int, tracks: Mapping[str, str] | None = None) -> pd.DataFrame:
    """One row per method, the largest mean mFI first, the control last.

    Args:
        scores: as in `Scores`. last: generation G, beyond which no interval is shown.
        tracks: of every method; ranks and verdicts are made within a track, one track after another. None: one track.

    Returns:
        Columns, means over seeds unless said otherwise:

        - ``rank_best``, ``rank_worst``: the interval of its rank; missing for the control,
        - ``method``, ``seeds`` (how many),
        - ``mfi``, ``mfi_low``, ``mfi_high``: in generations; ``share``: mFI / G,
        - for the baselines ce and tce ``verdict_ce`` (``better``, ``worse``, ``tied``; none without a test, with itself
          and for the control), ``difference_ce`` and ``ratio_ce`` with their intervals ``_low``, ``_high``,
        - ``start``, ``retention`` and ``fi_0.75`` with intervals, ``start_uncapped``, ``fi_0.9``, ``fi_0.5``;
          ``fi_…_censored``: a value is a lower bound,
        - ``binds``: the binding metric, ``binds_seeds``: in how many seeds it is the smallest, ``generation``: the
          one that costs its mFI most (median over the seeds that lose something, −1: none does),
          ``generation_low``, ``generation_high``: over these seeds,
        - ``mfi_<metric>``, ``start_<metric>`` of every metric.
    """
    table = SeedTable.of(scores)
    columns = {str(name): scores[name].to_numpy() for name in scores}
    places: dict[str, list[int]] = {}
    for place, method in enumerate(columns["method"]):
        places.setdefault(str(method), []).append(place)
    means = [0.0 if np.isnan(row).all() else float(np.nanmean(row)) for row in table.mfi]
    order = sorted(range(len(means)), key=lambda i: (-means[i], table.methods[i]))
    groups = _groups([table.methods[i] for i in order], tracks)
    baselines = {name: mfi for name in RATIO_BASELINES if (mfi := table.row(name)) is not None}
    rows = []
    for group in groups:
        standing = _standing(table, group, baselines)
        for method in group:
            mine = {name: values[places[method]] for name, values in columns.items()}
            over_all = {name: values[mine["metric"] == ALL] for name, values in mine.items()}
            best, worst, against = standing.get(method, (None, None, {}))
            row: dict[str, Any] = {"rank_best": best, "rank_worst": worst, "method": method, **_means(over_all, last)}
            ours = table.row(method)
            assert ours is not None
            for name in RATIO_BASELINES:
                row |= _against(ours, baselines.get(name), name, against.get(name) if name != method else None)
            rows.append(row | _beside(over_all) | _by_metric(mine))
    return pd.DataFrame(rows).astype({"rank_best": "Int64", "rank_worst": "Int64"})


def unranked(table: pd.DataFrame, tracks: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The same table for a task that is not ranked: no ranks, no verdicts, methods sorted by name.

    The numbers are measurements and stay; only the conclusions about which method is better are removed.
    """

    def place(method: str) -> tuple[bool, str, str]:
        return method == CONTROL, tracks[method] if tracks else "", method

    order = sorted(range(len(table)), key=lambda i: place(str(table["method"].iloc[i])))
    found = table.iloc[order].reset_index(drop=True)
    for name in ("rank_best", "rank_worst"):
        found[name] = pd.array([pd.NA] * len(found), dtype="Int64")
    for name in RATIO_BASELINES:
        found[f"verdict_{name}"] = None
    return found


def _groups(methods: Sequence[str], tracks: Mapping[str, str] | None) -> list[list[str]]:
    """The methods that are ranked together, the control by itself at the end; each in the order given."""
    ranked = [m for m in methods if m != CONTROL]
    names = sorted({tracks[m] for m in ranked}) if tracks else [""]
    groups = [[m for m in ranked if not tracks or tracks[m] == name] for name in names]
    return [*groups, [m for m in methods if m == CONTROL]]


def _standing(
    table: SeedTable, group: Sequence[str], baselines: Mapping[str, Array]
) -> dict[str, tuple[int, int, dict[str, str]]]:
    """Best rank, worst rank and verdicts by baseline of the methods of a group; none for the control."""
    if not group or group[0] == CONTROL:
        return {}
    (mfi, diverged), (theirs, their_diverged) = table.rows(group), table.rows(list(baselines))
    ranks = rank_intervals(mfi, diverged)
    own = [group.index(name) if name in group else None for name in baselines]
    found = verdicts(mfi, theirs, own, (diverged, their_diverged))
    standing = {}
    for row, method in enumerate(group):
        against = {name: _VERDICTS[int(found[row, column])] for column, name in enumerate(baselines)}
        standing[method] = (int(ranks[row, 0]), int(ranks[row, 1]), against)
    return standing


def _means(over_all: Mapping[str, npt.NDArray[Any]], last: int) -> dict[str, Any]:
    found = mean_interval(over_all["mfi"])
    return {
        "seeds": found.n,
        "mfi": found.estimate,
        "mfi_low": None if found.low is None else max(found.low, 0.0),  # mFI cannot be negative,
        "mfi_high": None if found.high is None else min(found.high, float(last)),  # or longer than the horizon
        "share": over_all["share"].mean(),
    }


def _against(ours: Array, theirs: Array | None, name: str, verdict: str | None) -> dict[str, Any]:
    """Difference and ratio to a baseline, and what the tests of the whole table say."""
    difference, ratio = NOTHING, NOTHING
    if theirs is not None:
        difference, ratio = paired_difference(ours, theirs), paired_ratio(ours, theirs)
    return {
        f"verdict_{name}": verdict if difference.low is not None else None,
        **_interval(f"difference_{name}", difference),
        **_interval(f"ratio_{name}", ratio),
    }


def _beside(over_all: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Start, retention, FI(λ) and the binding metric."""
    found: dict[str, Any] = _interval("start", _within_one(mean_interval(over_all["start"])))
    retention = over_all["retention"]  # undefined for a start of 0: with one such seed, there is no mean
    kept = NOTHING if np.isnan(retention).any() else mean_interval(retention)
    found |= {"start_uncapped": over_all["start_uncapped"].mean(), **_interval("retention", kept)}
    for threshold in sorted(THRESHOLDS, key=lambda t: t != HEADLINE):
        name = f"fi_{threshold:g}"
        interval = mean_interval(over_all[name], over_all[f"{name}_censored"])
        found |= _interval(name, interval) if threshold == HEADLINE else {name: interval.estimate}
        found[f"{name}_censored"] = interval.censored
    generation = over_all["generation"]
    lossy = np.sort(generation[generation >= 0]) if (generation >= 0).any() else generation
    return found | {
        "binds": over_all["binds"][0],
        "binds_seeds": int((over_all["smallest"] == over_all["binds"]).sum()),
        "generation": int(lossy[(len(lossy) - 1) // 2]),
        "generation_low": int(lossy[0]),
        "generation_high": int(lossy[-1]),
    }


def _by_metric(mine: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric in sorted(set(mine["metric"]) - {ALL}):
        chosen = mine["metric"] == metric
        found |= {f"mfi_{metric}": mine["mfi"][chosen].mean(), f"start_{metric}": mine["start"][chosen].mean()}
    return found


def _interval(name: str, found: Estimate) -> dict[str, float | None]:
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _within_one(found: Estimate) -> Estimate:
    """A fidelity's interval, clipped to [0, 1]."""
    if found.low is None or found.high is None:
        return found
    return Estimate(found.estimate, max(found.low, 0.0), min(found.high, 1.0), found.n)
