"""Plots of a comparison: fidelity curves with bands over seeds, and where they fall below the threshold."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from collapsebench.methods import BASELINES, CONTROL
from collapsebench.reports.comparison import Comparison
from collapsebench.scoring.columns import records
from collapsebench.scoring.table import HEADLINE

if TYPE_CHECKING:
    import pandas as pd

    from collapsebench.task import Task

# Okabe–Ito: told apart by colour-blind readers and on paper; the markers say it a second time.
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442"]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
_CONTROL_STYLE: dict[str, Any] = {"color": "#666666", "linestyle": "--", "marker": "."}


def fidelity_figure(comparison: Comparison) -> Figure:
    """One panel per scored metric: mean fidelity per generation, range over seeds, FI(0.75) marked on the axis."""
    metrics = list(comparison.task.spec.scored)
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(4.6 * len(metrics), 4.4), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, metric in zip(axes[0], metrics, strict=True):
        _panel(panel, comparison, metric)
    axes[0][0].set_ylabel("fidelity (1 = reference, 0 = knows nothing)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
    figure.suptitle(f"{comparison.task.id}: fidelity to real data over generations", fontsize=12)
    return figure


def _panel(axes: Axes, comparison: Comparison, metric: str) -> None:
    curves = comparison.curves[comparison.curves["metric"] == metric]
    scores = comparison.scores
    for method, style in _styles(comparison.methods).items():
        by_generation = curves[curves["method"] == method].groupby("generation")["fidelity"]
        mean = by_generation.mean()
        axes.plot(mean.index, mean, label=method, markersize=4, linewidth=1.6, **style)
        axes.fill_between(mean.index, by_generation.min(), by_generation.max(), alpha=0.15, color=style["color"], lw=0)
        mine = scores[(scores["method"] == method) & (scores["metric"] == metric)]
        if not mine[f"fi_{HEADLINE:g}_censored"].any():
            fallen = mine[f"fi_{HEADLINE:g}"].mean()
            axes.plot([fallen] * 2, [0, HEADLINE], color=style["color"], linewidth=0.9, linestyle=":")
            axes.plot(fallen, HEADLINE, marker="|", color=style["color"], markersize=12)
    axes.axhline(HEADLINE, color="#999999", linewidth=0.8)
    axes.annotate(
        f"λ = {HEADLINE}", (comparison.generations, HEADLINE), ha="right", va="bottom", fontsize=8, color="#666666"
    )
    axes.set_title(comparison.task.spec.metric(metric).title, fontsize=10)
    axes.set_xlabel("generation")
    axes.set_ylim(-0.02, 1.05)
    axes.set_xticks(range(0, comparison.generations + 1, max(1, comparison.generations // 10)))
    axes.spines[["top", "right"]].set_visible(False)


def forest_figure(comparison: Comparison) -> Figure:
    """mFI of every method with its interval, in the order of the table, and a line where CE is.

    A task that is not ranked has no headline: the title says so.
    """
    rows = records(comparison.table)
    styles = _styles(comparison.methods)
    figure, axes = plt.subplots(figsize=(7.6, 0.9 + 0.42 * len(rows)), layout="constrained")
    for place, row in enumerate(rows):
        style = styles[row["method"]]
        if row["mfi_low"] is not None:
            axes.plot([row["mfi_low"], row["mfi_high"]], [place] * 2, color=style["color"], linewidth=2.5)
        axes.plot(row["mfi"], place, marker=style["marker"], color=style["color"], markersize=9)
        if row["method"] == "ce":
            axes.axvline(row["mfi"], color=style["color"], linewidth=1, linestyle="--", zorder=0)
    axes.set_yticks(range(len(rows)), [comparison.shown_name(row["method"]) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, comparison.generations * 1.01)
    axes.set_xlabel(f"mFI, generations of {comparison.generations}")
    told = " (not ranked)" if comparison.task.unranked else ": how long fidelity to real data lasts"
    axes.set_title(f"{comparison.task.id}{told}", fontsize=12, loc="left")
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def calibration_figure(task: Task, curves: pd.DataFrame) -> Figure:
    """CE against the control, mean over the official seeds, one panel per scored metric.

    Args:
        curves: method (ce, control), metric, generation, fidelity.
    """
    metrics = list(task.spec.scored)
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(4.2 * len(metrics), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, metric in zip(axes[0], metrics, strict=True):
        panel.axhspan(0.95, 1.05, color="#009E73", alpha=0.12, lw=0)
        panel.axhline(HEADLINE, color="#999999", linewidth=0.8)
        for method, style in _styles(["ce", CONTROL]).items():
            curve = curves.query("method == @method and metric == @metric")
            panel.plot(curve["generation"], curve["fidelity"], label=method, markersize=4, **style)
        panel.set_title(task.spec.metric(metric).title, fontsize=10)
        panel.set_xlabel("generation")
        panel.set_ylim(-0.02, 1.12)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("fidelity")
    axes[0][0].legend(frameon=False, loc="lower left")
    return figure


def tuning_figure(title: str, panels: Mapping[str, Mapping[str, Sequence[float]]], measured: str) -> Figure:
    """Mean fidelity by generation of the variants of a method, one panel per method, ce in all of them.

    Args:
        panels: by heading, and within a panel by variant, the curve; a panel's variants go from light to dark.
        measured: what fidelity is measured in.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.8 * len(panels), 4.0), sharey=True, squeeze=False, layout="constrained"
    )
    shades = matplotlib.colormaps["viridis_r"]
    for panel, (heading, curves) in zip(axes[0], panels.items(), strict=True):
        variants = [name for name in curves if name != "ce"]
        for i, name in enumerate(variants):
            shade = shades((i + 1) / (len(variants) + 1))
            panel.plot(curves[name], label=name, color=shade, marker=_MARKERS[i % len(_MARKERS)], markersize=4)
        panel.plot(curves["ce"], label="ce", color="black", linestyle="--", linewidth=1.4)
        panel.set_title(heading, fontsize=10)
        panel.set_xlabel("generation")
        panel.set_ylim(-0.02, 1.05)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=8)
    axes[0][0].set_ylabel(f"fidelity, {measured}")
    figure.suptitle(title, fontsize=12)
    return figure


def density_figure(curves: dict[str, list[dict[str, list[float]]]]) -> Figure:
    """One panel per method: the density of every generation, dark to light, and the truth.

    Args:
        curves: for each method its generations, each with the lists ``x``, ``density`` and ``truth``.
    """
    figure, axes = plt.subplots(
        1, len(curves), figsize=(4.2 * len(curves), 3.4), sharey=True, sharex=True, squeeze=False, layout="constrained"
    )
    shades = matplotlib.colormaps["viridis"]
    for panel, (method, generations) in zip(axes[0], curves.items(), strict=True):
        for g, curve in enumerate(generations):
            shade = shades(0.95 * g / max(1, len(generations) - 1))
            panel.plot(curve["x"], curve["density"], color=shade, linewidth=1.2)
        panel.plot(generations[0]["x"], generations[0]["truth"], "k--", linewidth=1)
        panel.set_title(method, fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    truth = next(iter(curves.values()))[0]["truth"]
    axes[0][0].set_ylim(0, 2.5 * max(truth))
    axes[0][0].set_ylabel("density")
    return figure


def _styles(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A colour and marker per method; the baselines have theirs in every plot, whatever their rank."""
    styles: dict[str, dict[str, Any]] = {}
    for method in [*BASELINES, *(m for m in methods if m not in BASELINES)]:
        n = len(styles)
        styles[method] = (
            _CONTROL_STYLE
            if method == CONTROL
            else {"color": _COLOURS[n % len(_COLOURS)], "marker": _MARKERS[n % len(_MARKERS)]}
        )
    return {method: styles[method] for method in methods}


def figure_png(figure: Figure) -> bytes:
    """The bytes of a PNG without a date in it; frees the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and free it."""
    path.write_bytes(figure_png(figure))
