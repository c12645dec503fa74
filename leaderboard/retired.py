"""Tasks that are retired, or break a rule: how pages say that what was measured on them is not ranked."""

from __future__ import annotations

import streamlit as st
from plain_text import as_markdown

from collapsebench.task import Task

_ICON = ":material/inventory_2:"


def reason_of(task: Task) -> str:
    """Why the task is not ranked, as Markdown; empty when it is."""
    return as_markdown(task.spec.retired or task.unranked or "")


def marked(task: Task) -> str:
    """The task's id, with the mark when it is not ranked."""
    return f"{task.id} ({task.mark})" if task.mark else task.id


def show_mark(task: Task) -> None:
    """A short mark with the reason behind it; nothing for a task that is ranked."""
    if task.mark:
        told = "Retired task: not ranked" if task.spec.retired else "Task that breaks a rule: not ranked"
        st.badge(told, color="orange", icon=_ICON, help=reason_of(task))


def show_banner(task: Task) -> None:
    """Say in full that the task is not ranked, and why; nothing for a task that is."""
    if task.spec.retired:
        st.warning(
            "**This task is retired: its methods are not ranked, and it takes no new entries.** Its results "
            f"stay visible below.\n\n{reason_of(task)}",
            icon=_ICON,
        )
    elif task.mark:
        st.warning(f"**This task breaks rules of a ranked task.**\n\n{reason_of(task)}", icon=_ICON)
