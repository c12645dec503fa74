"""Which entries are better than others: rank intervals, and verdicts against the baselines.

Both use paired t-tests on differences of mFI, each with its own variance, because a variance pooled over entries is
wrong for all of them if one is noisy. ``benchmarks/ranking_errors.py`` measures their error rates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from collapsebench.scoring.fidelity import Array
from collapsebench.scoring.statistics import paired_t, two_sided_p

LEVEL = 0.05
"""Share of entries whose rank interval may miss their true rank, and of tables that may contain a wrong verdict."""

Flags = npt.NDArray[np.bool_]

_CLASSES = (4, 12, 50, 200)


def size_class(entries: int) -> int:
    """F, the size class of a table: the smallest of 4, 12, 50, 200, 800, … that is not below the number of entries.

    If the level followed the exact number, verdicts would change whenever an entry comes or goes. The class of 4 is for
    private comparisons: judged as a table of 12, three methods over five seeds would detect 17 % of differences of 1.5
    standard deviations instead of 46 %.
    """
    largest = _CLASSES[-1]
    while largest < entries:
        largest *= 4
    return next((limit for limit in _CLASSES if entries <= limit), largest)


def tested(mfi: Array, other: Array, diverged: Flags, other_diverged: Flags) -> tuple[Array, npt.NDArray[np.int64]]:
    """Student's paired t statistic of every entry against one.

    Seeds that diverge take from an entry's mean, but their spread would hide that it is worse on all others. So where
    an entry has such seeds, it is also tested on the seeds in which neither side diverged, and this test counts if it
    finds that entry worse, with a smaller p.

    Args:
        mfi, diverged: entries × seeds. other, other_diverged: of the one, seeds.

    Returns:
        t and the number of seeds, as in `paired_t`.
    """
    t, n = paired_t(mfi, other)
    either = diverged | other_diverged
    if not either.any():
        return t, n
    t_alive, n_alive = paired_t(np.where(either, np.nan, mfi), other)
    to_blame = np.where(t_alive < 0, diverged.any(axis=1), other_diverged.any())
    counts = to_blame & (two_sided_p(t_alive, n_alive) < two_sided_p(t, n))
    return np.where(counts, t_alive, t), np.where(counts, n_alive, n)


def rank_intervals(mfi: Array, diverged: Flags | None = None) -> npt.NDArray[np.int64]:
    """Best and worst rank of every entry, an interval that contains its true rank with 95 % probability.

    The best rank is 1 + the number of entries that are significantly better, the worst K − the number that are
    significantly worse, by two-sided paired t-tests at .05 / (F − 1), with F as in `size_class`. The probability that
    any of the K − 1 tests of an entry errs is then at most 5 %.

    Args:
        mfi: entries × seeds, NaN for a seed that an entry does not have.
        diverged: entries × seeds: whether that cell diverged (see `tested`); None: none did.

    Returns:
        K × 2, ranks from 1. Two entries with fewer than two seeds in common are never significantly different.
    """
    entries, seeds = mfi.shape
    gone = np.zeros(mfi.shape, dtype=bool) if diverged is None else diverged
    level = LEVEL / (size_class(entries) - 1)
    limits = np.array([np.inf, np.inf, *(stats.t.isf(level / 2, n - 1) for n in range(2, seeds + 1))])
    ranks = np.empty((entries, 2), dtype=np.int64)
    for entry in range(entries):
        t, n = tested(mfi, mfi[entry], gone, gone[entry])
        ranks[entry] = 1 + (t > limits[n]).sum(), entries - (t < -limits[n]).sum()
    return ranks


def verdicts(
    mfi: Array, baselines: Array, own: Sequence[int | None], diverged: tuple[Flags, Flags] | None = None
) -> npt.NDArray[np.int64]:
    """Which entries are better or worse than the baselines: Holm's procedure over all comparisons of a table.

    The tests are two-sided although a badge says "better". So they agree with the 95 % intervals of the differences,
    "worse than" comes from the same family, and at most 5 % of tables have any wrong verdict. Removing an entry
    removes no verdict of the others.

    Args:
        mfi: entries × seeds, NaN for a seed that an entry does not have. baselines: baselines × the same seeds.
        own: which entry each baseline is, None if it is not in this table. An entry is not compared with itself.
        diverged: which cells of the entries and of the baselines diverged (see `tested`); None: none did.

    Returns:
        Entries × baselines: 1 better, −1 worse, 0 no significant difference.
    """
    t, p = np.zeros((2, len(mfi), len(baselines)))
    compared = np.ones(t.shape, dtype=bool)
    mine, theirs = diverged or (np.zeros(mfi.shape, dtype=bool), np.zeros(np.shape(baselines), dtype=bool))
    for column, (values, entry) in enumerate(zip(baselines, own, strict=True)):
        found, n = tested(mfi, values, mine, theirs[column])
        t[:, column], p[:, column] = np.nan_to_num(found), two_sided_p(found, n)
        if entry is not None:
            compared[entry, column] = False
    found_all = np.zeros(t.shape, dtype=np.int64)
    found_all[compared] = np.where(holm(p[compared]), np.sign(t[compared]), 0)
    return found_all


def holm(p: Array, level: float = LEVEL) -> npt.NDArray[np.bool_]:
    """Holm's procedure: which hypotheses are rejected at a family-wise level, from the smallest p upwards.

    Args:
        p: p-values, one per hypothesis.
    """
    order = np.argsort(p, kind="stable")
    kept = p[order] > level / np.arange(len(p), 0, -1)
    rejected = np.zeros(len(p), dtype=bool)
    rejected[order[: int(np.argmax(kept)) if kept.any() else len(p)]] = True
    return rejected
