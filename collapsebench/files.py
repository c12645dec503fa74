"""Files that are written whole or not at all, the same way every time, and their digests."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from collapsebench.errors import UserError


def require_folder(path: Path, option: str) -> None:
    """Raise `UserError` when a folder that may still have to be made cannot be: a file is in its place, or above it.

    Args:
        option: what the user gave it as, such as ``--out``.
    """
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            where = "is a file" if place == path else f"lies below {place}, which is a file"
            raise UserError(f"{option} {path} {where}; give a directory, which is made where there is none.")


def write_json(path: Path, content: Any) -> None:
    """Write JSON the same way every time: sorted keys, shortest exact floats, no NaN."""
    path.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by its new content in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, "utf-8")
    sync(temporary)
    os.replace(temporary, path)


def sha256_of(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def give_ordinary_mode(*files: Path) -> None:
    """Give files the permissions that any new file of the user has, as their umask says.

    Some libraries (safetensors) write into a temporary file first, which nobody else may read, and leave it so.
    """
    if not files:
        return
    fresh = files[0].with_name(f".{files[0].name}.{os.getpid()}.mode")
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    mode = fresh.stat().st_mode & 0o777
    fresh.unlink()
    for file in files:
        file.chmod(mode)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
