"""Check a file: the same report as `collapsebench validate`, and where the entry would stand."""

from __future__ import annotations

import pandas as pd
import streamlit as st
from plain_text import as_markdown
from reading import Reading, read
from retired import show_mark

from collapsebench.publishing.board import rank_of
from collapsebench.publishing.bounded_json import MAX_BYTES
from collapsebench.publishing.submission import submission_path
from collapsebench.publishing.validation import Context, Verdict, validate_content
from collapsebench.scoring.columns import METHOD, RANK, shown_columns


def show_problems(verdict: Verdict) -> None:
    """Everything that is wrong, at once."""
    n = len(verdict.problems)
    st.error(f"Refused: {n} {'problem' if n == 1 else 'problems'}. Section 8 of the rules explains the codes.")
    rows = [{"code": p.code, "place": p.path, "given": p.given, "allowed": p.allowed} for p in verdict.problems]
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        height="content",
        alt="Problems of the file",
        column_config={
            "code": st.column_config.TextColumn(width=130),
            "place": st.column_config.TextColumn(width=240),
            "given": st.column_config.TextColumn(width=320),
            "allowed": st.column_config.TextColumn(width=420),
        },
    )


def show_rank(reading: Reading, verdict: Verdict) -> None:
    """Where a valid submission would stand."""
    entry, submission = verdict.entry, verdict.submission
    assert entry is not None
    assert submission is not None
    with st.spinner("Ranking it among the others …"):
        row = rank_of(reading.board, entry, submission)
    row = {key: None if pd.isna(value) else value for key, value in row.items()}
    unranked = row["rank_best"] is None
    st.header("What it scores" if unranked else "Where it would stand", anchor="rank")
    st.caption(f"Among the entries of {as_markdown(entry.task_id)}, track {entry.track}.")
    with st.container(horizontal=True, gap="large"):
        if not unranked:
            st.metric("Rank", f"{RANK.text(row)} of {row['entries']}", help=RANK.meaning, width="content")
        for column in shown_columns([row]):
            if column not in (RANK, METHOD) and column.name != f"ratio_{row['method']}":
                st.metric(column.header, column.text(row), help=column.meaning, width="content")


def show_verdict(reading: Reading, verdict: Verdict, content: bytes) -> None:
    """The outcome for the file."""
    if verdict.entry is None or verdict.submission is None:
        show_problems(verdict)
        return
    entry = verdict.entry
    shape = f"{len(entry.chains)} seeds, generations 0 to {entry.generations}"
    st.success(f"Valid: {as_markdown(entry.name)} on {as_markdown(entry.task_id)}, {shape}.")
    if entry.digest in reading.board.entries:
        st.info("This file is already on the board.")
    elif reading.board.tasks[entry.task_id].spec.retired and entry.supersedes is None:
        st.warning("Its task is retired and takes no new entries, so this file would not be accepted.")
    show_mark(reading.board.tasks[entry.task_id])
    st.text("Its place in the repository:")
    st.code(f"submissions/{submission_path(verdict.submission, content)}", language=None, wrap_lines=True)
    show_rank(reading, verdict)


reading = read()
st.title("Check a file")
st.markdown(
    "Upload the JSON file that `collapsebench submit` wrote. It is checked as by `collapsebench validate`: against its "
    "task, for consistency, and against everything on the board. Nothing that it names is imported or run. The file "
    "stays in memory until you remove it or close the page, and is never stored.",
    width=820,
)
upload = st.file_uploader("Submission file", type=["json"], key="upload", help=f"At most {MAX_BYTES:,} bytes.")
if upload is not None:
    if ".attestation-" in upload.name:
        st.info("This looks like an attestation. `collapsebench validate` checks it beside the submission it is about.")
    uploaded = upload.getvalue()[: MAX_BYTES + 1]
    context = Context(reading.board.tasks, list(reading.board.entries.values()))
    show_verdict(reading, validate_content(uploaded, None, context), uploaded)
