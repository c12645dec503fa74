"""What ``report.html`` shows of a comparison, gathered for its template."""

from __future__ import annotations

import base64
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapsebench import __version__
from collapsebench.reports.gallery import ShownChain, densities, image_rows, shown_seed, texts
from collapsebench.reports.plots import density_figure, fidelity_figure, figure_png, figure_svg, forest_figure
from collapsebench.reports.rendering import render
from collapsebench.reports.takeaway import takeaway
from collapsebench.scoring.columns import METHOD, Column, censored_text, records, shown_columns
from collapsebench.scoring.engagement import SHARES
from collapsebench.scoring.fidelity import ALL
from collapsebench.scoring.table import HEADLINE

if TYPE_CHECKING:
    import pandas as pd

    from collapsebench.reports.comparison import Comparison

_Rows = list[tuple[str, list[float | None]]]
_DIGITS = 12  # of a digest, where one is shown


def page(comparison: Comparison, chains: list[ShownChain], animations: dict[str, Path]) -> str:
    """The report as one file of HTML that loads nothing.

    Args:
        chains: as `collapsebench.reports.gallery.shown_chains`. animations: their files by method.
    """
    spec = comparison.task.spec
    density = {chain: figure_svg(density_figure({chain: curve})) for chain, curve in densities(chains).items()}
    return render(
        "report.html",
        comparison=comparison,
        task=comparison.task,
        scored=spec.scored,
        takeaway=takeaway(comparison),
        table=table(comparison),
        headline=HEADLINE,
        forest=figure_svg(forest_figure(comparison)),
        curves={spec.metric(name).title: figure_svg(fidelity_figure(comparison, [name])) for name in spec.scored},
        by_metric=_by_metric(comparison),
        by_seed=_by_seed(comparison),
        task_card=_task_card(comparison),
        method_cards=_method_cards(comparison),
        shown_seed=shown_seed(comparison),
        texts=texts(chains),
        images=image_rows(chains),
        animations={m: base64.b64encode(path.read_bytes()).decode() for m, path in animations.items()},
        densities=density,
        engagement=_engagement(comparison),
        profile=_profile(comparison),
        provenance=_provenance(comparison),
        command=command(comparison),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )


def notebook_page(comparison: Comparison) -> str:
    """What a notebook shows of a comparison; the curves as a picture, which every viewer of notebooks lets through."""
    return render(
        "notebook.html",
        comparison=comparison,
        takeaway=takeaway(comparison),
        table=table(comparison),
        curves=base64.b64encode(figure_png(fidelity_figure(comparison))).decode(),
    )


def table(comparison: Comparison) -> dict[str, Any]:
    """The table of the comparison as text: its columns, and the rows in their order."""
    rows = records(comparison.table)
    columns = shown_columns(rows)

    def text(column: Column, row: dict[str, Any]) -> str:
        return comparison.shown_name(row["method"]) if column is METHOD else column.text(row)

    return {"columns": columns, "rows": [[text(column, row) for column in columns] for row in rows]}


def command(comparison: Comparison) -> str | None:
    """The command that makes this comparison again; None where a loss exists only in a notebook or script."""
    task, spec = comparison.task, comparison.task.spec
    here = {cell["label"]: cell["about"].get("spec") for cell in comparison.cells}
    losses = [here[method] for method in comparison.methods if method in here]
    if any(loss is None for loss in losses):
        return None
    name = task.argument if task.argument == spec.name else task.path.name
    seeds = sorted({cell["about"]["seed"] for cell in comparison.cells})
    words = ["collapsebench", "compare", name, "--methods", ",".join(losses), "--seeds", ",".join(map(str, seeds))]
    words += ["--generations", str(comparison.generations)] if comparison.generations < spec.horizon else []
    words += ["--budget", f"{task.budget:g}"] if task.budget != 1.0 else []
    words += ["--against", "published"] if comparison.published else []
    return shlex.join(words)


def _task_card(comparison: Comparison) -> list[tuple[str, str]]:
    """What is fixed, as headings and texts."""
    task, spec = comparison.task, comparison.task.spec
    starts = {
        "base": "from the same base model in every generation",
        "scratch": "from random weights in every generation",
        "previous": "from the weights of the generation before",
    }
    share = "" if spec.policy.real_share is None else f", {100 * spec.policy.real_share:g} % real"
    data = spec.data.model_dump()
    scale = [
        f"{spec.metric(name).title}: 1 at {scored.reference_text}, 0 at {scored.floor:.5g}"
        for name, scored in spec.scored.items()
    ]
    return [
        ("Task", f"{task.id}, {spec.tier} tier, {spec.kind.label}"),
        ("Data", next((str(data[key]) for key in ("corpus", "dataset", "path") if key in data), data["source"])),
        ("Training", f"{starts[spec.init]}; {spec.policy.size:,} items a generation, policy {spec.policy.name}{share}"),
        ("Fidelity", "; ".join(scale)),
        ("Seeds", f"{', '.join(map(str, sorted(set(comparison.raw['seed']))))} ({len(spec.seeds)} are official)"),
        ("Generations", f"0 to {comparison.generations} of {spec.horizon}"),
        ("Digest", f"{task.sha256[:_DIGITS]}…"),
    ]


def _method_cards(comparison: Comparison) -> list[dict[str, Any]]:
    """What every method is, in the order of the table."""
    cells = {cell["label"]: cell["about"] for cell in comparison.cells}
    published = {entry.name: entry.submission.method for entry in comparison.published}
    cards = []
    for method in comparison.methods:
        if method in cells:
            about = cells[method]
            parameters = {k: v for k, v in about["method"]["parameters"].items() if k != "ignore_index"}
            told, track, digest = about.get("description"), about["method"]["track"], about["method"]["source_sha256"]
        else:
            entry = published[method]
            parameters, told, track, digest = {}, entry.card, entry.track, entry.source_sha256
        cards.append(
            {
                "name": comparison.shown_name(method),
                "told": told or "It has no description.",
                "parameters": ", ".join(f"{key} = {value}" for key, value in parameters.items()),
                "track": track,
                "digest": f"{digest[:_DIGITS]}…",
            }
        )
    return cards


def _by_metric(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Per method: mFI and start of every scored metric, then FI(0.9) and FI(0.5)."""
    found = []
    for row in records(comparison.table):
        numbers = [f"{row[f'{of}_{name}']:.2f}" for name in comparison.task.spec.scored for of in ("mfi", "start")]
        numbers += [censored_text(row, "fi_0.9"), censored_text(row, "fi_0.5")]
        found.append((comparison.shown_name(row["method"]), numbers))
    return found


def _by_seed(comparison: Comparison) -> dict[str, Any]:
    """mFI of every seed: the seeds, and a row per method."""
    values = {(row["method"], row["seed"]): row["mfi"] for row in records(comparison.scores) if row["metric"] == ALL}
    seeds = sorted({seed for _, seed in values})
    rows = [(comparison.shown_name(m), [values.get((m, seed)) for seed in seeds]) for m in comparison.methods]
    return {"seeds": seeds, "rows": rows}


def _engagement(comparison: Comparison) -> list[tuple[str, _Rows]]:
    """Every share of engagement that was measured: its title, and its rows."""
    there = set(comparison.engagement["metric"])
    return [(title, _rows(comparison, comparison.engagement, name)) for name, title in SHARES.items() if name in there]


def _profile(comparison: Comparison) -> list[tuple[str, list[dict[str, Any]]]]:
    """Every metric that was measured, in three groups, each in the task's order."""
    spec, there = comparison.task.spec, set(comparison.raw["metric"])
    groups: dict[str, list[dict[str, Any]]] = {"Scored": [], "Better or worse, not scored": [], "Descriptions": []}
    for name in spec.metrics:
        if name not in there:
            continue
        metric = spec.metric(name)
        group = "Scored" if name in spec.scored else list(groups)[1 if metric.direction else 2]
        groups[group].append({"metric": metric, "rows": _rows(comparison, comparison.raw, name)})
    return [(title, metrics) for title, metrics in groups.items() if metrics]


def _rows(comparison: Comparison, frame: pd.DataFrame, metric: str) -> _Rows:
    """Mean over seeds of a metric, per method and generation; methods without it have no row."""
    mine = frame[frame["metric"] == metric].astype({"value": float})
    means = mine.groupby(["method", "generation"])["value"].mean()
    there, last = set(mine["method"]), comparison.generations
    return [(m, [means[m].get(g) for g in range(last + 1)]) for m in comparison.methods if m in there]


def _provenance(comparison: Comparison) -> dict[str, Any]:
    """Machines, versions and time of the cells that were run here."""
    seconds: dict[str, float] = {}
    for cell in comparison.cells:
        for phase, spent in cell["seconds"].items():
            seconds[phase] = seconds.get(phase, 0.0) + spent
    first = comparison.cells[0]["about"]
    return {
        "seconds": seconds,
        "device": first["device"],
        "circumstances": first["circumstances"],
        "data": f"{first['task']['data_sha256'][:_DIGITS]}…",
        "cells": len(comparison.cells),
        "published": [f"{entry.name} ({entry.digest})" for entry in comparison.published],
    }
