"""Trackers: what they are told, that they are closed whatever happens, and that nothing is tracked unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import accelerate.tracking
import pytest
from command import collapsebench, python
from tiny_task import write_tiny_task
from torch import Tensor

from collapsebench import api
from collapsebench.errors import RunError, UserError
from collapsebench.losses import Elements, Loss
from collapsebench.resources import Resources
from collapsebench.running.tracking import check_tracker, tracking
from collapsebench.task import Task, load_task

TRACKERS = ("tensorboard", "wandb", "trackio")


class Recorder:
    """A tracker that remembers what it is told."""

    made: ClassVar[list[Recorder]] = []

    def __init__(self, run: str, **arguments: Any):
        self.run, self.arguments = run, arguments
        self.calls: list[str] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        Recorder.made.append(self)

    def start(self) -> None:
        self.calls.append("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.calls.append("config")
        self.config = values

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append("log")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.calls.append("finish")


class Refuses(Recorder):
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        raise ValueError("not like this")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """All trackers are installed, and are recorders; those that were opened."""
    monkeypatch.setattr(Recorder, "made", [])
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: list(TRACKERS))
    for name in TRACKERS:
        monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, name, Recorder)
    return Recorder.made


def tracked(task: Path, tracker: str = "tensorboard") -> Task:
    return load_task(task, resources=Resources(track=tracker))


def on_disk(path: Path, g: int) -> dict[str, float]:
    """Metrics, engagement and seconds of a generation, under the names that a tracker shows."""
    folder = path / f"gen-{g}"
    found = json.loads((folder / "metrics.json").read_text())
    seconds = json.loads((folder / "timing.json").read_text())
    values = {name: m["value"] for name, m in found["metrics"].items()}
    values |= {f"engagement/{name}": share for name, share in found["engagement"].items()}
    return values | {f"seconds/{p}": s for p, s in seconds.items()}


@pytest.mark.parametrize("kind", ["gmm", "pretrained-lm"])
def test_every_generation_arrives_once_with_its_metrics_and_seconds(
    recorded: list[Recorder], tmp_path: Path, kind: str
) -> None:
    task = tracked(write_tiny_task(tmp_path, kind))
    path = api.run(task, "ce", out=tmp_path / "runs", generations=1, device="cpu")
    assert api.run(task, "ce", out=tmp_path / "runs", generations=2, device="cpu") == path
    first, resumed = recorded
    assert first.calls == ["start", "config", "log", "log", "finish"]
    assert resumed.calls == ["start", "config", "log", "finish"]
    assert first.logged + resumed.logged == [(g, on_disk(path, g)) for g in (0, 1, 2)]
    assert {"seconds/train", "seconds/sample", "seconds/evaluate", *task.spec.scored} <= first.logged[0][1].keys()


def test_every_cell_of_a_comparison_has_a_tracker_of_its_own(recorded: list[Recorder], tmp_path: Path) -> None:
    task = tracked(write_tiny_task(tmp_path, "gmm"))
    api.compare(task, ["ce", "tce"], [0, 1], tmp_path / "runs", generations=0, device="cpu", engine="inline")
    assert [(r.config["method"], r.config["seed"]) for r in recorded] == [("ce", 0), ("tce", 0), ("ce", 1), ("tce", 1)]
    assert len({r.run for r in recorded}) == 4
    assert all([step for step, _ in r.logged] == [0] for r in recorded)


@pytest.mark.parametrize("tracker", TRACKERS)
def test_runs_are_named_after_their_cells(recorded: list[Recorder], tmp_path: Path, tracker: str) -> None:
    task = tracked(write_tiny_task(tmp_path, "gmm"), tracker)
    path = api.run(task, "ce", 1, tmp_path / "runs", generations=0, device="cpu")
    (opened,) = recorded
    cell = str(path.relative_to(tmp_path / "runs"))
    assert cell.endswith("/seed-1")
    if tracker == "tensorboard":
        assert (opened.run, opened.arguments) == (cell, {"logging_dir": tmp_path / "runs" / "tracking"})
    else:
        assert (opened.run, opened.arguments) == ("collapsebench", {"name": cell})


class Weighted(Loss):
    word: str = "soft"
    scale: float = 1.0

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * self.scale


def test_configuration_is_stored_as_plain_values(recorded: list[Recorder], tmp_path: Path) -> None:
    task = tracked(write_tiny_task(tmp_path, "gmm"))
    api.run(task, Weighted(scale=2.0), 1, tmp_path / "runs", generations=0, device="cpu")
    config = recorded[0].config
    assert (config["task"], config["seed"], config["scale"], config["reduction"]) == ("tiny-gmm@1", 1, 2.0, "mean")
    assert config["word"] == "soft"
    assert config["method"].startswith("Weighted")


# When something goes wrong


class BreaksLater(Loss):
    def elementwise(self, e: Elements) -> Tensor:
        if e.generation == 1:
            raise ZeroDivisionError
        return -e.log_p


class NaNLater(Loss):
    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * (float("nan") if e.generation == 1 else 1.0)


def test_tracker_is_closed_when_the_run_fails(recorded: list[Recorder], tmp_path: Path) -> None:
    task = tracked(write_tiny_task(tmp_path, "gmm"))
    with pytest.raises(UserError, match="ZeroDivisionError"):
        api.run(task, BreaksLater, out=tmp_path / "runs", device="cpu")
    assert recorded[0].calls == ["start", "config", "log", "finish"]


def test_diverged_generation_has_nothing_to_track(recorded: list[Recorder], tmp_path: Path) -> None:
    task = tracked(write_tiny_task(tmp_path, "gmm"))
    api.run(task, NaNLater, out=tmp_path / "runs", device="cpu")
    assert recorded[0].calls == ["start", "config", "log", "finish"]


def test_tracker_that_fails_is_closed_and_fails_its_cell(
    recorded: list[Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", Refuses)
    task = tracked(write_tiny_task(tmp_path, "gmm"))
    with pytest.raises(RunError, match="not like this"):
        api.compare(task, ["ce"], [0], tmp_path / "runs", generations=0, device="cpu", engine="inline")
    assert recorded[0].calls == ["start", "finish"]


def nothing_installed() -> None:
    accelerate.tracking.get_available_trackers = list


@pytest.mark.parametrize("tracker", TRACKERS)
def test_tracker_that_is_not_installed_is_a_users_mistake(tiny: Path, tmp_path: Path, tracker: str) -> None:
    finished = collapsebench(
        "run", tiny, "--method", "ce", "--track", tracker, "--device", "cpu", cwd=tmp_path, before=nothing_installed
    )
    assert finished.code == 2
    message = f"error: --track {tracker} needs the package {tracker}, which is not installed: pip install {tracker}."
    assert message in finished.err.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_tracker_that_nobody_knows_is_wrong_syntax(tiny: Path, tmp_path: Path) -> None:
    finished = collapsebench("run", tiny, "--method", "ce", "--track", "notebook", cwd=tmp_path)
    assert finished.code == 2
    assert "'tensorboard', 'wandb', 'trackio'" in finished.err


# When nobody asks


def test_only_the_first_of_several_processes_tracks(
    recorded: list[Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accelerate's trackers for wandb and trackio would open a run in every process."""
    for rank, opened in (("1", 0), ("0", 1)):
        monkeypatch.setenv("RANK", rank)
        with tracking("wandb", "cell", tmp_path, {}) as log:
            log({"perplexity": 2.0}, 0)
        assert len(recorded) == opened


def test_nothing_is_tracked_unasked(recorded: list[Recorder], tmp_path: Path) -> None:
    check_tracker(None)
    api.run(write_tiny_task(tmp_path, "gmm"), "ce", out=tmp_path / "runs", generations=0, device="cpu")
    assert recorded == []
    assert not (tmp_path / "runs" / "tracking").exists()


def test_trackers_are_not_even_imported_unasked(tmp_path: Path) -> None:
    code = """
import sys
from collapsebench.api import run
run(sys.argv[1], "ce", out="runs", generations=0, device="cpu")
print(sorted({"accelerate.tracking", "tensorboard", "wandb", "trackio"} & sys.modules.keys()))
"""
    finished = python("-c", code, write_tiny_task(tmp_path, "gmm"), cwd=tmp_path)
    assert finished.stdout == "[]\n", finished.stderr


def _without_accelerate() -> None:
    from collapsebench.running import tracking

    tracking.find_spec = lambda name: None


def test_tracking_without_accelerate_is_one_message(tmp_path: Path) -> None:
    task = write_tiny_task(tmp_path / "task", "gmm")
    arguments = ("run", task, "--method", "ce", "--track", "tensorboard")
    finished = collapsebench(*arguments, cwd=tmp_path, before=_without_accelerate)
    assert finished.code == 2
    assert "--track tensorboard needs the package accelerate, which is not installed: pip install" in finished.err
    assert "Traceback" not in finished.err
