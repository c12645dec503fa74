"""Strangers' texts in Markdown: shown as they are, whatever they contain."""

from __future__ import annotations

import html
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_text import as_markdown

HOSTILE = (
    "**bold** [x](https://e.org) `code` :material/home: $x$ :red[hi] #h",
    "![x](https://e.org/x.png) :red-badge[b] :small[s] ~~s~~ _u_ :smile:",
    "www.example.org https://example.org a@example.org",
    "<b>x</b> &amp; \\* -- -> <- >= <= ~= 1. - + | > #",
)


def shown(markdown: str) -> str:
    """The text that a reader sees for Markdown made only of character references."""
    return html.unescape(markdown).replace("\u2060", "")


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_shown_as_it_is(text: str) -> None:
    assert shown(as_markdown(text)) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_no_punctuation_is_left_for_markdown_to_read(text: str) -> None:
    left = as_markdown(text).replace("&#", "").replace(";", "")
    assert not set(left) & set(string.punctuation)


def test_signs_that_streamlit_would_join_are_kept_apart() -> None:
    for joined in ("--", "->", "<-", ">=", "<=", "~="):
        assert "\u2060" in as_markdown(joined)


def test_lines_become_one_so_that_no_block_begins() -> None:
    assert as_markdown("a\n\n# b\r\n    c") == "a &#35; b c"


@given(st.text())
def test_any_text_survives_but_for_its_blanks(text: str) -> None:
    assert shown(as_markdown(text)) == " ".join(text.replace("\u2060", "").split())
