"""Shows untrusted text where Streamlit only supports Markdown: labels, captions, messages.

Everything else uses `st.text`, `st.code` or `st.dataframe`, which show text unchanged.
"""

from __future__ import annotations

import re
import string

_SPECIAL = re.compile(f"[{re.escape(string.punctuation)}]")
_JOINED = re.compile(r"(?<=[-<>~])(?=[-<>=])")  # Streamlit renders --, ->, <-, >=, <= and ~= as one character
_WORD_JOINER = "\u2060"


def as_markdown(text: str) -> str:
    """Markdown that shows exactly this text, on one line.

    Every ASCII punctuation mark becomes a character reference. Backslashes would not work, because Streamlit replaces
    icons, emoji, colours and arrows after resolving escapes.
    """
    line = _JOINED.sub(_WORD_JOINER, " ".join(text.split()))
    return _SPECIAL.sub(lambda found: f"&#{ord(found.group())};", line)
