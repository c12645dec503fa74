"""The rules, what tasks take to run, and what has changed on the board."""

from __future__ import annotations

import re

import pandas as pd
import streamlit as st
from cards import site_markdown
from reading import Reading, read

from collapsebench.paths import bundled
from collapsebench.publishing.board import cell_costs
from collapsebench.task import load_task, registered_tasks

PARTS = ("Rules", "Tasks and cost", "Changes")
BOARD_CHANGES = re.compile(r"^- \[(?:Leaderboard|Rules)\] .*$", re.MULTILINE)


def show_rules() -> None:
    """The protocol, when it is there."""
    file = bundled("docs") / "protocol.md"
    if not file.is_file():
        st.info("The protocol is not part of this installation: it is docs/protocol.md of the repository.")
        return
    st.markdown(site_markdown(file.read_text("utf-8")), width=820)


def show_costs(reading: Reading) -> None:
    """What a cell of every task took, by the submissions of the baselines."""
    st.markdown(
        "A cell is one method and one seed over all generations; a comparison runs one for every method and official "
        "seed. The times were recorded by the published entries of the baselines on the processor named; they differ "
        "on other processors. `collapsebench compare` runs cells in parallel if there are enough cores.",
        width=820,
    )
    found = reading.kept(cell_costs)
    rows = []
    for path in registered_tasks().values():
        task = load_task(path)
        mine = found[found["task"] == task.id]
        seeds = len(task.spec.seeds)
        seconds = mine["seconds"].mean() if len(mine) else None
        rows.append(
            {
                "task": task.id,
                "tier": task.spec.tier,
                "seeds": seeds,
                "generations": task.spec.horizon + 1,
                "seconds": seconds,
                "method": None if seconds is None else seconds * seeds / 60,
                "measured on": ", ".join(sorted(set(mine["processor"]))) or "not measured",
                "device": ", ".join(sorted(set(mine["device"]))),
                "state": task.mark or "open" if task.calibrated else "not calibrated yet",
            }
        )
    number = st.column_config.NumberColumn
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        placeholder="–",
        alt="Tasks, their size and what a cell took",
        column_config={
            "seconds": number("seconds per cell", format="%.0f", help="Mean over the cells of ce, focal and tce."),
            "method": number("minutes per method", format="%.1f", help="All official seeds, one after the other."),
            "generations": number(help="With generation 0."),
            "measured on": st.column_config.TextColumn(width=260),
            "state": st.column_config.TextColumn(help="Only open tasks take submissions."),
        },
    )


def show_changes() -> None:
    """The lines of the changelog that move the board or its rules."""
    file = bundled("CHANGELOG.md")
    if not file.is_file():
        st.info("The changelog is not part of this installation: it is CHANGELOG.md of the repository.")
        return
    shown = 0
    for section in re.split(r"^## ", file.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        lines = BOARD_CHANGES.findall(section)
        if lines:
            shown += len(lines)
            title = section.partition("\n")[0]
            st.markdown(site_markdown(f"## {title}\n\n" + "\n".join(lines).replace("- [", "- \\[")), width=820)
    if not shown:
        st.info("Nothing has changed on the board or in its rules yet.")


reading = read()
st.title("Rules and cost")
part = st.segmented_control("Part", PARTS, default=PARTS[0], key="part", bind="query-params", required=True)
if part == PARTS[0]:
    show_rules()
elif part == PARTS[1]:
    show_costs(reading)
else:
    show_changes()
