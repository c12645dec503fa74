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
class ScoredMethods:
    """Methods scored on one task.

    Attributes:
        curves: fidelities: method, seed, generation, metric, fidelity.
        scores: per method, seed, metric (``all`` is the smallest) and threshold: fi, censored, auf.
        own_scores: the same with each method's own generation 0 as the reference.
        table: one row per method, best first, the control last.
    """

    curves: pd.DataFrame
    scores: pd.DataFrame
    own_scores: pd.DataFrame
    table: pd.DataFrame


def score_methods(raw: pd.DataFrame, scales: Mapping[str, Scale], last: int) -> ScoredMethods:
    """Score and rank methods from their raw metrics.

    Args:
        raw: as `collapsebench.scoring.fidelity` describes it; every cell reaches `last` or has diverged.
        scales: of the scored metrics. last: generation G.

    Raises:
        ValueError: a cell lacks a metric or a generation, or has one twice.
    """
    curves = fidelity_curves(raw, scales, last)
    scores = seed_scores(curves, THRESHOLDS)
    own = own_scales(raw, scales)
    own_curves = [fidelity_curves(raw[raw["method"] == m], own[m], last) for m in raw["method"].unique()]
    own_scores = seed_scores(pd.concat(own_curves), THRESHOLDS)
    table = _table(scores, own_scores, _first_generation_costs(raw, scales), last)
    return ScoredMethods(curves, scores, own_scores, table)


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


def _table(scores: pd.DataFrame, own_scores: pd.DataFrame, costs: dict[str, float], last: int) -> pd.DataFrame:
    headline = scores[(scores["metric"] == ALL) & (scores["threshold"] == HEADLINE)]
    ranked = rank_methods(headline[headline["method"] != CONTROL])
    order = [*ranked, *(m for m in headline["method"].unique() if m == CONTROL)]
    per_method = {str(m): frame for m, frame in headline.groupby("method")}
    rows = []
    for method in order:
        mine = per_method[method]
        fi = mean_interval(mine["fi"].to_numpy(), mine["censored"].to_numpy())
        auf = mean_interval(mine["auf"].to_numpy(), [False] * len(mine))
        row: dict[str, Any] = {
            "rank": ranked.get(method),
            "method": method,
            "seeds": fi.n,
            "fi": fi.estimate,
            "fi_low": None if fi.low is None else max(fi.low, 0.0),  # no interval is shorter than nothing,
            "fi_high": None if fi.high is None else min(fi.high, float(last)),  # or longer than the horizon
            "fi_censored": fi.censored,
        }
        for baseline in RATIO_BASELINES:
            other = per_method.get(baseline)
            ratio = Ratio(None, None, None, 0, "none") if other is None else paired_ratio(mine, other)
            row |= {
                f"ratio_{baseline}": ratio.estimate,
                f"ratio_{baseline}_low": ratio.low,
                f"ratio_{baseline}_high": ratio.high,
                f"ratio_{baseline}_bound": ratio.bound,
                f"ratio_{baseline}_tied": ratio.tied,
            }
        row |= {
            "auf": auf.estimate,
            "auf_low": auf.low,
            "auf_high": auf.high,
            "generation_0_cost": costs[method],
            **_other_intervals(scores, own_scores, method),
        }
        rows.append(row)
    return pd.DataFrame(rows).astype({"rank": "Int64"})


def _other_intervals(scores: pd.DataFrame, own_scores: pd.DataFrame, method: str) -> dict[str, Any]:
    """Mean FI per metric at the headline threshold, over all metrics at the others, and by the own reference."""
    mine = scores[scores["method"] == method]
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
    own = own_scores[
        (own_scores["method"] == method) & (own_scores["metric"] == ALL) & (own_scores["threshold"] == HEADLINE)
    ]
    return found | {"fi_own_reference": own["fi"].mean(), "fi_own_reference_censored": bool(own["censored"].any())}
