"""Shows whether an entry is current, and what others found when they reran a part of it."""

from __future__ import annotations

import pandas as pd
import streamlit as st
from wording import HELP

from collapsebench.publishing.board import Board
from collapsebench.publishing.entries import Entry

STATES = {
    "verified": ("Verified by others", "green", ":material/verified:"),
    "by its authors": ("Verified by its authors only", "blue", ":material/check:"),
    "disputed": ("Disputed: a run on the same kind of machine differed", "red", ":material/error:"),
    "inconclusive": ("Run again on another kind of machine, with a difference", "orange", ":material/help:"),
    "no": ("Not verified yet", "gray", ":material/pending:"),
}


def show_state(board: Board, entry: Entry) -> None:
    """Show whether the entry is current, and the outcome of its attestations."""
    if entry.digest in board.superseded:
        later = [e.digest for e in board.entries.values() if e.supersedes == entry.digest]
        st.badge("Superseded: out of the ranking", color="orange", icon=":material/history:")
        for digest in later:
            st.page_link("views/submission.py", label=f"Replaced by {digest}", query_params={"entry": digest})
        return
    (state,) = board.table.loc[board.table["digest"] == entry.digest, "verified"]
    label, colour, icon = STATES[state]
    st.badge(label, color=colour, icon=icon, help=HELP["verified"])


def show_attestations(board: Board, entry: Entry) -> None:
    """Show who reran the entry, and the outcome."""
    st.header("Attestations", anchor="attestations")
    found = board.attestations.get(entry.digest, [])
    if not found:
        st.text("There are no attestations of this entry yet.")
        return
    rows = [
        {
            "outcome": a.outcome,
            "by": a.by,
            "an author": "yes" if a.by in entry.authors else "no",
            "date": a.date,
            "seed": a.seed,
            "generations": f"0 to {a.generations}",
            "compared": a.compared,
            "identical": a.identical,
            "largest difference": None if a.largest is None or a.largest.relative is None else a.largest.relative,
            "tolerance": a.tolerance,
            "same kind of machine": "yes" if a.alike else "no",
            "processor": a.machine.gpu or a.machine.processor,
        }
        for a in found
    ]
    share = st.column_config.NumberColumn(format="%.3g")
    st.dataframe(
        pd.DataFrame(rows), hide_index=True, alt="Attestations", placeholder="–",
        column_config={"largest difference": share, "tolerance": share},
    )  # fmt: skip
