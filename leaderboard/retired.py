"""Marks tasks that are retired or do not meet a rule, since results on them are not ranked."""

from __future__ import annotations

import streamlit as st
from plain_text import as_markdown

from collapsebench.task import Task

_ICON = ":material/inventory_2:"


def reason_of(task: Task) -> str:
    """The reason why the task is not ranked, as Markdown; empty if it is ranked."""
    return as_markdown(task.spec.retired or task.unranked or "")


def marked(task: Task) -> str:
    """The task's id, with a mark if it is not ranked."""
    return f"{task.id} ({task.mark})" if task.mark else task.id


def show_mark(task: Task) -> None:
    """Show a short mark with the reason; nothing for a ranked task."""
    if task.mark:
        told = "Retired task: not ranked" if task.spec.retired else "Task that breaks a rule: not ranked"
        st.badge(told, color="orange", icon=_ICON, help=reason_of(task))


def show_banner(task: Task) -> None:
    """Show that the task is not ranked, and why; nothing for a ranked task."""
    if task.spec.retired:
        st.warning(
            "**This task is retired: its methods are not ranked, and it takes no new entries.** Its results "
            f"stay visible below.\n\n{reason_of(task)}",
            icon=_ICON,
        )
    elif task.mark:
        st.warning(f"**This task breaks rules of a ranked task.**\n\n{reason_of(task)}", icon=_ICON)
