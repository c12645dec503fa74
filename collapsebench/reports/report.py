"""The files of a comparison: its table for programs, its plots, ``report.html``, animations."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from collapsebench import __version__
from collapsebench.files import write_atomically
from collapsebench.reports.comparison import Comparison
from collapsebench.reports.gallery import (
    ShownChain,
    densities,
    image_rows,
    shown_chains,
    shown_seed,
    texts,
    write_animations,
)
from collapsebench.scoring.columns import METHOD, censored_text, records, shown_columns
from collapsebench.scoring.engagement import SHARES
from collapsebench.scoring.table import HEADLINE

FILES = ("comparison.csv", "comparison.json", "curves.png", "forest.png", "report.html")


def write_report(comparison: Comparison, folder: Path | None = None) -> list[Path]:
    """Write the files of a comparison and, for images, an animation per method; return their paths.

    Args:
        folder: where to; None: the task's directory of runs.
    """
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
    write_atomically(html, _html(comparison, (plot, forest), chains, animations))
    return [*paths, *animations.values()]


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


def _html(
    comparison: Comparison, plots: tuple[Path, Path], chains: list[ShownChain], animations: dict[str, Path]
) -> str:
    rows = records(comparison.table)
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.globals.update(censored_text=censored_text)
    shown = {row["method"]: comparison.shown_name(row["method"]) for row in rows}
    return environment.get_template("report.html").render(
        comparison=comparison,
        task=comparison.task,
        rows=rows,
        shown=shown,
        columns=shown_columns(rows),
        method_column=METHOD,
        reasons=comparison.reasons,
        scored=comparison.task.spec.scored,
        headline=HEADLINE,
        plot=_base64(plots[0].read_bytes()),
        forest=_base64(plots[1].read_bytes()),
        shown_seed=shown_seed(comparison),
        texts=texts(chains),
        images=image_rows(chains),
        animations={method: _base64(path.read_bytes()) for method, path in animations.items()},
        densities=_density_plot(chains),
        engagement=_engagement(comparison),
        profile=_profile(comparison),
        seconds=_seconds(comparison),
        circumstances=comparison.cells[0]["about"]["circumstances"],
        device=comparison.cells[0]["about"]["device"],
        version=__version__,
    )


def _density_plot(chains: list[ShownChain]) -> str | None:
    curves = densities(chains)
    if not curves:
        return None
    from collapsebench.reports.plots import density_figure, figure_png

    return _base64(figure_png(density_figure(curves)))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


_Rows = list[tuple[str, list[float | None]]]


def _engagement(comparison: Comparison) -> list[tuple[str, _Rows]]:
    """Every share of engagement that was measured: its title, and its rows."""
    there = set(comparison.engagement["metric"])
    return [(title, _rows(comparison, comparison.engagement, name)) for name, title in SHARES.items() if name in there]


def _profile(comparison: Comparison) -> list[dict[str, Any]]:
    """Every metric that was measured, in the task's order, and its rows."""
    there = set(comparison.raw["metric"])
    return [
        {"metric": comparison.task.spec.metric(metric), "rows": _rows(comparison, comparison.raw, metric)}
        for metric in comparison.task.spec.metrics
        if metric in there
    ]


def _rows(comparison: Comparison, frame: pd.DataFrame, metric: str) -> _Rows:
    """Mean over seeds of a metric, per method and generation; methods without it have no row."""
    mine = frame[frame["metric"] == metric].astype({"value": float})
    means = mine.groupby(["method", "generation"])["value"].mean()
    there, last = set(mine["method"]), comparison.generations
    return [(m, [means[m].get(g) for g in range(last + 1)]) for m in comparison.methods if m in there]


def _seconds(comparison: Comparison) -> dict[str, float]:
    total: dict[str, float] = {}
    for cell in comparison.cells:
        for phase, seconds in cell["seconds"].items():
            total[phase] = total.get(phase, 0.0) + seconds
    return total
