"""Error rates and power of rank intervals and badges: ``python benchmarks/ranking_errors.py [TABLES]``.

Tables of K entries with n seeds are drawn from a normal model. Its correlations between entries, which pairing by seed
removes, are those between the published methods. There are three truths: *equal* (all entries are equal), *halves*
(half of them are 1.5 standard deviations below the other half) and *ladder* (evenly spaced over four standard
deviations). With *unequal* noise the standard deviations of entries span a factor of 16.

- An entry is **missed** if its interval does not contain every rank that it may claim: from 1 + the number of entries
  that are truly better to K − the number that are truly worse. Equal entries share these ranks.
- A badge is **false** if it calls an entry better that is equal or worse, or worse that is equal or better.
- **Power** is the share of detected pairs among those with a true difference of 1.25 to 1.75 standard deviations of
  their paired difference (1.5 against CE and TCE).

Three rules are compared with that of `collapsebench.scoring.ranks`: Holm over all pairs of the table, Tukey's test with
one pooled variance, and separate variances with the critical value of the largest of F − 1 tests under equal noise.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

from collapsebench.methods import BASELINES
from collapsebench.paths import bundled
from collapsebench.publishing.board import read_board
from collapsebench.publishing.validation import known_tasks
from collapsebench.scoring.ranks import LEVEL, holm, rank_intervals, size_class, verdicts
from collapsebench.scoring.table import SeedTable

Array = np.ndarray
ENTRIES, SEEDS, NOISES, TRUTHS = (3, 12, 50), (3, 5, 10, 20), ("equal", "unequal"), ("equal", "halves", "ladder")
STEP, SPAN, FACTOR = 1.5, 4.0, 16.0
_BAND = (1.25, 1.75)
_CHECKED = 20  # tables per setting on which the package itself must agree


@dataclass(frozen=True)
class Tables:
    """Simulated tables: mFI (tables × entries × seeds), the true values of the entries, and their noise."""

    mfi: Array
    truth: Array
    spread: Array

    @property
    def pairs(self) -> Array:
        """True differences, in standard deviations of the paired difference: tables × entries × entries."""
        return (self.truth[:, :, None] - self.truth[:, None, :]) / self.spread


def observed_correlations() -> Array:
    """Correlation over seeds between the mFI of every two published methods of a task."""
    board = read_board(bundled("submissions"), known_tasks())
    found = []
    for _, group in board.table[board.table["method"].isin(BASELINES)].groupby("task"):
        mfi = SeedTable.of(board.scores(list(group["digest"])).scores).mfi
        found += list(np.corrcoef(mfi)[np.triu_indices(len(mfi), 1)])
    return np.array(found)


def draw(tables: int, entries: int, seeds: int, noise: str, truth: str, loadings: Array) -> Tables:
    """Draw tables. One common factor per seed; the entries' loadings on it are drawn from those observed."""
    rng = np.random.default_rng([entries, seeds, NOISES.index(noise), TRUTHS.index(truth)])
    size = np.geomspace(1 / np.sqrt(FACTOR), np.sqrt(FACTOR), entries) if noise == "unequal" else np.ones(entries)
    size = rng.permuted(np.tile(size, (tables, 1)), axis=1)
    levels = {"equal": 0.0, "halves": STEP * (np.arange(entries) % 2), "ladder": np.linspace(0, SPAN, entries)}
    true = rng.permuted(np.tile(np.zeros(entries) + levels[truth], (tables, 1)), axis=1)
    load = rng.choice(loadings, (tables, entries))
    common = load[:, :, None] * rng.normal(size=(tables, 1, seeds))
    own = np.sqrt(1 - load**2)[:, :, None] * rng.normal(size=(tables, entries, seeds))
    mfi = true[:, :, None] + size[:, :, None] * (common + own)
    covariance = load[:, :, None] * load[:, None, :] * size[:, :, None] * size[:, None, :]
    variance = size[:, :, None] ** 2 + size[:, None, :] ** 2 - 2 * covariance
    return Tables(mfi, true, np.sqrt(variance))


def t_matrix(mfi: Array) -> tuple[Array, Array]:
    """t of every entry against every other, with separate variances and with the variance pooled over all pairs."""
    n = mfi.shape[2]
    mean = mfi.mean(axis=2)
    centred = mfi - mean[:, :, None]
    covariance = centred @ centred.transpose(0, 2, 1) / (n - 1)
    diagonal = np.diagonal(covariance, axis1=1, axis2=2)
    variance = diagonal[:, :, None] + diagonal[:, None, :] - 2 * covariance
    entries = mfi.shape[1]
    pooled = variance.sum(axis=(1, 2)) / (entries * (entries - 1))
    difference = mean[:, :, None] - mean[:, None, :]
    variance[:, range(entries), range(entries)] = np.inf
    return difference / np.sqrt(variance / n), difference / np.sqrt(pooled / n)[:, None, None]


@lru_cache(maxsize=64)
def largest_t(entries: int, seeds: int) -> float:
    """Upper 5 % point of the largest |t| of one entry against all others under equal and independent noise."""
    rng = np.random.default_rng(entries * seeds)
    own, _ = t_matrix(rng.normal(size=(4000, entries, seeds)))
    return float(np.quantile(np.abs(own[:, 0]).max(axis=1), 1 - LEVEL))


@lru_cache(maxsize=64)
def tukey_limit(entries: int, seeds: int) -> float:
    """The critical t of Tukey's test: studentized range over √2."""
    return float(stats.studentized_range.isf(LEVEL, entries, (entries - 1) * (seeds - 1)) / np.sqrt(2))


def significant(mfi: Array, rule: str) -> Array:
    """1 where an entry (second axis) is found better than another (third), −1 where worse, else 0."""
    own, pooled = t_matrix(mfi)
    entries, n = mfi.shape[1:]
    if rule == "tukey":
        return np.sign(pooled) * (np.abs(pooled) > tukey_limit(entries, n))
    if rule == "rank intervals":
        limit = stats.t.isf(LEVEL / (size_class(entries) - 1) / 2, n - 1)
        return np.sign(own) * (np.abs(own) > limit)
    if rule == "largest t":
        return np.sign(own) * (np.abs(own) > largest_t(size_class(entries), n))
    upper = np.triu_indices(entries, 1)
    p = 2 * stats.t.sf(np.abs(own[:, upper[0], upper[1]]), n - 1)
    found = np.zeros(own.shape)
    rejected = np.array([holm(row) for row in p])
    found[:, upper[0], upper[1]] = rejected * np.sign(own[:, upper[0], upper[1]])
    return found - found.transpose(0, 2, 1)


def missed(tables: Tables, found: Array) -> float:
    """Share of entries whose rank interval does not contain every rank that they may claim."""
    better, worse = (found > 0).sum(axis=1), (found < 0).sum(axis=1)  # entries better and worse than each
    truly = np.sign(tables.pairs)
    return float(((better > (truly > 0).sum(axis=1)) | (worse > (truly < 0).sum(axis=1))).mean())


def power(tables: Tables, found: Array) -> float:
    """Share of detected pairs among those with a true difference of about 1.5 standard deviations."""
    wanted = (tables.pairs > _BAND[0]) & (tables.pairs < _BAND[1])
    return float((found[wanted] > 0).mean()) if wanted.any() else float("nan")


def badges(mfi: Array) -> Array:
    """The package's verdicts on every entry against the first two."""
    return np.array([verdicts(table, table[:2], (0, 1)) for table in mfi])


def false_badges(tables: Tables, found: Array) -> float:
    """Share of tables with at least one false badge."""
    truly = np.sign(np.round(tables.truth[:, :, None] - tables.truth[:, None, :2], 9))
    return float(((found != 0) & (found != truly)).any(axis=(1, 2)).mean())


def badge_power(tables: Tables, found: Array) -> float:
    """Share of the true differences of about 1.5 standard deviations to one of the first two that get a badge."""
    pairs = tables.pairs[:, :, :2]
    wanted = (np.abs(pairs) > _BAND[0]) & (np.abs(pairs) < _BAND[1])
    return float((found[wanted] == np.sign(pairs[wanted])).mean()) if wanted.any() else float("nan")


def agrees_with_package(mfi: Array, found: Array) -> bool:
    """Whether the package gives the same rank intervals as `found` for the first tables."""
    best, worst = 1 + (found > 0).sum(axis=1), mfi.shape[1] - (found < 0).sum(axis=1)
    return all(
        np.array_equal(rank_intervals(table), np.column_stack([best[i], worst[i]]))
        for i, table in enumerate(mfi[:_CHECKED])
    )


def removal(tables: Tables) -> tuple[int, int, int]:
    """Remove the last entry of every table; count changed verdicts between others, badges lost, and badges won."""
    ours, less = significant(tables.mfi, "rank intervals"), tables.mfi[:, :-1]
    same_class = size_class(less.shape[1]) == size_class(tables.mfi.shape[1])
    changed = int((ours[:, :-1, :-1] != significant(less, "rank intervals")).sum()) if same_class else 0
    before, after = badges(tables.mfi)[:, :-1], badges(less)
    return changed, int(((before != 0) & (after != before)).sum()), int(((before == 0) & (after != 0)).sum())


def noisier(tables: Tables, factor: float) -> tuple[float, float, float, float]:
    """Raise the deviation of every table's third entry by a factor; return its mean mFI and worst rank before/after."""
    rng = np.random.default_rng(0)
    louder = tables.mfi.copy()
    spread = np.sqrt(factor**2 - 1)
    louder[:, 2] += spread * tables.mfi[:, 2].std(axis=1, ddof=1)[:, None] * rng.normal(size=louder[:, 2].shape)
    told = []
    for mfi in (tables.mfi, louder):
        worse = (significant(mfi, "rank intervals")[:, 2] > 0).sum(axis=1)
        told += [float(mfi[:, 2].mean()), float((mfi.shape[1] - worse).mean())]
    return told[0], told[2], told[1], told[3]


def quiet_entry_missed(entries: int, seeds: int, rule: str) -> float:
    """Share of 4,000 tables of equal entries in which an entry with a fiftieth of the others' noise is missed."""
    mfi = np.random.default_rng(1).normal(size=(4000, entries, seeds))
    mfi[:, 0] *= 0.02
    return float((significant(mfi, rule)[:, :, 0] != 0).any(axis=1).mean())


def orders_of_the_smallest(seeds: int) -> tuple[float, float, float, float]:
    """Two methods, two independent metrics each, all equal; the first has three times the noise of the second.

    Returns:
        How many standard deviations the second's score is too low, and how often a paired test finds the first one
        worse: for the mean of every seed's smallest metric, then for the smallest of the metrics' means.
    """
    rng, tables = np.random.default_rng(0), 20_000
    loud, quiet = 3 * rng.normal(size=(tables, seeds, 2)), rng.normal(size=(tables, seeds, 2))
    binding = [x[np.arange(tables), :, x.mean(axis=1).argmin(axis=1)] for x in (loud, quiet)]
    told = []
    for one, other in ((loud.min(axis=2), quiet.min(axis=2)), tuple(binding)):
        found = stats.ttest_rel(one, other, axis=1)
        told += [-float(other.mean()), float(((found.pvalue < LEVEL) & (found.statistic < 0)).mean())]
    return told[0], told[1], told[2], told[3]


def _per_cent(values: list[float]) -> str:
    known = [v for v in values if not np.isnan(v)]
    return f"{100 * max(known):.1f}" if known else "–"


def main(tables: int) -> None:
    """Print the tables of ``benchmarks/RESULTS.md``."""
    correlations = observed_correlations()
    loadings = np.sqrt(np.clip(correlations, 0, 0.99))
    print("correlations between published methods:", " ".join(f"{c:.2f}" for c in np.sort(correlations)), "\n")
    rules = ("rank intervals", "holm", "tukey", "largest t")
    print("| K | seeds | noise | missed, % | of Holm, Tukey, largest t | power, % | of Holm, Tukey, largest t "
          "| tables with a false badge, % | power of badges, % |\n" + "|---" * 9 + "|")  # fmt: skip
    for entries in ENTRIES:
        for seeds in SEEDS:
            for noise in NOISES:
                _row(tables, entries, seeds, noise, loadings, rules)
    print("\n| K | seeds | verdicts between the others that change when one entry leaves | badges lost | badges won |")
    print("|---" * 5 + "|")
    for entries in ENTRIES[1:]:
        drawn = draw(tables, entries, 10, "unequal", "halves", loadings)
        print(f"| {entries} | 10 | " + " | ".join(str(n) for n in removal(drawn)) + " |")
    print("\n| K | seeds | noise of one entry | its mean mFI, before → after | its worst rank, before → after |")
    print("|---" * 5 + "|")
    for entries in ENTRIES[1:]:
        for factor in (2.0, 5.0):
            one, other, rank, then = noisier(draw(tables, entries, 10, "equal", "ladder", loadings), factor)
            print(f"| {entries} | 10 | × {factor:g} | {one:.3f} → {other:.3f} | {rank:.2f} → {then:.2f} |")

    print("\n| K | seeds | entry fifty times as quiet missed, % | by the largest t |\n" + "|---" * 4 + "|")
    for entries, seeds in ((12, 5), (12, 10), (50, 10)):
        shares = [f"{100 * quiet_entry_missed(entries, seeds, rule):.1f}" for rule in ("rank intervals", "largest t")]
        print(f"| {entries} | {seeds} | {' | '.join(shares)} |")
    print("\n| seeds | mean of smallest: too low by, sd | louder found worse, % | smallest mean: too low by, sd "
          "| louder found worse, % |\n" + "|---" * 5 + "|")  # fmt: skip
    for seeds in SEEDS:
        low, worse, low_too, worse_too = orders_of_the_smallest(seeds)
        print(f"| {seeds} | {low:.2f} | {100 * worse:.1f} | {low_too:.2f} | {100 * worse_too:.1f} |")


def _row(tables: int, entries: int, seeds: int, noise: str, loadings: Array, rules: tuple[str, ...]) -> None:
    """Print one row: for errors the worst over the truths, and for power the larger of halves and ladder."""
    errors: dict[str, list[float]] = {rule: [] for rule in rules}
    strengths: dict[str, list[float]] = {rule: [] for rule in rules}
    false, found_badges = [], []
    for truth in TRUTHS:
        drawn = draw(tables, entries, seeds, noise, truth, loadings)
        for rule in rules:
            found = significant(drawn.mfi, rule)
            if rule == rules[0]:
                assert agrees_with_package(drawn.mfi, found)
            errors[rule].append(missed(drawn, found))
            strengths[rule].append(power(drawn, found))
        given = badges(drawn.mfi)
        false.append(false_badges(drawn, given))
        found_badges.append(badge_power(drawn, given))
    ours, *others = rules
    print(
        f"| {entries} | {seeds} | {noise} | {_per_cent(errors[ours])} | "
        f"{', '.join(_per_cent(errors[rule]) for rule in others)} | {_per_cent(strengths[ours])} | "
        f"{', '.join(_per_cent(strengths[rule]) for rule in others)} | {_per_cent(false)} | "
        f"{_per_cent(found_badges)} |",
        flush=True,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
