"""What a terminal shows besides running cells: other progress bars, tables, drafts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from collapsebench.reports.raw_comparison import RawComparison
from collapsebench.reports.raw_numbers import NUMBERS, aligned_texts, by_metric
from collapsebench.running.progress_display import Eta
from collapsebench.scoring.columns import METHOD, binding_text, interval_text, records, shown_columns, start_text

if TYPE_CHECKING:
    import pandas as pd

    from collapsebench.publishing.submit import Draft
    from collapsebench.reports.comparison import Comparison

_MANY_FILES = 50


@contextmanager
def file_progress(files: int, console: Console) -> Iterator[Callable[[], None]]:
    """Show a bar while files are read, if there are many and the console is a terminal.

    Yields:
        A function to call after every file.
    """
    if not console.is_terminal or files < _MANY_FILES:
        yield lambda: None
        return
    with Progress(TextColumn("reading submissions"), BarColumn(), Eta(), console=console, transient=True) as progress:
        bar = progress.add_task("", total=files)
        yield lambda: progress.advance(bar)


@contextmanager
def work_progress(title: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show a bar with the time left; in a pipe, a line for every tenth of the work.

    Yields:
        A function to call with the work just done and the total.
    """
    done = 0

    def told(step: int, total: int) -> None:
        nonlocal done
        before, done = done * 10 // total, done + step
        if done * 10 // total > before:
            console.print(f"{title}: {done * 10 // total}0 %", highlight=False)

    if not console.is_terminal:
        yield told
        return
    columns = [TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), Eta()]
    with Progress(*columns, console=console, speed_estimate_period=60, transient=True) as progress:
        bar = progress.add_task(title, total=None)
        yield lambda step, total: progress.update(bar, advance=step, total=total)


def comparison_table(comparison: Comparison) -> Table:
    """The final table of a comparison."""
    mark = f", {comparison.task.mark}" if comparison.task.mark else ""
    title = f"{comparison.task.id}{mark}, generations 0–{comparison.generations}"
    return _table(title, records(comparison.table), comparison.shown_name)


def raw_table(comparison: RawComparison) -> Table:
    """The table of a comparison of raw metrics."""
    last = comparison.generations
    table = Table(title=f"{comparison.task.id}, not calibrated: raw metrics [95 %]", title_justify="left")
    for header in ("metric", "method"):
        table.add_column(header)
    for header in ("seeds", "generation 0", f"generation {last}", f"minus ce, gen. {last}"):
        table.add_column(header, justify="right")
    for name, rows in by_metric(records(comparison.table)):
        told = f"{name} ({comparison.task.spec.metric(name).direction} is better)"
        for texts in aligned_texts(rows):
            table.add_row(*(escape(text) for text in (told, *(texts[c] for c in ("method", "seeds", *NUMBERS)))))
    return table


def _table(title: str, rows: Sequence[dict[str, Any]], shown_name: Callable[[str], str] = str) -> Table:
    """A table of methods with the standard columns."""
    table, columns = Table(title=title, title_justify="left"), shown_columns(rows)
    for column in columns:
        table.add_column(column.header, justify="left" if column.left else "right")
    for row in rows:
        texts = (shown_name(row["method"]) if column is METHOD else column.text(row) for column in columns)
        table.add_row(*(escape(text) for text in texts))
    return table


def print_comparison(comparison: Comparison | RawComparison, console: Console) -> None:
    """Print the table, its explanation, and the notes."""
    if isinstance(comparison, RawComparison):
        console.print(raw_table(comparison))
        _print_notes(comparison.notes, console)
        return
    console.print(comparison_table(comparison))
    signs = "" if comparison.task.unranked else " Rank: 95 % interval. ▲ better, ▼ worse, ≈ no significant difference."
    console.print(
        "mFI: generations until fidelity to real data falls below λ, averaged over all λ; the smallest over "
        f"{', '.join(comparison.task.spec.scored)}.{signs}",
        style="dim",
        highlight=False,
    )
    for line in comparison.reasons:
        console.print(line, markup=False, highlight=False, style="dim")
    _print_notes(comparison.notes, console)


def _print_notes(notes: Sequence[str], console: Console) -> None:
    for note in notes:
        console.print(f"Note: {note}", markup=False, highlight=False, style="yellow")


def draft_lines(draft: Draft, row: dict[str, Any] | None) -> list[str]:
    """What a submission will publish, shown before it is written.

    Args:
        row: its scores, as a row of `collapsebench.scoring.table.ranked_table`; None: it cannot be scored.
    """
    s = draft.submission
    shown = "none" if s.samples is None else f"{s.samples.kind} of {len(s.samples.generations)} generations"
    lines = [
        f"{s.method.name} on {s.task.id}, track {s.method.track}, by {', '.join(s.authors)}; licence {s.licence}",
        f"  loss       {s.method.loss}, sha256 {s.method.source_sha256[:16]}…",
        f"  code       {s.method.url or 'no address given: --url says where others find it'}",
        f"  card       {s.method.card[:300]}",
        *([] if s.method.tuning_runs is None else [f"  tuning     {s.method.tuning_runs:g} runs (protocol 4.3)"]),
        f"  results    seeds {', '.join(str(r.seed) for r in s.results)}, generations 0 to {draft.task.spec.horizon}",
        f"  samples    {shown}",
    ]
    for session in s.provenance:
        commit = "no checkout" if session.git is None else session.git.commit[:10] + " dirty" * session.git.dirty
        lines.append(
            f"  run on     {session.processor or session.platform}, {session.gpu or session.device}, "
            f"collapsebench {session.packages.get('collapsebench')} ({commit})"
        )
    if row is not None:
        lines.append(
            f"  scores     mFI {interval_text(row, 'mfi')}, start {start_text(row)}, {binding_text(row)} "
            "(not in the file: recomputed from the raw metrics)"
        )
    lines.append(f"  file       {draft.file}, {len(draft.content):,} bytes")
    return lines


def print_leaderboard(table: pd.DataFrame, console: Console) -> None:
    """The ranking of every task; those that are not ranked come last, and say so."""
    for (task, retired, unranked, track), group in table.groupby(["task", "retired", "unranked", "track"], sort=False):
        mark = "retired: not ranked, " if retired else "not ranked, " if unranked else ""
        title = f"{task}, {mark}track {track}"
        console.print(_table(title, records(group.drop(columns="curve"))))
