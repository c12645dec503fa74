"""The files of a comparison of raw metrics."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from collapsebench import __version__
from collapsebench.files import write_atomically
from collapsebench.methods import CONTROL
from collapsebench.scoring.columns import records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from collapsebench.reports.raw_comparison import RawComparison

FILES = ("comparison.csv", "comparison.json", "curves.png", "report.html")


def write_raw_report(comparison: RawComparison, folder: Path | None = None) -> list[Path]:
    """Write table, curves and page of a comparison of raw metrics; return their paths.

    Args:
        folder: where to; None: the task's directory of runs.
    """
    from collapsebench.reports.plots import save_figure

    folder = folder or comparison.folder
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in FILES]
    csv, as_json, plot, html = paths
    write_atomically(csv, comparison.table.to_csv(index=False))
    write_atomically(as_json, json.dumps(raw_as_json(comparison), indent=1, sort_keys=True, allow_nan=False) + "\n")
    save_figure(raw_figure(comparison), plot)
    write_atomically(html, _html(comparison, plot))
    return paths


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


def raw_figure(comparison: RawComparison) -> Figure:
    """One panel per metric of the table: mean per generation and range over seeds, each in its own unit."""
    import matplotlib.pyplot as plt

    metrics = comparison.metrics
    figure, axes = plt.subplots(1, len(metrics), figsize=(4.6 * len(metrics), 4.4), squeeze=False, layout="constrained")
    for panel, name in zip(axes[0], metrics, strict=True):
        metric = comparison.task.spec.metric(name)
        mine = comparison.raw[comparison.raw["metric"] == name].astype({"value": float})
        for place, method in enumerate(comparison.methods):
            values = mine[mine["method"] == method].groupby("generation")["value"]
            mean, style = values.mean(), {"color": f"C{place}", "marker": "o", "markersize": 4}
            style |= {"color": "#666666", "linestyle": "--"} if method == CONTROL else {}
            panel.plot(mean.index, mean, label=method, **style)
            panel.fill_between(mean.index, values.min(), values.max(), alpha=0.15, color=style["color"], lw=0)
        panel.set_title(f"{metric.title} ({metric.direction} is better)", fontsize=10)
        panel.set_ylabel(metric.unit)
        panel.set_xlabel("generation")
        panel.set_xticks(range(0, comparison.generations + 1, max(1, comparison.generations // 10)))
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
    figure.suptitle(f"{comparison.task.id}: raw metrics over generations (not calibrated)", fontsize=12)
    return figure


def number_text(row: dict[str, Any], name: str) -> str:
    """``41.2 [40.8, 41.6]`` in four digits; a dash where there is no number."""
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if value is None:
        return "–"
    return f"{value:.4g}" + ("" if low is None else f" [{low:.4g}, {high:.4g}]")


def _html(comparison: RawComparison, plot: Path) -> str:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("raw_report.html").render(
        comparison=comparison,
        task=comparison.task,
        rows=records(comparison.table),
        number_text=number_text,
        plot=base64.b64encode(plot.read_bytes()).decode(),
        profile=_profile(comparison),
        circumstances=comparison.cells[0]["about"]["circumstances"],
        device=comparison.cells[0]["about"]["device"],
        version=__version__,
    )


def _profile(comparison: RawComparison) -> list[dict[str, Any]]:
    """Every metric that was measured, in the task's order, and by method its means over seeds by generation."""
    means = comparison.raw.astype({"value": float}).groupby(["metric", "method", "generation"])["value"].mean()
    there, found = set(means.index), []
    for metric in comparison.task.spec.metrics:
        rows = [
            (method, [means.get((metric, method, g)) for g in range(comparison.generations + 1)])
            for method in comparison.methods
            if (metric, method, 0) in there
        ]
        if rows:
            found.append({"metric": comparison.task.spec.metric(metric), "rows": rows})
    return found
