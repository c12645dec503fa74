"""Comparisons of either sort: on fidelity where a task has references, else on raw metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collapsebench.publishing.entries import Entry
from collapsebench.reports.comparison import Comparison, read_comparison
from collapsebench.reports.raw_comparison import RawComparison, read_raw_comparison
from collapsebench.reports.raw_report import raw_as_json, write_raw_report
from collapsebench.reports.report import comparison_as_json, write_report
from collapsebench.running.results import cells_of, task_of
from collapsebench.task import Task


def read_any(
    folder: Path,
    task: Task | None = None,
    method_ids: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    generations: int | None = None,
    published: Sequence[Entry] = (),
) -> Comparison | RawComparison:
    """Read cells and compare their methods; arguments and errors as in `read_comparison`."""
    task = task or task_of(folder, cells_of(folder, method_ids, seeds))
    if task.has_references:
        return read_comparison(folder, task, method_ids, seeds, generations, published)
    return read_raw_comparison(folder, task, method_ids, seeds, generations)


def write_any(comparison: Comparison | RawComparison) -> list[Path]:
    """Write the files of a comparison into the task's directory of runs; return their paths."""
    return write_raw_report(comparison) if isinstance(comparison, RawComparison) else write_report(comparison)


def any_as_json(comparison: Comparison | RawComparison) -> dict[str, Any]:
    """A comparison for programs."""
    return raw_as_json(comparison) if isinstance(comparison, RawComparison) else comparison_as_json(comparison)
