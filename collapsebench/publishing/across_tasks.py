"""Compares methods over several tasks of the board: scores over a tier, and pairs of methods."""

from __future__ import annotations

from typing import Any

import pandas as pd

from collapsebench.publishing.board import Board
from collapsebench.scoring.fidelity import Array
from collapsebench.scoring.overall import (
    LEVELS,
    mean_over_tasks,
    missing_tasks,
    performance_profile,
    probability_of_improvement,
)
from collapsebench.scoring.statistics import NOTHING, Estimate, paired_difference, paired_ratio


def ranked_tasks(board: Board, tier: str) -> list[str]:
    """Ids of a tier's tasks that count in overall scores: calibrated, ranked, and not ranked separately."""
    counted = {i: task for i, task in board.tasks.items() if not task.unranked and not task.spec.beside}
    return sorted(i for i, task in counted.items() if task.spec.tier == tier)


def overall_table(board: Board, tier: str, track: str) -> pd.DataFrame:
    """Methods over all ranked tasks of a tier, from mFI / G of every task and seed; no score if a task is missing.

    Returns:
        Columns method, what, tasks (number), missing (task ids), share (mean over tasks), share_low, share_high,
        improvement (probability of being better than CE), improvement_low, improvement_high, verified (number of
        entries). Methods with a score come first, sorted best first; the others are sorted by number of tasks.
    """
    all_tasks = ranked_tasks(board, tier)
    mine = _in_ranking(board, tier, track)
    ce = board.table[board.table["task"].isin(all_tasks) & (board.table["method"] == "ce")]
    own = dict(zip(ce["task"], ce["digest"], strict=True))
    baseline = _shares(board, own)
    rows = []
    for what, group in mine.groupby("what", sort=False) if len(mine) else ():
        digests = dict(zip(group["task"], group["digest"], strict=True))
        missing = missing_tasks(digests, all_tasks)
        score, better = NOTHING, NOTHING
        if not missing:
            shares = _shares(board, digests)
            score = mean_over_tasks(shares, all_tasks) or NOTHING
            if digests != own:  # CE is not compared with itself
                better = probability_of_improvement(shares, baseline, all_tasks) or NOTHING
        rows.append(
            {
                "method": str(group["method"].iloc[0]).split(" (")[0],
                "what": what,
                "tasks": len(group),
                "missing": missing,
                **_interval("share", score),
                **_interval("improvement", better),
                "verified": int((group["verified"] == "verified").sum()),
            }
        )
    intervals = [f"{name}{end}" for name in ("share", "improvement") for end in ("", "_low", "_high")]
    table = pd.DataFrame(rows, columns=["method", "what", "tasks", "missing", *intervals, "verified"])
    table = table.astype(dict.fromkeys(intervals, "float64"))
    return table.sort_values(["share", "tasks"], ascending=False, na_position="last", ignore_index=True)


def profile_table(board: Board, tier: str, track: str) -> pd.DataFrame:
    """Performance profiles of the methods with entries on every ranked task of a tier.

    Returns:
        Columns method, what, level (τ) and runs (share of runs with mFI / G ≥ τ, mean over tasks).
    """
    all_tasks, frames = ranked_tasks(board, tier), []
    mine = _in_ranking(board, tier, track)
    labels = {what: label for label, what in methods_by_label(board).items()}
    for what, group in mine.groupby("what", sort=False) if len(mine) else ():
        digests = dict(zip(group["task"], group["digest"], strict=True))
        if missing_tasks(digests, all_tasks):
            continue
        runs = performance_profile(_shares(board, digests), all_tasks)
        frames.append(pd.DataFrame({"method": labels[str(what)], "what": what, "level": LEVELS, "runs": runs}))
    columns = ["method", "what", "level", "runs"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def _in_ranking(board: Board, tier: str, track: str) -> pd.DataFrame:
    """The rows of the board that count in overall scores."""
    table = board.table
    if table.empty:
        return table
    return table[table["task"].isin(ranked_tasks(board, tier)) & (table["track"] == track)]


def _shares(board: Board, digests: dict[str, str]) -> dict[str, Array]:
    """mFI / G by task, one value per seed."""
    return {task: board.seeds(digest)["share"].to_numpy() for task, digest in digests.items()}


def _interval(name: str, found: Estimate) -> dict[str, float | None]:
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def methods_by_label(board: Board) -> dict[str, str]:
    """Every ranked method's ``what``, by a label unique on the board; a method may have entries on many tasks."""
    names = board.table.drop_duplicates("what")
    name = names["digest"].map(lambda digest: board.entries[digest].name)
    labels = name.where(~name.duplicated(keep=False), name + " (" + names["what"].str[:8] + ")")
    return dict(sorted(zip(labels, names["what"], strict=True)))


def compared_methods(board: Board, one: str, other: str) -> pd.DataFrame:
    """Compare two methods on every task where both have entries, with one planned comparison per task.

    Args:
        one, other: values of ``what`` in the table.

    Returns:
        Columns task, digest_one, digest_other, mfi_one, mfi_other, n (paired seeds), and for `one` against `other`
        ratio, ratio_low, ratio_high, difference, difference_low, difference_high, tied (whether the interval of the
        difference contains 0; None without an interval).
    """
    rows = []
    for task, digests in _common(board, one, other):
        pairs = _pairs(board, digests)
        mine, theirs = pairs["mfi_one"].to_numpy(), pairs["mfi_other"].to_numpy()
        difference = paired_difference(mine, theirs)
        tied = None
        if difference.low is not None and difference.high is not None:
            tied = difference.low <= 0 <= difference.high
        row: dict[str, Any] = {"task": task, "digest_one": digests[0], "digest_other": digests[1]}
        row |= {"mfi_one": board.seeds(digests[0])["mfi"].mean(), "mfi_other": board.seeds(digests[1])["mfi"].mean()}
        row |= {"n": difference.n, **_interval("ratio", paired_ratio(mine, theirs))}
        rows.append({**row, **_interval("difference", difference), "tied": tied})
    ends = [f"{name}{end}" for name in ("ratio", "difference") for end in ("", "_low", "_high")]
    columns = ["task", "digest_one", "digest_other", "mfi_one", "mfi_other", "n", *ends, "tied"]
    return pd.DataFrame(rows, columns=columns)


def paired_seeds(board: Board, one: str, other: str) -> pd.DataFrame:
    """mFI of two methods seed by seed: task, seed, mfi_one, mfi_other, difference."""
    frames = [pd.DataFrame(columns=["task", "seed", "mfi_one", "mfi_other", "difference"])]
    for task, digests in _common(board, one, other):
        pairs = _pairs(board, digests).assign(task=task)
        pairs["difference"] = pairs["mfi_one"] - pairs["mfi_other"]
        frames.append(pairs[list(frames[0])])
    return pd.concat(frames[1:] or frames, ignore_index=True)


def _pairs(board: Board, digests: tuple[str, str]) -> pd.DataFrame:
    mine, theirs = (board.seeds(digest)[["seed", "mfi"]] for digest in digests)
    return mine.merge(theirs, on="seed", suffixes=("_one", "_other"))


def _common(board: Board, one: str, other: str) -> list[tuple[str, tuple[str, str]]]:
    mine, theirs = (board.table[board.table["what"] == what].set_index("task")["digest"] for what in (one, other))
    return [(str(task), (str(mine[task]), str(theirs[task]))) for task in mine.index if task in theirs.index]
