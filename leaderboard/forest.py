"""The picture that the board begins with: how long methods stay faithful, on every ranked task."""

from __future__ import annotations

import charts
import pandas as pd
import streamlit as st
from plain_text import as_markdown
from reading import Reading
from wording import FIDELITY, MFI

from collapsebench.methods import BASELINES
from collapsebench.scoring.columns import interval_text, records

MOST = 6


def show_forest(reading: Reading, rows: pd.DataFrame) -> None:
    """mFI / G with intervals, a panel per task, the best methods and the baselines in each.

    Args:
        rows: of ranked tasks, as in `collapsebench.publishing.board.Board.table`.
    """
    st.header("How long each method stays faithful", anchor="forest")
    panels = list(rows.groupby("task", sort=False))
    across = min(len(panels), 2 if len(panels) == 4 else 3)
    for place, (task_id, mine) in enumerate(panels):
        if place % across == 0:  # a row of its own, so that phones keep the order
            columns = st.columns(across, gap="medium")
        with columns[place % across]:
            _panel(str(task_id), forest_rows(mine, reading.board.tasks[str(task_id)].spec.horizon))
    st.caption(
        "Further right is better. Dots: mean over seeds of mFI as a share of the generations that were run; lines: its "
        f"95 % interval; dashed: cross entropy (ce), the usual loss. Up to {MOST} methods of a task, and the baselines."
    )
    st.markdown(f"{MFI} {FIDELITY}", width=820)


def forest_rows(table: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """The best methods of a task and the baselines, with mFI and its interval as shares of the generations."""
    shown = table[(table["mfi"].rank(ascending=False, method="first") <= MOST) | table["method"].isin(BASELINES)]
    found = [{**row, "text": interval_text(row, "mfi")} for row in records(shown.drop(columns="curve"))]
    ends = ["mfi", "mfi_low", "mfi_high"]
    frame = pd.DataFrame(found)
    frame[ends] = frame[ends].astype(float) / horizon
    return frame


def _panel(task_id: str, rows: pd.DataFrame) -> None:
    st.markdown(f"**{as_markdown(task_id)}**")
    told = "; ".join(f"{row['method']} {row['text']}" for row in records(rows))
    st.altair_chart(
        charts.interval_chart(rows, charts.styles(list(rows["method"])), 1, "share of the generations (mFI / G)"),
        alt=f"mFI on {task_id}, in generations, with 95 % intervals: {told}",
    )
