"""The findings of a comparison, in sentences with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from collapsebench.methods import CONTROL
from collapsebench.scoring.columns import Row, records

if TYPE_CHECKING:
    from collapsebench.reports.comparison import Comparison

TRIED = "In a try-out on a part of the task: "
NAMED = 3  # methods with a verdict that are named with their numbers


@dataclass(frozen=True)
class Takeaway:
    """The main findings.

    Attributes:
        headline: one sentence. details: sentences with the numbers.
    """

    headline: str
    details: tuple[str, ...]


def takeaway(comparison: Comparison) -> Takeaway:
    """Which methods beat cross entropy, how certain that is, and how long cross entropy itself lasts."""
    everything = records(comparison.table)
    rows = [row for row in everything if row["method"] != CONTROL] or everything
    ce = next((row for row in rows if row["method"] == "ce"), None)
    others = [row for row in rows if row is not ce]
    tried = TRIED if comparison.is_part else ""
    lasts = tuple(_lasts(row, comparison.generations) for row in rows[:NAMED])
    if comparison.task.unranked:
        return Takeaway("These are measurements; methods on this task are not ranked.", lasts)
    if ce is None or not others:
        return Takeaway(f"{tried}{lasts[0]}", lasts[1:])
    seeds = min(row["seeds"] for row in rows)
    if all(row["verdict_ce"] is None for row in others):
        return Takeaway(
            f"{tried}{'One seed is' if seeds == 1 else 'These seeds are'} not enough to tell whether methods differ "
            "from cross entropy.",
            tuple(_lasts(row, comparison.generations) for row in rows[: NAMED + 1]),
        )
    groups = {v: [row for row in others if row["verdict_ce"] == v] for v in ("better", "tied", "worse")}
    details = [sentence for verdict, found in groups.items() for sentence in _verdicts(found, verdict)]
    headline = _headline(groups["better"], groups["tied"], seeds)
    return Takeaway(tried + headline, (*details, _lasts(ce, comparison.generations)))


def _headline(better: Sequence[Row], tied: Sequence[Row], seeds: int) -> str:
    over = f"over {seeds} seeds"
    if better:
        more = f", and so {'does' if len(better) == 2 else 'do'} {len(better) - 1} more" if len(better) > 1 else ""
        return f"{better[0]['method']} stays faithful longer than cross entropy{more}: {_against(better[0], over)}."
    if tied:
        return f"No method stays faithful significantly longer than cross entropy {over}."
    return f"Cross entropy stays faithful longest {over}."


def _verdicts(rows: Sequence[Row], verdict: str) -> list[str]:
    """The methods of one verdict against cross entropy, the best first."""
    told = {
        "better": "is better than ce",
        "tied": "does not differ significantly from ce",
        "worse": "is worse than ce",
    }[verdict]
    sentences = [f"{row['method']} {told}: {_against(row)}{_held_back(row)}." for row in rows[:NAMED]]
    rest = len(rows) - NAMED
    return sentences + ([f"The same holds for {rest} more {'method' if rest == 1 else 'methods'}."] if rest > 0 else [])


def _against(row: Row, over: str = "") -> str:
    """A method relative to cross entropy: ``0.46 times as long (95 % interval 0.39 to 0.56)``."""
    beside = f", {over}" if over else ""
    if row["ratio_ce"] is not None and row["ratio_ce_low"] is not None:
        interval = f"{row['ratio_ce_low']:.2f} to {row['ratio_ce_high']:.2f}"
        return f"{row['ratio_ce']:.2f} times as long (95 % interval {interval}{beside})"
    interval = f"{row['difference_ce_low']:+.2f} to {row['difference_ce_high']:+.2f}"  # there is a verdict: a test
    return f"{row['difference_ce']:+.2f} generations (95 % interval {interval}{beside})"


def _held_back(row: Row) -> str:
    """Why a method is not told apart although its own interval is on one side."""
    low, high = row["ratio_ce_low"], row["ratio_ce_high"]
    if row["verdict_ce"] != "tied" or low is None or low <= 1 <= high:
        return ""
    return ", which is not enough once all comparisons of the table are counted"


def _lasts(row: Row, last: int) -> str:
    """How long a method stays faithful."""
    low, high = row["mfi_low"], row["mfi_high"]
    interval = "one seed, no interval" if low is None else f"95 % interval {low:.2f} to {high:.2f}"
    over = f", {row['seeds']} seeds" if row["seeds"] > 1 else ""
    return f"{row['method']} stays faithful for {row['mfi']:.2f} of {last} generations ({interval}{over})."
