"""The page of a task shows every metric that its entries have, those of the task's own benchmarks included."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from submission_files import tiny_task, valid_submission, write

from collapsebench.task import Task

PAIRS = {"name": "pairs", "file": "pairs.jsonl", "format": "blimp", "chance": 0.5}
MORE = {"name": "items", "task": "hellaswag", "metric": "acc_norm"}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Task]:
    """The only task of this site: one with benchmarks, one of them scored."""
    changes = {"workload.evaluation.harness": [PAIRS, MORE]}
    return {"benchmarks": tiny_task(tmp_path_factory.mktemp("benchmarks"), "pretrained-lm", **changes)}


def test_task_page_shows_every_metric_in_the_tasks_order(
    tasks: dict[str, Task], tmp_path: Path, site: Callable[..., AppTest]
) -> None:
    (task,) = tasks.values()
    submission = valid_submission(task)
    write(submission, tmp_path)
    measured = submission.results[0].generations[0].metrics
    assert {"harness_pairs", "harness_items", "knowledge_fraction_3"} <= measured.keys()
    shown: list[str] = []
    for theme in ("tail", "diversity", "other"):
        page = site(tmp_path, "task", task=task.id, profile=theme)
        assert not page.exception
        shown += [plain(block.value) for block in page.markdown]
    titles = {name: task.spec.metric(name).title for name in task.spec.metrics if name in measured}
    assert set(titles.values()) <= set(shown)
    own = [title for name, title in titles.items() if name.startswith(("knowledge", "harness_items"))]
    assert len(own) == 6
    assert [title for title in shown if title in own] == own


def plain(text: str) -> str:
    """The visible text of a bold title."""
    return html.unescape(text.strip("*"))


def test_board_names_a_benchmark_that_is_scored(
    tasks: dict[str, Task], tmp_path: Path, site: Callable[..., AppTest]
) -> None:
    (task,) = tasks.values()
    write(valid_submission(task), tmp_path)
    page = site(tmp_path)
    assert not page.exception
    assert any("pairs (acc)" in plain(caption.value) for caption in page.caption)
