"""Plots of a comparison: curves of fidelity or raw metrics with bands over seeds; when fidelity falls below λ."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from collapsebench.methods import BASELINES, CONTROL
from collapsebench.reports.palette import COLOURS, CONTROL_COLOUR
from collapsebench.reports.raw_numbers import BASELINE, aligned_texts, unit_text
from collapsebench.scoring.columns import Row, interval_text, records
from collapsebench.scoring.fidelity import ALL
from collapsebench.scoring.table import HEADLINE

if TYPE_CHECKING:
    import pandas as pd
    from pandas.core.groupby import SeriesGroupBy

    from collapsebench.reports.comparison import Comparison
    from collapsebench.reports.raw_comparison import RawComparison
    from collapsebench.task import Task

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_CONTROL_STYLE: dict[str, Any] = {"color": CONTROL_COLOUR, "linestyle": "--", "marker": "."}
_INK = "#1a1a1b"  # of text and axes; in a page it becomes the colour of the page's text, light or dark
_PANEL = (4.0, 3.5)  # inches: text stays readable where a phone shows one panel
_LETTERS = 46  # that fit across a panel


class ShownFigure(Figure):
    """A figure that a notebook shows, whatever its backend is."""

    def _repr_png_(self) -> bytes:
        return figure_png(self)


def fidelity_figure(comparison: Comparison, metrics: Sequence[str] | None = None) -> Figure:
    """One panel per metric: mean fidelity per generation, range over seeds, and where FI(0.75) is.

    Args:
        metrics: scored ones; None: all of them. Of a single one no other title than its own is written.
    """
    shown = list(comparison.task.spec.scored) if metrics is None else list(metrics)
    width, height = _PANEL
    figure, panels = _panels(len(shown), width, height)
    for panel, metric in zip(panels, shown, strict=True):
        _panel(panel, comparison, metric)
    panels[0].set_ylabel("fidelity", fontsize=9, color=_INK, labelpad=7)
    _legend(figure, panels)
    if metrics is None:
        _head(figure, f"{comparison.task.id}: fidelity over generations", len(shown))
    return figure


def raw_figure(comparison: RawComparison, metrics: Sequence[str] | None = None) -> Figure:
    """One panel per metric, each in its own unit: mean per generation, and range over seeds.

    Args:
        metrics: of the table; None: all of them. Of a single one no other title than its own is written.
    """
    shown = list(comparison.metrics) if metrics is None else list(metrics)
    figure, panels = _panels(len(shown), *_PANEL, share=False)
    for panel, name in zip(panels, shown, strict=True):
        metric = comparison.task.spec.metric(name)
        values = comparison.raw[comparison.raw["metric"] == name].astype({"value": float})
        for method, style in _styles(comparison.methods).items():
            by_generation = values[values["method"] == method].groupby("generation")["value"]
            _curve(panel, by_generation, comparison.shown_name(method), style)
        panel.set_title(_short(metric.title, _LETTERS), fontsize=10, color=_INK)
        panel.set_ylabel(unit_text(metric), fontsize=9, color=_INK)
        _generations(panel, comparison.generations)
        _dress(panel)
    _legend(figure, panels)
    if metrics is None:
        _head(figure, f"{comparison.task.id}: raw metrics over generations, not calibrated", len(shown))
    return figure


def _panel(axes: Axes, comparison: Comparison, metric: str) -> None:
    curves = comparison.curves[comparison.curves["metric"] == metric]
    scores = comparison.scores
    axes.axhline(HEADLINE, color=CONTROL_COLOUR, linewidth=0.8, zorder=1)
    for method, style in _styles(comparison.methods).items():
        by_generation = curves[curves["method"] == method].groupby("generation")["fidelity"]
        _curve(axes, by_generation, comparison.shown_name(method), style)
        mine = scores[(scores["method"] == method) & (scores["metric"] == metric)]
        if not mine[f"fi_{HEADLINE:g}_censored"].any():
            fallen = mine[f"fi_{HEADLINE:g}"].mean()
            axes.plot([fallen] * 2, [0, HEADLINE], color=style["color"], linewidth=1, linestyle=":", zorder=1)
    axes.set_title(_plain(comparison.task.spec.metric(metric).title), fontsize=10, color=_INK)
    axes.set_ylim(-0.02, 1.05)
    levels = (0, 0.25, 0.5, HEADLINE, 1)  # λ is named where it meets the axis: beside the bands, never beneath them
    axes.set_yticks(levels, [f"λ = {level:g}" if level == HEADLINE else f"{level:g}" for level in levels])
    _generations(axes, comparison.generations)
    _dress(axes)


def _curve(axes: Axes, by_generation: SeriesGroupBy, name: str, style: dict[str, Any]) -> None:
    """A method's mean by generation, with a band over its seeds."""
    mean = by_generation.mean()
    axes.plot(mean.index, mean, label=_plain(name), markersize=4, linewidth=1.6, **style)
    axes.fill_between(mean.index, by_generation.min(), by_generation.max(), alpha=0.18, color=style["color"], lw=0)


def _generations(axes: Axes, last: int) -> None:
    axes.set_xlabel("generation", fontsize=9, color=_INK)
    axes.set_xticks(range(0, last + 1, max(1, last // 10)))


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """The methods below the panels, in as many columns as fit."""
    handles, labels = panels[0].get_legend_handles_labels()
    letters = 8 + max(len(label) for label in labels)
    figure.legend(
        handles, labels, loc="outside lower center", ncols=max(1, min(len(labels), len(panels) * _LETTERS // letters)),
        frameon=False, fontsize=9, labelcolor=_INK,
    )  # fmt: skip


def _head(figure: Figure, text: str, panels: int) -> None:
    """A title over all panels, in as many lines as it needs."""
    figure.suptitle(textwrap.fill(_plain(text), _LETTERS * panels), fontsize=11, color=_INK)


def forest_figure(comparison: Comparison) -> Figure:
    """mFI of every method: its interval, a point per seed, the number, and a line where CE is; in the table's order.

    A task that is not ranked has no headline: the title says so.
    """
    rows = records(comparison.table)
    styles = _styles(comparison.methods)
    by_seed = comparison.scores[comparison.scores["metric"] == ALL].groupby("method")["mfi"]
    figure, (axes,) = _panels(1, _PANEL[0], 1.0 + 0.55 * len(rows))
    for place, row in enumerate(rows):
        style = styles[row["method"]]
        _row(axes, place, row, "mfi", style, by_seed.get_group(row["method"]))
        if row["method"] == "ce":
            axes.axvline(row["mfi"], color=style["color"], linewidth=1, linestyle="--", alpha=0.7, zorder=0)
        _row_texts(axes, place, comparison.shown_name(row["method"]), interval_text(row, "mfi"))
    axes.set_xlim(0, comparison.generations * 1.02)
    axes.set_xlabel(f"mFI, generations of {comparison.generations}", fontsize=9, color=_INK)
    told = " (not ranked)" if comparison.task.unranked else ": how long fidelity lasts"
    axes.set_title(f"{comparison.task.id}{told}", fontsize=10, loc="left", color=_INK)
    _dress_rows(axes, len(rows))
    return figure


def difference_figure(comparison: RawComparison, metric: str) -> Figure | None:
    """The last generation's differences to ce in a metric: intervals, a point per seed, the numbers; None without any.

    Args:
        metric: of the table.
    """
    name, described = "difference_ce", comparison.task.spec.metric(metric)
    mine = comparison.table[comparison.table["metric"] == metric]
    rows = [(row, text[name]) for row, text in zip(records(mine), aligned_texts(records(mine)), strict=True)]
    rows = [(row, text) for row, text in rows if row[name] is not None]
    if not rows:
        return None
    figure, (axes,) = _panels(1, _PANEL[0], 1.0 + 0.55 * len(rows))
    final = comparison.raw[
        (comparison.raw["metric"] == metric) & (comparison.raw["generation"] == comparison.generations)
    ]
    by_seed = final.astype({"value": float}).pivot(index="seed", columns="method", values="value")
    styles = _styles(comparison.methods)
    axes.axvline(0, color=styles[BASELINE]["color"], linewidth=1, linestyle="--", alpha=0.7, zorder=0)
    for place, (row, text) in enumerate(rows):
        method = row["method"]
        _row(axes, place, row, name, styles[method], (by_seed[method] - by_seed[BASELINE]).dropna())
        _row_texts(axes, place, comparison.shown_name(method), text)
    reach = max(map(abs, axes.dataLim.intervalx)) or 1.0
    axes.set_xlim(-1.1 * reach, 1.1 * reach)  # ce in the middle, where no text is
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(f"minus ce, generation {comparison.generations}: {unit_text(described)}", fontsize=9, color=_INK)
    axes.set_title(_short(described.title, _LETTERS), fontsize=10, color=_INK)
    _dress_rows(axes, len(rows))
    return figure


def _row(axes: Axes, place: int, row: Row, name: str, style: dict[str, Any], seeds: pd.Series) -> None:
    """A method's number with its interval, and below it a ring per seed."""
    if row[f"{name}_low"] is not None:
        axes.plot([row[f"{name}_low"], row[f"{name}_high"]], [place] * 2, color=style["color"], linewidth=2.5)
    axes.plot(row[name], place, marker=style["marker"], color=style["color"], markersize=8)
    axes.plot(seeds, [place + 0.2] * len(seeds), linestyle="", marker="o", markersize=3.5, color=style["color"],
              markerfacecolor="none", markeredgewidth=0.9)  # fmt: skip


def _row_texts(axes: Axes, place: int, method: str, number: str) -> None:
    """Above its row, the method on the left and its number on the right."""
    style: dict[str, Any] = {"fontsize": 9, "color": _INK, "va": "bottom", "transform": axes.get_yaxis_transform()}
    axes.text(0, place - 0.2, _short(method, _LETTERS - len(number)), **style)
    axes.text(1, place - 0.2, number, ha="right", **style)


def _dress_rows(axes: Axes, rows: int) -> None:
    """Axes of methods in rows, the first on top."""
    axes.set_yticks([])
    axes.set_ylim(rows - 0.55, -0.75)
    axes.grid(axis="x", color=CONTROL_COLOUR, alpha=0.25, linewidth=0.8)
    axes.spines["left"].set_visible(False)
    _dress(axes)


def calibration_figure(task: Task, curves: pd.DataFrame) -> Figure:
    """CE against the control, mean over the official seeds, one panel per scored metric.

    Args:
        curves: method (ce, control), metric, generation, fidelity.
    """
    metrics = list(task.spec.scored)
    figure, panels = _panels(len(metrics), 4.2, 3.6)
    for panel, metric in zip(panels, metrics, strict=True):
        panel.axhspan(0.95, 1.05, color="#009E73", alpha=0.12, lw=0)
        panel.axhline(HEADLINE, color="#999999", linewidth=0.8)
        for method, style in _styles(["ce", CONTROL]).items():
            curve = curves.query("method == @method and metric == @metric")
            panel.plot(curve["generation"], curve["fidelity"], label=method, markersize=4, **style)
        panel.set_title(_plain(task.spec.metric(metric).title), fontsize=10)
        panel.set_xlabel("generation")
        panel.set_ylim(-0.02, 1.12)
        _dress(panel)
    panels[0].set_ylabel("fidelity")
    panels[0].legend(frameon=False, loc="lower left")
    return figure


def tuning_figure(title: str, panels: Mapping[str, Mapping[str, Sequence[float]]], measured: str) -> Figure:
    """Mean fidelity by generation of the variants of a method, one panel per method, ce in all of them.

    Args:
        panels: by heading, and within a panel by variant, the curve; a panel's variants go from light to dark.
        measured: what fidelity is measured in.
    """
    figure, drawn = _panels(len(panels), 4.8, 4.0)
    shades = matplotlib.colormaps["viridis_r"]
    for panel, (heading, curves) in zip(drawn, panels.items(), strict=True):
        variants = [name for name in curves if name != "ce"]
        for i, name in enumerate(variants):
            shade = shades((i + 1) / (len(variants) + 1))
            panel.plot(curves[name], label=name, color=shade, marker=_MARKERS[i % len(_MARKERS)], markersize=4)
        panel.plot(curves["ce"], label="ce", color="black", linestyle="--", linewidth=1.4)
        panel.set_title(heading, fontsize=10)
        panel.set_xlabel("generation")
        panel.set_ylim(-0.02, 1.05)
        _dress(panel)
        panel.legend(frameon=False, fontsize=8)
    drawn[0].set_ylabel(f"fidelity, {measured}")
    figure.suptitle(title, fontsize=12)
    return figure


def density_figure(curves: dict[str, list[dict[str, list[float]]]]) -> Figure:
    """One panel per method: the density of every generation, dark to light, and the truth.

    Args:
        curves: for each method its generations, each with the lists ``x``, ``density`` and ``truth``.
    """
    figure, panels = _panels(len(curves), 4.2, 3.4)
    shades = matplotlib.colormaps["viridis"]
    for panel, (method, generations) in zip(panels, curves.items(), strict=True):
        for g, curve in enumerate(generations):
            shade = shades(0.95 * g / max(1, len(generations) - 1))
            panel.plot(curve["x"], curve["density"], color=shade, linewidth=1.2)
        panel.plot(generations[0]["x"], generations[0]["truth"], linestyle="--", color=_INK, linewidth=1)
        panel.set_title(_plain(method), fontsize=10, color=_INK)
        _dress(panel)
    truth = next(iter(curves.values()))[0]["truth"]
    panels[0].set_ylim(0, 2.5 * max(truth))
    panels[0].set_ylabel("density", color=_INK)
    return figure


def _panels(across: int, width: float, height: float, share: bool = True) -> tuple[Figure, list[Axes]]:
    """A figure of panels side by side; of no backend, so that it changes nothing in a notebook.

    Args:
        across: how many. width, height: of a panel, in inches. share: all on one scale.
    """
    figure = ShownFigure(figsize=(width * across, height), layout="constrained")
    return figure, list(figure.subplots(1, across, sharex=True, sharey=share, squeeze=False)[0])


def _dress(axes: Axes) -> None:
    """Axes in ink, without a frame."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    axes.tick_params(colors=_INK, labelsize=9)


def _plain(text: str) -> str:
    """A text in which matplotlib reads no formula."""
    return text.replace("$", r"\$")


def _short(name: str, letters: int) -> str:
    return _plain(name if len(name) <= letters else f"{name[: letters - 1]}…")


def _styles(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A colour and marker per method; the baselines have theirs in every plot, whatever their rank.

    Nobody else gets the colour of a baseline: beyond those that are left the colours repeat, with other markers.
    """
    known, n = len(BASELINES), len(COLOURS)
    styles: dict[str, dict[str, Any]] = {CONTROL: _CONTROL_STYLE}
    for i, method in enumerate([*BASELINES, *(m for m in methods if m not in (*BASELINES, CONTROL))]):
        colour = COLOURS[i if i < known else known + (i - known) % (n - known)]
        styles[method] = {"color": colour, "marker": _MARKERS[i % len(_MARKERS)]}
    return {method: styles[method] for method in methods}


def figure_png(figure: Figure) -> bytes:
    """The bytes of a PNG without a date in it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def figure_svg(figure: Figure) -> str:
    """An ``<svg>`` for a page: without background, in the colour and font of the page's text, without addresses."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "collapsebench"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' clip-path="url\([^)]*\)"', "", svg)  # nothing is drawn outside of the axes
    return re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg).replace(_INK, "currentColor")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    path.write_bytes(figure_png(figure))
