"""The board over a folder of submissions: ranks, ratios, verification, what is broken, the committed table."""

from __future__ import annotations

import datetime
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from submission_files import engaged, entry_of, tiny_task, valid_submission, write

from collapsebench.paths import bundled
from collapsebench.publishing import board, validation
from collapsebench.publishing.across_tasks import overall_table
from collapsebench.publishing.board import (
    Board,
    differing_rows,
    leaderboard_table,
    rank_of,
    read_board,
)
from collapsebench.publishing.submission import (
    Attestation,
    Difference,
    Submission,
    attestation_path,
    canonical_bytes,
    json_schema,
    raw_frame,
    sha256_of,
    submission_path,
)
from collapsebench.publishing.validation import known_tasks, submission_files
from collapsebench.scoring.scales import score_raw
from collapsebench.task import Task


@pytest.fixture(scope="module")
def text_task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return tiny_task(tmp_path_factory.mktemp("text"), "text")


@pytest.fixture(scope="module")
def gmm_task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return tiny_task(tmp_path_factory.mktemp("gmm"), "gmm")


def changed(submission: Submission, change: Callable[[dict[str, Any]], None]) -> Submission:
    content = submission.model_dump(mode="json")
    change(content)
    return Submission.model_validate_json(json.dumps(content))


def longer(submission: Submission, generations: int) -> Submission:
    """Delay the decay by this many generations, for a method that is better by construction."""

    def later(content: dict[str, Any]) -> None:
        for result in content["results"]:
            metrics = [g["metrics"] for g in result["generations"]]
            for g, target in enumerate(result["generations"]):
                target["metrics"] = metrics[max(0, g - generations)]

    return changed(submission, later)


def attest(
    path: Path,
    by: str,
    outcome: str = "matched",
    sha256: str | None = None,
    processor: str | None = None,
    generations: int = 1,
) -> Path:
    machine = Submission.model_validate_json(path.read_bytes()).provenance[0]
    if processor is not None:
        machine = machine.model_copy(update={"processor": processor})
    content = canonical_bytes(
        Attestation(
            schema_version=1,
            submission_sha256=sha256 or sha256_of(path.read_bytes()),
            seed=0,
            generations=generations,
            outcome=outcome,  # type: ignore[arg-type]
            tolerance=0.005,
            compared=10,
            identical=9,
            largest=Difference(metric="perplexity", generation=1, submitted=1.0, measured=1.5, relative=0.5),
            by=by,
            date=datetime.date(2026, 1, 1).isoformat(),
            machine=machine,
            alike=processor is None,
        )
    )
    file = attestation_path(path, content)
    file.write_bytes(content)
    return file


def board_of(folder: Path, *tasks: Task) -> Board:
    return read_board(folder, {task.id: task for task in tasks})


def test_folder_without_submissions_has_an_empty_board(tmp_path: Path, text_task: Task) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        board = board_of(folder, text_task)
        assert board.table.empty
        assert board.broken == []
        assert overall_table(board, "micro", "loss").empty


def test_better_method_ranks_first(tmp_path: Path, text_task: Task) -> None:
    write(valid_submission(text_task, name="Plain"), tmp_path)
    write(longer(valid_submission(text_task, name="Better"), 1), tmp_path)
    table = board_of(tmp_path, text_task).table
    assert list(table["method"]) == ["Better", "Plain"]
    assert table["mfi"].is_monotonic_decreasing
    assert table["rank_best"].tolist() == [1, 2]


def test_row_says_how_much_of_the_gradient_is_masked_where_that_was_measured(tmp_path: Path, text_task: Task) -> None:
    write(valid_submission(text_task, name="Before"), tmp_path)
    write(engaged(valid_submission(text_task, name="Masks"), 0.25), tmp_path)
    board = board_of(tmp_path, text_task)
    table = leaderboard_table(board).set_index("method")["masked_gradient"]
    assert table["Masks"] == pytest.approx(0.25)
    assert pd.isna(table["Before"])
    late = engaged(valid_submission(text_task, name="Late"), 0.5)
    assert rank_of(board, entry_of(late), late)["masked_gradient"] == pytest.approx(0.5)


def test_row_says_what_the_entry_is(tmp_path: Path, text_task: Task) -> None:
    submission = valid_submission(text_task, name="Plain")
    path = write(submission, tmp_path)
    board = board_of(tmp_path, text_task)
    (row,) = board.table.to_dict("records")
    assert row["task"] == text_task.id
    assert (row["tier"], row["modality"], row["track"]) == ("micro", "text", "loss")
    assert path.stem.endswith(row["digest"])
    assert row["authors"] == ", ".join(submission.authors)
    assert len(row["curve"]) == text_task.spec.horizon + 1
    assert board.label(row["digest"]) == "Plain"


def test_scores_of_the_board_are_those_of_a_comparison(tmp_path: Path, text_task: Task) -> None:
    write(valid_submission(text_task, name="Plain"), tmp_path)
    board = board_of(tmp_path, text_task)
    scores = board.scores(list(board.table["digest"])).scores
    compared = score_raw(text_task, raw_frame(next(iter(board.entries.values())).submission)).scores
    pd.testing.assert_frame_equal(scores, compared)
    over_all = scores[scores["metric"] == "all"]
    assert board.table["mfi"].tolist() == pytest.approx([over_all["mfi"].mean()])
    assert board.seeds(board.table["digest"].item())["mfi"].tolist() == pytest.approx(over_all["mfi"].tolist())


def test_tracks_are_ranked_apart(tmp_path: Path, text_task: Task) -> None:
    write(longer(valid_submission(text_task, name="Better"), 1), tmp_path)
    provenance = changed(valid_submission(text_task, name="Sees"), lambda c: c["method"].update(track="provenance"))
    write(provenance, tmp_path)
    table = board_of(tmp_path, text_task).table
    assert table[["track", "method", "rank_best"]].to_numpy().tolist() == [
        ["loss", "Better", 1],
        ["provenance", "Sees", 1],
    ]


def test_two_entries_of_one_name_are_told_apart(tmp_path: Path, text_task: Task) -> None:
    for beta in (0.1, 0.2):
        submission = valid_submission(text_task, name="Same", seed_noise=beta / 10)
        write(changed(submission, lambda c, b=beta: c["method"]["parameters"].update(beta=b)), tmp_path)
    table = board_of(tmp_path, text_task).table
    assert sorted(table["method"]) == sorted(f"Same ({digest[:8]})" for digest in table["digest"])


def test_superseded_entry_leaves_the_ranking_and_stays_known(tmp_path: Path, text_task: Task) -> None:
    old = write(valid_submission(text_task, name="Plain"), tmp_path)
    digest = old.stem.split("-")[-1]
    write(valid_submission(text_task, name="Plain", seed_noise=0.02, supersedes=digest), tmp_path)
    board = board_of(tmp_path, text_task)
    assert len(board.table) == 1
    assert board.superseded == {digest}
    assert digest in board.entries
    assert board.table["digest"].item() != digest


def test_broken_files_among_good_ones_are_listed(tmp_path: Path, text_task: Task) -> None:
    write(valid_submission(text_task, name="Plain"), tmp_path)
    (tmp_path / text_task.id / "broken.json").write_text("{")
    copied = valid_submission(text_task, name="Plain")
    write(
        changed(copied, lambda c: c["method"].update(name="Thief", loss="t.py:Thief", source_sha256="0" * 64)), tmp_path
    )
    board = board_of(tmp_path, text_task)
    assert {verdict.path.name.split("-")[0]: verdict.problems[0].code for verdict in board.broken} == {
        "broken.json": "not-json",
        "Plain": "copied",
        "Thief": "copied",
    }
    assert board.table.empty


@pytest.mark.parametrize(
    ("attestations", "verified"),
    [
        ([], "no"),
        ([("C. Reader", "matched")], "verified"),
        ([("the author", "matched")], "by its authors"),
        ([("the author", "matched"), ("C. Reader", "matched")], "verified"),
        ([("C. Reader", "matched"), ("D. Reader", "differed")], "disputed"),
    ],
)
def test_attestations_decide_what_counts_as_verified(
    tmp_path: Path, text_task: Task, attestations: list[tuple[str, str]], verified: str
) -> None:
    submission = valid_submission(text_task, name="Plain")
    path = write(submission, tmp_path)
    for by, outcome in attestations:
        attest(path, submission.authors[0] if by == "the author" else by, outcome)
    board = board_of(tmp_path, text_task)
    assert board.table["verified"].item() == verified
    assert sum(len(found) for found in board.attestations.values()) == len(attestations)


def test_a_file_that_cannot_be_read_is_listed_and_stops_nothing(
    tmp_path: Path, text_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(valid_submission(text_task, name="Plain"), tmp_path)
    gone = tmp_path / text_task.id / "gone-0123456789abcdef.json"
    gone.write_text("{}")

    def read(path: Path) -> bytes:
        if path == gone:
            raise OSError(5, "Input/output error")
        return path.read_bytes()

    monkeypatch.setattr(validation, "read_bounded", read)
    board = board_of(tmp_path, text_task)
    assert board.table["method"].tolist() == ["Plain"]
    assert [(v.path, v.problems[0].code) for v in board.broken] == [(gone, "unreadable")]


def test_a_match_of_generation_0_alone_is_inconclusive(tmp_path: Path, text_task: Task) -> None:
    path = write(valid_submission(text_task, name="Plain"), tmp_path)
    attest(path, "C. Reader", generations=0)
    assert board_of(tmp_path, text_task).table["verified"].item() == "inconclusive"


def test_difference_on_another_machine_is_inconclusive(tmp_path: Path, text_task: Task) -> None:
    path = write(valid_submission(text_task, name="Plain"), tmp_path)
    attest(path, "C. Reader", "differed", processor="Another one")
    assert board_of(tmp_path, text_task).table["verified"].item() == "inconclusive"
    attest(path, "D. Reader")
    assert board_of(tmp_path, text_task).table["verified"].item() == "verified"
    attest(path, "E. Reader", "differed")
    assert board_of(tmp_path, text_task).table["verified"].item() == "disputed"


def test_attestation_about_another_content_does_not_count(tmp_path: Path, text_task: Task) -> None:
    path = write(valid_submission(text_task, name="Plain"), tmp_path)
    attest(path, "C. Reader", sha256="0" * 64)
    board = board_of(tmp_path, text_task)
    assert board.table["verified"].item() == "no"
    assert [verdict.problems[0].code for verdict in board.broken] == ["attestation"]


def test_overall_score_needs_every_task(tmp_path: Path, text_task: Task, gmm_task: Task) -> None:
    for task in (text_task, gmm_task):
        write(longer(valid_submission(task, name="Both"), 1), tmp_path)
    write(valid_submission(text_task, name="One"), tmp_path)
    overall = overall_table(board_of(tmp_path, text_task, gmm_task), "micro", "loss").set_index("method")
    assert overall.loc["Both", "tasks"] == 2
    assert overall.loc["One", "missing"] == [gmm_task.id]
    assert pd.isna(overall.loc["One", "share"])
    assert 0 < overall.loc["Both", "share_low"] <= overall.loc["Both", "share"] <= overall.loc["Both", "share_high"] < 1


def test_file_is_ranked_among_the_entries_as_if_it_were_there(tmp_path: Path, text_task: Task) -> None:
    write(valid_submission(text_task, name="Plain"), tmp_path)
    board = board_of(tmp_path, text_task)
    better = longer(valid_submission(text_task, name="Better"), 1)
    row = rank_of(board, entry_of(better), better)
    write(better, tmp_path)
    there = board_of(tmp_path, text_task).table.set_index("method").loc["Better"]
    assert row["entries"] == 2
    for column in ("rank_best", "rank_worst", "mfi", "mfi_low", "binds"):
        assert row[column] == there[column]


def test_diverged_seed_counts_as_nothing_from_there_on(tmp_path: Path, text_task: Task) -> None:
    def diverge(content: dict[str, Any]) -> None:
        generations = content["results"][0]["generations"]
        del generations[2:]
        generations[1] = {**generations[1], "status": "diverged", "metrics": {}}
        content["samples"] = None

    write(changed(valid_submission(text_task, name="Plain"), diverge), tmp_path)
    board = board_of(tmp_path, text_task)
    assert board.broken == []
    (digest,) = board.table["digest"]
    assert (board.cells[digest].fidelity[0, :, 1:] == 0).all()
    assert (board.cells[digest].fidelity[1:, :, 1] > 0).all()


def test_older_version_of_a_task_stays_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tiny_task(tmp_path / "tiny", "gmm")
    path = write(valid_submission(old, name="Plain"), tmp_path / "submissions")
    old.path.rename(old.path.with_name("task@1.yaml"))
    raised = tiny_task(tmp_path / "tiny", "gmm", version=2)
    monkeypatch.setattr(validation, "registered_tasks", lambda: {"tiny-gmm": raised.path})
    assert sorted(known_tasks()) == ["tiny-gmm@1", "tiny-gmm@2"]
    board = read_board(path.parent, known_tasks())
    assert board.broken == []
    assert board.table["task"].tolist() == ["tiny-gmm@1"]


# The committed submissions


@pytest.fixture(scope="module")
def committed() -> Board:
    return read_board(bundled("submissions"), known_tasks())


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return pd.read_csv(bundled("submissions") / "leaderboard.csv")


def test_committed_leaderboard_is_what_the_submissions_give(committed: Board, published: pd.DataFrame) -> None:
    assert committed.broken == []
    assert differing_rows(published, leaderboard_table(committed)) == []


def test_baselines_of_every_calibrated_micro_task_are_submitted(committed: Board) -> None:
    micro = {task_id for task_id, task in known_tasks().items() if task.spec.tier == "micro"}
    rows = committed.table[committed.table["method"].isin(["ce", "focal", "tce"])]
    assert set(zip(rows["task"], rows["method"], strict=True)) == {
        (t, m) for t in micro for m in ("ce", "focal", "tce")
    }


def test_changed_score_is_named_with_its_row(committed: Board, published: pd.DataFrame) -> None:
    row = published.index[published["method"] == "tce"][0]
    published = published.copy()
    published.loc[row, "mfi"] += 2e-6
    (line,) = differing_rows(published, leaderboard_table(committed))
    assert line.startswith(f"{published.loc[row, 'task']}, loss, tce, {published.loc[row, 'digest']}: mfi is ")


def test_changed_submission_is_named_with_its_row(committed: Board, published: pd.DataFrame, tmp_path: Path) -> None:
    entry = next(e for e in committed.entries.values() if e.name == "focal" and e.task_id.startswith("text"))

    def worse(content: dict[str, Any]) -> None:
        for g in content["results"][0]["generations"][3:]:
            loss = g["metrics"]["token_loss"]["value"] * 1.01
            g["metrics"]["token_loss"]["value"], g["metrics"]["perplexity"]["value"] = loss, math.exp(loss)

    submission = changed(entry.submission, worse)
    content = canonical_bytes(submission)
    for other in committed.entries.values():
        target = tmp_path / other.task_id / other.path.name
        target.parent.mkdir(exist_ok=True)
        if other is not entry:
            target.write_bytes(other.path.read_bytes())
    (tmp_path / submission_path(submission, content)).write_bytes(content)
    lines = differing_rows(published, leaderboard_table(read_board(tmp_path, known_tasks())))
    assert any(line.startswith(f"{entry.task_id}, loss, focal, {entry.digest}: published, but no") for line in lines)
    assert any(
        line.startswith(f"{entry.task_id}, loss, focal, {sha256_of(content)[:16]}: submitted, but") for line in lines
    )


def test_committed_schema_is_that_of_the_code() -> None:
    assert (bundled("submissions") / "schema.json").read_text("utf-8") == json_schema()


def test_many_files_are_read_by_several_processes_with_the_same_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "submissions"
    shutil.copytree(bundled("submissions"), folder)
    whole = next(folder.glob("gmm-micro@1/ce-*.json"))
    (whole.parent / "cut.json").write_bytes(whole.read_bytes()[:-9])
    told: list[None] = []
    alone = read_board(folder, known_tasks())
    monkeypatch.setattr(board, "_MANY", 1)
    together = read_board(folder, known_tasks(), lambda: told.append(None), in_processes=True)
    assert len(told) == len(submission_files([folder]))
    pd.testing.assert_frame_equal(together.table, alone.table)
    assert [verdict.path for verdict in together.broken] == [verdict.path for verdict in alone.broken]
    assert together.broken
