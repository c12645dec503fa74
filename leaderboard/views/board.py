"""The board: every task of a tier with its ranking, and what holds over all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
import streamlit as st
from plain_text import as_markdown
from rankings import show_ranking
from reading import Reading, read
from summary import missing_tasks, standing, uncalibrated
from wording import FIDELITY, HELP, MFI

from collapsebench.publishing.across_tasks import overall_table
from collapsebench.publishing.board import Board, csv_text, leaderboard_table, machines
from collapsebench.reports.report import records
from collapsebench.scoring.columns import METHOD, ends_text
from collapsebench.task import Task
from collapsebench.workloads.kinds import KINDS

TIERS, TRACKS = ("micro", "standard"), ("loss", "provenance")


@dataclass(frozen=True)
class Filters:
    """What the reader wants to see; no modalities: all of them."""

    tier: str
    track: str
    modalities: list[str]
    verified: bool
    search: str

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of `Board.table` that pass."""
        keep = (table["tier"] == self.tier) & (table["track"] == self.track)
        if self.modalities:
            keep &= table["modality"].isin(self.modalities)
        if self.verified:
            keep &= table["verified"] == "verified"
        if self.search:
            texts = table["method"] + "\n" + table["authors"] + "\n" + table["digest"]
            keep &= texts.str.contains(self.search, case=False, regex=False)
        return table[keep]


def ask() -> Filters:
    """The row of filters; all of them are in the address."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        tier = st.segmented_control(
            "Tier", TIERS, default=TIERS[0], key="tier", bind="query-params", required=True,
            help="micro: two CPU cores and no network. standard: one GPU.",
        )  # fmt: skip
        track = st.segmented_control(
            "Track", TRACKS, default=TRACKS[0], key="track", bind="query-params", required=True,
            help="loss: the method is a loss and cannot see which data a model made. provenance: it can. "
            "Tracks are never ranked together.",
        )  # fmt: skip
        modalities = st.pills(
            "Modality", list(KINDS), selection_mode="multi", key="modality", bind="query-params",
            help="What is modelled; none chosen: all. "
            + " ".join(f"{kind.name}: {kind.label}." for kind in KINDS.values()),
        )  # fmt: skip
        search = st.text_input(
            "Search", key="search", bind="query-params", placeholder="method, author or digest", width=220
        )
        verified = st.toggle(
            "Verified by others", key="verified", bind="query-params",
            help="Only entries that somebody else has run again, in part, with the same outcome.",
        )  # fmt: skip
    return Filters(tier, track, modalities, verified, search.strip())


def show_overall(reading: Reading, filters: Filters) -> None:
    """Methods over all tasks of the tier; the modality does not change what all tasks are."""
    table = reading.kept(overall_table, filters.tier, filters.track)
    tasks = sum(task.spec.tier == filters.tier for task in reading.board.tasks.values())
    if table.empty or not tasks:
        return
    st.header(f"Over all {tasks} tasks of the {filters.tier} tier")
    st.caption(
        "Overall: mFI as a share of the generations, mean over tasks, and the chance to be better than CE. Then mFI on "
        f"every task. {missing_tasks(table, tasks)}"
    )
    if filters.search:
        table = table[table["method"].str.contains(filters.search, case=False, regex=False)]
    mine = reading.board.table
    mine = mine[(mine["tier"] == filters.tier) & (mine["track"] == filters.track)]
    by_task = mine.pivot_table(index="what", columns="task", values="mfi", aggfunc="first")
    shown = table.join(by_task, on="what").assign(tasks=[f"{n} of {tasks}" for n in table["tasks"]])
    for name in ("share", "improvement"):
        shown[f"{name}_ends"] = [ends_text(row, name) for row in records(table)]
    shown["missing"] = [", ".join(ids) for ids in table["missing"]]
    scores = ["share", "share_ends", "improvement", "improvement_ends"]
    columns = ["method", *scores, *by_task, "tasks", "verified"]
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    st.dataframe(
        shown[[*columns, "missing"] if shown["missing"].any() else columns],
        key="overall",
        hide_index=True,
        placeholder="–",
        alt=f"methods over all tasks of the {filters.tier} tier",
        column_config={
            "method": text(help=METHOD.meaning, width=132, pinned=True),
            "share": number("overall", help=HELP["overall"], format="%.3f", width=78),
            "share_ends": text("95 %", help=HELP["overall"], width=96),
            "improvement": number("better than CE", help=HELP["improvement"], format="%.2f", width=104),
            "improvement_ends": text("95 %", help=HELP["improvement"], width=96),
            **{task: number(f"mFI {task}", help=f"{MFI} On {task}.", format="%.2f") for task in by_task},
            "tasks": text("tasks", help=HELP["tasks"], width=70),
            "verified": number("verified", help=HELP["verified_count"], format="%d", width=76),
            "missing": text("missing", help=HELP["missing"], width=320),
        },
    )


def show_task(task: Task, rows: pd.DataFrame) -> None:
    """One task: what it is, and its ranking."""
    spec = task.spec
    st.header(as_markdown(task.id), anchor=spec.name)
    scored = ", ".join(as_markdown(spec.metric(name).title) for name in spec.scored)
    st.caption(
        f"{as_markdown(spec.title)}. {len(spec.seeds)} seeds, generations 0 to {spec.horizon}. Scored: {scored}."
    )
    show_ranking(rows, f"ranking-{spec.name}", f"ranking of {task.id}")
    with st.container(horizontal=True, gap="medium"):
        st.page_link(
            "views/task.py",
            label="Curves and calibration",
            icon=":material/show_chart:",
            query_params={"task": task.id},
        )
        st.page_link(
            "views/gallery.py",
            label="What the models made",
            icon=":material/grid_view:",
            query_params={"task": task.id},
        )


def show_broken(board: Board) -> None:
    """Files that are not valid: listed, never fatal."""
    if not board.broken:
        return
    n = len(board.broken)
    with st.expander(f"{n} {'file is' if n == 1 else 'files are'} not valid and not ranked", icon=":material/error:"):
        problems = [
            {"file": f"{v.path.parent.name}/{v.path.name}", "place": p.path, "given": p.given, "allowed": p.allowed,
             "code": p.code}
            for v in board.broken for p in v.problems
        ]  # fmt: skip
        st.dataframe(pd.DataFrame(problems), hide_index=True, alt="Problems of the files that are not valid")


def show_no_entries(filters: Filters, board: Board) -> None:
    """Why there is nothing to see."""
    here = board.table[(board.table["tier"] == filters.tier) & (board.table["track"] == filters.track)]
    waiting = ", ".join(uncalibrated(filters.tier))
    if len(here):
        st.info("No entry passes these filters.")
    elif waiting and not any(task.spec.tier == filters.tier for task in board.tasks.values()):
        st.info(f"No entries: {waiting} are not calibrated yet, so nothing can be submitted to them.")
    else:
        st.info(f"No entries on the {filters.track} track of the {filters.tier} tier yet.")


reading = read()
st.title("Leaderboard")
st.markdown(
    "A generative model is trained on real data and writes data, the next model is trained on that, and so on; quality "
    "decays. The board ranks methods, mostly training losses, by how many generations their models stay faithful to "
    "the real data.",
    width=820,
)
st.caption(standing(reading.board, reading.kept(machines)))
st.markdown(f"{MFI} {FIDELITY} Hover over a column's title for what it holds.", width=820)
filters = ask()
rows = filters.rows(reading.board.table)
if rows.empty:
    show_no_entries(filters, reading.board)
else:
    show_overall(reading, filters)
    for task_id, of_task in rows.groupby("task", sort=False):
        show_task(reading.board.tasks[str(task_id)], of_task)
    st.download_button(
        "Download these rows as CSV",
        lambda: csv_text(leaderboard_table(replace(reading.board, table=rows))),
        "leaderboard.csv",
        "text/csv",
        on_click="ignore",
        icon=":material/download:",
    )
if reading.board.superseded:
    st.caption(f"{len(reading.board.superseded)} superseded entries are not ranked; the submission page has them.")
show_broken(reading.board)
