"""Methods over all ranked tasks of a tier: scores, the probability of beating CE, performance profiles."""

from __future__ import annotations

import charts
import pandas as pd
import streamlit as st
from reading import Reading
from summary import missing_tasks
from wording import HELP, MFI

from collapsebench.methods import BASELINES
from collapsebench.publishing.across_tasks import overall_table, profile_table, ranked_tasks
from collapsebench.publishing.board import Board
from collapsebench.scoring.columns import METHOD, ends_text, records

MOST_PROFILES = 8


def show_overall(reading: Reading, tier: str, track: str, search: str) -> None:
    """Show methods over all ranked tasks of a tier; show nothing if there are none.

    Args:
        search: show only methods whose names contain this text.
    """
    board = reading.board
    table, tasks = reading.kept(overall_table, tier, track), ranked_tasks(board, tier)
    if table.empty or not tasks:
        return
    st.header(f"Over all {len(tasks)} ranked tasks of the {tier} tier", anchor="overall")
    st.caption(
        "Overall: mFI as a share of the generations, mean over tasks; the probability of beating CE; then mFI on "
        f"every task. {missing_tasks(table, len(tasks))} {left_out(board, tier)}"
    )
    if search:
        table = table[table["method"].str.contains(search, case=False, regex=False)]
    _show_table(board, table, tasks, tier, track)
    _show_profile(reading, tier, track, list(table["what"]))


def left_out(board: Board, tier: str) -> str:
    """A text that names the tasks that do not count because they are retired or do not meet a rule."""
    mine = sorted((i, task) for i, task in board.tasks.items() if task.spec.tier == tier)
    retired = ", ".join(i for i, task in mine if task.spec.retired)
    broken = ", ".join(i for i, task in mine if task.unranked and not task.spec.retired)
    told = [f"Left out, because they are retired: {retired}."] if retired else []
    told += [f"Left out, because they break a rule of a ranked task: {broken}."] if broken else []
    return " ".join(told)


def _show_table(board: Board, table: pd.DataFrame, tasks: list[str], tier: str, track: str) -> None:
    mine = board.table[(board.table["track"] == track) & board.table["task"].isin(tasks)]
    by_task = mine.pivot_table(index="what", columns="task", values="mfi", aggfunc="first")
    shown = table.join(by_task, on="what").assign(tasks=[f"{n} of {len(tasks)}" for n in table["tasks"]])
    for name in ("share", "improvement"):
        shown[f"{name}_ends"] = [ends_text(row, name) for row in records(table)]
    shown["missing"] = [", ".join(ids) for ids in table["missing"]]
    scores = ["share", "share_ends", "improvement", "improvement_ends"]
    lacking = ["missing"] if shown["missing"].any() else []
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    st.dataframe(
        shown[["method", *scores, "tasks", *lacking, *by_task, "verified"]],
        key="overall",
        hide_index=True,
        placeholder="–",
        alt=f"methods over all ranked tasks of the {tier} tier",
        column_config={
            "method": text(help=METHOD.meaning, width=132, pinned=True),
            "share": number("overall", help=HELP["overall"], format="%.3f", width=78),
            "share_ends": text("95 %", help=HELP["overall"], width=96),
            "improvement": number("better than CE", help=HELP["improvement"], format="%.2f", width=104),
            "improvement_ends": text("95 %", help=HELP["improvement"], width=96),
            **{task: number(f"mFI {task}", help=f"{MFI} On {task}.", format="%.2f") for task in by_task},
            "tasks": text("tasks", help=HELP["tasks"], width=70),
            "verified": number("verified", help=HELP["verified_count"], format="%d", width=76),
            "missing": text("missing", help=HELP["missing"], width=220),
        },
    )


def _show_profile(reading: Reading, tier: str, track: str, order: list[str]) -> None:
    """Show the share of runs that reach a level, for the best methods and the baselines."""
    profile = reading.kept(profile_table, tier, track)
    there = [what for what in order if what in set(profile["what"])]
    names = dict(zip(profile["what"], profile["method"], strict=True))
    shown = [what for i, what in enumerate(there) if i < MOST_PROFILES - len(BASELINES) or names[what] in BASELINES]
    if not shown:
        return
    mine = profile[profile["what"].isin(shown)]
    at_half = mine[mine["level"] == 0.5]
    told = "; ".join(f"{row['method']} {100 * row['runs']:.0f} %" for row in records(at_half))
    st.markdown("**How many runs stay faithful for how long**")
    st.altair_chart(
        charts.profile_chart(mine, charts.styles([names[what] for what in shown])),
        alt=f"Share of runs by the share of generations that they stay faithful. For half of them or more: {told}",
    )
    st.caption(
        "Performance profile: the share of runs, mean over tasks, whose mFI reaches at least this share of the "
        "generations. A curve that is above another one everywhere is better at every level."
    )
