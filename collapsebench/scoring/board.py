"""The board: every valid submission of a folder, scored from its raw metrics and ranked per task and track."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from collapsebench.scoring.comparison import score_raw
from collapsebench.scoring.entries import Entry
from collapsebench.scoring.fidelity import ALL
from collapsebench.scoring.statistics import rank_methods
from collapsebench.scoring.submission import Attestation, raw_frame
from collapsebench.scoring.table import HEADLINE, ScoredMethods
from collapsebench.scoring.validation import Verdict, submission_files, validate_files
from collapsebench.task import Task

KEYS = ["task", "track", "method", "digest"]


@dataclass(frozen=True)
class Board:
    """A folder of submissions, read and scored.

    Attributes:
        tasks: those with entries, by id. entries: valid and not superseded, by task id.
        scored: curves, scores and table of every task; the column ``method`` holds `labels`.
        labels: what tables call an entry, by its digest; unique within a task.
        attestations: by the digest of the whole submission they are about.
        superseded: entries that another one replaces. broken: files that are not valid, with their problems.
    """

    tasks: dict[str, Task]
    entries: dict[str, list[Entry]]
    scored: dict[str, ScoredMethods]
    labels: dict[str, str]
    attestations: dict[str, list[Attestation]]
    superseded: list[Entry]
    broken: list[Verdict]


def read_board(folder: Path, tasks: dict[str, Task]) -> Board:
    """Read and score every submission of a folder; what is broken is listed, not fatal.

    Args:
        folder: as ``submissions/``; a folder that does not exist has no entries. tasks: by id.
    """
    verdicts = validate_files(submission_files([folder]), tasks) if folder.is_dir() else []
    valid = [verdict.entry for verdict in verdicts if verdict.entry is not None]
    replaced = {entry.supersedes for entry in valid}
    entries: dict[str, list[Entry]] = {}
    for entry in valid:
        if entry.digest not in replaced:
            entries.setdefault(entry.task_id, []).append(entry)
    labels = {digest: label for group in entries.values() for digest, label in _labels(group).items()}
    attestations: dict[str, list[Attestation]] = {}
    for verdict in verdicts:
        if verdict.attestation is not None:
            attestations.setdefault(verdict.attestation.submission_sha256, []).append(verdict.attestation)
    return Board(
        tasks={task_id: tasks[task_id] for task_id in sorted(entries)},
        entries=entries,
        scored={task_id: score_entries(tasks[task_id], group, labels) for task_id, group in sorted(entries.items())},
        labels=labels,
        attestations=attestations,
        superseded=[entry for entry in valid if entry.digest in replaced],
        broken=[verdict for verdict in verdicts if verdict.problems],
    )


def score_entries(task: Task, entries: list[Entry], labels: dict[str, str]) -> ScoredMethods:
    """Score the entries of one task together; ranks are per track, ratios are to the entries ``ce`` and ``tce``."""
    raw = pd.concat([raw_frame(e.submission, labels[e.digest]) for e in entries], ignore_index=True)
    scored = score_raw(task, raw)
    track = {labels[e.digest]: e.track for e in entries}
    headline = scored.scores[(scored.scores["metric"] == ALL) & (scored.scores["threshold"] == HEADLINE)]
    ranks: dict[str, int] = {}
    for name in sorted(set(track.values())):
        ranks |= rank_methods(headline[headline["method"].map(track) == name])
    table = scored.table.assign(
        rank=scored.table["method"].map(ranks).astype("Int64"), track=scored.table["method"].map(track)
    )
    ordered = table.sort_values(["track", "rank"], kind="stable", ignore_index=True)
    return ScoredMethods(scored.curves, scored.scores, scored.own_scores, ordered)


def leaderboard_table(board: Board) -> pd.DataFrame:
    """One row per entry: what ``submissions/leaderboard.csv`` holds. Sorted by task, track and rank."""
    digests = {task_id: {board.labels[e.digest]: e for e in group} for task_id, group in board.entries.items()}
    tables = []
    for task_id, scored in board.scored.items():
        entry = scored.table["method"].map(digests[task_id])
        table = scored.table.assign(
            task=task_id,
            tier=board.tasks[task_id].spec.tier,
            digest=entry.map(lambda e: e.digest),
            date=entry.map(lambda e: e.date),
        )
        tables.append(table[["task", "tier", "track", "rank", "method", "digest", "date", *_numbers(scored.table)]])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=KEYS)


def csv_text(table: pd.DataFrame) -> str:
    """The table as ``submissions/leaderboard.csv`` holds it: nine significant digits."""
    return table.to_csv(index=False, float_format="%.9g")


def differing_rows(published: pd.DataFrame, recomputed: pd.DataFrame, tolerance: float = 1e-6) -> list[str]:
    """What two leaderboards do not agree on, one line per row and column; empty when they agree.

    Args:
        published, recomputed: as `leaderboard_table` makes them. tolerance: absolute, of numbers.
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


def _numbers(table: pd.DataFrame) -> list[str]:
    """Columns that all tasks have: FI per metric is on the task's own page."""
    common = [c for c in table.columns if not c.startswith("fi_") or c.split("_")[1] in ("low", "high", "censored")]
    further = ["fi_0.9", "fi_0.9_censored", "fi_0.5", "fi_0.5_censored", "fi_own_reference"]
    return [c for c in [*common, *further] if c not in ("rank", "method", "track")]


def _labels(entries: list[Entry]) -> dict[str, str]:
    """Digest to the method's name, with the digest where two entries of a task share a name."""
    names = Counter(entry.name for entry in entries)
    return {e.digest: e.name if names[e.name] == 1 else f"{e.name} ({e.digest[:8]})" for e in entries}
