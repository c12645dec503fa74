"""A task's card: our own Markdown, with the pictures next to it."""

from __future__ import annotations

import re

import streamlit as st

from collapsebench.paths import bundled
from collapsebench.task import Task
from collapsebench.task_files import own_file

_PICTURE = re.compile(r"^!\[(?P<alt>[^\]]*)\]\((?P<file>[^)]+)\)$", re.MULTILINE)
_LOCAL_LINK = re.compile(r"\[([^\]]+)\]\((?!https?://)[^)]*\)")
_TITLE = re.compile(r"\A# .*\n+")
_TEXT_WIDTH = 820


def show_card(task: Task) -> None:
    """Show the card. The card of an external task file is untrusted and is shown as plain text."""
    file = own_file(task.path, "card.md")
    if not file.is_file():
        return
    st.header("About this task", anchor="about")
    text = file.read_text("utf-8")
    if not task.path.is_relative_to(bundled("tasks").resolve()):
        st.text(text)
        return
    for kind, content in pieces(text):
        if kind == "text":
            st.markdown(content, width=_TEXT_WIDTH)
            continue
        alt, _, name = content.partition("\n")
        picture = (file.parent / name).resolve()
        if picture.is_file():
            st.image(picture, alt=alt, width=_TEXT_WIDTH)


def pieces(card: str) -> list[tuple[str, str]]:
    """Split a card into its parts, in order: ``("text", Markdown)`` and ``("picture", "alt\\nfile")``.

    The title is left out, and the text is converted by `site_markdown`.
    """
    found: list[tuple[str, str]] = []
    rest = _TITLE.sub("", card)
    end = 0
    for picture in _PICTURE.finditer(rest):
        found.append(("text", rest[end : picture.start()]))
        found.append(("picture", f"{picture['alt']}\n{picture['file']}"))
        end = picture.end()
    found.append(("text", rest[end:]))
    return [(kind, site_markdown(part) if kind == "text" else part) for kind, part in found if part.strip()]


def site_markdown(text: str) -> str:
    """Convert our Markdown for the site: headings move one level down, and links to repository files become text."""
    lowered = re.sub(r"^(#+ )", r"#\1", text, flags=re.MULTILINE)
    return _LOCAL_LINK.sub(r"\1", lowered)
