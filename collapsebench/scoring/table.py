"""The table of a comparison: methods on one task, ranked, with intervals and ratios. Pure functions on DataFrames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from collapsebench.methods import CONTROL
from collapsebench.scoring.fidelity import (
    ALL,
    Scale,
    fidelity_curves,
    own_scales,
    seed_scores,
    unclipped_fidelity,
)
from collapsebench.scoring.statistics import Ratio, mean_interval, paired_ratio, rank_methods

THRESHOLDS = (0.9, 0.75, 0.5)
HEADLINE = 0.75
RATIO_BASELINES = ("ce", "tce")


@dataclass(frozen=True)
class Scores:
    """Methods scored, not yet compared.

    Attributes:
        curves: fidelities: method, seed, generation, metric, fidelity.
        scores: per method, seed, metric (``all`` is the smallest) and threshold: fi, censored, auf.
        own_scores: the same with each method's own generation 0 as the reference.
        costs: fidelity that each method gives up at generation 0.
    """

    curves: pd.DataFrame
    scores: pd.DataFrame
    own_scores: pd.DataFrame
    costs: dict[str, float]


def score_methods(raw: pd.DataFrame, scales: Mapping[str, Scale], last: int) -> Scores:
    """Score methods from their raw metrics.

    Args:
        raw: as `collapsebench.scoring.fidelity` describes it; every cell reaches `last` or has diverged.
        scales: of the scored metrics. last: generation G.

    Raises:
        ValueError: a cell lacks a metric or a generation, or has one twice.
    """
    curves = fidelity_curves(raw, scales, last)
    own = own_scales(raw, scales)
    own_curves = [fidelity_curves(raw[raw["method"] == m], own[m], last) for m in raw["method"].unique()]
    return Scores(
        curves=curves,
        scores=seed_scores(curves, THRESHOLDS),
        own_scores=seed_scores(pd.concat(own_curves), THRESHOLDS),
        costs=_first_generation_costs(raw, scales),
    )


def _first_generation_costs(raw: pd.DataFrame, scales: Mapping[str, Scale]) -> dict[str, float]:
    """Fidelity that each method gives up at generation 0: on its worst metric, mean over seeds, not clipped.

    CE's is 0 on the official seeds by definition of the reference; a method that diverges there gives up all.
    """
    first = raw[raw["generation"] == 0]
    costs = {}
    for method, mine in first.groupby("method"):
        fidelities = [
            unclipped_fidelity(mine.loc[mine["metric"] == name, "value"].to_numpy(float), scale).sum()
            for name, scale in scales.items()
        ]
        costs[str(method)] = 1.0 - float(min(fidelities)) / mine["seed"].nunique()
    return costs


def ranked_table(scores: pd.DataFrame, own_scores: pd.DataFrame, costs: Mapping[str, float], last: int) -> pd.DataFrame:
    """One row per method with intervals and ratios, best first, the control last.

    Args:
        scores, own_scores, costs: as in `Scores`. last: generation G, beyond which no interval is shown.
    """
    headline = scores[(scores["metric"] == ALL) & (scores["threshold"] == HEADLINE)]
    ranked = rank_methods(headline[headline["method"] != CONTROL])
    order = [*ranked, *(m for m in headline["method"].unique() if m == CONTROL)]
    per_method = {str(m): frame for m, frame in headline.groupby("method")}
    everything = {str(m): frame for m, frame in scores.groupby("method")}
    own = {str(m): frame for m, frame in own_scores.groupby("method")}
    rows = []
    for method in order:
        mine = per_method[method]
        row: dict[str, Any] = {"rank": ranked.get(method), "method": method, **_means(mine, last)}
        for baseline in RATIO_BASELINES:
            row |= _ratio(mine, per_method.get(baseline), baseline)
        row |= {"generation_0_cost": costs[method], **_other_intervals(everything[method], own[method])}
        rows.append(row)
    return pd.DataFrame(rows).astype({"rank": "Int64"})


def _means(mine: pd.DataFrame, last: int) -> dict[str, Any]:
    fi = mean_interval(mine["fi"].to_numpy(), mine["censored"].to_numpy())
    auf = mean_interval(mine["auf"].to_numpy(), [False] * len(mine))
    return {
        "seeds": fi.n,
        "fi": fi.estimate,
        "fi_low": None if fi.low is None else max(fi.low, 0.0),  # no interval is shorter than nothing,
        "fi_high": None if fi.high is None else min(fi.high, float(last)),  # or longer than the horizon
        "fi_censored": fi.censored,
        "auf": auf.estimate,
        "auf_low": auf.low,
        "auf_high": auf.high,
    }


def _ratio(mine: pd.DataFrame, baseline: pd.DataFrame | None, name: str) -> dict[str, Any]:
    ratio = Ratio(None, None, None, 0, "none") if baseline is None else paired_ratio(mine, baseline)
    return {
        f"ratio_{name}": ratio.estimate,
        f"ratio_{name}_low": ratio.low,
        f"ratio_{name}_high": ratio.high,
        f"ratio_{name}_bound": ratio.bound,
        f"ratio_{name}_tied": ratio.tied,
    }


def _other_intervals(mine: pd.DataFrame, own: pd.DataFrame) -> dict[str, Any]:
    """Mean FI per metric at the headline threshold, over all metrics at the others, and by the own reference."""
    found: dict[str, Any] = {}
    for threshold in THRESHOLDS:
        cell = mine[(mine["metric"] == ALL) & (mine["threshold"] == threshold)]
        if threshold != HEADLINE:
            found |= {
                f"fi_{threshold:g}": cell["fi"].mean(),
                f"fi_{threshold:g}_censored": bool(cell["censored"].any()),
            }
    for metric in sorted(set(mine["metric"]) - {ALL}):
        cell = mine[(mine["metric"] == metric) & (mine["threshold"] == HEADLINE)]
        found |= {f"fi_{metric}": cell["fi"].mean(), f"fi_{metric}_censored": bool(cell["censored"].any())}
    cell = own[(own["metric"] == ALL) & (own["threshold"] == HEADLINE)]
    return found | {"fi_own_reference": cell["fi"].mean(), "fi_own_reference_censored": bool(cell["censored"].any())}
