"""How small a difference of mFI an experiment can detect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from collapsebench.scoring.fidelity import Array

SEEDS = (3, 5, 10, 20)
POWER, LEVEL = 0.8, 0.05
_QUANTILE = 0.75
_POINTS = 4000


@dataclass(frozen=True)
class Spread:
    """How much paired differences of mFI to a baseline vary between seeds.

    Attributes:
        deviation: standard deviation over seeds, in generations. of: the method that it was taken from.
        methods: how many methods were considered.
    """

    deviation: float
    of: str
    methods: int


@dataclass(frozen=True)
class Detectable:
    """The smallest difference that is detected with 80 % power.

    Attributes:
        seeds: how many. difference: of mFI, in generations. share: of the baseline's mFI; None if that is 0.
    """

    seeds: int
    difference: float
    share: float | None


def spread_to(mfi: Array, methods: Sequence[str], baseline: str) -> Spread | None:
    """The spread to plan with: a large one among those of the published methods.

    It is the spread at the upper quartile of the methods, or the next larger one if that falls between two; with up to
    four methods, it is the largest. So a plan holds for most methods, and one very noisy entry does not spoil it.

    Args:
        mfi: methods × seeds, NaN for a missing seed. methods: their names. baseline: one of them.

    Returns:
        None without the baseline, or without another method that shares two seeds with it.
    """
    if baseline not in methods:
        return None
    differences = mfi - mfi[methods.index(baseline)]
    found = []
    for name, row in zip(methods, differences, strict=True):
        values = row[~np.isnan(row)]
        if name != baseline and len(values) > 1:
            found.append((float(values.std(ddof=1)), name))
    if not found:
        return None
    found.sort()
    deviation, of = found[int(np.ceil(_QUANTILE * (len(found) - 1)))]
    return Spread(deviation, of, len(found))


def detectable(deviation: float, seeds: int, baseline: float) -> Detectable:
    """The smallest difference that one planned, two-sided paired t-test at 5 % detects with 80 % power.

    Args:
        deviation: of the paired differences over seeds. seeds: how many, at least 2. baseline: its mean mFI.
    """
    difference = float(deviation * _noncentrality(seeds) / np.sqrt(seeds))
    return Detectable(seeds, difference, difference / baseline if baseline > 0 else None)


@lru_cache(maxsize=64)
def _noncentrality(seeds: int) -> float:
    """The true mean, in standard errors, at which a test over this many seeds has the required power.

    The power under a noncentral t distribution is computed as a mean over the estimated standard error, which is chi
    distributed, because scipy's own distribution returns no value where a test over two or three seeds needs it.
    """
    freedom = seeds - 1
    errors = np.sqrt(stats.chi2.ppf((np.arange(_POINTS) + 0.5) / _POINTS, freedom) / freedom)
    limits = stats.t.isf(LEVEL / 2, freedom) * errors

    def lack(mean: float) -> float:
        return float((stats.norm.sf(limits - mean) + stats.norm.cdf(-limits - mean)).mean()) - POWER

    return float(brentq(lack, 0.0, 10.0 * limits.max()))
