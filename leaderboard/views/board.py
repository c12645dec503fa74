"""The board: every task of a tier with its ranking, and what holds over all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
import streamlit as st
from forest import show_forest
from overall import show_overall
from plain_text import as_markdown
from rankings import show_ranking
from reading import Reading, read
from retired import reason_of
from summary import standing, uncalibrated

from collapsebench.publishing.across_tasks import ranked_tasks
from collapsebench.publishing.board import Board, csv_text, leaderboard_table, machines
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
            help="Only entries that somebody else has run again, in part, with the same result.",
        )  # fmt: skip
    return Filters(tier, track, modalities, verified, search.strip())


def show_task(task: Task, rows: pd.DataFrame) -> None:
    """One task: what it is, and its ranking; of one that is not ranked why, and what was measured."""
    spec = task.spec
    (st.subheader if task.unranked else st.header)(as_markdown(task.id), anchor=spec.name)
    scored = ", ".join(as_markdown(spec.metric(name).title) for name in spec.scored)
    st.caption(
        f"{as_markdown(spec.title)}. {len(spec.seeds)} seeds, generations 0 to {spec.horizon}. Scored: {scored}."
    )
    if task.unranked:
        st.markdown(reason_of(task), width=820)
    alt = f"entries of {task.id}, not ranked" if task.unranked else f"ranking of {task.id}"
    show_ranking(rows, f"ranking-{spec.name}", alt)
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


def show_no_ranked(board: Board, filters: Filters) -> None:
    """Why there is no ranking, and what can be done meanwhile."""
    tasks = ranked_tasks(board, filters.tier)
    if not tasks:
        st.info(
            f"No task of the {filters.tier} tier is ranked at the moment. The reasons and the results are below. "
            "Ranking resumes with their successors. Until then, `collapsebench compare` still runs and compares "
            "methods on every task.",
            icon=":material/hourglass_empty:",
        )
    elif board.table["task"].isin(tasks).any():
        st.info("No entry on a ranked task passes these filters.")
    else:
        st.info(f"Nobody has submitted to {', '.join(map(as_markdown, tasks))} yet: the first place is free.")


def show_ranked(reading: Reading, filters: Filters, rows: pd.DataFrame) -> None:
    """The tasks that count: one picture, then all of them together, then each by itself."""
    if rows.empty:
        show_no_ranked(reading.board, filters)
        return
    show_forest(reading, rows)
    show_overall(reading, filters.tier, filters.track, filters.search)
    for task_id, of_task in rows.groupby("task", sort=False):
        show_task(reading.board.tasks[str(task_id)], of_task)


def show_retired(reading: Reading, rows: pd.DataFrame) -> None:
    """What was measured on tasks that are retired."""
    if rows.empty:
        return
    st.header("Retired tasks", anchor="retired")
    st.caption(
        "The results stay visible, but no conclusions are drawn from them: no ranks, no verdicts, no overall "
        "score. Methods are listed by name. These tasks take no new entries."
    )
    for task_id, of_task in rows.groupby("task", sort=False):
        show_task(reading.board.tasks[str(task_id)], of_task)


def show_unranked(reading: Reading, rows: pd.DataFrame) -> None:
    """What was measured on tasks that break a rule."""
    if rows.empty:
        return
    st.header("Tasks that are not ranked", anchor="unranked")
    st.caption("They break a rule of a ranked task, so there are no ranks, no verdicts and no overall score.")
    for task_id, of_task in rows.groupby("task", sort=False):
        show_task(reading.board.tasks[str(task_id)], of_task)


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
    "A generative model is trained on real data and generates new data. The next model is trained on that output, and "
    "so on. Quality decays. The board ranks methods, mostly training losses, by how many generations their models stay "
    "faithful to the real data.",
    width=820,
)
st.caption(standing(reading.board, reading.kept(machines)))
filters = ask()
rows = filters.rows(reading.board.table)
if rows.empty:
    show_no_entries(filters, reading.board)
else:
    retired, unranked = rows["retired"].astype(bool), rows["unranked"].astype(bool)
    show_ranked(reading, filters, rows[~unranked])
    show_unranked(reading, rows[unranked & ~retired])
    show_retired(reading, rows[retired])
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
