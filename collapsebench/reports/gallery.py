"""What the models of a comparison made, generation by generation, collected from their run directories for people."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from collapsebench.running.artifacts import RunDirectory
from collapsebench.workloads.kind import SAMPLE_FILES
from collapsebench.workloads.pictures import png, sheet, top_rows, write_animation

if TYPE_CHECKING:
    from collapsebench.reports.compared import Compared

GALLERY = "gallery.png"
_SHOWN_TEXTS = 3
_TEXTS, _IMAGES, _DENSITIES = (SAMPLE_FILES[form] for form in ("text", "images", "density"))


@dataclass(frozen=True)
class ShownChain:
    """The chain of one method that is shown.

    Attributes:
        method: its label in the comparison. id: name of its directory.
        generations: folders of the generations that are there, in order; None where it diverged.
    """

    method: str
    id: str
    generations: list[Path | None]


def shown_seed(comparison: Compared) -> int:
    """The lowest seed: the one whose samples are shown."""
    return min(cell["about"]["seed"] for cell in comparison.cells)


def shown_chains(comparison: Compared) -> list[ShownChain]:
    """One chain per method, in the order of the table."""
    seed = shown_seed(comparison)
    chosen = {c["label"]: Path(c["path"]) for c in comparison.cells if c["about"]["seed"] == seed}
    chains = []
    for method in comparison.methods:
        if method not in chosen:
            continue
        store = RunDirectory(chosen[method])
        folders: list[Path | None] = []
        for g in range(comparison.generations + 1):
            if store.state(g) != "ok":
                folders.append(None)
                break
            folders.append(store.generation(g))
        chains.append(ShownChain(method, store.path.parent.name, folders))
    return chains


def texts(chains: list[ShownChain]) -> list[dict[str, Any]]:
    """Generations × methods, each cell the first excerpts, None where it diverged; empty for other tasks than text."""
    return _rows(chains, "texts", _TEXTS, _excerpts)


def image_rows(chains: list[ShownChain]) -> list[dict[str, Any]]:
    """Rows of generations × methods, each cell the images made from the same noise; empty for other tasks."""
    return _rows(chains, "image", _IMAGES, _first_row)


def write_gallery(chains: list[ShownChain], folder: Path) -> list[Path]:
    """Write one picture of images from the same noise, method by method, one generation below the other.

    Returns:
        The file; nothing for tasks without images.
    """
    if not _has(chains, _IMAGES):
        return []
    blocks = []
    for chain in chains:
        rows: list[tuple[str, Image.Image | None]] = []
        for g, generation in enumerate(chain.generations):
            if generation is None:
                rows.append(("diverged", None))
                continue
            with Image.open(generation / _IMAGES) as picture:
                rows.append((f"generation {g}", top_rows(picture, 1)))
        blocks.append((chain.method, rows))
    path = folder / GALLERY
    sheet(blocks).save(path, "PNG")
    return [path]


def write_animations(chains: list[ShownChain], folder: Path) -> dict[str, Path]:
    """Write one animated WebP over the generations per method; nothing for tasks without images.

    Returns:
        {method: file}.
    """
    written = {}
    for chain in chains:
        frames = []
        for g, generation in enumerate(chain.generations):
            if generation is not None and (generation / _IMAGES).is_file():
                with Image.open(generation / _IMAGES) as picture:
                    frames.append((f"{chain.method}: generation {g}", picture.copy()))
        if frames:
            written[chain.method] = folder / f"{chain.id}.webp"
            write_animation(frames, written[chain.method])
    return written


def densities(chains: list[ShownChain]) -> dict[str, list[dict[str, list[float]]]]:
    """Density curves of every method by generation; empty for tasks that are not mixtures."""
    if not _has(chains, _DENSITIES):
        return {}
    return {
        chain.method: [
            RunDirectory(folder.parent).read(g, _DENSITIES)
            for g, folder in enumerate(chain.generations)
            if folder is not None
        ]
        for chain in chains
    }


def _rows(chains: list[ShownChain], key: str, name: str, shown: Callable[[Path], Any]) -> list[dict[str, Any]]:
    """Generations × methods: what ``shown`` makes of the file ``name`` of a generation; None where it diverged."""
    if not _has(chains, name):
        return []
    rows = []
    for g in range(max(len(chain.generations) for chain in chains)):
        folders = {chain.method: chain.generations[g] if g < len(chain.generations) else None for chain in chains}
        cells = [
            {"method": method, key: None if folder is None else shown(folder / name)}
            for method, folder in folders.items()
        ]
        rows.append({"generation": g, "cells": cells})
    return rows


def _excerpts(file: Path) -> list[Any]:
    excerpts: list[Any] = json.loads(file.read_text("utf-8"))
    return excerpts[:_SHOWN_TEXTS]


def _first_row(file: Path) -> str:
    with Image.open(file) as picture:
        return base64.b64encode(png(top_rows(picture, 1))).decode()


def _has(chains: list[ShownChain], name: str) -> bool:
    return any(folder is not None and (folder / name).is_file() for chain in chains for folder in chain.generations)
