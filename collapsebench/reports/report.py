"""The files of a comparison: its table for programs, its plots, ``report.html``, animations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapsebench import __version__
from collapsebench.files import write_atomically
from collapsebench.reports.gallery import shown_chains, write_animations, write_gallery
from collapsebench.scoring.columns import records
from collapsebench.scoring.table import HEADLINE

if TYPE_CHECKING:
    from collapsebench.reports.comparison import Comparison

FILES = ("comparison.csv", "comparison.json", "curves.png", "forest.png", "report.html")


def write_report(comparison: Comparison, folder: Path | None = None) -> list[Path]:
    """Write the files of a comparison; for images, also a gallery and an animation per method.

    Args:
        folder: where to; None: the task's directory of runs.

    Returns:
        The files.
    """
    from collapsebench.reports.page import page
    from collapsebench.reports.plots import fidelity_figure, forest_figure, save_figure

    folder = folder or comparison.folder
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in FILES]
    csv, as_json, plot, forest, html = paths
    write_atomically(csv, comparison.table.assign(retired=comparison.task.spec.retired is not None).to_csv(index=False))
    write_atomically(
        as_json, json.dumps(comparison_as_json(comparison), indent=1, sort_keys=True, allow_nan=False) + "\n"
    )
    save_figure(fidelity_figure(comparison), plot)
    save_figure(forest_figure(comparison), forest)
    chains = shown_chains(comparison)
    animations = write_animations(chains, folder)
    write_atomically(html, page(comparison, chains, animations))
    return [*paths, *write_gallery(chains, folder), *animations.values()]


def comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything a program may want to know: scales, table, curves, scores per seed, raw metrics, provenance."""
    return {
        "schema_version": 2,
        "collapsebench": __version__,
        "task": comparison.task.id,
        "retired": comparison.task.spec.retired,
        "broken_rules": comparison.task.broken_rules,
        "task_sha256": comparison.task.sha256,
        "scored": {name: scale.model_dump() for name, scale in comparison.task.spec.scored.items()},
        "generations": comparison.generations,
        "headline_threshold": HEADLINE,
        "table": records(comparison.table),
        "curves": records(comparison.curves),
        "scores": records(comparison.scores),
        "raw": records(comparison.raw),
        "engagement": records(comparison.engagement),
        "cells": [{"run": cell["about"], "seconds": cell["seconds"]} for cell in comparison.cells],
        "notes": comparison.notes,
        "published": [entry.sha256 for entry in comparison.published],
    }
