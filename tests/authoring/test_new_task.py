"""A task from data of one's own, as the command writes it; calibration tried out on less."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from command import collapsebench
from tiny_task import paragraphs, write_bars, write_tiny_task

from collapsebench.task import load_task


def test_task_on_a_text_is_ready_to_be_run(tmp_path: Path) -> None:
    (tmp_path / "My notes.txt").write_text("\n\n".join(paragraphs(600)), "utf-8")
    made = collapsebench("init", "text", "My notes.txt", cwd=tmp_path)
    assert made.code == 0, made.err
    file = tmp_path / "My notes-task" / "task.yaml"
    task = load_task(file)
    assert task.id == "my-my-notes@1"
    assert task.base_weights().parent == file.parent, "the weights lie beside it"
    assert "collapsebench compare My notes-task/task.yaml" in made.out
    assert not task.has_references
    arguments = ["run", file, "--method", "ce", "--generations", 0, "--budget", 0.02, "--device", "cpu", "--quiet"]
    finished = collapsebench(*arguments, cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "nll_per_byte" in finished.out
    again = collapsebench("init", "text", "My notes.txt", cwd=tmp_path)
    assert again.code == 2
    assert "is there already" in again.err


def test_tutorial_shows_the_task_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("\n\n".join(paragraphs(4000)), "utf-8")
    assert collapsebench("init", "text", "corpus.txt", "--task", ".", cwd=tmp_path).code == 0
    written = yaml.safe_load((tmp_path / "task.yaml").read_text("utf-8"))
    tutorial = Path(__file__).parents[2] / "docs" / "adding-a-task.md"
    block = re.search(r"```yaml\n(# collapsebench compare.*?)```", tutorial.read_text("utf-8"), re.DOTALL)
    assert block
    assert yaml.safe_load(block[1]) == written


def test_task_on_images_gets_its_classifier_and_is_ready(tmp_path: Path) -> None:
    write_bars(tmp_path / "bars", 420)
    made = collapsebench("init", "images", "bars", "--task", "mine", cwd=tmp_path)
    assert made.code == 0, made.err
    assert "collapsebench classifier mine/task.yaml" in made.out
    trained = collapsebench("classifier", "mine/task.yaml", "--epochs", 1, cwd=tmp_path)
    assert trained.code == 0, trained.err
    assert "training the classifier: 100 %" in trained.err
    arguments = ["run", "mine/task.yaml", "--method", "tce", "--generations", 0, "--budget", 0.1, "--device", "cpu"]
    finished = collapsebench(*arguments, cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "negative_elbo" in finished.out
    assert "fd_classifier" in finished.out


TOO_LITTLE = {
    "little text": (["text", "little.txt"], r"little.txt has 3\d\d? bytes in 3 documents"),
    "no images": (["images", "empty"], "empty has no sub-folder; give one sub-folder"),
    "nothing": (["text", "absent"], "absent: no such file or folder"),
}


@pytest.mark.parametrize("name", TOO_LITTLE)
def test_data_that_is_too_little_is_told_with_what_is_needed(tmp_path: Path, name: str) -> None:
    (tmp_path / "little.txt").write_text("\n\n".join("words and words " * 7 for _ in range(3)), "utf-8")
    (tmp_path / "empty").mkdir()
    arguments, told = TOO_LITTLE[name]
    finished = collapsebench("init", *arguments, cwd=tmp_path)
    assert finished.code == 2
    assert re.search(told, finished.err)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["empty", "little.txt"]


def test_calibration_is_tried_out_on_less_and_writes_nothing_into_the_task(tmp_path: Path) -> None:
    task = write_tiny_task(tmp_path / "task", "gmm", scored={"kl_to_truth": {}, "minority_mass": {}})
    before = {file: file.read_bytes() for file in (tmp_path / "task").iterdir()}
    less = ["--seeds", "3,4", "--generations", 1, "--device", "cpu"]
    finished = collapsebench("calibrate", task, *less, cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "mean over seeds [3, 4]" in finished.out
    assert "A try-out in " in finished.out
    assert {file: file.read_bytes() for file in (tmp_path / "task").iterdir()} == before
    assert [place.name for place in (tmp_path / "runs").iterdir()] == ["calibration"]
    for wrong, told in ((["--write"], "without --write"), (["--seeds", "1"], "give two at least")):
        refused = collapsebench("calibrate", task, *less[2:4], *wrong, cwd=tmp_path)
        assert refused.code == 2
        assert told in refused.err
