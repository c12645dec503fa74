"""Retired tasks on every page: what was measured is shown, and nobody is ranked by it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from collapsebench.paths import bundled
from collapsebench.publishing.across_tasks import overall_table, profile_table, ranked_tasks
from collapsebench.publishing.board import Board, leaderboard_table, read_board
from collapsebench.publishing.validation import known_tasks
from collapsebench.task import Task

Site = Callable[..., AppTest]
RETIRED = "gmm-micro@1"


@pytest.fixture
def mixed(folder: Path) -> Path:
    """Entries on ranked tasks and on a retired one."""
    shutil.copytree(bundled("submissions") / RETIRED, folder / RETIRED)
    return folder


@pytest.fixture
def mixed_board(mixed: Path, tasks: dict[str, Task]) -> Board:
    unranked = {task_id: task for task_id, task in known_tasks().items() if task.unranked}
    return read_board(mixed, unranked | {task.id: task for task in tasks.values()})


def said(app: AppTest) -> str:
    kinds = (app.markdown, app.caption, app.info, app.warning)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def tables(app: AppTest) -> list[list[str]]:
    """Columns of every table of entries."""
    return [list(frame.value) for frame in app.dataframe if "entry" in frame.value and "mfi" in frame.value]


def test_retired_tasks_come_last_without_rank_or_verdict(mixed_board: Board) -> None:
    table = mixed_board.table
    retired = table["retired"].astype(bool)
    assert set(table.loc[retired, "task"]) == {RETIRED}
    assert retired.is_monotonic_increasing
    assert table.loc[retired, ["rank_best", "rank_worst", "verdict_ce", "verdict_tce"]].isna().all(axis=None)
    assert table.loc[retired, "method"].tolist() == ["ce", "focal", "tce"]
    assert table.loc[retired, ["mfi", "mfi_low", "ratio_ce"]].notna().all(axis=None)
    assert table.loc[~retired, "rank_best"].notna().all()


def test_published_table_says_which_tasks_are_retired(mixed_board: Board) -> None:
    table = leaderboard_table(mixed_board)
    assert list(table)[:4] == ["task", "tier", "retired", "track"]
    assert dict(zip(table["task"], table["retired"], strict=True))[RETIRED]


def test_retired_task_counts_nowhere_over_tasks(mixed_board: Board, tasks: dict[str, Task]) -> None:
    assert ranked_tasks(mixed_board, "micro") == sorted(task.id for task in tasks.values())
    overall = overall_table(mixed_board, "micro", "loss").set_index("method")
    assert list(overall.index[:2]) == ["Loss_A:beta=1", "Loss_B"]
    assert "tce" not in overall.index
    assert overall.loc["Loss_B", "missing"] == []
    profile = profile_table(mixed_board, "micro", "loss")
    assert set(profile["method"]) == {"Loss_A:beta=1", "Loss_B"}
    assert profile.loc[profile["level"] == 0, "runs"].eq(1).all()


def test_board_shows_retired_tasks_apart_and_last(mixed: Path, tasks: dict[str, Task], site: Site) -> None:
    app = site(mixed)
    assert not app.exception
    assert [header.anchor for header in app.header][:2] == ["forest", "overall"]
    assert app.header[-1].anchor == "retired"
    assert [subheader.anchor for subheader in app.subheader] == ["gmm-micro"]
    assert ["rank_best" in columns for columns in tables(app)] == [True] * len(tasks) + [False]
    assert f"Left out, because they are retired: diffusion-mnist-micro@1, {RETIRED}" in said(app)


def test_board_with_retired_tasks_alone_says_that_nothing_is_ranked(
    site: Site, monkeypatch: pytest.MonkeyPatch, tasks: dict[str, Task], tmp_path: Path
) -> None:
    folder = tmp_path / "retired-alone"
    shutil.copytree(bundled("submissions") / RETIRED, folder / RETIRED)
    tasks_before = dict(tasks)
    tasks.clear()
    try:
        app = site(folder)
    finally:
        tasks.update(tasks_before)
    assert not app.exception
    assert not any("rank_best" in columns for columns in tables(app))


def test_ranked_tasks_without_entries_invite(mixed: Path, tasks: dict[str, Task], site: Site) -> None:
    for task in tasks.values():
        shutil.rmtree(mixed / task.id)
    assert "Nobody has submitted to" in said(site(mixed))


def test_task_page_says_why(mixed: Path, site: Site) -> None:
    app = site(mixed, "task", task=RETIRED)
    assert not app.exception
    assert "This task is retired" in app.warning[0].value
    assert "no longer counts as evidence" in app.warning[0].value


def test_new_file_for_it_is_not_invited(mixed: Path, site: Site) -> None:
    (file,) = (mixed / RETIRED).glob("tce-*.json")
    content = file.read_bytes()
    file.unlink()
    app = site(mixed, "check")
    app.file_uploader[0].upload(file.name, content).run()
    assert not app.exception
    assert "Its task is retired" in app.warning[0].value
    assert "Rank" not in [metric.label for metric in app.metric]


@pytest.mark.parametrize(("page", "query"), [("gallery", {"task": RETIRED}), ("submission", {}), ("compare", {})])
def test_other_pages_mark_it(page: str, query: dict[str, str], mixed: Path, site: Site) -> None:
    if page == "submission":
        (file,) = (mixed / RETIRED).glob("tce-*.json")
        query = {"entry": file.stem.rpartition("-")[2]}
    app = site(mixed, page, **query)
    assert not app.exception
    if page == "compare":
        (table,) = (f.value for f in app.dataframe if "verdict" in f.value)
        assert table[["task", "verdict"]].to_numpy().tolist() == [[f"{RETIRED} (retired)", "retired"]]
    else:
        assert "Retired task: not ranked" in said(app)
    assert "Rank" not in [metric.label for metric in app.metric]
