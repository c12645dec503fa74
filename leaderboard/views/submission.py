"""One entry: what it is, where it comes from, its raw metrics, how to check and cite it."""

from __future__ import annotations

import json

import pandas as pd
import streamlit as st
from choices import choose_entry, show_link
from plain_text import as_markdown
from reading import Reading, read
from reproduction import citation, commands, file_of, host_of, machine
from retired import show_mark
from verification import show_attestations, show_state

from collapsebench.methods import registered_methods
from collapsebench.publishing.board import Board
from collapsebench.publishing.entries import Entry, engagement_rows, read_bounded
from collapsebench.publishing.submission import Submission, raw_frame
from collapsebench.scoring.columns import METHOD, RANK, censored_text, reason, records, shown_columns
from collapsebench.scoring.engagement import engagement_frame


def show_scores(board: Board, entry: Entry) -> None:
    """The entry's row of the ranking."""
    mine = board.table[board.table["digest"] == entry.digest]
    if mine.empty:
        return
    (row,) = records(mine.drop(columns="curve"))
    rivals = board.table[(board.table["task"] == entry.task_id) & (board.table["track"] == entry.track)]
    with st.container(horizontal=True, gap="large"):
        if row["rank_best"] is not None:
            st.metric("Rank", f"{RANK.text(row)} of {len(rivals)}", help=RANK.meaning, width="content")
        for column in shown_columns([row]):
            if column not in (RANK, METHOD) and column.name != f"ratio_{row['method']}":
                st.metric(column.header, column.text(row), help=column.meaning, width="content")
    st.caption(
        f"{as_markdown(reason(row))} FI(0.9) {censored_text(row, 'fi_0.9')}, FI(0.5) {censored_text(row, 'fi_0.5')}."
    )


def show_method(submission: Submission) -> None:
    """What the authors say, as the text that it is."""
    st.header("Method", anchor="method")
    st.text(submission.method.card, width=820)
    method = submission.method
    parameters = json.dumps(method.parameters, ensure_ascii=False, sort_keys=True)
    about = {
        "loss": method.loss,
        "parameters": parameters,
        "track": method.track,
        "runs spent on tuning": "not counted" if method.tuning_runs is None else f"{method.tuning_runs:g}",
        "sha256 of its source": method.source_sha256,
        "authors": "; ".join(submission.authors),
        "date": submission.date,
        "licence": submission.licence,
    }
    st.dataframe(
        pd.DataFrame({"": list(about), "value": list(about.values())}),
        hide_index=True,
        height="content",
        alt="The method as submitted",
        column_config={"": st.column_config.TextColumn(width=170), "value": st.column_config.TextColumn(width=640)},
    )
    host = host_of(method.url)
    if method.loss in registered_methods():
        st.caption(f"The source is part of collapsebench: `baselines/{method.loss}/loss.py`.")
    elif method.url and host:
        st.link_button(f"Source at {as_markdown(host)}", method.url, icon=":material/open_in_new:")
    else:
        st.caption("The entry gives no address of its source, so only its authors can verify it.")


def show_provenance(submission: Submission) -> None:
    """Every session in full."""
    st.header("Provenance", anchor="provenance")
    columns = {}
    for number, session in enumerate(submission.provenance, start=1):
        about = {"seeds": ", ".join(map(str, session.seeds))} | machine(session)
        about |= {"task settings": submission.task.sha256, "prepared data": submission.task.data_sha256}
        columns[f"session {number}"] = about | {k: v or "absent" for k, v in sorted(session.packages.items())}
    st.dataframe(pd.DataFrame(columns), alt="Machines and versions of every session", height=360)


def show_raw(entry: Entry, submission: Submission) -> None:
    """Every raw metric with the engagement, and the file itself."""
    st.header("Raw metrics", anchor="raw")
    raw = raw_frame(submission)
    seconds = {(r.seed, g.generation): g.seconds for r in submission.results for g in r.generations}
    measured = pd.concat([raw, engagement_frame(entry.name, engagement_rows(submission)).assign(status="ok")])
    wide = measured.pivot_table(index=["seed", "generation", "status"], columns="metric", values="value", sort=False)
    wide = wide.reset_index()
    wide["seconds"] = [seconds[(s, g)] for s, g in zip(wide["seed"], wide["generation"], strict=True)]
    st.dataframe(wide, hide_index=True, alt="Raw metrics by seed and generation", placeholder="–")
    if diverged := sorted({f"seed {s} in generation {g}" for s, g in _diverged(raw)}):
        st.caption(f"Diverged: {', '.join(diverged)}. Fidelity is 0 from there on.")
    with st.container(horizontal=True):
        name = f"{entry.name.replace(':', '-')}-{entry.digest}"
        st.download_button("Raw metrics as CSV", raw.to_csv(index=False), f"{name}.csv", "text/csv", on_click="ignore")
        st.download_button(
            "The file as published", read_bounded(entry.path), entry.path.name, "application/json", on_click="ignore"
        )


def _diverged(raw: pd.DataFrame) -> list[tuple[int, int]]:
    mine = raw[raw["status"] == "diverged"]
    return list(zip(mine["seed"], mine["generation"], strict=True))


def show_checks(board: Board, entry: Entry, submission: Submission) -> None:
    """Commands and citation, to copy."""
    st.header("Check it yourself", anchor="reproduce")
    st.code(commands(entry, submission), language="bash", wrap_lines=True)
    st.header("Cite it", anchor="cite")
    st.code(citation(entry, submission, board), language=None, wrap_lines=True)
    st.caption("The file, and the sha256 of its bytes:")
    st.code(f"{file_of(entry)}\n{entry.sha256}", language=None, wrap_lines=True)


def show_entry(reading: Reading, digest: str) -> None:
    """The whole page of an entry."""
    board = reading.board
    entry, submission = board.entries[digest], reading.submission(digest)
    st.subheader(f"{as_markdown(entry.name)} on {as_markdown(entry.task_id)}", anchor=False)
    with st.container(horizontal=True, gap="medium", vertical_alignment="center"):
        show_state(board, entry)
        show_mark(board.tasks[entry.task_id])
        query = {"task": entry.task_id}
        st.page_link("views/task.py", label="Its task", icon=":material/show_chart:", query_params=query)
        st.page_link("views/gallery.py", label="What the models made", icon=":material/grid_view:", query_params=query)
    show_scores(board, entry)
    show_method(submission)
    show_raw(entry, submission)
    show_provenance(submission)
    show_attestations(board, entry)
    show_checks(board, entry, submission)
    show_link(entry=digest)


reading = read()
st.title("Submission")
chosen = choose_entry(reading)
if chosen is None:
    st.info("There are no entries yet.")
else:
    show_entry(reading, chosen)
