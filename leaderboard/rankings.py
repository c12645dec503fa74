"""Rows as pages show them: numbers stay numbers, so that tables sort; intervals are text beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st
from wording import HELP

from collapsebench.reports.report import records

_SHOWN = "^(rank|method|verified|date|authors|digest|auf|generation_0_cost|fi(_low|_high|_censored)?|ratio_.*)$"


def interval(row: Mapping[str, Any], name: str) -> str:
    """The interval of a number as text: ``[3.05, 3.40]``, with ≥ and ≤ for bounds and ≈ for a ratio that ties.

    Args:
        row: plain values. name: column prefix, ``fi`` or ``ratio_ce``.
    """
    if row.get(name) is None or name == f"ratio_{row.get('method')}":
        return "–"
    bound = row.get(f"{name}_bound") or ("lower" if row.get(f"{name}_censored") else "exact")
    sign = {"lower": "≥ ", "upper": "≤ "}.get(bound, "")
    low, high = (_end(row.get(f"{name}_{side}")) for side in ("low", "high"))
    if low == high == "…":
        return f"{sign}n/a"
    return f"{sign}[{low}, {high}]{' ≈' if row.get(f'{name}_tied') else ''}"


def with_interval(row: Mapping[str, Any], name: str) -> str:
    """A number and its interval: ``≥ 13.33 [12.10, …]``."""
    value = row.get(name)
    if value is None:
        return "n/a"
    text = interval(row, name)
    sign = next((sign for sign in ("≥ ", "≤ ") if text.startswith(sign)), "")
    return f"{sign}{value:.2f} {text.removeprefix(sign)}".replace(" n/a", " [n/a]")


def ranking(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a task's ranking, from those of `collapsebench.publishing.board.Board.table`."""
    rows = []
    for row in records(table.filter(regex=_SHOWN)):
        row[f"ratio_{row['method']}"] = None  # to itself
        rows.append(
            {
                "rank": row["rank"],
                "method": row["method"],
                "fi": row["fi"],
                "fi_interval": interval(row, "fi"),
                "ratio_ce": row["ratio_ce"],
                "ratio_ce_interval": interval(row, "ratio_ce"),
                "ratio_tce": row["ratio_tce"],
                "ratio_tce_interval": interval(row, "ratio_tce"),
                "auf": row["auf"],
                "cost": round(100 * row["generation_0_cost"], 1) + 0.0,  # never minus nothing
                "verified": row["verified"],
                "entry": f"submission?entry={row['digest']}",
                "date": row["date"],
                "authors": row["authors"],
            }
        )
    shown = pd.DataFrame(rows)
    shown.insert(4, "curve", [list(curve) for curve in table["curve"]])
    return shown


def show_ranking(table: pd.DataFrame, key: str, alt: str) -> None:
    """Show a task's ranking as an interactive table."""
    number = st.column_config.NumberColumn
    text = st.column_config.TextColumn
    st.dataframe(
        ranking(table),
        key=key,
        hide_index=True,
        placeholder="–",
        alt=alt,
        column_config={
            "rank": number("#", help=HELP["rank"], width=40, pinned=True, format="%d"),
            "method": text("method", help=HELP["method"], width=128, pinned=True),
            "curve": st.column_config.LineChartColumn(
                "fidelity", help=HELP["curve"], width=96, y_min=0, y_max=1, color="#2E86C8"
            ),
            "fi": number("FI(0.75)", help=HELP["fi"], width=78, format="%.2f"),
            "fi_interval": text("95 %", help=HELP["fi_interval"], width=112),
            "ratio_ce": number("ratio to CE", help=HELP["ratio"], width=90, format="%.2f"),
            "ratio_ce_interval": text("95 %", help=HELP["ratio_interval"], width=112),
            "ratio_tce": number("ratio to TCE", help=HELP["ratio"], width=96, format="%.2f"),
            "ratio_tce_interval": text("95 %", help=HELP["ratio_interval"], width=112),
            "auf": number("AUF", help=HELP["auf"], width=64, format="%.3f"),
            "cost": number("cost at gen. 0", help=HELP["cost"], width=98, format="%.1f %%"),
            "verified": text("verified", help=HELP["verified"], width=84),
            "entry": st.column_config.LinkColumn(
                "entry", help=HELP["entry"], width=84, display_text=r"entry=([0-9a-f]{8})"
            ),
            "date": text("date", help=HELP["date"], width=92),
            "authors": text("authors", width=180),
        },
    )


def finite(value: Any) -> bool:
    """Whether a value is a number that can be shown."""
    return isinstance(value, int | float) and math.isfinite(value)


def _end(value: Any) -> str:
    return f"{value:.2f}" if finite(value) else "…"
