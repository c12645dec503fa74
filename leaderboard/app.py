"""The leaderboard site: navigation, and the frame of every page. `collapsebench leaderboard` starts it."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from collapsebench import __version__

HERE = Path(__file__).resolve().parent
PAGES = (
    ("board", "Board", "Rankings per task, and over all tasks of a tier."),
    ("task", "Task", "One task: curves of its methods, raw metrics, calibration."),
    ("gallery", "Gallery", "What the models draw and write, generation by generation."),
    ("compare", "Compare", "Two methods on every task that both have."),
    ("submission", "Submission", "One entry: provenance, raw metrics, how to reproduce it."),
    ("check", "Check a file", "Validate a submission before you send it; nothing is kept."),
    ("rules", "Rules and cost", "The protocol, the cost of each task, changes to the board."),
)
# On a phone, a table of a card is scrolled, not the page.
WIDE_TABLES = '[data-testid="stMarkdownContainer"] table { display: block; overflow-x: auto; max-width: 100%; }'

pages = [
    st.Page(HERE / "views" / f"{name}.py", title=title, url_path=name, default=name == "board", help=told)
    for name, title, told in PAGES
]
page = st.navigation(pages, position="top")
st.set_page_config(page_title=f"{page.title} · collapsebench", page_icon=str(HERE / "icon.svg"), layout="wide")
st.logo(HERE / "logo.svg", size="large")
st.html(f"<style>{WIDE_TABLES}</style>")
page.run()
st.caption(
    f"collapsebench {__version__}. Every number is recomputed from the raw metrics of the submissions. The site loads "
    "nothing from other servers and sends nothing to them."
)
