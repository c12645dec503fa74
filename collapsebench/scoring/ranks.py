"""Which entries are better than which: rank intervals, and verdicts against the baselines.

Both are made of paired t-tests on differences of mFI, each with its own variance: a variance pooled over entries is
wrong for all of them when one is noisy. ``benchmarks/ranking_errors.py`` measures how often they err.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from collapsebench.scoring.fidelity import Array
from collapsebench.scoring.statistics import paired_t, two_sided_p

LEVEL = 0.05
"""Share of entries whose rank interval may miss, and of tables that may hold a wrong verdict."""

_CLASSES = (4, 12, 50, 200)


def size_class(entries: int) -> int:
    """F, the number of entries that a table is judged as: the smallest of 4, 12, 50, 200, 800, … that is not below it.

    A level that followed every number would change verdicts whenever an entry comes or goes. The class of 4 is for
    somebody's own comparison: judged as one of 12, three methods over five seeds would find 17 % of differences of 1.5
    standard deviations instead of 46 %.
    """
    largest = _CLASSES[-1]
    while largest < entries:
        largest *= 4
    return next((limit for limit in _CLASSES if entries <= limit), largest)


def rank_intervals(mfi: Array) -> npt.NDArray[np.int64]:
    """Best and worst rank of every entry, which hold its true rank with 95 %.

    The best rank is 1 + the number of entries that are significantly better, the worst K − the number that are
    significantly worse, by two-sided paired t-tests at .05 / (F − 1), F as in `size_class`: the chance that any of the
    K − 1 tests of an entry errs is then at most 5 %.

    Args:
        mfi: entries × seeds, NaN for a seed that an entry does not have.

    Returns:
        K × 2, ranks from 1. An entry with fewer than two seeds in common with another is not told from it.
    """
    entries, seeds = mfi.shape
    level = LEVEL / (size_class(entries) - 1)
    limits = np.array([np.inf, np.inf, *(stats.t.isf(level / 2, n - 1) for n in range(2, seeds + 1))])
    ranks = np.empty((entries, 2), dtype=np.int64)
    for entry in range(entries):
        t, n = paired_t(mfi, mfi[entry])
        ranks[entry] = 1 + (t > limits[n]).sum(), entries - (t < -limits[n]).sum()
    return ranks


def verdicts(mfi: Array, baselines: Array, own: Sequence[int | None]) -> npt.NDArray[np.int64]:
    """Which entries are better or worse than the baselines: Holm's procedure over all comparisons of a table.

    The tests are two-sided although a badge says "better": they then agree with the 95 % intervals of the differences,
    "worse than" comes from the same family, and the share of tables with any wrong verdict is at most 5 %. Removing an
    entry takes no verdict from the others.

    Args:
        mfi: entries × seeds, NaN for a seed that an entry does not have. baselines: baselines × the same seeds.
        own: which entry each baseline is, None if it is not in this table. An entry is not compared with itself.

    Returns:
        Entries × baselines: 1 better, −1 worse, 0 not told apart.
    """
    t, p = np.zeros((len(mfi), len(baselines))), np.ones((len(mfi), len(baselines)))
    compared = np.ones(t.shape, dtype=bool)
    for column, (values, entry) in enumerate(zip(baselines, own, strict=True)):
        found, n = paired_t(mfi, values)
        t[:, column], p[:, column] = np.nan_to_num(found), two_sided_p(found, n)
        if entry is not None:
            compared[entry, column] = False
    found_all = np.zeros(t.shape, dtype=np.int64)
    found_all[compared] = np.where(holm(p[compared]), np.sign(t[compared]), 0)
    return found_all


def holm(p: Array, level: float = LEVEL) -> npt.NDArray[np.bool_]:
    """Which hypotheses are rejected at a level of the whole family, from the smallest p down until one is not.

    Args:
        p: p-values, one per hypothesis.
    """
    order = np.argsort(p, kind="stable")
    kept = p[order] > level / np.arange(len(p), 0, -1)
    rejected = np.zeros(len(p), dtype=bool)
    rejected[order[: int(np.argmax(kept)) if kept.any() else len(p)]] = True
    return rejected
