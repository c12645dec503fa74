"""What ``report.html`` shows of a comparison, gathered for its template."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapsebench.reports.gallery import ShownChain
from collapsebench.reports.plots import fidelity_figure, figure_png, figure_svg, forest_figure
from collapsebench.reports.rendering import render
from collapsebench.reports.sections import sections
from collapsebench.reports.takeaway import takeaway
from collapsebench.scoring.columns import METHOD, Column, censored_text, records, shown_columns
from collapsebench.scoring.fidelity import ALL
from collapsebench.scoring.table import HEADLINE

if TYPE_CHECKING:
    from collapsebench.reports.comparison import Comparison


def page(comparison: Comparison, chains: list[ShownChain], animations: dict[str, Path]) -> str:
    """The report as one file of HTML that loads nothing.

    Args:
        chains: as `collapsebench.reports.gallery.shown_chains`. animations: their files by method.
    """
    spec = comparison.task.spec
    scale = [
        f"{spec.metric(name).title}: 1 at {scored.reference_text}, 0 at {scored.floor:.5g}"
        for name, scored in spec.scored.items()
    ]
    shared = sections(comparison, chains, animations, ("Fidelity", "; ".join(scale)), (spec.scored, "scored"))
    return render(
        "report.html",
        **shared,
        mark=comparison.task.mark,
        scales=spec.scored,
        takeaway=takeaway(comparison),
        table=table(comparison),
        headline=HEADLINE,
        forest=figure_svg(forest_figure(comparison)),
        curves={spec.metric(name).title: figure_svg(fidelity_figure(comparison, [name])) for name in spec.scored},
        by_metric=_by_metric(comparison),
        by_seed=_by_seed(comparison),
    )


def notebook_page(comparison: Comparison) -> str:
    """What a notebook shows of a comparison; the curves as a picture, which every viewer of notebooks lets through."""
    return render(
        "notebook.html",
        comparison=comparison,
        mark=comparison.task.mark,
        takeaway=takeaway(comparison),
        table=table(comparison),
        curves=base64.b64encode(figure_png(fidelity_figure(comparison))).decode(),
        drawn="Fidelity",
    )


def table(comparison: Comparison) -> dict[str, Any]:
    """The table of the comparison as text: its columns, and the rows in their order, all in one group."""
    rows = records(comparison.table)
    columns = shown_columns(rows)

    def text(column: Column, row: dict[str, Any]) -> str:
        return comparison.shown_name(row["method"]) if column is METHOD else column.text(row)

    shown = [[text(column, row) for column in columns] for row in rows]
    return {"columns": columns, "groups": [{"heading": "", "rows": shown}]}


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
