"""Means, paired ratios and ranks over seeds, each with its interval and with censoring kept visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

Bound = Literal["exact", "lower", "upper", "none"]

BCA_FROM = 10
"""Number of seeds from which ratios are bootstrapped; over fewer a bootstrap interval is too narrow."""

_RESAMPLES = 9999
_ROUNDING = 1e-12  # log ratios closer than this are equal: their spread is rounding, not seeds


@dataclass(frozen=True)
class Ratio:
    """Ratio of a method's fidelity interval to a baseline's, over the seeds both have.

    Attributes:
        estimate: the ratio, without unit; None when there is none.
        low: lower end of the interval; None when there is none, or censoring leaves that side open.
        high: upper end of the interval; None when there is none, or censoring leaves that side open.
        n: number of paired seeds.
        bound: ``exact``; ``lower`` or ``upper`` when censoring makes the estimate a lower or upper bound of the ratio;
            ``none`` when there is no estimate.
    """

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    bound: Bound

    @property
    def tied(self) -> bool | None:
        """Whether the interval holds 1. Of a bound only the safe conclusion is drawn, False; else None."""
        above = self.low is not None and self.low > 1
        below = self.high is not None and self.high < 1
        if above or below:
            return False
        return True if self.low is not None and self.high is not None else None


@dataclass(frozen=True)
class Mean:
    """Mean over seeds.

    Attributes:
        estimate: in the unit of the values; None without values.
        low: lower end of the interval; None with fewer than two seeds.
        high: upper end of the interval; None with fewer than two seeds, or when censored.
        n: number of seeds.
        censored: a value is a lower bound, and therefore the mean is.
    """

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    censored: bool


def mean_interval(
    values: Sequence[float] | npt.NDArray[np.float64],
    censored: Sequence[bool] | npt.NDArray[np.bool_],
    confidence: float = 0.95,
) -> Mean:
    """Arithmetic mean over seeds with a Student t interval, n − 1 degrees of freedom.

    The interval is not cut at the bounds of the values. Equal values give an interval without width.

    Args:
        values: one per seed; a restricted fidelity interval where censored.
        censored: which values are lower bounds.
        confidence: of the interval, in (0, 1).

    Returns:
        No interval with one seed, nothing with none. When any value is censored there is no upper end.

    Raises:
        ValueError: different lengths, a value that is not finite, or an impossible confidence.
    """
    data, open_ended = np.asarray(values, dtype=np.float64), np.asarray(censored, dtype=bool)
    if data.ndim != 1 or data.shape != open_ended.shape:
        raise ValueError(f"{data.shape} values and {open_ended.shape} censoring flags: give one flag per value")
    if not np.isfinite(data).all():
        raise ValueError(f"values {data.tolist()} must be finite")
    _check_confidence(confidence)
    any_censored = bool(open_ended.any())
    if data.size == 0:
        return Mean(None, None, None, 0, any_censored)
    estimate = float(data.mean())
    if data.size == 1:
        return Mean(estimate, None, None, 1, any_censored)
    low, high = _student_t(data, confidence)
    return Mean(estimate, low, None if any_censored else high, data.size, any_censored)


def paired_ratio(method: pd.DataFrame, baseline: pd.DataFrame, confidence: float = 0.95) -> Ratio:
    """Geometric mean over seeds of FI(method) / FI(baseline), with an interval made on the log ratio.

    Interval: Student t with n − 1 degrees of freedom for 2 ≤ n < 10; BCa bootstrap of the mean (9999 resamples, fixed
    seed) from n = 10. Equal log ratios, as those of identical vectors, give an interval without width.

    Args:
        method: columns seed, fi (generations, ≥ 0) and censored; one row per seed.
        baseline: the same; seeds that only one side has are left out.
        confidence: of the interval, in (0, 1).

    Returns:
        With one seed no interval; with none, nothing. An FI of 0 has no logarithm: the estimate is then the ratio of
        the arithmetic means (None if the baseline's is 0), without interval. Where the method is censored in a seed,
        the estimate is a lower bound and ``high`` is None; where the baseline is, an upper bound and ``low`` is None;
        where both are, nothing can be said.

    Raises:
        ValueError: columns are missing, a seed is there twice, an FI is negative or not finite, or an impossible
            confidence.
    """
    _check_confidence(confidence)
    for name, frame in (("method", method), ("baseline", baseline)):
        _check_scores(frame, name)
    columns = ["seed", "fi", "censored"]
    pairs = method[columns].merge(baseline[columns], on="seed", suffixes=("_m", "_b")).sort_values("seed")
    n = len(pairs)
    bound = _bound(bool(pairs["censored_m"].any()), bool(pairs["censored_b"].any()))
    ours, theirs = pairs["fi_m"].to_numpy(dtype=np.float64), pairs["fi_b"].to_numpy(dtype=np.float64)
    if n == 0 or bound == "none" or not theirs.any():
        return Ratio(None, None, None, n, "none")
    if (ours == 0).any() or (theirs == 0).any():
        return Ratio(float(ours.mean() / theirs.mean()), None, None, n, bound)
    logs = np.log(ours) - np.log(theirs)
    estimate = _exp(float(logs.mean()))
    if n == 1:
        return Ratio(estimate, None, None, n, bound)
    low, high = _student_t(logs, confidence) if n < BCA_FROM else _bca(logs, confidence)
    return Ratio(estimate, None if bound == "upper" else _exp(low), None if bound == "lower" else _exp(high), n, bound)


def rank_methods(scores: pd.DataFrame) -> dict[str, int]:
    """Ranks from 1, where methods that are statistically tied with the best of their group share its rank.

    Methods are ordered by mean restricted FI, then mean AUF (both falling), then name. Down that order, a method
    joins the group of the current leader when the interval of its ratio to the leader holds 1, or when there is no
    verdict (one seed, FI of 0, censored) and it is not below the leader in every seed; otherwise it leads the next
    group and its rank is its position.

    Args:
        scores: columns method, seed, fi, censored, auf, for one task, metric and threshold.

    Returns:
        {method: rank}, in that order.

    Raises:
        ValueError: columns are missing, a seed is there twice for a method, or an FI is negative or not finite.
    """
    _check_columns(scores, ["method", "seed", "fi", "censored", "auf"], "scores")
    cells = {str(method): group.sort_values("seed") for method, group in scores.groupby("method")}
    for name, cell in cells.items():
        _check_scores(cell, name)
    order = sorted(cells, key=lambda name: (-cells[name]["fi"].mean(), -cells[name]["auf"].mean(), name))
    ranks: dict[str, int] = {}
    leader, rank = "", 0
    for position, name in enumerate(order, start=1):
        if position == 1 or not _shares_rank(cells[name], cells[leader]):
            leader, rank = name, position
        ranks[name] = rank
    return ranks


def _shares_rank(method: pd.DataFrame, leader: pd.DataFrame) -> bool:
    tied = paired_ratio(method, leader).tied
    if tied is not None:
        return tied
    pairs = method.merge(leader, on="seed", suffixes=("", "_leader"))
    return not bool((pairs["fi"] < pairs["fi_leader"]).all())


def _bound(method_censored: bool, baseline_censored: bool) -> Bound:
    if method_censored:
        return "none" if baseline_censored else "lower"
    return "upper" if baseline_censored else "exact"


def _student_t(data: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    mean, error = float(data.mean()), float(data.std(ddof=1) / np.sqrt(data.size))
    if _without_spread(data):
        return mean, mean
    half = float(stats.t.ppf((1 + confidence) / 2, data.size - 1)) * error
    return mean - half, mean + half


def _bca(data: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    if _without_spread(data):
        return float(data.mean()), float(data.mean())
    interval = stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert np.isfinite([interval.low, interval.high]).all(), f"BCa interval of {data.tolist()} is not finite"
    return float(interval.low), float(interval.high)


def _without_spread(data: npt.NDArray[np.float64]) -> bool:
    return float(np.ptp(data)) <= _ROUNDING * max(1.0, float(np.abs(data).max()))


def _exp(value: float) -> float:
    with np.errstate(over="ignore"):  # two seeds of opposite extremes: an interval up to inf is the truth
        return float(np.exp(value))


def _check_columns(frame: pd.DataFrame, needed: list[str], name: str) -> None:
    lacking = [column for column in needed if column not in frame.columns]
    if lacking:
        raise ValueError(f"{name} lacks the columns {lacking}; needed are {needed}")


def _check_scores(frame: pd.DataFrame, name: str) -> None:
    _check_columns(frame, ["seed", "fi", "censored"], name)
    twice = sorted(set(frame.loc[frame["seed"].duplicated(), "seed"]))
    if twice:
        raise ValueError(f"{name} has more than one row for seeds {twice}; give one metric and one threshold")
    values = frame["fi"].to_numpy(dtype=np.float64)
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(f"{name}: fi {values.tolist()} must be finite and not negative")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not in (0, 1)")
