"""The user's own text files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from collapsebench.data.document import Document
from collapsebench.errors import DataError


def load_local_text(path: Path, documents: Literal["paragraph", "file"]) -> list[Document]:
    """Return the documents of a UTF-8 text file, or of all ``*.txt`` files in a folder, sorted by name.

    Args:
        path: file or folder.
        documents: ``file``: one document per file; ``paragraph``: one per block between blank lines.

    Raises:
        DataError: no file is found, or a file is not UTF-8.
    """
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise DataError(f"no text at {path}: data.path must be a text file, or a folder with *.txt files.")
    found = []
    for file in files:
        try:
            text = file.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
        parts = [text] if documents == "file" else re.split(r"\n\s*\n", text)
        cleaned = [part.strip() for part in parts]
        found += [Document(f"{file.name} #{i + 1}", part) for i, part in enumerate(cleaned) if part]
    return found
