"""What a terminal shows: progress bars while cells run, tables when they are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from collapsebench.reports.raw_comparison import RawComparison
from collapsebench.reports.raw_report import number_text
from collapsebench.running.progress import Event, Listener
from collapsebench.running.progress_account import ENDS, Account
from collapsebench.running.progress_lines import line_per_generation
from collapsebench.scoring.columns import METHOD, binding_text, interval_text, records, shown_columns, start_text

if TYPE_CHECKING:
    import pandas as pd

    from collapsebench.publishing.submit import Draft
    from collapsebench.reports.comparison import Comparison
    from collapsebench.running.cells import Cell

_MANY_FILES = 50


class _Rate(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {self.unit}/s" if task.speed else "", style="dim")


class _Eta(ProgressColumn):
    def render(self, task: Task) -> Text:
        seconds = task.time_remaining
        return Text("" if seconds is None else f"{seconds // 60:.0f}:{seconds % 60:02.0f} left", style="cyan")


def plain_console(stderr: bool = False) -> Console:
    """A console that is wide and without colours where nobody looks at a terminal."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=176, color_system=None)


@contextmanager
def cell_progress(cells: Sequence[Cell], console: Console) -> Iterator[Listener]:
    """Show one line over all cells and one per running cell; in a pipe, one line per finished generation.

    Yields:
        The listener to give to the engine.
    """
    if not console.is_terminal:
        yield line_per_generation(cells, console)
        return
    unit = cells[0].task.spec.kind.unit if cells else ""
    columns = [TextColumn("{task.description}"), BarColumn(bar_width=24), _Rate(unit), TimeElapsedColumn(), _Eta()]
    with Progress(*columns, console=console, speed_estimate_period=120, transient=True) as progress:
        board = _Board(cells, progress)
        yield board.update


@contextmanager
def file_progress(files: int, console: Console) -> Iterator[Callable[[], None]]:
    """Show a bar while files are read, if there are many of them and somebody looks.

    Yields:
        What to call after every file.
    """
    if not console.is_terminal or files < _MANY_FILES:
        yield lambda: None
        return
    with Progress(TextColumn("reading submissions"), BarColumn(), _Eta(), console=console, transient=True) as progress:
        bar = progress.add_task("", total=files)
        yield lambda: progress.advance(bar)


@contextmanager
def work_progress(title: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show a bar with the time left; in a pipe, a line for every tenth of the work.

    Yields:
        What to call with the work just done and all there is.
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
    columns = [TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), _Eta()]
    with Progress(*columns, console=console, speed_estimate_period=60, transient=True) as progress:
        bar = progress.add_task(title, total=None)
        yield lambda step, total: progress.update(bar, advance=step, total=total)


class _Board:
    """Bars counted in planned elements."""

    def __init__(self, cells: Sequence[Cell], progress: Progress):
        self.progress = progress
        self.account = Account(cells)
        self.overall = progress.add_task(f"[bold]{len(cells)} cell(s)", total=self.account.total)
        self.bars: dict[tuple[str, int], TaskID] = {}

    def update(self, event: Event) -> None:
        """Show an event."""
        key, step = (event.method, event.seed), self.account.take(event)
        self.progress.update(self.overall, total=self.account.total, completed=self.account.done)
        if event.phase == "prepared":
            return
        plan = self.account.plan[key]
        if key not in self.bars:
            self.bars[key] = self.progress.add_task("", total=sum(plan))
        self.progress.advance(self.bars[key], step)
        last = len(plan) - 1
        text = f"  {escape(event.method)} seed {event.seed}  generation {event.generation}/{last} {event.phase}"
        finished = event.phase == "diverged" or (event.phase in ENDS and event.generation == last)
        self.progress.update(self.bars[key], description=text, visible=not finished)


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
    for row in records(comparison.table):
        metric = comparison.task.spec.metric(row["metric"])
        texts = (f"{metric.name} ({metric.direction} is better)", row["method"], str(row["seeds"]))
        numbers = (number_text(row, name) for name in ("first", "last", "difference_ce"))
        table.add_row(*(escape(text) for text in (*texts, *numbers)))
    return table


def _table(title: str, rows: Sequence[dict[str, Any]], shown_name: Callable[[str], str] = str) -> Table:
    """A table of methods with the columns that tables of methods have."""
    table, columns = Table(title=title, title_justify="left"), shown_columns(rows)
    for column in columns:
        table.add_column(column.header, justify="left" if column.left else "right")
    for row in rows:
        texts = (shown_name(row["method"]) if column is METHOD else column.text(row) for column in columns)
        table.add_row(*(escape(text) for text in texts))
    return table


def print_comparison(comparison: Comparison | RawComparison, console: Console) -> None:
    """The table, what it means, and what must be known about it."""
    if isinstance(comparison, RawComparison):
        console.print(raw_table(comparison))
        _print_notes(comparison.notes, console)
        return
    console.print(comparison_table(comparison))
    signs = "" if comparison.task.unranked else " Rank: 95 % interval. ▲ better, ▼ worse, ≈ not told apart."
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
    """What a submission will publish, for a look before it is written.

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
