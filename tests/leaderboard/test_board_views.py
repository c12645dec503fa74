"""What pages compute from the board, without Streamlit."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from submission_files import valid_submission, write

from collapsebench.publishing.across_tasks import compared_methods, methods_by_label, paired_seeds
from collapsebench.publishing.board import (
    Board,
    cell_costs,
    crossings,
    fidelity_bands,
    machines,
    rank_of,
    raw_bands,
    read_board,
)
from collapsebench.publishing.entries import Entry
from collapsebench.publishing.submission import Submission, canonical_bytes, raw_frame
from collapsebench.publishing.validation import known_tasks
from collapsebench.scoring.fidelity import ALL
from collapsebench.scoring.statistics import paired_difference, paired_ratio
from collapsebench.task import Task


@pytest.fixture(scope="module")
def committed() -> Board:
    from collapsebench.paths import bundled

    return read_board(bundled("submissions"), known_tasks())


def entry_for(submission: Submission) -> Entry:
    return Entry.of(Path("-"), canonical_bytes(submission), submission)


def test_bands_hold_mean_and_range_over_seeds(board: Board) -> None:
    digest = board.table["digest"].iloc[0]
    curves = board.scores([digest]).curves
    bands = fidelity_bands(curves)
    assert set(bands["metric"]) == {ALL, *curves["metric"]}
    for row in bands[bands["metric"] != ALL].itertuples():
        mine = curves[(curves["metric"] == row.metric) & (curves["generation"] == row.generation)]["fidelity"]
        assert (row.low, row.high) == (mine.min(), mine.max())
        assert row.mean == pytest.approx(mine.mean())
        assert row.seeds == len(mine)


def test_band_of_all_metrics_is_the_smallest_of_every_seed(board: Board) -> None:
    curves = board.scores([board.table["digest"].iloc[0]]).curves
    smallest = curves.groupby(["seed", "generation"])["fidelity"].min().groupby("generation").mean()
    bands = fidelity_bands(curves)
    mean = bands[bands["metric"] == ALL].set_index("generation")["mean"]
    assert mean.to_dict() == pytest.approx(smallest.to_dict())


def test_raw_bands_leave_out_what_diverged(tasks: dict[str, Task]) -> None:
    raw = raw_frame(valid_submission(tasks["gmm"]))
    last = raw["generation"].max()
    raw.loc[(raw["seed"] == 0) & (raw["generation"] == last), ["metric", "value", "status"]] = [None, None, "diverged"]
    bands = raw_bands(raw)
    seeds = bands.groupby("generation")["seeds"].max()
    assert seeds[last] == seeds[0] - 1


def test_crossings_are_those_of_the_table(board: Board) -> None:
    row = board.table.iloc[0]
    found = crossings(board.scores([row["digest"]]).scores).set_index(["metric", "threshold"])
    assert found.loc[(ALL, 0.75), "fi"] == pytest.approx(row["fi_0.75"])
    assert found.loc[(ALL, 0.5), "fi"] == pytest.approx(row["fi_0.5"])
    assert bool(found.loc[(ALL, 0.75), "censored"]) == bool(row["fi_0.75_censored"])


def test_mean_over_seeds_is_what_the_table_shows(board: Board) -> None:
    for row in board.table.itertuples():
        mine = board.seeds(str(row.digest))
        assert mine["mfi"].mean() == pytest.approx(row.mfi)
        assert mine["share"].mean() == pytest.approx(row.share)


def test_method_has_one_label_on_all_its_tasks(board: Board) -> None:
    assert sorted(methods_by_label(board)) == ["Loss_A:beta=1", "Loss_B", "Loss_C"]


def test_methods_with_one_name_are_told_apart(tmp_path: Path, tasks: dict[str, Task]) -> None:
    for kind, source in (("text", "1"), ("gmm", "2")):
        submission = valid_submission(tasks[kind], name="Same")
        method = submission.method.model_copy(update={"source_sha256": source * 64})
        write(submission.model_copy(update={"method": method}), tmp_path)
    labels = methods_by_label(read_board(tmp_path, {task.id: task for task in tasks.values()}))
    assert len(labels) == 2
    assert all(label.startswith("Same (") for label in labels)


def test_comparison_of_methods_is_that_of_their_seeds(board: Board) -> None:
    known = methods_by_label(board)
    found = compared_methods(board, known["Loss_A:beta=1"], known["Loss_B"])
    assert len(found) == 3
    for row in found.itertuples():
        mine, theirs = (board.seeds(str(digest))["mfi"].to_numpy() for digest in (row.digest_one, row.digest_other))
        ratio, difference = paired_ratio(mine, theirs), paired_difference(mine, theirs)
        assert row.n == ratio.n == difference.n
        assert row.ratio == ratio.estimate
        assert row.difference == difference.estimate
        assert row.tied == (difference.low <= 0 <= difference.high)


def test_methods_without_a_common_task_compare_to_nothing(tmp_path: Path, tasks: dict[str, Task]) -> None:
    write(valid_submission(tasks["text"], name="One"), tmp_path)
    write(valid_submission(tasks["gmm"], name="Two"), tmp_path)
    board = read_board(tmp_path, {task.id: task for task in tasks.values()})
    known = methods_by_label(board)
    assert compared_methods(board, known["One"], known["Two"]).empty
    assert paired_seeds(board, known["One"], known["Two"]).empty


def test_seeds_are_paired(board: Board) -> None:
    known = methods_by_label(board)
    pairs = paired_seeds(board, known["Loss_A:beta=1"], known["Loss_B"])
    assert pairs["difference"].tolist() == pytest.approx((pairs["mfi_one"] - pairs["mfi_other"]).tolist())
    assert not pairs.duplicated(["task", "seed"]).any()


def test_published_entry_would_rank_where_it_ranks(committed: Board) -> None:
    for row in committed.table.to_dict("records"):
        entry = committed.entries[row["digest"]]
        found = rank_of(committed, entry, entry.submission)
        for column in (
            "rank_best",
            "rank_worst",
            "mfi",
            "mfi_low",
            "ratio_ce",
            "ratio_tce",
            "ratio_tce_high",
            "verdict_ce",
        ):
            assert found[column] == row[column] or (pd.isna(found[column]) and pd.isna(row[column]))
        assert found["entries"] == (committed.table["task"] == row["task"]).sum()


def test_new_entry_ranks_among_the_others(board: Board, tasks: dict[str, Task]) -> None:
    submission = valid_submission(tasks["text"], name="New")
    found = rank_of(board, entry_for(submission), submission)
    assert found["entries"] == 4
    assert 1 <= found["rank_best"] <= found["rank_worst"] <= 4
    assert found["ratio_ce"] is None


def test_correction_takes_the_place_of_what_it_supersedes(board: Board, tasks: dict[str, Task]) -> None:
    old = board.table.loc[board.table["method"] == "Loss_C", "digest"].iloc[0]
    submission = valid_submission(tasks["text"], name="New", supersedes=old)
    assert rank_of(board, entry_for(submission), submission)["entries"] == 3


def test_machines_are_read_from_their_part_of_the_file(board: Board) -> None:
    found = machines(board)
    assert set(found["digest"]) == set(board.entries)
    assert set(found["device"]) == {"cpu"}
    session = board.entries[found["digest"].iloc[0]].submission.provenance[0]
    assert found["processor"].iloc[0] == session.processor


def test_costs_are_those_that_the_baselines_recorded(committed: Board) -> None:
    costs = cell_costs(committed)
    assert set(costs["method"]) <= {"ce", "focal", "tce"}
    row = costs.iloc[0]
    digest = committed.table.query("task == @row.task and method == @row.method")["digest"].iloc[0]
    submission = committed.entries[digest].submission
    total = sum(g.seconds for result in submission.results for g in result.generations)
    assert row["seconds"] * row["cells"] == pytest.approx(total)
    assert cell_costs(read_board(Path("nowhere"), {})).empty
