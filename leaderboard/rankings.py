"""Formats table rows for pages: numbers stay numbers, so that tables can be sorted; intervals are text."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import streamlit as st
from wording import HELP

from collapsebench.scoring.columns import COLUMNS, METHOD, RANK, Column, records, shown_columns

_WIDTHS = {"method": 128, "rank_best": 52, "mfi": 64, "binds": 190}


def ranking(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a task's ranking, from those of `collapsebench.publishing.board.Board.table`.

    There is no column for ranks if the task is not ranked.
    """
    rows = []
    found = records(table.drop(columns="curve"))
    columns = shown_columns(found)
    for row in found:
        shown: dict[str, Any] = {}
        for column in columns:
            itself = column.name == f"ratio_{row['method']}"
            shown[column.name] = None if itself else row[column.name] if column.number else column.text(row)
            if column.ends is not None:
                shown[f"{column.name}_ends"] = column.ends(row)
        entry = f"submission?entry={row['digest']}"
        rows.append(shown | {"verified": row["verified"], "entry": entry} | {k: row[k] for k in ("date", "authors")})
    shown_table = pd.DataFrame(rows)
    shown_table.insert(4, "curve", [list(curve) for curve in table["curve"]])
    return shown_table if table["rank_best"].notna().any() else shown_table.drop(columns="rank_best")


def show_ranking(table: pd.DataFrame, key: str, alt: str) -> None:
    """Show a task's ranking as an interactive table."""
    text = st.column_config.TextColumn
    config: dict[str, Any] = {}
    widths = _WIDTHS if table["symbols"].all() else _WIDTHS | {"masked_gradient": 152}  # "19 % (p is a density)"
    for column in COLUMNS:
        config[column.name] = _configured(column, widths.get(column.name, 84))
        if column.ends is not None:
            config[f"{column.name}_ends"] = text("95 %", help=column.meaning, width=112)
    config |= {
        "curve": st.column_config.LineChartColumn(
            "fidelity", help=HELP["curve"], width=96, y_min=0, y_max=1, color="#2E86C8"
        ),
        "verified": text("verified", help=HELP["verified"], width=84),
        "entry": st.column_config.LinkColumn(
            "entry", help=HELP["entry"], width=84, display_text=r"entry=([0-9a-f]{8})"
        ),
        "date": text("date", help=HELP["date"], width=92),
        "authors": text("authors", width=180),
    }
    st.dataframe(ranking(table), key=key, hide_index=True, placeholder="–", alt=alt, column_config=config)


def _configured(column: Column, width: int) -> Any:
    header = column.header.removesuffix(" [95 %]")
    if column.number:
        return st.column_config.NumberColumn(header, help=column.meaning, width=width, format="%.2f")
    pinned = column in (RANK, METHOD)
    return st.column_config.TextColumn(header, help=column.meaning, width=width, pinned=pinned)


def finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)
