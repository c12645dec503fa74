"""The fraction of the text that is new to a generation: measured on as much in every one, and what its floor is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_task import write_tiny_task

from collapsebench.api import run
from collapsebench.authoring.estimate import estimate
from collapsebench.authoring.floors import measured_floors, unseen_floors
from collapsebench.authoring.grid import settings_around
from collapsebench.errors import DataError
from collapsebench.policies import fraction
from collapsebench.task import load_task
from collapsebench.workloads import load_workload
from collapsebench.workloads.work import planned_elements

pytestmark = pytest.mark.usefixtures("one_thread")

PARTS = 3
CHANGES: dict[str, Any] = {
    "horizon": PARTS - 1,
    "policy.size": 50,  # fractions of 16, 17 and 17 windows
    "workload.sampler.method": "draw",
    "workload.evaluation.oldest_windows": 6,
    "workload.evaluation.newest_windows": 6,
    "workload.evaluation.harness": [],
    "scored": {
        name: {} for name in ("oldest_perplexity", "newest_perplexity", "knowledge_retention", "knowledge_newest")
    },
}


def write_task(folder: Path, locations: tuple[int, ...], **changes: Any) -> Path:
    """A task with a question about each of these rows of its training text."""
    file = write_tiny_task(folder, "pretrained-lm", **(CHANGES | changes))
    items = json.loads((folder / "data/knowledge.json").read_text("utf-8"))
    asked = [items[i % len(items)] | {"location": row} for i, row in enumerate(locations)]
    (folder / "data/knowledge.json").write_text(json.dumps(asked), "utf-8")
    return file


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task file; not to be changed."""
    return write_task(tmp_path_factory.mktemp("newest"), (0, 0, *range(12)))


@pytest.fixture(scope="module")
def finished(task: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The metrics of every generation of cross entropy."""
    path = run(task, "ce", out=tmp_path_factory.mktemp("runs"), device="cpu")
    return [json.loads((path / f"gen-{g}/metrics.json").read_text("utf-8"))["metrics"] for g in range(PARTS)]


def perplexity_on_6_windows(model: Any, workload: Any, g: int) -> float:
    """Perplexity on evenly spaced windows of the fraction of a generation."""
    windows = fraction(workload.real, g, PARTS).items.long()
    windows = windows[torch.arange(6) * len(windows) // 6]
    with torch.no_grad():
        log_p = model(windows).logits[:, :-1].log_softmax(-1).gather(-1, windows[:, 1:, None])
    return math.exp(-float(log_p.mean()))


def test_newest_fraction_is_the_one_that_arrived_in_the_generation(task: Path, tmp_path: Path) -> None:
    still = {**CHANGES, "workload.training.learning_rate": 1e-30}  # so that every model is the one of the folder
    path = run(write_task(tmp_path, tuple(range(12)), **still), "ce", out=tmp_path / "runs", device="cpu")
    workload: Any = load_workload(load_task(task), "cpu")
    model = workload.new_model(None).eval()
    for g in range(PARTS):
        metrics = json.loads((path / f"gen-{g}/metrics.json").read_text("utf-8"))["metrics"]
        expected = perplexity_on_6_windows(model, workload, g)
        assert metrics["newest_perplexity"]["value"] == pytest.approx(expected, rel=1e-5)


def test_oldest_fraction_is_the_newest_of_generation_0(finished: list[dict[str, Any]]) -> None:
    assert finished[0]["newest_perplexity"] == finished[0]["oldest_perplexity"]
    assert finished[1]["newest_perplexity"] != finished[1]["oldest_perplexity"]


def test_every_generation_is_measured_on_as_much(finished: list[dict[str, Any]]) -> None:
    sizes = [{name: metric["n"] for name, metric in metrics.items()} for metrics in finished]
    assert sizes[0] == sizes[1] == sizes[2]
    by_fraction = [sizes[0]["knowledge_retention"], *(sizes[0][f"knowledge_fraction_{g}"] for g in (1, 2))]
    assert sizes[0]["knowledge_newest"] == min(by_fraction)
    assert len(set(by_fraction)) > 1, "else there was nothing to even out"
    assert sizes[0]["newest_perplexity"] == sizes[0]["oldest_perplexity"] == 6 * 15


def test_progress_and_estimate_count_the_windows(task: Path) -> None:
    spec = load_task(task).spec
    without = spec.model_copy(
        update={
            "workload": spec.workload.model_copy(
                update={"evaluation": spec.workload.evaluation.model_copy(update={"newest_windows": None})}
            )
        }
    )
    assert planned_elements(spec, 0) - planned_elements(without, 0) == 6 * spec.workload.block
    assert estimate(load_task(task)).total.evaluation > 0


def test_floor_is_what_generation_0_makes_of_text_that_it_never_saw(task: Path, tmp_path: Path) -> None:
    loaded, expected = load_task(task), []
    workload: Any = load_workload(loaded, "cpu")
    for seed in loaded.spec.seeds:
        path = run(task, "ce", seed=seed, out=tmp_path, device="cpu", generations=0)
        model = workload.load_model(path / "gen-0/model.safetensors").eval()
        expected.append(sum(perplexity_on_6_windows(model, workload, g) for g in (1, 2)) / 2)
    unseen = unseen_floors(loaded, "cpu", tmp_path)
    assert unseen.keys() == {"newest_perplexity", "knowledge_newest"}
    assert unseen["newest_perplexity"] == pytest.approx(expected, rel=1e-5)
    floors, base = measured_floors(loaded, "cpu", tmp_path, unseen)
    assert floors["oldest_perplexity"] == base["oldest_perplexity"][0], "of the untouched weights"
    assert floors["newest_perplexity"] == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert floors["knowledge_newest"] == max(0.5, sum(unseen["knowledge_newest"]) / 2), "a guess is right half the time"
    assert "newest_perplexity" not in measured_floors(loaded, "cpu", tmp_path)[0], "the base model's is no floor of it"


def test_calibration_tries_other_rates_and_epochs_of_a_fine_tuning(task: Path) -> None:
    tried = {(setting.learning_rate, setting.epochs, setting.updates) for setting in settings_around(load_task(task))}
    assert tried == {(rate, epochs, None) for rate in (2.5e-3, 5e-3, 1e-2) for epochs in (1, 2)}


def test_a_fraction_that_nothing_is_asked_about_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no item about the training windows 16 to 32, the fraction of generation 1"):
        load_workload(load_task(write_task(tmp_path, (0, 1))), "cpu")


@pytest.mark.parametrize("name", ["text-wikitext2-smollm2", "text-wikitext2-llama-3.2-1b", "text-wikitext2-gemma-3-1b"])
def test_registered_tasks_score_the_oldest_and_the_newest_fraction(name: str) -> None:
    spec = load_task(name).spec
    assert [*spec.scored] == ["oldest_perplexity", "newest_perplexity", "knowledge_retention", "knowledge_newest"]
    assert {spec.metric(name).reference for name in spec.scored} == {"control"}, "of every generation its own"
    assert [spec.metric(name).floor for name in spec.scored] == ["ignorant", "unseen"] * 2
