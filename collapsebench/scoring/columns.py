"""The columns of a table of methods: their names, how a row is shown in each, and what they mean.

Terminal, report and site go through this list; a new column is one entry here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from collapsebench.methods import CONTROL
from collapsebench.scoring.engagement import LOW, percent_text
from collapsebench.scoring.fidelity import ALL

Row = Mapping[str, Any]
"""A row of `collapsebench.scoring.table.ranked_table` as plain values, missing ones None."""


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain JSON values, missing ones as None."""
    return [{str(k): _plain(v) for k, v in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.item() if hasattr(value, "item") else value


_MARKS = {"better": " ▲", "worse": " ▼", "tied": " ≈"}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: of the value in the row. header: over the column. text: what a row shows there.
        meaning: in a sentence or two. left: the column is aligned to the left.
        number: the value is a number, by which an interactive table sorts.
        ends: the interval of that number alone, for tables that have a separate column for it.
    """

    name: str
    header: str
    text: Callable[[Row], str]
    meaning: str
    left: bool = False
    number: bool = False
    ends: Callable[[Row], str] | None = None


def rank_text(row: Row) -> str:
    """``2`` or ``1–3``; a dash for the control."""
    best, worst = row["rank_best"], row["rank_worst"]
    return "–" if best is None else f"{best}" if best == worst else f"{best}–{worst}"


def interval_text(row: Row, name: str) -> str:
    """``3.21 [3.05, 3.40]``, with ≥ for a censored mean, and n/a where there is no number or interval.

    Args:
        row: plain values. name: of the number, as ``mfi`` or ``ratio_ce``.
    """
    value = row[name]
    if value is None:
        return "n/a"
    return f"{'≥ ' if row.get(f'{name}_censored') else ''}{value:.2f} {ends_text(row, name)}"


def ends_text(row: Row, name: str) -> str:
    """The interval of a number alone: ``[3.05, 3.40]``, ``[n/a]``; a dash where there is no number."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if row[name] is None:
        return "–"
    if low is None and high is None:
        return "[n/a]"
    return f"[{'…' if low is None else f'{low:.2f}'}, {'…' if high is None else f'{high:.2f}'}]"


def against_text(row: Row, baseline: str) -> str:
    """Ratio to a baseline with its interval, and ▲ better, ▼ worse, ≈ no significant difference; a dash for itself."""
    return "–" if row["method"] == baseline else interval_text(row, f"ratio_{baseline}") + _mark(row, baseline)


def _ends_against(row: Row, baseline: str) -> str:
    return "–" if row["method"] == baseline else ends_text(row, f"ratio_{baseline}") + _mark(row, baseline)


def _mark(row: Row, baseline: str) -> str:
    return _MARKS.get(row[f"verdict_{baseline}"] or "", "")


def censored_text(row: Row, name: str) -> str:
    """A fidelity interval without its own interval: ``≥ 10.00`` when censored."""
    value = row[name]
    return "n/a" if value is None else f"{'≥ ' if row.get(f'{name}_censored') else ''}{value:.2f}"


def start_text(row: Row) -> str:
    """f(0), and if it is capped, the uncapped value: ``1.00 (1.03)``."""
    start, uncapped = row["start"], row["start_uncapped"]
    return f"{start:.2f}" + ("" if abs(uncapped - start) < 0.005 else f" ({uncapped:.2f})")


def binding_text(row: Row) -> str:
    """The binding metric, and the generation that costs it most: ``coverage, gen. 3 (2–4)``."""
    generation, low, high = row["generation"], row["generation_low"], row["generation_high"]
    if generation < 0:
        return f"{row['binds']}, nothing lost"
    return f"{row['binds']}, gen. {generation}" + ("" if low == high else f" ({low}–{high})")


def masks_text(row: Row) -> str:
    """How much of cross entropy's gradient the loss masks: ``31 %``, ``only 0.4 %``; a dash where it is meaningless.

    Cross entropy masks nothing, and the control is cross entropy. Where elements are no symbols, the text says that
    p, which the loss takes for confidence, is a density.
    """
    masked = row.get("masked_gradient")
    if masked is None or row["method"] in ("ce", CONTROL):
        return "–"
    density = " (p is a density)" if row.get("symbols") is False else ""
    return f"{'only ' if masked < LOW else ''}{percent_text(masked)}{density}"


RANK = Column(
    "rank_best",
    "rank",
    rank_text,
    "The possible ranks of the method. Best: 1 + the number of methods that are significantly better. Worst: the "
    "number of methods minus those that are significantly worse. The interval contains the true rank with 95 %.",
    left=True,
)
METHOD = Column(
    "method",
    "method",
    lambda row: str(row["method"]),
    "The loss and its non-default parameters.",
    left=True,
)
MFI = Column(
    "mfi",
    "mFI [95 %]",
    lambda row: interval_text(row, "mfi"),
    "Mean fidelity interval, in generations: the first generation at which fidelity falls below λ, averaged over all λ "
    "from 0 to 1; the smallest over the scored metrics, mean over seeds, Student t interval. Higher is better; at most "
    "the horizon.",
    number=True,
    ends=lambda row: ends_text(row, "mfi"),
)
_RATIO = (
    "Geometric mean over paired seeds of mFI divided by the baseline's, Student t interval; n/a where an mFI is 0. ▲ "
    "better, ▼ worse, ≈ no significant difference, by paired tests on differences at 5 % for all comparisons of the "
    "table together; so ≈ may stand beside an interval that excludes 1."
)
RATIO_CE = Column(
    "ratio_ce",
    "ratio to CE",
    lambda row: against_text(row, "ce"),
    _RATIO,
    number=True,
    ends=lambda row: _ends_against(row, "ce"),
)
RATIO_TCE = Column(
    "ratio_tce",
    "ratio to TCE",
    lambda row: against_text(row, "tce"),
    _RATIO,
    number=True,
    ends=lambda row: _ends_against(row, "tce"),
)
START = Column(
    "start",
    "start",
    start_text,
    "Fidelity at generation 0, before any recursion, in the binding metric; in brackets without its cap at 1.",
    number=True,
)
RETENTION = Column(
    "retention",
    "retention",
    lambda row: "n/a" if row["retention"] is None else f"{row['retention']:.2f}",
    "The share of the start that is kept over all generations: mFI / (G · start). n/a if a seed starts at 0; above 1 "
    "if a method gets better than it started.",
    number=True,
)
FI = Column(
    "fi_0.75",
    "FI(0.75)",
    lambda row: censored_text(row, "fi_0.75"),
    "The first generation, interpolated, at which fidelity falls below 0.75: the smallest over the scored metrics, "
    "mean over seeds. ≥: a curve never fell below.",
)
BINDING = Column(
    "binds",
    "what binds",
    binding_text,
    "The metric with the smallest mFI, and the generation that costs it most: median (range) over seeds.",
    left=True,
)
MASKS = Column(
    "masked_gradient",
    "masks",
    masks_text,
    "The share of cross entropy's gradient on elements that the loss masks, that is, to which it gives at most 5 % of "
    "its mean gradient. Mean over generations and seeds. Only: less than 5 %, so masking explains little of the score. "
    "Weighting elements differently is not masking. p is a density: of an error or a point, relative to a peak. It "
    "is not the probability of a symbol, so a loss that acts on confidence does not do here what its paper describes.",
)
COLUMNS = (RANK, METHOD, MFI, RATIO_CE, RATIO_TCE, START, RETENTION, FI, MASKS, BINDING)
"""The columns of every table of methods, in their order."""


_SEEDS_LISTED = 3  # more are counted


def shown_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The columns of a table of these rows, without those that no row has measured."""
    return tuple(c for c in COLUMNS if c is not MASKS or any(masks_text(row) != "–" for row in rows))


def reason(row: Row, by_seed: str = "") -> str:
    """Why a method has its mFI, as a sentence.

    Args:
        row: plain values. by_seed: the same of every seed, as `by_seed_text` has it; empty: left out.
    """
    seeds = f"{row['binds_seeds']} of {row['seeds']} seeds"
    low, high = row["generation_low"], row["generation_high"]
    lost = "it loses nothing" if row["generation"] < 0 else f"it loses most in generation {row['generation']}"
    span = f" ({low} to {high} over seeds)" if low < high and not by_seed else ""
    told = f" ({by_seed})" if by_seed else span
    masked = masks_text(row)
    little = f" Its loss masks {masked} of cross entropy's gradient." if masked.startswith("only") else ""
    return f"{row['method']}: {row['binds']} is the binding metric, smallest in {seeds}; {lost}{told}.{little}"


def reasons(rows: Sequence[Row], scores: pd.DataFrame) -> list[str]:
    """Why each method has its mFI, with details per seed; one sentence per row.

    Args:
        rows: of the table. scores: as `collapsebench.scoring.seed_scores.seed_scores` has them.
    """
    over_all = scores[scores["metric"] == ALL].sort_values("seed")
    by_method = {str(method): records(mine) for method, mine in over_all.groupby("method")}
    return [reason(row, by_seed_text(by_method[row["method"]])) for row in rows]


def by_seed_text(seeds: Sequence[Row]) -> str:
    """The generation that costs each seed most, the most frequent first: ``4 in seeds 0, 3; none in seed 2``.

    Args:
        seeds: rows of one method over all metrics, as `collapsebench.scoring.seed_scores.seed_scores` has them. Where
            another metric than the method's is the smallest in a seed, it is named.
    """
    groups: dict[str, list[int]] = {}
    for row in seeds:
        generation = "none" if row["generation"] < 0 else str(row["generation"])
        other = "" if row["smallest"] == row["binds"] else f" ({row['smallest']} is smaller)"
        groups.setdefault(generation + other, []).append(row["seed"])
    if len(groups) == 1 and len(seeds) > 1:
        return "in every seed"
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return "; ".join(f"{told} in {_seeds_text(found)}" for told, found in ordered)


def _seeds_text(seeds: Sequence[int]) -> str:
    """Which seeds, or how many where they are many."""
    if len(seeds) > _SEEDS_LISTED:
        return f"{len(seeds)} seeds"
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
