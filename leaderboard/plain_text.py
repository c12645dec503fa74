"""Strangers' texts where Streamlit offers nothing but Markdown: labels, captions, messages.

Everything else goes through `st.text`, `st.code` or `st.dataframe`, which show what they are given.
"""

from __future__ import annotations

import re
import string

_SPECIAL = re.compile(f"[{re.escape(string.punctuation)}]")
_JOINED = re.compile(r"(?<=[-<>~])(?=[-<>=])")  # Streamlit sets --, ->, <-, >=, <= and ~= as one sign
_WORD_JOINER = "\u2060"


def as_markdown(text: str) -> str:
    """Markdown that shows exactly this text, on one line.

    Every ASCII punctuation mark becomes a character reference. Backslashes would not do: Streamlit replaces icons,
    emoji, colours and arrows after the escapes are gone.
    """
    line = _JOINED.sub(_WORD_JOINER, " ".join(text.split()))
    return _SPECIAL.sub(lambda found: f"&#{ord(found.group())};", line)
