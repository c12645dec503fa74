"""Loads the documents of a task's data section, and divides them into disjoint splits by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from collapsebench.data.document import Document
from collapsebench.data.embedded import load_embedded
from collapsebench.data.hub import load_hub_text
from collapsebench.data.local import load_local_text
from collapsebench.errors import DataError

if TYPE_CHECKING:
    from collapsebench.data.sources import Splits, TextSource

SPLITS = ("test", "selection", "train")


def load_documents(data: TextSource, base: Path) -> list[Document]:
    """Load the documents of a data section without exact duplicates.

    Args:
        data: the section. base: folder that relative paths refer to.

    Raises:
        DataError: a package, file or dataset is missing, or not the expected one.
    """
    if data.source == "embedded":
        documents = load_embedded(data.corpus)
    elif data.source == "local":
        documents = load_local_text(base / Path(data.path).expanduser(), data.documents)
    else:
        documents = load_hub_text(data)
    return list({document.sha256: document for document in documents}.values())


def split_documents(documents: Iterable[Document], splits: Splits) -> dict[str, list[Document]]:
    """Assign every document to ``test``, ``selection`` or ``train``.

    Documents are sorted by a salted hash of their text, so the order depends only on the documents themselves. They go
    to test, then to selection, until each has its share of all characters, and then to train, up to its limit.

    Raises:
        DataError: a split would be empty.
    """
    order = sorted(documents, key=lambda d: hashlib.sha256(f"split|{d.text}".encode()).digest())
    total = sum(len(d.text) for d in order)
    limits = {
        "test": splits.test * total,
        "selection": splits.selection * total,
        "train": splits.train_chars or total,
    }
    assigned: dict[str, list[Document]] = {name: [] for name in SPLITS}
    remaining = iter(order)
    for name in SPLITS:
        chars = 0.0
        while chars < limits[name] and (document := next(remaining, None)) is not None:
            assigned[name].append(document)
            chars += len(document.text)
    for name, found in assigned.items():
        if not found:
            raise DataError(
                f"the data has {len(order)} documents, too few for a {name} split; give more text, or smaller "
                "documents (documents: paragraph)."
            )
    return assigned


def listing_of(splits: Mapping[str, list[Document]]) -> dict[str, dict[str, str]]:
    """The content of ``splits.json``: {split: {sha256: title}}."""
    return {name: {d.sha256: d.title for d in documents} for name, documents in splits.items()}


def check_listing(splits: Mapping[str, list[Document]], listing: Mapping[str, Mapping[str, str]]) -> None:
    """Compare the splits with the task's frozen listing.

    Raises:
        DataError: documents differ; the message names some of them.
    """
    compare_listings(listing_of(splits), listing, "document(s)")


def compare_listings(
    found: Mapping[str, Mapping[str, str]], listing: Mapping[str, Mapping[str, str]], items: str
) -> None:
    """Raise `DataError` if `found` differs from the task's listing; both are {split: {sha256: title}}."""
    for name in SPLITS:
        here, listed = dict(found[name]), dict(listing.get(name, {}))
        wrong = [title for sha, title in (here | listed).items() if (sha in here) != (sha in listed)]
        if wrong:
            raise DataError(
                f"the {name} split is not the one this task lists: {len(wrong)} {items} differ, among them "
                f"{wrong[:3]}. The data or a library that reads it has another version: install the tested ones "
                "(constraints.txt, `collapsebench doctor`)."
            )
