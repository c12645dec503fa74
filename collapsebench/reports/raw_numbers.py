"""The numbers of a comparison of raw metrics as text, with the decimals that their intervals need."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from collapsebench.metrics.catalogue import Metric
from collapsebench.scoring.columns import Row

BASELINE = "ce"
"""The method that differences are taken to."""

NUMBERS = ("first", "last", "difference_ce")
_LEVELS, _DIFFERENCES = NUMBERS[:2], NUMBERS[2:]
_WITHOUT_INTERVAL, _OF_INTERVAL, _AT_MOST = 4, 2, 6  # significant digits: of a value, of half an interval, of any value
_FIGURE_SPACE = "\u2007"  # as wide as a digit


@dataclass(frozen=True)
class Decimals:
    """How many decimals the numbers of one metric have.

    Attributes:
        levels: of its values. differences: of differences between methods.
    """

    levels: int
    differences: int

    def text(self, value: float, name: str) -> str:
        """``1.706``, of a difference ``+0.001``, with a minus sign as wide as the plus sign.

        Args:
            name: one of `NUMBERS`.
        """
        sign, decimals = ("+", self.differences) if name in _DIFFERENCES else ("", self.levels)
        return f"{value:{sign}.{decimals}f}".replace("-", "−")


def decimals_of(rows: Sequence[Row]) -> Decimals:
    """The decimals that show two digits of the narrowest interval among the rows of one metric.

    Without an interval, four digits of the largest value. No number gets more than six digits.
    """
    levels = _decimals(rows, _LEVELS)
    return Decimals(levels, _decimals(rows, _DIFFERENCES, levels))


def by_metric(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each metric, in their order."""
    for metric in dict.fromkeys(row["metric"] for row in rows):
        yield metric, [row for row in rows if row["metric"] == metric]


def aligned_texts(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Every row of one metric as texts by column: ``1.71 [1.68, 1.73]``, of equal width; a dash without a number."""
    decimals, texts = decimals_of(rows), [{"method": str(row["method"]), "seeds": str(row["seeds"])} for row in rows]
    for name in NUMBERS:
        cells = [[decimals.text(n, name) for n in _with_ends(row, name)] for row in rows]
        width = max((len(number) for cell in cells for number in cell), default=0)
        for text, cell in zip(texts, cells, strict=True):
            shown = [number.rjust(width, _FIGURE_SPACE) for number in cell] or ["–"]
            text[name] = f"{shown[0]} [{', '.join(shown[1:])}]" if len(shown) > 1 else shown[0]
    return texts


def metric_text(metric: Metric) -> str:
    """``NLL per byte (real test text), nats, lower is better``."""
    return f"{metric.title}, {unit_text(metric)}"


def unit_text(metric: Metric) -> str:
    """``nats, lower is better``."""
    return f"{metric.unit}, {metric.direction} is better" if metric.unit else f"{metric.direction} is better"


def _with_ends(row: Row, name: str) -> list[float]:
    """The number and, where it has one, its interval; empty without a number."""
    return [row[key] for key in (name, f"{name}_low", f"{name}_high") if row[key] is not None]


def _decimals(rows: Sequence[Row], names: Sequence[str], without_interval: int | None = None) -> int:
    found = [_with_ends(row, name) for row in rows for name in names]
    largest = max((abs(number) for numbers in found for number in numbers), default=0.0)
    if largest == 0:
        return 2
    halves = [(numbers[2] - numbers[1]) / 2 for numbers in found if len(numbers) > 1 and numbers[2] > numbers[1]]
    before = math.floor(math.log10(largest)) + 1  # digits before the point; negative for leading zeros behind it
    if halves:
        wanted = _OF_INTERVAL - 1 - math.floor(math.log10(min(halves)))
    else:
        wanted = _WITHOUT_INTERVAL - before if without_interval is None else without_interval
    return max(0, min(wanted, _AT_MOST - before))
