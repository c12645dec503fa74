"""Choices that are stored in the address of a page, so that every view has a link."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlencode

import streamlit as st
from plain_text import as_markdown
from reading import Reading
from retired import marked

from collapsebench.methods import BASELINES
from collapsebench.task import Task

MOST_METHODS = 8
"""The number of methods for which a chart has colours, dashes and marks."""


def choose_task(reading: Reading) -> Task:
    """Choose a calibrated task (unranked ones are listed last); the default is the first one with entries."""
    tasks, submitted = reading.board.tasks, set(reading.board.table["task"])
    ids = sorted(tasks, key=lambda i: (tasks[i].mark != "", tasks[i].spec.tier, i))
    report_unknown("task", ids, "calibrated task")
    start = next((i for i in ids if i in submitted), ids[0])
    return tasks[_choose("task", "Task", {i: marked(tasks[i]) for i in ids}, start)]


def choose_methods(labels: Sequence[str]) -> list[str]:
    """Choose from the methods of a task, given best first; the default is the baselines and the three best."""
    report_unknown("methods", labels, "method on this task")
    start = [label for i, label in enumerate(labels) if i < 3 or label in BASELINES]
    chosen: list[str] = st.multiselect(
        "Methods", labels, default=start, key="methods", bind="query-params", max_selections=MOST_METHODS
    )
    return [label for label in labels if label in chosen]


def choose_entry(reading: Reading) -> str | None:
    """Choose an entry, which may be superseded; return its digest, or None if there are no entries."""
    board = reading.board
    unranked = {task_id for task_id, task in board.tasks.items() if task.unranked}
    entries = sorted(
        board.entries.values(),
        key=lambda e: (e.task_id in unranked, e.task_id, e.digest in board.superseded, e.name, e.digest),
    )
    if not entries:
        return None
    labels = {e.digest: f"{e.name} on {marked(board.tasks[e.task_id])}, {e.digest}" for e in entries}
    labels |= {digest: f"{labels[digest]} (superseded)" for digest in board.superseded & labels.keys()}
    report_unknown("entry", labels, "entry")
    return _choose("entry", "Entry", labels, entries[0].digest)


def _choose(key: str, label: str, options: Mapping[str, str], start: str) -> str:
    """A select box that shows labels, while the address stores the chosen keys.

    Streamlit's `bind` would write the labels, and would lose the value from a link if two pages have the same choice.
    """
    widget, seen = f"{key}-choice", f"{key}-seen"
    wanted, last = st.query_params.get(key), st.session_state.get(seen)
    held = wanted if wanted in options and wanted != last else st.session_state.get(widget, last)
    # Set on every run: on another page the list is another widget and would start at its first option.
    st.session_state[widget] = held if held in options else start
    chosen: str = st.selectbox(label, list(options), format_func=options.__getitem__, key=widget)
    st.session_state[seen] = chosen
    if wanted != chosen:
        st.query_params[key] = chosen
    return chosen


def report_unknown(key: str, known: Iterable[str], noun: str) -> None:
    """Report unknown values in the address of the page; call this before showing the choice."""
    there = set(known)
    unknown = [value for value in st.query_params.get_all(key) if value not in there]
    if unknown:
        told = ", ".join(as_markdown(value[:80]) for value in unknown[:3])
        st.warning(f"The link names {told}, but there is no such {noun}. The rest is shown.")


def show_link(**parameters: str | Sequence[str]) -> None:
    """Show the address of the current view, including values left at their defaults."""
    query = urlencode([(k, v) for k, value in parameters.items() for v in _listed(value)], safe="@:,=")
    with st.popover("Link to this view", icon=":material/link:"):
        st.code(f"{st.context.url or ''}?{query}", language=None, wrap_lines=True)


def _listed(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value
