"""Charts of the site. Every method has one colour, dash and mark; the baselines' are the same on every page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd
from altair.utils import schemapi

from collapsebench.methods import BASELINES, CONTROL
from collapsebench.reports.palette import COLOURS, CONTROL_COLOUR

schemapi.disable_debug_mode()  # validating charts against their schema takes half the time of a page; tests do it

_DASHES = ([1, 0], [7, 3], [2, 2], [8, 3, 2, 3], [12, 4], [4, 4], [1, 3], [10, 2, 2, 2, 2, 2])
_MARKS = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
_BLUE, _ORANGE, _GREEN, _GREY = *COLOURS[:3], CONTROL_COLOUR
_INK = "currentColor"  # colour of the page's text, light or dark; Streamlit's own grey is too pale on white
_ROWS = alt.Axis(labelLimit=200, ticks=False, domain=False)
_GENERATIONS = alt.Axis(tickMinStep=1, format="d", grid=False)
_LEGEND: dict[str, Any] = {
    "title": None, "orient": "bottom", "columns": 4, "labelLimit": 160, "symbolOpacity": 1, "symbolSize": 90,
    "symbolStrokeWidth": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """Colour, dash and mark of a method."""

    colour: str
    dash: list[int]
    mark: str


Look = Mapping[str, Style]


def styles(methods: Sequence[str]) -> Look:
    """A style per method: the baselines have fixed styles, the control is grey, and others get theirs in order.

    No other method gets the colour of a baseline. With more than five others, colours repeat with other dashes and
    marks.
    """
    known, n = len(BASELINES), len(COLOURS)
    order = [*BASELINES, *(m for m in methods if m not in (*BASELINES, CONTROL))]
    colours = [*COLOURS[:known], *(COLOURS[known + i % (n - known)] for i in range(len(order) - known))]
    found = {m: Style(colours[i], _DASHES[i % n], _MARKS[i % n]) for i, m in enumerate(order)}
    found[CONTROL] = Style(_GREY, [4, 3], "circle")
    return {m: found[m] for m in methods}


def fidelity_chart(
    bands: pd.DataFrame, crossings: pd.DataFrame, look: Look, threshold: float, last: int
) -> alt.LayerChart:
    """Mean fidelity by generation, its range over seeds, and where each method crosses the threshold.

    Args:
        bands: bands of one metric, from `fidelity_bands`. crossings: crossings of that metric and threshold. last: the
            last generation G.
    """
    at = pd.DataFrame({"threshold": [threshold], "label": [f"λ = {threshold:g}"], "last": [last]})
    line = alt.Chart(at).mark_rule(color=_GREY, strokeWidth=1).encode(y="threshold:Q")
    name = alt.Chart(at).mark_text(align="right", baseline="bottom", dy=-3, color=_GREY, fontSize=12)
    crossed = crossings[~crossings["censored"]].assign(bottom=0.0, threshold=threshold)
    drops = alt.Chart(crossed).encode(x="fi:Q", color=_colour(look))
    return _inked(
        line,
        name.encode(x="last:Q", y="threshold:Q", text="label:N"),
        drops.mark_rule(strokeDash=[1, 3], strokeWidth=1.5).encode(y="bottom:Q", y2="threshold:Q"),
        *_curves(bands, look, alt.Scale(domain=[0, 1.05], nice=False), "fidelity", last),
        height=420,
    )


def band_chart(bands: pd.DataFrame, look: Look, unit: str, last: int, log: bool = False) -> alt.LayerChart:
    """Mean and range over seeds of a raw metric by generation."""
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)
    return _inked(*_curves(bands, look, scale, unit or None, last), height=290)


def calibration_chart(curves: pd.DataFrame, last: int) -> alt.LayerChart:
    """Cross entropy against the control on one metric, with the band in which the control must stay."""
    band = alt.Chart(pd.DataFrame({"low": [0.95], "high": [1.05]})).mark_rect(color=_GREEN, opacity=0.18)
    line = alt.Chart(pd.DataFrame({"threshold": [0.75]})).mark_rule(color=_GREY).encode(y="threshold:Q")
    flat = curves.assign(**dict.fromkeys(("mean", "low", "high"), curves["fidelity"]))
    scale = alt.Scale(domain=[0, 1.15], nice=False)
    lines = _curves(flat, styles(["ce", CONTROL]), scale, "fidelity", last, ranged=False)
    return _inked(band.encode(y="low:Q", y2="high:Q"), line, *lines, height=270)


def interval_chart(rows: pd.DataFrame, look: Look, last: float, title: str = "mFI, generations") -> alt.LayerChart:
    """mFI of methods with their intervals, in the given order, and a line at CE.

    Args:
        rows: method, mfi, mfi_low, mfi_high and text (as shown on the page). last: end of the axis. title: title of the
            axis.
    """
    y = alt.Y("method:N", sort=list(rows["method"]), title=None, axis=_ROWS)
    scale = alt.Scale(domain=[0, last], nice=False)
    whole = {"tickMinStep": 1, "format": "d"} if last > 1 else {"values": [0, 0.25, 0.5, 0.75, 1], "format": ".0%"}
    x = alt.X("mfi:Q", title=title, scale=scale, axis=alt.Axis(grid=True, **whole))
    ends = rows.dropna(subset=["mfi_low", "mfi_high"])
    tips = ["method:N", alt.Tooltip("text:N", title="mFI [95 %]")]
    colour = _colour(look, legend=False)
    ce = alt.Chart(rows[rows["method"] == "ce"]).mark_rule(color=_BLUE, strokeWidth=1.5, strokeDash=[4, 3])
    return _inked(
        ce.encode(x=x),
        alt.Chart(rows).mark_point(filled=True, size=100, opacity=1).encode(
            x=x, y=y, color=colour, tooltip=tips
        ),
        alt.Chart(ends).mark_rule(strokeWidth=2.5).encode(y=y, x="mfi_low:Q", x2="mfi_high:Q", color=colour),
        height=alt.Step(28),
    )  # fmt: skip


def profile_chart(profile: pd.DataFrame, look: Look) -> alt.LayerChart:
    """Performance profiles: the share of runs that reach each level.

    Args:
        profile: method, level (τ) and runs.
    """
    scale = alt.Scale(domain=[0, 1], nice=False)
    base = alt.Chart(profile).encode(
        x=alt.X("level:Q", title="mFI / G at least", scale=scale, axis=alt.Axis(format=".0%", grid=False)),
        y=alt.Y("runs:Q", title="share of runs", scale=scale, axis=alt.Axis(format=".0%")),
        color=_colour(look),
    )
    tips = ["method:N", alt.Tooltip("level:Q", format=".2f"), alt.Tooltip("runs:Q", format=".0%")]
    return _inked(
        base.mark_line(strokeWidth=2, interpolate="step-before").encode(strokeDash=_dash(look)),
        base.mark_point(filled=True, size=30, opacity=1).encode(shape=_mark(look), tooltip=tips),
        height=260,
    )


def ratio_chart(rows: pd.DataFrame, one: str, other: str) -> alt.LayerChart:
    """Ratios with intervals on a log axis, one row per task, with a line at 1.

    Args:
        rows: rows with positive ratios: task, ratio, ratio_low, ratio_high and text (as shown on the page).
    """
    values = [float(v) for column in ("ratio", "ratio_low", "ratio_high") for v in rows[column].dropna() if v > 0]
    domain = [min([*values, 0.5]) / 1.15, max([*values, 2.0]) * 1.15]
    scale = alt.Scale(type="log", domain=domain, nice=False)
    ticks = [t for t in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if domain[0] <= t <= domain[1]]
    axis = alt.Axis(values=ticks, format="~g", grid=True)
    x = alt.X("ratio:Q", scale=scale, axis=axis, title=f"mFI of {one} / mFI of {other}")
    y = alt.Y("task:N", sort=list(rows["task"]), title=None, axis=_ROWS)
    ends = rows.dropna(subset=["ratio_low", "ratio_high"])
    tips = ["task:N", alt.Tooltip("text:N", title="ratio [95 %]")]
    equal = alt.Chart(pd.DataFrame({"one": [1.0]})).mark_rule(color=_GREY, strokeDash=[4, 3])
    return _inked(
        alt.Chart(rows).mark_point(filled=True, size=120, opacity=1, color=_BLUE).encode(
            x=x, y=y, tooltip=tips
        ),
        equal.encode(x="one:Q"),
        alt.Chart(ends).mark_rule(strokeWidth=2.5, color=_BLUE).encode(y=y, x="ratio_low:Q", x2="ratio_high:Q"),
        height=alt.Step(36),
    )  # fmt: skip


def difference_chart(pairs: pd.DataFrame, one: str, other: str) -> alt.LayerChart:
    """mFI of one method minus that of another: a ring per seed and a bar at the mean, with one row per task."""
    y = alt.Y("task:N", title=None, axis=_ROWS)
    axis = alt.Axis(tickMinStep=1, format="d")
    x = alt.X("difference:Q", title=f"mFI of {one} − mFI of {other}, generations", axis=axis)
    tips = ["task:N", "seed:O", *(alt.Tooltip(f"{c}:Q", format=".2f") for c in ("mfi_one", "mfi_other", "difference"))]
    zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color=_GREY, strokeDash=[4, 3])
    bars = alt.Chart(pairs).mark_tick(thickness=3, size=22, color=_ORANGE)
    return _inked(
        alt.Chart(pairs).mark_point(size=80, color=_BLUE, strokeWidth=2, opacity=1).encode(x=x, y=y, tooltip=tips),
        zero.encode(x="zero:Q"),
        bars.encode(x="mean(difference):Q", y=y),
        height=alt.Step(36),
    )


def density_chart(frame: pd.DataFrame, across: tuple[float, float], top: float) -> alt.LayerChart:
    """The density of a model (filled) and of the truth (dashed).

    Args:
        frame: x, truth and model. across: range of the x axis. top: top of the y axis.
    """
    base = alt.Chart(frame).encode(x=alt.X("x:Q", title=None, scale=alt.Scale(domain=list(across), nice=False)))
    scale = alt.Scale(domain=[0, top])
    model_y, truth_y = (alt.Y(f"{c}:Q", scale=scale, title="density") for c in ("model", "truth"))
    tips = [alt.Tooltip(f"{c}:Q", format=".3~f") for c in frame]
    return _inked(
        base.mark_area(color=_BLUE, opacity=0.3, clip=True).encode(y=model_y, tooltip=tips),
        base.mark_line(color=_BLUE, clip=True).encode(y=model_y),
        base.mark_line(color=_INK, strokeWidth=1.5, strokeDash=[5, 3], clip=True).encode(y=truth_y),
        height=240,
    )


def _curves(
    bands: pd.DataFrame, look: Look, scale: alt.Scale, title: str | None, last: int, *, ranged: bool = True
) -> list[alt.Chart]:
    """Range, line and marks by generation, with one legend for colour, dash and mark."""
    x = alt.X("generation:Q", title="generation", scale=alt.Scale(domain=[0, last], nice=False), axis=_GENERATIONS)
    y = alt.Y("mean:Q", title=title, scale=scale)
    base = alt.Chart(bands).encode(x=x, color=_colour(look))
    numbers = [alt.Tooltip(f"{c}:Q", format=".4~g") for c in ("mean", "low", "high")]
    tips = ["method:N", "generation:Q", *(numbers if ranged else numbers[:1])]
    area = base.mark_area(opacity=0.16, clip=True).encode(y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q")
    return [
        *([area] if ranged else []),
        base.mark_line(strokeWidth=2, clip=True).encode(y=y, strokeDash=_dash(look)),
        base.mark_point(filled=True, size=48, opacity=1, clip=not ranged).encode(y=y, shape=_mark(look), tooltip=tips),
    ]


def _inked(*layers: alt.Chart, height: int | alt.Step) -> alt.LayerChart:
    """Layers as one chart, labelled in the colour of the page's text."""
    text = {"labelColor": _INK, "titleColor": _INK, "labelOpacity": 0.8, "titleOpacity": 0.8}
    legend = {"labelColor": _INK, "labelOpacity": 0.9, "labelFontSize": 13}
    return alt.layer(*layers).properties(height=height).configure_axis(**text).configure_legend(**legend)


def _colour(look: Look, legend: bool = True) -> alt.Color:
    scale = alt.Scale(domain=list(look), range=[style.colour for style in look.values()])
    return alt.Color("method:N", scale=scale, legend=alt.Legend(**_LEGEND) if legend else None)


def _dash(look: Look) -> alt.StrokeDash:
    scale = alt.Scale(domain=list(look), range=[style.dash for style in look.values()])
    return alt.StrokeDash("method:N", scale=scale, legend=alt.Legend(**_LEGEND))


def _mark(look: Look) -> alt.Shape:
    scale = alt.Scale(domain=list(look), range=[style.mark for style in look.values()])
    return alt.Shape("method:N", scale=scale, legend=alt.Legend(**_LEGEND))
