"""The files of a comparison of raw metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapsebench import __version__
from collapsebench.files import write_atomically
from collapsebench.reports.gallery import shown_chains, write_animations, write_gallery
from collapsebench.scoring.columns import records

if TYPE_CHECKING:
    from collapsebench.reports.raw_comparison import RawComparison

FILES = ("comparison.csv", "comparison.json", "curves.png", "report.html")


def write_raw_report(comparison: RawComparison, folder: Path | None = None) -> list[Path]:
    """Write the files of a comparison of raw metrics; for images, also a gallery and an animation per method.

    Args:
        folder: where to; None: the task's directory of runs.

    Returns:
        The files.
    """
    from collapsebench.reports.plots import raw_figure, save_figure
    from collapsebench.reports.raw_page import raw_page

    folder = folder or comparison.folder
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in FILES]
    csv, as_json, plot, html = paths
    write_atomically(csv, comparison.table.to_csv(index=False))
    write_atomically(as_json, json.dumps(raw_as_json(comparison), indent=1, sort_keys=True, allow_nan=False) + "\n")
    save_figure(raw_figure(comparison), plot)
    chains = shown_chains(comparison)
    animations = write_animations(chains, folder)
    write_atomically(html, raw_page(comparison, chains, animations))
    return [*paths, *write_gallery(chains, folder), *animations.values()]


def raw_as_json(comparison: RawComparison) -> dict[str, Any]:
    """What `collapsebench.reports.report.comparison_as_json` has, without what needs a scale; `scored` is null."""
    return {
        "schema_version": 2,
        "collapsebench": __version__,
        "task": comparison.task.id,
        "task_sha256": comparison.task.sha256,
        "scored": None,
        "generations": comparison.generations,
        "table": records(comparison.table),
        "raw": records(comparison.raw),
        "engagement": records(comparison.engagement),
        "cells": [{"run": cell["about"], "seconds": cell["seconds"]} for cell in comparison.cells],
        "notes": comparison.notes,
    }
