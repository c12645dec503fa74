"""One task: who stays faithful for how long, the raw metrics behind it, the calibration, the card."""

from __future__ import annotations

import json
from collections.abc import Sequence

import charts
import pandas as pd
import streamlit as st
from cards import show_card
from choices import choose_methods, choose_task, report_unknown, show_link
from plain_text import as_markdown
from reading import Reading, read
from retired import show_banner
from wording import FIDELITY, MFI

from collapsebench.publishing.board import Board, crossings, fidelity_bands, raw_bands, seed_table
from collapsebench.publishing.entries import engagement_rows
from collapsebench.publishing.published_power import Power, power_of
from collapsebench.publishing.submission import raw_frame
from collapsebench.scoring.columns import interval_text, reason, reasons, records
from collapsebench.scoring.engagement import SHARES, engagement_frame, percent_text
from collapsebench.scoring.fidelity import ALL
from collapsebench.scoring.seed_scores import THRESHOLDS
from collapsebench.scoring.table import HEADLINE
from collapsebench.task import Task
from collapsebench.task_files import own_file

MOST_INTERVALS = 15
PROFILES: dict[str, tuple[str, ...]] = {
    "tail": ("token_loss_p50", "token_loss_p90", "token_loss_p99"),
    "diversity": (
        "distinct_1", "distinct_2", "distinct_4", "repetition", "unigram_kl", "class_entropy", "recall", "density",
        "nearest_training_distance", "model_variance", "sample_variance", "sample_mean",
    ),
}  # fmt: skip


def engagement_of(reading: Reading, digests: Sequence[str]) -> pd.DataFrame:
    """Engagement of those of some entries that have it, by generation."""
    board = reading.board
    frames = [engagement_frame(board.label(d), engagement_rows(reading.submission(d))) for d in digests]
    return raw_bands(pd.concat(frames, ignore_index=True))


def raw_of(reading: Reading, digests: Sequence[str]) -> pd.DataFrame:
    """Raw metrics of some entries, by generation."""
    board = reading.board
    frames = [raw_frame(reading.submission(digest), board.label(digest)) for digest in digests]
    return raw_bands(pd.concat(frames, ignore_index=True))


def show_ranks(reading: Reading, task: Task, rows: pd.DataFrame) -> None:
    """mFI with intervals, and what explains it."""
    best = rows.head(MOST_INTERVALS)
    found = records(best.drop(columns="curve"))
    shown = pd.DataFrame([{**row, "text": interval_text(row, "mfi")} for row in found])
    st.header("What was measured" if task.unranked else "How long each method stays faithful", anchor="ranks")
    told = "; ".join(f"{m} {text}" for m, text in zip(shown["method"], shown["text"], strict=True))
    st.altair_chart(
        charts.interval_chart(shown, charts.styles(list(shown["method"])), task.spec.horizon),
        alt=f"mFI on {task.id} with 95 % intervals: {told}",
    )
    more = f" {MOST_INTERVALS} of {len(rows)} methods." if len(rows) > MOST_INTERVALS else ""
    st.caption(f"{MFI} Lines: 95 % intervals over {len(task.spec.seeds)} seeds (Student t); dashed: CE.{more}")
    st.markdown("\n".join(f"- {as_markdown(reason(row))}" for row in found))
    with st.expander("Seed by seed: the generation that loses most"):
        scores = reading.scores(list(best["digest"])).scores
        st.markdown("\n".join(f"- {as_markdown(line)}" for line in reasons(found, scores)))


def show_power(reading: Reading, task: Task) -> None:
    """How small a difference the official seeds can find."""
    power = reading.kept(_power, task.id)
    if power is not None:
        st.caption(power.told(len(task.spec.seeds)) + f" Planned with the spread of {as_markdown(power.spread.of)}.")


def _power(board: Board, task_id: str) -> Power | None:
    return power_of(board.tasks[task_id], seed_table(board, task_id))


def show_fidelity(reading: Reading, task: Task, labels: dict[str, str]) -> tuple[str, float]:
    """Curves of one metric with the crossings of a threshold; returns the metric and the threshold."""
    st.header("Fidelity over generations", anchor="fidelity")
    options = [ALL, *task.spec.scored]
    report_unknown("metric", options, "scored metric of this task")
    with st.container(horizontal=True, gap="medium"):
        metric: str = st.pills(
            "Scored metric", options, default=ALL, key="metric", bind="query-params", required=True,
            help="all: the smallest fidelity over the scored metrics. "
            + " ".join(f"{name}: {task.spec.metric(name).description}" for name in task.spec.scored),
        )  # fmt: skip
        threshold: float = st.segmented_control(
            "Threshold λ", THRESHOLDS, default=HEADLINE, key="threshold", bind="query-params", required=True,
            help="FI(λ) is the first generation, interpolated, at which fidelity falls below λ; mFI is its mean.",
        )  # fmt: skip
    found = reading.scores(list(labels.values()))
    look = charts.styles(list(labels))
    bands = fidelity_bands(found.curves)
    bands = bands[bands["metric"] == metric]
    crossed = crossings(found.scores)
    mine = crossed[(crossed["metric"] == metric) & (crossed["threshold"] == threshold)]
    told = [f"{r.method} {'at least ' if r.censored else ''}{r.fi:.2f}" for r in mine.itertuples()]
    st.altair_chart(
        charts.fidelity_chart(bands, mine, look, threshold, task.spec.horizon),
        alt=f"Fidelity ({metric}) on {task.id} by generation. FI({threshold:g}): {', '.join(told)}",
    )
    st.caption(
        f"Lines: mean over seeds. Bands: smallest to largest seed. Dotted drops: FI({threshold:g}), the mean over "
        f"seeds of where their curves cross λ; none where a seed never does. {FIDELITY}"
    )
    with st.expander("The numbers"):
        show_crossings(crossed, metric)
        wide = bands.pivot(index="generation", columns="method", values="mean")[list(labels)]
        st.dataframe(wide.round(4), alt=f"Mean fidelity ({metric}) by generation and method")
    return metric, threshold


def show_crossings(crossed: pd.DataFrame, metric: str) -> None:
    """FI at every threshold as text."""
    mine = crossed[crossed["metric"] == metric]
    text = mine.assign(text=[f"{'≥ ' if r.censored else ''}{r.fi:.2f}" for r in mine.itertuples()])
    wide = text.pivot(index="method", columns="threshold", values="text")[list(THRESHOLDS)]
    st.dataframe(wide.rename(columns=lambda t: f"FI({t:g})"), alt=f"FI of every method ({metric}) at three thresholds")


def show_metrics(bands: pd.DataFrame, names: Sequence[str], look: charts.Look, task: Task) -> None:
    """Small charts of raw metrics, three to a row."""
    across = min(3, len(names))
    for i, name in enumerate(names):
        metric, mine = task.spec.metric(name), bands[bands["metric"] == name]
        if i % across == 0:  # a row of its own, so that phones keep the order
            columns = st.columns(across)
        notes = [f"{metric.direction} is better"] if metric.direction else []
        notes += ["log scale"] if metric.scale == "log" else []
        with columns[i % across]:
            st.markdown(f"**{as_markdown(metric.title)}**", help=metric.description)
            chart = charts.band_chart(mine, look, metric.unit, task.spec.horizon, metric.scale == "log")
            ends = mine.sort_values("generation").groupby("method", sort=False)["mean"]
            told = "; ".join(f"{m} {v.iloc[0]:.4g} to {v.iloc[-1]:.4g}" for m, v in ends)
            st.altair_chart(chart, alt=f"{metric.title} from generation 0 to {task.spec.horizon}: {told}")
            if notes:
                st.caption(", ".join(notes).capitalize() + ".")


def show_engagement(bands: pd.DataFrame, look: charts.Look, task: Task) -> None:
    """How much every loss leaves out; nothing where it was not measured."""
    if bands.empty:
        return
    st.header("How much each loss leaves out", anchor="engagement")
    st.caption(
        "Over the elements that a generation was trained on. A loss that masks almost nothing trains like cross "
        "entropy, unless it weights elements differently."
    )
    for column, (name, title) in zip(st.columns(len(SHARES)), SHARES.items(), strict=True):
        mine = bands[bands["metric"] == name]
        told = "; ".join(f"{m} {percent_text(v.mean())}" for m, v in mine.groupby("method", sort=False)["mean"])
        with column:
            st.markdown(f"**{as_markdown(title)}**")
            st.altair_chart(charts.band_chart(mine, look, "", task.spec.horizon), alt=f"{title}, mean: {told}")


def show_profile(bands: pd.DataFrame, task: Task, look: charts.Look) -> None:
    """What is measured and never ranked, by theme."""
    there = [name for name in task.spec.metrics if name in set(bands["metric"]) and name not in task.spec.scored]
    themes = {theme: [n for n in names if n in there] for theme, names in PROFILES.items()}
    named = {n for names in themes.values() for n in names}
    themes["other"] = [n for n in there if n not in named]
    themes = {theme: names for theme, names in themes.items() if names}
    if not themes:
        return
    st.header("Profile", anchor="profile")
    st.caption("Measured and shown, never ranked.")
    theme: str = st.pills(
        "Theme", list(themes), default=next(iter(themes)), key="profile", bind="query-params", required=True
    )
    show_metrics(bands, themes[theme], look, task)


def show_calibration(task: Task) -> None:
    """Cross entropy against the control, as frozen with the task."""
    file = own_file(task.path, "calibration.json")
    if not file.is_file():
        return
    curves = pd.DataFrame(json.loads(file.read_text("utf-8"))["curves"])
    st.header("Calibration", anchor="calibration")
    st.caption(
        "These curves show that the decay is collapse, not over-training: the control is trained on real data with the "
        "same budget in every generation and must stay in the green band, 0.95 to 1.05. The settings were chosen on "
        "these two curves alone."
    )
    columns = st.columns(max(len(task.spec.scored), 1))
    for column, name in zip(columns, task.spec.scored, strict=True):
        mine = curves[curves["metric"] == name]
        control = mine.loc[mine["method"] != "ce", "fidelity"]
        title = task.spec.metric(name).title
        with column:
            st.markdown(f"**{as_markdown(title)}**")
            st.altair_chart(
                charts.calibration_chart(mine, task.spec.horizon),
                alt=f"{title}: the control stays between {control.min():.2f} and {control.max():.2f}",
            )


reading = read()
st.title("Task")
task = choose_task(reading)
spec = task.spec
show_banner(task)
st.markdown(
    f"{as_markdown(spec.title)}. {spec.tier.capitalize()} tier, {spec.kind.label}, data policy "
    f"`{spec.policy.name}`, {len(spec.seeds)} official seeds, generations 0 to {spec.horizon}."
)
st.page_link(
    "views/gallery.py", label="What the models made", icon=":material/grid_view:", query_params={"task": task.id}
)
rows = reading.board.table[reading.board.table["task"] == task.id]
view: dict[str, str | list[str]] = {"task": task.id}
if rows.empty:
    st.info("Nobody has submitted to this task yet.")
else:
    show_ranks(reading, task, rows)
    show_power(reading, task)
    chosen = choose_methods(list(rows["method"]))
    labels = {str(m): str(d) for m, d in zip(rows["method"], rows["digest"], strict=True) if m in chosen}
    if labels:
        metric, threshold = show_fidelity(reading, task, labels)
        look = charts.styles(list(labels))
        bands = raw_of(reading, list(labels.values()))
        st.header("Raw metrics behind it", anchor="raw")
        show_metrics(bands, list(spec.scored), look, task)
        show_engagement(engagement_of(reading, list(labels.values())), look, task)
        show_profile(bands, task, look)
        view |= {"methods": list(labels), "metric": metric, "threshold": f"{threshold:g}"}
    else:
        st.info("Choose at least one method.")
show_calibration(task)
show_link(**view)
show_card(task)
