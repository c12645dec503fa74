"""Means, differences and ratios over seeds, each with its Student t interval, and the paired tests behind verdicts.

Seeds are in columns; NaN marks a seed that an entry does not have. Paired statistics use the seeds of both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

from collapsebench.scoring.fidelity import Array

_ROUNDING = 1e-12  # values closer than this are equal: their spread is rounding, not seeds


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        estimate: in the unit of the values; None when there is none.
        low: lower end of the interval; None if there is none, as with one seed.
        high: upper end of the interval; None if there is none, or if censoring leaves that side open.
        n: number of seeds.
        censored: a value is a lower bound, and therefore the mean is too.
    """

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    censored: bool = False


NOTHING = Estimate(None, None, None, 0)


def mean_interval(values: npt.ArrayLike, censored: npt.ArrayLike | None = None, confidence: float = 0.95) -> Estimate:
    """Arithmetic mean over seeds with a Student t interval, n − 1 degrees of freedom.

    The interval is not clipped to the range of possible values. Equal values give an interval of width 0.

    Args:
        values: one per seed.
        censored: which values are lower bounds; None: none is.
        confidence: of the interval, in (0, 1).

    Returns:
        No interval with one seed, nothing with none. If any value is censored, there is no upper end.

    Raises:
        ValueError: different lengths, a value that is not finite, or an impossible confidence.
    """
    data = np.asarray(values, dtype=np.float64)
    open_ended = np.zeros(data.shape, dtype=bool) if censored is None else np.asarray(censored, dtype=bool)
    if data.ndim != 1 or data.shape != open_ended.shape:
        raise ValueError(f"{data.shape} values and {open_ended.shape} censoring flags: give one flag per value")
    if not np.isfinite(data).all():
        raise ValueError(f"values {data.tolist()} must be finite")
    _check_confidence(confidence)
    any_censored = bool(open_ended.any())
    if data.size == 0:
        return NOTHING
    estimate = float(data.mean())
    if data.size == 1:
        return Estimate(estimate, None, None, 1, any_censored)
    half = 0.0 if _without_spread(data) else float(data.std(ddof=1) / np.sqrt(data.size)) * _t(confidence, data.size)
    return Estimate(estimate, estimate - half, None if any_censored else estimate + half, data.size, any_censored)


def paired_difference(ours: Array, theirs: Array, confidence: float = 0.95) -> Estimate:
    """Mean over the common seeds of ours − theirs, with a Student t interval.

    Args:
        ours, theirs: one value per seed, NaN where there is none; the same seeds in the same order.
        confidence: of the interval, in (0, 1).

    Raises:
        ValueError: different lengths, or an impossible confidence.
    """
    differences = ours - theirs
    return mean_interval(differences[~np.isnan(differences)], confidence=confidence)


def paired_ratio(ours: Array, theirs: Array, confidence: float = 0.95) -> Estimate:
    """Geometric mean over the common seeds of ours / theirs: Student t on the logarithms.

    Args:
        ours, theirs: one value ≥ 0 per seed, NaN where there is none; the same seeds in the same order.
        confidence: of the interval, in (0, 1).

    Returns:
        No interval with one seed. Only the number of seeds if any value is 0: a ratio of such values is meaningless;
        use the difference.

    Raises:
        ValueError: different lengths, or an impossible confidence.
    """
    both = ~np.isnan(ours - theirs)
    ours, theirs = ours[both], theirs[both]
    if not ((ours > 0) & (theirs > 0)).all():
        return Estimate(None, None, None, int(both.sum()))
    found = mean_interval(np.log(ours) - np.log(theirs), confidence=confidence)
    return Estimate(_exp(found.estimate), _exp(found.low), _exp(found.high), found.n)


def paired_t(values: Array, baseline: Array) -> tuple[Array, npt.NDArray[np.int64]]:
    """Student's paired t statistic of every row against one.

    Args:
        values: entries × seeds, NaN for a missing seed. baseline: seeds.

    Returns:
        t of ``values − baseline`` over the common seeds, each with its own variance, and the number of these seeds.
        Without spread, t is 0 for equal means and ±inf otherwise; NaN with fewer than two common seeds.
    """
    differences = values - baseline
    there = ~np.isnan(differences)
    n = there.sum(axis=1)
    filled = np.where(there, differences, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = filled.sum(axis=1) / n
        residuals = np.where(there, filled - mean[:, None], 0.0)
        error = np.sqrt((residuals**2).sum(axis=1) / (n - 1) / n)
        size = np.abs(filled).max(axis=1, initial=0.0)
        flat = np.abs(residuals).max(axis=1, initial=0.0) <= _ROUNDING * np.maximum(1.0, size)
        certain = np.where(np.abs(mean) <= _ROUNDING, 0.0, np.copysign(np.inf, mean))
        t = np.where(flat, certain, mean / error)
    return np.where(n >= 2, t, np.nan), n


def two_sided_p(t: Array, n: npt.NDArray[np.int64]) -> Array:
    """Two-sided p-values of paired t statistics over n seeds; 1 where there is no statistic."""
    p = 2 * stats.t.sf(np.abs(t), np.maximum(n - 1, 1))
    return np.asarray(np.where(np.isnan(t), 1.0, p))


@lru_cache(maxsize=1024)
def _t(confidence: float, n: int) -> float:
    return float(stats.t.ppf((1 + confidence) / 2, n - 1))


def _without_spread(data: Array) -> bool:
    return float(np.ptp(data)) <= _ROUNDING * max(1.0, float(np.abs(data).max()))


def _exp(value: float | None) -> float | None:
    if value is None:
        return None
    with np.errstate(over="ignore"):  # two seeds of opposite extremes: an interval up to inf is correct
        return float(np.exp(value))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not in (0, 1)")
