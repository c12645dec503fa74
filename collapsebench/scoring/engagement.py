"""Engagement of a method: how much of cross entropy's gradient its loss leaves out.

It is measured during training (`collapsebench.running.engagement`); older results do not have it. It explains a score
and is not part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import pandas as pd

EngagementShare = Literal["masked_gradient", "masked_elements", "confident_elements"]
SHARES: dict[EngagementShare, str] = {
    "masked_gradient": "Share of cross entropy's gradient on elements that the loss masks",
    "masked_elements": "Share of elements that the loss masks: it gives them less than 5 % of its mean gradient",
    "confident_elements": "Share of elements with p > 0.9",
}
"""The shares measured in every generation, over the elements it was trained on: names, and titles for display."""

LOW = 0.05
"""Below this share of cross entropy's gradient, tables say that a method masks little."""


EngagementRow = tuple[int, int, Mapping[EngagementShare, float] | None]
"""Seed, generation, and the shares by name; None where they were not measured."""


def engagement_frame(method: str, rows: Iterable[EngagementRow]) -> pd.DataFrame:
    """The engagement of a method's cells: method, seed, generation, metric, value.

    Args:
        rows: of its cells; generations that were not measured have no row.
    """
    found = [(method, seed, g, name, value) for seed, g, shares in rows for name, value in (shares or {}).items()]
    return pd.DataFrame(found, columns=["method", "seed", "generation", "metric", "value"])


def masked_gradients(frame: pd.DataFrame) -> pd.Series:
    """``masked_gradient`` of every method that has it, mean over seeds and generations.

    Args:
        frame: of any methods, as `engagement_frame` makes it.
    """
    mine = frame[frame["metric"] == "masked_gradient"]
    return mine.astype({"value": float}).groupby("method")["value"].mean()


def percent_text(share: float) -> str:
    """A share as readable text: ``31 %``, ``0.4 %``, ``0.04 %``, ``0 %``."""
    digits = 0 if share >= 0.095 or share < 0.00005 else 1 if share >= 0.001 else 2
    return f"{100 * share:.{digits}f} %"
