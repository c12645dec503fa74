"""The parts of a report that need no scale: what was compared, what the models made, every metric, how it was run."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapsebench import __version__
from collapsebench.reports.gallery import ShownChain, densities, image_rows, shown_seed, texts
from collapsebench.reports.plots import density_figure, figure_svg
from collapsebench.scoring.engagement import SHARES

if TYPE_CHECKING:
    import pandas as pd

    from collapsebench.reports.compared import Compared

_Rows = list[tuple[str, list[float | None]]]
_DIGITS = 12  # of a digest, where one is shown


def sections(
    comparison: Compared,
    chains: list[ShownChain],
    animations: dict[str, Path],
    measured: tuple[str, str],
    chosen: tuple[Collection[str], str],
) -> dict[str, Any]:
    """What ``layout.html`` shows, whatever the comparison is about.

    Args:
        chains: as `collapsebench.reports.gallery.shown_chains`. animations: their files by method.
        measured: heading and text of the task's card on what it is measured by.
        chosen: the metrics that were compared, and what they are called: ``scored``.
    """
    density = {chain: figure_svg(density_figure({chain: curve})) for chain, curve in densities(chains).items()}
    return {
        "comparison": comparison,
        "task": comparison.task,
        "task_card": _task_card(comparison, measured),
        "method_cards": _method_cards(comparison),
        "shown_seed": shown_seed(comparison),
        "texts": texts(chains),
        "images": image_rows(chains),
        "animations": {m: base64.b64encode(path.read_bytes()).decode() for m, path in animations.items()},
        "densities": density,
        "engagement": _engagement(comparison),
        "profile": _profile(comparison, *chosen),
        "provenance": _provenance(comparison),
        "command": command(comparison),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
    }


def command(comparison: Compared) -> str | None:
    """The command that makes this comparison again; None where a loss exists only in a notebook or script."""
    task, spec = comparison.task, comparison.task.spec
    here = {cell["label"]: _shown_spec(cell["about"]) for cell in comparison.cells}
    asked = [here[method] for method in comparison.methods if method in here]
    losses = [loss for loss in asked if loss is not None]
    if len(losses) < len(asked):
        return None
    seeds = sorted({cell["about"]["seed"] for cell in comparison.cells})
    words = [
        "collapsebench",
        "compare",
        task.shown_argument,
        "--methods",
        ",".join(losses),
        "--seeds",
        ",".join(map(str, seeds)),
    ]
    words += ["--generations", str(comparison.generations)] if comparison.generations < spec.horizon else []
    words += ["--budget", f"{task.budget:g}"] if task.budget != 1.0 else []
    words += ["--against", "published"] if comparison.published else []
    return shlex.join(words)


def _shown_spec(about: dict[str, Any]) -> str | None:
    """The text that loads a method, without this machine's folders; None where only its own process can load it."""
    spec, loss = about.get("spec"), about.get("loss")
    return spec[spec.index(loss) :] if spec and loss and loss in spec else spec


def _task_card(comparison: Compared, measured: tuple[str, str]) -> list[tuple[str, str]]:
    """What is fixed, as headings and texts."""
    task, spec = comparison.task, comparison.task.spec
    starts = {
        "base": "from the same base model in every generation",
        "scratch": "from random weights in every generation",
        "previous": "from the weights of the generation before",
    }
    share = "" if spec.policy.real_share is None else f", {100 * spec.policy.real_share:g} % real"
    data = spec.data.model_dump()
    data |= {"path": Path(data["path"]).name} if "path" in data else {}
    return [
        ("Task", f"{task.id}, {spec.tier} tier, {spec.kind.label}"),
        ("Data", next((str(data[key]) for key in ("corpus", "dataset", "path") if key in data), data["source"])),
        ("Training", f"{starts[spec.init]}; {spec.policy.size:,} items a generation, policy {spec.policy.name}{share}"),
        measured,
        ("Seeds", f"{', '.join(map(str, comparison.seeds))} ({len(spec.seeds)} are official)"),
        ("Generations", f"0 to {comparison.generations} of {spec.horizon}"),
        ("Digest", f"{task.sha256[:_DIGITS]}…"),
    ]


def _method_cards(comparison: Compared) -> list[dict[str, Any]]:
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


def _engagement(comparison: Compared) -> list[tuple[str, _Rows]]:
    """Every share of engagement that was measured: its title, and its rows."""
    there = set(comparison.engagement["metric"])
    return [(title, _rows(comparison, comparison.engagement, name)) for name, title in SHARES.items() if name in there]


def _profile(comparison: Compared, chosen: Collection[str], told: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """Every metric that was measured, in three groups, each in the task's order."""
    spec, there = comparison.task.spec, set(comparison.raw["metric"])
    groups: dict[str, list[dict[str, Any]]] = {
        told.capitalize(): [],
        f"Better or worse, not {told}": [],
        "Descriptions": [],
    }
    for name in spec.metrics:
        if name not in there:
            continue
        metric = spec.metric(name)
        group = list(groups)[0 if name in chosen else 1 if metric.direction else 2]
        groups[group].append({"metric": metric, "rows": _rows(comparison, comparison.raw, name)})
    return [(title, metrics) for title, metrics in groups.items() if metrics]


def _rows(comparison: Compared, frame: pd.DataFrame, metric: str) -> _Rows:
    """Mean over seeds of a metric, per method and generation; methods without it have no row."""
    mine = frame[frame["metric"] == metric].astype({"value": float})
    means = mine.groupby(["method", "generation"])["value"].mean()
    there, last = set(mine["method"]), comparison.generations
    return [(m, [means[m].get(g) for g in range(last + 1)]) for m in comparison.methods if m in there]


def _provenance(comparison: Compared) -> dict[str, Any]:
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
