"""A task that is scored on the oldest and the newest fraction of the real text that a seed knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command import collapsebench
from tiny_task import results, tiny_spec, write_based_task
from torch import Tensor

from collapsebench.api import run
from collapsebench.authoring.estimate import estimate
from collapsebench.errors import TaskError
from collapsebench.losses import Elements, Loss
from collapsebench.methods import load_method
from collapsebench.policies import known_fractions
from collapsebench.running.artifacts import RunDirectory
from collapsebench.running.loop import Chain
from collapsebench.scoring.fidelity import fidelity
from collapsebench.scoring.scales import task_scales
from collapsebench.task import load_task, registered_tasks
from collapsebench.task_spec import TaskSpec
from collapsebench.workloads import load_workload
from collapsebench.workloads.work import fraction_items, work_of

pytestmark = pytest.mark.usefixtures("one_thread")
LAST, FRACTION = 2, 16
CHANGES: dict[str, Any] = {
    "name": "tiny-fresh",
    "horizon": LAST,
    "policy": {"name": "regenerate-fresh", "size": (LAST + 1) * FRACTION},
    "workload.evaluation.fraction_windows": FRACTION,
    "scored": {"oldest_nll_per_byte": {}, "newest_nll_per_byte": {}},
}
NAMES = ("oldest_nll_per_byte", "newest_nll_per_byte")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task file; not to be changed."""
    return write_based_task(tmp_path_factory.mktemp("fractions"), **CHANGES)


@pytest.fixture(scope="module")
def finished(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished chain of cross entropy; not to be changed."""
    return run(task, "ce", out=tmp_path_factory.mktemp("finished"), device="cpu")


def chain_of(file: Path, path: Path, seed: int = 0) -> Chain:
    task = load_task(file)
    return Chain(task, load_method("ce"), seed, load_workload(task, "cpu"), RunDirectory(path))


def values(path: Path, g: int) -> dict[str, Any]:
    return json.loads((path / f"gen-{g}" / "metrics.json").read_text())["metrics"]


def member(task: Path, folder: Path, changes: str) -> Path:
    """Another task of the family, with the id of the first one, on which randomness depends."""
    file = folder / "task.yaml"
    file.write_text(f"extends: {task}\nname: tiny-fresh\nversion: 1\ntitle: A member\n{changes}\n")
    return file


def loss_per_byte(model: Any, windows: Tensor) -> float:
    windows = windows.long()
    with torch.no_grad():
        log_p = model(windows).logits[:, :-1].log_softmax(-1).gather(-1, windows[:, 1:, None])
    return -float(log_p.double().mean())


def rows(items: Tensor) -> set[bytes]:
    return {item.numpy().tobytes() for item in items}


# Which windows


def test_losses_are_those_on_what_generation_0_and_the_generation_were_the_first_to_read(
    task: Path, finished: Path
) -> None:
    chain = chain_of(task, finished)
    for g in range(LAST + 1):
        model = chain.workload.load_model(finished / f"gen-{g}" / "model.safetensors")
        measured = values(finished, g)
        for name, index in zip(NAMES, (0, g), strict=True):
            windows = chain.real.items[index * FRACTION : (index + 1) * FRACTION]
            assert measured[name]["n"] == windows[:, 1:].numel()
            assert measured[name]["value"] == pytest.approx(loss_per_byte(model, windows), rel=1e-4)
    first = values(finished, 0)
    assert first[NAMES[0]] == first[NAMES[1]], "at generation 0 the oldest fraction is the newest"
    assert values(finished, 1)[NAMES[0]] != values(finished, 1)[NAMES[1]]


def test_fractions_are_disjoint_parts_of_what_a_seed_draws_from_the_training_split(task: Path, finished: Path) -> None:
    chain, other = chain_of(task, finished), chain_of(task, finished, seed=1)
    parts = [known_fractions(chain.real, g, LAST).newest for g in range(LAST + 1)]
    assert [len(part) for part in parts] == [FRACTION] * (LAST + 1)
    assert len(set.union(*(rows(part.items) for part in parts))) == (LAST + 1) * FRACTION
    train = rows(chain.workload.real.items)
    for one in (chain, other):
        assert rows(one.real.items) <= train
        assert not rows(one.real.items) & rows(chain.workload.text.test.int())
    assert rows(chain.real.items) != rows(other.real.items)
    assert rows(chain.training_set(0).items) == rows(parts[0].items)
    later = chain.training_set(2)
    assert rows(later.items[later.made_by < 0]) == rows(parts[2].items)


def test_fewer_windows_are_taken_evenly(task: Path, tmp_path: Path) -> None:
    file = member(task, tmp_path, "workload: {evaluation: {fraction_windows: 4}}")
    chain = chain_of(file, tmp_path)
    model = chain.workload.load_model(load_task(file).base_weights())
    measured = chain.measured_fractions(1, model, lambda _: None)
    for name, start in zip(NAMES, (0, FRACTION), strict=True):
        windows = chain.real.items[start : start + FRACTION : FRACTION // 4]
        assert measured[name].n == windows[:, 1:].numel()
        assert measured[name].value == pytest.approx(loss_per_byte(model, windows), rel=1e-4)


def test_what_is_read_again_is_counted_before_it_is_read(task: Path, finished: Path) -> None:
    spec, chain, counted = load_task(task).spec, chain_of(task, finished), []
    model = chain.workload.load_model(finished / "gen-1" / "model.safetensors")
    chain.measured(1, model, chain.training_set(1).items, counted.append)
    assert fraction_items(spec) == FRACTION
    assert sum(counted) == work_of(spec, 1).evaluated * 32


def test_estimate_counts_what_is_read_again(task: Path, tmp_path: Path) -> None:
    without = member(
        task, tmp_path, "workload: {evaluation: {fraction_windows: null}}\nscored: !replace {perplexity: {}}"
    )
    found, less = (estimate(load_task(file)) for file in (task, without))
    wanted = load_task(task).spec.workload.evaluation
    windows = wanted.test_windows + wanted.selection_windows
    for g in range(LAST + 1):
        assert found.generations[g].evaluation * windows == less.generations[g].evaluation * (windows + 2 * FRACTION)
    assert not any("lower bound" in note for note in found.notes), "from a base model, a seed's data is known"


def test_resumed_chain_measures_the_same(task: Path, finished: Path, tmp_path: Path) -> None:
    run(task, "ce", out=tmp_path, device="cpu", generations=1)
    assert results(run(task, "ce", out=tmp_path, device="cpu")) == results(finished)


# What is refused


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"policy": {"name": "replace", "size": 32}}, "fraction_windows needs the policy regenerate-fresh"),
        ({"workload.vocab_size": 320, "workload.evaluation.by_byte": False}, "fraction_windows needs vocab_size 257"),
        (
            {"scored": {NAMES[0]: {"reference": 1.0, "floor": 2.0, "later": [0.9]}}},
            r"\['oldest_nll_per_byte'\] lack references of later generations",
        ),
        ({"scored": {NAMES[0]: {"later": [0.9, 0.8]}}}, "later: references of later generations"),
        (
            {"scored": {NAMES[0]: {"reference": 1.0, "floor": 2.0, "later": [0.9, 2.0]}}},
            "reference and floor are equal",
        ),
    ],
)
def test_task_without_such_fractions_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(TaskError, match=told):
        load_task(write_based_task(tmp_path, train=False, **(CHANGES | changes)))


def test_other_text_tasks_measure_no_fractions() -> None:
    plain = TaskSpec.model_validate(tiny_spec("text"))
    assert not plain.workload.measures_fractions
    assert not set(NAMES) & set(plain.metrics)
    assert [n for n in registered_tasks() if set(NAMES) & set(load_task(n).spec.metrics)] == ["text-bytes-micro-fresh"]


# The scale


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the calibrated task and its runs."""
    folder = tmp_path_factory.mktemp("calibrated")
    file = write_based_task(folder / "task", **CHANGES)
    done = collapsebench("calibrate", file, "--write", "--force", "--device", "cpu", cwd=folder)
    assert done.code == 0, done.err
    return folder


def mean(folder: Path, method: str, name: str, g: int) -> float:
    paths = [folder / "runs" / "tiny-fresh@1" / method / f"seed-{seed}" for seed in (0, 1)]
    return sum(values(path, g)[name]["value"] for path in paths) / len(paths)


def test_references_are_ce_at_generation_0_and_the_control_after_it(calibrated: Path) -> None:
    for name, scale in load_task(calibrated / "task" / "task.yaml").spec.scored.items():
        assert scale.reference == float(f"{mean(calibrated, 'ce', name, 0):.6g}")
        assert scale.later == tuple(float(f"{mean(calibrated, 'control', name, g):.6g}") for g in range(1, LAST + 1))


def test_floors_are_the_base_model_and_generation_0_on_what_it_never_saw(calibrated: Path) -> None:
    file = calibrated / "task" / "task.yaml"
    ignorant, unseen = [], []
    for seed in (0, 1):
        chain = chain_of(file, calibrated, seed)
        base = chain.workload.load_model(load_task(file).base_weights())
        ignorant.append(loss_per_byte(base, chain.real.items[:FRACTION]))
        weights = calibrated / "runs" / "tiny-fresh@1" / "ce" / f"seed-{seed}" / "gen-0" / "model.safetensors"
        unseen.append(loss_per_byte(chain.workload.load_model(weights), chain.real.items[FRACTION:]))
    scored = load_task(file).spec.scored
    assert scored[NAMES[0]].floor == pytest.approx(sum(ignorant) / 2, rel=1e-4)
    assert scored[NAMES[1]].floor == pytest.approx(sum(unseen) / 2, rel=1e-4)
    assert scored[NAMES[1]].floor < scored[NAMES[0]].floor


def test_committed_record_follows_from_its_values(calibrated: Path) -> None:
    checked = collapsebench("calibrate", "task/task.yaml", "--check", cwd=calibrated)
    assert "control: mean fidelity 1.000 to 1.000" in checked.out
    assert "by the references of generation 0" in checked.out
    assert "do not follow" not in checked.out + checked.err


class Nothing(Loss):
    """Nothing is learned, ever."""

    def elementwise(self, e: Elements) -> Tensor:
        return 0.0 * e.log_p


class OnlyAtFirst(Loss):
    """Cross entropy in generation 0, and nothing to learn ever after."""

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * float(e.generation == 0)


@pytest.mark.parametrize(("loss", "first"), [(Nothing, (0.0, 0.1)), (OnlyAtFirst, (0.8, 1.0))])
def test_who_learns_nothing_has_nothing(
    calibrated: Path, tmp_path: Path, loss: Callable[[], Loss], first: tuple[float, float]
) -> None:
    task = load_task(calibrated / "task" / "task.yaml")
    path = run(task, loss, out=tmp_path, device="cpu")
    for name, scale in task_scales(task).items():
        low, high = first
        assert low <= fidelity(values(path, 0)[name]["value"], scale, 0) <= high
        for g in range(1, LAST + 1):
            assert fidelity(values(path, g)[name]["value"], scale, g) < 0.1, "up to weight decay and the seed's windows"


def test_report_tells_the_reference_of_every_generation(calibrated: Path) -> None:
    compared = collapsebench("compare", "task/task.yaml", "--methods", "ce,control", "--device", "cpu", cwd=calibrated)
    assert compared.code == 0, compared.err
    page = (calibrated / "runs" / "tiny-fresh@1" / "report.html").read_text("utf-8")
    assert "(in later generations" in page
