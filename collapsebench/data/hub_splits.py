"""Text datasets with their authors' splits: files of the hub at a pinned revision, or a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from collapsebench.data.hub_files import hub_file
from collapsebench.errors import DataError

if TYPE_CHECKING:
    from collapsebench.data.sources import HubSplits, LocalSplits

Split = Literal["train", "validation", "test"]

# Names that a split may have in a local folder, after the task's own name for it.
_ALIASES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "wiki.train"),
    "validation": ("validation", "valid", "wiki.valid"),
    "test": ("test", "wiki.test"),
}
_ENDINGS = (".txt", ".raw", ".tokens", ".parquet")


def load_split_rows(data: HubSplits | LocalSplits, folder: Path | None) -> dict[str, list[str]]:
    """The rows (lines of a text file) of ``train``, ``selection`` (the dataset's validation split) and ``test``.

    Args:
        data: the section of the task file.
        folder: folder of local files: ``--data``, or the one named in the task; None: the hub, or its cache. If the
            folder contains no split, it is for other files, and the splits come from the hub.

    Raises:
        DataError: a split is missing, empty or unreadable; the message names all missing splits.
    """
    files = split_files(data, folder)
    return {
        "train": _rows(files["train"], data.column),
        "selection": _rows(files["validation"], data.column),
        "test": _rows(files["test"], data.column),
    }


def split_files(data: HubSplits | LocalSplits, folder: Path | None) -> dict[Split, Path]:
    """The file of every split, downloaded if necessary; arguments and errors as in `load_split_rows`."""
    found = {} if folder is None else _there(data, folder)
    if not found and data.source == "hub-splits":
        return _remote(data)
    if missing := [split for split in _ALIASES if split not in found]:
        raise DataError(
            f"{folder} lacks the {' and the '.join(missing)} split. A split is a file called train, validation (or "
            f"valid) or test with one of the endings {', '.join(_ENDINGS)}."
        )
    return found


def _there(data: HubSplits | LocalSplits, folder: Path) -> dict[Split, Path]:
    """The splits found in a folder, under the hub's name or a common one."""
    found: dict[Split, Path] = {}
    for split, names in _ALIASES.items():
        candidates = [folder / f"{name}{end}" for name in names for end in _ENDINGS]
        if data.source == "hub-splits":
            candidates.insert(0, folder / Path(data.files[split]).name)
        if (file := next((candidate for candidate in candidates if candidate.is_file()), None)) is not None:
            found[split] = file
    return found


def _remote(data: HubSplits) -> dict[Split, Path]:
    advice = "or give a folder with train, validation and test files: --data PATH"
    return {split: hub_file(data.dataset, name, data.revision, "dataset", advice) for split, name in data.files.items()}


def _rows(file: Path, column: str) -> list[str]:
    try:
        if file.suffix == ".parquet":
            import pandas as pd

            rows = [str(row) for row in pd.read_parquet(file, columns=[column])[column]]
        else:
            with file.open(encoding="utf-8") as lines:
                rows = list(lines)  # `splitlines` would also split at other Unicode line separators
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file} cannot be read as text: {' '.join(str(error).split())[:200]}.") from error
    # WikiText's blank lines are " \n" in its text files and "" in the hub's rows; make both streams equal.
    rows = [row if row.strip() else "" for row in rows]
    if not any(rows):
        raise DataError(f"{file} is empty.")
    return rows
