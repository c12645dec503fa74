"""What a comparison of raw metrics shows, in sentences that claim nothing: there is no ranking and no joint test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from collapsebench.reports.raw_numbers import Decimals, by_metric, decimals_of, metric_text
from collapsebench.reports.takeaway import NAMED, TRIED, Takeaway
from collapsebench.scoring.columns import Row, records

if TYPE_CHECKING:
    from collapsebench.reports.raw_comparison import RawComparison


def raw_takeaway(comparison: RawComparison) -> Takeaway:
    """How far each metric moves under cross entropy, and how the other methods differ from it in the end."""
    rows = records(comparison.table)
    details = [
        f"{metric_text(comparison.task.spec.metric(name))}: {_told(mine, comparison.generations)}."
        for name, mine in by_metric(rows)
    ]
    headline = _headline({row["seeds"] for row in rows}, len(comparison.methods))
    return Takeaway(f"{TRIED if comparison.is_part else ''}{headline}", tuple(details))


def _headline(seeds: set[int], methods: int) -> str:
    fewest, most = min(seeds), max(seeds)
    if fewest == 1 and methods > 1:
        return "One seed cannot tell whether methods differ: nothing is ranked, and nothing is tested."
    over = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    counted = "one seed" if most == 1 else f"{over} seeds"
    return f"Raw measurements over {counted}: nothing is ranked, and nothing is tested together."


def _told(rows: Sequence[Row], last: int) -> str:
    """One metric: the way of cross entropy and the differences to it; the way of each method where it has no end."""
    decimals = decimals_of(rows)
    ce = next((row for row in rows if row["method"] == "ce" and row["last"] is not None), None)
    others = [row for row in rows if row is not ce]
    if ce is None:
        return "; ".join([_way(row, last, decimals) for row in others[:NAMED]] + _more(others))
    way = _way(ce, last, decimals)
    if not others:
        return way
    differences = [_difference(row, decimals) for row in others[:NAMED]]
    return f"{way}. There, {'; '.join(differences + _more(others))}"


def _way(row: Row, last: int, decimals: Decimals) -> str:
    method, first, final = row["method"], row["first"], row["last"]
    if first is None:
        return f"{method} has no number"
    start = decimals.text(first, "first")
    if last == 0:
        return f"{method} is at {start} in generation 0"
    if final is None:
        return f"{method} starts at {start} and has no number in generation {last}"
    return f"{method} goes from {start} in generation 0 to {decimals.text(final, 'last')} in generation {last}"


def _difference(row: Row, decimals: Decimals) -> str:
    name = "difference_ce"
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if value is None:
        return f"{row['method']} has no number to compare"
    told = f"{row['method']} minus ce is {decimals.text(value, name)}"
    if low is None:
        return told
    return f"{told} (95 % interval {decimals.text(low, name)} to {decimals.text(high, name)})"


def _more(others: Sequence[Row]) -> list[str]:
    rest = len(others) - NAMED
    return [f"{rest} more {'is' if rest == 1 else 'are'} in the table"] if rest > 0 else []
