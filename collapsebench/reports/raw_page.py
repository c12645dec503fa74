"""What ``report.html`` and a notebook show of a comparison of raw metrics, gathered for their templates."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapsebench.reports.gallery import ShownChain
from collapsebench.reports.plots import difference_figure, figure_png, figure_svg, raw_figure
from collapsebench.reports.raw_numbers import aligned_texts, by_metric, decimals_of, metric_text
from collapsebench.reports.raw_takeaway import raw_takeaway
from collapsebench.reports.rendering import render
from collapsebench.reports.sections import sections
from collapsebench.scoring.columns import METHOD, Column, records

if TYPE_CHECKING:
    from collapsebench.reports.raw_comparison import RawComparison

MARK = "not calibrated"


def raw_page(comparison: RawComparison, chains: list[ShownChain], animations: dict[str, Path]) -> str:
    """The report as one file of HTML that loads nothing; arguments as of `collapsebench.reports.page.page`."""
    titles = [comparison.task.spec.metric(name).title for name in comparison.metrics]
    measured = ("Metrics", f"{', '.join(titles)}; without references there is no fidelity")
    return render(
        "raw_report.html",
        **sections(comparison, chains, animations, measured, (comparison.metrics, "in the table")),
        mark=MARK,
        scales={},
        takeaway=raw_takeaway(comparison),
        table=_table(comparison),
        figures=_figures(comparison),
        by_seed=_by_seed(comparison),
    )


def raw_notebook_page(comparison: RawComparison) -> str:
    """What a notebook shows of a comparison of raw metrics."""
    return render(
        "notebook.html",
        comparison=comparison,
        mark=MARK,
        takeaway=raw_takeaway(comparison),
        table=_table(comparison),
        curves=base64.b64encode(figure_png(raw_figure(comparison))).decode(),
        drawn="Raw metrics",
    )


def _figures(comparison: RawComparison) -> list[dict[str, str]]:
    """Of every metric its curves and, if there is something to compare, its differences to ce."""
    shown = []
    for name in comparison.metrics:
        title = comparison.task.spec.metric(name).title
        told = f"{title} over generations, one curve per method"
        shown.append({"svg": figure_svg(raw_figure(comparison, [name])), "told": told})
        if differences := difference_figure(comparison, name):
            told = f"{title} in the last generation, every method minus ce with its 95 % interval"
            shown.append({"svg": figure_svg(differences), "told": told})
    return shown


def _table(comparison: RawComparison) -> dict[str, Any]:
    """The table as text: its columns, and a group of rows per metric."""
    last, over = comparison.generations, "mean over seeds with a Student t interval, if there are two or more."
    interval = " [95 %]" if comparison.table["first_low"].notna().any() else ""
    difference = (
        "The value of the last generation minus that of ce, paired by seed. These intervals are of each number alone: "
        "nothing is tested together."
    )
    columns = (
        METHOD,
        Column("seeds", "seeds", lambda row: row["seeds"], "How many seeds the method has."),
        Column("first", f"generation 0{interval}", lambda row: row["first"], f"Before any recursion: {over}"),
        Column("last", f"generation {last}{interval}", lambda row: row["last"], f"In the last generation: {over}"),
        Column("difference_ce", f"minus ce{interval}", lambda row: row["difference_ce"], difference),
    )
    groups = [
        {
            "heading": metric_text(comparison.task.spec.metric(name)),
            "rows": [[_unbroken(column.text(row)) for column in columns] for row in aligned_texts(rows)],
        }
        for name, rows in by_metric(records(comparison.table))
    ]
    return {"columns": columns, "groups": groups}


def _unbroken(text: str) -> str:
    """A number whose interval stays on one line where a phone breaks it."""
    return text.replace(", ", ",\u00a0")


def _by_seed(comparison: RawComparison) -> list[dict[str, Any]]:
    """Every compared metric in the last generation, by method and seed."""
    final = comparison.raw[comparison.raw["generation"] == comparison.generations]
    found = []
    for name, rows in by_metric(records(comparison.table)):
        decimals = decimals_of(rows)
        values = {(r["method"], r["seed"]): r["value"] for r in records(final[final["metric"] == name])}
        shown = {key: decimals.text(value, "last") for key, value in values.items() if value is not None}
        lines = [(method, [shown.get((method, seed)) for seed in comparison.seeds]) for method in comparison.methods]
        found.append({"title": metric_text(comparison.task.spec.metric(name)), "rows": lines})
    return found
