"""The first picture of the board: how long methods stay faithful, on every ranked task."""

from __future__ import annotations

import altair as alt
import charts
import pandas as pd
import streamlit as st
from plain_text import as_markdown
from reading import Reading
from wording import FIDELITY, MFI

from collapsebench.methods import BASELINES
from collapsebench.publishing.board import Board
from collapsebench.scoring.columns import interval_text, records

MOST = 6


def show_forest(reading: Reading, rows: pd.DataFrame) -> None:
    """Show mFI / G with intervals, in one panel per task, for the best methods and the baselines.

    Args:
        rows: rows of ranked tasks, as in `collapsebench.publishing.board.Board.table`.
    """
    st.header("How long each method stays faithful", anchor="forest")
    panels = list(rows.groupby("task", sort=False))
    across = min(len(panels), 2 if len(panels) == 4 else 3)
    for place, (task_id, mine) in enumerate(panels):
        if place % across == 0:  # a separate row, so that phones keep the order
            columns = st.columns(across, gap="medium")
        with columns[place % across]:
            shown = tuple(mine.loc[foremost(mine), "digest"])
            chart, told = reading.kept(_panel, str(task_id), shown)  # drawing is the slowest part of the page
            st.markdown(f"**{as_markdown(str(task_id))}**")
            st.altair_chart(chart, alt=f"mFI on {task_id}, in generations, with 95 % intervals: {told}")
    st.caption(
        "Further right is better. Dots: mean over seeds of mFI as a share of the generations that were run; lines: its "
        f"95 % interval; dashed: cross entropy (ce), the usual loss. Up to {MOST} methods of a task, and the baselines."
    )
    st.markdown(f"{MFI} {FIDELITY}", width=820)


def foremost(table: pd.DataFrame) -> pd.Series[bool]:
    """Mask of the rows of a task to show: those of the best methods and of the baselines."""
    return (table["mfi"].rank(ascending=False, method="first") <= MOST) | table["method"].isin(BASELINES)


def forest_rows(table: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """Rows of a task with mFI and its interval, as shares of the generations and as text in generations."""
    ends = ["mfi", "mfi_low", "mfi_high"]
    frame = table[["method", *ends]].reset_index(drop=True)
    frame["text"] = [interval_text(row, "mfi") for row in records(frame)]
    frame[ends] = frame[ends].astype(float) / horizon
    return frame


def _panel(board: Board, task_id: str, digests: tuple[str, ...]) -> tuple[alt.LayerChart, str]:
    """The chart of the given entries of a task, and a description in words."""
    mine = board.table[board.table["digest"].isin(digests)]
    rows = forest_rows(mine, board.tasks[task_id].spec.horizon)
    look = charts.styles(list(rows["method"]))
    told = "; ".join(f"{row['method']} {row['text']}" for row in records(rows))
    return charts.interval_chart(rows, look, 1, "share of the generations (mFI / G)"), told
