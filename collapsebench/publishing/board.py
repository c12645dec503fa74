"""The board: every valid submission of a folder, scored from its raw metrics and ranked per task and track."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pandas as pd

from collapsebench.methods import BASELINES
from collapsebench.publishing.entries import Entry, scored_cells
from collapsebench.publishing.submission import Attestation, Submission
from collapsebench.publishing.validation import (
    Context,
    Verdict,
    problems_among,
    submission_files,
    validate_file,
)
from collapsebench.scoring.cells import Cells, joined
from collapsebench.scoring.fidelity import ALL
from collapsebench.scoring.seed_scores import THRESHOLDS, entry_mfi, seed_scores
from collapsebench.scoring.table import Scores, SeedTable, ranked_table, unranked
from collapsebench.task import Task

KEYS = ["task", "track", "method", "digest"]
_DESCRIPTION = ("tier", "retired", "unranked", "modality", "symbols", "what", "date", "authors", "verified", "curve")
_MANY = 200  # number of files above which reading them in processes is faster
_AT_ONCE = 32  # files per piece of work
_SHARED = ("mfi", "mfi_low", "mfi_high", "start", "start_low", "start_high", "start_uncapped")
Verified = Literal["verified", "by its authors", "disputed", "inconclusive", "no"]


@dataclass(frozen=True)
class Board:
    """A folder of submissions, read and scored.

    Attributes:
        tasks: all known tasks, by id.
        table: one row per current entry, sorted by task, track and mean mFI: `KEYS`, tier, retired, unranked (retired,
            or a rule is not met), modality, date, authors, verified, what (the same for one method on several tasks),
            curve (mean fidelity by generation) and the columns of `collapsebench.scoring.table.ranked_table`. Unranked
            tasks come last.
        entries: all entries by digest, including superseded ones. superseded: digests of superseded entries.
        attestations: attestations by the digest of their entry.
        broken: invalid files, with their problems.
        cells: fidelity curves of every entry, by digest, under the method's name.
    """

    tasks: dict[str, Task]
    table: pd.DataFrame
    entries: dict[str, Entry] = field(repr=False)
    superseded: set[str] = field(repr=False)
    attestations: dict[str, list[Attestation]] = field(repr=False)
    broken: list[Verdict] = field(repr=False)
    cells: dict[str, Cells] = field(repr=False)

    def label(self, digest: str) -> str:
        """The label of an entry in tables; unique within its task."""
        found = self.table.loc[self.table["digest"] == digest, "method"]
        return str(found.iloc[0]) if len(found) else self.entries[digest].name

    def scores(self, digests: Iterable[str]) -> Scores:
        """Curves and scores per seed of the given entries of one task."""
        cells = joined([self.cells[digest].named(self.label(digest)) for digest in digests])
        return Scores(cells, seed_scores(cells))

    def seeds(self, digest: str) -> pd.DataFrame:
        """mFI of an entry by seed: seed, mfi (in generations), share (of G)."""
        cells = self.cells[digest]
        mfi = entry_mfi(cells)
        return pd.DataFrame({"seed": cells.seeds, "mfi": mfi, "share": mfi / cells.horizon})


def read_board(
    folder: Path, tasks: dict[str, Task], on_file: Callable[[], None] = lambda: None, in_processes: bool = False
) -> Board:
    """Read and score every submission of a folder; invalid files are listed and are not fatal.

    Args:
        folder: a folder such as ``submissions/``; if it does not exist, there are no entries. tasks: tasks by id.
        on_file: called after every file.
        in_processes: read many files with one process per CPU. The main module of this process must be importable
            again, which holds for the command line but not for the site.
    """
    valid: dict[Path, Entry] = {}
    cells: dict[str, Cells] = {}
    attested: list[Attestation] = []
    broken: list[Verdict] = []
    for path, (verdict, scored) in _looked_at(
        submission_files([folder]) if folder.is_dir() else [], tasks, in_processes
    ):
        if verdict.attestation is not None:
            attested.append(verdict.attestation)
        elif verdict.entry is not None and scored is not None:
            valid[path] = verdict.entry
            cells[verdict.entry.digest] = scored
        else:
            broken.append(verdict)
        on_file()
    found = problems_among(list(valid.values()), Context(tasks, list(valid.values())))
    broken += [Verdict(entry.path, problems) for entry, problems in found]
    refused = {entry.path for entry, _ in found}
    entries = {entry.digest: entry for path, entry in valid.items() if path not in refused}
    superseded = {entry.supersedes for entry in entries.values() if entry.supersedes is not None}
    attestations: dict[str, list[Attestation]] = {}
    by_sha256 = {entry.sha256: digest for digest, entry in entries.items()}
    for attestation in attested:
        if attestation.submission_sha256 in by_sha256:
            attestations.setdefault(by_sha256[attestation.submission_sha256], []).append(attestation)
    by_task: dict[str, list[Entry]] = {}
    for digest, entry in entries.items():
        if digest not in superseded:
            by_task.setdefault(entry.task_id, []).append(entry)
    tables = [
        _described(by_task[i], tasks[i], cells, attestations)
        for i in sorted(by_task, key=lambda i: (tasks[i].unranked is not None, i))
    ]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*KEYS, *_DESCRIPTION])
    return Board(tasks, table, entries, superseded, attestations, broken, {d: cells[d] for d in entries})


def _looked_at(
    paths: list[Path], tasks: dict[str, Task], in_processes: bool
) -> Iterator[tuple[Path, tuple[Verdict, Cells | None]]]:
    """Yield every file with its verdict and scores, in order."""
    look = partial(_look, tasks=tasks)
    if len(paths) < _MANY or not in_processes:
        yield from ((path, look(path)) for path in paths)
        return
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        yield from zip(paths, pool.map(look, paths, chunksize=_AT_ONCE), strict=True)


def _look(path: Path, tasks: dict[str, Task]) -> tuple[Verdict, Cells | None]:
    """Validate a file by itself and score a valid submission, without keeping its content."""
    verdict = validate_file(path, tasks)
    if verdict.entry is None or verdict.submission is None:
        return verdict, None
    scored = scored_cells(verdict.submission, tasks[verdict.entry.task_id])
    return replace(verdict, submission=None), scored


def _described(
    entries: list[Entry], task: Task, cells: dict[str, Cells], attestations: dict[str, list[Attestation]]
) -> pd.DataFrame:
    """The ranked table of one task with information on its entries; ratios are relative to the entries ce and tce."""
    labels = _labels(entries)
    known = {labels[entry.digest]: entry for entry in entries}
    scores = seed_scores(joined([cells[entry.digest].named(labels[entry.digest]) for entry in entries]))
    table = _ranked(scores, task, {label: entry.track for label, entry in known.items()})
    entry = table["method"].map(known)
    digest = entry.map(lambda e: e.digest)
    return table.assign(
        task=task.id,
        tier=task.spec.tier,
        retired=task.spec.retired is not None,
        unranked=task.unranked is not None,
        masked_gradient=entry.map(lambda e: e.masked_gradient).astype(float),
        symbols=task.spec.symbols,
        track=entry.map(lambda e: e.track),
        modality=task.spec.workload.kind,
        digest=digest,
        what=entry.map(lambda e: e.what),
        date=entry.map(lambda e: e.date),
        authors=entry.map(lambda e: ", ".join(e.authors)),
        verified=entry.map(lambda e: verification(e, attestations.get(e.digest, []))),
        curve=digest.map(lambda d: tuple(float(f) for f in cells[d].fidelity.min(axis=1).mean(axis=0).round(6))),
    )


def _ranked(scores: pd.DataFrame, task: Task, tracks: dict[str, str]) -> pd.DataFrame:
    table = ranked_table(scores, task.spec.horizon, tracks)
    return unranked(table, tracks) if task.unranked else table


def verification(entry: Entry, attestations: list[Attestation]) -> Verified:
    """Summarise attestations: a difference outweighs a match, and a stranger's match outweighs an author's.

    A difference on another kind of machine is ignored, because recursion amplifies rounding. A match of generation 0
    alone shows nothing about recursion, and is inconclusive.
    """
    if any(a.outcome == "differed" and a.alike for a in attestations):
        return "disputed"
    matched = [a for a in attestations if a.outcome == "matched" and a.generations > 0]
    if any(a.by not in entry.authors for a in matched):
        return "verified"
    return "by its authors" if matched else "inconclusive" if attestations else "no"


def leaderboard_table(board: Board) -> pd.DataFrame:
    """The table of ``submissions/leaderboard.csv``: one row per entry, without columns that attestations can change."""
    ranks = ["rank_best", "rank_worst"]
    numbers = [c for c in board.table if c not in (*KEYS, *_DESCRIPTION, *ranks) and not _of_one_metric(str(c))]
    return board.table[["task", "tier", "retired", "track", *ranks, "method", "digest", "date", *numbers]]


def _of_one_metric(column: str) -> bool:
    """Whether a column belongs to a single metric; these are on the task's own page, since metrics differ by task."""
    return column.startswith(("mfi_", "start_")) and column not in _SHARED


def csv_text(table: pd.DataFrame) -> str:
    """The text of ``submissions/leaderboard.csv``, with nine significant digits."""
    return table.to_csv(index=False, float_format="%.9g")


def differing_rows(published: pd.DataFrame, recomputed: pd.DataFrame, tolerance: float = 1e-6) -> list[str]:
    """The differences between two leaderboards, one line per row and column; empty if they agree.

    Args:
        published, recomputed: tables from `leaderboard_table`. tolerance: absolute tolerance of numbers.
    """
    one, other = (frame.set_index(KEYS) for frame in (published, recomputed))
    lines = [f"{_named(key)}: published, but no submission has it" for key in one.index.difference(other.index)]
    lines += [f"{_named(key)}: submitted, but not in the published table" for key in other.index.difference(one.index)]
    lines += [f"column {c}: only in one of the two tables" for c in sorted(set(map(str, one)) ^ set(map(str, other)))]
    for key in one.index.intersection(other.index):
        for column in map(str, one.columns.intersection(other.columns)):
            was: Any = one.at[key, column]
            now: Any = other.at[key, column]
            if not _agree(was, now, tolerance):
                lines.append(f"{_named(key)}: {column} is {was} in the published table, {now} by the submissions")
    return lines


def _agree(was: Any, now: Any, tolerance: float) -> bool:
    if pd.isna(was) or pd.isna(now):
        return bool(pd.isna(was) and pd.isna(now))
    try:
        return abs(float(was) - float(now)) <= tolerance
    except (TypeError, ValueError):
        return bool(was == now)


def _named(key: object) -> str:
    assert isinstance(key, tuple)
    return ", ".join(str(part) for part in key)


def _labels(entries: list[Entry]) -> dict[str, str]:
    """Labels by digest: the method's name, plus the digest if two entries of a task share a name."""
    names = Counter(entry.name for entry in entries)
    return {e.digest: e.name if names[e.name] == 1 else f"{e.name} ({e.digest[:8]})" for e in entries}


def fidelity_bands(curves: pd.DataFrame) -> pd.DataFrame:
    """Fidelity by generation over seeds, for every metric and for their minimum, called ``all``.

    Args:
        curves: curves as in `Scores`.

    Returns:
        Columns method, metric, generation, mean, low, high (the range over seeds), seeds.
    """
    smallest = curves.groupby(["method", "seed", "generation"], as_index=False)["fidelity"].min().assign(metric=ALL)
    return _bands(pd.concat([smallest, curves], ignore_index=True), "fidelity")


def raw_bands(raw: pd.DataFrame) -> pd.DataFrame:
    """The same for raw metrics; a diverged seed is missing from the generation in which it diverged."""
    return _bands(raw.dropna(subset=["metric"]).astype({"value": float}), "value")


def _bands(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    grouped = frame.groupby(["method", "metric", "generation"], sort=False)[column]
    return grouped.agg(mean="mean", low="min", high="max", seeds="count").reset_index()


def crossings(scores: pd.DataFrame) -> pd.DataFrame:
    """FI per method, metric and threshold: fi (mean over seeds), censored (whether it is a lower bound)."""
    frames = []
    for threshold in THRESHOLDS:
        name = f"fi_{threshold:g}"
        grouped = scores.groupby(["method", "metric"], sort=False)
        found = grouped.agg(fi=(name, "mean"), censored=(f"{name}_censored", "any")).reset_index()
        frames.append(found.assign(threshold=threshold))
    return pd.concat(frames, ignore_index=True)


def rank_of(board: Board, entry: Entry, submission: Submission) -> dict[str, Any]:
    """The rank that a valid submission would have; it need not be on the board.

    Returns:
        Its row of `ranked_table` among the entries of its task, and ``entries``: the number of entries in its track,
        itself included. The entry that it supersedes is left out. On a retired task there are no ranks.
    """
    task = board.tasks[entry.task_id]
    here = board.table[board.table["task"] == entry.task_id]
    here = here[~here["digest"].isin([entry.digest, entry.supersedes])]
    tracks = dict(zip(here["method"], here["track"], strict=True))
    label = entry.name if entry.name not in tracks else f"{entry.name} ({entry.digest[:8]})"
    others = [board.cells[str(row.digest)].named(str(row.method)) for row in here.itertuples()]
    scores = seed_scores(joined([*others, scored_cells(submission, task).named(label)]))
    table = _ranked(scores, task, {**tracks, label: entry.track})
    (row,) = table[table["method"] == label].to_dict("records")
    found = {str(column): value for column, value in row.items()}
    shown = {"masked_gradient": entry.masked_gradient, "symbols": task.spec.symbols}
    return {**found, **shown, "method": entry.name, "entries": 1 + int((here["track"] == entry.track).sum())}


def seed_table(board: Board, task_id: str) -> SeedTable:
    """mFI by seed of the entries of a task."""
    return SeedTable.of(board.scores(board.table.loc[board.table["task"] == task_id, "digest"]).scores)


def machines(board: Board) -> pd.DataFrame:
    """The machines of every entry, one row per session: digest, device, processor, gpu."""
    rows = [(digest, *machine) for digest, entry in board.entries.items() for machine in entry.machines]
    return pd.DataFrame(rows, columns=["digest", "device", "processor", "gpu"])


def cell_costs(board: Board) -> pd.DataFrame:
    """Run time of the baselines' cells: task, method, seconds (mean per cell), cells, processor, device.

    A cell is one method and seed over all generations.

    Raises:
        UserError: a file has changed since the board was read.
    """
    rows = []
    for row in board.table[board.table["method"].isin(BASELINES)].itertuples():
        submission = board.entries[str(row.digest)].submission
        seconds = [sum(g.seconds for g in result.generations) for result in submission.results]
        session = submission.provenance[0]
        where = (session.gpu or session.processor, session.device)
        rows.append((row.task, row.method, fmean(seconds), len(seconds), *where))
    return pd.DataFrame(rows, columns=["task", "method", "seconds", "cells", "processor", "device"])
