"""The board: every valid submission of a folder, scored from its raw metrics and ranked per task and track."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pandas as pd

from collapsebench.methods import BASELINES
from collapsebench.publishing.entries import Entry
from collapsebench.publishing.index import Record, read_records, remembered
from collapsebench.publishing.submission import Attestation, Submission, raw_frame
from collapsebench.publishing.validation import Context, Verdict, problems_among, submission_files
from collapsebench.scoring.fidelity import ALL
from collapsebench.scoring.scales import score_raw
from collapsebench.scoring.statistics import paired_ratio, rank_methods
from collapsebench.scoring.table import HEADLINE, RATIO_BASELINES, Scores, ranked_table
from collapsebench.task import Task

KEYS = ["task", "track", "method", "digest"]
_DESCRIPTION = ("tier", "modality", "what", "date", "authors", "verified", "curve")
_RATIO = ("", "_low", "_high", "_bound", "_tied")
Verified = Literal["verified", "by its authors", "disputed", "inconclusive", "no"]


@dataclass(frozen=True)
class Board:
    """A folder of submissions, read and scored.

    Attributes:
        tasks: all that are known, by id.
        table: one row per entry that stands, sorted by task, track and rank: `KEYS`, tier, modality, rank, date,
            authors, verified, what (equal for one method on several tasks), curve (mean fidelity by generation) and
            the columns of `collapsebench.scoring.table.ranked_table`.
        entries: by digest, superseded ones included. superseded: their digests.
        attestations: by the digest of the entry.
        broken: files that are not valid, with their problems.
        records: what is known of every entry without reading its file, by digest.
    """

    tasks: dict[str, Task]
    table: pd.DataFrame
    entries: dict[str, Entry] = field(repr=False)
    superseded: set[str] = field(repr=False)
    attestations: dict[str, list[Attestation]] = field(repr=False)
    broken: list[Verdict] = field(repr=False)
    records: dict[str, Record] = field(repr=False)

    def label(self, digest: str) -> str:
        """What tables call an entry; unique within its task."""
        found = self.table.loc[self.table["digest"] == digest, "method"]
        return str(found.iloc[0]) if len(found) else self.entries[digest].name

    def scores(self, digests: list[str]) -> Scores:
        """Curves and scores per seed of some entries of one task, read from their files.

        Raises:
            UserError: a file has changed since the board was read.
        """
        entries = [self.entries[digest] for digest in digests]
        (task_id,) = {entry.task_id for entry in entries}
        raw = pd.concat([raw_frame(e.submission, self.label(e.digest)) for e in entries], ignore_index=True)
        return score_raw(self.tasks[task_id], raw)

    def headline(self, digests: Iterable[str]) -> pd.DataFrame:
        """FI(0.75) per seed of some entries, from what is known of them: digest, seed, fi, censored, auf."""
        frames = [pd.DataFrame(columns=["digest", "seed", "fi", "censored", "auf"])]
        for digest in digests:
            scores = self.records[digest].scores
            mine = scores[(scores["metric"] == ALL) & (scores["threshold"] == HEADLINE)]
            frames.append(mine[["seed", "fi", "censored", "auf"]].assign(digest=digest))
        return pd.concat(frames[1:] or frames, ignore_index=True)


def read_board(
    folder: Path,
    tasks: dict[str, Task],
    cache: Path | None = None,
    on_file: Callable[[], None] = lambda: None,
) -> Board:
    """Read and score every submission of a folder; what is broken is listed, not fatal.

    Args:
        folder: as ``submissions/``; a folder that does not exist has no entries. tasks: by id.
        cache: file for what is known from earlier; None: everything is computed. on_file: called after every file.
    """
    paths = submission_files([folder]) if folder.is_dir() else []
    records = read_records(paths, tasks, cache, on_file)
    valid = [record.entry for record in records if record.entry is not None]
    found = problems_among(valid, Context(tasks, valid))
    broken = [Verdict(record.path, record.problems) for record in records if record.problems]
    broken += [Verdict(entry.path, problems) for entry, problems in found]
    refused = {entry.path for entry, _ in found}
    standing = [r for r in records if r.entry is not None and r.path not in refused]
    entries = {r.entry.digest: r.entry for r in standing if r.entry is not None}
    superseded = {entry.supersedes for entry in entries.values() if entry.supersedes is not None}
    attestations: dict[str, list[Attestation]] = {}
    by_sha256 = {entry.sha256: digest for digest, entry in entries.items()}
    for record in records:
        if record.attestation is not None and record.attestation.submission_sha256 in by_sha256:
            attestations.setdefault(by_sha256[record.attestation.submission_sha256], []).append(record.attestation)
    by_task: dict[str, list[Record]] = {}
    for record in standing:
        assert record.entry is not None
        if record.entry.digest not in superseded:
            by_task.setdefault(record.entry.task_id, []).append(record)
    tables = [_described(by_task[i], tasks[i], attestations, cache) for i in sorted(by_task)]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*KEYS, *_DESCRIPTION])
    known = {record.entry.digest: record for record in standing if record.entry is not None}
    return Board(tasks, table, entries, superseded, attestations, broken, known)


def _described(
    records: list[Record], task: Task, attestations: dict[str, list[Attestation]], cache: Path | None
) -> pd.DataFrame:
    """The ranked table of one task with what is known of its entries."""
    known = {record.entry.digest: record for record in records if record.entry is not None}
    labels = _labels([record.entry for record in known.values() if record.entry is not None])
    key = repr((task.id, task.spec.scored, sorted(known)))
    table = remembered(cache, key, lambda: _ranked(known, labels, task))
    digest = table["method"].map({label: digest for digest, label in labels.items()})
    entry = digest.map(lambda d: known[d].entry)
    return table.assign(
        task=task.id,
        tier=task.spec.tier,
        modality=task.spec.workload.kind,
        digest=digest,
        what=entry.map(lambda e: e.what),
        date=entry.map(lambda e: e.date),
        authors=entry.map(lambda e: ", ".join(e.authors)),
        verified=entry.map(lambda e: verification(e, attestations.get(e.digest, []))),
        curve=digest.map(lambda d: known[d].curve),
    )


def _ranked(known: dict[str, Record], labels: dict[str, str], task: Task) -> pd.DataFrame:
    """Intervals and ratios of a task's entries; ranks are per track, ratios are to the entries ``ce`` and ``tce``."""
    scores = pd.concat([r.scores.assign(method=labels[d]) for d, r in known.items()])
    own = pd.concat([r.own_scores.assign(method=labels[d]) for d, r in known.items()])
    costs = {labels[digest]: record.cost for digest, record in known.items()}
    table = ranked_table(scores, own, costs, task.spec.horizon)
    tracks = {labels[digest]: record.entry.track for digest, record in known.items() if record.entry is not None}
    table["track"] = table["method"].map(tracks)
    if len(set(tracks.values())) > 1:
        headline = scores[(scores["metric"] == ALL) & (scores["threshold"] == HEADLINE)]
        mine = [headline[headline["method"].map(tracks) == track] for track in sorted(set(tracks.values()))]
        table["rank"] = table["method"].map({m: rank for part in mine for m, rank in rank_methods(part).items()})
    return table.sort_values(["track", "rank"], kind="stable", ignore_index=True)


def verification(entry: Entry, attestations: list[Attestation]) -> Verified:
    """What attestations say: a difference counts more than a match, a match by a stranger more than by an author.

    A difference on another kind of machine says nothing: recursion amplifies rounding.
    """
    if any(a.outcome == "differed" and a.alike for a in attestations):
        return "disputed"
    matched = [a for a in attestations if a.outcome == "matched"]
    if any(a.by not in entry.authors for a in matched):
        return "verified"
    return "by its authors" if matched else "inconclusive" if attestations else "no"


def overall_table(board: Board, tier: str, track: str) -> pd.DataFrame:
    """Methods over all tasks of a tier: geometric mean of the ratios to CE; none where a task is missing.

    Returns:
        Columns method, what, tasks (how many), missing (task ids), ratio_ce, fi (mean), auf (mean), verified (how
        many entries); those with an overall ratio first, best first.
    """
    all_tasks = sorted(i for i, task in board.tasks.items() if task.spec.tier == tier)
    mine = board.table[(board.table["tier"] == tier) & (board.table["track"] == track)]
    groups: dict[str, list[dict[Any, Any]]] = {}
    for row in mine.reindex(columns=["what", "method", "task", "ratio_ce", "fi", "auf", "verified"]).to_dict("records"):
        groups.setdefault(row["what"], []).append(row)
    rows = []
    for what, group in groups.items():
        missing = [i for i in all_tasks if i not in {row["task"] for row in group}]
        ratios = [1.0 if row["method"] == "ce" else row["ratio_ce"] for row in group]
        rows.append(
            {
                "method": str(group[0]["method"]).split(" (")[0],
                "what": what,
                "tasks": len(group),
                "missing": missing,
                "ratio_ce": None if missing else _geometric_mean(ratios),
                **{name: fmean(row[name] for row in group) for name in ("fi", "auf")},
                "verified": sum(row["verified"] == "verified" for row in group),
            }
        )
    columns = ["method", "what", "tasks", "missing", "ratio_ce", "fi", "auf", "verified"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(["ratio_ce", "auf"], ascending=False, na_position="last", ignore_index=True)


def _geometric_mean(ratios: list[Any]) -> float | None:
    if any(ratio is None or pd.isna(ratio) for ratio in ratios):
        return None
    return 0.0 if min(ratios) <= 0 else math.exp(sum(math.log(r) for r in ratios) / len(ratios))


def leaderboard_table(board: Board) -> pd.DataFrame:
    """One row per entry, and only what attestations cannot change: what ``submissions/leaderboard.csv`` holds."""
    numbers = [c for c in board.table if c not in (*KEYS, *_DESCRIPTION, "rank") and not _of_one_metric(str(c))]
    return board.table[["task", "tier", "track", "rank", "method", "digest", "date", *numbers]]


def _of_one_metric(column: str) -> bool:
    """FI of a single metric is on the task's own page: tasks have different ones."""
    shared = ("fi_low", "fi_high", "fi_censored", "fi_0.9", "fi_0.5", "fi_own_reference")
    return column.startswith("fi_") and column.removesuffix("_censored") not in shared and column not in shared


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


def _labels(entries: list[Entry]) -> dict[str, str]:
    """Digest to the method's name, with the digest where two entries of a task share a name."""
    names = Counter(entry.name for entry in entries)
    return {e.digest: e.name if names[e.name] == 1 else f"{e.name} ({e.digest[:8]})" for e in entries}


def fidelity_bands(curves: pd.DataFrame) -> pd.DataFrame:
    """Fidelity by generation over seeds, of every metric and, as ``all``, of the smallest of them.

    Args:
        curves: as in `Scores`.

    Returns:
        Columns method, metric, generation, mean, low, high (the range over seeds), seeds.
    """
    smallest = curves.groupby(["method", "seed", "generation"], as_index=False)["fidelity"].min().assign(metric=ALL)
    return _bands(pd.concat([smallest, curves], ignore_index=True), "fidelity")


def raw_bands(raw: pd.DataFrame) -> pd.DataFrame:
    """The same of the raw metrics; seeds that diverged are missing from the generation on in which they did."""
    return _bands(raw.dropna(subset=["metric"]).astype({"value": float}), "value")


def _bands(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    grouped = frame.groupby(["method", "metric", "generation"], sort=False)[column]
    return grouped.agg(mean="mean", low="min", high="max", seeds="count").reset_index()


def crossings(scores: pd.DataFrame) -> pd.DataFrame:
    """FI per method, metric and threshold: fi (mean over seeds), censored (it is a lower bound)."""
    grouped = scores.groupby(["method", "metric", "threshold"], sort=False)
    return grouped.agg(fi=("fi", "mean"), censored=("censored", "any")).reset_index()


def methods_by_label(board: Board) -> dict[str, str]:
    """Every ranked method's ``what``, by a label that is unique on the board; one method may have many tasks."""
    names = board.table.drop_duplicates("what")
    name = names["digest"].map(lambda digest: board.entries[digest].name)
    labels = name.where(~name.duplicated(keep=False), name + " (" + names["what"].str[:8] + ")")
    return dict(sorted(zip(labels, names["what"], strict=True)))


def compared_methods(board: Board, one: str, other: str) -> pd.DataFrame:
    """Two methods on every task that both have.

    Args:
        one, other: as ``what`` in the table.

    Returns:
        Columns task, digest_one, digest_other, fi_one, fi_other, n (paired seeds) and of the ratio of one to the
        other: ratio, low, high, bound, tied.
    """
    rows = []
    for task, digests in _common(board, one, other):
        mine, theirs = (board.headline([digest]) for digest in digests)
        r = paired_ratio(mine, theirs)
        fis = (mine["fi"].mean(), theirs["fi"].mean())
        rows.append((task, *digests, *fis, r.n, r.estimate, r.low, r.high, r.bound, r.tied))
    columns = ["task", "digest_one", "digest_other", "fi_one", "fi_other", "n", "ratio", "low", "high", "bound", "tied"]
    return pd.DataFrame(rows, columns=columns)


def paired_seeds(board: Board, one: str, other: str) -> pd.DataFrame:
    """FI(0.75) of two methods seed by seed: task, seed, fi_one, fi_other, difference, censored (either side is)."""
    frames = [pd.DataFrame(columns=["task", "seed", "fi_one", "fi_other", "difference", "censored"])]
    for task, digests in _common(board, one, other):
        mine, theirs = (board.headline([digest]) for digest in digests)
        pairs = mine.merge(theirs, on="seed", suffixes=("_one", "_other")).assign(task=task)
        pairs["difference"] = pairs["fi_one"] - pairs["fi_other"]
        pairs["censored"] = pairs["censored_one"] | pairs["censored_other"]
        frames.append(pairs[list(frames[0])])
    return pd.concat(frames[1:] or frames, ignore_index=True)


def _common(board: Board, one: str, other: str) -> list[tuple[str, tuple[str, str]]]:
    mine, theirs = (board.table[board.table["what"] == what].set_index("task")["digest"] for what in (one, other))
    return [(str(task), (str(mine[task]), str(theirs[task]))) for task in mine.index if task in theirs.index]


def rank_of(board: Board, entry: Entry, submission: Submission) -> dict[str, Any]:
    """Where a valid submission would stand; it need not be on the board.

    Returns:
        Its row as `ranked_table` has it, with the rank among the entries of its task and track, and ``entries``: how
        many those are with this one. An entry that it supersedes is left out.
    """
    task = board.tasks[entry.task_id]
    here = board.table[board.table["task"] == entry.task_id]
    here = here[~here["digest"].isin([entry.digest, entry.supersedes])]
    found = score_raw(task, raw_frame(submission))
    alone = ranked_table(found.scores, found.own_scores, found.costs, task.spec.horizon)
    row = {str(column): alone[column].iloc[0] for column in alone}
    mine = found.scores[(found.scores["metric"] == ALL) & (found.scores["threshold"] == HEADLINE)]
    for name in RATIO_BASELINES:
        rival = here.loc[here["method"] == name, "digest"]
        if len(rival):
            ratio = paired_ratio(mine, board.headline(rival))
            values = (ratio.estimate, ratio.low, ratio.high, ratio.bound, ratio.tied)
            row |= dict(zip((f"ratio_{name}{part}" for part in _RATIO), values, strict=True))
    peers = board.headline(here.loc[here["track"] == entry.track, "digest"]).rename(columns={"digest": "method"})
    ranks = rank_methods(pd.concat([peers, mine.assign(method=entry.digest)]))
    return {**row, "rank": ranks[entry.digest], "entries": len(ranks)}


def machines(board: Board) -> pd.DataFrame:
    """On what every entry was run, one row per session: digest, device, processor, gpu."""
    rows = [(digest, *machine) for digest, entry in board.entries.items() for machine in entry.machines]
    return pd.DataFrame(rows, columns=["digest", "device", "processor", "gpu"])


def cell_costs(board: Board) -> pd.DataFrame:
    """What a cell, one method and seed over all generations, took the baselines: task, method, seconds (mean), cells,
    processor, device.

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
