"""Text datasets of the Hugging Face hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collapsebench.data.document import Document
from collapsebench.errors import DataError

if TYPE_CHECKING:
    from collapsebench.data.sources import HubText


def load_hub_text(data: HubText) -> list[Document]:
    """Return every non-empty row of a dataset's text column as a document.

    Raises:
        DataError: the hub cannot be reached and the dataset is not in the local cache, or it has no such column.
    """
    import datasets

    try:
        rows = datasets.load_dataset(data.dataset, data.config, split=data.split, revision=data.revision)
    except Exception as error:  # the hub client raises many types; all mean that the data is not available
        raise DataError(
            f"dataset {data.dataset} (revision {data.revision}, split {data.split}) cannot be loaded: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}. Check the network, or use source: local."
        ) from error
    if data.column not in rows.column_names:
        raise DataError(f"dataset {data.dataset} has no column {data.column!r}; columns: {rows.column_names}.")
    texts = (str(text).strip() for text in rows[data.column])
    return [Document(f"{data.split} row {i}", text) for i, text in enumerate(texts) if text]
